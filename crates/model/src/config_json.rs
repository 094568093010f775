//! Typed reading of a JSON object such as `config.json`: every wrong value is an error naming file, key and value.
//!
//! Numbers follow Python's habits: a whole number may be written `32` or `32.0`, a real number `10000` or `1e4`. Nothing else is
//! converted: `"32"`, `true` or `32.5` where a size belongs is an error. `null` counts as absent, as transformers reads it.

use crate::error::ModelError;
use serde_json::{Map, Value};

/// What is wanted of a value, in the words of the error message.
pub(crate) const A_SIZE: &str = "a positive whole number";
pub(crate) const A_NUMBER: &str = "a finite number";
pub(crate) const A_FLAG: &str = "true or false";
pub(crate) const A_TEXT: &str = "a string";
pub(crate) const AN_OBJECT: &str = "an object";
pub(crate) const A_TOKEN: &str = "a token id (whole number from 0 to 4294967295)";
pub(crate) const TOKENS: &str = "a token id or a list of token ids (whole numbers from 0 to 4294967295)";

/// A JSON object with the name of the file it stands in.
#[derive(Debug, Clone)]
pub struct ConfigJson {
    file: String,
    /// Where the object lies in the file: empty, or `rope_scaling.`
    prefix: String,
    members: Map<String, Value>,
}

impl ConfigJson {
    /// Reads `text`; `file` is its name in error messages.
    ///
    /// # Errors
    /// [`ModelError::Json`] when `text` is not JSON or not an object.
    pub fn parse(text: &str, file: &str) -> Result<ConfigJson, ModelError> {
        let json_error = |reason: String| ModelError::Json { file: file.to_string(), reason };
        match serde_json::from_str(text) {
            Ok(Value::Object(members)) => {
                Ok(ConfigJson { file: file.to_string(), prefix: String::new(), members })
            }
            Ok(other) => Err(json_error(format!("it holds {}", shown(&other)))),
            Err(error) => Err(json_error(error.to_string())),
        }
    }

    /// Name of the file in error messages.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Keys with their values, in file order, `null`s left out.
    pub(crate) fn present(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.members.iter().filter(|(_, value)| !value.is_null()).map(|(key, value)| (key.as_str(), value))
    }

    /// The value of `key`, if it is there and not `null`.
    pub(crate) fn value(&self, key: &str) -> Option<&Value> {
        self.members.get(key).filter(|value| !value.is_null())
    }

    /// Whether `key` is in the file at all, be it as `null`.
    pub(crate) fn mentions(&self, key: &str) -> bool {
        self.members.contains_key(key)
    }

    /// The error for a `key` whose value is not what was `expected`.
    pub(crate) fn bad(&self, key: &str, expected: impl Into<String>) -> ModelError {
        let found = self.members.get(key).map_or_else(|| "absent".to_string(), shown);
        ModelError::BadValue {
            file: self.file.clone(),
            key: format!("{}{key}", self.prefix),
            found,
            expected: expected.into(),
        }
    }

    /// The error for an option that no family file can run.
    pub(crate) fn unsupported(&self, key: &str, supported: impl Into<String>) -> ModelError {
        let found = self.members.get(key).map_or_else(|| "absent".to_string(), shown);
        ModelError::UnsupportedOption {
            file: self.file.clone(),
            option: format!("{}{key} = {found}", self.prefix),
            supported: supported.into(),
        }
    }

    fn missing(&self, key: &str, expected: &'static str) -> ModelError {
        ModelError::MissingKey { file: self.file.clone(), key: format!("{}{key}", self.prefix), expected }
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
    /// [`ModelError::BadValue`] for anything else.
    pub fn optional_size(&self, key: &str) -> Result<Option<usize>, ModelError> {
        self.read(key, A_SIZE, |value| whole(value).and_then(|n| usize::try_from(n).ok()).filter(|&n| n > 0))
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
        self.read(key, "a whole number ≥ 0", |value| whole(value).and_then(|n| usize::try_from(n).ok()))
    }

    /// A finite number, or `None` when absent.
    ///
    /// # Errors
    /// [`ModelError::BadValue`] for anything else.
    pub fn optional_number(&self, key: &str) -> Result<Option<f64>, ModelError> {
        self.read(key, A_NUMBER, |value| value.as_f64().filter(|x| x.is_finite()))
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
            Some(Value::String(text)) => Ok(Some(text)),
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

    /// An object inside this one, or `None` when absent.
    ///
    /// # Errors
    /// [`ModelError::BadValue`] for anything else.
    pub fn optional_object(&self, key: &str) -> Result<Option<ConfigJson>, ModelError> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::Object(members)) => Ok(Some(ConfigJson {
                file: self.file.clone(),
                prefix: format!("{}{key}.", self.prefix),
                members: members.clone(),
            })),
            Some(_) => Err(self.bad(key, AN_OBJECT)),
        }
    }

    /// One token id, or `None` when absent.
    ///
    /// # Errors
    /// [`ModelError::BadValue`] for anything else.
    pub fn optional_token(&self, key: &str) -> Result<Option<u32>, ModelError> {
        self.read(key, A_TOKEN, token)
    }

    /// One token id or a list of them, ascending and without repeats; `None` when absent.
    ///
    /// # Errors
    /// [`ModelError::BadValue`] for anything else.
    pub fn optional_tokens(&self, key: &str) -> Result<Option<Vec<u32>>, ModelError> {
        self.read(key, TOKENS, |value| {
            let mut ids = match value {
                Value::Array(items) => items.iter().map(token).collect::<Option<Vec<u32>>>()?,
                single => vec![token(single)?],
            };
            ids.sort_unstable();
            ids.dedup();
            Some(ids)
        })
    }
}

/// A whole number, written with or without a zero fraction. Beyond 2^53 a float no longer says which one it means.
fn whole(value: &Value) -> Option<u64> {
    const EXACT: f64 = 9_007_199_254_740_992.0; // 2^53
    value.as_u64().or_else(|| {
        let x = value.as_f64()?;
        (x.fract() == 0.0 && (0.0..=EXACT).contains(&x)).then_some(x as u64)
    })
}

fn token(value: &Value) -> Option<u32> {
    whole(value).and_then(|n| u32::try_from(n).ok())
}

/// A value as the error message shows it: JSON, cut after 60 characters.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        None => text,
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], text.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> ConfigJson {
        ConfigJson::parse(text, "c.json").unwrap()
    }

    #[test]
    fn whole_numbers_may_carry_a_zero_fraction_and_nothing_else() {
        let c = json(
            r#"{"a": 32, "b": 32.0, "c": 3.2e1, "d": 32.5, "e": "32", "f": true, "g": -1, "h": 0, "i": 1e300, "j": null}"#,
        );
        for key in ["a", "b", "c"] {
            assert_eq!(c.size(key), Ok(32), "{key}");
        }
        for key in ["d", "e", "f", "g", "h", "i"] {
            let error = c.size(key).unwrap_err();
            assert!(matches!(&error, ModelError::BadValue { key: k, .. } if k == key), "{error}");
        }
        assert_eq!(c.optional_size("j"), Ok(None));
        assert_eq!(
            c.size("j").unwrap_err().to_string(),
            "c.json: j is missing; expected a positive whole number"
        );
        assert_eq!(
            c.size("d").unwrap_err().to_string(),
            "c.json: d is 32.5, expected a positive whole number"
        );
    }

    #[test]
    fn token_ids_are_a_number_or_a_list() {
        let c = json(r#"{"a": 7, "b": [9, 7, 9], "c": [], "d": [-1], "e": 4294967296, "f": ["x"]}"#);
        assert_eq!(c.optional_tokens("a"), Ok(Some(vec![7])));
        assert_eq!(c.optional_tokens("b"), Ok(Some(vec![7, 9])));
        assert_eq!(c.optional_tokens("c"), Ok(Some(vec![])));
        for key in ["d", "e", "f"] {
            assert!(c.optional_tokens(key).is_err(), "{key}");
        }
    }

    #[test]
    fn nested_keys_are_named_with_their_path_and_long_values_are_cut() {
        let c = json(
            r#"{"rope_scaling": {"factor": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}}"#,
        );
        let error = c.optional_object("rope_scaling").unwrap().unwrap().number("factor").unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("c.json: rope_scaling.factor is \"aaa"), "{text}");
        assert!(text.contains('…') && text.len() < 140, "{text}");
    }

    #[test]
    fn what_is_not_an_object_is_refused() {
        for text in ["", "[1]", "3", "{", "{\"a\": NaN}", "{\"a\": 1e999}"] {
            let error = ConfigJson::parse(text, "c.json").unwrap_err();
            assert!(matches!(error, ModelError::Json { .. }), "{text}: {error}");
        }
        let deep = "[".repeat(100_000);
        assert!(ConfigJson::parse(&deep, "c.json").is_err());
    }
}
