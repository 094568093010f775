//! Packing 16 whole rows at once, in vectors whose lanes are rows. Groups that end a matrix are packed a row at a time
//! (`packing.rs`), which also says where a weight is that is no number; so is everything where there are no vectors.
//!
//! A file's row is turned sixteen bytes at a time: word `i` of all rows becomes one vector. Whatever a format does with the
//! bits of a word is then done to all rows at once. What it is worth to a start is in docs/kernels-log.md.

#![allow(clippy::needless_range_loop)] // words and lanes in unrolled loops

use roofline_weights::Format;

use crate::layout::{BLOCK, GROUP, LINE, Layout, SUPER, group_bytes};
use crate::simd::Simd;

/// Nibbles, and fields of one and two bits, of a word's four bytes.
const LOW: u32 = 0x0f0f_0f0f;
const ONE: u32 = 0x0101_0101;
const TWO: u32 = 0x0303_0303;
/// Bits that are all ones in an f16 that is no number.
const HALF: u32 = 0x7c00;

/// The rows of a group, and those of the group after it, which are asked for while these are read: 16 rows of some hundred
/// bytes are as many streams in a few pages, of which the processor's own prefetchers follow none.
pub(crate) struct GroupRows<'f> {
    pub rows: [&'f [u8]; GROUP],
    pub next: [&'f [u8]; GROUP], // empty where there is none
}

/// Packs 16 rows of `cols` weights as one group. `None` where they are left to another way; otherwise whether every
/// float weight and f16 scale is a number.
pub(crate) fn pack(format: Format, cols: usize, files: &GroupRows<'_>, out: &mut [u8]) -> Option<bool> {
    let row_bytes = format.bytes_of(cols)?;
    let words = format.block_len() > 1 || row_bytes.is_multiple_of(4);
    let fits = files.rows.iter().all(|row| row.len() == row_bytes) && group_bytes(format, cols)? == out.len();
    if !words || !fits {
        return None;
    }
    let group =
        Group { cols, row_bytes, from: files.rows.map(<[u8]>::as_ptr), next: files.next.map(<[u8]>::as_ptr) };
    let out = out.as_mut_ptr();
    #[cfg(target_arch = "x86_64")]
    {
        // Floats eight rows at a time: rows of a power of two of bytes fall into one set of the first-level cache, which
        // does not hold sixteen lines.
        let wide = format.block_len() > 1 && crate::isa::Isa::Avx512.is_available();
        if wide {
            // SAFETY: the machine has the instructions; the rows are as long as the format has them, and so is `out`.
            return Some(unsafe { pack_avx512(format, &group, out) });
        }
        if crate::isa::Isa::Avx2.is_available() {
            // SAFETY: as above.
            return Some(unsafe { pack_avx2(format, &group, out) });
        }
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above; every aarch64 machine has them.
    return Some(unsafe { pack_by::<crate::simd::neon::Neon>(format, &group, out) });
    #[cfg(not(target_arch = "aarch64"))]
    None
}

/// # Safety
/// As for [`pack_by`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn pack_avx512(format: Format, group: &Group, out: *mut u8) -> bool {
    // SAFETY: by the contract.
    unsafe { pack_by::<crate::simd::avx512::Avx512<false>>(format, group, out) }
}

/// # Safety
/// As for [`pack_by`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn pack_avx2(format: Format, group: &Group, out: *mut u8) -> bool {
    // SAFETY: by the contract.
    unsafe { pack_by::<crate::simd::avx2::Avx2>(format, group, out) }
}

/// Sixteen rows of a file and those after them.
struct Group {
    cols: usize,
    row_bytes: usize,
    from: [*const u8; GROUP], // (row_bytes) each
    next: [*const u8; GROUP], // only asked for, never read
}

impl Group {
    /// Asks for `bytes` bytes from `at` on of the rows after these. Row after row, in the order of memory, was a quarter slower in f32.
    ///
    /// # Safety
    /// The machine has the instructions of `S`.
    #[inline(always)]
    unsafe fn fetch<S: Simd>(&self, at: usize, bytes: usize) {
        for line in (at..at + bytes).step_by(LINE) {
            for next in &self.next {
                // SAFETY: the address of a prefetch need not be good.
                unsafe { S::prefetch(next.wrapping_add(line)) };
            }
        }
    }

    fn rows(&self, at: usize) -> Rows<'_> {
        Rows { from: &self.from, at }
    }
}

/// The rows from byte `at` on.
#[derive(Clone, Copy)]
struct Rows<'a> {
    from: &'a [*const u8; GROUP],
    at: usize,
}

impl Rows<'_> {
    /// Four words of each row from `lane` on, `at` bytes further.
    ///
    /// # Safety
    /// The machine has the instructions of `S`, and the rows these 16 bytes.
    #[inline(always)]
    unsafe fn words<S: Simd>(self, at: usize, lane: usize) -> [S::Int; 4] {
        // SAFETY: by the contract; there are LANES rows from `lane` on.
        unsafe { S::turn(self.from.as_ptr().add(lane), self.at + at) }
    }
}

/// Packs the group; whether every float weight and f16 scale is a number.
///
/// # Safety
/// The machine has the instructions of `S`, the rows are as long as `format` has them, and `out` is good for a group.
#[inline(always)]
unsafe fn pack_by<S: Simd>(format: Format, group: &Group, out: *mut u8) -> bool {
    // SAFETY: by the contract.
    unsafe {
        match format {
            Format::F32 => floats::<S, Words>(group, out),
            Format::Bf16 => floats::<S, Pairs>(group, out),
            Format::F16 => floats::<S, Halves>(group, out),
            Format::Q8_0 => blocks::<S, Q8_0>(group, out),
            Format::Q4_0 => blocks::<S, Q4_0>(group, out),
            Format::Q4_1 => blocks::<S, Q4_1>(group, out),
            Format::Q5_0 => blocks::<S, Q5_0>(group, out),
            Format::Q5_1 => blocks::<S, Q5_1>(group, out),
            Format::Q2K => superblocks::<S, Q2K>(group, out),
            Format::Q3K => superblocks::<S, Q3K>(group, out),
            Format::Q4K => superblocks::<S, Q4K>(group, out),
            Format::Q5K => superblocks::<S, Q5K>(group, out),
            Format::Q6K => superblocks::<S, Q6K>(group, out),
        }
    }
}

/// How words of one or two floats are written.
///
/// # Safety
/// All methods: the machine has the instructions of `S`; `out` is good for a line from the row of the first lane on.
#[allow(clippy::missing_safety_doc)] // said once, above
trait FloatWords {
    /// Bits that are all ones where a float is no number.
    const ONES: u32;
    /// Those bits of a word; of two floats the larger.
    unsafe fn exponent<S: Simd>(word: S::Int) -> S::Int;
    /// Writes a word of the rows from `lane` on.
    unsafe fn put<S: Simd>(out: *mut u8, lane: usize, word: S::Int);
}

struct Words; // f32
struct Pairs; // two bf16 beside each other
struct Halves; // two f16, one line of 32 bytes each

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

/// Some bits of the halves of a word, whichever of them are more.
///
/// # Safety
/// The machine has the instructions.
#[inline(always)]
unsafe fn larger_half<S: Simd>(word: S::Int, bits: u32) -> S::Int {
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
unsafe fn put_halves<S: Simd>(out: *mut u8, lane: usize, word: S::Int) {
    // SAFETY: by the contract.
    unsafe {
        S::store_low_halves(out.add(2 * lane), word);
        S::store_low_halves(out.add(2 * (GROUP + lane)), S::shr32(word, 16));
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
unsafe fn floats<S: Simd, W: FloatWords>(group: &Group, out: *mut u8) -> bool {
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

/// Where the parts of a block of 16 rows go.
#[derive(Clone, Copy)]
struct Parts {
    scales: *mut u8,
    high: *mut u8, // plane
    low: *mut u8,  // plane
}

/// A format of blocks of 32.
///
/// # Safety
/// All methods: the machine has the instructions of `S`, the rows a block, and `to` is good for 16 of them.
#[allow(clippy::missing_safety_doc)] // said once, above
trait Block {
    const FORMAT: Format;
    /// Packs a block of each row from `lane` on; returns the exponents of its scales.
    unsafe fn pack<S: Simd>(rows: Rows<'_>, lane: usize, to: Parts) -> S::Int;
}

/// # Safety
/// As for [`pack_by`].
#[inline(always)]
unsafe fn blocks<S: Simd, B: Block>(group: &Group, out: *mut u8) -> bool {
    let (bytes, Some(layout)) = (B::FORMAT.block_bytes(), const { Layout::of(B::FORMAT) }) else {
        return false;
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
trait Superblock {
    const FORMAT: Format;
    /// Packs a block of each row from `lane` on; returns the exponents of its scales.
    unsafe fn pack<S: Simd>(rows: Rows<'_>, lane: usize, to: Parts) -> S::Int;
}

/// # Safety
/// As for [`pack_by`].
#[inline(always)]
unsafe fn superblocks<S: Simd, B: Superblock>(group: &Group, out: *mut u8) -> bool {
    let (bytes, Some(layout)) = (B::FORMAT.block_bytes(), const { Layout::of(B::FORMAT) }) else {
        return false;
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
struct Q8_0;
#[allow(non_camel_case_types)]
struct Q4_0;
#[allow(non_camel_case_types)]
struct Q4_1;
#[allow(non_camel_case_types)]
struct Q5_0;
#[allow(non_camel_case_types)]
struct Q5_1;
struct Q2K;
struct Q3K;
struct Q4K;
struct Q5K;
struct Q6K;

/// Writes one scale of each row from `lane` on, the lower half of a word; returns its exponent.
///
/// # Safety
/// As for [`Block`].
#[inline(always)]
unsafe fn put_scale<S: Simd>(out: *mut u8, lane: usize, word: S::Int) -> S::Int {
    // SAFETY: by the contract.
    unsafe {
        S::store_low_halves(out.add(2 * lane), word);
        S::and(word, S::splat32(HALF as i32))
    }
}

/// The same for a scale and a min, both halves of a word.
///
/// # Safety
/// As for [`Block`].
#[inline(always)]
unsafe fn put_scale_and_min<S: Simd>(out: *mut u8, lane: usize, word: S::Int) -> S::Int {
    // SAFETY: by the contract.
    unsafe {
        put_halves::<S>(out, lane, word);
        larger_half::<S>(word, HALF)
    }
}

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

/// Eight words of each row from `lane` on.
///
/// # Safety
/// As for [`Rows::words`], of 32 bytes.
#[inline(always)]
unsafe fn eight_words<S: Simd>(rows: Rows<'_>, at: usize, lane: usize) -> [S::Int; 8] {
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
/// As for [`Block`]; there are two words a pair, and `plane` is good for the lines.
#[inline(always)]
unsafe fn nibbles<S: Simd, const PAIRS: usize>(words: &[S::Int], lane: usize, plane: *mut u8) {
    // SAFETY: by the contract.
    unsafe { nibbles_apart::<S, PAIRS>(words, lane, plane, plane.add(PAIRS * LINE)) }
}

/// The same, the lines of the high nibbles elsewhere.
///
/// # Safety
/// As for [`nibbles`].
#[inline(always)]
unsafe fn nibbles_apart<S: Simd, const PAIRS: usize>(
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
/// As for [`Superblock`].
#[inline(always)]
unsafe fn k_nibbles<S: Simd>(rows: Rows<'_>, at: usize, lane: usize, plane: *mut u8) {
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
/// As for [`Superblock`].
#[inline(always)]
unsafe fn one_bit<S: Simd>(rows: Rows<'_>, at: usize, lane: usize, plane: *mut u8) {
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
/// As for [`Superblock`].
#[inline(always)]
unsafe fn two_bits<S: Simd>(rows: Rows<'_>, at: usize, lane: usize, plane: *mut u8) {
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
unsafe fn every_fourth_bit<S: Simd>(mut word: S::Int) -> S::Int {
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
/// As for [`Superblock`]; `out` is good for 16 bytes of each of 16 rows.
#[inline(always)]
unsafe fn bytes<S: Simd>(rows: Rows<'_>, at: usize, lane: usize, out: *mut u8) {
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
/// As for [`Superblock`].
#[inline(always)]
unsafe fn k_scales<S: Simd>(rows: Rows<'_>, lane: usize, out: *mut u8) -> S::Int {
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
unsafe fn six_bit<S: Simd>(fields: [S::Int; 4], out: *mut u8) {
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
