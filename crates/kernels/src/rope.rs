//! Rotary position embedding: pairs of channels turned by an angle that grows with the position.

use crate::error::KernelError;
use crate::shared_slice::SharedSlice;
use crate::table::KernelTable;
use crate::team::Team;
use crate::vectors::{Kernel, Simd, dispatch};

/// Numbers below which one thread does it all.
const ALONE: usize = 32_768;

/// Which two channels of a head turn together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pairing {
    /// Channel `i` with channel `i + rotary_dim / 2`: Hugging Face checkpoints, GPT-NeoX.
    Halves,
    /// Channel `2 i` with channel `2 i + 1`: the original Llama weights, and their GGUF files.
    Adjacent,
}

/// How the frequencies of a trained context are stretched to a longer one. Formulas as in transformers'
/// `modeling_rope_utils`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    /// As trained.
    None,
    /// Every frequency divided by `factor`.
    Linear {
        /// How many times longer the context is.
        factor: f64,
    },
    /// Llama 3: long waves divided by `factor`, short ones kept, a ramp between.
    Llama3 {
        /// How many times longer the context is.
        factor: f64,
        /// Waves longer than `original_context / low_freq_factor` are divided.
        low_freq_factor: f64,
        /// Waves shorter than `original_context / high_freq_factor` are kept.
        high_freq_factor: f64,
        /// Context that the model was trained for, in tokens.
        original_context: f64,
    },
}

/// The angle per position of each pair, in radians: `theta^(-2 i / rotary_dim)`, scaled. Shape `(rotary_dim / 2)`.
pub fn inverse_frequencies(theta: f64, rotary_dim: usize, scaling: RopeScaling) -> Vec<f64> {
    let plain = (0..rotary_dim / 2).map(|i| theta.powf(-2.0 * i as f64 / rotary_dim as f64));
    plain.map(|frequency| stretch(frequency, scaling)).collect()
}

fn stretch(frequency: f64, scaling: RopeScaling) -> f64 {
    match scaling {
        RopeScaling::None => frequency,
        RopeScaling::Linear { factor } => frequency / factor,
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
            let waves = original_context * frequency / std::f64::consts::TAU; // in the trained context
            if waves < low_freq_factor {
                frequency / factor
            } else if waves > high_freq_factor {
                frequency
            } else {
                let kept = (waves - low_freq_factor) / (high_freq_factor - low_freq_factor);
                (1.0 - kept) * frequency / factor + kept * frequency
            }
        }
    }
}

/// Cosines and sines of the rows of one step, which all layers share. Angles are f64, so that a position of a
/// million turns as exactly as the first.
///
/// # Errors
/// [`KernelError::Shape`] unless `cos` and `sin` are `(rows, rotary_dim / 2)`.
pub fn rope_angles(
    positions: &[usize],         // (rows)
    inverse_frequencies: &[f64], // (rotary_dim / 2)
    cos: &mut [f32],             // (rows, rotary_dim / 2)
    sin: &mut [f32],             // (rows, rotary_dim / 2)
) -> Result<(), KernelError> {
    let pairs = inverse_frequencies.len();
    for (what, len) in [("cosines", cos.len()), ("sines", sin.len())] {
        if len != positions.len() * pairs {
            return Err(KernelError::Shape { what, got: len, want: positions.len() * pairs });
        }
    }
    if pairs == 0 {
        return Ok(());
    }
    let rows = cos.chunks_exact_mut(pairs).zip(sin.chunks_exact_mut(pairs));
    for (position, (cos, sin)) in positions.iter().zip(rows) {
        for (frequency, (cos, sin)) in inverse_frequencies.iter().zip(cos.iter_mut().zip(sin)) {
            let (s, c) = (*position as f64 * frequency).sin_cos();
            (*cos, *sin) = (c as f32, s as f32);
        }
    }
    Ok(())
}

/// Turns the first `rotary_dim` channels of every head of `x`; the others stay as they are.
///
/// # Errors
/// [`KernelError::Shape`] when the lengths disagree, [`KernelError::HeadDim`] when a head is narrower than what is to
/// be turned.
#[allow(clippy::too_many_arguments)] // one operation of the device: each argument is an operand
pub fn rope(
    table: &KernelTable,
    team: &Team,
    pairing: Pairing,
    head_dim: usize,
    cos: &[f32], // (rows, rotary_dim / 2)
    sin: &[f32], // (rows, rotary_dim / 2)
    rows: usize,
    x: &mut [f32], // (rows, heads, head_dim)
) -> Result<(), KernelError> {
    if rows == 0 || head_dim == 0 || !x.len().is_multiple_of(rows * head_dim) {
        return Err(KernelError::Shape {
            what: "numbers to turn, in whole rows of heads",
            got: x.len(),
            want: rows * head_dim,
        });
    }
    if cos.len() != sin.len() || !cos.len().is_multiple_of(rows) {
        return Err(KernelError::Shape { what: "cosines and sines", got: cos.len(), want: sin.len() });
    }
    let (pairs, width) = (cos.len() / rows, x.len() / rows);
    if 2 * pairs > head_dim {
        return Err(KernelError::HeadDim { head_dim });
    }
    if pairs == 0 {
        return Ok(());
    }
    let level = table.vectors();
    let turn = |row: usize, x: &mut [f32]| {
        let (cos, sin) = (&cos[row * pairs..][..pairs], &sin[row * pairs..][..pairs]);
        dispatch(level, Turn { pairing, head_dim, cos, sin, x });
    };
    if x.len() < ALONE {
        x.chunks_exact_mut(width).enumerate().for_each(|(row, x)| turn(row, x));
    } else {
        let x = SharedSlice::new(x);
        // SAFETY: each tile has a row of its own.
        team.run(rows, &|row, _| turn(row, unsafe { x.part(row * width, width) }));
    }
    Ok(())
}

/// One row.
struct Turn<'a> {
    pairing: Pairing,
    head_dim: usize,
    cos: &'a [f32],   // (pairs)
    sin: &'a [f32],   // (pairs)
    x: &'a mut [f32], // (heads, head_dim)
}

impl Kernel for Turn<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let pairs = self.cos.len();
        for head in self.x.chunks_exact_mut(self.head_dim) {
            match self.pairing {
                Pairing::Halves => {
                    let (first, second) = head[..2 * pairs].split_at_mut(pairs);
                    turn_halves(simd, first, second, self.cos, self.sin);
                }
                Pairing::Adjacent => {
                    for ((pair, cos), sin) in head.chunks_exact_mut(2).zip(self.cos).zip(self.sin) {
                        let (a, b) = (pair[0], pair[1]);
                        pair[0] = a * cos - b * sin;
                        pair[1] = b * cos + a * sin;
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn turn_halves<S: Simd>(simd: S, first: &mut [f32], second: &mut [f32], cos: &[f32], sin: &[f32]) {
    let whole = first.len() - first.len() % S::LANES;
    for i in (0..whole).step_by(S::LANES) {
        let (a, b) = (simd.read(&first[i..]), simd.read(&second[i..]));
        let (cos, sin) = (simd.read(&cos[i..]), simd.read(&sin[i..]));
        simd.write(&mut first[i..], simd.sub(simd.mul(a, cos), simd.mul(b, sin)));
        simd.write(&mut second[i..], simd.add(simd.mul(b, cos), simd.mul(a, sin)));
    }
    for i in whole..first.len() {
        let (a, b) = (first[i], second[i]);
        first[i] = a * cos[i] - b * sin[i];
        second[i] = b * cos[i] + a * sin[i];
    }
}
