//! Scores that need no query of the prompt: from the keys and values of a lane.

use super::Evidence;
use super::expected::{Expectation, SINKS};
use crate::cache::{KvCache, Scorer};
use crate::error::EngineError;
use crate::model::Model;

/// Fills `evidence.scores` for every lane of `layer`. `seen`: tokens after the prompt.
pub(super) fn by_keys(
    model: &Model,
    cache: &KvCache,
    layer: usize,
    scorer: Scorer,
    seen: usize,
    evidence: &mut Evidence,
) -> Result<(), EngineError> {
    let (n, d, stride) = (model.config.n_kv_heads, model.config.head_dim, evidence.stride);
    let group = model.config.n_heads / n;
    let mut keys = vec![0.0; stride * d]; // (slots, head_dim)
    let mut value = vec![0.0; d];
    for head in 0..n {
        let len = cache.lane_len(layer, head);
        for (slot, key) in keys.chunks_exact_mut(d).take(len).enumerate() {
            cache.read_key(layer, head, slot, key);
        }
        let keys = &keys[..len * d];
        let scores = &mut evidence.scores[head * stride..][..len];
        match scorer {
            Scorer::KeyNorm => key_norms(keys, d, scores),
            Scorer::KeyDifference => key_differences(keys, d, scores),
            Scorer::Expected { future, epsilon } => {
                let Some(moments) = &evidence.moments else { continue };
                scores.fill(0.0);
                let sinks = SINKS.min(len);
                for query_head in head * group..(head + 1) * group {
                    let expectation = Expectation::new(model, moments, query_head, seen, future);
                    expectation.add_share(&keys[sinks * d..], 1.0 / group as f32, &mut scores[sinks..]);
                }
                for (slot, score) in scores.iter_mut().enumerate() {
                    cache.read_value(layer, head, slot, &mut value);
                    *score = (*score + epsilon) * norm(&value);
                }
            }
            Scorer::Attention { .. } => {}
        }
    }
    Ok(())
}

/// ‖x‖₂
fn norm(x: &[f32]) -> f32 {
    x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt() as f32
}

/// -‖k‖
fn key_norms(keys: &[f32], d: usize, scores: &mut [f32]) {
    for (score, key) in scores.iter_mut().zip(keys.chunks_exact(d)) {
        *score = -norm(key);
    }
}

/// -cos(k, m), m the mean of k / ‖k‖ over the lane.
fn key_differences(keys: &[f32], d: usize, scores: &mut [f32]) {
    let mut mean = vec![0.0f64; d];
    for key in keys.chunks_exact(d) {
        let norm = f64::from(norm(key)).max(f64::MIN_POSITIVE);
        mean.iter_mut().zip(key).for_each(|(mean, k)| *mean += f64::from(*k) / norm);
    }
    let length = mean.iter().map(|m| m * m).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
    for (score, key) in scores.iter_mut().zip(keys.chunks_exact(d)) {
        let dot: f64 = key.iter().zip(&mean).map(|(k, m)| f64::from(*k) * m).sum();
        *score = (-dot / (length * f64::from(norm(key)).max(f64::MIN_POSITIVE))) as f32;
    }
}
