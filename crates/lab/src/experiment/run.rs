//! The experiment itself: models, probe, warm-up, rounds in random order, findings. Every row is on the disk before the
//! next run begins, so that whatever ends the program loses one run at most.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use roofline_engine::{Arithmetic, Cpu, EmbeddedModel, Isa};
use roofline_kernels::physical_cores;

use super::error::ExperimentError;
use super::findings::findings;
use super::plan::Cell;
use super::quality::{self, Configuration};
use super::recording::Recording;
use super::rounds::Rounds;
use super::rows::{About, Header, Note, Row, SCHEMA};
use super::spec::Spec;
use super::subjects::{Subject, Workshop};
use super::summary::grouped;
use super::trial::{Bay, Stand};
use super::writer::Writer;
use crate::environment::Environment;
use crate::error::LabError;
use crate::machine::{self, Machine};
use crate::timestamp;

/// What is needed beside the specification.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    /// What to measure.
    pub spec: &'a Spec,
    /// The file of rows; continued where it was begun by the same experiment.
    pub path: &'a Path,
    /// The command line that reproduces it.
    pub command: &'a str,
    /// The model that is part of the program.
    pub embedded: EmbeddedModel,
    /// Caps the kernels' instruction set.
    pub isa: Option<Isa>,
    /// The machine as it was probed already; thread counts that it has no figures for are probed.
    pub machine: Option<&'a Machine>,
}

/// Where an experiment stands.
#[derive(Debug, Clone, PartialEq)]
pub enum Progress<'a> {
    /// Models are opened, made or loaded; the machine is probed.
    Preparing(&'a str),
    /// A run is about to begin.
    Running {
        /// Whether it only warms up.
        warm_up: bool,
        /// Runs done, of this phase.
        done: usize,
        /// Runs of this phase.
        runs: usize,
        /// What runs next, only what varies.
        cell: &'a str,
        /// Time left, once every cell ran.
        left: Option<Duration>,
        /// The figure of the run before, as `tpot 0.41 ms`.
        last: Option<&'a str>,
    },
    /// Something that is written down as a note.
    Noted(&'a str),
}

/// How it ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Everything in the file.
    pub recording: Recording,
    /// Runs that were measured now; 0 when the file was complete already.
    pub measured: usize,
    /// Whether the caller ended it before all runs were there.
    pub interrupted: bool,
}

/// Measures what is not in the file yet. `cancel` ends it within a step: the run at hand is dropped, the rest is kept.
///
/// # Errors
/// A specification that cannot run, a file of another experiment, models that changed or cannot be had, a file that
/// cannot be written; whatever a run fails at. All rows before are in the file.
pub fn run(
    job: Job<'_>,
    cancel: &AtomicBool,
    watch: &mut dyn FnMut(Progress<'_>),
) -> Result<Outcome, LabError> {
    let cells = job.spec.cells()?;
    let begun = begun(&job)?;
    if let Some(recording) = begun.as_ref().filter(|recording| recording.is_finished()) {
        return Ok(Outcome { recording: recording.clone(), measured: 0, interrupted: false });
    }
    let mut prepared = match prepare(&job, &cells, cancel, watch) {
        Ok(prepared) => prepared,
        Err(LabError::Cancelled) if begun.is_some() => return outcome(job.path, 0, true),
        Err(error) => return Err(error),
    };
    if let Some(recording) = &begun {
        prepared.check_models(recording, job.path)?;
    }
    let machine = prepared.machine.take();
    let mut log = Log::open(&job, begun.as_ref(), machine)?;
    let stand = Stand::new(job.spec, &prepared.subjects, &prepared.bays, cancel);
    let mut rounds = Rounds::new(job.spec, stand, &mut log, begun.as_ref(), watch);
    let done = rounds.all(cells);
    let measured = rounds.measured();
    match done {
        Ok(()) => {}
        Err(LabError::Cancelled) => {
            log.note(About::Interrupted, "ended by the user; the same command goes on from here", None)?;
            return outcome(job.path, measured, true);
        }
        Err(error) => return Err(error),
    }
    if job.spec.quality {
        match quality_rows(&job, &prepared, &mut log, cancel, watch) {
            Err(LabError::Cancelled) => {
                log.note(About::Interrupted, "ended by the user; the same command goes on from here", None)?;
                return outcome(job.path, measured, true);
            }
            done => done?,
        }
    }
    for finding in findings(&Recording::read(job.path)?) {
        log.write(&Row::Finding(Box::new(finding)))?;
    }
    log.note(About::Finished, "every run is there", None)?;
    outcome(job.path, measured, false)
}

/// Perplexity and divergence of every configuration that the file does not have yet, in the order of the grid.
fn quality_rows(
    job: &Job<'_>,
    prepared: &Prepared,
    log: &mut Log,
    cancel: &AtomicBool,
    watch: &mut dyn FnMut(Progress<'_>),
) -> Result<(), LabError> {
    let recording = Recording::read(job.path)?;
    let mut all: Vec<Configuration> = Vec::new();
    for runs in grouped(&recording) {
        let configuration = Configuration::of(&runs[0].cell);
        if !all.contains(&configuration) {
            all.push(configuration);
        }
    }
    let Some(first) = all.first().cloned() else { return Ok(()) };
    for configuration in all {
        if recording.qualities().any(|quality| quality.cell_hash == configuration.hash) {
            continue;
        }
        let say = &mut |what: &str| watch(Progress::Preparing(what));
        if let Some(row) = quality::measure(&configuration, &first, &prepared.subjects, cancel, say)? {
            log.write(&Row::Quality(Box::new(row)))?;
        }
    }
    Ok(())
}

fn outcome(path: &Path, measured: usize, interrupted: bool) -> Result<Outcome, LabError> {
    Ok(Outcome { recording: Recording::read(path)?, measured, interrupted })
}

/// What is in the file already, if it is this experiment's.
fn begun(job: &Job<'_>) -> Result<Option<Recording>, LabError> {
    match std::fs::metadata(job.path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Ok(file) if file.is_file() && file.len() == 0 => {
            // Killed before the header was there.
            std::fs::remove_file(job.path).map_err(|source| LabError::File {
                action: "replace",
                path: job.path.to_path_buf(),
                source,
            })?;
            return Ok(None);
        }
        _ => {}
    }
    let recording = Recording::read(job.path)?;
    let holds = &recording.header;
    if holds.experiment_hash != job.spec.hash() {
        let holds = format!("another experiment ({}, {})", holds.experiment, holds.experiment_hash);
        return Err(ExperimentError::OtherFile { path: job.path.to_path_buf(), holds }.into());
    }
    Ok(Some(recording))
}

/// Models, teams and roofs, ready to run.
struct Prepared {
    bays: Vec<Bay>,
    subjects: Vec<Subject>,
    machine: Option<Machine>,
    _workshop: Workshop,
}

fn prepare(
    job: &Job<'_>,
    cells: &[Cell],
    cancel: &AtomicBool,
    watch: &mut dyn FnMut(Progress<'_>),
) -> Result<Prepared, LabError> {
    let mut threads: Vec<usize> = cells.iter().map(|cell| cell.count("threads")).collect();
    threads.sort_unstable();
    threads.dedup();
    let most = threads.last().copied().unwrap_or(1);
    let workshop = Workshop::new(job.embedded, physical_cores());
    let cpu = Cpu::with_arithmetic(most, job.isa, Arithmetic::Fast)?;
    let mut subjects: Vec<Subject> = Vec::new();
    for cell in cells {
        let (model, precision) = (cell.text("model"), cell.text("precision"));
        if subjects.iter().any(|have| have.name == model && have.precision == precision) {
            continue;
        }
        let mut going_on = |what: &str| {
            watch(Progress::Preparing(what));
            if cancel.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        subjects.push(workshop.subject(model, precision, &cpu, &mut going_on)?);
    }
    let (mut bays, mut machine): (Vec<Bay>, Option<Machine>) = (Vec::new(), None);
    for &threads in &threads {
        if cancel.load(Ordering::Relaxed) {
            return Err(LabError::Cancelled);
        }
        watch(Progress::Preparing(&format!("probing the machine on {threads} thread(s)")));
        let probed = match job.machine.and_then(|machine| machine.on(threads)) {
            Some(machine) => machine,
            None => machine::measure_quickly(threads)?,
        };
        let cpu = if threads == most {
            cpu.clone()
        } else {
            Cpu::with_arithmetic(threads, job.isa, Arithmetic::Fast)?
        };
        bays.push(Bay { threads, cpu, device: probed.device()? });
        match &mut machine {
            Some(all) => {
                all.seconds += probed.seconds;
                all.noise.reasons.extend(probed.noise.reasons);
                all.figures.extend(probed.figures);
            }
            None => machine = Some(probed),
        }
    }
    Ok(Prepared { bays, subjects, machine, _workshop: workshop })
}

impl Prepared {
    /// The models must be those that the file was begun with.
    fn check_models(&self, recording: &Recording, path: &Path) -> Result<(), ExperimentError> {
        for run in recording.measurements() {
            let named = |axis: &str| run.cell.get(axis).map(ToString::to_string).unwrap_or_default();
            let (model, precision) = (named("model"), named("precision"));
            let now = self.subjects.iter().find(|s| s.name == model && s.precision == precision);
            if let Some(now) = now.filter(|now| now.facts.hash != run.model.hash) {
                return Err(ExperimentError::ModelChanged {
                    model,
                    path: path.to_path_buf(),
                    now: now.facts.hash.clone(),
                    then: run.model.hash.clone(),
                });
            }
        }
        Ok(())
    }
}

/// The file, and what is noted in it.
pub(super) struct Log {
    writer: Writer,
}

impl Log {
    /// Begins the file with its header, or goes on behind the last whole row.
    fn open(job: &Job<'_>, begun: Option<&Recording>, machine: Option<Machine>) -> Result<Log, LabError> {
        let environment = Environment::read();
        let Some(recording) = begun else {
            let mut log = Log { writer: Writer::create(job.path)? };
            log.writer.write(&Row::Header(Box::new(Header {
                schema: SCHEMA,
                experiment: job.spec.name.clone(),
                question: job.spec.question.clone(),
                spec: job.spec.clone(),
                experiment_hash: job.spec.hash(),
                seed: job.spec.seed,
                command: job.command.to_string(),
                view: job.spec.view(),
                environment,
                machine,
                started: now(),
            })))?;
            return Ok(log);
        };
        let rows = recording.rows.len() + 1;
        let mut log = Log { writer: Writer::append(job.path, recording.whole_bytes, rows)? };
        let torn = recording.left_out.iter().map(|line| format!("; {line}")).collect::<String>();
        let counted = recording.counted().count();
        log.note(About::Resumed, &format!("continued after {counted} counted runs{torn}"), None)?;
        for difference in differences(&recording.header.environment, &environment) {
            log.note(About::Environment, &difference, None)?;
        }
        Ok(log)
    }

    /// Appends a row.
    pub(super) fn write(&mut self, row: &Row) -> Result<(), LabError> {
        Ok(self.writer.write(row)?)
    }

    /// Appends a note.
    pub(super) fn note(&mut self, about: About, text: &str, cell: Option<&Cell>) -> Result<(), LabError> {
        let cell_hash = cell.map(|cell| cell.hash.clone());
        self.write(&Row::Note(Note { about, text: text.to_string(), at: now(), cell_hash }))
    }
}

fn now() -> String {
    timestamp::rfc3339(SystemTime::now())
}

/// What changed since the header was written, as far as figures depend on it.
fn differences(then: &Environment, now: &Environment) -> Vec<String> {
    let words = |value: &Option<String>| value.clone().unwrap_or_else(|| "not known".into());
    let facts = [
        ("processor", words(&then.cpu.name), words(&now.cpu.name)),
        ("kernel", words(&then.kernel), words(&now.kernel)),
        ("governor", words(&then.cpu.governor), words(&now.cpu.governor)),
        ("version", then.engine.version.clone(), now.engine.version.clone()),
        ("commit", words(&then.engine.commit), words(&now.engine.commit)),
        ("compiler", words(&then.engine.compiler), words(&now.engine.compiler)),
    ];
    let changed = facts.into_iter().filter(|(_, then, now)| then != now);
    changed.map(|(what, then, now)| format!("the {what} was {then} and is {now}")).collect()
}
