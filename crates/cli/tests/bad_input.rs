//! Input that cannot be right: one line that names the offender, exit code 2, nothing on stdout, no file left behind.
#![allow(clippy::unwrap_used)] // helpers outside of #[test] too

mod common;

use std::fs;
use std::path::Path;

use common::model::{change_json, change_tensors, copy, golden, offsets};
use common::{complaint, roofline, run, scratch};
use serde_json::json;

/// The complaint of `roofline logits` about a model.
fn refusal(model: &Path) -> String {
    complaint(&["logits", model.to_str().unwrap(), "--tokens", "1,2,3", "--threads", "1"])
}

fn assert_says(complaint: &str, words: &[&str]) {
    for word in words {
        assert!(complaint.contains(word), "{word:?} is not in: {complaint}");
    }
}

#[test]
fn prompts_that_are_none() {
    let model = golden("llama_mha");
    let model = model.to_str().unwrap();
    let run = |ids: &str| complaint(&["run", model, "--tokens", ids]);
    assert_says(&run(""), &["--tokens", "1,2,3"]);
    assert_says(&run("1,x"), &["`x` is no token id"]);
    assert_says(&run("1,2,"), &["`` is no token id"]);
    assert_says(&run("4294967296"), &["4294967296"]);
    assert_says(&run("1,72"), &["token id 72 at position 1", "vocabulary of 72"]);
    assert_says(&complaint(&["run", "demo", "-p", ""]), &["the prompt is empty"]);
    assert_says(&complaint(&["run", "demo", "-"]), &["the prompt is empty"]);
    assert_says(&complaint(&["run", "demo"]), &["-p TEXT"]);
    assert_says(&complaint(&["run", model, "-p", "hello"]), &["has no tokenizer", "--tokens"]);
    assert_says(&complaint(&["chat", model]), &["has no tokenizer"]);
    let file = scratch("not-utf8.txt");
    fs::write(&file, b"caf\xe9").unwrap();
    assert_says(
        &complaint(&["run", "demo", "--prompt-file", file.to_str().unwrap()]),
        &["UTF-8", "not-utf8.txt"],
    );
    assert_says(&complaint(&["run", "demo", "--prompt-file", "no/such.txt"]), &["no/such.txt"]);
}

#[test]
fn a_prompt_longer_than_the_context_is_refused_with_the_numbers() {
    let (model, file) = (golden("llama_mha"), scratch("too-long.safetensors"));
    let (model, path) = (model.to_str().unwrap(), file.to_str().unwrap());
    let long = vec!["3"; 129].join(",");
    assert_says(&complaint(&["run", model, "--tokens", &long]), &["129 tokens", "context of 128"]);
    assert_says(&complaint(&["logits", model, "--tokens", &long, "--output", path]), &["129 tokens"]);
    assert!(!file.exists());
    let short = complaint(&["run", model, "--tokens", "1,2,3,4,5", "--context", "4"]);
    assert_says(&short, &["5 tokens", "context of 4", "--context", "128"]);
}

#[test]
fn options_out_of_range() {
    let model = golden("llama_mha");
    let with = |name: &str, value: &str| {
        complaint(&["run", model.to_str().unwrap(), "--tokens", "1,2,3", &format!("{name}={value}")])
    };
    for value in ["0", "129", "-1", "x"] {
        assert_says(&with("--context", value), &[value]);
    }
    for value in ["0", "99999", "-1", "x", ""] {
        assert_says(&with("--threads", value), &["--threads", value]);
    }
    for value in ["nonsense", "", "full:1", "static", "static:0", "static:-1", "static:99999999999999999999"]
    {
        assert_says(&with("--cache", value), &["--cache", &format!("`{value}`"), "static:"]);
    }
    // A reservation beyond any memory is refused with its size, and the size does not wrap around.
    for (tokens, bytes) in
        [("1000000000000", "256000000000000"), ("18446744073709551615", "18446744073709551615")]
    {
        assert_says(&with("--cache", &format!("static:{tokens}")), &["no memory", bytes]);
    }
    assert_says(&with("--cache", "static:2"), &["static:2", "3 more"]);
    assert_says(&with("--kv-type", "q8"), &["--kv-type", "`q8`", "did you mean q8_0?"]);
    assert_says(&with("--kv-type", "k=i8,v=f61"), &["--kv-type", "`f61`", "did you mean f16?"]);
    assert_says(&with("--kv-type", "k=i8"), &["--kv-type", "`k=i8`", "k=i8,v=f16"]);
    assert_says(&with("--chunk", "0"), &["chunk 0"]);
    assert_says(&with("--stop", ""), &["--stop"]);
    assert_says(&with("--temperature", "-1"), &["temperature", "-1"]);
    assert_says(&with("--temperature", "nan"), &["temperature", "NaN"]);
    assert_says(&with("--top-p", "1.5"), &["top_p", "1.5"]);
    assert_says(&with("--repetition-penalty", "0"), &["repetition_penalty"]);
    assert_says(&with("--logit-bias", "72=1"), &["72", "71"]);
    assert_says(&with("--chain", "foo"), &["foo", "temperature"]);
    let isa = roofline(&["run", "demo", "-p", "x"]).env("ROOFLINE_ISA", "sse9").output().unwrap();
    assert_eq!(isa.status.code(), Some(2));
    assert_says(&String::from_utf8(isa.stderr).unwrap(), &["ROOFLINE_ISA", "sse9", "scalar"]);
}

#[test]
fn paths_that_are_no_model() {
    let nowhere = scratch("no-such-model");
    assert_says(&refusal(&nowhere), &["no-such-model", "config.json", ".gguf"]);
    let empty = scratch("empty-folder");
    fs::create_dir_all(&empty).unwrap();
    assert_says(&refusal(&empty), &["there is no config.json"]);
    for (name, content) in [("text.gguf", "hello"), ("empty.gguf", ""), ("magic.gguf", "GGUF")] {
        let file = scratch(name);
        fs::write(&file, content).unwrap();
        assert_says(&refusal(&file), &[name]);
    }
    assert_says(&refusal(&golden("llama_mha").join("config.json")), &["neither a folder nor a .gguf file"]);
}

/// Opening a pipe waits for its writer: `roofline run x.gguf` hung where x.gguf is one.
#[cfg(unix)]
#[test]
fn a_pipe_in_the_place_of_a_file_is_refused_not_waited_for() {
    let folder = copy("llama_mha", "pipe-weights");
    let pipe = folder.join("pipe.gguf");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    assert_says(&refusal(&pipe), &["regular file"]);
    fs::rename(&pipe, folder.join("generation_config.json")).unwrap();
    assert_says(&refusal(&folder), &["generation_config.json", "regular file"]);
}

#[cfg(unix)]
#[test]
fn links_to_nowhere_are_named() {
    use std::os::unix::fs::symlink;
    for file in ["config.json", "generation_config.json", "model.safetensors"] {
        let folder = copy("llama_mha", &format!("dangling-{file}"));
        fs::remove_file(folder.join(file)).unwrap();
        symlink("/no/such/blob", folder.join(file)).unwrap();
        assert_says(&refusal(&folder), &[file, "not there"]);
    }
}

#[test]
fn weight_files_that_are_cut_or_grown() {
    let folder = copy("llama_mha", "cut-weights");
    let file = folder.join("model.safetensors");
    let whole = fs::read(&file).unwrap();
    for length in [0, 1, 8, 9, 1000, whole.len() / 2, whole.len() - 1] {
        fs::write(&file, &whole[..length]).unwrap();
        assert_says(&refusal(&folder), &["model.safetensors"]);
    }
    fs::write(&file, [&whole[..], b"xx"].concat()).unwrap();
    assert_says(&refusal(&folder), &["belong to no tensor"]);
    fs::remove_file(&file).unwrap();
    assert_says(&refusal(&folder), &["model.safetensors.index.json"]);

    let whole = fs::read(golden("qwen3").join("model.gguf")).unwrap();
    let file = scratch("cut.gguf");
    for length in (0..whole.len()).step_by(whole.len() / 23).chain([3, 8, 23, whole.len() - 1]) {
        fs::write(&file, &whole[..length]).unwrap();
        assert_says(&refusal(&file), &["cut.gguf"]);
    }
}

const DOWN: &str = "model.layers.0.mlp.down_proj.weight";

/// What happens to the header and the data of a safetensors file.
type Change<'a> = &'a dyn Fn(&mut serde_json::Value, &mut Vec<u8>);

#[test]
fn tensors_that_do_not_fit_are_named() {
    let cases: [(&str, Change<'_>, &[&str]); 7] = [
        (
            "renamed",
            &|h, _| rename(h, DOWN, "foo.weight"),
            &["1 missing: model.layers.0.mlp.down_proj.weight", "1 unexpected: foo.weight"],
        ),
        ("reshaped", &|h, _| h[DOWN]["shape"] = json!([48, 32]), &[DOWN, "[48, 32]", "[32, 48]"]),
        ("misshapen", &|h, _| h[DOWN]["shape"] = json!([32, 47]), &[DOWN, "[32, 47]"]),
        ("overflowing", &|h, _| h[DOWN]["shape"] = json!([1u64 << 32, 1u64 << 32]), &[DOWN, "64 bits"]),
        ("backwards", &|h, _| h[DOWN]["data_offsets"] = json!([5, 1]), &[DOWN, "[5, 1]"]),
        ("outside", &|h, _| h[DOWN]["data_offsets"] = json!([0, u64::MAX]), &[DOWN]),
        ("halved", &|h, _| h[DOWN]["dtype"] = json!("F16"), &[DOWN, "F16"]),
    ];
    for (name, change, words) in cases {
        let folder = copy("llama_mha", &format!("tensors-{name}"));
        change_tensors(&folder.join("model.safetensors"), |header, data| change(header, data));
        assert_says(&refusal(&folder), words);
    }
}

fn rename(header: &mut serde_json::Value, from: &str, to: &str) {
    let tensor = header.as_object_mut().unwrap().remove(from).unwrap();
    header[to] = tensor;
}

/// It was reported as a missing tensor.
#[test]
fn a_tensor_in_a_format_that_is_not_read_is_named_with_its_format() {
    let folder = copy("llama_mha", "format-f64");
    change_tensors(&folder.join("model.safetensors"), |header, data| {
        let norm = "model.norm.weight";
        let (start, end) = offsets(header, norm);
        assert_eq!(end, data.len(), "the last tensor, so that it can grow");
        header[norm]["dtype"] = json!("F64");
        header[norm]["data_offsets"] = json!([start, end + (end - start)]);
        data.resize(end + (end - start), 0);
    });
    assert_says(&refusal(&folder), &["model.norm.weight", "F64", "supported are f32"]);
}

/// An embedding that is not the output head too is looked up, not packed, and nothing had looked at its numbers.
#[test]
fn a_nan_is_named_in_whichever_tensor_it_stands() {
    for (base, nan) in
        [("llama_mha", &f32::NAN.to_le_bytes()[..]), ("llama_bf16", &[0xc0, 0x7f]), ("llama_f16", &[0, 0xfc])]
    {
        let names = [
            "model.embed_tokens.weight",
            "lm_head.weight",
            "model.norm.weight",
            "model.layers.1.self_attn.v_proj.weight",
        ];
        for (index, name) in names.iter().enumerate() {
            let folder = copy(base, &format!("nan-{base}-{index}"));
            change_tensors(&folder.join("model.safetensors"), |header, data| {
                let (_, end) = offsets(header, name);
                data[end - nan.len()..end].copy_from_slice(nan);
            });
            assert_says(&refusal(&folder), &[name, if base == "llama_f16" { "inf" } else { "NaN" }]);
        }
    }
}

#[test]
fn shards_that_do_not_fit_their_index() {
    let index = "model.safetensors.index.json";
    let head = |shard: serde_json::Value| {
        let folder = copy("llama_sharded", "bad-shards");
        change_json(&folder.join(index), |json| json["weight_map"]["lm_head.weight"] = shard);
        refusal(&folder)
    };
    for shard in [json!("../x.safetensors"), json!("/etc/passwd"), json!(""), json!("none.safetensors")] {
        assert_says(&head(shard.clone()), &[index, shard.as_str().unwrap(), "lm_head.weight"]);
    }
    assert_says(&head(json!(3)), &[index, "integer `3`"]);
    let folder = copy("llama_sharded", "no-shard");
    fs::remove_file(folder.join("model-00002-of-00003.safetensors")).unwrap();
    assert_says(&refusal(&folder), &["model-00002-of-00003.safetensors"]);
}

#[test]
fn side_files_that_are_broken_are_named() {
    for (file, content, word) in [
        ("config.json", "", "not a JSON object"),
        ("config.json", "[]", "not a JSON object"),
        ("config.json", "{\"a\":", "not a JSON object"),
        ("generation_config.json", "{\"temperature\": \"hot\"}", "temperature"),
        ("generation_config.json", "nonsense", "generation_config.json"),
        ("tokenizer.json", "{}", "tokenizer.json"),
        ("tokenizer.json", "{\"model\": 3}", "tokenizer.json"),
        ("tokenizer_config.json", "{", "tokenizer_config.json"),
    ] {
        let folder = copy("llama_gqa_tied", "side-files");
        fs::write(folder.join(file), content).unwrap();
        assert_says(&refusal(&folder), &[word]);
    }
    let folder = copy("llama_gqa_tied", "deep-config");
    fs::write(folder.join("config.json"), "[".repeat(100_000)).unwrap();
    assert_says(&refusal(&folder), &["config.json"]);
}

/// Outputs that cannot be written leave nothing, and what stands in their place stays: a device was replaced by a file.
#[test]
fn outputs_that_cannot_be_written() {
    let folder = scratch("outputs");
    fs::create_dir_all(&folder).unwrap();
    let write = |path: &str| complaint(&["logits", "demo", "-p", "x", "--output", path]);
    assert_says(&write(folder.to_str().unwrap()), &["--output", "a folder"]);
    assert_says(&write(folder.join("no/such/folder/x").to_str().unwrap()), &["--output", "no/such/folder"]);
    assert_says(&write(""), &["--output"]);
    assert_says(&write(".."), &["--output", "a folder"]);
    if cfg!(unix) {
        let pipe = folder.join("pipe");
        let _ = fs::remove_file(&pipe);
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert_says(&write(pipe.to_str().unwrap()), &["no regular file"]);
        fs::remove_file(pipe).unwrap();
    }
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
}

/// `eprintln!` panics there.
#[cfg(target_os = "linux")]
#[test]
fn a_full_or_closed_stderr_is_no_reason_to_panic() {
    let full = || fs::File::options().write(true).open("/dev/full").unwrap();
    let ok = roofline(&["run", "demo", "-p", "It was", "-n", "2"]).stderr(full()).status().unwrap();
    assert_eq!(ok.code(), Some(0));
    let bad = roofline(&["run", "no/such/model", "-p", "x"]).stderr(full()).status().unwrap();
    assert_eq!(bad.code(), Some(2));
    let unsaid = roofline(&["run", "demo", "-p", "It was", "-n", "2"]).stdout(full()).output().unwrap();
    assert_eq!(unsaid.status.code(), Some(2));
    assert_says(&String::from_utf8(unsaid.stderr).unwrap(), &["cannot write the output"]);
}

#[cfg(unix)]
#[test]
fn an_argument_that_is_no_text_is_refused() {
    use std::os::unix::ffi::OsStrExt;
    let bytes = std::ffi::OsStr::from_bytes(b"caf\xe9");
    let output = roofline(&["run", "demo", "-p"]).arg(bytes).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_says(&String::from_utf8(output.stderr).unwrap(), &["UTF-8"]);
}

/// Every key of a configuration with every wrong value, through the whole program: refused in one line, or run.
#[test]
fn no_change_of_a_configuration_ends_in_anything_but_an_answer_or_a_complaint() {
    let values =
        [json!(0), json!(-1), json!(1.5), json!("x"), json!([]), json!(33), json!(u64::MAX), json!(1e300)];
    for base in ["llama_rope_llama3", "gpt_neox_parallel", "olmoe"] {
        let folder = copy(base, &format!("mutated-{base}"));
        let file = folder.join("config.json");
        let original = fs::read(&file).unwrap();
        let config: serde_json::Value = serde_json::from_slice(&original).unwrap();
        let inert = [
            "_dropout",
            "_range",
            "_version",
            "architectures",
            "dtype",
            "pad_token_id",
            "use_cache",
            "pretraining_tp",
        ];
        let keys =
            config.as_object().unwrap().keys().filter(|key| !inert.iter().any(|end| key.ends_with(end)));
        for (index, key) in keys.enumerate() {
            let value = &values[index % values.len()]; // one each: the model crate's tests try them all
            change_json(&file, |json| json[key] = value.clone());
            let output = run(&["logits", folder.to_str().unwrap(), "--tokens", "1,2,3", "--threads", "1"]);
            let stderr = String::from_utf8(output.stderr).unwrap();
            match output.status.code() {
                Some(0) => {}
                Some(2) => assert!(
                    output.stdout.is_empty()
                        && stderr.lines().count() == 1
                        && stderr.starts_with("roofline: "),
                    "{base}: {key} = {value}: {stderr}"
                ),
                other => panic!("{base}: {key} = {value} ends with {other:?}: {stderr}"),
            }
            fs::write(&file, &original).unwrap();
        }
    }
}
