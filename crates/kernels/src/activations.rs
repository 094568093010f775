//! The input rows of matrix products, in the forms that the weight formats multiply by.
//!
//! Float weights multiply f32 activations. Quantized weights multiply 16-bit integers that share one f32 scale per
//! 32: a product of integers is exact and the same on every machine, and 14 bits and a sign leave an error of at most
//! 3.1e-5 of the largest of the 32, two orders below that of the 8 bits that peers use.

use roofline_weights::Format;

use crate::error::KernelError;
use crate::layout::BLOCK;
use crate::shared_slice::SharedSlice;
use crate::table::KernelTable;
use crate::team::Team;

/// Below this many elements one thread prepares them faster than a team can be called together.
const WORTH_A_REGION: usize = 1 << 15;

/// Up to this many rows are prepared for decode kernels too: a batch of experts, each with a row or two.
const FEW_ROWS: usize = 64;

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
    pairs: Vec<i16>,       // (rows, stride), each quad as 0 2 1 3
    halves: Vec<u32>,      // (rows, stride / 4, 2): upper bytes of a quad, lower bytes; of few rows only
    scales: Vec<f32>,      // (rows, stride / 32)
    sums: Vec<i32>,        // (rows, stride / 16): sums of 16 integers
    scaled_sums: Vec<f32>, // (rows, stride / 32, 3): scale * sum of the first 16, of the second 16, of all 32
}

/// One row of integers with what belongs to it; `blocks = cols / 32`.
#[derive(Clone, Copy)]
pub(crate) struct IntegerRow<'a> {
    pub pairs: &'a [i16],       // (blocks, 32), each quad as 0 2 1 3
    pub halves: &'a [u32],      // (blocks, 8, 2): four upper bytes of a quad, four lower ones; may be missing
    pub scales: &'a [f32],      // (blocks)
    pub sums: &'a [i32],        // (blocks, 2)
    pub scaled_sums: &'a [f32], // (blocks, 3)
}

impl IntegerRow<'_> {
    /// Scale times sum of the integers of sub-block `sub` of the `subs` (1 or 2) of a block.
    ///
    /// # Safety
    /// The row has the block.
    #[inline(always)]
    pub unsafe fn scaled_sum(&self, block: usize, sub: usize, subs: usize) -> f32 {
        // SAFETY: there are three a block.
        unsafe { *self.scaled_sums.get_unchecked(3 * block + if subs == 1 { 2 } else { sub }) }
    }
}

/// One row of integers being written.
pub(crate) struct IntegerRowMut<'a> {
    pub pairs: &'a mut [i16],
    pub halves: &'a mut [u32], // empty where they are not wanted
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
            pairs: vec![0; elements],
            halves: vec![0; max_rows.min(FEW_ROWS) * stride / 2],
            scales: vec![0.0; blocks],
            sums: vec![0; 2 * blocks],
            scaled_sums: vec![0.0; 3 * blocks],
        }
    }

    /// Bytes held.
    pub fn allocated_bytes(&self) -> usize {
        self.floats.len() * 4
            + self.pairs.len() * 2
            + self.halves.len() * 4
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
        let pairs = SharedSlice::new(&mut self.pairs);
        let halves = SharedSlice::new(&mut self.halves);
        let halves_len = if rows <= FEW_ROWS { stride / 2 } else { 0 };
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
                // SAFETY: as above, for all of them.
                let out = unsafe {
                    IntegerRowMut {
                        pairs: pairs.part(row * stride, stride),
                        halves: halves.part(row * halves_len, halves_len),
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

    /// Whether rows are few enough for decode kernels to find all they need.
    pub(crate) fn has_halves(&self) -> bool {
        self.rows <= FEW_ROWS
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
            pairs: &self.pairs[row * self.stride..(row + 1) * self.stride],
            halves: if self.has_halves() {
                &self.halves[row * self.stride / 2..(row + 1) * self.stride / 2]
            } else {
                &[]
            },
            scales: &self.scales[row * blocks..(row + 1) * blocks],
            sums: &self.sums[row * 2 * blocks..(row + 1) * 2 * blocks],
            scaled_sums: &self.scaled_sums[row * 3 * blocks..(row + 1) * 3 * blocks],
        }
    }
}
