//! Packing 16 whole rows at once, in vectors whose lanes are rows. Groups that end a matrix are packed a row at a time
//! (`packing.rs`), which also says where a weight is that is no number; so is everything where there are no vectors.
//!
//! A file's row is turned sixteen bytes at a time: word `i` of all rows becomes one vector. Whatever a format does with the
//! bits of a word is then done to all rows at once. What it is worth to a start is in docs/kernels-log.md.

mod fields;
mod floats;
mod formats;

use roofline_weights::Format;

use crate::isa::Isa;
use crate::layout::{GROUP, LINE, group_bytes};
use crate::simd::Simd;
use floats::{Halves, Pairs, Words, floats};
use formats::{Q2K, Q3K, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0, blocks, superblocks};

/// The rows of a group, and those of the group after it, which are asked for while these are read: 16 rows of some hundred
/// bytes are as many streams in a few pages, of which the processor's own prefetchers follow none.
pub(crate) struct GroupRows<'f> {
    pub rows: [&'f [u8]; GROUP],
    pub next: [&'f [u8]; GROUP], // empty where there is none
}

/// Packs 16 rows of `cols` weights as one group. `None` where they are left to another way; otherwise whether every
/// float weight and f16 scale is a number.
pub(crate) fn pack(format: Format, cols: usize, files: &GroupRows<'_>, out: &mut [u8]) -> Option<bool> {
    // Floats eight rows at a time: rows of a power of two of bytes fall into one set of the first-level cache, which
    // does not hold sixteen lines.
    let widths: &[Isa] = match format.block_len() {
        1 => &[Isa::Avx2, Isa::Neon],
        _ => &[Isa::Avx512, Isa::Avx2, Isa::Neon],
    };
    pack_as(widths.iter().copied().find(|isa| isa.is_available())?, format, cols, files, out)
}

/// The same in the vectors of `isa`, if packing is written for them.
///
/// # Panics
/// When the machine does not have them.
pub(crate) fn pack_as(
    isa: Isa,
    format: Format,
    cols: usize,
    files: &GroupRows<'_>,
    out: &mut [u8],
) -> Option<bool> {
    assert!(isa.is_available());
    let row_bytes = format.bytes_of(cols)?;
    let words = format.block_len() > 1 || row_bytes.is_multiple_of(4);
    let fits = files.rows.iter().all(|row| row.len() == row_bytes) && group_bytes(format, cols)? == out.len();
    if !words || !fits {
        return None;
    }
    let group =
        Group { cols, row_bytes, from: files.rows.map(<[u8]>::as_ptr), next: files.next.map(<[u8]>::as_ptr) };
    let out = out.as_mut_ptr();
    // SAFETY: the machine has the instructions; the rows are as long as the format has them, and so is `out`.
    unsafe {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => Some(pack_avx512(format, &group, out)),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => Some(pack_avx2(format, &group, out)),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => Some(pack_by::<crate::simd::neon::Neon>(format, &group, out)),
            _ => None,
        }
    }
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
