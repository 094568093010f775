//! [`CacheSpec`]: a cache policy as a value with one text form, the same in every command, file and report.

use std::fmt;
use std::str::FromStr;

/// Which tokens the KV cache keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CacheSpec {
    /// Every token; pages are taken as the text grows.
    #[default]
    Full,
    /// Every token up to `capacity`; all pages are reserved at the start, one token more is an error.
    Static {
        /// Tokens reserved.
        capacity: usize,
    },
}

/// A cache text that names no policy, or one with a parameter out of range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CacheSpecError {
    /// No such policy.
    #[error("unknown cache policy `{given}`; available: full, static:N (N tokens)")]
    Unknown {
        /// What was written.
        given: String,
    },
    /// `static` without a usable capacity.
    #[error("`{given}` needs a capacity between 1 and {} tokens, as in static:4096", usize::MAX)]
    Capacity {
        /// What was written.
        given: String,
    },
}

impl FromStr for CacheSpec {
    type Err = CacheSpecError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let given = || text.to_string();
        match text.split_once(':').unwrap_or((text, "")) {
            ("full", "") if text == "full" => Ok(CacheSpec::Full),
            ("static", capacity) => match capacity.parse::<usize>() {
                Ok(capacity) if capacity > 0 => Ok(CacheSpec::Static { capacity }),
                _ => Err(CacheSpecError::Capacity { given: given() }),
            },
            _ => Err(CacheSpecError::Unknown { given: given() }),
        }
    }
}

impl fmt::Display for CacheSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CacheSpec::Full => f.pad("full"),
            CacheSpec::Static { capacity } => write!(f, "static:{capacity}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_round_trips() {
        for text in ["full", "static:1", "static:4096"] {
            assert_eq!(text.parse::<CacheSpec>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn wrong_texts_are_refused_with_what_was_written() {
        for text in
            ["", "Full", "full:3", "full:", "static", "static:", "static:0", "static:-1", "static:x", "quest"]
        {
            let error = text.parse::<CacheSpec>().unwrap_err().to_string();
            assert!(error.contains(&format!("`{text}`")), "{error}");
        }
    }
}
