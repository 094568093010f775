//! The input rows of matrix products, in the forms that the weight formats multiply by.
//!
//! Float weights multiply f32 activations, or bf16 ones where an instruction does so faster. Quantized weights multiply
//! integers that share one f32 scale per 32, as a product of integers is exact and the same on every machine: of 8
//! bits, an error of at most 3.9e-3 of the largest of the 32, or in exact arithmetic of 14 bits and a sign, 3.1e-5.

use roofline_weights::Format;

use crate::aligned::{Buffer, Number};
use crate::error::KernelError;
use crate::layout::BLOCK;
use crate::shared_slice::SharedSlice;
use crate::table::KernelTable;
use crate::team::Team;

/// Below this many elements one thread prepares them faster than a team can be called together.
const WORTH_A_REGION: usize = 1 << 15;

/// Up to this many rows are prepared for decode kernels too: a batch of experts, each with a row or two.
const FEW_ROWS: usize = 64;

/// What the weights of a format are multiplied by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// f32.
    Floats,
    /// bf16.
    Bf16,
    /// 8-bit integers.
    Bytes,
    /// 16-bit integers.
    Pairs,
}

impl Form {
    /// Name of the numbers, for people.
    pub fn name(self) -> &'static str {
        match self {
            Form::Floats => "f32",
            Form::Bf16 => "bf16",
            Form::Bytes => "i8",
            Form::Pairs => "i16",
        }
    }

    /// Whether rows are whole blocks of 32.
    fn is_in_blocks(self) -> bool {
        matches!(self, Form::Bytes | Form::Pairs)
    }
}

/// Which forms are there.
#[derive(Debug, Clone, Copy, Default)]
struct Forms {
    floats: bool,
    bf16: bool,
    bytes: bool,
    pairs: bool,
}

impl Forms {
    fn add(&mut self, form: Form) {
        match form {
            Form::Floats => self.floats = true,
            Form::Bf16 => self.bf16 = true,
            Form::Bytes => self.bytes = true,
            Form::Pairs => self.pairs = true,
        }
    }

    fn has(self, form: Form) -> bool {
        match form {
            Form::Floats => self.floats,
            Form::Bf16 => self.bf16,
            Form::Bytes => self.bytes,
            Form::Pairs => self.pairs,
        }
    }
}

/// Prepared activations, `(rows, cols)`, read by all products that share them.
pub struct Activations {
    max_rows: usize,
    max_cols: usize,
    rows: usize,
    cols: usize,
    stride: usize, // elements from row to row: cols, filled up to whole blocks
    forms: Forms,
    floats: Buffer<f32>,      // (rows, stride), zero from cols on
    bf16: Buffer<u16>,        // (rows, stride), zero from cols on
    bytes: Buffer<i8>,        // (rows, stride)
    biased: Buffer<u8>,       // (rows, stride): the same, 128 more
    pairs: Buffer<i16>,       // (rows, stride), each quad as 0 2 1 3
    halves: Buffer<u32>,      // (rows, stride / 4, 2): upper bytes of a quad, lower bytes; of few rows only
    scales: Buffer<f32>,      // (rows, stride / 32), of bytes or pairs, as the next two
    sums: Buffer<i32>,        // (rows, stride / 16): sums of 16 integers
    scaled_sums: Buffer<f32>, // (rows, stride / 32, 3): scale * sum of the first 16, of the second 16, of all 32
}

/// One row of integers with what belongs to it; `blocks = cols / 32`. Either bytes or pairs are there.
#[derive(Clone, Copy)]
pub(crate) struct IntegerRow<'a> {
    pub bytes: &'a [i8],        // (blocks, 32)
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

/// Rows of bytes with what belongs to them, one after the other.
#[derive(Clone, Copy)]
pub(crate) struct ByteRows {
    pub bytes: *const i8,        // (rows, blocks, 32)
    pub biased: *const u8,       // (rows, blocks, 32): bytes + 128
    pub scales: *const f32,      // (rows, blocks)
    pub scaled_sums: *const f32, // (rows, blocks, 3), as of an [`IntegerRow`]
    pub blocks: usize,           // of a row
}

/// One row of integers being written; what is empty is not wanted.
pub(crate) struct IntegerRowMut<'a> {
    pub bytes: &'a mut [i8],
    pub biased: &'a mut [u8],
    pub pairs: &'a mut [i16],
    pub halves: &'a mut [u32],
    pub scales: &'a mut [f32],
    pub sums: &'a mut [i32],
    pub scaled_sums: &'a mut [f32],
}

impl Activations {
    /// Room for any `rows <= max_rows` by `cols <= max_cols`.
    ///
    /// # Errors
    /// [`ActivationMemory`](KernelError::ActivationMemory).
    pub fn with_capacity(max_rows: usize, max_cols: usize) -> Result<Activations, KernelError> {
        let stride = max_cols.next_multiple_of(BLOCK);
        let (elements, blocks) = (max_rows * stride, max_rows * stride / BLOCK);
        Ok(Activations {
            max_rows,
            max_cols,
            rows: 0,
            cols: 0,
            stride,
            forms: Forms::default(),
            floats: room(elements)?,
            bf16: room(elements)?,
            bytes: room(elements)?,
            biased: room(elements)?,
            pairs: room(elements)?,
            halves: room(max_rows.min(FEW_ROWS) * stride / 2)?,
            scales: room(blocks)?,
            sums: room(2 * blocks)?,
            scaled_sums: room(3 * blocks)?,
        })
    }

    /// Asks for pages of 2 MiB behind what is touched from now on: for many rows.
    pub fn ask_for_large_pages(&self) {
        self.floats.ask_for_large_pages();
        self.bf16.ask_for_large_pages();
        self.bytes.ask_for_large_pages();
        self.biased.ask_for_large_pages();
        self.pairs.ask_for_large_pages();
    }

    /// Bytes held. Forms that are never prepared are never touched, so the system keeps no memory for them.
    pub fn allocated_bytes(&self) -> usize {
        self.floats.len() * 4
            + (self.bf16.len() + self.pairs.len()) * 2
            + self.bytes.len()
            + self.biased.len()
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
        self.check(table, x.len(), rows, cols, formats)?;
        self.rows = rows;
        self.cols = cols;
        self.stride = cols.next_multiple_of(BLOCK);
        self.forms = Forms::default();
        formats.iter().for_each(|&format| self.forms.add(table.form(format)));
        let forms = self.forms;
        if rows == 0 || cols == 0 {
            return Ok(());
        }
        let (stride, blocks) = (self.stride, self.stride / BLOCK);
        let floats = SharedSlice::new(&mut self.floats);
        let bf16 = SharedSlice::new(&mut self.bf16);
        let bytes = SharedSlice::new(&mut self.bytes);
        let biased = SharedSlice::new(&mut self.biased);
        let pairs = SharedSlice::new(&mut self.pairs);
        let halves = SharedSlice::new(&mut self.halves);
        let bytes_len = if forms.bytes { stride } else { 0 };
        let pairs_len = if forms.pairs { stride } else { 0 };
        let halves_len = if forms.pairs && rows <= FEW_ROWS { stride / 2 } else { 0 };
        let scales = SharedSlice::new(&mut self.scales);
        let sums = SharedSlice::new(&mut self.sums);
        let scaled_sums = SharedSlice::new(&mut self.scaled_sums);
        let prepare = |row: usize, _worker: usize| {
            let x = &x[row * cols..(row + 1) * cols];
            if forms.floats {
                // SAFETY: each row is one tile.
                let floats = unsafe { floats.part(row * stride, stride) };
                floats[..cols].copy_from_slice(x);
                floats[cols..].fill(0.0);
            }
            if forms.bf16 {
                // SAFETY: as above.
                let bf16 = unsafe { bf16.part(row * stride, stride) };
                bf16[cols..].fill(0);
                // SAFETY: the table holds only functions that this machine runs.
                unsafe { (table.round_bf16)(x, &mut bf16[..cols]) };
            }
            if forms.bytes || forms.pairs {
                // SAFETY: as above, for all of them.
                let out = unsafe {
                    IntegerRowMut {
                        bytes: bytes.part(row * bytes_len, bytes_len),
                        biased: biased.part(row * bytes_len, bytes_len),
                        pairs: pairs.part(row * pairs_len, pairs_len),
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

    fn check(
        &self,
        table: &KernelTable,
        len: usize,
        rows: usize,
        cols: usize,
        formats: &[Format],
    ) -> Result<(), KernelError> {
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
        match formats.iter().find(|&&format| table.form(format).is_in_blocks() && !cols.is_multiple_of(BLOCK))
        {
            Some(&format) => Err(KernelError::PartialBlock { format, cols }),
            None => Ok(()),
        }
    }

    /// Whether a product finds the form it needs.
    pub(crate) fn is_prepared_for(&self, form: Form) -> bool {
        self.forms.has(form)
    }

    /// Whether rows are few enough for decode kernels to find all they need of that form.
    pub(crate) fn serves_decode(&self, form: Form) -> bool {
        form != Form::Pairs || self.rows <= FEW_ROWS
    }

    /// Row `row` as f32, zero from `cols` up to a whole block.
    #[inline]
    pub(crate) fn float_row(&self, row: usize) -> &[f32] {
        &self.floats[row * self.stride..(row + 1) * self.stride]
    }

    /// Rows from `row` on as bytes, for kernels that take many together.
    #[inline]
    pub(crate) fn byte_rows(&self, row: usize) -> ByteRows {
        let (elements, blocks) = (row * self.stride, row * (self.stride / BLOCK));
        ByteRows {
            bytes: self.bytes[elements..].as_ptr(),
            biased: self.biased[elements..].as_ptr(),
            scales: self.scales[blocks..].as_ptr(),
            scaled_sums: self.scaled_sums[3 * blocks..].as_ptr(),
            blocks: self.stride / BLOCK,
        }
    }

    /// Row `row` as bf16, zero from `cols` up to a whole block.
    #[inline]
    pub(crate) fn bf16_row(&self, row: usize) -> &[u16] {
        &self.bf16[row * self.stride..(row + 1) * self.stride]
    }

    /// Row `row` as integers.
    #[inline]
    pub(crate) fn integer_row(&self, row: usize) -> IntegerRow<'_> {
        let blocks = self.stride / BLOCK;
        let elements = row * self.stride..(row + 1) * self.stride;
        let halves = elements.start / 2..elements.end / 2;
        IntegerRow {
            bytes: if self.forms.bytes { &self.bytes[elements.clone()] } else { &[] },
            pairs: if self.forms.pairs { &self.pairs[elements] } else { &[] },
            halves: if self.serves_decode(Form::Pairs) { &self.halves[halves] } else { &[] },
            scales: &self.scales[row * blocks..(row + 1) * blocks],
            sums: &self.sums[row * 2 * blocks..(row + 1) * 2 * blocks],
            scaled_sums: &self.scaled_sums[row * 3 * blocks..(row + 1) * 3 * blocks],
        }
    }
}

/// `len` zeros.
fn room<T: Number>(len: usize) -> Result<Buffer<T>, KernelError> {
    Buffer::zeroed(len)
        .ok_or(KernelError::ActivationMemory { bytes: (len as u64).saturating_mul(size_of::<T>() as u64) })
}
