//! Tokens per second of a model on this machine, beside the roof measured in the same minutes.
//!
//! As llama-bench counts: `pp512` takes in 512 tokens at once and computes the logits of the last, `tg128` takes in 128
//! tokens one by one and computes the logits of each; neither tokenizes nor samples. Token ids are drawn from a seed.
//! A row is one such test of one model at one depth, which is the number of tokens in the cache before it. Every row
//! runs once uncounted, then all rows in turn, as often as asked; the machine is probed before, between and after the
//! rounds.

mod error;
mod plan;
mod roof;
mod row;
mod run;

pub use error::BenchError;
pub use plan::{Case, Phase, Settings, Setup, check_memory, plan};
pub use roof::Roof;
pub use row::{Row, Spread};
pub use run::{Progress, Report, Sample, Subject, run};
