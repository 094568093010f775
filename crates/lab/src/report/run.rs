//! A recording arranged for reading: cells with their counted runs, names of rows, words for what varies.

use crate::experiment::rows::{About, Finding, Measurement, Note, Quality, Row, Value};
use crate::experiment::{Ordered, Recording};

/// A file of rows under a name.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// Name of the file.
    pub name: String,
    /// Its rows.
    pub recording: Recording,
}

/// A recording, arranged.
pub(super) struct Run<'a> {
    /// As `r1`, by which rows begin their names.
    pub id: String,
    /// Whether the report has no other.
    pub is_only: bool,
    /// Name of the file.
    pub file: &'a str,
    pub recording: &'a Recording,
    /// Axes with more than one value among the cells.
    pub varied: Vec<String>,
    pub cells: Vec<CellRuns<'a>>,
    /// Every run, warm-ups too, with the name of its row.
    pub all: Vec<(String, &'a Measurement)>,
    pub qualities: Vec<(String, &'a Quality)>,
    pub findings: Vec<(String, &'a Finding)>,
    pub notes: Vec<&'a Note>,
}

/// The counted runs of a cell.
pub(super) struct CellRuns<'a> {
    /// Name of its row in the summary.
    pub id: String,
    pub cell: &'a Ordered<Value>,
    /// What tells it from the others, in words.
    pub label: String,
    pub runs: Vec<(String, &'a Measurement)>,
}

impl<'a> Run<'a> {
    pub fn new(index: usize, is_only: bool, source: &'a Source) -> Run<'a> {
        let id = format!("r{}", index + 1);
        let recording = &source.recording;
        let mut run = Run {
            id: id.clone(),
            is_only,
            file: &source.name,
            recording,
            varied: Vec::new(),
            cells: Vec::new(),
            all: Vec::new(),
            qualities: Vec::new(),
            findings: Vec::new(),
            notes: Vec::new(),
        };
        for row in &recording.rows {
            match row {
                Row::Measurement(one) => run.all.push((format!("{id}-m{}", run.all.len() + 1), one)),
                Row::Quality(one) => run.qualities.push((format!("{id}-q{}", run.qualities.len() + 1), one)),
                Row::Finding(one) => run.findings.push((format!("{id}-f{}", run.findings.len() + 1), one)),
                Row::Note(note) => run.notes.push(note),
                Row::Header(_) | Row::Unknown => {}
            }
        }
        run.varied = varied(run.all.iter().filter(|(_, one)| !one.warm_up).map(|(_, one)| &one.cell));
        run.cells = run.group();
        run
    }

    fn group(&self) -> Vec<CellRuns<'a>> {
        let mut cells: Vec<CellRuns<'a>> = Vec::new();
        for (row, one) in self.all.iter().filter(|(_, one)| !one.warm_up) {
            let runs = match cells.iter_mut().find(|cell| *cell.cell == one.cell) {
                Some(cell) => &mut cell.runs,
                None => {
                    let id = format!("{}-c{}", self.id, cells.len() + 1);
                    let label = self.words(&one.cell, &[]);
                    cells.push(CellRuns { id, cell: &one.cell, label, runs: Vec::new() });
                    let last = cells.len() - 1;
                    &mut cells[last].runs
                }
            };
            runs.push((row.clone(), *one));
        }
        // In the order of the specification, not of the draw.
        let place = |cell: &CellRuns<'_>| -> Vec<usize> {
            let axes = &self.recording.header.spec.axes;
            let at = |(axis, values): (&str, &Vec<Value>)| {
                let value = cell.cell.get(axis);
                values.iter().position(|one| Some(one) == value).unwrap_or(usize::MAX)
            };
            axes.iter().map(at).collect()
        };
        cells.sort_by_key(place);
        for (index, cell) in cells.iter_mut().enumerate() {
            cell.id = format!("{}-c{}", self.id, index + 1);
        }
        cells
    }

    /// The cells that agree with everything that `about` fixes: those that a finding about it stands on.
    pub fn cells_of(&self, about: &Ordered<Value>) -> impl Iterator<Item = &CellRuns<'a>> {
        self.cells.iter().filter(|one| about.iter().all(|(axis, value)| one.cell.get(axis) == Some(value)))
    }

    /// Axes that vary with their values, but for those in `without`.
    pub fn words(&self, cell: &Ordered<Value>, without: &[&str]) -> String {
        let is_told = |axis: &str| self.varied.iter().any(|one| one == axis) && !without.contains(&axis);
        let words: Vec<String> =
            cell.iter().filter(|(axis, _)| is_told(axis)).map(|(axis, value)| phrase(axis, value)).collect();
        words.join(", ")
    }

    /// Counted runs.
    pub fn counted(&self) -> impl Iterator<Item = &(String, &'a Measurement)> {
        self.all.iter().filter(|(_, one)| !one.warm_up)
    }

    /// Counted runs that the specification asks for, skipped cells left out.
    pub fn asked(&self) -> usize {
        let spec = &self.recording.header.spec;
        let cells = spec.axes.iter().map(|(_, values)| values.len()).product::<usize>();
        let skipped = self.notes.iter().filter(|note| note.about == About::Skipped).count();
        cells.saturating_sub(skipped).saturating_mul(spec.repeats)
    }

    pub fn is_finished(&self) -> bool {
        self.notes.iter().any(|note| note.about == About::Finished)
    }

    /// Names of metrics in order of first appearance.
    pub fn metrics(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for (_, one) in self.counted() {
            for name in one.metrics.names() {
                if !names.iter().any(|have| have == name) {
                    names.push(name.to_string());
                }
            }
        }
        names
    }
}

/// Names mean themselves; numbers and switches are told with their axis.
fn phrase(axis: &str, value: &Value) -> String {
    match value {
        Value::Text(text) => text.clone(),
        Value::Flag(_) | Value::Whole(_) | Value::Real(_) => format!("{axis} {value}"),
    }
}

fn varied<'a>(cells: impl Iterator<Item = &'a Ordered<Value>>) -> Vec<String> {
    let mut first: Vec<(&str, &Value)> = Vec::new();
    let mut varied: Vec<String> = Vec::new();
    for cell in cells {
        for (axis, value) in cell.iter() {
            match first.iter().find(|(name, _)| *name == axis) {
                None => first.push((axis, value)),
                Some((_, other)) if *other != value && !varied.iter().any(|name| name == axis) => {
                    varied.push(axis.to_string());
                }
                Some(_) => {}
            }
        }
    }
    // In the order of the axes, not of the discovery.
    first.iter().map(|(axis, _)| axis.to_string()).filter(|axis| varied.contains(axis)).collect()
}
