//! Experiments: a question, axes with values, runs in a random order, and what follows from them.

mod error;
mod hash;
mod ordered;
pub mod recording;
pub mod rows;
pub mod spec;

pub use error::ExperimentError;
pub use hash::{Hash, hash_of, hash_of_ids};
pub use ordered::Ordered;
pub use recording::Recording;
pub use spec::{Analysis, Prompts, Spec};
