//! AVX2 with FMA and F16C: eight rows a vector.

use std::arch::x86_64::*;

use super::{ByteProducts, Simd, operations};

/// 256-bit vectors.
pub(crate) struct Avx2;

impl Simd for Avx2 {
    const LANES: usize = 8;
    type Int = __m256i;
    type Float = __m256;
    type Sum = __m256i;

    operations! {
        fn load(from: *const u8) -> __m256i { _mm256_loadu_si256(from.cast()) }
        fn load_i8(from: *const u8) -> __m256i { _mm256_cvtepi8_epi32(_mm_loadl_epi64(from.cast())) }
        fn load_u8(from: *const u8) -> __m256i { _mm256_cvtepu8_epi32(_mm_loadl_epi64(from.cast())) }
        fn store(to: *mut u8, a: __m256i) -> () { _mm256_storeu_si256(to.cast(), a) }
        fn splat16(value: i16) -> __m256i { _mm256_set1_epi16(value) }
        fn splat32(value: i32) -> __m256i { _mm256_set1_epi32(value) }
        fn splat_pair(from: *const i16) -> __m256i { _mm256_set1_epi32(from.cast::<i32>().read_unaligned()) }
        fn and(a: __m256i, b: __m256i) -> __m256i { _mm256_and_si256(a, b) }
        fn or(a: __m256i, b: __m256i) -> __m256i { _mm256_or_si256(a, b) }
        fn or_and(a: __m256i, b: __m256i, c: __m256i) -> __m256i { _mm256_or_si256(a, _mm256_and_si256(b, c)) }
        fn sub8(a: __m256i, b: __m256i) -> __m256i { _mm256_sub_epi8(a, b) }
        fn sub16(a: __m256i, b: __m256i) -> __m256i { _mm256_sub_epi16(a, b) }
        fn shr16(a: __m256i, count: usize) -> __m256i { _mm256_srl_epi16(a, _mm_cvtsi32_si128(count as i32)) }
        fn shl16(a: __m256i, count: usize) -> __m256i { _mm256_sll_epi16(a, _mm_cvtsi32_si128(count as i32)) }
        fn shr32(a: __m256i, count: usize) -> __m256i { _mm256_srl_epi32(a, _mm_cvtsi32_si128(count as i32)) }
        fn shl32(a: __m256i, count: usize) -> __m256i { _mm256_sll_epi32(a, _mm_cvtsi32_si128(count as i32)) }
        fn mul16(a: __m256i, b: __m256i) -> __m256i { _mm256_mullo_epi16(a, b) }
        fn mul32(a: __m256i, b: __m256i) -> __m256i { _mm256_mullo_epi32(a, b) }
        fn add32(a: __m256i, b: __m256i) -> __m256i { _mm256_add_epi32(a, b) }
        fn sub32(a: __m256i, b: __m256i) -> __m256i { _mm256_sub_epi32(a, b) }
        fn max_u32(a: __m256i, b: __m256i) -> __m256i { _mm256_max_epu32(a, b) }
        fn largest_u32(a: __m256i) -> u32 {
            let a = _mm_max_epu32(_mm256_castsi256_si128(a), _mm256_extracti128_si256::<1>(a));
            let a = _mm_max_epu32(a, _mm_shuffle_epi32::<0b01_00_11_10>(a));
            _mm_cvtsi128_si32(_mm_max_epu32(a, _mm_shuffle_epi32::<0b10_11_00_01>(a))) as u32
        }
        fn sum_i32(a: __m256i) -> i32 {
            let a = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256::<1>(a));
            let a = _mm_add_epi32(a, _mm_shuffle_epi32::<0b01_00_11_10>(a));
            _mm_cvtsi128_si32(_mm_add_epi32(a, _mm_shuffle_epi32::<0b10_11_00_01>(a)))
        }
        fn round(a: __m256) -> __m256i { _mm256_cvtps_epi32(a) }
        fn store_i16(to: *mut i16, a: __m256i) -> () {
            _mm_storeu_si128(
                to.cast(),
                _mm_packs_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256::<1>(a)),
            )
        }
        fn store_low_bytes(to: *mut u8, a: __m256i) -> () {
            let low = _mm256_and_si256(a, _mm256_set1_epi32(0xff)); // packing saturates
            let words = _mm_packs_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256::<1>(low));
            _mm_storel_epi64(to.cast(), _mm_packus_epi16(words, words))
        }
        fn store_low_halves(to: *mut u8, a: __m256i) -> () {
            let halves = _mm256_set1_epi64x(0x0d0c_0908_0504_0100);
            let low = _mm256_permute4x64_epi64::<0b10_00>(_mm256_shuffle_epi8(a, halves));
            _mm_storeu_si128(to.cast(), _mm256_castsi256_si128(low))
        }
        fn turn(from: *const *const u8, at: usize) -> [__m256i; 4] {
            // Rows i and i + 4 in vector i; then within each half.
            let row = |i: usize| _mm_loadu_si128((*from.add(i)).add(at).cast());
            let halves = |i: usize| _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(row(i)), row(i + 4));
            let (a, b, c, d) = (halves(0), halves(1), halves(2), halves(3));
            let (ab, ab_high) = (_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
            let (cd, cd_high) = (_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
            [
                _mm256_unpacklo_epi64(ab, cd),
                _mm256_unpackhi_epi64(ab, cd),
                _mm256_unpacklo_epi64(ab_high, cd_high),
                _mm256_unpackhi_epi64(ab_high, cd_high),
            ]
        }
        fn zero_sum() -> __m256i { _mm256_setzero_si256() }
        fn dot(sum: __m256i, a: __m256i, b: __m256i) -> __m256i { _mm256_add_epi32(sum, _mm256_madd_epi16(a, b)) }
        fn join(a: __m256i, b: __m256i) -> __m256i { _mm256_add_epi32(a, b) }
        fn total(sum: __m256i) -> __m256i { sum }
        fn to_float(a: __m256i) -> __m256 { _mm256_cvtepi32_ps(a) }
        fn as_float(a: __m256i) -> __m256 { _mm256_castsi256_ps(a) }
        fn load_f32(from: *const f32) -> __m256 { _mm256_loadu_ps(from) }
        fn load_f16(from: *const u8) -> __m256 { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
        fn store_f32(to: *mut f32, a: __m256) -> () { _mm256_storeu_ps(to, a) }
        fn splat_f32(value: f32) -> __m256 { _mm256_set1_ps(value) }
        fn add(a: __m256, b: __m256) -> __m256 { _mm256_add_ps(a, b) }
        fn mul(a: __m256, b: __m256) -> __m256 { _mm256_mul_ps(a, b) }
        fn fma(a: __m256, b: __m256, c: __m256) -> __m256 { _mm256_fmadd_ps(a, b, c) }
        fn fnma(a: __m256, b: __m256, c: __m256) -> __m256 { _mm256_fnmadd_ps(a, b, c) }
        fn prefetch(from: *const u8) -> () { _mm_prefetch::<_MM_HINT_T1>(from.cast()) }
        fn prefetch_near(from: *const u8) -> () { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
    }
}

impl ByteProducts for Avx2 {
    const BIAS: i32 = 128;
    const CHAINS: usize = 1;

    #[inline(always)]
    unsafe fn sums_from(from: *const i32) -> __m256i {
        // SAFETY: the caller promises the instructions and 8 integers.
        unsafe { _mm256_loadu_si256(from.cast()) }
    }

    #[inline(always)]
    unsafe fn dot_signed<const SMALL: bool>(sum: __m256i, weights: __m256i, x: __m256i) -> __m256i {
        // SAFETY: the caller promises the instructions.
        unsafe { unsigned_by_signed::<SMALL>(sum, x, weights) }
    }

    #[inline(always)]
    unsafe fn dot_unsigned<const SMALL: bool>(sum: __m256i, weights: __m256i, x: __m256i) -> __m256i {
        // SAFETY: the caller promises the instructions.
        unsafe { unsigned_by_signed::<SMALL>(sum, weights, x) }
    }
}

/// Adds the products of the unsigned bytes of `a` and the signed ones of `b` by way of 16 bits, where large ones
/// would saturate and are widened first.
///
/// # Safety
/// The machine has the instructions.
#[inline(always)]
unsafe fn unsigned_by_signed<const SMALL: bool>(sum: __m256i, a: __m256i, b: __m256i) -> __m256i {
    // SAFETY: by the contract.
    unsafe {
        if SMALL {
            let pairs = _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), _mm256_set1_epi16(1));
            _mm256_add_epi32(sum, pairs)
        } else {
            let even = _mm256_madd_epi16(
                _mm256_and_si256(a, _mm256_set1_epi16(0xff)),
                _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(b)),
            );
            let odd = _mm256_madd_epi16(_mm256_srli_epi16::<8>(a), _mm256_srai_epi16::<8>(b));
            _mm256_add_epi32(_mm256_add_epi32(sum, even), odd)
        }
    }
}
