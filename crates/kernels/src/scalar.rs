//! Matrix products in plain Rust: the reference of the other kernels, and what runs where they cannot.
//!
//! Quantized products do the same operations in the same order as the vector kernels (one fused multiply-add per
//! block), so they agree bit for bit. Float products round twice where vectors fuse, since a machine without vectors
//! has no fused multiply-add either and would call a function for each.

use roofline_weights::Format;

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
                Format::Bf16 => dot_bf16(bytes, x),
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

fn dot_bf16(group: &[u8], x: &[f32]) -> [f32; GROUP] {
    let mut sums = [0.0; GROUP];
    for (weights, x) in group.chunks_exact(4 * GROUP).zip(x.chunks(2)) {
        for (lane, sum) in sums.iter_mut().enumerate() {
            let pair = read_u32(weights, lane);
            *sum += f32::from_bits(pair << 16) * x[0];
            if let Some(second) = x.get(1) {
                *sum += f32::from_bits(pair & 0xffff_0000) * second;
            }
        }
    }
    sums
}

/// A superblock of 16 rows with its weights and scales taken out of their bits.
struct Panel {
    weights: [[[i16; 4]; GROUP]; SUPER / 4], // (quad, row, weight of the quad), offset removed, times factor
    scales: [[f32; GROUP]; 8],               // (block, row)
    mins: [[f32; GROUP]; 16],                // (sub-block, row)
}

/// Product of a tile of quantized weights.
///
/// # Safety
/// As for [`TileKernel`](crate::tile::TileKernel).
pub(crate) unsafe fn quantized_tile(tile: &Tile<'_>) {
    let Some(layout) = Layout::of(tile.w.format()) else { return };
    let mut panel =
        Panel { weights: [[[0; 4]; GROUP]; SUPER / 4], scales: [[0.0; GROUP]; 8], mins: [[0.0; GROUP]; 16] };
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
                    dot_panel(&layout, &panel, tile, first_row + row, first / BLOCK, blocks, sums);
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
            for quad in &mut panel.weights[sub * layout.sub / 4..(sub + 1) * layout.sub / 4] {
                for weight in &mut quad[lane] {
                    *weight *= factor as i16; // at most 32 * 128, see `quantize::LARGEST`
                }
            }
        }
    }
}

/// Adds the products of a superblock, whose first block is `first_block` of the row, with one activation row.
fn dot_panel(
    layout: &Layout,
    panel: &Panel,
    tile: &Tile<'_>,
    row: usize,
    first_block: usize,
    blocks: usize,
    sums: &mut [f32; GROUP],
) {
    let x = tile.x.integer_row(row);
    let subs = BLOCK / layout.sub;
    for b in 0..blocks {
        let block = first_block + b;
        let mut integers = [0i32; GROUP];
        for (quad, x) in x.pairs[block * BLOCK..(block + 1) * BLOCK].chunks_exact(4).enumerate() {
            for (sum, w) in integers.iter_mut().zip(&panel.weights[b * BLOCK / 4 + quad]) {
                *sum += i32::from(w[0]) * i32::from(x[0]) + i32::from(w[2]) * i32::from(x[1]);
                *sum += i32::from(w[1]) * i32::from(x[2]) + i32::from(w[3]) * i32::from(x[3]);
            }
        }
        for lane in 0..GROUP {
            let scale = panel.scales[b][lane] * x.scales[block];
            sums[lane] = (integers[lane] as f32).mul_add(scale, sums[lane]);
        }
        for sub in (0..subs).filter(|_| layout.has_min()) {
            let scaled_sum = x.scaled_sums[3 * block + if subs == 1 { 2 } else { sub }];
            for (sum, min) in sums.iter_mut().zip(&panel.mins[b * subs + sub]) {
                *sum = (-min).mul_add(scaled_sum, *sum);
            }
        }
    }
}
