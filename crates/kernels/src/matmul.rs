//! Matrix products: cutting jobs into tiles and handing them to the team.

use std::ops::Range;

use crate::activations::{Activations, Form};
use crate::error::KernelError;
use crate::packed::{FirstError, Groups, PackedMatrix};
use crate::shared_slice::SharedSlice;
use crate::table::KernelTable;
use crate::team::Team;
use crate::tile::{Tile, TileKernel};

/// One product `out = x * w^T + bias`, or `out += x * w^T + bias`.
pub struct MatmulJob<'a> {
    /// The weights, `(w.rows, w.cols)`.
    pub w: &'a PackedMatrix,
    /// Added to each row, `(w.rows)`.
    pub bias: Option<&'a [f32]>,
    /// `(rows, w.rows)`.
    pub out: &'a mut [f32],
    /// Whether to add to what `out` holds (the residual stream) instead of replacing it.
    pub add: bool,
}

/// The kernels of one weight format.
#[derive(Clone, Copy)]
pub(crate) struct MatmulKernels {
    pub gemv: TileKernel, // few activation rows: bound by memory
    pub gemm: TileKernel, // many: bound by arithmetic
    pub form: Form,       // of the activations that both read
    pub tile_rows: usize, // activation rows that gemm takes at most
}

/// From this many activation rows on, unpacking weights once for all of them pays.
const MANY_ROWS: usize = 4;
/// Weight bytes of a decode tile, at most, beyond four groups: 4 µs of one thread's memory time, long against the 0.1 µs
/// that a tile costs, short against a region, at whose end threads wait for the last tile.
const TILE_BYTES: usize = 64 << 10;
/// Decode tiles of each thread, at least, where there are as many groups.
const SHARE_TILES: usize = 8;
/// Groups that decode kernels take together, or a multiple of that.
const GROUPS_AT_ONCE: usize = 4;
/// Groups of a prefill tile.
const TILE_GROUPS: usize = 4;
/// Bytes of groups of a mapped matrix that are packed before they are multiplied: an eighth of a second-level cache, which
/// also holds what they are packed from.
const BAND_BYTES: usize = 256 << 10;

/// Multiplies the rows of `x` by every job's weights, in one region for all of them.
///
/// The result of a row is the same, bit for bit, whatever rows are beside it and however many threads there are.
/// Allocates nothing, but for bands at the first product of a mapped matrix.
///
/// # Errors
/// [`Shape`](KernelError::Shape) when a job does not fit the activations, [`NotPrepared`](KernelError::NotPrepared)
/// when these lack the form that a job's format needs. Nothing is written then. What a mapped matrix cannot be packed
/// for, which leaves outputs undefined: [`NotFiniteIn`](KernelError::NotFiniteIn), [`RowBytes`](KernelError::RowBytes).
pub fn matmul(
    table: &KernelTable,
    team: &Team,
    x: &Activations,
    jobs: &mut [MatmulJob<'_>],
) -> Result<(), KernelError> {
    for job in jobs.iter() {
        check(table, x, job.w, x.rows(), job.out.len())?;
        reserve(team, job.w)?;
        if let Some(bias) = job.bias.filter(|bias| bias.len() != job.w.rows()) {
            return Err(KernelError::Shape {
                what: "elements of a bias",
                got: bias.len(),
                want: job.w.rows(),
            });
        }
    }
    // At most a handful of jobs share an input (q, k, v); more run a few at a time.
    for jobs in jobs.chunks_mut(MAX_JOBS) {
        let mut parts = [const { None::<Part<'_>> }; MAX_JOBS];
        for (part, job) in parts.iter_mut().zip(jobs) {
            let out = SharedSlice::new(job.out);
            *part = Some(Part::new(table, job.w, x, 0..x.rows(), out, job.bias, job.add, team.threads()));
        }
        run(table, team, x, || parts.iter().flatten())?;
    }
    Ok(())
}

/// Memory for as many groups as are packed at once, if `w` is mapped.
fn reserve(team: &Team, w: &PackedMatrix) -> Result<(), KernelError> {
    match w.packed_groups() {
        Some(_) => Ok(()),
        None => team.bands().reserve(band_groups(w) * w.group_bytes()),
    }
}

/// Groups of a mapped matrix that are packed at once: kernels take them in pairs at least.
fn band_groups(w: &PackedMatrix) -> usize {
    (BAND_BYTES / w.group_bytes().max(1)).clamp(2, TILE_GROUPS)
}

/// Jobs of one region.
const MAX_JOBS: usize = 8;

/// Multiplies each expert's weights by its own rows of `x`: rows `groups[e]` by `experts[e]`, into the same rows of
/// `out`. Groups follow one another, may be empty, and cover the rows of `x`. All in one region.
///
/// # Errors
/// As for [`matmul`]; also [`Shape`](KernelError::Shape) when experts differ in shape or groups do not line up.
pub fn matmul_experts(
    table: &KernelTable,
    team: &Team,
    x: &Activations,
    experts: &[PackedMatrix],
    groups: &[Range<usize>],
    out: &mut [f32], // (rows, w.rows)
) -> Result<(), KernelError> {
    let shape = |what, got, want| Err(KernelError::Shape { what, got, want });
    if groups.len() != experts.len() {
        return shape("row groups of experts", groups.len(), experts.len());
    }
    let mut next = 0;
    for group in groups {
        if group.start != next || group.end < group.start {
            return shape("first row of an expert's group", group.start, next);
        }
        next = group.end;
    }
    if next != x.rows() {
        return shape("rows in all experts' groups", next, x.rows());
    }
    let rows = experts.first().map_or(0, PackedMatrix::rows);
    for w in experts {
        check(table, x, w, x.rows(), out.len())?;
        if w.rows() != rows {
            return shape("rows of an expert", w.rows(), rows);
        }
        reserve(team, w)?;
    }
    let out = SharedSlice::new(out);
    let threads = team.threads();
    run(table, team, x, || {
        let busy = experts.iter().zip(groups).filter(|(_, group)| !group.is_empty());
        busy.map(|(w, group)| Part::new(table, w, x, group.clone(), out, None, false, threads))
    })
}

fn check(
    table: &KernelTable,
    x: &Activations,
    w: &PackedMatrix,
    rows: usize,
    out: usize,
) -> Result<(), KernelError> {
    if w.cols() != x.cols() {
        return Err(KernelError::Shape { what: "columns of activations", got: x.cols(), want: w.cols() });
    }
    if !x.is_prepared_for(table.form(w.format())) {
        return Err(KernelError::NotPrepared { format: w.format() });
    }
    let want = rows * w.rows();
    if out != want {
        return Err(KernelError::Shape { what: "elements of a product", got: out, want });
    }
    Ok(())
}

/// A product and how it is cut into tiles.
#[derive(Clone)]
struct Part<'a> {
    w: &'a PackedMatrix,
    few: bool, // rows, so that decode kernels serve
    rows: Range<usize>,
    out: SharedSlice<'a, f32>,
    bias: Option<&'a [f32]>,
    add: bool,
    tile_groups: usize,
    tile_rows: usize,
}

/// Groups of a decode tile: as many as fill [`TILE_BYTES`], fewer where some threads would have few tiles to take from
/// each other at the end.
fn decode_groups(groups: usize, group_bytes: usize, threads: usize) -> usize {
    let most = (TILE_BYTES / group_bytes.max(1)).min(groups / (SHARE_TILES * threads));
    most.next_multiple_of(GROUPS_AT_ONCE).max(GROUPS_AT_ONCE)
}

impl<'a> Part<'a> {
    #[allow(clippy::too_many_arguments)] // the fields of a job and what they are cut for
    fn new(
        table: &KernelTable,
        w: &'a PackedMatrix,
        x: &Activations,
        rows: Range<usize>,
        out: SharedSlice<'a, f32>,
        bias: Option<&'a [f32]>,
        add: bool,
        threads: usize,
    ) -> Part<'a> {
        let kernels = &table.matmul[w.format() as usize];
        let few = rows.len() < MANY_ROWS && x.serves_decode(kernels.form);
        let (tile_groups, tile_rows) = match rows.len() {
            len if few => (decode_groups(w.groups(), w.group_bytes(), threads), len),
            // In sixes or eights, as kernels take them.
            many => (TILE_GROUPS, many.div_ceil(many.div_ceil(kernels.tile_rows)).next_multiple_of(24)),
        };
        Part { w, few, rows, out, bias, add, tile_groups, tile_rows }
    }

    fn row_tiles(&self) -> usize {
        self.rows.len().div_ceil(self.tile_rows.max(1))
    }

    fn tiles(&self) -> usize {
        self.w.groups().div_ceil(self.tile_groups) * self.row_tiles()
    }

    /// Computes tile `i`: row tiles of the same groups follow one another, so that their weights are still near.
    fn run_tile(
        &self,
        table: &KernelTable,
        team: &Team,
        (i, worker): (usize, usize),
        x: &Activations,
    ) -> Result<(), KernelError> {
        let first_group = i / self.row_tiles() * self.tile_groups;
        let groups = first_group..(first_group + self.tile_groups).min(self.w.groups());
        let first_row = self.rows.start + i % self.row_tiles() * self.tile_rows;
        let rows = first_row..(first_row + self.tile_rows).min(self.rows.end);
        if let Some(weights) = self.w.packed_groups() {
            self.multiply(table, weights, groups, rows, x);
            return Ok(());
        }
        let at_once = band_groups(self.w);
        team.bands().with(worker, |band| {
            for first in groups.clone().step_by(at_once) {
                let some = first..(first + at_once).min(groups.end);
                let weights = self.w.pack_groups(some.clone(), band)?;
                self.multiply(table, weights, some, rows.clone(), x);
            }
            Ok(())
        })
    }

    fn multiply(
        &self,
        table: &KernelTable,
        w: Groups<'_>,
        groups: Range<usize>,
        rows: Range<usize>,
        x: &Activations,
    ) {
        let kernels = &table.matmul[w.format() as usize];
        let kernel = if self.few { kernels.gemv } else { kernels.gemm };
        let tile = Tile {
            w,
            first_group: groups.start,
            groups: groups.len(),
            x,
            first_row: rows.start,
            rows: rows.len(),
            out: &self.out,
            bias: self.bias,
            add: self.add,
            walk: table.walk,
        };
        // SAFETY: the table holds only functions that this machine runs; shapes and preparation were checked before
        // the region opened; tiles of one part, and the outputs of different parts, are disjoint.
        unsafe { kernel(&tile) };
    }
}

/// Runs all tiles of the parts that `parts()` yields, the same each time.
fn run<'a, P, I>(table: &KernelTable, team: &Team, x: &Activations, parts: P) -> Result<(), KernelError>
where
    P: Fn() -> I + Sync,
    I: Iterator,
    I::Item: std::borrow::Borrow<Part<'a>>,
{
    use std::borrow::Borrow;
    let tiles = parts().map(|part| part.borrow().tiles()).sum();
    let first_error = FirstError::default();
    team.run(tiles, &|tile, worker| {
        let mut i = tile;
        for part in parts() {
            let part = part.borrow();
            if i < part.tiles() {
                if let Err(error) = part.run_tile(table, team, (i, worker), x) {
                    first_error.report(tile, error);
                }
                return;
            }
            i -= part.tiles();
        }
    });
    first_error.or(())
}

#[cfg(test)]
mod tests {
    use roofline_weights::{Format, blocks};

    use super::*;
    use crate::isa::Isa;
    use crate::layout::SUPER;
    use crate::table::Arithmetic::{Exact, Fast};
    use crate::tile::Walk;

    #[test]
    fn decode_tiles_are_whole_steps_of_the_kernels_and_leave_something_to_share() {
        for threads in [1, 2, 8, 64] {
            for group_bytes in [1, 9216, 17408, 1 << 20] {
                for groups in [0, 1, 4, 64, 176, 9496] {
                    let tile = decode_groups(groups, group_bytes, threads);
                    let name = format!("{groups} groups of {group_bytes} bytes, {threads} threads");
                    assert!(tile > 0 && tile.is_multiple_of(GROUPS_AT_ONCE), "{name}");
                    let small = tile == GROUPS_AT_ONCE;
                    assert!(small || (tile - GROUPS_AT_ONCE) * group_bytes < TILE_BYTES, "{name}");
                    assert!(small || (tile - GROUPS_AT_ONCE) * SHARE_TILES * threads < groups, "{name}");
                }
            }
        }
    }

    /// Odd numbers of groups and of inputs, three rows: whichever walk a machine prefers, the other one runs here too.
    #[test]
    fn the_walk_of_decode_changes_no_bit() {
        let (rows, cols, x_rows) = (7 * 16 + 3, 5 * 32, 3); // K formats have whole superblocks
        let team = Team::new(2).unwrap();
        let x: Vec<f32> = (0..x_rows * cols).map(|i| (i as f32 * 0.11).cos()).collect();
        let mut activations = Activations::with_capacity(x_rows, SUPER).unwrap();
        for (isa, arithmetic) in Isa::available().flat_map(|isa| [(isa, Fast), (isa, Exact)]) {
            let mut table = KernelTable::detect_for(Some(isa), arithmetic).unwrap();
            for format in Format::ALL {
                let cols = cols.next_multiple_of(format.block_len());
                let weights: Vec<f32> = (0..rows * cols).map(|i| (i as f32 * 0.37).sin()).collect();
                let mut file = Vec::new();
                blocks::encode(format, &weights, None, &mut file).unwrap();
                let row_bytes = file.len() / rows;
                let row = |row: usize| &file[row * row_bytes..][..row_bytes];
                let w = PackedMatrix::pack(format, rows, cols, &row, &team).unwrap();
                let x: Vec<f32> = x.iter().copied().cycle().take(x_rows * cols).collect();
                activations.set(&table, &team, &x, x_rows, cols, &[format]).unwrap();
                let outputs = [Walk::Abreast, Walk::InLine].map(|walk| {
                    table.walk = walk;
                    let mut out = vec![f32::NAN; x_rows * rows];
                    let job = MatmulJob { w: &w, bias: None, out: &mut out, add: false };
                    matmul(&table, &team, &activations, &mut [job]).unwrap();
                    out.iter().map(|x| x.to_bits()).collect::<Vec<_>>()
                });
                assert_eq!(outputs[0], outputs[1], "{format} {isa} {arithmetic}");
                assert!(outputs[0].iter().any(|bits| *bits != 0), "{format}");
            }
        }
    }
}
