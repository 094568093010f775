//! Blocks as files store them, taken apart into plain integers.
//!
//! The bit positions are those of the struct definitions in ggml (`ggml-common.h`) and its reference dequantizers.

use roofline_weights::Format;

use crate::layout::{BLOCK, SUPER, read_u16};

/// Up to 256 consecutive weights of one row, taken apart.
pub(crate) struct FileBlock {
    pub d: [u16; 8],      // f16 bits: one a block of 32, or the first alone
    pub m: [u16; 8],      // the same for the min
    pub scales: [u8; 16], // integer scales of sub-blocks
    pub mins: [u8; 16],   // integer mins of sub-blocks
    pub q: [u8; SUPER],   // weights without their offset removed: all unsigned
}

impl FileBlock {
    pub const ZERO: FileBlock =
        FileBlock { d: [0; 8], m: [0; 8], scales: [0; 16], mins: [0; 16], q: [0; SUPER] };

    /// Reads the superblock that `bytes` holds: whole blocks of a quantized `format`, 256 weights or fewer.
    pub fn read(&mut self, format: Format, bytes: &[u8]) {
        match format {
            Format::F32 | Format::F16 | Format::Bf16 => {}
            Format::Q2K => self.read_q2k(bytes),
            Format::Q3K => self.read_q3k(bytes),
            Format::Q4K | Format::Q5K => self.read_q45k(format, bytes),
            Format::Q6K => self.read_q6k(bytes),
            Format::Q8_0 | Format::Q5_0 | Format::Q5_1 | Format::Q4_0 | Format::Q4_1 => {
                for (i, block) in bytes.chunks_exact(format.block_bytes()).enumerate() {
                    self.read_block32(format, i, block);
                }
            }
        }
    }

    /// Whether every f16 of the superblock is a finite number.
    pub fn is_finite(&self) -> bool {
        self.d.iter().chain(&self.m).all(|bits| bits & 0x7c00 != 0x7c00)
    }

    fn read_block32(&mut self, format: Format, i: usize, block: &[u8]) {
        self.d[i] = read_u16(block, 0);
        let mut rest = &block[2..];
        if matches!(format, Format::Q4_1 | Format::Q5_1) {
            self.m[i] = read_u16(block, 1);
            rest = &block[4..];
        }
        let q = &mut self.q[i * BLOCK..(i + 1) * BLOCK];
        if format == Format::Q8_0 {
            // Signed bytes become unsigned ones, 128 larger.
            q.iter_mut().zip(rest).for_each(|(q, byte)| *q = byte ^ 0x80);
            return;
        }
        let (fifths, nibbles) = match format {
            Format::Q5_0 | Format::Q5_1 => rest.split_at(4),
            _ => rest.split_at(0),
        };
        let (low, high) = q.split_at_mut(BLOCK / 2);
        for ((low, high), byte) in low.iter_mut().zip(high).zip(nibbles) {
            (*low, *high) = (byte & 15, byte >> 4);
        }
        for (q, bits) in q.as_chunks_mut::<8>().0.iter_mut().zip(fifths) {
            *q = (u64::from_le_bytes(*q) | spread_bits(*bits) << 4).to_le_bytes();
        }
    }

    fn read_q2k(&mut self, block: &[u8]) {
        let (scales, rest) = block.split_at(16);
        let (quants, halves) = rest.split_at(64);
        for (i, byte) in scales.iter().enumerate() {
            (self.scales[i], self.mins[i]) = (byte & 15, byte >> 4);
        }
        self.read_two_bits(quants);
        (self.d[0], self.m[0]) = (read_u16(halves, 0), read_u16(halves, 1));
    }

    fn read_q3k(&mut self, block: &[u8]) {
        let (mask, rest) = block.split_at(32);
        let (quants, rest) = rest.split_at(64);
        let (scales, half) = rest.split_at(12);
        self.read_two_bits(quants);
        for (j, q) in self.q.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            for (q, mask) in q.iter_mut().zip(mask) {
                // A set bit means that 4 is not subtracted.
                *q |= (mask >> j & 1) << 2;
            }
        }
        for (i, scale) in self.scales.iter_mut().enumerate() {
            let low = if i < 8 { scales[i] & 15 } else { scales[i - 8] >> 4 };
            *scale = low | (scales[8 + i % 4] >> (2 * (i / 4)) & 3) << 4;
        }
        self.d[0] = read_u16(half, 0);
    }

    /// Two-bit weights of Q2_K and Q3_K: bits `2 j` of byte `l` of a half belong to weight `32 j + l` of that half.
    fn read_two_bits(&mut self, quants: &[u8]) {
        for (j, q) in self.q.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            for (q, quants) in q.iter_mut().zip(&quants[j / 4 * 32..]) {
                *q = quants >> (j % 4 * 2) & 3;
            }
        }
    }

    fn read_q45k(&mut self, format: Format, block: &[u8]) {
        (self.d[0], self.m[0]) = (read_u16(block, 0), read_u16(block, 1));
        let scales = &block[4..16];
        for i in 0..4 {
            (self.scales[i], self.mins[i]) = (scales[i] & 63, scales[i + 4] & 63);
            self.scales[i + 4] = scales[i + 8] & 15 | scales[i] >> 6 << 4;
            self.mins[i + 4] = scales[i + 8] >> 4 | scales[i + 4] >> 6 << 4;
        }
        let (fifth, nibbles) = match format {
            Format::Q5K => (&block[16..48], &block[48..]),
            _ => (&[0; 32][..], &block[16..]),
        };
        let pairs = self.q.as_chunks_mut::<64>().0.iter_mut().zip(nibbles.chunks_exact(32));
        for (pair, (q, nibbles)) in pairs.enumerate() {
            let (first, second) = q.split_at_mut(32);
            for (l, (nibbles, fifth)) in nibbles.iter().zip(fifth).enumerate() {
                first[l] = nibbles & 15 | (fifth >> (2 * pair) & 1) << 4;
                second[l] = nibbles >> 4 | (fifth >> (2 * pair + 1) & 1) << 4;
            }
        }
    }

    fn read_q6k(&mut self, block: &[u8]) {
        let (low, rest) = block.split_at(128);
        let (high, rest) = rest.split_at(64);
        let (scales, half) = rest.split_at(16);
        for n in 0..2 {
            let (low, high) = (&low[64 * n..], &high[32 * n..]);
            let (q, _) = self.q[128 * n..].as_chunks_mut::<32>();
            let (low_first, low_second) = (&low[..32], &low[32..64]);
            for (l, high) in high[..32].iter().enumerate() {
                q[0][l] = low_first[l] & 15 | (high & 3) << 4;
                q[1][l] = low_second[l] & 15 | (high >> 2 & 3) << 4;
                q[2][l] = low_first[l] >> 4 | (high >> 4 & 3) << 4;
                q[3][l] = low_second[l] >> 4 | high >> 6 << 4;
            }
        }
        self.scales.copy_from_slice(scales);
        self.d[0] = read_u16(half, 0);
    }
}

/// Bit `i` of a byte as the lowest bit of byte `i`.
fn spread_bits(bits: u8) -> u64 {
    const EACH: u64 = 0x0101_0101_0101_0101;
    // Byte `i` keeps bit `i` alone; adding 127 carries any bit to the top of its byte, and not beyond.
    let one_each = (u64::from(bits) * EACH) & 0x8040_2010_0804_0201;
    (one_each + 0x7f * EACH) >> 7 & EACH
}
