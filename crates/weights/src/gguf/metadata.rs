//! The metadata of a GGUF file: keys in file order, with getters that name the key when something else is there.

use std::collections::HashMap;

use super::texts::Texts;
use super::value::{Array, Value};
use crate::WeightsError;

/// Keys and values, in file order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metadata {
    file: String,
    entries: Vec<(String, Value)>,
    by_key: HashMap<String, usize>,
}

impl Metadata {
    /// Empty; `file` is the name by which errors speak of it.
    pub fn new(file: impl Into<String>) -> Metadata {
        Metadata { file: file.into(), ..Metadata::default() }
    }

    /// Appends a key, or replaces its value in place.
    pub fn set(&mut self, key: impl Into<String>, value: Value) {
        let key = key.into();
        match self.by_key.get(&key) {
            Some(&at) => self.entries[at].1 = value,
            None => {
                self.by_key.insert(key.clone(), self.entries.len());
                self.entries.push((key, value));
            }
        }
    }

    /// The value of `key`, whatever its type.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.by_key.get(key).map(|&at| &self.entries[at].1)
    }

    /// Keys and values in file order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The value of `key` as `T`, `None` where the key is absent.
    ///
    /// # Errors
    /// [`WeightsError::WrongType`] when the key holds something else.
    pub fn optional<'a, T: FromValue<'a>>(&'a self, key: &str) -> Result<Option<T>, WeightsError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        T::from_value(value).map(Some).ok_or_else(|| WeightsError::WrongType {
            file: self.file.clone(),
            key: key.to_owned(),
            found: value.describe(),
            wanted: T::WANTED,
        })
    }

    /// The value of `key` as `T`.
    ///
    /// # Errors
    /// [`WeightsError::MissingKey`], [`WeightsError::WrongType`].
    pub fn required<'a, T: FromValue<'a>>(&'a self, key: &str) -> Result<T, WeightsError> {
        self.optional(key)?
            .ok_or_else(|| WeightsError::MissingKey { file: self.file.clone(), key: key.to_owned() })
    }

    /// A non-negative integer of any width. Errors as [`Metadata::required`].
    pub fn u64(&self, key: &str) -> Result<u64, WeightsError> {
        self.required(key)
    }

    /// A float of either width. Errors as [`Metadata::required`].
    pub fn f64(&self, key: &str) -> Result<f64, WeightsError> {
        self.required(key)
    }

    /// A bool. Errors as [`Metadata::required`].
    pub fn bool(&self, key: &str) -> Result<bool, WeightsError> {
        self.required(key)
    }

    /// A string. Errors as [`Metadata::required`].
    pub fn str(&self, key: &str) -> Result<&str, WeightsError> {
        self.required(key)
    }

    /// An array of strings. Errors as [`Metadata::required`].
    pub fn strs(&self, key: &str) -> Result<&Texts, WeightsError> {
        self.required(key)
    }

    /// An array of f32. Errors as [`Metadata::required`].
    pub fn f32s(&self, key: &str) -> Result<&[f32], WeightsError> {
        self.required(key)
    }

    /// An array of integers of any width, each within 32 bits. Errors as [`Metadata::required`].
    pub fn i32s(&self, key: &str) -> Result<Vec<i32>, WeightsError> {
        self.required(key)
    }
}

/// A type that a metadata value may be read as. Conversions lose nothing: integers widen or are refused, never wrap.
pub trait FromValue<'a>: Sized {
    /// What an error says was wanted.
    const WANTED: &'static str;
    /// The value as this type, `None` when it is of another.
    fn from_value(value: &'a Value) -> Option<Self>;
}

impl FromValue<'_> for u64 {
    const WANTED: &'static str = "a non-negative integer";
    fn from_value(value: &Value) -> Option<Self> {
        value.as_u64()
    }
}

impl FromValue<'_> for u32 {
    const WANTED: &'static str = "a non-negative integer below 2^32";
    fn from_value(value: &Value) -> Option<Self> {
        value.as_u64()?.try_into().ok()
    }
}

impl FromValue<'_> for usize {
    const WANTED: &'static str = "a non-negative integer";
    fn from_value(value: &Value) -> Option<Self> {
        value.as_u64()?.try_into().ok()
    }
}

impl FromValue<'_> for i64 {
    const WANTED: &'static str = "an integer";
    fn from_value(value: &Value) -> Option<Self> {
        value.as_i64()
    }
}

impl FromValue<'_> for f64 {
    const WANTED: &'static str = "a float";
    fn from_value(value: &Value) -> Option<Self> {
        value.as_f64()
    }
}

impl FromValue<'_> for bool {
    const WANTED: &'static str = "a bool";
    fn from_value(value: &Value) -> Option<Self> {
        value.as_bool()
    }
}

impl<'a> FromValue<'a> for &'a str {
    const WANTED: &'static str = "a string";
    fn from_value(value: &'a Value) -> Option<Self> {
        value.as_str()
    }
}

impl<'a> FromValue<'a> for &'a Texts {
    const WANTED: &'static str = "an array of strings";
    fn from_value(value: &'a Value) -> Option<Self> {
        if let Value::Array(Array::Str(texts)) = value { Some(texts) } else { None }
    }
}

impl<'a> FromValue<'a> for &'a [f32] {
    const WANTED: &'static str = "an array of f32";
    fn from_value(value: &'a Value) -> Option<Self> {
        if let Value::Array(Array::F32(numbers)) = value { Some(numbers) } else { None }
    }
}

impl FromValue<'_> for Vec<i64> {
    const WANTED: &'static str = "an array of integers";
    fn from_value(value: &Value) -> Option<Self> {
        value.as_array()?.to_i64s()
    }
}

impl FromValue<'_> for Vec<i32> {
    const WANTED: &'static str = "an array of 32-bit integers";
    fn from_value(value: &Value) -> Option<Self> {
        match value.as_array()? {
            Array::I32(numbers) => Some(numbers.clone()),
            other => other.to_i64s()?.into_iter().map(|v| v.try_into().ok()).collect(),
        }
    }
}

impl FromValue<'_> for Vec<usize> {
    const WANTED: &'static str = "an array of non-negative integers";
    fn from_value(value: &Value) -> Option<Self> {
        value.as_array()?.to_i64s()?.into_iter().map(|v| v.try_into().ok()).collect()
    }
}
