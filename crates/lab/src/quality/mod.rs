//! Quality: how well a model predicts a text, and what a cache policy or a narrower cache costs of it.
//!
//! [`measure`] runs windows of a text through one session per setup and scores the tokens that a [`Convention`] names.
//! `docs/quality.md` defines every figure.

mod convention;
mod error;
#[cfg(test)]
mod golden;
mod plan;
mod report;
mod run;
mod score;
mod text;

pub use convention::{Convention, Window};
pub use error::QualityError;
pub use plan::{Mode, Plan, Setup};
pub use report::{Against, Bucket, Estimate, KvBytes, Perplexity, Report, Row, Speed};
pub use run::{Progress, measure};
pub use score::Scored;
pub use text::{Counts, Source, Text, lead};
