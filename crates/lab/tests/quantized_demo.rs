//! The demo model in every type: what the engine computes from the stored blocks, against the same blocks decoded to F32.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests

mod convert_support;

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use convert_support::{demo, folder, options, quantized};
use roofline_engine::{Cpu, KvFormat, Model, ModelFiles, Session, SessionOptions};
use roofline_lab::convert::quantize;
use roofline_limits::Recipe;

/// Logits after each of a few tokens, (ids, vocab), keys and values in f32.
fn logits(path: &Path) -> Vec<f32> {
    let files = ModelFiles::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let model = Arc::new(Model::load(&files, Cpu::new(2, None).unwrap(), &mut |_, _| {}).unwrap());
    let options = SessionOptions { kv_format: KvFormat::F32.into(), ..SessionOptions::default() };
    let mut session = Session::new(model, options).unwrap();
    let text = "It was the best of times, it was the worst of times, said the old man";
    let ids = files.tokenizer().unwrap().encode(text, false, false).unwrap();
    let mut all = Vec::new();
    let mut take = |_, row: &[f32]| {
        all.extend_from_slice(row);
        ControlFlow::Continue(())
    };
    session.prefill_logits(&ids, &mut take).unwrap();
    all
}

fn relative_rms(found: &[f32], expected: &[f32]) -> f64 {
    let square = |x: f32| f64::from(x) * f64::from(x);
    let error: f64 = found.iter().zip(expected).map(|(a, b)| square(a - b)).sum();
    (error / expected.iter().map(|b| square(*b)).sum::<f64>()).sqrt()
}

#[test]
fn every_type_computes_what_its_decoded_blocks_compute() {
    let Some(demo) = demo() else { return };
    let out = folder("quantized-demo");
    let (stored, decoded) = (out.join("stored.gguf"), out.join("decoded.gguf"));
    let original = logits(&demo);
    drop(quantized(&demo, "f32", &stored));
    // Only the order of additions may differ: the rows of wq and wk are permuted.
    assert!(relative_rms(&logits(&stored), &original) < 1e-5);
    for name in Recipe::names() {
        let mut force = options(name);
        force.force = true;
        let report = quantize(&demo, &stored, &force, |_| ControlFlow::Continue(())).unwrap();
        drop(quantized(&stored, "f32", &decoded));
        let found = logits(&stored);
        let (arithmetic, whole) = (relative_rms(&found, &logits(&decoded)), relative_rms(&found, &original));
        println!(
            "{name}: weights {:.2e}, arithmetic {arithmetic:.2e}, whole {whole:.2e}",
            report.relative_error
        );
        // Quantized products round their activations to 15 bits; the bound is what users are promised.
        assert!(arithmetic <= 0.01, "{name}: {arithmetic}");
        assert!(found.iter().all(|logit| logit.is_finite()), "{name}");
    }
    fs::remove_file(stored).unwrap();
    fs::remove_file(decoded).unwrap();
}
