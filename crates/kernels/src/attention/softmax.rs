//! The softmax between the two tiles, online: a running maximum and sum per query, by which what was accumulated
//! before is rescaled. Scores and maxima are in powers of two, since log2(e) is already in the queries.

use super::tile::{MAX_PANEL, STRIP};
use crate::vectors::{Kernel, Simd};

/// Below every finite score. Not minus infinity, so that differences of two of them are 0 and not NaN.
pub(super) const NO_MAX: f32 = f32::MIN;

/// What has been seen so far by one query: `sum` of 2^(score - `max`). Its outputs lie beside it, scaled alike.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct State {
    pub max: f32,
    pub sum: f32,
}

impl State {
    /// Nothing seen.
    pub const EMPTY: State = State { max: NO_MAX, sum: 0.0 };
}

/// The slots of a strip that a query sees, `from..to`; none when they are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    pub from: usize,
    pub to: usize,
}

impl Seen {
    pub fn is_empty(self) -> bool {
        self.from >= self.to
    }
}

/// Turns the scores of a panel into weights relative to the new maxima, in place; what a query does not see becomes
/// zero. Updates the states and leaves in `rescale` the factor for what was accumulated before.
pub(super) struct Soften<'a> {
    /// Slots of the strip, a multiple of 16.
    pub width: usize,
    pub scores: &'a mut [f32],   // (queries, STRIP)
    pub seen: &'a [Seen],        // (queries)
    pub states: &'a mut [State], // (queries)
    pub rescale: &'a mut [f32; 16],
}

impl Kernel for Soften<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Soften { width, scores, seen, states, rescale } = self;
        assert!(seen.len() <= MAX_PANEL && width <= STRIP);
        // Each step for all queries before the next one: the ends of a query's sums and maxima are chains that other
        // queries' work hides, and a query as a whole is too long for the processor to look beyond it.
        let mut fall = [0.0; 16];
        for ((i, row), seen) in scores.chunks_exact_mut(STRIP).enumerate().zip(seen) {
            if !seen.is_empty() {
                let row = &mut row[..width];
                if seen.from > 0 || seen.to < width {
                    hide(simd, row, *seen);
                }
                let max = f32::max(states[i].max, largest(simd, row));
                fall[i] = states[i].max - max;
                states[i].max = max;
            }
        }
        for factors in rescale.chunks_exact_mut(S::LANES).zip(fall.chunks_exact(S::LANES)) {
            simd.write(factors.0, simd.exp2(simd.read(factors.1)));
        }
        for (i, (row, seen)) in scores.chunks_exact_mut(STRIP).zip(seen).enumerate() {
            if !seen.is_empty() {
                let sum = weigh(simd, &mut row[..width], states[i].max);
                states[i].sum = states[i].sum * rescale[i] + sum;
            }
        }
    }
}

/// Minus infinity outside what is seen.
#[inline(always)]
pub(super) fn hide<S: Simd>(simd: S, row: &mut [f32], seen: Seen) {
    let nothing = simd.splat(f32::NEG_INFINITY);
    for (j, vector) in row.chunks_exact_mut(S::LANES).enumerate() {
        let from = seen.from.saturating_sub(j * S::LANES).min(S::LANES);
        let to = seen.to.saturating_sub(j * S::LANES).min(S::LANES);
        let kept = simd.where_lane(from, to, simd.read(vector), nothing);
        simd.write(vector, kept);
    }
}

/// The largest score.
#[inline(always)]
fn largest<S: Simd>(simd: S, row: &[f32]) -> f32 {
    let mut max = simd.splat(f32::NEG_INFINITY);
    for vector in row.chunks_exact(S::LANES) {
        max = simd.max(max, simd.read(vector));
    }
    simd.max_lane(max)
}

/// `row = 2^(row - max)`; returns its sum.
#[inline(always)]
fn weigh<S: Simd>(simd: S, row: &mut [f32], max: f32) -> f32 {
    let max = simd.splat(max);
    let mut sum = simd.splat(0.0);
    for vector in row.chunks_exact_mut(S::LANES) {
        let weight = simd.exp2(simd.sub(simd.read(vector), max));
        simd.write(vector, weight);
        sum = simd.add(sum, weight);
    }
    simd.sum(sum)
}

/// Adds what one run of slots gave a query to what the runs before it gave.
pub(super) struct Merge<'a> {
    pub state: &'a mut State,
    pub acc: &'a mut [f32], // (channels), padded to whole vectors
    pub part: State,
    pub part_acc: &'a [f32], // (channels)
}

impl Kernel for Merge<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let max = f32::max(self.state.max, self.part.max);
        let mut falls = [0.0; 16];
        falls[0] = self.state.max - max;
        falls[1] = self.part.max - max;
        let mut factors = [0.0; 16];
        simd.write(&mut factors, simd.exp2(simd.read(&falls)));
        let [a, b, ..] = factors;
        *self.state = State { max, sum: self.state.sum * a + self.part.sum * b };
        let (a, b) = (simd.splat(a), simd.splat(b));
        let whole = self.acc.chunks_exact_mut(S::LANES).zip(self.part_acc.chunks_exact(S::LANES));
        for (acc, part) in whole {
            let sum = simd.fma(simd.read(part), b, simd.mul(simd.read(acc), a));
            simd.write(acc, sum);
        }
    }
}
