//! A peer in a Python process of its own that stays loaded while runs are interleaved; JSON lines there and back.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value, json};

use super::error::CompareError;
use super::peer::{GLANCE, Kind, Load, Times, keep_last_words, last_words, shown};
use crate::error::LabError;

const DRIVER: &str = include_str!("driver.py");
/// An answer of more than this is garbage; ten thousand steps take 200 kB.
const LONGEST_ANSWER: u64 = 16 << 20;

/// What the process answers to a run, in seconds.
#[derive(Debug, Deserialize)]
struct Answer {
    prefill_s: f64,
    steps_s: Vec<f64>,
    best: u32,
}

/// A running process; it ends with this value.
pub(super) struct Driver<'a> {
    kind: Kind,
    /// Name and version, as it told them.
    version: String,
    child: Child,
    stdin: Option<ChildStdin>,
    answers: Receiver<std::io::Result<String>>,
    stderr: Arc<Mutex<String>>,
    limit: Duration,
    cancel: &'a AtomicBool,
}

impl<'a> Driver<'a> {
    /// Starts `python` and asks for the peer's version. No answer may take longer than `limit`.
    ///
    /// # Errors
    /// No such program, no such module, anything that [`Driver::run`] can fail at.
    pub fn start(
        kind: Kind,
        python: &Path,
        limit: Duration,
        cancel: &'a AtomicBool,
    ) -> Result<Driver<'a>, LabError> {
        let mut command = Command::new(python);
        // A user's own settings of threads would be compared instead of the same number for both.
        command
            .args(["-u", "-c", DRIVER])
            .env_remove("OMP_NUM_THREADS")
            .env("TOKENIZERS_PARALLELISM", "false");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let no_python = |source| {
            let (peer, install) = (kind.name(), kind.install());
            CompareError::NoPython { peer, tried: python.to_path_buf(), source, install }
        };
        let mut child = command.spawn().map_err(no_python)?;
        let stderr = Arc::new(Mutex::new(String::new()));
        let (send, answers) = channel();
        if let (Some(out), Some(err)) = (child.stdout.take(), child.stderr.take()) {
            std::thread::spawn(move || {
                let mut out = BufReader::new(out);
                loop {
                    let line = read_line(&mut out);
                    let is_last = !matches!(&line, Ok(line) if !line.is_empty());
                    if send.send(line).is_err() || is_last {
                        break;
                    }
                }
            });
            let words = Arc::clone(&stderr);
            std::thread::spawn(move || keep_last_words(BufReader::new(err), &words));
        }
        let stdin = child.stdin.take();
        let mut peer = Driver { kind, version: String::new(), child, stdin, answers, stderr, limit, cancel };
        let hello = peer.ask(&json!({ "do": "hello", "peer": kind.name() }), "say its version")?;
        if let Some(why) = hello.get("missing").and_then(Value::as_str) {
            let python = python.display().to_string();
            let (peer, why, install) = (kind.name(), shown(why), kind.install());
            return Err(CompareError::Missing { peer, python, why, install }.into());
        }
        peer.version = peer.text(&hello, "version", "say its version")?;
        Ok(peer)
    }

    /// Name and version.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Loads a model; gives what the peer chose, in words.
    ///
    /// # Errors
    /// As [`Driver::run`].
    pub fn load(&mut self, load: Load<'_>) -> Result<String, LabError> {
        let asked = json!({
            "do": "load",
            "model": load.model,
            "threads": load.threads,
            "context": load.context,
            "kv_type": load.kv_type,
        });
        let answer = self.ask(&asked, "load the model")?;
        Ok(self.text(&answer, "details", "load the model")?)
    }

    /// Takes in `depth` untimed, then `prompt` at once and `decode` one by one, each timed.
    ///
    /// # Errors
    /// A process that ends, is silent for too long, says that it cannot, or answers something else; the user's wish to
    /// stop.
    pub fn run(&mut self, depth: &[u32], prompt: &[u32], decode: &[u32]) -> Result<Times, LabError> {
        let doing = "run";
        let answer =
            self.ask(&json!({ "do": "run", "depth": depth, "prompt": prompt, "decode": decode }), doing)?;
        let told: Answer =
            serde_json::from_value(answer.clone()).map_err(|_| self.garbage(doing, &answer.to_string()))?;
        let is_time = |seconds: &f64| seconds.is_finite() && *seconds > 0.0;
        let are_whole = told.steps_s.len() == decode.len();
        if are_whole && is_time(&told.prefill_s) && told.steps_s.iter().all(is_time) {
            Ok(Times::of_steps(told.prefill_s, told.steps_s, told.best))
        } else {
            Err(self.garbage(doing, &answer.to_string()).into())
        }
    }

    fn ask(&mut self, question: &Value, doing: &'static str) -> Result<Value, LabError> {
        let sent = match &mut self.stdin {
            Some(stdin) => writeln!(stdin, "{question}").and_then(|()| stdin.flush()),
            None => Ok(()),
        };
        // A process that is gone cannot be written to; its last words say more than the broken pipe.
        let line = if sent.is_ok() { self.listen(doing)? } else { String::new() };
        if line.is_empty() {
            return Err(self.gone(doing));
        }
        let answer: Value = serde_json::from_str(&line).map_err(|_| self.garbage(doing, &line))?;
        match answer.get("error").and_then(Value::as_str) {
            Some(why) => Err(CompareError::Refused { peer: self.kind.name(), doing, why: shown(why) }.into()),
            None => Ok(answer),
        }
    }

    /// The next line; empty when the process is gone.
    fn listen(&self, doing: &'static str) -> Result<String, LabError> {
        let began = Instant::now();
        loop {
            match self.answers.recv_timeout(GLANCE) {
                Ok(Ok(line)) => return Ok(line),
                Ok(Err(error)) => return Err(self.garbage(doing, &error.to_string()).into()),
                Err(RecvTimeoutError::Disconnected) => return Ok(String::new()),
                Err(RecvTimeoutError::Timeout) if self.cancel.load(Ordering::Relaxed) => {
                    return Err(LabError::Cancelled);
                }
                Err(RecvTimeoutError::Timeout) if began.elapsed() > self.limit => {
                    let (peer, limit) = (self.kind.name(), self.limit);
                    return Err(CompareError::TimedOut { peer, doing, limit }.into());
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    fn gone(&mut self, doing: &'static str) -> LabError {
        let _ = self.child.wait(); // its stderr is complete then
        std::thread::sleep(GLANCE);
        // Ctrl-C reaches the whole group of processes; the peer is often the first to go.
        if self.cancel.load(Ordering::Relaxed) {
            return LabError::Cancelled;
        }
        CompareError::Crashed { peer: self.kind.name(), doing, stderr: last_words(&self.stderr) }.into()
    }

    fn garbage(&self, doing: &'static str, answer: &str) -> CompareError {
        CompareError::Garbage { peer: self.kind.name(), doing, answer: shown(answer) }
    }

    fn text(&self, answer: &Value, field: &str, doing: &'static str) -> Result<String, CompareError> {
        let text = answer.get(field).and_then(Value::as_str);
        text.map(str::to_string).ok_or_else(|| self.garbage(doing, &answer.to_string()))
    }
}

impl Drop for Driver<'_> {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.child.kill(); // it may have ended by itself
        let _ = self.child.wait();
    }
}

/// A line of bounded length; empty at the end.
fn read_line(out: &mut impl BufRead) -> std::io::Result<String> {
    let mut line = Vec::new();
    out.take(LONGEST_ANSWER).read_until(b'\n', &mut line)?;
    let whole = line.is_empty() || line.ends_with(b"\n");
    match String::from_utf8(line) {
        Ok(line) if whole => Ok(line),
        Ok(line) => Err(std::io::Error::other(format!("a line without an end: {}", shown(&line)))),
        Err(_) => Err(std::io::Error::other("a line that is no UTF-8")),
    }
}
