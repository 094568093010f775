//! Q5_K: as Q4_K with a fifth bit.
//!
//! Bytes: the 16 of Q4_K's head, 32 of fifth bits (bit i of byte j is weight j of sub-block i), 128 of nibbles as in
//! Q4_K.

use super::affine::{self, AffineBlock};
use super::f16_at;
use super::q4_k::{unpack_scales, write_head};

pub(super) fn decode(block: &[u8; 176], out: &mut [f32; 256]) {
    let (d, dmin) = (f16_at(block, 0), f16_at(block, 2));
    let (scales, mins) = unpack_scales(&block[4..16]);
    for (i, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (scale, min) = (d * f32::from(scales[i]), dmin * f32::from(mins[i]));
        let nibbles = &block[48 + i / 2 * 32..][..32];
        for (j, out) in out.iter_mut().enumerate() {
            let code = nibbles[j] >> (i % 2 * 4) & 15 | (block[16 + j] >> i & 1) << 4;
            *out = scale * f32::from(code) - min;
        }
    }
}

pub(super) fn encode(x: &[f32; 256], w: &[f32; 256]) -> Option<[u8; 176]> {
    let fit: AffineBlock<8> = affine::encode::<8, 32>(x, w, 31.0, 63.0)?;
    let mut block = [0; 176];
    write_head(&fit, &mut block);
    for (i, codes) in fit.codes.as_chunks::<32>().0.iter().enumerate() {
        for (j, code) in codes.iter().enumerate() {
            block[48 + i / 2 * 32 + j] |= (code & 15) << (i % 2 * 4);
            block[16 + j] |= code >> 4 << i;
        }
    }
    Some(block)
}
