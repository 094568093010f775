//! The order in which options act on the logits.

use std::fmt;
use std::str::FromStr;

use super::SamplingError;

/// One step between raw logits and the draw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Adds a number to chosen logits; -inf bans the token.
    LogitBias,
    /// Repetition penalty (CTRL, arXiv 1909.05858: positive logits divided, others multiplied), then frequency
    /// penalty × count and presence penalty subtracted, for tokens in the penalty window.
    Penalties,
    /// Bans every token that would complete an n-gram that is in the sequence already.
    NoRepeatNgram,
    /// "Don't repeat yourself": a penalty that grows exponentially with the length of the repeat a token would extend.
    Dry,
    /// Divides logits.
    Temperature,
    /// Keeps the k largest; of equal logits the lower id.
    TopK,
    /// Keeps the fewest, from the largest down, whose probabilities reach p (nucleus, arXiv 1904.09751).
    TopP,
    /// Keeps those at least p times as probable as the most probable (arXiv 2407.01082).
    MinP,
    /// Keeps those whose surprise is nearest the entropy until their probabilities reach p (arXiv 2202.00666).
    TypicalP,
}

impl Stage {
    /// Every stage.
    pub const ALL: [Stage; 9] = [
        Stage::LogitBias,
        Stage::Penalties,
        Stage::NoRepeatNgram,
        Stage::Dry,
        Stage::Temperature,
        Stage::TopK,
        Stage::TopP,
        Stage::MinP,
        Stage::TypicalP,
    ];

    /// Name in the text form of a chain.
    pub fn name(self) -> &'static str {
        match self {
            Stage::LogitBias => "logit_bias",
            Stage::Penalties => "penalties",
            Stage::NoRepeatNgram => "no_repeat_ngram",
            Stage::Dry => "dry",
            Stage::Temperature => "temperature",
            Stage::TopK => "top_k",
            Stage::TopP => "top_p",
            Stage::MinP => "min_p",
            Stage::TypicalP => "typical_p",
        }
    }

    /// Whether it changes or bans logits of single tokens, and so acts at temperature 0 too; the others rescale or cut
    /// the distribution, which leaves its most probable token where it is.
    pub fn acts_on_tokens(self) -> bool {
        matches!(self, Stage::LogitBias | Stage::Penalties | Stage::NoRepeatNgram | Stage::Dry)
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Stage {
    type Err = SamplingError;

    fn from_str(name: &str) -> Result<Stage, SamplingError> {
        // llama.cpp's own name for typical_p
        let found = if name == "typ_p" { "typical_p" } else { name };
        Stage::ALL.into_iter().find(|stage| stage.name() == found).ok_or_else(|| {
            SamplingError::UnknownStage {
                name: name.to_owned(),
                known: Stage::ALL.map(Stage::name).join(", "),
            }
        })
    }
}

const HF: [Stage; 9] = Stage::ALL;

const LLAMACPP: [Stage; 9] = [
    Stage::LogitBias,
    Stage::Penalties,
    Stage::NoRepeatNgram,
    Stage::Dry,
    Stage::TopK,
    Stage::TypicalP,
    Stage::TopP,
    Stage::MinP,
    Stage::Temperature,
];

/// The stages in order, each at most once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    stages: Vec<Stage>,
}

impl Chain {
    /// Transformers' order: token penalties, temperature **first** of the rest, then top-k, top-p, min-p, typical-p
    /// (`GenerationMixin._get_logits_processor`, 5.23). It has no DRY; here it stands after the n-gram ban.
    pub fn hf() -> Chain {
        Chain { stages: HF.to_vec() }
    }

    /// llama.cpp's default order: temperature **last**, typical-p before top-p. It has no n-gram ban; here it stands
    /// before DRY.
    pub fn llamacpp() -> Chain {
        Chain { stages: LLAMACPP.to_vec() }
    }

    /// Whether it is llama.cpp's order.
    pub(super) fn is_llamacpp(&self) -> bool {
        self.stages == LLAMACPP
    }

    /// Any order. A stage that is given twice is refused.
    pub fn new(stages: Vec<Stage>) -> Result<Chain, SamplingError> {
        for (i, &stage) in stages.iter().enumerate() {
            if stages[..i].contains(&stage) {
                return Err(SamplingError::DuplicateStage { stage });
            }
        }
        Ok(Chain { stages })
    }

    /// The stages in order.
    pub fn stages(&self) -> &[Stage] {
        &self.stages
    }
}

/// `hf`, `llamacpp`, or the stages joined by `;`.
impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.stages == HF {
            return f.write_str("hf");
        }
        if self.is_llamacpp() {
            return f.write_str("llamacpp");
        }
        for (i, stage) in self.stages.iter().enumerate() {
            write!(f, "{}{stage}", if i == 0 { "" } else { ";" })?;
        }
        Ok(())
    }
}

impl FromStr for Chain {
    type Err = SamplingError;

    fn from_str(text: &str) -> Result<Chain, SamplingError> {
        match text {
            "hf" => Ok(Chain::hf()),
            "llamacpp" => Ok(Chain::llamacpp()),
            "" => Chain::new(Vec::new()),
            _ => Chain::new(text.split(';').map(|name| name.trim().parse()).collect::<Result<_, _>>()?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_chain_round_trip() {
        for text in
            ["hf", "llamacpp", "", "temperature", "penalties;dry;top_k;typical_p;top_p;min_p;temperature"]
        {
            assert_eq!(text.parse::<Chain>().unwrap().to_string(), text);
        }
        assert_eq!(Chain::llamacpp().stages().last(), Some(&Stage::Temperature));
        assert_eq!("typ_p; top_p".parse::<Chain>().unwrap().to_string(), "typical_p;top_p");
    }

    #[test]
    fn a_stage_twice_or_unknown_is_refused_by_name() {
        assert_eq!(
            "top_k;top_p;top_k".parse::<Chain>(),
            Err(SamplingError::DuplicateStage { stage: Stage::TopK })
        );
        let message = "top_k;mirostat".parse::<Chain>().unwrap_err().to_string();
        assert!(message.contains("mirostat") && message.contains("typical_p"), "{message}");
    }
}
