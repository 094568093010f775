//! What an experiment says at its end, and the list of experiments.

use std::path::Path;

use roofline_lab::experiment::presets::PRESETS;
use roofline_lab::experiment::rows::{About, Finding};
use roofline_lab::experiment::{CellSummary, Outcome, Recording, Summary, findings, summarize};
use roofline_lab::units::si;
use serde_json::json;

use crate::failure::Failure;
use crate::output::{Align, Format, Section, Table, print, print_json, sections};

/// All experiments with their questions.
pub fn list(as_json: bool) -> Result<(), Failure> {
    if as_json {
        let object = |preset: &roofline_lab::experiment::Preset| {
            let spec = preset.spec(false);
            json!({
                "name": preset.name, "question": preset.question, "takes": preset.takes.0,
                "takes_quick": preset.takes.1, "spec": spec,
            })
        };
        return print_json(&json!({ "experiments": PRESETS.iter().map(object).collect::<Vec<_>>() }));
    }
    let mut items = Vec::new();
    for preset in &PRESETS {
        let spec = preset.spec(false);
        let axes: Vec<String> = spec
            .axes
            .iter()
            .filter(|(axis, values)| values.len() > 1 || preset.axes.iter().any(|(name, ..)| name == axis))
            .map(|(axis, values)| {
                let values: Vec<String> = values.iter().map(ToString::to_string).collect();
                format!("{axis} {}", values.join(","))
            })
            .collect();
        items.push((
            preset.name.to_string(),
            vec![
                preset.question.to_string(),
                format!("{}; {} runs of each", axes.join("; "), preset.repeats),
                format!(
                    "about {} on two cores with its defaults, {} with --quick",
                    preset.takes.0, preset.takes.1
                ),
            ],
        ));
    }
    print(&sections(&[Section::items("", items)], Format::Table))
}

/// Cells, findings and notes.
pub fn text(recording: &Recording) -> String {
    let cells = summarize(recording);
    let mut all = vec![Section::table(recording.header.question.clone(), table(recording, &cells))];
    let found = findings(recording);
    if !found.is_empty() {
        let items = found.iter().map(|finding| (finding.sentence.clone(), Vec::new())).collect();
        all.push(Section::items("What follows", items));
    }
    let notes = notes(recording, &cells);
    if !notes.is_empty() {
        all.push(Section::items("To be known", notes.into_iter().map(|note| (note, Vec::new())).collect()));
    }
    sections(&all, Format::Table)
}

fn table(recording: &Recording, cells: &[CellSummary]) -> Table {
    let spec = &recording.header.spec;
    let varied = spec.varied();
    let shown: Vec<&str> = recording.header.view.y.iter().map(String::as_str).collect();
    let mut columns: Vec<(String, Align)> =
        varied.iter().map(|axis| (axis.to_string(), Align::Left)).collect();
    columns.push(("n".into(), Align::Right));
    for metric in &shown {
        columns.push((metric.to_string(), Align::Right));
        columns.push(("quartiles".into(), Align::Right));
        if cells.iter().any(|cell| cell.limits.get(metric).is_some()) {
            columns.push(("of limit".into(), Align::Right));
        }
    }
    let names: Vec<(&str, Align)> = columns.iter().map(|(name, align)| (name.as_str(), *align)).collect();
    let mut table = Table::new(&names);
    for cell in cells {
        let mut row: Vec<String> = varied
            .iter()
            .map(|axis| cell.cell.get(axis).map_or(String::new(), ToString::to_string))
            .collect();
        row.push(cell.n.to_string());
        for metric in &shown {
            match cell.metrics.get(metric) {
                Some(summary) => {
                    row.push(with_unit(summary.median, summary));
                    row.push(format!(
                        "{} – {}",
                        with_unit(summary.quartiles.low, summary),
                        with_unit(summary.quartiles.high, summary)
                    ));
                }
                None => row.extend(["-".to_string(), "-".to_string()]),
            }
            if cells.iter().any(|cell| cell.limits.get(metric).is_some()) {
                let share = cell.metrics.get(metric).zip(cell.limits.get(metric));
                let share = share.map(|(summary, limit)| format!("{:.0} %", 100.0 * limit / summary.median));
                row.push(share.unwrap_or("-".to_string()));
            }
        }
        table.row(row);
    }
    table
}

fn with_unit(value: f64, summary: &Summary) -> String {
    match summary.unit.as_str() {
        "1" => format!("{:.1} %", 100.0 * value),
        "tok" => format!("{value:.0}"),
        unit => si(value, unit),
    }
}

/// Notes that a reader must have beside the figures; repeated ones once.
fn notes(recording: &Recording, cells: &[CellSummary]) -> Vec<String> {
    let said = |about: &About| !matches!(about, About::Finished);
    let mut all: Vec<String> = Vec::new();
    let background = recording.notes().filter(|note| note.about == About::Background).count();
    for note in recording.notes().filter(|note| said(&note.about) && note.about != About::Background) {
        if !all.contains(&note.text) {
            all.push(note.text.clone());
        }
    }
    if let Some(first) = recording.notes().find(|note| note.about == About::Background) {
        all.push(format!("{background} notes of other load, the first: {}", first.text));
    }
    let flagged: usize = cells.iter().map(|cell| cell.not_adding_up).sum();
    if flagged > 0 {
        all.push(format!("{flagged} runs have stages that miss their wall time by more than 2 %"));
    }
    all.extend(recording.left_out.iter().cloned());
    all
}

/// Everything for programs.
pub fn json(outcome: &Outcome, output: &Path) -> Result<(), Failure> {
    let recording = &outcome.recording;
    let found: Vec<Finding> = findings(recording);
    print_json(&json!({
        "file": output,
        "finished": recording.is_finished(),
        "measured_now": outcome.measured,
        "header": recording.header,
        "cells": summarize(recording),
        "findings": found,
        "notes": recording.notes().collect::<Vec<_>>(),
        "left_out": recording.left_out,
    }))
}
