//! Everything that can be wrong with a weight file or a request to this crate, in words that name the offender.

use crate::Format;

/// Errors of this crate. `file` is the path as given, or the label of an in-memory source.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // the fields are the placeholders of the message above them
pub enum WeightsError {
    #[error("{file}: cannot {action}: {source}")]
    Io { file: String, action: &'static str, source: std::io::Error },

    #[error("{file}: {why}")]
    NotACheckpoint { file: String, why: String },

    #[error("{file}: truncated: {field} at byte {offset} needs {needed} bytes, {available} are left")]
    Truncated { file: String, field: String, offset: u64, needed: u64, available: u64 },

    #[error("{file}: {field} is {value}, expected {expected}")]
    BadField { file: String, field: String, value: String, expected: String },

    #[error("{file}: {what} {name:?} occurs twice")]
    Duplicate { file: String, what: &'static str, name: String },

    #[error(
        "{file}: big-endian GGUF (version {version}); only little-endian files are read, convert it with gguf_convert_endian.py"
    )]
    BigEndian { file: String, version: u32 },

    #[error("{file}: GGUF version {version}; versions 1, 2 and 3 are read")]
    GgufVersion { file: String, version: u32 },

    #[error(
        "{file}: tensor {tensor:?} has type {found}, which is not supported; supported are {}",
        all_formats()
    )]
    UnsupportedFormat { file: String, tensor: String, found: String },

    #[error(
        "{file}: tensor {tensor:?} {shape:?} is stored as {format}, whose blocks of {block} weights do not fill rows of {columns}"
    )]
    RaggedRows {
        file: String,
        tensor: String,
        shape: Vec<usize>,
        format: Format,
        block: usize,
        columns: usize,
    },

    #[error("{file}: tensor {tensor:?} occupies data bytes {start}..{end}, the file holds {available}")]
    TensorOutOfBounds { file: String, tensor: String, start: u64, end: u64, available: u64 },

    #[error(
        "{file}: tensor {tensor:?} begins at data byte {start} inside tensor {other:?}, which ends at {end}"
    )]
    TensorsOverlap { file: String, tensor: String, start: u64, other: String, end: u64 },

    #[error("{file}: data bytes {start}..{end} before {before} belong to no tensor")]
    Hole { file: String, start: u64, end: u64, before: String },

    #[error(
        "{file}: shard {shard:?} of tensor {tensor:?} is not in the folder; download it or fix the index"
    )]
    MissingShard { file: String, shard: String, tensor: String },

    #[error("{file}: the index places tensor {tensor:?} in {shard:?}, which does not hold it")]
    NotInShard { file: String, shard: String, tensor: String },

    #[error("{file}: tensor {tensor:?} is missing")]
    MissingTensor { file: String, tensor: String },

    #[error("{file}: metadata key {key:?} is missing")]
    MissingKey { file: String, key: String },

    #[error("{file}: metadata key {key:?} holds {found}, wanted {wanted}")]
    WrongType { file: String, key: String, found: String, wanted: &'static str },

    #[error("{weights} weights as {format} are {expected}, got {bytes} bytes")]
    BlockBytes { format: Format, weights: usize, expected: String, bytes: usize },

    #[error(
        "cannot encode {weights} weights as {format}: they must be whole rows of {columns} columns, those whole blocks of {block}"
    )]
    EncodeLength { format: Format, weights: usize, block: usize, columns: usize },

    #[error("value {index} is {value}, too large for {format}")]
    OutOfRange { index: usize, value: f32, format: Format },

    #[error(
        "{what} {index} is {value}; encoding as {format} takes finite values and non-negative importance"
    )]
    NotFinite { what: &'static str, index: usize, value: f32, format: Format },

    #[error("tensor {tensor:?} of the GGUF being written: {problem}")]
    Writer { tensor: String, problem: String },
}

fn all_formats() -> String {
    Format::ALL.map(Format::name).join(", ")
}

impl WeightsError {
    pub(crate) fn bad(
        file: &str,
        field: impl Into<String>,
        value: impl ToString,
        expected: impl Into<String>,
    ) -> WeightsError {
        WeightsError::BadField {
            file: file.to_owned(),
            field: field.into(),
            value: value.to_string(),
            expected: expected.into(),
        }
    }
}
