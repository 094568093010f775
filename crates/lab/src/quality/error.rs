//! What a perplexity is refused for.

use roofline_model::tokenizer::TokenizerError;

use super::Convention;

/// Texts and plans that give no perplexity.
#[derive(Debug, thiserror::Error)]
pub enum QualityError {
    /// No such convention.
    #[error(
        "unknown convention `{given}`; did you mean {nearest}? (available: half-chunk, strided, rolling-doc)"
    )]
    Convention {
        /// What was written.
        given: String,
        /// The nearest name.
        nearest: String,
    },
    /// A text without a character.
    #[error("{name} is empty: there is nothing to score")]
    EmptyText {
        /// Its file or name.
        name: String,
    },
    /// A text shorter than the convention's smallest.
    #[error(
        "a text of {tokens} tokens is too short: {convention} needs at least {needed}{}",
        if *convention == Convention::HalfChunk { ", one window; shorten --context" } else { "" }
    )]
    TooShort {
        /// The convention.
        convention: Convention,
        /// Tokens of the text.
        tokens: usize,
        /// Tokens it needs.
        needed: usize,
    },
    /// Windows that end inside of the prompt.
    #[error(
        "nothing is scored: the prompt of {prompt} tokens reaches to the end of every window (the longest has {longest}); \
         shorten --prompt"
    )]
    AllPrompt {
        /// Tokens of the prompt.
        prompt: usize,
        /// Tokens of the longest window.
        longest: usize,
    },
    /// A number out of its range.
    #[error("{option} {given} is not possible: {why}")]
    Option {
        /// Which.
        option: &'static str,
        /// What was given.
        given: usize,
        /// What is wrong with it.
        why: String,
    },
    /// Windows longer than the model takes, in a cache that keeps positions beyond it.
    #[error(
        "windows of {wanted} tokens are longer than the model's context of {limit}, and the cache {cache} sees positions \
         beyond it; use --context {limit}, or --cache streaming, whose positions stay inside"
    )]
    Context {
        /// Tokens of the longest window.
        wanted: usize,
        /// Tokens the model takes.
        limit: usize,
        /// The cache.
        cache: String,
    },
    /// A policy that acts while decoding, measured without decoding.
    #[error(
        "--mode parallel would not measure {setup}: it acts on a prompt or in decode steps; use --mode decode"
    )]
    Parallel {
        /// The policy and its storage.
        setup: String,
    },
    /// A tokenizer that ends texts with a token.
    #[error(
        "half-chunk is not defined for this tokenizer: it adds a token behind a text, which llama-perplexity refuses; use \
         --convention strided"
    )]
    Suffix,
    /// A tokenizer without a token that could stand before a text.
    #[error(
        "rolling-doc needs a BOS or EOS token before the text, and this model names neither; use --convention strided"
    )]
    NoPrefix,
    /// No text, no setup.
    #[error("nothing to measure: give at least one {what}")]
    Nothing {
        /// What is missing.
        what: &'static str,
    },
    /// Logits that are no numbers.
    #[error(
        "{cache}: the logits for token {token} of text {text} (row {row} of window {window}) hold a value that is not \
         finite; the weights or the arithmetic overflow"
    )]
    NotFinite {
        /// The setup.
        cache: String,
        /// Which text, from 0.
        text: usize,
        /// Which of its tokens was to be predicted.
        token: usize,
        /// Which window, from 0.
        window: usize,
        /// Which row of it.
        row: usize,
    },
    /// The tokenizer refused.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}
