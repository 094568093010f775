//! Which tokens begin and end a text: `tokenizer_config.json`, and where it is silent `special_tokens_map.json`.

use serde_json::{Map, Value};

use super::super::error::TokenizerError;
use super::super::vocabulary::Vocabulary;

/// Roles by id.
pub(super) struct Roles {
    pub(super) bos: Option<u32>,
    pub(super) eos: Option<u32>,
    /// What the config says about adding them; it counts before the post-processor of `tokenizer.json`.
    add_bos: Option<bool>,
    add_eos: Option<bool>,
}

impl Roles {
    /// # Errors
    /// Bytes that are not a JSON object, a value of another type, a token that the vocabulary lacks.
    pub(super) fn read(
        config: Option<&[u8]>,
        map: Option<&[u8]>,
        vocabulary: &Vocabulary,
    ) -> Result<Self, TokenizerError> {
        let config = object("tokenizer_config.json", config)?;
        let map = object("special_tokens_map.json", map)?;
        let role = |key: &'static str| -> Result<Option<u32>, TokenizerError> {
            // The config's word counts, also where it says null.
            let Some(value) = config.get(key).or_else(|| map.get(key)) else { return Ok(None) };
            let Some(text) = token_text(key, value)? else { return Ok(None) };
            vocabulary.id(text).map(Some).ok_or_else(|| TokenizerError::UnknownSpecial {
                role: key,
                token: format!("{text:?}"),
                vocab_size: vocabulary.len(),
            })
        };
        Ok(Self {
            bos: role("bos_token")?,
            eos: role("eos_token")?,
            add_bos: flag(&config, "add_bos_token")?,
            add_eos: flag(&config, "add_eos_token")?,
        })
    }

    /// What stands around a text: the post-processor's ids, with BOS and EOS added or left out as the config says.
    pub(super) fn surround(&self, (mut prefix, mut suffix): (Vec<u32>, Vec<u32>)) -> (Vec<u32>, Vec<u32>) {
        if let (Some(bos), Some(add)) = (self.bos, self.add_bos) {
            prefix.retain(|id| *id != bos);
            prefix.splice(0..0, add.then_some(bos));
        }
        if let (Some(eos), Some(add)) = (self.eos, self.add_eos) {
            suffix.retain(|id| *id != eos);
            suffix.extend(add.then_some(eos));
        }
        (prefix, suffix)
    }
}

fn flag(config: &Map<String, Value>, key: &str) -> Result<Option<bool>, TokenizerError> {
    match config.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(flag)) => Ok(Some(*flag)),
        Some(other) => Err(TokenizerError::TokenizerConfig(format!("{key} is {other}, not true or false"))),
    }
}

fn object(file: &str, bytes: Option<&[u8]>) -> Result<Map<String, Value>, TokenizerError> {
    let Some(bytes) = bytes else { return Ok(Map::new()) };
    serde_json::from_slice(bytes).map_err(|error| TokenizerError::TokenizerConfig(format!("{file}: {error}")))
}

/// A special token is written as its text or as an object with `content`.
fn token_text<'v>(key: &str, value: &'v Value) -> Result<Option<&'v str>, TokenizerError> {
    match value.get("content").unwrap_or(value) {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text)),
        other => Err(TokenizerError::TokenizerConfig(format!("{key} is {other}, not a token"))),
    }
}
