//! What this machine's memory and arithmetic reach: short loops that do nothing but read, write or multiply.
//!
//! Every probe runs the same work on a number of threads that start together and counts the work of all of them over
//! the time from the first start to the last end. The loops use the widest instructions the processor offers,
//! whatever the engine's kernels were told to use: a probe measures the machine, not the engine.

mod arithmetic;
mod race;
mod stream;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(target_arch = "aarch64")]
mod aarch64;

use std::time::Duration;

pub use arithmetic::Arithmetic;
pub use stream::{Memory, read, read_patterns, write};

/// How a probe repeats itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Threads that work at the same time; at least one.
    pub threads: usize,
    /// Samples taken after the warm-up; at least one.
    pub repeats: usize,
    /// Least time of one sample; the warm-up finds how many passes fill it.
    pub sample: Duration,
}

/// The samples of one probe.
#[derive(Debug, Clone, PartialEq)]
pub struct Samples {
    /// The instruction that did the work, as `vpdpbusd zmm`.
    pub instruction: &'static str,
    /// Threads that worked.
    pub threads: usize,
    /// Bytes or operations per second of each sample, in the order taken. A multiply-add counts as two operations.
    pub rates: Vec<f64>,
}

/// Why a probe could not run.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The operating system refused a thread.
    #[error("cannot start thread {thread} of {threads} for the probe: {source}; ask for fewer threads")]
    Thread {
        /// Number of the thread that failed, from 0.
        thread: usize,
        /// Threads asked for.
        threads: usize,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The buffer does not fit into memory.
    #[error("no memory for a probe buffer of {bytes} bytes; ask for a smaller one")]
    Memory {
        /// Size asked for.
        bytes: usize,
    },
    /// A plan without threads, samples or memory.
    #[error(
        "a probe needs at least one thread, one repeat and one buffer line per thread, got {threads} threads, {repeats} repeats, {bytes} bytes"
    )]
    Empty {
        /// Threads asked for.
        threads: usize,
        /// Samples asked for.
        repeats: usize,
        /// Bytes asked for.
        bytes: usize,
    },
}
