//! Models written as GGUF: every golden folder against the file that the script beside it wrote, every type against the codec, and
//! what cannot be done refused by name.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests

mod convert_support;

use std::fs;
use std::ops::ControlFlow;

use convert_support::{GOLDEN, copy_of, folder, golden_folders, options, quantized};
use roofline_lab::convert::{ConvertError, quantize};
use roofline_limits::Recipe;
use roofline_model::tokenizer::Tokenizer;
use roofline_model::{ModelConfig, TensorPlan};
use roofline_weights::gguf::{Array, Value};
use roofline_weights::{Checkpoint, Format, blocks};

#[test]
fn golden_folders_become_the_golden_files() {
    let out = folder("golden");
    let mut seen = 0;
    for golden in golden_folders().filter(|golden| golden.join("model.gguf").exists()) {
        seen += 1;
        let path = out.join("model.gguf");
        quantize(&golden, &path, &options("f32"), |_| ControlFlow::Continue(())).unwrap();
        let (ours, expected) = (
            Checkpoint::open_gguf(&path).unwrap(),
            Checkpoint::open_gguf(golden.join("model.gguf")).unwrap(),
        );
        assert_eq!(ours.tensors().count(), expected.tensors().count(), "{}", golden.display());
        for tensor in expected.tensors() {
            let found = ours.tensor(tensor.name).unwrap_or_else(|| panic!("{} is missing", tensor.name));
            assert_eq!((found.format, found.shape), (tensor.format, tensor.shape), "{}", tensor.name);
            assert!(found.bytes == tensor.bytes, "{}: {} differs", golden.display(), tensor.name);
        }
        for (key, value) in expected.gguf().unwrap().metadata.iter() {
            let found = ours.gguf().unwrap().metadata.get(key);
            assert_eq!(found, Some(value), "{}: {key}", golden.display());
        }
        fs::remove_file(path).unwrap();
    }
    assert!(seen >= 10);
}

#[test]
fn every_golden_folder_opens_again_as_the_same_model() {
    let out = folder("again");
    for golden in golden_folders() {
        let path = out.join("model.gguf");
        let written = quantize(&golden, &path, &options("f32"), |_| ControlFlow::Continue(()));
        if golden.ends_with("llama_gelu") {
            // Readers of the architecture would take silu.
            assert!(matches!(written, Err(ConvertError::NotExpressible { .. })));
            continue;
        }
        written.unwrap();
        let file = Checkpoint::open_gguf(&path).unwrap();
        let config = ModelConfig::from_gguf(file.gguf().unwrap(), "model.gguf").unwrap();
        let plan = TensorPlan::gguf(&config);
        let present: Vec<_> = file.tensors().collect();
        plan.check(present.iter().map(|tensor| (tensor.name, tensor.shape))).unwrap();
        let text = fs::read_to_string(golden.join("config.json")).unwrap();
        let source = ModelConfig::from_config_json(&text, "config.json").unwrap();
        assert_eq!(config.context_length, source.context_length);
        assert_eq!((config.qk_norm, config.bias), (source.qk_norm, source.bias), "{}", golden.display());
        fs::remove_file(path).unwrap();
    }
}

#[test]
fn quantized_tensors_are_the_codec_s_and_a_second_pass_copies_them() {
    let out = folder("codec");
    let wide = copy_of("llama_gqa_tied", &out);
    for name in Recipe::names() {
        let (first, second) = (out.join(format!("{name}.gguf")), out.join("second.gguf"));
        let report = quantize(&wide, &first, &options(name), |_| ControlFlow::Continue(())).unwrap();
        let exact = quantized(&wide, "f32", &out.join("exact.gguf"));
        let file = Checkpoint::open_gguf(&first).unwrap();
        for (tensor, row) in file.tensors().zip(&report.tensors) {
            let original = exact.tensor(tensor.name).unwrap();
            let mut values = vec![0.0; original.weights()];
            blocks::decode(original.format, original.bytes, &mut values).unwrap();
            let mut expected = Vec::new();
            blocks::encode(tensor.format, &values, None, &mut expected).unwrap();
            assert!(tensor.bytes == expected, "{name}: {}", tensor.name);
            assert_eq!((row.name.as_str(), row.to), (tensor.name, tensor.format.name()));
            assert_eq!(row.bytes, expected.len() as u64);
            let mut decoded = vec![0.0; values.len()];
            blocks::decode(tensor.format, tensor.bytes, &mut decoded).unwrap();
            let largest =
                values.iter().zip(&decoded).map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max);
            assert!((row.largest_error - largest).abs() <= 1e-6 * largest, "{name}: {}", tensor.name);
            assert_eq!(row.relative_error == 0.0, largest == 0.0);
            if tensor.shape.len() == 1 {
                assert_eq!(tensor.format, Format::F32, "{}", tensor.name);
            }
        }
        let again = quantize(&first, &second, &options(name), |_| ControlFlow::Continue(())).unwrap();
        assert_eq!(again.relative_error, 0.0);
        assert!(fs::read(&first).unwrap() == fs::read(&second).unwrap(), "{name}: a copy differs");
        fs::remove_file(second).unwrap();
    }
}

#[test]
fn rows_too_narrow_for_the_type_are_said() {
    let out = folder("narrow");
    let golden = GOLDEN.join("llama_mha");
    let report =
        quantize(&golden, &out.join("m.gguf"), &options("q4_k_m"), |_| ControlFlow::Continue(())).unwrap();
    let of = |name: &str| {
        let tensor = report.tensors.iter().find(|tensor| tensor.name == name).unwrap();
        (tensor.to, tensor.instead_of)
    };
    assert_eq!(of("blk.0.attn_q.weight"), ("q5_0", Some("q4_k")));
    assert_eq!(of("output.weight"), ("q8_0", Some("q6_k")));
    assert_eq!(of("blk.0.attn_norm.weight"), ("f32", None));
}

#[test]
fn routers_stay_in_full() {
    let out = folder("router");
    for (golden, kind) in [("mixtral", "bf16"), ("olmoe", "q8_0")] {
        let file = quantized(&GOLDEN.join(golden), kind, &out.join("m.gguf"));
        assert_eq!(file.tensor("blk.0.ffn_gate_inp.weight").unwrap().format, Format::F32);
        assert_eq!(file.tensor("blk.0.ffn_gate_exps.weight").unwrap().shape.len(), 3);
    }
}

#[test]
fn the_tokenizer_of_the_file_is_that_of_the_folder() {
    let out = folder("tokenizer");
    let golden = GOLDEN.join("llama_gqa_tied");
    let file = quantized(&golden, "f32", &out.join("m.gguf"));
    let (ours, theirs) = (
        Tokenizer::from_gguf(&file.gguf().unwrap().metadata).unwrap(),
        Tokenizer::from_hf_dir(&golden).unwrap(),
    );
    for text in [
        "hello",
        " the other thing is 12345 apples",
        "it's café — naïve\n\n  done\t",
        "a<|eot_id|>b",
        "日本語",
    ] {
        for special in [false, true] {
            assert_eq!(
                ours.encode(text, special, special).unwrap(),
                theirs.encode(text, special, special).unwrap(),
                "{text:?}"
            );
        }
    }
    assert_eq!((ours.bos(), ours.eos()), (theirs.bos(), theirs.eos()));
}

#[test]
fn the_demo_model_keeps_its_tokenizer() {
    let Some(demo) = convert_support::demo() else { return };
    let out = folder("demo");
    let file = quantized(&demo, "q8_0", &out.join("m.gguf"));
    let metadata = &file.gguf().unwrap().metadata;
    assert_eq!(metadata.str("tokenizer.ggml.pre").unwrap(), "gpt-2");
    assert_eq!(metadata.u64("tokenizer.ggml.eos_token_id").unwrap(), 0);
    let (ours, theirs) = (Tokenizer::from_gguf(metadata).unwrap(), Tokenizer::from_hf_dir(&demo).unwrap());
    let text = "“It was the best of times,” she said; 1859 wasn't over.\n\n\tThe end   ";
    assert_eq!(ours.encode(text, false, false).unwrap(), theirs.encode(text, false, false).unwrap());
}

#[test]
fn metadata_of_a_gguf_are_kept() {
    let out = folder("kept");
    let first = out.join("a.gguf");
    drop(quantized(&GOLDEN.join("llama_gqa_tied"), "f32", &first));
    let before = Checkpoint::open_gguf(&first).unwrap();
    let after = quantized(&first, "q4_0", &out.join("b.gguf"));
    let (before, after) = (&before.gguf().unwrap().metadata, &after.gguf().unwrap().metadata);
    let changed: Vec<&str> =
        before.iter().filter(|(key, value)| after.get(key) != Some(value)).map(|(key, _)| key).collect();
    assert_eq!(changed, ["general.file_type"]);
    assert_eq!(after.u64("general.file_type").unwrap(), 2);
    assert!(matches!(after.get("tokenizer.ggml.tokens"), Some(Value::Array(Array::Str(_)))));
}

#[test]
fn quantizing_twice_is_refused_unless_asked_for() {
    let out = folder("twice");
    let first = out.join("q8.gguf");
    drop(quantized(&GOLDEN.join("llama_mha"), "q8_0", &first));
    let second = out.join("q4.gguf");
    let error = quantize(&first, &second, &options("q4_0"), |_| ControlFlow::Continue(())).unwrap_err();
    assert!(matches!(&error, ConvertError::Requantize { format: Format::Q8_0, .. }), "{error}");
    assert!(error.to_string().contains("--requantize"));
    let mut asked = options("q4_0");
    asked.requantize = true;
    quantize(&first, &second, &asked, |_| ControlFlow::Continue(())).unwrap();
    // Decoding loses nothing, so it needs no permission.
    quantize(&first, &out.join("f32.gguf"), &options("f32"), |_| ControlFlow::Continue(())).unwrap();
}

#[test]
fn nothing_is_left_when_it_is_called_off_or_fails() {
    let out = folder("left");
    let golden = GOLDEN.join("llama_mha");
    let path = out.join("m.gguf");
    let stopped = quantize(&golden, &path, &options("q8_0"), |_| ControlFlow::Break(()));
    assert!(matches!(stopped, Err(ConvertError::Cancelled)));
    assert_eq!(fs::read_dir(&out).unwrap().count(), 0);

    fs::write(&path, "mine").unwrap();
    let refused = quantize(&golden, &path, &options("q8_0"), |_| ControlFlow::Continue(())).unwrap_err();
    assert!(refused.to_string().contains("--force"), "{refused}");
    assert_eq!(fs::read(&path).unwrap(), b"mine");
    let mut force = options("q8_0");
    force.force = true;
    quantize(&golden, &path, &force, |_| ControlFlow::Continue(())).unwrap();
    Checkpoint::open_gguf(&path).unwrap();
    assert_eq!(fs::read_dir(&out).unwrap().count(), 1);
}

#[test]
fn what_is_no_model_is_named() {
    let out = folder("bad");
    let to = out.join("m.gguf");
    let complaint = |input: &std::path::Path| {
        quantize(input, &to, &options("q8_0"), |_| ControlFlow::Continue(())).unwrap_err().to_string()
    };
    assert!(complaint(&out.join("absent")).contains("cannot read"));
    assert!(complaint(&out).contains("holds no config.json"));
    let text = out.join("notes.txt");
    fs::write(&text, "not a model at all").unwrap();
    assert!(complaint(&text).contains("magic"), "{}", complaint(&text));
    assert!(complaint(&GOLDEN.join("llama_mha/model.safetensors")).contains("name the folder"));
    let half = copy_of("llama_mha", &out);
    fs::remove_file(half.join("model.safetensors")).unwrap();
    assert!(complaint(&half).contains("model.safetensors"));
    let wrong = copy_of("qwen2", &out);
    fs::copy(GOLDEN.join("llama_mha/config.json"), wrong.join("config.json")).unwrap();
    assert!(complaint(&wrong).contains("do not fit the configuration"));
}

#[test]
fn a_tokenizer_that_gguf_cannot_hold_is_refused_by_name() {
    let out = folder("foreign");
    let to = out.join("m.gguf");
    let model = copy_of("llama_gqa_tied", &out);
    let path = model.join("tokenizer.json");
    let original = fs::read_to_string(&path).unwrap();
    for (from, into, named) in [
        (r"\\p{N}{1,3}", r"\\p{N}{1,4}", "pre_tokenizer"),
        (r#""normalizer":null"#, r#""normalizer":{"type":"Lowercase"}"#, "Lowercase"),
        (r#""type":"BPE""#, r#""type":"Unigram""#, "Unigram"),
        (r#""id":1,"content":"<|end_of_text|>""#, r#""id":900,"content":"<|end_of_text|>""#, "900"),
        (r#"["Ġ","t"]"#, r#"["Ġ","t","u"]"#, "pair"),
    ] {
        let changed = original.replacen(from, into, 1);
        assert!(changed != original, "{from}");
        fs::write(&path, changed).unwrap();
        let error =
            quantize(&model, &to, &options("f32"), |_| ControlFlow::Continue(())).unwrap_err().to_string();
        assert!(error.contains(named) && error.contains("tokenizer.json"), "{error}");
    }
    fs::remove_file(&path).unwrap();
    fs::write(model.join("tokenizer.model"), "spm").unwrap();
    let error =
        quantize(&model, &to, &options("f32"), |_| ControlFlow::Continue(())).unwrap_err().to_string();
    assert!(error.contains("SentencePiece"), "{error}");
}

#[test]
fn a_value_that_no_format_holds_names_its_tensor() {
    let out = folder("inf");
    let model = copy_of("llama_mha", &out);
    let path = model.join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    // The first tensor of the data is the output head.
    let data = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    bytes[data..data + 4].copy_from_slice(&f32::INFINITY.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    let to = out.join("m.gguf");
    // Of the golden model's own F32, too, which is copied and not encoded.
    for kind in ["q8_0", "bf16", "f32"] {
        let error = quantize(&model, &to, &options(kind), |_| ControlFlow::Continue(())).unwrap_err();
        assert!(!to.exists());
        assert!(matches!(&error, ConvertError::Tensor { .. }), "{kind}: {error}");
        assert!(error.to_string().contains("value 0 is inf"), "{kind}: {error}");
    }
}
