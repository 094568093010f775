//! What can go wrong in the laboratory.

use std::path::PathBuf;

use roofline_engine::EngineError;
use roofline_kernels::probe::ProbeError;
use roofline_limits::LimitsError;

use crate::bench::BenchError;
use crate::compare::CompareError;
use crate::convert::ConvertError;
use crate::experiment::ExperimentError;
use crate::plot::PlotError;
use crate::quality::QualityError;
use crate::statistics::StatisticsError;

/// Every error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// A probe could not run.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// Samples that cannot be summed up.
    #[error(transparent)]
    Statistics(#[from] StatisticsError),
    /// Data that no chart can show.
    #[error(transparent)]
    Plot(#[from] PlotError),
    /// A figure that the calculator refuses.
    #[error(transparent)]
    Limits(#[from] LimitsError),
    /// A machine that was not measured far enough to be a device.
    #[error("this machine's file has no figure for `{what}`; measure again with `roofline machine`")]
    NoFigure {
        /// Label of the figure.
        what: &'static str,
    },
    /// A benchmark that cannot run.
    #[error(transparent)]
    Bench(#[from] BenchError),
    /// An experiment that cannot run, or a file that is none.
    #[error(transparent)]
    Experiment(#[from] ExperimentError),
    /// A comparison that cannot run, or a peer that failed.
    #[error(transparent)]
    Compare(#[from] CompareError),
    /// What the engine refused or failed at.
    #[error(transparent)]
    Engine(EngineError),
    /// A model that cannot be written.
    #[error(transparent)]
    Convert(ConvertError),
    /// A text or a plan that gives no perplexity.
    #[error(transparent)]
    Quality(#[from] QualityError),
    /// The caller called it off.
    #[error("cancelled")]
    Cancelled,
    /// A file could not be read or written.
    #[error("cannot {action} {path}: {source}", path = path.display())]
    File {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A machine file that is not one.
    #[error("{path} does not describe a machine: {reason}; measure again with `roofline machine`", path = path.display())]
    MachineFile {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        reason: String,
    },
    /// No place for a user's own files.
    #[error("no configuration folder: neither XDG_CONFIG_HOME nor HOME is set; name a file instead")]
    NoConfigFolder,
}

impl From<ConvertError> for LabError {
    fn from(error: ConvertError) -> LabError {
        match error {
            ConvertError::Cancelled => LabError::Cancelled,
            error => LabError::Convert(error),
        }
    }
}
