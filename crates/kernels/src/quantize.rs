//! Activations from f32 to what weights multiply by: 8-bit or 16-bit integers, or bf16.

use crate::activations::{Form, IntegerRowMut};
use crate::isa::Isa;
use crate::layout::BLOCK;
use crate::simd::Simd;
use crate::table::{Candidate, Chooser, Operation};

/// Writes one row of f32 as integers.
///
/// # Safety
/// The machine has the instructions that the function was compiled for.
pub(crate) type QuantizeRow = unsafe fn(&[f32], IntegerRowMut<'_>);

/// Rounds f32 to bf16, ties to even; NaN stays NaN.
///
/// # Safety
/// As for [`QuantizeRow`]; both slices have one length.
pub(crate) type RoundBf16 = unsafe fn(&[f32], &mut [u16]);

/// Chooses the widest there is to make `form` of.
pub(crate) fn choose(chooser: &mut Chooser, form: Form) -> QuantizeRow {
    let wider: &[Candidate<QuantizeRow>] = &[
        #[cfg(target_arch = "x86_64")]
        Candidate { isa: Isa::Avx2, kernel: quantize_avx2 },
        #[cfg(target_arch = "x86_64")]
        Candidate { isa: Isa::Avx512, kernel: quantize_avx512 },
        #[cfg(target_arch = "aarch64")]
        Candidate { isa: Isa::Neon, kernel: quantize_neon },
    ];
    chooser.pick_of(Operation::QuantizeActivations, form.name(), form.name(), quantize_scalar, wider)
}

/// # Safety
/// As for [`QuantizeRow`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn quantize_avx2(x: &[f32], out: IntegerRowMut<'_>) {
    // SAFETY: this function has the instructions.
    unsafe { quantize_row::<Vectors<crate::simd::avx2::Avx2>>(x, out) }
}

/// # Safety
/// As for [`QuantizeRow`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn quantize_avx512(x: &[f32], out: IntegerRowMut<'_>) {
    // SAFETY: this function has the instructions.
    unsafe { quantize_row::<Vectors<crate::simd::avx512::Avx512<false>>>(x, out) }
}

/// # Safety
/// As for [`QuantizeRow`].
#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
unsafe fn quantize_neon(x: &[f32], out: IntegerRowMut<'_>) {
    // SAFETY: this function has the instructions.
    unsafe { quantize_row::<Vectors<crate::simd::neon::Neon>>(x, out) }
}

/// # Safety
/// None: it uses no instructions beyond the base. The type is that of the others.
unsafe fn quantize_scalar(x: &[f32], out: IntegerRowMut<'_>) {
    // SAFETY: `Plain` asks for nothing.
    unsafe { quantize_row::<Plain>(x, out) }
}

/// The two passes over a block that are worth vectors.
///
/// # Safety
/// All methods: the machine has the instructions of the type.
#[allow(clippy::missing_safety_doc)] // said once, above
trait Passes {
    /// The largest magnitude, as a bit pattern: their order is that of the numbers, and NaN ranks above infinity.
    unsafe fn largest(x: &[f32; BLOCK]) -> u32;
    /// `x * inverse` to the nearest integer, ties to even; returns the sums of both halves.
    unsafe fn round(x: &[f32; BLOCK], inverse: f32, out: &mut [i16; BLOCK]) -> [i32; 2];
    /// The same where the integers fit bytes: written as they are, and 128 more.
    unsafe fn round_to_bytes(
        x: &[f32; BLOCK],
        inverse: f32,
        out: &mut [i8; BLOCK],
        biased: &mut [u8; BLOCK],
    ) -> [i32; 2];
}

struct Plain;

impl Passes for Plain {
    unsafe fn largest(x: &[f32; BLOCK]) -> u32 {
        x.iter().fold(0, |most, x| most.max(x.to_bits() & 0x7fff_ffff))
    }

    unsafe fn round(x: &[f32; BLOCK], inverse: f32, out: &mut [i16; BLOCK]) -> [i32; 2] {
        /// Adding 1.5 * 2^23 rounds a float below 2^22 to the nearest integer and leaves it in the low bits.
        const ROUND: f32 = 12_582_912.0;
        for (out, x) in out.iter_mut().zip(x) {
            *out = ((x * inverse + ROUND).to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32) as i16;
        }
        let sum = |half: &[i16]| half.iter().map(|&q| i32::from(q)).sum();
        [sum(&out[..16]), sum(&out[16..])]
    }

    unsafe fn round_to_bytes(
        x: &[f32; BLOCK],
        inverse: f32,
        out: &mut [i8; BLOCK],
        biased: &mut [u8; BLOCK],
    ) -> [i32; 2] {
        let mut rounded = [0; BLOCK];
        // SAFETY: `Plain` asks for nothing.
        let sums = unsafe { Plain::round(x, inverse, &mut rounded) };
        for ((out, biased), rounded) in out.iter_mut().zip(biased).zip(rounded) {
            (*out, *biased) = (rounded as i8, rounded.wrapping_add(128) as u8);
        }
        sums
    }
}

struct Vectors<S>(std::marker::PhantomData<S>);

impl<S: Simd> Passes for Vectors<S> {
    #[inline(always)]
    unsafe fn largest(x: &[f32; BLOCK]) -> u32 {
        // SAFETY: vectors are loaded from inside the block.
        unsafe {
            let mut most = S::splat32(0);
            for at in (0..BLOCK).step_by(S::LANES) {
                let bits = S::load(x.as_ptr().add(at).cast());
                most = S::max_u32(most, S::and(bits, S::splat32(0x7fff_ffff)));
            }
            S::largest_u32(most)
        }
    }

    #[inline(always)]
    unsafe fn round(x: &[f32; BLOCK], inverse: f32, out: &mut [i16; BLOCK]) -> [i32; 2] {
        let mut sums = [0; 2];
        // SAFETY: vectors are loaded from and stored to inside the blocks.
        unsafe {
            for (half, sum) in sums.iter_mut().enumerate() {
                let mut lanes = S::splat32(0);
                for at in (16 * half..16 * half + 16).step_by(S::LANES) {
                    let scaled = S::mul(S::load_f32(x.as_ptr().add(at)), S::splat_f32(inverse));
                    let rounded = S::round(scaled);
                    S::store_i16(out.as_mut_ptr().add(at), rounded);
                    lanes = S::add32(lanes, rounded);
                }
                *sum = S::sum_i32(lanes);
            }
        }
        sums
    }

    #[inline(always)]
    unsafe fn round_to_bytes(
        x: &[f32; BLOCK],
        inverse: f32,
        out: &mut [i8; BLOCK],
        biased: &mut [u8; BLOCK],
    ) -> [i32; 2] {
        let mut sums = [0; 2];
        // SAFETY: vectors are loaded from and stored to inside the blocks.
        unsafe {
            for (half, sum) in sums.iter_mut().enumerate() {
                let mut lanes = S::splat32(0);
                for at in (16 * half..16 * half + 16).step_by(S::LANES) {
                    let scaled = S::mul(S::load_f32(x.as_ptr().add(at)), S::splat_f32(inverse));
                    let rounded = S::round(scaled);
                    S::store_low_bytes(out.as_mut_ptr().cast::<u8>().add(at), rounded);
                    S::store_low_bytes(biased.as_mut_ptr().add(at), S::add32(rounded, S::splat32(128)));
                    lanes = S::add32(lanes, rounded);
                }
                *sum = S::sum_i32(lanes);
            }
        }
        sums
    }
}

/// Largest 8-bit integer of a block.
const LARGEST_BYTE: f32 = 127.0;
/// Largest 16-bit integer of a block. The largest weight times its factor is 32 * 128 (Q6_K), so that the products of a block
/// sum to at most 4096 * 16383 * 32 = 2^31 - 131072: they never wrap. And the upper byte fits a signed one.
const LARGEST: f32 = 16383.0;

/// A block of integers, aligned to be read four at a time.
#[derive(Clone, Copy, bytemuck::Zeroable, bytemuck::Pod)]
#[repr(C, align(64))]
struct Quads([i16; BLOCK]);

/// Plain loops rather than closures, which would not take on the instructions of the function they are inlined in.
///
/// # Safety
/// The machine has the instructions of `P`.
#[inline(always)]
unsafe fn quantize_row<P: Passes>(x: &[f32], out: IntegerRowMut<'_>) {
    let IntegerRowMut { bytes, biased, pairs, halves, scales, sums, scaled_sums } = out;
    let (blocks, _) = x.as_chunks::<BLOCK>();
    let (bytes, _) = bytes.as_chunks_mut::<BLOCK>();
    let (biased, _) = biased.as_chunks_mut::<BLOCK>();
    let (pairs, _) = pairs.as_chunks_mut::<BLOCK>();
    let (halves, _) = halves.as_chunks_mut::<{ BLOCK / 2 }>();
    let (sums, _) = sums.as_chunks_mut::<2>();
    let (scaled_sums, _) = scaled_sums.as_chunks_mut::<3>();
    let limit = if bytes.is_empty() { LARGEST } else { LARGEST_BYTE };
    for (b, x) in blocks.iter().enumerate() {
        // SAFETY: by the contract.
        let (scale, inverse) = scale_and_inverse(f32::from_bits(unsafe { P::largest(x) }), limit);
        let mut rounded = Quads([0; BLOCK]);
        let [first, second] = match (bytes.get_mut(b), biased.get_mut(b)) {
            // SAFETY: by the contract.
            (Some(bytes), Some(biased)) => unsafe { P::round_to_bytes(x, inverse, bytes, biased) },
            // SAFETY: by the contract.
            _ => unsafe { P::round(x, inverse, &mut rounded.0) },
        };
        scales[b] = scale;
        sums[b] = [first, second];
        scaled_sums[b] =
            [scale * first as f32, scale * second as f32, scale * first.wrapping_add(second) as f32];
        let quads: [u64; BLOCK / 4] = bytemuck::cast(rounded);
        if let Some(pairs) = pairs.get_mut(b) {
            let mut paired = [0; BLOCK / 4];
            for i in 0..BLOCK / 4 {
                paired[i] = pair_up(quads[i]);
            }
            *pairs = bytemuck::cast::<_, Quads>(paired).0;
        }
        if let Some(halves) = halves.get_mut(b) {
            let mut split = [0; BLOCK / 4];
            for i in 0..BLOCK / 4 {
                split[i] = split_bytes(quads[i]);
            }
            *halves = bytemuck::cast(split);
        }
    }
}

/// The scale of a block whose largest integer may be `limit`, and what to multiply its elements by; a NaN where one
/// is not finite.
#[inline(always)]
fn scale_and_inverse(largest: f32, limit: f32) -> (f32, f32) {
    if !largest.is_finite() {
        (f32::NAN, 0.0)
    } else if largest >= limit * f32::MIN_POSITIVE {
        (largest / limit, limit / largest)
    } else {
        // So small that the scale would lose its digits or its inverse overflow.
        (f32::MIN_POSITIVE, 1.0 / f32::MIN_POSITIVE)
    }
}

/// Four 16-bit integers in the order 0 2 1 3.
#[inline(always)]
fn pair_up(quad: u64) -> u64 {
    quad & 0xffff_0000_0000_ffff | (quad & 0xffff_0000) << 16 | quad >> 16 & 0xffff_0000
}

/// The bytes of a quad's integers `256 * upper + lower`, four upper ones and then four lower ones, all signed.
#[inline(always)]
fn split_bytes(quad: u64) -> u64 {
    // A lower byte from 128 on counts as negative, and the upper one is larger by one for it. Adding that to every
    // other half at a time keeps its carry out of the next.
    let (even, odd) = (quad & 0x0000_ffff_0000_ffff, quad >> 16 & 0x0000_ffff_0000_ffff);
    let carry = 0x0000_0080_0000_0080;
    let upper =
        (even + carry) >> 8 & 0x0000_00ff_0000_00ff | ((odd + carry) >> 8 & 0x0000_00ff_0000_00ff) << 16;
    every_other_byte(upper) | every_other_byte(quad) << 32
}

/// Bytes 0, 2, 4 and 6.
#[inline(always)]
fn every_other_byte(bytes: u64) -> u64 {
    let bytes = bytes & 0x00ff_00ff_00ff_00ff;
    let bytes = (bytes | bytes >> 8) & 0x0000_ffff_0000_ffff;
    (bytes | bytes >> 16) & 0xffff_ffff
}

/// The rounding to bf16 that runs under `isa`.
pub(crate) fn choose_bf16(isa: Isa) -> RoundBf16 {
    #[cfg(target_arch = "x86_64")]
    if isa.includes(Isa::Avx512) {
        return round_bf16_avx512;
    }
    let _ = isa;
    round_bf16_scalar
}

/// # Safety
/// As for [`RoundBf16`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn round_bf16_avx512(x: &[f32], out: &mut [u16]) {
    round_bf16(x, out);
}

/// # Safety
/// None, as for [`quantize_scalar`].
unsafe fn round_bf16_scalar(x: &[f32], out: &mut [u16]) {
    round_bf16(x, out);
}

/// In integers, which compilers make vectors of.
#[inline(always)]
pub(crate) fn round_bf16(x: &[f32], out: &mut [u16]) {
    for (out, x) in out.iter_mut().zip(x) {
        let bits = x.to_bits();
        let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
        let kept = if x.is_nan() { bits | 0x0040_0000 } else { rounded };
        *out = (kept >> 16) as u16;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantized(x: &[f32; BLOCK]) -> ([f32; BLOCK], [i32; 2]) {
        let (mut pairs, mut scale, mut sums, mut scaled) = ([0; BLOCK], [0.0], [0; 2], [0.0; 3]);
        let mut halves = [0; BLOCK / 2];
        let out = IntegerRowMut {
            bytes: &mut [],
            biased: &mut [],
            pairs: &mut pairs,
            halves: &mut halves,
            scales: &mut scale,
            sums: &mut sums,
            scaled_sums: &mut scaled,
        };
        // SAFETY: `quantize_scalar` asks for nothing.
        unsafe { quantize_scalar(x, out) };
        assert!(scale[0].is_nan() || scaled[2] == scale[0] * (sums[0] + sums[1]) as f32);
        let order = [0, 2, 1, 3];
        let integers: [i16; BLOCK] = std::array::from_fn(|k| pairs[k / 4 * 4 + order[k % 4]]);
        for (k, integer) in integers.iter().enumerate() {
            let byte = |word: u32| i16::from(word.to_le_bytes()[k % 4] as i8);
            let [upper, lower] = [0, 1].map(|i| byte(halves[k / 4 * 2 + i]));
            assert_eq!(*integer, 256 * upper + lower);
        }
        (integers.map(|q| f32::from(q) * scale[0]), sums)
    }

    #[test]
    fn a_block_comes_back_within_half_a_step_at_every_magnitude() {
        for magnitude in [1e-45, 1e-40, 1e-38, 3e-34, 1e-20, 1.0, 1e20, 3.4e38] {
            let x: [f32; BLOCK] = std::array::from_fn(|k| (k as f32 * 0.7).sin() * magnitude);
            let largest = x.iter().fold(0.0f32, |m, x| m.max(x.abs()));
            let (back, _) = quantized(&x);
            for (x, back) in x.iter().zip(back) {
                let allowed = (largest / LARGEST * 0.505).max(f32::MIN_POSITIVE * 0.501);
                assert!((x - back).abs() <= allowed, "{magnitude}: {x} became {back}");
            }
        }
        assert_eq!(quantized(&[0.0; BLOCK]), ([0.0; BLOCK], [0, 0]));
        assert_eq!(quantized(&[-2.0; BLOCK]).1, [-16 * 16383; 2]);
    }

    #[test]
    fn what_is_not_finite_is_not_hidden() {
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = [1.0; BLOCK];
            x[17] = bad;
            assert!(quantized(&x).0.iter().all(|x| x.is_nan()), "{bad}");
        }
    }

    #[test]
    fn bf16_is_rounded_as_the_half_crate_does() {
        let bits = (0..1 << 16).map(|i: u32| i.wrapping_mul(0x9e37_79b9) ^ i << 15);
        let special =
            [0, 1, 0x7f80_0000, 0xff80_0000, 0x7f80_0001, 0x7fff_ffff, 0x7f7f_ffff, 0x3f80_8000, 0x3f81_8000];
        let x: Vec<f32> = bits.chain(special).map(f32::from_bits).collect();
        let mut out = vec![0; x.len()];
        for isa in Isa::available() {
            // SAFETY: only levels that are available are run.
            unsafe { choose_bf16(isa)(&x, &mut out) };
            for (x, out) in x.iter().zip(&out) {
                assert_eq!(*out, half::bf16::from_f32(*x).to_bits(), "{isa} {x:e}");
            }
        }
    }

    #[test]
    fn every_level_gives_the_same_integers() {
        let mut wider: Vec<(Isa, QuantizeRow)> = Vec::new();
        #[cfg(target_arch = "x86_64")]
        wider.extend([(Isa::Avx2, quantize_avx2 as QuantizeRow), (Isa::Avx512, quantize_avx512)]);
        #[cfg(target_arch = "aarch64")]
        wider.push((Isa::Neon, quantize_neon));
        let x: Vec<f32> =
            (0..20 * BLOCK).map(|k| (k as f32 * 1.3).sin() * 10f32.powi(k as i32 / 40 - 8)).collect();
        let run = |quantize: QuantizeRow, [in_bytes, in_pairs]: [usize; 2]| {
            let (mut bytes, mut biased) = (vec![0; in_bytes], vec![0; in_bytes]);
            let (mut pairs, mut halves) = (vec![0; in_pairs], vec![0; in_pairs / 2]);
            let (mut scales, mut sums, mut scaled_sums) = (vec![0.0; 20], vec![0; 40], vec![0.0; 60]);
            let out = IntegerRowMut {
                bytes: &mut bytes,
                biased: &mut biased,
                pairs: &mut pairs,
                halves: &mut halves,
                scales: &mut scales,
                sums: &mut sums,
                scaled_sums: &mut scaled_sums,
            };
            // SAFETY: only levels that are available are run.
            unsafe { quantize(&x, out) };
            for ((byte, biased), i) in bytes.iter().zip(&biased).zip(0..) {
                assert_eq!(i16::from(*biased), i16::from(*byte) + 128);
                let error = (f32::from(*byte) * scales[i / BLOCK] - x[i]).abs();
                assert!(error <= scales[i / BLOCK] * 0.501, "{i}: {} became {byte}", x[i]);
            }
            (bytes, pairs, halves, scales, sums, scaled_sums)
        };
        for lens in [[x.len(), 0], [0, x.len()]] {
            let want = run(quantize_scalar, lens);
            for &(isa, quantize) in wider.iter().filter(|(isa, _)| isa.is_available()) {
                assert_eq!(run(quantize, lens), want, "{isa}");
            }
        }
    }
}
