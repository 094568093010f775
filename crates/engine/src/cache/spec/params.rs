//! `key=value,key=value`, and the values that budgets and switches have.

use super::CacheSpecError;
use roofline_model::nearest::nearest;
use std::fmt;
use std::str::FromStr;

/// How much a policy may keep or read of a lane.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Budget {
    /// Tokens per lane.
    Tokens(usize),
    /// Bytes of K and V over all lanes: as many tokens per lane as fit.
    Bytes(u64),
    /// Share of the tokens that the lane holds when the policy decides; of the model's context for `static`.
    Share(f64),
}

/// Units of a budget in bytes, longest suffix first.
const UNITS: [(&str, u64); 7] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("B", 1),
];

impl FromStr for Budget {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Budget, &'static str> {
        const WHY: &str = "must be tokens as 1024, bytes as 64MiB, or a share of the context as 10%";
        if let Some(percent) = text.strip_suffix('%') {
            return match percent.parse::<f64>() {
                Ok(percent) if percent > 0.0 && percent <= 100.0 => Ok(Budget::Share(percent / 100.0)),
                _ => Err("must be a share above 0% and up to 100%"),
            };
        }
        let (digits, unit) = UNITS
            .iter()
            .find_map(|(suffix, unit)| text.strip_suffix(suffix).map(|digits| (digits, Some(*unit))))
            .unwrap_or((text, None));
        match (digits.parse::<u64>(), unit) {
            (Ok(0), _) => Err("must be at least 1"),
            (Ok(n), None) => usize::try_from(n).map(Budget::Tokens).map_err(|_| WHY),
            (Ok(n), Some(unit)) => n.checked_mul(unit).map(Budget::Bytes).ok_or(WHY),
            (Err(_), _) => Err(WHY),
        }
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Budget::Tokens(tokens) => write!(f, "{tokens}"),
            Budget::Share(share) => write!(f, "{}%", (share * 1e10).round() / 1e8),
            Budget::Bytes(bytes) => {
                let exact = [("GiB", 1u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
                let (suffix, unit) =
                    exact.into_iter().find(|(_, unit)| bytes.is_multiple_of(*unit)).unwrap_or(("B", 1));
                write!(f, "{}{suffix}", bytes / unit)
            }
        }
    }
}

/// Parameters as written, taken out one by one.
pub(super) struct Params<'a> {
    given: &'a str,
    form: &'static str,
    left: Vec<(&'a str, &'a str)>,
    known: Vec<&'static str>,
}

impl<'a> Params<'a> {
    /// Reads `text`, the part of `given` behind the colon, of a policy whose form is `form`.
    pub fn new(given: &'a str, text: &'a str, form: &'static str) -> Result<Params<'a>, CacheSpecError> {
        let mut params = Params { given, form, left: Vec::new(), known: Vec::new() };
        for piece in text.split(',').filter(|_| !text.is_empty()) {
            let Some((key, value)) = piece.split_once('=') else {
                return Err(params.wrong(format!("`{piece}` is not key=value")));
            };
            if params.left.iter().any(|(other, _)| *other == key) {
                return Err(params.wrong(format!("`{key}` is there twice")));
            }
            params.left.push((key, value));
        }
        Ok(params)
    }

    /// An error that names the text and the form.
    pub fn wrong(&self, why: String) -> CacheSpecError {
        CacheSpecError::Parameter { given: self.given.to_owned(), why, form: self.form }
    }

    /// The value of `key`, or `default`.
    pub fn or<T: FromStr>(&mut self, key: &'static str, default: T) -> Result<T, CacheSpecError> {
        Ok(self.maybe(key)?.unwrap_or(default))
    }

    /// The value of `key`, which must be there.
    pub fn need<T: FromStr>(&mut self, key: &'static str) -> Result<T, CacheSpecError> {
        match self.maybe(key)? {
            Some(value) => Ok(value),
            None => Err(self.unknown_or(format!("it needs {key}"))),
        }
    }

    fn maybe<T: FromStr>(&mut self, key: &'static str) -> Result<Option<T>, CacheSpecError> {
        self.known.push(key);
        let Some(at) = self.left.iter().position(|(have, _)| *have == key) else { return Ok(None) };
        let (_, value) = self.left.remove(at);
        value.parse().map(Some).map_err(|_| self.wrong(format!("{key}={value} is not a value it can take")))
    }

    /// The budget of `key`, which says itself what is wrong with it.
    pub fn budget(&mut self, key: &'static str, default: Option<Budget>) -> Result<Budget, CacheSpecError> {
        let text: Option<String> = self.maybe(key)?;
        match (text, default) {
            (Some(text), _) => {
                text.parse().map_err(|why: &str| self.wrong(format!("{key}={text}: a {key} {why}")))
            }
            (None, Some(default)) => Ok(default),
            (None, None) => Err(self.unknown_or(format!("it needs {key}"))),
        }
    }

    /// One of `choices` by name, or the first.
    pub fn choice<T: Copy>(
        &mut self,
        key: &'static str,
        choices: &[(&'static str, T)],
    ) -> Result<T, CacheSpecError> {
        let text: String = self.or(key, choices[0].0.to_owned())?;
        match choices.iter().find(|(name, _)| *name == text) {
            Some((_, choice)) => Ok(*choice),
            None => {
                let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
                Err(self.wrong(format!("{key}={text} is none of {}", names.join(", "))))
            }
        }
    }

    /// A complaint about a parameter nobody knows, if there is one: it may be the misspelt one that is missing.
    fn unknown_or(&self, why: String) -> CacheSpecError {
        let unknown = self.left.iter().find(|(key, _)| !self.known.contains(key));
        self.wrong(
            unknown
                .map_or(why.clone(), |(key, _)| format!("{why}, and `{key}` is not one of its parameters")),
        )
    }

    /// Complains about what is left.
    pub fn finish(self) -> Result<(), CacheSpecError> {
        let Some((key, _)) = self.left.first() else { return Ok(()) };
        let close = nearest(key, self.known.iter().copied(), 1).join("");
        Err(self.wrong(format!("there is no parameter `{key}`; the nearest is {close}")))
    }
}
