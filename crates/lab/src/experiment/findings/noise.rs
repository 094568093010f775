//! What is true of every file: how far the same thing differs from itself, and whether it moved while it was measured.

use super::super::recording::Recording;
use super::super::rows::{Finding, Measurement, Value};
use super::super::summary::{grouped, samples};
use super::CONFIDENCE;
use super::common::{
    compared, counted, finding, median_of, metric, noise_floor, pairs, quantity, ratio_words, verdict_words,
};
use crate::statistics::{Sorted, theil_sen};

/// Points of a drift line; its pairs grow with the square.
const MOST_POINTS: usize = 1500;
/// A drift below this share over the whole experiment is not worth a word.
const DRIFT: f64 = 0.02;

/// The metric that a file stands for: time per token, or to the first one.
fn main_metric(recording: &Recording) -> &'static str {
    if recording.counted().any(|run| metric(run, "tpot").is_some()) { "tpot" } else { "ttft" }
}

/// The noise floor of the file.
pub fn floor(recording: &Recording) -> Option<Finding> {
    let name = main_metric(recording);
    let floor = noise_floor(recording, name)?;
    let mut found = finding(
        "noise_floor",
        format!(
            "Half of the runs of a cell against the other half differ by up to {:.1} % in {name} (95th percentile over \
             the cells): differences inside of that are no differences.",
            100.0 * floor
        ),
    );
    let cells = grouped(recording).len();
    found.values.set(name, quantity(floor, "1", None, cells));
    Some(found)
}

/// Whether runs became slower or faster from the first to the last.
pub fn drift(recording: &Recording) -> Option<Finding> {
    let name = main_metric(recording);
    let mut points: Vec<(f64, f64)> = Vec::new();
    for runs in grouped(recording) {
        let middle = median_of(&runs, name)?;
        let point = |run: &&Measurement| Some((run.order as f64, metric(run, name)? / middle));
        points.extend(runs.iter().filter_map(point));
    }
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    let every = points.len().div_ceil(MOST_POINTS).max(1);
    let points: Vec<(f64, f64)> = points.into_iter().step_by(every).collect();
    let line = theil_sen(&points, CONFIDENCE).ok()?;
    let span = points.last()?.0 - points.first()?.0;
    let change = line.slope * span;
    let interval = crate::statistics::Interval {
        low: line.slope_interval.low * span,
        high: line.slope_interval.high * span,
    };
    let moved = !interval.contains(0.0) && change.abs() > DRIFT;
    let sentence = match moved {
        true => format!(
            "{name} moved by {:+.1} % [{:+.1} %, {:+.1} %] from the first run to the last: rounds are interleaved, so \
             comparisons hold, but single figures are those of a machine that changed.",
            100.0 * change,
            100.0 * interval.low,
            100.0 * interval.high
        ),
        false => "No drift shown from the first run to the last.".to_string(),
    };
    let mut found = finding("drift", sentence);
    found.values.set(name, quantity(change, "1", Some(interval), points.len()));
    Some(found)
}

/// The same thing against itself.
pub fn arms(recording: &Recording) -> Vec<Finding> {
    let runs = counted(recording);
    let Some([a, b, ..]) = recording.header.spec.axes.get("arm").map(Vec::as_slice) else {
        return Vec::new();
    };
    let mut all = Vec::new();
    for name in ["e2e", "tpot", "ttft", "prefill"] {
        let pairs = pairs(&runs, "arm", a, b, name);
        let Some(comparison) = compared(&pairs) else { continue };
        let spread = spread(&runs, a, name).unwrap_or(0.0);
        let mut found = finding(
            &format!("arms_{name}"),
            format!(
                "{name} of {b} over {a}: {} in {} pairs: {}. Runs of one arm spread by {:.1} % between quartiles.",
                ratio_words(&comparison),
                comparison.n,
                verdict_words(&comparison, 0.0),
                100.0 * spread
            ),
        );
        found.values.set("ratio", quantity(comparison.ratio, "1", Some(comparison.interval), comparison.n));
        found.values.set("spread", quantity(spread, "1", None, comparison.n));
        all.push(found);
    }
    all
}

/// Quartile width over median of one arm.
fn spread(runs: &[&Measurement], arm: &Value, name: &str) -> Option<f64> {
    let of_arm: Vec<&Measurement> =
        runs.iter().copied().filter(|run| run.cell.get("arm") == Some(arm)).collect();
    let sorted = Sorted::new(&samples(&of_arm, name)).ok()?;
    Some(sorted.quartiles().width() / sorted.median())
}
