//! What can be wrong with a tokenizer's files, and with what it is asked.

use std::path::PathBuf;

/// Why a tokenizer could not be read, or could not encode or decode.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// A file of the tokenizer could not be read.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A folder has no `tokenizer.json`.
    #[error("{folder} has no tokenizer.json{hint}")]
    Missing {
        /// The folder that was looked into.
        folder: PathBuf,
        /// What was found in its place and what to do, or empty.
        hint: &'static str,
    },
    /// `tokenizer.json` is not JSON, or not a tokenizer.
    #[error("tokenizer.json: {0}")]
    TokenizerJson(String),
    /// `tokenizer_config.json` (or `special_tokens_map.json`) is not what it should be.
    #[error("tokenizer_config.json: {0}")]
    TokenizerConfig(String),
    /// A decoder step that would change the text in a way this tokenizer does not know.
    #[error(
        "tokenizer.json: decoder {found} is not supported (supported: ByteLevel; Replace ▁, ByteFallback, Fuse, \
         Strip of one space, Metaspace)"
    )]
    UnsupportedDecoder {
        /// The decoder's `type`, or `none`.
        found: String,
    },
    /// A GGUF metadata key has a value of the wrong type.
    #[error(transparent)]
    Metadata(#[from] roofline_weights::WeightsError),
    /// A GGUF metadata key is absent.
    #[error("GGUF metadata has no {key}; the file carries no usable tokenizer")]
    MissingKey {
        /// The key.
        key: &'static str,
    },
    /// A GGUF metadata key has an impossible value.
    #[error("GGUF metadata {key}: {problem}")]
    BadKey {
        /// The key.
        key: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// `tokenizer.ggml.model` names a kind of tokenizer that is not implemented.
    #[error("GGUF tokenizer model {found:?} is not supported (supported: gpt2, llama)")]
    UnsupportedModel {
        /// The value of the key.
        found: String,
    },
    /// `tokenizer.ggml.pre` names a pre-tokenizer that is not implemented.
    #[error("GGUF pre-tokenizer {found:?} is not supported (supported: {supported})")]
    UnsupportedPreTokenizer {
        /// The value of the key.
        found: String,
        /// Every name that is.
        supported: String,
    },
    /// Two arrays that describe the same tokens differ in length.
    #[error("GGUF metadata {key} has {found} entries, tokenizer.ggml.tokens has {expected}")]
    LengthMismatch {
        /// The shorter or longer array.
        key: &'static str,
        /// Its length.
        found: usize,
        /// Number of tokens.
        expected: usize,
    },
    /// One text at two ids, or two texts at one id.
    #[error("the vocabulary has a conflict: {what}")]
    DuplicateToken {
        /// Both sides of the conflict.
        what: String,
    },
    /// An id so large that the table of tokens could not be sensible.
    #[error("token {text:?} has id {id}; ids above {limit} are refused")]
    IdTooLarge {
        /// The token.
        text: String,
        /// Its id.
        id: u32,
        /// The largest id accepted.
        limit: u32,
    },
    /// A merge names a token that the vocabulary lacks.
    #[error("merge {rank} ({merge:?}): {problem}")]
    BadMerge {
        /// Position in the list of merges, 0 = first.
        rank: usize,
        /// The merge as written.
        merge: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A special token is named but is not in the vocabulary.
    #[error("{role} names {token}, which the vocabulary of {vocab_size} ids does not have")]
    UnknownSpecial {
        /// `bos_token`, `tokenizer.ggml.eos_token_id`, …
        role: &'static str,
        /// The text or id that was named.
        token: String,
        /// Number of ids in the vocabulary.
        vocab_size: usize,
    },
    /// A byte of the text has no token and there is no unknown token either.
    #[error("byte 0x{byte:02X} of the text has no token in this vocabulary, and there is no unknown token")]
    NoTokenForByte {
        /// The byte.
        byte: u8,
    },
    /// The text is longer than the tokenizer's 32-bit positions.
    #[error("text of {bytes} bytes is too long to tokenize at once (limit {limit})")]
    TextTooLong {
        /// Length of the text.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The tokenizers library refused the text.
    #[error("the text could not be tokenized: {0}")]
    Encode(String),
    /// An id that the vocabulary does not have.
    #[error("token id {id} is not in the vocabulary of {vocab_size} ids")]
    UnknownId {
        /// The id.
        id: u32,
        /// Number of ids in the vocabulary.
        vocab_size: usize,
    },
}
