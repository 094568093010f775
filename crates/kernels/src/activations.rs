//! The input rows of matrix products, in the forms that the weight formats multiply by.
//!
//! Float weights multiply f32 activations. Quantized weights multiply 16-bit integers that share one f32 scale per
//! 32: a product of integers is exact and the same on every machine, and 15 bits and a sign leave an error of at most
//! 1.5e-5 of the largest of the 32, two orders below that of the 8 bits that peers use.

use roofline_weights::Format;

use crate::error::KernelError;
use crate::isa::Isa;
use crate::layout::BLOCK;
use crate::shared_slice::SharedSlice;
use crate::table::{Candidate, Chooser, KernelTable, Operation};
use crate::team::Team;

/// Below this many elements one thread prepares them faster than a team can be called together.
const WORTH_A_REGION: usize = 1 << 15;

/// Prepared activations, `(rows, cols)`, read by all products that share them.
pub struct Activations {
    max_rows: usize,
    max_cols: usize,
    rows: usize,
    cols: usize,
    stride: usize, // elements from row to row: cols, filled up to whole blocks
    has_floats: bool,
    has_integers: bool,
    floats: Vec<f32>,      // (rows, stride), zero from cols on
    integers: Vec<i16>,    // (rows, stride), each quad as 0 2 1 3
    scales: Vec<f32>,      // (rows, stride / 32)
    sums: Vec<i32>,        // (rows, stride / 16): sums of 16 integers
    scaled_sums: Vec<f32>, // (rows, stride / 32, 3): scale * sum of the first 16, of the second 16, of all 32
}

/// One row of integers with what belongs to it; `blocks = cols / 32`.
#[derive(Clone, Copy)]
pub(crate) struct IntegerRow<'a> {
    pub integers: &'a [i16],    // (blocks, 32), each quad as 0 2 1 3
    pub scales: &'a [f32],      // (blocks)
    pub sums: &'a [i32],        // (blocks, 2)
    pub scaled_sums: &'a [f32], // (blocks, 3)
}

/// One row of integers being written.
pub(crate) struct IntegerRowMut<'a> {
    pub integers: &'a mut [i16],
    pub scales: &'a mut [f32],
    pub sums: &'a mut [i32],
    pub scaled_sums: &'a mut [f32],
}

impl Activations {
    /// Room for any `rows <= max_rows` by `cols <= max_cols`. Later calls allocate nothing.
    pub fn with_capacity(max_rows: usize, max_cols: usize) -> Activations {
        let stride = max_cols.next_multiple_of(BLOCK);
        let (elements, blocks) = (max_rows * stride, max_rows * stride / BLOCK);
        Activations {
            max_rows,
            max_cols,
            rows: 0,
            cols: 0,
            stride,
            has_floats: false,
            has_integers: false,
            floats: vec![0.0; elements],
            integers: vec![0; elements],
            scales: vec![0.0; blocks],
            sums: vec![0; 2 * blocks],
            scaled_sums: vec![0.0; 3 * blocks],
        }
    }

    /// Bytes held.
    pub fn allocated_bytes(&self) -> usize {
        self.floats.len() * 4
            + self.integers.len() * 2
            + (self.scales.len() + self.sums.len() + self.scaled_sums.len()) * 4
    }

    /// Rows prepared.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns prepared.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Prepares `x`, `(rows, cols)`, for products with weights of `formats`. Allocates nothing.
    ///
    /// A NaN or an infinity makes all outputs that its block takes part in NaN.
    ///
    /// # Errors
    /// [`Shape`](KernelError::Shape) when `x` does not fit the capacity or its shape;
    /// [`PartialBlock`](KernelError::PartialBlock) when a quantized format meets columns that leave a block of 32 unfilled.
    pub fn set(
        &mut self,
        table: &KernelTable,
        team: &Team,
        x: &[f32], // (rows, cols)
        rows: usize,
        cols: usize,
        formats: &[Format],
    ) -> Result<(), KernelError> {
        self.check(x.len(), rows, cols, formats)?;
        self.rows = rows;
        self.cols = cols;
        self.stride = cols.next_multiple_of(BLOCK);
        self.has_integers = formats.iter().any(|format| format.is_quantized());
        self.has_floats = formats.iter().any(|format| !format.is_quantized());
        if rows == 0 || cols == 0 {
            return Ok(());
        }
        let (stride, blocks) = (self.stride, self.stride / BLOCK);
        let (has_floats, has_integers) = (self.has_floats, self.has_integers);
        let floats = SharedSlice::new(&mut self.floats);
        let integers = SharedSlice::new(&mut self.integers);
        let scales = SharedSlice::new(&mut self.scales);
        let sums = SharedSlice::new(&mut self.sums);
        let scaled_sums = SharedSlice::new(&mut self.scaled_sums);
        let prepare = |row: usize, _worker: usize| {
            let x = &x[row * cols..(row + 1) * cols];
            if has_floats {
                // SAFETY: each row is one tile.
                let floats = unsafe { floats.part(row * stride, stride) };
                floats[..cols].copy_from_slice(x);
                floats[cols..].fill(0.0);
            }
            if has_integers {
                // SAFETY: as above, for all four.
                let out = unsafe {
                    IntegerRowMut {
                        integers: integers.part(row * stride, stride),
                        scales: scales.part(row * blocks, blocks),
                        sums: sums.part(row * 2 * blocks, 2 * blocks),
                        scaled_sums: scaled_sums.part(row * 3 * blocks, 3 * blocks),
                    }
                };
                // SAFETY: the table holds only functions that this machine runs.
                unsafe { (table.quantize)(x, out) };
            }
        };
        if rows > 1 && rows * cols >= WORTH_A_REGION {
            team.run(rows, &prepare);
        } else {
            (0..rows).for_each(|row| prepare(row, 0));
        }
        Ok(())
    }

    fn check(&self, len: usize, rows: usize, cols: usize, formats: &[Format]) -> Result<(), KernelError> {
        let shape = |what, got, want| Err(KernelError::Shape { what, got, want });
        if rows > self.max_rows {
            return shape("rows of activations, at most", rows, self.max_rows);
        }
        if cols > self.max_cols {
            return shape("columns of activations, at most", cols, self.max_cols);
        }
        if len != rows * cols {
            return shape("elements of activations", len, rows * cols);
        }
        match formats.iter().find(|format| format.is_quantized() && !cols.is_multiple_of(BLOCK)) {
            Some(&format) => Err(KernelError::PartialBlock { format, cols }),
            None => Ok(()),
        }
    }

    /// Whether a product with weights of `format` finds what it needs.
    pub(crate) fn is_prepared_for(&self, format: Format) -> bool {
        if format.is_quantized() { self.has_integers } else { self.has_floats }
    }

    /// Row `row` as f32, zero from `cols` up to a whole block.
    #[inline]
    pub(crate) fn float_row(&self, row: usize) -> &[f32] {
        &self.floats[row * self.stride..(row + 1) * self.stride]
    }

    /// Row `row` as integers.
    #[inline]
    pub(crate) fn integer_row(&self, row: usize) -> IntegerRow<'_> {
        let blocks = self.stride / BLOCK;
        IntegerRow {
            integers: &self.integers[row * self.stride..(row + 1) * self.stride],
            scales: &self.scales[row * blocks..(row + 1) * blocks],
            sums: &self.sums[row * 2 * blocks..(row + 1) * 2 * blocks],
            scaled_sums: &self.scaled_sums[row * 3 * blocks..(row + 1) * 3 * blocks],
        }
    }
}

/// Writes one row of f32 as integers.
///
/// # Safety
/// The machine has the instructions that the function was compiled for.
pub(crate) type QuantizeRow = unsafe fn(&[f32], IntegerRowMut<'_>);

/// Chooses the widest there is.
pub(crate) fn choose_quantize(chooser: &mut Chooser) -> QuantizeRow {
    let wider: &[Candidate<QuantizeRow>] = &[
        #[cfg(target_arch = "x86_64")]
        Candidate { isa: Isa::Avx2, kernel: quantize_avx2 },
        #[cfg(target_arch = "x86_64")]
        Candidate { isa: Isa::Avx512, kernel: quantize_avx512 },
        #[cfg(target_arch = "aarch64")]
        Candidate { isa: Isa::Neon, kernel: quantize_row },
    ];
    chooser.pick(Operation::QuantizeActivations, "i16", quantize_row, wider)
}

/// [`quantize_row`] compiled for wider vectors.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
fn quantize_avx2(x: &[f32], out: IntegerRowMut<'_>) {
    quantize_row(x, out);
}

/// [`quantize_row`] compiled for wider vectors.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn quantize_avx512(x: &[f32], out: IntegerRowMut<'_>) {
    quantize_row(x, out);
}

/// Largest integer of a block.
const LARGEST: f32 = 32767.0;
/// Adding and subtracting 1.5 * 2^23 rounds a float below 2^22 to the nearest integer, ties to even.
const ROUND: f32 = 12_582_912.0;

#[inline(always)]
fn quantize_row(x: &[f32], out: IntegerRowMut<'_>) {
    let IntegerRowMut { integers, scales, sums, scaled_sums } = out;
    let blocks = x.chunks_exact(BLOCK).zip(integers.chunks_exact_mut(BLOCK)).zip(scales);
    let sums = sums.chunks_exact_mut(2).zip(scaled_sums.chunks_exact_mut(3));
    for (((x, integers), scale), (sums, scaled)) in blocks.zip(sums) {
        // Magnitudes as bit patterns: their order is that of the numbers, and NaN ranks above infinity.
        let largest = f32::from_bits(x.iter().fold(0, |most, x| most.max(x.to_bits() & 0x7fff_ffff)));
        let (block_scale, inverse) = if !largest.is_finite() {
            (f32::NAN, 0.0)
        } else if largest >= LARGEST * f32::MIN_POSITIVE {
            (largest / LARGEST, LARGEST / largest)
        } else {
            // So small that the scale would lose its digits or its inverse overflow.
            (f32::MIN_POSITIVE, 1.0 / f32::MIN_POSITIVE)
        };
        let mut rounded = [0i16; BLOCK];
        for (q, x) in rounded.iter_mut().zip(x) {
            *q = (x * inverse + ROUND - ROUND) as i32 as i16;
        }
        for (pairs, quad) in integers.chunks_exact_mut(4).zip(rounded.chunks_exact(4)) {
            pairs.copy_from_slice(&[quad[0], quad[2], quad[1], quad[3]]);
        }
        let sum = |half: &[i16]| half.iter().map(|&q| i32::from(q)).sum::<i32>();
        (sums[0], sums[1]) = (sum(&rounded[..16]), sum(&rounded[16..]));
        *scale = block_scale;
        scaled[0] = block_scale * sums[0] as f32;
        scaled[1] = block_scale * sums[1] as f32;
        scaled[2] = block_scale * (sums[0] + sums[1]) as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantized(x: &[f32; BLOCK]) -> ([f32; BLOCK], [i32; 2]) {
        let (mut integers, mut scale, mut sums, mut scaled) = ([0; BLOCK], [0.0], [0; 2], [0.0; 3]);
        let out = IntegerRowMut {
            integers: &mut integers,
            scales: &mut scale,
            sums: &mut sums,
            scaled_sums: &mut scaled,
        };
        quantize_row(x, out);
        assert!(scale[0].is_nan() || scaled[2] == scale[0] * (sums[0] + sums[1]) as f32);
        let order = [0, 2, 1, 3];
        (std::array::from_fn(|k| f32::from(integers[k / 4 * 4 + order[k % 4]]) * scale[0]), sums)
    }

    #[test]
    fn a_block_comes_back_within_half_a_step_at_every_magnitude() {
        for magnitude in [1e-45, 1e-40, 1e-38, 3e-34, 1e-20, 1.0, 1e20, 3.4e38] {
            let x: [f32; BLOCK] = std::array::from_fn(|k| (k as f32 * 0.7).sin() * magnitude);
            let largest = x.iter().fold(0.0f32, |m, x| m.max(x.abs()));
            let (back, _) = quantized(&x);
            for (x, back) in x.iter().zip(back) {
                let allowed = (largest / LARGEST * 0.505).max(f32::MIN_POSITIVE * 0.501);
                assert!((x - back).abs() <= allowed, "{magnitude}: {x} became {back}");
            }
        }
        assert_eq!(quantized(&[0.0; BLOCK]), ([0.0; BLOCK], [0, 0]));
        assert_eq!(quantized(&[-2.0; BLOCK]).1, [-16 * 32767; 2]);
    }

    #[test]
    fn what_is_not_finite_is_not_hidden() {
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = [1.0; BLOCK];
            x[17] = bad;
            assert!(quantized(&x).0.iter().all(|x| x.is_nan()), "{bad}");
        }
    }
}
