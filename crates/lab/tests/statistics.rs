//! Statistics against data whose truth is known.

use proptest::prelude::*;
use roofline_lab::statistics::*;

/// Uniform noise in [0, 1) from a linear congruential generator (Knuth's MMIX).
fn noise(n: usize, seed: u64) -> Vec<f64> {
    let mut state = seed;
    (0..n)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1u64 << 53) as f64
        })
        .collect()
}

/// Sum of twelve uniforms less six: variance one, close to normal.
fn normal(n: usize, seed: u64) -> Vec<f64> {
    noise(12 * n, seed).chunks(12).map(|c| c.iter().sum::<f64>() - 6.0).collect()
}

#[test]
fn order_statistics_of_small_lists() {
    let sorted = Sorted::new(&[4.0, 1.0, 3.0, 2.0]).unwrap();
    assert_eq!((sorted.min(), sorted.median(), sorted.max(), sorted.n()), (1.0, 2.5, 4.0, 4));
    assert_eq!(sorted.quartiles(), Interval { low: 1.75, high: 3.25 }); // numpy.quantile([1,2,3,4], [.25,.75])
    assert_eq!(median(&[7.0]).unwrap(), 7.0);
    assert_eq!(mean(&[1.0, 2.0, 6.0]).unwrap(), 3.0);
    assert_eq!(standard_deviation(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]).unwrap(), (32f64 / 7.0).sqrt());
}

#[test]
fn bad_samples_are_errors() {
    assert!(matches!(median(&[]), Err(StatisticsError::TooFew { .. })));
    assert!(matches!(median(&[1.0, f64::NAN]), Err(StatisticsError::NotFinite { index: 1, .. })));
    assert!(matches!(standard_deviation(&[1.0]), Err(StatisticsError::TooFew { needed: 2, .. })));
    assert!(matches!(bootstrap_median(&[1.0], Bootstrap::default()), Err(StatisticsError::TooFew { .. })));
    let sure = Bootstrap { confidence: 1.0, ..Bootstrap::default() };
    assert!(matches!(bootstrap_median(&[1.0, 2.0], sure), Err(StatisticsError::Fraction { .. })));
    let none = Bootstrap { resamples: 0, ..Bootstrap::default() };
    assert!(matches!(bootstrap_median(&[1.0, 2.0], none), Err(StatisticsError::TooFew { .. })));
    let vertical = [(1.0, 1.0), (1.0, 2.0), (1.0, 3.0)];
    assert!(matches!(least_squares(&vertical, 0.95), Err(StatisticsError::SameX { n: 3, .. })));
    assert!(matches!(theil_sen(&vertical, 0.95), Err(StatisticsError::SameX { n: 3, .. })));
    assert!(matches!(least_squares(&vertical[..2], 0.95), Err(StatisticsError::TooFew { needed: 3, .. })));
}

/// Of 200 intervals at 95 %, about 190 hold the truth; 200 draws of a true 95 % fall below 175 once in 10⁵.
#[test]
fn bootstrap_intervals_hold_the_median_as_often_as_they_say() {
    let held = (0..200u64)
        .filter(|&seed| {
            let samples = normal(40, 17 * seed + 1);
            let options = Bootstrap { resamples: 400, seed, ..Bootstrap::default() };
            bootstrap_median(&samples, options).unwrap().contains(0.0)
        })
        .count();
    assert!((175..=200).contains(&held), "{held} of 200");
}

#[test]
fn bootstrap_is_the_same_every_time() {
    let samples = noise(30, 5);
    let mean = |samples: &[f64]| samples.iter().sum::<f64>() / samples.len() as f64;
    let interval = |seed| bootstrap(&samples, Bootstrap { seed, ..Bootstrap::default() }, mean).unwrap();
    assert_eq!(interval(1), interval(1));
    assert_ne!(interval(1), interval(2));
}

#[test]
fn least_squares_intervals_hold_the_line_as_often_as_they_say() {
    let (mut slopes, mut intercepts) = (0, 0);
    for seed in 0..200u64 {
        let errors = normal(12, 31 * seed + 7);
        let points: Vec<_> =
            errors.iter().enumerate().map(|(i, e)| (i as f64, 3.0 + 0.5 * i as f64 + e)).collect();
        let line = least_squares(&points, 0.95).unwrap();
        slopes += usize::from(line.slope_interval.contains(0.5));
        intercepts += usize::from(line.intercept_interval.contains(3.0));
    }
    assert!((175..=199).contains(&slopes), "slope {slopes} of 200");
    assert!((175..=199).contains(&intercepts), "intercept {intercepts} of 200");
}

#[test]
fn theil_sen_shrugs_off_outliers() {
    let errors = normal(60, 99);
    let mut points: Vec<_> =
        errors.iter().enumerate().map(|(i, e)| (i as f64, 2.0 + 0.25 * i as f64 + 0.1 * e)).collect();
    for i in (3..60).step_by(6) {
        points[i].1 += 50.0; // one in six, as a preempted step would be
    }
    let line = theil_sen(&points, 0.95).unwrap();
    assert!(line.slope_interval.contains(0.25), "{line:?}");
    assert!((line.intercept - 2.0).abs() < 0.5, "{line:?}");
    let pulled = least_squares(&points, 0.95).unwrap();
    assert!((pulled.intercept - 2.0).abs() > 3.0, "outliers must hurt least squares here: {pulled:?}");
}

#[test]
fn theil_sen_intervals_hold_the_slope_as_often_as_they_say() {
    let held = (0..200u64)
        .filter(|&seed| {
            let errors = normal(20, 13 * seed + 3);
            let points: Vec<_> =
                errors.iter().enumerate().map(|(i, e)| (i as f64, 1.0 - 0.1 * i as f64 + e)).collect();
            theil_sen(&points, 0.95).unwrap().slope_interval.contains(-0.1)
        })
        .count();
    assert!((175..=200).contains(&held), "{held} of 200");
}

proptest! {
    #[test]
    fn a_line_without_noise_is_found_exactly(slope in -1e3..1e3f64, intercept in -1e3..1e3f64, n in 3usize..40) {
        let points: Vec<_> = (0..n).map(|i| (i as f64, intercept + slope * i as f64)).collect();
        for line in [least_squares(&points, 0.95).unwrap(), theil_sen(&points, 0.95).unwrap()] {
            prop_assert!((line.slope - slope).abs() < 1e-8 * (1.0 + slope.abs()), "{line:?}");
            prop_assert!((line.intercept - intercept).abs() < 1e-6 * (1.0 + intercept.abs() + slope.abs()), "{line:?}");
        }
    }

    #[test]
    fn quantiles_ascend_and_stay_inside(samples in prop::collection::vec(-1e9..1e9f64, 1..50), p in 0.0..1.0f64, q in 0.0..1.0f64) {
        let sorted = Sorted::new(&samples).unwrap();
        let (low, high) = (f64::min(p, q), f64::max(p, q));
        prop_assert!(sorted.quantile(low) <= sorted.quantile(high));
        prop_assert!(sorted.min() <= sorted.quantile(p) && sorted.quantile(p) <= sorted.max());
    }
}

/// y of a curve with normal noise of `deviation`, relative to y where `relative`.
fn noisy(xs: &[f64], seed: u64, deviation: f64, relative: bool, y: impl Fn(f64) -> f64) -> Vec<(f64, f64)> {
    let noise = normal(xs.len(), seed);
    xs.iter()
        .zip(noise)
        .map(|(&x, e)| (x, y(x) + e * deviation * if relative { y(x) } else { 1.0 }))
        .collect()
}

/// Output lengths 8 to 1024, five runs each.
fn lengths() -> Vec<f64> {
    (3..=10).flat_map(|power| [f64::from(1 << power); 5]).collect()
}

#[test]
fn a_polynomial_without_noise_is_found_to_the_digit() {
    let points: Vec<(f64, f64)> =
        [1.0, 10.0, 300.0, 4000.0, 9000.0].map(|x| (x, 3.0 + 0.25 * x + 1e-6 * x * x)).to_vec();
    for points in [Point::even(&points), Point::relative(&points)] {
        let fit = polynomial(&points, 2, 0.95).unwrap();
        for (found, truth) in fit.coefficients.iter().zip([3.0, 0.25, 1e-6]) {
            assert!((found - truth).abs() < 1e-9 * truth.abs().max(1.0), "{found} {truth}");
        }
        assert!((fit.at(5000.0) - (3.0 + 1250.0 + 25.0)).abs() < 1e-6);
    }
}

/// T = b + a·n + c·n² with 2 % noise: each of the three intervals holds its truth as often as it says. 300 draws of a
/// true 95 % fall below 270 once in 10⁴.
#[test]
fn intervals_of_a_quadratic_hold_its_coefficients() {
    let truth = [5e-3, 3e-4, 2e-8];
    let mut held = [0; 3];
    for seed in 0..300 {
        let points =
            noisy(&lengths(), 31 * seed + 7, 0.02, true, |n| truth[0] + truth[1] * n + truth[2] * n * n);
        let fit = polynomial(&Point::relative(&points), 2, 0.95).unwrap();
        for (k, held) in held.iter_mut().enumerate() {
            *held += usize::from(fit.intervals[k].contains(truth[k]));
        }
    }
    assert!(held.iter().all(|held| (270..=299).contains(held)), "{held:?} of 300");
}

#[test]
fn intervals_of_a_log_log_slope_hold_it() {
    let held = (0..300u64)
        .filter(|seed| {
            let points = noisy(&lengths(), 37 * seed + 3, 0.05, true, |n| 2.0 * n.powf(0.9));
            let logs: Vec<(f64, f64)> = points.iter().map(|(x, y)| (x.ln(), y.ln())).collect();
            least_squares(&logs, 0.95).unwrap().slope_interval.contains(0.9)
        })
        .count();
    assert!((270..=299).contains(&held), "{held} of 300");
}

/// max(read, compute) over prompt lengths: the break is found, its interval holds it, and both slopes are right.
#[test]
fn a_turning_point_is_found_with_its_interval() {
    let xs: Vec<f64> = [1.0, 2.0, 4.0, 8.0, 12.0, 16.0, 24.0, 32.0, 64.0, 128.0, 256.0]
        .iter()
        .flat_map(|&x| [x; 5])
        .collect();
    let (turn, mut held, mut broken) = (20.0, 0, 0);
    for seed in 0..100 {
        let points = noisy(&xs, 41 * seed + 5, 0.03, true, |n| 1.0 + 0.05 * (n - turn).max(0.0));
        let fit = segmented(&Point::relative(&points), 0.95).unwrap();
        assert!((fit.turn / turn).ln().abs() < 0.5, "{}", fit.turn);
        held += usize::from(fit.turn_interval.contains(turn));
        broken += usize::from(fit.broken);
    }
    assert!(held >= 88, "{held} of 100 intervals hold the break"); // a true 95 % falls below once in 10³
    assert_eq!(broken, 100);
}

#[test]
fn a_straight_line_is_rarely_called_broken() {
    let xs: Vec<f64> = (1..=10).flat_map(|x| [f64::from(x * x); 5]).collect();
    let broken = (0..300u64)
        .filter(|seed| {
            let points = noisy(&xs, 43 * seed + 11, 0.03, true, |n| 1.0 + 0.05 * n);
            segmented(&Point::relative(&points), 0.95).unwrap().broken
        })
        .count();
    assert!(broken <= 15, "{broken} of 300");
}

#[test]
fn curves_refuse_what_no_curve_goes_through() {
    let few = Point::even(&[(1.0, 1.0), (2.0, 2.0), (3.0, 3.0)]);
    assert!(matches!(polynomial(&few, 2, 0.95), Err(StatisticsError::TooFew { needed: 4, .. })));
    let same = Point::even(&[(1.0, 1.0); 9]);
    assert!(matches!(polynomial(&same, 1, 0.95), Err(StatisticsError::SameX { .. })));
    assert!(matches!(segmented(&same, 0.95), Err(StatisticsError::TooFew { .. })));
    assert!(matches!(polynomial(&few, 1, 1.5), Err(StatisticsError::Fraction { .. })));
    let nan = Point::even(&[(1.0, 1.0), (2.0, f64::NAN), (3.0, 3.0), (4.0, 4.0)]);
    assert!(matches!(polynomial(&nan, 1, 0.95), Err(StatisticsError::NotFinite { .. })));
    let zero = Point::relative(&[(1.0, 0.0), (2.0, 1.0), (3.0, 3.0), (4.0, 4.0)]);
    assert!(polynomial(&zero, 1, 0.95).is_err());
}

/// The same thing against itself, in pairs as an experiment makes them: called different at most once in twenty, with
/// even noise and with a heavy tail.
#[test]
fn equal_things_are_called_different_at_most_once_in_twenty() {
    const TRIALS: u64 = 2000;
    for (name, heavy) in [("normal", false), ("heavy-tailed", true)] {
        for n in [5usize, 10, 20] {
            let wrong = (0..TRIALS)
                .filter(|trial| {
                    let seed = trial * 1009 + n as u64 * 7 + u64::from(heavy);
                    let tail = noise(2 * n, seed ^ 0xabcd);
                    let time = |i: usize, e: f64| {
                        // One run in ten meets another program and takes up to three times as long.
                        let slow = if heavy && tail[i] < 0.1 { 1.0 + 20.0 * tail[i] } else { 1.0 };
                        (1.0 + 0.03 * e) * slow
                    };
                    let e = normal(2 * n, seed);
                    let pairs: Vec<(f64, f64)> =
                        (0..n).map(|i| (time(2 * i, e[2 * i]), time(2 * i + 1, e[2 * i + 1]))).collect();
                    compare(&pairs, 0.95).unwrap().verdict(0.0) != Verdict::NoDifferenceShown
                })
                .count();
            // Binomial(2000, 5 %): 100 ± 10.
            assert!(wrong <= 125, "{name}, {n} pairs: {wrong} of {TRIALS}");
        }
    }
}

#[test]
fn a_true_difference_is_shown_unless_it_lies_inside_of_the_noise_floor() {
    let pairs: Vec<(f64, f64)> = normal(10, 3).iter().map(|e| (1.0, 1.1 + 0.01 * e)).collect();
    let comparison = compare(&pairs, 0.95).unwrap();
    assert_eq!(comparison.verdict(0.0), Verdict::More);
    assert_eq!(comparison.verdict(0.05), Verdict::More);
    assert_eq!(comparison.verdict(0.2), Verdict::NoDifferenceShown);
    let faster: Vec<(f64, f64)> = pairs.iter().map(|&(a, b)| (b, a)).collect();
    assert_eq!(compare(&faster, 0.95).unwrap().verdict(0.05), Verdict::Less);
    assert!(compare(&pairs[..1], 0.95).is_err());
    assert!(compare(&[(1.0, 0.0), (1.0, 1.0)], 0.95).is_err());
}

/// The interval that a cell's table shows, for the numbers of runs that experiments make.
#[test]
fn intervals_of_cells_hold_the_median() {
    for (n, least) in [(5usize, 930), (7, 930), (20, 920)] {
        let held = (0..1000u64)
            .filter(|seed| {
                let samples = normal(n, seed * 101 + n as u64);
                let options = Bootstrap { resamples: 1000, seed: *seed, ..Bootstrap::default() };
                bootstrap_median(&samples, options).unwrap().contains(0.0)
            })
            .count();
        // A true 93.75 % (five runs: from the smallest to the largest) has a deviation of 8 in 1000.
        assert!(held >= least - 10, "{n} runs: {held} of 1000");
    }
}

#[test]
fn a_mean_has_students_interval() {
    let held = (0..500u64)
        .filter(|seed| mean_interval(&normal(5, seed * 13 + 1), 0.95).unwrap().1.contains(0.0))
        .count();
    assert!((458..=495).contains(&held), "{held} of 500"); // 475 ± 5, and sums of twelve are not quite normal
    assert!(mean_interval(&[1.0], 0.95).is_err());
}
