//! Golden models and what transformers computes with them; see `golden/README.md`.
#![allow(dead_code, clippy::unwrap_used, clippy::panic)] // each test binary uses a part; a test fails by panicking

use roofline_engine::{Arithmetic, Cpu, Isa, KvFormat, Model, ModelFiles, Packing, Session, SessionOptions};
use roofline_weights::{Checkpoint, blocks};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What `golden.json` and `golden.safetensors` of one folder say.
pub struct Golden {
    pub name: String,
    pub dir: PathBuf,
    pub prompt: Vec<u32>,
    pub continuation: Vec<u32>,
    pub logits: Vec<f32>,              // (prompt, vocab)
    pub continuation_logits: Vec<f32>, // (continuation, vocab)
}

/// Every golden folder, by name.
pub fn goldens() -> Vec<Golden> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut names: Vec<String> = std::fs::read_dir(&root)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().join("golden.json").is_file()) // policies/ and retrieval/ have their own readers
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert!(names.len() >= 24, "golden folders are missing: {names:?}");
    names.iter().map(|name| golden(name)).collect()
}

pub fn golden(name: &str) -> Golden {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let text = std::fs::read_to_string(dir.join("golden.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let ids = |key: &str| -> Vec<u32> {
        json[key].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
    };
    let tensors = Checkpoint::open_safetensors(dir.join("golden.safetensors")).unwrap();
    Golden {
        name: name.to_string(),
        prompt: ids("prompt"),
        continuation: ids("continuation"),
        logits: floats(&tensors, "logits"),
        continuation_logits: floats(&tensors, "continuation_logits"),
        dir,
    }
}

fn floats(tensors: &Checkpoint, name: &str) -> Vec<f32> {
    let view = tensors.tensor(name).unwrap();
    let mut values = vec![0.0; view.shape.iter().product()];
    blocks::decode(view.format, view.bytes, &mut values).unwrap();
    values
}

pub fn load(path: &Path, threads: usize) -> Arc<Model> {
    load_on(path, threads, None)
}

/// With the kernels of `isa`, or the widest there are.
pub fn load_on(path: &Path, threads: usize, isa: Option<Isa>) -> Arc<Model> {
    load_for(path, threads, isa, Arithmetic::Exact)
}

/// With the kernels of `isa` in one arithmetic.
pub fn load_for(path: &Path, threads: usize, isa: Option<Isa>, arithmetic: Arithmetic) -> Arc<Model> {
    let files = ModelFiles::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let cpu = Cpu::with_arithmetic(threads, isa, arithmetic).unwrap();
    let model = Model::load(&files, cpu, &mut |_, _| {});
    Arc::new(model.unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}

/// With the weights left in the file.
pub fn load_mapped(path: &Path, threads: usize, arithmetic: Arithmetic) -> Arc<Model> {
    let files = ModelFiles::open(path).unwrap();
    let cpu = Cpu::with_arithmetic(threads, None, arithmetic).unwrap();
    Arc::new(Model::load_with(&files, cpu, Packing::AtUse, &mut |_, _| {}).unwrap())
}

/// A session that keeps keys and values in f32, as the reference does.
pub fn session(model: &Arc<Model>) -> Session {
    Session::new(
        model.clone(),
        SessionOptions { kv_format: KvFormat::F32.into(), ..SessionOptions::default() },
    )
    .unwrap()
}

/// Logits after each of `ids`: (ids, vocab).
pub fn all_logits(session: &mut Session, ids: &[u32]) -> Vec<f32> {
    let mut all = Vec::new();
    session
        .prefill_logits(ids, &mut |_, logits| {
            all.extend_from_slice(logits);
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    all
}

pub fn max_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

pub fn argmax(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (id, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = id;
        }
    }
    best as u32
}
