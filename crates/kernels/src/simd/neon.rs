//! aarch64 vectors: four rows each.

use std::arch::aarch64::*;

use super::{ByteProducts, Simd, operations};

/// 128-bit vectors, and which instructions beyond the base multiply their bytes: none, or [`DOTPROD`] and up.
pub(crate) struct Neon<const DOTS: u8 = 0>;

/// `sdot`.
pub(crate) const DOTPROD: u8 = 1;
/// `usdot` and `smmla` too.
pub(crate) const I8MM: u8 = 2;

impl<const DOTS: u8> Simd for Neon<DOTS> {
    const LANES: usize = 4;
    type Int = int32x4_t;
    type Float = float32x4_t;
    /// Products of rows 0 and 1, and of rows 2 and 3; those of one row are still apart. With `sdot`, the sums of the four
    /// rows, and zeros.
    type Sum = (int32x4_t, int32x4_t);

    operations! {
        fn load(from: *const u8) -> int32x4_t { vreinterpretq_s32_u8(vld1q_u8(from)) }
        fn load_i8(from: *const u8) -> int32x4_t {
            vmovl_s16(vget_low_s16(vmovl_s8(vcreate_s8(u64::from(from.cast::<u32>().read_unaligned())))))
        }
        fn load_u8(from: *const u8) -> int32x4_t {
            vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(vmovl_u8(vcreate_u8(u64::from(
                from.cast::<u32>().read_unaligned(),
            ))))))
        }
        fn store(to: *mut u8, a: int32x4_t) -> () { vst1q_u8(to, vreinterpretq_u8_s32(a)) }
        fn splat16(value: i16) -> int32x4_t { vreinterpretq_s32_s16(vdupq_n_s16(value)) }
        fn splat32(value: i32) -> int32x4_t { vdupq_n_s32(value) }
        fn splat_pair(from: *const i16) -> int32x4_t { vdupq_n_s32(from.cast::<i32>().read_unaligned()) }
        fn and(a: int32x4_t, b: int32x4_t) -> int32x4_t { vandq_s32(a, b) }
        fn or(a: int32x4_t, b: int32x4_t) -> int32x4_t { vorrq_s32(a, b) }
        fn or_and(a: int32x4_t, b: int32x4_t, c: int32x4_t) -> int32x4_t { vorrq_s32(a, vandq_s32(b, c)) }
        fn sub8(a: int32x4_t, b: int32x4_t) -> int32x4_t {
            vreinterpretq_s32_s8(vsubq_s8(vreinterpretq_s8_s32(a), vreinterpretq_s8_s32(b)))
        }
        fn sub16(a: int32x4_t, b: int32x4_t) -> int32x4_t {
            vreinterpretq_s32_s16(vsubq_s16(vreinterpretq_s16_s32(a), vreinterpretq_s16_s32(b)))
        }
        // A left shift by a negative count goes right.
        fn shr16(a: int32x4_t, count: usize) -> int32x4_t {
            vreinterpretq_s32_u16(vshlq_u16(vreinterpretq_u16_s32(a), vdupq_n_s16(-(count as i16))))
        }
        fn shl16(a: int32x4_t, count: usize) -> int32x4_t {
            vreinterpretq_s32_u16(vshlq_u16(vreinterpretq_u16_s32(a), vdupq_n_s16(count as i16)))
        }
        fn shr32(a: int32x4_t, count: usize) -> int32x4_t {
            vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(a), vdupq_n_s32(-(count as i32))))
        }
        fn shl32(a: int32x4_t, count: usize) -> int32x4_t { vshlq_s32(a, vdupq_n_s32(count as i32)) }
        fn mul16(a: int32x4_t, b: int32x4_t) -> int32x4_t {
            vreinterpretq_s32_s16(vmulq_s16(vreinterpretq_s16_s32(a), vreinterpretq_s16_s32(b)))
        }
        fn mul32(a: int32x4_t, b: int32x4_t) -> int32x4_t { vmulq_s32(a, b) }
        fn add32(a: int32x4_t, b: int32x4_t) -> int32x4_t { vaddq_s32(a, b) }
        fn sub32(a: int32x4_t, b: int32x4_t) -> int32x4_t { vsubq_s32(a, b) }
        fn max_u32(a: int32x4_t, b: int32x4_t) -> int32x4_t {
            vreinterpretq_s32_u32(vmaxq_u32(vreinterpretq_u32_s32(a), vreinterpretq_u32_s32(b)))
        }
        fn largest_u32(a: int32x4_t) -> u32 { vmaxvq_u32(vreinterpretq_u32_s32(a)) }
        fn sum_i32(a: int32x4_t) -> i32 { vaddvq_s32(a) }
        fn round(a: float32x4_t) -> int32x4_t { vcvtnq_s32_f32(a) }
        fn store_i16(to: *mut i16, a: int32x4_t) -> () { vst1_s16(to, vmovn_s32(a)) }
        fn store_low_bytes(to: *mut u8, a: int32x4_t) -> () {
            let words = vmovn_s32(a);
            let bytes = vmovn_s16(vcombine_s16(words, words));
            to.cast::<u32>().write_unaligned(vget_lane_u32::<0>(vreinterpret_u32_s8(bytes)))
        }
        fn store_low_halves(to: *mut u8, a: int32x4_t) -> () { vst1_u8(to, vreinterpret_u8_s16(vmovn_s32(a))) }
        fn turn(from: *const *const u8, at: usize) -> [int32x4_t; 4] {
            let row = |i: usize| vreinterpretq_s32_u8(vld1q_u8((*from.add(i)).add(at)));
            let (a, b, c, d) = (row(0), row(1), row(2), row(3));
            let (ab, ab_odd) = (vtrn1q_s32(a, b), vtrn2q_s32(a, b)); // words 0 and 2, 1 and 3
            let (cd, cd_odd) = (vtrn1q_s32(c, d), vtrn2q_s32(c, d));
            let pairs = |x: int32x4_t, y: int32x4_t, upper: bool| {
                let (x, y) = (vreinterpretq_s64_s32(x), vreinterpretq_s64_s32(y));
                vreinterpretq_s32_s64(if upper { vtrn2q_s64(x, y) } else { vtrn1q_s64(x, y) })
            };
            [
                pairs(ab, cd, false),
                pairs(ab_odd, cd_odd, false),
                pairs(ab, cd, true),
                pairs(ab_odd, cd_odd, true),
            ]
        }
        fn zero_sum() -> (int32x4_t, int32x4_t) { (vdupq_n_s32(0), vdupq_n_s32(0)) }
        fn dot(sum: (int32x4_t, int32x4_t), a: int32x4_t, b: int32x4_t) -> (int32x4_t, int32x4_t) {
            let (a, b) = (vreinterpretq_s16_s32(a), vreinterpretq_s16_s32(b));
            if DOTS >= DOTPROD {
                let (low, high) = (vmull_s16(vget_low_s16(a), vget_low_s16(b)), vmull_high_s16(a, b));
                (vaddq_s32(sum.0, vpaddq_s32(low, high)), sum.1)
            } else {
                (vmlal_s16(sum.0, vget_low_s16(a), vget_low_s16(b)), vmlal_high_s16(sum.1, a, b))
            }
        }
        fn join(a: (int32x4_t, int32x4_t), b: (int32x4_t, int32x4_t)) -> (int32x4_t, int32x4_t) {
            (vaddq_s32(a.0, b.0), vaddq_s32(a.1, b.1))
        }
        fn total(sum: (int32x4_t, int32x4_t)) -> int32x4_t {
            if DOTS >= DOTPROD { sum.0 } else { vpaddq_s32(sum.0, sum.1) }
        }
        fn to_float(a: int32x4_t) -> float32x4_t { vcvtq_f32_s32(a) }
        fn as_float(a: int32x4_t) -> float32x4_t { vreinterpretq_f32_s32(a) }
        fn load_f32(from: *const f32) -> float32x4_t { vld1q_f32(from) }
        fn load_f16(from: *const u8) -> float32x4_t { widen_f16(from) }
        fn store_f32(to: *mut f32, a: float32x4_t) -> () { vst1q_f32(to, a) }
        fn splat_f32(value: f32) -> float32x4_t { vdupq_n_f32(value) }
        fn add(a: float32x4_t, b: float32x4_t) -> float32x4_t { vaddq_f32(a, b) }
        fn mul(a: float32x4_t, b: float32x4_t) -> float32x4_t { vmulq_f32(a, b) }
        fn fma(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t { vfmaq_f32(c, a, b) }
        fn fnma(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t { vfmsq_f32(c, a, b) }
        // No stable intrinsic prefetches here; the hardware follows the streams by itself.
        fn prefetch(_from: *const u8) -> () { () }
        fn prefetch_near(_from: *const u8) -> () { () }
    }
}

/// By `sdot`, or by 16 bits, which a product of signed bytes fits. Signed meets signed, so activations keep no bias.
/// Unsigned weights above 127 meet them by `usdot`, or are taken as 128 less, and 128 activations are added for it.
/// Two rows of activations meet signed weights by `smmla`, which adds up twice as many products.
impl<const DOTS: u8> ByteProducts for Neon<DOTS> {
    const BIAS: i32 = 0;
    const CHAINS: usize = 1;
    const TWO_ROWS: bool = DOTS >= I8MM;

    #[inline(always)]
    unsafe fn sums_from(from: *const i32) -> (int32x4_t, int32x4_t) {
        // SAFETY: the caller promises the instructions, and four integers at `from`.
        unsafe {
            let (starts, zero) = (vld1q_s32(from), vdupq_n_s32(0));
            if DOTS >= DOTPROD {
                (starts, zero)
            } else {
                (vzip1q_s32(starts, zero), vzip2q_s32(starts, zero)) // each in one of its row's two lanes
            }
        }
    }

    #[inline(always)]
    unsafe fn dot_signed<const SMALL: bool>(
        sum: (int32x4_t, int32x4_t),
        weights: int32x4_t,
        x: int32x4_t,
    ) -> (int32x4_t, int32x4_t) {
        // SAFETY: the caller promises the instructions.
        unsafe {
            if DOTS >= DOTPROD {
                return (sdot(sum.0, weights, x), sum.1);
            }
            let (w, x) = (vreinterpretq_s8_s32(weights), vreinterpretq_s8_s32(x));
            (
                vpadalq_s16(sum.0, vmull_s8(vget_low_s8(w), vget_low_s8(x))),
                vpadalq_s16(sum.1, vmull_high_s8(w, x)),
            )
        }
    }

    #[inline(always)]
    unsafe fn dot_unsigned<const SMALL: bool>(
        sum: (int32x4_t, int32x4_t),
        weights: int32x4_t,
        x: int32x4_t,
    ) -> (int32x4_t, int32x4_t) {
        // SAFETY: the caller promises the instructions.
        unsafe {
            if SMALL {
                return Self::dot_signed::<true>(sum, weights, x);
            }
            if DOTS >= I8MM {
                return (usdot(sum.0, weights, x), sum.1);
            }
            let shifted = veorq_s32(weights, vdupq_n_s32(0x8080_8080_u32 as i32));
            let sum = Self::dot_signed::<false>(sum, shifted, x);
            // 128 activations in two products of 64, as 128 is no signed byte.
            let half = vdupq_n_s32(0x4040_4040);
            Self::dot_signed::<true>(Self::dot_signed::<true>(sum, half, x), half, x)
        }
    }

    /// The eight weights of outputs 0 and 1, and of 2 and 3.
    #[inline(always)]
    unsafe fn pair_quads([first, second]: [int32x4_t; 2]) -> [int32x4_t; 2] {
        // SAFETY: the caller promises the instructions.
        unsafe { [vzip1q_s32(first, second), vzip2q_s32(first, second)] }
    }

    /// The first sum becomes that of outputs 0 and 1 with the first row, then with the second; the second sum that of
    /// outputs 2 and 3.
    #[inline(always)]
    unsafe fn dot_two_rows(
        [low, high]: [(int32x4_t, int32x4_t); 2],
        quads: [int32x4_t; 2],
        rows: [*const u8; 2],
    ) -> [(int32x4_t, int32x4_t); 2] {
        // SAFETY: the caller promises the instructions, and eight bytes at each row.
        unsafe {
            let x = vreinterpretq_s32_u8(vcombine_u8(vld1_u8(rows[0]), vld1_u8(rows[1])));
            [(smmla(low.0, x, quads[0]), low.1), (smmla(high.0, x, quads[1]), high.1)]
        }
    }

    #[inline(always)]
    unsafe fn part_rows([low, high]: [(int32x4_t, int32x4_t); 2]) -> [(int32x4_t, int32x4_t); 2] {
        // SAFETY: the caller promises the instructions.
        unsafe {
            let (a, b) = (vreinterpretq_s64_s32(low.0), vreinterpretq_s64_s32(high.0));
            [
                (vreinterpretq_s32_s64(vzip1q_s64(a, b)), low.1),
                (vreinterpretq_s32_s64(vzip2q_s64(a, b)), high.1),
            ]
        }
    }
}

/// Adds to each lane the four products of its signed bytes. The intrinsic is not stable.
///
/// # Safety
/// The machine has `dotprod`.
#[inline(always)]
unsafe fn sdot(mut sum: int32x4_t, a: int32x4_t, b: int32x4_t) -> int32x4_t {
    // SAFETY: by the contract; the instruction reads three registers and writes one of them.
    unsafe {
        std::arch::asm!(
            "sdot {sum:v}.4s, {a:v}.16b, {b:v}.16b",
            sum = inout(vreg) sum,
            a = in(vreg) a,
            b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sum
}

/// Adds to each lane the four products of its unsigned bytes of `a` and signed bytes of `b`. The intrinsic is not
/// stable.
///
/// # Safety
/// The machine has `i8mm`.
#[inline(always)]
unsafe fn usdot(mut sum: int32x4_t, a: int32x4_t, b: int32x4_t) -> int32x4_t {
    // SAFETY: by the contract; the instruction reads three registers and writes one of them.
    unsafe {
        std::arch::asm!(
            "usdot {sum:v}.4s, {a:v}.16b, {b:v}.16b",
            sum = inout(vreg) sum,
            a = in(vreg) a,
            b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sum
}

/// Adds to lane `2 * i + j` the eight products of half `i` of `a` and half `j` of `b`, signed bytes both. The intrinsic
/// is not stable.
///
/// # Safety
/// The machine has `i8mm`.
#[inline(always)]
unsafe fn smmla(mut sum: int32x4_t, a: int32x4_t, b: int32x4_t) -> int32x4_t {
    // SAFETY: by the contract; the instruction reads three registers and writes one of them.
    unsafe {
        std::arch::asm!(
            "smmla {sum:v}.4s, {a:v}.16b, {b:v}.16b",
            sum = inout(vreg) sum,
            a = in(vreg) a,
            b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sum
}

/// Four f16 as f32. `fcvtl` is base aarch64, but its intrinsic asks for a type that stable Rust lacks.
///
/// # Safety
/// `from` is good for 8 bytes.
#[inline(always)]
unsafe fn widen_f16(from: *const u8) -> float32x4_t {
    let widened: float32x4_t;
    // SAFETY: by the contract; the instruction reads one register and writes another.
    unsafe {
        let halves = vld1_u8(from);
        std::arch::asm!(
            "fcvtl {wide:v}.4s, {narrow:v}.4h",
            wide = out(vreg) widened,
            narrow = in(vreg) halves,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    widened
}
