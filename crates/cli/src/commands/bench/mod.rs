//! `roofline bench`: tokens per second beside the roof of the same minutes.

mod columns;
mod print;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use roofline_engine::{Arithmetic, CacheSpec, Cpu, KvFormats, Model, ModelFiles, Packing, SessionOptions};
use roofline_kernels::physical_cores;
use roofline_lab::bench::{self, Progress, Report, Settings, Subject};
use roofline_lab::environment::Environment;
use roofline_limits::FileFormats;
use roofline_weights::Format;

use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::model::{self, DEMO, Exactness, Repacking};
use crate::output::print_json;

/// Measure tokens per second of models, beside this machine's roof measured in the same minutes
///
/// Counts as llama-bench does: pp512 takes in 512 random tokens at once, tg128 takes in 128 one by one; neither
/// tokenizes nor samples. Every combination of the lists is a row; all rows run once to warm up, then in turn, with
/// probes of the machine before, between and after. MBU and MFU are shares of the best that the probes reached.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  roofline bench\n  \
    roofline bench model.gguf -p 512,2048 -n 128 --depth 0,4096 -r 5 --threads 1,2\n  \
    roofline bench q8.gguf q4.gguf -p none -n 128 --format csv > decode.csv\n  \
    roofline bench ./Qwen2.5-0.5B --kv-type f16,f32 --format sql | sqlite3 bench.db")]
pub struct Bench {
    /// `demo`, Hugging Face folders or .gguf files [default: demo]
    #[arg(value_name = "MODEL")]
    models: Vec<String>,
    /// Tokens taken in at once, one row each; `none` for no such row
    #[arg(short, long, value_name = "LIST", default_value = "512")]
    prompt: String,
    /// Tokens taken in one by one, one row each; `none` for no such row
    #[arg(short = 'n', long, value_name = "LIST", default_value = "128")]
    generate: String,
    /// Tokens in the cache before
    #[arg(short, long, value_name = "LIST", default_value = "0")]
    depth: String,
    /// Counted runs of each row
    #[arg(short, long, value_name = "N", default_value_t = 5)]
    repetitions: usize,
    /// Threads [default: physical cores]
    #[arg(short, long, value_name = "LIST")]
    threads: Option<String>,
    #[command(flatten)]
    exactness: Exactness,
    #[command(flatten)]
    repacking: Repacking,
    /// How the KV cache stores numbers; a pair k=FORMAT,v=FORMAT counts as one
    #[arg(long, value_name = "LIST", default_value = "f16")]
    kv_type: String,
    /// What the KV cache keeps; may be given again
    #[arg(long, value_name = "SPEC", default_value = "full")]
    cache: Vec<String>,
    /// Prompt tokens per step
    #[arg(long, value_name = "N", default_value_t = SessionOptions::default().chunk)]
    chunk: usize,
    /// Draws the token ids
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// How to print; json holds every sample and the environment
    #[arg(long, value_enum, default_value = "table")]
    format: Output,
    /// Short for --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Markdown,
    Json,
    Csv,
    Sql,
}

impl Bench {
    pub fn run(&self) -> Result<(), Failure> {
        let settings = self.settings()?;
        let isa = model::requested_isa()?;
        let names = if self.models.is_empty() { vec![DEMO.to_string()] } else { self.models.clone() };
        let files = names.iter().map(|name| model::open(name)).collect::<Result<Vec<_>, _>>()?;
        check(&files, &settings)?;
        let interrupt = Interrupt::install()?;
        // Rows of other thread counts run on teams of their own and share these weights.
        let most_threads = settings.threads.iter().copied().max().unwrap_or(1);
        let cpu = Cpu::with_arithmetic(most_threads, isa, self.exactness.arithmetic_or(Arithmetic::Fast))?;
        let mut subjects = Vec::new();
        for files in &files {
            subjects.push(subject(files, &cpu, self.repacking.packing())?);
            if interrupt.asked() {
                return Err(Failure::interrupted());
            }
        }
        drop(files);
        let report = measure(&subjects, &settings, &interrupt)?;
        match if self.json { Output::Json } else { self.format } {
            Output::Json => print_json(&report),
            Output::Csv => crate::output::print(&columns::csv(&report)),
            Output::Sql => crate::output::print(&columns::sql(&report)),
            Output::Table => crate::output::print(&print::text(&report, false)),
            Output::Markdown => crate::output::print(&print::text(&report, true)),
        }
    }

    fn settings(&self) -> Result<Settings, Failure> {
        let cache = |spec: &String| {
            spec.parse::<CacheSpec>().map_err(|error| Failure::new(format_args!("--cache: {error}")))
        };
        Ok(Settings {
            prefill: counts("-p", &self.prompt)?,
            decode: counts("-n", &self.generate)?,
            depths: counts("--depth", &self.depth)?,
            threads: match &self.threads {
                Some(list) => counts("--threads", list)?,
                None => vec![physical_cores()],
            },
            caches: self.cache.iter().map(cache).collect::<Result<_, _>>()?,
            kv_formats: KvFormats::list(&self.kv_type)
                .map_err(|error| Failure::new(format_args!("--kv-type: {error}")))?,
            chunk: self.chunk,
            repetitions: self.repetitions,
            seed: self.seed,
        })
    }
}

fn pieces(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim)
}

/// Whole numbers with commas between them, or `none`.
fn counts(option: &str, list: &str) -> Result<Vec<usize>, Failure> {
    if list.trim() == "none" {
        return Ok(Vec::new());
    }
    let count = |piece: &str| {
        piece.parse::<usize>().map_err(|_| {
            Failure::new(format_args!("{option}: `{piece}` is no whole number"))
                .hint("write them with commas between, as 512,2048")
        })
    };
    let counts: Vec<usize> = pieces(list).map(count).collect::<Result<_, _>>()?;
    match counts.iter().enumerate().find(|(index, count)| counts[..*index].contains(count)) {
        Some((_, twice)) => Err(Failure::new(format_args!("{option}: {twice} is given twice"))
            .hint("every row runs as often as -r says")),
        None => Ok(counts),
    }
}

/// Refuses what cannot run, before any weight is read.
fn check(files: &[ModelFiles], settings: &Settings) -> Result<(), Failure> {
    let models: Vec<_> = files.iter().map(|files| (files.name(), files.config())).collect();
    let tensor_bytes =
        |files: &ModelFiles| files.checkpoint().tensors().map(|t| t.bytes.len() as u64).sum::<u64>();
    let weights = files.iter().map(tensor_bytes).sum();
    let cases = bench::plan(&models, settings).map_err(roofline_lab::LabError::from)?;
    bench::check_memory(&cases, &models, weights, &Environment::read())?;
    Ok(())
}

fn subject(files: &ModelFiles, cpu: &Cpu, packing: Packing) -> Result<Subject, Failure> {
    let bar = bar(&format!("loading {} {{bar:30}} {{pos}}/{{len}} tensors, {{eta}} left", files.name()));
    let model = Model::load_with(files, cpu.clone(), packing, &mut |done, all| {
        bar.set_length(all as u64);
        bar.set_position(done as u64);
    });
    bar.finish_and_clear();
    let tensors = || files.checkpoint().tensors().map(|view| (view.name, view.format, view.shape));
    let stored = FileFormats::new(files.plan(), tensors())?;
    let mut bytes: BTreeMap<Format, usize> = BTreeMap::new();
    for view in files.checkpoint().tensors() {
        *bytes.entry(view.format).or_default() += view.bytes.len();
    }
    let mut by_bytes: Vec<(Format, usize)> = bytes.into_iter().collect();
    by_bytes.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    let names: Vec<&str> = by_bytes.iter().map(|(format, _)| format.name()).collect();
    Ok(Subject {
        name: files.name().to_string(),
        formats: names.join("+"),
        arithmetic_bits: stored.precision(roofline_limits::KvFormat::F16).arithmetic_bits,
        model: Arc::new(model?),
    })
}

fn measure(subjects: &[Subject], settings: &Settings, interrupt: &Interrupt) -> Result<Report, Failure> {
    let bar = bar("{bar:30} {pos}/{len} {msg}");
    let report = bench::run(subjects, settings, interrupt.flag(), &mut |progress: Progress| {
        let setup = &progress.case.setup;
        let left = progress.left.map_or("warming up".to_string(), |left| format!("{} left", minutes(left)));
        bar.set_length(progress.runs as u64);
        bar.set_position(progress.done as u64);
        let (name, test) = (&subjects[setup.model].name, progress.case.test());
        bar.set_message(format!("{name} {test} at {}, threads {}; {left}", setup.depth, setup.threads));
    });
    bar.finish_and_clear();
    Ok(report?)
}

fn bar(template: &str) -> ProgressBar {
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

fn minutes(time: Duration) -> String {
    let seconds = time.as_secs_f64().ceil() as u64;
    if seconds < 60 { format!("{seconds} s") } else { format!("{} min {:02} s", seconds / 60, seconds % 60) }
}
