//! Q6_K: 256 weights in 16 sub-blocks of 16, each (d·s)·q with q in −32..=31 and s a signed byte.
//!
//! Bytes: 128 of low nibbles, 64 of high two bits, 16 scales i8, d f16. Each half of 128 weights has 64 and 32 of them:
//! of its quarters of 32, the first two have the low nibbles of the 64 bytes, the last two the high ones; quarter k has
//! bits 2k and 2k + 1 of the 32. Codes are stored plus 32.

use super::{f16_at, symmetric};

pub(super) fn decode(block: &[u8; 210], out: &mut [f32; 256]) {
    let d = f16_at(block, 208);
    for (i, out) in out.iter_mut().enumerate() {
        let ((low, low_shift), (high, high_shift)) = places(i);
        let code = (block[low] >> low_shift & 15 | (block[high] >> high_shift & 3) << 4) as i8 - 32;
        let scale = block[192 + i / 16] as i8;
        *out = d * f32::from(scale) * f32::from(code);
    }
}

pub(super) fn encode(x: &[f32; 256], w: &[f32; 256]) -> Option<[u8; 210]> {
    let fit = symmetric::encode(x, w, (-32.0, 31.0), (-128.0, 127.0))?;
    let mut block = [0; 210];
    for (i, code) in fit.codes.iter().enumerate() {
        let code = (code + 32) as u8;
        let ((low, low_shift), (high, high_shift)) = places(i);
        block[low] |= (code & 15) << low_shift;
        block[high] |= code >> 4 << high_shift;
    }
    for (byte, scale) in block[192..208].iter_mut().zip(fit.scales) {
        *byte = scale as u8;
    }
    block[208..].copy_from_slice(&fit.d.to_le_bytes());
    Some(block)
}

/// Byte and shift of the low nibble, and of the high two bits, of weight `i`.
fn places(i: usize) -> ((usize, usize), (usize, usize)) {
    let (half, quarter, j) = (i / 128, i % 128 / 32, i % 32);
    ((half * 64 + quarter % 2 * 32 + j, quarter / 2 * 4), (128 + half * 32 + j, quarter * 2))
}
