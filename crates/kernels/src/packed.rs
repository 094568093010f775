//! Weight matrices in the layout of the kernels.

use std::sync::{Mutex, PoisonError};

use roofline_weights::Format;

use crate::arena::ArenaBytes;
use crate::error::KernelError;
use crate::file_block::FileBlock;
use crate::layout::{
    BLOCK, GROUP, LINE, Layout, SUPER, Scales, group_bytes, read_f16, read_u16, read_u32, six_bit,
    six_bit_words,
};
use crate::shared_slice::SharedSlice;
use crate::team::Team;

/// Bytes of a matrix that are packed between two words of progress: this much of it is resident twice at most.
const BAND_BYTES: usize = 16 << 20;

/// One weight matrix, `rows` outputs by `cols` inputs, in groups of 16 interleaved rows at the density of its file
/// (see `docs/kernels.md`). Rows that fill up the last group are zero and never reach an output.
pub struct PackedMatrix {
    format: Format,
    rows: usize,
    cols: usize,
    group_bytes: usize,
    bytes: ArenaBytes, // (groups, group_bytes)
}

impl PackedMatrix {
    /// [`pack_with`](Self::pack_with) for a source that nothing needs to let go of.
    ///
    /// # Errors
    /// The same.
    pub fn pack<'a>(
        format: Format,
        rows: usize,
        cols: usize,
        row_bytes: &(dyn Fn(usize) -> &'a [u8] + Sync),
        team: &Team,
    ) -> Result<PackedMatrix, KernelError> {
        PackedMatrix::pack_with(format, rows, cols, row_bytes, team, &mut |_| {})
    }

    /// Packs a matrix whose row `r` is `row_bytes(r)`, as the file stores it. Groups are packed in parallel, 16 MiB at
    /// a time; `packed` hears after each how many rows are done, and may let go of what they were read from.
    ///
    /// # Errors
    /// [`PartialBlock`](KernelError::PartialBlock), [`RowBytes`](KernelError::RowBytes),
    /// [`TooLarge`](KernelError::TooLarge), or [`NotFinite`](KernelError::NotFinite) for a float weight or an f16
    /// scale that is NaN or infinite (the first row that has one is named).
    pub fn pack_with<'a>(
        format: Format,
        rows: usize,
        cols: usize,
        row_bytes: &(dyn Fn(usize) -> &'a [u8] + Sync),
        team: &Team,
        packed: &mut dyn FnMut(usize),
    ) -> Result<PackedMatrix, KernelError> {
        let too_large = KernelError::TooLarge { format, rows, cols };
        let Some(file_bytes) = format.bytes_of(cols) else {
            return Err(KernelError::PartialBlock { format, cols });
        };
        let groups = rows.div_ceil(GROUP);
        let sizes = group_bytes(format, cols).and_then(|group| Some((group, group.checked_mul(groups)?)));
        let Some((group_bytes, total)) = sizes else { return Err(too_large) };
        let mut bytes = ArenaBytes::zeroed(total).ok_or(too_large)?;

        let first_error = Mutex::new(None::<(usize, KernelError)>);
        let report = |row: usize, error: KernelError| {
            let mut first = first_error.lock().unwrap_or_else(PoisonError::into_inner);
            if first.as_ref().is_none_or(|(earlier, _)| row < *earlier) {
                *first = Some((row, error));
            }
        };
        let shared = SharedSlice::new(bytes.as_mut_slice());
        let pack = |group: usize| {
            // SAFETY: each group is one tile.
            let out = unsafe { shared.part(group * group_bytes, group_bytes) };
            let first_row = group * GROUP;
            let mut files = [&[][..]; GROUP]; // one row each
            let lanes = GROUP.min(rows - first_row);
            for (lane, file) in files[..lanes].iter_mut().enumerate() {
                *file = row_bytes(first_row + lane);
                if file.len() != file_bytes {
                    let row = first_row + lane;
                    let error = KernelError::RowBytes { format, row, got: file.len(), want: file_bytes };
                    return report(row, error);
                }
            }
            if let Err((lane, col)) = pack_group(format, cols, &files[..lanes], out) {
                let row = first_row + lane;
                report(row, KernelError::NotFinite { row, col });
            }
        };
        let band = (BAND_BYTES / group_bytes.max(1)).max(1);
        for first in (0..groups).step_by(band) {
            let len = band.min(groups - first);
            team.run(len, &|i, _| pack(first + i));
            packed(rows.min((first + len) * GROUP));
        }
        match first_error.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some((_, error)) => Err(error),
            None => Ok(PackedMatrix { format, rows, cols, group_bytes, bytes }),
        }
    }

    /// Output rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Input columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Number format of the weights.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Bytes of the weights and their scales: what the file holds, and what one product reads.
    pub fn stored_bytes(&self) -> usize {
        self.rows * self.format.bytes_of(self.cols).unwrap_or(0)
    }

    /// Bytes of memory held: [`stored_bytes`](Self::stored_bytes) and the rows that fill up the last group.
    pub fn allocated_bytes(&self) -> usize {
        self.bytes.as_slice().len()
    }

    /// Writes row `row` as f32, exactly as the format defines it (an embedding is looked up this way).
    ///
    /// # Errors
    /// [`Shape`](KernelError::Shape) when there is no such row, or `out` does not have `cols` elements.
    pub fn decode_row(&self, row: usize, out: &mut [f32]) -> Result<(), KernelError> {
        if row >= self.rows {
            return Err(KernelError::Shape { what: "row of a matrix to decode", got: row, want: self.rows });
        }
        if out.len() != self.cols {
            let (got, want) = (out.len(), self.cols);
            return Err(KernelError::Shape { what: "elements of a decoded row", got, want });
        }
        let (group, lane) = (self.group(row / GROUP), row % GROUP);
        match Layout::of(self.format) {
            Some(layout) => decode_quantized(&layout, group, lane, out),
            None => out.iter_mut().enumerate().for_each(|(k, x)| *x = float(self.format, group, k, lane)),
        }
        Ok(())
    }

    /// Groups of 16 rows.
    pub(crate) fn groups(&self) -> usize {
        self.rows.div_ceil(GROUP)
    }

    /// Bytes of one group.
    pub(crate) fn group_bytes(&self) -> usize {
        self.group_bytes
    }

    /// The bytes of group `group`.
    pub(crate) fn group(&self, group: usize) -> &[u8] {
        &self.bytes.as_slice()[group * self.group_bytes..(group + 1) * self.group_bytes]
    }
}

impl std::fmt::Debug for PackedMatrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PackedMatrix({} x {} {})", self.rows, self.cols, self.format)
    }
}

/// Packs up to 16 rows as the lanes of a group, all zero before, a few weights of each at a time so that the lines
/// they share stay in the cache. The error is the first lane that holds something not finite, and its column.
fn pack_group(format: Format, cols: usize, files: &[&[u8]], out: &mut [u8]) -> Result<(), (usize, usize)> {
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

/// Byte where weight `k` of a lane lies in a group of 16-bit floats.
fn half_at(format: Format, k: usize, lane: usize) -> usize {
    match format {
        Format::Bf16 => 2 * (k / 2 * 2 * GROUP + 2 * lane + k % 2),
        _ => 2 * (GROUP * k + lane),
    }
}

/// Weight `k` of a lane in a group of floats.
fn float(format: Format, group: &[u8], k: usize, lane: usize) -> f32 {
    match format {
        Format::F16 => read_f16(group, half_at(format, k, lane) / 2),
        Format::Bf16 => f32::from_bits(u32::from(read_u16(group, half_at(format, k, lane) / 2)) << 16),
        _ => f32::from_bits(read_u32(group, GROUP * k + lane)),
    }
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

/// The same with `QUADS = 8 / BITS` known, so that the loops unroll: packing is a third of what a start costs.
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

/// What turns the stored weights of one sub-block of a row into numbers: `d * factor * (stored - offset) - min`.
pub(crate) struct SubScale {
    pub d: f32,
    pub factor: i32, // 1 in formats whose sub-blocks have an f16 each
    pub min: f32,
}

/// The scale of sub-block `sub` of a row.
pub(crate) fn sub_scale(kind: Scales, scales: &[u8], sub: usize, lane: usize) -> SubScale {
    let half = |i: usize| read_f16(scales, GROUP * i + lane);
    match kind {
        Scales::Half => SubScale { d: half(sub), factor: 1, min: 0.0 },
        Scales::HalfMin => SubScale { d: half(2 * sub), factor: 1, min: -half(2 * sub + 1) },
        Scales::SixBitMin => {
            let fields = &scales[4 * GROUP..];
            let (factor, min) = (six_bit(fields, sub, lane), six_bit(fields, sub + 8, lane));
            SubScale { d: half(0), factor: factor.into(), min: half(1) * f32::from(min) }
        }
        Scales::SixBit => {
            let field = six_bit(&scales[2 * GROUP..], sub, lane);
            SubScale { d: half(0), factor: i32::from(field) - 32, min: 0.0 }
        }
        Scales::Byte => {
            let factor = scales[2 * GROUP + GROUP * sub + lane] as i8;
            SubScale { d: half(0), factor: factor.into(), min: 0.0 }
        }
        Scales::NibbleMin => {
            let byte = scales[4 * GROUP + GROUP * sub + lane];
            SubScale { d: half(0), factor: (byte & 15).into(), min: half(1) * f32::from(byte >> 4) }
        }
    }
}

fn decode_quantized(layout: &Layout, group: &[u8], lane: usize, out: &mut [f32]) {
    let mut rest = group;
    for out in out.chunks_mut(SUPER) {
        let blocks = out.len() / BLOCK;
        let (bytes, after) = rest.split_at(layout.super_bytes(blocks));
        let (scales, high, low) = layout.split(bytes, blocks);
        for (sub, out) in out.chunks_mut(layout.sub).enumerate() {
            let SubScale { d, factor, min } = sub_scale(layout.scales, scales, sub, lane);
            let scale = d * factor as f32;
            for (i, x) in out.iter_mut().enumerate() {
                let stored = layout.stored(high, low, sub * layout.sub + i, lane);
                *x = scale * (i32::from(stored) - layout.offset) as f32 - min;
            }
        }
        rest = after;
    }
}
