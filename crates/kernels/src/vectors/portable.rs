//! Four lanes in plain Rust: the reference that runs anywhere. The exponentials are those of the standard library,
//! so a fault in the polynomials of the other levels shows against it.

use half::{bf16, f16};

use super::{Kernel, Simd};

/// Plain Rust needs no proof.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

const N: usize = 4;

#[inline(always)]
fn each(f: impl Fn(usize) -> f32) -> [f32; N] {
    std::array::from_fn(f)
}

impl Simd for Portable {
    const LANES: usize = N;
    const MANY_REGISTERS: bool = false;
    type F = [f32; N];

    #[inline(never)]
    fn enter<K: Kernel>(self, kernel: K) -> K::Out {
        kernel.run(self)
    }
    #[inline(always)]
    fn splat(self, x: f32) -> [f32; N] {
        [x; N]
    }
    #[inline(always)]
    fn add(self, a: [f32; N], b: [f32; N]) -> [f32; N] {
        each(|i| a[i] + b[i])
    }
    #[inline(always)]
    fn sub(self, a: [f32; N], b: [f32; N]) -> [f32; N] {
        each(|i| a[i] - b[i])
    }
    #[inline(always)]
    fn mul(self, a: [f32; N], b: [f32; N]) -> [f32; N] {
        each(|i| a[i] * b[i])
    }
    #[inline(always)]
    fn div(self, a: [f32; N], b: [f32; N]) -> [f32; N] {
        each(|i| a[i] / b[i])
    }
    #[inline(always)]
    fn fma(self, a: [f32; N], b: [f32; N], c: [f32; N]) -> [f32; N] {
        each(|i| a[i] * b[i] + c[i]) // `mul_add` is a library call where the base level has no such instruction
    }
    #[inline(always)]
    fn max(self, a: [f32; N], b: [f32; N]) -> [f32; N] {
        each(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn abs(self, a: [f32; N]) -> [f32; N] {
        each(|i| a[i].abs())
    }
    #[inline(always)]
    fn where_less(self, a: [f32; N], b: [f32; N], yes: [f32; N], no: [f32; N]) -> [f32; N] {
        each(|i| if a[i] < b[i] { yes[i] } else { no[i] })
    }
    #[inline(always)]
    fn where_lane(self, from: usize, to: usize, yes: [f32; N], no: [f32; N]) -> [f32; N] {
        each(|i| if (from..to).contains(&i) { yes[i] } else { no[i] })
    }
    #[inline(always)]
    fn round(self, a: [f32; N]) -> [f32; N] {
        each(|i| a[i].round_ties_even())
    }
    #[inline(always)]
    fn scale2(self, a: [f32; N], n: [f32; N]) -> [f32; N] {
        each(|i| a[i] * n[i].exp2())
    }
    #[inline(always)]
    fn sum(self, a: [f32; N]) -> f32 {
        (a[0] + a[2]) + (a[1] + a[3])
    }
    #[inline(always)]
    fn max_lane(self, a: [f32; N]) -> f32 {
        a.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }
    #[inline(always)]
    fn exp2(self, x: [f32; N]) -> [f32; N] {
        each(|i| x[i].exp2())
    }
    #[inline(always)]
    fn exp(self, x: [f32; N]) -> [f32; N] {
        each(|i| x[i].exp())
    }

    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> [f32; N] {
        // SAFETY: the caller owes N readable elements.
        unsafe { p.cast::<[f32; N]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn load_first(self, p: *const f32, n: usize) -> [f32; N] {
        // SAFETY: the caller owes n readable elements, and no other is touched.
        each(|i| if i < n { unsafe { p.add(i).read_unaligned() } } else { 0.0 })
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, a: [f32; N]) {
        // SAFETY: the caller owes N writable elements.
        unsafe { p.cast::<[f32; N]>().write_unaligned(a) }
    }
    #[inline(always)]
    unsafe fn store_first(self, p: *mut f32, n: usize, a: [f32; N]) {
        for (i, value) in a.into_iter().enumerate().take(n) {
            // SAFETY: the caller owes n writable elements, and no other is touched.
            unsafe { p.add(i).write_unaligned(value) }
        }
    }
    #[inline(always)]
    unsafe fn load_f16(self, p: *const u16) -> [f32; N] {
        // SAFETY: the caller owes N readable elements.
        each(|i| f16::from_bits(unsafe { p.add(i).read_unaligned() }).to_f32())
    }
    #[inline(always)]
    unsafe fn load_bf16(self, p: *const u16) -> [f32; N] {
        // SAFETY: the caller owes N readable elements.
        each(|i| bf16::from_bits(unsafe { p.add(i).read_unaligned() }).to_f32())
    }
    #[inline(always)]
    unsafe fn load_i8(self, p: *const i8) -> [f32; N] {
        // SAFETY: the caller owes N readable elements.
        each(|i| f32::from(unsafe { p.add(i).read() }))
    }
    #[inline(always)]
    unsafe fn lookup(self, table: &[f32; 16], p: *const u8) -> [f32; N] {
        // SAFETY: the caller owes N readable elements.
        each(|i| table[usize::from(unsafe { p.add(i).read() } & 15)])
    }
    #[inline(always)]
    fn prefetch(self, _: *const u8) {}
    #[inline(always)]
    fn prefetch_near(self, _: *const u8) {}
}
