//! MODEL on the command line: `demo`, a Hugging Face folder or a GGUF file, opened and loaded with progress.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use roofline_engine::{
    Arithmetic, CacheSpec, Cpu, EmbeddedModel, Isa, KvFormat, KvFormats, Model, ModelFiles, Packing,
    SessionOptions,
};

use crate::arguments::Threads;
use crate::failure::Failure;

/// The name of the model that is part of the program.
pub const DEMO: &str = "demo";

/// A Llama-architecture model of 5.6 M parameters, trained on public-domain books; see `crates/cli/demo/README.md`.
pub const EMBEDDED: EmbeddedModel = EmbeddedModel {
    name: DEMO,
    config: include_str!("../demo/config.json"),
    generation_config: include_str!("../demo/generation_config.json"),
    weights: include_bytes!("../demo/model.safetensors"),
    tokenizer: include_bytes!("../demo/tokenizer.json"),
};

/// Opens a model without packing its weights.
pub fn open(model: &str) -> Result<ModelFiles, Failure> {
    if model == DEMO {
        return Ok(ModelFiles::embedded(EMBEDDED)?);
    }
    Ok(ModelFiles::open(Path::new(model))?)
}

/// The instruction set that `ROOFLINE_ISA` caps the kernels at.
pub fn requested_isa() -> Result<Option<Isa>, Failure> {
    match std::env::var("ROOFLINE_ISA") {
        Ok(name) if !name.is_empty() => Ok(Some(name.parse::<Isa>().map_err(|error| {
            Failure::new(format_args!("ROOFLINE_ISA: {error}")).hint("unset it to use the widest there is")
        })?)),
        Ok(_) | Err(std::env::VarError::NotPresent) => Ok(None),
        Err(error) => Err(Failure::new(format_args!("ROOFLINE_ISA: {error}"))),
    }
}

/// What a model runs on.
#[derive(Debug, Clone, Default, Args)]
pub struct Machinery {
    #[command(flatten)]
    pub threads: Threads,
    #[command(flatten)]
    pub exactness: Exactness,
    #[command(flatten)]
    pub repacking: Repacking,
}

/// Whether weights get a layout of their own in memory.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct Repacking {
    /// Leave the weights in the file's pages and pack a few rows at a time, each time they are multiplied: starts at once,
    /// decodes slower, the same results; a damaged weight is found when it is used
    #[arg(long)]
    no_repack: bool,
}

impl Repacking {
    /// When matrices are packed.
    pub fn packing(self) -> Packing {
        if self.no_repack { Packing::AtUse } else { Packing::AtLoad }
    }
}

/// How narrow the numbers may be that weights are multiplied by.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct Exactness {
    /// Multiply quantized weights by 16-bit activations instead of 8-bit ones, bf16 weights by f32: slower, nearer to f32
    #[arg(long)]
    exact: bool,
    /// The narrower numbers that the machine multiplies fastest [default, but for logits and ppl]
    #[arg(long, conflicts_with = "exact")]
    fast: bool,
}

impl Exactness {
    /// The arithmetic that the flags ask for, or `default`.
    pub fn arithmetic_or(self, default: Arithmetic) -> Arithmetic {
        match (self.exact, self.fast) {
            (true, _) => Arithmetic::Exact,
            (_, true) => Arithmetic::Fast,
            _ => default,
        }
    }
}

impl Machinery {
    /// Threads and kernels; `ROOFLINE_ISA` caps the instruction set.
    fn cpu(&self, default: Arithmetic) -> Result<Cpu, Failure> {
        let arithmetic = self.exactness.arithmetic_or(default);
        Ok(Cpu::with_arithmetic(self.threads.count()?, requested_isa()?, arithmetic)?)
    }

    /// Loads the weights, with a progress bar on anything over a moment.
    pub fn load(&self, files: &ModelFiles) -> Result<Arc<Model>, Failure> {
        self.load_in(files, Arithmetic::Fast)
    }

    /// The same, with another arithmetic where no flag asks for one.
    pub fn load_in(&self, files: &ModelFiles, default: Arithmetic) -> Result<Arc<Model>, Failure> {
        let bar = ProgressBar::hidden();
        if let Ok(style) = ProgressStyle::with_template("loading {bar:40} {pos}/{len} tensors, {eta} left") {
            bar.set_style(style);
        }
        let started = std::time::Instant::now();
        let (cpu, packing) = (self.cpu(default)?, self.repacking.packing());
        let model = Model::load_with(files, cpu, packing, &mut |done, all| {
            if bar.is_hidden() && started.elapsed() > Duration::from_millis(500) {
                bar.set_draw_target(indicatif::ProgressDrawTarget::stderr());
            }
            bar.set_length(all as u64);
            bar.set_position(done as u64);
        });
        bar.finish_and_clear();
        Ok(Arc::new(model?))
    }
}

/// How a session remembers.
#[derive(Debug, Clone, Args)]
pub struct Memory {
    /// What the KV cache keeps and reads: full, static:N, streaming:sinks=4,window=1020, quest:budget=1024,
    /// snapkv:budget=N, adakv:budget=128, h2o:heavy=N,recent=N, tova:budget=N, …; a budget may be tokens, 64MiB or 10%;
    /// `docs/kv-cache.md` names all of them
    #[arg(long, value_name = "SPEC", default_value = "full")]
    cache: String,
    /// How the KV cache stores numbers: f32, f16, bf16, i8, q8_0, kivi4, kivi2, kvquant4, kvquant3, or K and V
    /// apart as k=i8,v=f16 [default: f16; f32 for logits]
    #[arg(long, value_name = "FORMAT")]
    kv_type: Option<String>,
    /// Tokens the session takes at most [default: the model's context]
    #[arg(long, value_name = "N")]
    context: Option<usize>,
    /// Prompt tokens per step
    #[arg(long, value_name = "N", default_value_t = SessionOptions::default().chunk)]
    chunk: usize,
}

impl Memory {
    /// The session these flags ask for.
    pub fn options(&self) -> Result<SessionOptions, Failure> {
        self.options_or(KvFormat::F16)
    }

    /// The same, with a default for --kv-type.
    pub fn options_or(&self, kv_format: KvFormat) -> Result<SessionOptions, Failure> {
        let cache: CacheSpec =
            self.cache.parse().map_err(|error| Failure::new(format_args!("--cache: {error}")))?;
        let kv_format = match &self.kv_type {
            Some(text) => text.parse().map_err(|error| Failure::new(format_args!("--kv-type: {error}")))?,
            None => KvFormats::from(kv_format),
        };
        Ok(SessionOptions { cache, kv_format, context: self.context, chunk: self.chunk })
    }
}

/// Token ids written as `1,2,3`.
pub fn parse_ids(text: &str) -> Result<Vec<u32>, Failure> {
    let id = |piece: &str| {
        piece.trim().parse::<u32>().map_err(|_| {
            Failure::new(format_args!("--tokens: `{}` is no token id", piece.trim()))
                .hint("write ids with commas between them, as 1,2,3")
        })
    };
    text.split(',').map(id).collect()
}
