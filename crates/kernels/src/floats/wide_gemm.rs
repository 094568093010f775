//! Prefill of float weights that are dear to widen: some inputs of two groups become f32 in the first-level cache and serve
//! all rows of the tile. For f16, that is; f32 and bf16 lose more at the ends of such short tiles (docs/kernels-log.md).
//!
//! The sums of a row are added up in the order of its inputs, as in decode, so they wait in memory while inputs go by.
#![allow(clippy::needless_range_loop)] // units and rows index several arrays at once, in unrolled loops

use super::Floats;
use crate::layout::{GROUP, LINE};
use crate::simd::Simd;
use crate::tile::{Ahead, Tile};

/// Groups that are widened together: two fill the vectors of AVX-512.
const GROUPS: usize = 2;
/// Inputs that are widened together: 16 KiB of weights, which leave half of a small first-level cache to activations.
/// Twice as many are a tenth slower where rows are long.
const INPUTS: usize = 128;
/// Activation rows of a tile, at most: then widening is some percent of the work.
pub(crate) const WIDE_TILE_ROWS: usize = 264;

/// Weights as f32.
#[repr(C, align(64))]
struct Panel([[[f32; GROUP]; GROUPS]; INPUTS]); // (input, group, row)

/// Sums of a tile while inputs go by.
#[repr(C, align(64))]
struct TileSums([[[f32; GROUP]; GROUPS]; WIDE_TILE_ROWS]); // (activation row, group, row)

/// Product of a tile: `UNITS` vectors of outputs by `ROWS` activation rows in registers.
///
/// # Safety
/// As for [`TileKernel`](crate::tile::TileKernel), with the instructions of `S`; the tile has at most
/// [`WIDE_TILE_ROWS`] activation rows.
#[inline(always)]
pub(crate) unsafe fn wide_gemm<S: Simd, W: Floats, const UNITS: usize, const ROWS: usize>(tile: &Tile<'_>) {
    let cols = tile.w.cols();
    let mut panel = std::mem::MaybeUninit::<Panel>::uninit();
    let mut sums = std::mem::MaybeUninit::<TileSums>::uninit();
    let end = tile.first_group + tile.groups;
    for group in (tile.first_group..end).step_by(GROUPS) {
        let groups = GROUPS.min(end - group);
        // SAFETY: the rows of the tile are few enough; what is read of panel and sums is written here first, and zeros
        // are floats. Inputs and groups are those of the matrix.
        unsafe {
            sums.as_mut_ptr().cast::<[[f32; GROUP]; GROUPS]>().write_bytes(0, tile.rows);
            let (panel, sums) = (panel.as_mut_ptr().cast::<f32>(), sums.as_mut_ptr().cast::<f32>());
            for first in (0..cols).step_by(INPUTS) {
                let inputs = INPUTS.min(cols - first);
                for which in 0..groups {
                    let from = tile.w.group(group + which).as_ptr().add(first / 2 * W::PAIR_BYTES);
                    widen::<S, W>(from, inputs, panel.add(which * GROUP));
                }
                let last = first + inputs == cols;
                let read = (first + inputs) / 2 * W::PAIR_BYTES;
                let next = if last { GROUPS * tile.w.group_bytes() } else { read };
                let ahead = INPUTS / 2 * W::PAIR_BYTES / LINE;
                let step = UNITS * S::LANES;
                for at in (0..groups * GROUP).step_by(step) {
                    let next = tile.w.group(group).as_ptr().wrapping_add(next);
                    let ahead = if at == 0 { ahead } else { 0 };
                    let strip = Strip { tile, panel, group, at, first, inputs, sums, last, next, ahead };
                    if at + step <= groups * GROUP {
                        strip.all_rows::<S, UNITS, ROWS>();
                    } else {
                        strip.all_rows::<S, 1, ROWS>(); // the last group of an odd number: seldom
                    }
                }
            }
        }
    }
}

/// Writes `inputs` weights of each row of a group as f32, from the even one at `from` on.
///
/// # Safety
/// The machine has the instructions of `S`; `from` is good for the inputs, `to` for as many rows of a [`Panel`].
#[inline(always)]
unsafe fn widen<S: Simd, W: Floats>(from: *const u8, inputs: usize, to: *mut f32) {
    for lane in (0..GROUP).step_by(S::LANES) {
        // SAFETY: by the contract; the last of an odd number is stored like the first of a pair.
        unsafe {
            for pair in 0..inputs / 2 {
                let weights = W::pair::<S>(from.add(pair * W::PAIR_BYTES), lane);
                for half in 0..2 {
                    S::store_f32(to.add((2 * pair + half) * GROUPS * GROUP + lane), weights[half]);
                }
            }
            if inputs % 2 == 1 {
                let weights = W::single::<S>(from.add(inputs / 2 * W::PAIR_BYTES), lane);
                S::store_f32(to.add((inputs - 1) * GROUPS * GROUP + lane), weights);
            }
        }
    }
}

/// Outputs from `at` on of two widened groups, over some inputs.
struct Strip<'a> {
    tile: &'a Tile<'a>,
    panel: *const f32, // as Panel
    group: usize,      // the first of the panel
    at: usize,         // first output, of the 32 of both groups
    first: usize,      // input
    inputs: usize,
    sums: *mut f32,  // as TileSums
    last: bool,      // inputs of the groups
    next: *const u8, // what will be widened next, of the first of both groups
    ahead: usize,    // lines of each to ask for meanwhile
}

impl Strip<'_> {
    /// All rows of the tile, `ROWS` at a time, then what is left.
    ///
    /// # Safety
    /// As for [`wide_gemm`].
    #[inline(always)]
    unsafe fn all_rows<S: Simd, const UNITS: usize, const ROWS: usize>(&self) {
        let rows = self.tile.rows;
        let mut ahead = Ahead::new(self.next, self.tile.w.group_bytes(), self.ahead, rows / ROWS);
        let mut row = 0;
        // SAFETY: by the contract; rows stay inside the tile.
        unsafe {
            while row + ROWS <= rows {
                ahead.fetch_some::<S>();
                self.rows::<S, UNITS, ROWS>(row);
                row += ROWS;
            }
            while row + 2 <= rows {
                self.rows::<S, UNITS, 2>(row);
                row += 2;
            }
            if row < rows {
                self.rows::<S, UNITS, 1>(row);
            }
        }
    }

    /// Adds the products of rows `row..row + ROWS` of the tile to their sums, and stores these if they are the last.
    ///
    /// # Safety
    /// As for [`wide_gemm`]; the rows are in the tile.
    #[inline(always)]
    unsafe fn rows<S: Simd, const UNITS: usize, const ROWS: usize>(&self, row: usize) {
        let first_row = self.tile.first_row + row;
        // SAFETY: outputs `at..at + UNITS * LANES` are in the panel, rows in the tile, inputs in the activations.
        unsafe {
            let x: [*const f32; ROWS] =
                std::array::from_fn(|r| self.tile.x.float_row(first_row + r).as_ptr().add(self.first));
            let sums_at =
                |unit: usize, r: usize| self.sums.add((row + r) * GROUPS * GROUP + self.at + unit * S::LANES);
            if self.last {
                self.tile.fetch_outputs::<S>(self.group * GROUP + self.at, UNITS * S::LANES, row, ROWS);
            }
            let mut sums = [[S::splat_f32(0.0); ROWS]; UNITS];
            for unit in 0..UNITS {
                for r in 0..ROWS {
                    sums[unit][r] = S::load_f32(sums_at(unit, r));
                }
            }
            // Four inputs at a time, or the addresses of eight rows are worked out anew for each.
            for quad in 0..self.inputs / 4 {
                for input in 4 * quad..4 * quad + 4 {
                    self.add_input::<S, UNITS, ROWS>(input, &x, &mut sums);
                }
            }
            for input in self.inputs / 4 * 4..self.inputs {
                self.add_input::<S, UNITS, ROWS>(input, &x, &mut sums);
            }
            for unit in 0..UNITS {
                let at = self.at + unit * S::LANES;
                for r in 0..ROWS {
                    if self.last {
                        let group = self.group + at / GROUP;
                        self.tile.store_lanes::<S>(group, first_row + r, at % GROUP, sums[unit][r]);
                    } else {
                        S::store_f32(sums_at(unit, r), sums[unit][r]);
                    }
                }
            }
        }
    }

    /// Adds the products of one input.
    ///
    /// # Safety
    /// As for [`Strip::rows`]; the rows of activations have the input.
    #[inline(always)]
    unsafe fn add_input<S: Simd, const UNITS: usize, const ROWS: usize>(
        &self,
        input: usize,
        x: &[*const f32; ROWS],
        sums: &mut [[S::Float; ROWS]; UNITS],
    ) {
        // SAFETY: by the contract.
        unsafe {
            let mut weights = [S::splat_f32(0.0); UNITS];
            for unit in 0..UNITS {
                let at = self.at + unit * S::LANES;
                weights[unit] = S::load_f32(self.panel.add(input * GROUPS * GROUP + at));
            }
            for r in 0..ROWS {
                let x = S::splat_f32(*x[r].add(input));
                for unit in 0..UNITS {
                    sums[unit][r] = S::fma(weights[unit], x, sums[unit][r]);
                }
            }
        }
    }
}
