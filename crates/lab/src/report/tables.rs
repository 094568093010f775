//! The tables of a report: summary, findings, quality, every run, surroundings.

use super::page::{Cell, Line, Table, TableRow};
use super::run::{CellRuns, Run};
use super::shown::{digits, exact, read};
use super::sweep::share_of_limit;
use crate::environment::Environment;
use crate::experiment::rows::{About, Measurement, Quantity, Value};
use crate::statistics::{Bootstrap, Sorted, bootstrap_median};
use crate::units::bytes;

/// A row per cell, a column per metric: median, interval, quartiles.
pub(super) fn summary(run: &Run<'_>, metrics: &[String]) -> Table {
    let caption = "Median [95 % bootstrap interval of the median] of the counted runs; each leads to its runs. \
                   The share is that of the limit.";
    let mut table = Table::new(caption, &[]);
    let told = run.cells.iter().any(|cell| !cell.label.is_empty());
    let axes: Vec<&String> = if told { run.varied.iter().collect() } else { Vec::new() };
    table.columns.extend(axes.iter().map(|axis| (axis.to_string(), true)));
    table.columns.push(("n".into(), true));
    for metric in metrics {
        table.columns.push((metric.clone(), true));
        if run.cells.iter().any(|cell| cell.limit(metric).is_some()) {
            table.columns.push((format!("{metric}, share"), true));
        }
    }
    for cell in &run.cells {
        let mut cells: Vec<Cell> = axes
            .iter()
            .map(|axis| Cell::text(cell.cell.get(axis).map_or(String::new(), Value::to_string)))
            .collect();
        cells.push(Cell::text(cell.runs.len().to_string()));
        for metric in metrics {
            cells.push(summary_cell(cell, metric));
            if run.cells.iter().any(|cell| cell.limit(metric).is_some()) {
                let share = share_of_limit(cell, metric);
                cells.push(Cell::text(share.map_or(String::new(), |s| format!("{} %", digits(100.0 * s)))));
            }
        }
        table.rows.push(TableRow { id: cell.id.clone(), muted: false, cells });
    }
    table
}

fn summary_cell(cell: &CellRuns<'_>, metric: &str) -> Cell {
    let values = cell.values(metric);
    let numbers: Vec<f64> = values.iter().map(|(value, _)| *value).collect();
    let (Ok(sorted), Some(unit)) = (Sorted::new(&numbers), cell.unit(metric)) else { return Cell::default() };
    let middle = sorted.median();
    // The run that is the median, or nearest to it.
    let nearest = values.iter().min_by(|a, b| (a.0 - middle).abs().total_cmp(&(b.0 - middle).abs()));
    let interval = bootstrap_median(&numbers, Bootstrap::default()).ok();
    let around =
        interval.map_or(String::new(), |i| format!(" [{}, {}]", read(i.low, &unit), read(i.high, &unit)));
    let quartiles = sorted.quartiles();
    Cell {
        text: format!("{}{around}", read(middle, &unit)),
        exact: format!(
            "median {}, quartiles {} to {}, range {} to {}, n = {}",
            exact(middle, &unit),
            quartiles.low,
            quartiles.high,
            sorted.min(),
            sorted.max(),
            sorted.n()
        ),
        row: nearest.map_or(String::new(), |(_, row)| row.clone()),
    }
}

/// The numbers of the findings, each with the way to the first of the cells that it stands on.
pub(super) fn findings(run: &Run<'_>) -> Option<Table> {
    let mut table = Table::new(
        "Numbers of the findings, with 95 % intervals.",
        &["finding", "of", "number", "#value", "#low", "#high", "#n"],
    );
    for (id, finding) in &run.findings {
        let first = run.cells_of(&finding.cell).next().map_or(String::new(), |cell| cell.id.clone());
        for (index, (name, quantity)) in finding.values.iter().enumerate() {
            let number = |value: Option<f64>| match value {
                Some(value) => Cell {
                    text: read(value, &quantity.unit),
                    exact: exact(value, &quantity.unit),
                    row: first.clone(),
                },
                None => Cell::default(),
            };
            let cells = vec![
                Cell::text(finding.name.clone()),
                Cell::text(run.words(&finding.cell, &[])),
                Cell::text(name),
                number(Some(quantity.value)),
                number(quantity.low),
                number(quantity.high),
                Cell::text(quantity.n.map_or(String::new(), |n| n.to_string())),
            ];
            let id = if index == 0 { id.clone() } else { String::new() };
            table.rows.push(TableRow { id, muted: false, cells });
        }
    }
    (!table.rows.is_empty()).then_some(table)
}

/// Perplexity and divergence.
pub(super) fn quality(run: &Run<'_>) -> Option<Table> {
    let mut names: Vec<&str> = Vec::new();
    for (_, quality) in &run.qualities {
        for name in quality.metrics.names() {
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    let mut table = Table::new("Quality, value [95 % interval].", &["configuration"]);
    table.columns.extend(names.iter().map(|name| (name.to_string(), true)));
    table.columns.push(("method".into(), false));
    for (id, quality) in &run.qualities {
        let told: Vec<String> = quality.cell.iter().map(|(axis, value)| format!("{axis} {value}")).collect();
        let words = run.words(&quality.cell, &[]);
        let mut cells = vec![Cell::text(if words.is_empty() { told.join(", ") } else { words })];
        cells.extend(
            names.iter().map(|name| quality.metrics.get(name).map_or(Cell::default(), quantity_cell)),
        );
        cells.push(Cell::text(quality.method.clone()));
        table.rows.push(TableRow { id: id.clone(), muted: false, cells });
    }
    (!table.rows.is_empty()).then_some(table)
}

fn quantity_cell(quantity: &Quantity) -> Cell {
    let unit = &quantity.unit;
    let around = match (quantity.low, quantity.high) {
        (Some(low), Some(high)) => format!(" [{}, {}]", read(low, unit), read(high, unit)),
        _ => String::new(),
    };
    let n = quantity.n.map_or(String::new(), |n| format!(", n = {n}"));
    Cell {
        text: format!("{}{around}", read(quantity.value, unit)),
        exact: format!("{}{n}", exact(quantity.value, unit)),
        row: String::new(),
    }
}

/// Every run, warm-ups too.
pub(super) fn rows(run: &Run<'_>, metrics: &[String]) -> Table {
    let counted = run.counted().count();
    let caption = format!("{} runs, {counted} of them counted, in the order of the file", run.all.len());
    let mut table = Table::new(caption, &["row", "#order", "#repeat"]);
    let axes: Vec<String> = match run.all.first() {
        Some((_, one)) => one.cell.names().map(str::to_string).collect(),
        None => Vec::new(),
    };
    table.columns.extend(axes.iter().map(|axis| (axis.clone(), true)));
    for name in ["prompt tokens", "tokens", "wall", "unaccounted"] {
        table.columns.push((name.into(), true));
    }
    table.columns.extend(metrics.iter().map(|metric| (metric.clone(), true)));
    for name in ["KV live", "KV committed", "KV peak", "peak RSS"] {
        table.columns.push((name.into(), true));
    }
    for name in ["finish", "output", "surroundings"] {
        table.columns.push((name.into(), false));
    }
    for (id, one) in &run.all {
        table.rows.push(TableRow {
            id: id.clone(),
            muted: one.warm_up,
            cells: row_cells(id, one, &axes, metrics),
        });
    }
    table
}

fn row_cells(id: &str, one: &Measurement, axes: &[String], metrics: &[String]) -> Vec<Cell> {
    let seconds = |value: f64| Cell { text: read(value, "s"), exact: exact(value, "s"), row: String::new() };
    let size = |value: u64| Cell { text: bytes(value), exact: format!("{value} B"), row: String::new() };
    let warm_up = if one.warm_up { " (warm-up)" } else { "" };
    let mut cells = vec![
        Cell::text(format!("{id}{warm_up}")),
        Cell::text(one.order.to_string()),
        Cell::text(one.repeat.to_string()),
    ];
    cells.extend(
        axes.iter().map(|axis| Cell::text(one.cell.get(axis).map_or(String::new(), Value::to_string))),
    );
    cells.push(Cell::text(one.prompt_tokens.to_string()));
    cells.push(Cell::text(one.tokens.len().to_string()));
    cells.push(seconds(one.wall_s));
    let flag = if one.adds_up { "" } else { " ⚠" };
    cells.push(Cell::text(format!("{} %{flag}", digits((1e4 * one.unaccounted).round() / 100.0))));
    for metric in metrics {
        cells.push(one.metrics.get(metric).map_or(Cell::default(), |metric| Cell {
            text: read(metric.value, &metric.unit),
            exact: exact(metric.value, &metric.unit),
            row: String::new(),
        }));
    }
    // A peer does not tell; no model weighs nothing.
    let told = one.bytes.weights > 0;
    let size_if_told = |value: u64| if told { size(value) } else { Cell::default() };
    cells.extend([one.bytes.kv_live, one.bytes.kv_committed, one.bytes.kv_peak].map(size_if_told));
    cells.push(one.bytes.peak_rss.map_or(Cell::default(), size));
    cells.push(Cell::text(one.finish.clone().unwrap_or_default()));
    cells.push(Cell::text(one.output_hash.clone().unwrap_or_default()));
    cells.push(Cell::text(surroundings(one)));
    cells
}

fn surroundings(one: &Measurement) -> String {
    let around = &one.surroundings;
    let mut words = Vec::new();
    let percent = |share: f64| format!("{} %", digits((1e3 * share).round() / 10.0));
    words.extend(around.load_average.map(|load| format!("load {}", digits(load))));
    words.extend(around.stolen.filter(|s| *s > 0.0).map(|s| format!("stolen {}", percent(s))));
    words.extend(around.others.filter(|s| *s > 0.0).map(|s| format!("others {}", percent(s))));
    words.extend(around.swapped_pages.filter(|n| *n > 0).map(|n| format!("{n} pages swapped")));
    words.extend(around.throttled.filter(|n| *n > 0).map(|n| format!("throttled {n} times")));
    words.extend(
        around.clock_step_s.filter(|s| s.abs() > 0.0).map(|s| format!("clock stepped {}", read(s, "s"))),
    );
    words.join(", ")
}

/// What each run of the program was made on.
pub(super) fn environment(runs: &[Run<'_>]) -> Table {
    let mut table = Table::new("Surroundings, read when the experiment began.", &[""]);
    table.columns.extend(runs.iter().map(|run| (run.file.to_string(), false)));
    let of_run = |run: &Run<'_>| facts(run);
    let all: Vec<Vec<(&'static str, String)>> = runs.iter().map(of_run).collect();
    let Some(first) = all.first() else { return table };
    for (index, (name, _)) in first.iter().enumerate() {
        let values: Vec<&String> = all.iter().map(|facts| &facts[index].1).collect();
        if values.iter().any(|value| !value.is_empty()) {
            let cells = values.into_iter().map(|value| Cell::text(value.clone()));
            table.row(std::iter::once(Cell::text(*name)).chain(cells));
        }
    }
    table
}

fn facts(run: &Run<'_>) -> Vec<(&'static str, String)> {
    let header = &run.recording.header;
    let Environment { cpu, memory, kernel, engine } = &header.environment;
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let figures = header.machine.as_ref().map_or(Vec::new(), |machine| {
        let told = |f: &crate::machine::Figure| {
            let unit = f.what.unit().symbol();
            let threads =
                if f.threads == 1 { "1 thread".to_string() } else { format!("{} threads", f.threads) };
            format!(
                "{} on {threads}: best {}, median {}",
                f.what.label(),
                read(f.best, unit),
                read(f.median, unit)
            )
        };
        machine.figures.iter().map(told).collect()
    });
    let noise = header.machine.as_ref().map_or(Vec::new(), |machine| {
        machine.noise.reasons.iter().map(ToString::to_string).collect::<Vec<_>>()
    });
    let mut models: Vec<String> = Vec::new();
    for (_, one) in &run.all {
        let model = &one.model;
        let made_up = model.geometry.as_ref().map_or(String::new(), |g| format!(", random weights of {g}"));
        let parameters = crate::units::si(model.parameters as f64, "parameters");
        let told = format!("{}: {parameters}, {}{made_up}, hash {}", model.name, model.formats, model.hash);
        if !models.contains(&told) {
            models.push(told);
        }
    }
    vec![
        ("experiment", header.experiment.clone()),
        ("experiment hash", header.experiment_hash.clone()),
        ("began", header.started.clone()),
        ("seed", header.seed.to_string()),
        ("models", models.join("; ")),
        ("processor", cpu_words(cpu)),
        ("memory", memory.total_bytes.map_or(String::new(), bytes)),
        ("memory available", memory.available_bytes.map_or(String::new(), bytes)),
        ("huge pages", text(&memory.huge_pages)),
        ("kernel", text(kernel)),
        ("roofline", engine_words(engine)),
        ("compiler", text(&engine.compiler)),
        ("profile", text(&engine.profile)),
        ("probed roof", figures.join("; ")),
        ("noise of the probes", noise.join("; ")),
    ]
}

fn cpu_words(cpu: &crate::environment::Cpu) -> String {
    let mut words: Vec<String> = cpu.name.iter().cloned().collect();
    words.push(cpu.architecture.clone());
    words.extend(cpu.usable_cores.map(|n| format!("{n} usable cores")));
    words.extend(cpu.cores.map(|n| format!("of {n}")));
    words.extend(cpu.hardware_threads.map(|n| format!("{n} hardware threads")));
    words.extend(cpu.max_hz.map(|hz| crate::units::si(hz, "Hz")));
    words.extend(cpu.governor.as_ref().map(|governor| format!("governor {governor}")));
    words.extend(cpu.virtual_machine.then(|| "virtual machine".to_string()));
    words.extend(cpu.caches.iter().map(|cache| {
        format!("L{} {} × {}", cache.level, crate::units::binary_bytes(cache.bytes), cache.instances)
    }));
    words.push(cpu.instruction_sets.join(" "));
    words.retain(|word| !word.is_empty());
    words.join("; ")
}

fn engine_words(engine: &crate::environment::Engine) -> String {
    let commit = engine.commit.as_ref().map_or(String::new(), |commit| format!(", commit {commit}"));
    let dirty = if engine.dirty == Some(true) { ", files changed since" } else { "" };
    format!("{}{commit}{dirty}", engine.version)
}

/// What happened on the way.
pub(super) fn notes(run: &Run<'_>) -> Vec<Line> {
    let told = |note: &&crate::experiment::rows::Note| {
        let about = match note.about {
            About::Drift => "drift",
            About::Background => "background",
            About::Clock => "clock",
            About::WarmUp => "warm-up",
            About::Interrupted => "interrupted",
            About::Resumed => "continued",
            About::Skipped => "skipped",
            About::Guard => "guard",
            About::Environment => "surroundings",
            About::Finished => "finished",
            About::Unknown => "note",
        };
        let cell = note.cell_hash.as_ref().and_then(|hash| {
            let cell =
                run.cells.iter().find(|cell| cell.runs.iter().any(|(_, one)| one.cell_hash == *hash))?;
            let label = if cell.label.is_empty() { "its runs".to_string() } else { cell.label.clone() };
            Some((label, cell.id.clone()))
        });
        Line { text: format!("{about}: {}", note.text), links: cell.into_iter().collect() }
    };
    run.notes.iter().map(told).collect()
}
