//! Norms, rotary embedding, activations, softmax and routing: golden values of torch and transformers, then plain
//! loops in f64 over random shapes, at every level of this machine.

#![allow(clippy::unwrap_used)] // helpers of tests may stop them

mod common_kv;

use common_kv::{Noise, tables};
use proptest::prelude::*;
use roofline_kernels::{
    Activation, KernelError, Norm, NormKind, Pairing, RopeScaling, Team, activate, activate_gated, add,
    add_bias, all_finite, argmax, inverse_frequencies, log_softmax, log_sum_exp, norm_rows,
    norm_rows_in_place, rope, rope_angles, route, softmax,
};

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

fn close(got: &[f32], want: impl IntoIterator<Item = f64>, tolerance: f64, what: &str) {
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert!((f64::from(*got) - want).abs() <= tolerance, "{what}: number {i} is {got}, not {want}");
    }
}

/// `torch.nn.functional.gelu` in f64, torch 2.15.
const GELU_X: [f32; 12] = [-6., -3., -1.5, -0.75, -0.1, 0., 0.1, 0.75, 1.5, 3., 6., 12.];
const GELU: [f64; 12] = [
    -5.919525869479969e-09,
    -0.00404969409489031,
    -0.10021080190328704,
    -0.16997051428265111,
    -0.04601721689885652,
    0.0,
    0.0539827845912596,
    0.5800294857173489,
    1.399789198096713,
    2.99595030590511,
    5.999999994080474,
    12.0,
];
const GELU_TANH: [f64; 12] = [
    -8.43964897967453e-11,
    -0.0036373920817729943,
    -0.10042842301976707,
    -0.17003944483437966,
    -0.0460172495811262,
    0.0,
    0.05398275190898992,
    0.5799605551656203,
    1.3995715769802328,
    2.996362607918227,
    5.9999999999156035,
    12.0,
];

#[test]
fn gelu_is_that_of_torch() {
    let team = Team::new(1).unwrap();
    for table in tables() {
        for (function, want) in [(Activation::Gelu, GELU), (Activation::GeluTanh, GELU_TANH)] {
            let mut x = GELU_X;
            activate(&table, &team, function, &mut x);
            close(&x, want, 4e-7, &format!("{} {function:?}", table.isa()));
        }
    }
}

/// The error function by its series, which converges for every argument that matters here.
fn erf(x: f64) -> f64 {
    let (mut term, mut sum, mut n) = (x, x, 0.0);
    while term.abs() > 1e-18 * sum.abs() && n < 500.0 {
        n += 1.0;
        term *= -x * x / n;
        sum += term / (2.0 * n + 1.0);
    }
    sum * std::f64::consts::FRAC_2_SQRT_PI
}

#[test]
fn activations_agree_with_f64_everywhere() {
    let team = Team::new(2).unwrap();
    let x: Vec<f32> = (0..40_001).map(|i| (i as f32 - 20_000.0) / 4000.0).collect(); // -5..5, several tiles
    let silu = |x: f64| x / (1.0 + (-x).exp());
    let gelu = |x: f64| 0.5 * x * (1.0 + erf(x / 2f64.sqrt()));
    for table in tables() {
        let apply = |function| {
            let mut y = x.clone();
            activate(&table, &team, function, &mut y);
            y
        };
        let name = table.isa().name();
        close(&apply(Activation::Silu), x.iter().map(|x| silu(f64::from(*x))), 1e-6, name);
        close(&apply(Activation::Gelu), x.iter().map(|x| gelu(f64::from(*x))), 1e-6, name);
        close(&apply(Activation::Relu), x.iter().map(|x| f64::from(x.max(0.0))), 0.0, name);
        let mut gate = x.clone();
        activate_gated(&table, &team, Activation::Silu, &mut gate, &x).unwrap();
        close(&gate, x.iter().map(|x| silu(f64::from(*x)) * f64::from(*x)), 5e-6, name);
        let mut sum = x.clone();
        add(&table, &team, &mut sum, &gate).unwrap();
        assert!(sum.iter().zip(&x).zip(&gate).all(|((sum, a), b)| *sum == a + b));
        for far in [100.0, 3e38, f32::INFINITY] {
            let mut y = [far, -far];
            activate(&table, &team, Activation::Silu, &mut y[..1]);
            assert_eq!(y[0], far, "{name}");
        }
        let mut nan = [f32::NAN];
        activate(&table, &team, Activation::Silu, &mut nan);
        assert!(nan[0].is_nan());
        assert!(activate_gated(&table, &team, Activation::Silu, &mut [0.0; 3], &[0.0; 2]).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn norms_agree_with_f64_and_rows_do_not_touch_each_other(
        rows in 1usize..30, width in 1usize..1200, layer in any::<bool>(), biased in any::<bool>(), seed in any::<u64>(),
    ) {
        let (team, mut noise) = (Team::new(2).unwrap(), Noise(seed));
        let (x, weight, bias) = (noise.fill(rows * width, 3.0), noise.fill(width, 1.0), noise.fill(width, 1.0));
        let kind = if layer { NormKind::Layer } else { NormKind::Rms };
        let norm = Norm { kind, eps: 1e-5, weight: &weight, bias: biased.then_some(&bias) };
        for table in tables() {
            let mut out = vec![f32::NAN; x.len()];
            norm_rows(&table, &team, &norm, &x, &mut out).unwrap();
            for (x, out) in x.chunks(width).zip(out.chunks(width)) {
                let n = width as f64;
                let mean = if layer { x.iter().map(|x| f64::from(*x)).sum::<f64>() / n } else { 0.0 };
                let square = x.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / n;
                let root = (square + f64::from(1e-5f32)).sqrt();
                let want = (0..width).map(|i| {
                    (f64::from(x[i]) - mean) / root * f64::from(weight[i]) + if biased { f64::from(bias[i]) } else { 0.0 }
                });
                // A LayerNorm of two close numbers divides a rounded mean by sqrt(eps).
                close(out, want, if layer { 2e-4 } else { 3e-6 }, table.isa().name());
                let mut alone = x.to_vec();
                norm_rows_in_place(&table, &team, &norm, &mut alone).unwrap();
                prop_assert_eq!(bits(&alone), bits(out));
            }
        }
    }

    #[test]
    fn turning_agrees_with_complex_numbers_and_leaves_the_rest(
        rows in 1usize..20, heads in 1usize..5, pairs in 0usize..40, rest in 0usize..20, adjacent in any::<bool>(),
        seed in any::<u64>(),
    ) {
        prop_assume!(pairs + rest > 0);
        let (team, mut noise) = (Team::new(2).unwrap(), Noise(seed));
        let head_dim = 2 * pairs + rest;
        let frequencies = inverse_frequencies(10_000.0, 2 * pairs, RopeScaling::None);
        let positions: Vec<usize> = (0..rows).map(|row| row * 7919 % 100_000).collect();
        let (mut cos, mut sin) = (vec![0.0; rows * pairs], vec![0.0; rows * pairs]);
        rope_angles(&positions, &frequencies, &mut cos, &mut sin).unwrap();
        let x = noise.fill(rows * heads * head_dim, 1.0);
        let pairing = if adjacent { Pairing::Adjacent } else { Pairing::Halves };
        for table in tables() {
            let mut y = x.clone();
            rope(&table, &team, pairing, head_dim, &cos, &sin, rows, &mut y).unwrap();
            for (i, (x, y)) in x.chunks(head_dim).zip(y.chunks(head_dim)).enumerate() {
                prop_assert_eq!(bits(&x[2 * pairs..]), bits(&y[2 * pairs..]));
                for (pair, frequency) in frequencies.iter().enumerate() {
                    let (a, b) = if adjacent { (2 * pair, 2 * pair + 1) } else { (pair, pair + pairs) };
                    let (s, c) = (positions[i / heads] as f64 * frequency).sin_cos();
                    let (re, im) = (f64::from(x[a]), f64::from(x[b]));
                    close(&[y[a], y[b]], [re * c - im * s, im * c + re * s], 3e-7, "a pair");
                }
            }
        }
    }

    #[test]
    fn routing_takes_the_largest_and_the_lower_of_equals(
        rows in 1usize..70, n_experts in 1usize..70, top_k in 1usize..9, renormalize in any::<bool>(), seed in any::<u64>(),
    ) {
        let top_k = top_k.min(n_experts);
        let (team, mut noise) = (Team::new(2).unwrap(), Noise(seed));
        // Few different values, so that there are ties; no -0, which `total_cmp` puts below 0.
        let logits: Vec<f32> = noise.fill(rows * n_experts, 6.0).iter().map(|x| x.round() + 0.0).collect();
        for table in tables() {
            let (mut p, mut ids, mut weights) = (logits.clone(), vec![0; rows * top_k], vec![0.0; rows * top_k]);
            route(&table, &team, &mut p, n_experts, top_k, renormalize, &mut ids, &mut weights).unwrap();
            for row in 0..rows {
                let x = &logits[row * n_experts..][..n_experts];
                let sum: f64 = x.iter().map(|x| f64::from(*x).exp()).sum();
                let mut order: Vec<usize> = (0..n_experts).collect();
                order.sort_by(|a, b| x[*b].total_cmp(&x[*a]).then(a.cmp(b)));
                let chosen: Vec<usize> = ids[row * top_k..][..top_k].iter().map(|id| *id as usize).collect();
                prop_assert_eq!(&chosen[..], &order[..top_k]);
                let share = |i: &usize| f64::from(x[*i]).exp() / sum;
                let whole = if renormalize { chosen.iter().map(share).sum() } else { 1.0 };
                close(&weights[row * top_k..][..top_k], chosen.iter().map(|i| share(i) / whole), 1e-6, "a weight");
            }
        }
    }
}

/// `_compute_llama3_parameters` and `_compute_linear_scaling_rope_parameters` of transformers 5.23, which compute in
/// f32; head_dim 128, theta 500000 and 10000, (index, frequency).
const LLAMA3: [(usize, f64); 14] = [
    (0, 1.0),
    (1, 0.8146172165870667),
    (2, 0.663601279258728),
    (20, 0.016560440883040428),
    (24, 0.00729266507551074),
    (26, 0.00483942124992609),
    (28, 0.0032114461064338684),
    (30, 0.0013718936825171113),
    (31, 0.0008567514596506953),
    (32, 0.0005248460220173001),
    (36, 7.784655463183299e-05),
    (40, 3.428102354519069e-05),
    (50, 4.411534519022098e-06),
    (63, 3.068925877869333e-07),
];
const LINEAR: [(usize, f64); 5] = [
    (0, 0.25),
    (1, 0.21649108827114105),
    (20, 0.014058532193303108),
    (40, 0.0007905694656074047),
    (63, 2.8869548259535804e-05),
];

#[test]
fn scaled_frequencies_are_those_of_transformers() {
    let llama3 = RopeScaling::Llama3 {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_context: 8192.0,
    };
    for (theta, scaling, want) in
        [(500_000.0, llama3, &LLAMA3[..]), (10_000.0, RopeScaling::Linear { factor: 4.0 }, &LINEAR[..])]
    {
        let got = inverse_frequencies(theta, 128, scaling);
        assert_eq!(got.len(), 64);
        for (i, want) in want {
            assert!((got[*i] / want - 1.0).abs() < 2e-6, "{i}: {} is not {want}", got[*i]);
        }
    }
}

#[test]
fn a_rotation_does_not_depend_on_the_row_count() {
    let (team, mut noise) = (Team::new(2).unwrap(), Noise(2));
    let frequencies = inverse_frequencies(10_000.0, 64, RopeScaling::None);
    let positions: Vec<usize> = (0..200).collect();
    let (mut cos, mut sin) = (vec![0.0; 200 * 32], vec![0.0; 200 * 32]);
    rope_angles(&positions, &frequencies, &mut cos, &mut sin).unwrap();
    let x = noise.fill(200 * 4 * 64, 1.0);
    for table in tables() {
        let mut together = x.clone();
        rope(&table, &team, Pairing::Halves, 64, &cos, &sin, 200, &mut together).unwrap();
        for row in 0..200 {
            let mut alone = x[row * 256..][..256].to_vec();
            let at = row * 32..(row + 1) * 32;
            rope(&table, &team, Pairing::Halves, 64, &cos[at.clone()], &sin[at], 1, &mut alone).unwrap();
            assert_eq!(bits(&alone), bits(&together[row * 256..][..256]));
        }
    }
}

#[test]
fn log_probabilities_hold_over_a_vocabulary() {
    let mut noise = Noise(9);
    let x = noise.fill(50_257, 20.0);
    let sum: f64 = x.iter().map(|x| f64::from(*x).exp()).sum();
    for table in tables() {
        let name = table.isa().name();
        assert!((log_sum_exp(&table, &x) - sum.ln()).abs() < 1e-6, "{name}");
        let mut out = vec![0.0; x.len()];
        log_softmax(&table, &x, &mut out).unwrap();
        close(&out, x.iter().map(|x| f64::from(*x) - sum.ln()), 4e-6, name);
        let mut p = x.clone();
        softmax(&table, &mut p);
        close(&p, x.iter().map(|x| f64::from(*x).exp() / sum), 1e-9, name);
        assert_eq!(log_sum_exp(&table, &[f32::NEG_INFINITY; 3]), f64::NEG_INFINITY);
        assert_eq!(log_sum_exp(&table, &[1e4, f32::NEG_INFINITY]), 1e4);
    }
}

#[test]
fn the_largest_is_the_lowest_of_equals_and_never_nan() {
    let mut noise = Noise(4);
    for table in tables() {
        for n in 1..200 {
            let mut x = noise.fill(n, 1.0);
            let at = n * 7 / 10;
            x[at] = 5.0;
            x[n - 1] = 5.0;
            assert_eq!(argmax(&table, &x), Some(at.min(n - 1)), "{n}");
            x[0] = f32::NAN;
            assert_ne!(argmax(&table, &x), Some(0));
        }
        assert_eq!(argmax(&table, &[]), None);
        assert_eq!(argmax(&table, &[f32::NAN; 40]), None);
        assert_eq!(argmax(&table, &[f32::NEG_INFINITY; 40]), Some(0));
    }
}

#[test]
fn one_number_that_is_none_is_found_wherever_it_stands() {
    for n in [0, 1, 7, 16, 17, 1023, 1024, 1025, 3000] {
        let numbers = [0.0, -0.0, 1.5, f32::MAX, f32::MIN, f32::MIN_POSITIVE / 2.0];
        let mut x: Vec<f32> = numbers.into_iter().cycle().take(n).collect();
        assert!(all_finite(&x), "{n}");
        for at in (0..n).step_by(1 + n / 50).chain(n.checked_sub(1)) {
            for odd in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let was = std::mem::replace(&mut x[at], odd);
                assert!(!all_finite(&x), "{odd} at {at} of {n}");
                x[at] = was;
            }
        }
    }
}

#[test]
fn lengths_that_disagree_are_refused() {
    let (team, table) = (Team::new(1).unwrap(), tables().remove(0));
    let norm = Norm { kind: NormKind::Rms, eps: 1e-6, weight: &[1.0; 4], bias: Some(&[0.0; 3]) };
    assert!(matches!(
        norm_rows_in_place(&table, &team, &norm, &mut [0.0; 8]),
        Err(KernelError::Shape { got: 3, want: 4, .. })
    ));
    let norm = Norm { bias: None, ..norm };
    assert!(matches!(
        norm_rows_in_place(&table, &team, &norm, &mut [0.0; 7]),
        Err(KernelError::Shape { got: 7, .. })
    ));
    assert!(rope_angles(&[1, 2], &[1.0; 3], &mut [0.0; 6], &mut [0.0; 5]).is_err());
    assert!(rope(&table, &team, Pairing::Halves, 4, &[1.0; 3], &[0.0; 3], 1, &mut [0.0; 4]).is_err());
    assert!(rope(&table, &team, Pairing::Halves, 4, &[1.0; 2], &[0.0; 2], 1, &mut [0.0; 6]).is_err());
    assert!(route(&table, &team, &mut [0.0; 4], 4, 5, false, &mut [0; 5], &mut [0.0; 5]).is_err());
    assert!(add_bias(&table, &mut [0.0; 5], &[0.0; 2]).is_err());
    let mut x = [1.0, 2.0, 3.0, 4.0];
    add_bias(&table, &mut x, &[10.0, 20.0]).unwrap();
    assert_eq!(x, [11.0, 22.0, 13.0, 24.0]);
}
