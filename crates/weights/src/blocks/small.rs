//! Q4_0, Q4_1, Q5_0, Q5_1: 32 weights, codes of 4 or 5 bits, one scale (`_0`: d·(q − half)) or scale and offset
//! (`_1`: d·q + m).
//!
//! Bytes: d f16, m f16 (`_1`), the fifth bits as a u32 (Q5), then 16 bytes whose low nibbles are weights 0..16 and
//! whose high nibbles are weights 16..32.

use super::{f16_at, search, to_f16};

pub(super) fn decode_q4_0(block: &[u8; 18], out: &mut [f32; 32]) {
    let d = f16_at(block, 0);
    let codes = unpack(&block[2..], 0);
    *out = codes.map(|q| d * (f32::from(q) - 8.0));
}

pub(super) fn decode_q4_1(block: &[u8; 20], out: &mut [f32; 32]) {
    let (d, m) = (f16_at(block, 0), f16_at(block, 2));
    *out = unpack(&block[4..], 0).map(|q| d * f32::from(q) + m);
}

pub(super) fn decode_q5_0(block: &[u8; 22], out: &mut [f32; 32]) {
    let d = f16_at(block, 0);
    *out = unpack(&block[6..], fifth_bits(block, 2)).map(|q| d * (f32::from(q) - 16.0));
}

pub(super) fn decode_q5_1(block: &[u8; 24], out: &mut [f32; 32]) {
    let (d, m) = (f16_at(block, 0), f16_at(block, 2));
    *out = unpack(&block[8..], fifth_bits(block, 4)).map(|q| d * f32::from(q) + m);
}

fn fifth_bits<const N: usize>(block: &[u8; N], at: usize) -> u32 {
    u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
}

fn unpack(nibbles: &[u8], fifth: u32) -> [u8; 32] {
    let mut codes = [0; 32];
    for (i, code) in codes.iter_mut().enumerate() {
        let nibble = if i < 16 { nibbles[i] & 15 } else { nibbles[i - 16] >> 4 };
        *code = nibble | ((fifth >> i & 1) as u8) << 4;
    }
    codes
}

pub(super) fn encode_q4_0(x: &[f32; 32]) -> Option<[u8; 18]> {
    let (d, codes) = reference_0(x, 8.0);
    pack_q4_0(d, codes)
}

pub(super) fn encode_q4_1(x: &[f32; 32]) -> Option<[u8; 20]> {
    let (d, m, codes) = reference_1(x, 15.0);
    pack_q4_1(d, m, codes)
}

pub(super) fn encode_q5_0(x: &[f32; 32]) -> Option<[u8; 22]> {
    let (d, codes) = reference_0(x, 16.0);
    pack_q5_0(d, codes)
}

pub(super) fn encode_q5_1(x: &[f32; 32]) -> Option<[u8; 24]> {
    let (d, m, codes) = reference_1(x, 31.0);
    pack_q5_1(d, m, codes)
}

pub(super) fn encode_q4_0_weighted(x: &[f32; 32], w: &[f32; 32]) -> Option<[u8; 18]> {
    let (d, codes) = weighted_0(x, w, 8.0)?;
    pack_q4_0(d, codes)
}

pub(super) fn encode_q4_1_weighted(x: &[f32; 32], w: &[f32; 32]) -> Option<[u8; 20]> {
    let (d, m, codes) = weighted_1(x, w, 15.0)?;
    pack_q4_1(d, m, codes)
}

pub(super) fn encode_q5_0_weighted(x: &[f32; 32], w: &[f32; 32]) -> Option<[u8; 22]> {
    let (d, codes) = weighted_0(x, w, 16.0)?;
    pack_q5_0(d, codes)
}

pub(super) fn encode_q5_1_weighted(x: &[f32; 32], w: &[f32; 32]) -> Option<[u8; 24]> {
    let (d, m, codes) = weighted_1(x, w, 31.0)?;
    pack_q5_1(d, m, codes)
}

/// As ggml's reference: the first value of largest magnitude becomes code 0, that is −`half`.
fn reference_0(x: &[f32; 32], half: f32) -> (f32, [u8; 32]) {
    let extreme = x.iter().fold(0.0, |extreme: f32, &x| if x.abs() > extreme.abs() { x } else { extreme });
    let d = extreme / -half;
    let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
    (d, x.map(|x| truncate(x * inverse + (half + 0.5), 2.0 * half - 1.0)))
}

/// As ggml's reference: the range of the values becomes 0..=`q_max`.
fn reference_1(x: &[f32; 32], q_max: f32) -> (f32, f32, [u8; 32]) {
    let (min, max) = search::range(x);
    let d = (max - min) / q_max;
    let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
    (d, min, x.map(|x| truncate((x - min) * inverse + 0.5, q_max)))
}

fn weighted_0(x: &[f32; 32], w: &[f32; 32], half: f32) -> Option<(f32, [u8; 32])> {
    let d = to_f16(search::symmetric_scale(x, w, -half, half - 1.0))?.to_f32();
    Some((d, search::symmetric_codes(x, d, -half, half - 1.0).map(|q| (q + half) as u8)))
}

fn weighted_1(x: &[f32; 32], w: &[f32; 32], q_max: f32) -> Option<(f32, f32, [u8; 32])> {
    let fit = search::affine(x, w, q_max, search::Offset::Free);
    let (d, min) = (to_f16(fit.scale)?.to_f32(), to_f16(fit.min)?.to_f32());
    Some((d, -min, search::affine_codes(x, d, min, q_max).map(|q| q as u8)))
}

fn truncate(code: f32, q_max: f32) -> u8 {
    code.clamp(0.0, q_max) as u8
}

fn pack_q4_0(d: f32, codes: [u8; 32]) -> Option<[u8; 18]> {
    let mut block = [0; 18];
    block[..2].copy_from_slice(&to_f16(d)?.to_le_bytes());
    pack(&codes, &mut block[2..]);
    Some(block)
}

fn pack_q4_1(d: f32, m: f32, codes: [u8; 32]) -> Option<[u8; 20]> {
    let mut block = [0; 20];
    block[..2].copy_from_slice(&to_f16(d)?.to_le_bytes());
    block[2..4].copy_from_slice(&to_f16(m)?.to_le_bytes());
    pack(&codes, &mut block[4..]);
    Some(block)
}

fn pack_q5_0(d: f32, codes: [u8; 32]) -> Option<[u8; 22]> {
    let mut block = [0; 22];
    block[..2].copy_from_slice(&to_f16(d)?.to_le_bytes());
    let fifth = pack(&codes, &mut block[6..]);
    block[2..6].copy_from_slice(&fifth.to_le_bytes());
    Some(block)
}

fn pack_q5_1(d: f32, m: f32, codes: [u8; 32]) -> Option<[u8; 24]> {
    let mut block = [0; 24];
    block[..2].copy_from_slice(&to_f16(d)?.to_le_bytes());
    block[2..4].copy_from_slice(&to_f16(m)?.to_le_bytes());
    let fifth = pack(&codes, &mut block[8..]);
    block[4..8].copy_from_slice(&fifth.to_le_bytes());
    Some(block)
}

/// Writes the nibbles, returns the fifth bits.
fn pack(codes: &[u8; 32], nibbles: &mut [u8]) -> u32 {
    for (i, byte) in nibbles.iter_mut().enumerate() {
        *byte = codes[i] & 15 | codes[i + 16] << 4;
    }
    codes.iter().enumerate().fold(0, |bits, (i, &code)| bits | u32::from(code >> 4) << i)
}
