//! Sixteen lanes with AVX-512.

use std::arch::x86_64::*;

use super::{Kernel, Simd};

/// Proof that the machine has AVX-512 F, BW, DQ and VL, AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(());

/// Runs `kernel` compiled with AVX-512.
///
/// # Safety
/// The machine has the instruction sets named below.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline(never)]
pub(super) unsafe fn enter<K: Kernel>(kernel: K) -> K::Out {
    kernel.run(Avx512(()))
}

/// The lanes `from..to` as a mask; `from` and `to` are at most 16.
#[inline(always)]
fn lanes(from: usize, to: usize) -> __mmask16 {
    ((1u32 << to).wrapping_sub(1u32 << from)) as __mmask16 & (((from < to) as u16).wrapping_neg())
}

/// Eight vectors folded to a number each: halves onto halves, quarters onto quarters, pairs onto pairs, two vectors of the step
/// before in one. The order in which lanes meet is that of `_mm512_reduce_add_ps`.
macro_rules! fold {
    ($a:ident, $op:ident) => {{
        let halves = |a: __m512, b: __m512| {
            $op(_mm512_shuffle_f32x4::<0x44>(a, b), _mm512_shuffle_f32x4::<0xee>(a, b))
        };
        let quarters = |a: __m512, b: __m512| {
            $op(_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xdd>(a, b))
        };
        let [a, b, c, d, e, f, g, h] = *$a;
        let first = quarters(halves(a, b), halves(c, d)); // four lanes each of a, b, c, d
        let second = quarters(halves(e, f), halves(g, h));
        let (first, second) = (_mm512_castps_pd(first), _mm512_castps_pd(second));
        let low = _mm512_castpd_ps(_mm512_unpacklo_pd(first, second));
        let pairs = $op(low, _mm512_castpd_ps(_mm512_unpackhi_pd(first, second))); // two each of a, e, b, f, c, g, d, h
        let folded = $op(pairs, _mm512_permute_ps::<0b10_11_00_01>(pairs));
        let order = _mm512_setr_epi32(0, 4, 8, 12, 2, 6, 10, 14, 0, 0, 0, 0, 0, 0, 0, 0);
        let mut out = [0.0; 8];
        _mm256_storeu_ps(out.as_mut_ptr(), _mm512_castps512_ps256(_mm512_permutexvar_ps(order, folded)));
        out
    }};
}

/// # Safety
/// The machine has AVX-512.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
unsafe fn sums(a: &[__m512; 8]) -> [f32; 8] {
    // SAFETY: the store fills an array of eight.
    unsafe { fold!(a, _mm512_add_ps) }
}

/// # Safety
/// The machine has AVX-512.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
unsafe fn max_lanes(a: &[__m512; 8]) -> [f32; 8] {
    // SAFETY: the store fills an array of eight.
    unsafe { fold!(a, _mm512_max_ps) }
}

impl Simd for Avx512 {
    const LANES: usize = 16;
    const MANY_REGISTERS: bool = true;
    type F = __m512;

    #[inline(always)]
    fn enter<K: Kernel>(self, kernel: K) -> K::Out {
        // SAFETY: `self` exists only where the machine has these instructions.
        unsafe { enter(kernel) }
    }

    super::methods! {
        fn splat(self, x: f32) -> __m512 = _mm512_set1_ps(x);
        fn add(self, a: __m512, b: __m512) -> __m512 = _mm512_add_ps(a, b);
        fn sub(self, a: __m512, b: __m512) -> __m512 = _mm512_sub_ps(a, b);
        fn mul(self, a: __m512, b: __m512) -> __m512 = _mm512_mul_ps(a, b);
        fn div(self, a: __m512, b: __m512) -> __m512 = _mm512_div_ps(a, b);
        fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 = _mm512_fmadd_ps(a, b, c);
        fn max(self, a: __m512, b: __m512) -> __m512 = _mm512_max_ps(a, b);
        fn abs(self, a: __m512) -> __m512 = _mm512_abs_ps(a);
        fn where_less(self, a: __m512, b: __m512, yes: __m512, no: __m512) -> __m512 =
            _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), no, yes);
        fn where_lane(self, from: usize, to: usize, yes: __m512, no: __m512) -> __m512 =
            _mm512_mask_blend_ps(lanes(from, to), no, yes);
        fn round(self, a: __m512) -> __m512 =
            _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a);
        fn scale2(self, a: __m512, n: __m512) -> __m512 = _mm512_scalef_ps(a, n);
        fn sum(self, a: __m512) -> f32 = _mm512_reduce_add_ps(a);
        fn max_lane(self, a: __m512) -> f32 = _mm512_reduce_max_ps(a);
        fn sums(self, a: &[__m512; 8]) -> [f32; 8] = sums(a);
        fn max_lanes(self, a: &[__m512; 8]) -> [f32; 8] = max_lanes(a);
        fn prefetch(self, p: *const u8) -> () = _mm_prefetch::<_MM_HINT_T1>(p.cast());
        fn prefetch_near(self, p: *const u8) -> () = _mm_prefetch::<_MM_HINT_T0>(p.cast());
    }

    super::pointer_methods! {
        fn load(self, p: *const f32) -> __m512 = _mm512_loadu_ps(p);
        fn load_first(self, p: *const f32, n: usize) -> __m512 = _mm512_maskz_loadu_ps(lanes(0, n), p);
        fn store(self, p: *mut f32, a: __m512) -> () = _mm512_storeu_ps(p, a);
        fn store_first(self, p: *mut f32, n: usize, a: __m512) -> () = _mm512_mask_storeu_ps(p, lanes(0, n), a);
        fn load_f16(self, p: *const u16) -> __m512 = _mm512_cvtph_ps(_mm256_loadu_si256(p.cast()));
        fn load_bf16(self, p: *const u16) -> __m512 = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(
            _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast()))
        ));
        fn store_f16(self, p: *mut u16, a: __m512) -> () =
            _mm256_storeu_si256(p.cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(a));
        fn load_i8(self, p: *const i8) -> __m512 =
            _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p.cast())));
        fn lookup(self, table: &[f32; 16], p: *const u8) -> __m512 = _mm512_permutexvar_ps(
            _mm512_cvtepu8_epi32(_mm_loadu_si128(p.cast())),
            _mm512_loadu_ps(table.as_ptr())
        );
    }
}
