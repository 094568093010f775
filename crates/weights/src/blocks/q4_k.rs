//! Q4_K: 256 weights in 8 sub-blocks of 32, each (d·s)·q − (dmin·m) with q of 4 bits, s and m of 6 bits.
//!
//! Bytes: d f16, dmin f16, 12 of scales and mins, 128 of codes: of each 32 bytes the low nibbles are one sub-block, the
//! high nibbles the next.

use super::affine::{self, AffineBlock};
use super::f16_at;

pub(super) fn decode(block: &[u8; 144], out: &mut [f32; 256]) {
    let (d, dmin) = (f16_at(block, 0), f16_at(block, 2));
    let (scales, mins) = unpack_scales(&block[4..16]);
    for (i, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (scale, min) = (d * f32::from(scales[i]), dmin * f32::from(mins[i]));
        let bytes = &block[16 + i / 2 * 32..][..32];
        for (out, byte) in out.iter_mut().zip(bytes) {
            *out = scale * f32::from(byte >> (i % 2 * 4) & 15) - min;
        }
    }
}

pub(super) fn encode(x: &[f32; 256], w: &[f32; 256]) -> Option<[u8; 144]> {
    let fit: AffineBlock<8> = affine::encode::<8, 32>(x, w, 15.0, 63.0)?;
    let mut block = [0; 144];
    write_head(&fit, &mut block);
    for (i, codes) in fit.codes.as_chunks::<32>().0.iter().enumerate() {
        for (byte, code) in block[16 + i / 2 * 32..].iter_mut().zip(codes) {
            *byte |= code << (i % 2 * 4);
        }
    }
    Some(block)
}

/// d, dmin, scales and mins: the first 16 bytes, alike in Q5_K.
pub(super) fn write_head<const N: usize>(fit: &AffineBlock<8>, block: &mut [u8; N]) {
    block[..2].copy_from_slice(&fit.d.to_le_bytes());
    block[2..4].copy_from_slice(&fit.dmin.to_le_bytes());
    block[4..16].copy_from_slice(&pack_scales(&fit.scales, &fit.mins));
}

/// Eight scales and eight mins of 6 bits. The first four of each are the low 6 bits of bytes 0..4 and 4..8; the last four
/// have their low 4 bits in bytes 8..12 (scale low nibble, min high nibble) and their high 2 bits on top of the first four.
pub(super) fn unpack_scales(packed: &[u8]) -> ([u8; 8], [u8; 8]) {
    let (mut scales, mut mins) = ([0; 8], [0; 8]);
    for i in 0..4 {
        scales[i] = packed[i] & 63;
        mins[i] = packed[i + 4] & 63;
        scales[i + 4] = packed[i + 8] & 15 | packed[i] >> 6 << 4;
        mins[i + 4] = packed[i + 8] >> 4 | packed[i + 4] >> 6 << 4;
    }
    (scales, mins)
}

fn pack_scales(scales: &[u8; 8], mins: &[u8; 8]) -> [u8; 12] {
    let mut packed = [0; 12];
    for i in 0..4 {
        packed[i] = scales[i] | scales[i + 4] >> 4 << 6;
        packed[i + 4] = mins[i] | mins[i + 4] >> 4 << 6;
        packed[i + 8] = scales[i + 4] & 15 | mins[i + 4] << 4;
    }
    packed
}
