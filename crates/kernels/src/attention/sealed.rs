//! Sealed pages as attention reads them: a strip of them is widened to f32, then goes through the same tiles.

use std::ops::Range;

use super::ahead::Ahead;
use super::tile::Operand;
use super::widen::{Along, Widen};
use crate::kv_page::{BLOCK, Codec, KvFormat, SealedHalf, unpack};
use crate::vectors::{Kernel, Simd};

/// f32 numbers that hold the scales and offsets of each row of a strip: whole vectors of them.
pub(super) fn pairs_len(rows: usize, columns: usize) -> usize {
    rows * (2 * columns.div_ceil(BLOCK)).next_multiple_of(16)
}

/// Widens some rows and columns, blocks of 32 of them, of a sealed half.
pub(super) struct WidenSealed<'a> {
    pub half: SealedHalf,
    pub bytes: &'a [u8],
    pub rows: Range<usize>,
    pub columns: Range<usize>,
    pub to: &'a mut [f32], // (rows, padded)
    pub padded: usize,
    pub pairs: &'a mut [f32], // (rows, scale and offset of each group): room
}

impl Kernel for WidenSealed<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        if self.rows.is_empty() {
            return;
        }
        self.load_pairs(simd);
        match self.half.codec {
            Codec::Kivi4 => self.widen::<S, 4, false>(simd),
            Codec::Kivi2 => self.widen::<S, 2, false>(simd),
            Codec::KvQuant4 => self.widen::<S, 4, true>(simd),
            Codec::KvQuant3 => self.widen::<S, 3, true>(simd),
        }
        self.add_outliers();
    }
}

impl WidenSealed<'_> {
    /// The first group of the columns, and how many groups they touch.
    #[inline(always)]
    fn groups(&self) -> (usize, usize) {
        let group = self.half.codec.group(self.half.columns);
        let first = self.columns.start / group;
        (first, self.columns.end.div_ceil(group) - first)
    }

    /// Scales and offsets of the strip, row by row.
    #[inline(always)]
    fn load_pairs<S: Simd>(&mut self, simd: S) {
        let (half, (first, groups)) = (self.half, self.groups());
        let stride = 2 * half.groups();
        let from = &self.bytes[half.pairs_offset() + 2 * (self.rows.start * stride + 2 * first)..];
        let (rows, columns) = (self.rows.len(), 2 * groups);
        let padded = columns.next_multiple_of(16);
        assert!(from.len() >= 2 * ((rows - 1) * stride + columns) && self.pairs.len() >= rows * padded);
        let data = from.as_ptr();
        let from = Operand {
            data,
            format: KvFormat::F16,
            stride,
            factors: std::ptr::null(),
            ahead: Ahead::NONE,
            wide: false,
        };
        let to = self.pairs.as_mut_ptr();
        // SAFETY: `rows` rows of `columns` halves lie at `data`, and `pairs` has `rows` rows of `padded` numbers.
        unsafe { Widen { along: Along::Slots, from, rows, columns, to, padded }.run(simd) };
    }

    #[inline(always)]
    fn widen<S: Simd, const BITS: usize, const UNEVEN: bool>(&mut self, simd: S) {
        let (half, (first, groups)) = (self.half, self.groups());
        let group = half.codec.group(half.columns);
        let pairs_row = (2 * groups).next_multiple_of(16);
        let levels = half.codec.levels();
        let rows = self.rows.clone().zip(self.to.chunks_mut(self.padded)).zip(self.pairs.chunks(pairs_row));
        for ((row, to), pairs) in rows {
            let packed = &self.bytes[row * half.row_bytes()..][..half.row_bytes()];
            let blocks = self.columns.clone().step_by(BLOCK).zip(to.chunks_exact_mut(BLOCK));
            for (column, to) in blocks {
                let pair = 2 * (column / group - first);
                let (scale, offset) = (simd.splat(pairs[pair]), simd.splat(pairs[pair + 1]));
                let codes = unpack(&packed[column / BLOCK * 4 * BITS..][..4 * BITS], BITS);
                for (codes, to) in codes.chunks_exact(S::LANES).zip(to.chunks_exact_mut(S::LANES)) {
                    // SAFETY: LANES codes, each below 16.
                    let level = unsafe {
                        if UNEVEN {
                            simd.lookup(levels, codes.as_ptr())
                        } else {
                            simd.load_i8(codes.as_ptr().cast())
                        }
                    };
                    simd.write(to, simd.fma(level, scale, offset));
                }
            }
        }
    }

    #[inline(always)]
    fn add_outliers(&mut self) {
        for (row, column, residual) in self.half.outliers(self.bytes) {
            if self.rows.contains(&row) && self.columns.contains(&column) {
                self.to[(row - self.rows.start) * self.padded + column - self.columns.start] += residual;
            }
        }
    }
}
