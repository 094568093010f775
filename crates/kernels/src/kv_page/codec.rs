//! How the numbers of a sealed half of a page are coded: packed codes, the levels they stand for, scale and offset.
//!
//! A number is `level[code] · scale + offset`. All levels have 8 significant bits and scales are f16, so the product is
//! exact in f32 and the sum is rounded once, with or without fused multiply-add.

use super::format::{BLOCK, KvFormat};

/// Levels of KIVI: the codes themselves.
const UNIFORM: [f32; 16] =
    [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0];

/// In 256ths: Lloyd's levels for normal numbers, of which 1 % were taken out where they shrink the ranges of rows of 64
/// and 128 most, the rest being brought to [-1, 1]. Root mean square error 0.0353 (16 equal steps: 0.0380).
const NUQ4: [f32; 16] = levels([13, 40, 67, 96, 127, 161, 200, 245]);
/// The same for 8 levels: 0.0717 (8 equal steps: 0.0815).
const NUQ3: [f32; 16] = levels([27, 82, 144, 222, 0, 0, 0, 0]);

/// A table that is odd about zero, ascending, from its positive half.
const fn levels(half: [i32; 8]) -> [f32; 16] {
    let mut count = 0;
    while count < 8 && half[count] > 0 {
        count += 1;
    }
    let mut table = [0.0; 16];
    let mut i = 0;
    while i < count {
        table[count + i] = half[i] as f32 / 256.0;
        table[count - 1 - i] = -half[i] as f32 / 256.0;
        i += 1;
    }
    table
}

/// The code of a sealed half.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Codec {
    /// KIVI: equal steps between the smallest and the largest number of each group of 32.
    Kivi4,
    Kivi2,
    /// After KVQuant: levels that lie closer about the middle, a scale per row, outliers apart.
    KvQuant4,
    KvQuant3,
}

impl Codec {
    /// The codec of a format that seals pages.
    pub fn of(format: KvFormat) -> Option<Codec> {
        match format {
            KvFormat::Kivi4 => Some(Codec::Kivi4),
            KvFormat::Kivi2 => Some(Codec::Kivi2),
            KvFormat::KvQuant4 => Some(Codec::KvQuant4),
            KvFormat::KvQuant3 => Some(Codec::KvQuant3),
            KvFormat::F32 | KvFormat::F16 | KvFormat::Bf16 | KvFormat::I8 | KvFormat::Q8_0 => None,
        }
    }

    /// Bits of a code.
    pub fn bits(self) -> usize {
        match self {
            Codec::Kivi4 | Codec::KvQuant4 => 4,
            Codec::KvQuant3 => 3,
            Codec::Kivi2 => 2,
        }
    }

    /// What the codes stand for, ascending; as many count as the bits can tell apart.
    pub fn levels(self) -> &'static [f32; 16] {
        match self {
            Codec::Kivi4 | Codec::Kivi2 => &UNIFORM,
            Codec::KvQuant4 => &NUQ4,
            Codec::KvQuant3 => &NUQ3,
        }
    }

    /// Numbers of a row of `columns` that share scale and offset.
    pub fn group(self, columns: usize) -> usize {
        match self {
            Codec::Kivi4 | Codec::Kivi2 => BLOCK,
            Codec::KvQuant4 | Codec::KvQuant3 => columns,
        }
    }

    /// Outliers that are kept apart, out of `numbers`: 1 %.
    pub fn outliers(self, numbers: usize) -> usize {
        match self {
            Codec::Kivi4 | Codec::Kivi2 => 0,
            Codec::KvQuant4 | Codec::KvQuant3 => numbers / 100,
        }
    }
}

/// Packs 32 codes into `4 * bits` bytes. Neighbouring codes go to neighbouring bytes, so that whole vectors unpack by
/// shifts: byte `i` of 4 bits holds codes `i` and `i + 16`, of 2 bits `i`, `i + 8`, `i + 16`, `i + 24`; 3 bits are 2 bits,
/// then the third bits, byte `i` those of `i`, `i + 4`, …, `i + 28`.
pub(super) fn pack(codes: &[u8; BLOCK], bits: usize, out: &mut [u8]) {
    let gather = |i: usize, step: usize, bits: usize, shift: usize| {
        let mask = (1 << bits) - 1;
        (0..BLOCK / step).fold(0, |byte, j| byte | ((codes[i + j * step] >> shift) & mask) << (j * bits))
    };
    match bits {
        4 => (0..16).for_each(|i| out[i] = gather(i, 16, 4, 0)),
        _ => {
            (0..8).for_each(|i| out[i] = gather(i, 8, 2, 0));
            if bits == 3 {
                (0..4).for_each(|i| out[8 + i] = gather(i, 4, 1, 2));
            }
        }
    }
}

/// The 32 codes in `4 * bits` bytes.
#[inline(always)]
pub(crate) fn unpack(bytes: &[u8], bits: usize) -> [u8; BLOCK] {
    let mut codes = [0; BLOCK];
    match bits {
        4 => {
            let bytes: &[u8; 16] = first(bytes);
            for i in 0..16 {
                codes[i] = bytes[i] & 15;
                codes[16 + i] = bytes[i] >> 4;
            }
        }
        _ => {
            let low: &[u8; 8] = first(bytes);
            for j in 0..4 {
                for i in 0..8 {
                    codes[8 * j + i] = low[i] >> (2 * j) & 3;
                }
            }
            if bits == 3 {
                let high: &[u8; 4] = first(&bytes[8..]);
                for j in 0..8 {
                    for i in 0..4 {
                        codes[4 * j + i] |= (high[i] >> j & 1) << 2;
                    }
                }
            }
        }
    }
    codes
}

/// The first bytes as an array.
#[inline(always)]
fn first<const N: usize>(bytes: &[u8]) -> &[u8; N] {
    match bytes.first_chunk() {
        Some(chunk) => chunk,
        None => unreachable!("fewer packed bytes than codes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_come_back_and_fill_their_bytes() {
        for bits in [2, 3, 4] {
            let codes: [u8; BLOCK] = std::array::from_fn(|i| ((i * 7 + i / 5) % (1 << bits)) as u8);
            let mut bytes = [0; 16];
            pack(&codes, bits, &mut bytes[..4 * bits]);
            assert_eq!(unpack(&bytes[..4 * bits], bits), codes, "{bits} bits");
            let full = [(1 << bits) - 1; BLOCK];
            pack(&full, bits, &mut bytes[..4 * bits]);
            assert!(bytes[..4 * bits].iter().all(|byte| *byte == 0xff), "{bits} bits");
        }
    }

    #[test]
    fn levels_ascend_and_have_eight_bits() {
        for codec in [Codec::Kivi4, Codec::Kivi2, Codec::KvQuant4, Codec::KvQuant3] {
            let levels = &codec.levels()[..1 << codec.bits()];
            assert!(levels.windows(2).all(|pair| pair[0] < pair[1]), "{codec:?}");
            assert!(levels.iter().all(|level| (level * 256.0).fract() == 0.0 && level.abs() < 16.0));
        }
    }
}
