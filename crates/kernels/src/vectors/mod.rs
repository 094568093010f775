//! Vectors of f32, one type per instruction set, so that a kernel is written once and compiled for each.
//!
//! A value of a type that implements [`Simd`] is proof that the machine has the instructions: it is made only in
//! [`dispatch`], after the kernel table has chosen the level, so the arithmetic methods are safe to call. Kernels
//! implement [`Kernel`] and everything they call is `#[inline(always)]`, because only code that is inlined into the
//! `#[target_feature]` function of an instruction set is compiled with its instructions.

/// Methods of a [`Simd`] that compute with values.
macro_rules! methods {
    ($(fn $name:ident(self $(, $arg:ident: $ty:ty)*) -> $out:ty = $body:expr;)*) => {
        $(#[inline(always)]
        fn $name(self $(, $arg: $ty)*) -> $out {
            // SAFETY: `self` exists only where the machine has these instructions.
            #[allow(unused_unsafe, clippy::macro_metavars_in_unsafe)]
            unsafe { $body }
        })*
    };
}

/// Methods of a [`Simd`] that read or write through a pointer.
macro_rules! pointer_methods {
    ($(fn $name:ident(self $(, $arg:ident: $ty:ty)*) -> $out:ty = $body:expr;)*) => {
        $(#[inline(always)]
        unsafe fn $name(self $(, $arg: $ty)*) -> $out {
            // SAFETY: the caller owes the elements behind the pointer, and `self` exists only where the machine has
            // these instructions.
            unsafe { $body }
        })*
    };
}

use std::sync::OnceLock;

use {methods, pointer_methods};

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod map;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;

pub(crate) use map::{Map, Zip, map, zip};
#[cfg(test)]
pub(crate) use portable::Portable;

use crate::isa::Isa;
use crate::table::{Candidate, Chooser, Operation};

/// Coefficients of 2^x on [-1/2, 1/2] from the first power up, the zeroth being exactly 1. Minimax fit of the
/// relative error, which is 2.0e-9, far below the rounding of the Horner scheme.
const EXP2: [f32; 6] =
    [6.931_472e-1, 2.402_264_8e-1, 5.550_332_5e-2, 9.618_437e-3, 1.339_887_3e-3, 1.535_334_2e-4];

/// ln 2 as a short number, whose product with a small integer is exact, and what is missing.
const LN2_HIGH: f32 = 0.693_359_4;
const LN2_LOW: f32 = -2.121_944_4e-4;

/// `LANES` values of f32 and what can be done with them.
///
/// The unsafe methods read or write through pointers: the caller owes that the stated number of elements may be
/// read or written there. No method asks for alignment.
pub(crate) trait Simd: Copy {
    /// Values per vector.
    const LANES: usize;
    /// Whether there are 32 vector registers rather than 16: decides how large register tiles are.
    const MANY_REGISTERS: bool;
    /// One vector.
    type F: Copy;

    fn splat(self, x: f32) -> Self::F;
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`, rounded once wherever the level has fused multiply-add.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// The larger; where either is NaN it may be either of them.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    fn abs(self, a: Self::F) -> Self::F;
    /// `yes` where `a < b`, `no` elsewhere and where either is NaN.
    fn where_less(self, a: Self::F, b: Self::F, yes: Self::F, no: Self::F) -> Self::F;
    /// `yes` in the lanes `from..to`, `no` elsewhere.
    fn where_lane(self, from: usize, to: usize, yes: Self::F, no: Self::F) -> Self::F;
    /// To the nearest integer, ties to even.
    fn round(self, a: Self::F) -> Self::F;
    /// `a * 2^n` for integral `n`, where `a` is in [1/2, 2] and the result is normal.
    fn scale2(self, a: Self::F, n: Self::F) -> Self::F;
    /// The sum of the lanes, in an order that depends on nothing.
    fn sum(self, a: Self::F) -> f32;
    /// The largest lane; a NaN lane may win or be ignored.
    fn max_lane(self, a: Self::F) -> f32;
    /// The sums of eight vectors, each in the order of [`sum`](Simd::sum).
    #[inline(always)]
    fn sums(self, a: &[Self::F; 8]) -> [f32; 8] {
        let mut sums = [0.0; 8];
        for (sum, a) in sums.iter_mut().zip(a) {
            *sum = self.sum(*a);
        }
        sums
    }
    /// The largest lanes of eight vectors; a NaN lane may win or be ignored.
    #[inline(always)]
    fn max_lanes(self, a: &[Self::F; 8]) -> [f32; 8] {
        let mut maxima = [0.0; 8];
        for (max, a) in maxima.iter_mut().zip(a) {
            *max = self.max_lane(*a);
        }
        maxima
    }

    /// # Safety
    /// `LANES` elements may be read at `p`.
    unsafe fn load(self, p: *const f32) -> Self::F;
    /// The first `n < LANES` elements, zeros behind them.
    ///
    /// # Safety
    /// `n` elements may be read at `p`.
    unsafe fn load_first(self, p: *const f32, n: usize) -> Self::F;
    /// # Safety
    /// `LANES` elements may be written at `p`.
    unsafe fn store(self, p: *mut f32, a: Self::F);
    /// Stores the first `n < LANES` lanes.
    ///
    /// # Safety
    /// `n` elements may be written at `p`.
    unsafe fn store_first(self, p: *mut f32, n: usize, a: Self::F);
    /// Widens `LANES` IEEE half floats.
    ///
    /// # Safety
    /// `LANES` elements may be read at `p`.
    unsafe fn load_f16(self, p: *const u16) -> Self::F;
    /// Widens `LANES` bfloat16 numbers.
    ///
    /// # Safety
    /// `LANES` elements may be read at `p`.
    unsafe fn load_bf16(self, p: *const u16) -> Self::F;
    /// Widens `LANES` 8-bit integers.
    ///
    /// # Safety
    /// `LANES` elements may be read at `p`.
    unsafe fn load_i8(self, p: *const i8) -> Self::F;
    /// Rounds to IEEE half floats, ties to even.
    ///
    /// # Safety
    /// `LANES` elements may be written at `p`.
    #[inline(always)]
    unsafe fn store_f16(self, p: *mut u16, a: Self::F) {
        let mut x = [0.0; 16];
        self.write(&mut x, a);
        for (i, x) in x[..Self::LANES].iter().enumerate() {
            // SAFETY: the caller owes LANES elements.
            unsafe { p.add(i).write_unaligned(half::f16::from_f32(*x).to_bits()) };
        }
    }
    /// `table[p[i]]` in every lane.
    ///
    /// # Safety
    /// `LANES` elements may be read at `p`, and each is below 16.
    unsafe fn lookup(self, table: &[f32; 16], p: *const u8) -> Self::F;
    /// Asks for the cache line at `p`, which need not be readable, into the second-level cache.
    fn prefetch(self, p: *const u8);
    /// The same, into the first-level cache: for what is in the second, or will be soon.
    fn prefetch_near(self, p: *const u8);
    /// Runs `kernel` compiled for this level in a function of its own: what should not be inlined into its caller.
    fn enter<K: Kernel>(self, kernel: K) -> K::Out;

    /// A vector out of a slice that holds one.
    #[inline(always)]
    fn read(self, x: &[f32]) -> Self::F {
        let x = &x[..Self::LANES];
        // SAFETY: the slice holds LANES elements.
        unsafe { self.load(x.as_ptr()) }
    }

    /// A vector out of a slice shorter than one, zeros behind it.
    #[inline(always)]
    fn read_part(self, x: &[f32]) -> Self::F {
        debug_assert!(x.len() < Self::LANES);
        // SAFETY: as many elements as the slice holds.
        unsafe { self.load_first(x.as_ptr(), x.len()) }
    }

    /// A vector into a slice that holds one.
    #[inline(always)]
    fn write(self, x: &mut [f32], a: Self::F) {
        let x = &mut x[..Self::LANES];
        // SAFETY: the slice holds LANES elements.
        unsafe { self.store(x.as_mut_ptr(), a) }
    }

    /// The first lanes of a vector into a slice shorter than it.
    #[inline(always)]
    fn write_part(self, x: &mut [f32], a: Self::F) {
        debug_assert!(x.len() < Self::LANES);
        // SAFETY: as many elements as the slice holds.
        unsafe { self.store_first(x.as_mut_ptr(), x.len(), a) }
    }

    /// 2^x for x ≤ 127, within 1 ulp; zero below -125.5 (so for minus infinity), NaN for NaN.
    #[inline(always)]
    fn exp2(self, x: Self::F) -> Self::F {
        let n = self.round(x);
        let f = self.sub(x, n); // in [-1/2, 1/2]
        let mut p = self.splat(EXP2[5]);
        for c in [EXP2[4], EXP2[3], EXP2[2], EXP2[1], EXP2[0], 1.0] {
            p = self.fma(p, f, self.splat(c));
        }
        self.where_less(x, self.splat(-125.5), self.splat(0.0), self.scale2(p, n))
    }

    /// e^x for x ≤ 88, within 2 ulp; zero below -87 (so for minus infinity), NaN for NaN.
    #[inline(always)]
    fn exp(self, x: Self::F) -> Self::F {
        let n = self.round(self.mul(x, self.splat(std::f32::consts::LOG2_E)));
        let r = self.fma(n, self.splat(-LN2_LOW), self.fma(n, self.splat(-LN2_HIGH), x));
        // Taylor up to r^7 / 5040 on |r| ≤ 0.3466: what follows is below 1e-8.
        let mut p = self.splat(1.0 / 5040.0);
        for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
            p = self.fma(p, r, self.splat(c));
        }
        self.where_less(x, self.splat(-87.0), self.splat(0.0), self.scale2(p, n))
    }

    /// 1 / (1 + e^-x).
    #[inline(always)]
    fn sigmoid(self, x: Self::F) -> Self::F {
        let one = self.splat(1.0);
        // Beyond 80 the result is 1 or below 1e-34; the bound keeps e^-x finite, and lets NaN pass.
        let minus_x = self.sub(self.splat(0.0), x);
        let bounded = self.where_less(self.splat(80.0), minus_x, self.splat(80.0), minus_x);
        self.div(one, self.add(one, self.exp(bounded)))
    }
}

/// A computation that is compiled once per instruction set.
pub(crate) trait Kernel {
    /// What it returns.
    type Out;
    /// The computation. Implementations are `#[inline(always)]`, and so is what they call.
    fn run<S: Simd>(self, simd: S) -> Self::Out;
}

/// A level that [`dispatch`] can enter. Made only by [`choose`], so the machine has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Level(Isa);

impl Level {
    /// Plain Rust.
    const PORTABLE: Level = Level(Isa::Scalar);
    /// The levels beyond plain Rust that [`Simd`] is implemented for.
    #[cfg(target_arch = "x86_64")]
    const WIDER: [Level; 2] = [Level(Isa::Avx2), Level(Isa::Avx512)];
    #[cfg(target_arch = "aarch64")]
    const WIDER: [Level; 1] = [Level(Isa::Neon)];
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    const WIDER: [Level; 0] = [];
}

/// Chooses the level of the vector kernels and records it for each operation and the formats that it reads.
pub(crate) fn choose(chooser: &mut Chooser) -> Level {
    let wider = Level::WIDER.map(|level| Candidate { isa: level.0, kernel: level });
    let mut level = Level::PORTABLE;
    for operation in [Operation::Norm, Operation::Rope, Operation::Activation, Operation::Softmax] {
        level = chooser.pick(operation, "", Level::PORTABLE, &wider);
    }
    for format in crate::kv_page::KvFormat::ALL {
        level = chooser.pick(Operation::Attention, format.name(), Level::PORTABLE, &wider);
    }
    level
}

/// Asks for the line at `at`, which may be anywhere, in the second-level cache: outside of a [`Kernel`].
#[inline(always)]
pub(crate) fn prefetch(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch of any address whatever is allowed and reads nothing.
    unsafe {
        core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T1 }>(at.cast())
    };
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Runs `kernel` compiled for `level`.
pub(crate) fn dispatch<K: Kernel>(level: Level, kernel: K) -> K::Out {
    match level.0 {
        // SAFETY: `choose` hands out only levels that the machine has.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { avx2::enter(kernel) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => unsafe { avx512::enter(kernel) },
        // SAFETY: as above.
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => unsafe { neon::enter(kernel) },
        _ => portable::Portable.enter(kernel),
    }
}

/// A computation in plain Rust, for [`widely`]. Implementations are `#[inline(always)]`, and so is what they call.
pub trait Plain {
    /// What it returns.
    type Out;
    /// The computation.
    fn run(self) -> Self::Out;
}

/// Runs `plain` as compiled for the widest vectors of this machine. Its bits are the same on every machine, as a compiler
/// neither reorders nor contracts arithmetic, so this goes by what the machine has, whatever set was asked for. Only loops
/// over independent lanes gain.
pub fn widely<P: Plain>(plain: P) -> P::Out {
    struct InPlain<P>(P);
    impl<P: Plain> Kernel for InPlain<P> {
        type Out = P::Out;
        #[inline(always)]
        fn run<S: Simd>(self, _simd: S) -> P::Out {
            self.0.run()
        }
    }
    static WIDEST: OnceLock<Level> = OnceLock::new();
    let level = WIDEST.get_or_init(|| {
        let wider = Level::WIDER.into_iter().rev();
        wider.into_iter().find(|level| level.0.is_available()).unwrap_or(Level::PORTABLE)
    });
    dispatch(*level, InPlain(plain))
}

#[cfg(test)]
mod tests;
