//! The binary on real files, from the arguments to the numbers: transformers' answers, caps, pipes and Ctrl-C.
#![allow(clippy::unwrap_used)] // helpers outside of #[test] too

mod common;

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::model::{change_json, copy, golden};
use common::{json, roofline, scratch, stdout};
use roofline_weights::{Checkpoint, blocks};
use serde_json::Value;

/// One golden folder of each family.
const FAMILIES: [&str; 6] =
    ["llama_rope_llama3", "qwen2_tied", "qwen3", "gpt_neox_sequential", "olmoe_64_experts", "mistral"];

fn facts(name: &str) -> Value {
    serde_json::from_slice(&fs::read(golden(name).join("golden.json")).unwrap()).unwrap()
}

fn list(ids: &Value) -> String {
    let ids: Vec<String> = ids.as_array().unwrap().iter().map(|id| id.to_string()).collect();
    ids.join(",")
}

fn floats(file: &Path, tensor: &str) -> Vec<f32> {
    let checkpoint = Checkpoint::open_safetensors(file).unwrap();
    let view = checkpoint.tensor(tensor).unwrap();
    let mut values = vec![0.0; view.weights()];
    blocks::decode(view.format, view.bytes, &mut values).unwrap();
    values
}

#[test]
fn logits_and_greedy_text_are_those_of_transformers() {
    for name in FAMILIES {
        let (folder, facts) = (golden(name), facts(name));
        let (model, prompt) = (folder.to_str().unwrap(), list(&facts["prompt"]));
        let file = scratch(&format!("logits-{name}.safetensors"));
        let expected = floats(&folder.join("golden.safetensors"), "logits"); // (prompt, vocab)
        let tolerance = if name == "qwen2_tied" { 1e-3 } else { 1e-4 }; // bf16 weights there
        for (isa, extra) in [("", ["--threads", "2"]), ("scalar", ["--chunk", "5"])] {
            let path = file.to_str().unwrap();
            let mut command = roofline(&["logits", model, "--tokens", &prompt, "--output", path]);
            assert!(command.args(extra).env("ROOFLINE_ISA", isa).output().unwrap().status.success());
            let found = floats(&file, "logits");
            let furthest = found.iter().zip(&expected).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max);
            assert_eq!(found.len(), expected.len());
            assert!(furthest <= tolerance, "{name} {isa}: {furthest:e}");
        }
        let n = facts["continuation"].as_array().unwrap().len().to_string();
        for extra in [&["--threads", "1"][..], &["--cache", "static:128", "--chunk", "3"]] {
            let arguments = [
                "run",
                model,
                "--tokens",
                &prompt,
                "-n",
                &n,
                "--greedy",
                "--exact",
                "--kv-type",
                "f32",
                "--json",
            ];
            let run = json(&[&arguments[..], extra].concat());
            assert_eq!(run["generated_ids"], facts["continuation"], "{name} {extra:?}");
        }
    }
}

#[test]
fn a_gguf_file_says_what_its_folder_says() {
    for name in ["llama_rope_llama3", "qwen3", "gpt_neox_sequential", "olmoe"] {
        let (file, facts) = (golden(name).join("model.gguf"), facts(name));
        let prompt = list(&facts["prompt"]);
        let arguments = ["run", file.to_str().unwrap(), "--tokens", &prompt, "-n", "28", "--kv-type", "f32"];
        let run = json(&[&arguments[..], &["--greedy", "--ignore-eos", "--json"]].concat());
        assert_eq!(run["generated_ids"], facts["continuation"], "{name}");
    }
}

/// `max_new_tokens` is a stop rule: an answer that ends by itself costs the same under any cap, byte for byte.
#[test]
fn the_cap_on_new_tokens_sizes_nothing() {
    let facts = facts("qwen3");
    let answer = &facts["continuation"].as_array().unwrap()[..9];
    assert!(!answer[..8].contains(&answer[8]), "the ninth token has to be new to end the text");
    let folder = copy("qwen3", "nine-tokens");
    change_json(&folder.join("generation_config.json"), |json| json["eos_token_id"] = answer[8].clone());
    let prompt = list(&facts["prompt"]);
    let arguments =
        ["run", folder.to_str().unwrap(), "--tokens", &prompt, "--greedy", "--kv-type", "f32", "--json"];
    let [few, many] = ["16", "4096"].map(|cap| json(&[&arguments[..], &["-n", cap]].concat()));
    assert_eq!(few["finish_reason"], "eos");
    assert_eq!(few["generated_ids"].as_array().unwrap()[..], *answer);
    for key in ["generated_ids", "finish_reason", "kv_bytes"] {
        assert_eq!(few[key], many[key], "{key}");
    }
    for stage in ["prefill_operators", "decode_operators"] {
        let costs = |run: &Value| -> Vec<Value> {
            let mut operators = run[stage].as_array().unwrap().clone();
            operators
                .iter_mut()
                .for_each(|operator| drop(operator.as_object_mut().unwrap().remove("seconds")));
            operators
        };
        assert!(!costs(&few).is_empty());
        assert_eq!(costs(&few), costs(&many), "{stage}");
    }
}

#[test]
fn an_end_token_that_does_not_exist_is_noted() {
    let folder = copy("llama_mha", "eos-outside");
    for file in ["config.json", "generation_config.json"] {
        change_json(&folder.join(file), |json| json["eos_token_id"] = 100_000.into());
    }
    let run = json(&["run", folder.to_str().unwrap(), "--tokens", "1,2,3", "-n", "2", "--json"]);
    let notes = run["notes"].to_string();
    assert!(notes.contains("end token 100000") && notes.contains("vocabulary of 72"), "{notes}");
    assert!(notes.contains("no end token is known"), "{notes}");
}

#[test]
fn a_reader_who_leaves_ends_the_program_quietly() {
    let mut child = roofline(&["run", "demo", "-p", "It was", "-n", "100000", "--ignore-eos"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdout.take().unwrap().read_exact(&mut [0; 3]).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// What the sender of Ctrl-C does.
#[cfg(unix)]
fn interrupt(child: &Child) {
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_a_text_and_reports_what_is_there() {
    let mut child = roofline(&["run", "demo", "-p", "It was", "-n", "100000", "--ignore-eos"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = child.stdout.take().unwrap();
    out.read_exact(&mut [0; 1]).unwrap();
    interrupt(&child);
    let mut text = String::new();
    out.read_to_string(&mut text).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(text.ends_with('\n'));
    assert!(String::from_utf8(output.stderr).unwrap().contains("cancelled"));
}

#[cfg(unix)]
#[test]
fn ctrl_c_leaves_no_part_of_an_output_file() {
    let folder = scratch("interrupted");
    let _ = fs::remove_dir_all(&folder); // of an earlier run
    fs::create_dir_all(&folder).unwrap();
    let ids = vec!["5"; 2048].join(",");
    let output = folder.join("logits.safetensors");
    let arguments = ["logits", "demo", "--tokens", &ids, "--threads", "1", "--chunk", "1", "--output"];
    let child = roofline(&arguments)
        .arg(&output)
        .env("ROOFLINE_ISA", "scalar") // long enough to be interrupted
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while fs::read_dir(&folder).unwrap().count() == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    interrupt(&child);
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(130));
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
}

fn chat(arguments: &[&str]) -> Child {
    roofline(&[&["chat", "demo"], arguments].concat())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[cfg(unix)]
#[test]
fn ctrl_c_stops_an_answer_and_keeps_the_conversation() {
    let mut child = chat(&["-n", "100000"]);
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"Tell me a long story\n").unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 1]).unwrap();
    interrupt(&child);
    input.write_all(b"/stats\n/quit\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("(stopped)") || said.contains("finished by"), "{said}");
    assert!(said.contains("finished by"), "{said}");
}

#[test]
fn a_conversation_survives_what_cannot_be_done() {
    let saved = scratch("conversation.json");
    let mut child = chat(&["-n", "3", "--greedy"]);
    let lines = [
        "/save /no/such/folder/x.json".to_string(),
        "word ".repeat(5000),
        "/nonsense".to_string(),
        "Hello".to_string(),
        format!("/save {}", saved.display()),
    ];
    child.stdin.take().unwrap().write_all(lines.join("\n").as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    for word in [
        "/no/such/folder/x.json: ",
        "exceed the context of 2048",
        "this turn is dropped",
        "no command /nonsense",
    ] {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
    let kept: Value = serde_json::from_slice(&fs::read(saved).unwrap()).unwrap();
    let roles: Vec<&str> = kept["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|message| message["role"].as_str().unwrap())
        .collect();
    assert_eq!(roles, ["user", "assistant"]);
}

#[test]
fn a_link_as_output_is_written_through() {
    if cfg!(not(unix)) {
        return println!("skipped: links are a matter of Unix");
    }
    let (target, link) = (scratch("link-target.safetensors"), scratch("link.safetensors"));
    let _ = fs::remove_file(&link); // of an earlier run
    fs::write(&target, "old").unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink(&target, &link).unwrap();
    stdout(&["logits", "demo", "-p", "It was", "--output", link.to_str().unwrap()]);
    assert!(link.is_symlink());
    assert!(!floats(&target, "logits").is_empty());
}
