//! llama.cpp through its own program `llama-bench`: a process for each figure, which loads the file, runs once to warm
//! up and once for the clock. It draws ids of its own and tells sums, not steps.

use std::io::{BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::error::CompareError;
use super::peer::{GLANCE, Kind, Load, Times, keep_last_words, last_words, shown};
use crate::error::LabError;

const NAME: &str = "llama-bench";
/// An answer of more than this is garbage.
const LONGEST_ANSWER: u64 = 1 << 20;

/// Of the object that it prints for a test, what is needed.
#[derive(Debug, Deserialize)]
struct Answer {
    build_commit: String,
    build_number: u64,
    n_prompt: usize,
    n_gen: usize,
    samples_ns: Vec<u64>,
}

/// Tokens of one test: either of the last two is 0.
#[derive(Debug, Clone, Copy)]
struct Test {
    depth: usize,
    prompt: usize,
    generate: usize,
}

/// The program and what it is told each time.
pub(super) struct LlamaBench<'a> {
    program: PathBuf,
    version: String,
    arguments: Vec<String>,
    limit: Duration,
    cancel: &'a AtomicBool,
}

impl<'a> LlamaBench<'a> {
    /// Looks whether the program runs. No answer may take longer than `limit`.
    ///
    /// # Errors
    /// [`CompareError::NoProgram`].
    pub fn start(
        program: PathBuf,
        limit: Duration,
        cancel: &'a AtomicBool,
    ) -> Result<LlamaBench<'a>, LabError> {
        let quiet = [Stdio::null(), Stdio::null(), Stdio::null()];
        let [stdin, stdout, stderr] = quiet;
        let asked = Command::new(&program).arg("--help").stdin(stdin).stdout(stdout).stderr(stderr).spawn();
        let mut asked = asked.map_err(|source| CompareError::NoProgram {
            peer: NAME,
            tried: program.clone(),
            source,
            install: Kind::LlamaBench.install(),
        })?;
        let _ = asked.wait(); // how it ends says nothing
        Ok(LlamaBench { program, version: NAME.to_string(), arguments: Vec::new(), limit, cancel })
    }

    /// Name and version.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Runs one token through the model, which tells the version.
    ///
    /// # Errors
    /// As [`LlamaBench::run`].
    pub fn load(&mut self, load: Load<'_>) -> Result<String, LabError> {
        let threads = load.threads.to_string();
        let kv_type = load.kv_type;
        let told = ["-m", load.model, "-t", &threads, "-ctk", kv_type, "-ctv", kv_type, "-ngl", "0"];
        self.arguments = told.map(str::to_string).into();
        self.arguments.extend(["-r", "1", "-o", "jsonl"].map(str::to_string));
        let doing = "load the model";
        let (answer, line) = self.test(Test { depth: 0, prompt: 1, generate: 0 }, doing)?;
        self.version = format!("llama.cpp b{} ({})", answer.build_number, answer.build_commit);
        let chosen: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
        let words = |name: &str| chosen.get(name).map_or(String::new(), |value| format!("; {name} {value}"));
        let settings: String =
            ["backends", "n_batch", "n_ubatch", "flash_attn", "repack"].map(words).concat();
        Ok(format!(
            "{} loads the file for each figure and draws ids of its own; it tells no probabilities, so that it computes \
             the same was not checked{settings}",
            self.program.display()
        ))
    }

    /// The prompt behind `depth` tokens, and `decode` steps behind both.
    ///
    /// # Errors
    /// A process that fails, is silent for too long or answers something else; the user's wish to stop.
    pub fn run(&mut self, depth: usize, prompt: usize, decode: usize) -> Result<Times, LabError> {
        let prefill_s = self.seconds(Test { depth, prompt, generate: 0 })?;
        let decode_s = self.seconds(Test { depth: depth + prompt, prompt: 0, generate: decode })?;
        Ok(Times { prefill_s, decode_s, steps_s: Vec::new(), best: None })
    }

    fn seconds(&self, test: Test) -> Result<f64, LabError> {
        let doing = "run";
        let (answer, line) = self.test(test, doing)?;
        match answer.samples_ns[..] {
            [ns] if ns > 0 => Ok(ns as f64 / 1e9),
            _ => Err(garbage(doing, &line).into()),
        }
    }

    /// One test; also the line that told it.
    fn test(&self, test: Test, doing: &'static str) -> Result<(Answer, String), LabError> {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).env_remove("OMP_NUM_THREADS");
        for (flag, count) in [("-p", test.prompt), ("-n", test.generate), ("-d", test.depth)] {
            // Versions before depths know no flag for none.
            if flag != "-d" || count > 0 {
                command.args([flag, &count.to_string()]);
            }
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|source| CompareError::NoProgram {
            peer: NAME,
            tried: self.program.clone(),
            source,
            install: Kind::LlamaBench.install(),
        })?;
        let said = self.listen(&mut child, doing);
        let _ = child.kill(); // it may have ended by itself
        let _ = child.wait();
        let said = said?;
        let line = said.lines().rev().find(|line| line.starts_with('{')).unwrap_or(&said);
        let answer: Answer = serde_json::from_str(line).map_err(|_| garbage(doing, &said))?;
        let is_asked = (answer.n_prompt, answer.n_gen) == (test.prompt, test.generate);
        if is_asked { Ok((answer, line.to_string())) } else { Err(garbage(doing, line).into()) }
    }

    /// What it prints until it ends.
    fn listen(&self, child: &mut Child, doing: &'static str) -> Result<String, LabError> {
        let (said, words) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(String::new())));
        let mut readers = Vec::new();
        if let (Some(out), Some(err)) = (child.stdout.take(), child.stderr.take()) {
            let (said, words) = (Arc::clone(&said), Arc::clone(&words));
            readers.push(std::thread::spawn(move || {
                let mut all = Vec::new();
                // What could be read until an error counts.
                let _ = out.take(LONGEST_ANSWER).read_to_end(&mut all);
                if let Ok(mut said) = said.lock() {
                    *said = all;
                }
            }));
            readers.push(std::thread::spawn(move || keep_last_words(BufReader::new(err), &words)));
        }
        let began = Instant::now();
        let status = loop {
            if let Ok(Some(status)) = child.try_wait() {
                break status;
            }
            if self.cancel.load(Ordering::Relaxed) {
                return Err(LabError::Cancelled);
            }
            if began.elapsed() > self.limit {
                return Err(CompareError::TimedOut { peer: NAME, doing, limit: self.limit }.into());
            }
            std::thread::sleep(GLANCE);
        };
        readers.into_iter().for_each(|reader| drop(reader.join()));
        // Ctrl-C reaches the whole group of processes.
        if self.cancel.load(Ordering::Relaxed) {
            return Err(LabError::Cancelled);
        }
        if !status.success() {
            return Err(CompareError::Crashed { peer: NAME, doing, stderr: last_words(&words) }.into());
        }
        let said = said.lock().map_or(Vec::new(), |said| said.clone());
        Ok(String::from_utf8_lossy(&said).into_owned())
    }
}

fn garbage(doing: &'static str, answer: &str) -> CompareError {
    CompareError::Garbage { peer: NAME, doing, answer: shown(answer) }
}
