//! `roofline inspect` and `roofline tokenize` on the model inside of the program.
#![allow(clippy::unwrap_used)] // helpers outside of #[test] too

mod common;

use std::io::Write;
use std::process::Stdio;

use common::{complaint, json, roofline, scratch, stdout};

#[test]
fn a_text_comes_back_from_its_ids() {
    let text = "Once upon a time, héllo 🦀\n\tend";
    let there = json(&["tokenize", "demo", text, "--json"]);
    assert_eq!(there["text"], text);
    let ids: Vec<String> = there["ids"].as_array().unwrap().iter().map(|id| id.to_string()).collect();
    let back = json(&["tokenize", "demo", "--ids", &ids.join(","), "--json"]);
    assert_eq!(back["text"], text);
    let bytes: Vec<u8> = there["tokens"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|token| token["bytes"].as_array().unwrap())
        .map(|byte| u8::try_from(byte.as_u64().unwrap()).unwrap())
        .collect();
    assert_eq!(String::from_utf8(bytes).unwrap(), text);
}

#[test]
fn control_tokens_are_text_unless_asked_for() {
    let n = |extra: &[&str]| {
        let arguments = [&["tokenize", "demo", "<|endoftext|>", "--json"], extra].concat();
        json(&arguments)["ids"].as_array().unwrap().len()
    };
    assert!(n(&[]) > 1);
    assert_eq!(n(&["--parse-special"]), 1);
    assert!(stdout(&["tokenize", "demo", "<|endoftext|>", "--parse-special"]).contains("control"));
}

#[test]
fn the_text_may_come_from_a_pipe() {
    let mut child =
        roofline(&["tokenize", "demo", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"Once upon").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(String::from_utf8(output.stdout).unwrap().contains("9 characters"));
}

#[test]
fn what_cannot_be_tokenized_is_refused() {
    assert!(complaint(&["tokenize", "demo"]).contains("<TEXT>"));
    assert!(complaint(&["tokenize", "demo", "--ids", "1,x"]).contains("`x` is no token id"));
    assert!(complaint(&["tokenize", "demo", "--ids", "99999999"]).contains("99999999"));
    assert!(complaint(&["tokenize", "no/such/model", "x"]).contains("no/such/model"));
}

#[test]
fn the_demo_model_is_described() {
    let page = stdout(&["inspect", "demo"]);
    for word in
        ["5,573,888", "bits per weight", "model.layers.*.mlp.up_proj.weight", "byte-level BPE", "Kernels"]
    {
        assert!(page.contains(word), "{word} is missing in:\n{page}");
    }
    let every = stdout(&["inspect", "demo", "--tensors"]);
    assert!(every.contains("model.layers.3.mlp.up_proj.weight"));
}

#[test]
fn the_facts_agree_with_one_another() {
    let facts = json(&["inspect", "demo", "--json"]);
    let configuration = &facts["configuration"];
    let n = |key: &str| configuration[key].as_u64().unwrap();
    // K and V of every layer and KV head in two bytes.
    let kv = 2 * 2 * n("n_layers") * n("n_kv_heads") * n("head_dim");
    assert_eq!(facts["kv_bytes_per_token"][0]["bytes"], kv);
    let tensors = facts["tensors"].as_array().unwrap();
    let stored: u64 = tensors.iter().map(|tensor| tensor["bytes"].as_u64().unwrap()).sum();
    assert_eq!(facts["weight_bytes"], stored);
    let weights = stored as f64 * 8.0 / facts["bits_per_weight"].as_f64().unwrap();
    assert_eq!(weights, facts["parameters"]["total"].as_f64().unwrap());
}

#[test]
fn a_narrower_instruction_set_is_shown_with_its_reason() {
    let output = roofline(&["inspect", "demo", "--json"]).env("ROOFLINE_ISA", "scalar").output().unwrap();
    let facts: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(facts["kernels"]["isa"], "scalar");
    assert!(["abreast", "in line"].map(Some).contains(&facts["kernels"]["decode_walk"].as_str()));
    let choices = facts["kernels"]["choices"].as_array().unwrap();
    assert!(choices.iter().all(|choice| choice["chosen"] == "scalar"));
    assert!(choices.iter().any(|choice| !choice["skipped"].as_array().unwrap().is_empty()));
    let output = roofline(&["inspect", "demo"]).env("ROOFLINE_ISA", "mmx").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().starts_with("roofline: ROOFLINE_ISA: "));
}

#[test]
fn what_is_no_model_is_refused() {
    let folder = scratch("empty-folder");
    std::fs::create_dir_all(&folder).unwrap();
    assert!(complaint(&["inspect", folder.to_str().unwrap()]).contains("config.json"));
    let file = scratch("broken.gguf");
    std::fs::write(&file, b"GGUF\x03\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff").unwrap();
    assert!(complaint(&["inspect", file.to_str().unwrap()]).contains("broken.gguf"));
}
