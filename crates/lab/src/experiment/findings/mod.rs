//! From rows to conclusions: pure functions of what is in the file. What a run's own figures cannot carry is said to be
//! not shown.

mod against;
mod cap;
mod common;
mod depth;
mod noise;
mod output;
mod prompt;
mod size;

pub use common::noise_floor;

use super::recording::Recording;
use super::rows::Finding;
use super::spec::Analysis;

/// Confidence of every interval.
pub const CONFIDENCE: f64 = 0.95;

/// Everything that follows from the counted runs of a file, most important first. The same rows give the same findings.
pub fn findings(recording: &Recording) -> Vec<Finding> {
    let mut all = match recording.header.spec.analysis {
        Analysis::OutputTokens => output::findings(recording),
        Analysis::MaxNewTokens => cap::findings(recording),
        Analysis::PromptLength => prompt::findings(recording),
        Analysis::ContextDepth => depth::findings(recording),
        Analysis::CachePolicy => against::first_value(recording, "cache", &["itl_p50", "tpot", "ttft"]),
        Analysis::ModelSize => size::findings(recording),
        Analysis::Precision => against::first_value(recording, "precision", &["itl_p50", "tpot", "prefill"]),
        Analysis::Threads => against::first_value(recording, "threads", &["itl_p50", "tpot", "prefill"]),
        Analysis::Noise => noise::arms(recording),
        Analysis::Plain => Vec::new(),
    };
    all.extend(noise::floor(recording));
    all.extend(noise::drift(recording));
    all
}
