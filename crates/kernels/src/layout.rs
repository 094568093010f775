//! How a packed matrix lies in memory: groups of 16 output rows, interleaved, at the density of the file.
//!
//! Lanes of a vector are output rows, so that no sum runs across lanes and each output is accumulated in the order
//! of its inputs. A group of a float matrix is `[k][16]` (f32, f16) or `[k/2][16][2]` (bf16). A group of a quantized
//! matrix is a run of *superblocks* of 256 weights a row (the last may be shorter in formats with blocks of 32):
//!
//! ```text
//! scales | high plane (the top 1 or 2 bits of each weight) | low plane (its other 2, 4 or 8 bits)
//! ```
//!
//! A plane is a run of 64-byte lines. A line of `b`-bit fields holds `8 / b` *quads* of 4 consecutive weights:
//! byte `4 * row + i` has at bit `b * t` the field of weight `4 * t + i` of that row. So a line, shifted and masked,
//! is 16 rows x 4 weights as bytes, or, seen as 16-bit lanes, the pairs (0, 2) and (1, 3) of each quad.

use roofline_weights::Format;

/// Output rows of a group.
pub(crate) const GROUP: usize = 16;
/// Weights of a superblock in one row.
pub(crate) const SUPER: usize = 256;
/// Weights that share one activation scale; every quantized row is a whole number of these.
pub(crate) const BLOCK: usize = 32;
/// Bytes of a plane's line.
pub(crate) const LINE: usize = 64;

/// The scales of one superblock, as they lie in front of the planes. Letters: `d` and `m` are f16 of 16 rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scales {
    /// `[block]` of `d`.
    Half,
    /// `[block]` of `d, m`; the weight is `d * q + m`.
    HalfMin,
    /// `d, m`, then 16 [`six_bit`] fields a row: 8 scales and 8 mins; the weight is `d * scale * q - m * min`.
    SixBitMin,
    /// `d`, then 16 [`six_bit`] fields a row, 32 too large.
    SixBit,
    /// `d`, then `[sub-block][row]` of i8.
    Byte,
    /// `d, m`, then `[sub-block][row]` of a scale in the low nibble and a min in the high one.
    NibbleMin,
}

/// The packed form of a quantized format.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout {
    pub low_bits: usize,  // of each weight in the low plane
    pub high_bits: usize, // in the high plane, 0 if there is none
    pub offset: i32,      // subtracted from the stored unsigned weight
    pub sub: usize,       // weights that share one scale
    pub scales: Scales,
}

const fn layout(low_bits: usize, high_bits: usize, offset: i32, sub: usize, scales: Scales) -> Layout {
    Layout { low_bits, high_bits, offset, sub, scales }
}

impl Layout {
    /// The layout of a quantized format; `None` for floats.
    pub const fn of(format: Format) -> Option<Layout> {
        Some(match format {
            Format::F32 | Format::F16 | Format::Bf16 => return None,
            Format::Q8_0 => layout(8, 0, 128, 32, Scales::Half),
            Format::Q4_0 => layout(4, 0, 8, 32, Scales::Half),
            Format::Q4_1 => layout(4, 0, 0, 32, Scales::HalfMin),
            Format::Q5_0 => layout(4, 1, 16, 32, Scales::Half),
            Format::Q5_1 => layout(4, 1, 0, 32, Scales::HalfMin),
            Format::Q2K => layout(2, 0, 0, 16, Scales::NibbleMin),
            Format::Q3K => layout(2, 1, 4, 16, Scales::SixBit),
            Format::Q4K => layout(4, 0, 0, 32, Scales::SixBitMin),
            Format::Q5K => layout(4, 1, 0, 32, Scales::SixBitMin),
            Format::Q6K => layout(4, 2, 32, 16, Scales::Byte),
        })
    }

    /// Bytes of the scales of a superblock of `blocks` blocks of 32.
    pub const fn scale_bytes(&self, blocks: usize) -> usize {
        match self.scales {
            Scales::Half => 2 * GROUP * blocks,
            Scales::HalfMin => 4 * GROUP * blocks,
            Scales::SixBitMin => 4 * GROUP + 12 * GROUP,
            Scales::SixBit => 2 * GROUP + 12 * GROUP,
            Scales::Byte => 2 * GROUP + 16 * GROUP,
            Scales::NibbleMin => 4 * GROUP + 16 * GROUP,
        }
    }

    /// Bytes of the high plane of a superblock of `blocks` blocks.
    pub const fn high_bytes(&self, blocks: usize) -> usize {
        LINE * self.high_bits * blocks
    }

    /// Bytes of a superblock of `blocks` blocks, all 16 rows.
    pub const fn super_bytes(&self, blocks: usize) -> usize {
        self.scale_bytes(blocks) + self.high_bytes(blocks) + LINE * self.low_bits * blocks
    }

    /// Whether sub-blocks have integer factors besides the f16 of the superblock.
    pub const fn has_factors(&self) -> bool {
        !matches!(self.scales, Scales::Half | Scales::HalfMin)
    }

    /// Whether byte kernels multiply the integer factors into the weights: those of formats whose products with the
    /// factor still fit a byte.
    pub const fn folds_factors(&self) -> bool {
        matches!(self.scales, Scales::SixBit | Scales::NibbleMin)
    }

    /// Integer totals that byte kernels scale apart in each block of 32.
    pub const fn byte_totals(&self) -> usize {
        if self.folds_factors() { 1 } else { BLOCK / self.sub }
    }

    /// Whether weights have a min or an additive part.
    pub const fn has_min(&self) -> bool {
        matches!(self.scales, Scales::HalfMin | Scales::SixBitMin | Scales::NibbleMin)
    }

    /// Splits the bytes of a superblock into scales, high plane and low plane.
    pub fn split<'a>(&self, bytes: &'a [u8], blocks: usize) -> (&'a [u8], &'a [u8], &'a [u8]) {
        let (scales, planes) = bytes.split_at(self.scale_bytes(blocks));
        let (high, low) = planes.split_at(self.high_bytes(blocks));
        (scales, high, low)
    }

    /// The stored unsigned weight `k` of `row` in the planes of a superblock.
    pub fn stored(&self, high: &[u8], low: &[u8], k: usize, row: usize) -> u8 {
        let mut weight = field(low, self.low_bits, k, row);
        if self.high_bits > 0 {
            weight |= field(high, self.high_bits, k, row) << self.low_bits;
        }
        weight
    }
}

/// The field of weight `k` of `row` in a plane of `bits`-bit fields.
fn field(plane: &[u8], bits: usize, k: usize, row: usize) -> u8 {
    let (byte, shift) = field_at(bits, k, row);
    (plane[byte] >> shift) & (((1u16 << bits) - 1) as u8)
}

/// Byte and bit where the field of weight `k` of `row` lies in a plane of `bits`-bit fields.
pub(crate) fn field_at(bits: usize, k: usize, row: usize) -> (usize, usize) {
    let (quad, i) = (k / 4, k % 4);
    let quads_per_line = 8 / bits;
    (quad / quads_per_line * LINE + 4 * row + i, quad % quads_per_line * bits)
}

/// Field `i` of the sixteen 6-bit fields of `row`: three u32 words `[3][16 rows]` hold five each in their low 30
/// bits, and their top bits make the sixteenth.
pub(crate) fn six_bit(words: &[u8], i: usize, row: usize) -> u8 {
    let word = |w: usize| read_u32(words, GROUP * w + row);
    let value = match i {
        15 => word(0) >> 30 | word(1) >> 30 << 2 | word(2) >> 30 << 4,
        _ => word(i / 5) >> (6 * (i % 5)) & 63,
    };
    value as u8
}

/// The three words of a row that hold these fields, as [`six_bit`] reads them.
pub(crate) fn six_bit_words(fields: &[u8; 16]) -> [u32; 3] {
    let mut words = [0; 3];
    for (i, &value) in fields[..15].iter().enumerate() {
        words[i / 5] |= u32::from(value & 63) << (6 * (i % 5));
    }
    for (w, word) in words.iter_mut().enumerate() {
        *word |= u32::from(fields[15] >> (2 * w) & 3) << 30;
    }
    words
}

/// The little-endian u32 number `i` of `bytes`.
pub(crate) fn read_u32(bytes: &[u8], i: usize) -> u32 {
    u32::from_le_bytes([bytes[4 * i], bytes[4 * i + 1], bytes[4 * i + 2], bytes[4 * i + 3]])
}

/// The little-endian u16 number `i` of `bytes`.
pub(crate) fn read_u16(bytes: &[u8], i: usize) -> u16 {
    u16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]])
}

/// The f16 number `i` of `bytes`.
pub(crate) fn read_f16(bytes: &[u8], i: usize) -> f32 {
    half::f16::from_bits(read_u16(bytes, i)).to_f32()
}

/// Bytes of a group of 16 rows of `cols` weights; `None` if that overflows or blocks are left partly filled.
pub(crate) fn group_bytes(format: Format, cols: usize) -> Option<usize> {
    // Pairs of bf16 share a lane, so an odd row is filled up by a zero.
    let stored = if format == Format::Bf16 { cols.checked_next_multiple_of(2)? } else { cols };
    format.bytes_of(stored)?.checked_mul(GROUP)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_superblock_is_as_dense_as_in_the_file() {
        for format in Format::ALL {
            let Some(layout) = Layout::of(format) else { continue };
            for blocks in 1..=8 {
                if format.block_len() == SUPER && blocks < 8 {
                    continue;
                }
                let file = GROUP * format.bytes_of(blocks * BLOCK).unwrap();
                assert_eq!(layout.super_bytes(blocks), file, "{format}, {blocks} blocks");
            }
        }
    }

    #[test]
    fn six_bit_fields_round_trip() {
        let fields: [u8; 16] = std::array::from_fn(|i| (i * 37 % 64) as u8);
        let mut bytes = vec![0; 3 * 4 * GROUP];
        for (w, word) in six_bit_words(&fields).into_iter().enumerate() {
            let at = 4 * (GROUP * w + 7);
            bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
        for (i, &value) in fields.iter().enumerate() {
            assert_eq!(six_bit(&bytes, i, 7), value);
            assert_eq!(six_bit(&bytes, i, 6), 0);
        }
    }
}
