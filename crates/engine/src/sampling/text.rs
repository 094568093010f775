//! The text form of [`SamplerConfig`]: `temperature=0.8,top_p=0.95,chain=llamacpp,seed=7`.
//!
//! Lists stand within one value: `logit_bias=12:-1.5+99:-inf`, `dry_breakers=13|198|25+220` (three breakers, the last of
//! two tokens).

use std::fmt;
use std::str::FromStr;

use super::{Dry, SamplerConfig, SamplingError, Window};

const KEYS: [&str; 18] = [
    "chain",
    "seed",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "typical_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "penalty_window",
    "no_repeat_ngram",
    "dry_multiplier",
    "dry_base",
    "dry_allowed_length",
    "dry_window",
    "dry_breakers",
    "logit_bias",
];

impl FromStr for SamplerConfig {
    type Err = SamplingError;

    /// Reads and [validates](SamplerConfig::validate) the text form; an empty text is the default.
    fn from_str(text: &str) -> Result<SamplerConfig, SamplingError> {
        let mut config = SamplerConfig::default();
        let mut seen: Vec<&str> = Vec::new();
        for piece in text.split(',').map(str::trim).filter(|piece| !piece.is_empty()) {
            let (key, value) =
                piece.split_once('=').ok_or_else(|| SamplingError::NotAnOption { text: piece.to_owned() })?;
            if seen.contains(&key) {
                return Err(SamplingError::DuplicateOption { name: key.to_owned() });
            }
            seen.push(key);
            config.set(key, value)?;
        }
        if config.dry.is_some() && !seen.contains(&"dry_multiplier") {
            return Err(SamplingError::InvalidOption {
                option: "dry_multiplier",
                value: "nothing".to_owned(),
                reason: "must be given with the other dry options; it switches the stage on",
            });
        }
        config.validate()?;
        Ok(config)
    }
}

impl SamplerConfig {
    /// Sets one option from its key and value in the text form, checking their spelling, not the range.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), SamplingError> {
        match key {
            "chain" => self.chain = value.parse()?,
            "seed" => self.seed = number("seed", value)?,
            "temperature" => self.temperature = Some(number("temperature", value)?),
            "top_k" => self.top_k = Some(number("top_k", value)?),
            "top_p" => self.top_p = Some(number("top_p", value)?),
            "min_p" => self.min_p = Some(number("min_p", value)?),
            "typical_p" => self.typical_p = Some(number("typical_p", value)?),
            "repetition_penalty" => self.repetition_penalty = Some(number("repetition_penalty", value)?),
            "presence_penalty" => self.presence_penalty = Some(number("presence_penalty", value)?),
            "frequency_penalty" => self.frequency_penalty = Some(number("frequency_penalty", value)?),
            "penalty_window" => self.penalty_window = Some(window("penalty_window", value)?),
            "no_repeat_ngram" => self.no_repeat_ngram = Some(number("no_repeat_ngram", value)?),
            "dry_multiplier" => self.dry_mut().multiplier = number("dry_multiplier", value)?,
            "dry_base" => self.dry_mut().base = number("dry_base", value)?,
            "dry_allowed_length" => self.dry_mut().allowed_length = number("dry_allowed_length", value)?,
            "dry_window" => self.dry_mut().window = window("dry_window", value)?,
            "dry_breakers" => self.dry_mut().breakers = breakers(value)?,
            "logit_bias" => self.logit_bias = biases(value)?,
            _ => {
                return Err(SamplingError::UnknownOption { name: key.to_owned(), known: KEYS.join(", ") });
            }
        }
        Ok(())
    }

    fn dry_mut(&mut self) -> &mut Dry {
        self.dry.get_or_insert_with(Dry::default)
    }
}

impl fmt::Display for SamplerConfig {
    /// The text form, with the chain, the seed and every option that is set.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "chain={},seed={}", self.chain, self.seed)?;
        show(f, "temperature", &self.temperature)?;
        show(f, "top_k", &self.top_k)?;
        show(f, "top_p", &self.top_p)?;
        show(f, "min_p", &self.min_p)?;
        show(f, "typical_p", &self.typical_p)?;
        show(f, "repetition_penalty", &self.repetition_penalty)?;
        show(f, "presence_penalty", &self.presence_penalty)?;
        show(f, "frequency_penalty", &self.frequency_penalty)?;
        show(f, "penalty_window", &self.penalty_window)?;
        show(f, "no_repeat_ngram", &self.no_repeat_ngram)?;
        if let Some(dry) = &self.dry {
            write!(f, ",dry_multiplier={},dry_base={}", dry.multiplier, dry.base)?;
            write!(f, ",dry_allowed_length={},dry_window={}", dry.allowed_length, dry.window)?;
            if !dry.breakers.is_empty() {
                let sequences = dry.breakers.iter().map(|sequence| joined(sequence.iter(), "+"));
                write!(f, ",dry_breakers={}", joined(sequences, "|"))?;
            }
        }
        if !self.logit_bias.is_empty() {
            let pairs = self.logit_bias.iter().map(|(token, bias)| format!("{token}:{bias}"));
            write!(f, ",logit_bias={}", joined(pairs, "+"))?;
        }
        Ok(())
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Window::All => f.write_str("all"),
            Window::Last(n) => write!(f, "{n}"),
        }
    }
}

fn show(f: &mut fmt::Formatter<'_>, key: &str, value: &Option<impl fmt::Display>) -> fmt::Result {
    match value {
        Some(value) => write!(f, ",{key}={value}"),
        None => Ok(()),
    }
}

fn joined(parts: impl Iterator<Item = impl ToString>, separator: &str) -> String {
    parts.map(|part| part.to_string()).collect::<Vec<_>>().join(separator)
}

fn number<T: FromStr>(option: &'static str, value: &str) -> Result<T, SamplingError> {
    value.trim().parse().map_err(|_| SamplingError::InvalidOption {
        option,
        value: value.to_owned(),
        reason: "is not a number of the right kind",
    })
}

fn window(option: &'static str, value: &str) -> Result<Window, SamplingError> {
    if value.trim() == "all" { Ok(Window::All) } else { number(option, value).map(Window::Last) }
}

fn breakers(value: &str) -> Result<Vec<Vec<u32>>, SamplingError> {
    let sequence = |text: &str| text.split('+').map(|token| number("dry_breakers", token)).collect();
    value.split('|').map(sequence).collect()
}

fn biases(value: &str) -> Result<Vec<(u32, f32)>, SamplingError> {
    let pair = |text: &str| {
        let (token, bias) = text.split_once(':').ok_or_else(|| SamplingError::InvalidOption {
            option: "logit_bias",
            value: text.to_owned(),
            reason: "is not token:number, as in 12:-1.5+99:-inf",
        })?;
        Ok((number("logit_bias", token)?, number("logit_bias", bias)?))
    };
    value.split('+').map(pair).collect()
}
