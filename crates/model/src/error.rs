//! What can be wrong with the description of a model, in words that name the offender and the way out.

/// Errors of this crate. `file` is the path or label the caller gave for what was being read.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // the fields are the placeholders of the message above them
pub enum ModelError {
    #[error("{file}: not a JSON object: {reason}")]
    Json { file: String, reason: String },

    #[error("{file}: {key} is missing; expected {expected}")]
    MissingKey { file: String, key: String, expected: &'static str },

    #[error("{file}: {key} is {found}, expected {expected}")]
    BadValue { file: String, key: String, found: String, expected: String },

    #[error("{file}: architecture {found:?} is not supported; supported are {supported}")]
    UnknownArchitecture { file: String, found: String, supported: String },

    #[error("{file}: {option} is not supported; {supported}")]
    UnsupportedOption { file: String, option: String, supported: String },

    #[error("{file}: {field} is {value}, but {rule}")]
    Invalid { file: String, field: &'static str, value: String, rule: String },

    #[error("{0}")]
    Tensors(#[from] crate::tensor_plan::PlanMismatch),

    #[error("no preset is called {name:?}; the nearest are {nearest}")]
    UnknownPreset { name: String, nearest: String },
}
