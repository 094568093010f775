//! Experiments: a question, axes with values, runs in a random order, and what follows from them.
//!
//! A [`Spec`] multiplies its axes out to cells. [`run()`] warms up until round takes as long as round, then runs every
//! cell once per round in an order drawn from the seed, and appends a row per run to a file that can be continued.
//! [`findings()`] turns rows into fits, intervals and sentences; a report computes them again from the file.
//! `docs/measuring.md` describes method and file.

pub mod axes;
mod error;
mod figures;
mod findings;
pub mod guard;
mod hash;
mod ordered;
mod plan;
pub mod presets;
mod prompt;
mod quality;
mod recording;
mod rounds;
pub mod rows;
mod run;
mod settle;
mod spec;
mod spec_file;
pub(crate) mod subjects;
mod summary;
pub(crate) mod surroundings;
mod trial;
pub(crate) mod writer;

pub use error::ExperimentError;
pub use findings::{findings, noise_floor};
pub use hash::{Hash, hash_of, hash_of_ids};
pub use ordered::Ordered;
pub use plan::Cell;
pub use presets::{PRESETS, Preset};
pub use recording::Recording;
pub use run::{Job, Outcome, Progress, run};
pub use spec::{Analysis, Prompts, Spec};
pub use summary::{CellSummary, Summary, summarize};
