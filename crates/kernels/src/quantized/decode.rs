//! Decode: weights are unpacked in registers, used once, and asked for well ahead of that.
#![allow(clippy::needless_range_loop)] // units index several arrays at once, in unrolled loops

use super::Quantized;
use super::planes::Planes;
use crate::activations::IntegerRow;
use crate::layout::{BLOCK, GROUP, LINE, SUPER};
use crate::simd::Simd;
use crate::tile::{Distances, Tile, Walk, fetch_ahead};

/// How decode multiplies a block of 32.
///
/// # Safety
/// All methods: the machine has the instructions of `S`.
pub(crate) trait BlockProduct<S: Simd, Q: Quantized> {
    /// Scales of a superblock of one group, as the product wants them.
    type Scales;
    const NO_SCALES: Self::Scales;

    /// Takes the scales of a superblock of `blocks` blocks out of their bits.
    ///
    /// # Safety
    /// `from` is good for the scales of the superblock.
    unsafe fn fill(scales: &mut Self::Scales, from: *const u8, blocks: usize);

    /// Adds the products of one block of 32: `b` in its superblock, `block` in the row.
    ///
    /// # Safety
    /// The planes hold the block, `x` has it, and the scales of its superblock are filled.
    unsafe fn add<const UNITS: usize>(
        planes: &[Planes; UNITS],
        scales: &[Self::Scales; UNITS],
        b: usize,
        block: usize,
        x: IntegerRow<'_>,
        sums: &mut [S::Float; UNITS],
    );
}

/// Product of a tile, row by row, `UNITS` vectors of outputs at a time, or one group if the tile's walk is that.
///
/// # Safety
/// As for [`TileKernel`](crate::tile::TileKernel), with the instructions of `S`.
#[inline(always)]
pub(super) unsafe fn decode<S: Simd, Q: Quantized, P: BlockProduct<S, Q>, const UNITS: usize>(
    tile: &Tile<'_>,
) {
    // SAFETY: the caller's.
    unsafe {
        match (tile.walk, GROUP / S::LANES) {
            (Walk::Abreast, _) => all_rows::<S, Q, P, UNITS, true>(tile),
            (Walk::InLine, 1) => all_rows::<S, Q, P, 1, false>(tile),
            (Walk::InLine, 2) => all_rows::<S, Q, P, 2, false>(tile),
            (Walk::InLine, _) => all_rows::<S, Q, P, 4, false>(tile),
        }
    }
}

/// # Safety
/// As for [`decode`].
#[inline(always)]
unsafe fn all_rows<S: Simd, Q: Quantized, P: BlockProduct<S, Q>, const UNITS: usize, const ABREAST: bool>(
    tile: &Tile<'_>,
) {
    let groups_at_once = UNITS * S::LANES / GROUP;
    let end = tile.first_group + tile.groups;
    // One a group; UNITS is at least that many. Cleared here and not for every two groups: that was 3 % of decode.
    let mut scales = [const { P::NO_SCALES }; UNITS];
    for row in tile.first_row..tile.first_row + tile.rows {
        let x = tile.x.integer_row(row);
        let mut group = tile.first_group;
        // SAFETY: by the contract of this function; groups stay below `end`.
        unsafe {
            while group + groups_at_once <= end {
                units::<S, Q, P, UNITS, ABREAST>(tile, group, row, x, &mut scales);
                group += groups_at_once;
            }
            while group < end {
                match GROUP / S::LANES {
                    1 => units::<S, Q, P, 1, ABREAST>(tile, group, row, x, &mut [const { P::NO_SCALES }; 1]),
                    2 => units::<S, Q, P, 2, ABREAST>(tile, group, row, x, &mut [const { P::NO_SCALES }; 2]),
                    _ => units::<S, Q, P, 4, ABREAST>(tile, group, row, x, &mut [const { P::NO_SCALES }; 4]),
                }
                group += 1;
            }
        }
    }
}

/// One activation row by the groups from `group` on that `UNITS` vectors cover.
///
/// # Safety
/// As for [`decode`]; the groups are in the tile.
#[inline(always)]
unsafe fn units<S: Simd, Q: Quantized, P: BlockProduct<S, Q>, const UNITS: usize, const ABREAST: bool>(
    tile: &Tile<'_>,
    group: usize,
    row: usize,
    x: IntegerRow<'_>,
    scales: &mut [P::Scales; UNITS],
) {
    let layout = Q::LAYOUT;
    let (cols, group_bytes) = (tile.w.cols(), tile.w.group_bytes());
    let per_group = GROUP / S::LANES;
    let block_lines = layout.low_bits + layout.high_bits; // of both planes
    let first = tile.w.group(group).as_ptr();
    let groups_at_once = UNITS / per_group;
    let distances = match (ABREAST, layout.low_bits) {
        (true, _) => Distances::ABREAST,
        (false, 8) => Distances::AS_THEY_ARE,
        (false, _) => Distances::UNPACKED,
    };
    let fetch = |which: usize, read: usize, lines: usize| {
        let group = first.wrapping_add(which * group_bytes);
        // SAFETY: the machine has the instructions.
        unsafe { fetch_ahead::<S>(distances, group, read, lines, group_bytes, groups_at_once) };
    };
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
                    fetch(which, super_at, scale_bytes.div_ceil(LINE));
                    P::fill(&mut scales[which], at, blocks);
                }
                let high = at.add(scale_bytes + 4 * S::LANES * part);
                planes[unit] = Planes { high, low: high.add(high_bytes) };
            }
            for b in 0..blocks {
                let read = super_at + scale_bytes + b * block_lines * LINE;
                for which in 0..groups_at_once {
                    fetch(which, read, block_lines);
                }
                P::add(&planes, scales, b, first_col / BLOCK + b, x, &mut sums);
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
