//! Activation functions, gated and plain, and the additions around them.

use crate::error::KernelError;
use crate::shared_slice::SharedSlice;
use crate::table::KernelTable;
use crate::team::Team;
use crate::vectors::{Kernel, Map, Simd, Zip, dispatch, map, zip};

/// Numbers of a tile.
const TILE: usize = 8192;
/// Numbers below which one thread does it all.
const ALONE: usize = 2 * TILE;

/// An activation function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x / (1 + e^-x)`.
    Silu,
    /// `x/2 · (1 + erf(x/√2))`, within 1e-6.
    Gelu,
    /// `x/2 · (1 + tanh(√(2/π) (x + 0.044715 x³)))`, the approximation of GPT-2.
    GeluTanh,
    /// `max(x, 0)`.
    Relu,
}

/// `x = f(x)`.
pub fn activate(table: &KernelTable, team: &Team, function: Activation, x: &mut [f32]) {
    let level = table.vectors();
    let shared = SharedSlice::new(x);
    over_tiles(team, shared.len(), |first, len| {
        // SAFETY: each tile has a part of its own.
        let x = unsafe { shared.part(first, len) };
        dispatch(level, MapSlice { function, x });
    });
}

/// `gate = f(gate) ⊙ up`.
///
/// # Errors
/// [`KernelError::Shape`] when the lengths differ.
pub fn activate_gated(
    table: &KernelTable,
    team: &Team,
    function: Activation,
    gate: &mut [f32], // (rows, intermediate)
    up: &[f32],       // (rows, intermediate)
) -> Result<(), KernelError> {
    same("gated activations", gate.len(), up.len())?;
    zip_tiles(table, team, Gated(function), gate, up);
    Ok(())
}

/// `x += y`.
///
/// # Errors
/// [`KernelError::Shape`] when the lengths differ.
pub fn add(table: &KernelTable, team: &Team, x: &mut [f32], y: &[f32]) -> Result<(), KernelError> {
    same("terms of a sum", y.len(), x.len())?;
    zip_tiles(table, team, Sum, x, y);
    Ok(())
}

/// `x += bias`, row by row.
///
/// # Errors
/// [`KernelError::Shape`] unless `x` is whole rows of the bias's length.
pub fn add_bias(
    table: &KernelTable,
    x: &mut [f32], /* (rows, width) */
    bias: &[f32],
) -> Result<(), KernelError> {
    if bias.is_empty() || !x.len().is_multiple_of(bias.len()) {
        return Err(KernelError::Shape {
            what: "numbers to bias, in whole rows",
            got: x.len(),
            want: bias.len(),
        });
    }
    for a in x.chunks_exact_mut(bias.len()) {
        dispatch(table.vectors(), ZipSlice { function: Sum, a, b: bias });
    }
    Ok(())
}

fn same(what: &'static str, got: usize, want: usize) -> Result<(), KernelError> {
    if got == want { Ok(()) } else { Err(KernelError::Shape { what, got, want }) }
}

/// Calls `part(first, len)` for parts that make up `0..len`.
fn over_tiles(team: &Team, len: usize, part: impl Fn(usize, usize) + Sync) {
    if len < ALONE {
        part(0, len);
    } else {
        team.run(len.div_ceil(TILE), &|tile, _| part(tile * TILE, TILE.min(len - tile * TILE)));
    }
}

fn zip_tiles(table: &KernelTable, team: &Team, function: impl Zip + Sync, a: &mut [f32], b: &[f32]) {
    let level = table.vectors();
    let shared = SharedSlice::new(a);
    over_tiles(team, b.len(), |first, len| {
        // SAFETY: each tile has a part of its own.
        let a = unsafe { shared.part(first, len) };
        dispatch(level, ZipSlice { function, a, b: &b[first..first + len] });
    });
}

struct MapSlice<'a, F> {
    function: F,
    x: &'a mut [f32],
}

impl<F: Map> Kernel for MapSlice<'_, F> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        map(simd, self.function, self.x);
    }
}

struct ZipSlice<'a, F> {
    function: F,
    a: &'a mut [f32],
    b: &'a [f32],
}

impl<F: Zip> Kernel for ZipSlice<'_, F> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        zip(simd, self.function, self.a, self.b);
    }
}

#[derive(Clone, Copy)]
struct Sum;

impl Zip for Sum {
    #[inline(always)]
    fn apply<S: Simd>(self, simd: S, a: S::F, b: S::F) -> S::F {
        simd.add(a, b)
    }
}

/// An activation times the other value.
#[derive(Clone, Copy)]
struct Gated(Activation);

impl Zip for Gated {
    #[inline(always)]
    fn apply<S: Simd>(self, simd: S, a: S::F, b: S::F) -> S::F {
        simd.mul(self.0.apply(simd, a), b)
    }
}

impl Map for Activation {
    #[inline(always)]
    fn apply<S: Simd>(self, simd: S, x: S::F) -> S::F {
        match self {
            Activation::Silu => simd.mul(x, simd.sigmoid(x)),
            Activation::Gelu => gelu(simd, x),
            Activation::GeluTanh => {
                // (1 + tanh u) / 2 is the sigmoid of 2 u.
                let cube = simd.mul(simd.mul(x, x), simd.mul(x, simd.splat(0.044_715)));
                let u = simd.mul(simd.add(x, cube), simd.splat(1.595_769_2)); // 2 √(2/π)
                simd.mul(x, simd.sigmoid(u))
            }
            Activation::Relu => {
                let zero = simd.splat(0.0);
                simd.where_less(x, zero, zero, x)
            }
        }
    }
}

/// Coefficients of P in `erfc(z) = t exp(P(t) - z²)`, `t = 1 / (1 + z/2)`, from the zeroth power up: a Chebyshev fit
/// over 0 ≤ z ≤ 9 with an error of 4e-8 in the exponent.
const ERFC: [f32; 10] = [
    -1.265_415_1,
    0.997_978_3,
    0.392_154_96,
    0.008_687_083,
    0.076_345_52,
    -0.219_760_45,
    -0.529_553_26,
    1.032_769_9,
    -0.628_631_7,
    0.135_424_72,
];

/// `x Φ(x)`, with the tail of the normal distribution from `erfc`, so that negative arguments lose nothing to
/// cancellation.
#[inline(always)]
fn gelu<S: Simd>(simd: S, x: S::F) -> S::F {
    let one = simd.splat(1.0);
    let z = simd.mul(simd.abs(x), simd.splat(std::f32::consts::FRAC_1_SQRT_2));
    let t = simd.div(one, simd.fma(z, simd.splat(0.5), one));
    let mut p = simd.splat(ERFC[9]);
    for c in ERFC.iter().rev().skip(1) {
        p = simd.fma(p, t, simd.splat(*c));
    }
    let exponent = simd.sub(p, simd.mul(z, z));
    let tail = simd.mul(simd.mul(t, simd.splat(0.5)), simd.exp(exponent));
    let share = simd.where_less(x, simd.splat(0.0), tail, simd.sub(one, tail));
    simd.mul(x, share)
}
