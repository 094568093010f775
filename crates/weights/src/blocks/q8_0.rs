//! Q8_0: 32 weights d·q, q in −127..=127. Bytes: d f16, q i8 × 32.

use super::{f16_at, search, to_f16};

pub(super) fn decode(block: &[u8; 34], out: &mut [f32; 32]) {
    let d = f16_at(block, 0);
    for (out, &q) in out.iter_mut().zip(&block[2..]) {
        *out = f32::from(q as i8) * d;
    }
}

/// As ggml's reference: the largest magnitude becomes ±127, halves round away from zero.
pub(super) fn encode(x: &[f32; 32]) -> Option<[u8; 34]> {
    let d = x.iter().fold(0.0, |max: f32, x| max.max(x.abs())) / 127.0;
    let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
    pack(d, x.map(|x| (x * inverse).round()))
}

pub(super) fn encode_weighted(x: &[f32; 32], w: &[f32; 32]) -> Option<[u8; 34]> {
    let d = to_f16(search::symmetric_scale(x, w, -127.0, 127.0))?.to_f32();
    pack(d, search::symmetric_codes(x, d, -127.0, 127.0))
}

fn pack(d: f32, codes: [f32; 32]) -> Option<[u8; 34]> {
    let mut block = [0; 34];
    block[..2].copy_from_slice(&to_f16(d)?.to_le_bytes());
    for (byte, code) in block[2..].iter_mut().zip(codes) {
        *byte = code as i8 as u8;
    }
    Some(block)
}
