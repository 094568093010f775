//! The quantized formats: where the fields of a file's block go.

use roofline_weights::Format;

use super::fields::{
    HALF, LOW, TWO, bytes, eight_words, every_fourth_bit, k_nibbles, k_scales, nibbles, nibbles_apart,
    one_bit, put_scale, put_scale_and_min, six_bit, two_bits,
};
use super::{Group, Rows};
use crate::layout::{BLOCK, GROUP, LINE, Layout, SUPER};
use crate::simd::Simd;

/// Where the parts of a block of 16 rows go.
#[derive(Clone, Copy)]
pub(super) struct Parts {
    scales: *mut u8,
    high: *mut u8, // plane
    low: *mut u8,  // plane
}

/// A format of blocks of 32.
///
/// # Safety
/// All methods: the machine has the instructions of `S`, the rows a block, and `to` is good for 16 of them.
#[allow(clippy::missing_safety_doc)] // said once, above
pub(super) trait Block {
    const FORMAT: Format;
    /// Packs a block of each row from `lane` on; returns the exponents of its scales.
    unsafe fn pack<S: Simd>(rows: Rows<'_>, lane: usize, to: Parts) -> S::Int;
}

/// # Safety
/// As for [`pack_by`].
#[inline(always)]
pub(super) unsafe fn blocks<S: Simd, B: Block>(group: &Group, out: *mut u8) -> bool {
    let (bytes, Some(layout)) = (B::FORMAT.block_bytes(), const { Layout::of(B::FORMAT) }) else {
        return false; // never, as no float format has blocks; its rows would be packed one by one
    };
    let (scale_bytes, high_bytes, low_bytes) =
        (layout.scale_bytes(1), layout.high_bytes(1), LINE * layout.low_bits);
    // SAFETY: blocks lie inside the rows, superblocks in the group.
    unsafe {
        let (mut worst, mut out, mut at) = (S::splat32(0), out, 0);
        for first in (0..group.cols).step_by(SUPER) {
            let count = SUPER.min(group.cols - first) / BLOCK;
            group.fetch::<S>(at, count * bytes);
            let high = out.add(count * scale_bytes);
            let low = high.add(count * high_bytes);
            for block in 0..count {
                let to = Parts {
                    scales: out.add(block * scale_bytes),
                    high: high.add(block * high_bytes),
                    low: low.add(block * low_bytes),
                };
                for lane in (0..GROUP).step_by(S::LANES) {
                    worst = S::max_u32(worst, B::pack::<S>(group.rows(at), lane, to));
                }
                at += bytes;
            }
            out = low.add(count * low_bytes);
        }
        S::largest_u32(worst) < HALF
    }
}

/// A format of blocks of 256.
///
/// # Safety
/// As for [`Block`].
#[allow(clippy::missing_safety_doc)] // said once, at Block
pub(super) trait Superblock {
    const FORMAT: Format;
    /// Packs a block of each row from `lane` on; returns the exponents of its scales.
    unsafe fn pack<S: Simd>(rows: Rows<'_>, lane: usize, to: Parts) -> S::Int;
}

/// # Safety
/// As for [`pack_by`].
#[inline(always)]
pub(super) unsafe fn superblocks<S: Simd, B: Superblock>(group: &Group, out: *mut u8) -> bool {
    let (bytes, Some(layout)) = (B::FORMAT.block_bytes(), const { Layout::of(B::FORMAT) }) else {
        return false; // never, as no float format has blocks; its rows would be packed one by one
    };
    let blocks = SUPER / BLOCK;
    // SAFETY: blocks lie inside the rows, and take as many bytes packed.
    unsafe {
        let mut worst = S::splat32(0);
        for i in 0..group.cols / SUPER {
            group.fetch::<S>(bytes * i, bytes);
            let scales = out.add(layout.super_bytes(blocks) * i);
            let high = scales.add(layout.scale_bytes(blocks));
            let to = Parts { scales, high, low: high.add(layout.high_bytes(blocks)) };
            for lane in (0..GROUP).step_by(S::LANES) {
                worst = S::max_u32(worst, B::pack::<S>(group.rows(bytes * i), lane, to));
            }
        }
        S::largest_u32(worst) < HALF
    }
}

#[allow(non_camel_case_types)] // the formats are called that
pub(super) struct Q8_0;
#[allow(non_camel_case_types)]
pub(super) struct Q4_0;
#[allow(non_camel_case_types)]
pub(super) struct Q4_1;
#[allow(non_camel_case_types)]
pub(super) struct Q5_0;
#[allow(non_camel_case_types)]
pub(super) struct Q5_1;
pub(super) struct Q2K;
pub(super) struct Q3K;
pub(super) struct Q4K;
pub(super) struct Q5K;
pub(super) struct Q6K;

impl Block for Q8_0 {
    const FORMAT: Format = Format::Q8_0;

    #[inline(always)]
    unsafe fn pack<S: Simd>(rows: Rows<'_>, lane: usize, to: Parts) -> S::Int {
        // SAFETY: by the contract.
        unsafe {
            for half in 0..2 {
                for (i, word) in rows.words::<S>(2 + 16 * half, lane).into_iter().enumerate() {
                    // Signed bytes become unsigned ones, 128 larger.
                    let word = S::sub8(word, S::splat32(0x8080_8080_u32 as i32));
                    S::store(to.low.add((4 * half + i) * LINE + 4 * lane), word);
                }
            }
            put_scale::<S>(to.scales, lane, rows.words::<S>(0, lane)[0])
        }
    }
}

impl Block for Q4_0 {
    const FORMAT: Format = Format::Q4_0;

    #[inline(always)]
    unsafe fn pack<S: Simd>(rows: Rows<'_>, lane: usize, to: Parts) -> S::Int {
        // SAFETY: by the contract.
        unsafe {
            nibbles::<S, 2>(&rows.words::<S>(2, lane), lane, to.low);
            put_scale::<S>(to.scales, lane, rows.words::<S>(0, lane)[0])
        }
    }
}

impl Block for Q4_1 {
    const FORMAT: Format = Format::Q4_1;

    #[inline(always)]
    unsafe fn pack<S: Simd>(rows: Rows<'_>, lane: usize, to: Parts) -> S::Int {
        // SAFETY: by the contract.
        unsafe {
            nibbles::<S, 2>(&rows.words::<S>(4, lane), lane, to.low);
            put_scale_and_min::<S>(to.scales, lane, rows.words::<S>(0, lane)[0])
        }
    }
}

impl Block for Q5_0 {
    const FORMAT: Format = Format::Q5_0;

    #[inline(always)]
    unsafe fn pack<S: Simd>(rows: Rows<'_>, lane: usize, to: Parts) -> S::Int {
        // SAFETY: by the contract.
        unsafe {
            let [first, second, ..] = rows.words::<S>(0, lane);
            let fifths = S::or(S::shr32(first, 16), S::shl32(second, 16));
            S::store(to.high.add(4 * lane), every_fourth_bit::<S>(fifths));
            nibbles::<S, 2>(&rows.words::<S>(6, lane), lane, to.low);
            put_scale::<S>(to.scales, lane, first)
        }
    }
}

impl Block for Q5_1 {
    const FORMAT: Format = Format::Q5_1;

    #[inline(always)]
    unsafe fn pack<S: Simd>(rows: Rows<'_>, lane: usize, to: Parts) -> S::Int {
        // SAFETY: by the contract.
        unsafe {
            let [first, fifths, ..] = rows.words::<S>(0, lane);
            S::store(to.high.add(4 * lane), every_fourth_bit::<S>(fifths));
            nibbles::<S, 2>(&rows.words::<S>(8, lane), lane, to.low);
            put_scale_and_min::<S>(to.scales, lane, first)
        }
    }
}

impl Superblock for Q2K {
    const FORMAT: Format = Format::Q2K;

    #[inline(always)]
    unsafe fn pack<S: Simd>(rows: Rows<'_>, lane: usize, to: Parts) -> S::Int {
        // SAFETY: by the contract.
        unsafe {
            bytes::<S>(rows, 0, lane, to.scales.add(4 * GROUP));
            for run in 0..2 {
                two_bits::<S>(rows, 16 + 32 * run, lane, to.low.add(8 * LINE * run));
            }
            put_scale_and_min::<S>(to.scales, lane, rows.words::<S>(68, lane)[3])
        }
    }
}

impl Superblock for Q3K {
    const FORMAT: Format = Format::Q3K;

    #[inline(always)]
    unsafe fn pack<S: Simd>(rows: Rows<'_>, lane: usize, to: Parts) -> S::Int {
        // SAFETY: by the contract.
        unsafe {
            one_bit::<S>(rows, 0, lane, to.high);
            for run in 0..2 {
                two_bits::<S>(rows, 32 + 32 * run, lane, to.low.add(8 * LINE * run));
            }
            // Twelve bytes of scales and d lie two bytes behind these words.
            let [w0, w1, w2, w3] = rows.words::<S>(94, lane);
            let behind = |a: S::Int, b: S::Int| S::or(S::shr32(a, 16), S::shl32(b, 16));
            let (a, b, c) = (behind(w0, w1), behind(w1, w2), behind(w2, w3));
            let (low, two) = (S::splat32(LOW as i32), S::splat32((TWO << 4) as i32));
            let fields = [
                S::or_and(S::and(a, low), S::shl32(c, 4), two),
                S::or_and(S::and(b, low), S::shl32(c, 2), two),
                S::or_and(S::and(S::shr32(a, 4), low), c, two),
                S::or_and(S::and(S::shr32(b, 4), low), S::shr32(c, 2), two),
            ];
            six_bit::<S>(fields, to.scales.add(2 * GROUP + 4 * lane));
            put_scale::<S>(to.scales, lane, S::shr32(w3, 16))
        }
    }
}

impl Superblock for Q4K {
    const FORMAT: Format = Format::Q4K;

    #[inline(always)]
    unsafe fn pack<S: Simd>(rows: Rows<'_>, lane: usize, to: Parts) -> S::Int {
        // SAFETY: by the contract.
        unsafe {
            k_nibbles::<S>(rows, 16, lane, to.low);
            k_scales::<S>(rows, lane, to.scales)
        }
    }
}

impl Superblock for Q5K {
    const FORMAT: Format = Format::Q5K;

    #[inline(always)]
    unsafe fn pack<S: Simd>(rows: Rows<'_>, lane: usize, to: Parts) -> S::Int {
        // SAFETY: by the contract.
        unsafe {
            one_bit::<S>(rows, 16, lane, to.high);
            k_nibbles::<S>(rows, 48, lane, to.low);
            k_scales::<S>(rows, lane, to.scales)
        }
    }
}

impl Superblock for Q6K {
    const FORMAT: Format = Format::Q6K;

    #[inline(always)]
    unsafe fn pack<S: Simd>(rows: Rows<'_>, lane: usize, to: Parts) -> S::Int {
        // SAFETY: by the contract.
        unsafe {
            for half in 0..2 {
                // Low nibbles are weights 0 to 31 and 32 to 63 of the half, high ones the 64 after them.
                for run in 0..2 {
                    let words = eight_words::<S>(rows, 64 * half + 32 * run, lane);
                    let low = to.low.add((16 * half + 4 * run) * LINE);
                    nibbles_apart::<S, 4>(&words, lane, low, low.add(8 * LINE));
                }
                two_bits::<S>(rows, 128 + 32 * half, lane, to.high.add(8 * LINE * half));
            }
            bytes::<S>(rows, 192, lane, to.scales.add(2 * GROUP));
            put_scale::<S>(to.scales, lane, S::shr32(rows.words::<S>(194, lane)[3], 16))
        }
    }
}
