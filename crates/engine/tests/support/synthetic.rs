//! Medium random models for the block formats, whose rows need 256 columns: made from a seed when a test runs, since they
//! would be megabytes in the repository.
#![allow(dead_code)] // each test binary uses a part

use roofline_engine::sampling::Rng;
use roofline_weights::gguf::{Metadata, TensorSpec, Value, Writer};
use roofline_weights::{Format, blocks};

const HIDDEN: usize = 256;
const FF: usize = 512;
const LAYERS: usize = 2;
const HEADS: usize = 8;
const KV_HEADS: usize = 2;
pub const VOCAB: usize = 512;

/// The same model in two GGUF files: `stored` in a block format, `decoded` with each of its weights as the F32 number
/// that the format's reference decoder gives. A perfect kernel would compute the same from both.
pub struct Pair {
    pub stored: Vec<u8>,
    pub decoded: Vec<u8>,
}

/// `architecture`: `llama` or `qwen2` (biases on q, k, v). Matrices and embeddings are stored in `format`, vectors in F32.
pub fn pair(architecture: &str, format: Format, seed: u64) -> Pair {
    let mut rng = Rng::new(seed);
    let mut stored = Vec::new();
    let mut decoded = Vec::new();
    for (name, shape) in tensors(architecture) {
        let values = random(&mut rng, &name, &shape);
        let own = if shape.len() == 2 { format } else { Format::F32 };
        let mut bytes = Vec::new();
        blocks::encode(own, &values, None, &mut bytes).unwrap();
        let mut back = vec![0.0; values.len()];
        blocks::decode(own, &bytes, &mut back).unwrap();
        let plain = back.iter().flat_map(|value| value.to_le_bytes()).collect();
        stored.push((TensorSpec { name: name.clone(), format: own, shape: shape.clone() }, bytes));
        decoded.push((TensorSpec { name, format: Format::F32, shape }, plain));
    }
    Pair { stored: file(architecture, stored), decoded: file(architecture, decoded) }
}

/// Names and shapes, (rows, cols) or (len).
fn tensors(architecture: &str) -> Vec<(String, Vec<usize>)> {
    let kv = HIDDEN / HEADS * KV_HEADS;
    let mut all = vec![("token_embd.weight".to_owned(), vec![VOCAB, HIDDEN])];
    for layer in 0..LAYERS {
        let mut add = |name: &str, shape: &[usize]| all.push((format!("blk.{layer}.{name}"), shape.to_vec()));
        add("attn_norm.weight", &[HIDDEN]);
        for (name, rows) in [("attn_q", HIDDEN), ("attn_k", kv), ("attn_v", kv)] {
            add(&format!("{name}.weight"), &[rows, HIDDEN]);
            if architecture == "qwen2" {
                add(&format!("{name}.bias"), &[rows]);
            }
        }
        add("attn_output.weight", &[HIDDEN, HIDDEN]);
        add("ffn_norm.weight", &[HIDDEN]);
        add("ffn_gate.weight", &[FF, HIDDEN]);
        add("ffn_up.weight", &[FF, HIDDEN]);
        add("ffn_down.weight", &[HIDDEN, FF]);
    }
    all.push(("output_norm.weight".to_owned(), vec![HIDDEN]));
    all.push(("output.weight".to_owned(), vec![VOCAB, HIDDEN]));
    all
}

/// Values that keep activations, attention scores and logits of order one.
fn random(rng: &mut Rng, name: &str, shape: &[usize]) -> Vec<f32> {
    let (centre, spread) = match shape {
        [_] if name.ends_with("norm.weight") => (1.0, 0.2),
        [_] => (0.0, 0.2),
        _ if name == "token_embd.weight" => (0.0, 1.0),
        [.., cols] => (0.0, 1.0 / (*cols as f64).sqrt()),
        [] => (0.0, 0.0),
    };
    // The sum of twelve uniform numbers less six: normal enough, with variance 1.
    let mut normal = || (0..12).map(|_| rng.next_unit()).sum::<f64>() - 6.0;
    (0..shape.iter().product()).map(|_| (centre + spread * normal()) as f32).collect()
}

fn file(architecture: &str, tensors: Vec<(TensorSpec, Vec<u8>)>) -> Vec<u8> {
    let mut metadata = Metadata::new("synthetic");
    metadata.set("general.architecture", Value::Str(architecture.to_owned()));
    for (key, value) in [
        ("block_count", LAYERS),
        ("context_length", 128),
        ("embedding_length", HIDDEN),
        ("feed_forward_length", FF),
        ("attention.head_count", HEADS),
        ("attention.head_count_kv", KV_HEADS),
    ] {
        metadata.set(format!("{architecture}.{key}"), Value::U32(value as u32));
    }
    metadata.set(format!("{architecture}.attention.layer_norm_rms_epsilon"), Value::F32(1e-5));
    metadata.set(format!("{architecture}.rope.freq_base"), Value::F32(10_000.0));
    let specs: Vec<TensorSpec> = tensors.iter().map(|(spec, _)| spec.clone()).collect();
    let mut writer = Writer::new("synthetic", Vec::new(), &metadata, &specs).unwrap();
    for (spec, bytes) in &tensors {
        writer.append(&spec.name, bytes).unwrap();
    }
    writer.finish().unwrap()
}
