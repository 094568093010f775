//! A half of a page that was full and is sealed: coded as one matrix, never written again.
//!
//! The keys of a page are a matrix of channels by slots, so a row is a channel; the values are one of slots by channels,
//! so a row is a slot. That is KIVI's and KVQuant's choice of axes, and it is how a page lies anyway.

use half::f16;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};

use super::codec::{Codec, pack, unpack};
use super::format::BLOCK;
use super::outliers;
use super::row::round_to_even;

/// Bytes of a scale and an offset, f16 each, and of an outlier: u16 index and f16 residual.
const PAIR: usize = 4;

/// Shape and code of a sealed half. Its bytes: codes `(rows, columns)`, packed 32 at a time; scale and offset of every
/// group `(rows, groups)`; outliers, by ascending index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SealedHalf {
    pub codec: Codec,
    pub rows: usize,
    pub columns: usize,
}

impl SealedHalf {
    /// Columns that are coded together.
    pub const BLOCK: usize = BLOCK;

    /// Bytes of the codes of a row.
    pub fn row_bytes(&self) -> usize {
        self.columns * self.codec.bits() / 8
    }

    /// Where the scales and offsets begin.
    pub fn pairs_offset(&self) -> usize {
        self.rows * self.row_bytes()
    }

    /// Groups of a row.
    pub fn groups(&self) -> usize {
        self.columns / self.codec.group(self.columns)
    }

    /// Where the outliers begin.
    pub fn outliers_offset(&self) -> usize {
        self.pairs_offset() + self.rows * self.groups() * PAIR
    }

    /// Bytes of the half.
    pub fn bytes(&self) -> usize {
        self.outliers_offset() + self.codec.outliers(self.rows * self.columns) * PAIR
    }

    /// Scale and offset of a group of a row.
    #[inline(always)]
    pub fn scale_and_offset(&self, half: &[u8], row: usize, group: usize) -> (f32, f32) {
        let at = self.pairs_offset() + (row * self.groups() + group) * PAIR;
        (f16_at(half, at), f16_at(half, at + 2))
    }

    /// Outliers as (row, column, what to add).
    #[inline(always)]
    pub fn outliers<'a>(&self, half: &'a [u8]) -> impl Iterator<Item = (usize, usize, f32)> + 'a {
        let columns = self.columns as u32;
        half[self.outliers_offset()..].chunks_exact(PAIR).map(move |pair| {
            let index = u32::from(u16::from_le_bytes([pair[0], pair[1]]));
            ((index / columns) as usize, (index % columns) as usize, f16_at(pair, 2))
        })
    }

    /// A row.
    pub fn get_row(&self, half: &[u8], row: usize, out: &mut [f32] /* (columns) */) {
        (0..).zip(&mut *out).for_each(|(column, x)| *x = self.coded(half, row, column));
        self.outliers(half)
            .filter(|at| at.0 == row)
            .for_each(|(_, column, residual)| out[column] += residual);
    }

    /// A column. An outlier that points beyond the half, which `seal` does not write, belongs to none.
    pub fn get_column(&self, half: &[u8], column: usize, out: &mut [f32] /* (rows) */) {
        (0..).zip(&mut *out).for_each(|(row, x)| *x = self.coded(half, row, column));
        let of_column = self.outliers(half).filter(|at| at.1 == column && at.0 < self.rows);
        of_column.for_each(|(row, _, residual)| out[row] += residual);
    }

    /// One number without what an outlier adds.
    fn coded(&self, half: &[u8], row: usize, column: usize) -> f32 {
        let packed = &half[row * self.row_bytes() + column / BLOCK * 4 * self.codec.bits()..];
        let code = unpack(packed, self.codec.bits())[column % BLOCK];
        let group = column / self.codec.group(self.columns);
        let (scale, offset) = self.scale_and_offset(half, row, group);
        self.codec.levels()[usize::from(code)] * scale + offset
    }

    /// Codes the numbers of a half that is stored in f16. A group that holds a NaN or an infinity is read as NaN.
    pub fn seal(&self, hot: &[u8], half: &mut [u8]) {
        let bits: Vec<u16> = hot.as_chunks::<2>().0.iter().map(|bytes| u16::from_le_bytes(*bytes)).collect();
        let mut numbers = vec![0.0f32; self.rows * self.columns];
        bits.reinterpret_cast::<f16>().convert_to_f32_slice(&mut numbers);
        let is_outlier = outliers::choose(self, &numbers);
        let (coded, outliers) = half.split_at_mut(self.outliers_offset());
        let (codes, pairs) = coded.split_at_mut(self.pairs_offset());
        outliers.fill(0); // an outlier that is not needed adds nothing to the first number
        let mut outliers = outliers.chunks_exact_mut(PAIR);
        let group = self.codec.group(self.columns);
        let mut pairs = pairs.chunks_exact_mut(PAIR);
        let mut packed = codes.chunks_exact_mut(4 * self.codec.bits());
        for (at, x) in (0..).step_by(group).zip(numbers.chunks_exact(group)) {
            let is_outlier = &is_outlier[at..at + group];
            let (scale, offset) = scale_and_offset(self.codec, x, is_outlier);
            if let Some(pair) = pairs.next() {
                pair[..2].copy_from_slice(&scale.to_le_bytes());
                pair[2..].copy_from_slice(&offset.to_le_bytes());
            }
            let (scale, offset) = (scale.to_f32(), offset.to_f32());
            for (block, x) in (at..).step_by(BLOCK).zip(x.chunks_exact(BLOCK)) {
                let codes: [u8; BLOCK] = std::array::from_fn(|i| code(self.codec, scale, x[i] - offset));
                if let Some(packed) = packed.next() {
                    pack(&codes, self.codec.bits(), packed);
                }
                for i in (0..BLOCK).filter(|i| is_outlier[block - at + i]) {
                    let residual = x[i] - (self.codec.levels()[usize::from(codes[i])] * scale + offset);
                    if let Some(outlier) = outliers.next() {
                        outlier[..2].copy_from_slice(&((block + i) as u16).to_le_bytes());
                        outlier[2..].copy_from_slice(&f16::from_f32(residual).to_le_bytes());
                    }
                }
            }
        }
    }
}

/// Scale and offset of a group, from its smallest and its largest number that is no outlier.
fn scale_and_offset(codec: Codec, x: &[f32], is_outlier: &[bool]) -> (f16, f16) {
    if !x.iter().all(|x| x.is_finite()) {
        return (f16::NAN, f16::ZERO);
    }
    let inliers = || x.iter().zip(is_outlier).filter(|(_, out)| !**out).map(|(x, _)| *x);
    let (low, high) = (inliers().fold(f32::INFINITY, f32::min), inliers().fold(f32::NEG_INFINITY, f32::max));
    match codec {
        Codec::Kivi4 | Codec::Kivi2 => {
            let steps = (1 << codec.bits()) - 1;
            (f16::from_f32((high - low) / steps as f32), f16::from_f32(low))
        }
        Codec::KvQuant4 | Codec::KvQuant3 => {
            (f16::from_f32((high - low) / 2.0), f16::from_f32((low + high) / 2.0))
        }
    }
}

/// The code whose level is nearest to a number, `x` being its distance from the offset.
fn code(codec: Codec, scale: f32, x: f32) -> u8 {
    let last = (1 << codec.bits()) - 1;
    let y = if scale == 0.0 { 0.0 } else { x / scale }; // NaN has code 0
    match codec {
        Codec::Kivi4 | Codec::Kivi2 => round_to_even(y.clamp(0.0, last as f32)) as u8,
        Codec::KvQuant4 | Codec::KvQuant3 => {
            let pairs = codec.levels()[..=last].windows(2);
            pairs.map(|pair| u8::from(y > (pair[0] + pair[1]) / 2.0)).sum()
        }
    }
}

fn f16_at(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}
