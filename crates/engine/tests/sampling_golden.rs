//! The `hf` chain against transformers' logits processors (`tools/golden_sampling.py`).
#![allow(clippy::unwrap_used, clippy::panic)] // tests

use roofline_engine::sampling::{Sampler, SamplerConfig};
use serde_json::Value;

fn numbers<T>(value: &Value, read: impl Fn(&Value) -> Option<T>) -> Vec<T> {
    value.as_array().unwrap().iter().map(|x| read(x).unwrap()).collect()
}

#[test]
fn every_stage_and_chain_gives_transformers_distribution() {
    let golden: Value = serde_json::from_str(include_str!("golden/sampling.json")).unwrap();
    let vocab_size = golden["vocab_size"].as_u64().unwrap() as usize;
    let cases = golden["cases"].as_array().unwrap();
    assert!(cases.len() > 100);
    for case in cases {
        let options = case["options"].as_str().unwrap();
        let row = &golden["logits"][case["logits"].as_u64().unwrap() as usize];
        let sequence = &golden["sequences"][case["sequence"].as_u64().unwrap() as usize];
        let logits = numbers(row, |x| x.as_f64().map(|x| x as f32));
        let config: SamplerConfig = options.parse().unwrap();
        let mut sampler = Sampler::new(config, vocab_size, 64).unwrap();
        sampler.accept(&numbers(sequence, |x| x.as_u64().map(|x| x as u32))).unwrap();

        let mut found = Vec::new();
        sampler.distribution(&logits, &mut found).unwrap();

        let kept = numbers(&case["kept"], |x| x.as_u64().map(|x| x as u32));
        let ids: Vec<u32> = found.iter().map(|(id, _)| *id).collect();
        assert_eq!(ids, kept, "{options} on logits {} of sequence {}", case["logits"], case["sequence"]);
        for ((id, probability), expected) in found.iter().zip(numbers(&case["probabilities"], Value::as_f64))
        {
            let error = (probability - expected).abs();
            assert!(error <= 2e-6, "{options}: token {id} has {probability}, transformers {expected}");
        }
    }
}
