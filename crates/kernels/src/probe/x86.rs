//! The loops of x86-64: AVX2 and AVX-512.
#![allow(unsafe_code)]

use std::arch::asm;
use std::arch::x86_64::*;
use std::hint::black_box;

use super::arithmetic::{Arithmetic, Chain};
use super::stream::{LINES_PER_TURN, Line, Loop, ReadLoop, WriteLoop};

/// How far a software prefetch runs ahead, in lines: 4 KiB.
const AHEAD: usize = 64;
/// Lines a stream advances at a time.
const STEP: usize = 4;

/// On a two-core EPYC 9004 guest with pages of 4 KiB one thread reads 19 GB/s as one stream and 29 GB/s as four or more
/// (each page border stops a stream's hardware prefetcher); with pages of 2 MiB one stream is fastest, 35 GB/s. Which
/// pages there are is not ours to say, so all of these are tried.
pub(super) fn read_loops() -> Option<Vec<ReadLoop>> {
    if is_x86_feature_detected!("avx512f") {
        return Some(vec![
            // SAFETY: avx512f was just detected.
            Loop { name: "zmm load, 1 stream", run: |l| unsafe { read_avx512::<1, false>(l) } },
            // SAFETY: avx512f was just detected.
            Loop { name: "zmm load, 1 stream, prefetch", run: |l| unsafe { read_avx512::<1, true>(l) } },
            // SAFETY: avx512f was just detected.
            Loop { name: "zmm load, 4 streams", run: |l| unsafe { read_avx512::<4, false>(l) } },
            // SAFETY: avx512f was just detected.
            Loop { name: "zmm load, 8 streams, prefetch", run: |l| unsafe { read_avx512::<8, true>(l) } },
        ]);
    }
    if is_x86_feature_detected!("avx2") {
        return Some(vec![
            // SAFETY: avx2 was just detected.
            Loop { name: "ymm load, 1 stream", run: |l| unsafe { read_avx2::<1, false>(l) } },
            // SAFETY: avx2 was just detected.
            Loop { name: "ymm load, 1 stream, prefetch", run: |l| unsafe { read_avx2::<1, true>(l) } },
            // SAFETY: avx2 was just detected.
            Loop { name: "ymm load, 4 streams", run: |l| unsafe { read_avx2::<4, false>(l) } },
            // SAFETY: avx2 was just detected.
            Loop { name: "ymm load, 8 streams, prefetch", run: |l| unsafe { read_avx2::<8, true>(l) } },
        ]);
    }
    None
}

pub(super) fn write_loop() -> Option<WriteLoop> {
    if is_x86_feature_detected!("avx512f") {
        // SAFETY: avx512f was just detected.
        return Some(Loop { name: "zmm stream store", run: |l, v| unsafe { write_avx512(l, v) } });
    }
    if is_x86_feature_detected!("avx2") {
        // SAFETY: avx2 was just detected.
        return Some(Loop { name: "ymm stream store", run: |l, v| unsafe { write_avx2(l, v) } });
    }
    None
}

pub(super) fn chain(kind: Arithmetic) -> Option<Chain> {
    let avx512 = is_x86_feature_detected!("avx512f");
    let vnni = avx512 && is_x86_feature_detected!("avx512vnni");
    let avx2 = is_x86_feature_detected!("avx2");
    let chain = |name, chains: usize, lanes: u64, run| {
        Some(Chain { name, operations: 2 * chains as u64 * lanes, run })
    };
    match kind {
        Arithmetic::F32 if avx512 => {
            // SAFETY: avx512f was just detected.
            chain("vfmadd zmm", WIDE, 16, |n| unsafe { f32_avx512(n) })
        }
        Arithmetic::F32 if avx2 && is_x86_feature_detected!("fma") => {
            // SAFETY: avx2 and fma were just detected.
            chain("vfmadd ymm", NARROW, 8, |n| unsafe { f32_avx2(n) })
        }
        Arithmetic::Bf16 if avx512 && is_x86_feature_detected!("avx512bf16") => {
            // SAFETY: avx512f and avx512bf16 were just detected.
            chain("vdpbf16ps zmm", WIDE, 32, |n| unsafe { bf16_avx512(n) })
        }
        Arithmetic::Int16 if vnni => {
            // SAFETY: avx512f and avx512vnni were just detected.
            chain("vpdpwssd zmm", WIDE, 32, |n| unsafe { i16_vnni(n) })
        }
        Arithmetic::Int16 if avx2 => {
            // SAFETY: avx2 was just detected.
            chain("vpmaddwd + vpaddd ymm", NARROW, 16, |n| unsafe { i16_avx2(n) })
        }
        Arithmetic::Int8 if vnni => {
            // SAFETY: avx512f and avx512vnni were just detected.
            chain("vpdpbusd zmm", WIDE, 64, |n| unsafe { i8_vnni(n) })
        }
        Arithmetic::Int8 if avx2 => {
            // SAFETY: avx2 was just detected.
            chain("vpmaddubsw + vpmaddwd + vpaddd ymm", NARROW, 32, |n| unsafe { i8_avx2(n) })
        }
        _ => None,
    }
}

/// Lines of each of `STREAMS` equal parts of a buffer, walked over side by side.
fn stream_len<const STREAMS: usize>(lines: &[Line]) -> usize {
    debug_assert!(
        lines.len().is_multiple_of(LINES_PER_TURN) && LINES_PER_TURN.is_multiple_of(STEP * STREAMS)
    );
    lines.len() / STREAMS / STEP * STEP
}

#[target_feature(enable = "avx512f")]
fn read_avx512<const STREAMS: usize, const PREFETCH: bool>(lines: &[Line]) -> u64 {
    let len = stream_len::<STREAMS>(lines);
    let mut seen = [_mm512_setzero_si512(); STEP];
    let base = lines.as_ptr();
    for i in (0..len).step_by(STEP) {
        for stream in 0..STREAMS {
            for (j, seen) in seen.iter_mut().enumerate() {
                let at = stream * len + i + j;
                if PREFETCH {
                    _mm_prefetch::<_MM_HINT_T0>(base.wrapping_add(at + AHEAD).cast());
                }
                // SAFETY: at < STREAMS · len ≤ lines.len(), and a Line is 64 bytes, aligned to 64.
                let line = unsafe { _mm512_load_si512(base.add(at).cast()) };
                *seen = _mm512_or_si512(*seen, line);
            }
        }
    }
    let all = seen.into_iter().fold(_mm512_setzero_si512(), |a, b| _mm512_or_si512(a, b));
    _mm512_reduce_or_epi64(all) as u64
}

#[target_feature(enable = "avx2")]
fn read_avx2<const STREAMS: usize, const PREFETCH: bool>(lines: &[Line]) -> u64 {
    let len = stream_len::<STREAMS>(lines);
    let mut seen = [_mm256_setzero_si256(); 2 * STEP];
    let base = lines.as_ptr();
    for i in (0..len).step_by(STEP) {
        for stream in 0..STREAMS {
            for (j, seen) in seen.as_chunks_mut::<2>().0.iter_mut().enumerate() {
                let at = stream * len + i + j;
                if PREFETCH {
                    _mm_prefetch::<_MM_HINT_T0>(base.wrapping_add(at + AHEAD).cast());
                }
                // SAFETY: at < STREAMS · len ≤ lines.len(), and a Line is two aligned 32-byte halves.
                let halves = unsafe {
                    let line = base.add(at).cast::<__m256i>();
                    [_mm256_load_si256(line), _mm256_load_si256(line.add(1))]
                };
                seen[0] = _mm256_or_si256(seen[0], halves[0]);
                seen[1] = _mm256_or_si256(seen[1], halves[1]);
            }
        }
    }
    let all = seen.into_iter().fold(_mm256_setzero_si256(), |a, b| _mm256_or_si256(a, b));
    let mut words = [0u64; 4];
    // SAFETY: `words` has room for 32 bytes; the store needs no alignment.
    unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), all) };
    words.iter().fold(0, |a, w| a | w)
}

#[target_feature(enable = "avx512f")]
fn write_avx512(lines: &mut [Line], value: u64) {
    let value = _mm512_set1_epi64(value as i64);
    for line in lines {
        // SAFETY: a Line is 64 bytes, aligned to 64, and borrowed mutably.
        unsafe { _mm512_stream_si512(std::ptr::from_mut(line).cast(), value) };
    }
    _mm_sfence();
}

#[target_feature(enable = "avx2")]
fn write_avx2(lines: &mut [Line], value: u64) {
    let value = _mm256_set1_epi64x(value as i64);
    for line in lines {
        let line = std::ptr::from_mut(line).cast::<__m256i>();
        // SAFETY: a Line is two halves of 32 bytes, aligned to 32, and borrowed mutably.
        unsafe {
            _mm256_stream_si256(line, value);
            _mm256_stream_si256(line.add(1), value);
        }
    }
    _mm_sfence();
}

/// Independent sums in flight: latency 4 to 5 cycles times two units, with 32 registers of 512 bits.
const WIDE: usize = 16;
/// The same with 16 registers of 256 bits.
const NARROW: usize = 12;

#[target_feature(enable = "avx512f")]
fn f32_avx512(iterations: u64) -> u64 {
    let (scale, step) = (black_box(_mm512_set1_ps(0.999)), black_box(_mm512_set1_ps(0.001)));
    let mut sums: [__m512; WIDE] = std::array::from_fn(|i| _mm512_set1_ps(black_box(i as f32)));
    for _ in 0..iterations {
        for s in &mut sums {
            *s = _mm512_fmadd_ps(*s, scale, step);
        }
    }
    let all = sums.into_iter().fold(_mm512_setzero_ps(), |a, b| _mm512_add_ps(a, b));
    u64::from(_mm512_reduce_add_ps(all).to_bits())
}

#[target_feature(enable = "avx2,fma")]
fn f32_avx2(iterations: u64) -> u64 {
    let (scale, step) = (black_box(_mm256_set1_ps(0.999)), black_box(_mm256_set1_ps(0.001)));
    let mut sums: [__m256; NARROW] = std::array::from_fn(|i| _mm256_set1_ps(black_box(i as f32)));
    for _ in 0..iterations {
        for s in &mut sums {
            *s = _mm256_fmadd_ps(*s, scale, step);
        }
    }
    let all = sums.into_iter().fold(_mm256_setzero_ps(), |a, b| _mm256_add_ps(a, b));
    let mut lanes = [0f32; 8];
    // SAFETY: `lanes` has room for 32 bytes; the store needs no alignment.
    unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), all) };
    u64::from(lanes.iter().sum::<f32>().to_bits())
}

#[target_feature(enable = "avx512f,avx512bf16")]
fn bf16_avx512(iterations: u64) -> u64 {
    let ones = black_box(_mm512_cvtne2ps_pbh(_mm512_set1_ps(0.5), _mm512_set1_ps(0.5)));
    let mut sums: [__m512; WIDE] = std::array::from_fn(|i| _mm512_set1_ps(black_box(i as f32)));
    for _ in 0..iterations {
        for s in &mut sums {
            *s = _mm512_dpbf16_ps(*s, ones, ones);
        }
    }
    let all = sums.into_iter().fold(_mm512_setzero_ps(), |a, b| _mm512_add_ps(a, b));
    u64::from(_mm512_reduce_add_ps(all).to_bits())
}

#[target_feature(enable = "avx512f,avx512vnni")]
fn i16_vnni(iterations: u64) -> u64 {
    let ones = black_box(_mm512_set1_epi32(0x0001_0001));
    let mut sums: [__m512i; WIDE] = std::array::from_fn(|i| _mm512_set1_epi32(black_box(i as i32)));
    for _ in 0..iterations {
        for s in &mut sums {
            *s = _mm512_dpwssd_epi32(*s, ones, ones);
        }
    }
    sum_avx512(sums)
}

#[target_feature(enable = "avx512f,avx512vnni")]
fn i8_vnni(iterations: u64) -> u64 {
    let ones = black_box(_mm512_set1_epi32(0x0101_0101));
    let mut sums: [__m512i; WIDE] = std::array::from_fn(|i| _mm512_set1_epi32(black_box(i as i32)));
    for _ in 0..iterations {
        for s in &mut sums {
            *s = _mm512_dpbusd_epi32(*s, ones, ones);
        }
    }
    sum_avx512(sums)
}

#[target_feature(enable = "avx512f")]
fn sum_avx512(sums: [__m512i; WIDE]) -> u64 {
    let all = sums.into_iter().fold(_mm512_setzero_si512(), |a, b| _mm512_add_epi32(a, b));
    _mm512_reduce_add_epi32(all) as u64
}

#[target_feature(enable = "avx2")]
fn i16_avx2(iterations: u64) -> u64 {
    let ones = _mm256_set1_epi16(black_box(1));
    let mut sums: [__m256i; NARROW] = std::array::from_fn(|i| _mm256_set1_epi32(black_box(i as i32)));
    for _ in 0..iterations {
        for s in &mut sums {
            *s = _mm256_add_epi32(*s, _mm256_madd_epi16(launder(ones), ones));
        }
    }
    sum_avx2(sums)
}

#[target_feature(enable = "avx2")]
fn i8_avx2(iterations: u64) -> u64 {
    let (bytes, words) = (_mm256_set1_epi8(black_box(1)), _mm256_set1_epi16(black_box(1)));
    let mut sums: [__m256i; NARROW] = std::array::from_fn(|i| _mm256_set1_epi32(black_box(i as i32)));
    for _ in 0..iterations {
        for s in &mut sums {
            let pairs = _mm256_maddubs_epi16(launder(bytes), bytes);
            *s = _mm256_add_epi32(*s, _mm256_madd_epi16(pairs, words));
        }
    }
    sum_avx2(sums)
}

/// A copy the compiler knows nothing about; otherwise it would multiply once, before the loop.
#[target_feature(enable = "avx2")]
#[inline]
fn launder(mut x: __m256i) -> __m256i {
    // SAFETY: no instruction; it only claims to change the register.
    unsafe { asm!("/* {0} */", inout(ymm_reg) x, options(nomem, nostack, preserves_flags, pure)) };
    x
}

#[target_feature(enable = "avx2")]
fn sum_avx2(sums: [__m256i; NARROW]) -> u64 {
    let all = sums.into_iter().fold(_mm256_setzero_si256(), |a, b| _mm256_add_epi32(a, b));
    let mut lanes = [0i32; 8];
    // SAFETY: `lanes` has room for 32 bytes; the store needs no alignment.
    unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), all) };
    lanes.iter().map(|&lane| lane as u64).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The narrower loops are not the ones this machine picks, so nothing else runs them here.
    #[test]
    fn avx2_loops_read_write_and_multiply() {
        if !(is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")) {
            println!("skipped: no AVX2 with FMA");
            return;
        }
        let mut lines = vec![Line([0; 8]); 2 * LINES_PER_TURN];
        for at in 0..lines.len() * 8 {
            lines[at / 8].0[at % 8] = 1 << (at % 64);
            // SAFETY: avx2 was just detected.
            let seen = unsafe {
                [read_avx2::<1, false>(&lines), read_avx2::<4, false>(&lines), read_avx2::<8, true>(&lines)]
            };
            assert_eq!(seen, [1 << (at % 64); 3], "word {at}");
            lines[at / 8].0[at % 8] = 0;
        }
        // SAFETY: avx2 was just detected.
        unsafe { write_avx2(&mut lines, 77) };
        assert!(lines.iter().all(|line| line.0 == [77; 8]));
        // SAFETY: avx2 and fma were just detected.
        let (i8, i16, f32) = unsafe {
            (i8_avx2(1001) - i8_avx2(1), i16_avx2(1001) - i16_avx2(1), f32_avx2(1001) != f32_avx2(1))
        };
        assert_eq!((i8, i16, f32), (1000 * NARROW as u64 * 32, 1000 * NARROW as u64 * 16, true));
    }
}
