//! A byte-level BPE tokenizer as GGUF's `tokenizer.ggml.*` keys hold it, read from the files of a Hugging Face folder.

use std::path::Path;

use roofline_model::config::ModelConfig;
use roofline_weights::gguf::{Array, Metadata, Value as GgufValue};
use serde_json::Value;

use super::error::ConvertError;

const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;

/// Rules that cut text, by the regular expression in tokenizer.json, and the name GGUF knows them by. The expression that
/// `ByteLevel` itself applies is GPT-2's.
const SPLITS: [(&str, &str); 2] = [
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        "llama-bpe",
    ),
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        "qwen2",
    ),
];

/// What the keys say.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Vocabulary {
    pub tokens: Vec<String>, // (vocab_size)
    pub types: Vec<i32>,     // (vocab_size)
    pub merges: Vec<String>,
    pub pre: String,
    pub bos: Option<u32>,
    /// The first ends a text, the second a turn, the third a message.
    pub ends: Vec<u32>,
    pub add_bos: Option<bool>,
    pub add_eos: Option<bool>,
    /// Suffix of the key and template; the usual one has none.
    pub templates: Vec<(String, String)>,
    pub notes: Vec<String>,
}

impl Vocabulary {
    /// Sets the keys.
    pub fn write(&self, metadata: &mut Metadata) {
        let text = |text: &str| GgufValue::Str(text.to_owned());
        metadata.set("tokenizer.ggml.model", text("gpt2"));
        metadata.set("tokenizer.ggml.pre", text(&self.pre));
        metadata.set("tokenizer.ggml.tokens", GgufValue::Array(Array::Str(self.tokens.iter().collect())));
        metadata.set("tokenizer.ggml.token_type", GgufValue::Array(Array::I32(self.types.clone())));
        metadata.set("tokenizer.ggml.merges", GgufValue::Array(Array::Str(self.merges.iter().collect())));
        let ids = [("bos", self.bos)]
            .into_iter()
            .chain(["eos", "eot", "eom"].into_iter().zip(self.ends.iter().map(|id| Some(*id))));
        for (role, id) in ids {
            if let Some(id) = id {
                metadata.set(format!("tokenizer.ggml.{role}_token_id"), GgufValue::U32(id));
            }
        }
        for (role, add) in [("bos", self.add_bos), ("eos", self.add_eos)] {
            if let Some(add) = add {
                metadata.set(format!("tokenizer.ggml.add_{role}_token"), GgufValue::Bool(add));
            }
        }
        for (suffix, template) in &self.templates {
            metadata.set(format!("tokenizer.chat_template{suffix}"), text(template));
        }
    }
}

/// Reads a folder's tokenizer; `None` when it has none at all.
pub(super) fn read(folder: &Path, config: &ModelConfig) -> Result<Option<Vocabulary>, ConvertError> {
    let Some(json) = object(folder, "tokenizer.json")? else {
        let model = folder.join("tokenizer.model");
        if model.exists() {
            return Err(refused(&model, "SentencePiece", "byte-level BPE in a tokenizer.json can be"));
        }
        return Ok(None);
    };
    let file = folder.join("tokenizer.json");
    let settings = object(folder, "tokenizer_config.json")?.unwrap_or(Value::Null);
    let generation = object(folder, "generation_config.json")?.unwrap_or(Value::Null);
    let mut vocabulary = Vocabulary { pre: pre_tokenizer(&file, &json)?, ..Vocabulary::default() };
    refuse_foreign_model(&file, &json)?;
    vocabulary.read_tokens(&file, &json, config.vocab_size)?;
    vocabulary.read_merges(&file, &json)?;
    vocabulary.read_roles(&file, config, &settings, &generation)?;
    vocabulary.read_wrapping(&json, &settings);
    vocabulary.read_templates(folder, &settings)?;
    if json.pointer("/model/ignore_merges") == Some(&Value::Bool(true)) && vocabulary.pre != "llama-bpe" {
        vocabulary.notes.push("ignore_merges of tokenizer.json is not recorded by GGUF".to_owned());
    }
    if json.get("normalizer").is_some_and(|normalizer| !normalizer.is_null()) {
        vocabulary.notes.push("GGUF does not record the tokenizer's NFC normalizer".to_owned());
    }
    Ok(Some(vocabulary))
}

fn object(folder: &Path, name: &str) -> Result<Option<Value>, ConvertError> {
    let path = folder.join(name);
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(ConvertError::File { action: "read", path, source }),
    };
    match serde_json::from_slice(&text) {
        Ok(value @ Value::Object(_)) => Ok(Some(value)),
        Ok(_) => Err(wrong(&path, "not a JSON object")),
        Err(error) => Err(wrong(&path, format!("not a JSON object: {error}"))),
    }
}

fn wrong(file: &Path, why: impl Into<String>) -> ConvertError {
    ConvertError::Tokenizer { file: file.display().to_string(), why: why.into() }
}

fn refused(file: &Path, what: impl Into<String>, why: impl Into<String>) -> ConvertError {
    ConvertError::NotExpressible { file: file.display().to_string(), what: what.into(), why: why.into() }
}

fn kind(value: &Value) -> &str {
    value.get("type").and_then(Value::as_str).unwrap_or_default()
}

/// The steps of a `Sequence`, or the one step there is.
fn steps<'v>(value: Option<&'v Value>, list: &str) -> Vec<&'v Value> {
    match value {
        None | Some(Value::Null) => Vec::new(),
        Some(value) => match value.get(list).and_then(Value::as_array) {
            Some(steps) => steps.iter().collect(),
            None => vec![value],
        },
    }
}

/// The GGUF name of the rules that cut text before merging.
fn pre_tokenizer(file: &Path, json: &Value) -> Result<String, ConvertError> {
    let steps = steps(json.get("pre_tokenizer"), "pretokenizers");
    let flag = |step: &Value, key: &str, default| step.get(key).and_then(Value::as_bool).unwrap_or(default);
    let Some((last, before)) = steps.split_last().filter(|(last, _)| kind(last) == "ByteLevel") else {
        let found: Vec<&str> = steps.iter().map(|step| kind(step)).collect();
        return Err(refused(file, format!("pre_tokenizer {found:?}"), "only byte-level BPE can be"));
    };
    if flag(last, "add_prefix_space", true) {
        return Err(refused(file, "add_prefix_space", "GGUF's byte-level BPE adds no space"));
    }
    let own = flag(last, "use_regex", true);
    match before {
        [] if own => Ok("gpt-2".to_owned()),
        [digits] if own && kind(digits) == "Digits" && flag(digits, "individual_digits", false) => {
            Ok("smollm".to_owned())
        }
        [split] if !own && kind(split) == "Split" && !flag(split, "invert", false) => {
            let isolated = split.get("behavior").and_then(Value::as_str) == Some("Isolated");
            let expression = split.pointer("/pattern/Regex").and_then(Value::as_str).unwrap_or_default();
            match SPLITS.iter().find(|(known, _)| isolated && *known == expression) {
                Some((_, name)) => Ok((*name).to_owned()),
                None => Err(refused(file, format!("pre_tokenizer {split}"), "GGUF names no such rules")),
            }
        }
        _ => {
            let found = json.get("pre_tokenizer").map(Value::to_string).unwrap_or_default();
            Err(refused(file, format!("pre_tokenizer {found}"), "GGUF names no such rules"))
        }
    }
}

fn refuse_foreign_model(file: &Path, json: &Value) -> Result<(), ConvertError> {
    let model = json.get("model").unwrap_or(&Value::Null);
    if !matches!(kind(model), "BPE" | "") || model.get("byte_fallback") == Some(&Value::Bool(true)) {
        let what = format!("a tokenizer of type {:?}", kind(model));
        return Err(refused(file, what, "only byte-level BPE without fallback can be"));
    }
    for normalizer in steps(json.get("normalizer"), "normalizers") {
        if kind(normalizer) != "NFC" {
            return Err(refused(
                file,
                format!("normalizer {normalizer}"),
                "GGUF's byte-level BPE does not normalise",
            ));
        }
    }
    Ok(())
}

impl Vocabulary {
    /// Tokens by id up to `size`, ids without a token named `[PAD…]` and unused as the converter of llama.cpp has them.
    fn read_tokens(&mut self, file: &Path, json: &Value, size: usize) -> Result<(), ConvertError> {
        let mut slots: Vec<Option<(String, i32)>> = vec![None; size];
        let mut put = |token: &str, id: Option<u64>, kind: i32| -> Result<(), ConvertError> {
            let id = id.ok_or_else(|| wrong(file, format!("the id of token {token:?} is no number")))?;
            let slot = usize::try_from(id).ok().and_then(|id| slots.get_mut(id)).ok_or_else(|| {
                wrong(file, format!("token {token:?} has id {id}, beyond the embedding table's {size} rows"))
            })?;
            *slot = Some((token.to_owned(), kind));
            Ok(())
        };
        let vocab = json.pointer("/model/vocab").and_then(Value::as_object);
        for (token, id) in vocab.ok_or_else(|| wrong(file, "model.vocab is not an object"))? {
            put(token, id.as_u64(), NORMAL)?;
        }
        for added in json.get("added_tokens").and_then(Value::as_array).into_iter().flatten() {
            let token = added.get("content").and_then(Value::as_str);
            let token = token.ok_or_else(|| wrong(file, format!("added token {added} has no content")))?;
            let special = added.get("special") == Some(&Value::Bool(true));
            put(
                token,
                added.get("id").and_then(Value::as_u64),
                if special { CONTROL } else { USER_DEFINED },
            )?;
        }
        let filled =
            slots.into_iter().enumerate().map(|(id, slot)| slot.unwrap_or((format!("[PAD{id}]"), UNUSED)));
        (self.tokens, self.types) = filled.unzip();
        Ok(())
    }

    /// Merges in either spelling: `"a b"` or `["a", "b"]`.
    fn read_merges(&mut self, file: &Path, json: &Value) -> Result<(), ConvertError> {
        let merges = json.pointer("/model/merges").and_then(Value::as_array);
        for merge in merges.ok_or_else(|| wrong(file, "model.merges is not a list"))? {
            let pair: Option<Vec<&str>> = match merge {
                Value::String(text) => Some(text.split(' ').collect()),
                Value::Array(pair) => pair.iter().map(Value::as_str).collect(),
                _ => None,
            };
            match pair.as_deref() {
                Some([left, right]) if !left.contains(' ') && !right.contains(' ') => {
                    self.merges.push(format!("{left} {right}"));
                }
                _ => {
                    return Err(wrong(file, format!("merge {merge} is not a pair of tokens without spaces")));
                }
            }
        }
        Ok(())
    }

    /// Which tokens begin and end: tokenizer_config.json first, then config.json and generation_config.json.
    fn read_roles(
        &mut self,
        file: &Path,
        config: &ModelConfig,
        settings: &Value,
        generation: &Value,
    ) -> Result<(), ConvertError> {
        let named = |key: &str| -> Result<Option<u32>, ConvertError> {
            let value = settings.get(key).unwrap_or(&Value::Null);
            let Some(text) = value.get("content").unwrap_or(value).as_str() else { return Ok(None) };
            let at = self.tokens.iter().position(|token| token == text);
            let at = at.ok_or_else(|| wrong(file, format!("{key} {text:?} is not in the vocabulary")))?;
            Ok(u32::try_from(at).ok())
        };
        let mut ends: Vec<u32> = named("eos_token")?.into_iter().collect();
        let generated = match generation.get("eos_token_id") {
            Some(Value::Array(ids)) => ids.iter().filter_map(Value::as_u64).collect(),
            Some(id) => id.as_u64().into_iter().collect(),
            None => Vec::new(),
        };
        let generated = generated.into_iter().filter_map(|id| u32::try_from(id).ok());
        for id in config.eos_token_ids.iter().copied().chain(generated) {
            if !ends.contains(&id) {
                ends.push(id);
            }
        }
        self.bos = named("bos_token")?.or(config.bos_token_id);
        self.ends = ends;
        if let Some(ids) = self.ends.get(3..).filter(|ids| !ids.is_empty()) {
            self.notes.push(format!("GGUF has places for three end tokens; {ids:?} are left out"));
            self.ends.truncate(3);
        }
        let all = self.bos.iter().chain(&self.ends);
        match all.copied().find(|id| *id as usize >= self.tokens.len()) {
            Some(id) => {
                Err(wrong(file, format!("token {id} begins or ends a text and is not in the vocabulary")))
            }
            None => Ok(()),
        }
    }

    /// Whether BOS and EOS are put around a text: tokenizer_config.json says so, or the post-processor does it.
    fn read_wrapping(&mut self, json: &Value, settings: &Value) {
        let template = steps(json.get("post_processor"), "processors")
            .into_iter()
            .find(|step| kind(step) == "TemplateProcessing")
            .and_then(|step| step.get("single"))
            .and_then(Value::as_array);
        let is = |piece: Option<&Value>, id: Option<u32>| {
            let name = piece.and_then(|piece| piece.pointer("/SpecialToken/id")).and_then(Value::as_str);
            name.is_some() && name == id.and_then(|id| self.tokens.get(id as usize)).map(String::as_str)
        };
        let said = |key: &str| settings.get(key).and_then(Value::as_bool);
        let first = template.map(|pieces| is(pieces.first(), self.bos));
        let last = template.map(|pieces| is(pieces.last(), self.ends.first().copied()));
        let (add_bos, add_eos) = (said("add_bos_token").or(first), said("add_eos_token").or(last));
        self.add_bos = add_bos;
        self.add_eos = add_eos.filter(|add| *add || said("add_eos_token").is_some());
    }

    /// `chat_template` of tokenizer_config.json, one or a list of named ones, or chat_template.jinja.
    fn read_templates(&mut self, folder: &Path, settings: &Value) -> Result<(), ConvertError> {
        match settings.get("chat_template") {
            Some(Value::String(template)) => self.templates.push((String::new(), template.clone())),
            Some(Value::Array(named)) => {
                for one in named {
                    let text = |key: &str| one.get(key).and_then(Value::as_str).unwrap_or_default();
                    let suffix = match text("name") {
                        "default" => String::new(),
                        name => format!(".{name}"),
                    };
                    self.templates.push((suffix, text("template").to_owned()));
                }
            }
            _ => {}
        }
        let path = folder.join("chat_template.jinja");
        if self.templates.is_empty() && path.exists() {
            let text = std::fs::read_to_string(&path);
            let text = text.map_err(|source| ConvertError::File { action: "read", path, source })?;
            self.templates.push((String::new(), text));
        }
        Ok(())
    }
}
