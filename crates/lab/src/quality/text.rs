//! [`Text`]: a text as tokens, and what its tokens are worth in bytes and words.

use std::ops::Range;

use roofline_model::Tokenizer;
use serde::Serialize;

use super::{Convention, QualityError};
use crate::report::digest::sha256;

/// Bytes and words, the two units that do not depend on a tokenizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Counts {
    /// UTF-8 bytes.
    pub bytes: u64,
    /// Pieces between runs of whitespace, empty ones at the ends included: Python's `len(re.split(r"\s+", text))`.
    pub words: u64,
}

/// Where a text came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Source {
    /// Its file or name.
    pub name: String,
    /// SHA-256 of its bytes.
    pub sha256: String,
    /// All of it, also what was cut off.
    pub whole: Counts,
    /// Tokens it has, also those cut off.
    pub tokens: usize,
}

/// A document: its tokens and what they stand for.
#[derive(Debug, Clone)]
pub struct Text {
    source: Option<Source>,
    tokens: Vec<u32>,   // (n)
    worth: Vec<Counts>, // (n), of what each decodes to; empty without a tokenizer
}

impl Text {
    /// `text` as the reference of `convention` encodes it, its first `limit` tokens.
    ///
    /// llama.cpp and Hugging Face add what the tokenizer adds to a whole text; lm-eval adds nothing. The last two read
    /// the names of control tokens in the text as those tokens.
    ///
    /// # Errors
    /// An empty text, one that cannot be encoded, a limit of 0.
    pub fn encode(
        tokenizer: &Tokenizer,
        name: &str,
        text: &str,
        convention: Convention,
        limit: Option<usize>,
    ) -> Result<Text, QualityError> {
        if text.is_empty() {
            return Err(QualityError::EmptyText { name: name.to_string() });
        }
        if limit == Some(0) {
            return Err(QualityError::Option {
                option: "--tokens",
                given: 0,
                why: "at least one is scored".into(),
            });
        }
        let add_special = convention != Convention::RollingDoc;
        let parse_special = convention != Convention::HalfChunk;
        let mut tokens = tokenizer.encode(text, add_special, parse_special)?;
        let whole = counts_of(text);
        let digits = sha256(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        let source = Source { name: name.to_string(), sha256: digits, whole, tokens: tokens.len() };
        let worth = worth(tokenizer, &tokens);
        if let Some(limit) = limit {
            tokens.truncate(limit);
        }
        Ok(Text { source: Some(source), tokens, worth })
    }

    /// Tokens of unknown text: they have a token perplexity only.
    pub fn of_tokens(tokens: Vec<u32>) -> Text {
        Text { source: None, tokens, worth: Vec::new() }
    }

    /// Where it came from.
    pub fn source(&self) -> Option<&Source> {
        self.source.as_ref()
    }

    /// Its tokens.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Whether a limit cut it.
    pub fn is_cut(&self) -> bool {
        self.source.as_ref().is_some_and(|source| source.tokens > self.tokens.len())
    }

    /// What these of its tokens decode to. Every word is counted with the token in which it ends, the last one of the
    /// text with the last token.
    pub fn worth(&self, tokens: Range<usize>) -> Option<Counts> {
        let worth = self.worth.get(tokens)?;
        Some(Counts {
            bytes: worth.iter().map(|counts| counts.bytes).sum(),
            words: worth.iter().map(|counts| counts.words).sum(),
        })
    }
}

/// A text's own words and bytes.
pub(super) fn counts_of(text: &str) -> Counts {
    Counts { bytes: text.len() as u64, words: 1 + word_ends(text.as_bytes()).count() as u64 }
}

/// What each token decodes to: its bytes, and the words that end in it. Control tokens are worth nothing.
fn worth(tokenizer: &Tokenizer, tokens: &[u32]) -> Vec<Counts> {
    let mut bytes = Vec::new();
    let mut ends = Vec::with_capacity(tokens.len()); // (n), where the bytes of each token end
    for &token in tokens {
        if !tokenizer.is_special(token) {
            let token_bytes = tokenizer.token_bytes(token).unwrap_or_default();
            let skip = usize::from(bytes.is_empty() && adds_space(tokenizer, token));
            bytes.extend_from_slice(&token_bytes[skip..]);
        }
        ends.push(bytes.len());
    }
    let mut worth = Vec::with_capacity(tokens.len());
    let mut words = word_ends(&bytes).peekable();
    let mut begin = 0;
    for &end in &ends {
        let mut counts = Counts { bytes: (end - begin) as u64, words: 0 };
        while words.next_if(|&at| at < end).is_some() {
            counts.words += 1;
        }
        worth.push(counts);
        begin = end;
    }
    if let Some(last) = worth.last_mut() {
        last.words += 1;
    }
    worth
}

/// Whether the space that `token` begins with is SentencePiece's own when it is the first of a text.
fn adds_space(tokenizer: &Tokenizer, token: u32) -> bool {
    let with = tokenizer.token_bytes(token).is_some_and(|bytes| bytes.starts_with(b" "));
    with && tokenizer.decode(&[token], true).is_ok_and(|text| !text.starts_with(' '))
}

/// Where runs of whitespace begin. What is not UTF-8 is no whitespace.
fn word_ends(bytes: &[u8]) -> impl Iterator<Item = usize> {
    let mut at = 0;
    let characters = bytes.utf8_chunks().flat_map(move |chunk| {
        let begin = at;
        at += chunk.valid().len() + chunk.invalid().len();
        let broken = (!chunk.invalid().is_empty()).then_some((begin + chunk.valid().len(), false));
        chunk.valid().char_indices().map(move |(i, c)| (begin + i, is_space(c))).chain(broken)
    });
    let mut inside = false;
    characters.filter_map(move |(at, space)| {
        let begins = space && !inside;
        inside = space;
        begins.then_some(at)
    })
}

/// `\s` of Python: Unicode's White_Space and the four separators of ASCII.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// What the convention puts in front: the token that replaces the first of every half-chunk window where the tokenizer
/// adds one to a text, and the one that a rolling document follows (BOS, else EOS).
///
/// # Errors
/// A tokenizer that adds a token behind a text, which llama.cpp refuses; one that has neither BOS nor EOS, which
/// lm-eval cannot use.
pub fn lead(tokenizer: &Tokenizer, convention: Convention) -> Result<Option<u32>, QualityError> {
    match convention {
        Convention::HalfChunk => {
            let (alone, framed) = (tokenizer.encode("a", false, false)?, tokenizer.encode("a", true, false)?);
            if !framed.ends_with(&alone) {
                return Err(QualityError::Suffix);
            }
            let adds = framed.len() > alone.len();
            Ok(if adds { tokenizer.bos().or(framed.first().copied()) } else { None })
        }
        Convention::Strided => Ok(None),
        Convention::RollingDoc => match tokenizer.bos().or(tokenizer.eos()) {
            Some(token) => Ok(Some(token)),
            None => Err(QualityError::NoPrefix),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_end_where_whitespace_begins() {
        let ends = |text: &[u8]| word_ends(text).collect::<Vec<_>>();
        assert_eq!(ends(b" a  b\n"), [0, 2, 5]);
        assert_eq!(ends("ä\u{2003}\u{a0}b".as_bytes()), [2]);
        assert_eq!(ends(b"a\xff b\xc3"), [2]);
        assert!(ends(b"").is_empty());
    }
}
