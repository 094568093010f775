//! Four lanes with the vectors that every aarch64 has.

use std::arch::aarch64::*;

use super::{Kernel, Simd};

/// Proof that the machine has Neon.
#[derive(Clone, Copy)]
pub(crate) struct Neon(());

/// Runs `kernel` compiled with Neon.
///
/// # Safety
/// The machine has Neon.
#[target_feature(enable = "neon")]
#[inline(never)]
pub(super) unsafe fn enter<K: Kernel>(kernel: K) -> K::Out {
    kernel.run(Neon(()))
}

/// `yes` where the bits of `mask` are set.
#[target_feature(enable = "neon")]
#[inline]
fn lanes(from: usize, to: usize) -> uint32x4_t {
    let lane = [0u32, 1, 2, 3];
    // SAFETY: four elements of a local array.
    let lane = unsafe { vld1q_u32(lane.as_ptr()) };
    vandq_u32(vcgeq_u32(lane, vdupq_n_u32(from as u32)), vcltq_u32(lane, vdupq_n_u32(to as u32)))
}

/// Half to single by integer arithmetic, since the conversion intrinsic is not stable in every compiler we support:
/// shift the exponent into place, multiply away the difference of the biases (denormals come right by it), and
/// restore the exponent of infinities and NaNs.
#[target_feature(enable = "neon")]
#[inline]
fn widen_f16(h: uint16x4_t) -> float32x4_t {
    let h = vmovl_u16(h);
    let sign = vshlq_n_u32::<16>(vandq_u32(h, vdupq_n_u32(0x8000)));
    let magnitude = vshlq_n_u32::<13>(vandq_u32(h, vdupq_n_u32(0x7fff)));
    let scaled = vmulq_f32(vreinterpretq_f32_u32(magnitude), vdupq_n_f32(f32::from_bits(239 << 23))); // 2^112
    let special = vcgeq_u32(magnitude, vdupq_n_u32(0x7c00 << 13));
    let exponent = vandq_u32(special, vdupq_n_u32(0xff << 23));
    vreinterpretq_f32_u32(vorrq_u32(vorrq_u32(vreinterpretq_u32_f32(scaled), exponent), sign))
}

/// Adds `n` to the exponents of `a`.
#[target_feature(enable = "neon")]
#[inline]
fn scale2(a: float32x4_t, n: float32x4_t) -> float32x4_t {
    let exponent = vshlq_n_s32::<23>(vcvtq_s32_f32(n));
    vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(a), exponent))
}

/// The first `n` elements at `p`, zeros behind them.
///
/// # Safety
/// `n < 4` elements may be read.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn load_first(p: *const f32, n: usize) -> float32x4_t {
    let mut part = [0.0f32; 4];
    for (i, value) in part.iter_mut().enumerate().take(n) {
        // SAFETY: the caller owes n readable elements.
        *value = unsafe { p.add(i).read_unaligned() };
    }
    // SAFETY: four elements of a local array.
    unsafe { vld1q_f32(part.as_ptr()) }
}

/// Stores the first `n` lanes.
///
/// # Safety
/// `n < 4` elements may be written.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn store_first(p: *mut f32, n: usize, a: float32x4_t) {
    let mut part = [0.0f32; 4];
    // SAFETY: four elements of a local array.
    unsafe { vst1q_f32(part.as_mut_ptr(), a) };
    for (i, value) in part.into_iter().enumerate().take(n) {
        // SAFETY: the caller owes n writable elements.
        unsafe { p.add(i).write_unaligned(value) };
    }
}

/// `table[p[i]]`.
///
/// # Safety
/// Four elements may be read at `p`.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn lookup(table: &[f32; 16], p: *const u8) -> float32x4_t {
    // SAFETY: the caller owes four elements.
    let at = unsafe { p.cast::<[u8; 4]>().read() };
    let found = at.map(|at| table[usize::from(at & 15)]);
    // SAFETY: four elements of a local array.
    unsafe { vld1q_f32(found.as_ptr()) }
}

impl Simd for Neon {
    const LANES: usize = 4;
    const MANY_REGISTERS: bool = true;
    type F = float32x4_t;

    #[inline(always)]
    fn enter<K: Kernel>(self, kernel: K) -> K::Out {
        // SAFETY: `self` exists only where the machine has these instructions.
        unsafe { enter(kernel) }
    }

    super::methods! {
        fn splat(self, x: f32) -> float32x4_t = vdupq_n_f32(x);
        fn add(self, a: float32x4_t, b: float32x4_t) -> float32x4_t = vaddq_f32(a, b);
        fn sub(self, a: float32x4_t, b: float32x4_t) -> float32x4_t = vsubq_f32(a, b);
        fn mul(self, a: float32x4_t, b: float32x4_t) -> float32x4_t = vmulq_f32(a, b);
        fn div(self, a: float32x4_t, b: float32x4_t) -> float32x4_t = vdivq_f32(a, b);
        fn fma(self, a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t = vfmaq_f32(c, a, b);
        fn max(self, a: float32x4_t, b: float32x4_t) -> float32x4_t = vmaxnmq_f32(a, b);
        fn abs(self, a: float32x4_t) -> float32x4_t = vabsq_f32(a);
        fn where_less(self, a: float32x4_t, b: float32x4_t, yes: float32x4_t, no: float32x4_t) -> float32x4_t =
            vbslq_f32(vcltq_f32(a, b), yes, no);
        fn where_lane(self, from: usize, to: usize, yes: float32x4_t, no: float32x4_t) -> float32x4_t =
            vbslq_f32(lanes(from, to), yes, no);
        fn round(self, a: float32x4_t) -> float32x4_t = vrndnq_f32(a);
        fn scale2(self, a: float32x4_t, n: float32x4_t) -> float32x4_t = scale2(a, n);
        fn sum(self, a: float32x4_t) -> f32 = vaddvq_f32(a);
        fn max_lane(self, a: float32x4_t) -> f32 = vmaxnmvq_f32(a);
    }

    #[inline(always)]
    fn prefetch(self, _: *const u8) {}
    #[inline(always)]
    fn prefetch_near(self, _: *const u8) {}

    super::pointer_methods! {
        fn load(self, p: *const f32) -> float32x4_t = vld1q_f32(p);
        fn load_first(self, p: *const f32, n: usize) -> float32x4_t = load_first(p, n);
        fn store(self, p: *mut f32, a: float32x4_t) -> () = vst1q_f32(p, a);
        fn store_first(self, p: *mut f32, n: usize, a: float32x4_t) -> () = store_first(p, n, a);
        fn load_f16(self, p: *const u16) -> float32x4_t = widen_f16(vld1_u16(p));
        fn load_bf16(self, p: *const u16) -> float32x4_t =
            vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(p)));
        fn load_i8(self, p: *const i8) -> float32x4_t = vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(
            vcreate_s8(u64::from(p.cast::<u32>().read_unaligned()))
        ))));
        fn lookup(self, table: &[f32; 16], p: *const u8) -> float32x4_t = lookup(table, p);
    }
}
