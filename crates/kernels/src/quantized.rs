//! Matrix products of quantized weights in vectors, for any layout and any instruction set.
//!
//! Decode ([`gemv`]) unpacks weights in registers, uses them once and waits for memory. Prefill ([`gemm`]) unpacks a
//! superblock of two groups into a panel in the first-level cache and uses it for all rows of the tile. Both sum the
//! same integers and apply the same scales in the same order, so a row's result does not tell which of them made it.
#![allow(clippy::needless_range_loop)] // units and rows index several arrays at once, in unrolled loops

use roofline_weights::Format;

use crate::activations::IntegerRow;
use crate::layout::{BLOCK, GROUP, LINE, Layout, SUPER, Scales};
use crate::matmul::TILE_ROWS;
use crate::simd::{ByteDot, Simd};
use crate::tile::{Tile, ahead};

/// A quantized format at compile time.
pub(crate) trait Quantized {
    const FORMAT: Format;
    const LAYOUT: Layout;
}

/// Makes a type of each format.
macro_rules! quantized {
    ($($name:ident)*) => {$(
        pub(crate) struct $name;
        impl Quantized for $name {
            const FORMAT: Format = Format::$name;
            const LAYOUT: Layout = match Layout::of(Format::$name) {
                Some(layout) => layout,
                None => unreachable!(),
            };
        }
    )*};
}

#[allow(non_camel_case_types)] // the formats are called that
mod formats {
    use super::*;
    quantized! { Q8_0 Q6K Q5K Q4K Q3K Q2K Q5_0 Q5_1 Q4_0 Q4_1 }
}
pub(crate) use formats::*;

/// Repeats a block with `$i` as the constants 0 to 7, so that shift counts become immediates.
macro_rules! unroll8 {
    ($i:ident => $body:block) => {{
        {
            const $i: usize = 0;
            $body
        }
        {
            const $i: usize = 1;
            $body
        }
        {
            const $i: usize = 2;
            $body
        }
        {
            const $i: usize = 3;
            $body
        }
        {
            const $i: usize = 4;
            $body
        }
        {
            const $i: usize = 5;
            $body
        }
        {
            const $i: usize = 6;
            $body
        }
        {
            const $i: usize = 7;
            $body
        }
    }};
}

/// Scales and mins of a superblock of one group, as f32.
#[repr(C, align(64))]
struct ScalePanel {
    scales: [[f32; GROUP]; 16], // (sub-block, row)
    mins: [[f32; GROUP]; 16],   // the same, of formats that have mins
}

impl ScalePanel {
    const ZERO: ScalePanel = ScalePanel { scales: [[0.0; GROUP]; 16], mins: [[0.0; GROUP]; 16] };

    /// Takes the scales of a superblock of `blocks` blocks out of their bits.
    ///
    /// # Safety
    /// The machine has the instructions of `S`; `from` is good for the scales of the superblock.
    #[inline(always)]
    unsafe fn fill<S: Simd, Q: Quantized>(&mut self, from: *const u8, blocks: usize) {
        for lane in (0..GROUP).step_by(S::LANES) {
            // SAFETY: offsets stay inside the scales of the superblock (`Layout::scale_bytes`) and of the panel.
            unsafe {
                match Q::LAYOUT.scales {
                    Scales::Half => {
                        for b in 0..blocks {
                            self.put_scale::<S>(b, lane, half::<S>(from, b, lane));
                        }
                    }
                    Scales::HalfMin => {
                        for b in 0..blocks {
                            self.put_scale::<S>(b, lane, half::<S>(from, 2 * b, lane));
                            // The format adds; mins are subtracted.
                            self.put_min::<S>(
                                b,
                                lane,
                                S::mul(half::<S>(from, 2 * b + 1, lane), S::splat_f32(-1.0)),
                            );
                        }
                    }
                    Scales::SixBitMin | Scales::SixBit => self.fill_six_bit::<S, Q>(from, lane),
                    Scales::Byte => {
                        let d = half::<S>(from, 0, lane);
                        for sub in 0..16 {
                            let scale = S::load_i8(from.add(2 * GROUP + GROUP * sub + lane));
                            self.put_scale::<S>(sub, lane, S::mul(d, S::to_float(scale)));
                        }
                    }
                    Scales::NibbleMin => {
                        let (d, m) = (half::<S>(from, 0, lane), half::<S>(from, 1, lane));
                        for sub in 0..16 {
                            let byte = S::load_u8(from.add(4 * GROUP + GROUP * sub + lane));
                            let scale = S::to_float(S::and(byte, S::splat32(15)));
                            self.put_scale::<S>(sub, lane, S::mul(d, scale));
                            self.put_min::<S>(sub, lane, S::mul(m, S::to_float(S::shr32(byte, 4))));
                        }
                    }
                }
            }
        }
    }

    /// The sixteen fields of three words a row, see [`six_bit`](crate::layout::six_bit).
    ///
    /// # Safety
    /// As for [`ScalePanel::fill`].
    #[inline(always)]
    unsafe fn fill_six_bit<S: Simd, Q: Quantized>(&mut self, from: *const u8, lane: usize) {
        let with_mins = matches!(Q::LAYOUT.scales, Scales::SixBitMin);
        // SAFETY: as in `fill`.
        unsafe {
            let halves = if with_mins { 4 * GROUP } else { 2 * GROUP };
            let words = from.add(halves + 4 * lane);
            let words = [S::load(words), S::load(words.add(4 * GROUP)), S::load(words.add(8 * GROUP))];
            let d = half::<S>(from, 0, lane);
            let mask = S::splat32(63);
            let last = S::or(
                S::shr32(words[0], 30),
                S::or(S::shl32(S::shr32(words[1], 30), 2), S::shl32(S::shr32(words[2], 30), 4)),
            );
            if with_mins {
                let m = half::<S>(from, 1, lane);
                unroll8!(I => {
                    let scale = S::and(S::shr32(words[I / 5], 6 * (I % 5)), mask);
                    self.put_scale::<S>(I, lane, S::mul(d, S::to_float(scale)));
                    let min = if I == 7 { last } else { S::and(S::shr32(words[(I + 8) / 5 % 3], 6 * ((I + 8) % 5)), mask) };
                    self.put_min::<S>(I, lane, S::mul(m, S::to_float(min)));
                });
            } else {
                let offset = S::splat32(32);
                unroll8!(I => {
                    let first = S::and(S::shr32(words[I / 5], 6 * (I % 5)), mask);
                    let second =
                        if I == 7 { last } else { S::and(S::shr32(words[(I + 8) / 5 % 3], 6 * ((I + 8) % 5)), mask) };
                    self.put_scale::<S>(I, lane, S::mul(d, S::to_float(S::sub32(first, offset))));
                    self.put_scale::<S>(I + 8, lane, S::mul(d, S::to_float(S::sub32(second, offset))));
                });
            }
        }
    }

    /// # Safety
    /// The machine has the instructions of `S`; `lane + LANES <= 16`.
    #[inline(always)]
    unsafe fn put_scale<S: Simd>(&mut self, sub: usize, lane: usize, scale: S::Float) {
        // SAFETY: inside the row of 16 by the contract.
        unsafe { S::store_f32(self.scales[sub].as_mut_ptr().add(lane), scale) }
    }

    /// # Safety
    /// As for [`ScalePanel::put_scale`].
    #[inline(always)]
    unsafe fn put_min<S: Simd>(&mut self, sub: usize, lane: usize, min: S::Float) {
        // SAFETY: as above.
        unsafe { S::store_f32(self.mins[sub].as_mut_ptr().add(lane), min) }
    }
}

/// Rows `lane..lane + LANES` of the f16 vector number `i`.
///
/// # Safety
/// The machine has the instructions of `S`; `from` is good for that vector.
#[inline(always)]
unsafe fn half<S: Simd>(from: *const u8, i: usize, lane: usize) -> S::Float {
    // SAFETY: by the contract.
    unsafe { S::load_f16(from.add(2 * (GROUP * i + lane))) }
}

/// The planes of a superblock, from some lane on.
#[derive(Clone, Copy)]
pub(crate) struct Planes {
    high: *const u8,
    low: *const u8,
}

impl Planes {
    /// The stored weights (1, 3) if `odd`, else (0, 2), of quad `quad` of the first block, as 16-bit pairs.
    ///
    /// # Safety
    /// The machine has the instructions of `S`; the planes hold the quad.
    #[inline(always)]
    unsafe fn pairs<S: Simd, Q: Quantized>(self, quad: usize, odd: usize) -> S::Int {
        let (low_bits, high_bits) = (Q::LAYOUT.low_bits, Q::LAYOUT.high_bits);
        // SAFETY: by the contract.
        unsafe {
            let (line, shift) = (quad * low_bits / 8, quad * low_bits % 8 + 8 * odd);
            let low = S::shr16(S::load(self.low.add(line * LINE)), shift);
            // The topmost field of a half lane has nothing above it to mask away.
            let low = if shift + low_bits == 16 { low } else { S::and(low, S::splat16((1 << low_bits) - 1)) };
            if high_bits == 0 {
                return low;
            }
            let (line, shift) = (quad * high_bits / 8, quad * high_bits % 8 + 8 * odd);
            let high = S::load(self.high.add(line * LINE));
            let high = if shift < low_bits {
                S::shl16(high, low_bits - shift)
            } else {
                S::shr16(high, shift - low_bits)
            };
            S::or_and(low, high, S::splat16(((1 << high_bits) - 1) << low_bits))
        }
    }

    /// The four stored weights of quad `quad` of the first block, as bytes.
    ///
    /// # Safety
    /// As for [`Planes::pairs`].
    #[inline(always)]
    unsafe fn bytes<S: Simd, Q: Quantized>(self, quad: usize) -> S::Int {
        let (low_bits, high_bits) = (Q::LAYOUT.low_bits, Q::LAYOUT.high_bits);
        // SAFETY: by the contract.
        unsafe {
            let (line, shift) = (quad * low_bits / 8, quad * low_bits % 8);
            let low = S::load(self.low.add(line * LINE));
            if low_bits == 8 {
                return low;
            }
            // Halves are shifted as there is no shift of bytes; what crosses over is masked away.
            let low = S::and(S::shr16(low, shift), S::splat16(((1 << low_bits) - 1) * 0x0101));
            if high_bits == 0 {
                return low;
            }
            let (line, shift) = (quad * high_bits / 8, quad * high_bits % 8);
            let high = S::load(self.high.add(line * LINE));
            let high = if shift < low_bits {
                S::shl16(high, low_bits - shift)
            } else {
                S::shr16(high, shift - low_bits)
            };
            S::or_and(low, high, S::splat16((((1 << high_bits) - 1) << low_bits) * 0x0101))
        }
    }

    /// The planes `blocks` blocks further on.
    ///
    /// # Safety
    /// The planes hold that many blocks.
    #[inline(always)]
    unsafe fn skip<Q: Quantized>(self, blocks: usize) -> Planes {
        // SAFETY: by the contract.
        unsafe {
            Planes {
                high: self.high.add(blocks * Q::LAYOUT.high_bits * LINE),
                low: self.low.add(blocks * Q::LAYOUT.low_bits * LINE),
            }
        }
    }
}

/// How decode multiplies: a quad of weights straight from the planes by a quad of activations.
pub(crate) trait QuadDot<S: Simd> {
    /// A quad of activations in each lane.
    type Quad: Copy;
    /// Products summed so far.
    type Sum: Copy;

    /// # Safety
    /// All methods: the machine has the instructions of `S`.
    unsafe fn zero() -> Self::Sum;
    /// Quad `quad` of the row.
    ///
    /// # Safety
    /// The row has that quad, in the form asked for.
    unsafe fn load(x: IntegerRow<'_>, quad: usize) -> Self::Quad;
    /// # Safety
    /// The planes hold quad `quad`.
    unsafe fn add<Q: Quantized>(sum: Self::Sum, planes: Planes, quad: usize, x: Self::Quad) -> Self::Sum;
    unsafe fn total(sum: Self::Sum) -> S::Int;
}

/// By pairs of 16 bits. Even and odd pairs are summed apart: two chains hide the latency of the products.
pub(crate) struct ByPairs;

impl<S: Simd> QuadDot<S> for ByPairs {
    type Quad = [S::Int; 2];
    type Sum = [S::Sum; 2];

    #[inline(always)]
    unsafe fn zero() -> [S::Sum; 2] {
        // SAFETY: by the contract.
        unsafe { [S::zero_sum(); 2] }
    }

    #[inline(always)]
    unsafe fn load(x: IntegerRow<'_>, quad: usize) -> [S::Int; 2] {
        // SAFETY: by the contract.
        unsafe {
            let from = x.pairs.as_ptr().add(4 * quad);
            [S::splat_pair(from), S::splat_pair(from.add(2))]
        }
    }

    #[inline(always)]
    unsafe fn add<Q: Quantized>(
        sum: [S::Sum; 2],
        planes: Planes,
        quad: usize,
        x: [S::Int; 2],
    ) -> [S::Sum; 2] {
        // SAFETY: by the contract.
        unsafe {
            let even = S::dot(sum[0], planes.pairs::<S, Q>(quad, 0), x[0]);
            [even, S::dot(sum[1], planes.pairs::<S, Q>(quad, 1), x[1])]
        }
    }

    #[inline(always)]
    unsafe fn total(sum: [S::Sum; 2]) -> S::Int {
        // SAFETY: by the contract.
        unsafe { S::total(S::join(sum[0], sum[1])) }
    }
}

/// By bytes, the upper and the lower halves of the activations apart: as many products as by pairs, but weights are
/// unpacked to bytes, which takes half the instructions.
pub(crate) struct ByBytes;

impl<S: ByteDot> QuadDot<S> for ByBytes {
    type Quad = [S::Int; 2];
    type Sum = [S::Int; 2];

    #[inline(always)]
    unsafe fn zero() -> [S::Int; 2] {
        // SAFETY: by the contract.
        unsafe { [S::splat32(0); 2] }
    }

    #[inline(always)]
    unsafe fn load(x: IntegerRow<'_>, quad: usize) -> [S::Int; 2] {
        // SAFETY: by the contract.
        unsafe {
            let from = x.halves.as_ptr().add(2 * quad).cast::<i16>();
            [S::splat_pair(from), S::splat_pair(from.add(2))]
        }
    }

    #[inline(always)]
    unsafe fn add<Q: Quantized>(
        sum: [S::Int; 2],
        planes: Planes,
        quad: usize,
        x: [S::Int; 2],
    ) -> [S::Int; 2] {
        // SAFETY: by the contract.
        unsafe {
            let weights = planes.bytes::<S, Q>(quad);
            [S::dot_bytes(sum[0], weights, x[0]), S::dot_bytes(sum[1], weights, x[1])]
        }
    }

    #[inline(always)]
    unsafe fn total(sum: [S::Int; 2]) -> S::Int {
        // SAFETY: by the contract.
        unsafe { S::add32(S::shl32(sum[0], 8), sum[1]) }
    }
}

/// Product of a tile, row by row, `UNITS` vectors of outputs at a time.
///
/// # Safety
/// As for [`TileKernel`](crate::tile::TileKernel), with the instructions of `S`.
#[inline(always)]
pub(crate) unsafe fn gemv<S: Simd, Q: Quantized, D: QuadDot<S>, const UNITS: usize>(tile: &Tile<'_>) {
    let groups_at_once = UNITS * S::LANES / GROUP;
    let end = tile.first_group + tile.groups;
    for row in tile.first_row..tile.first_row + tile.rows {
        let x = tile.x.integer_row(row);
        let mut group = tile.first_group;
        // SAFETY: by the contract of this function; groups stay below `end`.
        unsafe {
            while group + groups_at_once <= end {
                gemv_units::<S, Q, D, UNITS>(tile, group, row, x);
                group += groups_at_once;
            }
            while group < end {
                match GROUP / S::LANES {
                    1 => gemv_units::<S, Q, D, 1>(tile, group, row, x),
                    2 => gemv_units::<S, Q, D, 2>(tile, group, row, x),
                    _ => gemv_units::<S, Q, D, 4>(tile, group, row, x),
                }
                group += 1;
            }
        }
    }
}

/// One activation row by the groups from `group` on that `UNITS` vectors cover.
///
/// # Safety
/// As for [`gemv`]; the groups are in the tile.
#[inline(always)]
unsafe fn gemv_units<S: Simd, Q: Quantized, D: QuadDot<S>, const UNITS: usize>(
    tile: &Tile<'_>,
    group: usize,
    row: usize,
    x: IntegerRow<'_>,
) {
    let layout = Q::LAYOUT;
    let (cols, group_bytes) = (tile.w.cols(), tile.w.group_bytes());
    let per_group = GROUP / S::LANES;
    let first = tile.w.group(group).as_ptr();
    let mut scales = [const { ScalePanel::ZERO }; UNITS]; // one a group; UNITS is at least that many
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
                let block = first_col / BLOCK + b;
                let read = super_at + b * layout.super_bytes(1);
                for which in 0..UNITS / per_group {
                    let group = first.wrapping_add(which * group_bytes);
                    let next = ahead(group, read, group_bytes, UNITS / per_group);
                    for line in 0..layout.super_bytes(1).div_ceil(LINE) {
                        S::prefetch(next.wrapping_add(line * LINE));
                    }
                }
                gemv_block::<S, Q, D, UNITS>(&planes, &scales, b, block, x, &mut sums);
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
            tile.store(group + which, row, &row_sums);
        }
    }
}

/// Adds the products of one block of 32: `b` in its superblock, `block` in the row.
///
/// # Safety
/// As for [`gemv_units`]; the planes hold the block and `x` has it.
#[inline(always)]
unsafe fn gemv_block<S: Simd, Q: Quantized, D: QuadDot<S>, const UNITS: usize>(
    planes: &[Planes; UNITS],
    scales: &[ScalePanel; UNITS],
    b: usize,
    block: usize,
    x: IntegerRow<'_>,
    sums: &mut [S::Float; UNITS],
) {
    let layout = Q::LAYOUT;
    let per_group = GROUP / S::LANES;
    // SAFETY: by the contract.
    unsafe {
        let x_scale = S::splat_f32(*x.scales.get_unchecked(block));
        let mut products = [D::zero(); UNITS];
        unroll8!(QUAD => {
            let quad = D::load(x, block * BLOCK / 4 + QUAD);
            for unit in 0..UNITS {
                products[unit] = D::add::<Q>(products[unit], planes[unit], QUAD, quad);
            }
            if QUAD % (layout.sub / 4) == layout.sub / 4 - 1 {
                let sub_in_block = QUAD * 4 / layout.sub;
                let sub = b * (BLOCK / layout.sub) + sub_in_block;
                let sum = if layout.sub == BLOCK {
                    x.sums.get_unchecked(2 * block) + x.sums.get_unchecked(2 * block + 1)
                } else {
                    *x.sums.get_unchecked(2 * block + sub_in_block)
                };
                // What the offset of the stored weights added.
                let excess = S::splat32(sum * layout.offset);
                let which_sum = if layout.sub == BLOCK { 2 } else { sub_in_block };
                let scaled_sum = S::splat_f32(*x.scaled_sums.get_unchecked(3 * block + which_sum));
                for unit in 0..UNITS {
                    let total = D::total(products[unit]);
                    let total = if layout.offset == 0 { total } else { S::sub32(total, excess) };
                    let (panel, lane) = (&scales[unit / per_group], unit % per_group * S::LANES);
                    let scale = S::load_f32(panel.scales.get_unchecked(sub).as_ptr().add(lane));
                    sums[unit] = S::fma(S::to_float(total), S::mul(scale, x_scale), sums[unit]);
                    if layout.has_min() {
                        let min = S::load_f32(panel.mins.get_unchecked(sub).as_ptr().add(lane));
                        sums[unit] = S::fnma(min, scaled_sum, sums[unit]);
                    }
                    products[unit] = D::zero();
                }
            }
        });
    }
}

/// A superblock of one group, unpacked.
#[repr(C, align(64))]
struct Panel {
    pairs: [[[i16; 2]; GROUP]; SUPER / 2], // (quad and parity, row, two weights), offset removed
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
            for part in 0..GROUP / S::LANES {
                let at = 4 * S::LANES * part;
                let mut planes = Planes { high: start.high.add(at), low: start.low.add(at) };
                for block in 0..blocks {
                    let out = self.pairs.as_mut_ptr().add(block * BLOCK / 2).cast::<u8>().add(at);
                    unroll8!(QUAD => {
                        let even = planes.pairs::<S, Q>(QUAD, 0);
                        let odd = planes.pairs::<S, Q>(QUAD, 1);
                        S::store(out.add(2 * QUAD * LINE), S::sub16(even, offset));
                        S::store(out.add((2 * QUAD + 1) * LINE), S::sub16(odd, offset));
                    });
                    planes = planes.skip::<Q>(1);
                }
            }
        }
    }
}

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
                unsafe { tile.store(group + which, tile.first_row + row, &sums.0[row][which]) };
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
            let subs_per_block = BLOCK / layout.sub;
            let pairs_per_sub = layout.sub / 2;
            for sub in 0..self.blocks * subs_per_block {
                let mut products = [[S::zero_sum(); ROWS]; UNITS];
                for pair in sub * pairs_per_sub..(sub + 1) * pairs_per_sub {
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
                let block = self.first_block + sub / subs_per_block;
                let which_sum = if layout.sub == BLOCK { 2 } else { sub % 2 };
                for unit in 0..UNITS {
                    let (which, lane) = place(unit);
                    let scales = &self.panels[which].scales;
                    let scale = S::load_f32(scales.scales.get_unchecked(sub).as_ptr().add(lane));
                    for r in 0..ROWS {
                        let to = sums.0[row + r][which].as_mut_ptr().add(lane);
                        let x_scale = S::splat_f32(*x[r].scales.get_unchecked(block));
                        let total = S::to_float(S::total(products[unit][r]));
                        let mut sum = S::fma(total, S::mul(scale, x_scale), S::load_f32(to));
                        if layout.has_min() {
                            let min = S::load_f32(scales.mins.get_unchecked(sub).as_ptr().add(lane));
                            let scaled = S::splat_f32(*x[r].scaled_sums.get_unchecked(3 * block + which_sum));
                            sum = S::fnma(min, scaled, sum);
                        }
                        S::store_f32(to, sum);
                    }
                }
            }
        }
    }
}
