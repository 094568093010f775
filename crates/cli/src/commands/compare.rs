//! `roofline compare`: beside llama.cpp and transformers, in turn, with ratios and their intervals.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use roofline_engine::KvFormat;
use roofline_kernels::physical_cores;
use roofline_lab::LabError;
use roofline_lab::compare::{self, Job, Kind, Places, Progress, Settings};
use roofline_lab::experiment::{Recording, hash_of};

use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::model::{self, DEMO, EMBEDDED};
use crate::output::{print, say};

/// Measure Roofline beside llama.cpp or transformers: same file, same tokens, same threads, in turn
///
/// Every round runs each engine once per prompt and depth (A B A B); ratios are taken over the pairs of a round and come
/// with a 95 % bootstrap interval. Prompt ids are random, the same for all; neither side tokenizes or samples. A peer
/// stays loaded in a Python process of its own, and only the calls into it are timed: llama_decode and
/// llama_synchronize, or the model's forward. llama-bench, also where llama_cpp is not there, is a process a figure; it
/// draws ids of its own and tells sums. llama.cpp takes a .gguf file, transformers a Hugging Face folder.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  roofline compare model.gguf --with llama.cpp\n  \
    roofline compare model.gguf --with llama.cpp -p 32,512 --depth 0,2048 -n 64 -r 20 -o peers.jsonl\n  \
    roofline compare model.gguf --with llama-bench --llama-bench ~/llama.cpp/build/bin/llama-bench\n  \
    roofline compare ./Qwen2.5-0.5B --with transformers --python ./venv/bin/python\n  \
    roofline report peers.jsonl")]
pub struct Compare {
    /// A .gguf file (llama.cpp) or a Hugging Face folder (transformers)
    #[arg(value_name = "MODEL")]
    model: String,
    /// With whom: llama.cpp, llama-bench, transformers
    #[arg(long = "with", value_name = "PEERS")]
    peers: String,
    /// The Python that has the peers [default: python3]
    #[arg(long, value_name = "FILE")]
    python: Option<PathBuf>,
    /// The program llama-bench [default: the one on the PATH]
    #[arg(long, value_name = "FILE")]
    llama_bench: Option<PathBuf>,
    /// Tokens taken in at once
    #[arg(short, long, value_name = "LIST", default_value = "512")]
    prompt: String,
    /// Tokens taken in one by one after that
    #[arg(short = 'n', long, value_name = "N", default_value_t = 64)]
    generate: usize,
    /// Tokens in the cache before
    #[arg(short, long, value_name = "LIST", default_value = "0")]
    depth: String,
    /// Counted rounds
    #[arg(short, long, value_name = "N", default_value_t = 10)]
    repetitions: usize,
    /// Rounds before that
    #[arg(long, value_name = "N", default_value_t = 2)]
    warm_up: usize,
    /// Threads of every engine [default: physical cores]
    #[arg(short, long, value_name = "N")]
    threads: Option<usize>,
    /// How the KV caches of Roofline and llama.cpp store numbers: f16, bf16, f32
    #[arg(long, value_name = "TYPE", default_value = "f16")]
    kv_type: String,
    /// Draws the token ids
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Longest that a peer may take for an answer, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    timeout: u64,
    /// The file of rows [default: compare-HASH.jsonl]
    #[arg(short, long, value_name = "FILE.jsonl")]
    output: Option<PathBuf>,
}

/// Formats that llama.cpp has too.
const KV_TYPES: [KvFormat; 3] = [KvFormat::F16, KvFormat::Bf16, KvFormat::F32];

impl Compare {
    pub fn run(&self) -> Result<(), Failure> {
        if self.model == DEMO {
            return Err(Failure::new("the demo model is inside of the program; a peer needs files")
                .hint("name a .gguf file or a Hugging Face folder"));
        }
        let settings = self.settings()?;
        settings.check().map_err(LabError::from)?;
        let command = self.command();
        let path = self
            .output
            .clone()
            .unwrap_or_else(|| PathBuf::from(format!("compare-{}.jsonl", &hash_of(&command)[..8])));
        if path.exists() {
            return Err(Failure::new(format_args!("{} stands there already", path.display()))
                .hint("a comparison is made in one go; name another file with -o"));
        }
        let interrupt = Interrupt::install()?;
        let places = Places {
            python: self.python.clone(),
            llama_bench: self.llama_bench.clone(),
            timeout: Duration::from_secs(self.timeout.max(1)),
        };
        let job = Job {
            settings: &settings,
            places: &places,
            path: &path,
            command: &command,
            embedded: EMBEDDED,
            isa: model::requested_isa()?,
        };
        let bar = ProgressBar::new(0);
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}") {
            bar.set_style(style);
        }
        let compared = compare::run(&job, interrupt.flag(), &mut |progress| match progress {
            Progress::Preparing(what) => bar.set_message(what.to_string()),
            Progress::Running { done, runs, what } => {
                bar.set_length(runs as u64);
                bar.set_position(done as u64);
                bar.set_message(what.to_string());
            }
        });
        bar.finish_and_clear();
        print(&summary(&compared?))?;
        say!("the rows are in {}", path.display());
        Ok(())
    }

    fn settings(&self) -> Result<Settings, Failure> {
        let peer =
            |name: &str| name.trim().parse::<Kind>().map_err(|error| Failure::new(LabError::from(error)));
        let kv_format = KvFormat::from_name(&self.kv_type).filter(|format| KV_TYPES.contains(format));
        Ok(Settings {
            model: self.model.clone(),
            peers: self.peers.split(',').map(peer).collect::<Result<_, _>>()?,
            prompts: counts("-p", &self.prompt)?,
            output: self.generate,
            depths: counts("--depth", &self.depth)?,
            threads: self.threads.unwrap_or_else(physical_cores),
            kv_format: kv_format.ok_or_else(|| {
                Failure::new(format_args!("--kv-type: `{}` is no format that all engines have", self.kv_type))
                    .hint("available: f16, bf16, f32")
            })?,
            repeats: self.repetitions,
            warm_up: self.warm_up,
            seed: self.seed,
        })
    }

    /// The command line that compares the same again.
    fn command(&self) -> String {
        let threads = self.threads.unwrap_or_else(physical_cores);
        let named = |flag: &str, file: &Option<PathBuf>| {
            file.as_deref().map_or(String::new(), |file| format!(" {flag} {}", quoted(file)))
        };
        let places = [named("--python", &self.python), named("--llama-bench", &self.llama_bench)].concat();
        format!(
            "roofline compare {} --with {}{places} -p {} -n {} --depth {} -r {} --warm-up {} --threads {threads} --kv-type {} --seed {}",
            quoted(Path::new(&self.model)),
            self.peers,
            self.prompt,
            self.generate,
            self.depth,
            self.repetitions,
            self.warm_up,
            self.kv_type,
            self.seed,
        )
    }
}

/// Findings and notes, one a line.
fn summary(recording: &Recording) -> String {
    let mut text = String::new();
    for note in recording.notes() {
        text.push_str(&format!("{}\n", note.text));
    }
    text.push('\n');
    for finding in recording.findings() {
        text.push_str(&format!("{}\n", finding.sentence));
    }
    text
}

/// Whole numbers with commas between them.
fn counts(option: &str, list: &str) -> Result<Vec<usize>, Failure> {
    let count = |piece: &str| {
        piece.trim().parse::<usize>().map_err(|_| {
            Failure::new(format_args!("{option}: `{}` is no whole number", piece.trim()))
                .hint("write them with commas between, as 32,512")
        })
    };
    let counts: Vec<usize> = list.split(',').map(count).collect::<Result<_, _>>()?;
    match counts.iter().enumerate().find(|(index, count)| counts[..*index].contains(count)) {
        Some((_, twice)) => Err(Failure::new(format_args!("{option}: {twice} is given twice"))),
        None => Ok(counts),
    }
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let word = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=,:+".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word,
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}
