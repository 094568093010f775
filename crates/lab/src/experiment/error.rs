//! What an experiment refuses, or cannot go on without.

/// Specifications that cannot run, and files that hold something else.
#[derive(Debug, thiserror::Error)]
pub enum ExperimentError {
    /// A line of a file that is no row.
    #[error("{file}, line {line}: {why}")]
    Row {
        /// The file.
        file: String,
        /// Its line, from 1.
        line: usize,
        /// What is wrong with it.
        why: String,
    },
}
