//! Matrix products in plain Rust: the reference of the other kernels, and what runs where they cannot.
//!
//! Quantized products do the same operations in the same order as the vector kernels (one fused multiply-add per
//! block), so they agree bit for bit. Float products round twice where vectors fuse, since a machine without vectors
//! has no fused multiply-add either and would call a function for each.

use roofline_weights::Format;

use crate::activations::IntegerRow;
use crate::layout::{BLOCK, GROUP, Layout, SUPER, field_at, read_u16, read_u32};
use crate::packed::{SubScale, sub_scale};
use crate::tile::Tile;

/// Product of a tile of float weights.
///
/// # Safety
/// As for [`TileKernel`](crate::tile::TileKernel).
pub(crate) unsafe fn float_tile(tile: &Tile<'_>) {
    for group in tile.first_group..tile.first_group + tile.groups {
        let bytes = tile.w.group(group);
        for row in tile.first_row..tile.first_row + tile.rows {
            let x = &tile.x.float_row(row)[..tile.w.cols()];
            let sums = match tile.w.format() {
                Format::F16 => dot_f16(bytes, x),
                Format::Bf16 => dot_bf16(bytes, x.len(), |k| x[k]),
                _ => dot_f32(bytes, x),
            };
            // SAFETY: by this function's contract.
            unsafe { tile.store(group, row, &sums) };
        }
    }
}

fn dot_f32(group: &[u8], x: &[f32]) -> [f32; GROUP] {
    let mut sums = [0.0; GROUP];
    for (weights, x) in group.chunks_exact(4 * GROUP).zip(x) {
        for (lane, sum) in sums.iter_mut().enumerate() {
            *sum += f32::from_bits(read_u32(weights, lane)) * x;
        }
    }
    sums
}

fn dot_f16(group: &[u8], x: &[f32]) -> [f32; GROUP] {
    let mut sums = [0.0; GROUP];
    for (weights, x) in group.chunks_exact(2 * GROUP).zip(x) {
        for (lane, sum) in sums.iter_mut().enumerate() {
            *sum += half::f16::from_bits(read_u16(weights, lane)).to_f32() * x;
        }
    }
    sums
}

fn dot_bf16(group: &[u8], cols: usize, x: impl Fn(usize) -> f32) -> [f32; GROUP] {
    let mut sums = [0.0; GROUP];
    for (pair, weights) in group.chunks_exact(4 * GROUP).enumerate() {
        for (lane, sum) in sums.iter_mut().enumerate() {
            let weights = read_u32(weights, lane);
            *sum += f32::from_bits(weights << 16) * x(2 * pair);
            if 2 * pair + 1 < cols {
                *sum += f32::from_bits(weights & 0xffff_0000) * x(2 * pair + 1);
            }
        }
    }
    sums
}

/// Product of a tile of bf16 weights and bf16 activations.
///
/// # Safety
/// As for [`TileKernel`](crate::tile::TileKernel).
pub(crate) unsafe fn bf16_tile(tile: &Tile<'_>) {
    for group in tile.first_group..tile.first_group + tile.groups {
        for row in tile.first_row..tile.first_row + tile.rows {
            let x = tile.x.bf16_row(row);
            let float = |k: usize| f32::from_bits(u32::from(x[k]) << 16);
            let sums = dot_bf16(tile.w.group(group), tile.w.cols(), float);
            // SAFETY: by this function's contract.
            unsafe { tile.store(group, row, &sums) };
        }
    }
}

/// A superblock of 16 rows with its weights and scales taken out of their bits.
struct Panel {
    weights: [[[i16; 4]; GROUP]; SUPER / 4], // (quad, row, weight of the quad), offset removed
    scales: [[f32; GROUP]; 8],               // (block, row)
    factors: [[i32; GROUP]; 16],             // (sub-block, row)
    mins: [[f32; GROUP]; 16],                // (sub-block, row)
}

/// Product of a tile of quantized weights and 16-bit activations.
///
/// # Safety
/// As for [`TileKernel`](crate::tile::TileKernel).
pub(crate) unsafe fn pair_tile(tile: &Tile<'_>) {
    // SAFETY: by this function's contract.
    unsafe { quantized_tile(tile, dot_pairs) }
}

/// Product of a tile of quantized weights and 8-bit activations.
///
/// # Safety
/// As for [`TileKernel`](crate::tile::TileKernel).
pub(crate) unsafe fn byte_tile(tile: &Tile<'_>) {
    // SAFETY: by this function's contract.
    unsafe { quantized_tile(tile, dot_bytes) }
}

/// Adds the products of a superblock, whose first block is `first_block` of the row, with one activation row.
type DotPanel = fn(&Layout, &Panel, IntegerRow<'_>, first_block: usize, blocks: usize, &mut [f32; GROUP]);

/// # Safety
/// As for [`TileKernel`](crate::tile::TileKernel).
unsafe fn quantized_tile(tile: &Tile<'_>, dot: DotPanel) {
    let Some(layout) = Layout::of(tile.w.format()) else { return };
    let mut panel = Panel {
        weights: [[[0; 4]; GROUP]; SUPER / 4],
        scales: [[0.0; GROUP]; 8],
        factors: [[0; GROUP]; 16],
        mins: [[0.0; GROUP]; 16],
    };
    for group in tile.first_group..tile.first_group + tile.groups {
        // Rows in blocks, so that their sums stay on the stack and a superblock is unpacked once for all of them.
        for first_row in (tile.first_row..tile.first_row + tile.rows).step_by(BLOCK) {
            let rows = BLOCK.min(tile.first_row + tile.rows - first_row);
            let mut sums = [[0.0; GROUP]; BLOCK];
            let mut rest = tile.w.group(group);
            for first in (0..tile.w.cols()).step_by(SUPER) {
                let blocks = SUPER.min(tile.w.cols() - first) / BLOCK;
                let (bytes, after) = rest.split_at(layout.super_bytes(blocks));
                unpack(&layout, bytes, blocks, &mut panel);
                for (row, sums) in sums[..rows].iter_mut().enumerate() {
                    let x = tile.x.integer_row(first_row + row);
                    dot(&layout, &panel, x, first / BLOCK, blocks, sums);
                }
                rest = after;
            }
            for (row, sums) in sums[..rows].iter().enumerate() {
                // SAFETY: by this function's contract.
                unsafe { tile.store(group, first_row + row, sums) };
            }
        }
    }
}

fn unpack(layout: &Layout, bytes: &[u8], blocks: usize, panel: &mut Panel) {
    let (scales, high, low) = layout.split(bytes, blocks);
    for quad in 0..blocks * BLOCK / 4 {
        let weights = panel.weights[quad].as_flattened_mut();
        let (at, shift) = field_at(layout.low_bits, 4 * quad, 0);
        let mask = ((1u16 << layout.low_bits) - 1) as u8;
        for (weight, byte) in weights.iter_mut().zip(&low[at..]) {
            *weight = i16::from(byte >> shift & mask) - layout.offset as i16;
        }
        if layout.high_bits > 0 {
            let (at, shift) = field_at(layout.high_bits, 4 * quad, 0);
            let mask = ((1u16 << layout.high_bits) - 1) as u8;
            for (weight, byte) in weights.iter_mut().zip(&high[at..]) {
                *weight += i16::from(byte >> shift & mask) << layout.low_bits;
            }
        }
    }
    for sub in 0..blocks * BLOCK / layout.sub {
        for lane in 0..GROUP {
            let SubScale { d, factor, min } = sub_scale(layout.scales, scales, sub, lane);
            panel.scales[sub * layout.sub / BLOCK][lane] = d;
            panel.mins[sub][lane] = min;
            panel.factors[sub][lane] = factor;
        }
    }
}

/// The sums of the products of sub-block `sub`, times its factors; `x` is quad `quad`, its weights in the order of a
/// row.
fn totals(layout: &Layout, panel: &Panel, sub: usize, quad: impl Fn(usize) -> [i32; 4]) -> [i32; GROUP] {
    let mut totals = [0; GROUP];
    for at in sub * layout.sub / 4..(sub + 1) * layout.sub / 4 {
        let x = quad(at);
        for (total, w) in totals.iter_mut().zip(&panel.weights[at]) {
            *total += w.iter().zip(x).map(|(w, x)| i32::from(*w) * x).sum::<i32>();
        }
    }
    totals
}

fn dot_pairs(
    layout: &Layout,
    panel: &Panel,
    x: IntegerRow<'_>,
    first_block: usize,
    blocks: usize,
    sums: &mut [f32; GROUP],
) {
    let subs = BLOCK / layout.sub;
    for b in 0..blocks {
        let block = first_block + b;
        let quad = |quad: usize| {
            let pairs = &x.pairs[first_block * BLOCK + 4 * quad..];
            [pairs[0], pairs[2], pairs[1], pairs[3]].map(i32::from)
        };
        let mut integers = [0i32; GROUP];
        for sub in b * subs..(b + 1) * subs {
            let totals = totals(layout, panel, sub, quad);
            for lane in 0..GROUP {
                integers[lane] += totals[lane] * panel.factors[sub][lane]; // never wraps, see `quantize::LARGEST`
            }
        }
        for lane in 0..GROUP {
            let scale = panel.scales[b][lane] * x.scales[block];
            sums[lane] = (integers[lane] as f32).mul_add(scale, sums[lane]);
        }
        subtract_mins(layout, panel, x, b, block, sums);
    }
}

fn dot_bytes(
    layout: &Layout,
    panel: &Panel,
    x: IntegerRow<'_>,
    first_block: usize,
    blocks: usize,
    sums: &mut [f32; GROUP],
) {
    let subs = BLOCK / layout.sub;
    for b in 0..blocks {
        let block = first_block + b;
        let quad = |quad: usize| {
            let bytes = &x.bytes[first_block * BLOCK + 4 * quad..];
            [bytes[0], bytes[1], bytes[2], bytes[3]].map(i32::from)
        };
        let mut folded = [0i32; GROUP];
        let mut scaled = [0.0f32; GROUP];
        for sub in b * subs..(b + 1) * subs {
            let totals = totals(layout, panel, sub, quad);
            for lane in 0..GROUP {
                let factor = panel.factors[sub][lane];
                if layout.folds_factors() {
                    folded[lane] += totals[lane] * factor;
                } else {
                    // The first is a plain product: nothing is added to it.
                    let scale = panel.scales[b][lane] * factor as f32;
                    scaled[lane] = (totals[lane] as f32).mul_add(scale, scaled[lane]);
                }
            }
        }
        for lane in 0..GROUP {
            if layout.folds_factors() {
                scaled[lane] = folded[lane] as f32 * panel.scales[b][lane];
            }
            sums[lane] = scaled[lane].mul_add(x.scales[block], sums[lane]);
        }
        subtract_mins(layout, panel, x, b, block, sums);
    }
}

/// Takes the mins of block `b` of the superblock, `block` of the row, off the sums.
fn subtract_mins(
    layout: &Layout,
    panel: &Panel,
    x: IntegerRow<'_>,
    b: usize,
    block: usize,
    sums: &mut [f32; GROUP],
) {
    let subs = BLOCK / layout.sub;
    for sub in (0..subs).filter(|_| layout.has_min()) {
        let scaled_sum = x.scaled_sums[3 * block + if subs == 1 { 2 } else { sub }];
        for (sum, min) in sums.iter_mut().zip(&panel.mins[b * subs + sub]) {
            *sum = (-min).mul_add(scaled_sum, *sum);
        }
    }
}
