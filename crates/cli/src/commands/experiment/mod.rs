//! `roofline experiment`: a question, a grid, rows that can be continued, and what follows from them.

mod print;
mod show;

use std::path::{Path, PathBuf};

use clap::Args;
use roofline_lab::experiment::presets;
use roofline_lab::experiment::{self, Job, Outcome, Spec};

use self::show::Show;
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::model::{self, EMBEDDED};
use crate::output::{print as print_text, say};

/// Answer a question by measuring: a grid of runs in random order, with fits, intervals and limits
///
/// NAME is one of `roofline experiment list`, or a .toml file with a grid of your own (docs/measuring.md). Every row is
/// on the disk before the next run begins; the same command goes on where it was interrupted. MODEL is `demo`, a Hugging
/// Face folder, a .gguf file, or a geometry (see `roofline limits --list`), whose weights are made up on the fly.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  roofline experiment list\n  roofline experiment output-tokens\n  \
    roofline experiment cache-policy model.gguf --set cache=full,streaming:sinks=4,window=252 --set prompt=4096\n  \
    roofline experiment max-new-tokens --set cap=vqa,dialogue,code --set eos=sentence\n  \
    roofline experiment precision qwen2.5-0.5b --set precision=w16,w8,w4 --quick\n  \
    roofline experiment mine.toml -o mine.jsonl")]
pub struct Experiment {
    /// A name of `roofline experiment list`, `list`, or a .toml file
    #[arg(value_name = "NAME")]
    name: String,
    /// `demo`, folders, .gguf files or geometries [default: the experiment's]
    #[arg(value_name = "MODEL")]
    models: Vec<String>,
    /// Replace the values of an axis, as threads=1,2; may be given again
    #[arg(long, value_name = "KEY=VALUES")]
    set: Vec<String>,
    /// Counted runs of each cell [default: the experiment's, at least 5]
    #[arg(long, value_name = "N")]
    repeats: Option<usize>,
    /// Most warm-up rounds
    #[arg(long, value_name = "N")]
    warm_up: Option<usize>,
    /// Draws the order of runs, random token ids and sampled tokens
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// A smaller grid
    #[arg(long)]
    quick: bool,
    /// The file of rows; continued where the same experiment began it [default: NAME-HASH.jsonl]
    #[arg(short, long, value_name = "FILE.jsonl")]
    output: Option<PathBuf>,
    /// Print one JSON object instead of tables
    #[arg(long)]
    json: bool,
}

impl Experiment {
    pub fn run(&self) -> Result<(), Failure> {
        if self.name == "list" {
            return print::list(self.json);
        }
        let spec = self.spec()?;
        let output = self.output(&spec);
        let command = self.command();
        let isa = model::requested_isa()?;
        let interrupt = Interrupt::install()?;
        let job =
            Job { spec: &spec, path: &output, command: &command, embedded: EMBEDDED, isa, machine: None };
        let mut show = Show::new(&spec);
        let outcome = experiment::run(job, interrupt.flag(), &mut |progress| show.hear(&progress));
        show.end();
        let outcome = outcome?;
        self.report(&outcome, &output)?;
        if outcome.interrupted { Err(Failure::interrupted()) } else { Ok(()) }
    }

    fn report(&self, outcome: &Outcome, output: &Path) -> Result<(), Failure> {
        match self.json {
            true => print::json(outcome, output)?,
            false => print_text(&print::text(&outcome.recording))?,
        }
        let rows = outcome.recording.counted().count();
        match (outcome.measured, outcome.interrupted) {
            (_, true) => {
                say!("interrupted: {rows} runs are in {}; the same command goes on", output.display())
            }
            (0, _) => {
                say!("{} was complete already: {rows} runs; -o names another file", output.display());
            }
            _ => say!("{rows} runs are in {}", output.display()),
        }
        Ok(())
    }

    fn spec(&self) -> Result<Spec, Failure> {
        let lab = roofline_lab::LabError::from;
        let is_file = self.name.ends_with(".toml");
        let mut spec = match is_file {
            true => Spec::read(Path::new(&self.name))?,
            false => presets::find(&self.name).map_err(lab)?.spec(self.quick),
        };
        if is_file && self.quick {
            return Err(Failure::new("--quick belongs to the experiments of the list")
                .hint("write a smaller grid into the file"));
        }
        if !self.models.is_empty() {
            // A path may hold a comma; MODEL is never a list.
            let mut values = Vec::new();
            for model in &self.models {
                let value =
                    experiment::axes::find("model").and_then(|axis| axis.value(model)).map_err(lab)?;
                if values.contains(&value) {
                    return Err(Failure::new(format_args!("{model} is given twice")));
                }
                values.push(value);
            }
            spec.axes.set("model", values);
        }
        for assignment in &self.set {
            spec.set(assignment).map_err(lab)?;
        }
        spec.repeats = self.repeats.unwrap_or(spec.repeats);
        spec.warm_up = self.warm_up.unwrap_or(spec.warm_up);
        spec.seed = self.seed.unwrap_or(spec.seed);
        spec.expand();
        spec.cells().map_err(lab)?;
        Ok(spec)
    }

    fn output(&self, spec: &Spec) -> PathBuf {
        let of_hash = || PathBuf::from(format!("{}-{}.jsonl", spec.name, &spec.hash()[..8]));
        self.output.clone().unwrap_or_else(of_hash)
    }

    /// The command line that measures the same again.
    fn command(&self) -> String {
        let mut words = vec!["roofline".to_string(), "experiment".to_string(), quoted(&self.name)];
        words.extend(self.models.iter().map(|model| quoted(model)));
        words.extend(self.set.iter().map(|set| format!("--set {}", quoted(set))));
        words.extend(self.repeats.map(|n| format!("--repeats {n}")));
        words.extend(self.warm_up.map(|n| format!("--warm-up {n}")));
        words.extend(self.seed.map(|n| format!("--seed {n}")));
        words.extend(self.quick.then(|| "--quick".to_string()));
        words.join(" ")
    }
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=,:+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_string()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}
