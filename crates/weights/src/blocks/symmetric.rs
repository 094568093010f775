//! What Q3_K and Q6_K share: 16 sub-blocks of 16, each with a signed scale quantized against one f16 of the block.

use half::f16;

use super::{search, to_f16};

/// A block before it is packed; a weight is (d·scale)·code.
pub(super) struct SymmetricBlock {
    pub(super) d: f16,
    pub(super) scales: [i8; 16],
    pub(super) codes: [i8; 256],
}

struct Choice {
    scales: [f32; 16],
    codes: [[f32; 16]; 16],
    error: f32,
}

/// Fits each sub-block by itself, quantizes the scales against a common d, then alternates: sub-blocks choose again
/// among neighbouring scales with the true error, and d is fitted to the choice. Ranges are (lowest, highest).
pub(super) fn encode(
    x: &[f32; 256],
    w: &[f32; 256],
    code_range: (f32, f32),
    scale_range: (f32, f32),
) -> Option<SymmetricBlock> {
    let (x, w) = (split(x), split(w));
    let fitted: [f32; 16] =
        std::array::from_fn(|i| search::symmetric_scale(&x[i], &w[i], code_range.0, code_range.1));
    let felt: [f32; 16] = std::array::from_fn(|i| {
        let codes = search::symmetric_codes(&x[i], fitted[i], code_range.0, code_range.1);
        search::sum::<16>(|j| w[i][j] * codes[j] * codes[j])
    });
    let mut d = to_f16(search::symmetric_scale(&fitted, &felt, scale_range.0, scale_range.1))?;
    let mut best = choose(&x, &w, &fitted, d, code_range, scale_range);
    for _ in 0..ROUNDS {
        let Some(next_d) = refit(&x, &w, &best) else { break };
        let next = choose(&x, &w, &fitted, next_d, code_range, scale_range);
        if next.error >= best.error {
            break;
        }
        (d, best) = (next_d, next);
    }
    let mut codes = [0; 256];
    for (code, &value) in codes.iter_mut().zip(best.codes.as_flattened()) {
        *code = value as i8;
    }
    Some(SymmetricBlock { d, scales: best.scales.map(|scale| scale as i8), codes })
}

/// Rounds of choosing again.
const ROUNDS: usize = 2;

fn split(values: &[f32; 256]) -> [[f32; 16]; 16] {
    let chunks = values.as_chunks::<16>().0;
    std::array::from_fn(|i| chunks[i])
}

fn choose(
    x: &[[f32; 16]; 16],
    w: &[[f32; 16]; 16],
    fitted: &[f32; 16],
    d: f16,
    code_range: (f32, f32),
    scale_range: (f32, f32),
) -> Choice {
    let d = d.to_f32();
    let mut choice = Choice { scales: [0.0; 16], codes: [[0.0; 16]; 16], error: 0.0 };
    for i in 0..16 {
        let (lo, hi) = scale_range;
        let middle = if d == 0.0 { 0.0 } else { search::round((fitted[i] / d).clamp(lo, hi)) };
        let mut best = f32::INFINITY;
        for scale in [middle, (middle - 1.0).max(lo), (middle + 1.0).min(hi)] {
            let codes = search::symmetric_codes(&x[i], d * scale, code_range.0, code_range.1);
            let error = search::affine_error(&x[i], &w[i], &codes, d * scale, 0.0);
            if error < best {
                best = error;
                (choice.scales[i], choice.codes[i]) = (scale, codes);
            }
        }
        choice.error += best;
    }
    choice
}

/// The d that fits the chosen codes best, `None` where all are zero.
fn refit(x: &[[f32; 16]; 16], w: &[[f32; 16]; 16], choice: &Choice) -> Option<f16> {
    let (mut xq, mut qq) = (0.0, 0.0);
    for i in 0..16 {
        let (x, w, q, s) = (&x[i], &w[i], &choice.codes[i], choice.scales[i]);
        xq += s * search::sum::<16>(|j| w[j] * x[j] * q[j]);
        qq += s * s * search::sum::<16>(|j| w[j] * q[j] * q[j]);
    }
    if qq > 0.0 { to_f16(xq / qq) } else { None }
}
