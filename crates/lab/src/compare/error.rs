//! What a comparison refuses, and how a peer can fail.

use std::path::PathBuf;
use std::time::Duration;

/// The other way to llama.cpp.
fn or_bench(peer: &str) -> &'static str {
    if peer == "llama.cpp" { ", or put llama-bench on the PATH" } else { "" }
}

/// A peer that is not there, cannot take the model, or does not answer as it should.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// A name that is no peer.
    #[error("`{name}` is no peer; there are llama.cpp, llama-bench and transformers")]
    Peer {
        /// What was given.
        name: String,
    },
    /// The module is not installed.
    #[error(
        "{peer} is not there: {python} says `{why}`; install it with `{install}`, or name another Python with --python{}",
        or_bench(.peer)
    )]
    Missing {
        /// The peer.
        peer: &'static str,
        /// The Python that was asked.
        python: String,
        /// What it said.
        why: String,
        /// The command that installs it.
        install: &'static str,
    },
    /// No Python to run the peer.
    #[error("no Python for {peer}: {tried} ({source}); name one with --python, after `{install}`{}", or_bench(.peer), tried = tried.display())]
    NoPython {
        /// The peer.
        peer: &'static str,
        /// What was tried.
        tried: PathBuf,
        /// The system's reason.
        source: std::io::Error,
        /// The command that installs the peer.
        install: &'static str,
    },
    /// No such program.
    #[error("{peer} is not there: {tried} ({source}); build it in a copy of llama.cpp with `{install}`, then put it on the PATH or name it with --llama-bench", tried = tried.display())]
    NoProgram {
        /// The peer.
        peer: &'static str,
        /// What was tried.
        tried: PathBuf,
        /// The system's reason.
        source: std::io::Error,
        /// The commands that build it.
        install: &'static str,
    },
    /// A model in files that the peer does not read.
    #[error("{peer} cannot read {model}: {why}")]
    Model {
        /// The peer.
        peer: &'static str,
        /// The model.
        model: String,
        /// Why, and the way out.
        why: String,
    },
    /// The peer's process is gone.
    #[error("{peer} ended while it should {doing}{stderr}")]
    Crashed {
        /// The peer.
        peer: &'static str,
        /// What it was asked for.
        doing: &'static str,
        /// Its last words, with what leads to them; empty when it said nothing.
        stderr: String,
    },
    /// The peer did not answer.
    #[error("{peer} did not {doing} within {} s; --timeout gives it longer", limit.as_secs())]
    TimedOut {
        /// The peer.
        peer: &'static str,
        /// What it was asked for.
        doing: &'static str,
        /// How long was waited.
        limit: Duration,
    },
    /// An answer that cannot be understood.
    #[error("{peer} answered what cannot be understood when it should {doing}: `{answer}`")]
    Garbage {
        /// The peer.
        peer: &'static str,
        /// What it was asked for.
        doing: &'static str,
        /// The beginning of the answer.
        answer: String,
    },
    /// The peer says that it cannot.
    #[error("{peer} could not {doing}: {why}")]
    Refused {
        /// The peer.
        peer: &'static str,
        /// What it was asked for.
        doing: &'static str,
        /// What it said.
        why: String,
    },
    /// A setting that makes no sense.
    #[error("{0}")]
    Setting(String),
}
