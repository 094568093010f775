//! One key or value: how its numbers are rounded, and where they lie in its half of a page.

use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use half::{bf16, f16};

use super::format::{BLOCK, KvFormat};

/// Numbers that are rounded together: a batch uses the conversion instructions where there are any.
const BATCH: usize = 64;

/// Where a row lies in its half of a page: numbers `step` of them apart, scales `scale_step` bytes apart.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub first: usize,
    pub step: usize,
    pub scale: usize,
    pub scale_step: usize,
}

impl Place {
    /// The bytes of a row as (from, to, count), to copy it from here to there.
    pub fn copies(
        self,
        to: Place,
        format: KvFormat,
        head_dim: usize,
    ) -> impl Iterator<Item = (usize, usize, usize)> {
        let width = format.width();
        let (pieces, numbers) = if self.step == 1 && to.step == 1 { (1, head_dim) } else { (head_dim, 1) };
        let place = move |i: usize| {
            ((self.first + i * self.step) * width, (to.first + i * to.step) * width, numbers * width)
        };
        let scale = move |i: usize| (self.scale + i * self.scale_step, to.scale + i * to.scale_step, 2);
        (0..pieces).map(place).chain((0..format.scales(head_dim)).map(scale))
    }
}

/// Stores a row.
pub(super) fn put(format: KvFormat, half: &mut [u8], place: Place, x: &[f32] /* (head_dim) */) {
    let Place { first, step, .. } = place;
    match format.hot() {
        KvFormat::F32 => scatter(&mut half[4 * first..], step, x.iter().map(|x| x.to_le_bytes())),
        KvFormat::I8 => put_codes(half, place, x, x.len(), i8_scale),
        KvFormat::Q8_0 => put_codes(half, place, x, BLOCK, q8_0_scale),
        sixteen_bits => {
            let mut bits = [0u16; BATCH];
            for (i, x) in x.chunks(BATCH).enumerate() {
                let bits = &mut bits[..x.len()];
                match sixteen_bits {
                    KvFormat::Bf16 => bits.reinterpret_cast_mut::<bf16>().convert_from_f32_slice(x),
                    _ => bits.reinterpret_cast_mut::<f16>().convert_from_f32_slice(x),
                }
                let places = &mut half[2 * (first + i * BATCH * step)..];
                scatter(places, step, bits.iter().map(|bits| bits.to_le_bytes()));
            }
        }
    }
}

/// Writes numbers `step` of them apart.
fn scatter<const WIDTH: usize>(places: &mut [u8], step: usize, numbers: impl Iterator<Item = [u8; WIDTH]>) {
    for (place, number) in places.chunks_mut(step * WIDTH).zip(numbers) {
        place[..WIDTH].copy_from_slice(&number);
    }
}

/// Stores a row as 8-bit integers, `block` numbers to a scale.
fn put_codes(half: &mut [u8], place: Place, x: &[f32], block: usize, scale: fn(&[f32]) -> (f16, Round)) {
    for (i, x) in x.chunks(block).enumerate() {
        let (scale, round) = scale(x);
        let places = &mut half[place.first + i * block * place.step..];
        for (place, x) in places.chunks_mut(place.step).zip(x) {
            place[0] = round.code(*x) as u8;
        }
        half[place.scale + i * place.scale_step..][..2].copy_from_slice(&scale.to_le_bytes());
    }
}

/// From numbers to 8-bit codes.
#[derive(Clone, Copy)]
enum Round {
    /// All codes are zero.
    Zero,
    /// To the nearest multiple of a scale, ties to even.
    Even { scale: f32 },
    /// By a factor, then to the nearest integer, ties away from zero.
    Away { factor: f32 },
}

/// 1.5 · 2^23: a float of that size has no fraction, so adding it rounds (to even) and subtracting it gives the integer.
const NO_FRACTION: f32 = 12_582_912.0;

/// To the nearest integer, ties to even, up to a magnitude of 2^22. The library's function is a call on the base
/// instruction set.
pub(super) fn round_to_even(x: f32) -> f32 {
    (x + NO_FRACTION) - NO_FRACTION
}

/// The float below 1/2: added to a number and cut off, it rounds ties away from zero, and nothing below 1/2 up.
const BELOW_HALF: f32 = 0.5 - 1.0 / 33_554_432.0;

impl Round {
    /// The code of a number, in -127..=127.
    fn code(self, x: f32) -> i8 {
        match self {
            Round::Zero => 0,
            Round::Even { scale } => round_to_even(x / scale) as i8,
            Round::Away { factor } => {
                let x = x * factor;
                (x + BELOW_HALF.copysign(x)) as i8
            }
        }
    }
}

/// Largest magnitude, NaN when a number is not finite.
fn magnitude(x: &[f32]) -> f32 {
    let max = x.iter().fold(0.0f32, |max, x| max.max(x.abs()));
    if x.iter().all(|x| x.is_finite()) { max } else { f32::NAN }
}

/// A row of `i8`: the scale is stored in f16 and the codes are made for the stored scale, so no number is further
/// than half a scale from what is read.
fn i8_scale(x: &[f32]) -> (f16, Round) {
    let max = magnitude(x);
    let mut scale = f16::from_f32(max / 127.0);
    if !scale.is_finite() {
        return (f16::NAN, Round::Zero);
    }
    // Only where f16 is denormal can rounding it down leave the largest number beyond 127.5 scales.
    if max >= 127.5 * scale.to_f32() && max > 0.0 {
        scale = f16::from_bits(scale.to_bits() + 1);
    }
    match scale.to_f32() {
        0.0 => (scale, Round::Zero),
        scale_f32 => (scale, Round::Even { scale: scale_f32 }),
    }
}

/// A block of `q8_0`, bit for bit as ggml's reference: codes are made for the scale before it is rounded to f16.
fn q8_0_scale(x: &[f32]) -> (f16, Round) {
    let max = magnitude(x);
    let scale = max / 127.0;
    let stored = f16::from_f32(scale);
    match (stored.is_finite(), scale) {
        (false, _) => (f16::NAN, Round::Zero),
        (true, 0.0) => (stored, Round::Zero),
        (true, _) => (stored, Round::Away { factor: 1.0 / scale }),
    }
}

/// Reads a row.
pub(super) fn get(format: KvFormat, half: &[u8], place: Place, out: &mut [f32] /* (head_dim) */) {
    let Place { first, step, .. } = place;
    let block = match format {
        KvFormat::I8 => out.len(),
        _ => BLOCK,
    };
    let factor = |channel: usize| {
        let at = place.scale + channel / block * place.scale_step;
        f16::from_le_bytes([half[at], half[at + 1]]).to_f32()
    };
    for (channel, x) in out.iter_mut().enumerate() {
        let b = &half[(first + channel * step) * format.width()..];
        *x = match format.hot() {
            KvFormat::F32 => f32::from_le_bytes([b[0], b[1], b[2], b[3]]),
            KvFormat::Bf16 => bf16::from_le_bytes([b[0], b[1]]).to_f32(),
            KvFormat::I8 | KvFormat::Q8_0 => f32::from(b[0] as i8) * factor(channel),
            _ => f16::from_le_bytes([b[0], b[1]]).to_f32(),
        };
    }
}
