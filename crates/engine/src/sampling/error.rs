//! What can be wrong with sampling options, or with the logits they are applied to.

use super::Stage;

/// Refusal of a sampler option or of a logit vector.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SamplingError {
    /// An option has a value outside its range.
    #[error("sampler option {option}={value}: {reason}")]
    InvalidOption {
        /// Name as in the text form.
        option: &'static str,
        /// What was given.
        value: String,
        /// The range, and how to switch the option off.
        reason: &'static str,
    },
    /// A key of the text form that no option has.
    #[error("unknown sampler option '{name}'; known: {known}")]
    UnknownOption {
        /// What was given.
        name: String,
        /// Every key, comma-separated.
        known: String,
    },
    /// An option given twice.
    #[error("sampler option '{name}' is given twice")]
    DuplicateOption {
        /// The key.
        name: String,
    },
    /// A piece of the text form that is not `key=value`.
    #[error("'{text}' is not key=value, as in temperature=0.8,top_p=0.95")]
    NotAnOption {
        /// The piece.
        text: String,
    },
    /// A name in a chain that no stage has.
    #[error("unknown sampler stage '{name}'; known: {known}, or one of the presets hf and llamacpp")]
    UnknownStage {
        /// What was given.
        name: String,
        /// Every stage, comma-separated.
        known: String,
    },
    /// A stage that stands twice in a chain.
    #[error("stage {stage} stands twice in the chain")]
    DuplicateStage {
        /// The stage.
        stage: Stage,
    },
    /// An option whose stage is not in the chain, so that it would have no effect.
    #[error(
        "{option} is set but the chain '{chain}' has no stage {stage}; add the stage or leave the option out"
    )]
    StageMissing {
        /// The option.
        option: &'static str,
        /// The stage that would apply it.
        stage: Stage,
        /// The chain as text.
        chain: String,
    },
    /// A token id that the vocabulary does not have.
    #[error("{what} names token {token}, but the vocabulary ends at {}", .vocab_size - 1)]
    TokenOutOfRange {
        /// Where the id stands.
        what: &'static str,
        /// The id.
        token: u32,
        /// Number of tokens.
        vocab_size: usize,
    },
    /// A vocabulary without tokens, or with more than 32-bit ids can name.
    #[error("cannot sample from a vocabulary of {vocab_size} tokens")]
    VocabularySize {
        /// Number of tokens.
        vocab_size: usize,
    },
    /// The logit vector is not as long as the vocabulary.
    #[error("{given} logits for a vocabulary of {vocab_size} tokens")]
    LogitsLength {
        /// Length of the vector.
        given: usize,
        /// Number of tokens.
        vocab_size: usize,
    },
    /// A logit is NaN or +infinity.
    #[error(
        "at position {position}, the logit of token {token} is {value}; the weights or the arithmetic are broken"
    )]
    NotFinite {
        /// Tokens before the one to be drawn.
        position: usize,
        /// First such token.
        token: u32,
        /// NaN or +infinity.
        value: f32,
    },
    /// Every logit is -infinity.
    #[error("at position {position}, every logit is -inf; the weights or the arithmetic are broken")]
    AllInfinite {
        /// Tokens before the one to be drawn.
        position: usize,
    },
    /// An option has pushed a logit beyond the largest float32.
    #[error("at position {position}, stage {stage} makes a logit overflow; its option is too extreme")]
    Overflow {
        /// Tokens before the one to be drawn.
        position: usize,
        /// The stage.
        stage: Stage,
    },
    /// The options have banned every token.
    #[error("at position {position}, stage {stage} has left no token to draw")]
    NoCandidates {
        /// Tokens before the one to be drawn.
        position: usize,
        /// The stage after which none was left.
        stage: Stage,
    },
}
