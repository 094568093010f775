//! Matrix products of float weights in vectors, for any instruction set.
//!
//! Weights become f32 in registers (a shift, or one conversion), or f16 in prefill in the first-level cache
//! ([`wide_gemm`]), and meet f32 activations in fused multiply-adds, or pairs of bf16 meet pairs of bf16 where an
//! instruction multiplies those faster. Otherwise one register tile serves decode and prefill: `UNITS` vectors of outputs
//! by `ROWS` activation rows. Inputs are taken in order in all of it, so that a row's result does not depend on the rows
//! beside it.
#![allow(clippy::needless_range_loop)] // units and rows index several arrays at once, in unrolled loops

mod wide_gemm;

use roofline_weights::Format;

pub(crate) use wide_gemm::{WIDE_TILE_ROWS, wide_gemm};

use crate::layout::{GROUP, LINE};
use crate::simd::{Bf16Products, Simd};
use crate::tile::{Distances, Tile, Walk, fetch_ahead};

/// How weights of one float format are loaded.
pub(crate) trait Floats {
    const FORMAT: Format;
    /// Bytes of two consecutive weights of a group.
    const PAIR_BYTES: usize;

    /// Two consecutive weights of each row, of the pair at `from`, rows `lane` and on.
    ///
    /// # Safety
    /// The machine has the instructions of `S`; `from` is good for `PAIR_BYTES`.
    unsafe fn pair<S: Simd>(from: *const u8, lane: usize) -> [S::Float; 2];

    /// The first weight of the pair alone, where a row ends with it.
    ///
    /// # Safety
    /// The machine has the instructions of `S`; `from` is good for as much of the pair as the layout stores.
    unsafe fn single<S: Simd>(from: *const u8, lane: usize) -> S::Float;
}

pub(crate) struct F32;
pub(crate) struct F16;
pub(crate) struct Bf16;

impl Floats for F32 {
    const FORMAT: Format = Format::F32;
    const PAIR_BYTES: usize = 2 * 4 * GROUP;

    #[inline(always)]
    unsafe fn pair<S: Simd>(from: *const u8, lane: usize) -> [S::Float; 2] {
        // SAFETY: both vectors are in the pair.
        unsafe { [Self::single::<S>(from, lane), Self::single::<S>(from.add(4 * GROUP), lane)] }
    }

    #[inline(always)]
    unsafe fn single<S: Simd>(from: *const u8, lane: usize) -> S::Float {
        // SAFETY: by the contract.
        unsafe { S::load_f32(from.cast::<f32>().add(lane)) }
    }
}

impl Floats for F16 {
    const FORMAT: Format = Format::F16;
    const PAIR_BYTES: usize = 2 * 2 * GROUP;

    #[inline(always)]
    unsafe fn pair<S: Simd>(from: *const u8, lane: usize) -> [S::Float; 2] {
        // SAFETY: both vectors are in the pair.
        unsafe { [Self::single::<S>(from, lane), Self::single::<S>(from.add(2 * GROUP), lane)] }
    }

    #[inline(always)]
    unsafe fn single<S: Simd>(from: *const u8, lane: usize) -> S::Float {
        // SAFETY: by the contract.
        unsafe { S::load_f16(from.add(2 * lane)) }
    }
}

impl Floats for Bf16 {
    const FORMAT: Format = Format::Bf16;
    const PAIR_BYTES: usize = 2 * 2 * GROUP;

    #[inline(always)]
    unsafe fn pair<S: Simd>(from: *const u8, lane: usize) -> [S::Float; 2] {
        // SAFETY: by the contract. A bf16 is the upper half of an f32.
        unsafe {
            let pair = S::load(from.add(4 * lane));
            [S::as_float(S::shl32(pair, 16)), S::as_float(S::and(pair, S::splat32(0xffff_0000_u32 as i32)))]
        }
    }

    #[inline(always)]
    unsafe fn single<S: Simd>(from: *const u8, lane: usize) -> S::Float {
        // SAFETY: the layout fills up the last pair.
        unsafe { Self::pair::<S>(from, lane)[0] }
    }
}

/// The products of one register tile.
pub(crate) trait RegisterTile<S: Simd> {
    /// `ROWS` activation rows from `row` on by the outputs that `UNITS` vectors cover from `group` on, all inputs in order.
    ///
    /// # Safety
    /// As for [`TileKernel`](crate::tile::TileKernel), with the instructions of `S`; rows and groups are in the tile.
    unsafe fn multiply<const UNITS: usize, const ROWS: usize, const ABREAST: bool>(
        tile: &Tile<'_>,
        group: usize,
        row: usize,
    );
}

/// f32 activations and any float weights.
pub(crate) struct ByFloats<W>(std::marker::PhantomData<W>);

impl<S: Simd, W: Floats> RegisterTile<S> for ByFloats<W> {
    #[inline(always)]
    unsafe fn multiply<const UNITS: usize, const ROWS: usize, const ABREAST: bool>(
        tile: &Tile<'_>,
        group: usize,
        row: usize,
    ) {
        // SAFETY: by the contract.
        unsafe { rows::<S, W, UNITS, ROWS, ABREAST>(tile, group, row) }
    }
}

/// Product of a tile in decode: one activation row by `UNITS` vectors of outputs, or by one group if the tile's walk is that.
///
/// # Safety
/// As for [`TileKernel`](crate::tile::TileKernel), with the instructions of `S`.
#[inline(always)]
pub(crate) unsafe fn one_row<S: Simd, T: RegisterTile<S>, const UNITS: usize>(tile: &Tile<'_>) {
    // SAFETY: the caller's.
    unsafe {
        match (tile.walk, GROUP / S::LANES) {
            (Walk::Abreast, _) => all_groups::<S, T, UNITS, 1, true>(tile),
            (Walk::InLine, 1) => all_groups::<S, T, 1, 1, false>(tile),
            (Walk::InLine, 2) => all_groups::<S, T, 2, 1, false>(tile),
            (Walk::InLine, _) => all_groups::<S, T, 4, 1, false>(tile),
        }
    }
}

/// Product of a tile in prefill: `UNITS` vectors of outputs by `ROWS` activation rows together.
///
/// # Safety
/// As for [`TileKernel`](crate::tile::TileKernel), with the instructions of `S`.
#[inline(always)]
pub(crate) unsafe fn many_rows<S: Simd, T: RegisterTile<S>, const UNITS: usize, const ROWS: usize>(
    tile: &Tile<'_>,
) {
    // SAFETY: the caller's.
    unsafe { all_groups::<S, T, UNITS, ROWS, true>(tile) };
}

/// # Safety
/// As for [`one_row`] and [`many_rows`].
#[inline(always)]
unsafe fn all_groups<
    S: Simd,
    T: RegisterTile<S>,
    const UNITS: usize,
    const ROWS: usize,
    const ABREAST: bool,
>(
    tile: &Tile<'_>,
) {
    let groups_at_once = UNITS * S::LANES / GROUP;
    let end = tile.first_group + tile.groups;
    let mut group = tile.first_group;
    // SAFETY: by the contract; groups stay below `end`.
    unsafe {
        while group + groups_at_once <= end {
            all_rows::<S, T, UNITS, ROWS, ABREAST>(tile, group);
            group += groups_at_once;
        }
        while group < end {
            match GROUP / S::LANES {
                1 => all_rows::<S, T, 1, ROWS, ABREAST>(tile, group),
                2 => all_rows::<S, T, 2, ROWS, ABREAST>(tile, group),
                _ => all_rows::<S, T, 4, ROWS, ABREAST>(tile, group),
            }
            group += 1;
        }
    }
}

/// # Safety
/// As for [`all_groups`]; the groups that `UNITS` vectors cover from `group` on are in the tile.
#[inline(always)]
unsafe fn all_rows<
    S: Simd,
    T: RegisterTile<S>,
    const UNITS: usize,
    const ROWS: usize,
    const ABREAST: bool,
>(
    tile: &Tile<'_>,
    group: usize,
) {
    let end = tile.first_row + tile.rows;
    let mut row = tile.first_row;
    // SAFETY: by the contract; rows stay below `end`.
    unsafe {
        while row + ROWS <= end {
            T::multiply::<UNITS, ROWS, ABREAST>(tile, group, row);
            row += ROWS;
        }
        while row + 2 <= end {
            T::multiply::<UNITS, 2, ABREAST>(tile, group, row);
            row += 2;
        }
        if row < end {
            T::multiply::<UNITS, 1, ABREAST>(tile, group, row);
        }
    }
}

/// bf16 activations and weights, in pairs.
pub(crate) struct ByBf16Pairs;

impl<S: Bf16Products> RegisterTile<S> for ByBf16Pairs {
    #[inline(always)]
    unsafe fn multiply<const UNITS: usize, const ROWS: usize, const ABREAST: bool>(
        tile: &Tile<'_>,
        group: usize,
        row: usize,
    ) {
        debug_assert_eq!(S::LANES, GROUP);
        let group_bytes = tile.w.group_bytes();
        let first = tile.w.group(group).as_ptr();
        let units: [*const u8; UNITS] = std::array::from_fn(|unit| first.wrapping_add(unit * group_bytes));
        let distances = if ABREAST { Distances::ABREAST } else { Distances::AS_THEY_ARE };
        let x: [*const i16; ROWS] = std::array::from_fn(|r| tile.x.bf16_row(row + r).as_ptr().cast::<i16>());
        // SAFETY: the layout fills up the last pair of a group by zeros, and the activations do so too.
        unsafe {
            let mut sums = [[S::splat_f32(0.0); ROWS]; UNITS];
            for pair in 0..tile.w.cols().div_ceil(2) {
                let mut weights = [S::splat32(0); UNITS];
                for unit in 0..UNITS {
                    weights[unit] = S::load(units[unit].add(pair * LINE));
                    if ROWS == 1 {
                        fetch_ahead::<S>(distances, units[unit], pair * LINE, 1, group_bytes, UNITS);
                    }
                }
                for r in 0..ROWS {
                    let x = S::splat_pair(x[r].add(2 * pair));
                    for unit in 0..UNITS {
                        sums[unit][r] = S::dot_bf16(sums[unit][r], weights[unit], x);
                    }
                }
            }
            for r in 0..ROWS {
                for unit in 0..UNITS {
                    let mut row_sums = [0.0; GROUP];
                    S::store_f32(row_sums.as_mut_ptr(), sums[unit][r]);
                    tile.store_vectors::<S>(group + unit, row + r, &row_sums);
                }
            }
        }
    }
}

/// `ROWS` activation rows by the outputs of `UNITS` vectors.
///
/// # Safety
/// As for [`RegisterTile::multiply`].
#[inline(always)]
unsafe fn rows<S: Simd, W: Floats, const UNITS: usize, const ROWS: usize, const ABREAST: bool>(
    tile: &Tile<'_>,
    group: usize,
    row: usize,
) {
    let (cols, group_bytes) = (tile.w.cols(), tile.w.group_bytes());
    let per_group = GROUP / S::LANES;
    let first = tile.w.group(group).as_ptr();
    let units: [*const u8; UNITS] =
        std::array::from_fn(|unit| first.wrapping_add(unit / per_group * group_bytes));
    let lanes: [usize; UNITS] = std::array::from_fn(|unit| unit % per_group * S::LANES);
    let distances = if ABREAST { Distances::ABREAST } else { Distances::AS_THEY_ARE };
    let x: [*const f32; ROWS] = std::array::from_fn(|r| tile.x.float_row(row + r).as_ptr());
    // SAFETY: pointers stay inside the groups, of `cols` weights a row, and the activation rows of as many elements.
    unsafe {
        let mut sums = [[S::splat_f32(0.0); ROWS]; UNITS];
        for pair in 0..cols / 2 {
            let mut weights = [[S::splat_f32(0.0); 2]; UNITS];
            for unit in 0..UNITS {
                let at = units[unit].add(pair * W::PAIR_BYTES);
                weights[unit] = W::pair::<S>(at, lanes[unit]);
                if ROWS == 1 && lanes[unit] == 0 {
                    let (read, lines) = (pair * W::PAIR_BYTES, W::PAIR_BYTES / LINE);
                    fetch_ahead::<S>(distances, units[unit], read, lines, group_bytes, UNITS / per_group);
                }
            }
            for half in 0..2 {
                for r in 0..ROWS {
                    let x = S::splat_f32(*x[r].add(2 * pair + half));
                    for unit in 0..UNITS {
                        sums[unit][r] = S::fma(weights[unit][half], x, sums[unit][r]);
                    }
                }
            }
        }
        if cols % 2 == 1 {
            for unit in 0..UNITS {
                let at = units[unit].add(cols / 2 * W::PAIR_BYTES);
                let weights = W::single::<S>(at, lanes[unit]);
                for r in 0..ROWS {
                    sums[unit][r] = S::fma(weights, S::splat_f32(*x[r].add(cols - 1)), sums[unit][r]);
                }
            }
        }
        for r in 0..ROWS {
            for which in 0..UNITS / per_group {
                let mut row_sums = [0.0; GROUP];
                for part in 0..per_group {
                    let to = row_sums.as_mut_ptr().add(part * S::LANES);
                    S::store_f32(to, sums[which * per_group + part][r]);
                }
                tile.store_vectors::<S>(group + which, row + r, &row_sums);
            }
        }
    }
}
