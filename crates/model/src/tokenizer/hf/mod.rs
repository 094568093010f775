//! A tokenizer from `tokenizer.json`, encoded by the tokenizers crate, with the roles that `tokenizer_config.json`
//! gives to its tokens.

mod file;
mod roles;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::OnceLock;

use tokenizers::PostProcessorWrapper;

use super::error::TokenizerError;
use super::stop;
use super::vocabulary::{Spelling, TokenKind, Vocabulary, byte_of_name};
use super::{Encoder, Tokenizer};
use file::File;
use roles::Roles;

/// The crate's tokenizer, and its twin that takes the names of control tokens for text.
pub(super) struct HfEncoder {
    parsing: tokenizers::Tokenizer,
    /// Made when first asked for: the switch is a field of the crate's tokenizer, and a copy costs a vocabulary.
    literal: OnceLock<tokenizers::Tokenizer>,
}

impl HfEncoder {
    pub(super) fn encode(&self, text: &str, parse_special: bool) -> Result<Vec<u32>, TokenizerError> {
        let tokenizer = if parse_special { &self.parsing } else { self.literal() };
        let encoding = guarded(|| tokenizer.encode_fast(text, false)).map_err(TokenizerError::Encode)?;
        Ok(encoding.get_ids().to_vec())
    }

    fn literal(&self) -> &tokenizers::Tokenizer {
        self.literal.get_or_init(|| {
            let mut copy = self.parsing.clone();
            copy.set_encode_special_tokens(true);
            copy
        })
    }
}

/// Runs a part of the tokenizers crate and makes its panics errors. [`File::read`] keeps out the files that are known
/// to cause one; the crate has more places that trust a file.
fn guarded<T>(run: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    // What `run` borrows is dropped or left unchanged by the crate: it takes no `&mut` of anything kept.
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("the tokenizers library failed on this file".to_string()),
    }
}

impl Tokenizer {
    /// The tokenizer of a Hugging Face folder: `tokenizer.json`, and if they are there `tokenizer_config.json` and
    /// `special_tokens_map.json` for the roles of tokens.
    ///
    /// # Errors
    /// A file that cannot be read or is not what its name says; a folder without `tokenizer.json`.
    pub fn from_hf_dir(dir: impl AsRef<Path>) -> Result<Self, TokenizerError> {
        let dir = dir.as_ref();
        let Some(json) = read_optional(&dir.join("tokenizer.json"))? else {
            let hint = if dir.join("tokenizer.model").exists() {
                ", only a SentencePiece tokenizer.model; transformers writes tokenizer.json from it with \
                 AutoTokenizer.from_pretrained(…).save_pretrained(…)"
            } else {
                ""
            };
            return Err(TokenizerError::Missing { folder: dir.to_path_buf(), hint });
        };
        let config = read_optional(&dir.join("tokenizer_config.json"))?;
        let map = read_optional(&dir.join("special_tokens_map.json"))?;
        from_json(&json, config.as_deref(), map.as_deref())
    }

    /// The tokenizer that the bytes of a `tokenizer.json` describe, with the roles that a `tokenizer_config.json` gives.
    /// Truncation and padding that the file asks for are left out: a prompt is never shortened unsaid.
    ///
    /// # Errors
    /// Bytes that are not such files; a model other than BPE; a decoder other than byte-level and SentencePiece-like
    /// ones; contradictions in the vocabulary.
    pub fn from_tokenizer_json(json: &[u8], tokenizer_config: Option<&[u8]>) -> Result<Self, TokenizerError> {
        from_json(json, tokenizer_config, None)
    }
}

fn read_optional(path: &Path) -> Result<Option<Vec<u8>>, TokenizerError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(TokenizerError::Io { path: path.to_path_buf(), source }),
    }
}

fn from_json(json: &[u8], config: Option<&[u8]>, map: Option<&[u8]>) -> Result<Tokenizer, TokenizerError> {
    let file = File::read(json)?;
    let decoder = file.decoder()?;
    let surround = file.surround()?;
    let parsing = guarded(|| plain_tokenizer(json)).map_err(TokenizerError::TokenizerJson)?;
    ids_as_written(&file, &parsing)?;

    let vocabulary = Vocabulary::new(tokens(&file, &parsing, decoder.byte_fallback), decoder.spelling)?;
    let roles = Roles::read(config, map, &vocabulary)?;
    let (prefix, suffix) = roles.surround(surround);
    let kind = match decoder.spelling {
        Spelling::ByteLevel => "byte-level BPE (tokenizer.json)",
        Spelling::SentencePiece => "SentencePiece BPE (tokenizer.json)",
    };
    let stop_ids = stop::ids(&vocabulary, [roles.eos]);
    Ok(Tokenizer {
        vocabulary,
        encoder: Encoder::Hf(Box::new(HfEncoder { parsing, literal: OnceLock::new() })),
        kind: kind.to_string(),
        bos: roles.bos,
        eos: roles.eos,
        stop_ids,
        prefix,
        suffix,
        leading_space: decoder.strips_space,
    })
}

/// The crate's tokenizer without truncation, padding and post-processing.
fn plain_tokenizer(json: &[u8]) -> tokenizers::Result<tokenizers::Tokenizer> {
    let mut tokenizer = tokenizers::Tokenizer::from_bytes(json)?;
    tokenizer.with_post_processor(None::<PostProcessorWrapper>);
    tokenizer.with_padding(None);
    tokenizer.with_truncation(None)?;
    Ok(tokenizer)
}

/// The crate numbers added tokens itself; a file whose own numbers differ would feed the model other rows than
/// those it was trained with.
fn ids_as_written(file: &File, parsing: &tokenizers::Tokenizer) -> Result<(), TokenizerError> {
    for token in file.added_tokens.iter().filter(|token| !token.content.is_empty()) {
        let given = parsing.token_to_id(&token.content);
        if given != Some(token.id) {
            let given = given.map_or("none".to_string(), |id| id.to_string());
            let what = format!("added token {:?} has id {}, its place is {given}", token.content, token.id);
            return Err(TokenizerError::DuplicateToken { what });
        }
    }
    Ok(())
}

fn tokens(
    file: &File,
    parsing: &tokenizers::Tokenizer,
    byte_fallback: bool,
) -> Vec<(u32, String, TokenKind)> {
    let mut tokens: Vec<_> = parsing.get_vocab(true).into_iter().map(|(text, id)| (id, text)).collect();
    // The map's order is random; an error about a conflict should be the same every time.
    tokens.sort_unstable();
    let added: std::collections::HashMap<u32, bool> =
        file.added_tokens.iter().map(|token| (token.id, token.special)).collect();
    let kind = |id: u32, text: &str| match added.get(&id) {
        Some(true) => TokenKind::Control,
        Some(false) => TokenKind::UserDefined,
        None if byte_fallback && byte_of_name(text).is_some() => TokenKind::Byte,
        None => TokenKind::Normal,
    };
    tokens
        .into_iter()
        .map(|(id, text)| {
            let kind = kind(id, &text);
            (id, text, kind)
        })
        .collect()
}
