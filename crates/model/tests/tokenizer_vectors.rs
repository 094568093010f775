//! Ids that llama.cpp gives for its test texts, for every vocabulary that the shared data holds.
#![allow(clippy::unwrap_used)]

mod support;

use support::{shared_data, shared_gguf};

/// `(text, ids)` of `ggml-vocab-<name>.gguf.inp` and `.out`.
fn vectors(name: &str) -> Option<Vec<(String, Vec<u32>)>> {
    let read = |suffix: &str| {
        let path = shared_data(&format!("tokenizers/ggml-vocab-{name}.gguf.{suffix}"))?;
        Some(std::fs::read_to_string(path).unwrap())
    };
    let (texts, ids) = (read("inp")?, read("out")?);
    // A separator also ends the last text.
    let separator = "\n__ggml_vocab_test__\n";
    let texts: Vec<String> = texts.trim_end_matches(separator).split(separator).map(str::to_string).collect();
    let ids: Vec<Vec<u32>> =
        ids.lines().map(|line| line.split_whitespace().map(|id| id.parse().unwrap()).collect()).collect();
    assert_eq!(texts.len(), ids.len(), "{name}");
    Some(texts.into_iter().zip(ids).collect())
}

fn check(name: &str, prefix_space: bool) {
    let file = format!("tokenizers/ggml-vocab-{name}.gguf");
    let (Some(tokenizer), Some(vectors)) = (shared_gguf(&file), vectors(name)) else { return };
    assert!(vectors.len() > 40);
    for (text, expected) in vectors {
        let ids = tokenizer.encode(&text, false, false).unwrap();
        assert_eq!(ids, expected, "{name}: {text:?}");
        assert_eq!(tokenizer.decode(&ids, false).unwrap(), text, "{name}, decoded");
        let bytes: Vec<u8> =
            ids.iter().flat_map(|id| tokenizer.token_bytes(*id).unwrap().into_owned()).collect();
        let space = if prefix_space && !text.is_empty() { " " } else { "" };
        assert_eq!(bytes, format!("{space}{text}").into_bytes(), "{name}, byte for byte");
    }
}

#[test]
fn gpt_2() {
    check("gpt-2", false);
}

#[test]
fn mpt() {
    check("mpt", false);
}

#[test]
fn llama_spm() {
    check("llama-spm", true);
}

#[test]
fn phi_3() {
    check("phi-3", true);
}

/// Only the vectors of these are in the shared data; they run as soon as somebody puts the vocabulary beside them.
#[test]
fn vocabularies_that_may_be_absent() {
    for name in ["llama-bpe", "qwen2", "deepseek-r1-qwen"] {
        check(name, false);
    }
}
