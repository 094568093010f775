//! What an experiment refuses, or cannot go on without.

use std::path::PathBuf;

/// Specifications that cannot run, files that hold something else, and what stops a run.
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
    /// No experiment of that name.
    #[error("no experiment is called `{name}`; did you mean {}? (`roofline experiment list` shows all)", .nearest.join(" or "))]
    Name {
        /// What was given.
        name: String,
        /// Names that are like it.
        nearest: Vec<String>,
    },
    /// No axis, or no key of a file, of that name.
    #[error("there is nothing called `{key}` to set; did you mean {}?", .nearest.join(" or "))]
    Key {
        /// What was given.
        key: String,
        /// Names that are like it.
        nearest: Vec<String>,
    },
    /// A value that an axis does not take.
    #[error("{axis}: `{value}` cannot be: {why}")]
    AxisValue {
        /// The axis.
        axis: &'static str,
        /// What was given.
        value: String,
        /// What it takes.
        why: String,
    },
    /// Settings that contradict each other or lie out of range.
    #[error("{0}")]
    Spec(String),
    /// A specification file that does not read.
    #[error("{path}: {why}", path = path.display())]
    SpecFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// No cell is left.
    #[error("nothing can run: {0}")]
    NothingRuns(String),
    /// The output file belongs to something else.
    #[error("{path} holds {holds}; name another file with -o, or remove it", path = path.display())]
    OtherFile {
        /// The file.
        path: PathBuf,
        /// What it holds.
        holds: String,
    },
    /// A model that is not the one of the rows before.
    #[error(
        "the model {model} is not the one that {path} was begun with (hash {now}, then {then}): its rows cannot be \
         continued; name another file with -o", path = path.display()
    )]
    ModelChanged {
        /// The model.
        model: String,
        /// The file of rows.
        path: PathBuf,
        /// Its hash now.
        now: String,
        /// Its hash in the rows.
        then: String,
    },
    /// Rows that could not be written.
    #[error(
        "cannot write {path}: {source}; the {rows} rows before are whole: make room and give the same command again",
        path = path.display()
    )]
    Write {
        /// The file.
        path: PathBuf,
        /// Rows that are safe.
        rows: usize,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Models that do not fit the memory together.
    #[error(
        "{model} takes {wanted} bytes, {available} are available beside what is loaded: measure fewer models at once"
    )]
    Memory {
        /// The model.
        model: String,
        /// Bytes of its weights.
        wanted: u64,
        /// Bytes free.
        available: u64,
    },
    /// A model that is neither embedded, nor a file, nor a geometry.
    #[error("{name}: no such file or folder, and no geometry of that name; {hint}")]
    NoModel {
        /// What was given.
        name: String,
        /// Geometries that are like it.
        hint: String,
    },
}
