//! Floats: words of one or two of them, turned and written.
#![allow(clippy::needless_range_loop)] // words and lanes in unrolled loops

use super::Group;
use super::fields::{HALF, larger_half, put_halves};
use crate::layout::{GROUP, LINE};
use crate::simd::Simd;

/// How words of one or two floats are written.
///
/// # Safety
/// All methods: the machine has the instructions of `S`; `out` is good for a line from the row of the first lane on.
#[allow(clippy::missing_safety_doc)] // said once, above
pub(super) trait FloatWords {
    /// Bits that are all ones where a float is no number.
    const ONES: u32;
    /// Those bits of a word; of two floats the larger.
    unsafe fn exponent<S: Simd>(word: S::Int) -> S::Int;
    /// Writes a word of the rows from `lane` on.
    unsafe fn put<S: Simd>(out: *mut u8, lane: usize, word: S::Int);
}

pub(super) struct Words; // f32
pub(super) struct Pairs; // two bf16 beside each other
pub(super) struct Halves; // two f16, one line of 32 bytes each

impl FloatWords for Words {
    const ONES: u32 = 0x7f80_0000;

    #[inline(always)]
    unsafe fn exponent<S: Simd>(word: S::Int) -> S::Int {
        // SAFETY: by the contract.
        unsafe { S::and(word, S::splat32(Self::ONES as i32)) }
    }

    #[inline(always)]
    unsafe fn put<S: Simd>(out: *mut u8, lane: usize, word: S::Int) {
        // SAFETY: by the contract.
        unsafe { S::store(out.add(4 * lane), word) }
    }
}

impl FloatWords for Pairs {
    const ONES: u32 = 0x7f80;

    #[inline(always)]
    unsafe fn exponent<S: Simd>(word: S::Int) -> S::Int {
        // SAFETY: by the contract.
        unsafe { larger_half::<S>(word, Self::ONES) }
    }

    #[inline(always)]
    unsafe fn put<S: Simd>(out: *mut u8, lane: usize, word: S::Int) {
        // SAFETY: by the contract.
        unsafe { S::store(out.add(4 * lane), word) }
    }
}

impl FloatWords for Halves {
    const ONES: u32 = HALF;

    #[inline(always)]
    unsafe fn exponent<S: Simd>(word: S::Int) -> S::Int {
        // SAFETY: by the contract.
        unsafe { larger_half::<S>(word, HALF) }
    }

    #[inline(always)]
    unsafe fn put<S: Simd>(out: *mut u8, lane: usize, word: S::Int) {
        // SAFETY: by the contract.
        unsafe { put_halves::<S>(out, lane, word) }
    }
}

/// Writes the word at byte `at` of the rows from `lane` on; returns the largest exponent so far.
///
/// # Safety
/// As for [`pack_by`]; the rows have that byte.
#[inline(always)]
unsafe fn put_word<S: Simd, W: FloatWords>(
    out: *mut u8,
    at: usize,
    lane: usize,
    word: S::Int,
    worst: S::Int,
) -> S::Int {
    // SAFETY: by the contract; word `i` makes line `i`.
    unsafe {
        W::put::<S>(out.add(at / 4 * LINE), lane, word);
        S::max_u32(worst, W::exponent::<S>(word))
    }
}

/// # Safety
/// As for [`pack_by`].
#[inline(always)]
pub(super) unsafe fn floats<S: Simd, W: FloatWords>(group: &Group, out: *mut u8) -> bool {
    let fours = group.row_bytes / 16 * 16;
    // SAFETY: words lie inside the rows.
    unsafe {
        let mut worst = S::splat32(0);
        for first in (0..fours).step_by(LINE) {
            group.fetch::<S>(first, LINE);
            for lane in (0..GROUP).step_by(S::LANES) {
                for at in (first..fours.min(first + LINE)).step_by(16) {
                    let words = group.rows(at).words::<S>(0, lane);
                    for i in 0..4 {
                        worst = put_word::<S, W>(out, at + 4 * i, lane, words[i], worst);
                    }
                }
            }
        }
        for at in (fours..group.row_bytes).step_by(4) {
            let mut line = [0; GROUP];
            for (word, row) in line.iter_mut().zip(group.from) {
                *word = row.add(at).cast::<u32>().read_unaligned();
            }
            for lane in (0..GROUP).step_by(S::LANES) {
                let word = S::load(line.as_ptr().add(lane).cast());
                worst = put_word::<S, W>(out, at, lane, word, worst);
            }
        }
        S::largest_u32(worst) < W::ONES
    }
}
