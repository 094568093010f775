//! Fields of words that are a vector's lanes, each of a row: taken apart and put together anew.

use super::Rows;
use crate::layout::{GROUP, LINE};
use crate::simd::Simd;

/// Nibbles, and fields of one and two bits, of a word's four bytes.
pub(super) const LOW: u32 = 0x0f0f_0f0f;
const ONE: u32 = 0x0101_0101;
pub(super) const TWO: u32 = 0x0303_0303;
/// Bits that are all ones in an f16 that is no number.
pub(super) const HALF: u32 = 0x7c00;

/// Some bits of the halves of a word, whichever of them are more.
///
/// # Safety
/// The machine has the instructions.
#[inline(always)]
pub(super) unsafe fn larger_half<S: Simd>(word: S::Int, bits: u32) -> S::Int {
    // SAFETY: by the contract.
    unsafe {
        let bits = S::splat32(bits as i32);
        S::max_u32(S::and(word, bits), S::and(S::shr32(word, 16), bits))
    }
}

/// Writes the lower halves of the rows from `lane` on, and the upper ones behind all sixteen.
///
/// # Safety
/// The machine has the instructions, `out` is good for a line.
#[inline(always)]
pub(super) unsafe fn put_halves<S: Simd>(out: *mut u8, lane: usize, word: S::Int) {
    // SAFETY: by the contract.
    unsafe {
        S::store_low_halves(out.add(2 * lane), word);
        S::store_low_halves(out.add(2 * (GROUP + lane)), S::shr32(word, 16));
    }
}

/// Writes one scale of each row from `lane` on, the lower half of a word; returns its exponent.
///
/// # Safety
/// As for [`Block`](super::formats::Block).
#[inline(always)]
pub(super) unsafe fn put_scale<S: Simd>(out: *mut u8, lane: usize, word: S::Int) -> S::Int {
    // SAFETY: by the contract.
    unsafe {
        S::store_low_halves(out.add(2 * lane), word);
        S::and(word, S::splat32(HALF as i32))
    }
}

/// The same for a scale and a min, both halves of a word.
///
/// # Safety
/// As for [`Block`](super::formats::Block).
#[inline(always)]
pub(super) unsafe fn put_scale_and_min<S: Simd>(out: *mut u8, lane: usize, word: S::Int) -> S::Int {
    // SAFETY: by the contract.
    unsafe {
        put_halves::<S>(out, lane, word);
        larger_half::<S>(word, HALF)
    }
}

/// Eight words of each row from `lane` on.
///
/// # Safety
/// As for [`Rows::words`], of 32 bytes.
#[inline(always)]
pub(super) unsafe fn eight_words<S: Simd>(rows: Rows<'_>, at: usize, lane: usize) -> [S::Int; 8] {
    // SAFETY: by the contract.
    unsafe {
        let [a, b, c, d] = rows.words::<S>(at, lane);
        let [e, f, g, h] = rows.words::<S>(at + 16, lane);
        [a, b, c, d, e, f, g, h]
    }
}

/// Words whose low nibbles are four weights each and whose high nibbles are as many behind all of those: `PAIRS` lines of either.
///
/// # Safety
/// As for [`Block`](super::formats::Block); there are two words a pair, and `plane` is good for the lines.
#[inline(always)]
pub(super) unsafe fn nibbles<S: Simd, const PAIRS: usize>(words: &[S::Int], lane: usize, plane: *mut u8) {
    // SAFETY: by the contract.
    unsafe { nibbles_apart::<S, PAIRS>(words, lane, plane, plane.add(PAIRS * LINE)) }
}

/// The same, the lines of the high nibbles elsewhere.
///
/// # Safety
/// As for [`nibbles`].
#[inline(always)]
pub(super) unsafe fn nibbles_apart<S: Simd, const PAIRS: usize>(
    words: &[S::Int],
    lane: usize,
    low_lines: *mut u8,
    high_lines: *mut u8,
) {
    // SAFETY: by the contract.
    unsafe {
        let (low, high) = (S::splat32(LOW as i32), S::splat32(!LOW as i32));
        for pair in 0..PAIRS {
            let (a, b) = (words[2 * pair], words[2 * pair + 1]);
            let at = pair * LINE + 4 * lane;
            S::store(low_lines.add(at), S::or_and(S::and(a, low), S::shl32(b, 4), high));
            S::store(high_lines.add(at), S::or_and(S::and(S::shr32(a, 4), low), b, high));
        }
    }
}

/// The nibbles of Q4_K and Q5_K, from byte `at` on: four runs of 64 weights.
///
/// # Safety
/// As for [`Superblock`](super::formats::Superblock).
#[inline(always)]
pub(super) unsafe fn k_nibbles<S: Simd>(rows: Rows<'_>, at: usize, lane: usize, plane: *mut u8) {
    for run in 0..4 {
        // SAFETY: by the contract.
        unsafe {
            let words = eight_words::<S>(rows, at + 32 * run, lane);
            nibbles::<S, 4>(&words, lane, plane.add(8 * LINE * run));
        }
    }
}

/// A word moved up by so many bits, or down.
///
/// # Safety
/// The machine has the instructions.
#[inline(always)]
unsafe fn moved<S: Simd>(word: S::Int, by: isize) -> S::Int {
    // SAFETY: by the contract.
    unsafe {
        match by {
            0 => word,
            1.. => S::shl32(word, by as usize),
            _ => S::shr32(word, -by as usize),
        }
    }
}

/// Bit `s` of byte `l` from `at` on belongs to weight `32 s + l`: eight lines.
///
/// # Safety
/// As for [`Superblock`](super::formats::Superblock).
#[inline(always)]
pub(super) unsafe fn one_bit<S: Simd>(rows: Rows<'_>, at: usize, lane: usize, plane: *mut u8) {
    // SAFETY: by the contract.
    unsafe {
        let words = eight_words::<S>(rows, at, lane);
        for s in 0..8 {
            let mut line = S::splat32(0);
            for (t, word) in words.iter().enumerate() {
                let there = moved::<S>(*word, t as isize - s as isize);
                line = S::or_and(line, there, S::splat32((ONE << t) as i32));
            }
            S::store(plane.add(s * LINE + 4 * lane), line);
        }
    }
}

/// Bits `2 s` and up of byte `l` from `at` on belong to weight `32 s + l`: eight lines.
///
/// # Safety
/// As for [`Superblock`](super::formats::Superblock).
#[inline(always)]
pub(super) unsafe fn two_bits<S: Simd>(rows: Rows<'_>, at: usize, lane: usize, plane: *mut u8) {
    for half in 0..2 {
        // SAFETY: by the contract.
        unsafe {
            let words = rows.words::<S>(at + 16 * half, lane);
            for s in 0..4 {
                let mut line = S::splat32(0);
                for (t, word) in words.iter().enumerate() {
                    let there = moved::<S>(*word, 2 * (t as isize - s as isize));
                    line = S::or_and(line, there, S::splat32((TWO << (2 * t)) as i32));
                }
                S::store(plane.add((2 * s + half) * LINE + 4 * lane), line);
            }
        }
    }
}

/// Byte `i` of a word gets its bits `i`, `i + 4`, … `i + 28`: the places of the bits, numbers of five bits, turned by two.
///
/// # Safety
/// The machine has the instructions.
#[inline(always)]
pub(super) unsafe fn every_fourth_bit<S: Simd>(mut word: S::Int) -> S::Int {
    // Twice the bits of even places to the lower half and those of odd ones to the upper: in neighbouring fields of two, four,
    // eight and sixteen bits, the inner halves change places.
    for _ in 0..2 {
        for (by, kept, inner) in [
            (1, 0x9999_9999_u32, 0x2222_2222_u32),
            (2, 0xc3c3_c3c3, 0x0c0c_0c0c),
            (4, 0xf00f_f00f, 0x00f0_00f0),
            (8, 0xff00_00ff, 0x0000_ff00),
        ] {
            // SAFETY: by the contract.
            unsafe {
                let stay = S::and(word, S::splat32(kept as i32));
                let down = S::or_and(stay, S::shr32(word, by), S::splat32(inner as i32));
                word = S::or_and(down, S::shl32(word, by), S::splat32((inner << by) as i32));
            }
        }
    }
    word
}

/// Sixteen bytes of each row from `at` on, `[byte][row]`.
///
/// # Safety
/// As for [`Superblock`](super::formats::Superblock); `out` is good for 16 bytes of each of 16 rows.
#[inline(always)]
pub(super) unsafe fn bytes<S: Simd>(rows: Rows<'_>, at: usize, lane: usize, out: *mut u8) {
    // SAFETY: by the contract.
    unsafe {
        for (i, word) in rows.words::<S>(at, lane).into_iter().enumerate() {
            for byte in 0..4 {
                S::store_low_bytes(out.add(GROUP * (4 * i + byte) + lane), S::shr32(word, 8 * byte));
            }
        }
    }
}

/// `d, m` and twelve bytes of scales and mins, with which Q4_K and Q5_K begin; returns the exponents of `d` and `m`.
///
/// # Safety
/// As for [`Superblock`](super::formats::Superblock).
#[inline(always)]
pub(super) unsafe fn k_scales<S: Simd>(rows: Rows<'_>, lane: usize, out: *mut u8) -> S::Int {
    // SAFETY: by the contract.
    unsafe {
        let [halves, a, b, c] = rows.words::<S>(0, lane);
        let (low, two) = (S::splat32(LOW as i32), S::splat32((TWO << 4) as i32));
        let six = S::splat32(0x3f3f_3f3f);
        // Scales 0 to 3 and 4 to 7, mins 0 to 3 and 4 to 7.
        let fields = [
            S::and(a, six),
            S::or_and(S::and(c, low), S::shr32(a, 2), two),
            S::and(b, six),
            S::or_and(S::and(S::shr32(c, 4), low), S::shr32(b, 2), two),
        ];
        six_bit::<S>(fields, out.add(4 * GROUP + 4 * lane));
        put_scale_and_min::<S>(out, lane, halves)
    }
}

/// Sixteen fields of six bits, a byte each, as the three words of [`six_bit`](crate::layout::six_bit).
///
/// # Safety
/// The machine has the instructions; `out` is good for three lines from its lane on.
#[inline(always)]
pub(super) unsafe fn six_bit<S: Simd>(fields: [S::Int; 4], out: *mut u8) {
    // SAFETY: by the contract.
    unsafe {
        let mut closed = fields; // up to 24 bits
        for (closed, x) in closed.iter_mut().zip(fields) {
            let mut bits = S::and(x, S::splat32(0x3f));
            for byte in 1..4 {
                let mask = S::splat32(0x3f << (6 * byte));
                bits = S::or_and(bits, S::shr32(x, 2 * byte), mask);
            }
            *closed = bits;
        }
        let [a, b, c, d] = closed;
        let words = [
            S::or(a, S::shl32(S::and(b, S::splat32(0x3f)), 24)),
            S::or(S::shr32(b, 6), S::shl32(S::and(c, S::splat32(0xfff)), 18)),
            S::or(S::shr32(c, 12), S::shl32(S::and(d, S::splat32(0x3_ffff)), 12)),
        ];
        for (i, word) in words.into_iter().enumerate() {
            // The sixteenth, two bits a word.
            let last = S::shl32(S::shr32(d, 18 + 2 * i), 30);
            S::store(out.add(LINE * i), S::or(word, last));
        }
    }
}
