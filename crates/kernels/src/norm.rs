//! RMSNorm and LayerNorm, over rows of any width: the hidden size, or one head.

use crate::error::KernelError;
use crate::shared_slice::SharedSlice;
use crate::table::KernelTable;
use crate::team::Team;
use crate::vectors::{Kernel, Level, Simd, dispatch};

/// Numbers below which one thread does it all: a row of 4096 takes about a microsecond, as does a barrier.
const ALONE: usize = 16_384;

/// What a row is divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormKind {
    /// `x / sqrt(mean(x²) + eps)`.
    Rms,
    /// `(x - mean(x)) / sqrt(var(x) + eps)`, with the biased variance.
    Layer,
}

/// A norm and its parameters.
#[derive(Debug, Clone, Copy)]
pub struct Norm<'a> {
    /// Which norm.
    pub kind: NormKind,
    /// Added to the mean square before the root.
    pub eps: f32,
    /// Multiplied in after the division; its length is the width of a row.
    pub weight: &'a [f32], // (width)
    /// Added last.
    pub bias: Option<&'a [f32]>, // (width)
}

/// Normalises each row of `x` into the same row of `out`, both `(rows, width)` with the width of the weight.
///
/// # Errors
/// [`KernelError::Shape`] when the lengths disagree.
pub fn norm_rows(
    table: &KernelTable,
    team: &Team,
    norm: &Norm<'_>,
    x: &[f32],       // (rows, width)
    out: &mut [f32], // (rows, width)
) -> Result<(), KernelError> {
    if out.len() != x.len() {
        return Err(KernelError::Shape { what: "outputs of a norm", got: out.len(), want: x.len() });
    }
    out.copy_from_slice(x);
    norm_rows_in_place(table, team, norm, out)
}

/// Normalises each row of `x`, `(rows, width)` with the width of the weight. Q and k norms of one head each take
/// `(rows, heads, head_dim)` and a weight of `head_dim`.
///
/// # Errors
/// [`KernelError::Shape`] when the lengths disagree.
pub fn norm_rows_in_place(
    table: &KernelTable,
    team: &Team,
    norm: &Norm<'_>,
    x: &mut [f32], // (rows, width)
) -> Result<(), KernelError> {
    let width = norm.weight.len();
    if width == 0 || !x.len().is_multiple_of(width) {
        return Err(KernelError::Shape {
            what: "numbers to normalise, in whole rows",
            got: x.len(),
            want: width,
        });
    }
    if let Some(bias) = norm.bias
        && bias.len() != width
    {
        return Err(KernelError::Shape { what: "bias of a norm", got: bias.len(), want: width });
    }
    let level = table.vectors();
    if x.len() < ALONE {
        normalise(level, norm, x);
        return Ok(());
    }
    let rows = x.len() / width;
    let rows_per_tile = (4096 / width).max(1);
    let shared = SharedSlice::new(x);
    team.run(rows.div_ceil(rows_per_tile), &|tile, _| {
        let first = tile * rows_per_tile;
        let count = rows_per_tile.min(rows - first);
        // SAFETY: each tile has rows of its own.
        normalise(level, norm, unsafe { shared.part(first * width, count * width) });
    });
    Ok(())
}

fn normalise(level: Level, norm: &Norm<'_>, x: &mut [f32]) {
    dispatch(level, NormRows { norm, x });
}

struct NormRows<'a> {
    norm: &'a Norm<'a>,
    x: &'a mut [f32], // (rows, width)
}

impl Kernel for NormRows<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Norm { kind, eps, weight, bias } = *self.norm;
        let width = weight.len();
        for row in self.x.chunks_exact_mut(width) {
            let mean = match kind {
                NormKind::Rms => 0.0,
                NormKind::Layer => sum(simd, row, 0.0, false) / width as f32,
            };
            let square = sum(simd, row, mean, true) / width as f32;
            scale(simd, row, mean, 1.0 / (square + eps).sqrt(), weight, bias);
        }
    }
}

/// The sum of `x - mean`, or of its squares, in four vectors of partial sums.
#[inline(always)]
fn sum<S: Simd>(simd: S, row: &[f32], mean: f32, squares: bool) -> f32 {
    let mean = simd.splat(mean);
    let mut sums = [simd.splat(0.0); 4];
    let mut vectors = row.chunks_exact(S::LANES);
    for (i, vector) in (&mut vectors).enumerate() {
        let x = simd.sub(simd.read(vector), mean);
        let sum = &mut sums[i % 4];
        *sum = if squares { simd.fma(x, x, *sum) } else { simd.add(*sum, x) };
    }
    let [a, b, c, d] = sums;
    let mut total = simd.sum(simd.add(simd.add(a, b), simd.add(c, d)));
    let rest = vectors.remainder();
    if !rest.is_empty() {
        // Lanes behind the end must count as the mean does: as nothing.
        let x = simd.sub(simd.read_part(rest), simd.where_lane(0, rest.len(), mean, simd.splat(0.0)));
        total += simd.sum(if squares { simd.mul(x, x) } else { x });
    }
    total
}

/// `(x - mean) * factor * weight + bias`, in this order.
#[inline(always)]
fn scale<S: Simd>(simd: S, row: &mut [f32], mean: f32, factor: f32, weight: &[f32], bias: Option<&[f32]>) {
    let (mean, factor) = (simd.splat(mean), simd.splat(factor));
    let whole = row.len() - row.len() % S::LANES;
    let one = |x: S::F, weight: S::F| simd.mul(simd.mul(simd.sub(x, mean), factor), weight);
    let (rows, rest) = row.split_at_mut(whole);
    for (i, vector) in rows.chunks_exact_mut(S::LANES).enumerate() {
        let mut y = one(simd.read(vector), simd.read(&weight[i * S::LANES..]));
        if let Some(bias) = bias {
            y = simd.add(y, simd.read(&bias[i * S::LANES..]));
        }
        simd.write(vector, y);
    }
    if !rest.is_empty() {
        let mut y = one(simd.read_part(rest), simd.read_part(&weight[whole..]));
        if let Some(bias) = bias {
            y = simd.add(y, simd.read_part(&bias[whole..]));
        }
        simd.write_part(rest, y);
    }
}
