//! Quality against what it costs: which configurations no other one beats on both.

use super::page::Plot;
use super::run::{CellRuns, Run};
use super::shown::Shown;
use super::sweep::{panel, trace};
use crate::experiment::rows::Measurement;
use crate::plot::{Axis, Chart, GREY, Mark};
use crate::statistics::median;

/// What quality costs, in the unit of the rows.
type Cost = (&'static str, &'static str, &'static str, fn(&Measurement) -> Option<f64>);

/// (name in the page, title, unit, cost of a run)
const COSTS: [Cost; 2] = [
    ("bytes", "weights and peak of the KV cache", "B", |run| {
        Some((run.bytes.weights + run.bytes.kv_peak) as f64)
    }),
    ("time", "time per token (TPOT)", "s", |run| Some(run.metrics.get("tpot")?.value)),
];

const PERPLEXITY: &str = "perplexity";

struct Place {
    cost: f64,
    quality: f64,
    name: String,
    row: String,
}

/// Quality over bytes and over time, for the metric of quality that comes first.
pub(super) fn plots(run: &Run<'_>) -> Vec<Plot> {
    let mut names = run.qualities.iter().flat_map(|(_, quality)| quality.metrics.names());
    // Every program knows perplexity; without it, whatever comes first.
    let has_perplexity = run.qualities.iter().any(|(_, quality)| quality.metrics.get(PERPLEXITY).is_some());
    let metric = if has_perplexity { Some(PERPLEXITY) } else { names.next() };
    let Some(metric) = metric else { return Vec::new() };
    COSTS.iter().filter_map(|cost| plot(run, metric, cost)).collect()
}

fn plot(run: &Run<'_>, metric: &str, (name, title, unit, cost): &Cost) -> Option<Plot> {
    let mut places: Vec<Place> = Vec::new();
    for (row, quality) in &run.qualities {
        let Some(value) = quality.metrics.get(metric) else { continue };
        let belongs = |cell: &&CellRuns<'_>| {
            quality.cell.iter().all(|(axis, v)| cell.cell.get(axis).is_none_or(|have| have == v))
        };
        let costs: Vec<f64> = run
            .cells
            .iter()
            .filter(belongs)
            .flat_map(|cell| &cell.runs)
            .filter_map(|(_, one)| cost(one))
            .collect();
        let Ok(cost) = median(&costs) else { continue };
        let label = run.words(&quality.cell, &[]);
        let name = if label.is_empty() { "all runs".to_string() } else { label };
        places.push(Place { cost, quality: value.value, name, row: row.clone() });
    }
    if places.len() < 2 {
        return None;
    }
    let shown = Shown::of(unit, places.iter().map(|place| place.cost).fold(0.0, f64::max));
    let mut traced = Vec::new();
    let best = frontier(&places);
    let edge =
        best.iter().map(|place| (place.cost * shown.factor, place.quality, place.row.clone())).collect();
    if best.len() > 1 {
        traced.push(trace("not beaten on both".into(), GREY, Mark::Dashed, edge));
    }
    for (index, place) in places.iter().enumerate() {
        let mark = Mark::Labelled((index + 1).to_string());
        let point = vec![(place.cost * shown.factor, place.quality, place.row.clone())];
        traced.push(trace(place.name.clone(), index % GREY, mark, point));
    }
    let chart = Chart {
        title: format!("{} against {title}", super::capitalised(metric)),
        subtitle: format!(
            "Towards the lower left is better. Median of the counted runs; {metric} from the same program."
        ),
        x: Axis { label: shown.label(title), ..Axis::default() },
        y: Axis { label: metric.to_string(), ..Axis::default() },
        series: Vec::new(),
        notes: Vec::new(),
        remarks: Vec::new(),
    };
    Some(Plot { id: format!("{}-pareto-{name}", run.id), main: panel(chart, traced), residuals: None })
}

/// Places with no other that is at most as dear and at least as good, by cost.
fn frontier(places: &[Place]) -> Vec<&Place> {
    let beaten = |one: &Place| {
        places.iter().any(|other| {
            other.cost <= one.cost
                && other.quality <= one.quality
                && (other.cost < one.cost || other.quality < one.quality)
        })
    };
    let mut best: Vec<&Place> = places.iter().filter(|place| !beaten(place)).collect();
    best.sort_by(|a, b| a.cost.total_cmp(&b.cost));
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frontier_holds_what_nothing_beats() {
        let place = |cost, quality| Place { cost, quality, name: String::new(), row: String::new() };
        let places = [place(3.0, 1.0), place(1.0, 3.0), place(2.0, 2.0), place(2.5, 2.0), place(3.0, 1.0)];
        let best: Vec<(f64, f64)> = frontier(&places).iter().map(|p| (p.cost, p.quality)).collect();
        assert_eq!(best, [(1.0, 3.0), (2.0, 2.0), (3.0, 1.0), (3.0, 1.0)]);
    }
}
