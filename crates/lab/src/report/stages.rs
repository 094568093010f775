//! Where the time of every cell went: stages of a run, operators of its decode steps.

use super::page::StackPlot;
use super::run::Run;
use super::shown::Shown;
use crate::experiment::Ordered;
use crate::experiment::rows::Measurement;
use crate::plot::{Bar, Stack};
use crate::statistics::median;

/// Bars in one picture; the cells that took longest are drawn.
const MOST_BARS: usize = 40;

/// Stages of the runs.
pub(super) fn stages(run: &Run<'_>, id: &str) -> Option<StackPlot> {
    let subtitle = "Median over the counted runs of the time in each stage.";
    stack(run, id, "Where the time of a run went", subtitle, |one| &one.stages)
}

/// Operators of the decode steps.
pub(super) fn operators(run: &Run<'_>, id: &str) -> Option<StackPlot> {
    let subtitle = "Median over the counted runs of the time in each operator, all decode steps together.";
    stack(run, id, "Where the time of decode steps went", subtitle, |one| &one.decode_operators)
}

fn stack(
    run: &Run<'_>,
    id: &str,
    title: &str,
    subtitle: &str,
    of: fn(&Measurement) -> &Ordered<f64>,
) -> Option<StackPlot> {
    let mut parts: Vec<String> = Vec::new();
    for (_, one) in run.counted() {
        for (name, seconds) in of(one).iter() {
            if *seconds > 0.0 && !parts.iter().any(|have| have == name) {
                parts.push(name.to_string());
            }
        }
    }
    let mut bars: Vec<(String, Vec<f64>, String)> = Vec::new();
    for cell in &run.cells {
        let lengths = parts.iter().map(|part| {
            let seconds: Vec<f64> =
                cell.runs.iter().filter_map(|(_, one)| of(one).get(part)).copied().collect();
            median(&seconds).ok().filter(|seconds| *seconds >= 0.0).unwrap_or(0.0)
        });
        let name = if cell.label.is_empty() { "all runs".to_string() } else { cell.label.clone() };
        bars.push((name, lengths.collect(), cell.id.clone()));
    }
    let total = |bar: &(String, Vec<f64>, String)| bar.1.iter().sum::<f64>();
    bars.retain(|bar| total(bar) > 0.0);
    if parts.is_empty() || bars.is_empty() {
        return None;
    }
    let all = bars.len();
    let mut totals: Vec<f64> = bars.iter().map(total).collect();
    totals.sort_by(|a, b| b.total_cmp(a));
    if let Some(least) = totals.get(MOST_BARS - 1) {
        bars.retain(|bar| total(bar) >= *least);
    }
    let left_out = if bars.len() < all {
        format!(" The {} of {all} cells that took longest.", bars.len())
    } else {
        String::new()
    };
    let shown = Shown::of("s", totals[0]);
    let bar = |(name, lengths, _): &(String, Vec<f64>, String)| Bar {
        name: name.clone(),
        lengths: lengths.iter().map(|seconds| seconds * shown.factor).collect(),
    };
    let stack = Stack {
        title: title.to_string(),
        subtitle: format!("{subtitle}{left_out}"),
        label: shown.label("time"),
        parts,
        bars: bars.iter().map(bar).collect(),
    };
    Some(StackPlot { id: id.to_string(), stack, rows: bars.into_iter().map(|bar| bar.2).collect() })
}
