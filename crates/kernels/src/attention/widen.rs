//! Widening the rows of an operand to f32 once, where several panels of queries read them.

use std::marker::PhantomData;

use super::ahead::Fetch;
use super::tile::{Bf16, F16, F32, I8, Operand, Q8_0, STRIP, Source};
use crate::kv_page::{BLOCK, KvFormat};
use crate::vectors::{Kernel, Simd};

/// What the rows are: channels (of keys) or slots (of values).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Along {
    Channels,
    Slots,
}

/// Widens rows of stored numbers to f32 rows that are padded with zeros to whole vectors. The numbers of [`I8`] keep
/// their slot's factor for later.
pub(super) struct Widen {
    pub along: Along,
    pub from: Operand, // (rows, columns)
    pub rows: usize,
    pub columns: usize,
    pub to: *mut f32, // (rows, padded)
    pub padded: usize,
}

impl Widen {
    /// # Safety
    /// The pointers hold what their comments say, `padded` is at least `columns` and a multiple of 16, and nothing
    /// else uses `to` meanwhile.
    #[inline(always)]
    pub unsafe fn run<S: Simd>(self, simd: S) {
        match self.from.format {
            KvFormat::F32 => simd.enter(WidenRows::<F32> { job: self, source: PhantomData }),
            KvFormat::F16 => simd.enter(WidenRows::<F16> { job: self, source: PhantomData }),
            KvFormat::Bf16 => simd.enter(WidenRows::<Bf16> { job: self, source: PhantomData }),
            KvFormat::I8 => simd.enter(WidenRows::<I8> { job: self, source: PhantomData }),
            KvFormat::Q8_0 => simd.enter(WidenRows::<Q8_0> { job: self, source: PhantomData }),
            _ => unreachable!("a sealed page is widened by its codec"),
        }
    }
}

/// [`Widen`] for one format. Made only by [`Widen::run`], whose caller owes the memory behind the pointers.
struct WidenRows<E> {
    job: Widen,
    source: PhantomData<E>,
}

impl<E: Source> Kernel for WidenRows<E> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Widen { along, from, rows, columns, to, padded } = self.job;
        let whole = columns - columns % S::LANES;
        let mut fetch = Fetch::new(from.ahead);
        for row in 0..rows {
            fetch.step(simd, columns * E::WIDTH);
            // SAFETY: the maker of `self` vouched for `rows` rows of `columns` numbers, each `padded` in `to`, and for
            // a factor per block; the last, partial vector is taken from a copy that is as long as any vector, and
            // blocks leave none.
            unsafe {
                let source = from.data.add(row * from.stride * E::WIDTH);
                let to = to.add(row * padded);
                for c in (0..whole).step_by(S::LANES) {
                    let mut x = E::load(simd, source.add(c * E::WIDTH));
                    if E::BLOCKS {
                        let factor = match along {
                            Along::Channels => simd.load(from.factors.add(row / BLOCK * STRIP + c)),
                            Along::Slots => {
                                simd.splat(*from.factors.add(row * (columns / BLOCK) + c / BLOCK))
                            }
                        };
                        x = simd.mul(x, factor);
                    }
                    simd.store(to.add(c), x);
                }
                if whole < columns {
                    let mut rest = [0u8; 64];
                    let bytes = (columns - whole) * E::WIDTH;
                    std::ptr::copy_nonoverlapping(source.add(whole * E::WIDTH), rest.as_mut_ptr(), bytes);
                    simd.store(to.add(whole), E::load(simd, rest.as_ptr()));
                }
            }
        }
    }
}
