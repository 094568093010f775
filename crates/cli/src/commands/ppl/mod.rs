//! `roofline ppl`: how well a model predicts a text, and what a cache policy costs of it.

mod columns;
mod print;
mod sweep;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use roofline_engine::{Arithmetic, CacheSpec, KvFormat, KvFormats, ModelFiles, SessionOptions};
use roofline_lab::LabError;
use roofline_lab::quality::{self, Convention, Mode, Plan, QualityError, Report, Setup, Text};
use roofline_model::Tokenizer;
use serde_json::json;

use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::model::{self, Machinery};
use crate::output::print_json;
use sweep::Sweep;

/// Perplexity of a text, and what a cache policy or a narrower cache costs of it
///
/// Three conventions, each with the number of its reference implementation: half-chunk (llama.cpp), strided (Hugging
/// Face), rolling-doc (lm-evaluation-harness). Everything a number depends on is printed beside it: text, BOS, window,
/// stride, scored range, normalizer. Arithmetic is exact unless --fast is given, and keys and values are kept in f32 unless
/// --kv-type says otherwise: this command is a measuring instrument. Errors are over blocks of about 256 tokens, not over tokens as if independent.
/// --against runs a second session with the full cache on the same tokens and pairs them token by token.
/// --sweep takes cache=SPECS or kv-type=TYPES and may be given again; all combinations run in lockstep. Specs are
/// separated by `;`, or by a comma that no parameter (name=value) follows: full,streaming:sinks=4,window=252,quest.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  roofline ppl demo --text book.txt\n  \
    roofline ppl ./pythia-70m --text wiki.txt --convention strided --context 2048 --stride 512\n  \
    roofline ppl demo --text book.txt --kv-type f16 --against f32\n  \
    roofline ppl demo --text book.txt --sweep 'cache=full,static:512' --sweep kv-type=f32,f16 --csv sweep.csv")]
pub struct Ppl {
    /// `demo`, a Hugging Face folder or a .gguf file
    model: String,
    /// The text, UTF-8; may be given again, every file is a document of its own
    #[arg(long, value_name = "FILE", required = true)]
    text: Vec<PathBuf>,
    /// Which windows and which of their tokens are scored: half-chunk, strided or rolling-doc
    #[arg(long, value_name = "NAME", default_value = "half-chunk")]
    convention: String,
    /// Tokens of a window [default: 512 for half-chunk, else the model's context]
    #[arg(long, value_name = "N")]
    context: Option<usize>,
    /// Tokens from window to window, for strided [default: 512, or the window if shorter]
    #[arg(long, value_name = "N")]
    stride: Option<usize>,
    /// Use only the first N tokens of each text
    #[arg(long, value_name = "N")]
    tokens: Option<usize>,
    /// What the KV cache keeps
    #[arg(long, value_name = "SPEC", default_value = "full")]
    cache: String,
    /// How the KV cache stores numbers
    #[arg(long, value_name = "TYPE", default_value = "f32")]
    kv_type: String,
    /// Compare with the full cache: `full` in the same --kv-type, `f32` in f32
    #[arg(long, value_name = "WHAT")]
    against: Option<Reference>,
    /// Measure all of cache=SPECS or kv-type=TYPES; compares with --against, `full` if not given
    #[arg(long, value_name = "AXIS=LIST")]
    sweep: Vec<String>,
    /// How tokens go in: parallel for many rows at once, decode for a prompt and then one by one [default: decode if a
    /// policy acts on prompts or in decode steps, else parallel]
    #[arg(long, value_name = "MODE")]
    mode: Option<How>,
    /// In decode mode, tokens of a window that go in as its prompt and are not scored [default: half the window]
    #[arg(long, value_name = "N")]
    prompt: Option<usize>,
    /// Rows per step where many go in at once
    #[arg(long, value_name = "N", default_value_t = SessionOptions::default().chunk)]
    chunk: usize,
    /// Ranges of the position in the window that perplexity is told for
    #[arg(long, value_name = "N", default_value_t = 8)]
    buckets: usize,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Write a line per setup to this file, as comma-separated values
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    #[command(flatten)]
    machinery: Machinery,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Reference {
    Full,
    F32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum How {
    Parallel,
    Decode,
}

/// More sessions at once than a table is read for.
const MOST_SETUPS: usize = 100;

/// What is measured against what.
struct Grid {
    setups: Vec<Setup>,
    reference: Option<Setup>,
}

impl Ppl {
    pub fn run(&self) -> Result<(), Failure> {
        let convention: Convention = self.convention.parse().map_err(LabError::from)?;
        let grid = self.grid()?;
        let texts = self.texts()?;
        let files = model::open(&self.model)?;
        let tokenizer = files.tokenizer().ok_or_else(|| {
            Failure::new(format_args!("{} has no tokenizer, and a text needs one", self.model))
                .hint("give a model with its tokenizer.json or a .gguf file that holds one")
        })?;
        let texts = (texts.iter())
            .map(|(name, text)| Text::encode(tokenizer, name, text, convention, self.tokens))
            .collect::<Result<Vec<_>, _>>()
            .map_err(LabError::from)?;
        let plan = self.plan(convention, &grid, &files, tokenizer)?;
        let setups: Vec<&Setup> = grid.reference.iter().chain(&grid.setups).collect();
        plan.check(&texts, files.config().context_length, &setups).map_err(LabError::from)?;

        let model = self.machinery.load_in(&files, Arithmetic::Exact)?;
        let interrupt = Interrupt::install()?;
        let bar = Bar::new();
        let reference = grid.reference.as_ref();
        let report =
            quality::measure(&model, &texts, &plan, &grid.setups, reference, interrupt.flag(), &mut |at| {
                bar.at(at.done, at.all);
            });
        bar.clear();
        let report = report?;
        let bos = bos_words(tokenizer, convention, &texts, plan.bos);
        if let Some(path) = &self.csv {
            columns::write(path, files.name(), &report)?;
        }
        if self.json {
            return print_json(&json_of(&report, &files, &model, &bos)?);
        }
        crate::output::print(&print::text(&report, &files, &model, &bos))
    }

    /// Every file of --text by name.
    fn texts(&self) -> Result<Vec<(String, String)>, Failure> {
        self.text.iter().map(|path| Ok((path.display().to_string(), read(path)?))).collect()
    }

    fn grid(&self) -> Result<Grid, Failure> {
        let sweep = Sweep::parse(&self.sweep)?;
        if !sweep.caches.is_empty() && self.cache != "full" {
            return Err(Failure::new("--cache and --sweep cache=… were both given")
                .hint("put the cache into the list of the sweep"));
        }
        let own = kv_format("--kv-type", &self.kv_type)?;
        let caches = match sweep.caches.is_empty() {
            true => vec![cache("--cache", &self.cache)?],
            false => sweep.caches.iter().map(|spec| cache("--sweep", spec)).collect::<Result<_, _>>()?,
        };
        let kv_formats = match sweep.kv_types.is_empty() {
            true => vec![own],
            false => {
                sweep.kv_types.iter().map(|name| kv_format("--sweep", name)).collect::<Result<Vec<_>, _>>()?
            }
        };
        let sweeps = !self.sweep.is_empty();
        let reference = match self.against {
            Some(Reference::F32) => Some(Setup::full(KvFormat::F32)),
            Some(Reference::Full) => Some(Setup::full(own)),
            None => sweeps.then(|| Setup::full(own)),
        };
        let mut setups = Vec::new();
        for cache in &caches {
            for &kv_format in &kv_formats {
                let setup = Setup { cache: cache.clone(), kv_format };
                if setups.contains(&setup) {
                    return Err(Failure::new(format_args!("--sweep: {} is given twice", setup.cache)));
                }
                // The reference has the first line of a sweep to itself.
                if !(sweeps && reference.as_ref() == Some(&setup)) {
                    setups.push(setup);
                }
            }
        }
        if setups.is_empty() {
            return Err(Failure::new("--sweep names only the reference itself, the full cache")
                .hint("add what is to be compared with it"));
        }
        if setups.len() > MOST_SETUPS {
            return Err(Failure::new(format_args!(
                "--sweep multiplies to {} setups; at most {MOST_SETUPS} run at once",
                setups.len()
            )));
        }
        Ok(Grid { setups, reference })
    }

    fn plan(
        &self,
        convention: Convention,
        grid: &Grid,
        files: &ModelFiles,
        tokenizer: &Tokenizer,
    ) -> Result<Plan, Failure> {
        let bos = match (quality::lead(tokenizer, convention), files.stop_ids().first()) {
            // The configuration may name the end of texts where the tokenizer does not.
            (Err(QualityError::NoPrefix), Some(end)) => Some(end.id),
            (bos, _) => bos.map_err(LabError::from)?,
        };
        let mut plan = Plan::of(convention, files.config().context_length, bos);
        if let Some(context) = self.context {
            plan.context = context;
            plan.stride = convention.default_stride(context);
        }
        plan.stride = self.stride.unwrap_or(plan.stride);
        let acts = grid.setups.iter().any(|setup| Mode::needed_by(setup) == Mode::Decode);
        plan.mode = match self.mode {
            Some(How::Parallel) => Mode::Parallel,
            Some(How::Decode) => Mode::Decode,
            None if acts => Mode::Decode,
            None => Mode::Parallel,
        };
        if self.prompt.is_some() && plan.mode == Mode::Parallel {
            return Err(Failure::new("--prompt is for decode mode, and this runs in parallel mode")
                .hint("add --mode decode"));
        }
        plan.prompt = self.prompt.unwrap_or(plan.context / 2);
        plan.chunk = self.chunk;
        plan.buckets = self.buckets;
        Ok(plan)
    }
}

fn read(path: &Path) -> Result<String, Failure> {
    let wrong =
        |what: &dyn std::fmt::Display| Failure::new(format_args!("--text {}: {what}", path.display()));
    let bytes = std::fs::read(path).map_err(|error| wrong(&error))?;
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        wrong(&format_args!("the byte at {at} begins no UTF-8 character")).hint("convert the file to UTF-8")
    })
}

fn cache(option: &str, spec: &str) -> Result<CacheSpec, Failure> {
    spec.parse().map_err(|error| Failure::new(format_args!("{option}: {error}")))
}

fn kv_format(option: &str, text: &str) -> Result<KvFormats, Failure> {
    text.parse().map_err(|error| Failure::new(format_args!("{option}: {error}")))
}

/// How texts begin, in words.
fn bos_words(tokenizer: &Tokenizer, convention: Convention, texts: &[Text], bos: Option<u32>) -> String {
    let named = |id: u32| format!("{} ({id})", tokenizer.token(id).unwrap_or("no text"));
    let added =
        texts.iter().filter_map(|text| text.tokens().first()).find(|&&id| Some(id) == tokenizer.bos());
    match (convention, bos) {
        (Convention::HalfChunk, Some(id)) => format!("{} replaces the first token of each window", named(id)),
        (Convention::RollingDoc, Some(id)) => format!("{} before each text, nothing else added", named(id)),
        _ => match added {
            Some(&id) => format!("{} once, at the start of a text", named(id)),
            None => "none: the tokenizer adds none".to_string(),
        },
    }
}

fn json_of(
    report: &Report,
    files: &ModelFiles,
    model: &roofline_engine::Model,
    bos: &str,
) -> Result<serde_json::Value, Failure> {
    let report = serde_json::to_value(report)
        .map_err(|error| Failure::new(format_args!("cannot write this as JSON: {error}")))?;
    let mut all = json!({
        "model": files.name(),
        "threads": model.cpu().threads(),
        "isa": model.cpu().table().isa().name(),
        "arithmetic": model.cpu().table().arithmetic().name(),
        "bos_handling": bos,
    });
    if let (Some(all), Some(report)) = (all.as_object_mut(), report.as_object()) {
        all.extend(report.clone());
    }
    Ok(all)
}

/// A progress bar that appears when the work takes over a moment.
struct Bar(ProgressBar, Instant);

impl Bar {
    fn new() -> Bar {
        let bar = ProgressBar::hidden();
        if let Ok(style) = ProgressStyle::with_template("ppl {bar:40} {pos}/{len} tokens, {eta} left") {
            bar.set_style(style);
        }
        Bar(bar, Instant::now())
    }

    fn at(&self, done: usize, all: usize) {
        if self.0.is_hidden() && self.1.elapsed() > Duration::from_millis(700) {
            self.0.set_draw_target(ProgressDrawTarget::stderr());
        }
        self.0.set_length(all as u64);
        self.0.set_position(done as u64);
    }

    fn clear(&self) {
        self.0.finish_and_clear();
    }
}
