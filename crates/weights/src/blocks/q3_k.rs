//! Q3_K: 256 weights in 16 sub-blocks of 16, each (d·s)·q with q in −4..=3 and s in −32..=31.
//!
//! Bytes: 32 of high bits (bit i of byte j is weight 32·i + j), 64 of low two bits as in Q2_K, 12 of scales, d f16. A
//! weight is its two low bits, less 4 where the high bit is *clear*. Scales are stored plus 32, in 6 bits.

use super::q2_k::two_bits;
use super::{f16_at, symmetric};

pub(super) fn decode(block: &[u8; 110], out: &mut [f32; 256]) {
    let d = f16_at(block, 108);
    let scales = unpack_scales(&block[96..108]);
    for (i, out) in out.iter_mut().enumerate() {
        let (byte, shift) = two_bits(i);
        let low = (block[32 + byte] >> shift & 3) as i8;
        let high = (block[i % 32] >> (i / 32) & 1) as i8;
        *out = d * f32::from(scales[i / 16]) * f32::from(low + 4 * high - 4);
    }
}

pub(super) fn encode(x: &[f32; 256], w: &[f32; 256]) -> Option<[u8; 110]> {
    let fit = symmetric::encode(x, w, (-4.0, 3.0), (-32.0, 31.0))?;
    let mut block = [0; 110];
    for (i, code) in fit.codes.iter().enumerate() {
        let (byte, shift) = two_bits(i);
        let code = (code + 4) as u8;
        block[32 + byte] |= (code & 3) << shift;
        block[i % 32] |= code >> 2 << (i / 32);
    }
    block[96..108].copy_from_slice(&pack_scales(&fit.scales));
    block[108..].copy_from_slice(&fit.d.to_le_bytes());
    Some(block)
}

/// Sixteen scales. Low nibbles: those of byte i are scale i, the high ones scale i + 8. High two bits: byte 8 + i % 4.
fn unpack_scales(packed: &[u8]) -> [i8; 16] {
    std::array::from_fn(|i| {
        let low = packed[i % 8] >> (i / 8 * 4) & 15;
        let high = packed[8 + i % 4] >> (i / 4 * 2) & 3;
        (low | high << 4) as i8 - 32
    })
}

fn pack_scales(scales: &[i8; 16]) -> [u8; 12] {
    let mut packed = [0; 12];
    for (i, scale) in scales.iter().enumerate() {
        let code = (scale + 32) as u8;
        packed[i % 8] |= (code & 15) << (i / 8 * 4);
        packed[8 + i % 4] |= code >> 4 << (i / 4 * 2);
    }
    packed
}
