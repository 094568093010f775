//! `roofline synth`: a model of a real geometry with random weights.

use std::path::PathBuf;

use clap::Args;
use roofline_lab::LabError;
use roofline_lab::convert::{self, Blocks, ConvertError, SynthOptions, Synthesized};
use roofline_lab::units::{bytes, grouped};
use roofline_limits::Recipe;

use super::quantize::{follow, progress_bar};
use crate::arguments::Threads;
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::output::{Table, print, print_json};

/// Write a model of a real geometry with random weights, to measure speed without a download
///
/// GEOMETRY is a preset (see `roofline limits`) or the path of a config.json. The weights are random and of plausible scale, so that
/// logits are finite; a byte-level BPE tokenizer of the right size is made up beside them. A quantized model above a billion weights
/// gets random blocks, valid ones with fitting scales, since encoding takes 100 ns per weight: --encode and --fast choose. The file
/// says which it was. Weights depend on the seed alone, not on the number of threads.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  roofline synth Qwen2.5-0.5B --format q4_k_m -o qwen.gguf\n  \
    roofline synth Llama-3.1-8B --format q4_k_m --context 8192 -o llama-8b.gguf\n  \
    roofline synth pythia-70m --format bf16 -o pythia-70m/ --seed 7")]
pub struct Synth {
    /// Name of a preset, or path of a config.json
    geometry: String,
    /// Format of the weights: any type of `roofline quantize`; a folder holds f32, f16 or bf16
    #[arg(long, short = 'f', value_name = "TYPE", default_value = "bf16")]
    format: String,
    /// A file that ends in .gguf, or a folder
    #[arg(long, short = 'o', value_name = "PATH")]
    output: PathBuf,
    /// Seed of the weights
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Longest context to declare [default: the geometry's]
    #[arg(long, value_name = "TOKENS")]
    context: Option<usize>,
    /// Random blocks, whatever the size
    #[arg(long, conflicts_with = "encode")]
    fast: bool,
    /// Encoded values, whatever the size
    #[arg(long)]
    encode: bool,
    /// Largest file of a folder, in GB
    #[arg(long, value_name = "GB", default_value_t = 5.0)]
    shard: f64,
    /// Replace a file that exists
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    threads: Threads,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

impl Synth {
    pub fn run(&self) -> Result<(), Failure> {
        let options = SynthOptions {
            recipe: Recipe::from_name(&self.format).map_err(ConvertError::from).map_err(LabError::from)?,
            seed: self.seed,
            context: self.context,
            blocks: match (self.fast, self.encode) {
                (true, _) => Some(Blocks::Random),
                (_, true) => Some(Blocks::Encoded),
                _ => None,
            },
            shard_bytes: self.shard_bytes()?,
            threads: self.threads.count()?,
            force: self.force,
        };
        let interrupt = Interrupt::install()?;
        let bar = progress_bar();
        let done =
            convert::synthesize(&self.geometry, &self.output, &options, |at| follow(&bar, &interrupt, at));
        bar.finish_and_clear();
        let done = done.map_err(LabError::from)?;
        if self.json { print_json(&done) } else { print(&describe(&done)) }
    }

    fn shard_bytes(&self) -> Result<u64, Failure> {
        // 1 MB keeps the number of files sane; an exabyte is one file of anything.
        if self.shard.is_finite() && (0.001..=1e9).contains(&self.shard) {
            return Ok((self.shard * 1e9) as u64);
        }
        Err(Failure::new(format_args!("--shard {} is not between 0.001 and 1e9 GB", self.shard)))
    }
}

fn describe(done: &Synthesized) -> String {
    let mut table = Table::of_facts();
    let tokens = match done.tokens {
        0 => "none".to_string(),
        n => format!("byte-level BPE of {} tokens, made up", grouped(n as u64)),
    };
    let quantized = match done.blocks {
        Some(Blocks::Random) => "random blocks",
        Some(Blocks::Encoded) => "encoded values",
        None => "",
    };
    table.row(["written", &done.output.display().to_string()]);
    table.row(["geometry", &format!("{} ({})", done.geometry, done.family)]);
    table.row([
        "weights",
        &format!("{} in {} tensors, random, seed {}", grouped(done.weights), done.tensors, done.seed),
    ]);
    table.row(["format", &format!("{} {quantized}", done.recipe.name())]);
    table.row(["size", &bytes(done.tensor_bytes)]);
    table.row(["context", &grouped(done.context as u64)]);
    table.row(["tokenizer", &tokens]);
    for note in &done.notes {
        table.row(["note", note]);
    }
    table.to_text()
}
