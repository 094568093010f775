//! `roofline devices`: the hardware table with the source of every figure.

use std::path::PathBuf;

use clap::Args;
use roofline_lab::machine::THIS;
use roofline_lab::units::{binary_bytes, si};
use roofline_limits::Hardware;
use roofline_limits::hardware::{Confidence, Figure, NumberType};
use serde_json::json;

use crate::arguments::Print;
use crate::devices;
use crate::failure::Failure;
use crate::output::{Align, Format, Section, Table, csv_line, print, print_json, sections};

/// Show the devices that limits can be computed for, with the source and confidence of every figure
///
/// Peaks are dense (never those with sparsity) and name what products are added up in. Confidence: A data sheet or two
/// sources that agree, B computed from its generation or one secondary source, C general knowledge or sources that
/// disagree, probe measured here.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Devices {
    /// Show this one with all its figures
    name: Option<String>,
    /// A hardware file with more devices
    #[arg(long, value_name = "FILE")]
    devices: Option<PathBuf>,
    #[command(flatten)]
    print: Print,
}

const EXAMPLES: &str = r#"Examples:
  roofline devices
  roofline devices "RTX 4090"
  roofline devices this
  roofline devices --devices lab.toml --json

Your own devices belong into devices.toml in the configuration folder (~/.config/roofline), or into a file:
  [[device]]
  name = "My card"
  memory_gib = [24]
  bandwidth_gb_s = 900
  peak_tflops = { f32 = 40, bf16_f32 = 160 }"#;

impl Devices {
    pub fn run(&self) -> Result<(), Failure> {
        let shown = match &self.name {
            Some(name) => vec![devices::find(name, self.devices.as_deref())?],
            None => self.all()?,
        };
        match (self.print.format(), &self.name) {
            (Format::Json, _) => print_json(&json!({ "devices": shown })),
            (Format::Csv, _) => print(&csv(&shown)),
            (format, None) => print(&sections(&[overview(&shown)], format)),
            (format, Some(_)) => print(&shown.iter().map(|device| page(device, format)).collect::<String>()),
        }
    }

    fn all(&self) -> Result<Vec<Hardware>, Failure> {
        let mut all = devices::table(self.devices.as_deref())?.devices;
        if let Some(machine) = devices::kept_machine()? {
            all.insert(0, machine.device()?);
        }
        Ok(all)
    }
}

fn overview(devices: &[Hardware]) -> Section {
    let mut table = Table::new(&[
        ("device", Align::Left),
        ("class", Align::Left),
        ("memory", Align::Right),
        ("bandwidth", Align::Right),
        ("f32", Align::Right),
        ("bf16", Align::Right),
        ("int8", Align::Right),
        ("ridge bf16", Align::Right),
        ("", Align::Left),
    ]);
    for device in devices {
        let peak = |number: NumberType, unit: &str| {
            device.peaks.get(&number).map_or("-".to_string(), |figure| si(figure.value, unit))
        };
        let ridge =
            device.peaks.get(&NumberType::Bf16F32).map(|figure| figure.value / device.bandwidth.value);
        table.row([
            device.name.clone(),
            device.class.clone(),
            memory(device),
            si(device.bandwidth.value, "B/s"),
            peak(NumberType::F32, "FLOP/s"),
            peak(NumberType::Bf16F32, "FLOP/s"),
            peak(NumberType::Int8I32, "op/s"),
            ridge.map_or("-".to_string(), |ridge| format!("{} FLOP/B", si(ridge, ""))),
            confidence(device.bandwidth.confidence).to_string(),
        ]);
    }
    let this = devices.iter().any(|device| device.name == THIS);
    let missing = if this { "" } else { "; measure this one with `roofline machine`" };
    Section::table(
        format!("{} devices (bf16 and int8 dense, bf16 summed in f32){missing}", devices.len()),
        table,
    )
}

fn memory(device: &Hardware) -> String {
    if device.memory.is_empty() {
        return "-".to_string();
    }
    let sizes: Vec<String> = device.memory.iter().map(|figure| binary_bytes(figure.value as u64)).collect();
    sizes.join(", ")
}

/// All figures, with their sources as numbered notes since most share one.
fn page(device: &Hardware, format: Format) -> String {
    let mut table = Table::new(&[
        ("figure", Align::Left),
        ("value", Align::Right),
        ("confidence", Align::Left),
        ("source", Align::Left),
    ]);
    let mut sources: Vec<&str> = Vec::new();
    for (name, value, figure) in figures(device) {
        let known = sources.iter().position(|source| *source == figure.source);
        let number = known.unwrap_or_else(|| {
            sources.push(&figure.source);
            sources.len() - 1
        });
        table.row([name, value, confidence(figure.confidence).to_string(), format!("[{}]", number + 1)]);
    }
    let names = if device.aliases.is_empty() {
        String::new()
    } else {
        format!(", also {}", device.aliases.join(", "))
    };
    let section = Section::table(format!("{} ({}){names}", device.name, device.class), table);
    let mut text = sections(&[section], format);
    text.push('\n');
    for (i, source) in sources.iter().enumerate() {
        text.push_str(&format!("[{}] {source}\n", i + 1));
    }
    if !device.notes.is_empty() {
        text.push_str(&format!("Note: {}\n", device.notes));
    }
    text
}

/// Name, value as text, and the figure itself.
fn figures(device: &Hardware) -> Vec<(String, String, &Figure)> {
    let rate = |figure: &Figure| si(figure.value, "B/s");
    let mut all = vec![("bandwidth".to_string(), rate(&device.bandwidth), &device.bandwidth)];
    all.extend(device.memory.iter().map(|f| ("memory".to_string(), binary_bytes(f.value as u64), f)));
    for (number, figure) in &device.peaks {
        let unit =
            if matches!(number, NumberType::Int8I32 | NumberType::Int4I32) { "op/s" } else { "FLOP/s" };
        all.push((number.words().to_string(), si(figure.value, unit), figure));
    }
    let reached = device.measured_bandwidth.iter();
    all.extend(reached.map(|f| ("bandwidth somebody reached".to_string(), rate(f), f)));
    all
}

fn csv(devices: &[Hardware]) -> String {
    let mut text = csv_line(&["device", "class", "figure", "value", "unit", "confidence", "source"]);
    for device in devices {
        let mut line = |name: &str, unit: &str, figure: &Figure| {
            let value = figure.value.to_string();
            let grade = confidence(figure.confidence);
            text.push_str(&csv_line(&[
                &device.name,
                &device.class,
                name,
                &value,
                unit,
                grade,
                &figure.source,
            ]));
        };
        line("bandwidth", "B/s", &device.bandwidth);
        device.memory.iter().for_each(|figure| line("memory", "B", figure));
        device.peaks.iter().for_each(|(number, figure)| line(number.key(), "op/s", figure));
        device.measured_bandwidth.iter().for_each(|figure| line("measured_bandwidth", "B/s", figure));
    }
    text
}

fn confidence(confidence: Confidence) -> &'static str {
    match confidence {
        Confidence::A => "A",
        Confidence::B => "B",
        Confidence::C => "C",
        Confidence::Probe => "probe",
    }
}
