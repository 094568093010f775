//! `roofline limits`: how fast a model can run on a device at most, and how long a context fits.

mod beyond;
mod facts;
mod plot;
mod subject;
mod tables;

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use roofline_lab::machine::THIS;
use roofline_limits::explain::{Explain, explain};
use roofline_limits::{Hardware, Precision, Profile, Report, Request, Workload, report};
use roofline_model::presets;
use serde::Serialize;
use serde_json::json;

use self::beyond::{Beyond, Questions};
use self::subject::Subject;
use crate::arguments::Print;
use crate::devices;
use crate::failure::Failure;
use crate::output::{Align, Format, Section, Table, print, print_json, sections};

/// Show how fast a model can run on a device at most, and how long a context fits
///
/// MODEL is `demo`, a preset (see --list), a Hugging Face folder, a config.json or a .gguf file; weights are not needed, and
/// where there are some, their real formats count. Every figure is a bound that no run can beat: bytes over bandwidth,
/// FLOPs over peak, whichever is larger.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  roofline limits llama-3.1-8b\n  \
    roofline limits qwen2.5-7b --device \"RTX 4090\" --precision w16a16,w8a16,w4a16 --context 32768\n  \
    roofline limits model.gguf --explain\n  roofline limits pythia-1.4b --plot pythia.svg\n  \
    roofline limits mixtral-8x7b --device H100 --serve 300 --speculate 0.7")]
pub struct Limits {
    /// Preset, folder, config.json or .gguf file
    #[arg(required_unless_present = "list")]
    model: Option<String>,
    /// List the presets with their sources
    #[arg(long)]
    list: bool,
    /// A device of `roofline devices`, or `this` machine
    #[arg(long, value_name = "NAME", default_value = THIS)]
    device: String,
    /// A hardware file with more devices
    #[arg(long, value_name = "FILE")]
    devices: Option<PathBuf>,
    // rustdoc would take the brackets for links
    #[arg(
        help = "wN[aM][kvK] or a GGUF file type, several with commas [default: as stored, else w16a16]",
        long,
        value_name = "LIST",
        value_delimiter = ','
    )]
    precision: Vec<String>,
    /// Tokens of the prompt
    #[arg(long, value_name = "N", default_value = "1000")]
    prompt: String,
    /// Tokens of context that memory is counted for
    #[arg(long, value_name = "N", default_value = "4096")]
    context: String,
    /// Sequences at once
    #[arg(long, value_name = "N", default_value = "1")]
    batch: String,
    /// Positions at which decode is timed, with commas [default: 1, the prompt, the context]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    position: Vec<String>,
    /// Definitions: si, or those of the paper the project started from
    #[arg(long, value_enum, default_value = "si")]
    profile: ProfileName,
    /// Print every formula with its numbers, and what each departure from the paper changes
    #[arg(long)]
    explain: bool,
    /// Draw the roofline and latency against position
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    #[command(flatten)]
    questions: Questions,
    #[command(flatten)]
    print: Print,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ProfileName {
    Si,
    Paper,
}

/// What is known about one precision.
#[derive(Debug, Serialize)]
pub struct Answer {
    model: String,
    profile: &'static str,
    report: Report,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    beyond: Vec<Beyond>,
    #[serde(skip_serializing_if = "Option::is_none")]
    explain: Option<Explain>,
}

impl Limits {
    pub fn run(&self) -> Result<(), Failure> {
        let Some(model) = self.model.as_deref().filter(|_| !self.list) else {
            return list(self.print.format());
        };
        let subject = Subject::find(model)?;
        let hardware = devices::find(&self.device, self.devices.as_deref())?;
        let workload = self.workload()?;
        let precisions = self.precisions(&subject)?;
        let answers = precisions
            .iter()
            .map(|(precision, stored)| self.answer(&subject, &hardware, precision, *stored, &workload))
            .collect::<Result<Vec<_>, _>>()?;
        if let (Some(path), Some((precision, stored))) = (&self.plot, precisions.first()) {
            let curve = self.curve(&subject, &hardware, precision, *stored, &workload)?;
            if let Some(answer) = answers.first() {
                write_plot(path, &plot::svg(answer, &hardware, curve)?)?;
            }
        }
        match self.print.format() {
            Format::Json => print_json(&json!({
                "model": { "name": subject.name, "source": subject.source },
                "device": hardware,
                "plot": self.plot,
                "limits": answers,
            })),
            Format::Csv => print(&tables::csv(&answers)),
            format => {
                let text = sections(&tables::all(&answers), format);
                let plot = self
                    .plot
                    .as_ref()
                    .map_or(String::new(), |path| format!("\nDrawn in {}\n", path.display()));
                print(&format!("{text}\nSizes from {}\n{plot}", subject.source))
            }
        }
    }

    fn profile(&self) -> Profile {
        match self.profile {
            ProfileName::Si => Profile::Si,
            ProfileName::Paper => Profile::Paper,
        }
    }

    fn workload(&self) -> Result<Workload, Failure> {
        use roofline_limits::error::parse_count;
        use roofline_limits::report::{LARGEST_BATCH, MOST_TOKENS};
        let prompt = parse_count("--prompt", &self.prompt, MOST_TOKENS)?;
        let context = parse_count("--context", &self.context, MOST_TOKENS)?;
        let batch = parse_count("--batch", &self.batch, LARGEST_BATCH)?;
        let mut positions = self
            .position
            .iter()
            .map(|text| parse_count("--position", text, MOST_TOKENS))
            .collect::<Result<Vec<_>, _>>()?;
        if positions.is_empty() {
            positions = vec![1, prompt, context];
        }
        positions.sort_unstable();
        positions.dedup();
        Ok(Workload { prompt, context, batch, positions, ..Workload::default() })
    }

    /// Each with whether it stands for the formats of the files.
    fn precisions(&self, subject: &Subject) -> Result<Vec<(Precision, bool)>, Failure> {
        if self.precision.is_empty() {
            if let Some(stored) = subject.stored_precision() {
                return Ok(vec![(stored, true)]);
            }
            return Ok(vec![(Precision::parse("w16a16", self.profile())?, false)]);
        }
        let parse = |text: &String| Ok((Precision::parse(text, self.profile())?, false));
        self.precision.iter().map(parse).collect()
    }

    fn answer(
        &self,
        subject: &Subject,
        hardware: &Hardware,
        precision: &Precision,
        stored: bool,
        workload: &Workload,
    ) -> Result<Answer, Failure> {
        let switches = self.profile().switches();
        subject.with_formats(precision, stored, |formats| {
            let request =
                Request { config: &subject.config, formats, hardware, precision, workload, switches };
            Ok(Answer {
                model: subject.name.clone(),
                profile: self.profile().name(),
                report: report(&request)?,
                beyond: self.questions.answer(&request)?,
                explain: if self.explain { Some(explain(&request)?) } else { None },
            })
        })
    }

    /// The decode limit at thirty-three positions up to the context.
    fn curve(
        &self,
        subject: &Subject,
        hardware: &Hardware,
        precision: &Precision,
        stored: bool,
        workload: &Workload,
    ) -> Result<Vec<(f64, f64)>, Failure> {
        const STEPS: u64 = 32;
        let last = workload.positions.iter().copied().max().unwrap_or(1).max(workload.context);
        let mut positions: Vec<u64> = (0..=STEPS).map(|i| (last * i / STEPS).max(1)).collect();
        positions.dedup();
        let workload = Workload { positions, ..workload.clone() };
        let answer = self.answer(subject, hardware, precision, stored, &workload)?;
        Ok(answer.report.decode.positions.iter().map(|at| (at.position as f64, at.latency_ms)).collect())
    }
}

fn write_plot(path: &Path, svg: &str) -> Result<(), Failure> {
    std::fs::write(path, svg)
        .map_err(|error| Failure::new(format_args!("cannot write {}: {error}", path.display())))
}

fn list(format: Format) -> Result<(), Failure> {
    let row = |preset: &presets::Preset| {
        let total = preset.config().map(|config| config.parameters().total());
        total.map(|total| (preset.name, total, preset.source()))
    };
    let rows = presets::all().iter().map(row).collect::<Result<Vec<_>, _>>()?;
    match format {
        Format::Json => {
            let object = |(name, parameters, source): &(&str, u64, String)| json!({ "name": name, "parameters": parameters, "source": source });
            print_json(&json!({ "presets": rows.iter().map(object).collect::<Vec<_>>() }))
        }
        Format::Csv => {
            let lines =
                rows.iter().map(|(name, n, source)| crate::output::csv_line(&[name, &n.to_string(), source]));
            print(&format!("preset,parameters,source\n{}", lines.collect::<String>()))
        }
        format => {
            let mut table =
                Table::new(&[("preset", Align::Left), ("parameters", Align::Right), ("source", Align::Left)]);
            for (name, parameters, source) in rows {
                table.row([name.to_string(), roofline_lab::units::si(parameters as f64, ""), source]);
            }
            print(&sections(&[Section::table("", table)], format))
        }
    }
}
