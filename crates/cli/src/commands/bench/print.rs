//! The result for people: what varies as columns, what does not as one line above.

use roofline_lab::bench::{Report, Row};
use roofline_lab::environment::VERSION;
use roofline_lab::units::{bytes, si, three_digits};

use crate::output::{Align, Table};

type Setting = (&'static str, Align, fn(&Row) -> String);

const SETTINGS: [Setting; 9] = [
    ("model", Align::Left, |row| row.model.clone()),
    ("format", Align::Left, |row| row.formats.clone()),
    ("weights", Align::Right, |row| bytes(row.weight_bytes)),
    ("threads", Align::Right, |row| row.threads.to_string()),
    ("isa", Align::Left, |row| row.isa.to_string()),
    ("KV", Align::Left, |row| row.kv_type.to_string()),
    ("cache", Align::Left, |row| row.cache.clone()),
    ("chunk", Align::Right, |row| row.chunk.to_string()),
    ("runs", Align::Right, |row| row.n.to_string()),
];

/// Table, roofs and warnings; for a terminal, or for a document.
pub fn text(report: &Report, markdown: bool) -> String {
    let varies = |(_, _, value): &Setting| report.rows.iter().any(|row| value(row) != value(&report.rows[0]));
    let (columns, same): (Vec<&Setting>, Vec<&Setting>) =
        SETTINGS.iter().partition(|setting| varies(setting));
    let mut text = String::new();
    if let Some(row) = report.rows.first() {
        let facts: Vec<String> =
            same.iter().map(|(name, _, value)| format!("{name} {}", value(row))).collect();
        text.push_str(&format!("{}\n\n", facts.join(", ")));
    }
    let table = table(report, &columns);
    text.push_str(&if markdown { table.to_markdown() } else { table.to_text() });
    text.push('\n');
    for line in notes(report) {
        text.push_str(&if markdown { format!("- {line}\n") } else { format!("{line}\n") });
    }
    text
}

fn table(report: &Report, settings: &[&Setting]) -> Table {
    let mut heads: Vec<(&str, Align)> = settings.iter().map(|(name, align, _)| (*name, *align)).collect();
    heads.push(("test", Align::Left));
    let measured = ["depth", "tok/s", "quartiles", "min to max", "GB/s", "GFLOP/s", "MBU", "MFU", "KV bytes"];
    heads.extend(measured.map(|name| (name, Align::Right)));
    heads.push(("peak RSS", Align::Right));
    let flags = report.rows.iter().any(|row| !row.above_limit.is_empty());
    if flags {
        heads.push(("above its limit", Align::Left));
    }
    let mut table = Table::new(&heads);
    for row in &report.rows {
        let mut cells: Vec<String> = settings.iter().map(|(_, _, value)| value(row)).collect();
        cells.extend(cells_of(row));
        if flags {
            cells.push(row.above_limit.join(" "));
        }
        table.row(cells);
    }
    table
}

fn cells_of(row: &Row) -> [String; 11] {
    let rate = &row.tokens_per_s;
    let to = |low: f64, high: f64| format!("{} to {}", number(low), number(high));
    let level = if row.roof.level == "memory" { String::new() } else { format!(" of {}", row.roof.level) };
    [
        row.test.clone(),
        row.depth.to_string(),
        number(rate.median),
        to(rate.quartile_low, rate.quartile_high),
        to(rate.min, rate.max),
        number(row.bytes_per_s / 1e9),
        number(row.flops_per_s / 1e9),
        format!("{}{level}", percent(row.mbu)),
        percent(row.mfu),
        bytes(row.kv_bytes),
        row.peak_rss_bytes.map_or("-".to_string(), bytes),
    ]
}

/// Three significant digits; whole from a thousand on.
fn number(value: f64) -> String {
    if value < 999.5 { three_digits(value) } else { format!("{value:.0}") }
}

fn percent(share: f64) -> String {
    format!("{} %", three_digits(100.0 * share))
}

fn notes(report: &Report) -> Vec<String> {
    let mut lines = roofs(report);
    for row in report.rows.iter().filter(|row| !row.above_limit.is_empty()) {
        lines.push(format!(
            "ABOVE ITS LIMIT: {} {} at depth {} on {} thread(s) has {} above 100 %: a defect of the meter, the clock or \
             the probe; please report it",
            row.model,
            row.test,
            row.depth,
            row.threads,
            row.above_limit.join(" and ")
        ));
    }
    for probe in report.probes.iter().filter(|probe| probe.noise.is_noisy()) {
        let reasons: Vec<String> = probe.noise.reasons.iter().map(ToString::to_string).take(3).collect();
        lines.push(format!("Noisy: {}", reasons.join("; ")));
    }
    if report.rows.len() > 1 {
        lines.push(
            "Peak RSS is the process's: all models of this run, and the caches of the rows above."
                .to_string(),
        );
    }
    let cpu = report.environment.cpu.name.as_deref().unwrap_or("unknown processor");
    lines.push(format!(
        "{}, {cpu}, roofline {VERSION}, {} s; rows ran in turn, ids from seed {}.",
        report.measured_at,
        number(report.seconds),
        report.seed
    ));
    lines
}

/// Each roof that a row was held against, once.
fn roofs(report: &Report) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for row in &report.rows {
        let roof = &row.roof;
        let holds = if roof.level == "memory" { "" } else { ", which holds weights and cache" };
        let line = format!(
            "Roof on {} thread(s): reading {}{holds} {} at best, {} usually; {} {}; {} probes.",
            row.threads,
            roof.level,
            si(roof.bandwidth, "B/s"),
            si(roof.usual_bandwidth, "B/s"),
            si(roof.peak, "FLOP/s"),
            roof.peak_type,
            report.probe_count
        );
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines
}
