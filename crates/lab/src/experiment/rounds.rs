//! Warm-up rounds, then counted ones, each in an order of its own.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::error::ExperimentError;
use super::guard::Guard;
use super::plan::Cell;
use super::recording::Recording;
use super::rows::{About, Measurement, Row};
use super::run::{Log, Progress};
use super::settle::{SETTLED, Settling};
use super::spec::Spec;
use super::surroundings::{Moment, complaints};
use super::trial::{Place, Stand};
use crate::error::LabError;
use crate::units::si;

/// Runs what is missing.
pub(super) struct Rounds<'a, 'w> {
    spec: &'a Spec,
    stand: Stand<'a>,
    log: &'a mut Log,
    watch: &'w mut dyn FnMut(Progress<'_>),
    have: HashSet<(String, usize)>, // (cell, round) in the file
    noted: HashSet<String>,         // cells that the file says cannot run
    guard: Guard,
    order: usize,
    measured: usize,
    last: Option<String>,
    cells: Vec<Cell>,
    took: Vec<Option<Duration>>, // (cells), the latest run
}

/// Where a phase stands.
#[derive(Clone, Copy)]
struct Phase {
    done: usize,
    runs: usize,
    left: Option<Duration>,
}

impl<'a, 'w> Rounds<'a, 'w> {
    pub(super) fn new(
        spec: &'a Spec,
        stand: Stand<'a>,
        log: &'a mut Log,
        begun: Option<&Recording>,
        watch: &'w mut dyn FnMut(Progress<'_>),
    ) -> Rounds<'a, 'w> {
        let runs = || begun.into_iter().flat_map(Recording::measurements);
        let notes = begun.into_iter().flat_map(Recording::notes);
        Rounds {
            spec,
            stand,
            log,
            watch,
            have: runs().filter(|run| !run.warm_up).map(|run| (run.cell_hash.clone(), run.repeat)).collect(),
            noted: notes
                .filter(|note| note.about == About::Skipped)
                .filter_map(|note| note.cell_hash.clone())
                .collect(),
            guard: Guard::default(),
            order: runs().map(|run| run.order + 1).max().unwrap_or(0),
            measured: 0,
            last: None,
            cells: Vec::new(),
            took: Vec::new(),
        }
    }

    /// Counted runs of this call.
    pub(super) fn measured(&self) -> usize {
        self.measured
    }

    /// Runs every cell as often as asked, less what the file has.
    ///
    /// # Errors
    /// No cell that can run; what a run or the file fails at; [`LabError::Cancelled`].
    pub(super) fn all(&mut self, cells: Vec<Cell>) -> Result<(), LabError> {
        self.keep_runnable(cells)?;
        self.took = vec![None; self.cells.len()];
        let to_do: Vec<Vec<usize>> = (0..self.spec.repeats)
            .map(|round| {
                let mut order = self.spec.order(round as u64, self.cells.len());
                order.retain(|&cell| !self.have.contains(&(self.cells[cell].hash.clone(), round)));
                order
            })
            .collect();
        let runs: usize = to_do.iter().map(Vec::len).sum();
        if runs == 0 {
            return Ok(());
        }
        self.warm_up(&to_do)?;
        for (round, order) in to_do.iter().enumerate() {
            let before = Moment::now();
            for (index, &cell) in order.iter().enumerate() {
                let rest = order[index..].iter().chain(to_do[round + 1..].iter().flatten());
                let left = rest.map(|&cell| self.took[cell]).sum::<Option<Duration>>();
                let place = Place { repeat: round, order: self.order, warm_up: false };
                let run = self.one(cell, place, Phase { done: self.measured, runs, left })?;
                self.measured += 1;
                if let Some(words) = self.guard.hear(&run) {
                    self.say(About::Guard, &words, None)?;
                }
            }
            for complaint in complaints(&before.until(&Moment::now())) {
                self.say(About::Background, &format!("round {}: {complaint}", round + 1), None)?;
            }
        }
        Ok(())
    }

    /// Keeps the cells that fit their models; every other one is noted, once.
    fn keep_runnable(&mut self, cells: Vec<Cell>) -> Result<(), LabError> {
        let varied = self.spec.varied();
        let mut first = None;
        for cell in cells {
            let Some(why) = self.stand.beyond(&cell)? else {
                self.cells.push(cell);
                continue;
            };
            first.get_or_insert_with(|| why.clone());
            if self.noted.insert(cell.hash.clone()) {
                self.say(About::Skipped, &format!("{}: {why}", cell.words(&varied)), Some(&cell))?;
            }
        }
        match first {
            Some(why) if self.cells.is_empty() => Err(ExperimentError::NothingRuns(why).into()),
            _ => Ok(()),
        }
    }

    /// Rounds that do not count, until one takes as long as the one before.
    fn warm_up(&mut self, to_do: &[Vec<usize>]) -> Result<(), LabError> {
        let mut cells: Vec<usize> = to_do.iter().flatten().copied().collect();
        cells.sort_unstable();
        cells.dedup();
        let cap = self.spec.warm_up;
        let runs = cells.len() * cap;
        let mut settling = Settling::default();
        let mut change = None;
        for round in 0..cap {
            let mut seconds = vec![0.0; self.cells.len()]; // (cells)
            let mut order = self.spec.order(u64::MAX - round as u64, self.cells.len());
            order.retain(|cell| cells.contains(cell));
            for (index, &cell) in order.iter().enumerate() {
                let place = Place { repeat: round, order: self.order, warm_up: true };
                let phase = Phase { done: round * cells.len() + index, runs, left: None };
                seconds[cell] = self.one(cell, place, phase)?.wall_s;
            }
            change = settling.hear(cells.iter().map(|&cell| seconds[cell]).collect());
            if let Some(change) = change.filter(|change| *change <= SETTLED) {
                let words = format!(
                    "settled after {} rounds: the median run took {:.1} % more or less than in the round before",
                    round + 1,
                    100.0 * change
                );
                return self.say(About::WarmUp, &words, None);
            }
        }
        let words = match (cap, change) {
            (0, _) => "no warm-up was asked for".to_string(),
            (_, None) => format!("{cap} round of warm-up: too few to say whether it settled"),
            (_, Some(change)) => format!(
                "not settled after {cap} rounds, the most that were asked for: the median run still changed by {:.1} %",
                100.0 * change
            ),
        };
        self.say(About::WarmUp, &words, None)
    }

    /// Runs a cell once and writes it down.
    fn one(&mut self, cell: usize, place: Place, phase: Phase) -> Result<Measurement, LabError> {
        let words = self.cells[cell].words(&self.spec.varied());
        (self.watch)(Progress::Running {
            warm_up: place.warm_up,
            done: phase.done,
            runs: phase.runs,
            cell: &words,
            left: phase.left,
            last: self.last.as_deref(),
        });
        let started = Instant::now();
        let run = self.stand.run(&self.cells[cell], place)?;
        self.took[cell] = Some(started.elapsed());
        self.order += 1;
        self.log.write(&Row::Measurement(Box::new(run.clone())))?;
        if let Some(step) = run.surroundings.clock_step_s {
            let what = if step < 0.0 { "back" } else { "forward" };
            let words = format!(
                "the wall clock was set {what} by {:.1} s; durations come from the monotonic clock and are not touched",
                step.abs()
            );
            let cell = self.cells[cell].clone();
            self.say(About::Clock, &words, Some(&cell))?;
        }
        self.last = figure(&run);
        Ok(run)
    }

    fn say(&mut self, about: About, text: &str, cell: Option<&Cell>) -> Result<(), LabError> {
        (self.watch)(Progress::Noted(text));
        self.log.note(about, text, cell)
    }
}

/// The figure that is shown while others are measured.
fn figure(run: &Measurement) -> Option<String> {
    let named =
        |name: &str| run.metrics.get(name).map(|metric| format!("{name} {}", si(metric.value, &metric.unit)));
    named("tpot").or_else(|| named("ttft"))
}
