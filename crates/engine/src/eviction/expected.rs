//! ExpectedAttention (2510.00636): how much attention a key will get from queries that are yet to come, if these are
//! distributed as the prompt's were before RoPE.
//!
//! μ, Σ: mean and covariance of a head's queries before RoPE. R: mean of the rotations of the next `future` positions.
//! share of key j = softmax over j of kⱼᵀRμ/√d + kⱼᵀRΣRᵀkⱼ/2d

use crate::cpu::{Cpu, pairing};
use crate::model::Model;
use roofline_kernels::Pairing;
use std::sync::Mutex;

/// First tokens whose queries and keys are left out: they attract attention whatever they say. They always stay.
pub(crate) const SINKS: usize = 4;

/// Sums over the rows of a prompt.
pub(crate) struct Moments {
    head_dim: usize,
    rows: usize,
    heads: Vec<Mutex<Sums>>, // (n_heads)
}

/// Sums of one query head.
struct Sums {
    first: Vec<f64>,  // (head_dim), Σ q
    second: Vec<f64>, // (head_dim, head_dim), Σ q qᵀ
}

impl Moments {
    pub fn new(n_heads: usize, head_dim: usize) -> Moments {
        let sums = || Mutex::new(Sums { first: vec![0.0; head_dim], second: vec![0.0; head_dim * head_dim] });
        Moments { head_dim, rows: 0, heads: (0..n_heads).map(|_| sums()).collect() }
    }

    pub fn clear(&mut self) {
        self.rows = 0;
        for sums in &mut self.heads {
            let sums = sums.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
            sums.first.fill(0.0);
            sums.second.fill(0.0);
        }
    }

    /// Adds rows of queries, each head on one thread, so that the sums do not depend on how many there are.
    pub fn add(&mut self, cpu: &Cpu, q: &[f32] /* (rows, n_heads, head_dim) */) {
        let (d, n) = (self.head_dim, self.heads.len());
        self.rows += q.len() / (n * d);
        let heads = &self.heads;
        cpu.team.run(n, &|head, _| {
            let mut sums = heads[head].lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let Sums { first, second } = &mut *sums;
            for q in q.chunks_exact(n * d).map(|row| &row[head * d..][..d]) {
                for (i, x) in q.iter().enumerate() {
                    let x = f64::from(*x);
                    first[i] += x;
                    second[i * d..][..d].iter_mut().zip(q).for_each(|(sum, y)| *sum += x * f64::from(*y));
                }
            }
        });
    }
}

/// Rμ and RΣRᵀ of one query head.
pub(super) struct Expectation {
    mean: Vec<f64>,       // (head_dim)
    covariance: Vec<f64>, // (head_dim, head_dim)
}

impl Expectation {
    /// For queries at the `future` positions from `seen` on.
    pub fn new(model: &Model, moments: &Moments, head: usize, seen: usize, future: usize) -> Expectation {
        let d = moments.head_dim;
        let rows = moments.rows.max(1) as f64;
        let sums = moments.heads[head].lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mean: Vec<f64> = sums.first.iter().map(|sum| sum / rows).collect();
        let mut covariance: Vec<f64> = sums.second.iter().map(|sum| sum / rows).collect();
        for i in 0..d {
            for j in 0..d {
                covariance[i * d + j] -= mean[i] * mean[j];
            }
        }
        let turn = MeanRotation::new(model, seen, future);
        let mut turned = mean;
        turn.apply(&mut turned, 1);
        // RΣRᵀ: R on the rows, then on the columns.
        turn.apply(&mut covariance, d);
        for row in covariance.chunks_exact_mut(d) {
            turn.apply(row, 1);
        }
        Expectation { mean: turned, covariance }
    }

    /// Adds `weight` times the expected share of every key to `out`.
    pub fn add_share(
        &self,
        keys: &[f32], /* (slots, head_dim) */
        weight: f32,
        out: &mut [f32], /* (slots) */
    ) {
        let d = self.mean.len();
        let logit = |key: &[f32]| {
            let linear: f64 = key.iter().zip(&self.mean).map(|(k, m)| f64::from(*k) * m).sum();
            let quadratic: f64 = key
                .iter()
                .zip(self.covariance.chunks_exact(d))
                .map(|(k, row)| {
                    f64::from(*k) * row.iter().zip(key).map(|(c, k)| c * f64::from(*k)).sum::<f64>()
                })
                .sum();
            linear / (d as f64).sqrt() + quadratic / (2.0 * d as f64)
        };
        let logits: Vec<f64> = keys.chunks_exact(d).map(logit).collect();
        let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = logits.iter().map(|logit| (logit - most).exp()).sum();
        for (out, logit) in out.iter_mut().zip(&logits) {
            *out += weight * ((logit - most).exp() / total) as f32;
        }
    }
}

/// The mean of the rotations of a run of positions: for each pair of channels a scaled rotation.
struct MeanRotation {
    pairing: Pairing,
    turns: Vec<(f64, f64)>, // (rotary_dim / 2), mean cosine and sine
}

impl MeanRotation {
    fn new(model: &Model, first: usize, count: usize) -> MeanRotation {
        let mean = |frequency: &f64| {
            let (mut cos, mut sin) = (0.0, 0.0);
            for position in first..first + count {
                let angle = position as f64 * frequency;
                cos += angle.cos();
                sin += angle.sin();
            }
            (cos / count as f64, sin / count as f64)
        };
        MeanRotation {
            pairing: pairing(model.config.rope.pairing),
            turns: model.inv_freq.iter().map(mean).collect(),
        }
    }

    /// x = R x, element `i` of the vector being the `width` numbers from `i * width` on.
    fn apply(&self, x: &mut [f64], width: usize) {
        let pairs = self.turns.len();
        for (pair, (cos, sin)) in self.turns.iter().enumerate() {
            let (a, b) = match self.pairing {
                Pairing::Halves => (pair, pair + pairs),
                Pairing::Adjacent => (2 * pair, 2 * pair + 1),
            };
            for i in 0..width {
                let (p, q) = (x[a * width + i], x[b * width + i]);
                x[a * width + i] = p * cos - q * sin;
                x[b * width + i] = q * cos + p * sin;
            }
        }
    }
}
