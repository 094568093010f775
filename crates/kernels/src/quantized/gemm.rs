//! Prefill: a superblock of two groups is unpacked into the first-level cache and used for all rows of the tile.
#![allow(clippy::needless_range_loop)] // units and rows index several arrays at once, in unrolled loops

use super::planes::Planes;
use super::scales::ScalePanel;
use super::{Quantized, unroll8};
use crate::activations::IntegerRow;
use crate::layout::{BLOCK, GROUP, LINE, SUPER};
use crate::simd::Simd;
use crate::tile::Tile;

/// A superblock of one group, unpacked.
#[repr(C, align(64))]
struct Panel {
    pairs: [[[i16; 2]; GROUP]; SUPER / 2], // (quad and parity, row, two weights), offset removed, times factor
    scales: ScalePanel,
}

impl Panel {
    const ZERO: Panel = Panel { pairs: [[[0; 2]; GROUP]; SUPER / 2], scales: ScalePanel::ZERO };

    /// Unpacks a superblock of `blocks` blocks.
    ///
    /// # Safety
    /// The machine has the instructions of `S`; `from` is good for the superblock.
    #[inline(always)]
    unsafe fn fill<S: Simd, Q: Quantized>(&mut self, from: *const u8, blocks: usize) {
        let layout = Q::LAYOUT;
        // SAFETY: offsets stay inside the superblock and the panel.
        unsafe {
            self.scales.fill::<S, Q>(from, blocks);
            let high = from.add(layout.scale_bytes(blocks));
            let start = Planes { high, low: high.add(layout.high_bytes(blocks)) };
            let offset = S::splat16(layout.offset as i16);
            let subs = BLOCK / layout.sub;
            for part in 0..GROUP / S::LANES {
                let at = 4 * S::LANES * part;
                let mut planes = Planes { high: start.high.add(at), low: start.low.add(at) };
                for block in 0..blocks {
                    let mut factors = [S::splat32(0); 2]; // of the block's sub-blocks, in both halves of a lane
                    for sub in (0..subs).filter(|_| layout.has_factors()) {
                        let factor = self.scales.factor::<S>(block * subs + sub, part * S::LANES);
                        factors[sub] = S::or(S::and(factor, S::splat32(0xffff)), S::shl32(factor, 16));
                    }
                    let out = self.pairs.as_mut_ptr().add(block * BLOCK / 2).cast::<u8>().add(at);
                    unroll8!(QUAD => {
                        let mut even = S::sub16(planes.pairs::<S, Q>(QUAD, 0), offset);
                        let mut odd = S::sub16(planes.pairs::<S, Q>(QUAD, 1), offset);
                        if layout.has_factors() {
                            let factor = factors[QUAD * 4 / layout.sub];
                            (even, odd) = (S::mul16(even, factor), S::mul16(odd, factor));
                        }
                        S::store(out.add(2 * QUAD * LINE), even);
                        S::store(out.add((2 * QUAD + 1) * LINE), odd);
                    });
                    planes = planes.skip::<Q>(1);
                }
            }
        }
    }
}

/// Activation rows of a tile, at most: the sums of one pair of groups then stay in the first-level cache.
pub(crate) const TILE_ROWS: usize = 96;
/// Groups whose panels are used together: two fill the vectors of AVX-512, and the first-level cache holds them.
const PANELS: usize = 2;

/// Sums of a tile on their way: they stay in the first-level cache while superblocks go by.
#[repr(C, align(64))]
struct TileSums([[[f32; GROUP]; PANELS]; TILE_ROWS]); // (activation row, group, row)

/// Product of a tile: `UNITS` vectors of outputs by `ROWS` activation rows in registers.
///
/// # Safety
/// As for [`TileKernel`](crate::tile::TileKernel), with the instructions of `S`; the tile has at most [`TILE_ROWS`]
/// activation rows.
#[inline(always)]
pub(crate) unsafe fn gemm<S: Simd, Q: Quantized, const UNITS: usize, const ROWS: usize>(tile: &Tile<'_>) {
    let layout = Q::LAYOUT;
    let cols = tile.w.cols();
    let mut panels = [const { Panel::ZERO }; PANELS];
    let mut sums = TileSums([[[0.0; GROUP]; PANELS]; TILE_ROWS]);
    let end = tile.first_group + tile.groups;
    for group in (tile.first_group..end).step_by(PANELS) {
        let groups = PANELS.min(end - group);
        sums.0[..tile.rows].fill([[0.0; GROUP]; PANELS]);
        let mut super_at = 0;
        for first_col in (0..cols).step_by(SUPER) {
            let blocks = SUPER.min(cols - first_col) / BLOCK;
            // SAFETY: superblocks and groups are those of the matrix; rows those of the tile.
            unsafe {
                for (which, panel) in panels[..groups].iter_mut().enumerate() {
                    panel.fill::<S, Q>(tile.w.group(group + which).as_ptr().add(super_at), blocks);
                }
                let step = UNITS * S::LANES;
                for at in (0..groups * GROUP).step_by(step) {
                    let strip = Strip { panels: &panels, at, first_block: first_col / BLOCK, blocks };
                    if at + step <= groups * GROUP {
                        strip.all_rows::<S, Q, UNITS, ROWS>(tile, &mut sums);
                    } else {
                        strip.all_rows::<S, Q, 1, ROWS>(tile, &mut sums);
                    }
                }
            }
            super_at += layout.super_bytes(blocks);
        }
        for row in 0..tile.rows {
            for which in 0..groups {
                // SAFETY: by the contract.
                unsafe { tile.store_vectors::<S>(group + which, tile.first_row + row, &sums.0[row][which]) };
            }
        }
    }
}

/// Outputs from `at` on of two unpacked groups, over one superblock.
struct Strip<'a> {
    panels: &'a [Panel; PANELS],
    at: usize,          // first output, of the 32 of both groups
    first_block: usize, // of the activation rows
    blocks: usize,
}

impl Strip<'_> {
    /// All rows of the tile, `ROWS` at a time, then what is left.
    ///
    /// # Safety
    /// As for [`gemm`].
    #[inline(always)]
    unsafe fn all_rows<S: Simd, Q: Quantized, const UNITS: usize, const ROWS: usize>(
        &self,
        tile: &Tile<'_>,
        sums: &mut TileSums,
    ) {
        let mut row = 0;
        // SAFETY: by the contract; rows stay inside the tile.
        unsafe {
            while row + ROWS <= tile.rows {
                self.rows::<S, Q, UNITS, ROWS>(tile, row, sums);
                row += ROWS;
            }
            while row + 2 <= tile.rows {
                self.rows::<S, Q, UNITS, 2>(tile, row, sums);
                row += 2;
            }
            if row < tile.rows {
                self.rows::<S, Q, UNITS, 1>(tile, row, sums);
            }
        }
    }

    /// Adds the products of rows `row..row + ROWS` of the tile to their sums.
    ///
    /// # Safety
    /// As for [`gemm`]; the rows are in the tile.
    #[inline(always)]
    unsafe fn rows<S: Simd, Q: Quantized, const UNITS: usize, const ROWS: usize>(
        &self,
        tile: &Tile<'_>,
        row: usize,
        sums: &mut TileSums,
    ) {
        let layout = Q::LAYOUT;
        // SAFETY: outputs `at..at + UNITS * LANES` are in the panels, rows in the tile, blocks in the activations.
        unsafe {
            let x: [IntegerRow<'_>; ROWS] =
                std::array::from_fn(|r| tile.x.integer_row(tile.first_row + row + r));
            let integers: [*const i16; ROWS] =
                std::array::from_fn(|r| x[r].pairs.as_ptr().add(self.first_block * BLOCK));
            // Sixteen outputs are one panel's, so a unit is a panel and a lane.
            let place =
                |unit: usize| ((self.at + unit * S::LANES) / GROUP, (self.at + unit * S::LANES) % GROUP);
            let pairs: [*const u8; UNITS] = std::array::from_fn(|unit| {
                let (which, lane) = place(unit);
                self.panels[which].pairs.as_ptr().cast::<u8>().add(4 * lane)
            });
            let subs = BLOCK / layout.sub;
            for b in 0..self.blocks {
                let mut products = [[S::zero_sum(); ROWS]; UNITS];
                for pair in b * BLOCK / 2..(b + 1) * BLOCK / 2 {
                    let mut weights = [S::splat32(0); UNITS];
                    for unit in 0..UNITS {
                        weights[unit] = S::load(pairs[unit].add(pair * LINE));
                    }
                    for r in 0..ROWS {
                        let x = S::splat_pair(integers[r].add(2 * pair));
                        for unit in 0..UNITS {
                            products[unit][r] = S::dot(products[unit][r], weights[unit], x);
                        }
                    }
                }
                let block = self.first_block + b;
                for unit in 0..UNITS {
                    let (which, lane) = place(unit);
                    let scales = &self.panels[which].scales;
                    let scale = scales.scale::<S, Q>(b, lane);
                    for r in 0..ROWS {
                        let to = sums.0[row + r][which].as_mut_ptr().add(lane);
                        let x_scale = S::splat_f32(*x[r].scales.get_unchecked(block));
                        let total = S::to_float(S::total(products[unit][r]));
                        let mut sum = S::fma(total, S::mul(scale, x_scale), S::load_f32(to));
                        if layout.has_min() {
                            for sub in 0..subs {
                                let scaled_sum = S::splat_f32(x[r].scaled_sum(block, sub, subs));
                                sum = S::fnma(scales.min::<S>(b * subs + sub, lane), scaled_sum, sum);
                            }
                        }
                        S::store_f32(to, sum);
                    }
                }
            }
        }
    }
}
