//! From pairs of runs to ratios: how many times as fast Roofline is, with an interval, losses as plain as gains.

use crate::experiment::rows::{Finding, Measurement, Quantity, Value};
use crate::experiment::{Ordered, Recording};
use crate::statistics::{Bootstrap, Interval, bootstrap, median};

/// Pairs from which on a difference is claimed: a bootstrap of fewer calls equal things different too often.
const FEWEST_PAIRS: usize = 6;

/// Name of the axis that holds engines.
const ENGINE: &str = "engine";

/// A finding per phase, peer, depth and prompt.
pub(super) fn of(recording: &Recording) -> Vec<Finding> {
    let Some(engines) = recording.header.spec.axes.get(ENGINE) else { return Vec::new() };
    let Some((own, peers)) = engines.split_first() else { return Vec::new() };
    let runs: Vec<&Measurement> = recording.counted().collect();
    let mut places: Vec<Ordered<Value>> = Vec::new();
    for run in &runs {
        let place = without_engine(run);
        if !places.contains(&place) {
            places.push(place);
        }
    }
    let mut findings = Vec::new();
    for peer in peers {
        for place in &places {
            for (phase, metric) in [("prefill", "prefill"), ("decode", "tpot")] {
                let pairs = pairs(&runs, place, (own, peer), metric);
                findings.extend(finding(phase, peer, place, &pairs));
            }
        }
    }
    findings
}

fn without_engine(run: &Measurement) -> Ordered<Value> {
    let mut place = run.cell.clone();
    place.remove(ENGINE);
    place
}

/// (Roofline's time, the peer's) of the same round.
fn pairs(
    runs: &[&Measurement],
    place: &Ordered<Value>,
    (own, peer): (&Value, &Value),
    metric: &str,
) -> Vec<(f64, f64)> {
    let of = |engine: &Value, repeat: usize| {
        let is_it = |run: &&&Measurement| {
            run.repeat == repeat && run.cell.get(ENGINE) == Some(engine) && without_engine(run) == *place
        };
        runs.iter().find(is_it)?.metrics.get(metric).map(|metric| metric.value)
    };
    let rounds = runs.iter().map(|run| run.repeat + 1).max().unwrap_or(0);
    (0..rounds).filter_map(|repeat| Some((of(own, repeat)?, of(peer, repeat)?))).collect()
}

/// The peer's median time over Roofline's, with a bootstrap interval over the pairs.
fn ratio(pairs: &[(f64, f64)]) -> Option<(f64, Interval)> {
    let of = |pairs: &mut dyn Iterator<Item = (f64, f64)>| {
        let (own, peer): (Vec<f64>, Vec<f64>) = pairs.unzip();
        Some(median(&peer).ok()? / median(&own).ok()?)
    };
    let point = of(&mut pairs.iter().copied())?;
    // Pairs are drawn by their number, so that both sides of a pair stay together.
    let numbers: Vec<f64> = (0..pairs.len()).map(|number| number as f64).collect();
    let interval = bootstrap(&numbers, Bootstrap::default(), |drawn| {
        of(&mut drawn.iter().map(|number| pairs[*number as usize])).unwrap_or(f64::NAN)
    });
    Some((point, interval.ok()?))
}

fn finding(phase: &str, peer: &Value, place: &Ordered<Value>, pairs: &[(f64, f64)]) -> Option<Finding> {
    let (ratio, interval) = ratio(pairs)?;
    let n = pairs.len();
    let (own, other): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
    let quantity =
        |value: f64, unit: &str| Quantity { value, unit: unit.into(), low: None, high: None, n: Some(n) };
    let with_interval =
        Quantity { low: Some(interval.low), high: Some(interval.high), ..quantity(ratio, "1") };
    let axis = |name: &str| place.get(name).map(ToString::to_string).unwrap_or_default();
    let what = match phase {
        "prefill" => format!("prefill of {} at depth {}", axis("prompt"), axis("depth")),
        _ => format!("decode of {} after {} at depth {}", axis("output"), axis("prompt"), axis("depth")),
    };
    let between = |low: f64, high: f64| format!("[{low:.2}, {high:.2}], n = {n} pairs");
    let sentence = if n < FEWEST_PAIRS {
        format!("{what}: Roofline and {peer}: ratio {ratio:.2}, but {n} pairs are too few to tell.")
    } else if interval.contains(1.0) {
        format!(
            "{what}: no difference shown between Roofline and {peer}: ratio {ratio:.2} {}.",
            between(interval.low, interval.high)
        )
    } else if ratio > 1.0 {
        format!(
            "{what}: Roofline is {ratio:.2} times as fast as {peer} {}.",
            between(interval.low, interval.high)
        )
    } else {
        let (low, high) = (1.0 / interval.high, 1.0 / interval.low);
        format!(
            "{what}: Roofline is slower: {peer} is {:.2} times as fast {}.",
            1.0 / ratio,
            between(low, high)
        )
    };
    let mut cell = place.clone();
    cell.set(ENGINE, peer.clone());
    let values = [
        ("ratio", with_interval),
        ("roofline", quantity(median(&own).ok()?, "s")),
        ("peer", quantity(median(&other).ok()?, "s")),
    ];
    Some(Finding {
        name: format!("{phase}_ratio"),
        cell,
        sentence,
        values: values.into_iter().collect(),
        fit: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_truth_lies_in_the_interval_and_a_slow_minute_cancels() {
        // Each round has a speed of its own, up to three times slower; the peer takes 1.2 times as long, ±1 %.
        let pairs: Vec<(f64, f64)> = (0..20)
            .map(|i| {
                let minute = 1.0 + f64::from(i % 7) / 3.0;
                (minute, minute * 1.2 * (1.0 + 0.01 * (f64::from(i * 37 % 11) / 5.0 - 1.0)))
            })
            .collect();
        let (point, interval) = ratio(&pairs).unwrap();
        assert!((point - 1.2).abs() < 0.02, "{point}");
        assert!(interval.low > 1.1 && interval.high < 1.3 && interval.contains(1.2), "{interval:?}");
    }

    #[test]
    fn sentences_name_gains_losses_and_noise() {
        let place: Ordered<Value> =
            [("depth", Value::Whole(0)), ("prompt", Value::Whole(64)), ("output", Value::Whole(8))]
                .into_iter()
                .collect();
        let peer = Value::Text("peer 1".into());
        let said = |own: f64, other: f64, noise: f64| {
            let pairs: Vec<(f64, f64)> =
                (0..8).map(|i| (own, other * (1.0 + noise * (f64::from(i % 4) - 1.5)))).collect();
            finding("prefill", &peer, &place, &pairs).unwrap().sentence
        };
        assert!(said(1.0, 2.0, 0.01).starts_with("prefill of 64 at depth 0: Roofline is 2.0"));
        assert!(
            said(2.0, 1.0, 0.01).contains("Roofline is slower: peer 1 is 2.0"),
            "{}",
            said(2.0, 1.0, 0.01)
        );
        assert!(said(1.0, 1.0, 0.2).contains("no difference shown"));
        assert!(finding("decode", &peer, &place, &[(1.0, 1.0)]).is_none(), "one pair has no interval");
    }
}
