//! Decode by 8-bit activations.
#![allow(clippy::needless_range_loop)] // units and rows index several arrays at once, in unrolled loops

use super::byte_scales::ByteScales;
use super::decode::{BlockProduct, decode};
use super::planes::Planes;
use super::{Quantized, unroll8};
use crate::activations::IntegerRow;
use crate::layout::{BLOCK, GROUP};
use crate::simd::ByteProducts;
use crate::tile::Tile;

/// Product of a tile by 8-bit activations, `UNITS` vectors of outputs at a time.
///
/// # Safety
/// As for [`TileKernel`](crate::tile::TileKernel), with the instructions of `S`.
#[inline(always)]
pub(crate) unsafe fn byte_gemv<S: ByteProducts, Q: Quantized, const UNITS: usize>(tile: &Tile<'_>) {
    // SAFETY: the caller's.
    unsafe { decode::<S, Q, ByteProduct, UNITS>(tile) };
}

struct ByteProduct;

impl<S: ByteProducts, Q: Quantized> BlockProduct<S, Q> for ByteProduct {
    type Scales = ByteScales;
    const NO_SCALES: ByteScales = ByteScales::ZERO;

    #[inline(always)]
    unsafe fn fill(scales: &mut ByteScales, from: *const u8, blocks: usize) {
        // SAFETY: the caller's.
        unsafe { scales.fill::<S, Q>(from, blocks) };
    }

    #[inline(always)]
    unsafe fn add<const UNITS: usize>(
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
            // Integers may be added in any order: quads in turn go to chains of their own, half as long, where a total
            // has eight; with chains of four a second one is only another addition.
            let chains = if quads == 8 { S::CHAINS } else { 1 };
            let mut products = [[S::zero_sum(); 2]; UNITS];
            let mut folded = [S::splat32(0); UNITS]; // total of the block where factors are folded into integers
            let mut scaled = [S::splat_f32(0.0); UNITS]; // otherwise, totals times their scales
            unroll8!(QUAD => {
                let quad = S::splat_pair(bytes.add(2 * QUAD));
                for unit in 0..UNITS {
                    let weights = planes[unit].bytes::<S, Q>(QUAD);
                    let chain = &mut products[unit][QUAD % chains];
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
                        if chains == 2 {
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
}
