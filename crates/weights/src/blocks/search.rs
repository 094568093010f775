//! Least-squares searches for the scale, or scale and offset, of one group of values.
//!
//! Codes are integers, so the squared error is a piecewise parabola in the scale. Each search tries the codes that a
//! few dozen scales near the range of the values imply, takes for each set of codes the scale that fits them best
//! (closed form), and from the best of those alternates codes → scale → codes until the error no longer falls.

/// Steps of 0.1 codes by which the tried ranges differ from the exact one, to either side.
const STEPS: i32 = 9;
/// Most alternations from the best start; more than three are rare.
const ALTERNATIONS: usize = 6;

/// Nearest integer, ties to even, for |v| < 2^22: adding 1.5·2^23 leaves no fraction bits. Unlike `f32::round_ties_even`
/// it needs no instruction newer than SSE2, so the loops around it vectorise in a portable build.
pub(super) fn round(v: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0;
    (v + MAGIC) - MAGIC
}

/// Σ f(i), in eight lanes so that it vectorises.
pub(super) fn sum<const N: usize>(f: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0.0f32; 8];
    for start in (0..N).step_by(8) {
        for (lane, total) in lanes.iter_mut().enumerate() {
            *total += f(start + lane);
        }
    }
    lanes.iter().sum()
}

pub(super) fn range<const N: usize>(x: &[f32; N]) -> (f32, f32) {
    x.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(min, max), &x| (min.min(x), max.max(x)))
}

/// Codes of x ≈ d·q with q in lo..=hi; all zero where d is.
pub(super) fn symmetric_codes<const N: usize>(x: &[f32; N], d: f32, lo: f32, hi: f32) -> [f32; N] {
    let inverse = inverse(d);
    x.map(|x| round((x * inverse).clamp(lo, hi)))
}

/// The d that minimises Σ w·(x − d·q)² over d and q in lo..=hi. `N` is a multiple of 8.
pub(super) fn symmetric_scale<const N: usize>(x: &[f32; N], w: &[f32; N], lo: f32, hi: f32) -> f32 {
    let extreme = x.iter().fold(0.0, |extreme: f32, &x| if x.abs() > extreme.abs() { x } else { extreme });
    if extreme == 0.0 {
        return 0.0;
    }
    let mut best = SymmetricFit { scale: 0.0, removed: 0.0 };
    for end in [lo, hi] {
        for step in -STEPS..=STEPS {
            let code = end + 0.1 * step as f32;
            // A code on the other side of zero, or too near to it, would ask for a range without end.
            if code * end > 0.0 && code.abs() > 0.5 {
                let fit = symmetric_solve(x, w, &symmetric_codes(x, extreme / code, lo, hi));
                if fit.removed > best.removed {
                    best = fit;
                }
            }
        }
    }
    for _ in 0..ALTERNATIONS {
        let fit = symmetric_solve(x, w, &symmetric_codes(x, best.scale, lo, hi));
        if fit.removed <= best.removed {
            break;
        }
        best = fit;
    }
    best.scale
}

struct SymmetricFit {
    scale: f32,
    removed: f32, // of the squared error of decoding to zero
}

/// The best scale for given codes.
fn symmetric_solve<const N: usize>(x: &[f32; N], w: &[f32; N], q: &[f32; N]) -> SymmetricFit {
    let xq = sum::<N>(|i| w[i] * x[i] * q[i]);
    let qq = sum::<N>(|i| w[i] * q[i] * q[i]);
    if qq > 0.0 {
        SymmetricFit { scale: xq / qq, removed: xq * xq / qq }
    } else {
        SymmetricFit { scale: 0.0, removed: 0.0 }
    }
}

/// x ≈ scale·q − min.
#[derive(Clone, Copy)]
pub(super) struct Affine {
    pub(super) scale: f32,
    pub(super) min: f32,
    pub(super) error: f32, // Σ w·(x − decoded)²
}

/// Which offsets an affine format can store.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Offset {
    /// Any.
    Free,
    /// `min` ≥ 0: zero lies within the range.
    NonNegative,
}

/// Codes of x ≈ scale·q − min with q in 0..=q_max; all zero where scale is.
pub(super) fn affine_codes<const N: usize>(x: &[f32; N], scale: f32, min: f32, q_max: f32) -> [f32; N] {
    let inverse = inverse(scale);
    x.map(|x| round(((x + min) * inverse).clamp(0.0, q_max)))
}

/// Σ w·(x − (scale·q − min))².
pub(super) fn affine_error<const N: usize>(
    x: &[f32; N],
    w: &[f32; N],
    q: &[f32; N],
    scale: f32,
    min: f32,
) -> f32 {
    sum::<N>(|i| {
        let difference = x[i] - (scale * q[i] - min);
        w[i] * difference * difference
    })
}

/// The scale ≥ 0 and min that minimise Σ w·(x − (scale·q − min))² over both and q in 0..=q_max.
pub(super) fn affine<const N: usize>(x: &[f32; N], w: &[f32; N], q_max: f32, offset: Offset) -> Affine {
    let (lo, hi) = range(x);
    let lo = if offset == Offset::NonNegative { lo.min(0.0) } else { lo };
    let flat = affine_solve(x, w, &[0.0; N], offset);
    let width = hi - lo;
    if width.is_nan() || width <= 0.0 {
        return flat;
    }
    let mut best = flat;
    for step in -STEPS..=STEPS {
        let codes = affine_codes(x, width / (q_max + 0.1 * step as f32), -lo, q_max);
        let fit = affine_solve(x, w, &codes, offset);
        if fit.error < best.error {
            best = fit;
        }
    }
    for _ in 0..ALTERNATIONS {
        let codes = affine_codes(x, best.scale, best.min, q_max);
        let fit = affine_solve(x, w, &codes, offset);
        if fit.error >= best.error {
            break;
        }
        best = fit;
    }
    best
}

/// The best scale and min for given codes: the normal equations of two unknowns, with the offset held at zero where
/// they would leave what the format can store.
fn affine_solve<const N: usize>(x: &[f32; N], w: &[f32; N], q: &[f32; N], offset: Offset) -> Affine {
    let weight = sum::<N>(|i| w[i]);
    let wq = sum::<N>(|i| w[i] * q[i]);
    let wqq = sum::<N>(|i| w[i] * q[i] * q[i]);
    let wx = sum::<N>(|i| w[i] * x[i]);
    let wxq = sum::<N>(|i| w[i] * x[i] * q[i]);
    let determinant = weight * wqq - wq * wq;
    let (mut scale, mut min) = if determinant > 1e-6 * weight * wqq {
        ((weight * wxq - wq * wx) / determinant, (wq * wxq - wqq * wx) / determinant)
    } else {
        (0.0, -wx / weight)
    };
    if offset == Offset::NonNegative && min < 0.0 {
        (scale, min) = (if wqq > 0.0 { wxq / wqq } else { 0.0 }, 0.0);
    }
    if scale < 0.0 {
        (scale, min) = (0.0, if offset == Offset::Free { -wx / weight } else { (-wx / weight).max(0.0) });
    }
    Affine { scale, min, error: affine_error(x, w, q, scale, min) }
}

fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}
