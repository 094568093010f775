//! `roofline machine`: measures this machine's own roof.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use roofline_lab::environment::{Environment, VERSION};
use roofline_lab::machine::{self, Figure, Options, Step};
use roofline_lab::units::{binary_bytes, bytes, grouped, si};
use serde_json::json;

use crate::arguments::{Print, Threads};
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::output::{Align, Format, Section, Table, csv_line, print, print_json, sections};

/// Measure what memory and arithmetic of this machine reach, and keep it as the device `this`
///
/// Reads memory by thread count, writes it, reads each cache, and multiplies f32, bf16, int16 and int8 with the widest
/// instructions there are. Every figure is sampled in several rounds; the best sample is the roof, the median is what
/// is usually had, and the verdict says whether others were using the machine meanwhile.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  roofline machine\n  roofline machine --threads 4 --json\n  \
    roofline machine --output laptop.toml\n  roofline machine --quick")]
pub struct Machine {
    #[command(flatten)]
    threads: Threads,
    /// Only memory reads and arithmetic at full thread count, in under a second; not kept
    #[arg(long, conflicts_with = "output")]
    quick: bool,
    /// Where to keep it [default: machine.toml in the user's configuration folder]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    print: Print,
}

impl Machine {
    pub fn run(&self) -> Result<(), Failure> {
        let threads = self.threads.count()?;
        let (measured, kept) = if self.quick {
            (machine::measure_quickly(threads)?, None)
        } else {
            let path = self.output.clone().map_or_else(machine::default_path, Ok)?;
            let measured = measure(threads)?;
            machine::save(&measured, &path)?;
            (measured, Some(path))
        };
        match self.print.format() {
            Format::Json => print_json(&json!({ "machine": measured, "kept_at": kept })),
            Format::Csv => print(&csv(&measured.figures)),
            format => print(&describe(&measured, threads, kept.as_deref(), format)),
        }
    }
}

fn measure(threads: usize) -> Result<machine::Machine, Failure> {
    let interrupt = Interrupt::install()?;
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {msg}") {
        bar.set_style(style);
    }
    let measured = machine::measure(Options::thorough(threads), |step: Step| {
        bar.set_length(step.steps as u64);
        bar.set_position(step.index as u64);
        bar.set_message(format!("{}, {}", step.what.label(), threads_text(step.threads)));
        if interrupt.asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    bar.finish_and_clear();
    Ok(measured?)
}

fn describe(machine: &machine::Machine, threads: usize, kept: Option<&Path>, format: Format) -> String {
    let tables = [facts(&machine.environment, threads), figures(&machine.figures)];
    let tables = tables.map(|table| Section::table("", table));
    let mut text = sections(&tables, format);
    text.push('\n');
    if machine.noise.is_noisy() {
        text.push_str("Noisy: take these figures with care, or measure again when the machine is quiet.\n");
        for reason in &machine.noise.reasons {
            text.push_str(&format!("  - {reason}\n"));
        }
    } else {
        text.push_str("Quiet: nothing disturbed the measurement.\n");
    }
    text.push_str(&format!("Measured in {:.1} s.", machine.seconds));
    if let Some(path) = kept {
        text.push_str(&format!(" Kept as device `this` in {}.", path.display()));
    }
    text.push('\n');
    text
}

/// Rates per second, as measured.
fn csv(figures: &[Figure]) -> String {
    let head =
        ["measured", "threads", "unit", "best", "median", "quartile_low", "quartile_high", "n", "loop"];
    let mut text = csv_line(&head);
    for figure in figures {
        let rates =
            [figure.best, figure.median, figure.quartiles.low, figure.quartiles.high].map(|r| r.to_string());
        let [best, median, low, high] = rates.each_ref().map(String::as_str);
        let (threads, n) = (figure.threads.to_string(), figure.n.to_string());
        let (what, unit) = (figure.what.label(), figure.what.unit().symbol());
        text.push_str(&csv_line(&[what, &threads, unit, best, median, low, high, &n, &figure.instruction]));
    }
    text
}

fn facts(environment: &Environment, threads: usize) -> Table {
    let (cpu, memory) = (&environment.cpu, &environment.memory);
    let mut table = Table::of_facts();
    let count = |n: Option<usize>| n.map_or("unknown".to_string(), |n| grouped(n as u64));
    let kind = if cpu.virtual_machine { ", virtual machine" } else { "" };
    table.row([
        "processor".to_string(),
        format!("{} ({}{kind})", cpu.name.as_deref().unwrap_or("unknown"), cpu.architecture),
    ]);
    table.row([
        "cores".to_string(),
        format!(
            "{} physical, {} hardware threads, measured with up to {}",
            count(cpu.cores),
            count(cpu.hardware_threads),
            threads_text(threads)
        ),
    ]);
    table.row(["instruction sets".to_string(), cpu.instruction_sets.join(" ")]);
    let caches: Vec<String> = cpu
        .caches
        .iter()
        .map(|cache| format!("L{} {} × {}", cache.level, cache.instances, binary_bytes(cache.bytes)))
        .collect();
    table.row([
        "caches".to_string(),
        if caches.is_empty() { "unknown".to_string() } else { caches.join(", ") },
    ]);
    let total = memory.total_bytes.map_or("unknown".to_string(), bytes);
    let available = memory.available_bytes.map_or(String::new(), |b| format!(", {} available", bytes(b)));
    let pages = memory.huge_pages.as_ref().map_or(String::new(), |mode| format!(", huge pages: {mode}"));
    table.row(["memory".to_string(), format!("{total}{available}{pages}")]);
    table.row(["system".to_string(), environment.kernel.clone().unwrap_or_else(|| "unknown".to_string())]);
    table.row(["governor".to_string(), cpu.governor.clone().unwrap_or_else(|| "not visible".to_string())]);
    table.row(["roofline".to_string(), VERSION.to_string()]);
    table
}

fn figures(figures: &[Figure]) -> Table {
    let mut table = Table::new(&[
        ("measured", Align::Left),
        ("threads", Align::Right),
        ("best", Align::Right),
        ("median", Align::Right),
        ("quartiles", Align::Right),
        ("n", Align::Right),
        ("fastest loop", Align::Left),
    ]);
    for figure in figures {
        let unit = figure.what.unit().symbol();
        table.row([
            figure.what.label().to_string(),
            figure.threads.to_string(),
            si(figure.best, unit),
            si(figure.median, unit),
            format!("{} to {}", si(figure.quartiles.low, unit), si(figure.quartiles.high, unit)),
            figure.n.to_string(),
            figure.instruction.clone(),
        ]);
    }
    table
}

fn threads_text(threads: usize) -> String {
    if threads == 1 { "1 thread".to_string() } else { format!("{threads} threads") }
}
