//! Encoding a tensor piece by piece on all threads, with the error it makes.
//!
//! A piece is about a quarter of a million weights. Threads take the next piece of a round when they are done with one; the round's
//! bytes are then written in order. So memory holds one round, 8 pieces per thread, whatever the tensor's size.

use std::ops::{ControlFlow, Range};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use roofline_weights::{Format, WeightsError, blocks};

use super::error::ConvertError;
use super::tensors::OutputTensor;

/// Weights per piece: 1 MB decoded, enough to hide the hand-out, little enough to balance.
const PIECE: usize = 1 << 18;
const PIECES_PER_THREAD: usize = 8;

/// What encoding lost.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Loss {
    squares: f64,       // Σ (value − decoded)²
    value_squares: f64, // Σ value²
    /// Largest |value − decoded|.
    pub largest: f64,
}

impl Loss {
    /// √(Σ (value − decoded)² / Σ value²); 0 for a tensor of zeros that stays one.
    pub fn relative(&self) -> f64 {
        if self.squares == 0.0 { 0.0 } else { (self.squares / self.value_squares).sqrt() }
    }

    fn of(values: &[f32], decoded: &[f32]) -> Loss {
        let mut loss = Loss::default();
        for (value, decoded) in values.iter().zip(decoded) {
            let difference = f64::from(*value) - f64::from(*decoded);
            loss.squares += difference * difference;
            loss.value_squares += f64::from(*value) * f64::from(*value);
            loss.largest = loss.largest.max(difference.abs());
        }
        loss
    }

    /// Together with another part's.
    pub fn add(&mut self, other: Loss) {
        self.squares += other.squares;
        self.value_squares += other.value_squares;
        self.largest = self.largest.max(other.largest);
    }
}

/// How one tensor is written.
pub(super) struct Task<'a> {
    pub tensor: &'a OutputTensor<'a>,
    pub format: Format,
    /// One row of column weights for each matrix stacked in the tensor; empty weighs all alike.
    pub importance: &'a [&'a [f32]],
    pub threads: usize,
}

impl Task<'_> {
    /// Encodes the tensor, giving `write` its bytes front to back and `done` the weights finished so far.
    pub fn run(
        &self,
        mut write: impl FnMut(&[u8]) -> Result<(), ConvertError>,
        mut done: impl FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Loss, ConvertError> {
        let (rows, cols) = self.tensor.as_matrix();
        let matrix_rows = rows / self.importance.len().max(1);
        let pieces = pieces(rows, matrix_rows, cols);
        let mut loss = Loss::default();
        in_rounds(
            &pieces,
            self.threads,
            |rows| self.piece(rows),
            |rows, (bytes, lost)| {
                loss.add(lost);
                write(&bytes)?;
                match done(rows.end * cols).is_break() {
                    true => Err(ConvertError::Cancelled),
                    false => Ok(()),
                }
            },
        )?;
        Ok(loss)
    }

    fn piece(&self, rows: &Range<usize>) -> Result<(Vec<u8>, Loss), ConvertError> {
        let named = |source: WeightsError| ConvertError::Tensor {
            tensor: self.tensor.name.clone(),
            rows: rows.clone(),
            source,
        };
        let (all_rows, cols) = self.tensor.as_matrix();
        let weights = rows.len() * cols;
        let mut bytes = Vec::with_capacity(self.format.bytes_of(weights).unwrap_or(0));
        if self.tensor.source_formats() == [self.format] {
            self.tensor.copy(rows.clone(), &mut bytes).map_err(named)?;
            return match blocks::first_not_finite(self.format, &bytes) {
                None => Ok((bytes, Loss::default())),
                Some(index) => Err(named(self.not_finite(&bytes, weights, index))),
            };
        }
        let mut values = vec![0.0; weights]; // (rows, cols)
        self.tensor.decode(rows.clone(), &mut values).map_err(named)?;
        let matrix = rows.start / (all_rows / self.importance.len().max(1)).max(1);
        let importance = self.importance.get(matrix).copied();
        blocks::encode(self.format, &values, importance, &mut bytes).map_err(named)?;
        let mut decoded = vec![0.0; weights]; // (rows, cols)
        blocks::decode(self.format, &bytes, &mut decoded).map_err(named)?;
        Ok((bytes, Loss::of(&values, &decoded)))
    }

    /// What is wrong with stored bytes of which weight `index` is no number: copied, nobody would look at it again.
    fn not_finite(&self, bytes: &[u8], weights: usize, index: usize) -> WeightsError {
        let mut values = vec![0.0; weights]; // (rows, cols)
        match blocks::decode(self.format, bytes, &mut values) {
            Ok(()) => {
                WeightsError::NotFinite { what: "value", index, value: values[index], format: self.format }
            }
            Err(error) => error,
        }
    }
}

/// Ranges of rows of `cols` weights, about [`PIECE`] weights each, that never cross from one stacked matrix into the next.
pub(super) fn pieces(rows: usize, matrix_rows: usize, cols: usize) -> Vec<Range<usize>> {
    let matrix_rows = matrix_rows.max(1);
    let per_piece = (PIECE / cols.max(1)).clamp(1, matrix_rows);
    let mut all = Vec::new();
    let mut start = 0;
    while start < rows {
        let matrix_end = (start / matrix_rows + 1) * matrix_rows;
        let end = (start + per_piece).min(matrix_end).min(rows);
        all.push(start..end);
        start = end;
    }
    all
}

/// Does `work` on each piece, [`PIECES_PER_THREAD`] per thread at a time, and gives the results to `take` in order.
pub(super) fn in_rounds<T: Send>(
    pieces: &[Range<usize>],
    threads: usize,
    work: impl Fn(&Range<usize>) -> Result<T, ConvertError> + Sync,
    mut take: impl FnMut(&Range<usize>, T) -> Result<(), ConvertError>,
) -> Result<(), ConvertError> {
    for round in pieces.chunks(PIECES_PER_THREAD * threads.max(1)) {
        let results = in_parallel(round.len(), threads, |i| work(&round[i]));
        for (rows, result) in round.iter().zip(results) {
            take(rows, result?)?;
        }
    }
    Ok(())
}

/// `work(0..count)` on `threads` threads, results in order. Each thread takes the next index when it is free.
fn in_parallel<T: Send>(count: usize, threads: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<(usize, T)>> = Mutex::new(Vec::with_capacity(count));
    let take = || {
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            if i >= count {
                return;
            }
            let result = work(i);
            // A thread that panicked ends the scope with its panic; what it held is not looked at.
            results.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((i, result));
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.clamp(1, count.max(1)) {
            scope.spawn(take);
        }
        take();
    });
    let mut results = results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    results.sort_unstable_by_key(|(i, _)| *i);
    results.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_the_rows_and_stay_inside_a_matrix() {
        assert_eq!(pieces(10, 5, PIECE / 3), [0..3, 3..5, 5..8, 8..10]);
        assert_eq!(pieces(4, 4, 1).first(), Some(&(0..4)));
        assert_eq!(pieces(4, 4, 1).len(), 1);
        assert_eq!(pieces(2, 2, 2 * PIECE), [0..1, 1..2]);
        assert!(pieces(0, 0, 4).is_empty());
    }

    #[test]
    fn results_come_in_order_from_any_number_of_threads() {
        for threads in [1, 2, 7] {
            assert_eq!(in_parallel(20, threads, |i| i * i), (0..20).map(|i| i * i).collect::<Vec<_>>());
        }
        assert!(in_parallel(0, 3, |i| i).is_empty());
    }

    #[test]
    fn loss_is_relative_to_the_values() {
        let mut loss = Loss::of(&[3.0, 4.0], &[3.0, 3.5]);
        assert_eq!((loss.relative(), loss.largest), (0.1, 0.5));
        loss.add(Loss::of(&[0.0], &[0.0]));
        assert_eq!(loss.relative(), 0.1);
        assert_eq!(Loss::of(&[0.0], &[0.0]).relative(), 0.0);
    }
}
