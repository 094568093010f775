//! [`SamplerConfig`]: every sampling option, checked.

use super::{Chain, SamplingError, Stage};

/// How far back a penalty looks over prompt and output together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// Everything.
    All,
    /// The last n tokens.
    Last(usize),
}

impl Window {
    /// The part of `history` it covers.
    pub(super) fn of(self, history: &[u32]) -> &[u32] {
        match self {
            Window::All => history,
            Window::Last(n) => &history[history.len().saturating_sub(n)..],
        }
    }
}

/// Options of the DRY stage (as in koboldcpp and llama.cpp).
///
/// A token that would extend a repeat of `len ≥ allowed_length` tokens, all of them after the last breaker, loses
/// `multiplier · base^(len − allowed_length)`.
#[derive(Debug, Clone, PartialEq)]
pub struct Dry {
    /// ≥ 0; llama.cpp suggests 0.8.
    pub multiplier: f32,
    /// ≥ 1; 1.75 in llama.cpp.
    pub base: f32,
    /// ≥ 1; 2 in llama.cpp.
    pub allowed_length: usize,
    /// Where repeats are looked for; everything in llama.cpp.
    pub window: Window,
    /// Token sequences that end a repeat. A token that is a breaker by itself is never penalised. Which ids the text
    /// breakers `\n : " *` mean is for the caller, who has the tokenizer, to say.
    pub breakers: Vec<Vec<u32>>,
}

impl Default for Dry {
    fn default() -> Dry {
        Dry { multiplier: 0.8, base: 1.75, allowed_length: 2, window: Window::All, breakers: Vec::new() }
    }
}

/// Sampling options. `None` and an empty list switch a stage off.
///
/// The default draws from the model's own distribution, in Transformers' order of stages.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplerConfig {
    /// Order of the stages.
    pub chain: Chain,
    /// Seed of the draw.
    pub seed: u64,
    /// ≥ 0. At 0 the token of the largest logit is taken, of equal ones the lowest id, after the stages that
    /// [act on tokens](Stage::acts_on_tokens) and whatever the others say.
    pub temperature: Option<f32>,
    /// ≥ 1.
    pub top_k: Option<usize>,
    /// In (0, 1].
    pub top_p: Option<f32>,
    /// In [0, 1].
    pub min_p: Option<f32>,
    /// In (0, 1].
    pub typical_p: Option<f32>,
    /// Positive; above 1 discourages repeats.
    pub repetition_penalty: Option<f32>,
    /// Finite; subtracted once from the logit of a token in the window.
    pub presence_penalty: Option<f32>,
    /// Finite; subtracted once per occurrence in the window.
    pub frequency_penalty: Option<f32>,
    /// Window of the three penalties. `None`: as the origin of the chain has it, the last 64 tokens for
    /// [`Chain::llamacpp`], everything for any other.
    pub penalty_window: Option<Window>,
    /// ≥ 1: length of the n-grams that may occur only once.
    pub no_repeat_ngram: Option<usize>,
    /// DRY.
    pub dry: Option<Dry>,
    /// (token, number added to its logit); not NaN, not +inf; a token at most once.
    pub logit_bias: Vec<(u32, f32)>,
}

impl Default for SamplerConfig {
    fn default() -> SamplerConfig {
        SamplerConfig {
            chain: Chain::hf(),
            seed: 0,
            temperature: None,
            top_k: None,
            top_p: None,
            min_p: None,
            typical_p: None,
            repetition_penalty: None,
            presence_penalty: None,
            frequency_penalty: None,
            penalty_window: None,
            no_repeat_ngram: None,
            dry: None,
            logit_bias: Vec::new(),
        }
    }
}

impl SamplerConfig {
    /// The most probable token each time.
    pub fn greedy() -> SamplerConfig {
        SamplerConfig { temperature: Some(0.0), ..SamplerConfig::default() }
    }

    /// Whether the draw is an argmax.
    pub fn is_greedy(&self) -> bool {
        self.temperature == Some(0.0)
    }

    /// Whether a stage may change the logits of single tokens before the draw.
    pub(super) fn changes_logits(&self) -> bool {
        let penalties = [self.repetition_penalty, self.presence_penalty, self.frequency_penalty];
        !self.logit_bias.is_empty()
            || penalties.iter().any(Option::is_some)
            || self.no_repeat_ngram.is_some()
            || self.dry.is_some()
    }

    /// The window the penalties use.
    pub fn effective_penalty_window(&self) -> Window {
        let own = if self.chain.is_llamacpp() { Window::Last(64) } else { Window::All };
        self.penalty_window.unwrap_or(own)
    }

    /// Checks every option against its range, and that the chain has the stage of every option that is set.
    pub fn validate(&self) -> Result<(), SamplingError> {
        self.check_ranges()?;
        self.check_chain()
    }

    /// Checks that every token id is one of `vocab_size`.
    pub fn check_tokens(&self, vocab_size: usize) -> Result<(), SamplingError> {
        let breakers = self.dry.iter().flat_map(|dry| dry.breakers.iter().flatten());
        let named = (self.logit_bias.iter().map(|(token, _)| ("logit_bias", *token)))
            .chain(breakers.map(|token| ("dry_breakers", *token)));
        for (what, token) in named {
            if token as usize >= vocab_size {
                return Err(SamplingError::TokenOutOfRange { what, token, vocab_size });
            }
        }
        Ok(())
    }

    fn check_ranges(&self) -> Result<(), SamplingError> {
        let finite = |value: f32| value.is_finite();
        require(
            "temperature",
            self.temperature,
            |t| t >= 0.0 && finite(t),
            "must be a number ≥ 0; 0 is greedy",
        )?;
        require("top_k", self.top_k, |k| k >= 1, "must be ≥ 1; leave it out to keep every token")?;
        require("top_p", self.top_p, in_unit, "must be in (0, 1]; 1 keeps every token")?;
        require("min_p", self.min_p, |p| (0.0..=1.0).contains(&p), "must be in [0, 1]; 0 keeps every token")?;
        require("typical_p", self.typical_p, in_unit, "must be in (0, 1]; 1 keeps every token")?;
        let positive = |r: f32| r > 0.0 && finite(r);
        require(
            "repetition_penalty",
            self.repetition_penalty,
            positive,
            "must be a number > 0; 1 has no effect",
        )?;
        require("presence_penalty", self.presence_penalty, finite, "must be a number; 0 has no effect")?;
        require("frequency_penalty", self.frequency_penalty, finite, "must be a number; 0 has no effect")?;
        require(
            "no_repeat_ngram",
            self.no_repeat_ngram,
            |n| n >= 1,
            "must be ≥ 1; leave it out to allow repeats",
        )?;
        if let Some(dry) = &self.dry {
            let multiplier = Some(dry.multiplier);
            require("dry_multiplier", multiplier, |m| m >= 0.0 && finite(m), "must be a number ≥ 0")?;
            require("dry_base", Some(dry.base), |b| b >= 1.0 && finite(b), "must be a number ≥ 1")?;
            require("dry_allowed_length", Some(dry.allowed_length), |n| n >= 1, "must be ≥ 1")?;
            if dry.breakers.iter().any(Vec::is_empty) {
                return Err(invalid(
                    "dry_breakers",
                    "an empty sequence",
                    "every breaker needs at least one token",
                ));
            }
        }
        self.check_bias()
    }

    fn check_bias(&self) -> Result<(), SamplingError> {
        for (i, &(token, bias)) in self.logit_bias.iter().enumerate() {
            let shown = format!("{token}:{bias}");
            if bias.is_nan() || bias == f32::INFINITY {
                return Err(invalid("logit_bias", shown, "must be a number, or -inf to ban the token"));
            }
            if self.logit_bias[..i].iter().any(|(other, _)| *other == token) {
                return Err(invalid("logit_bias", shown, "names the token a second time"));
            }
        }
        Ok(())
    }

    fn check_chain(&self) -> Result<(), SamplingError> {
        let penalties = Stage::Penalties;
        let set = [
            ("temperature", self.temperature.is_some(), Stage::Temperature),
            ("top_k", self.top_k.is_some(), Stage::TopK),
            ("top_p", self.top_p.is_some(), Stage::TopP),
            ("min_p", self.min_p.is_some(), Stage::MinP),
            ("typical_p", self.typical_p.is_some(), Stage::TypicalP),
            ("repetition_penalty", self.repetition_penalty.is_some(), penalties),
            ("presence_penalty", self.presence_penalty.is_some(), penalties),
            ("frequency_penalty", self.frequency_penalty.is_some(), penalties),
            ("penalty_window", self.penalty_window.is_some(), penalties),
            ("no_repeat_ngram", self.no_repeat_ngram.is_some(), Stage::NoRepeatNgram),
            ("dry", self.dry.is_some(), Stage::Dry),
            ("logit_bias", !self.logit_bias.is_empty(), Stage::LogitBias),
        ];
        for (option, is_set, stage) in set {
            if is_set && !self.chain.stages().contains(&stage) {
                return Err(SamplingError::StageMissing { option, stage, chain: self.chain.to_string() });
            }
        }
        Ok(())
    }
}

fn in_unit(p: f32) -> bool {
    p > 0.0 && p <= 1.0
}

fn require<T: Copy + ToString>(
    option: &'static str,
    value: Option<T>,
    good: impl Fn(T) -> bool,
    reason: &'static str,
) -> Result<(), SamplingError> {
    match value {
        Some(value) if !good(value) => Err(invalid(option, value.to_string(), reason)),
        _ => Ok(()),
    }
}

fn invalid(option: &'static str, value: impl Into<String>, reason: &'static str) -> SamplingError {
    SamplingError::InvalidOption { option, value: value.into(), reason }
}
