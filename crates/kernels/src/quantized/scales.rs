//! Scales of a superblock taken out of their bits, in vectors.

use super::{Quantized, unroll8};
use crate::layout::{GROUP, Scales};
use crate::simd::Simd;

/// Scales, factors and mins of a superblock of one group.
#[repr(C, align(64))]
pub(super) struct ScalePanel {
    pub scales: [[f32; GROUP]; 8], // (block, row); the first alone in formats that have factors
    pub factors: [[i32; GROUP]; 16], // (sub-block, row), of formats that have them
    pub mins: [[f32; GROUP]; 16],  // (sub-block, row), of formats that have them
}

impl ScalePanel {
    pub const ZERO: ScalePanel =
        ScalePanel { scales: [[0.0; GROUP]; 8], factors: [[0; GROUP]; 16], mins: [[0.0; GROUP]; 16] };

    /// Takes the scales of a superblock of `blocks` blocks out of their bits.
    ///
    /// # Safety
    /// The machine has the instructions of `S`; `from` is good for the scales of the superblock.
    #[inline(always)]
    pub unsafe fn fill<S: Simd, Q: Quantized>(&mut self, from: *const u8, blocks: usize) {
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
                        self.put_scale::<S>(0, lane, half::<S>(from, 0, lane));
                        for sub in 0..16 {
                            let factor = S::load_i8(from.add(2 * GROUP + GROUP * sub + lane));
                            self.put_factor::<S>(sub, lane, factor);
                        }
                    }
                    Scales::NibbleMin => {
                        self.put_scale::<S>(0, lane, half::<S>(from, 0, lane));
                        let m = half::<S>(from, 1, lane);
                        for sub in 0..16 {
                            let byte = S::load_u8(from.add(4 * GROUP + GROUP * sub + lane));
                            self.put_factor::<S>(sub, lane, S::and(byte, S::splat32(15)));
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
            self.put_scale::<S>(0, lane, half::<S>(from, 0, lane));
            let mask = S::splat32(63);
            let last = S::or(
                S::shr32(words[0], 30),
                S::or(S::shl32(S::shr32(words[1], 30), 2), S::shl32(S::shr32(words[2], 30), 4)),
            );
            if with_mins {
                let m = half::<S>(from, 1, lane);
                unroll8!(I => {
                    self.put_factor::<S>(I, lane, S::and(S::shr32(words[I / 5], 6 * (I % 5)), mask));
                    let min = if I == 7 { last } else { S::and(S::shr32(words[(I + 8) / 5 % 3], 6 * ((I + 8) % 5)), mask) };
                    self.put_min::<S>(I, lane, S::mul(m, S::to_float(min)));
                });
            } else {
                let offset = S::splat32(32);
                unroll8!(I => {
                    let first = S::and(S::shr32(words[I / 5], 6 * (I % 5)), mask);
                    let second =
                        if I == 7 { last } else { S::and(S::shr32(words[(I + 8) / 5 % 3], 6 * ((I + 8) % 5)), mask) };
                    self.put_factor::<S>(I, lane, S::sub32(first, offset));
                    self.put_factor::<S>(I + 8, lane, S::sub32(second, offset));
                });
            }
        }
    }

    /// # Safety
    /// The machine has the instructions of `S`; `lane + LANES <= 16`.
    #[inline(always)]
    unsafe fn put_scale<S: Simd>(&mut self, block: usize, lane: usize, scale: S::Float) {
        // SAFETY: inside the row of 16 by the contract.
        unsafe { S::store_f32(self.scales[block].as_mut_ptr().add(lane), scale) }
    }

    /// # Safety
    /// As for [`ScalePanel::put_scale`].
    #[inline(always)]
    unsafe fn put_factor<S: Simd>(&mut self, sub: usize, lane: usize, factor: S::Int) {
        // SAFETY: as above.
        unsafe { S::store(self.factors[sub].as_mut_ptr().add(lane).cast(), factor) }
    }

    /// The scale of block `block` of the superblock.
    ///
    /// # Safety
    /// As for [`ScalePanel::put_scale`].
    #[inline(always)]
    pub unsafe fn scale<S: Simd, Q: Quantized>(&self, block: usize, lane: usize) -> S::Float {
        let block = if Q::LAYOUT.has_factors() { 0 } else { block };
        // SAFETY: as above.
        unsafe { S::load_f32(self.scales.get_unchecked(block).as_ptr().add(lane)) }
    }

    /// # Safety
    /// As for [`ScalePanel::put_scale`].
    #[inline(always)]
    pub unsafe fn factor<S: Simd>(&self, sub: usize, lane: usize) -> S::Int {
        // SAFETY: as above.
        unsafe { S::load(self.factors.get_unchecked(sub).as_ptr().add(lane).cast()) }
    }

    /// # Safety
    /// As for [`ScalePanel::put_scale`].
    #[inline(always)]
    pub unsafe fn min<S: Simd>(&self, sub: usize, lane: usize) -> S::Float {
        // SAFETY: as above.
        unsafe { S::load_f32(self.mins.get_unchecked(sub).as_ptr().add(lane)) }
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
