//! Which numbers of a half are kept apart: those without which the ranges of the rows shrink most.
//!
//! KVQuant calibrates thresholds per channel beforehand and takes the largest of all heads per token. A page of one head
//! has too few numbers in a row for percentiles, so its 1 % are given out among the rows, one at a time.

use super::sealed::SealedHalf;

/// What one number less would do to a row.
#[derive(Debug, Clone, Copy)]
struct Gain {
    /// By how much the square of the range falls, and without which number.
    square: f32,
    best: usize, // column
}

/// For every number whether it is an outlier.
pub(super) fn choose(half: &SealedHalf, numbers: &[f32]) -> Vec<bool> {
    let mut taken = vec![false; numbers.len()];
    let count = half.codec.outliers(numbers.len());
    if count == 0 {
        return taken;
    }
    let columns = half.columns;
    let gain_of = |taken: &[bool], row: usize| {
        let at = row * columns..(row + 1) * columns;
        gain(&numbers[at.clone()], &taken[at])
    };
    let mut rows: Vec<Option<Gain>> = (0..half.rows).map(|row| gain_of(&taken, row)).collect();
    for _ in 0..count {
        let square = |gain: &Option<Gain>| gain.map_or(0.0, |gain| gain.square);
        let best = rows.iter().enumerate().max_by(|a, b| square(a.1).total_cmp(&square(b.1)));
        match best {
            Some((row, Some(gain))) if gain.square > 0.0 => {
                taken[row * columns + gain.best] = true;
                rows[row] = gain_of(&taken, row);
            }
            _ => break,
        }
    }
    taken
}

/// The gain of taking one of the numbers not taken yet; none for a row with a NaN or an infinity, and for one with fewer
/// than three left.
fn gain(x: &[f32], taken: &[bool]) -> Option<Gain> {
    let mut left = 0;
    let (mut low, mut high) = ([f32::INFINITY; 2], [f32::NEG_INFINITY; 2]); // the outermost and the next
    let (mut lowest, mut highest) = (0, 0);
    for (i, (x, taken)) in x.iter().zip(taken).enumerate() {
        if !x.is_finite() {
            return None;
        }
        if *taken {
            continue;
        }
        left += 1;
        if *x < low[0] {
            (low, lowest) = ([*x, low[0]], i);
        } else if *x < low[1] {
            low[1] = *x;
        }
        if *x > high[0] {
            (high, highest) = ([*x, high[0]], i);
        } else if *x > high[1] {
            high[1] = *x;
        }
    }
    if left < 3 {
        return None;
    }
    let range = high[0] - low[0];
    let without = [high[0] - low[1], high[1] - low[0]].map(|range| range * range);
    let (best, without) = if without[0] < without[1] { (lowest, without[0]) } else { (highest, without[1]) };
    Some(Gain { square: range * range - without, best })
}
