//! [`KvFormats`]: how keys and values are stored, as a value with one text form.

use roofline_kernels::KvFormat;
use roofline_model::kv_text::{key_and_value, pieces};
use roofline_model::nearest::nearest;
use std::fmt;
use std::str::FromStr;

/// Storage formats of the KV cache. As text `i8` where both are one, `k=i8,v=f16` where they are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KvFormats {
    /// Format of the keys.
    pub key: KvFormat,
    /// Format of the values.
    pub value: KvFormat,
}

/// A text that names no storage format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KvFormatsError {
    /// No such format.
    #[error("the KV cache has no format `{given}`; did you mean {nearest}? (available: {})", available())]
    Unknown {
        /// What was written.
        given: String,
        /// The name nearest to it.
        nearest: String,
    },
    /// Neither one name nor a pair.
    #[error("`{given}` is no storage format of the KV cache; write one for both, as i8, or k=i8,v=f16")]
    Form {
        /// What was written.
        given: String,
    },
}

fn available() -> String {
    KvFormat::ALL.map(KvFormat::name).join(", ")
}

impl KvFormats {
    /// Whether old pages are sealed, so that what a row reads depends on the steps before it.
    pub fn seals(&self) -> bool {
        self.key.seals() || self.value.seals()
    }

    /// The formats of a list like `f16,k=i8,v=f16,q8_0`, which names three.
    ///
    /// # Errors
    /// As for the first of them that does not parse.
    pub fn list(text: &str) -> Result<Vec<KvFormats>, KvFormatsError> {
        pieces(text).into_iter().map(str::parse).collect()
    }
}

impl From<KvFormat> for KvFormats {
    fn from(format: KvFormat) -> KvFormats {
        KvFormats { key: format, value: format }
    }
}

impl FromStr for KvFormats {
    type Err = KvFormatsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (key, value) = key_and_value(text).ok_or_else(|| KvFormatsError::Form { given: text.into() })?;
        let format = |name: &str| {
            KvFormat::from_name(name).ok_or_else(|| {
                let names = KvFormat::ALL.iter().map(|format| format.name());
                let nearest = nearest(name, names, 1).concat();
                KvFormatsError::Unknown { given: name.to_string(), nearest }
            })
        };
        Ok(KvFormats { key: format(key)?, value: format(value)? })
    }
}

impl fmt::Display for KvFormats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.key == self.value {
            return f.pad(self.key.name());
        }
        f.pad(&format!("k={},v={}", self.key, self.value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_round_trips() {
        for key in KvFormat::ALL {
            for value in KvFormat::ALL {
                let formats = KvFormats { key, value };
                assert_eq!(formats.to_string().parse(), Ok(formats));
            }
        }
        assert_eq!(KvFormats::from(KvFormat::I8).to_string(), "i8");
        assert_eq!("v=F16,k=I8".parse::<KvFormats>().unwrap().to_string(), "k=i8,v=f16");
        let list = KvFormats::list("f16,k=i8,v=f16,q8_0").unwrap();
        assert_eq!(list.iter().map(|f| f.to_string()).collect::<Vec<_>>(), ["f16", "k=i8,v=f16", "q8_0"]);
    }

    #[test]
    fn wrong_texts_are_refused_with_the_nearest_name() {
        let error = |text: &str| text.parse::<KvFormats>().unwrap_err().to_string();
        assert!(error("q8-0").contains("did you mean q8_0?"), "{}", error("q8-0"));
        assert!(error("k=i8,v=fp16").contains("`fp16`; did you mean f16?"), "{}", error("k=i8,v=fp16"));
        for text in ["", "k=i8", "i8,f16", "k=i8,k=f16"] {
            assert!(error(text).contains(&format!("`{text}` is no storage format")), "{}", error(text));
        }
        assert!(KvFormats::list("f16,").is_err());
    }
}
