//! Packing 16 whole rows at once: the formats that files mostly hold. Others, and groups that end a matrix, are packed a
//! row at a time (`packing.rs`), which also says where a weight is that is no number.

use roofline_weights::Format;

use crate::layout::{BLOCK, GROUP, LINE, SUPER};
use crate::turn::{GroupRows, Quad, both, each, four_by_four, put, put_halves, turn};

/// Nibbles, and fields of two bits, of a word's four bytes.
const LOW: u32 = 0x0f0f_0f0f;
const TWO: u32 = 0x0303_0303;
/// Bits that are all ones in an f16, or an upper half, that is no number.
const HALF: u32 = 0x7c00;

/// Packs 16 rows of `cols` weights as one group. `None` where they are left to another way; otherwise whether every
/// float weight and f16 scale is a number.
pub(crate) fn pack(format: Format, cols: usize, files: &GroupRows<'_>, out: &mut [u8]) -> Option<bool> {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vl") {
            // SAFETY: the machine has the instructions.
            return unsafe { pack_avx512(format, cols, files, out) };
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: as above.
            return unsafe { pack_avx2(format, cols, files, out) };
        }
    }
    pack_here(format, cols, files, out)
}

/// # Safety
/// The machine has these instructions.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn pack_avx512(format: Format, cols: usize, files: &GroupRows<'_>, out: &mut [u8]) -> Option<bool> {
    pack_here(format, cols, files, out)
}

/// # Safety
/// The machine has these instructions.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn pack_avx2(format: Format, cols: usize, files: &GroupRows<'_>, out: &mut [u8]) -> Option<bool> {
    pack_here(format, cols, files, out)
}

#[inline(always)]
fn pack_here(format: Format, cols: usize, files: &GroupRows<'_>, out: &mut [u8]) -> Option<bool> {
    Some(match format {
        Format::F32 => floats::<Words>(files, 4 * cols, out),
        Format::Bf16 if cols.is_multiple_of(2) => floats::<Pairs>(files, 2 * cols, out),
        Format::F16 if cols.is_multiple_of(2) => floats::<Halves>(files, 2 * cols, out),
        Format::Q8_0 => blocks::<Q8_0, 34>(cols, files, out),
        Format::Q4_0 => blocks::<Q4_0, 18>(cols, files, out),
        Format::Q4_1 => blocks::<Q4_1, 20>(cols, files, out),
        Format::Q4K => superblocks::<Q4K, 144>(files, out),
        Format::Q5K => superblocks::<Q5K, 176>(files, out),
        Format::Q6K => superblocks::<Q6K, 210>(files, out),
        _ => return None,
    })
}

/// How words of one or two floats are written. Methods rather than closures here and below: those are not always
/// compiled into the function that has the instructions.
trait FloatWords {
    /// Bits that are all ones where a float is no number.
    const ONES: u32;
    /// Those bits of a word; of two floats the larger.
    fn exponent(word: u32) -> u32;
    /// Writes one word of the four rows from `lane` on.
    fn put(out: &mut [u8; LINE], lane: usize, words: Quad);
}

struct Words; // f32
struct Pairs; // two bf16 beside each other
struct Halves; // two f16, one line of 32 bytes each

impl FloatWords for Words {
    const ONES: u32 = 0x7f80_0000;

    #[inline(always)]
    fn exponent(word: u32) -> u32 {
        word & Self::ONES
    }

    #[inline(always)]
    fn put(out: &mut [u8; LINE], lane: usize, words: Quad) {
        put(out, lane, words);
    }
}

impl FloatWords for Pairs {
    const ONES: u32 = 0x7f80;

    #[inline(always)]
    fn exponent(word: u32) -> u32 {
        (word & Self::ONES).max(word >> 16 & Self::ONES)
    }

    #[inline(always)]
    fn put(out: &mut [u8; LINE], lane: usize, words: Quad) {
        put(out, lane, words);
    }
}

impl FloatWords for Halves {
    const ONES: u32 = HALF;

    #[inline(always)]
    fn exponent(word: u32) -> u32 {
        (word & HALF).max(word >> 16 & HALF)
    }

    #[inline(always)]
    fn put(out: &mut [u8; LINE], lane: usize, words: Quad) {
        let (low, high) = out.split_at_mut(LINE / 2);
        put_halves(low, lane, words);
        put_halves(high, lane, each(words, |word| word >> 16));
    }
}

/// Rows of `row_bytes`, whole words.
#[inline(always)]
fn floats<W: FloatWords>(files: &GroupRows<'_>, row_bytes: usize, out: &mut [u8]) -> bool {
    let mut worst = [0; GROUP];
    let (chunks, rest) = out.as_chunks_mut::<{ 16 * LINE }>();
    for (i, out) in chunks.iter_mut().enumerate() {
        let rows = files.parts::<LINE>(LINE * i);
        let lines = out.as_chunks_mut::<LINE>().0;
        // Rows of a power of two of bytes fall into one set of the first-level cache: four at a time are read to their end.
        for lane in (0..GROUP).step_by(4) {
            for word in (0..16).step_by(4) {
                let four = four_by_four(&rows, 4 * word, lane);
                for (i, words) in four.into_iter().enumerate() {
                    W::put(&mut lines[word + i], lane, words);
                    for (worst, word) in worst[lane..lane + 4].iter_mut().zip(words) {
                        *worst = W::exponent(word).max(*worst);
                    }
                }
            }
        }
    }
    let first = row_bytes / LINE * LINE;
    for (i, out) in rest.as_chunks_mut::<LINE>().0.iter_mut().enumerate() {
        let line = files.parts::<4>(first + 4 * i).map(|bytes| u32::from_le_bytes(*bytes));
        for (lane, words) in line.as_chunks::<4>().0.iter().enumerate() {
            W::put(out, 4 * lane, *words);
        }
        worst = both(&worst, &line, |worst, word| W::exponent(word).max(worst));
    }
    worst.iter().all(|worst| *worst < W::ONES)
}

/// Writes the f16 at byte `at` of each row; whether all are finite.
#[inline(always)]
fn halves<const BYTES: usize>(rows: &[&[u8; BYTES]; GROUP], at: usize, out: &mut [u8]) -> bool {
    let mut finite = true;
    for (row, out) in rows.iter().zip(out.as_chunks_mut::<2>().0) {
        *out = [row[at], row[at + 1]];
        finite &= u16::from_le_bytes(*out) & HALF as u16 != HALF as u16;
    }
    finite
}

/// A format of blocks of 32.
trait Block<const BYTES: usize> {
    /// Of 16 blocks.
    const SCALE_BYTES: usize;
    const PLANE_BYTES: usize;
    /// Packs a block of each row; whether its scales are finite.
    fn pack(rows: &[&[u8; BYTES]; GROUP], scales: &mut [u8], plane: &mut [u8]) -> bool;
}

#[inline(always)]
fn blocks<B: Block<BYTES>, const BYTES: usize>(cols: usize, files: &GroupRows<'_>, out: &mut [u8]) -> bool {
    let (mut rest, mut at, mut finite) = (out, 0, true);
    for first in (0..cols).step_by(SUPER) {
        let count = SUPER.min(cols - first) / BLOCK;
        let (packed, after) = rest.split_at_mut(count * (B::SCALE_BYTES + B::PLANE_BYTES));
        let (scales, planes) = packed.split_at_mut(count * B::SCALE_BYTES);
        let scales = scales.chunks_exact_mut(B::SCALE_BYTES);
        for (scales, plane) in scales.zip(planes.chunks_exact_mut(B::PLANE_BYTES)) {
            finite &= B::pack(&files.parts(at), scales, plane);
            at += BYTES;
        }
        rest = after;
    }
    finite
}

/// A format of blocks of 256.
trait Superblock<const BYTES: usize> {
    /// Of 16 blocks.
    const PACKED_BYTES: usize;
    /// Packs a block of each row; whether its scales are finite.
    fn pack(rows: &[&[u8; BYTES]; GROUP], out: &mut [u8]) -> bool;
}

#[inline(always)]
fn superblocks<B: Superblock<BYTES>, const BYTES: usize>(files: &GroupRows<'_>, out: &mut [u8]) -> bool {
    let mut finite = true;
    for (i, out) in out.chunks_exact_mut(B::PACKED_BYTES).enumerate() {
        finite &= B::pack(&files.parts(BYTES * i), out);
    }
    finite
}

#[allow(non_camel_case_types)] // the formats are called that
struct Q8_0;
#[allow(non_camel_case_types)]
struct Q4_0;
#[allow(non_camel_case_types)]
struct Q4_1;
struct Q4K;
struct Q5K;
struct Q6K;

impl Block<34> for Q8_0 {
    const SCALE_BYTES: usize = 2 * GROUP;
    const PLANE_BYTES: usize = 8 * LINE;

    #[inline(always)]
    fn pack(rows: &[&[u8; 34]; GROUP], scales: &mut [u8], plane: &mut [u8]) -> bool {
        let lines = plane.as_chunks_mut::<LINE>().0;
        for lane in (0..GROUP).step_by(4) {
            for word in (0..8).step_by(4) {
                let four = four_by_four(rows, 2 + 4 * word, lane);
                for (i, words) in four.into_iter().enumerate() {
                    // Signed bytes become unsigned ones, 128 larger.
                    put(&mut lines[word + i], lane, each(words, |word| word ^ 0x8080_8080));
                }
            }
        }
        halves(rows, 0, scales)
    }
}

impl Block<18> for Q4_0 {
    const SCALE_BYTES: usize = 2 * GROUP;
    const PLANE_BYTES: usize = 4 * LINE;

    #[inline(always)]
    fn pack(rows: &[&[u8; 18]; GROUP], scales: &mut [u8], plane: &mut [u8]) -> bool {
        nibbles::<18, 4, 2>(rows, 2, plane);
        halves(rows, 0, scales)
    }
}

impl Block<20> for Q4_1 {
    const SCALE_BYTES: usize = 4 * GROUP;
    const PLANE_BYTES: usize = 4 * LINE;

    #[inline(always)]
    fn pack(rows: &[&[u8; 20]; GROUP], scales: &mut [u8], plane: &mut [u8]) -> bool {
        nibbles::<20, 4, 2>(rows, 4, plane);
        let (d, m) = scales.split_at_mut(2 * GROUP);
        halves(rows, 0, d) & halves(rows, 2, m)
    }
}

impl Superblock<144> for Q4K {
    const PACKED_BYTES: usize = 16 * GROUP + 32 * LINE;

    #[inline(always)]
    fn pack(rows: &[&[u8; 144]; GROUP], out: &mut [u8]) -> bool {
        let (scales, plane) = out.split_at_mut(16 * GROUP);
        k_nibbles(rows, 16, plane);
        k_scales(rows, scales)
    }
}

impl Superblock<176> for Q5K {
    const PACKED_BYTES: usize = 16 * GROUP + 40 * LINE;

    #[inline(always)]
    fn pack(rows: &[&[u8; 176]; GROUP], out: &mut [u8]) -> bool {
        let (scales, planes) = out.split_at_mut(16 * GROUP);
        let (high, low) = planes.split_at_mut(8 * LINE);
        fifth_bits(rows, 16, high);
        k_nibbles(rows, 48, low);
        k_scales(rows, scales)
    }
}

/// `WORDS` words from byte `at` on, whose low nibbles are `4 * WORDS` weights and whose high nibbles are the next as many:
/// `PAIRS` lines of either.
#[inline(always)]
fn nibbles<const BYTES: usize, const WORDS: usize, const PAIRS: usize>(
    rows: &[&[u8; BYTES]; GROUP],
    at: usize,
    plane: &mut [u8],
) {
    let lines = plane.as_chunks_mut::<LINE>().0;
    for lane in (0..GROUP).step_by(4) {
        let words: [Quad; WORDS] = turn(rows, at, lane);
        for pair in 0..PAIRS {
            let (a, b) = (&words[2 * pair], &words[2 * pair + 1]);
            put(&mut lines[pair], lane, both(a, b, |a, b| a & LOW | (b & LOW) << 4));
            put(&mut lines[PAIRS + pair], lane, both(a, b, |a, b| a >> 4 & LOW | b & !LOW));
        }
    }
}

/// The nibbles of Q4_K and Q5_K, from byte `at` on: four runs of 64 weights.
#[inline(always)]
fn k_nibbles<const BYTES: usize>(rows: &[&[u8; BYTES]; GROUP], at: usize, plane: &mut [u8]) {
    for (run, plane) in plane.chunks_exact_mut(8 * LINE).enumerate() {
        nibbles::<BYTES, 8, 4>(rows, at + 32 * run, plane);
    }
}

/// Bit `s` of byte `l` from `at` on belongs to weight `32 s + l`.
#[inline(always)]
fn fifth_bits<const BYTES: usize>(rows: &[&[u8; BYTES]; GROUP], at: usize, plane: &mut [u8]) {
    for lane in (0..GROUP).step_by(4) {
        let words: [Quad; 8] = turn(rows, at, lane);
        for (s, out) in plane.as_chunks_mut::<LINE>().0.iter_mut().enumerate() {
            let mut line = [0; 4];
            for (t, word) in words.iter().enumerate() {
                line = both(&line, word, |line, word| line | (word >> s & 0x0101_0101) << t);
            }
            put(out, lane, line);
        }
    }
}

/// Bits `2 s` and up of byte `l` from `at` on belong to weight `32 s + l`.
#[inline(always)]
fn two_bits<const BYTES: usize>(rows: &[&[u8; BYTES]; GROUP], at: usize, plane: &mut [u8]) {
    let lines = plane.as_chunks_mut::<LINE>().0;
    for lane in (0..GROUP).step_by(4) {
        for m in 0..2 {
            let words: [Quad; 4] = turn(rows, at + 16 * m, lane);
            for s in 0..4 {
                let mut line = [0; 4];
                for (t, word) in words.iter().enumerate() {
                    line = both(&line, word, |line, word| line | (word >> (2 * s) & TWO) << (2 * t));
                }
                put(&mut lines[2 * s + m], lane, line);
            }
        }
    }
}

/// `d, m` and twelve bytes of scales and mins, with which Q4_K and Q5_K begin, the latter as the words of
/// [`six_bit`](crate::layout::six_bit); whether `d` and `m` are finite.
#[inline(always)]
fn k_scales<const BYTES: usize>(rows: &[&[u8; BYTES]; GROUP], out: &mut [u8]) -> bool {
    let lines = out.as_chunks_mut::<LINE>().0;
    let mut finite = true;
    for lane in (0..GROUP).step_by(4) {
        let [halves, a, b, c] = four_by_four(rows, 0, lane);
        let (d, m) = lines[0].split_at_mut(LINE / 2);
        put_halves(d, lane, halves);
        put_halves(m, lane, each(halves, |word| word >> 16));
        finite &= halves.iter().all(|word| word & HALF != HALF && word >> 16 & HALF != HALF);
        // Four 6-bit fields a byte each, closed up to 24 bits: scales 0 to 3, 4 to 7, mins 0 to 3, 4 to 7.
        let close = |x: u32| x & 0x3f | x >> 2 & 0xfc0 | x >> 4 & 0x3_f000 | x >> 6 & 0xfc_0000;
        let s0 = each(a, |a| close(a & 0x3f3f_3f3f));
        let s1 = both(&a, &c, |a, c| close(c & LOW | a >> 2 & 0x3030_3030));
        let m0 = each(b, |b| close(b & 0x3f3f_3f3f));
        let m1 = both(&b, &c, |b, c| close(c >> 4 & LOW | b >> 2 & 0x3030_3030));
        let last = each(m1, |m1| m1 >> 18);
        let first = both(&s0, &s1, |s0, s1| s0 | (s1 & 0x3f) << 24);
        let second = both(&s1, &m0, |s1, m0| s1 >> 6 | (m0 & 0xfff) << 18);
        let third = both(&m0, &m1, |m0, m1| m0 >> 12 | (m1 & 0x3_ffff) << 12);
        put(&mut lines[1], lane, both(&first, &last, |word, last| word | last << 30));
        put(&mut lines[2], lane, both(&second, &last, |word, last| word | last >> 2 << 30));
        put(&mut lines[3], lane, both(&third, &last, |word, last| word | last >> 4 << 30));
    }
    finite
}

impl Superblock<210> for Q6K {
    const PACKED_BYTES: usize = 18 * GROUP + 48 * LINE;

    #[inline(always)]
    fn pack(rows: &[&[u8; 210]; GROUP], out: &mut [u8]) -> bool {
        let (scales, planes) = out.split_at_mut(18 * GROUP);
        let (high, low) = planes.split_at_mut(16 * LINE);
        for (n, low) in low.chunks_exact_mut(16 * LINE).enumerate() {
            q6_nibbles(rows, 64 * n, low);
        }
        for (n, high) in high.chunks_exact_mut(8 * LINE).enumerate() {
            two_bits(rows, 128 + 32 * n, high);
        }
        let (d, bytes) = scales.split_at_mut(2 * GROUP);
        let bytes = bytes.as_chunks_mut::<GROUP>().0;
        for lane in (0..GROUP).step_by(4) {
            let words: [Quad; 4] = turn(rows, 192, lane);
            for (i, out) in bytes.iter_mut().enumerate() {
                let four = each(words[i / 4], |word| word >> (8 * (i % 4)) & 0xff);
                out[lane..lane + 4].iter_mut().zip(four).for_each(|(out, byte)| *out = byte as u8);
            }
        }
        halves(rows, 208, d)
    }
}

/// Half of the nibbles of Q6_K: low ones are weights 0 to 31 and 32 to 63 of the half, high ones the 64 after them.
#[inline(always)]
fn q6_nibbles(rows: &[&[u8; 210]; GROUP], at: usize, plane: &mut [u8]) {
    let lines = plane.as_chunks_mut::<LINE>().0;
    for lane in (0..GROUP).step_by(4) {
        for run in 0..2 {
            let words: [Quad; 8] = turn(rows, at + 32 * run, lane);
            for pair in 0..4 {
                let (a, b) = (&words[2 * pair], &words[2 * pair + 1]);
                put(&mut lines[4 * run + pair], lane, both(a, b, |a, b| a & LOW | (b & LOW) << 4));
                put(&mut lines[8 + 4 * run + pair], lane, both(a, b, |a, b| a >> 4 & LOW | b & !LOW));
            }
        }
    }
}
