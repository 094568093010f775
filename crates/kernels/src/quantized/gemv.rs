//! Decode by 16-bit activations.
#![allow(clippy::needless_range_loop)] // units and rows index several arrays at once, in unrolled loops

use super::decode::{BlockProduct, decode};
use super::planes::Planes;
use super::scales::ScalePanel;
use super::{Quantized, unroll8};
use crate::activations::IntegerRow;
use crate::layout::{BLOCK, GROUP};
use crate::simd::{ByteDot, Simd};
use crate::tile::Tile;

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
/// unpacked to bytes, which takes half the instructions. Only AVX-512 VNNI runs it.
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

/// Product of a tile by 16-bit activations, `UNITS` vectors of outputs at a time.
///
/// # Safety
/// As for [`TileKernel`](crate::tile::TileKernel), with the instructions of `S`.
#[inline(always)]
pub(crate) unsafe fn gemv<S: Simd, Q: Quantized, D: QuadDot<S>, const UNITS: usize>(tile: &Tile<'_>) {
    // SAFETY: the caller's.
    unsafe { decode::<S, Q, ByQuads<D>, UNITS>(tile) };
}

/// Quad by quad as `D` multiplies them.
struct ByQuads<D>(std::marker::PhantomData<D>);

impl<S: Simd, Q: Quantized, D: QuadDot<S>> BlockProduct<S, Q> for ByQuads<D> {
    type Scales = ScalePanel;
    const NO_SCALES: ScalePanel = ScalePanel::ZERO;

    #[inline(always)]
    unsafe fn fill(scales: &mut ScalePanel, from: *const u8, blocks: usize) {
        // SAFETY: the caller's.
        unsafe { scales.fill::<S, Q>(from, blocks) };
    }

    #[inline(always)]
    unsafe fn add<const UNITS: usize>(
        planes: &[Planes; UNITS],
        scales: &[ScalePanel; UNITS],
        b: usize,
        block: usize,
        x: IntegerRow<'_>,
        sums: &mut [S::Float; UNITS],
    ) {
        let layout = Q::LAYOUT;
        let (per_group, subs) = (GROUP / S::LANES, BLOCK / layout.sub);
        // SAFETY: by the contract.
        unsafe {
            let mut products = [D::zero(); UNITS];
            let mut totals = [S::splat32(0); UNITS];
            unroll8!(QUAD => {
                let quad = D::load(x, block * BLOCK / 4 + QUAD);
                for unit in 0..UNITS {
                    products[unit] = D::add::<Q>(products[unit], planes[unit], QUAD, quad);
                }
                if QUAD % (layout.sub / 4) == layout.sub / 4 - 1 {
                    let sub_in_block = QUAD * 4 / layout.sub;
                    let sub = b * subs + sub_in_block;
                    let sum = if subs == 1 {
                        x.sums.get_unchecked(2 * block) + x.sums.get_unchecked(2 * block + 1)
                    } else {
                        *x.sums.get_unchecked(2 * block + sub_in_block)
                    };
                    // What the offset of the stored weights added.
                    let excess = S::splat32(sum * layout.offset);
                    for unit in 0..UNITS {
                        let mut total = D::total(products[unit]);
                        if layout.offset != 0 {
                            total = S::sub32(total, excess);
                        }
                        if layout.has_factors() {
                            let (panel, lane) = (&scales[unit / per_group], unit % per_group * S::LANES);
                            total = S::mul32(total, panel.factor::<S>(sub, lane));
                        }
                        totals[unit] = if sub_in_block == 0 { total } else { S::add32(totals[unit], total) };
                        products[unit] = D::zero();
                    }
                }
            });
            let x_scale = S::splat_f32(*x.scales.get_unchecked(block));
            for unit in 0..UNITS {
                let (panel, lane) = (&scales[unit / per_group], unit % per_group * S::LANES);
                let scale = S::mul(panel.scale::<S, Q>(b, lane), x_scale);
                sums[unit] = S::fma(S::to_float(totals[unit]), scale, sums[unit]);
                if layout.has_min() {
                    for sub in 0..subs {
                        let scaled_sum = S::splat_f32(x.scaled_sum(block, sub, subs));
                        sums[unit] = S::fnma(panel.min::<S>(b * subs + sub, lane), scaled_sum, sums[unit]);
                    }
                }
            }
        }
    }
}
