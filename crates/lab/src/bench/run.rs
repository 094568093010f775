//! The runs themselves, in turn.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use roofline_engine::{Budget, CacheSpec, Cpu, EngineError, Model, Session, SessionOptions};
use serde::Serialize;

use super::row::Measured;
use super::{Case, Phase, Roof, Row, Settings, Setup, roof};
use crate::environment::Environment;
use crate::environment::resident::{peak_rss, reset_peak_rss};
use crate::error::LabError;
use crate::machine::{self, Machine};
use crate::statistics::Random;
use crate::timestamp;

/// A loaded model.
pub struct Subject {
    /// Its name.
    pub name: String,
    /// Formats of its weights, by bytes, as `q4_k+q6_k+f32`.
    pub formats: String,
    /// Width of the fastest arithmetic its weights can be multiplied in, in bits.
    pub arithmetic_bits: u32,
    /// The model; each thread count gets a team of its own.
    pub model: Arc<Model>,
}

/// One counted run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Sample {
    /// Its place among all counted runs of the benchmark, from 0.
    pub position: usize,
    /// Wall time of its steps.
    pub seconds: f64,
    /// The part of it inside operators.
    pub operator_seconds: f64,
}

/// Where a benchmark stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// Runs done, warm-up included.
    pub done: usize,
    /// Runs in all.
    pub runs: usize,
    /// The row that runs next.
    pub case: Case,
    /// Time left, once every row ran.
    pub left: Option<Duration>,
}

/// What a benchmark found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// When it began, as `2026-11-21T05:40:00Z`.
    pub measured_at: String,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// Where it ran.
    pub environment: Environment,
    /// Draws the token ids.
    pub seed: u64,
    /// Index of the row of each counted run, in the order in which they ran.
    pub order: Vec<usize>,
    /// Per thread count, all probes of this run together.
    pub probes: Vec<Machine>,
    /// Probes taken per thread count.
    pub probe_count: usize,
    /// The rows.
    pub rows: Vec<Row>,
}

/// Runs all rows of `settings` in turn. `watch` hears before every run; `cancel` ends it within a step.
///
/// # Errors
/// As [`plan`](super::plan()); not enough memory; what the engine or a probe fails at; [`LabError::Cancelled`].
pub fn run(
    subjects: &[Subject],
    settings: &Settings,
    cancel: &AtomicBool,
    watch: &mut dyn FnMut(Progress),
) -> Result<Report, LabError> {
    let models: Vec<_> = subjects.iter().map(|s| (s.name.as_str(), s.model.config())).collect();
    let cases = super::plan(&models, settings)?;
    let environment = Environment::read();
    // The weights are loaded already; the caches come on top.
    super::check_memory(&cases, &models, 0, &environment)?;

    let (measured_at, started) = (timestamp::rfc3339(SystemTime::now()), Instant::now());
    let mut bench = Bench::new(subjects, settings, &cases, cancel)?;
    bench.round(false, watch)?;
    bench.probe()?;
    for _ in 0..settings.repetitions {
        bench.round(true, watch)?;
        bench.probe()?;
    }
    let probes: Vec<Machine> = bench
        .probes
        .iter()
        .filter_map(|probes| roof::together(probes).transpose())
        .collect::<Result<_, _>>()?;
    let probe_count = settings.repetitions + 1;
    let seconds = started.elapsed().as_secs_f64();
    let (order, rows) = bench.finish(&probes)?;
    let seed = settings.seed;
    Ok(Report { measured_at, seconds, environment, seed, order, probes, probe_count, rows })
}

/// A session with its depth filled.
struct Seat {
    setup: Setup,
    session: Session,
}

struct Bench<'a> {
    subjects: &'a [Subject],
    settings: &'a Settings,
    cases: &'a [Case],
    cancel: &'a AtomicBool,
    cpus: Vec<Cpu>,            // (thread counts)
    seats: Vec<Seat>,          // (setups met so far)
    measured: Vec<Measured>,   // (cases)
    took: Vec<Duration>,       // (cases), the latest run
    probes: Vec<Vec<Machine>>, // (thread counts, probes)
    order: Vec<usize>,
    done: usize,
}

impl<'a> Bench<'a> {
    fn new(
        subjects: &'a [Subject],
        settings: &'a Settings,
        cases: &'a [Case],
        cancel: &'a AtomicBool,
    ) -> Result<Bench<'a>, LabError> {
        // All subjects were loaded with the same kernels.
        let cpus = match subjects.first().map(|subject| subject.model.cpu()) {
            Some(cpu) => {
                settings.threads.iter().map(|&threads| cpu.with_threads(threads)).collect::<Result<_, _>>()?
            }
            None => Vec::new(),
        };
        Ok(Bench {
            subjects,
            settings,
            cases,
            cancel,
            cpus,
            seats: Vec::new(),
            measured: vec![Measured::default(); cases.len()],
            took: vec![Duration::ZERO; cases.len()],
            probes: vec![Vec::new(); settings.threads.len()],
            order: Vec::new(),
            done: 0,
        })
    }

    /// Probes the machine with each thread count.
    fn probe(&mut self) -> Result<(), LabError> {
        for (&threads, probes) in self.settings.threads.iter().zip(&mut self.probes) {
            if self.cancel.load(Ordering::Relaxed) {
                return Err(LabError::Cancelled);
            }
            probes.push(machine::measure_quickly(threads)?);
        }
        Ok(())
    }

    /// Every row once.
    fn round(&mut self, counted: bool, watch: &mut dyn FnMut(Progress)) -> Result<(), LabError> {
        for (index, case) in self.cases.iter().enumerate() {
            watch(self.progress(case, index));
            let seat = self.seat(&case.setup)?;
            let run = self.time(seat, case, index)?;
            self.took[index] = run.wall;
            self.done += 1;
            if counted {
                self.book(index, run);
            } else {
                // Only here no probe ran yet: what its buffers leave in the heap is not the model's.
                self.measured[index].peak_rss_bytes = run.peak_rss_bytes;
            }
        }
        Ok(())
    }

    fn progress(&self, case: &Case, next: usize) -> Progress {
        let runs = self.cases.len() * (self.settings.repetitions + 1);
        let round: Duration = self.took.iter().sum();
        let rest: Duration = self.took[next..].iter().sum();
        let rounds_after = (runs - self.done - 1) / self.cases.len();
        let left = (self.done >= self.cases.len()).then(|| rest + round * rounds_after as u32);
        Progress { done: self.done, runs, case: case.clone(), left }
    }

    /// Where the session of `setup` stands in the list; it is made when it is first asked for.
    fn seat(&mut self, setup: &Setup) -> Result<usize, LabError> {
        if let Some(seat) = self.seats.iter().position(|seat| seat.setup == *setup) {
            return Ok(seat);
        }
        let session = self.fill(setup)?;
        self.seats.push(Seat { setup: setup.clone(), session });
        Ok(self.seats.len() - 1)
    }

    /// A session that has seen `setup.depth` tokens.
    fn fill(&self, setup: &Setup) -> Result<Session, LabError> {
        let tests = self.cases.iter().filter(|case| case.setup == *setup);
        let longest = tests.map(|case| case.tokens).max().unwrap_or(0);
        let context = match setup.cache {
            CacheSpec::Static { capacity: Budget::Tokens(capacity) } => capacity,
            _ => setup.depth + longest,
        };
        let cpu = self.settings.threads.iter().position(|&threads| threads == setup.threads);
        let subject = &self.subjects[setup.model];
        let model = match cpu {
            Some(cpu) => Arc::new(subject.model.with_cpu(self.cpus[cpu].clone())),
            None => subject.model.clone(),
        };
        let options = SessionOptions {
            cache: setup.cache.clone(),
            kv_format: setup.kv_format,
            context: Some(context),
            chunk: self.settings.chunk,
        };
        let mut session = Session::new(model, options)?;
        if setup.depth > 0 {
            let ids = self.ids(setup.model, setup.depth, 0);
            session.prefill_with(&ids, &mut |_| self.stop())?;
        }
        Ok(session)
    }

    fn stop(&self) -> ControlFlow<()> {
        if self.cancel.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Token ids, the same in every run of a row.
    fn ids(&self, model: usize, count: usize, stream: u64) -> Vec<u32> {
        let vocab_size = self.subjects[model].model.config().vocab_size;
        let mut random = Random(self.settings.seed ^ stream.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        (0..count).map(|_| random.below(vocab_size) as u32).collect()
    }

    /// One run of a row, and the session back as it was.
    fn time(&mut self, seat: usize, case: &Case, index: usize) -> Result<Run, LabError> {
        let ids = self.ids(case.setup.model, case.tokens, 1 + index as u64);
        let cancel = self.cancel;
        let session = &mut self.seats[seat].session;
        session.meter_mut().clear();
        let resettable = reset_peak_rss();
        let started = Instant::now();
        match case.phase {
            Phase::Prefill => session.prefill_with(&ids, &mut |done| {
                let asked = cancel.load(Ordering::Relaxed) && done < ids.len();
                if asked { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })?,
            Phase::Decode => {
                for &id in &ids {
                    if cancel.load(Ordering::Relaxed) {
                        return Err(LabError::Cancelled);
                    }
                    session.decode(id)?;
                }
            }
        }
        let wall = started.elapsed();
        let (total, kv) = (session.meter().total(), session.cache_bytes());
        let run = Run {
            wall,
            operators: session.meter().total_time(),
            bytes: total.bytes(),
            flops: total.flops,
            kv_bytes: kv.live,
            kv_committed_bytes: kv.committed,
            peak_rss_bytes: if resettable { peak_rss() } else { None },
        };
        // A policy that evicted cannot go back; then the depth is filled anew.
        if session.rollback(case.tokens).is_err() {
            self.seats[seat].session = self.fill(&case.setup)?;
        }
        Ok(run)
    }

    fn book(&mut self, index: usize, run: Run) {
        let row = &mut self.measured[index];
        row.samples.push(Sample {
            position: self.order.len(),
            seconds: run.wall.as_secs_f64(),
            operator_seconds: run.operators.as_secs_f64(),
        });
        (row.bytes, row.flops) = (run.bytes, run.flops);
        (row.kv_bytes, row.kv_committed_bytes) = (run.kv_bytes, run.kv_committed_bytes);
        self.order.push(index);
    }

    fn finish(self, probes: &[Machine]) -> Result<(Vec<usize>, Vec<Row>), LabError> {
        let mut rows = Vec::with_capacity(self.cases.len());
        for (case, measured) in self.cases.iter().zip(self.measured) {
            let subject = &self.subjects[case.setup.model];
            let resident = subject.model.facts().weight_bytes + measured.kv_bytes;
            let machine = (self.settings.threads.iter().zip(probes))
                .find(|(threads, _)| **threads == case.setup.threads)
                .map(|(_, machine)| machine)
                .ok_or(LabError::NoFigure { what: "this thread count" })?;
            let roof = Roof::of(machine, &case.setup, resident, subject.arithmetic_bits)?;
            let isa = subject.model.cpu().table().isa().name();
            rows.push(Row::of(case, subject, isa, self.settings.chunk, measured, roof)?);
        }
        Ok((self.order, rows))
    }
}

/// What one run took.
struct Run {
    wall: Duration,
    operators: Duration,
    bytes: u64,
    flops: u64,
    kv_bytes: u64,
    kv_committed_bytes: u64,
    peak_rss_bytes: Option<u64>,
}

impl From<EngineError> for LabError {
    fn from(error: EngineError) -> LabError {
        if matches!(error, EngineError::Cancelled) { LabError::Cancelled } else { LabError::Engine(error) }
    }
}
