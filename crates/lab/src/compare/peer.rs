//! Who Roofline is compared with, and how each of them is reached.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::driver::Driver;
use super::error::CompareError;
use super::llama_bench::LlamaBench;
use crate::error::LabError;

/// Between looks at the user's wish to stop.
pub(super) const GLANCE: Duration = Duration::from_millis(50);
/// Of an answer or of stderr that an error shows.
const SHOWN: usize = 400;

/// Who can be compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// llama.cpp, through its C interface as Python binds it; through `llama-bench` where that is not there.
    LlamaCpp,
    /// llama.cpp, through its own program.
    LlamaBench,
    /// Hugging Face transformers.
    Transformers,
}

impl Kind {
    /// As `--with` names it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::LlamaCpp => "llama.cpp",
            Kind::LlamaBench => "llama-bench",
            Kind::Transformers => "transformers",
        }
    }

    /// The command that installs it.
    pub fn install(self) -> &'static str {
        match self {
            Kind::LlamaCpp => "pip install llama-cpp-python",
            Kind::LlamaBench => "cmake -B build && cmake --build build --target llama-bench",
            Kind::Transformers => "pip install torch transformers",
        }
    }

    /// Whether it reads the files of this model.
    ///
    /// # Errors
    /// [`CompareError::Model`] with the way out.
    pub fn check(self, model: &str) -> Result<(), CompareError> {
        let path = Path::new(model);
        let refuse =
            |why: String| Err(CompareError::Model { peer: self.name(), model: model.to_string(), why });
        if !path.exists() {
            return refuse(
                "it takes a file or folder that both engines read; there is none of that name".into(),
            );
        }
        match self {
            Kind::LlamaCpp | Kind::LlamaBench if path.is_dir() => refuse(format!(
                "it takes a .gguf file; make one with `roofline quantize {model} model.gguf --type bf16`"
            )),
            Kind::Transformers if !path.is_dir() => {
                refuse("it takes a Hugging Face folder, and so does Roofline: name the folder".into())
            }
            _ => Ok(()),
        }
    }
}

impl std::str::FromStr for Kind {
    type Err = CompareError;

    fn from_str(name: &str) -> Result<Kind, CompareError> {
        let kinds = [Kind::LlamaCpp, Kind::LlamaBench, Kind::Transformers];
        let kind = kinds.into_iter().find(|kind| kind.name() == name);
        kind.ok_or_else(|| CompareError::Peer { name: name.to_string() })
    }
}

/// What a peer is told to load.
#[derive(Debug, Clone, Copy)]
pub struct Load<'a> {
    /// File or folder.
    pub model: &'a str,
    /// Threads.
    pub threads: usize,
    /// Tokens of context.
    pub context: usize,
    /// Format of the KV cache.
    pub kv_type: &'a str,
}

/// Times of one run, in seconds.
#[derive(Debug, Clone, PartialEq)]
pub struct Times {
    /// The prompt.
    pub prefill_s: f64,
    /// All decode steps.
    pub decode_s: f64,
    /// Each of them; empty where only the sum is told.
    pub steps_s: Vec<f64>,
    /// The most probable token after the prompt, where it is told.
    pub best: Option<u32>,
}

impl Times {
    /// Of a peer that tells every step.
    pub(super) fn of_steps(prefill_s: f64, steps_s: Vec<f64>, best: u32) -> Times {
        Times { prefill_s, decode_s: steps_s.iter().sum(), steps_s, best: Some(best) }
    }
}

/// Where peers are looked for, and how long they may take.
#[derive(Debug, Clone)]
pub struct Places {
    /// The Python that runs `llama_cpp` and transformers; `python3` where nobody names one, and then `llama-bench` may
    /// stand in for `llama_cpp`.
    pub python: Option<PathBuf>,
    /// The program `llama-bench`; the one on the PATH where nobody names one.
    pub llama_bench: Option<PathBuf>,
    /// The longest that a peer may take for an answer.
    pub timeout: Duration,
}

/// A peer that was found; what runs of it ends with this value.
pub(super) enum Peer<'a> {
    /// In Python.
    Driver(Driver<'a>),
    /// A program for each run.
    LlamaBench(LlamaBench<'a>),
}

impl<'a> Peer<'a> {
    /// Finds and starts a peer; also, in words, who stands in for it.
    ///
    /// # Errors
    /// None of that kind is there; anything that [`Peer::run`] can fail at.
    pub fn start(
        kind: Kind,
        places: &Places,
        cancel: &'a AtomicBool,
    ) -> Result<(Peer<'a>, Option<String>), LabError> {
        let bench = || {
            let program = places.llama_bench.clone().unwrap_or_else(|| PathBuf::from("llama-bench"));
            LlamaBench::start(program, places.timeout, cancel).map(Peer::LlamaBench)
        };
        if kind == Kind::LlamaBench {
            return Ok((bench()?, None));
        }
        let python = places.python.clone().unwrap_or_else(|| PathBuf::from("python3"));
        let is_absent = |error: &LabError| {
            use CompareError::{Missing, NoPython};
            matches!(error, LabError::Compare(Missing { .. } | NoPython { .. }))
        };
        match Driver::start(kind, &python, places.timeout, cancel) {
            Ok(driver) => Ok((Peer::Driver(driver), None)),
            // Nobody said that it must be Python.
            Err(absent) if kind == Kind::LlamaCpp && places.python.is_none() && is_absent(&absent) => {
                let Ok(peer) = bench() else { return Err(absent) };
                Ok((peer, Some(format!("llama-bench runs in place of llama_cpp, since {absent}"))))
            }
            Err(error) => Err(error),
        }
    }

    /// Name and version; complete once a model is loaded.
    pub fn version(&self) -> &str {
        match self {
            Peer::Driver(peer) => peer.version(),
            Peer::LlamaBench(peer) => peer.version(),
        }
    }

    /// Loads a model; gives what the peer chose, in words.
    ///
    /// # Errors
    /// As [`Peer::run`].
    pub fn load(&mut self, load: Load<'_>) -> Result<String, LabError> {
        match self {
            Peer::Driver(peer) => peer.load(load),
            Peer::LlamaBench(peer) => peer.load(load),
        }
    }

    /// Takes in `depth` untimed, then `prompt` at once and `decode` one by one, each timed.
    ///
    /// # Errors
    /// A process that ends, is silent for too long, says that it cannot, or answers something else; the user's wish to
    /// stop.
    pub fn run(&mut self, depth: &[u32], prompt: &[u32], decode: &[u32]) -> Result<Times, LabError> {
        match self {
            Peer::Driver(peer) => peer.run(depth, prompt, decode),
            Peer::LlamaBench(peer) => peer.run(depth.len(), prompt.len(), decode.len()),
        }
    }
}

/// What a process said last on stderr, with what leads to it; empty when it said nothing.
pub(super) fn last_words(stderr: &Mutex<String>) -> String {
    let words = stderr.lock().map_or(String::new(), |words| words.clone());
    let last = words.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    if last.is_empty() { String::new() } else { format!("; its last words: {}", shown(last)) }
}

/// Keeps what was said last, so that a peer that says much never fills its pipe or our memory.
pub(super) fn keep_last_words(mut from: impl Read, words: &Mutex<String>) {
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        let Ok(mut words) = words.lock() else { return };
        words.push_str(&String::from_utf8_lossy(&buffer[..read]));
        let mut from = words.len().saturating_sub(4096);
        while !words.is_char_boundary(from) {
            from += 1;
        }
        words.drain(..from);
    }
}

/// One line, not too long.
pub(super) fn shown(text: &str) -> String {
    let line: String =
        text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(SHOWN).collect();
    if text.trim().chars().count() > SHOWN { format!("{line}…") } else { line }
}
