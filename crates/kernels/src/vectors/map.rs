//! Element-wise loops over slices: whole vectors, then one partial one.

use super::Simd;

/// A function of one value per element.
pub(crate) trait Map: Copy {
    fn apply<S: Simd>(self, simd: S, x: S::F) -> S::F;
}

/// A function of two values per element.
pub(crate) trait Zip: Copy {
    fn apply<S: Simd>(self, simd: S, a: S::F, b: S::F) -> S::F;
}

/// `x[i] = f(x[i])`.
#[inline(always)]
pub(crate) fn map<S: Simd>(simd: S, f: impl Map, x: &mut [f32]) {
    let mut chunks = x.chunks_exact_mut(S::LANES);
    for chunk in &mut chunks {
        let y = f.apply(simd, simd.read(chunk));
        simd.write(chunk, y);
    }
    let rest = chunks.into_remainder();
    if !rest.is_empty() {
        let y = f.apply(simd, simd.read_part(rest));
        simd.write_part(rest, y);
    }
}

/// `a[i] = f(a[i], b[i])` for slices of one length.
#[inline(always)]
pub(crate) fn zip<S: Simd>(simd: S, f: impl Zip, a: &mut [f32], b: &[f32]) {
    debug_assert_eq!(a.len(), b.len());
    let mut a = a.chunks_exact_mut(S::LANES);
    let mut b = b.chunks_exact(S::LANES);
    for (a, b) in (&mut a).zip(&mut b) {
        let y = f.apply(simd, simd.read(a), simd.read(b));
        simd.write(a, y);
    }
    let (a, b) = (a.into_remainder(), b.remainder());
    if !a.is_empty() {
        let y = f.apply(simd, simd.read_part(a), simd.read_part(b));
        simd.write_part(a, y);
    }
}
