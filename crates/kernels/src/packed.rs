//! Weight matrices in the layout of the kernels.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use roofline_weights::{Format, blocks};

use crate::arena::ArenaBytes;
use crate::error::KernelError;
use crate::layout::{
    BLOCK, GROUP, Layout, SUPER, Scales, group_bytes, read_f16, read_u16, read_u32, six_bit,
};
use crate::packing::Shape;
use crate::shared_slice::SharedSlice;
use crate::team::Team;

/// Bytes of a matrix that are packed between two words of progress: this much of it is resident twice at most.
const BAND_BYTES: usize = 16 << 20;

/// Bytes that a thread packs at a time.
const TILE_BYTES: usize = 64 << 10;

/// Rows of a matrix that stays where it lies in its file.
pub trait FileRows: Send + Sync {
    /// What errors call the matrix.
    fn name(&self) -> &str;
    /// The bytes of row `row`, as the file stores it.
    fn row(&self, row: usize) -> &[u8];
}

/// One weight matrix, `rows` outputs by `cols` inputs, that kernels read in groups of 16 interleaved rows at the density of
/// its file (see `docs/kernels.md`). Rows that fill up the last group are zero and never reach an output. The groups are
/// packed once and kept, or from the file at each use, a few at a time ([`mapped`](Self::mapped)): the same bits either way.
pub struct PackedMatrix {
    shape: Shape,
    weights: Weights,
}

enum Weights {
    Packed(ArenaBytes), // (groups, group_bytes)
    Mapped(Arc<dyn FileRows>),
}

/// Some groups of a matrix, as kernels read them.
#[derive(Clone, Copy)]
pub(crate) struct Groups<'a> {
    shape: Shape,
    first: usize,    // group that `bytes` begin with
    bytes: &'a [u8], // (groups, group_bytes)
}

impl<'a> Groups<'a> {
    /// Output rows of the matrix.
    #[inline(always)]
    pub fn rows(&self) -> usize {
        self.shape.rows
    }

    /// Input columns.
    #[inline(always)]
    pub fn cols(&self) -> usize {
        self.shape.cols
    }

    /// Number format of the weights.
    pub fn format(&self) -> Format {
        self.shape.format
    }

    /// Bytes of one group.
    #[inline(always)]
    pub fn group_bytes(&self) -> usize {
        self.shape.group_bytes
    }

    /// The bytes of group `group` of the matrix, which is one of these.
    #[inline(always)]
    pub fn group(&self, group: usize) -> &'a [u8] {
        &self.bytes[(group - self.first) * self.shape.group_bytes..][..self.shape.group_bytes]
    }
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
        let shape = shape_of(format, rows, cols)?;
        let groups = rows.div_ceil(GROUP);
        let too_large = KernelError::TooLarge { format, rows, cols };
        let Some(total) = shape.group_bytes.checked_mul(groups) else { return Err(too_large) };
        let mut bytes = ArenaBytes::zeroed(total).ok_or(too_large)?;

        let first_error = FirstError::default();
        let shared = SharedSlice::new(bytes.as_mut_slice());
        let group_bytes = shape.group_bytes.max(1);
        let pack = |groups: Range<usize>| {
            let at = groups.start;
            // SAFETY: each group is in one tile.
            let out = unsafe { shared.part(at * shape.group_bytes, groups.len() * shape.group_bytes) };
            if let Err(error) = shape.pack(groups, row_bytes, out) {
                first_error.report(at, error);
            }
        };
        let (band, tile) = ((BAND_BYTES / group_bytes).max(1), (TILE_BYTES / group_bytes).max(1));
        for first in (0..groups).step_by(band) {
            let end = groups.min(first + band);
            team.run((end - first).div_ceil(tile), &|i, _| {
                let first = first + i * tile;
                pack(first..end.min(first + tile));
            });
            packed(rows.min(end * GROUP));
        }
        first_error.or(PackedMatrix { shape, weights: Weights::Packed(bytes) })
    }

    /// A matrix of which nothing is packed now: products pack the groups they multiply, and find then what
    /// [`pack_with`](Self::pack_with) finds.
    ///
    /// # Errors
    /// [`PartialBlock`](KernelError::PartialBlock), [`TooLarge`](KernelError::TooLarge).
    pub fn mapped(
        format: Format,
        rows: usize,
        cols: usize,
        source: Arc<dyn FileRows>,
    ) -> Result<PackedMatrix, KernelError> {
        Ok(PackedMatrix { shape: shape_of(format, rows, cols)?, weights: Weights::Mapped(source) })
    }

    /// Output rows.
    pub fn rows(&self) -> usize {
        self.shape.rows
    }

    /// Input columns.
    pub fn cols(&self) -> usize {
        self.shape.cols
    }

    /// Number format of the weights.
    pub fn format(&self) -> Format {
        self.shape.format
    }

    /// Bytes of the weights and their scales: what the file holds, and what one product reads.
    pub fn stored_bytes(&self) -> usize {
        self.shape.rows * self.shape.row_bytes
    }

    /// Bytes of memory held: [`stored_bytes`](Self::stored_bytes) and the rows that fill up the last group, or none.
    pub fn allocated_bytes(&self) -> usize {
        match &self.weights {
            Weights::Packed(bytes) => bytes.as_slice().len(),
            Weights::Mapped(_) => 0,
        }
    }

    /// Writes row `row` as f32, exactly as the format defines it (an embedding is looked up this way).
    ///
    /// # Errors
    /// [`Shape`](KernelError::Shape) when there is no such row, or `out` does not have `cols` elements; of a mapped matrix
    /// [`NotFiniteIn`](KernelError::NotFiniteIn).
    pub fn decode_row(&self, row: usize, out: &mut [f32]) -> Result<(), KernelError> {
        let Shape { format, rows, cols, .. } = self.shape;
        if row >= rows {
            return Err(KernelError::Shape { what: "row of a matrix to decode", got: row, want: rows });
        }
        if out.len() != cols {
            let (got, want) = (out.len(), cols);
            return Err(KernelError::Shape { what: "elements of a decoded row", got, want });
        }
        let bytes = match &self.weights {
            Weights::Packed(bytes) => bytes.as_slice(),
            Weights::Mapped(source) => return decode_file_row(self.shape, &**source, row, out),
        };
        let group = Groups { shape: self.shape, first: 0, bytes }.group(row / GROUP);
        let lane = row % GROUP;
        match Layout::of(format) {
            Some(layout) => decode_quantized(&layout, group, lane, out),
            None => out.iter_mut().enumerate().for_each(|(k, x)| *x = float(format, group, k, lane)),
        }
        Ok(())
    }

    /// Groups of 16 rows.
    pub(crate) fn groups(&self) -> usize {
        self.shape.rows.div_ceil(GROUP)
    }

    /// Bytes of one group.
    pub(crate) fn group_bytes(&self) -> usize {
        self.shape.group_bytes
    }

    /// The groups, where they are packed already.
    pub(crate) fn packed_groups(&self) -> Option<Groups<'_>> {
        match &self.weights {
            Weights::Packed(bytes) => Some(Groups { shape: self.shape, first: 0, bytes: bytes.as_slice() }),
            Weights::Mapped(_) => None,
        }
    }

    /// Packs these groups of a mapped matrix into `band`.
    ///
    /// # Errors
    /// [`NotFiniteIn`](KernelError::NotFiniteIn), [`RowBytes`](KernelError::RowBytes).
    pub(crate) fn pack_groups<'b>(
        &self,
        groups: Range<usize>,
        band: &'b mut [u8], // (groups, group_bytes) at least
    ) -> Result<Groups<'b>, KernelError> {
        let (shape, first) = (self.shape, groups.start);
        if let Weights::Mapped(source) = &self.weights {
            shape.pack(groups, &|row| source.row(row), band).map_err(|error| named(error, &**source))?;
        }
        Ok(Groups { shape, first, bytes: band })
    }
}

/// The shape of a matrix, checked.
fn shape_of(format: Format, rows: usize, cols: usize) -> Result<Shape, KernelError> {
    let Some(row_bytes) = format.bytes_of(cols) else {
        return Err(KernelError::PartialBlock { format, cols });
    };
    match group_bytes(format, cols) {
        Some(group_bytes) if row_bytes.checked_mul(rows).is_some() => {
            Ok(Shape { format, rows, cols, row_bytes, group_bytes })
        }
        _ => Err(KernelError::TooLarge { format, rows, cols }),
    }
}

/// An error of one matrix with the name of that matrix: a product has several.
fn named(error: KernelError, source: &dyn FileRows) -> KernelError {
    match error {
        KernelError::NotFinite { row, col } => {
            KernelError::NotFiniteIn { name: source.name().to_owned(), row, col }
        }
        other => other,
    }
}

/// The error of the earliest of the groups that several threads work on.
#[derive(Default)]
pub(crate) struct FirstError(Mutex<Option<(usize, KernelError)>>);

impl FirstError {
    pub fn report(&self, at: usize, error: KernelError) {
        let mut first = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if first.as_ref().is_none_or(|(earlier, _)| at < *earlier) {
            *first = Some((at, error));
        }
    }

    /// `value`, if no error was reported.
    pub fn or<T>(self, value: T) -> Result<T, KernelError> {
        match self.0.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some((_, error)) => Err(error),
            None => Ok(value),
        }
    }
}

/// Row `row` of a mapped matrix as f32, every weight finite.
fn decode_file_row(
    shape: Shape,
    source: &dyn FileRows,
    row: usize,
    out: &mut [f32],
) -> Result<(), KernelError> {
    let bytes = source.row(row);
    if blocks::decode(shape.format, bytes, out).is_err() {
        let (got, want) = (bytes.len(), shape.row_bytes);
        return Err(KernelError::RowBytes { format: shape.format, row, got, want });
    }
    match blocks::first_not_finite(shape.format, bytes) {
        Some(col) => Err(named(KernelError::NotFinite { row, col }, source)),
        None => Ok(()),
    }
}

impl std::fmt::Debug for PackedMatrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kept = if self.packed_groups().is_some() { "" } else { " mapped" };
        write!(f, "PackedMatrix({} x {} {}{kept})", self.shape.rows, self.shape.cols, self.shape.format)
    }
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
