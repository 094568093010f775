//! Reports as tables: precisions side by side, operators below, formulas on request.

use roofline_lab::units::{bytes, si, three_digits};
use roofline_limits::Report;
use roofline_limits::explain::{Effect, Explain, Explanation, SwitchEffect};
use roofline_limits::report::OperatorLimit;

use super::Answer;
use super::facts::{Value, bound_text, facts};
use crate::output::{Align, Section, Table, csv_line};

/// Every section of some answers about one model on one device.
pub fn all(answers: &[Answer]) -> Vec<Section> {
    let mut sections = vec![side_by_side(answers)];
    for answer in answers {
        sections.extend(operators(&answer.report));
        sections.extend(answer.beyond.iter().map(|extra| extra.section(&answer.report.precision.label)));
        sections.extend(answer.explain.iter().flat_map(|explain| explained(&answer.report, explain)));
    }
    sections.extend(notes(answers));
    sections
}

/// One column per precision. Reports of the same workload list the same figures in the same order.
fn side_by_side(answers: &[Answer]) -> Section {
    let columns: Vec<_> = answers.iter().map(|answer| facts(&answer.report)).collect();
    let mut heads = vec![("", Align::Left), ("", Align::Left)];
    heads.extend(answers.iter().map(|answer| (answer.report.precision.label.as_str(), Align::Right)));
    let mut table = Table::new(&heads);
    let mut group = "";
    for (i, first) in columns.first().map(Vec::as_slice).unwrap_or_default().iter().enumerate() {
        let heading = if first.group == group { "" } else { first.group };
        group = first.group;
        let mut row = vec![heading.to_string(), first.name.clone()];
        row.extend(columns.iter().map(|facts| facts.get(i).map_or(String::new(), |fact| fact.value.text())));
        table.row(row);
    }
    Section::table(answers.first().map_or(String::new(), heading), table)
}

fn heading(answer: &Answer) -> String {
    let (device, workload) = (&answer.report.device, &answer.report.workload);
    let batch = if workload.batch == 1 { String::new() } else { format!(", {} sequences", workload.batch) };
    format!(
        "{} on {} ({}, {}; attention {}){batch}, {} profile",
        answer.model,
        device.name,
        si(device.bandwidth, "B/s"),
        format_args!("{} {}", si(device.peak, "FLOP/s"), device.peak_type.words()),
        device.attention_peak_type.words(),
        answer.profile
    )
}

fn operators(report: &Report) -> [Section; 2] {
    let label = &report.precision.label;
    let last = report.decode.positions.last().map_or(0, |at| at.position);
    [
        Section::table(
            format!("Operators, {label}, prefill of {} tokens", report.prefill.prompt),
            operator_table(&report.prefill_operators),
        ),
        Section::table(
            format!("Operators, {label}, decode at position {last}"),
            operator_table(&report.decode_operators),
        ),
    ]
}

fn operator_table(operators: &[OperatorLimit]) -> Table {
    let mut table = Table::new(&[
        ("operator", Align::Left),
        ("bytes", Align::Right),
        ("FLOPs", Align::Right),
        ("FLOP/B", Align::Right),
        ("reading", Align::Right),
        ("computing", Align::Right),
        ("limit", Align::Right),
        ("share", Align::Right),
        ("bound by", Align::Left),
    ]);
    let total: f64 = operators.iter().map(|o| o.limit_ms).sum();
    for o in operators.iter().filter(|o| o.bytes > 0.0 || o.flops > 0.0) {
        table.row([
            o.operator.name().to_string(),
            bytes(o.bytes.round() as u64),
            si(o.flops, ""),
            if o.flops > 0.0 { si(o.intensity, "") } else { "-".to_string() },
            si(o.read_ms / 1e3, "s"),
            si(o.compute_ms / 1e3, "s"),
            si(o.limit_ms / 1e3, "s"),
            format!("{:.1} %", 100.0 * o.limit_ms / total),
            bound_text(o.bound).to_string(),
        ]);
    }
    table
}

fn explained(report: &Report, explain: &Explain) -> [Section; 2] {
    let label = &report.precision.label;
    let formula = |line: &Explanation| {
        let steps = vec![
            format!("= {}", line.formula),
            format!("= {}", line.with_numbers),
            format!("= {} {}", plain(line.result), line.unit),
        ];
        (line.quantity.to_string(), steps)
    };
    let switch = |switch: &SwitchEffect| {
        let state = if switch.on { "on" } else { "off" };
        let effects = if switch.effects.is_empty() {
            vec!["turned the other way it changes nothing here".to_string()]
        } else {
            switch.effects.iter().map(effect_text).collect()
        };
        (format!("{} ({state}): {}", switch.switch.name(), switch.meaning), effects)
    };
    [
        Section::items(format!("Formulas, {label}"), explain.formulas.iter().map(formula).collect()),
        Section::items(
            format!("Departures from the paper, {label}, and what each turned the other way would change"),
            explain.switches.iter().map(switch).collect(),
        ),
    ]
}

fn effect_text(effect: &Effect) -> String {
    let text = |value: Option<f64>| value.map_or("none".to_string(), plain);
    format!(
        "{}: {} instead of {} {}",
        effect.quantity,
        text(effect.other_way),
        text(effect.as_reported),
        effect.unit
    )
}

/// Six digits, or all of a whole number.
fn plain(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        return format!("{value:.0}");
    }
    if value.abs() >= 1000.0 { format!("{value:.2}") } else { format!("{value:.4}") }
}

fn notes(answers: &[Answer]) -> Option<Section> {
    let mut all: Vec<String> = Vec::new();
    for note in answers.iter().flat_map(|answer| &answer.report.notes) {
        if !all.contains(note) {
            all.push(note.clone());
        }
    }
    if all.is_empty() {
        return None;
    }
    Some(Section::items("Notes", all.into_iter().map(|note| (note, Vec::new())).collect()))
}

/// One figure per line.
pub fn csv(answers: &[Answer]) -> String {
    let mut text = csv_line(&["model", "device", "precision", "group", "figure", "value", "unit"]);
    for answer in answers {
        let report = &answer.report;
        let mut line = |group: &str, name: &str, value: &str, unit: &str| {
            let (device, label) = (&report.device.name, &report.precision.label);
            text.push_str(&csv_line(&[&answer.model, device, label, group, name, value, unit]));
        };
        for fact in facts(report) {
            let (value, unit) = fact.value.raw();
            line(fact.group, &fact.name, &value, unit);
        }
        let phases = [
            ("prefill operators", &report.prefill_operators),
            ("decode operators", &report.decode_operators),
        ];
        for (group, operators) in phases {
            for o in operators.iter() {
                for (what, value, unit) in
                    [("bytes", o.bytes, "B"), ("flops", o.flops, "FLOP"), ("limit", o.limit_ms, "ms")]
                {
                    line(group, &format!("{} {what}", o.operator.name()), &value.to_string(), unit);
                }
            }
        }
        for (group, name, value) in answer.beyond.iter().flat_map(super::beyond::Beyond::figures) {
            let (value, unit): (String, &str) = Value::raw(&value);
            line(group, &name, &value, unit);
        }
    }
    text
}

/// Two digits after the point and a times sign.
pub fn factor(value: f64) -> String {
    format!("{}×", three_digits(value))
}
