//! Rows turned into lines: word `i` of 16 rows becomes line `i` of 16 words.
//!
//! A lane of a packed matrix is a row, so whatever a format does with the bits of a word it can do to 16 rows at once
//! when they are turned first, four rows at a time, so that they stay in registers; and the words of floats need
//! nothing but that. What it is worth to a start is in docs/kernels-log.md.
#![allow(clippy::needless_range_loop)] // lanes index several arrays at once, in unrolled loops

use crate::layout::{GROUP, LINE};

/// One word of each of four rows.
pub(crate) type Quad = [u32; 4];

/// The rows of a group, and those of the group after it, which are asked for while these are read: 16 rows of some hundred
/// bytes are as many streams in a few pages, of which the processor's own prefetchers follow none.
pub(crate) struct GroupRows<'f> {
    pub rows: [&'f [u8]; GROUP],
    pub next: [&'f [u8]; GROUP], // empty where there is none
}

impl<'f> GroupRows<'f> {
    /// The `BYTES` bytes from `at` on of each row; zeros where a row ends before.
    #[inline(always)]
    pub fn parts<const BYTES: usize>(&self, at: usize) -> [&'f [u8; BYTES]; GROUP] {
        let mut parts = [const { &[0; BYTES] }; GROUP];
        for lane in 0..GROUP {
            if let Some(part) = self.rows[lane].get(at..).and_then(|rest| rest.first_chunk()) {
                parts[lane] = part;
            }
            for line in (0..BYTES).step_by(LINE) {
                prefetch(self.next[lane].as_ptr().wrapping_add(at + line));
            }
        }
        parts
    }
}

/// Asks for the line at `at`, which may be anywhere, in the second-level cache.
#[inline(always)]
pub(crate) fn prefetch(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch of any address whatever is allowed and reads nothing.
    unsafe {
        core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T1 }>(at.cast())
    };
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Turns `WORDS` words, a multiple of four, from byte `at` on of the four rows from `lane` on.
#[inline(always)]
pub(crate) fn turn<const BYTES: usize, const WORDS: usize>(
    rows: &[&[u8; BYTES]; GROUP],
    at: usize,
    lane: usize,
) -> [Quad; WORDS] {
    let mut words = [[0; 4]; WORDS];
    for (i, words) in words.as_chunks_mut::<4>().0.iter_mut().enumerate() {
        *words = four_by_four(rows, at + 16 * i, lane);
    }
    words
}

/// Four words from byte `at` on of the four rows from `lane` on, turned.
#[inline(always)]
pub(crate) fn four_by_four<const BYTES: usize>(
    rows: &[&[u8; BYTES]; GROUP],
    at: usize,
    lane: usize,
) -> [Quad; 4] {
    let words = |row: &[u8; BYTES]| row[at..].first_chunk::<16>().copied().unwrap_or_default();
    turn4([words(rows[lane]), words(rows[lane + 1]), words(rows[lane + 2]), words(rows[lane + 3])])
}

/// Four words of four rows, turned.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn turn4(rows: [[u8; 16]; 4]) -> [[u32; 4]; 4] {
    use core::arch::x86_64::{
        __m128i, _mm_unpackhi_epi32, _mm_unpackhi_epi64, _mm_unpacklo_epi32, _mm_unpacklo_epi64,
    };
    // SAFETY: both are 64 bytes without padding in which any bits are valid; the instructions belong to every x86-64.
    unsafe {
        let [a, b, c, d]: [__m128i; 4] = std::mem::transmute(rows);
        let (ab, cd) = (_mm_unpacklo_epi32(a, b), _mm_unpacklo_epi32(c, d));
        let (ab_high, cd_high) = (_mm_unpackhi_epi32(a, b), _mm_unpackhi_epi32(c, d));
        std::mem::transmute([
            _mm_unpacklo_epi64(ab, cd),
            _mm_unpackhi_epi64(ab, cd),
            _mm_unpacklo_epi64(ab_high, cd_high),
            _mm_unpackhi_epi64(ab_high, cd_high),
        ])
    }
}

/// Four words of four rows, turned.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn turn4(rows: [[u8; 16]; 4]) -> [[u32; 4]; 4] {
    let word = |row: usize, i: usize| {
        let bytes = &rows[row];
        u32::from_le_bytes([bytes[4 * i], bytes[4 * i + 1], bytes[4 * i + 2], bytes[4 * i + 3]])
    };
    std::array::from_fn(|i| std::array::from_fn(|row| word(row, i)))
}

/// A function of two words of each row.
#[inline(always)]
pub(crate) fn both<const N: usize>(a: &[u32; N], b: &[u32; N], f: impl Fn(u32, u32) -> u32) -> [u32; N] {
    let mut out = [0; N];
    for lane in 0..N {
        out[lane] = f(a[lane], b[lane]);
    }
    out
}

/// A function of one word of each row. Loops: `array::map` and `from_fn` are not always unrolled.
#[inline(always)]
pub(crate) fn each(mut words: Quad, f: impl Fn(u32) -> u32) -> Quad {
    words.iter_mut().for_each(|word| *word = f(*word));
    words
}

/// Writes the words of the four rows from `lane` on of a line.
#[inline(always)]
pub(crate) fn put(out: &mut [u8; LINE], lane: usize, words: Quad) {
    let bytes = out[4 * lane..4 * lane + 16].as_chunks_mut::<4>().0;
    bytes.iter_mut().zip(words).for_each(|(out, word)| *out = word.to_le_bytes());
}

/// Writes their lower halves.
#[inline(always)]
pub(crate) fn put_halves(out: &mut [u8], lane: usize, words: Quad) {
    let bytes = out[2 * lane..2 * lane + 8].as_chunks_mut::<2>().0;
    bytes.iter_mut().zip(words).for_each(|(out, word)| *out = (word as u16).to_le_bytes());
}
