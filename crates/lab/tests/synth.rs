//! Models made up from a geometry: what is written opens as that geometry, alike for any number of threads.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests

mod convert_support;

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use convert_support::{GOLDEN, folder};
use roofline_lab::convert::{Blocks, ConvertError, SynthOptions, Synthesized, synthesize};
use roofline_limits::Recipe;
use roofline_model::{ModelConfig, TensorPlan, Tokenizer};
use roofline_weights::{Checkpoint, Format, blocks};

fn options(kind: &str) -> SynthOptions {
    SynthOptions {
        recipe: Recipe::from_name(kind).unwrap(),
        seed: 1,
        context: None,
        blocks: None,
        shard_bytes: u64::MAX,
        threads: 2,
        force: false,
    }
}

fn made(geometry: &str, output: &Path, options: &SynthOptions) -> Result<Synthesized, ConvertError> {
    synthesize(geometry, output, options, |_| ControlFlow::Continue(()))
}

/// A config.json of a geometry with rows wide enough for K formats.
fn small(folder: &Path) -> String {
    let path = folder.join("config.json");
    let text = r#"{"model_type": "llama", "hidden_size": 256, "num_hidden_layers": 3, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 64, "intermediate_size": 512, "vocab_size": 600, "tie_word_embeddings": false,
        "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "bos_token_id": 1, "eos_token_id": [2, 3],
        "rope_theta": 500000.0, "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 128}}"#;
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

fn values(file: &Checkpoint, name: &str) -> Vec<f32> {
    let tensor = file.require(name).unwrap();
    let mut values = vec![0.0; tensor.weights()];
    blocks::decode(tensor.format, tensor.bytes, &mut values).unwrap();
    values
}

fn check_gguf(path: &Path) -> (Checkpoint, ModelConfig) {
    let file = Checkpoint::open_gguf(path).unwrap();
    let config = ModelConfig::from_gguf(file.gguf().unwrap(), "made up").unwrap();
    let plan = TensorPlan::gguf(&config);
    let present: Vec<_> = file.tensors().collect();
    plan.check(present.iter().map(|tensor| (tensor.name, tensor.shape))).unwrap();
    (file, config)
}

#[test]
fn every_family_is_written_as_a_file_that_fits_its_plan() {
    let out = folder("synth-families");
    for golden in ["llama_bias", "mistral", "qwen2_tied", "qwen3", "gpt_neox_parallel", "olmoe", "mixtral"] {
        let path = out.join(format!("{golden}.gguf"));
        let geometry = GOLDEN.join(golden).join("config.json");
        let done = made(geometry.to_str().unwrap(), &path, &options("f16")).unwrap();
        let (file, config) = check_gguf(&path);
        assert_eq!(config.parameters().total(), done.weights, "{golden}");
        assert!(values(&file, "output_norm.weight").iter().all(|value| *value == 1.0));
        assert!(done.notes.iter().any(|note| note.contains("no tokenizer")));
    }
}

#[test]
fn every_type_is_written_and_has_the_deviation_meant() {
    let out = folder("synth-types");
    let geometry = small(&out);
    for kind in Recipe::names() {
        for blocks in [Blocks::Random, Blocks::Encoded] {
            let path = out.join(format!("{kind}.gguf"));
            let mut options = options(kind);
            (options.blocks, options.force) = (Some(blocks), true);
            let done = made(&geometry, &path, &options).unwrap();
            let (file, config) = check_gguf(&path);
            assert_eq!(done.blocks, options.recipe.base().is_quantized().then_some(blocks));
            assert_eq!((config.context_length, config.bos_token_id), (512, Some(1)));
            let up = values(&file, "blk.1.ffn_up.weight");
            let square = up.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / up.len() as f64;
            assert!((square.sqrt() * 16.0 - 1.0).abs() < 0.06, "{kind} {blocks:?}: {}", square.sqrt());
            let factors = values(&file, "rope_freqs.weight");
            assert!(factors[0] == 1.0 && (factors[31] - 8.0).abs() < 1e-5, "{factors:?}");
            let tokenizer = Tokenizer::from_gguf(&file.gguf().unwrap().metadata).unwrap();
            let ids = tokenizer.encode("Once upon a time, 1859.", true, false).unwrap();
            assert_eq!((ids[0], tokenizer.vocab_size()), (1, 600));
            assert_eq!(tokenizer.decode(&ids, true).unwrap(), "Once upon a time, 1859.");
        }
    }
}

#[test]
fn weights_depend_on_the_seed_and_not_on_the_threads() {
    let out = folder("synth-seed");
    let geometry = small(&out);
    let bytes = |seed, threads| {
        let path = out.join("model.gguf");
        let mut options = options("q4_k_m");
        (options.seed, options.threads, options.force) = (seed, threads, true);
        options.blocks = Some(Blocks::Random);
        made(&geometry, &path, &options).unwrap();
        fs::read(path).unwrap()
    };
    let first = bytes(1, 1);
    assert!(first == bytes(1, 5));
    assert!(first != bytes(2, 1));
}

#[test]
fn a_folder_in_one_file_or_many_is_the_same_model() {
    let out = folder("synth-folder");
    let geometry = small(&out);
    let (one, many) = (out.join("one"), out.join("many"));
    made(&geometry, &one, &options("bf16")).unwrap();
    let mut sharded = options("bf16");
    (sharded.shard_bytes, sharded.context) = (1_000_000, Some(2048));
    made(&geometry, &many, &sharded).unwrap();
    assert!(one.join("model.safetensors").exists());
    let shards = fs::read_dir(&many).unwrap().filter(|entry| {
        entry.as_ref().unwrap().path().extension().is_some_and(|extension| extension == "safetensors")
    });
    assert!(shards.count() > 2);
    let (a, b) = (Checkpoint::open_hf(&one).unwrap(), Checkpoint::open_hf(&many).unwrap());
    for tensor in a.tensors() {
        let other = b.require(tensor.name).unwrap();
        assert!(tensor.format == Format::Bf16 && tensor.bytes == other.bytes, "{}", tensor.name);
    }
    let text = fs::read_to_string(many.join("config.json")).unwrap();
    let config = ModelConfig::from_config_json(&text, "config.json").unwrap();
    assert_eq!(config.context_length, 2048);
    let present: Vec<_> = b.tensors().collect();
    TensorPlan::hugging_face(&config)
        .check(present.iter().map(|tensor| (tensor.name, tensor.shape)))
        .unwrap();
    assert_eq!(Tokenizer::from_hf_dir(&one).unwrap().vocab_size(), 600);
}

#[test]
fn a_preset_has_the_weights_its_authors_published() {
    let out = folder("synth-preset");
    let path = out.join("pythia.gguf");
    let done = made("pythia-14m", &path, &options("q4_0")).unwrap();
    assert_eq!((done.weights, done.blocks), (14_067_712, Some(Blocks::Encoded)));
    let (file, config) = check_gguf(&path);
    assert_eq!(config.vocab_size, 50_304);
    let metadata = &file.gguf().unwrap().metadata;
    assert_eq!(metadata.str("roofline.synth.geometry").unwrap(), "Pythia-14M");
    assert_eq!(metadata.u64("roofline.synth.seed").unwrap(), 1);
}

#[test]
fn what_cannot_be_made_is_named_and_leaves_nothing() {
    let out = folder("synth-bad");
    let complaint = |geometry: &str, to: &PathBuf, kind: &str| {
        made(geometry, to, &options(kind)).unwrap_err().to_string()
    };
    assert!(complaint("qwen2.5-8b", &out.join("m.gguf"), "bf16").contains("Qwen2.5-7B"));
    assert!(complaint("absent/config.json", &out.join("m.gguf"), "bf16").contains("no such file"));
    assert!(complaint("pythia-14m", &out.join("folder"), "q4_0").contains(".gguf"));
    assert!(complaint("pythia-14m", &out.join("absent/m.gguf"), "bf16").contains("cannot write"));
    fs::write(out.join("note"), "here").unwrap();
    assert!(complaint("pythia-14m", &out, "bf16").contains("never replaced"));
    for name in ["m.gguf", "folder"] {
        let stopped = synthesize("pythia-14m", &out.join(name), &options("bf16"), |_| ControlFlow::Break(()));
        assert!(matches!(stopped, Err(ConvertError::Cancelled)));
    }
    assert_eq!(fs::read_dir(&out).unwrap().count(), 1);
}
