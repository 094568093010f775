//! Files that are broken, lie, or contradict themselves: an error that says what, never a panic.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use roofline_model::tokenizer::{GgufFields, Tokenizer, TokenizerError};
use serde_json::{Value, json};

/// A small file with every part that real ones have.
fn byte_level_file() -> Value {
    let byte_level =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    let split = json!({"type": "Split", "pattern": {"Regex": r"\p{N}{1,3}|\s+(?!\S)"}, "behavior": "Isolated", "invert": false});
    json!({
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 8}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
            "pad_type_id": 0, "pad_token": "a"},
        "added_tokens": [added(7, "<s>", true), added(8, "  ", false)],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level.clone()]},
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [7], "tokens": ["<s>"]}}},
        "decoder": byte_level,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": {"a": 0, "b": 1, "Ġ": 2, "1": 3, "ab": 4, "Ġa": 5, "abab": 6},
            "merges": [["a", "b"], ["Ġ", "a"], ["ab", "ab"]]},
    })
}

fn added(id: u32, content: &str, special: bool) -> Value {
    json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        "special": special})
}

/// A small file in the manner of Llama 2's.
fn sentencepiece_file() -> Value {
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [added(0, "<unk>", true), added(1, "<s>", true)],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "pre_tokenizer": null,
        "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
            "vocab": {"<unk>": 0, "<s>": 1, "<0xC3>": 2, "<0xA9>": 3, "▁": 4, "a": 5, "b": 6, "▁a": 7, "ab": 8},
            "merges": ["▁ a", "a b"]},
    })
}

fn load(file: &Value) -> Result<Tokenizer, TokenizerError> {
    Tokenizer::from_tokenizer_json(file.to_string().as_bytes(), None)
}

#[test]
fn the_small_files_are_good() {
    let tokenizer = load(&byte_level_file()).unwrap();
    assert_eq!(
        tokenizer.encode("ababa  1 a<s>", true, true).unwrap(),
        [7, 6, 0, 8, 3, 5, 7],
        "neither cut nor padded"
    );
    assert_eq!(tokenizer.vocab_size(), 9);
    let tokenizer = load(&sentencepiece_file()).unwrap();
    assert_eq!(tokenizer.kind(), "SentencePiece BPE (tokenizer.json)");
    let ids = tokenizer.encode("aé ab", false, true).unwrap();
    assert_eq!(ids, [7, 2, 3, 7, 6]);
    assert_eq!(tokenizer.decode(&ids, false).unwrap(), "aé ab");
    assert_eq!(tokenizer.decode(&[2], false).unwrap(), "\u{FFFD}");
}

/// Post-processors are read here and not run by the tokenizers crate, which panics on some; what they add is the same.
#[test]
fn what_stands_around_a_text_is_what_the_crate_puts_there() {
    let template = byte_level_file()["post_processor"].clone();
    let mut both = template.clone();
    both["single"].as_array_mut().unwrap().push(json!({"SpecialToken": {"id": "</s>", "type_id": 0}}));
    both["special_tokens"]["</s>"] = json!({"id": "</s>", "ids": [1, 2], "tokens": ["b", "Ġ"]});
    let byte_level =
        json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true});
    let roberta = json!({"type": "RobertaProcessing", "sep": ["b", 1], "cls": ["<s>", 7], "trim_offsets": true,
        "add_prefix_space": false});
    let bert = json!({"type": "BertProcessing", "sep": ["b", 1], "cls": ["<s>", 7]});
    let sequence = json!({"type": "Sequence", "processors": [byte_level.clone(), template.clone()]});
    for processor in [Value::Null, byte_level, template, both, roberta, bert, sequence] {
        let mut file = byte_level_file();
        (file["post_processor"], file["truncation"], file["padding"]) = (processor, Value::Null, Value::Null);
        let crates = tokenizers::Tokenizer::from_bytes(file.to_string()).unwrap();
        let tokenizer = load(&file).unwrap();
        for (text, add) in [("ab a", true), ("ab a", false), ("", true)] {
            let expected = crates.encode(text, add).unwrap();
            let ids = tokenizer.encode(text, add, true).unwrap();
            assert_eq!(ids, expected.get_ids(), "{text:?}, {}", file["post_processor"]);
        }
    }
}

#[test]
fn roles_that_the_config_gives() {
    let file = byte_level_file().to_string();
    let load = |config: &str| Tokenizer::from_tokenizer_json(file.as_bytes(), Some(config.as_bytes()));
    let tokenizer =
        load(r#"{"bos_token": {"content": "<s>"}, "eos_token": "b", "add_bos_token": true}"#).unwrap();
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.end_of_turn_ids()), (Some(7), Some(1), &[1][..]));
    assert_eq!(
        tokenizer.encode("a", true, true).unwrap(),
        [7, 0],
        "one BOS, though file and config both ask for it"
    );
    assert_eq!(tokenizer.encode("a", false, true).unwrap(), [0]);
    let tokenizer =
        load(r#"{"bos_token": "<s>", "eos_token": "b", "add_bos_token": false, "add_eos_token": true}"#)
            .unwrap();
    assert_eq!(tokenizer.encode("a", true, true).unwrap(), [0, 1], "the config counts before the file");
    for (config, said) in [
        (r#"{"eos_token": "nowhere"}"#, "nowhere"),
        (r#"{"eos_token": 7}"#, "eos_token is 7"),
        (r#"{"add_bos_token": "yes"}"#, "add_bos_token"),
        ("[1]", "tokenizer_config.json"),
        ("{", "tokenizer_config.json"),
    ] {
        let error = load(config).unwrap_err().to_string();
        assert!(error.contains(said), "{config}: {error}");
    }
}

#[test]
fn each_contradiction_is_named() {
    type Spoil = fn(&mut Value);
    let cases: &[(Spoil, &str)] = &[
        (|f| f["decoder"] = Value::Null, "decoder none"),
        (|f| f["decoder"] = json!({"type": "WordPiece", "prefix": "##", "cleanup": true}), "WordPiece"),
        (
            |f| (f["model"]["vocab"]["twin"], f["added_tokens"]) = (json!(0), json!([])),
            "id 0 is \"a\" and \"twin\"",
        ),
        (
            |f| (f["model"]["vocab"]["far"], f["added_tokens"]) = (json!(4_000_000_000u32), json!([])),
            "4000000000",
        ),
        (|f| f["model"]["merges"][0] = json!(["a", "x"]), "x"),
        (|f| f["model"]["merges"][0] = json!(["a", "1"]), "a1"),
        (|f| f["added_tokens"][0]["id"] = json!(40), "has id 40, its place is 7"),
        (|f| f["model"]["vocab"] = json!([1, 2]), "tokenizer.json"),
        (|f| f["model"] = json!({"type": "Unigram"}), "\"Unigram\" is not supported (supported: BPE)"),
        (|f| f["model"]["merges"][0] = json!(["a", "b1Ġabab"]), "merge 0"),
        (|f| f["normalizer"]["normalizers"][0] = json!({"type": "Precompiled"}), "Precompiled"),
        (|f| f["post_processor"] = json!({"type": "Oracle"}), "post-processor {\"type\":\"Oracle\"}"),
        (|f| f["post_processor"]["special_tokens"] = json!({}), "does not define"),
        (|f| f["post_processor"]["single"] = json!([]), "leaves out the text"),
        (|f| f["version"] = json!(3), "tokenizer.json"),
    ];
    for (spoil, said) in cases {
        let mut file = byte_level_file();
        spoil(&mut file);
        let error = load(&file).unwrap_err().to_string();
        assert!(error.contains(said), "{said}: {error}");
    }
}

#[test]
fn a_hole_in_the_vocabulary_is_no_token() {
    let mut file = byte_level_file();
    file["model"]["vocab"] = json!({"a": 0, "b": 1, "ab": 2, "Ġ": 3, "Ġa": 4, "abab": 10});
    file["added_tokens"] = json!([]);
    file["post_processor"] = Value::Null;
    let tokenizer = load(&file).unwrap();
    assert_eq!((tokenizer.vocab_size(), tokenizer.token(7), tokenizer.token_bytes(7)), (11, None, None));
    let error = tokenizer.decode(&[0, 7], false).unwrap_err().to_string();
    assert_eq!(error, "token id 7 is not in the vocabulary of 11 ids");
    assert!(tokenizer.decode(&[u32::MAX], false).is_err());
}

/// A normalizer that replaces nothing by something makes the tokenizers crate panic.
#[test]
fn a_panic_inside_the_library_is_an_error() {
    let mut file = byte_level_file();
    file["normalizer"] = json!({"type": "Replace", "pattern": {"Regex": "a?"}, "content": "b"});
    let error = load(&file).unwrap().encode("x b", false, false);
    assert!(matches!(error, Err(TokenizerError::Encode(_))), "{error:?}");
}

/// Loads, and if that works uses what was loaded; the result does not matter, that there is one does.
fn try_out(file: &[u8], text: &str) {
    if let Ok(tokenizer) = Tokenizer::from_tokenizer_json(file, None) {
        for parse_special in [false, true] {
            if let Ok(ids) = tokenizer.encode(text, true, parse_special) {
                let _ = tokenizer.decode(&ids, parse_special);
            }
        }
    }
}

/// Every place in a JSON value, as JSON pointers.
fn places(value: &Value, at: &str, all: &mut Vec<String>) {
    all.push(at.to_string());
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| {
            places(value, &format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")), all);
        }),
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(i, value)| places(value, &format!("{at}/{i}"), all))
        }
        _ => {}
    }
}

fn wrong_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        Just(json!(-1)),
        Just(json!(1e300)),
        Just(json!(u64::MAX)),
        Just(json!(0)),
        Just(json!("")),
        Just(json!("(")),
        Just(json!("a")),
        Just(json!("\u{0}é")),
        Just(json!([])),
        Just(json!({})),
        Just(json!([[1]])),
        Just(json!(true)),
        Just(json!({"type": "Fuse"})),
        Just(json!({"type": "Metaspace", "replacement": "▁"})),
        Just(json!({"Regex": "(a*)*\\1("})),
        Just(json!({"Regex": ""})),
        Just(json!(4_294_967_295u32)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn any_value_anywhere(which: bool, at: prop::sample::Index, wrong in wrong_value(), text in "[ab 1é<s>\\n]{0,20}") {
        let mut file = if which { byte_level_file() } else { sentencepiece_file() };
        let mut all = Vec::new();
        places(&file, "", &mut all);
        *file.pointer_mut(&all[at.index(all.len())]).unwrap() = wrong;
        try_out(file.to_string().as_bytes(), &text);
    }

    #[test]
    fn any_byte_anywhere(which: bool, at: prop::sample::Index, byte: u8, cut: bool, text in "[ab 1é<s>\\n]{0,20}") {
        let file = if which { byte_level_file() } else { sentencepiece_file() };
        let mut bytes = file.to_string().into_bytes();
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] = byte }
        if cut {
            prop_assert!(Tokenizer::from_tokenizer_json(&bytes, None).is_err());
        } else {
            try_out(&bytes, &text);
        }
    }

    #[test]
    fn any_bytes_at_all(bytes: Vec<u8>) {
        prop_assert!(Tokenizer::from_tokenizer_json(&bytes, Some(&bytes)).is_err());
    }
}

fn byte_level_fields() -> GgufFields {
    let strings = |list: &[&str]| list.iter().map(|text| text.to_string()).collect::<Vec<_>>();
    GgufFields {
        model: Some("gpt2".to_string()),
        pre: Some("qwen2".to_string()),
        tokens: strings(&["a", "b", "Ġ", "ab", "Ġa", "<s>", "</s>", ""]),
        token_types: Some(vec![1, 1, 1, 1, 1, 3, 3, 5]),
        merges: Some(strings(&["a b", "Ġ a"])),
        bos: Some(5),
        eos: Some(6),
        add_bos: Some(true),
        ..GgufFields::default()
    }
}

fn sentencepiece_fields() -> GgufFields {
    GgufFields {
        model: Some("llama".to_string()),
        scores: Some(vec![0.0, -1.0, 0.5, -1e30, 0.0, 0.0, 0.0, 0.0]),
        merges: None,
        pre: None,
        unknown: Some(5),
        ..byte_level_fields()
    }
}

#[test]
fn each_wrong_field_is_named() {
    type Spoil = fn(&mut GgufFields);
    let cases: &[(Spoil, &str)] = &[
        (|f| f.model = None, "tokenizer.ggml.model"),
        (|f| f.model = Some("bert".into()), "\"bert\" is not supported (supported: gpt2, llama)"),
        (
            |f| f.pre = Some("tekken".into()),
            "\"tekken\" is not supported (supported: gpt-2, gpt-neox, mpt, olmo, llama-bpe",
        ),
        (|f| f.tokens.clear(), "tokenizer.ggml.tokens"),
        (|f| f.tokens[1] = "a".into(), "\"a\" is id 0 and id 1"),
        (|f| f.merges = None, "tokenizer.ggml.merges"),
        (|f| f.merges = Some(vec!["ab".into()]), "no space"),
        (|f| f.merges = Some(vec!["a x".into()]), "\"x\" is not in the vocabulary"),
        (|f| f.merges = Some(vec!["b a".into()]), "\"ba\" is not in the vocabulary"),
        (
            |f| f.token_types = Some(vec![1; 3]),
            "tokenizer.ggml.token_type has 3 entries, tokenizer.ggml.tokens has 8",
        ),
        (|f| f.token_types = Some(vec![9; 8]), "token 0 has type 9"),
        (|f| f.bos = Some(8), "tokenizer.ggml.bos_token_id names id 8"),
        (|f| f.eos = Some(u64::MAX), "tokenizer.ggml.eos_token_id"),
        (|f| f.bos = None, "tokenizer.ggml.add_bos_token"),
        (|f| (f.eos, f.add_eos) = (None, Some(true)), "tokenizer.ggml.add_eos_token"),
    ];
    let spm: &[(Spoil, &str)] = &[
        (|f| f.scores = None, "tokenizer.ggml.scores"),
        (|f| f.scores = Some(vec![0.0; 9]), "tokenizer.ggml.scores has 9 entries"),
        (|f| f.scores = Some(vec![f32::NAN; 8]), "the score of token 0 is NaN"),
        (|f| f.unknown = Some(99), "tokenizer.ggml.unknown_token_id"),
    ];
    let byte_level = cases.iter().map(|case| (byte_level_fields(), case));
    let sentencepiece = spm.iter().map(|case| (sentencepiece_fields(), case));
    for (mut fields, (spoil, said)) in byte_level.chain(sentencepiece) {
        spoil(&mut fields);
        let error = Tokenizer::from_gguf_fields(fields).unwrap_err().to_string();
        assert!(error.contains(said), "{said}: {error}");
    }
}

#[test]
fn a_byte_without_a_token_is_named() {
    let tokenizer = Tokenizer::from_gguf_fields(byte_level_fields()).unwrap();
    assert_eq!(tokenizer.encode("ab a</s>", true, true).unwrap(), [5, 3, 4, 6]);
    assert!(matches!(
        tokenizer.encode("abc", true, true),
        Err(TokenizerError::NoTokenForByte { byte: b'c' })
    ));
    let spm = Tokenizer::from_gguf_fields(GgufFields { unknown: None, ..sentencepiece_fields() }).unwrap();
    assert!(
        matches!(spm.encode("é", true, true), Err(TokenizerError::NoTokenForByte { byte: 0xE2 })),
        "the ▁ before it"
    );
}

/// Files from before `token_type` and `pre`: roles make control tokens, and the choice of rules is said.
#[test]
fn old_files_are_read_and_say_so() {
    let old = GgufFields { token_types: None, pre: None, ..byte_level_fields() };
    let tokenizer = Tokenizer::from_gguf_fields(old.clone()).unwrap();
    assert!(tokenizer.is_special(5) && tokenizer.is_special(6) && !tokenizer.is_special(0));
    assert_eq!(
        tokenizer.kind(),
        "byte-level BPE, 2 merges, pre-tokenizer default (the file names none) (GGUF)"
    );
    let neox = GgufFields { architecture: Some("gptneox".to_string()), ..old };
    assert!(Tokenizer::from_gguf_fields(neox).unwrap().kind().contains("gpt-2 (the file names none; by its"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn any_fields(
        gpt2: bool,
        tokens in prop::collection::vec("[abĠ▁<>0x1é ]{0,4}", 0..12),
        types in prop::option::of(prop::collection::vec(0..8i32, 0..12)),
        scores in prop::option::of(prop::collection::vec(any::<f32>(), 0..12)),
        merges in prop::option::of(prop::collection::vec("[abĠé]{0,2} ?[abĠ ]{0,2}", 0..4)),
        roles in prop::array::uniform5(prop::option::of(0..14u64)),
        add in prop::array::uniform3(any::<Option<bool>>()),
        text in "[abé<>0x1 ]{0,12}",
    ) {
        let mut tokens = tokens;
        tokens.sort();
        tokens.dedup();
        let [bos, eos, eot, eom, unknown] = roles;
        let fields = GgufFields {
            architecture: None,
            model: Some(if gpt2 { "gpt2" } else { "llama" }.to_string()),
            pre: None,
            scores: scores.map(|mut scores| { scores.resize(tokens.len(), 0.5); scores }),
            token_types: types.map(|mut types| { types.resize(tokens.len(), 1); types }),
            tokens, merges, bos, eos, eot, eom, unknown,
            add_bos: add[0], add_eos: add[1], add_space_prefix: add[2],
        };
        if let Ok(tokenizer) = Tokenizer::from_gguf_fields(fields) {
            for parse_special in [false, true] {
                if let Ok(ids) = tokenizer.encode(&text, true, parse_special) {
                    prop_assert!(tokenizer.decode(&ids, false).is_ok());
                }
            }
        }
    }
}

#[test]
fn a_folder_without_a_tokenizer_says_what_to_do() {
    let dir = std::env::temp_dir().join(format!("roofline-no-tokenizer-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    assert!(matches!(Tokenizer::from_hf_dir(&dir), Err(TokenizerError::Missing { hint: "", .. })));
    std::fs::write(dir.join("tokenizer.model"), [0]).unwrap();
    let error = Tokenizer::from_hf_dir(&dir).unwrap_err().to_string();
    assert!(error.contains("save_pretrained"), "{error}");
    std::fs::create_dir(dir.join("tokenizer.json")).unwrap();
    assert!(matches!(Tokenizer::from_hf_dir(&dir), Err(TokenizerError::Io { .. })));
    std::fs::remove_dir_all(&dir).unwrap();
}
