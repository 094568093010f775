//! [`Tokenizer`]: text to token ids and back, from a Hugging Face folder or from GGUF metadata.
//!
//! `tokenizer.json` is encoded by the tokenizers crate; GGUF files carry less, and the two kinds of tokenizer they
//! describe are written here (`byte_bpe`, `sentencepiece`). Decoding is one piece of code for all three: each
//! token stands for bytes, and the bytes of all tokens, read as UTF-8, are the text.

mod byte_bpe;
mod byte_map;
mod error;
mod gguf;
mod hf;
mod index;
mod merge;
mod pieces;
mod sentencepiece;
mod special;
mod stop;
mod stream;
mod vocabulary;

use std::borrow::Cow;

pub use error::TokenizerError;
pub use gguf::GgufFields;
pub use stream::StreamDecoder;

use special::{Fragment, SpecialTokens};
use vocabulary::{TokenKind, Vocabulary};

/// Text to ids and back.
pub struct Tokenizer {
    vocabulary: Vocabulary,
    encoder: Encoder,
    kind: String,
    bos: Option<u32>,
    eos: Option<u32>,
    stop_ids: Vec<u32>,
    /// What `add_special` puts before a text, usually BOS.
    prefix: Vec<u32>,
    /// What it puts after it, usually nothing.
    suffix: Vec<u32>,
    /// SentencePiece writes a space before the text; decoding takes it away again.
    leading_space: bool,
}

enum Encoder {
    Hf(Box<hf::HfEncoder>),
    ByteBpe(Box<byte_bpe::ByteBpe>, SpecialTokens),
    SentencePiece(Box<sentencepiece::SentencePiece>, SpecialTokens),
}

impl Tokenizer {
    /// The ids of `text`.
    ///
    /// `add_special` puts the tokens around it that the model expects of a whole text (usually BOS). `parse_special`
    /// reads the names of control tokens in the text as those tokens; without it they are text like any other, so
    /// that nothing a user types can speak to the model. User-defined tokens are matched either way.
    ///
    /// # Errors
    /// A byte that the vocabulary cannot express, a text beyond 4 GiB, or a refusal of the tokenizers crate.
    pub fn encode(
        &self,
        text: &str,
        add_special: bool,
        parse_special: bool,
    ) -> Result<Vec<u32>, TokenizerError> {
        let mut ids = Vec::new();
        if add_special {
            ids.extend(&self.prefix);
        }
        self.append(text, parse_special, &mut ids)?;
        if add_special {
            ids.extend(&self.suffix);
        }
        Ok(ids)
    }

    fn append(&self, text: &str, parse_special: bool, ids: &mut Vec<u32>) -> Result<(), TokenizerError> {
        match &self.encoder {
            Encoder::Hf(hf) => ids.extend(hf.encode(text, parse_special)?),
            Encoder::ByteBpe(bpe, special) => {
                for fragment in special.split(text, parse_special) {
                    match fragment {
                        Fragment::Token(id) => ids.push(id),
                        Fragment::Text(text) => bpe.encode(&self.vocabulary, text, ids)?,
                    }
                }
            }
            Encoder::SentencePiece(model, special) => {
                let mut after_token = true;
                for fragment in special.split(text, parse_special) {
                    after_token = match fragment {
                        Fragment::Token(id) => {
                            ids.push(id);
                            true
                        }
                        Fragment::Text(text) => {
                            let space = if after_token && self.leading_space { "▁" } else { "" };
                            model.encode(
                                &self.vocabulary,
                                &(space.to_string() + &text.replace(' ', "▁")),
                                ids,
                            )?;
                            false
                        }
                    };
                }
            }
        }
        Ok(())
    }

    /// The text of `ids`; `skip_special` leaves control tokens out. Bytes that are not UTF-8 become U+FFFD, one for
    /// each maximal invalid part. No space is cleaned up around punctuation.
    ///
    /// # Errors
    /// An id that is not in the vocabulary.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, TokenizerError> {
        let mut decoder = StreamDecoder::new(skip_special);
        ids.iter().try_for_each(|id| decoder.append(self, *id))?;
        Ok(decoder.into_text())
    }

    /// The bytes that `id` stands for: not always whole characters. `None` if no token has the id.
    pub fn token_bytes(&self, id: u32) -> Option<Cow<'_, [u8]>> {
        self.vocabulary.bytes(id)
    }

    /// One more than the largest id of a token. A model's embedding table may have more rows than that.
    pub fn vocab_size(&self) -> usize {
        self.vocabulary.len()
    }

    /// The token as the vocabulary spells it (`Ġhello`, `▁hello`, `<0x0A>`).
    pub fn token(&self, id: u32) -> Option<&str> {
        self.vocabulary.text(id)
    }

    /// The id of a token as the vocabulary spells it.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.vocabulary.id(token)
    }

    /// The token that begins a text.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The token that ends a text.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// Whether `id` speaks to the model and not to the reader.
    pub fn is_special(&self, id: u32) -> bool {
        matches!(self.vocabulary.kind(id), Some(TokenKind::Control | TokenKind::Unknown))
    }

    /// Whether `id` is matched whole in a text: control and user-defined tokens.
    pub fn is_whole(&self, id: u32) -> bool {
        self.is_special(id) || self.vocabulary.kind(id) == Some(TokenKind::UserDefined)
    }

    /// Every id that this tokenizer knows to end an answer, ascending: EOS, the end-of-turn ids that GGUF names, and
    /// control tokens with a known name (`<|im_end|>`, `<|eot_id|>`, …).
    pub fn end_of_turn_ids(&self) -> &[u32] {
        &self.stop_ids
    }

    /// What kind of tokenizer this is, in words.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    fn adds_leading_space(&self) -> bool {
        self.leading_space
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("kind", &self.kind)
            .field("vocab_size", &self.vocab_size())
            .field("bos", &self.bos)
            .field("eos", &self.eos)
            .finish_non_exhaustive()
    }
}
