//! AVX-512, without and with VNNI: sixteen rows a vector.

use std::arch::x86_64::*;

use super::{Bf16Products, ByteDot, ByteProducts, Simd, operations};

/// 512-bit vectors; with `VNNI`, products of 16-bit pairs are added in one instruction instead of two.
pub(crate) struct Avx512<const VNNI: bool>;

/// `a | (b & c)` as a truth table: bit `4 a + 2 b + c`.
const OR_AND: i32 = 0b1111_1000;

impl<const VNNI: bool> Simd for Avx512<VNNI> {
    const LANES: usize = 16;
    type Int = __m512i;
    type Float = __m512;
    type Sum = __m512i;

    operations! {
        fn load(from: *const u8) -> __m512i { _mm512_loadu_si512(from.cast()) }
        fn load_i8(from: *const u8) -> __m512i { _mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast())) }
        fn load_u8(from: *const u8) -> __m512i { _mm512_cvtepu8_epi32(_mm_loadu_si128(from.cast())) }
        fn store(to: *mut u8, a: __m512i) -> () { _mm512_storeu_si512(to.cast(), a) }
        fn splat16(value: i16) -> __m512i { _mm512_set1_epi16(value) }
        fn splat32(value: i32) -> __m512i { _mm512_set1_epi32(value) }
        fn splat_pair(from: *const i16) -> __m512i { _mm512_set1_epi32(from.cast::<i32>().read_unaligned()) }
        fn and(a: __m512i, b: __m512i) -> __m512i { _mm512_and_si512(a, b) }
        fn or(a: __m512i, b: __m512i) -> __m512i { _mm512_or_si512(a, b) }
        fn or_and(a: __m512i, b: __m512i, c: __m512i) -> __m512i { _mm512_ternarylogic_epi32::<OR_AND>(a, b, c) }
        fn sub8(a: __m512i, b: __m512i) -> __m512i { _mm512_sub_epi8(a, b) }
        fn sub16(a: __m512i, b: __m512i) -> __m512i { _mm512_sub_epi16(a, b) }
        fn shr16(a: __m512i, count: usize) -> __m512i { _mm512_srl_epi16(a, _mm_cvtsi32_si128(count as i32)) }
        fn shl16(a: __m512i, count: usize) -> __m512i { _mm512_sll_epi16(a, _mm_cvtsi32_si128(count as i32)) }
        fn shr32(a: __m512i, count: usize) -> __m512i { _mm512_srl_epi32(a, _mm_cvtsi32_si128(count as i32)) }
        fn shl32(a: __m512i, count: usize) -> __m512i { _mm512_sll_epi32(a, _mm_cvtsi32_si128(count as i32)) }
        fn mul16(a: __m512i, b: __m512i) -> __m512i { _mm512_mullo_epi16(a, b) }
        fn mul32(a: __m512i, b: __m512i) -> __m512i { _mm512_mullo_epi32(a, b) }
        fn add32(a: __m512i, b: __m512i) -> __m512i { _mm512_add_epi32(a, b) }
        fn sub32(a: __m512i, b: __m512i) -> __m512i { _mm512_sub_epi32(a, b) }
        fn max_u32(a: __m512i, b: __m512i) -> __m512i { _mm512_max_epu32(a, b) }
        fn largest_u32(a: __m512i) -> u32 { _mm512_reduce_max_epu32(a) }
        fn sum_i32(a: __m512i) -> i32 { _mm512_reduce_add_epi32(a) }
        fn round(a: __m512) -> __m512i { _mm512_cvtps_epi32(a) }
        fn store_i16(to: *mut i16, a: __m512i) -> () { _mm256_storeu_si256(to.cast(), _mm512_cvtepi32_epi16(a)) }
        fn store_low_bytes(to: *mut u8, a: __m512i) -> () { _mm_storeu_si128(to.cast(), _mm512_cvtepi32_epi8(a)) }
        fn store_low_halves(to: *mut u8, a: __m512i) -> () { _mm256_storeu_si256(to.cast(), _mm512_cvtepi32_epi16(a)) }
        fn turn(from: *const *const u8, at: usize) -> [__m512i; 4] {
            // Row 4 j + i in quarter j of vector i; then within each quarter.
            let row = |i: usize| _mm_loadu_si128((*from.add(i)).add(at).cast());
            let quarters = |i: usize| {
                let half = |i: usize| _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(row(i)), row(i + 4));
                _mm512_inserti64x4::<1>(_mm512_castsi256_si512(half(i)), half(i + 8))
            };
            let (a, b, c, d) = (quarters(0), quarters(1), quarters(2), quarters(3));
            let (ab, ab_high) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
            let (cd, cd_high) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
            [
                _mm512_unpacklo_epi64(ab, cd),
                _mm512_unpackhi_epi64(ab, cd),
                _mm512_unpacklo_epi64(ab_high, cd_high),
                _mm512_unpackhi_epi64(ab_high, cd_high),
            ]
        }
        fn zero_sum() -> __m512i { _mm512_setzero_si512() }
        fn dot(sum: __m512i, a: __m512i, b: __m512i) -> __m512i {
            if VNNI {
                _mm512_dpwssd_epi32(sum, a, b)
            } else {
                _mm512_add_epi32(sum, _mm512_madd_epi16(a, b))
            }
        }
        fn join(a: __m512i, b: __m512i) -> __m512i { _mm512_add_epi32(a, b) }
        fn total(sum: __m512i) -> __m512i { sum }
        fn to_float(a: __m512i) -> __m512 { _mm512_cvtepi32_ps(a) }
        fn as_float(a: __m512i) -> __m512 { _mm512_castsi512_ps(a) }
        fn load_f32(from: *const f32) -> __m512 { _mm512_loadu_ps(from) }
        fn load_f16(from: *const u8) -> __m512 { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
        fn store_f32(to: *mut f32, a: __m512) -> () { _mm512_storeu_ps(to, a) }
        fn splat_f32(value: f32) -> __m512 { _mm512_set1_ps(value) }
        fn add(a: __m512, b: __m512) -> __m512 { _mm512_add_ps(a, b) }
        fn mul(a: __m512, b: __m512) -> __m512 { _mm512_mul_ps(a, b) }
        fn fma(a: __m512, b: __m512, c: __m512) -> __m512 { _mm512_fmadd_ps(a, b, c) }
        fn fnma(a: __m512, b: __m512, c: __m512) -> __m512 { _mm512_fnmadd_ps(a, b, c) }
        fn prefetch(from: *const u8) -> () { _mm_prefetch::<_MM_HINT_T1>(from.cast()) }
        fn prefetch_near(from: *const u8) -> () { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
    }
}

impl ByteDot for Avx512<true> {
    operations! {
        fn dot_bytes(sum: __m512i, a: __m512i, b: __m512i) -> __m512i { _mm512_dpbusd_epi32(sum, a, b) }
    }
}

impl<const VNNI: bool> ByteProducts for Avx512<VNNI> {
    const BIAS: i32 = 128;
    const CHAINS: usize = 2;

    #[inline(always)]
    unsafe fn sums_from(from: *const i32) -> __m512i {
        // SAFETY: the caller promises the instructions and 16 integers.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn dot_signed<const SMALL: bool>(sum: __m512i, weights: __m512i, x: __m512i) -> __m512i {
        // SAFETY: the caller promises the instructions.
        unsafe { unsigned_by_signed::<VNNI, SMALL>(sum, x, weights) }
    }

    #[inline(always)]
    unsafe fn dot_unsigned<const SMALL: bool>(sum: __m512i, weights: __m512i, x: __m512i) -> __m512i {
        // SAFETY: the caller promises the instructions.
        unsafe { unsigned_by_signed::<VNNI, SMALL>(sum, weights, x) }
    }
}

/// Adds the products of the unsigned bytes of `a` and the signed ones of `b`; without VNNI by way of 16 bits, where
/// large ones would saturate and are widened first.
///
/// # Safety
/// The machine has the instructions.
#[inline(always)]
unsafe fn unsigned_by_signed<const VNNI: bool, const SMALL: bool>(
    sum: __m512i,
    a: __m512i,
    b: __m512i,
) -> __m512i {
    // SAFETY: by the contract.
    unsafe {
        if VNNI {
            _mm512_dpbusd_epi32(sum, a, b)
        } else if SMALL {
            let pairs = _mm512_madd_epi16(_mm512_maddubs_epi16(a, b), _mm512_set1_epi16(1));
            _mm512_add_epi32(sum, pairs)
        } else {
            let even = _mm512_madd_epi16(
                _mm512_and_si512(a, _mm512_set1_epi16(0xff)),
                _mm512_srai_epi16::<8>(_mm512_slli_epi16::<8>(b)),
            );
            let odd = _mm512_madd_epi16(_mm512_srli_epi16::<8>(a), _mm512_srai_epi16::<8>(b));
            _mm512_add_epi32(_mm512_add_epi32(sum, even), odd)
        }
    }
}

/// AVX-512 with its bf16 dot products.
pub(crate) type Avx512Bf16 = Avx512<true>;

impl Bf16Products for Avx512Bf16 {
    operations! {
        fn dot_bf16(sum: __m512, a: __m512i, b: __m512i) -> __m512 {
            _mm512_dpbf16_ps(sum, std::mem::transmute::<__m512i, __m512bh>(a), std::mem::transmute::<__m512i, __m512bh>(b))
        }
    }
}
