//! A model whose weights stay in the file computes what one with packed weights computes, bit for bit.
#![allow(clippy::unwrap_used, clippy::panic)] // tests

mod support;

use roofline_engine::{Arithmetic, Cpu, EngineError, Model, ModelFiles, Packing, Session, SessionOptions};
use std::path::PathBuf;
use std::sync::Arc;
use support::{all_logits, goldens, load_for, load_mapped, session};

fn bits(logits: &[f32]) -> Vec<u32> {
    logits.iter().map(|logit| logit.to_bits()).collect()
}

#[test]
fn logits_have_the_same_bits_with_no_weight_packed() {
    for golden in goldens() {
        for arithmetic in [Arithmetic::Fast, Arithmetic::Exact] {
            let packed = load_for(&golden.dir, 2, None, arithmetic);
            let mapped = load_mapped(&golden.dir, 2, arithmetic);
            let facts = mapped.facts();
            assert_eq!((facts.packing, facts.packed_bytes), (Packing::AtUse, 0), "{}", golden.name);
            assert_eq!(facts.weight_bytes, packed.facts().weight_bytes, "{}", golden.name);
            let logits = [packed, mapped].map(|model| {
                let mut session = session(&model);
                let mut all = bits(&all_logits(&mut session, &golden.prompt));
                for id in &golden.continuation {
                    all.extend(bits(session.decode(*id).unwrap()));
                }
                all
            });
            assert!(logits[0] == logits[1], "{} {arithmetic:?}", golden.name);
        }
    }
}

/// A copy of a golden model whose tensor `name` begins with a NaN.
fn damaged(golden: &support::Golden, name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("damaged-{name}"));
    std::fs::create_dir_all(&folder).unwrap();
    for entry in std::fs::read_dir(&golden.dir).unwrap().flatten() {
        if entry.path().is_file() {
            std::fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
        }
    }
    let file = folder.join("model.safetensors");
    let mut bytes = std::fs::read(&file).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    assert_eq!(header[name]["dtype"], "F32", "{name}");
    let at = 8 + length + header[name]["data_offsets"][0].as_u64().unwrap() as usize;
    bytes[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&file, bytes).unwrap();
    folder
}

#[test]
fn a_damaged_weight_is_named_when_it_is_used_and_leaves_no_logits() {
    let golden = support::golden("llama_gqa_tied");
    let in_the_head = "model.embed_tokens.weight"; // of a token that the prompt does not have
    for name in ["model.layers.0.mlp.down_proj.weight", in_the_head] {
        let files = ModelFiles::open(&damaged(&golden, name)).unwrap();
        let cpu = Cpu::new(2, None).unwrap();
        assert!(Model::load(&files, cpu.clone(), &mut |_, _| {}).is_err());
        let model = Arc::new(Model::load_with(&files, cpu, Packing::AtUse, &mut |_, _| {}).unwrap());
        let mut session = Session::new(model, SessionOptions::default()).unwrap();
        let refused = session.prefill(&golden.prompt).map(drop);
        let Err(EngineError::Kernel(error)) = refused else { panic!("{name} passed") };
        assert!(error.to_string().contains(name), "{error}");
        // The head comes after the step: what was seen stays, without logits.
        let seen = if name == in_the_head { golden.prompt.len() } else { 0 };
        assert_eq!(session.tokens().len(), seen, "{name}");
        assert!(matches!(session.logits(), Err(EngineError::NoLogits)), "{name}");
    }
}
