//! Comma-separated values: what a plot draws, point by point, and every run of a report.

use std::fmt::Write;

use super::page::{Panel, Plot, StackPlot};
use super::run::Run;
use crate::plot::{Axis, mark_name};

/// One line (RFC 4180). A text that a spreadsheet would take for a formula gets an apostrophe before it.
pub(super) fn line(cells: &[String]) -> String {
    let quoted = |cell: &String| {
        let is_formula = cell.starts_with(['=', '+', '-', '@', '\t', '\r']) && cell.parse::<f64>().is_err();
        let cell = if is_formula { format!("'{cell}") } else { cell.clone() };
        match cell.contains([',', '"', '\n', '\r']) {
            true => format!("\"{}\"", cell.replace('"', "\"\"")),
            false => cell,
        }
    };
    let cells: Vec<String> = cells.iter().map(quoted).collect();
    format!("{}\n", cells.join(","))
}

/// Every point of every series, in the order in which they are drawn: panel, number and name of the series, its mark,
/// x, y and the row it comes from.
pub(super) fn plot_csv(plot: &Plot) -> String {
    let chart = &plot.main.chart;
    let head = ["panel", "number", "series", "mark", &chart.x.label, &chart.y.label, "row"];
    let mut text = line(&head.map(str::to_string));
    panel_csv(&mut text, "main", &plot.main);
    if let Some(panel) = &plot.residuals {
        panel_csv(&mut text, "residuals", panel);
    }
    text
}

fn panel_csv(text: &mut String, name: &str, panel: &Panel) {
    let value = |axis: &Axis, x: f64| axis.names.get(x as usize).cloned().unwrap_or_else(|| x.to_string());
    for (number, (series, rows)) in panel.chart.series.iter().zip(&panel.rows).enumerate() {
        for ((x, y), row) in series.points.iter().zip(rows) {
            text.push_str(&line(&[
                name.to_string(),
                number.to_string(),
                series.name.clone(),
                mark_name(&series.mark).to_string(),
                value(&panel.chart.x, *x),
                value(&panel.chart.y, *y),
                row.clone(),
            ]));
        }
    }
}

/// Every part of every bar.
pub(super) fn stack_csv(plot: &StackPlot) -> String {
    let stack = &plot.stack;
    let head = ["bar", "part", &stack.label, "share (%)", "row"];
    let mut text = line(&head.map(str::to_string));
    let shares = stack.shares();
    for ((bar, share), row) in stack.bars.iter().zip(&shares.bars).zip(&plot.rows) {
        for (part, name) in stack.parts.iter().enumerate() {
            let of = |lengths: &[f64]| lengths.get(part).map_or(String::new(), f64::to_string);
            text.push_str(&line(&[
                bar.name.clone(),
                name.clone(),
                of(&bar.lengths),
                of(&share.lengths),
                row.clone(),
            ]));
        }
    }
    text
}

/// A line per run with everything that is one number or one word; times of single tokens stay in the rows.
pub(super) fn runs_csv(runs: &[Run<'_>]) -> String {
    let columns = Columns::of(runs);
    let mut head: Vec<String> =
        ["file", "experiment", "row", "warm_up", "order", "repeat"].map(String::from).to_vec();
    head.extend(columns.axes.iter().cloned());
    head.extend(
        ["model", "formats", "prompt_tokens", "tokens", "wall_s", "unaccounted", "adds_up"].map(String::from),
    );
    head.extend(columns.metrics.iter().map(|(name, unit)| format!("{name} [{unit}]")));
    head.extend(columns.limits.iter().map(|(name, unit)| format!("limit of {name} [{unit}]")));
    head.extend(columns.stages.iter().map(|name| format!("stage {name} [s]")));
    head.extend(
        ["weights_bytes", "kv_live_bytes", "kv_committed_bytes", "kv_peak_bytes", "peak_rss_bytes"]
            .map(String::from),
    );
    head.extend(["finish", "output_hash", "started"].map(String::from));
    let mut text = line(&head);
    for run in runs {
        for (id, one) in &run.all {
            text.push_str(&line(&columns.cells(run, id, one)));
        }
    }
    text
}

#[derive(Default)]
struct Columns {
    axes: Vec<String>,
    metrics: Vec<(String, String)>,
    limits: Vec<(String, String)>,
    stages: Vec<String>,
}

impl Columns {
    fn of(runs: &[Run<'_>]) -> Columns {
        let mut columns = Columns::default();
        for (_, one) in runs.iter().flat_map(|run| &run.all) {
            one.cell.names().for_each(|name| add(&mut columns.axes, name.to_string()));
            one.metrics
                .iter()
                .for_each(|(name, m)| add(&mut columns.metrics, (name.to_string(), m.unit.clone())));
            one.limits
                .iter()
                .for_each(|(name, m)| add(&mut columns.limits, (name.to_string(), m.unit.clone())));
            one.stages.names().for_each(|name| add(&mut columns.stages, name.to_string()));
        }
        columns
    }

    fn cells(&self, run: &Run<'_>, id: &str, one: &crate::experiment::rows::Measurement) -> Vec<String> {
        let mut cells = vec![
            run.file.to_string(),
            run.recording.header.experiment.clone(),
            id.to_string(),
            one.warm_up.to_string(),
            one.order.to_string(),
            one.repeat.to_string(),
        ];
        cells.extend(
            self.axes.iter().map(|axis| one.cell.get(axis).map_or(String::new(), ToString::to_string)),
        );
        cells.extend([one.model.name.clone(), one.model.formats.clone()]);
        cells.extend([one.prompt_tokens.to_string(), one.tokens.len().to_string(), one.wall_s.to_string()]);
        cells.extend([one.unaccounted.to_string(), one.adds_up.to_string()]);
        let metric = |of: &crate::experiment::Ordered<crate::experiment::rows::Metric>,
                      (name, unit): &(String, String)| {
            of.get(name)
                .filter(|metric| metric.unit == *unit)
                .map_or(String::new(), |metric| metric.value.to_string())
        };
        cells.extend(self.metrics.iter().map(|column| metric(&one.metrics, column)));
        cells.extend(self.limits.iter().map(|column| metric(&one.limits, column)));
        cells.extend(
            self.stages.iter().map(|name| one.stages.get(name).map_or(String::new(), f64::to_string)),
        );
        let bytes = &one.bytes;
        cells
            .extend([bytes.weights, bytes.kv_live, bytes.kv_committed, bytes.kv_peak].map(|n| n.to_string()));
        cells.push(bytes.peak_rss.map_or(String::new(), |n| n.to_string()));
        cells.push(one.finish.clone().unwrap_or_default());
        cells.push(one.output_hash.clone().unwrap_or_default());
        cells.push(one.started.clone());
        cells
    }
}

fn add<T: PartialEq>(list: &mut Vec<T>, item: T) {
    if !list.contains(&item) {
        list.push(item);
    }
}

/// A table as Markdown, for `markdown.rs` too: cells without what would end them.
pub(super) fn markdown_row(cells: impl Iterator<Item = String>) -> String {
    let mut text = String::from("|");
    for cell in cells {
        // Writing to a String cannot fail.
        let _ = write!(text, " {} |", cell);
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_cannot_break_out() {
        let cells = ["a,b", "say \"x\"", "two\nlines", "=1+1", "-3.5", "-x"].map(String::from);
        assert_eq!(line(&cells), "\"a,b\",\"say \"\"x\"\"\",\"two\nlines\",'=1+1,-3.5,'-x\n");
    }
}
