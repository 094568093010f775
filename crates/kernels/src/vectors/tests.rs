//! Every level against plain Rust, value by value.

use super::*;
use crate::table::KernelTable;

/// The levels of this machine.
pub(crate) fn levels() -> Vec<(Isa, Level)> {
    let table = |isa| KernelTable::detect(Some(isa)).unwrap();
    Isa::available().map(|isa| (isa, table(isa).vectors())).collect()
}

#[derive(Clone, Copy)]
enum Function {
    Exp,
    Exp2,
    Sigmoid,
    Round,
}

impl Map for Function {
    #[inline(always)]
    fn apply<S: Simd>(self, simd: S, x: S::F) -> S::F {
        match self {
            Function::Exp => simd.exp(x),
            Function::Exp2 => simd.exp2(x),
            Function::Sigmoid => simd.sigmoid(x),
            Function::Round => simd.round(x),
        }
    }
}

struct Apply<'a>(Function, &'a mut [f32]);

impl Kernel for Apply<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        map(simd, self.0, self.1);
    }
}

/// Largest relative error over many arguments in `from..to`.
fn worst(level: Level, function: Function, from: f32, to: f32, exact: impl Fn(f64) -> f64) -> f64 {
    let n = 200_003; // odd, so that every level meets a partial vector
    let x: Vec<f32> = (0..n).map(|i| from + (to - from) * (i as f32 / n as f32)).collect();
    let mut y = x.clone();
    dispatch(level, Apply(function, &mut y));
    let error = |(x, y): (&f32, &f32)| (*y as f64 / exact(*x as f64) - 1.0).abs();
    x.iter().zip(&y).map(error).fold(0.0, f64::max)
}

#[test]
fn exponentials_are_within_two_ulp_of_the_exact_value() {
    let ulp = f32::EPSILON as f64;
    for (isa, level) in levels() {
        let exp2 = worst(level, Function::Exp2, -125.0, 126.9, f64::exp2);
        assert!(exp2 <= ulp, "{isa}: exp2 {exp2:e}");
        let exp = worst(level, Function::Exp, -86.9, 88.0, f64::exp);
        assert!(exp <= 2.0 * ulp, "{isa}: exp {exp:e}");
        let sigmoid = worst(level, Function::Sigmoid, -70.0, 70.0, |x| 1.0 / (1.0 + (-x).exp()));
        assert!(sigmoid <= 3.0 * ulp, "{isa}: sigmoid {sigmoid:e}");
    }
}

#[test]
fn the_ends_of_the_number_line_come_out_as_zero_one_and_nan() {
    for (isa, level) in levels() {
        for function in [Function::Exp, Function::Exp2, Function::Sigmoid] {
            let mut x = [f32::NEG_INFINITY, -1e30, -1e4, 0.0, -0.0, f32::NAN];
            dispatch(level, Apply(function, &mut x));
            let at_zero = if matches!(function, Function::Sigmoid) { 0.5 } else { 1.0 };
            assert!(x[..3].iter().all(|y| *y >= 0.0 && *y < 1e-34), "{isa}: {x:?}");
            assert_eq!(x[3..5], [at_zero; 2], "{isa}");
            assert!(x[5].is_nan(), "{isa}: {x:?}");
        }
        let mut x = [f32::INFINITY, 1e30, 100.0];
        dispatch(level, Apply(Function::Sigmoid, &mut x));
        assert_eq!(x, [1.0; 3], "{isa}");
        let mut x = [0.5, 1.5, -2.5, 2.4];
        dispatch(level, Apply(Function::Round, &mut x));
        assert_eq!(x, [0.0, 2.0, -2.0, 2.0], "{isa}");
    }
}

struct Lanes;

impl Kernel for Lanes {
    type Out = ();
    /// Sums, maxima, lane masks and partial loads and stores.
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let x: Vec<f32> = (0..S::LANES).map(|i| 1.0 + i as f32).collect();
        let v = simd.read(&x);
        assert_eq!(simd.sum(v), x.iter().sum::<f32>());
        assert_eq!(simd.max_lane(v), S::LANES as f32);
        assert_eq!(simd.max_lane(simd.sub(simd.splat(0.0), v)), -1.0);
        // Irregular numbers, so that another order of a sum has other bits.
        let many: Vec<f32> =
            (0..8 * S::LANES).map(|i| (1.7 * i as f32).sin() * 1.3f32.powi(i as i32 % 23)).collect();
        let mut eight = [simd.splat(0.0); 8];
        for (i, x) in many.chunks_exact(S::LANES).enumerate() {
            eight[i] = simd.read(x);
        }
        let (sums, maxima) = (simd.sums(&eight), simd.max_lanes(&eight));
        for i in 0..8 {
            assert_eq!((sums[i], maxima[i]), (simd.sum(eight[i]), simd.max_lane(eight[i])), "vector {i}");
        }
        for from in 0..=S::LANES {
            for to in 0..=S::LANES {
                let mut y = vec![0.0; S::LANES];
                simd.write(&mut y, simd.where_lane(from, to, v, simd.splat(-1.0)));
                for (i, y) in y.into_iter().enumerate() {
                    assert_eq!(y, if (from..to).contains(&i) { x[i] } else { -1.0 }, "{from}..{to}");
                }
            }
        }
        for n in 0..S::LANES {
            let mut y = vec![7.0; S::LANES];
            simd.write_part(&mut y[..n], v);
            assert!(y[..n] == x[..n] && y[n..].iter().all(|y| *y == 7.0));
            let mut whole = vec![7.0; S::LANES];
            simd.write(&mut whole, simd.read_part(&x[..n]));
            assert!(whole[..n] == x[..n] && whole[n..].iter().all(|y| *y == 0.0));
        }
    }
}

struct Widen(Vec<u16>);

impl Kernel for Widen {
    type Out = ();
    /// Both 16-bit formats against the `half` crate.
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for bits in self.0.chunks_exact(S::LANES) {
            let (mut f16, mut bf16) = (vec![0.0; S::LANES], vec![0.0; S::LANES]);
            // SAFETY: a chunk holds LANES numbers.
            unsafe {
                simd.write(&mut f16, simd.load_f16(bits.as_ptr()));
                simd.write(&mut bf16, simd.load_bf16(bits.as_ptr()));
            }
            for (i, bits) in bits.iter().enumerate() {
                let want = (half::f16::from_bits(*bits).to_f32(), half::bf16::from_bits(*bits).to_f32());
                assert!(
                    f16[i].to_bits() == want.0.to_bits() || (f16[i].is_nan() && want.0.is_nan()),
                    "{bits:x}"
                );
                assert!(
                    bf16[i].to_bits() == want.1.to_bits() || (bf16[i].is_nan() && want.1.is_nan()),
                    "{bits:x}"
                );
            }
        }
    }
}

#[test]
fn lanes_are_masked_summed_and_widened_as_in_plain_rust() {
    for (_, level) in levels() {
        dispatch(level, Lanes);
        dispatch(level, Widen((0..=u16::MAX).collect()));
    }
}
