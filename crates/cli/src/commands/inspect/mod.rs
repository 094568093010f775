//! `roofline inspect`: what a model is, without running it.

mod tensors;

use clap::Args;
use roofline_engine::ModelFiles;
use roofline_kernels::{Choice, KernelTable, Operation};
use roofline_lab::units::{bytes, grouped, si};
use roofline_limits::KvFormat;
use roofline_limits::Recipe;
use roofline_limits::accounting::{Accounting, WeightFormats};
use roofline_model::config::Ffn;
use roofline_weights::Format;
use serde_json::{Value, json};

use self::tensors::{Group, groups};
use super::tokenize::shown;
use crate::failure::Failure;
use crate::model::{self, requested_isa};
use crate::output::{Align, Format as Output, Section, Table, print, print_json, sections};

/// Show what a model is: sizes, tensors and their formats, tokenizer, template, and the kernels that would run it
///
/// Nothing is loaded; weights are only looked up.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  roofline inspect demo\n  roofline inspect model.gguf --tensors\n  \
    roofline inspect ./qwen3-0.6b --template\n  roofline inspect demo --json")]
pub struct Inspect {
    /// `demo`, a Hugging Face folder or a .gguf file
    model: String,
    /// List every tensor, not one line for those of all layers
    #[arg(long)]
    tensors: bool,
    /// Print the chat template too
    #[arg(long)]
    template: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Inspect {
    pub fn run(&self) -> Result<(), Failure> {
        let files = model::open(&self.model)?;
        let kernels = KernelTable::detect(requested_isa()?).map_err(Failure::new)?;
        let tensors = groups(files.checkpoint(), !self.tensors && !self.json);
        if self.json {
            return print_json(&as_json(&files, &kernels, &tensors)?);
        }
        let mut pages = vec![
            Section::table(
                format!("{} ({})", files.name(), files.config().family.name()),
                overview(&files, &tensors)?,
            ),
            Section::table("Configuration", configuration(&files)),
            Section::table("Text", text_facts(&files)),
            Section::table("Tensors", tensors::table(&tensors)),
            Section::table(
                format!("Kernels ({}; decode reads groups of rows {})", kernels.isa().name(), kernels.walk()),
                kernel_choices(&kernels, &tensors),
            ),
        ];
        if !files.notes().is_empty() {
            let notes = files.notes().iter().map(|note| (note.clone(), Vec::new()));
            pages.push(Section::items("Notes", notes.collect()));
        }
        let mut text = sections(&pages, Output::Table);
        if self.template {
            let template = files.template().map_or("(none)", |template| template.source());
            text.push_str(&format!("\nTemplate\n{template}\n"));
        }
        print(&text)
    }
}

fn overview(files: &ModelFiles, tensors: &[Group]) -> Result<Table, Failure> {
    let config = files.config();
    let (total, active) = (config.parameters().total(), config.active_parameters());
    let stored: u64 = tensors.iter().map(|group| group.bytes).sum();
    let weights: u64 = tensors.iter().map(|group| group.weights).sum();
    let mut table = Table::of_facts();
    let of_token = if active == total {
        String::new()
    } else {
        format!(", {} of them active per token", si(active as f64, ""))
    };
    table.row([
        "parameters".to_string(),
        format!("{} ({}){of_token}", grouped(total), si(total as f64, "").trim_end()),
    ]);
    let names: Vec<String> =
        files.checkpoint().files().map(|(name, size)| format!("{name} ({})", bytes(size))).collect();
    table.row(["files".to_string(), names.join(", ")]);
    table.row([
        "weights".to_string(),
        format!(
            "{} in {} tensors, {:.3} bits per weight",
            bytes(stored),
            tensors.iter().map(|g| g.count).sum::<usize>(),
            bits(stored, weights)
        ),
    ]);
    let kv: Vec<String> =
        kv_bytes(files)?.iter().map(|(format, b)| format!("{} {}", grouped(*b), format.name())).collect();
    table.row(["KV bytes per token".to_string(), kv.join(", ")]);
    let (_, f16) = kv_bytes(files)?[0];
    let context = config.context_length as u64;
    table.row([
        "context".to_string(),
        format!("{} tokens, whose KV takes {} in f16", grouped(context), bytes(f16.saturating_mul(context))),
    ]);
    Ok(table)
}

/// Bytes of K and V per token in each cache format the engine has without a policy.
fn kv_bytes(files: &ModelFiles) -> Result<[(KvFormat, u64); 2], Failure> {
    // The weight format does not matter for the cache.
    let of = |kv| {
        Ok::<_, Failure>((
            kv,
            Accounting::new(files.config(), WeightFormats::Recipe(Recipe::Uniform(Format::F32)), kv)?
                .kv_bytes_per_token(),
        ))
    };
    Ok([of(KvFormat::F16)?, of(KvFormat::F32)?])
}

fn configuration(files: &ModelFiles) -> Table {
    let config = files.config();
    let mut table = Table::of_facts();
    let mut row = |name: &str, value: String| table.row([name.to_string(), value]);
    row("layers", grouped(config.n_layers as u64));
    row("hidden_size", grouped(config.hidden_size as u64));
    row(
        "heads",
        format!("{} query, {} key/value, {} wide", config.n_heads, config.n_kv_heads, config.head_dim),
    );
    row("feed-forward", feed_forward(&config.ffn));
    row(
        "vocab_size",
        format!(
            "{}{}",
            grouped(config.vocab_size as u64),
            if config.tied_embeddings { ", embedding tied to the head" } else { "" }
        ),
    );
    row("norm", format!("{:?}, eps {:e}; q and k: {:?}", config.norm.kind, config.norm.eps, config.qk_norm));
    let rope = &config.rope;
    row(
        "rope",
        format!(
            "theta {}, {} of {} dimensions, pairs {:?}, scaling {:?}",
            rope.theta, rope.rotary_dim, config.head_dim, rope.pairing, rope.scaling
        ),
    );
    row("residual", format!("{:?}", config.residual));
    row("biases", biases(files));
    table
}

fn biases(files: &ModelFiles) -> String {
    let bias = files.config().bias;
    let named = [(bias.qkv, "q, k, v"), (bias.out, "output projection"), (bias.ffn, "feed-forward")];
    let present: Vec<&str> = named.iter().filter(|(has, _)| *has).map(|(_, name)| *name).collect();
    if present.is_empty() { "none".to_string() } else { present.join(", ") }
}

fn feed_forward(ffn: &Ffn) -> String {
    match ffn {
        Ffn::Gated { intermediate_size, activation } => {
            format!("gated {activation:?}, {} wide", grouped(*intermediate_size as u64))
        }
        Ffn::Plain { intermediate_size, activation } => {
            format!("{activation:?}, {} wide", grouped(*intermediate_size as u64))
        }
        Ffn::Experts { intermediate_size, activation, n_experts, n_active, renormalize } => format!(
            "{n_experts} experts of gated {activation:?}, {} wide, {n_active} per token, weights {}",
            grouped(*intermediate_size as u64),
            if *renormalize { "renormalised" } else { "as routed" }
        ),
    }
}

fn text_facts(files: &ModelFiles) -> Table {
    let mut table = Table::of_facts();
    let Some(tokenizer) = files.tokenizer() else {
        table.row(["tokenizer", "none: commands take token ids"]);
        return table;
    };
    let name = |id: u32| format!("{id} {}", shown(tokenizer.token(id).unwrap_or("(not in the vocabulary)")));
    let or_none = |id: Option<u32>| id.map_or("none".to_string(), name);
    table.row([
        "tokenizer".to_string(),
        format!("{}, {} tokens", tokenizer.kind(), grouped(tokenizer.vocab_size() as u64)),
    ]);
    table.row(["begin of text".to_string(), or_none(tokenizer.bos())]);
    table.row(["end of text".to_string(), or_none(tokenizer.eos())]);
    let stops: Vec<String> = files
        .stop_ids()
        .iter()
        .map(|stop| format!("{} ({})", name(stop.id), stop.sources.join(", ")))
        .collect();
    table.row([
        "stops at".to_string(),
        if stops.is_empty() { "nothing".to_string() } else { stops.join("; ") },
    ]);
    let template = files.template().map_or("none".to_string(), |template| {
        let names: Vec<&str> = template.names().collect();
        format!(
            "{}, {} characters (--template prints it)",
            names.join(", "),
            grouped(template.source().chars().count() as u64)
        )
    });
    table.row(["chat template".to_string(), template]);
    table
}

/// What the kernel table chose for the formats that this model has, and for operations without a format.
fn kernel_choices(kernels: &KernelTable, tensors: &[Group]) -> Table {
    let mut table = Table::new(&[
        ("operation", Align::Left),
        ("format", Align::Left),
        ("kernel", Align::Left),
        ("multiplies", Align::Left),
        ("not taken", Align::Left),
    ]);
    let is_weight_format = |name: &str| Format::from_name(name).is_some();
    let is_ours = |name: &str| tensors.iter().any(|group| group.format.name() == name);
    // A format of the cache may share its name with one of weights.
    let is_of_weights = |choice: &Choice| {
        !matches!(choice.operation, Operation::Attention | Operation::KvPage)
            && is_weight_format(choice.format)
    };
    for choice in kernels.choices().filter(|c| !is_of_weights(c) || is_ours(c.format)) {
        let skipped: Vec<String> =
            choice.skipped.iter().map(|(isa, why)| format!("{} ({why})", isa.name())).collect();
        table.row([
            choice.operation.name().to_string(),
            choice.format.to_string(),
            choice.chosen.name().to_string(),
            choice.numbers.to_string(),
            skipped.join(", "),
        ]);
    }
    table
}

fn bits(bytes: u64, weights: u64) -> f64 {
    if weights == 0 { 0.0 } else { bytes as f64 * 8.0 / weights as f64 }
}

fn as_json(files: &ModelFiles, kernels: &KernelTable, tensors: &[Group]) -> Result<Value, Failure> {
    let config = files.config();
    let kv: Vec<Value> =
        kv_bytes(files)?.iter().map(|(f, b)| json!({ "format": f.name(), "bytes": b })).collect();
    let stored: u64 = tensors.iter().map(|group| group.bytes).sum();
    let weights: u64 = tensors.iter().map(|group| group.weights).sum();
    let stops: Vec<Value> =
        files.stop_ids().iter().map(|s| json!({ "id": s.id, "sources": s.sources })).collect();
    let choices: Vec<Value> = kernels
        .choices()
        .map(|c| {
            let skipped: Vec<Value> =
                c.skipped.iter().map(|(isa, why)| json!({ "isa": isa.name(), "why": why.to_string() })).collect();
            json!({ "operation": c.operation.name(), "format": c.format, "chosen": c.chosen.name(), "numbers": c.numbers, "skipped": skipped })
        })
        .collect();
    Ok(json!({
        "name": files.name(),
        "family": config.family.name(),
        "parameters": { "total": config.parameters().total(), "active": config.active_parameters() },
        "configuration": {
            "n_layers": config.n_layers, "hidden_size": config.hidden_size, "n_heads": config.n_heads,
            "n_kv_heads": config.n_kv_heads, "head_dim": config.head_dim,
            "intermediate_size": config.ffn.intermediate_size(), "n_experts": config.n_experts(),
            "vocab_size": config.vocab_size, "context_length": config.context_length,
            "tied_embeddings": config.tied_embeddings, "rope_theta": config.rope.theta,
            "rotary_dim": config.rope.rotary_dim, "norm_eps": config.norm.eps,
        },
        "files": files.checkpoint().files().map(|(name, size)| json!({ "name": name, "bytes": size })).collect::<Vec<_>>(),
        "weight_bytes": stored,
        "bits_per_weight": bits(stored, weights),
        "kv_bytes_per_token": kv,
        "tokenizer": files.tokenizer().map(|t| json!({
            "kind": t.kind(), "vocab_size": t.vocab_size(), "bos": t.bos(), "eos": t.eos(),
        })),
        "stop_ids": stops,
        "template": files.template().map(|template| template.source()),
        "tensors": tensors.iter().map(Group::to_json).collect::<Vec<_>>(),
        "kernels": { "isa": kernels.isa().name(), "decode_walk": kernels.walk(), "choices": choices },
        "notes": files.notes(),
    }))
}
