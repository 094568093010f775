//! [`Convention`]: which windows a text is cut into and which of their tokens are scored.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use roofline_model::nearest::nearest;
use serde::Serialize;

use super::QualityError;

/// The three ways in which perplexity is measured elsewhere. They disagree on the same model and text, so a number
/// without its convention means nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Convention {
    /// llama.cpp's `llama-perplexity`: windows without overlap, of each the second half scored.
    HalfChunk,
    /// Hugging Face's "perplexity of fixed-length models": windows a stride apart, of each the tokens scored that no
    /// window before scored.
    Strided,
    /// lm-evaluation-harness' `loglikelihood_rolling`: every token of a document scored once.
    RollingDoc,
}

/// One pass over a part of a text. What is fed is `lead` and then the text's tokens `body`; the logits after row
/// `first_row` and every later one are scored, the first of them against token `first_target` of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// The first token fed.
    pub lead: u32,
    /// The tokens of the text fed after it.
    pub body: Range<usize>,
    /// First scored row, counted in what is fed.
    pub first_row: usize,
    /// The token of the text that `first_row` predicts.
    pub first_target: usize,
    /// What the reference implementation multiplies the window's mean with: the scored tokens, but in [`Convention::Strided`]
    /// one less from the second window on.
    pub weight: usize,
}

impl Window {
    /// What is fed: (`len`).
    pub fn inputs(&self, tokens: &[u32]) -> Vec<u32> {
        [&[self.lead], &tokens[self.body.clone()]].concat()
    }

    /// Tokens fed.
    pub fn len(&self) -> usize {
        1 + self.body.len()
    }

    /// A window feeds its lead at least.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Tokens scored.
    pub fn scored(&self) -> usize {
        self.len().saturating_sub(self.first_row)
    }

    /// The tokens scored, as places in the text.
    pub fn targets(&self) -> Range<usize> {
        self.first_target..self.first_target + self.scored()
    }

    /// The same window with rows before `row` not scored.
    pub fn from_row(mut self, row: usize) -> Window {
        let skip = row.saturating_sub(self.first_row);
        self.first_row += skip;
        self.first_target += skip;
        self
    }
}

impl Convention {
    /// All of them.
    pub const ALL: [Convention; 3] = [Convention::HalfChunk, Convention::Strided, Convention::RollingDoc];

    /// As it is written on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Convention::HalfChunk => "half-chunk",
            Convention::Strided => "strided",
            Convention::RollingDoc => "rolling-doc",
        }
    }

    /// Whose number it is.
    pub fn reference(self) -> &'static str {
        match self {
            Convention::HalfChunk => "llama.cpp's llama-perplexity",
            Convention::Strided => "Hugging Face's perplexity of fixed-length models",
            Convention::RollingDoc => "lm-evaluation-harness' rolling log-likelihood",
        }
    }

    /// The reference's window for a model that takes `limit` tokens: 512 for llama.cpp, all it takes for the others.
    pub fn default_context(self, limit: usize) -> usize {
        match self {
            Convention::HalfChunk => limit.min(512),
            Convention::Strided | Convention::RollingDoc => limit,
        }
    }

    /// The reference's stride between windows of `context`: 512 for Hugging Face; the others leave no gap and no overlap.
    pub fn default_stride(self, context: usize) -> usize {
        match self {
            Convention::Strided => context.min(512),
            Convention::HalfChunk | Convention::RollingDoc => context,
        }
    }

    /// Which tokens are scored, in words.
    pub fn scored_range(self, context: usize, stride: usize) -> String {
        match self {
            Convention::HalfChunk => {
                let first = context / 2 + 1;
                format!("tokens {first} to {} of each window, {} of {context}", context - 1, context - first)
            }
            Convention::Strided if stride == context => "all tokens of each window but its first".to_string(),
            Convention::Strided => {
                "of the first window all tokens but the first, of each later one those that no window scored before"
                    .to_string()
            }
            Convention::RollingDoc => "every token once".to_string(),
        }
    }

    /// The windows of a text of `tokens`, in its order. `bos` replaces the first token of every half-chunk window; it
    /// is what a rolling document begins with. A rest shorter than a half-chunk window is left out, as llama.cpp does.
    ///
    /// # Errors
    /// A text that has no window.
    pub fn windows(
        self,
        tokens: &[u32],
        context: usize,
        stride: usize,
        bos: Option<u32>,
    ) -> Result<Vec<Window>, QualityError> {
        let windows = match self {
            Convention::HalfChunk => half_chunks(tokens, context, bos),
            Convention::Strided => strided(tokens, context, stride),
            Convention::RollingDoc => rolling(tokens, context, bos.ok_or(QualityError::NoPrefix)?),
        };
        let needed = match self {
            Convention::HalfChunk => context,
            Convention::Strided => 2,
            Convention::RollingDoc => 1,
        };
        match windows.is_empty() {
            true => Err(QualityError::TooShort { convention: self, tokens: tokens.len(), needed }),
            false => Ok(windows),
        }
    }
}

/// Row r of a window predicts its token r + 1, so that the last token is not fed and the first of the half not scored.
fn half_chunks(tokens: &[u32], context: usize, bos: Option<u32>) -> Vec<Window> {
    let first_row = context / 2;
    (0..tokens.len() / context)
        .map(|chunk| {
            let begin = chunk * context;
            Window {
                lead: bos.unwrap_or(tokens[begin]),
                body: begin + 1..begin + context - 1,
                first_row,
                first_target: begin + first_row + 1,
                weight: context - 1 - first_row,
            }
        })
        .collect()
}

/// The first window scores all it can. The reference gives every later one the weight of its new tokens less one,
/// although their mean is over all of them.
fn strided(tokens: &[u32], context: usize, stride: usize) -> Vec<Window> {
    let (mut windows, mut scored_to) = (Vec::new(), 0);
    for begin in (0..tokens.len()).step_by(stride) {
        let end = begin.saturating_add(context).min(tokens.len());
        let first_target = scored_to.max(begin + 1);
        if first_target < end {
            windows.push(Window {
                lead: tokens[begin],
                body: begin + 1..end - 1,
                first_row: first_target - begin - 1,
                first_target,
                weight: end - scored_to - 1,
            });
        }
        scored_to = end;
        if end == tokens.len() {
            break;
        }
    }
    windows
}

/// The first window follows the prefix token, later ones the last token of the window before. The last one is not
/// shorter than the others: it reaches further back, and what it sees again it does not score again.
fn rolling(tokens: &[u32], context: usize, prefix: u32) -> Vec<Window> {
    let mut windows = Vec::new();
    let mut scored_to = 0;
    while scored_to < tokens.len() {
        let end = scored_to.saturating_add(context).min(tokens.len());
        let (lead, body, first_row) = match scored_to {
            0 => (prefix, 0..end - 1, 0),
            _ => {
                let begin = end - context - 1;
                (tokens[begin], begin + 1..end - 1, scored_to - begin - 1)
            }
        };
        windows.push(Window { lead, body, first_row, first_target: scored_to, weight: end - scored_to });
        scored_to = end;
    }
    windows
}

impl FromStr for Convention {
    type Err = QualityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let all = Convention::ALL;
        all.into_iter().find(|convention| convention.name() == text).ok_or_else(|| {
            let names = all.iter().map(|convention| convention.name());
            QualityError::Convention {
                given: text.to_string(),
                nearest: nearest(text, names, 1).pop().unwrap_or_default(),
            }
        })
    }
}

impl fmt::Display for Convention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
