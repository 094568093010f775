//! What several analyses need.

use super::super::ordered::Ordered;
use super::super::recording::Recording;
use super::super::rows::{Finding, Measurement, Quantity, Value};
use super::super::summary::grouped;
use super::CONFIDENCE;
use crate::statistics::{Comparison, Interval, Sorted, Verdict, compare};
use crate::units::si;

/// A number with its interval.
pub fn quantity(value: f64, unit: &str, interval: Option<Interval>, n: usize) -> Quantity {
    Quantity {
        value,
        unit: unit.to_string(),
        low: interval.map(|i| i.low),
        high: interval.map(|i| i.high),
        n: Some(n),
    }
}

/// A finding without numbers yet.
pub fn finding(name: &str, sentence: String) -> Finding {
    Finding {
        name: name.to_string(),
        cell: Ordered::default(),
        sentence,
        values: Ordered::default(),
        fit: None,
    }
}

/// As `0.294 ms [0.290 ms, 0.301 ms]`.
pub fn with_interval(value: f64, interval: Interval, unit: &str) -> String {
    format!("{} [{}, {}]", si(value, unit), si(interval.low, unit), si(interval.high, unit))
}

/// As `1.02 [0.99, 1.05]`.
pub fn ratio_words(comparison: &Comparison) -> String {
    let Interval { low, high } = comparison.interval;
    format!("{:.3} [{low:.3}, {high:.3}]", comparison.ratio)
}

/// A metric of a run.
pub fn metric(run: &Measurement, name: &str) -> Option<f64> {
    run.metrics.get(name).map(|metric| metric.value)
}

/// A limit of a run.
pub fn limit(run: &Measurement, name: &str) -> Option<f64> {
    run.limits.get(name).map(|metric| metric.value)
}

/// What is said of a time beside the best that memory allows. A time below its limit tells of the probe, not of the run.
pub fn of_limit(seconds: f64, limit: f64) -> String {
    match seconds < limit {
        true => format!(
            " (less than the {} that the probe of memory allows: other programs held the probe back, so it is no limit here)",
            si(limit, "s")
        ),
        false => format!(" (memory allows {}, {:.0} % of it)", si(limit, "s"), 100.0 * limit / seconds),
    }
}

/// A numeric axis of a run.
pub fn axis(run: &Measurement, name: &str) -> Option<f64> {
    run.cell.get(name).and_then(Value::number)
}

/// Median of one metric over runs.
pub fn median_of(runs: &[&Measurement], name: &str) -> Option<f64> {
    let values: Vec<f64> = runs.iter().filter_map(|run| metric(run, name)).collect();
    Sorted::new(&values).ok().map(|sorted| sorted.median())
}

/// Whether two runs agree in every axis but `but`.
fn agree(a: &Measurement, b: &Measurement, but: &[&str]) -> bool {
    let others = |run: &Measurement| -> Vec<(String, Value)> {
        let kept = run.cell.iter().filter(|(axis, _)| !but.contains(axis));
        kept.map(|(axis, value)| (axis.to_string(), value.clone())).collect()
    };
    others(a) == others(b)
}

/// One metric of runs with `from` and with `to` on an axis, in pairs that agree in everything else and in the round.
pub fn pairs(runs: &[&Measurement], on: &str, from: &Value, to: &Value, name: &str) -> Vec<(f64, f64)> {
    let with = |value: &Value| -> Vec<&Measurement> {
        runs.iter().copied().filter(|run| run.cell.get(on) == Some(value)).collect()
    };
    let targets = with(to);
    let mut all = Vec::new();
    for a in with(from) {
        let partner = targets.iter().find(|b| b.repeat == a.repeat && agree(a, b, &[on]));
        if let Some((x, y)) = partner.and_then(|b| Some((metric(a, name)?, metric(b, name)?)))
            && x > 0.0
            && y > 0.0
        {
            all.push((x, y));
        }
    }
    all
}

/// The comparison of such pairs, if there are enough.
pub fn compared(pairs: &[(f64, f64)]) -> Option<Comparison> {
    compare(pairs, CONFIDENCE).ok()
}

/// By how much (a share) the same thing against itself differs in this file: each cell's even rounds against its odd
/// ones, the 95th percentile of |ratio of medians − 1| over the cells. Halves are noisier than wholes, so the floor errs
/// on the side of saying nothing. `None` below four runs of any cell.
pub fn noise_floor(recording: &Recording, name: &str) -> Option<f64> {
    let mut differences = Vec::new();
    for runs in grouped(recording) {
        let half = |odd: usize| -> Vec<&Measurement> {
            runs.iter().copied().filter(|run| run.repeat % 2 == odd).collect()
        };
        let (even, odd) = (half(0), half(1));
        if even.len() < 2 || odd.len() < 2 {
            continue;
        }
        if let (Some(a), Some(b)) = (median_of(&even, name), median_of(&odd, name))
            && a > 0.0
            && b > 0.0
        {
            differences.push((a / b).ln().abs().exp() - 1.0);
        }
    }
    Sorted::new(&differences).ok().map(|sorted| sorted.quantile(0.95))
}

/// The end of a sentence about a ratio of times.
pub fn verdict_words(comparison: &Comparison, floor: f64) -> String {
    let percent = |ratio: f64| format!("{:.1} %", 100.0 * (ratio - 1.0).abs());
    match comparison.verdict(floor) {
        Verdict::Less => format!("{} less", percent(comparison.ratio)),
        Verdict::More if comparison.ratio >= 2.0 => format!("{:.2} times as much", comparison.ratio),
        Verdict::More => format!("{} more", percent(comparison.ratio)),
        Verdict::NoDifferenceShown => "no difference shown".to_string(),
    }
}

/// (axis, median of a metric) of every value of a numeric axis: one point per cell, which no interrupted run moves.
pub fn medians(runs: &[&Measurement], on: &str, name: &str) -> Vec<(f64, f64)> {
    let mut values: Vec<f64> = runs.iter().filter_map(|run| axis(run, on)).collect();
    values.sort_unstable_by(f64::total_cmp);
    values.dedup();
    let point = |value: f64| {
        let of_value: Vec<&Measurement> =
            runs.iter().copied().filter(|run| axis(run, on) == Some(value)).collect();
        Some((value, median_of(&of_value, name)?))
    };
    values.into_iter().filter_map(point).collect()
}

/// Counted runs of a file.
pub fn counted(recording: &Recording) -> Vec<&Measurement> {
    recording.counted().collect()
}
