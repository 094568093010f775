//! Time per token against the tokens in the cache.

use super::super::recording::Recording;
use super::super::rows::{Finding, Fit, Form, Measurement};
use super::CONFIDENCE;
use super::common::{axis, counted, finding, limit, metric, of_limit, quantity, with_interval};
use crate::statistics::{Interval, theil_sen};
use crate::units::si;

/// Most points of a line whose pairs grow with the square.
const MOST_POINTS: usize = 2000;

/// W and B against predicted, one finding per model, precision, threads and cache.
pub fn findings(recording: &Recording) -> Vec<Finding> {
    let runs = counted(recording);
    let mut groups: Vec<Vec<&Measurement>> = Vec::new();
    let same = |a: &Measurement, b: &Measurement| {
        a.cell.iter().all(|(name, value)| name == "depth" || b.cell.get(name) == Some(value))
    };
    for run in runs {
        match groups.iter_mut().find(|group| same(group[0], run)) {
            Some(group) => group.push(run),
            None => groups.push(vec![run]),
        }
    }
    let varied = recording.header.spec.varied();
    groups.iter().filter_map(|group| line(group, &varied)).collect()
}

fn line(runs: &[&Measurement], varied: &[&str]) -> Option<Finding> {
    // The mean step of a run sees the depth, the prompt and half of the output.
    let middle = |run: &Measurement| {
        Some(axis(run, "depth")? + run.prompt_tokens as f64 + run.tokens.len() as f64 / 2.0)
    };
    let points: Vec<(f64, f64)> = runs
        .iter()
        .filter_map(|run| Some((middle(run)?, metric(run, "itl_p50")?)))
        .take(MOST_POINTS)
        .collect();
    let line = theil_sen(&points, CONFIDENCE).ok()?;
    let (b_limit, w_limit) = (limit(runs[0], "b"), limit(runs[0], "w"));
    let grown = line.slope_interval.low > 0.0;
    let w = match grown {
        true => {
            let Interval { low, high } = line.slope_interval;
            let measured = Interval { low: 1.0 / high, high: 1.0 / low };
            let limit = w_limit.map_or(String::new(), |w| {
                format!(
                    " (the bytes alone would allow {}: {:.0} % of it)",
                    si(w, "tokens/s"),
                    100.0 / line.slope / w
                )
            });
            format!("W = {}{limit}", with_interval(1.0 / line.slope, measured, "tokens/s"))
        }
        false => format!(
            "no growth shown: a token in the cache adds {}",
            with_interval(line.slope, line.slope_interval, "s")
        ),
    };
    let b = line.at(1.0);
    let of_b = b_limit.map_or(String::new(), |limit| of_limit(b, limit));
    let fixed: Vec<(&str, String)> = (varied.iter().filter(|axis| **axis != "depth"))
        .filter_map(|axis| Some((*axis, runs[0].cell.get(axis)?.to_string())))
        .collect();
    let about = fixed.iter().map(|(axis, value)| format!("{axis} {value}: ")).collect::<String>();
    let mut found = finding(
        "depth_line",
        format!("{about}the median step takes B = {}{of_b} at position 1; {w}; {} runs.", si(b, "s"), line.n),
    );
    for (axis, _) in &fixed {
        if let Some(value) = runs[0].cell.get(axis) {
            found.cell.set(*axis, value.clone());
        }
    }
    found.values.set("b", quantity(b, "s", Some(line.intercept_interval), line.n));
    found.values.set("slope", quantity(line.slope, "s/tok", Some(line.slope_interval), line.n));
    if let Some(limit) = b_limit {
        found.values.set("b_limit", quantity(limit, "s", None, 1));
    }
    if let Some(limit) = w_limit {
        found.values.set("w_limit", quantity(limit, "tok/s", None, 1));
    }
    let xs = || points.iter().map(|point| point.0);
    found.fit = Some(Fit {
        form: Form::Line,
        x: "depth".into(),
        y: "itl_p50".into(),
        y_unit: "s".into(),
        coefficients: vec![line.intercept, line.slope],
        range: [xs().fold(f64::INFINITY, f64::min), xs().fold(0.0, f64::max)],
        residual_deviation: line.residual_deviation,
        n: line.n,
    });
    Some(found)
}
