//! Every value of an axis against the first one.

use super::super::ordered::Ordered;
use super::super::recording::Recording;
use super::super::rows::{Finding, Measurement, Quality, Value};
use super::common::{
    compared, counted, finding, limit, median_of, noise_floor, pairs, quantity, ratio_words, verdict_words,
};
use crate::units::bytes;

/// Compares metrics in pairs of the same round, bytes, and quality where it was measured; apart for every combination of
/// the other axes.
pub fn first_value(recording: &Recording, axis: &str, metrics: &[&str]) -> Vec<Finding> {
    let runs = counted(recording);
    let values = recording.header.spec.axes.get(axis).map(Vec::as_slice).unwrap_or_default();
    let Some((first, others)) = values.split_first() else { return Vec::new() };
    let mut all = Vec::new();
    for place in places(recording, &runs, axis) {
        let is_here =
            |run: &&Measurement| place.iter().all(|(axis, value)| run.cell.get(axis) == Some(value));
        let here: Vec<&Measurement> = runs.iter().copied().filter(is_here).collect();
        for other in others {
            let Some(mut found) = one(recording, &here, axis, (first, other), metrics) else { continue };
            for (axis, value) in place.iter() {
                found.cell.set(axis, value.clone());
            }
            let told: Vec<String> = place.iter().map(|(axis, value)| format!("{axis} {value}")).collect();
            if !told.is_empty() {
                found.sentence = format!("{}: {}", told.join(", "), found.sentence);
            }
            all.push(found);
        }
    }
    all
}

/// The combinations of the other axes that have more than one value, in the order of the specification.
fn places(recording: &Recording, runs: &[&Measurement], axis: &str) -> Vec<Ordered<Value>> {
    let axes = &recording.header.spec.axes;
    let varied = |name: &str| name != axis && axes.get(name).is_some_and(|values| values.len() > 1);
    let mut places: Vec<Ordered<Value>> = Vec::new();
    for run in runs {
        let told = run.cell.iter().filter(|(name, _)| varied(name));
        let place: Ordered<Value> = told.map(|(name, value)| (name, value.clone())).collect();
        if !places.contains(&place) {
            places.push(place);
        }
    }
    let order = |place: &Ordered<Value>| -> Vec<Option<usize>> {
        let at = |(name, values): (&str, &Vec<Value>)| {
            place.get(name).and_then(|value| values.iter().position(|one| one == value))
        };
        axes.iter().map(at).collect()
    };
    places.sort_by_key(order);
    places
}

/// One value against another over these runs.
pub fn one(
    recording: &Recording,
    runs: &[&Measurement],
    axis: &str,
    (first, other): (&Value, &Value),
    metrics: &[&str],
) -> Option<Finding> {
    let of = |value: &Value| -> Vec<&Measurement> {
        runs.iter().copied().filter(|run| run.cell.get(axis) == Some(value)).collect()
    };
    let (base, changed) = (of(first), of(other));
    let mut found = finding(&format!("{axis}_{other}"), String::new());
    found.cell.set(axis, other.clone());
    let mut parts = Vec::new();
    for name in metrics {
        let Some(comparison) = compared(&pairs(runs, axis, first, other, name)) else { continue };
        let floor = noise_floor(recording, name).unwrap_or(0.0);
        parts.push(format!("{name} {} ({})", ratio_words(&comparison), verdict_words(&comparison, floor)));
        found.values.set(*name, quantity(comparison.ratio, "1", Some(comparison.interval), comparison.n));
        if let (Some(a), Some(b)) = (median_limit(&base, name), median_limit(&changed, name)) {
            parts.push(format!("its limit {:.3}", b / a));
            found.values.set(format!("{name}_limit"), quantity(b / a, "1", None, 1));
        }
    }
    for (name, words) in [("kv_live", "cache kept"), ("kv_peak", "cache at its peak"), ("weights", "weights")]
    {
        let (Some(a), Some(b)) = (median_of(&base, name), median_of(&changed, name)) else { continue };
        if a != b {
            parts.push(format!("{words} {} instead of {}", bytes(b as u64), bytes(a as u64)));
            found.values.set(name, quantity(b / a, "1", None, changed.len()));
        }
    }
    for (name, words, digits) in [("perplexity", "perplexity", 2), ("kl", "divergence", 4)] {
        if let Some(quality) = quality_of(recording, &changed, name) {
            let before = (quality_of(recording, &base, name).filter(|_| name == "perplexity"))
                .map_or(String::new(), |value| format!(" instead of {value:.digits$}"));
            parts.push(format!("{words} {quality:.digits$}{before}"));
            found.values.set(name, quantity(quality, "1", None, changed.len()));
        }
    }
    if parts.is_empty() {
        return None;
    }
    let n = changed.len();
    found.sentence = format!("{axis} {other} against {first}: {}; n = {n} runs.", parts.join(", "));
    Some(found)
}

fn median_limit(runs: &[&Measurement], name: &str) -> Option<f64> {
    let values: Vec<f64> = runs.iter().filter_map(|run| limit(run, name)).collect();
    crate::statistics::median(&values).ok().filter(|limit| *limit > 0.0)
}

/// Quality of the configuration that these runs share.
fn quality_of(recording: &Recording, runs: &[&Measurement], name: &str) -> Option<f64> {
    let run = runs.first()?;
    let is_theirs =
        |quality: &&Quality| quality.cell.iter().all(|(axis, value)| run.cell.get(axis) == Some(value));
    recording.qualities().find(is_theirs)?.metrics.get(name).map(|quantity| quantity.value)
}
