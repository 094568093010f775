//! From the rows of a file to groups of 16 interleaved rows.

use std::ops::Range;

use roofline_weights::Format;

use crate::error::KernelError;
use crate::file_block::FileBlock;
use crate::layout::{BLOCK, GROUP, LINE, Layout, SUPER, Scales, six_bit_words};
use crate::whole_groups::{self, GroupRows};

/// Rows of a matrix and the shape of its groups.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub format: Format,
    pub rows: usize,
    pub cols: usize,
    pub row_bytes: usize,   // of the file
    pub group_bytes: usize, // of 16 rows packed
}

impl Shape {
    /// Writes groups, whose rows `row` finds, to `out`. Each row is found once.
    ///
    /// # Errors
    /// [`RowBytes`](KernelError::RowBytes), or [`NotFinite`](KernelError::NotFinite) for the first row that holds a
    /// float weight or an f16 scale that is NaN or infinite.
    pub fn pack<'f>(
        &self,
        groups: Range<usize>,
        row: &(dyn Fn(usize) -> &'f [u8] + '_),
        out: &mut [u8], // (groups, group_bytes)
    ) -> Result<(), KernelError> {
        let mut next = self.find(groups.start, row);
        for (group, out) in groups.zip(out.chunks_exact_mut(self.group_bytes.max(1))) {
            let rows = std::mem::replace(&mut next, self.find(group + 1, row));
            self.pack_group(group * GROUP, GroupRows { rows, next }, out)?;
        }
        Ok(())
    }

    /// The rows of a group; empty where there are none.
    fn find<'f>(&self, group: usize, row: &(dyn Fn(usize) -> &'f [u8] + '_)) -> [&'f [u8]; GROUP] {
        let mut files = [&[][..]; GROUP];
        for (file, at) in files.iter_mut().zip(group * GROUP..self.rows) {
            *file = row(at);
        }
        files
    }

    /// Writes the group whose first row is `first_row`.
    fn pack_group(&self, first_row: usize, files: GroupRows<'_>, out: &mut [u8]) -> Result<(), KernelError> {
        let lanes = GROUP.min(self.rows - first_row);
        if let Some(lane) = files.rows[..lanes].iter().position(|file| file.len() != self.row_bytes) {
            let (got, want) = (files.rows[lane].len(), self.row_bytes);
            return Err(KernelError::RowBytes { format: self.format, row: first_row + lane, got, want });
        }
        if lanes == GROUP && whole_groups::pack(self.format, self.cols, &files, out) == Some(true) {
            return Ok(());
        }
        // Rows that fill up the last group, and what an odd row of bf16 leaves of a pair, are zero.
        if lanes < GROUP || (self.format == Format::Bf16 && self.cols % 2 == 1) {
            out.fill(0);
        }
        pack_lanes(self.format, self.cols, &files.rows[..lanes], out)
            .map_err(|(lane, col)| KernelError::NotFinite { row: first_row + lane, col })
    }
}

/// Packs up to 16 rows as the lanes of a group, all zero before, a few weights of each at a time so that the lines
/// they share stay in the cache. The error is the first lane that holds something not finite, and its column.
fn pack_lanes(format: Format, cols: usize, files: &[&[u8]], out: &mut [u8]) -> Result<(), (usize, usize)> {
    let mut bad = None;
    let mut found = |lane: usize, col: usize| {
        if bad.is_none_or(|(first, _)| lane < first) {
            bad = Some((lane, col));
        }
    };
    let mut block = FileBlock::ZERO;
    let (mut file_at, mut out_at) = (0, 0);
    for first in (0..cols).step_by(SUPER) {
        let len = SUPER.min(cols - first);
        let file_len = len / format.block_len() * format.block_bytes();
        for (lane, file) in files.iter().enumerate() {
            let file = &file[file_at..file_at + file_len];
            let layout = Layout::of(format);
            let not_finite = match (format, layout) {
                (_, Some(layout)) => {
                    block.read(format, file);
                    pack_superblock(&layout, &block, len, lane, &mut out[out_at..]);
                    if block.is_finite() { None } else { Some(0) }
                }
                (Format::F32, None) => pack_f32(file, lane, &mut out[out_at..]),
                (Format::F16, None) => pack_f16(file, lane, &mut out[out_at..]),
                (_, None) => pack_bf16(file, lane, &mut out[out_at..]),
            };
            if let Some(col) = not_finite {
                found(lane, first + col);
            }
        }
        file_at += file_len;
        out_at += match Layout::of(format) {
            Some(layout) => layout.super_bytes(len / BLOCK),
            None => GROUP * file_len,
        };
    }
    bad.map_or(Ok(()), Err)
}

/// Writes f32 weights as lane `lane`; returns the first that is not finite.
fn pack_f32(file: &[u8], lane: usize, out: &mut [u8]) -> Option<usize> {
    let mut worst = 0;
    for (weight, out) in file.as_chunks::<4>().0.iter().zip(out.as_chunks_mut::<{ 4 * GROUP }>().0) {
        worst = worst.max(u32::from_le_bytes(*weight) & 0x7f80_0000);
        out[4 * lane..4 * lane + 4].copy_from_slice(weight);
    }
    let exponent = |weight: &[u8; 4]| u32::from_le_bytes(*weight) & 0x7f80_0000;
    if worst < 0x7f80_0000 {
        None
    } else {
        file.as_chunks().0.iter().position(|w| exponent(w) == 0x7f80_0000)
    }
}

/// Writes f16 weights as lane `lane`; returns the first that is not finite.
fn pack_f16(file: &[u8], lane: usize, out: &mut [u8]) -> Option<usize> {
    for (weight, out) in file.as_chunks::<2>().0.iter().zip(out.as_chunks_mut::<{ 2 * GROUP }>().0) {
        out[2 * lane..2 * lane + 2].copy_from_slice(weight);
    }
    first_with_exponent(file, 0x7c00)
}

/// Writes bf16 weights as lane `lane`, in pairs; returns the first that is not finite.
fn pack_bf16(file: &[u8], lane: usize, out: &mut [u8]) -> Option<usize> {
    let (pairs, single) = file.as_chunks::<4>();
    let (lines, _) = out.as_chunks_mut::<{ 4 * GROUP }>();
    for (pair, line) in pairs.iter().zip(&mut *lines) {
        line[4 * lane..4 * lane + 4].copy_from_slice(pair);
    }
    if let ([low, high], Some(line)) = (single, lines.get_mut(pairs.len())) {
        (line[4 * lane], line[4 * lane + 1]) = (*low, *high);
    }
    first_with_exponent(file, 0x7f80)
}

/// The first 16-bit float whose exponent is all ones.
fn first_with_exponent(file: &[u8], ones: u16) -> Option<usize> {
    let weights = file.as_chunks::<2>().0;
    let mut worst = 0;
    for weight in weights {
        worst = worst.max(u16::from_le_bytes(*weight) & ones);
    }
    if worst < ones { None } else { weights.iter().position(|w| u16::from_le_bytes(*w) & ones == ones) }
}

/// Writes a superblock of `len` weights of one row as lane `lane` of a packed superblock, all zero before.
fn pack_superblock(layout: &Layout, block: &FileBlock, len: usize, lane: usize, out: &mut [u8]) {
    let blocks = len / BLOCK;
    let (scales, planes) = out.split_at_mut(layout.scale_bytes(blocks));
    let (high, low) = planes.split_at_mut(layout.high_bytes(blocks));
    pack_scales(layout.scales, block, blocks, lane, scales);
    pack_plane(layout.low_bits, &block.q[..len], 0, lane, low);
    if layout.high_bits > 0 {
        pack_plane(layout.high_bits, &block.q[..len], layout.low_bits, lane, high);
    }
}

/// Writes `bits` bits from bit `from` up of each weight: one word a line, four weights in its bytes.
fn pack_plane(bits: usize, q: &[u8], from: usize, lane: usize, plane: &mut [u8]) {
    match bits {
        8 => pack_words::<8, 1>(q, from, lane, plane),
        4 => pack_words::<4, 2>(q, from, lane, plane),
        2 => pack_words::<2, 4>(q, from, lane, plane),
        _ => pack_words::<1, 8>(q, from, lane, plane),
    }
}

/// The same with `QUADS = 8 / BITS` known, so that the loops unroll.
fn pack_words<const BITS: usize, const QUADS: usize>(q: &[u8], from: usize, lane: usize, plane: &mut [u8]) {
    let mask = ((1u32 << BITS) - 1) * 0x0101_0101;
    let lines = plane.as_chunks_mut::<LINE>().0;
    for (line, quads) in lines.iter_mut().zip(q.as_chunks::<4>().0.chunks_exact(QUADS)) {
        let mut word = 0;
        for (t, quad) in quads.iter().enumerate() {
            word |= (u32::from_le_bytes(*quad) >> from & mask) << (BITS * t);
        }
        line[4 * lane..4 * lane + 4].copy_from_slice(&word.to_le_bytes());
    }
}

fn pack_scales(kind: Scales, block: &FileBlock, blocks: usize, lane: usize, out: &mut [u8]) {
    let put_u16 = |out: &mut [u8], at: usize, bits: u16| {
        out[2 * at..2 * at + 2].copy_from_slice(&bits.to_le_bytes());
    };
    match kind {
        Scales::Half => (0..blocks).for_each(|b| put_u16(out, GROUP * b + lane, block.d[b])),
        Scales::HalfMin => {
            for b in 0..blocks {
                put_u16(out, GROUP * 2 * b + lane, block.d[b]);
                put_u16(out, GROUP * (2 * b + 1) + lane, block.m[b]);
            }
        }
        Scales::SixBitMin | Scales::SixBit => {
            put_u16(out, lane, block.d[0]);
            let mut fields = block.scales;
            let mut at = 2 * GROUP;
            if kind == Scales::SixBitMin {
                put_u16(out, GROUP + lane, block.m[0]);
                fields[8..].copy_from_slice(&block.mins[..8]);
                at = 4 * GROUP;
            }
            for (w, word) in six_bit_words(&fields).into_iter().enumerate() {
                let at = at + 4 * (GROUP * w + lane);
                out[at..at + 4].copy_from_slice(&word.to_le_bytes());
            }
        }
        Scales::Byte => {
            put_u16(out, lane, block.d[0]);
            (0..16).for_each(|i| out[2 * GROUP + GROUP * i + lane] = block.scales[i]);
        }
        Scales::NibbleMin => {
            put_u16(out, lane, block.d[0]);
            put_u16(out, GROUP + lane, block.m[0]);
            (0..16).for_each(|i| out[4 * GROUP + GROUP * i + lane] = block.scales[i] | block.mins[i] << 4);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;
    use crate::layout::group_bytes;

    /// Rows of any bytes, and once more of small ones, which no float or scale takes for infinite.
    #[test]
    fn sixteen_rows_at_once_are_packed_as_each_by_itself() {
        let mut state = 1_u64;
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as u8
        };
        let mut compared = Vec::new(); // formats that are packed so
        for format in Format::ALL {
            let widths: &[usize] = match format.block_len() {
                1 => &[1, 2, 14, 30, 32, 33, 64, 70, 256, 300],
                32 => &[32, 96, 256, 288, 768],
                _ => &[256, 768],
            };
            for (&cols, mask) in widths.iter().flat_map(|cols| [(cols, 0xff), (cols, 0x3f)]) {
                let row_bytes = format.bytes_of(cols).unwrap();
                let bytes: Vec<u8> = (0..GROUP * row_bytes).map(|_| next() & mask).collect();
                let files: [&[u8]; GROUP] = std::array::from_fn(|row| &bytes[row * row_bytes..][..row_bytes]);
                let len = group_bytes(format, cols).unwrap();
                let mut each = vec![0; len];
                let finite = pack_lanes(format, cols, &files, &mut each).is_ok();
                assert!(finite || mask == 0xff, "{format} {cols}");
                let rows = GroupRows { rows: files, next: files };
                for isa in Isa::available() {
                    let mut all = vec![0; len];
                    let Some(said) = whole_groups::pack_as(isa, format, cols, &rows, &mut all) else {
                        continue;
                    };
                    assert_eq!(said, finite, "{isa} {format} {cols}");
                    assert!(all == each, "{isa} {format} {cols}");
                    compared.push((isa, format));
                }
            }
        }
        // Wherever there are vectors, all formats in each kind of them.
        for isa in [Isa::Avx2, Isa::Avx512, Isa::Neon].into_iter().filter(|isa| isa.is_available()) {
            let of_isa = |format| compared.contains(&(isa, format));
            assert!(Format::ALL.into_iter().all(of_isa), "{isa}: {compared:?}");
        }
    }
}
