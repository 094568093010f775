//! Files made by others, read from the shared data folder beside the repository; skipped where that is absent.

#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use roofline_weights::{Checkpoint, Format};

fn shared(path: &str) -> Option<PathBuf> {
    let full = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data").join(path);
    if full.exists() {
        return Some(full);
    }
    println!("skipped: {} is not here", full.display());
    None
}

fn f32_at(bytes: &[u8], index: usize) -> f32 {
    f32::from_le_bytes(bytes[4 * index..4 * index + 4].try_into().unwrap())
}

#[test]
fn gguf_v1_in_the_wild() {
    let Some(path) = shared("models/stories260K/tinyllamas-stories-260k-f32.gguf") else { return };
    let checkpoint = Checkpoint::open_gguf(path).unwrap();
    let header = checkpoint.gguf().unwrap();
    assert_eq!((header.version, header.tensors.len(), header.metadata.len()), (1, 48, 18));
    assert_eq!(header.metadata.u64("llama.attention.head_count_kv").unwrap(), 4);
    assert_eq!(header.metadata.strs("tokenizer.ggml.tokens").unwrap().get(2), Some("</s>"));
    assert_eq!(header.metadata.i32s("tokenizer.ggml.token_type").unwrap()[..4], [2, 3, 3, 6]);
    let output = checkpoint.require("output.weight").unwrap();
    assert_eq!((output.format, output.shape), (Format::F32, &[512, 64][..]));
    assert!((0..512 * 64).all(|i| f32_at(output.bytes, i).abs() < 10.0));
    let embedding = checkpoint.require("token_embd.weight").unwrap();
    assert_eq!(embedding.bytes, output.bytes, "this model ties them");
    let norm = checkpoint.require("output_norm.weight").unwrap();
    assert!((0..64).all(|i| (0.5..10.0).contains(&f32_at(norm.bytes, i))));
}

#[test]
fn vocabulary_only_gguf_files() {
    for (name, n_tokens, model) in [
        ("gpt-2", 50257, "gpt2"),
        ("gpt-neox", 50432, "gpt2"),
        ("llama-spm", 32000, "llama"),
        ("mpt", 50432, "gpt2"),
        ("phi-3", 32064, "llama"),
    ] {
        let Some(path) = shared(&format!("tokenizers/ggml-vocab-{name}.gguf")) else { continue };
        let checkpoint = Checkpoint::open(path).unwrap();
        assert_eq!(checkpoint.tensors().count(), 0);
        let metadata = &checkpoint.gguf().unwrap().metadata;
        assert_eq!(metadata.strs("tokenizer.ggml.tokens").unwrap().len(), n_tokens);
        assert_eq!(metadata.str("tokenizer.ggml.model").unwrap(), model);
    }
}

#[test]
fn demo_model_folder() {
    let Some(path) = shared("models/demo") else { return };
    let checkpoint = Checkpoint::open(path).unwrap();
    let embedding = checkpoint.require("model.embed_tokens.weight").unwrap();
    assert_eq!((embedding.format, embedding.shape), (Format::Bf16, &[4096, 256][..]));
    assert!(checkpoint.tensors().all(|tensor| tensor.bytes.len() == 2 * tensor.weights()));
}
