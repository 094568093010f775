//! Scales of a superblock as byte kernels apply them: one f32 for each integer total.

use super::Quantized;
use super::scales::ScalePanel;
use crate::layout::GROUP;
use crate::simd::Simd;

/// Scales and mins of a superblock of one group.
///
/// A total is the integer sum over a block of 32, or over 16 where a factor belongs to 16 and is too large to be
/// multiplied into the weights. Its scale is `d * factor`, which f32 holds exactly.
#[repr(C, align(64))]
pub(super) struct ByteScales {
    panel: ScalePanel,
    totals: [[f32; GROUP]; 16], // (total, row), of formats whose factors are in their scales
}

impl ByteScales {
    pub const ZERO: ByteScales = ByteScales { panel: ScalePanel::ZERO, totals: [[0.0; GROUP]; 16] };

    /// Takes the scales of a superblock of `blocks` blocks out of their bits.
    ///
    /// # Safety
    /// The machine has the instructions of `S`; `from` is good for the scales of the superblock.
    #[inline(always)]
    pub unsafe fn fill<S: Simd, Q: Quantized>(&mut self, from: *const u8, blocks: usize) {
        let layout = Q::LAYOUT;
        // SAFETY: by the contract; rows and lanes are inside the panel.
        unsafe {
            self.panel.fill::<S, Q>(from, blocks);
            if !layout.has_factors() || layout.folds_factors() {
                return;
            }
            for lane in (0..GROUP).step_by(S::LANES) {
                let d = self.panel.scale::<S, Q>(0, lane);
                for total in 0..blocks * layout.byte_totals() {
                    let scale = S::mul(d, S::to_float(self.panel.factor::<S>(total, lane)));
                    S::store_f32(self.totals.get_unchecked_mut(total).as_mut_ptr().add(lane), scale);
                }
            }
        }
    }

    /// The scale of total `total` of the superblock.
    ///
    /// # Safety
    /// The machine has the instructions of `S`; the superblock has that total; `lane + LANES <= 16`.
    #[inline(always)]
    pub unsafe fn scale<S: Simd, Q: Quantized>(&self, total: usize, lane: usize) -> S::Float {
        let layout = Q::LAYOUT;
        // SAFETY: by the contract.
        unsafe {
            if layout.has_factors() && !layout.folds_factors() {
                S::load_f32(self.totals.get_unchecked(total).as_ptr().add(lane))
            } else {
                self.panel.scale::<S, Q>(total, lane)
            }
        }
    }

    /// The factor of sub-block `sub`, of formats that fold it into integers.
    ///
    /// # Safety
    /// As for [`ByteScales::scale`].
    #[inline(always)]
    pub unsafe fn factor<S: Simd>(&self, sub: usize, lane: usize) -> S::Int {
        // SAFETY: by the contract.
        unsafe { self.panel.factor::<S>(sub, lane) }
    }

    /// The min of sub-block `sub`.
    ///
    /// # Safety
    /// As for [`ByteScales::scale`].
    #[inline(always)]
    pub unsafe fn min<S: Simd>(&self, sub: usize, lane: usize) -> S::Float {
        // SAFETY: by the contract.
        unsafe { self.panel.min::<S>(sub, lane) }
    }
}
