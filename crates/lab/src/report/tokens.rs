//! What every single token took: over its place in the text, and as a distribution.

use super::fits::{curve_places, residuals, words};
use super::page::Plot;
use super::run::{CellRuns, Run};
use super::shown::Shown;
use super::sweep::{Group, panel, trace};
use crate::experiment::rows::{Measurement, Value};
use crate::plot::{Axis, Chart, GREY, Mark, Scale};
use crate::statistics::{Sorted, median};

/// Lines in one plot; more cannot be told apart.
const MOST_CELLS: usize = 5;
/// Places along a line; a longer text is summed up over neighbours.
const MOST_PLACES: usize = 400;
/// Steps of a distribution.
const QUANTILES: usize = 200;

/// Time between tokens: ITLᵢ = Tᵢ − Tᵢ₋₁ for i from 2.
fn gaps(run: &Measurement) -> impl Iterator<Item = f64> {
    run.tokens.windows(2).map(|pair| pair[1] - pair[0])
}

/// The cells with the most tokens, at most [`MOST_CELLS`], in their order; and how many there were.
fn longest<'a>(run: &'a Run<'a>) -> (Vec<&'a CellRuns<'a>>, usize) {
    let tokens = |cell: &&CellRuns<'_>| cell.runs.iter().map(|(_, run)| run.tokens.len()).max().unwrap_or(0);
    let with_gaps: Vec<&CellRuns<'_>> = run.cells.iter().filter(|cell| tokens(cell) >= 3).collect();
    let mut by_length: Vec<usize> = (0..with_gaps.len()).collect();
    by_length.sort_by_key(|&i| (std::cmp::Reverse(tokens(&with_gaps[i])), i));
    by_length.truncate(MOST_CELLS);
    by_length.sort_unstable();
    (by_length.iter().map(|&i| with_gaps[i]).collect(), with_gaps.len())
}

fn of_all(shown: usize, all: usize) -> String {
    if shown < all { format!(" The {shown} of {all} cells with the most tokens.") } else { String::new() }
}

/// Time of every token over its place.
pub(super) fn trace_plot(group: &Group<'_>, id: &str) -> Option<Plot> {
    let run = *group.runs.first()?;
    let (cells, all) = longest(run);
    let largest = cells.iter().flat_map(|c| &c.runs).flat_map(|(_, run)| gaps(run)).fold(0.0, f64::max);
    let shown = Shown::of("s", largest);
    let (mut traced, mut left_over, mut remarks) = (Vec::new(), Vec::new(), Vec::new());
    let mut stride = 1;
    for (color, cell) in cells.iter().enumerate() {
        let longest = cell.runs.iter().map(|(_, run)| run.tokens.len()).max().unwrap_or(0);
        stride = stride.max(longest.div_ceil(MOST_PLACES));
        let points = along(cell, longest.div_ceil(MOST_PLACES), shown.factor);
        traced.push(trace(cell.label.clone(), color, Mark::Line, points));
    }
    for (row, finding) in &run.findings {
        let Some(fit) = finding.fit.as_ref().filter(|fit| fit.x == "position") else { continue };
        let belongs = |cell: &&&CellRuns<'_>| {
            finding.cell.iter().all(|(axis, value)| cell.cell.get(axis).is_none_or(|have| have == value))
        };
        let tokens = |cell: &&&CellRuns<'_>| cell.runs.iter().map(|(_, run)| run.tokens.len()).max();
        let Some(cell) = cells.iter().filter(belongs).max_by_key(tokens) else { continue };
        remarks.push(words(fit, &shown));
        let points =
            curve_places(fit).into_iter().map(|x| (x, fit.at(x) * shown.factor, row.clone())).collect();
        traced.push(trace("fit".into(), GREY, Mark::Dashed, points));
        let medians = along(cell, 1, 1.0).into_iter();
        left_over.push(residuals(medians, fit, &shown, 0));
    }
    if traced.iter().all(|one| one.rows.is_empty()) {
        return None;
    }
    let over =
        if stride > 1 { format!(" Long texts: median of up to {stride} neighbours.") } else { String::new() };
    let x = Axis { label: "position of the token that a step takes in".into(), ..Axis::default() };
    let chart = Chart {
        title: "Time between tokens, step by step".into(),
        subtitle: format!(
            "ITLᵢ = Tᵢ − Tᵢ₋₁; median of the counted runs at each place.{over}{}",
            of_all(cells.len(), all)
        ),
        x: x.clone(),
        y: Axis { label: shown.label("ITL"), include: vec![0.0], ..Axis::default() },
        series: Vec::new(),
        notes: Vec::new(),
        remarks,
    };
    let rest = (!left_over.is_empty()).then(|| {
        let y =
            Axis {
                label: format!("medians − fit ({})", shown.unit), include: vec![0.0], ..Axis::default()
            };
        let title = "Distance of each place from the fit".to_string();
        panel(
            Chart {
                title,
                subtitle: String::new(),
                x,
                y,
                series: Vec::new(),
                notes: Vec::new(),
                remarks: Vec::new(),
            },
            left_over,
        )
    });
    Some(Plot { id: id.to_string(), main: panel(chart, traced), residuals: rest }.aligned())
}

/// Tokens before the one that the first decode step takes in.
fn before(run: &Measurement) -> f64 {
    let depth = run.cell.get("depth").and_then(Value::number).unwrap_or(0.0);
    depth + run.prompt_tokens as f64
}

/// (position, median over the runs and over `stride` neighbours, cell).
fn along(cell: &CellRuns<'_>, stride: usize, factor: f64) -> Vec<(f64, f64, String)> {
    let mut places: Vec<Vec<f64>> = Vec::new();
    for (_, run) in &cell.runs {
        for (step, gap) in gaps(run).enumerate() {
            let place = step / stride.max(1);
            if places.len() <= place {
                places.push(Vec::new());
            }
            places[place].push(gap * factor);
        }
    }
    let stride = stride.max(1) as f64;
    let start = cell.runs.first().map_or(0.0, |(_, run)| before(run));
    let point = |(place, gaps): (usize, &Vec<f64>)| {
        // The first decode step takes in token 1; a group stands at its middle.
        let x = start + 1.0 + place as f64 * stride + (stride - 1.0) / 2.0;
        Some((x, median(gaps).ok()?, cell.id.clone()))
    };
    places.iter().enumerate().filter_map(point).collect()
}

/// How the times between tokens are distributed.
pub(super) fn distribution_plot(group: &Group<'_>, id: &str) -> Option<Plot> {
    let run = *group.runs.first()?;
    let (cells, all) = longest(run);
    let largest = cells.iter().flat_map(|c| &c.runs).flat_map(|(_, run)| gaps(run)).fold(0.0, f64::max);
    let shown = Shown::of("s", largest);
    let mut traced = Vec::new();
    for (color, cell) in cells.iter().enumerate() {
        let gaps: Vec<f64> =
            cell.runs.iter().flat_map(|(_, run)| gaps(run)).map(|gap| gap * shown.factor).collect();
        let Ok(sorted) = Sorted::new(&gaps) else { continue };
        let steps = QUANTILES.min(sorted.n().saturating_sub(1)).max(1);
        let points = (0..=steps).map(|i| {
            let share = i as f64 / steps as f64;
            (sorted.quantile(share), 100.0 * share, cell.id.clone())
        });
        let name = [cell.label.clone(), format!("n = {}", sorted.n())];
        let name: Vec<String> = name.into_iter().filter(|part| !part.is_empty()).collect();
        traced.push(trace(name.join(", "), color, Mark::Line, points.collect()));
    }
    if traced.is_empty() {
        return None;
    }
    let positive = traced.iter().flat_map(|one| &one.series.points).all(|point| point.0 > 0.0);
    let chart = Chart {
        title: "Distribution of the time between tokens".into(),
        subtitle: format!(
            "Share of all tokens of the counted runs that took at most x, drawn at up to {QUANTILES} quantiles.{}",
            of_all(cells.len(), all)
        ),
        x: Axis {
            label: shown.label("ITL"),
            scale: if positive { Scale::Log } else { Scale::Linear },
            ..Axis::default()
        },
        y: Axis { label: "tokens (%)".into(), include: vec![0.0, 100.0], ..Axis::default() },
        series: Vec::new(),
        notes: Vec::new(),
        remarks: Vec::new(),
    };
    Some(Plot { id: id.to_string(), main: panel(chart, traced), residuals: None })
}
