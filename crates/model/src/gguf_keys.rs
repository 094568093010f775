//! Typed reading of GGUF metadata under one architecture's prefix, with the errors of [`crate::config_json`].

use crate::config_json::{A_FLAG, A_NUMBER, A_SIZE, A_TEXT, A_TOKEN};
use crate::error::ModelError;

/// What a GGUF header says, as far as a model's description needs it.
pub trait GgufHeader {
    /// The value of a metadata key.
    fn value(&self, key: &str) -> Option<GgufValue<'_>>;
    /// Shape of a tensor, outermost dimension first.
    fn shape(&self, tensor: &str) -> Option<&[usize]>;
}

/// A metadata value with its width forgotten.
#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(missing_docs)] // the variants are their names
pub enum GgufValue<'a> {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
    Text(&'a str),
    /// An array of this many elements.
    Array(usize),
}

impl std::fmt::Display for GgufValue<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            GgufValue::Unsigned(n) => write!(f, "{n}"),
            GgufValue::Signed(n) => write!(f, "{n}"),
            GgufValue::Float(x) => write!(f, "{x:?}"),
            GgufValue::Bool(b) => write!(f, "{b}"),
            GgufValue::Text(text) => write!(f, "{:?}", text.chars().take(60).collect::<String>()),
            GgufValue::Array(len) => write!(f, "an array of {len} values"),
        }
    }
}

impl GgufValue<'_> {
    fn whole(self) -> Option<u64> {
        match self {
            GgufValue::Unsigned(n) => Some(n),
            GgufValue::Signed(n) => u64::try_from(n).ok(),
            _ => None,
        }
    }

    fn number(self) -> Option<f64> {
        match self {
            GgufValue::Float(x) => Some(x).filter(|x| x.is_finite()),
            other => other.whole().map(|n| n as f64),
        }
    }
}

/// The metadata of one architecture: `size("block_count")` reads `llama.block_count`. A key with a dot in front is read as it
/// stands, without the prefix: `.tokenizer.ggml.bos_token_id`.
pub struct GgufKeys<'a> {
    header: &'a dyn GgufHeader,
    file: &'a str,
    architecture: String,
}

impl<'a> GgufKeys<'a> {
    /// Finds the architecture; `file` is the name in error messages.
    ///
    /// # Errors
    /// [`ModelError::MissingKey`], [`ModelError::BadValue`] for `general.architecture`.
    pub fn new(header: &'a dyn GgufHeader, file: &'a str) -> Result<GgufKeys<'a>, ModelError> {
        let bare = GgufKeys { header, file, architecture: String::new() };
        let architecture = bare.text(".general.architecture")?.to_string();
        Ok(GgufKeys { header, file, architecture })
    }

    /// `general.architecture`.
    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    /// Name of the file in error messages.
    pub fn file(&self) -> &str {
        self.file
    }

    /// Shape of a tensor, outermost dimension first.
    pub fn tensor_shape(&self, name: &str) -> Option<&[usize]> {
        self.header.shape(name)
    }

    /// Whether the file holds a tensor.
    pub fn has_tensor(&self, name: &str) -> bool {
        self.header.shape(name).is_some()
    }

    fn full_key(&self, key: &str) -> String {
        match key.strip_prefix('.') {
            Some(bare) => bare.to_string(),
            None => format!("{}.{key}", self.architecture),
        }
    }

    pub(crate) fn value(&self, key: &str) -> Option<GgufValue<'_>> {
        self.header.value(&self.full_key(key))
    }

    /// The error for a `key` whose value is not what was `expected`.
    pub(crate) fn bad(&self, key: &str, expected: impl Into<String>) -> ModelError {
        ModelError::BadValue {
            file: self.file.to_string(),
            key: self.full_key(key),
            found: self.value(key).map_or_else(|| "absent".to_string(), |value| value.to_string()),
            expected: expected.into(),
        }
    }

    /// The error for an option that no family file can run.
    pub(crate) fn unsupported(&self, key: &str, supported: impl Into<String>) -> ModelError {
        let found = self.value(key).map_or_else(|| "absent".to_string(), |value| value.to_string());
        ModelError::UnsupportedOption {
            file: self.file.to_string(),
            option: format!("{} = {found}", self.full_key(key)),
            supported: supported.into(),
        }
    }

    fn missing(&self, key: &str, expected: &'static str) -> ModelError {
        ModelError::MissingKey { file: self.file.to_string(), key: self.full_key(key), expected }
    }

    fn read<T>(
        &self,
        key: &str,
        expected: &'static str,
        convert: impl Fn(GgufValue<'_>) -> Option<T>,
    ) -> Result<Option<T>, ModelError> {
        match self.value(key) {
            None => Ok(None),
            Some(value) => convert(value).map(Some).ok_or_else(|| self.bad(key, expected)),
        }
    }

    /// A whole number ≥ 1, or `None` when absent.
    ///
    /// # Errors
    /// [`ModelError::BadValue`] for anything else, an array of sizes per block included.
    pub fn optional_size(&self, key: &str) -> Result<Option<usize>, ModelError> {
        self.read(key, A_SIZE, |value| value.whole().and_then(|n| usize::try_from(n).ok()).filter(|&n| n > 0))
    }

    /// A whole number ≥ 1 that must be there.
    ///
    /// # Errors
    /// [`ModelError::MissingKey`], [`ModelError::BadValue`].
    pub fn size(&self, key: &str) -> Result<usize, ModelError> {
        self.optional_size(key)?.ok_or_else(|| self.missing(key, A_SIZE))
    }

    /// A whole number ≥ 0, or `None` when absent.
    ///
    /// # Errors
    /// [`ModelError::BadValue`] for anything else.
    pub fn optional_count(&self, key: &str) -> Result<Option<usize>, ModelError> {
        self.read(key, "a whole number ≥ 0", |value| value.whole().and_then(|n| usize::try_from(n).ok()))
    }

    /// A finite number, or `None` when absent.
    ///
    /// # Errors
    /// [`ModelError::BadValue`] for anything else.
    pub fn optional_number(&self, key: &str) -> Result<Option<f64>, ModelError> {
        self.read(key, A_NUMBER, |value| value.number())
    }

    /// A finite number that must be there.
    ///
    /// # Errors
    /// [`ModelError::MissingKey`], [`ModelError::BadValue`].
    pub fn number(&self, key: &str) -> Result<f64, ModelError> {
        self.optional_number(key)?.ok_or_else(|| self.missing(key, A_NUMBER))
    }

    /// `true` or `false`, or `None` when absent.
    ///
    /// # Errors
    /// [`ModelError::BadValue`] for anything else.
    pub fn optional_flag(&self, key: &str) -> Result<Option<bool>, ModelError> {
        self.read(key, A_FLAG, |value| match value {
            GgufValue::Bool(b) => Some(b),
            _ => None,
        })
    }

    /// A string, or `None` when absent.
    ///
    /// # Errors
    /// [`ModelError::BadValue`] for anything else.
    pub fn optional_text(&self, key: &str) -> Result<Option<&str>, ModelError> {
        match self.value(key) {
            None => Ok(None),
            Some(GgufValue::Text(text)) => Ok(Some(text)),
            Some(_) => Err(self.bad(key, A_TEXT)),
        }
    }

    /// A string that must be there.
    ///
    /// # Errors
    /// [`ModelError::MissingKey`], [`ModelError::BadValue`].
    pub fn text(&self, key: &str) -> Result<&str, ModelError> {
        self.optional_text(key)?.ok_or_else(|| self.missing(key, A_TEXT))
    }

    /// One token id, or `None` when absent.
    ///
    /// # Errors
    /// [`ModelError::BadValue`] for anything else.
    pub fn optional_token(&self, key: &str) -> Result<Option<u32>, ModelError> {
        self.read(key, A_TOKEN, |value| value.whole().and_then(|n| u32::try_from(n).ok()))
    }
}
