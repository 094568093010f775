//! Every golden model folder: its configuration in each spelling, its GGUF, and the names and values of its tensors.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests

use roofline_model::TensorPlan;
use roofline_model::config::{Ffn, ModelConfig, Pairing, RopeScaling};
use roofline_model::tensor_plan::{LayerRole, PlannedTensor, Role, Rows, Source};
use roofline_weights::{Checkpoint, blocks};
use std::fs;
use std::path::{Path, PathBuf};

fn folders() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/tests/golden");
    let mut all: Vec<PathBuf> = fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("golden.json").is_file())
        .collect();
    all.sort();
    assert!(all.len() >= 20, "golden models are missing");
    all
}

fn config_in(folder: &Path, file: &str) -> Option<ModelConfig> {
    let path = folder.join(file);
    let text = fs::read_to_string(&path).ok()?;
    Some(ModelConfig::from_config_json(&text, &path.display().to_string()).unwrap())
}

fn check<'a>(plan: &'a TensorPlan, checkpoint: &Checkpoint) -> Vec<&'a Source> {
    let tensors: Vec<_> = checkpoint.tensors().collect();
    plan.check(tensors.iter().map(|tensor| (tensor.name, tensor.shape))).unwrap()
}

/// The planned tensor's values, (rows, cols) as the plan cuts them.
fn values(checkpoint: &Checkpoint, source: &Source) -> Vec<f32> {
    let tensor = checkpoint.tensor(&source.name).unwrap();
    let mut all = vec![0.0; tensor.weights()];
    blocks::decode(tensor.format, tensor.bytes, &mut all).unwrap();
    let cols = if tensor.shape.len() == 1 { 1 } else { *tensor.shape.last().unwrap() };
    match source.rows {
        Rows::All => all,
        Rows::Runs { start, run, stride, count } => (0..count)
            .flat_map(|i| all[(start + i * stride) * cols..(start + i * stride + run) * cols].to_vec())
            .collect(),
    }
}

/// Undoes the converter's permutation of one head's rows: (half, 2) back to (2, half).
fn unpermuted(values: &[f32], head_dim: usize, cols: usize) -> Vec<f32> {
    let rows: Vec<&[f32]> = values.chunks_exact(cols).collect();
    let head = |rows: &[&[f32]]| -> Vec<f32> {
        let half = head_dim / 2;
        (0..head_dim).flat_map(|i| rows[2 * (i % half) + i / half].to_vec()).collect()
    };
    rows.chunks_exact(head_dim).flat_map(head).collect()
}

#[test]
fn both_spellings_of_config_json_say_the_same() {
    let mut pairs = 0;
    for folder in folders() {
        let new = config_in(&folder, "config.json").unwrap();
        if let Some(old) = config_in(&folder, "config.old.json") {
            assert_eq!(new, old, "{}", folder.display());
            pairs += 1;
        }
    }
    assert!(pairs >= 4);
}

#[test]
fn plans_fit_the_safetensors() {
    for folder in folders() {
        let config = config_in(&folder, "config.json").unwrap();
        let checkpoint = Checkpoint::open_hf(&folder).unwrap();
        let plan = TensorPlan::hugging_face(&config);
        check(&plan, &checkpoint);
        let stored: usize = checkpoint.tensors().map(|tensor| tensor.weights()).sum();
        assert_eq!(plan.weights(), stored as u64, "{}", folder.display());
        assert_eq!(config.parameters().total(), stored as u64, "{}", folder.display());
    }
}

#[test]
fn gguf_describes_the_same_model_with_the_same_weights() {
    let mut seen = 0;
    for folder in folders().into_iter().filter(|folder| folder.join("model.gguf").exists()) {
        seen += 1;
        let config = config_in(&folder, "config.json").unwrap();
        let checkpoint = Checkpoint::open_gguf(folder.join("model.gguf")).unwrap();
        let gguf = ModelConfig::from_gguf(checkpoint.gguf().unwrap(), "model.gguf").unwrap();
        compare_configs(&config, &gguf, &folder);
        compare_weights(&config, &gguf, &folder, &checkpoint);
    }
    assert!(seen >= 8);
}

fn compare_configs(config: &ModelConfig, gguf: &ModelConfig, folder: &Path) {
    let mut expected = config.clone();
    // What the container says in its own way.
    expected.rope.pairing = gguf.rope.pairing;
    expected.ffn = match (config.ffn, gguf.ffn) {
        (Ffn::Plain { intermediate_size, .. }, Ffn::Plain { activation, .. }) => {
            Ffn::Plain { intermediate_size, activation }
        } // GGUF does not record it
        (ffn, _) => ffn,
    };
    if gguf.eos_token_ids.is_empty() {
        // no tokenizer in the file, so no ids either
        (expected.bos_token_id, expected.eos_token_ids) = (None, Vec::new());
    }
    if matches!(config.rope.scaling, RopeScaling::Llama3 { .. }) {
        expected.rope.scaling = RopeScaling::FrequencyFactors;
    }
    assert_eq!(&expected, gguf, "{}", folder.display());
}

fn compare_weights(config: &ModelConfig, gguf_config: &ModelConfig, folder: &Path, gguf: &Checkpoint) {
    let safetensors = Checkpoint::open_hf(folder).unwrap();
    let (hf_plan, gguf_plan) = (TensorPlan::hugging_face(config), TensorPlan::gguf(gguf_config));
    let (hf_sources, gguf_sources) = (check(&hf_plan, &safetensors), check(&gguf_plan, gguf));
    for (tensor, source) in hf_plan.tensors.iter().zip(hf_sources) {
        let at = gguf_plan.tensors.iter().position(|other| other.role == tensor.role).unwrap();
        assert_eq!(gguf_plan.tensors[at].shape, tensor.shape);
        let expected = values(&safetensors, source);
        assert_eq!(expected.len(), tensor.shape.iter().product::<usize>());
        let mut found = values(gguf, gguf_sources[at]);
        if permuted(gguf_config, tensor) {
            let cols = if tensor.shape.len() == 1 { 1 } else { tensor.shape[1] };
            found = unpermuted(&found, config.head_dim, cols);
        }
        assert!(found == expected, "{}: {:?}", folder.display(), tensor.role);
    }
}

fn permuted(config: &ModelConfig, tensor: &PlannedTensor) -> bool {
    config.rope.pairing == Pairing::Adjacent
        && matches!(
            tensor.role,
            Role::Layer(_, LayerRole::Wq | LayerRole::Wk | LayerRole::Bq | LayerRole::Bk)
        )
}

#[test]
fn stories260k_in_its_gguf_of_version_1() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../../shared/data/models/stories260K/tinyllamas-stories-260k-f32.gguf");
    if !path.exists() {
        println!("skipped: {} is not there", path.display());
        return;
    }
    let checkpoint = Checkpoint::open_gguf(&path).unwrap();
    let config = ModelConfig::from_gguf(checkpoint.gguf().unwrap(), "stories260K").unwrap();
    assert_eq!((config.hidden_size, config.n_layers, config.n_heads, config.n_kv_heads), (64, 5, 8, 4));
    assert_eq!((config.vocab_size, config.context_length, config.tied_embeddings), (512, 512, false));
    assert_eq!((config.rope.pairing, config.rope.theta), (Pairing::Adjacent, 10_000.0));
    assert_eq!((config.bos_token_id, config.eos_token_ids.clone()), (Some(1), vec![2]));
    let plan = TensorPlan::gguf(&config);
    check(&plan, &checkpoint);
}
