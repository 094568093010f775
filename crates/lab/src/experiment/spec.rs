//! What an experiment asks: axes with their values, and how it is run.

use serde::{Deserialize, Serialize};

use super::hash::hash_of;
use super::ordered::Ordered;
use super::rows::Value;

/// Everything that was asked, defaults expanded. Every combination of the axes is a cell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// Name, as `output-tokens`.
    pub name: String,
    /// The question it answers, one sentence.
    pub question: String,
    /// How the rows are turned into findings.
    pub analysis: Analysis,
    /// Axis → values, every axis, those of one value too.
    pub axes: Ordered<Vec<Value>>,
    /// Counted runs of each cell.
    pub repeats: usize,
    /// Most warm-up rounds.
    pub warm_up: usize,
    /// Where the tokens of prompts come from.
    pub prompts: Prompts,
    /// Divides the logits; 0 takes the most probable token.
    pub temperature: f64,
    /// Whether perplexity and divergence are measured beside the times.
    pub quality: bool,
    /// Draws the order of runs, random token ids, and the tokens where the temperature is not 0.
    pub seed: u64,
}

/// How rows are turned into findings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Analysis {
    /// Time against output length.
    OutputTokens,
    /// What a cap costs.
    MaxNewTokens,
    /// Time against prompt length, and its turning point.
    PromptLength,
    /// Decode against tokens in the cache.
    ContextDepth,
    /// Policies against each other.
    CachePolicy,
    /// The same over a family of geometries.
    ModelSize,
    /// Precisions against each other.
    Precision,
    /// Thread counts against each other.
    Threads,
    /// The same thing against itself.
    Noise,
    /// Medians and intervals of every cell, no more.
    Plain,
}

/// Where the tokens of prompts come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Prompts {
    /// English prose, tokenized.
    Text,
    /// Drawn evenly from the vocabulary: for models with made-up weights, whose tokenizer means nothing.
    Random,
}

impl Spec {
    /// Identity of the experiment: 16 hexadecimal digits, whatever the order of fields.
    pub fn hash(&self) -> String {
        hash_of(self)
    }
}
