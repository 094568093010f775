//! What is done with a row of logits: softmax, log-probabilities, the largest, and the choice of experts.

use crate::error::KernelError;
use crate::shared_slice::SharedSlice;
use crate::table::KernelTable;
use crate::team::Team;
use crate::vectors::{Kernel, Level, Plain, Simd, dispatch, widely};

/// Numbers that are summed in f32 before the sum goes to f64.
const STRETCH: usize = 1024;

/// `x = e^x / Σ e^x`. An empty row stays empty.
pub fn softmax(table: &KernelTable, x: &mut [f32]) {
    soften(table.vectors(), x);
}

fn soften(level: Level, x: &mut [f32]) {
    let max = dispatch(level, Largest(x));
    let sum = dispatch(level, Exponentials { x, minus: max });
    let share = (1.0 / sum) as f32;
    x.iter_mut().for_each(|x| *x *= share);
}

/// `ln Σ e^x`, summed in f64: what is taken from a logit to give its log-probability. Minus infinity for no logits.
pub fn log_sum_exp(table: &KernelTable, x: &[f32]) -> f64 {
    let level = table.vectors();
    let max = dispatch(level, Largest(x));
    if max == f32::NEG_INFINITY {
        return f64::NEG_INFINITY;
    }
    let mut part = [0.0; STRETCH];
    let mut sum = 0.0;
    for x in x.chunks(STRETCH) {
        let part = &mut part[..x.len()];
        part.copy_from_slice(x);
        sum += dispatch(level, Exponentials { x: part, minus: max });
    }
    f64::from(max) + sum.ln()
}

/// `out = x - ln Σ e^x`.
///
/// # Errors
/// [`KernelError::Shape`] when the lengths differ.
pub fn log_softmax(table: &KernelTable, x: &[f32], out: &mut [f32]) -> Result<(), KernelError> {
    if x.len() != out.len() {
        return Err(KernelError::Shape { what: "log-probabilities", got: out.len(), want: x.len() });
    }
    let total = log_sum_exp(table, x);
    for (x, out) in x.iter().zip(out) {
        *out = (f64::from(*x) - total) as f32;
    }
    Ok(())
}

/// Index of the largest number, the lowest of equals. NaN is never the largest; `None` when there is no number.
pub fn argmax(table: &KernelTable, x: &[f32]) -> Option<usize> {
    let max = dispatch(table.vectors(), Largest(x));
    x.iter().position(|x| *x == max)
}

/// Whether no number is NaN or infinite.
///
/// One by one it takes a cycle a number: 50 µs for 151,936 logits, each token.
pub fn all_finite(x: &[f32]) -> bool {
    struct AllFinite<'a>(&'a [f32]);
    impl Plain for AllFinite<'_> {
        type Out = bool;
        #[inline(always)]
        fn run(self) -> bool {
            const EXPONENT: u32 = 0x7f80_0000;
            // Without a way out in between it is vectors; a stretch is how far too far it looks.
            let odd = |x: &f32| u32::from(x.to_bits() & EXPONENT == EXPONENT);
            self.0.chunks(STRETCH).all(|x| x.iter().fold(0, |any, x| any | odd(x)) == 0)
        }
    }
    widely(AllFinite(x))
}

/// Chooses `top_k` experts for each row: softmax over all of them, then the largest, larger first and the lower index
/// first of equals. With `renormalize` the chosen weights of a row sum to 1. `logits` become probabilities.
///
/// # Errors
/// [`KernelError::Shape`] when the lengths disagree or `top_k` is not within `1..=n_experts`.
#[allow(clippy::too_many_arguments)] // one operation of the device: each argument is an operand
pub fn route(
    table: &KernelTable,
    team: &Team,
    logits: &mut [f32], // (rows, n_experts)
    n_experts: usize,
    top_k: usize,
    renormalize: bool,
    ids: &mut [u32],     // (rows, top_k)
    weights: &mut [f32], // (rows, top_k)
) -> Result<(), KernelError> {
    let shape = |what, got, want| Err(KernelError::Shape { what, got, want });
    if n_experts == 0 || !logits.len().is_multiple_of(n_experts) {
        return shape("expert logits, in whole rows", logits.len(), n_experts);
    }
    if !(1..=n_experts).contains(&top_k) {
        return shape("experts per token", top_k, n_experts);
    }
    let rows = logits.len() / n_experts;
    for (what, got) in [("chosen experts", ids.len()), ("weights of the chosen experts", weights.len())] {
        if got != rows * top_k {
            return shape(what, got, rows * top_k);
        }
    }
    let level = table.vectors();
    let one = |logits: &mut [f32], ids: &mut [u32], weights: &mut [f32]| {
        soften(level, logits);
        choose(logits, ids, weights);
        if renormalize {
            let sum: f32 = weights.iter().sum();
            weights.iter_mut().for_each(|weight| *weight /= sum);
        }
    };
    if rows < 32 {
        let rows = logits.chunks_exact_mut(n_experts).zip(ids.chunks_exact_mut(top_k));
        rows.zip(weights.chunks_exact_mut(top_k))
            .for_each(|((logits, ids), weights)| one(logits, ids, weights));
        return Ok(());
    }
    let (logits, ids, weights) = (SharedSlice::new(logits), SharedSlice::new(ids), SharedSlice::new(weights));
    team.run(rows, &|row, _| {
        // SAFETY: each tile has a row of its own.
        unsafe {
            one(
                logits.part(row * n_experts, n_experts),
                ids.part(row * top_k, top_k),
                weights.part(row * top_k, top_k),
            );
        }
    });
    Ok(())
}

/// The largest of `x` into `ids` and `values`, by insertion: there are few.
fn choose(x: &[f32], ids: &mut [u32], values: &mut [f32]) {
    let mut held = 0;
    for (id, &value) in x.iter().enumerate() {
        let mut at = held;
        while at > 0 && value > values[at - 1] {
            at -= 1;
        }
        if at == ids.len() {
            continue;
        }
        held = (held + 1).min(ids.len());
        ids.copy_within(at..held - 1, at + 1);
        values.copy_within(at..held - 1, at + 1);
        (ids[at], values[at]) = (id as u32, value);
    }
}

/// The largest number; minus infinity when there is none. NaN does not count.
struct Largest<'a>(&'a [f32]);

impl Kernel for Largest<'_> {
    type Out = f32;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f32 {
        let least = simd.splat(f32::NEG_INFINITY);
        let mut max = [least; 4];
        let mut vectors = self.0.chunks_exact(S::LANES);
        for (i, vector) in (&mut vectors).enumerate() {
            let x = simd.read(vector);
            max[i % 4] = simd.where_less(max[i % 4], x, x, max[i % 4]);
        }
        let [a, b, c, d] = max;
        let max = simd.max_lane(simd.max(simd.max(a, b), simd.max(c, d)));
        vectors.remainder().iter().fold(max, |max, x| if *x > max { *x } else { max })
    }
}

/// `x = e^(x - minus)`; returns the sum, in f64 beyond a stretch.
struct Exponentials<'a> {
    x: &'a mut [f32],
    minus: f32,
}

impl Kernel for Exponentials<'_> {
    type Out = f64;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f64 {
        let minus = simd.splat(self.minus);
        let mut total = 0.0;
        for stretch in self.x.chunks_mut(STRETCH) {
            let mut sum = simd.splat(0.0);
            let mut vectors = stretch.chunks_exact_mut(S::LANES);
            for vector in &mut vectors {
                let y = simd.exp(simd.sub(simd.read(vector), minus));
                simd.write(vector, y);
                sum = simd.add(sum, y);
            }
            let rest = vectors.into_remainder();
            if !rest.is_empty() {
                let y = simd.exp(simd.sub(simd.read_part(rest), minus));
                simd.write_part(rest, y);
                sum = simd.add(sum, simd.where_lane(0, rest.len(), y, simd.splat(0.0)));
            }
            total += f64::from(simd.sum(sum));
        }
        total
    }
}
