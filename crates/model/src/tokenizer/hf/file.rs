//! `tokenizer.json` as far as this crate reads it itself, and the checks that come before the tokenizers crate sees
//! it: that crate panics on some files that are JSON but no sensible tokenizer.

use serde::Deserialize;
use serde_json::Value;

use super::super::error::TokenizerError;
use super::super::vocabulary::Spelling;

/// The parts of a `tokenizer.json`.
#[derive(Deserialize)]
pub(super) struct File {
    #[serde(default)]
    pub(super) added_tokens: Vec<AddedToken>,
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    post_processor: Value,
    #[serde(default)]
    decoder: Value,
    model: Value,
}

/// A token beside the model's vocabulary.
#[derive(Deserialize)]
pub(super) struct AddedToken {
    pub(super) id: u32,
    pub(super) content: String,
    #[serde(default)]
    pub(super) special: bool,
}

fn refuse<T>(what: impl Into<String>) -> Result<T, TokenizerError> {
    Err(TokenizerError::TokenizerJson(what.into()))
}

impl File {
    /// Reads `json` and refuses what the tokenizers crate is not to be trusted with.
    ///
    /// # Errors
    /// Bytes that are not JSON, a part of another type, a model or normalizer that is not supported.
    pub(super) fn read(json: &[u8]) -> Result<Self, TokenizerError> {
        let file: Self = serde_json::from_slice(json).or_else(|error| refuse(error.to_string()))?;
        file.check_model()?;
        if has_type(&file.normalizer, "Precompiled") {
            return refuse("normalizer Precompiled is not supported");
        }
        Ok(file)
    }

    fn check_model(&self) -> Result<(), TokenizerError> {
        // Old files give no type and mean BPE.
        if let Some(kind) = self.model.get("type").filter(|kind| *kind != "BPE") {
            return refuse(format!("model {kind} is not supported (supported: BPE)"));
        }
        let prefix = self.model.get("continuing_subword_prefix").and_then(Value::as_str);
        if prefix.is_some_and(|prefix| !prefix.is_empty()) {
            return refuse("continuing_subword_prefix is not supported");
        }
        let Some(vocab) = self.model.get("vocab").and_then(Value::as_object) else {
            return refuse("the model has no vocab");
        };
        let longest = vocab.keys().map(String::len).max().unwrap_or(0);
        let merges = self.model.get("merges").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        for (rank, merge) in merges.iter().enumerate() {
            if merged_length(merge) > longest {
                let problem = format!("its result is longer than any token ({longest} bytes)");
                return Err(TokenizerError::BadMerge { rank, merge: merge.to_string(), problem });
            }
        }
        Ok(())
    }

    /// The ids that the post-processor puts before and after a text.
    ///
    /// # Errors
    /// A post-processor of an unknown kind, or a template that names a token it does not define.
    pub(super) fn surround(&self) -> Result<(Vec<u32>, Vec<u32>), TokenizerError> {
        let mut around = (Vec::new(), Vec::new());
        for step in steps(&self.post_processor, "processors") {
            let (before, after) = match kind(step) {
                "ByteLevel" => continue,
                "TemplateProcessing" => template(step)?,
                "BertProcessing" | "RobertaProcessing" => {
                    (vec![pair_id(step, "cls")?], vec![pair_id(step, "sep")?])
                }
                _ => return refuse(format!("post-processor {} is not supported", shortened(step))),
            };
            around.0.splice(0..0, before);
            around.1.extend(after);
        }
        Ok(around)
    }

    /// What the file's decoder amounts to.
    ///
    /// # Errors
    /// A decoder that does more than spell bytes or spaces.
    pub(super) fn decoder(&self) -> Result<Decoder, TokenizerError> {
        let mut result =
            Decoder { spelling: Spelling::SentencePiece, byte_fallback: false, strips_space: false };
        let steps = steps(&self.decoder, "decoders");
        if steps.is_empty() {
            return Err(TokenizerError::UnsupportedDecoder { found: "none".to_string() });
        }
        for step in steps {
            result.read_step(step)?;
        }
        if result.spelling == Spelling::ByteLevel && (result.byte_fallback || result.strips_space) {
            return Err(TokenizerError::UnsupportedDecoder {
                found: "ByteLevel together with others".to_string(),
            });
        }
        Ok(result)
    }
}

/// What decoding does to the text of tokens.
pub(super) struct Decoder {
    pub(super) spelling: Spelling,
    pub(super) byte_fallback: bool,
    /// Whether a space at the very beginning is left out.
    pub(super) strips_space: bool,
}

impl Decoder {
    fn read_step(&mut self, step: &Value) -> Result<(), TokenizerError> {
        let text = |key: &str| step.get(key).and_then(Value::as_str);
        let number = |key: &str| step.get(key).and_then(Value::as_u64);
        let marks = step.pointer("/pattern/String").and_then(Value::as_str) == Some("▁");
        let one_space = text("content") == Some(" ");
        match kind(step) {
            "ByteLevel" => self.spelling = Spelling::ByteLevel,
            "ByteFallback" => self.byte_fallback = true,
            "Fuse" => {}
            "Replace" if marks && one_space => {}
            "Strip" if one_space && number("start") == Some(1) && number("stop") == Some(0) => {
                self.strips_space = true
            }
            "Metaspace" if text("replacement") == Some("▁") => {
                // Files before `prepend_scheme` say `add_prefix_space`, and without either a space was added.
                let scheme = text("prepend_scheme").map(|scheme| scheme != "never");
                let old = step.get("add_prefix_space").and_then(Value::as_bool);
                self.strips_space |= scheme.or(old).unwrap_or(true);
            }
            _ => return Err(TokenizerError::UnsupportedDecoder { found: shortened(step) }),
        }
        Ok(())
    }
}

/// A part of the file, or if it is a sequence the parts of that under `key`; none for null.
fn steps<'v>(part: &'v Value, key: &str) -> Vec<&'v Value> {
    match part.get(key).and_then(Value::as_array) {
        Some(steps) if kind(part) == "Sequence" => steps.iter().collect(),
        _ if part.is_null() => Vec::new(),
        _ => vec![part],
    }
}

fn kind(part: &Value) -> &str {
    part.get("type").and_then(Value::as_str).unwrap_or_default()
}

fn shortened(part: &Value) -> String {
    part.to_string().chars().take(80).collect()
}

/// `"single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}]` with `"special_tokens": {"<s>": {"ids": [1]}}`.
fn template(step: &Value) -> Result<(Vec<u32>, Vec<u32>), TokenizerError> {
    let Some(pieces) = step.get("single").and_then(Value::as_array) else {
        return refuse("the template of the post-processor has no single");
    };
    let (mut before, mut after, mut past_text) = (Vec::new(), Vec::new(), false);
    for piece in pieces {
        if piece.get("Sequence").is_some() && !past_text {
            past_text = true;
            continue;
        }
        let name = piece.pointer("/SpecialToken/id").and_then(Value::as_str);
        let token = name.and_then(|name| step.get("special_tokens")?.get(name)?.get("ids")?.as_array());
        let Some(ids) = token.and_then(|ids| ids.iter().map(id).collect::<Option<Vec<u32>>>()) else {
            return refuse(format!(
                "the template of the post-processor does not define {}",
                shortened(piece)
            ));
        };
        if past_text { after.extend(ids) } else { before.extend(ids) }
    }
    if past_text {
        Ok((before, after))
    } else {
        refuse("the template of the post-processor leaves out the text")
    }
}

/// The id of `"cls": ["<s>", 0]`.
fn pair_id(step: &Value, key: &str) -> Result<u32, TokenizerError> {
    let found = step.get(key).and_then(|pair| pair.get(1)).and_then(id);
    found.map_or_else(|| refuse(format!("the post-processor has no {key}")), Ok)
}

fn id(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|id| u32::try_from(id).ok())
}

/// Bytes that `"left right"` or `["left", "right"]` makes.
fn merged_length(merge: &Value) -> usize {
    match merge {
        Value::String(pair) => pair.len().saturating_sub(1),
        Value::Array(pair) => pair.iter().filter_map(Value::as_str).map(str::len).sum(),
        _ => 0,
    }
}

/// Whether an object of this `type` stands anywhere in `value`.
fn has_type(value: &Value, wanted: &str) -> bool {
    match value {
        Value::Object(map) => kind(value) == wanted || map.values().any(|value| has_type(value, wanted)),
        Value::Array(list) => list.iter().any(|value| has_type(value, wanted)),
        _ => false,
    }
}
