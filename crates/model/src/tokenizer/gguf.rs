//! A tokenizer from the `tokenizer.ggml.*` keys of a GGUF file.

use roofline_weights::gguf::{Metadata, Texts};

use super::byte_bpe::ByteBpe;
use super::error::TokenizerError;
use super::pieces::PreTokenizer;
use super::sentencepiece::SentencePiece;
use super::special::SpecialTokens;
use super::stop;
use super::vocabulary::{Spelling, TokenKind, Vocabulary, byte_of_name};
use super::{Encoder, Tokenizer};

/// What the `tokenizer.ggml.*` keys of a GGUF file say; a key that is absent is `None` or empty.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GgufFields {
    /// `general.architecture`; tells which rules a file without `pre` means.
    pub architecture: Option<String>,
    /// `tokenizer.ggml.model`: `gpt2` (byte-level BPE) or `llama` (SentencePiece).
    pub model: Option<String>,
    /// `tokenizer.ggml.pre`: the pre-tokenizer of byte-level BPE.
    pub pre: Option<String>,
    /// `tokenizer.ggml.tokens`: text of each token, by id.
    pub tokens: Vec<String>,
    /// `tokenizer.ggml.scores`, by id.
    pub scores: Option<Vec<f32>>,
    /// `tokenizer.ggml.token_type`, by id: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte.
    pub token_types: Option<Vec<i32>>,
    /// `tokenizer.ggml.merges`: `left right`, best first.
    pub merges: Option<Vec<String>>,
    /// `tokenizer.ggml.bos_token_id`.
    pub bos: Option<u64>,
    /// `tokenizer.ggml.eos_token_id`.
    pub eos: Option<u64>,
    /// `tokenizer.ggml.eot_token_id`, the end of a turn.
    pub eot: Option<u64>,
    /// `tokenizer.ggml.eom_token_id`, the end of a message that a tool is to answer.
    pub eom: Option<u64>,
    /// `tokenizer.ggml.unknown_token_id`.
    pub unknown: Option<u64>,
    /// `tokenizer.ggml.add_bos_token`.
    pub add_bos: Option<bool>,
    /// `tokenizer.ggml.add_eos_token`.
    pub add_eos: Option<bool>,
    /// `tokenizer.ggml.add_space_prefix`.
    pub add_space_prefix: Option<bool>,
}

impl GgufFields {
    /// Reads the keys from a file's metadata.
    ///
    /// # Errors
    /// A key with a value of another type.
    pub fn read(metadata: &Metadata) -> Result<Self, TokenizerError> {
        let lists = Lists::read(metadata)?;
        let owned = |texts: &Texts| texts.iter().map(str::to_owned).collect();
        let (tokens, merges) = (lists.tokens.map(owned).unwrap_or_default(), lists.merges.map(owned));
        Ok(Self { tokens, merges, ..Self::without_lists(metadata)? })
    }

    /// All but tokens and merges.
    fn without_lists(metadata: &Metadata) -> Result<Self, TokenizerError> {
        let text = |key: &str| metadata.optional::<&str>(key).map(|text| text.map(str::to_string));
        Ok(Self {
            architecture: text("general.architecture")?,
            model: text("tokenizer.ggml.model")?,
            pre: text("tokenizer.ggml.pre")?,
            tokens: Vec::new(),
            scores: metadata.optional::<&[f32]>("tokenizer.ggml.scores")?.map(<[f32]>::to_vec),
            token_types: metadata.optional("tokenizer.ggml.token_type")?,
            merges: None,
            bos: metadata.optional("tokenizer.ggml.bos_token_id")?,
            eos: metadata.optional("tokenizer.ggml.eos_token_id")?,
            eot: metadata.optional("tokenizer.ggml.eot_token_id")?,
            eom: metadata.optional("tokenizer.ggml.eom_token_id")?,
            unknown: metadata.optional("tokenizer.ggml.unknown_token_id")?,
            add_bos: metadata.optional("tokenizer.ggml.add_bos_token")?,
            add_eos: metadata.optional("tokenizer.ggml.add_eos_token")?,
            add_space_prefix: metadata.optional("tokenizer.ggml.add_space_prefix")?,
        })
    }
}

/// The long lists of a file, where they are: copying some 300 thousand texts is a fifth of opening a vocabulary.
#[derive(Clone, Copy)]
struct Lists<'m> {
    tokens: Option<&'m Texts>, // by id
    merges: Option<&'m Texts>, // best first
}

impl<'m> Lists<'m> {
    fn read(metadata: &'m Metadata) -> Result<Self, TokenizerError> {
        Ok(Lists {
            tokens: metadata.optional("tokenizer.ggml.tokens")?,
            merges: metadata.optional("tokenizer.ggml.merges")?,
        })
    }
}

impl Tokenizer {
    /// The tokenizer of a GGUF file, from its metadata.
    ///
    /// # Errors
    /// As [`GgufFields::read`] and [`Tokenizer::from_gguf_fields`].
    pub fn from_gguf(metadata: &Metadata) -> Result<Self, TokenizerError> {
        from_lists(GgufFields::without_lists(metadata)?, Lists::read(metadata)?)
    }

    /// A tokenizer as a GGUF file describes it.
    ///
    /// Byte-level BPE of GGUF files does not normalise: models whose `tokenizer.json` asks for NFC (GPT-NeoX, OLMo)
    /// give the same ids for text that is in NFC already.
    ///
    /// # Errors
    /// An absent or contradictory key, each by name; an unsupported model or pre-tokenizer.
    pub fn from_gguf_fields(fields: GgufFields) -> Result<Self, TokenizerError> {
        let tokens: Texts = fields.tokens.iter().collect();
        let merges: Option<Texts> = fields.merges.as_ref().map(|merges| merges.iter().collect());
        from_lists(fields, Lists { tokens: Some(&tokens), merges: merges.as_ref() })
    }
}

fn from_lists(fields: GgufFields, lists: Lists<'_>) -> Result<Tokenizer, TokenizerError> {
    let model = fields.model.as_deref().ok_or(TokenizerError::MissingKey { key: "tokenizer.ggml.model" })?;
    match model {
        "gpt2" => byte_level(fields, lists),
        "llama" => sentencepiece(fields, lists),
        other => Err(TokenizerError::UnsupportedModel { found: other.to_string() }),
    }
}

fn byte_level(fields: GgufFields, lists: Lists<'_>) -> Result<Tokenizer, TokenizerError> {
    let (rules, name) = pre_tokenizer(&fields)?;
    let merges = lists.merges.ok_or(TokenizerError::MissingKey { key: "tokenizer.ggml.merges" })?;
    let vocabulary = vocabulary(&fields, lists, Spelling::ByteLevel)?;
    let llama3 = rules == PreTokenizer::Llama3;
    let bpe = ByteBpe::new(&vocabulary, merges, rules, llama3)?;
    let kind = format!("byte-level BPE, {} merges, pre-tokenizer {name} (GGUF)", merges.len());
    let special = SpecialTokens::new(&vocabulary);
    finish(fields, vocabulary, Encoder::ByteBpe(Box::new(bpe), special), kind, llama3, false)
}

fn sentencepiece(mut fields: GgufFields, lists: Lists<'_>) -> Result<Tokenizer, TokenizerError> {
    let key = "tokenizer.ggml.scores";
    let scores = fields.scores.take().ok_or(TokenizerError::MissingKey { key })?;
    same_length(key, scores.len(), lists.tokens.map_or(0, Texts::len))?;
    let vocabulary = vocabulary(&fields, lists, Spelling::SentencePiece)?;
    let unknown = known_id(&vocabulary, "tokenizer.ggml.unknown_token_id", fields.unknown)?;
    let model = SentencePiece::new(&vocabulary, &scores, unknown)?;
    let space = fields.add_space_prefix.unwrap_or(true);
    let kind = "SentencePiece BPE with byte fallback (GGUF)".to_string();
    let special = SpecialTokens::new(&vocabulary);
    finish(fields, vocabulary, Encoder::SentencePiece(Box::new(model), special), kind, true, space)
}

/// The rules for cutting text, and what to call them.
fn pre_tokenizer(fields: &GgufFields) -> Result<(PreTokenizer, String), TokenizerError> {
    if let Some(name) = &fields.pre {
        let rules = PreTokenizer::from_name(name).ok_or_else(|| TokenizerError::UnsupportedPreTokenizer {
            found: name.clone(),
            supported: PreTokenizer::names(),
        })?;
        return Ok((rules, name.clone()));
    }
    // Files older than the key. These three families have only ever had GPT-2's expression.
    match fields.architecture.as_deref() {
        Some(family @ ("gpt2" | "gptneox" | "mpt")) => {
            Ok((PreTokenizer::Gpt2, format!("gpt-2 (the file names none; by its architecture {family})")))
        }
        _ => Ok((PreTokenizer::Default, "default (the file names none)".to_string())),
    }
}

fn vocabulary(
    fields: &GgufFields,
    lists: Lists<'_>,
    spelling: Spelling,
) -> Result<Vocabulary, TokenizerError> {
    let key = "tokenizer.ggml.tokens";
    let tokens =
        lists.tokens.filter(|tokens| !tokens.is_empty()).ok_or(TokenizerError::MissingKey { key })?;
    let kinds = match &fields.token_types {
        Some(types) => kinds(types, tokens.len())?,
        None => guessed_kinds(fields, tokens, spelling),
    };
    Vocabulary::new(
        (0u32..).zip(tokens.iter()).zip(kinds).map(|((id, text), kind)| (id, text, kind)),
        spelling,
    )
}

fn kinds(types: &[i32], expected: usize) -> Result<Vec<TokenKind>, TokenizerError> {
    let key = "tokenizer.ggml.token_type";
    same_length(key, types.len(), expected)?;
    let kind = |(id, code): (usize, &i32)| match code {
        1 => Ok(TokenKind::Normal),
        2 => Ok(TokenKind::Unknown),
        3 => Ok(TokenKind::Control),
        4 => Ok(TokenKind::UserDefined),
        5 => Ok(TokenKind::Unused),
        6 => Ok(TokenKind::Byte),
        other => {
            Err(TokenizerError::BadKey { key, problem: format!("token {id} has type {other}, not 1 to 6") })
        }
    };
    types.iter().enumerate().map(kind).collect()
}

/// Files without `token_type`: the ids with a role are control tokens, `<0x0A>` of SentencePiece is a byte.
fn guessed_kinds(fields: &GgufFields, tokens: &Texts, spelling: Spelling) -> Vec<TokenKind> {
    let control = [fields.bos, fields.eos, fields.eot, fields.eom];
    let kind = |(id, text): (u64, &str)| {
        if control.contains(&Some(id)) {
            TokenKind::Control
        } else if fields.unknown == Some(id) {
            TokenKind::Unknown
        } else if spelling == Spelling::SentencePiece && byte_of_name(text).is_some() {
            TokenKind::Byte
        } else {
            TokenKind::Normal
        }
    };
    (0u64..).zip(tokens.iter()).map(kind).collect()
}

fn same_length(key: &'static str, found: usize, expected: usize) -> Result<(), TokenizerError> {
    if found == expected { Ok(()) } else { Err(TokenizerError::LengthMismatch { key, found, expected }) }
}

fn known_id(
    vocabulary: &Vocabulary,
    role: &'static str,
    id: Option<u64>,
) -> Result<Option<u32>, TokenizerError> {
    let Some(id) = id else { return Ok(None) };
    let known = u32::try_from(id).ok().filter(|id| vocabulary.text(*id).is_some());
    known.map(Some).ok_or_else(|| TokenizerError::UnknownSpecial {
        role,
        token: format!("id {id}"),
        vocab_size: vocabulary.len(),
    })
}

fn finish(
    fields: GgufFields,
    vocabulary: Vocabulary,
    encoder: Encoder,
    kind: String,
    add_bos_by_default: bool,
    leading_space: bool,
) -> Result<Tokenizer, TokenizerError> {
    let bos = known_id(&vocabulary, "tokenizer.ggml.bos_token_id", fields.bos)?;
    let eos = known_id(&vocabulary, "tokenizer.ggml.eos_token_id", fields.eos)?;
    let eot = known_id(&vocabulary, "tokenizer.ggml.eot_token_id", fields.eot)?;
    let eom = known_id(&vocabulary, "tokenizer.ggml.eom_token_id", fields.eom)?;
    let add_bos = fields.add_bos.unwrap_or(add_bos_by_default && bos.is_some());
    let add_eos = fields.add_eos.unwrap_or(false);
    for (wanted, id, key) in
        [(add_bos, bos, "tokenizer.ggml.add_bos_token"), (add_eos, eos, "tokenizer.ggml.add_eos_token")]
    {
        if wanted && id.is_none() {
            return Err(TokenizerError::BadKey {
                key,
                problem: "is true, but the file names no such token".into(),
            });
        }
    }
    let stop_ids = stop::ids(&vocabulary, [eos, eot, eom]);
    Ok(Tokenizer {
        vocabulary,
        encoder,
        kind,
        bos,
        eos,
        stop_ids,
        prefix: bos.filter(|_| add_bos).into_iter().collect(),
        suffix: eos.filter(|_| add_eos).into_iter().collect(),
        leading_space,
    })
}
