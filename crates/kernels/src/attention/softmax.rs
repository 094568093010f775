//! The softmax between the two tiles, online: a running maximum and sum per query, by which what was accumulated
//! before is rescaled. Scores and maxima are in powers of two, since log2(e) is already in the queries.

use super::tile::STRIP;
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

/// The states of many queries, by kind, as vectors compute with them.
pub(super) struct States {
    pub max: Vec<f32>, // (queries), padded to 16
    pub sum: Vec<f32>, // (queries), padded
    strip: Vec<f32>,   // (queries), padded: maxima, then sums, of the strip at hand
    /// By what the outputs so far are to be multiplied.
    pub rescale: Vec<f32>, // (queries), padded
}

impl States {
    pub fn new(queries: usize) -> States {
        let zeros = || vec![0.0; queries.next_multiple_of(16)];
        States { max: zeros(), sum: zeros(), strip: zeros(), rescale: zeros() }
    }

    /// Bytes that [`new`](States::new) reserves.
    pub fn bytes(queries: usize) -> usize {
        4 * size_of::<f32>() * queries.next_multiple_of(16)
    }

    /// Nothing seen by the first `queries`.
    pub fn clear(&mut self, queries: usize) {
        self.max[..queries].fill(State::EMPTY.max);
        self.sum[..queries].fill(State::EMPTY.sum);
    }

    pub fn get(&self, query: usize) -> State {
        State { max: self.max[query], sum: self.sum[query] }
    }
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

    /// The slots up to the last that is seen, in whole vectors; 0 when none is.
    #[inline(always)]
    pub fn width(self) -> usize {
        if self.is_empty() { 0 } else { self.to.next_multiple_of(16) }
    }
}

/// Rows whose ends are reduced together.
const ROWS: usize = 8;

/// Turns the scores of a strip into weights relative to the new maxima, in place; what a query does not see of its
/// [`width`](Seen::width) becomes zero. Updates the states and leaves in them the factors for what was accumulated before.
pub(super) struct Soften<'a> {
    pub scores: &'a mut [f32], // (queries, STRIP)
    pub seen: &'a [Seen],      // (queries)
    pub states: &'a mut States,
}

impl Kernel for Soften<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        if self.seen.len() <= ROWS { self.few(simd) } else { self.many(simd) }
    }
}

impl Soften<'_> {
    /// Queries whose states are numbers: a vector of them, written in parts and read whole, would be waited for.
    #[inline(always)]
    fn few<S: Simd>(self, simd: S) {
        let Soften { scores, seen, states: States { max, sum, rescale, .. } } = self;
        let mut fall = [0.0; 16];
        for (i, (row, seen)) in scores.chunks_exact_mut(STRIP).zip(seen).enumerate() {
            let now = f32::max(max[i], simd.max_lane(peak(simd, row, *seen)));
            fall[i] = max[i] - now;
            max[i] = now;
        }
        for (rescale, fall) in rescale[..16].chunks_exact_mut(S::LANES).zip(fall.chunks_exact(S::LANES)) {
            simd.write(rescale, simd.exp2(simd.read(fall)));
        }
        for (i, (row, seen)) in scores.chunks_exact_mut(STRIP).zip(seen).enumerate() {
            sum[i] = sum[i] * rescale[i] + simd.sum(weigh(simd, row, *seen, max[i]));
        }
    }

    /// Each step for all queries before the next one. Query by query, or a register tile's queries at a time, each waits for its
    /// own chain of some 150 cycles, which is longer than what the processor can look beyond. The same bits as [`few`](Soften::few).
    #[inline(always)]
    fn many<S: Simd>(self, simd: S) {
        let Soften { scores, seen, states: States { max, sum, strip, rescale } } = self;
        let vectors = || (0..seen.len()).step_by(S::LANES);
        let rows = scores.chunks_mut(ROWS * STRIP).zip(seen.chunks(ROWS));
        for ((rows, seen), strip) in rows.zip(strip.chunks_exact_mut(ROWS)) {
            let mut peaks = [simd.splat(f32::NEG_INFINITY); ROWS];
            for ((peaks, row), seen) in peaks.iter_mut().zip(rows.chunks_exact_mut(STRIP)).zip(seen) {
                *peaks = peak(simd, row, *seen);
            }
            strip.copy_from_slice(&simd.max_lanes(&peaks));
        }
        for at in vectors() {
            let before = simd.read(&max[at..]);
            let now = simd.max(simd.read(&strip[at..]), before);
            simd.write(&mut max[at..], now);
            simd.write(&mut rescale[at..], simd.exp2(simd.sub(before, now)));
        }
        let rows = scores.chunks_mut(ROWS * STRIP).zip(seen.chunks(ROWS)).zip(max.chunks_exact(ROWS));
        for (((rows, seen), max), strip) in rows.zip(strip.chunks_exact_mut(ROWS)) {
            let mut sums = [simd.splat(0.0); ROWS];
            let rows = rows.chunks_exact_mut(STRIP).zip(seen).zip(max);
            for (sum, ((row, seen), max)) in sums.iter_mut().zip(rows) {
                *sum = weigh(simd, row, *seen, *max);
            }
            strip.copy_from_slice(&simd.sums(&sums));
        }
        for at in vectors() {
            let before = simd.mul(simd.read(&sum[at..]), simd.read(&rescale[at..]));
            simd.write(&mut sum[at..], simd.add(before, simd.read(&strip[at..])));
        }
    }
}

/// Hides what a query does not see of a strip; returns the largest scores of each lane.
#[inline(always)]
fn peak<S: Simd>(simd: S, row: &mut [f32], seen: Seen) -> S::F {
    let row = &mut row[..seen.width()];
    if seen.from > 0 || seen.to < row.len() {
        hide(simd, row, seen);
    }
    match <&[f32; STRIP]>::try_from(&*row) {
        Ok(row) => largest_of(simd, row), // without a loop
        Err(_) => largest_of(simd, row),
    }
}

/// The weights of a query in place of its scores; returns the sums of each lane.
#[inline(always)]
fn weigh<S: Simd>(simd: S, row: &mut [f32], seen: Seen, max: f32) -> S::F {
    let row = &mut row[..seen.width()];
    match <&mut [f32; STRIP]>::try_from(&mut *row) {
        Ok(row) => powers(simd, row, max),
        Err(_) => powers(simd, row, max),
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

/// The largest scores of each lane.
#[inline(always)]
fn largest_of<S: Simd>(simd: S, row: &[f32]) -> S::F {
    let mut max = simd.splat(f32::NEG_INFINITY);
    for vector in row.chunks_exact(S::LANES) {
        max = simd.max(max, simd.read(vector));
    }
    max
}

/// `row = 2^(row - max)`; returns the sums of each lane.
#[inline(always)]
fn powers<S: Simd>(simd: S, row: &mut [f32], max: f32) -> S::F {
    let max = simd.splat(max);
    let mut sum = simd.splat(0.0);
    for vector in row.chunks_exact_mut(S::LANES) {
        let weight = simd.exp2(simd.sub(simd.read(vector), max));
        simd.write(vector, weight);
        sum = simd.add(sum, weight);
    }
    sum
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
