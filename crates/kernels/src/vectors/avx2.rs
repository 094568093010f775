//! Eight lanes with AVX2, FMA and F16C.

use std::arch::x86_64::*;

use super::{Kernel, Simd};

/// Proof that the machine has AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

/// Runs `kernel` compiled with AVX2.
///
/// # Safety
/// The machine has the instruction sets named below.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline(never)]
pub(super) unsafe fn enter<K: Kernel>(kernel: K) -> K::Out {
    kernel.run(Avx2(()))
}

/// Ones, then zeros: a mask of the first `n` lanes starts `n` from the middle.
const FIRST: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

/// All bits in the first `n` lanes, `n` at most 8.
///
/// # Safety
/// The machine has AVX2.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn first(n: usize) -> __m256i {
    let from = 8 - n.min(8);
    // SAFETY: 8 elements from an index of at most 8, out of 16.
    unsafe { _mm256_loadu_si256(FIRST.as_ptr().add(from).cast()) }
}

/// All bits in the lanes `from..to`.
///
/// # Safety
/// The machine has AVX2.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn lanes(from: usize, to: usize) -> __m256 {
    // SAFETY: the caller's machine has AVX2.
    let mask = unsafe { _mm256_andnot_si256(first(from), first(to)) };
    _mm256_castsi256_ps(mask)
}

/// Sum of the lanes: halves, then pairs, then neighbours.
#[target_feature(enable = "avx2")]
#[inline]
fn sum(a: __m256) -> f32 {
    let four = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
}

/// The largest lane.
#[target_feature(enable = "avx2")]
#[inline]
fn max_lane(a: __m256) -> f32 {
    let four = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
    let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
}

/// Adds `n` to the exponents of `a`.
#[target_feature(enable = "avx2")]
#[inline]
fn scale2(a: __m256, n: __m256) -> __m256 {
    let exponent = _mm256_slli_epi32::<23>(_mm256_cvtps_epi32(n));
    let scaled = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a), exponent));
    // A NaN converts to the smallest integer, whose shift is zero: NaN stays NaN.
    scaled
}

/// `table[p[i]]`: each half of the table by the low three bits, then the half by the fourth.
///
/// # Safety
/// Eight elements may be read at `p`.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn lookup(table: &[f32; 16], p: *const u8) -> __m256 {
    // SAFETY: the caller owes eight elements, the table has twice eight.
    let (at, low, high) = unsafe {
        let at = _mm256_cvtepu8_epi32(_mm_loadl_epi64(p.cast()));
        (at, _mm256_loadu_ps(table.as_ptr()), _mm256_loadu_ps(table.as_ptr().add(8)))
    };
    let (low, high) = (_mm256_permutevar8x32_ps(low, at), _mm256_permutevar8x32_ps(high, at));
    _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32::<28>(at)))
}

impl Simd for Avx2 {
    const LANES: usize = 8;
    const MANY_REGISTERS: bool = false;
    type F = __m256;

    #[inline(always)]
    fn enter<K: Kernel>(self, kernel: K) -> K::Out {
        // SAFETY: `self` exists only where the machine has these instructions.
        unsafe { enter(kernel) }
    }

    super::methods! {
        fn splat(self, x: f32) -> __m256 = _mm256_set1_ps(x);
        fn add(self, a: __m256, b: __m256) -> __m256 = _mm256_add_ps(a, b);
        fn sub(self, a: __m256, b: __m256) -> __m256 = _mm256_sub_ps(a, b);
        fn mul(self, a: __m256, b: __m256) -> __m256 = _mm256_mul_ps(a, b);
        fn div(self, a: __m256, b: __m256) -> __m256 = _mm256_div_ps(a, b);
        fn fma(self, a: __m256, b: __m256, c: __m256) -> __m256 = _mm256_fmadd_ps(a, b, c);
        fn max(self, a: __m256, b: __m256) -> __m256 = _mm256_max_ps(a, b);
        fn abs(self, a: __m256) -> __m256 = _mm256_andnot_ps(_mm256_set1_ps(-0.0), a);
        fn where_less(self, a: __m256, b: __m256, yes: __m256, no: __m256) -> __m256 =
            _mm256_blendv_ps(no, yes, _mm256_cmp_ps::<_CMP_LT_OQ>(a, b));
        fn where_lane(self, from: usize, to: usize, yes: __m256, no: __m256) -> __m256 =
            _mm256_blendv_ps(no, yes, lanes(from, to));
        fn round(self, a: __m256) -> __m256 =
            _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a);
        fn scale2(self, a: __m256, n: __m256) -> __m256 = scale2(a, n);
        fn sum(self, a: __m256) -> f32 = sum(a);
        fn max_lane(self, a: __m256) -> f32 = max_lane(a);
        fn prefetch(self, p: *const u8) -> () = _mm_prefetch::<_MM_HINT_T1>(p.cast());
        fn prefetch_near(self, p: *const u8) -> () = _mm_prefetch::<_MM_HINT_T0>(p.cast());
    }

    super::pointer_methods! {
        fn load(self, p: *const f32) -> __m256 = _mm256_loadu_ps(p);
        fn load_first(self, p: *const f32, n: usize) -> __m256 = _mm256_maskload_ps(p, first(n));
        fn store(self, p: *mut f32, a: __m256) -> () = _mm256_storeu_ps(p, a);
        fn store_first(self, p: *mut f32, n: usize, a: __m256) -> () = _mm256_maskstore_ps(p, first(n), a);
        fn load_f16(self, p: *const u16) -> __m256 = _mm256_cvtph_ps(_mm_loadu_si128(p.cast()));
        fn load_bf16(self, p: *const u16) -> __m256 =
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast()))));
        fn store_f16(self, p: *mut u16, a: __m256) -> () =
            _mm_storeu_si128(p.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(a));
        fn load_i8(self, p: *const i8) -> __m256 =
            _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(p.cast())));
        fn lookup(self, table: &[f32; 16], p: *const u8) -> __m256 = lookup(table, p);
    }
}
