//! `tokenizer.json` files against the ids that the Python tokenizers package gives (`tools/golden_tokens.py`).
#![allow(clippy::unwrap_used)]

mod support;

use roofline_model::tokenizer::{StreamDecoder, Tokenizer};
use serde_json::Value;
use support::{shared_data, shared_gguf};

fn goldens() -> Value {
    serde_json::from_str(include_str!("golden/tokens.json")).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

fn streamed(tokenizer: &Tokenizer, ids: &[u32], skip_special: bool) -> String {
    let mut decoder = StreamDecoder::new(skip_special);
    let mut text = String::new();
    for id in ids {
        text += decoder.push(tokenizer, *id).unwrap();
    }
    text + decoder.finish()
}

fn check(name: &str) {
    let goldens = goldens();
    let golden = &goldens["tokenizers"][name];
    let Some(path) = shared_data(golden["path"].as_str().unwrap()) else { return };
    let tokenizer = Tokenizer::from_tokenizer_json(&std::fs::read(path).unwrap(), None).unwrap();
    let texts = goldens["texts"].as_array().unwrap();
    assert!(texts.len() > 60);
    for (text, case) in texts.iter().zip(golden["cases"].as_array().unwrap()) {
        let text = text.as_str().unwrap();
        let expected = ids(&case["ids"]);
        assert_eq!(tokenizer.encode(text, false, true).unwrap(), expected, "{name}: {text:?}");
        let literal = case.get("literal").map_or(expected.clone(), ids);
        assert_eq!(tokenizer.encode(text, false, false).unwrap(), literal, "{name}, literally: {text:?}");
        let decoded = case.get("decoded").map_or(text, |text| text.as_str().unwrap());
        assert_eq!(tokenizer.decode(&expected, false).unwrap(), decoded, "{name}, decoded");
        assert_eq!(streamed(&tokenizer, &expected, false), decoded, "{name}, streamed");
        let visible: Vec<u32> = expected.iter().copied().filter(|id| !tokenizer.is_special(*id)).collect();
        assert_eq!(
            tokenizer.decode(&expected, true).unwrap(),
            tokenizer.decode(&visible, false).unwrap(),
            "{name}, without special tokens"
        );
    }
}

#[test]
fn gpt_neox() {
    check("gpt-neox-20b");
}

#[test]
fn olmo() {
    check("olmo-dolma-v1_5");
}

#[test]
fn molmoe() {
    check("molmoe-1b");
}

#[test]
fn demo() {
    check("demo");
}

/// The same vocabulary in both kinds of file; the GGUF one says nothing of NFC, so only texts already in it count.
#[test]
fn gpt_neox_from_gguf_is_gpt_neox_from_json() {
    let goldens = goldens();
    let golden = &goldens["tokenizers"]["gpt-neox-20b"];
    let Some(tokenizer) = shared_gguf("tokenizers/ggml-vocab-gpt-neox.gguf") else { return };
    let mut compared = 0;
    for (text, case) in goldens["texts"].as_array().unwrap().iter().zip(golden["cases"].as_array().unwrap()) {
        if case.get("decoded").is_none() {
            let text = text.as_str().unwrap();
            assert_eq!(tokenizer.encode(text, false, true).unwrap(), ids(&case["ids"]), "{text:?}");
            compared += 1;
        }
    }
    assert!(compared > 55, "{compared}");
}

#[test]
fn roles_come_from_the_config() {
    let Some(dir) = shared_data("configs/molmoe-1b/tokenizer") else { return };
    let tokenizer = Tokenizer::from_hf_dir(dir).unwrap();
    assert_eq!(
        (tokenizer.bos(), tokenizer.eos()),
        (None, Some(50279)),
        "the config's null counts before the map"
    );
    assert_eq!(tokenizer.end_of_turn_ids(), [50279, 50281]);
    assert_eq!(tokenizer.kind(), "byte-level BPE (tokenizer.json)");
    assert!(tokenizer.is_special(50279) && !tokenizer.is_special(50278));
}
