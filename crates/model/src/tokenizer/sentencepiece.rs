//! SentencePiece-style BPE, as GGUF files of `tokenizer.ggml.model = llama` carry it: no merge table; of all
//! neighbours whose joined text is a token, the one with the highest score is joined first.

use super::error::TokenizerError;
use super::merge::Merger;
use super::vocabulary::{TokenKind, Vocabulary, byte_of_name};

/// Scores and byte tokens.
pub(crate) struct SentencePiece {
    scores: Vec<Score>, // (vocab)
    byte_tokens: [Option<u32>; 256],
    unknown: Option<u32>,
    /// No token has a space after another character, so no merge reaches from one word into the next and each word
    /// can be merged by itself: many small heaps instead of a large one.
    by_words: bool,
}

/// A finite score; higher is merged earlier.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Score(f32);

impl Eq for Score {}

impl Ord for Score {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Score {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// Start and end of a symbol in the text, in bytes.
type Span = (u32, u32);

impl SentencePiece {
    /// `scores` by id, `unknown` the token for text that has neither a token nor byte tokens.
    ///
    /// # Errors
    /// A score that is not finite.
    pub(crate) fn new(
        vocabulary: &Vocabulary,
        scores: &[f32],
        unknown: Option<u32>,
    ) -> Result<Self, TokenizerError> {
        if let Some(at) = scores.iter().position(|score| !score.is_finite()) {
            let problem = format!("the score of token {at} is {}", scores[at]);
            return Err(TokenizerError::BadKey { key: "tokenizer.ggml.scores", problem });
        }
        let mut byte_tokens = [None; 256];
        for (id, text, kind) in vocabulary.iter() {
            if let Some(byte) = byte_of_name(text).filter(|_| kind == TokenKind::Byte) {
                byte_tokens[usize::from(byte)] = Some(id);
            }
        }
        // Adding zero turns -0 into 0, which must not come after it.
        let scores = scores.iter().map(|score| Score(score + 0.0)).collect();
        let by_words = vocabulary.iter().all(|(_, text, _)| !text.trim_start_matches('▁').contains('▁'));
        Ok(Self { scores, byte_tokens, unknown, by_words })
    }

    /// Appends the ids of `text`, in which spaces are already `▁`, to `ids`.
    ///
    /// # Errors
    /// A byte without any token, or a text beyond 4 GiB.
    pub(crate) fn encode(
        &self,
        vocabulary: &Vocabulary,
        text: &str,
        ids: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        let limit = u32::MAX as usize - 1;
        if text.len() > limit {
            return Err(TokenizerError::TextTooLong { bytes: text.len(), limit });
        }
        let mut merger = Merger::new();
        let mut rest = text;
        while !rest.is_empty() {
            let (word, after) = rest.split_at(if self.by_words { word_length(rest) } else { rest.len() });
            self.encode_word(vocabulary, word, &mut merger, ids)?;
            rest = after;
        }
        Ok(())
    }

    fn encode_word(
        &self,
        vocabulary: &Vocabulary,
        word: &str,
        merger: &mut Merger<Span, Score>,
        ids: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        let symbol = |(start, end): Span| &word[start as usize..end as usize];
        let characters = word.char_indices().map(|(at, c)| (at as u32, (at + c.len_utf8()) as u32));
        let join = |left: Span, right: Span| {
            let joined = (left.0, right.1);
            let id = vocabulary.mergeable(symbol(joined))?;
            Some((*self.scores.get(id as usize)?, joined))
        };
        for span in merger.run(characters, join) {
            match vocabulary.mergeable(symbol(span)) {
                Some(id) => ids.push(id),
                None => self.fall_back(symbol(span), ids)?,
            }
        }
        Ok(())
    }

    /// A character without a token: its bytes, or the unknown token.
    fn fall_back(&self, symbol: &str, ids: &mut Vec<u32>) -> Result<(), TokenizerError> {
        let start = ids.len();
        for byte in symbol.bytes() {
            match (self.byte_tokens[usize::from(byte)], self.unknown) {
                (Some(id), _) => ids.push(id),
                (None, Some(unknown)) => {
                    ids.truncate(start);
                    ids.push(unknown);
                    return Ok(());
                }
                (None, None) => return Err(TokenizerError::NoTokenForByte { byte }),
            }
        }
        Ok(())
    }
}

/// Bytes up to the next space that follows another character.
fn word_length(text: &str) -> usize {
    let start = text.len() - text.trim_start_matches('▁').len();
    text[start..].find('▁').map_or(text.len(), |at| start + at)
}
