//! `roofline run`: a prompt in, text out as it comes, and what it cost.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use indicatif::{ProgressBar, ProgressStyle};
use roofline_engine::sampling::Sampler;
use roofline_engine::{Arithmetic, GenerateOptions, Generation, GenerationInput, Model, ModelFiles, Session};
use serde_json::json;

use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::model::{self, DEMO, Machinery, Memory, parse_ids};
use crate::output::{Table, print_json, say, to_stderr};
use crate::record::Record;
use crate::roof::{self, Load};
use crate::sampling::{Chosen, Sampling};

/// Continue a text
///
/// Streams the text to stdout and a summary to stderr. MODEL is `demo`, a Hugging Face folder, or a .gguf file.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  roofline run -p 'It was a dark and stormy night'\n  \
    roofline run model.gguf -p 'Once upon a time' -n 100 --greedy\n  \
    cat letter.txt | roofline run ./Qwen2.5-0.5B - --json > run.json")]
pub struct Run {
    /// `demo`, a Hugging Face folder or a .gguf file; and `-` to read the prompt from stdin
    #[arg(value_name = "MODEL", num_args = 0..=2)]
    positional: Vec<String>,
    /// The prompt
    #[arg(short, long, value_name = "TEXT")]
    prompt: Option<String>,
    /// Read the prompt from a file; - is stdin
    #[arg(long, value_name = "FILE", conflicts_with = "prompt")]
    prompt_file: Option<PathBuf>,
    /// The prompt as token ids, as 1,2,3
    #[arg(long, value_name = "IDS", conflicts_with_all = ["prompt", "prompt_file"])]
    tokens: Option<String>,
    /// Tokens generated at most; a stop rule, it sizes nothing
    #[arg(short = 'n', long, value_name = "N", default_value_t = 256)]
    max_new_tokens: usize,
    /// End before this text; may be given again
    #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    stop: Vec<String>,
    /// Go on after an end token
    #[arg(long)]
    ignore_eos: bool,
    /// Report the N most probable tokens beside each one (in --json)
    #[arg(long, value_name = "N", default_value_t = 0)]
    top_logprobs: usize,
    /// Hold every stage against its limit: this machine's roof, probed now, and the data sheet's
    #[arg(long)]
    limits: bool,
    /// Device whose data sheet --limits uses [default: this processor's, if known]
    #[arg(long, value_name = "NAME", requires = "limits")]
    device: Option<String>,
    /// Print one JSON object instead of text and summary
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    memory: Memory,
    #[command(flatten)]
    machinery: Machinery,
    #[command(flatten)]
    sampling: Sampling,
}

/// Alternatives beyond this are no inspection any more.
const MOST_ALTERNATIVES: usize = 1000;

impl Run {
    pub fn run(&self) -> Result<(), Failure> {
        let (name, from_stdin) = self.model_and_stdin()?;
        let prompt = self.prompt_text(from_stdin)?;
        if self.top_logprobs > MOST_ALTERNATIVES {
            return Err(Failure::new(format_args!("--top-logprobs takes 0 to {MOST_ALTERNATIVES}")));
        }
        let options = self.memory.options()?;
        let files = model::open(&name)?;
        let chosen = self.sampling.choose(&files)?;
        let model = self.machinery.load(&files)?;
        let interrupt = Interrupt::install()?; // until here Ctrl-C just ends the program: there is nothing to keep
        let mut session = Session::new(model.clone(), options)?;

        let called = Instant::now();
        let ids = match &prompt {
            Prompt::Text(text) => encode(&files, text)?,
            Prompt::Ids(ids) => ids.clone(),
        };
        let mut sampler = sampler_for(&chosen, &model, session.context())?;
        let input = GenerationInput {
            session: &mut session,
            sampler: &mut sampler,
            tokenizer: files.tokenizer(),
            prompt: &ids,
            options: self.generate_options(&files),
            cancel: interrupt.flag(),
            called,
        };
        let record = stream(input, !self.json)?;
        let (roofs, note) = match self.limits {
            true => {
                let resident_bytes = record.load.weight_bytes + record.cache.live;
                let load = Load { resident_bytes, bits: arithmetic_bits(&files) };
                roof::roofs(self.device.as_deref(), model.cpu().threads(), load)?
            }
            false => (Vec::new(), None),
        };
        if self.json {
            let mut all = self.json(&record, &files, &session, &chosen);
            if self.limits {
                all["limits"] = roofs.iter().map(|roof| roof.json(&record)).collect();
                all["limits_note"] = json!(note);
            }
            return print_json(&all);
        }
        to_stderr(format_args!("\n{}", self.summary(&record, &files, &model, &chosen).to_text()));
        for roof in &roofs {
            to_stderr(format_args!("\n{}\n{}", roof.words(), roof.table(&record).to_text()));
        }
        if let Some(note) = note {
            say!("\n{note}");
        }
        Ok(())
    }

    /// The positional arguments: MODEL, `-`, or both.
    fn model_and_stdin(&self) -> Result<(String, bool), Failure> {
        match self.positional.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            [] => Ok((DEMO.to_string(), false)),
            ["-"] => Ok((DEMO.to_string(), true)),
            [model] => Ok((model.to_string(), false)),
            [model, "-"] if model != "-" => Ok((model.to_string(), true)),
            _ => Err(Failure::new("there is one MODEL, and after it only - for a prompt from stdin")
                .hint("give the prompt with -p TEXT")),
        }
    }

    fn prompt_text(&self, from_stdin: bool) -> Result<Prompt, Failure> {
        let given = [self.prompt.is_some(), self.prompt_file.is_some(), self.tokens.is_some(), from_stdin];
        if given.iter().filter(|&&given| given).count() > 1 {
            return Err(Failure::new("more than one prompt was given")
                .hint("give one of -p, --prompt-file, --tokens and -"));
        }
        if let Some(ids) = &self.tokens {
            return Ok(Prompt::Ids(parse_ids(ids)?));
        }
        let text = match (&self.prompt, &self.prompt_file) {
            (Some(text), _) => text.clone(),
            (None, Some(file)) if file.as_os_str() != "-" => std::fs::read_to_string(file)
                .map_err(|error| Failure::new(format_args!("--prompt-file {}: {error}", file.display())))?,
            (None, None) if !from_stdin => {
                return Err(Failure::new("no prompt was given")
                    .hint("give one with -p TEXT, --prompt-file FILE or -"));
            }
            (None, _) => {
                let mut text = String::new();
                std::io::stdin()
                    .read_to_string(&mut text)
                    .map_err(|error| Failure::new(format_args!("the prompt on stdin: {error}")))?;
                text
            }
        };
        Ok(Prompt::Text(text))
    }

    fn generate_options(&self, files: &ModelFiles) -> GenerateOptions {
        let stop_ids = files.stop_ids().iter().map(|stop| stop.id).collect();
        GenerateOptions {
            max_new_tokens: Some(self.max_new_tokens),
            stop_ids: if self.ignore_eos { Vec::new() } else { stop_ids },
            stop_texts: self.stop.clone(),
            top_logprobs: self.top_logprobs,
        }
    }

    fn summary(&self, record: &Record, files: &ModelFiles, model: &Model, chosen: &Chosen) -> Table {
        let mut table = record.table();
        let settings: Vec<String> = (chosen.settings.iter())
            .map(|setting| format!("{} {} ({})", setting.name, setting.value, setting.source))
            .collect();
        table.row(["sampling".to_string(), format!("{}, seed {}", settings.join(", "), chosen.config.seed)]);
        let stops: Vec<String> = (files.stop_ids().iter())
            .map(|stop| {
                let token =
                    files.tokenizer().and_then(|tokenizer| tokenizer.token(stop.id)).unwrap_or("no text");
                format!("{} {token} ({})", stop.id, stop.sources.join(", "))
            })
            .collect();
        if !stops.is_empty() {
            let ignored = if self.ignore_eos { ", ignored" } else { "" };
            table.row(["end tokens".to_string(), format!("{}{ignored}", stops.join("; "))]);
        }
        table.row(["runs on".to_string(), runs_on(model)]);
        for note in files.notes().iter().chain(&chosen.notes) {
            table.row(["note".to_string(), note.clone()]);
        }
        table
    }

    fn json(
        &self,
        record: &Record,
        files: &ModelFiles,
        session: &Session,
        chosen: &Chosen,
    ) -> serde_json::Value {
        let (model, options) = (session.model(), session.options());
        let mut all = record.json();
        all["model"] = json!(files.name());
        all["sampling"] = json!({ "settings": chosen.settings, "chain": chosen.config.chain.to_string(), "seed": chosen.config.seed });
        all["stop_ids"] =
            (files.stop_ids().iter()).map(|stop| json!({ "id": stop.id, "sources": stop.sources })).collect();
        all["threads"] = json!(model.cpu().threads());
        all["isa"] = json!(model.cpu().table().isa().name());
        all["arithmetic"] = json!(model.cpu().table().arithmetic().name());
        all["cache"] = json!(options.cache.to_string());
        all["kv_type"] = json!(options.kv_format.to_string());
        all["notes"] = files.notes().iter().chain(&chosen.notes).map(|note| json!(note)).collect();
        all
    }
}

/// Width of the arithmetic whose peak bounds this model: f32 for float weights, integers of 8 bits for quantized
/// ones, the fastest that any engine could use for them.
fn arithmetic_bits(files: &ModelFiles) -> u32 {
    if files.checkpoint().tensors().any(|tensor| tensor.format.is_quantized()) { 8 } else { 32 }
}

enum Prompt {
    Text(String),
    Ids(Vec<u32>),
}

/// The prompt's tokens with what the model's tokenizer puts before and after a text.
pub fn encode(files: &ModelFiles, text: &str) -> Result<Vec<u32>, Failure> {
    let tokenizer = files.tokenizer().ok_or_else(|| {
        Failure::new(format_args!("{} has no tokenizer", files.name()))
            .hint("give the prompt as ids with --tokens 1,2,3")
    })?;
    let ids = tokenizer.encode(text, true, true).map_err(Failure::new)?;
    if ids.is_empty() {
        return Err(Failure::new("the prompt is empty").hint("give at least one character"));
    }
    Ok(ids)
}

/// Threads, instruction set and, if it is not the usual one, arithmetic, in words.
pub fn runs_on(model: &Model) -> String {
    let threads = model.cpu().threads();
    let table = model.cpu().table();
    let exact = if table.arithmetic() == Arithmetic::Exact { ", exact arithmetic" } else { "" };
    format!("{threads} thread{}, {}{exact}", if threads == 1 { "" } else { "s" }, table.isa().name())
}

/// Runs a generation to its end, printing text as it comes if `show`.
pub fn stream(input: GenerationInput<'_>, show: bool) -> Result<Record, Failure> {
    let (called, prompt) = (input.called, input.prompt);
    let bar = prompt_bar(prompt.len());
    let mut generation = Generation::start(input, &mut |done| {
        if bar.is_hidden() && called.elapsed() > Duration::from_millis(700) {
            bar.set_draw_target(indicatif::ProgressDrawTarget::stderr());
        }
        bar.set_position(done as u64);
    })?;
    bar.finish_and_clear();
    let mut out = std::io::stdout().lock();
    let (mut events, mut text) = (Vec::new(), String::new());
    for event in generation.by_ref() {
        let event = event?;
        if show && !event.text.is_empty() {
            out.write_all(event.text.as_bytes())?;
            out.flush()?;
        }
        text.push_str(&event.text);
        events.push(event);
    }
    let rest = generation.rest();
    text.push_str(&rest);
    let wall = called.elapsed();
    if show {
        out.write_all(rest.as_bytes())?;
        out.write_all(b"\n")?;
        out.flush()?;
    }
    Ok(Record::of(&generation, prompt, events, text, wall))
}

fn prompt_bar(tokens: usize) -> ProgressBar {
    let bar = ProgressBar::hidden();
    bar.set_length(tokens as u64);
    if let Ok(style) =
        ProgressStyle::with_template("reading the prompt {bar:40} {pos}/{len} tokens, {eta} left")
    {
        bar.set_style(style);
    }
    bar
}

/// A sampler with room for the whole context.
pub fn sampler_for(chosen: &Chosen, model: &Arc<Model>, context: usize) -> Result<Sampler, Failure> {
    // A session under a window has no end: its history grows as it comes.
    let tokens = context.min(model.config().context_length);
    Ok(Sampler::new(chosen.config.clone(), model.config().vocab_size, tokens)?)
}
