//! Why a model cannot be converted.

use std::ops::Range;
use std::path::PathBuf;

use roofline_limits::LimitsError;
use roofline_model::ModelError;
use roofline_weights::{Format, WeightsError};

/// Everything that stops a conversion. Nothing is left on disk when one is returned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // the fields are the placeholders of the message above them
pub enum ConvertError {
    #[error("cannot {action} {path}: {source}", path = path.display())]
    File { action: &'static str, path: PathBuf, source: std::io::Error },

    #[error("{path} is no model: {why}", path = path.display())]
    NotAModel { path: PathBuf, why: String },

    #[error("{path} exists; --force replaces it", path = path.display())]
    Exists { path: PathBuf },

    #[error("{path} is {what}; name a {wanted} to write", path = path.display())]
    WrongOutput { path: PathBuf, what: &'static str, wanted: &'static str },

    #[error(transparent)]
    Model(#[from] ModelError),

    #[error(transparent)]
    Weights(#[from] WeightsError),

    #[error(transparent)]
    Type(#[from] LimitsError),

    #[error("tensor {tensor:?}, rows {rows:?}: {source}")]
    Tensor { tensor: String, rows: Range<usize>, source: WeightsError },

    #[error("{file}: {what} cannot be written to a GGUF file: {why}")]
    NotExpressible { file: String, what: String, why: String },

    #[error("{file}: {why}")]
    Tokenizer { file: String, why: String },

    #[error(
        "tensor {tensor:?} is already quantized, as {format}; quantizing twice loses more than once from the original: start from \
         F32, F16 or BF16, or say --requantize"
    )]
    Requantize { tensor: String, format: Format },

    #[error("{file} is no importance matrix: {why}")]
    Importance { file: String, why: String },

    #[error("{file}: the entry of {tensor:?} has {found} values, the tensor has {wanted}")]
    ImportanceSize { file: String, tensor: String, found: usize, wanted: String },

    #[error("{file} would guide nothing: {why}")]
    ImportanceUnused { file: String, why: String },

    #[error("{geometry:?} is neither a preset nor a config.json: {why}")]
    Geometry { geometry: String, why: String },

    #[error("cancelled")]
    Cancelled,
}
