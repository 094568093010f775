//! A metric along an axis: a point per run, the median, its interval, the limit, and the fit with what it leaves over.

use super::fits::{fit_curve, fits, form_words, residuals, words};
use super::page::{Panel, Plot};
use super::run::{CellRuns, Run};
use super::shown::Shown;
use crate::experiment::Ordered;
use crate::experiment::rows::{Value, View};
use crate::plot::{Axis, Chart, GREY, Mark, Scale, Series};
use crate::statistics::{Bootstrap, bootstrap_median, median};

/// Runs that ask along the same axes.
pub(super) struct Group<'a> {
    pub runs: Vec<&'a Run<'a>>,
    pub view: View,
}

/// A series with the row of each of its points.
pub(super) struct Traced {
    pub series: Series,
    pub rows: Vec<String>,
}

/// What is drawn in one colour: the cells of a run that differ along x only.
pub(super) struct Strand<'a> {
    pub name: String,
    pub color: usize,
    pub run: &'a Run<'a>,
    /// The cells at each x: more than one where prompts differ.
    cells: Vec<(f64, Vec<&'a CellRuns<'a>>)>,
}

/// Prompts are averaged over, like repetitions.
const POOLED: &str = "item";

impl<'a> Group<'a> {
    /// Names along x where they are no numbers.
    pub fn names(&self) -> Vec<String> {
        let values: Vec<&Value> = self.cells().filter_map(|(_, cell)| cell.cell.get(&self.view.x)).collect();
        if !values.is_empty() && values.iter().all(|value| value.number().is_some()) {
            return Vec::new();
        }
        let mut names: Vec<String> = Vec::new();
        for (_, cell) in self.cells() {
            let name = self.x_name(cell);
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    fn x_name(&self, cell: &CellRuns<'_>) -> String {
        cell.cell.get(&self.view.x).map_or("all runs".to_string(), Value::to_string)
    }

    fn cells(&self) -> impl Iterator<Item = (&'a Run<'a>, &'a CellRuns<'a>)> {
        self.runs.iter().flat_map(|run| run.cells.iter().map(move |cell| (*run, cell)))
    }

    /// All strands that have `metric`.
    pub fn strands(&self, names: &[String], has: impl Fn(&CellRuns<'_>) -> bool) -> Vec<Strand<'a>> {
        let mut strands: Vec<Strand<'a>> = Vec::new();
        for (run, cell) in self.cells().filter(|(_, cell)| has(cell)) {
            let name = self.strand_name(run, cell);
            let x = match names.iter().position(|name| *name == self.x_name(cell)) {
                Some(place) => place as f64,
                None => match cell.cell.get(&self.view.x).and_then(Value::number) {
                    Some(x) => x,
                    None => continue, // every cell has a number or a name
                },
            };
            let index = match strands.iter().position(|one| one.name == name && std::ptr::eq(one.run, run)) {
                Some(index) => index,
                None => {
                    let color = strands.len() % GREY;
                    strands.push(Strand { name, color, run, cells: Vec::new() });
                    strands.len() - 1
                }
            };
            strands[index].add(x, cell);
        }
        for strand in &mut strands {
            strand.cells.sort_by(|a, b| a.0.total_cmp(&b.0));
        }
        strands
    }

    fn strand_name(&self, run: &Run<'_>, cell: &CellRuns<'_>) -> String {
        let words = run.words(cell.cell, &[&self.view.x, POOLED]);
        match (self.runs.len() > 1, words.is_empty()) {
            (false, _) => words,
            (true, true) => run.file.to_string(),
            (true, false) => format!("{}: {words}", run.file),
        }
    }

    pub fn x_axis(&self, names: &[String]) -> Axis {
        let positive =
            self.cells().filter_map(|(_, cell)| cell.cell.get(&self.view.x)?.number()).all(|x| x > 0.0);
        let scale = if self.view.log_x && positive && names.is_empty() { Scale::Log } else { Scale::Linear };
        Axis { label: axis_label(&self.view.x), scale, include: Vec::new(), names: names.to_vec() }
    }
}

/// An axis of the experiment in words.
pub(super) fn axis_label(axis: &str) -> String {
    match axis {
        "output" => "output tokens".into(),
        "prompt" => "prompt tokens".into(),
        "depth" => "tokens in the cache before".into(),
        "cap" => "cap (max_new_tokens)".into(),
        other => other.replace('_', " "),
    }
}

/// A metric in words.
pub(super) fn metric_words(metric: &str) -> String {
    match metric {
        "ttft" => "time to first token (TTFT)".into(),
        "tpot" => "time per output token (TPOT)".into(),
        "e2e" => "end-to-end time (E2E)".into(),
        "mbu" | "mfu" => metric.to_uppercase(),
        "kv_live" => "KV cache in use".into(),
        "kv_peak" => "peak of the KV cache".into(),
        other => other.replace('_', " "),
    }
}

/// The plot of a metric, or nothing where no run has it.
pub(super) fn metric_plot(group: &Group<'_>, metric: &str, id: &str, title: &str) -> Option<Plot> {
    let names = group.names();
    let strands =
        group.strands(&names, |cell| cell.runs.iter().any(|(_, run)| run.metrics.get(metric).is_some()));
    let largest = strands.iter().flat_map(|s| s.points(metric)).map(|(_, y, _)| y.abs()).fold(0.0, f64::max);
    let unit = strands.iter().find_map(|strand| strand.unit(metric))?;
    let shown = Shown::of(&unit, largest);
    let (mut traced, mut left_over, mut remarks) = (Vec::new(), Vec::new(), Vec::new());
    let mut held: Vec<String> = Vec::new();
    for strand in &strands {
        strand.draw(metric, &shown, !names.is_empty(), &mut traced);
    }
    for (row, fit, through) in fits(&strands, &group.view.x, metric) {
        let (name, color) = match through[..] {
            // A strand that is alone leaves the other colours free.
            [strand] if strand.name.is_empty() => (String::new(), (1 + 2 * remarks.len()) % GREY),
            [strand] => (strand.name.clone(), strand.color),
            _ => ("several lines together".to_string(), GREY),
        };
        let before = if name.is_empty() { String::new() } else { format!("{name}: ") };
        remarks.push(format!("{before}{}", words(fit, &shown)));
        traced.push(fit_curve(fit, &shown, row, (format!("{before}{}", form_words(fit.form)), color)));
        // Of several curves through the same points the first is held against them.
        let is_first = held.iter().all(|name| *name != before);
        if let ([strand], true) = (&through[..], is_first) {
            left_over.push(residuals(strand.points(metric).into_iter(), fit, &shown, strand.color));
            held.push(before);
        }
    }
    let positive = traced.iter().flat_map(|t| &t.series.points).all(|point| point.1 > 0.0);
    let log_y = group.view.log_y && positive;
    let y = Axis {
        label: shown.label(&metric_words(metric)),
        scale: if log_y { Scale::Log } else { Scale::Linear },
        include: if log_y { Vec::new() } else { vec![0.0] },
        names: Vec::new(),
    };
    let subtitle =
        "Points: counted runs. Line or ring: median. Area or broad stroke: 95 % bootstrap interval of the \
                    median. Broken line or L: limit."
            .to_string();
    let x = group.x_axis(&names);
    let main = panel(
        Chart {
            title: title.into(),
            subtitle,
            x: x.clone(),
            y,
            series: Vec::new(),
            notes: Vec::new(),
            remarks,
        },
        traced,
    );
    let residuals = (!left_over.is_empty()).then(|| {
        let label = if shown.unit.is_empty() {
            "runs − fit".to_string()
        } else {
            format!("runs − fit ({})", shown.unit)
        };
        let y = Axis { label, include: vec![0.0], ..Axis::default() };
        let title = format!("{title}: distance of each run from the fit");
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
    Some(beside(Plot { id: id.to_string(), main, residuals }.aligned()))
}

/// Every metric as a share of its limit, where limits are known.
pub(super) fn share_plot(group: &Group<'_>, metrics: &[String], id: &str) -> Option<Plot> {
    let names = group.names();
    let mut traced: Vec<Traced> = Vec::new();
    for metric in metrics {
        let has = |cell: &CellRuns<'_>| cell.runs.iter().any(|(_, run)| run.limits.get(metric).is_some());
        for strand in group.strands(&names, has) {
            let color = traced.len() % GREY;
            let points: Vec<(f64, f64, String)> = strand
                .cells
                .iter()
                .flat_map(|(x, cells)| cells.iter().map(|cell| (*x, *cell)))
                .filter_map(|(x, cell)| Some((x, 100.0 * share_of_limit(cell, metric)?, cell.id.clone())))
                .collect();
            let name = strand.told(&metric_words(metric));
            traced.push(trace(name, color, if names.is_empty() { Mark::Line } else { Mark::Dots }, points));
        }
    }
    if traced.iter().all(|one| one.rows.is_empty()) {
        return None;
    }
    let y = Axis { label: "share of the limit (%)".into(), include: vec![0.0, 100.0], ..Axis::default() };
    let subtitle =
        "Median over the limit for rates, limit over the median for times: 100 % is as fast as the probed \
                    machine allows."
            .into();
    let chart = Chart {
        title: "Share of the limit".into(),
        subtitle,
        x: group.x_axis(&names),
        y,
        series: Vec::new(),
        notes: Vec::new(),
        remarks: Vec::new(),
    };
    Some(beside(Plot { id: id.to_string(), main: panel(chart, traced), residuals: None }))
}

/// Median against limit, 1 being the limit.
pub(super) fn share_of_limit(cell: &CellRuns<'_>, metric: &str) -> Option<f64> {
    let measured = cell.median(metric)?;
    let limit = cell.limit(metric)?;
    let share = if cell.unit(metric)? == "s" { limit / measured } else { measured / limit };
    share.is_finite().then_some(share)
}

impl CellRuns<'_> {
    /// (value, row) of every run.
    pub fn values(&self, metric: &str) -> Vec<(f64, String)> {
        let value = |(row, run): &(String, &crate::experiment::rows::Measurement)| {
            Some((run.metrics.get(metric)?.value, row.clone()))
        };
        self.runs.iter().filter_map(value).filter(|(value, _)| value.is_finite()).collect()
    }

    pub fn median(&self, metric: &str) -> Option<f64> {
        let values: Vec<f64> = self.values(metric).into_iter().map(|(value, _)| value).collect();
        median(&values).ok()
    }

    /// Median of the limits that the runs carry.
    pub fn limit(&self, metric: &str) -> Option<f64> {
        let limits: Vec<f64> =
            self.runs.iter().filter_map(|(_, run)| run.limits.get(metric)).map(|limit| limit.value).collect();
        median(&limits).ok()
    }

    pub fn unit(&self, metric: &str) -> Option<String> {
        self.runs.iter().find_map(|(_, run)| Some(run.metrics.get(metric)?.unit.clone()))
    }
}

impl<'a> Strand<'a> {
    fn add(&mut self, x: f64, cell: &'a CellRuns<'a>) {
        match self.cells.iter_mut().find(|(have, _)| *have == x) {
            Some((_, cells)) => cells.push(cell),
            None => self.cells.push((x, vec![cell])),
        }
    }

    /// (x, value, row) of every counted run, in the unit of the rows.
    fn points(&self, metric: &str) -> Vec<(f64, f64, String)> {
        let at = |(x, cells): &(f64, Vec<&CellRuns<'_>>)| -> Vec<(f64, f64, String)> {
            let values = cells.iter().flat_map(|cell| cell.values(metric));
            values.map(|(value, row)| (*x, value, row)).collect()
        };
        self.cells.iter().flat_map(at).collect()
    }

    fn unit(&self, metric: &str) -> Option<String> {
        self.cells.iter().flat_map(|(_, cells)| cells).find_map(|cell| cell.unit(metric))
    }

    /// `what` with the strand's name before it, if it has one.
    fn told(&self, what: &str) -> String {
        if self.name.is_empty() { what.to_string() } else { format!("{}: {what}", self.name) }
    }

    /// Interval, limit, median and points, the ones below first.
    fn draw(&self, metric: &str, shown: &Shown, named: bool, traced: &mut Vec<Traced>) {
        let f = shown.factor;
        let (mut low, mut high, mut middle, mut limit) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (x, cells) in &self.cells {
            let values = cells.iter().flat_map(|cell| cell.values(metric));
            let values: Vec<f64> = values.map(|(value, _)| value * f).collect();
            let (Ok(center), Some(cell)) = (median(&values), cells.first()) else { continue };
            middle.push((*x, center, cell.id.clone()));
            if let Ok(interval) = bootstrap_median(&values, Bootstrap::default()) {
                low.push((*x, interval.low, cell.id.clone()));
                high.push((*x, interval.high, cell.id.clone()));
            }
            if let Some(bound) = cell.limit(metric).filter(|bound| bound.is_finite()) {
                limit.push((*x, bound * f, cell.id.clone()));
            }
        }
        let apart = named || low.len() < 2;
        if apart {
            let ends = low.iter().zip(&high).flat_map(|(l, h)| [l.clone(), h.clone()]).collect();
            traced.push(trace(self.told("95 % interval"), self.color, Mark::Whiskers, ends));
        } else {
            let around = low.into_iter().chain(high.into_iter().rev()).collect();
            traced.push(trace(self.told("95 % interval"), self.color, Mark::Band, around));
        }
        if !limit.is_empty() {
            let mark = if named || limit.len() < 2 { Mark::Labelled("L".into()) } else { Mark::Dashed };
            traced.push(trace(
                self.told("limit"),
                if self.name.is_empty() { GREY } else { self.color },
                mark,
                limit,
            ));
        }
        let mark = if middle.len() > 1 && !named { Mark::Line } else { Mark::Rings };
        traced.push(trace(self.told("median"), self.color, mark, middle));
        let points = self.points(metric).into_iter().map(|(x, y, row)| (x, y * f, row)).collect();
        traced.push(trace(self.told("runs"), self.color, Mark::Dots, points));
    }

    /// Whether all cells have these values, where they have the axes; `x` does not count.
    pub fn belongs_to(&self, x: &str, fixed: &Ordered<Value>) -> bool {
        fixed.iter().all(|(axis, value)| {
            let holds = |one: &&CellRuns<'_>| one.cell.get(axis).is_none_or(|have| have == value);
            axis == x || self.cells.iter().flat_map(|(_, cells)| cells).all(holds)
        })
    }
}

/// A series from (x, y, row), of what an axis can show at all.
pub(super) fn trace(name: String, color: usize, mark: Mark, points: Vec<(f64, f64, String)>) -> Traced {
    let (mut places, mut rows) = (Vec::new(), Vec::new());
    for (x, y, row) in points.into_iter().filter(|(x, y, _)| x.is_finite() && y.is_finite()) {
        places.push((x, y));
        rows.push(row);
    }
    Traced { series: Series { name, color, mark, points: places }, rows }
}

/// A chart with these series; empty ones are left away.
pub(super) fn panel(mut chart: Chart, traced: Vec<Traced>) -> Panel {
    let (mut series, mut rows) = (Vec::new(), Vec::new());
    for one in traced.into_iter().filter(|one| !one.rows.is_empty()) {
        series.push(one.series);
        rows.push(one.rows);
    }
    chart.series = series;
    Panel { chart, rows }
}

/// Letters that stand beside one another below an axis.
const ROOM_BELOW: usize = 105;

/// Names that have no room below the axis stand beside it, the first on top.
fn beside(mut plot: Plot) -> Plot {
    let names = &plot.main.chart.x.names;
    let longest = names.iter().map(|name| name.chars().count() + 2).max().unwrap_or(0);
    if longest * names.len() <= ROOM_BELOW {
        return plot;
    }
    let last = names.len() as f64 - 1.0;
    let chart = &mut plot.main.chart;
    std::mem::swap(&mut chart.x, &mut chart.y);
    chart.y.names.reverse();
    for point in chart.series.iter_mut().flat_map(|series| &mut series.points) {
        *point = (point.1, last - point.0);
    }
    plot
}
