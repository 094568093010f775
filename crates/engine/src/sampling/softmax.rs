//! Exponentials over a whole vocabulary, in loops the compiler turns into the vectors of this machine.
//!
//! `f32::exp` is a library call per element: 150 000 of them cost more than everything else in a sampler.

use roofline_kernels::{Plain, widely};

/// Elements whose exponentials are added in float32 before the sum moves to float64.
const CHUNK: usize = 256;

/// Lanes of independent partial sums or maxima.
const LANES: usize = 16;

/// e^x for x ≤ 0, relative error under 3e-7; exactly 0 below -87 (where float32 turns subnormal) and for -inf.
#[inline(always)]
fn exp_nonpositive(x: f32) -> f32 {
    // Cody and Waite: x = n·ln 2 + r with |r| ≤ ln 2 / 2; ln 2 split so that n·LN2_HIGH is exact.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Adding 1.5·2^23 leaves the rounded integer in the low bits of the sum.
    const ROUNDER: f32 = 12_582_912.0;
    let clamped = if x < -87.0 { -87.0 } else { x };
    let shifted = clamped * std::f32::consts::LOG2_E + ROUNDER;
    let n = shifted - ROUNDER;
    let r = (clamped - n * LN2_HIGH) - n * LN2_LOW;
    // Taylor to the sixth power: the next term is under 1.3e-7 at |r| = ln 2 / 2.
    let p = 1.0 / 720.0;
    let p = p * r + 1.0 / 120.0;
    let p = p * r + 1.0 / 24.0;
    let p = p * r + 1.0 / 6.0;
    let p = p * r + 0.5;
    let p = (p * r + 1.0) * r + 1.0;
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    if x < -87.0 { 0.0 } else { p * power }
}

/// The weight e^(logit − max) of one logit.
pub(super) fn weight(logit: f32, max: f32) -> f32 {
    exp_nonpositive(logit - max)
}

/// Sum of e^(logit − max); max must be the largest logit and finite.
pub(super) fn sum_exp(logits: &[f32], max: f32) -> f64 {
    widely(SumExp { logits, max })
}

struct SumExp<'a> {
    logits: &'a [f32],
    max: f32,
}

impl Plain for SumExp<'_> {
    type Out = f64;

    #[inline(always)]
    fn run(self) -> f64 {
        let mut total = 0.0;
        for chunk in self.logits.chunks(CHUNK) {
            total += f64::from(chunk_sum(chunk, self.max));
        }
        total
    }
}

/// Makes `weights`, which are logits, e^(logit − max) and writes the sum of each [`CHUNK`] to `chunk_sums`; returns the
/// total. `chunk_sums` does not grow beyond the capacity it has for a vocabulary of this length.
pub(super) fn exp_weights(weights: &mut [f32], max: f32, chunk_sums: &mut Vec<f64>) -> f64 {
    chunk_sums.clear();
    chunk_sums.resize(weights.len().div_ceil(CHUNK), 0.0);
    widely(ExpWeights { weights, max, chunk_sums })
}

struct ExpWeights<'a> {
    weights: &'a mut [f32],
    max: f32,
    chunk_sums: &'a mut [f64], // (weights / CHUNK)
}

impl Plain for ExpWeights<'_> {
    type Out = f64;

    #[inline(always)]
    fn run(self) -> f64 {
        let mut total = 0.0;
        for (chunk, sum) in self.weights.chunks_mut(CHUNK).zip(self.chunk_sums) {
            for weight in chunk.iter_mut() {
                *weight = exp_nonpositive(*weight - self.max);
            }
            *sum = f64::from(plain_sum(chunk));
            total += *sum;
        }
        total
    }
}

/// Room that `chunk_sums` of [`exp_weights`] needs.
pub(super) fn chunk_count(vocab_size: usize) -> usize {
    vocab_size.div_ceil(CHUNK)
}

/// Index at which the running sum of `weights` first exceeds `target`, found chunk by chunk; the last index of positive
/// weight where rounding lets none exceed it.
pub(super) fn index_at(weights: &[f32], chunk_sums: &[f64], target: f64) -> usize {
    let mut before = 0.0;
    for (chunk, (values, &sum)) in weights.chunks(CHUNK).zip(chunk_sums).enumerate() {
        if before + sum > target {
            let mut running = before;
            for (i, &value) in values.iter().enumerate() {
                running += f64::from(value);
                if running > target {
                    return chunk * CHUNK + i;
                }
            }
        }
        before += sum;
    }
    weights.iter().rposition(|&value| value > 0.0).unwrap_or(0)
}

/// Sum of weight·(logit − max) over weights that are not 0: with the sum Z of the weights, the entropy of the
/// distribution is ln Z − this / Z, in nats.
pub(super) fn weighted_log_sum(logits: impl Iterator<Item = f32>, weights: &[f32], max: f32) -> f64 {
    let term =
        |(logit, &weight): (f32, &f32)| if weight > 0.0 { f64::from(weight * (logit - max)) } else { 0.0 };
    logits.zip(weights).map(term).sum()
}

#[inline(always)]
fn chunk_sum(logits: &[f32], max: f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let groups = logits.chunks_exact(LANES);
    let mut rest = 0.0;
    for &logit in groups.remainder() {
        rest += exp_nonpositive(logit - max);
    }
    for group in groups {
        for (lane, &logit) in lanes.iter_mut().zip(group) {
            *lane += exp_nonpositive(logit - max);
        }
    }
    lanes.iter().sum::<f32>() + rest
}

#[inline(always)]
fn plain_sum(values: &[f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    let groups = values.chunks_exact(LANES);
    let rest: f32 = groups.remainder().iter().sum();
    for group in groups {
        for (lane, &value) in lanes.iter_mut().zip(group) {
            *lane += value;
        }
    }
    lanes.iter().sum::<f32>() + rest
}

/// What one pass over raw logits finds.
pub(super) struct Scan {
    /// The largest logit; -inf where all are.
    pub max: f32,
    /// Logits that are -inf.
    pub banned: usize,
    /// First logit that is NaN or +inf.
    pub broken: Option<usize>,
}

/// One pass over raw logits.
pub(super) fn scan(logits: &[f32]) -> Scan {
    let (max, banned, broken) = widely(Look(logits));
    let broken = broken.then(|| logits.iter().position(|x| x.is_nan() || *x == f32::INFINITY));
    Scan { max, banned, broken: broken.flatten() }
}

/// Index of the first logit that equals `value`; 0 where none does.
pub(super) fn first_of(logits: &[f32], value: f32) -> usize {
    widely(First { logits, value })
}

struct First<'a> {
    logits: &'a [f32],
    value: f32,
}

impl Plain for First<'_> {
    type Out = usize;

    #[inline(always)]
    fn run(self) -> usize {
        // A chunk at a time: a loop that may end at each element looks at one at a time.
        for (i, chunk) in self.logits.chunks(CHUNK).enumerate() {
            let mut found = false;
            for &logit in chunk {
                found |= logit == self.value;
            }
            if found {
                return i * CHUNK + chunk.iter().position(|&logit| logit == self.value).unwrap_or(0);
            }
        }
        0
    }
}

/// The largest, how many are -inf, and whether one is NaN or +inf.
struct Look<'a>(&'a [f32]);

impl Plain for Look<'_> {
    type Out = (f32, usize, bool);

    #[inline(always)]
    fn run(self) -> (f32, usize, bool) {
        let mut max = [f32::NEG_INFINITY; LANES];
        let mut banned = [0u32; LANES];
        let mut broken = [0u32; LANES];
        let mut groups = self.0.chunks_exact(LANES);
        for group in &mut groups {
            for i in 0..LANES {
                look(group[i], &mut max[i], &mut banned[i], &mut broken[i]);
            }
        }
        for (i, &logit) in groups.remainder().iter().enumerate() {
            look(logit, &mut max[i], &mut banned[i], &mut broken[i]);
        }
        let max = max.into_iter().fold(f32::NEG_INFINITY, f32::max);
        (max, banned.iter().map(|&n| n as usize).sum(), broken.contains(&1))
    }
}

#[inline(always)]
fn look(logit: f32, max: &mut f32, banned: &mut u32, broken: &mut u32) {
    *max = if logit > *max { logit } else { *max };
    *banned += u32::from(logit == f32::NEG_INFINITY);
    *broken |= u32::from(logit.is_nan()) | u32::from(logit == f32::INFINITY);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponential_is_within_three_in_ten_million() {
        for i in 0..=870_000 {
            let x = -(i as f32) * 1e-4;
            let exact = f64::from(x).exp();
            let error = (f64::from(exp_nonpositive(x)) / exact - 1.0).abs();
            assert!(error < 3e-7, "e^{x}: relative error {error}");
        }
        assert_eq!(exp_nonpositive(0.0), 1.0);
        assert_eq!(exp_nonpositive(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp_nonpositive(-1e30), 0.0);
    }

    #[test]
    fn the_vectors_of_the_machine_change_no_bit() {
        let logits: Vec<f32> = (0..3_001).map(|i| ((i * 7919) % 1013) as f32 * 0.083 - 70.0).collect();
        let max = scan(&logits).max;
        assert_eq!(sum_exp(&logits, max).to_bits(), SumExp { logits: &logits, max }.run().to_bits());
        let (mut here, mut plain) = (logits.clone(), logits.clone());
        let (mut sums, mut plain_sums) = (Vec::new(), vec![0.0; chunk_count(logits.len())]);
        let total = exp_weights(&mut here, max, &mut sums);
        let expected = ExpWeights { weights: &mut plain, max, chunk_sums: &mut plain_sums }.run();
        let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!((total.to_bits(), bits(&here), &sums), (expected.to_bits(), bits(&plain), &plain_sums));
        let first = logits.iter().position(|&logit| logit == max).unwrap();
        assert_eq!((first_of(&logits, max), first_of(&logits, f32::MAX)), (first, 0));
    }

    #[test]
    fn scan_sees_the_tail_the_bans_and_the_first_broken_value() {
        let mut logits = vec![-1.0; 35];
        logits[34] = 3.0;
        logits[2] = f32::NEG_INFINITY;
        let found = scan(&logits);
        assert_eq!((found.max, found.banned, found.broken), (3.0, 1, None));
        logits[33] = f32::INFINITY;
        logits[20] = f32::NAN;
        assert_eq!(scan(&logits).broken, Some(20));
        assert_eq!(scan(&[f32::NEG_INFINITY; 3]).max, f32::NEG_INFINITY);
    }

    #[test]
    fn index_at_finds_what_a_plain_running_sum_finds() {
        let logits: Vec<f32> = (0..1000).map(|i| ((i * 37) % 101) as f32 * 0.1 - 10.0).collect();
        let (mut weights, mut sums) = (Vec::new(), Vec::new());
        weights.extend_from_slice(&logits);
        let total = exp_weights(&mut weights, 0.0, &mut sums);
        assert!((total - sum_exp(&logits, 0.0)).abs() < 1e-6 * total);
        for step in 0..200 {
            let target = total * f64::from(step) / 200.0;
            let mut running = 0.0;
            let expected = weights.iter().position(|&w| {
                running += f64::from(w);
                running > target
            });
            // Sums of chunks round differently from one running sum: a neighbour is right too.
            assert!(expected.unwrap().abs_diff(index_at(&weights, &sums, target)) <= 1);
        }
        assert_eq!(index_at(&weights, &sums, total * 2.0), 999);
    }
}
