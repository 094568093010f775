//! Decode by 8-bit activations: weights are unpacked in registers, used once, and asked for well ahead of that.
#![allow(clippy::needless_range_loop)] // units and rows index several arrays at once, in unrolled loops

use super::byte_scales::ByteScales;
use super::planes::Planes;
use super::{Quantized, unroll8};
use crate::activations::IntegerRow;
use crate::layout::{BLOCK, GROUP, LINE, SUPER};
use crate::simd::ByteProducts;
use crate::tile::{Tile, ahead};

/// Product of a tile, row by row, `UNITS` vectors of outputs at a time.
///
/// # Safety
/// As for [`TileKernel`](crate::tile::TileKernel), with the instructions of `S`.
#[inline(always)]
pub(crate) unsafe fn byte_gemv<S: ByteProducts, Q: Quantized, const UNITS: usize>(tile: &Tile<'_>) {
    let groups_at_once = UNITS * S::LANES / GROUP;
    let end = tile.first_group + tile.groups;
    for row in tile.first_row..tile.first_row + tile.rows {
        let x = tile.x.integer_row(row);
        let mut group = tile.first_group;
        // SAFETY: by the contract of this function; groups stay below `end`.
        unsafe {
            while group + groups_at_once <= end {
                units::<S, Q, UNITS>(tile, group, row, x);
                group += groups_at_once;
            }
            while group < end {
                match GROUP / S::LANES {
                    1 => units::<S, Q, 1>(tile, group, row, x),
                    2 => units::<S, Q, 2>(tile, group, row, x),
                    _ => units::<S, Q, 4>(tile, group, row, x),
                }
                group += 1;
            }
        }
    }
}

/// One activation row by the groups from `group` on that `UNITS` vectors cover.
///
/// # Safety
/// As for [`byte_gemv`]; the groups are in the tile.
#[inline(always)]
unsafe fn units<S: ByteProducts, Q: Quantized, const UNITS: usize>(
    tile: &Tile<'_>,
    group: usize,
    row: usize,
    x: IntegerRow<'_>,
) {
    let layout = Q::LAYOUT;
    let (cols, group_bytes) = (tile.w.cols(), tile.w.group_bytes());
    let per_group = GROUP / S::LANES;
    let block_bytes = layout.super_bytes(SUPER / BLOCK) / (SUPER / BLOCK);
    let first = tile.w.group(group).as_ptr();
    let mut scales = [const { ByteScales::ZERO }; UNITS]; // one a group; UNITS is at least that many
    // SAFETY: the pointers stay inside the groups (whose length `PackedMatrix` derives from the same layout) and the
    // activation row, whose blocks are as many as the weights'.
    unsafe {
        let mut sums = [S::splat_f32(0.0); UNITS];
        let mut super_at = 0;
        for first_col in (0..cols).step_by(SUPER) {
            let blocks = SUPER.min(cols - first_col) / BLOCK;
            let (scale_bytes, high_bytes) = (layout.scale_bytes(blocks), layout.high_bytes(blocks));
            let mut planes = [Planes { high: first, low: first }; UNITS];
            for unit in 0..UNITS {
                let (which, part) = (unit / per_group, unit % per_group);
                let at = first.add(which * group_bytes + super_at);
                if part == 0 {
                    scales[which].fill::<S, Q>(at, blocks);
                }
                let high = at.add(scale_bytes + 4 * S::LANES * part);
                planes[unit] = Planes { high, low: high.add(high_bytes) };
            }
            for b in 0..blocks {
                let read = super_at + b * block_bytes;
                for which in 0..UNITS / per_group {
                    let group = first.wrapping_add(which * group_bytes);
                    let next = ahead(group, read, group_bytes, UNITS / per_group);
                    for line in 0..block_bytes.div_ceil(LINE) {
                        S::prefetch(next.wrapping_add(line * LINE));
                    }
                }
                block::<S, Q, UNITS>(&planes, &scales, b, first_col / BLOCK + b, x, &mut sums);
                for planes in &mut planes {
                    *planes = planes.skip::<Q>(1);
                }
            }
            super_at += layout.super_bytes(blocks);
        }
        for which in 0..UNITS / per_group {
            let mut row_sums = [0.0; GROUP];
            for part in 0..per_group {
                S::store_f32(row_sums.as_mut_ptr().add(part * S::LANES), sums[which * per_group + part]);
            }
            tile.store_vectors::<S>(group + which, row, &row_sums);
        }
    }
}

/// Adds the products of one block of 32: `b` in its superblock, `block` in the row.
///
/// # Safety
/// As for [`units`]; the planes hold the block and `x` has it.
#[inline(always)]
unsafe fn block<S: ByteProducts, Q: Quantized, const UNITS: usize>(
    planes: &[Planes; UNITS],
    scales: &[ByteScales; UNITS],
    b: usize,
    block: usize,
    x: IntegerRow<'_>,
    sums: &mut [S::Float; UNITS],
) {
    let layout = Q::LAYOUT;
    let (per_group, subs, quads) = (GROUP / S::LANES, BLOCK / layout.sub, layout.sub / 4);
    let small = layout.low_bits < 8;
    // SAFETY: by the contract.
    unsafe {
        let bytes = x.bytes.as_ptr().add(block * BLOCK).cast::<i16>();
        // Integers may be added in any order: quads in turn go to chains of their own, half as long.
        let mut products = [[S::zero_sum(); 2]; UNITS];
        let mut folded = [S::splat32(0); UNITS]; // total of the block where factors are folded into integers
        let mut scaled = [S::splat_f32(0.0); UNITS]; // otherwise, totals times their scales
        unroll8!(QUAD => {
            let quad = S::splat_pair(bytes.add(2 * QUAD));
            for unit in 0..UNITS {
                let weights = planes[unit].bytes::<S, Q>(QUAD);
                let chain = &mut products[unit][QUAD % S::CHAINS];
                *chain = if small {
                    S::dot_unsigned::<true>(*chain, weights, quad)
                } else {
                    S::dot_unsigned::<false>(*chain, weights, quad)
                };
            }
            if QUAD % quads == quads - 1 {
                let sub_in_block = QUAD / quads;
                let sum = if subs == 1 {
                    x.sums.get_unchecked(2 * block) + x.sums.get_unchecked(2 * block + 1)
                } else {
                    *x.sums.get_unchecked(2 * block + sub_in_block)
                };
                // What the offset of the stored weights added.
                let excess = S::splat32(sum * layout.offset);
                for unit in 0..UNITS {
                    let (panel, lane) = (&scales[unit / per_group], unit % per_group * S::LANES);
                    let mut total = S::total(products[unit][0]);
                    if S::CHAINS == 2 {
                        total = S::add32(total, S::total(products[unit][1]));
                    }
                    if layout.offset != 0 {
                        total = S::sub32(total, excess);
                    }
                    if layout.folds_factors() {
                        total = S::mul32(total, panel.factor::<S>(b * subs + sub_in_block, lane));
                        folded[unit] = if sub_in_block == 0 { total } else { S::add32(folded[unit], total) };
                    } else {
                        let scale = panel.scale::<S, Q>(b * subs + sub_in_block, lane);
                        let total = S::to_float(total);
                        scaled[unit] =
                            if sub_in_block == 0 { S::mul(total, scale) } else { S::fma(total, scale, scaled[unit]) };
                    }
                    products[unit] = [S::zero_sum(); 2];
                }
            }
        });
        let x_scale = S::splat_f32(*x.scales.get_unchecked(block));
        for unit in 0..UNITS {
            let (panel, lane) = (&scales[unit / per_group], unit % per_group * S::LANES);
            if layout.folds_factors() {
                scaled[unit] = S::mul(S::to_float(folded[unit]), panel.scale::<S, Q>(b, lane));
            }
            sums[unit] = S::fma(scaled[unit], x_scale, sums[unit]);
            if layout.has_min() {
                for sub in 0..subs {
                    let scaled_sum = S::splat_f32(x.scaled_sum(block, sub, subs));
                    sums[unit] = S::fnma(panel.min::<S>(b * subs + sub, lane), scaled_sum, sums[unit]);
                }
            }
        }
    }
}
