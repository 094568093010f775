//! Weights of a superblock taken out of their bits, in vectors.

use super::Quantized;
use crate::layout::LINE;
use crate::simd::Simd;

/// The planes of a superblock, from some lane on.
#[derive(Clone, Copy)]
pub(crate) struct Planes {
    pub high: *const u8,
    pub low: *const u8,
}

impl Planes {
    /// The stored weights (1, 3) if `odd`, else (0, 2), of quad `quad` of the first block, as 16-bit pairs.
    ///
    /// # Safety
    /// The machine has the instructions of `S`; the planes hold the quad.
    #[inline(always)]
    pub unsafe fn pairs<S: Simd, Q: Quantized>(self, quad: usize, odd: usize) -> S::Int {
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
    pub unsafe fn bytes<S: Simd, Q: Quantized>(self, quad: usize) -> S::Int {
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
    pub unsafe fn skip<Q: Quantized>(self, blocks: usize) -> Planes {
        // SAFETY: by the contract.
        unsafe {
            Planes {
                high: self.high.add(blocks * Q::LAYOUT.high_bits * LINE),
                low: self.low.add(blocks * Q::LAYOUT.low_bits * LINE),
            }
        }
    }
}
