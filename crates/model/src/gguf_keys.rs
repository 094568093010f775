//! Typed reading of GGUF metadata under one architecture's prefix, with the errors of [`crate::config_json`].

use crate::config_json::{A_FLAG, A_NUMBER, A_SIZE, A_TEXT, A_TOKEN};
use crate::error::ModelError;
use roofline_weights::gguf::{Header, Value};

/// The metadata of one architecture: `size("block_count")` reads `llama.block_count`. A key with a dot in front is read as it
/// stands, without the prefix: `.tokenizer.ggml.bos_token_id`.
pub struct GgufKeys<'a> {
    header: &'a Header,
    file: &'a str,
    architecture: String,
}

impl<'a> GgufKeys<'a> {
    /// Finds the architecture; `file` is the name in error messages.
    ///
    /// # Errors
    /// [`ModelError::MissingKey`], [`ModelError::BadValue`] for `general.architecture`.
    pub fn new(header: &'a Header, file: &'a str) -> Result<GgufKeys<'a>, ModelError> {
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
    pub fn tensor_shape(&self, name: &str) -> Option<Vec<usize>> {
        let tensor = self.header.tensors.iter().find(|tensor| tensor.name == name)?;
        tensor.dims.iter().rev().map(|&n| usize::try_from(n).ok()).collect()
    }

    /// Whether the file holds a tensor.
    pub fn has_tensor(&self, name: &str) -> bool {
        self.header.tensors.iter().any(|tensor| tensor.name == name)
    }

    fn full_key(&self, key: &str) -> String {
        match key.strip_prefix('.') {
            Some(bare) => bare.to_string(),
            None => format!("{}.{key}", self.architecture),
        }
    }

    pub(crate) fn value(&self, key: &str) -> Option<&Value> {
        self.header.metadata.get(&self.full_key(key))
    }

    /// The error for a `key` whose value is not what was `expected`.
    pub(crate) fn bad(&self, key: &str, expected: impl Into<String>) -> ModelError {
        ModelError::BadValue {
            file: self.file.to_string(),
            key: self.full_key(key),
            found: self.value(key).map_or_else(|| "absent".to_string(), shown),
            expected: expected.into(),
        }
    }

    /// The error for an option that no family file can run.
    pub(crate) fn unsupported(&self, key: &str, supported: impl Into<String>) -> ModelError {
        let found = self.value(key).map_or_else(|| "absent".to_string(), shown);
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
        convert: impl Fn(&Value) -> Option<T>,
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
        self.read(key, A_SIZE, |value| {
            value.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|&n| n > 0)
        })
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
        self.read(key, "a whole number ≥ 0", |value| value.as_u64().and_then(|n| usize::try_from(n).ok()))
    }

    /// A finite number, or `None` when absent.
    ///
    /// # Errors
    /// [`ModelError::BadValue`] for anything else.
    pub fn optional_number(&self, key: &str) -> Result<Option<f64>, ModelError> {
        self.read(key, A_NUMBER, |value| {
            value.as_f64().or_else(|| value.as_i64().map(|n| n as f64)).filter(|x| x.is_finite())
        })
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
        self.read(key, A_FLAG, Value::as_bool)
    }

    /// A string, or `None` when absent.
    ///
    /// # Errors
    /// [`ModelError::BadValue`] for anything else.
    pub fn optional_text(&self, key: &str) -> Result<Option<&str>, ModelError> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::Str(text)) => Ok(Some(text)),
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
        self.read(key, A_TOKEN, |value| value.as_u64().and_then(|n| u32::try_from(n).ok()))
    }
}

/// A value as the error message shows it: long texts cut, arrays by their length.
fn shown(value: &Value) -> String {
    match value {
        Value::Array(array) => format!("an array of {} {}", array.len(), array.element_type().name()),
        Value::Str(text) => format!("{:?}", text.chars().take(60).collect::<String>()),
        Value::Bool(flag) => flag.to_string(),
        number => match (number.as_u64(), number.as_i64(), number.as_f64()) {
            (Some(n), _, _) => n.to_string(),
            (_, Some(n), _) => n.to_string(),
            (_, _, Some(x)) => format!("{x:?}"),
            _ => number.value_type().name().to_string(),
        },
    }
}
