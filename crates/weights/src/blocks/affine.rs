//! What Q2_K, Q4_K and Q5_K share: sub-blocks with scale and min, both quantized against two f16 of the block.

use half::f16;

use super::search::{self, Offset};
use super::to_f16;

/// A block before it is packed. `S` sub-blocks; a weight is (d·scale)·code − dmin·min.
pub(super) struct AffineBlock<const S: usize> {
    pub(super) d: f16,
    pub(super) dmin: f16,
    pub(super) scales: [u8; S],
    pub(super) mins: [u8; S],
    pub(super) codes: [u8; 256],
}

/// Everything chosen for a block, as floats that hold integers.
#[derive(Clone)]
struct Choice<const S: usize, const N: usize> {
    scales: [f32; S],
    mins: [f32; S],
    codes: [[f32; N]; S],
    error: f32,
}

/// Fits each sub-block by itself, quantizes scales and mins against common d and dmin, then alternates: sub-blocks choose
/// again among neighbouring scales and mins with the true error, and d and dmin are fitted to the choice.
pub(super) fn encode<const S: usize, const N: usize>(
    x: &[f32; 256],
    w: &[f32; 256],
    q_max: f32,
    scale_max: f32,
) -> Option<AffineBlock<S>> {
    let (x, w) = (split::<S, N>(x), split::<S, N>(w));
    let fits: [search::Affine; S] =
        std::array::from_fn(|i| search::affine(&x[i], &w[i], q_max, Offset::NonNegative));
    let (mut d, mut dmin) = start(&fits, &x, &w, q_max, scale_max)?;
    let mut best = choose(&x, &w, &fits, (d, dmin), q_max, scale_max);
    for _ in 0..ROUNDS {
        let Some((next_d, next_dmin)) = refit(&x, &w, &best) else { break };
        let next = choose(&x, &w, &fits, (next_d, next_dmin), q_max, scale_max);
        if next.error >= best.error {
            break;
        }
        (d, dmin, best) = (next_d, next_dmin, next);
    }
    let mut codes = [0; 256];
    for (code, &value) in codes.iter_mut().zip(best.codes.as_flattened()) {
        *code = value as u8;
    }
    Some(AffineBlock {
        d,
        dmin,
        scales: best.scales.map(|s| s as u8),
        mins: best.mins.map(|m| m as u8),
        codes,
    })
}

/// Rounds of choosing again; the gain of a third is below a thousandth of the error.
const ROUNDS: usize = 2;

fn split<const S: usize, const N: usize>(values: &[f32; 256]) -> [[f32; N]; S] {
    let chunks = values.as_chunks::<N>().0;
    std::array::from_fn(|i| chunks[i])
}

/// d and dmin that quantize the fitted scales and mins best, each weighed by how much the error of its sub-block feels it.
fn start<const S: usize, const N: usize>(
    fits: &[search::Affine; S],
    x: &[[f32; N]; S],
    w: &[[f32; N]; S],
    q_max: f32,
    scale_max: f32,
) -> Option<(f16, f16)> {
    let felt_by_scale: [f32; S] = std::array::from_fn(|i| {
        let codes = search::affine_codes(&x[i], fits[i].scale, fits[i].min, q_max);
        search::sum::<N>(|j| w[i][j] * codes[j] * codes[j])
    });
    let felt_by_min: [f32; S] = std::array::from_fn(|i| search::sum::<N>(|j| w[i][j]));
    let d = search::symmetric_scale(&fits.map(|fit| fit.scale), &felt_by_scale, 0.0, scale_max);
    let dmin = search::symmetric_scale(&fits.map(|fit| fit.min), &felt_by_min, 0.0, scale_max);
    Some((to_f16(d)?, to_f16(dmin)?))
}

/// For every sub-block the pair (scale, min) of least error among the fitted one rounded and its neighbours.
fn choose<const S: usize, const N: usize>(
    x: &[[f32; N]; S],
    w: &[[f32; N]; S],
    fits: &[search::Affine; S],
    (d, dmin): (f16, f16),
    q_max: f32,
    scale_max: f32,
) -> Choice<S, N> {
    let (d, dmin) = (d.to_f32(), dmin.to_f32());
    let mut choice = Choice { scales: [0.0; S], mins: [0.0; S], codes: [[0.0; N]; S], error: 0.0 };
    for i in 0..S {
        // Zeros are always to be had. Nothing near the fit may be as good where f16 rounds d or dmin away.
        let mut best = search::affine_error(&x[i], &w[i], &[0.0; N], 0.0, 0.0);
        for scale in neighbours(fits[i].scale, d, scale_max) {
            for min in neighbours(fits[i].min, dmin, scale_max) {
                let codes = search::affine_codes(&x[i], d * scale, dmin * min, q_max);
                let error = search::affine_error(&x[i], &w[i], &codes, d * scale, dmin * min);
                if error < best {
                    best = error;
                    (choice.scales[i], choice.mins[i], choice.codes[i]) = (scale, min, codes);
                }
            }
        }
        choice.error += best;
    }
    choice
}

/// The code of `value` in units of `unit`, and the two beside it.
fn neighbours(value: f32, unit: f32, max: f32) -> [f32; 3] {
    let code = if unit == 0.0 { 0.0 } else { search::round((value / unit).clamp(0.0, max)) };
    [code, (code - 1.0).max(0.0), (code + 1.0).min(max)]
}

/// d and dmin that fit the chosen codes best: two unknowns, linear. `None` where the equations say nothing.
fn refit<const S: usize, const N: usize>(
    x: &[[f32; N]; S],
    w: &[[f32; N]; S],
    choice: &Choice<S, N>,
) -> Option<(f16, f16)> {
    let (mut aa, mut ab, mut bb, mut ax, mut bx) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for i in 0..S {
        let (x, w, q) = (&x[i], &w[i], &choice.codes[i]);
        let (s, m) = (choice.scales[i], choice.mins[i]);
        aa += s * s * search::sum::<N>(|j| w[j] * q[j] * q[j]);
        ab -= s * m * search::sum::<N>(|j| w[j] * q[j]);
        bb += m * m * search::sum::<N>(|j| w[j]);
        ax += s * search::sum::<N>(|j| w[j] * x[j] * q[j]);
        bx -= m * search::sum::<N>(|j| w[j] * x[j]);
    }
    let determinant = aa * bb - ab * ab;
    let (d, dmin) = if determinant > 1e-6 * aa * bb {
        ((bb * ax - ab * bx) / determinant, (aa * bx - ab * ax) / determinant)
    } else if aa > 0.0 {
        (ax / aa, 0.0)
    } else {
        return None;
    };
    if d < 0.0 || dmin < 0.0 {
        return None;
    }
    Some((to_f16(d)?, to_f16(dmin)?))
}
