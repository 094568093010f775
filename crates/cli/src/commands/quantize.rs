//! `roofline quantize`: a model as a GGUF file of a chosen type.

use std::ops::ControlFlow;
use std::path::PathBuf;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use roofline_lab::LabError;
use roofline_lab::convert::{self, ConvertError, Progress, QuantizeOptions, Quantized, QuantizedTensor};
use roofline_lab::units::{bytes, grouped};
use roofline_limits::Recipe;

use crate::arguments::{Print, Threads};
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::output::{Align, Format, Section, Table, csv_line, print, print_json, sections};

/// Write a Hugging Face folder or a GGUF file as GGUF, in fewer bits or in full
///
/// The type gives each tensor its format by llama.cpp's rules, so that llama.cpp reads the file and finds in it what it would have
/// written: q8_0, q6_k, q5_k_m, q5_k_s, q5_1, q5_0, q4_k_m, q4_k_s, q4_1, q4_0, q3_k_l, q3_k_m, q3_k_s, q2_k, f16, bf16, f32. Norms,
/// biases and routers stay F32. Rows that do not fill the blocks of a format take the one llama.cpp falls back to, and the table says
/// so. The file is written beside its place and appears when it is complete.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  roofline quantize Qwen2.5-0.5B/ qwen-q4.gguf --type q4_k_m\n  \
    roofline quantize model-bf16.gguf model-q8.gguf --type q8_0 --threads 8\n  \
    roofline quantize pythia/ pythia-q3.gguf --type q3_k_m --imatrix pythia.imatrix.gguf --json")]
pub struct Quantize {
    /// A Hugging Face folder (config.json, *.safetensors, tokenizer.json) or a GGUF file
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// The GGUF file to write
    #[arg(value_name = "OUT")]
    output: PathBuf,
    /// Type of the file
    #[arg(long = "type", short = 't', value_name = "TYPE")]
    kind: String,
    /// Importance matrix of llama-imatrix, GGUF or .dat
    #[arg(long, value_name = "FILE")]
    imatrix: Option<PathBuf>,
    /// Replace OUT if it exists
    #[arg(long)]
    force: bool,
    /// Quantize again what is quantized already
    #[arg(long)]
    requantize: bool,
    #[command(flatten)]
    threads: Threads,
    #[command(flatten)]
    print: Print,
}

impl Quantize {
    pub fn run(&self) -> Result<(), Failure> {
        let options = QuantizeOptions {
            recipe: Recipe::from_name(&self.kind).map_err(ConvertError::from).map_err(LabError::from)?,
            threads: self.threads.count()?,
            importance: self.imatrix.clone(),
            force: self.force,
            requantize: self.requantize,
        };
        let interrupt = Interrupt::install()?;
        let bar = progress_bar();
        let done = convert::quantize(&self.input, &self.output, &options, |at| follow(&bar, &interrupt, at));
        bar.finish_and_clear();
        let done = done.map_err(LabError::from)?;
        match self.print.format() {
            Format::Json => print_json(&done),
            Format::Csv => print(&csv(&done)),
            format => print(&describe(&done, format)),
        }
    }
}

/// A bar that counts weights.
pub fn progress_bar() -> ProgressBar {
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {percent:>3} % {eta:>4} left  {msg}") {
        bar.set_style(style);
    }
    bar
}

/// Moves the bar, and stops where Ctrl-C was pressed.
pub fn follow(bar: &ProgressBar, interrupt: &Interrupt, at: Progress<'_>) -> ControlFlow<()> {
    bar.set_length(at.total);
    bar.set_position(at.done);
    bar.set_message(at.tensor.to_string());
    if interrupt.asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

fn csv(done: &Quantized) -> String {
    let mut text = csv_line(&[
        "tensor",
        "shape",
        "from",
        "to",
        "instead_of",
        "importance",
        "bytes",
        "relative_error",
        "largest_error",
    ]);
    for tensor in &done.tensors {
        text.push_str(&csv_line(&[
            &tensor.name,
            &shape(tensor),
            &tensor.from.join("+"),
            tensor.to,
            tensor.instead_of.unwrap_or_default(),
            &tensor.importance.to_string(),
            &tensor.bytes.to_string(),
            &tensor.relative_error.to_string(),
            &tensor.largest_error.to_string(),
        ]));
    }
    text
}

fn shape(tensor: &QuantizedTensor) -> String {
    let sizes: Vec<String> = tensor.shape.iter().map(ToString::to_string).collect();
    sizes.join("×")
}

fn describe(done: &Quantized, format: Format) -> String {
    let mut table = Table::new(&[
        ("tensor", Align::Left),
        ("shape", Align::Left),
        ("from", Align::Left),
        ("to", Align::Left),
        ("instead of", Align::Left),
        ("rms error", Align::Right),
        ("largest", Align::Right),
    ]);
    for tensor in &done.tensors {
        let exact = tensor.largest_error == 0.0;
        table.row([
            tensor.name.clone(),
            shape(tensor),
            tensor.from.join("+"),
            tensor.to.to_string(),
            tensor.instead_of.unwrap_or_default().to_string(),
            if exact { "exact".to_string() } else { format!("{:.3} %", 100.0 * tensor.relative_error) },
            if exact { String::new() } else { format!("{:.2e}", tensor.largest_error) },
        ]);
    }
    let mut text = sections(&[Section::table("", table)], format);
    let narrow = done.tensors.iter().filter(|tensor| tensor.instead_of.is_some()).count();
    if narrow > 0 {
        text.push_str(&format!(
            "\n{narrow} tensors have rows too narrow for the format the type asks for.\n"
        ));
    }
    for note in &done.notes {
        text.push_str(&format!("\nNote: {note}.\n"));
    }
    text.push_str(&format!(
        "\n{} ({}, {}): {} weights, {} → {}, {:.2} bits per weight, rms error {:.3} %.\n",
        done.output.display(),
        done.architecture,
        done.recipe.name(),
        grouped(done.weights),
        bytes(done.source_bytes),
        bytes(done.bytes),
        done.bytes as f64 * 8.0 / done.weights as f64,
        100.0 * done.relative_error,
    ));
    text
}
