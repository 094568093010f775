//! The table of tokens: id ↔ text as the files spell it, what kind of token it is, which bytes it stands for.

use super::byte_map;
use super::error::TokenizerError;
use super::index::{Index, MAX_NUMBER, Seed};
use std::borrow::Cow;

/// Ids above this are refused: a table that sparse is a corrupt file, not a vocabulary (the largest known ones
/// have about 260 thousand).
const MAX_ID: u32 = MAX_NUMBER;

/// What a token is for; the numbering of GGUF's `tokenizer.ggml.token_type` is in `gguf.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenKind {
    /// A piece of text, reached by merging.
    Normal,
    /// Stands for text that has no token.
    Unknown,
    /// Speaks to the model, not to the reader; left out of decoded text on request.
    Control,
    /// A piece of text that is matched whole, before any merging.
    UserDefined,
    /// A row of the embedding table without a meaning.
    Unused,
    /// One raw byte, spelled `<0x0A>`.
    Byte,
}

/// How the text of a [`TokenKind::Normal`] token spells bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spelling {
    /// One character for each byte, GPT-2's way.
    ByteLevel,
    /// UTF-8 with `▁` (U+2581) for a space.
    SentencePiece,
}

/// Tokens by id and by text.
pub(crate) struct Vocabulary {
    tokens: Tokens,
    index: Index, // of all texts but empty ones
    seed: Seed,
    spelling: Spelling,
}

/// Tokens by id.
#[derive(Default)]
struct Tokens {
    blob: String,             // all texts, in the order they came in
    texts: Vec<Option<Text>>, // (vocab), None where no token has the id
    kinds: Vec<TokenKind>,    // (vocab)
}

/// Where a text is in the blob.
#[derive(Clone, Copy)]
struct Text {
    start: u32,
    len: u32,
}

impl Tokens {
    fn put(&mut self, id: u32, text: &str, kind: TokenKind) -> Result<(), TokenizerError> {
        if id > MAX_ID {
            return Err(TokenizerError::IdTooLarge { text: text.to_owned(), id, limit: MAX_ID });
        }
        let at = id as usize;
        if at >= self.texts.len() {
            self.texts.resize(at + 1, None);
            self.kinds.resize(at + 1, TokenKind::Unused);
        }
        if let Some(other) = self.text(id) {
            let what = format!("id {id} is {other:?} and {text:?}");
            return Err(TokenizerError::DuplicateToken { what });
        }
        let (bytes, limit) = (self.blob.len() + text.len(), u32::MAX as usize);
        if bytes > limit {
            return Err(TokenizerError::TextTooLong { bytes, limit });
        }
        self.texts[at] = Some(Text { start: self.blob.len() as u32, len: text.len() as u32 });
        self.blob.push_str(text);
        self.kinds[at] = kind;
        Ok(())
    }

    fn text(&self, id: u32) -> Option<&str> {
        let Text { start, len } = (*self.texts.get(id as usize)?)?;
        self.blob.get(start as usize..(start + len) as usize)
    }
}

impl Vocabulary {
    /// A table of `(id, text, kind)` in any order, with holes where an id does not occur.
    ///
    /// # Errors
    /// A text at two ids, two texts at one id, an id above 2²⁴ - 2, or texts beyond 4 GiB. Empty texts are kept but cannot
    /// be looked up.
    pub(crate) fn new<T: AsRef<str>>(
        tokens: impl IntoIterator<Item = (u32, T, TokenKind)>,
        spelling: Spelling,
    ) -> Result<Self, TokenizerError> {
        let given = tokens.into_iter();
        let mut tokens = Tokens::default();
        // What is there already, not what a file claims.
        let known = given.size_hint().0;
        tokens.texts.reserve(known);
        tokens.kinds.reserve(known);
        let seed = Seed::new();
        let mut hashes = Vec::with_capacity(known); // (texts) of (id, hash)
        for (id, text, kind) in given {
            let text = text.as_ref();
            tokens.put(id, text, kind)?;
            if !text.is_empty() {
                hashes.push((id, seed.of_text(text)));
            }
        }
        let (index, repeated) = Index::new(hashes.into_iter(), |a, b| tokens.text(a) == tokens.text(b));
        if let Some(first) = repeated.first() {
            let text = tokens.text(first.number).unwrap_or_default();
            let what = format!("{text:?} is id {} and id {}", first.earlier, first.number);
            return Err(TokenizerError::DuplicateToken { what });
        }
        Ok(Self { tokens, index, seed, spelling })
    }

    /// One more than the largest id.
    pub(crate) fn len(&self) -> usize {
        self.tokens.texts.len()
    }

    pub(crate) fn text(&self, id: u32) -> Option<&str> {
        self.tokens.text(id)
    }

    pub(crate) fn id(&self, text: &str) -> Option<u32> {
        self.index.get(self.seed.of_text(text), |id| self.text(id) == Some(text))
    }

    /// The kind of the token at `id`; `None` where there is no token.
    pub(crate) fn kind(&self, id: u32) -> Option<TokenKind> {
        self.text(id).map(|_| self.tokens.kinds[id as usize])
    }

    /// The id of `text` if it is a token that merging may produce.
    pub(crate) fn mergeable(&self, text: &str) -> Option<u32> {
        self.id(text).filter(|id| self.tokens.kinds[*id as usize] == TokenKind::Normal)
    }

    /// Ids and texts of all tokens, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &str, TokenKind)> {
        (0u32..).zip(&self.tokens.kinds).filter_map(|(id, kind)| self.text(id).map(|text| (id, text, *kind)))
    }

    /// Ids and texts of the tokens that are of one of `kinds`, ascending.
    pub(crate) fn of_kinds(&self, kinds: &[TokenKind]) -> impl Iterator<Item = (u32, &str, TokenKind)> {
        let wanted = move |(_, kind): &(u32, &TokenKind)| kinds.contains(kind);
        (0u32..)
            .zip(&self.tokens.kinds)
            .filter(wanted)
            .filter_map(|(id, kind)| self.text(id).map(|text| (id, text, *kind)))
    }

    /// The bytes that the token stands for in decoded text.
    pub(crate) fn bytes(&self, id: u32) -> Option<Cow<'_, [u8]>> {
        let text = self.text(id)?;
        let spelled = match self.tokens.kinds[id as usize] {
            TokenKind::Normal | TokenKind::Unused => match self.spelling {
                Spelling::ByteLevel => byte_map::bytes_of_token(text),
                Spelling::SentencePiece => text.contains('▁').then(|| text.replace('▁', " ").into_bytes()),
            },
            TokenKind::Byte => byte_of_name(text).map(|byte| vec![byte]),
            TokenKind::Unknown | TokenKind::Control | TokenKind::UserDefined => None,
        };
        Some(spelled.map_or(Cow::Borrowed(text.as_bytes()), Cow::Owned))
    }
}

/// The byte that `<0x0A>` names.
pub(crate) fn byte_of_name(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    let hex = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    hex.then(|| u8::from_str_radix(digits, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(list: &[(u32, &str)]) -> Vec<(u32, String, TokenKind)> {
        list.iter().map(|(id, text)| (*id, text.to_string(), TokenKind::Normal)).collect()
    }

    #[test]
    fn holes_are_no_tokens() {
        let table = Vocabulary::new(tokens(&[(0, "a"), (3, "Ġb")]), Spelling::ByteLevel).unwrap();
        assert_eq!(table.len(), 4);
        assert_eq!((table.text(1), table.bytes(2), table.kind(1), table.text(9)), (None, None, None, None));
        assert_eq!(table.bytes(3).as_deref(), Some(b" b".as_slice()));
    }

    #[test]
    fn conflicts_and_absurd_ids_are_refused() {
        for bad in [&[(0, "a"), (0, "b")][..], &[(0, "a"), (1, "a")], &[(u32::MAX, "a")]] {
            assert!(Vocabulary::new(tokens(bad), Spelling::ByteLevel).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn byte_names() {
        assert_eq!(byte_of_name("<0x0A>"), Some(10));
        for not in ["<0xA>", "<0x0AB>", "<0xZZ>", "0x0A", "<0x+1>"] {
            assert_eq!(byte_of_name(not), None, "{not}");
        }
    }
}
