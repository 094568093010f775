//! F32, F16 and BF16: a "block" is one weight.

use half::f16;

pub(super) fn decode_f32(bytes: &[u8; 4], out: &mut [f32; 1]) {
    out[0] = f32::from_le_bytes(*bytes);
}

pub(super) fn encode_f32(x: &[f32; 1]) -> Option<[u8; 4]> {
    Some(x[0].to_le_bytes())
}

pub(super) fn decode_f16(bytes: &[u8; 2], out: &mut [f32; 1]) {
    out[0] = f16::from_le_bytes(*bytes).to_f32();
}

pub(super) fn encode_f16(x: &[f32; 1]) -> Option<[u8; 2]> {
    super::to_f16(x[0]).map(f16::to_le_bytes)
}

/// The upper half of an f32. Not through `half`, which changes the bits of some NaNs.
pub(super) fn decode_bf16(bytes: &[u8; 2], out: &mut [f32; 1]) {
    out[0] = f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16);
}

/// Rounds to nearest, ties to even.
pub(super) fn encode_bf16(x: &[f32; 1]) -> Option<[u8; 2]> {
    let rounded = half::bf16::from_f32(x[0]);
    rounded.is_finite().then(|| rounded.to_le_bytes())
}
