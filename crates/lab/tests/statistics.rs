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
    let interval = |seed| bootstrap_median(&samples, Bootstrap { seed, ..Bootstrap::default() }).unwrap();
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
