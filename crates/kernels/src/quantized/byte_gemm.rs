//! Prefill by 8-bit activations: a superblock of two groups is unpacked into signed bytes in the first-level cache
//! and used for all rows of the tile.
#![allow(clippy::needless_range_loop)] // units and rows index several arrays at once, in unrolled loops

use super::byte_scales::ByteScales;
use super::planes::Planes;
use super::{Quantized, unroll8};
use crate::activations::ByteRows;
use crate::layout::{BLOCK, GROUP, LINE, SUPER, Scales};
use crate::simd::ByteProducts;
use crate::tile::{Ahead, Tile};

/// A superblock of one group, unpacked.
#[repr(C, align(64))]
struct Panel {
    quads: [[[i8; 4]; GROUP]; SUPER / 4], // (quad, row, four weights), offset removed, times a factor that is folded in;
    // where rows are multiplied by twos, both of a pair of quads as `pair_quads` leaves them
    starts: [[i32; GROUP]; 16], // (total, row): where a sum starts, to take the bias of the activations off
    scales: ByteScales,
}

impl Panel {
    /// Nothing unpacked yet.
    const EMPTY: Panel = Panel {
        quads: [[[0; 4]; GROUP]; SUPER / 4],
        starts: [[MAGIC.to_bits() as i32; GROUP]; 16],
        scales: ByteScales::ZERO,
    };

    /// Unpacks a superblock of `blocks` blocks.
    ///
    /// # Safety
    /// The machine has the instructions of `S`; `from` is good for the superblock.
    #[inline(always)]
    unsafe fn fill<S: ByteProducts, Q: Quantized>(&mut self, from: *const u8, blocks: usize) {
        let layout = Q::LAYOUT;
        // SAFETY: offsets stay inside the superblock and the panel.
        unsafe {
            self.scales.fill::<S, Q>(from, blocks);
            let high = from.add(layout.scale_bytes(blocks));
            let low = high.add(layout.high_bytes(blocks));
            for lane in (0..GROUP).step_by(S::LANES) {
                let mut planes = Planes { high: high.add(4 * lane), low: low.add(4 * lane) };
                for block in 0..blocks {
                    self.fill_block::<S, Q>(planes, block, lane);
                    planes = planes.skip::<Q>(1);
                }
            }
        }
    }

    /// Unpacks rows `lane..lane + LANES` of block `block`, the first of the planes.
    ///
    /// # Safety
    /// As for [`Panel::fill`], whose scales are there.
    #[inline(always)]
    #[allow(unused_assignments)] // the last of eight unrolled steps leaves values for a ninth
    unsafe fn fill_block<S: ByteProducts, Q: Quantized>(
        &mut self,
        planes: Planes,
        block: usize,
        lane: usize,
    ) {
        let layout = Q::LAYOUT;
        let (subs, quads_per_total) = (BLOCK / layout.sub, 8 / layout.byte_totals());
        // SAFETY: by the contract.
        unsafe {
            let offset = S::splat32(layout.offset.wrapping_mul(0x0101_0101));
            let lower = S::splat16(0xff);
            let mut factors = [S::splat32(0); 2]; // in both halves of a lane
            for sub in (0..subs).filter(|_| layout.folds_factors()) {
                let factor = self.scales.factor::<S>(block * subs + sub, lane);
                // Q3_K reaches 128, and never -128: its weights are negated here and again in `sign`.
                let factor = if negates::<Q>() { S::sub32(S::splat32(0), factor) } else { factor };
                factors[sub] = S::or(S::and(factor, S::splat32(0xffff)), S::shl32(factor, 16));
            }
            let out = self.quads.as_mut_ptr().add(block * BLOCK / 4).cast::<u8>().add(4 * lane);
            let of_bias = S::splat32(S::BIAS.wrapping_mul(0x0101_0101));
            let mut before = S::splat32(0); // the quad before
            let mut bias = S::zero_sum(); // what the bias of the activations adds: 128 times the weights
            unroll8!(QUAD => {
                let mut weights = planes.bytes::<S, Q>(QUAD);
                if layout.offset != 0 {
                    weights = S::sub8(weights, offset);
                }
                if layout.folds_factors() {
                    // The lower byte of a product depends on the lower bytes alone, so each half of a pair in turn.
                    let factor = factors[QUAD * 4 / layout.sub];
                    let even = S::mul16(weights, factor);
                    let odd = S::mul16(S::and(weights, S::splat16(0xff00_u16 as i16)), factor);
                    weights = S::or_and(odd, even, lower);
                }
                if !S::TWO_ROWS {
                    S::store(out.add(QUAD * LINE), weights);
                } else if QUAD % 2 == 1 {
                    let paired = S::pair_quads([before, weights]);
                    S::store(out.add((QUAD - 1) * LINE), paired[0]);
                    S::store(out.add(QUAD * LINE), paired[1]);
                }
                before = weights;
                if S::BIAS != 0 {
                    bias = S::dot_signed::<false>(bias, weights, of_bias);
                    if QUAD % quads_per_total == quads_per_total - 1 {
                        let total = block * layout.byte_totals() + QUAD / quads_per_total;
                        let to = self.starts.get_unchecked_mut(total).as_mut_ptr().add(lane);
                        S::store(to.cast(), S::sub32(S::splat32(MAGIC.to_bits() as i32), S::total(bias)));
                        bias = S::zero_sum();
                    }
                }
            });
        }
    }
}

/// Whether the panel holds weights with their signs turned.
const fn negates<Q: Quantized>() -> bool {
    matches!(Q::LAYOUT.scales, Scales::SixBit)
}

/// 1.5 · 2²³: an integer below 2²² added to its bits is that integer added to it as a float, so a total that starts there
/// needs no conversion: the first of a block is freed of it by its scale, in the same multiplication. Totals are at most
/// 32 · 128 · 127.
const MAGIC: f32 = 12_582_912.0;

/// Groups whose panels are used together: two fill the vectors of AVX-512, and the first-level cache holds them.
const PANELS: usize = 2;
/// Activation rows of a tile, at most: then unpacking is some percent of the work.
pub(crate) const BYTE_TILE_ROWS: usize = 264;

/// Sums of a tile while superblocks go by.
#[repr(C, align(64))]
struct TileSums([[[f32; GROUP]; PANELS]; BYTE_TILE_ROWS]); // (activation row, group, row)

/// Product of a tile: `UNITS` vectors of outputs by `ROWS` activation rows in registers.
///
/// # Safety
/// As for [`TileKernel`](crate::tile::TileKernel), with the instructions of `S`; the tile has at most
/// [`BYTE_TILE_ROWS`] activation rows.
#[inline(always)]
pub(crate) unsafe fn byte_gemm<S: ByteProducts, Q: Quantized, const UNITS: usize, const ROWS: usize>(
    tile: &Tile<'_>,
) {
    let layout = Q::LAYOUT;
    let cols = tile.w.cols();
    let mut panels = [const { Panel::EMPTY }; PANELS];
    let mut sums = std::mem::MaybeUninit::<TileSums>::uninit();
    let end = tile.first_group + tile.groups;
    for group in (tile.first_group..end).step_by(PANELS) {
        let groups = PANELS.min(end - group);
        // SAFETY: the rows of the tile are few enough; all that is read of the sums is written here first, and zeros
        // are floats. Superblocks and groups are those of the matrix.
        unsafe {
            sums.as_mut_ptr().cast::<[[f32; GROUP]; PANELS]>().write_bytes(0, tile.rows);
            let sums = sums.as_mut_ptr().cast::<f32>();
            let mut super_at = 0;
            for first_col in (0..cols).step_by(SUPER) {
                let blocks = SUPER.min(cols - first_col) / BLOCK;
                for (which, panel) in panels[..groups].iter_mut().enumerate() {
                    panel.fill::<S, Q>(tile.w.group(group + which).as_ptr().add(super_at), blocks);
                }
                super_at += layout.super_bytes(blocks);
                let last = first_col + SUPER >= cols;
                let next = if last { PANELS * tile.w.group_bytes() } else { super_at };
                let step = UNITS * S::LANES;
                for at in (0..groups * GROUP).step_by(step) {
                    let x = tile.x.byte_rows(tile.first_row);
                    let next = tile.w.group(group).as_ptr().wrapping_add(next);
                    let first_block = first_col / BLOCK;
                    let strip =
                        Strip { tile, panels: &panels, group, at, x, first_block, blocks, sums, last, next };
                    if at + step <= groups * GROUP {
                        strip.all_rows::<S, Q, UNITS, ROWS>();
                    } else {
                        strip.all_rows::<S, Q, 1, 2>(); // the last group of an odd number: seldom
                    }
                }
            }
        }
    }
}

/// Outputs from `at` on of two unpacked groups, over one superblock.
struct Strip<'a> {
    tile: &'a Tile<'a>,
    panels: &'a [Panel; PANELS],
    group: usize,       // of the first panel
    at: usize,          // first output, of the 32 of both groups
    x: ByteRows,        // from the first row of the tile on
    first_block: usize, // of the activation rows
    blocks: usize,
    sums: *mut f32,  // as TileSums
    last: bool,      // superblock of the groups
    next: *const u8, // what will be unpacked next, of the first of both groups
}

impl Strip<'_> {
    /// All rows of the tile, `ROWS` at a time, then what is left.
    ///
    /// # Safety
    /// As for [`byte_gemm`].
    #[inline(always)]
    unsafe fn all_rows<S: ByteProducts, Q: Quantized, const UNITS: usize, const ROWS: usize>(&self) {
        let rows = self.tile.rows;
        let lines = Q::LAYOUT.super_bytes(self.blocks).div_ceil(LINE);
        let is_first = self.at == 0; // strip of these superblocks
        let mut ahead =
            Ahead::new(self.next, self.tile.w.group_bytes(), if is_first { lines } else { 0 }, rows / ROWS);
        let mut row = 0;
        // SAFETY: by the contract; rows stay inside the tile.
        unsafe {
            while row + ROWS <= rows {
                ahead.fetch_some::<S>();
                self.rows::<S, Q, UNITS, ROWS>(row);
                self.store::<S, UNITS>(row, ROWS);
                row += ROWS;
            }
            while row + 2 <= rows {
                self.rows::<S, Q, UNITS, 2>(row);
                self.store::<S, UNITS>(row, 2);
                row += 2;
            }
            if row < rows {
                self.rows::<S, Q, UNITS, 1>(row);
                self.store::<S, UNITS>(row, 1);
            }
        }
    }

    /// Stores the outputs of rows `row..row + rows` of the tile, if these are their last products: while the next rows are
    /// multiplied, so that nothing waits for the lines they lie on.
    ///
    /// # Safety
    /// As for [`byte_gemm`].
    #[inline(always)]
    unsafe fn store<S: ByteProducts, const UNITS: usize>(&self, row: usize, rows: usize) {
        if !self.last {
            return;
        }
        for row in row..row + rows {
            for unit in 0..UNITS {
                let at = self.at + unit * S::LANES;
                // SAFETY: by the contract; the sums were just written.
                unsafe {
                    let sums = S::load_f32(self.sums.add(row * PANELS * GROUP + at));
                    self.tile.store_lanes::<S>(
                        self.group + at / GROUP,
                        self.tile.first_row + row,
                        at % GROUP,
                        sums,
                    );
                }
            }
        }
    }

    /// Adds the products of rows `row..row + ROWS` of the tile to their sums, which wait in registers.
    ///
    /// # Safety
    /// As for [`byte_gemm`]; the rows are in the tile.
    #[inline(always)]
    unsafe fn rows<S: ByteProducts, Q: Quantized, const UNITS: usize, const ROWS: usize>(&self, row: usize) {
        let layout = Q::LAYOUT;
        let (totals, subs) = (layout.byte_totals(), BLOCK / layout.sub);
        // SAFETY: outputs `at..at + UNITS * LANES` are in the panels, rows in the tile, blocks in the activations.
        unsafe {
            // Sixteen outputs are one panel's, so a unit is a panel and a lane.
            let place =
                |unit: usize| ((self.at + unit * S::LANES) / GROUP, (self.at + unit * S::LANES) % GROUP);
            let sums_at = |unit: usize, r: usize| {
                let (which, lane) = place(unit);
                self.sums.add(((row + r) * PANELS + which) * GROUP + lane)
            };
            if self.last {
                self.tile.fetch_outputs::<S>(self.group * GROUP + self.at, UNITS * S::LANES, row, ROWS);
            }
            let mut sums = [[S::splat_f32(0.0); ROWS]; UNITS];
            for unit in 0..UNITS {
                for r in 0..ROWS {
                    sums[unit][r] = S::load_f32(sums_at(unit, r));
                }
            }
            let first_x = row * self.x.blocks + self.first_block;
            for b in 0..self.blocks {
                let mut scaled = [[S::splat_f32(0.0); ROWS]; UNITS]; // totals times their scales
                // Both totals first, as twice as many chains of sums.
                let mut products = [[[S::zero_sum(); ROWS]; UNITS]; 2];
                for total in 0..totals {
                    products[total] = self.total::<S, Q, UNITS, ROWS>(row, b, total);
                }
                for total in 0..totals {
                    for unit in 0..UNITS {
                        let (which, lane) = place(unit);
                        let scale = self.panels[which].scales.scale::<S, Q>(b * totals + total, lane);
                        // Exact: a scale has 19 bits, MAGIC two. So the sum is rounded once, as by a product.
                        let back = S::mul(scale, S::splat_f32(-MAGIC));
                        for r in 0..ROWS {
                            let sum = S::as_float(S::total(products[total][unit][r]));
                            scaled[unit][r] = if total == 0 {
                                S::fma(sum, scale, back)
                            } else {
                                S::fma(S::add(sum, S::splat_f32(-MAGIC)), scale, scaled[unit][r])
                            };
                        }
                    }
                }
                for r in 0..ROWS {
                    let block = first_x + r * self.x.blocks + b;
                    let x_scale = S::splat_f32(*self.x.scales.add(block));
                    for unit in 0..UNITS {
                        sums[unit][r] = if negates::<Q>() {
                            S::fnma(scaled[unit][r], x_scale, sums[unit][r])
                        } else {
                            S::fma(scaled[unit][r], x_scale, sums[unit][r])
                        };
                    }
                    for sub in (0..subs).filter(|_| layout.has_min()) {
                        let which_sum = if subs == 1 { 2 } else { sub };
                        let scaled_sum = S::splat_f32(*self.x.scaled_sums.add(3 * block + which_sum));
                        for unit in 0..UNITS {
                            let (which, lane) = place(unit);
                            let min = self.panels[which].scales.min::<S>(b * subs + sub, lane);
                            sums[unit][r] = S::fnma(min, scaled_sum, sums[unit][r]);
                        }
                    }
                }
            }
            for unit in 0..UNITS {
                for r in 0..ROWS {
                    S::store_f32(sums_at(unit, r), sums[unit][r]);
                }
            }
        }
    }

    /// Integer total `total` of block `b`, of rows `row..row + ROWS`.
    ///
    /// # Safety
    /// As for [`Strip::rows`].
    #[inline(always)]
    unsafe fn total<S: ByteProducts, Q: Quantized, const UNITS: usize, const ROWS: usize>(
        &self,
        row: usize,
        b: usize,
        total: usize,
    ) -> [[S::Sum; ROWS]; UNITS] {
        let layout = Q::LAYOUT;
        let (totals, stride) = (layout.byte_totals(), self.x.blocks * BLOCK);
        let small = layout.low_bits < 8 && !negates::<Q>();
        // SAFETY: by the contract.
        unsafe {
            let x = if S::BIAS == 0 { self.x.bytes.cast() } else { self.x.biased };
            let x = x.add(row * stride + (self.first_block + b) * BLOCK + total * BLOCK / totals);
            let mut products = [[S::zero_sum(); ROWS]; UNITS];
            let mut panels = [std::ptr::null(); UNITS];
            for unit in 0..UNITS {
                let at = self.at + unit * S::LANES;
                let (panel, lane) = (&self.panels[at / GROUP], at % GROUP);
                let starts = panel.starts.get_unchecked(b * totals + total);
                products[unit] = [S::sums_from(starts.as_ptr().add(lane)); ROWS];
                let first_quad = (b * totals + total) * (8 / totals);
                panels[unit] = panel.quads.as_ptr().add(first_quad).cast::<u8>().add(4 * lane);
            }
            if S::TWO_ROWS {
                return Self::by_two_rows::<S, UNITS, ROWS>(products, panels, 8 / totals, x, stride);
            }
            for quad in 0..8 / totals {
                let mut weights = [S::splat32(0); UNITS];
                for unit in 0..UNITS {
                    weights[unit] = S::load(panels[unit].add(quad * LINE));
                }
                for r in 0..ROWS {
                    let x = S::splat_pair(x.add(r * stride + 4 * quad).cast());
                    for unit in 0..UNITS {
                        products[unit][r] = if small {
                            S::dot_signed::<true>(products[unit][r], weights[unit], x)
                        } else {
                            S::dot_signed::<false>(products[unit][r], weights[unit], x)
                        };
                    }
                }
            }
            products
        }
    }

    /// The rest of [`Strip::total`] where two rows of activations are multiplied at a time: adds the products of `quads` quads
    /// of each panel and of rows `stride` bytes apart.
    ///
    /// # Safety
    /// As for [`Strip::rows`].
    #[inline(always)]
    unsafe fn by_two_rows<S: ByteProducts, const UNITS: usize, const ROWS: usize>(
        mut products: [[S::Sum; ROWS]; UNITS],
        panels: [*const u8; UNITS],
        quads: usize,
        x: *const u8,
        stride: usize,
    ) -> [[S::Sum; ROWS]; UNITS] {
        const { assert!(!S::TWO_ROWS || S::BIAS == 0, "sums start alike in all lanes") };
        let mut pairs = products.map(|of_unit| [[of_unit[0]; 2]; ROWS]); // (unit, pair of rows, ...): the first half is used
        // SAFETY: by the contract.
        unsafe {
            for quad in (0..quads).step_by(2) {
                for first in (0..ROWS).step_by(2) {
                    // A row alone is multiplied twice.
                    let second = (first + 1).min(ROWS - 1);
                    let rows = [first, second].map(|r| x.add(r * stride + 4 * quad));
                    for unit in 0..UNITS {
                        let at = panels[unit].add(quad * LINE);
                        let weights = [S::load(at), S::load(at.add(LINE))];
                        let pair = &mut pairs[unit][first / 2];
                        *pair = S::dot_two_rows(*pair, weights, rows);
                    }
                }
            }
            for unit in 0..UNITS {
                for first in (0..ROWS).step_by(2) {
                    let parted = S::part_rows(pairs[unit][first / 2]);
                    for (r, sum) in (first..ROWS).zip(parted) {
                        products[unit][r] = sum;
                    }
                }
            }
        }
        products
    }
}
