//! A tokenizer from `tokenizer.json`, encoded by the tokenizers crate, with the roles that `tokenizer_config.json`
//! gives to its tokens.

use std::path::Path;
use std::sync::OnceLock;

use serde::Deserialize;
use serde_json::Value;
use tokenizers::models::ModelWrapper;

use super::error::TokenizerError;
use super::stop;
use super::vocabulary::{Spelling, TokenKind, Vocabulary, byte_of_name};
use super::{Encoder, Tokenizer};

/// The crate's tokenizer, and its twin that takes the names of control tokens for text.
pub(super) struct HfEncoder {
    parsing: tokenizers::Tokenizer,
    /// Made when first asked for: the switch is a field of the crate's tokenizer, and a copy costs a vocabulary.
    literal: OnceLock<tokenizers::Tokenizer>,
}

impl HfEncoder {
    pub(super) fn encode(&self, text: &str, add: bool, parse: bool) -> Result<Vec<u32>, TokenizerError> {
        let tokenizer = if parse { &self.parsing } else { self.literal() };
        let encoding = tokenizer.encode_fast(text, add).map_err(|e| TokenizerError::Encode(e.to_string()))?;
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
    /// Bytes that are not such files; a decoder other than byte-level and SentencePiece-like ones; contradictions in
    /// the vocabulary.
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
    let mut parsing = tokenizers::Tokenizer::from_bytes(json).map_err(file_error)?;
    parsing.with_truncation(None).map_err(|error| TokenizerError::TokenizerJson(error.to_string()))?;
    parsing.with_padding(None);
    ids_as_written(json, &parsing)?;

    let decoder = Decoder::of(&parsing)?;
    let vocabulary = Vocabulary::new(tokens(&parsing, decoder.byte_fallback), decoder.spelling)?;
    let roles = Roles::read(config, map, &vocabulary)?;
    let kind = format!("{} (tokenizer.json)", describe(&parsing, &decoder));
    let stop_ids = stop::ids(&vocabulary, [roles.eos]);
    let encoder = Encoder::Hf(Box::new(HfEncoder { parsing, literal: OnceLock::new() }));
    Ok(Tokenizer {
        vocabulary,
        encoder,
        kind,
        bos: roles.bos,
        eos: roles.eos,
        stop_ids,
        add_bos: roles.add_bos,
        add_eos: false,
        leading_space: decoder.strips_space,
    })
}

fn file_error(error: impl ToString) -> TokenizerError {
    TokenizerError::TokenizerJson(error.to_string())
}

/// The crate numbers added tokens itself; a file whose own numbers differ would feed the model other rows than
/// those it was trained with.
fn ids_as_written(json: &[u8], parsing: &tokenizers::Tokenizer) -> Result<(), TokenizerError> {
    #[derive(Deserialize)]
    struct File {
        #[serde(default)]
        added_tokens: Vec<Added>,
    }
    #[derive(Deserialize)]
    struct Added {
        id: u32,
        content: String,
    }
    let file: File = serde_json::from_slice(json).map_err(file_error)?;
    for token in file.added_tokens.iter().filter(|token| !token.content.is_empty()) {
        let given = parsing.token_to_id(&token.content);
        if given != Some(token.id) {
            let what = format!(
                "added token {:?} is written as id {}, its place in the vocabulary is {given:?}",
                token.content, token.id
            );
            return Err(TokenizerError::DuplicateToken { what });
        }
    }
    Ok(())
}

fn tokens(parsing: &tokenizers::Tokenizer, byte_fallback: bool) -> Vec<(u32, String, TokenKind)> {
    let added = parsing.get_added_tokens_decoder();
    let kind = |id: u32, text: &str| match added.get(&id) {
        Some(token) if token.special => TokenKind::Control,
        Some(_) => TokenKind::UserDefined,
        None if byte_fallback && byte_of_name(text).is_some() => TokenKind::Byte,
        None => TokenKind::Normal,
    };
    let mut tokens: Vec<_> = parsing
        .get_vocab(true)
        .into_iter()
        .map(|(text, id)| {
            let kind = kind(id, &text);
            (id, text, kind)
        })
        .collect();
    // The map's order is random; an error about a conflict should be the same every time.
    tokens.sort_unstable_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    tokens
}

fn describe(parsing: &tokenizers::Tokenizer, decoder: &Decoder) -> String {
    match (parsing.get_model(), decoder.spelling) {
        (ModelWrapper::BPE(_), Spelling::ByteLevel) => "byte-level BPE".to_string(),
        (ModelWrapper::BPE(_), Spelling::SentencePiece) => "SentencePiece BPE".to_string(),
        (ModelWrapper::Unigram(_), _) => "SentencePiece unigram".to_string(),
        (ModelWrapper::WordPiece(_), _) => "WordPiece".to_string(),
        (ModelWrapper::WordLevel(_), _) => "word level".to_string(),
    }
}

/// What the file's decoder amounts to.
struct Decoder {
    spelling: Spelling,
    byte_fallback: bool,
    strips_space: bool,
}

impl Decoder {
    fn of(parsing: &tokenizers::Tokenizer) -> Result<Self, TokenizerError> {
        let Some(decoder) = parsing.get_decoder() else {
            return Err(TokenizerError::UnsupportedDecoder { found: "none".to_string() });
        };
        let value = serde_json::to_value(decoder).map_err(file_error)?;
        let steps = match value.get("decoders").and_then(Value::as_array) {
            Some(steps) => steps.clone(),
            None => vec![value],
        };
        let mut result =
            Self { spelling: Spelling::SentencePiece, byte_fallback: false, strips_space: false };
        for step in &steps {
            result.read_step(step)?;
        }
        if result.spelling == Spelling::ByteLevel && (result.byte_fallback || result.strips_space) {
            return Err(TokenizerError::UnsupportedDecoder {
                found: "ByteLevel together with others".to_string(),
            });
        }
        Ok(result)
    }

    fn read_step(&mut self, step: &Value) -> Result<(), TokenizerError> {
        let text = |key: &str| step.get(key).and_then(Value::as_str);
        let number = |key: &str| step.get(key).and_then(Value::as_u64);
        let metaspace = text("replacement") == Some("▁");
        let spaces = step.pointer("/pattern/String").and_then(Value::as_str) == Some("▁")
            && text("content") == Some(" ");
        let one_space = text("content") == Some(" ") && number("stop") == Some(0);
        match text("type").unwrap_or_default() {
            "ByteLevel" => self.spelling = Spelling::ByteLevel,
            "ByteFallback" => self.byte_fallback = true,
            "Fuse" => {}
            "Replace" if spaces => {}
            "Strip" if one_space && number("start") == Some(1) => self.strips_space = true,
            "Strip" if one_space && number("start") == Some(0) => {}
            "Metaspace" if metaspace => self.strips_space |= text("prepend_scheme") != Some("never"),
            _ => return Err(TokenizerError::UnsupportedDecoder { found: step.to_string() }),
        }
        Ok(())
    }
}

/// Which tokens begin and end a text.
struct Roles {
    bos: Option<u32>,
    eos: Option<u32>,
    add_bos: Option<bool>,
}

impl Roles {
    fn read(
        config: Option<&[u8]>,
        map: Option<&[u8]>,
        vocabulary: &Vocabulary,
    ) -> Result<Self, TokenizerError> {
        let config = object("tokenizer_config.json", config)?;
        let map = object("special_tokens_map.json", map)?;
        let role = |key: &'static str| -> Result<Option<u32>, TokenizerError> {
            // The config's word counts, also where it says null; the older map speaks where the config is silent.
            let Some(value) = config.get(key).or_else(|| map.get(key)) else { return Ok(None) };
            let Some(text) = token_text(key, value)? else { return Ok(None) };
            vocabulary.id(text).map(Some).ok_or_else(|| TokenizerError::UnknownSpecial {
                role: key,
                token: format!("{text:?}"),
                vocab_size: vocabulary.len(),
            })
        };
        let add_bos = match config.get("add_bos_token") {
            None | Some(Value::Null) => None,
            Some(Value::Bool(add)) => Some(*add),
            Some(other) => {
                return Err(TokenizerError::TokenizerConfig(format!("add_bos_token is {other}, not a bool")));
            }
        };
        Ok(Self { bos: role("bos_token")?, eos: role("eos_token")?, add_bos })
    }
}

fn object(file: &str, bytes: Option<&[u8]>) -> Result<serde_json::Map<String, Value>, TokenizerError> {
    let Some(bytes) = bytes else { return Ok(serde_json::Map::new()) };
    serde_json::from_slice(bytes).map_err(|error| TokenizerError::TokenizerConfig(format!("{file}: {error}")))
}

/// A special token is written as its text or as an object with `content`.
fn token_text<'v>(key: &str, value: &'v Value) -> Result<Option<&'v str>, TokenizerError> {
    let content = value.get("content").unwrap_or(value);
    match content {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text)),
        other => Err(TokenizerError::TokenizerConfig(format!("{key} is {other}, not a token"))),
    }
}
