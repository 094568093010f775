//! Prompts: passages of prose, or token ids drawn from the vocabulary.

use roofline_engine::EngineError;
use roofline_model::tokenizer::Tokenizer;

use crate::error::LabError;
use crate::statistics::Random;

/// From *Middlemarch* (George Eliot, 1871), chapter 15; public domain, and not among the books the demo model was
/// trained on.
pub const PROSE: &str = include_str!("prose.txt");

/// Passages begin this many bytes apart, at the next word.
const STRIDE: usize = 1531;

/// Where the tokens of a prompt come from.
pub enum Source<'t> {
    /// Prose, by this tokenizer.
    Prose(&'t Tokenizer),
    /// Drawn evenly from a vocabulary of this size.
    Random(usize),
}

/// A prompt of an exact length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// Its tokens: (n).
    pub ids: Vec<u32>,
    /// The prose whose first tokens they are; absent for random ones.
    pub text: Option<String>,
}

/// The prompt of `tokens` tokens that passage `item` begins with. Prose is repeated where it is too short.
///
/// # Errors
/// What the tokenizer refuses.
pub fn prompt(source: &Source<'_>, tokens: usize, item: u64, seed: u64) -> Result<Prompt, LabError> {
    let tokenizer = match source {
        Source::Prose(tokenizer) => tokenizer,
        Source::Random(vocab_size) => {
            let mut random = Random(seed ^ item.wrapping_mul(0xd134_2543_de82_ef95));
            let ids = (0..tokens).map(|_| random.below(*vocab_size) as u32).collect();
            return Ok(Prompt { ids, text: None });
        }
    };
    let start = begin(item);
    // A token is about four bytes of English; doubled until there are enough.
    let mut bytes = tokens.saturating_mul(4).saturating_add(64);
    loop {
        let text = passage(start, bytes);
        let mut ids = encode(tokenizer, &text)?;
        if ids.len() >= tokens {
            ids.truncate(tokens);
            return Ok(Prompt { ids, text: Some(text) });
        }
        bytes = bytes.saturating_mul(2);
    }
}

/// The tokens of a text, as [`prompt`] counts them.
///
/// # Errors
/// What the tokenizer refuses.
pub fn encode(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>, LabError> {
    Ok(tokenizer.encode(text, true, true).map_err(EngineError::from)?)
}

/// Where passage `item` begins: after a space.
fn begin(item: u64) -> usize {
    let at = (item % (PROSE.len() / STRIDE) as u64) as usize * STRIDE;
    match item {
        0 => 0,
        _ => PROSE.as_bytes()[at..].iter().position(|&byte| byte == b' ').map_or(0, |space| at + space + 1),
    }
}

/// At least `bytes` bytes of prose from `start` on, round and round.
fn passage(start: usize, bytes: usize) -> String {
    let mut text = PROSE[start..].to_string();
    while text.len() < bytes {
        text.push_str(PROSE);
    }
    let end = (bytes..=text.len()).find(|&end| text.is_char_boundary(end)).unwrap_or(text.len());
    text.truncate(end);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passages_are_whole_words_of_the_asked_length_and_differ() {
        assert_eq!(begin(0), 0);
        for item in 1..40 {
            assert_eq!(&PROSE[begin(item) - 1..begin(item)], " ", "{item}");
        }
        assert_eq!(passage(0, 100).len(), 100);
        assert!(passage(9000, 3 * PROSE.len()).len() >= 3 * PROSE.len());
        assert_ne!(passage(begin(1), 50), passage(begin(2), 50));
        assert!(PROSE.is_ascii(), "positions are bytes");
    }

    #[test]
    fn random_prompts_follow_their_seed_and_item() {
        let draw = |item, seed| prompt(&Source::Random(100), 50, item, seed).unwrap().ids;
        assert_eq!(draw(1, 2), draw(1, 2));
        assert_ne!(draw(1, 2), draw(2, 2));
        assert_ne!(draw(1, 2), draw(1, 3));
        assert!(draw(1, 2).iter().all(|&id| id < 100));
    }
}
