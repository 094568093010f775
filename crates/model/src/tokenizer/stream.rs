//! Text from tokens as they come: a character whose bytes are spread over several tokens is held back until it
//! is whole.

use super::Tokenizer;
use super::error::TokenizerError;

/// Turns ids into text one by one. All it returns, joined, is what [`Tokenizer::decode`] makes of all the ids.
#[derive(Debug, Clone)]
pub struct StreamDecoder {
    skip_special: bool,
    /// Whether the next byte of text is the first, so that a space of SentencePiece's making is to be dropped.
    at_start: bool,
    held: Vec<u8>, // (0..=3 bytes between calls), the start of a character
    text: String,
}

impl StreamDecoder {
    /// For text that begins with the first id; `skip_special` leaves control tokens out.
    pub fn new(skip_special: bool) -> Self {
        Self { skip_special, at_start: true, held: Vec::new(), text: String::new() }
    }

    /// For text that goes on after a prompt: a leading space is kept, since it parts two words.
    pub fn continuing(skip_special: bool) -> Self {
        Self { at_start: false, ..Self::new(skip_special) }
    }

    /// The text that `id` completes, often all of the token, sometimes none. Allocates nothing once its buffers
    /// have grown to the longest token.
    ///
    /// # Errors
    /// An id that is not in the vocabulary; the decoder is as it was before.
    pub fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> Result<&str, TokenizerError> {
        self.text.clear();
        self.append(tokenizer, id)?;
        Ok(&self.text)
    }

    /// The text of what is still held back: U+FFFD if a character was begun and not ended, else nothing. The
    /// decoder then begins anew, in the middle of a text.
    pub fn finish(&mut self) -> &str {
        self.text.clear();
        self.flush();
        &self.text
    }

    pub(super) fn append(&mut self, tokenizer: &Tokenizer, id: u32) -> Result<(), TokenizerError> {
        let bytes = tokenizer
            .token_bytes(id)
            .ok_or(TokenizerError::UnknownId { id, vocab_size: tokenizer.vocab_size() })?;
        if self.skip_special && tokenizer.is_special(id) {
            return Ok(());
        }
        let drop_space = self.at_start && tokenizer.adds_leading_space() && bytes.first() == Some(&b' ');
        self.at_start &= bytes.is_empty();
        self.held.extend_from_slice(&bytes[usize::from(drop_space)..]);
        self.take_complete();
        Ok(())
    }

    pub(super) fn flush(&mut self) {
        if !self.held.is_empty() {
            self.held.clear();
            self.text.push(char::REPLACEMENT_CHARACTER);
        }
        self.at_start = false;
    }

    pub(super) fn into_text(mut self) -> String {
        self.flush();
        self.text
    }

    /// Moves all complete characters from `held` to `text`; what can never become one turns into U+FFFD.
    fn take_complete(&mut self) {
        let mut done = 0;
        for chunk in self.held.utf8_chunks() {
            self.text.push_str(chunk.valid());
            done += chunk.valid().len();
            let invalid = chunk.invalid();
            if invalid.is_empty() || done + invalid.len() == self.held.len() && may_go_on(invalid) {
                break;
            }
            self.text.push(char::REPLACEMENT_CHARACTER);
            done += invalid.len();
        }
        self.held.drain(..done);
    }
}

/// Whether more bytes could make `bytes` a character.
fn may_go_on(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}
