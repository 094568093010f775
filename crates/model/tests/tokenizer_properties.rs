//! Tokenizers of GGUF files against independent ones, on random text in several scripts.
//!
//! Byte-level BPE: the same small vocabulary is written as GGUF fields and as a `tokenizer.json` with the regular
//! expressions of the models' authors, which the tokenizers crate then runs. SentencePiece: the definition, by scanning.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::LazyLock;

use proptest::prelude::*;
use roofline_model::tokenizer::{GgufFields, StreamDecoder, Tokenizer};
use serde_json::{Value, json};

/// Characters that the expressions treat differently, each of which a merge will join with any other.
const ALPHABET: &[char] = &[
    'a', 's', 'T', 'l', 'e', 'R', '1', '2', '\'', '.', '+', '_', ' ', '\t', '\n', '\r', 'é', 'ſ', '世', 'ー',
    '½', '٣', 'ி', '\u{a0}', '\u{3000}', '🚀', '“',
];

/// GPT-2's characters for bytes, built the way its authors' script does.
static BYTE_CHARS: LazyLock<Vec<char>> = LazyLock::new(|| {
    let mut spare = 256u32..;
    (0..256u32)
        .map(|byte| match byte {
            0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF => char::from_u32(byte).unwrap(),
            _ => char::from_u32(spare.next().unwrap()).unwrap(),
        })
        .collect()
});

fn spelled(text: &str) -> String {
    text.bytes().map(|byte| BYTE_CHARS[usize::from(byte)]).collect()
}

/// Tokens and merges: bytes, then the characters of the alphabet, then their pairs, then some pairs of pairs; and two
/// tokens that no merge makes.
fn vocabulary() -> (Vec<String>, Vec<String>) {
    let mut tokens: Vec<String> = BYTE_CHARS.iter().map(char::to_string).collect();
    let mut merges = Vec::new();
    let mut add = |left: &str, right: &str, tokens: &mut Vec<String>| {
        let merged = format!("{left}{right}");
        if !tokens.contains(&merged) {
            tokens.push(merged);
            merges.push(format!("{left} {right}"));
        }
    };
    for c in ALPHABET {
        let bytes: Vec<char> = spelled(&c.to_string()).chars().collect();
        for end in 1..bytes.len() {
            let (left, right) = (bytes[..end].iter().collect::<String>(), bytes[end].to_string());
            add(&left, &right, &mut tokens);
        }
    }
    let characters: Vec<String> = ALPHABET.iter().map(|c| spelled(&c.to_string())).collect();
    let mut pairs = Vec::new();
    for left in &characters {
        for right in &characters {
            add(left, right, &mut tokens);
            pairs.push(format!("{left}{right}"));
        }
    }
    for at in 0..500 {
        add(&pairs[at * 331 % pairs.len()], &pairs[at * 173 % pairs.len()], &mut tokens);
    }
    tokens.extend([spelled(" zqz"), spelled("zqz"), "<|end|>".to_string()]);
    (tokens, merges)
}

fn split(expression: &str) -> Value {
    json!({"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": false})
}

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const PUNCTUATION: &str = r"[\p{P}\$\+<=>\^~\|]+";

/// The same tokenizer from GGUF fields and from `tokenizer.json`.
struct Twins {
    ours: Tokenizer,
    crates: tokenizers::Tokenizer,
}

impl Twins {
    fn new(pre: &str, expressions: &[&str]) -> Self {
        let (tokens, merges) = vocabulary();
        let mut steps: Vec<Value> = expressions.iter().map(|expression| split(expression)).collect();
        let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false});
        steps.push(byte_level.clone());
        let end = tokens.len() - 1;
        let vocab: serde_json::Map<String, Value> =
            tokens.iter().enumerate().map(|(id, token)| (token.clone(), json!(id))).collect();
        let added = json!({"id": end, "content": "<|end|>", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true});
        let file = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [added], "normalizer": null,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps}, "post_processor": null, "decoder": byte_level,
            "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": pre == "llama-bpe",
                "vocab": vocab, "merges": merges},
        });
        let mut token_types = vec![1; tokens.len()];
        token_types[end] = 3;
        let fields = GgufFields {
            model: Some("gpt2".to_string()),
            pre: Some(pre.to_string()),
            tokens,
            token_types: Some(token_types),
            merges: Some(merges),
            eos: Some(end as u64),
            ..GgufFields::default()
        };
        Self {
            ours: Tokenizer::from_gguf_fields(fields).unwrap(),
            crates: tokenizers::Tokenizer::from_bytes(file.to_string()).unwrap(),
        }
    }

    fn check(&self, text: &str) {
        let ids = self.ours.encode(text, true, true).unwrap();
        assert_eq!(ids, self.crates.encode_fast(text, false).unwrap().get_ids(), "{text:?}");
        assert_eq!(self.ours.decode(&ids, false).unwrap(), text);
    }
}

fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        12 => prop::sample::select(ALPHABET).prop_map(String::from),
        1 => prop::sample::select(&[" zqz", "zqz", "'LL", "'ve", "  ", "\n\n", "<|end|>", "1234"][..]).prop_map(str::to_string),
        1 => any::<char>().prop_map(String::from),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

macro_rules! agrees {
    ($name:ident, $pre:literal, $expressions:expr) => {
        #[test]
        fn $name() {
            let twins = Twins::new($pre, $expressions);
            proptest!(ProptestConfig::with_cases(2000), |(text in text())| twins.check(&text));
        }
    };
}

agrees!(gpt2_cuts_as_its_expression, "gpt-2", &[GPT2]);
agrees!(llama3_cuts_as_its_expression, "llama-bpe", &[LLAMA3]);
agrees!(qwen2_cuts_as_its_expression, "qwen2", &[QWEN2]);
agrees!(smollm_cuts_as_its_expressions, "smollm", &[r"\p{N}", GPT2]);
agrees!(default_cuts_as_its_expressions, "default", &[PUNCTUATION, GPT2, r"\p{N}+", "[0-9][0-9][0-9]"]);

#[test]
fn llama3_takes_a_piece_that_is_a_token_whole() {
    let (llama3, qwen2) = (Twins::new("llama-bpe", &[LLAMA3]).ours, Twins::new("qwen2", &[QWEN2]).ours);
    let whole = llama3.id(&spelled(" zqz")).unwrap();
    assert_eq!(llama3.encode(" zqz", false, false).unwrap(), [whole]);
    assert_eq!(qwen2.encode(" zqz", false, false).unwrap().len(), 4);
}

/// Pieces and scores of a small SentencePiece vocabulary after `<unk>`, `<s>`, `</s>` and the 256 bytes.
fn sentencepiece(scored: &[(&str, f32)], bytes: bool) -> Tokenizer {
    let mut tokens: Vec<(String, i32, f32)> =
        vec![("<unk>".into(), 2, 0.0), ("<s>".into(), 3, 0.0), ("</s>".into(), 3, 0.0)];
    if bytes {
        tokens.extend((0..256).map(|byte| (format!("<0x{byte:02X}>"), 6, 0.0)));
    }
    tokens.extend(scored.iter().map(|(text, score)| (text.to_string(), 1, *score)));
    let fields = GgufFields {
        model: Some("llama".to_string()),
        token_types: Some(tokens.iter().map(|token| token.1).collect()),
        scores: Some(tokens.iter().map(|token| token.2).collect()),
        tokens: tokens.into_iter().map(|token| token.0).collect(),
        bos: Some(1),
        eos: Some(2),
        unknown: Some(0),
        ..GgufFields::default()
    };
    Tokenizer::from_gguf_fields(fields).unwrap()
}

const PIECES: &[(&str, f32)] = &[
    ("▁", -9.0),
    ("a", -8.0),
    ("b", -8.0),
    ("c", -8.0),
    ("é", -8.0),
    ("▁▁", -3.0),
    ("▁a", -1.0),
    ("ab", -2.0),
    ("bc", -1.5),
    ("abc", -4.0),
    ("▁ab", -2.5),
    ("aa", -2.0),
    ("aaa", -2.0),
    ("cé", -0.0),
    ("éc", 0.0),
    ("<s", 5.0),
    ("s>", 5.0),
    ("<", -9.0),
    (">", -9.0),
    ("s", -9.0),
    ("ca", -5.0),
    ("▁▁▁▁", -1.0),
];

/// The definition: join the two neighbours with the highest score, leftmost of equals, until none are left.
fn by_scanning(tokenizer: &Tokenizer, pieces: &[(&str, f32)], text: &str) -> Vec<u32> {
    let mut symbols: Vec<String> = format!(" {text}").replace(' ', "▁").chars().map(String::from).collect();
    let score = |piece: &str| pieces.iter().find(|(text, _)| *text == piece).map(|(_, score)| *score);
    loop {
        let mut best: Option<(f32, usize)> = None;
        for at in 1..symbols.len() {
            if let Some(score) = score(&format!("{}{}", symbols[at - 1], symbols[at]))
                && best.is_none_or(|(highest, _)| score > highest)
            {
                best = Some((score, at));
            }
        }
        let Some((_, at)) = best else { break };
        let right = symbols.remove(at);
        symbols[at - 1] += &right;
    }
    let ids = symbols.iter().flat_map(|symbol| match score(symbol) {
        Some(_) => vec![tokenizer.id(symbol).unwrap()],
        None => symbol.bytes().map(|byte| tokenizer.id(&format!("<0x{byte:02X}>")).unwrap()).collect(),
    });
    ids.collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn sentencepiece_joins_by_score(text in "[ab cé<s>x🚀]{1,40}") {
        // With a token that reaches across the start of a word, and without.
        for pieces in [PIECES, &[PIECES, &[("a▁", -0.5), ("b▁a", -0.2)]].concat()] {
            let tokenizer = sentencepiece(pieces, true);
            let ids = tokenizer.encode(&text, false, false).unwrap();
            prop_assert_eq!(&ids, &by_scanning(&tokenizer, pieces, &text));
            prop_assert_eq!(tokenizer.decode(&ids, false).unwrap(), &*text);
        }
    }
}

#[test]
fn sentencepiece_marks_of_a_text() {
    let tokenizer = sentencepiece(PIECES, true);
    let id = |token: &str| tokenizer.id(token).unwrap();
    assert_eq!(tokenizer.encode("", true, true).unwrap(), [1], "BOS alone, no space");
    assert_eq!(tokenizer.encode("", false, true).unwrap(), [0u32; 0]);
    assert_eq!(tokenizer.encode("a</s>a", true, true).unwrap(), [1, id("▁a"), 2, id("▁a")]);
    let literal = tokenizer.encode("<s>", false, false).unwrap();
    assert!(!literal.contains(&1), "text never becomes a control token: {literal:?}");
    assert_eq!(tokenizer.decode(&[1, id("▁a"), id("▁a")], true).unwrap(), "a a");
    assert_eq!(tokenizer.decode(&[1, id("▁a")], false).unwrap(), "<s> a");

    let mut stream = StreamDecoder::continuing(true);
    assert_eq!(stream.push(&tokenizer, id("▁a")).unwrap(), " a", "a space after a prompt is a space");
}

#[test]
fn sentencepiece_without_byte_tokens_says_unknown() {
    let tokenizer = sentencepiece(PIECES, false);
    assert_eq!(
        tokenizer.encode("a🚀a", false, false).unwrap(),
        [tokenizer.id("▁a").unwrap(), 0, tokenizer.id("a").unwrap()]
    );
}

/// What a stream gives, joined.
fn streamed(tokenizer: &Tokenizer, ids: &[u32], skip_special: bool) -> String {
    let mut decoder = StreamDecoder::new(skip_special);
    let text: String = ids.iter().map(|id| decoder.push(tokenizer, *id).unwrap().to_string()).collect();
    text + decoder.finish()
}

#[test]
fn a_stream_of_any_ids_is_their_decoded_text() {
    let twins = Twins::new("qwen2", &[QWEN2]);
    let sentencepiece = sentencepiece(PIECES, true);
    let ids = |tokenizer: &Tokenizer| prop::collection::vec(0..tokenizer.vocab_size() as u32, 0..60);
    // Bytes come first in both vocabularies: broken characters are the rule.
    let bytes = prop::collection::vec(prop_oneof![128..256u32, 3..259u32], 0..20);
    proptest!(ProptestConfig::with_cases(2000), |(
        byte_level in prop_oneof![ids(&twins.ours), bytes.clone()],
        pieces in prop_oneof![ids(&sentencepiece), bytes],
        skip: bool,
    )| {
        let text = twins.ours.decode(&byte_level, skip).unwrap();
        prop_assert_eq!(&streamed(&twins.ours, &byte_level, skip), &text);
        prop_assert_eq!(&twins.crates.decode(&byte_level, skip).unwrap(), &text);
        let text = sentencepiece.decode(&pieces, skip).unwrap();
        prop_assert_eq!(&streamed(&sentencepiece, &pieces, skip), &text);
        let bytes: Vec<u8> = pieces
            .iter()
            .filter(|id| !(skip && sentencepiece.is_special(**id)))
            .flat_map(|id| sentencepiece.token_bytes(*id).unwrap().into_owned())
            .collect();
        let bytes = bytes.strip_prefix(b" ").unwrap_or(&bytes);
        prop_assert_eq!(String::from_utf8_lossy(bytes), text);
    });
}

#[test]
fn characters_spread_over_tokens_come_whole() {
    let tokenizer = Twins::new("gpt-2", &[GPT2]).ours;
    let mut decoder = StreamDecoder::new(true);
    let mut said = Vec::new();
    for byte in "é!🚀".bytes() {
        let id = tokenizer.id(&BYTE_CHARS[usize::from(byte)].to_string()).unwrap();
        said.push(decoder.push(&tokenizer, id).unwrap().to_string());
    }
    assert_eq!(said, ["", "é", "!", "", "", "", "🚀"]);
    assert_eq!(decoder.finish(), "");
    decoder.push(&tokenizer, tokenizer.id(&BYTE_CHARS[0xF0].to_string()).unwrap()).unwrap();
    assert!(decoder.push(&tokenizer, u32::MAX).is_err());
    assert_eq!(decoder.finish(), "\u{FFFD}", "a wrong id changes nothing");
}

/// Any valid text comes back from the vocabularies that real models have.
#[test]
fn real_vocabularies_return_any_text() {
    let files = [
        "tokenizers/ggml-vocab-gpt-2.gguf",
        "tokenizers/ggml-vocab-llama-spm.gguf",
        "models/stories260K/tinyllamas-stories-260k-f32.gguf",
    ];
    for tokenizer in files.into_iter().filter_map(support::shared_gguf) {
        proptest!(|(text in "\\PC{0,60}|[\\x00-\\x7F]{0,60}|(?s:.){0,30}")| {
            let ids = tokenizer.encode(&text, false, false).unwrap();
            prop_assert_eq!(tokenizer.decode(&ids, false).unwrap(), text);
        });
    }
}
