//! Windows through sessions, all setups in lockstep: each sees the same tokens in the same minutes, and the divergence
//! from the reference needs no stored logits.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use roofline_engine::{CacheBytes, CacheSpec, EngineError, Model, Session, SessionOptions};

use super::plan::Place;
use super::report::{self, Report, Row};
use super::score::Scored;
use super::{Mode, Plan, QualityError, Setup, Text, Window};
use crate::error::LabError;
use crate::timestamp;

/// Where a measurement stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Tokens fed, over all setups.
    pub done: usize,
    /// Tokens to feed in all.
    pub all: usize,
}

/// Tokens and the seconds they took in the engine, scoring left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Rate {
    pub tokens: usize,
    pub time: Duration,
}

/// What a setup left behind.
#[derive(Debug, Clone, Default)]
pub(super) struct Trace {
    pub nll: Vec<f64>,        // (scored)
    pub divergence: Vec<f64>, // (scored), empty without a reference
    pub missed: Vec<f64>,     // (scored), empty without a full reference and in parallel mode
    pub same_top: usize,
    pub many: Rate,
    pub single: Rate,
    pub kv: CacheBytes,
}

/// Logits of the largest piece that is held at once, for one setup or two: 64 MiB.
const PIECE_BYTES: usize = 64 << 20;

/// Measures every one of `setups` on `texts`, and each against `reference` if there is one. `watch` hears after every
/// step; `cancel` ends it within one.
///
/// # Errors
/// A plan that cannot be followed, a text too short, what the engine refuses, logits that are no numbers;
/// [`LabError::Cancelled`].
pub fn measure(
    model: &Arc<Model>,
    texts: &[Text],
    plan: &Plan,
    setups: &[Setup],
    reference: Option<&Setup>,
    cancel: &AtomicBool,
    watch: &mut dyn FnMut(Progress),
) -> Result<Report, LabError> {
    let vocab = model.config().vocab_size;
    let options = |setup: &Setup, context: usize| SessionOptions {
        cache: setup.cache.clone(),
        kv_format: setup.kv_format,
        context: Some(context),
        chunk: plan.chunk,
    };
    let open = |setup: &Setup, context: usize| Session::new(model.clone(), options(setup, context));
    let setups: Vec<&Setup> = reference.into_iter().chain(setups).collect();
    plan.check(texts, model.config().context_length, &setups)?;
    run(&Job { texts, plan, setups: &setups, compares: reference.is_some(), vocab }, &open, cancel, watch)
}

/// What a window is fed to: a session, or what stands for one in a test.
pub(super) trait Reader {
    fn extend(&mut self, ids: &[u32]) -> Result<(), EngineError>;
    fn prefill(&mut self, ids: &[u32], cancel: &AtomicBool) -> Result<(), EngineError>;
    fn rows(&mut self, ids: &[u32], sink: &mut RowSink<'_>) -> Result<(), EngineError>;
    fn decode(&mut self, id: u32) -> Result<&[f32], EngineError>;
    fn observe(&mut self);
    fn missed(&mut self, other: &Self) -> Result<f64, EngineError>;
    fn bytes(&self) -> CacheBytes;
}

/// Takes the logits after each token, as (index, (vocab_size)).
pub(super) type RowSink<'a> = dyn FnMut(usize, &[f32]) -> ControlFlow<()> + 'a;

impl Reader for Session {
    fn extend(&mut self, ids: &[u32]) -> Result<(), EngineError> {
        Session::extend(self, ids)
    }

    fn prefill(&mut self, ids: &[u32], cancel: &AtomicBool) -> Result<(), EngineError> {
        self.prefill_with(ids, &mut |done| match cancel.load(Ordering::Relaxed) && done < ids.len() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        })
    }

    fn rows(&mut self, ids: &[u32], sink: &mut RowSink<'_>) -> Result<(), EngineError> {
        self.prefill_logits(ids, &mut |index, logits| sink(index, logits))
    }

    fn decode(&mut self, id: u32) -> Result<&[f32], EngineError> {
        Session::decode(self, id)
    }

    fn observe(&mut self) {
        Session::observe(self);
    }

    fn missed(&mut self, other: &Self) -> Result<f64, EngineError> {
        self.missed_attention(other)
    }

    fn bytes(&self) -> CacheBytes {
        self.cache_bytes()
    }
}

/// What is to be run, checked.
pub(super) struct Job<'a> {
    pub texts: &'a [Text],
    pub plan: &'a Plan,
    pub setups: &'a [&'a Setup], // the reference first if there is one
    pub compares: bool,
    pub vocab: usize,
}

/// Opens a setup for windows of so many tokens.
pub(super) type Open<'a, R> = dyn Fn(&Setup, usize) -> Result<R, EngineError> + 'a;

pub(super) fn run<R: Reader>(
    job: &Job<'_>,
    open: &Open<'_, R>,
    cancel: &AtomicBool,
    watch: &mut dyn FnMut(Progress),
) -> Result<Report, LabError> {
    let Job { texts, plan, setups, compares, .. } = *job;
    let places = plan.places(texts)?;
    let measured_at = timestamp::rfc3339(SystemTime::now());
    let fed: usize = places.iter().map(|place| place.window.len()).sum();
    let longest = places.iter().map(|place| place.window.len()).max().unwrap_or(0);
    let progress = Progress { done: 0, all: fed * setups.len() };
    let mut runner = Runner { job, open, longest, cancel, watch, progress, base: Base::default() };
    let mut seats: Vec<Seat> = setups.iter().map(|&setup| Seat { setup, trace: Trace::default() }).collect();
    for (index, place) in places.iter().enumerate() {
        runner.window(index, place, &texts[place.text], &mut seats)?;
    }

    let blocks = report::blocks(&places);
    let mut rows = seats.iter().enumerate().map(|(index, seat)| {
        let base = (compares && index > 0).then(|| &seats[0].trace);
        Row::of(seat.setup, &seat.trace, base, &places, texts, &blocks, plan)
    });
    let reference = if compares { rows.next().transpose()? } else { None };
    let rows = rows.collect::<Result<Vec<_>, _>>()?;
    Ok(Report::of(measured_at, plan, texts, &places, blocks.len(), reference, rows))
}

/// A setup and what it has shown so far.
struct Seat<'a> {
    setup: &'a Setup,
    trace: Trace,
}

/// The reference's latest rows.
#[derive(Default)]
struct Base {
    logits: Vec<f32>,   // (rows, vocab_size)
    log_sums: Vec<f64>, // (rows)
}

impl Base {
    fn clear(&mut self) {
        self.logits.clear();
        self.log_sums.clear();
    }

    fn push(&mut self, row: &Scored<'_>) {
        self.logits.extend_from_slice(row.logits());
        self.log_sums.push(row.log_sum());
    }

    fn row(&self, row: usize, vocab: usize) -> Scored<'_> {
        Scored::normalized(&self.logits[row * vocab..(row + 1) * vocab], self.log_sums[row])
    }
}

struct Runner<'a, R> {
    job: &'a Job<'a>,
    open: &'a Open<'a, R>,
    longest: usize,
    cancel: &'a AtomicBool,
    watch: &'a mut dyn FnMut(Progress),
    progress: Progress,
    base: Base,
}

/// A window while it runs.
struct Pass<'a> {
    index: usize,
    text: usize,
    window: &'a Window,
    inputs: &'a [u32],
    targets: &'a [u32], // (scored)
}

impl Pass<'_> {
    fn target(&self, row: usize) -> u32 {
        self.targets[row - self.window.first_row]
    }

    /// The engine found a row without a number.
    fn not_finite(&self, setup: &Setup, row: usize) -> LabError {
        let token = (self.window.first_target + row).saturating_sub(self.window.first_row);
        let (text, window) = (self.text, self.index);
        QualityError::NotFinite { cache: setup.cache.to_string(), text, token, window, row }.into()
    }

    fn engine(&self, setup: &Setup, error: EngineError) -> LabError {
        match error {
            EngineError::LogitsNotFinite { seen } => self.not_finite(setup, seen - 1),
            error => error.into(),
        }
    }
}

impl<R: Reader> Runner<'_, R> {
    fn window(
        &mut self,
        index: usize,
        place: &Place,
        text: &Text,
        seats: &mut [Seat<'_>],
    ) -> Result<(), LabError> {
        let window = &place.window;
        let inputs = window.inputs(text.tokens());
        let targets = &text.tokens()[window.targets()];
        let pass = Pass { index, text: place.text, window, inputs: &inputs, targets };
        let open = |seat: &Seat<'_>| (self.open)(seat.setup, self.longest);
        let mut sessions = seats.iter().map(open).collect::<Result<Vec<R>, _>>()?;
        match self.job.plan.mode {
            Mode::Parallel => self.parallel(&pass, seats, &mut sessions)?,
            Mode::Decode => self.decode(&pass, seats, &mut sessions)?,
        }
        for (seat, session) in seats.iter_mut().zip(&sessions) {
            let (most, bytes) = (&mut seat.trace.kv, session.bytes());
            most.live = most.live.max(bytes.live);
            most.committed = most.committed.max(bytes.committed);
            most.peak = most.peak.max(bytes.peak);
            most.metadata = most.metadata.max(bytes.metadata);
        }
        Ok(())
    }

    /// Rows that are not scored first, without logits; the others in pieces, each by every setup.
    fn parallel(
        &mut self,
        pass: &Pass<'_>,
        seats: &mut [Seat<'_>],
        sessions: &mut [R],
    ) -> Result<(), LabError> {
        let first = pass.window.first_row;
        for (seat, session) in seats.iter_mut().zip(sessions.iter_mut()) {
            for chunk in pass.inputs[..first].chunks(self.job.plan.chunk) {
                let started = Instant::now();
                session.extend(chunk).map_err(|error| pass.engine(seat.setup, error))?;
                self.book(&mut seat.trace.many, chunk.len(), started.elapsed())?;
            }
        }
        let rows = self.piece();
        for begin in (first..pass.inputs.len()).step_by(rows) {
            let piece = begin..(begin + rows).min(pass.inputs.len());
            self.base.clear();
            for (index, (seat, session)) in seats.iter_mut().zip(sessions.iter_mut()).enumerate() {
                self.rows(pass, piece.clone(), index, seat, session)?;
            }
        }
        Ok(())
    }

    /// Rows fed and scored at once.
    fn piece(&self) -> usize {
        (PIECE_BYTES / (4 * self.job.vocab)).clamp(1, self.job.plan.chunk)
    }

    fn rows(
        &mut self,
        pass: &Pass<'_>,
        rows: Range<usize>,
        index: usize,
        seat: &mut Seat<'_>,
        session: &mut R,
    ) -> Result<(), LabError> {
        let mut scoring = Duration::ZERO;
        let mut failed = None;
        let started = Instant::now();
        let done = session.rows(&pass.inputs[rows.clone()], &mut |row, logits| {
            let began = Instant::now();
            let scored = self.score(pass, rows.start + row, row, logits, index, seat);
            scoring += began.elapsed();
            match scored {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    failed = Some(error);
                    ControlFlow::Break(())
                }
            }
        });
        let took = started.elapsed().saturating_sub(scoring);
        if let Some(error) = failed {
            return Err(error);
        }
        done.map_err(|error| pass.engine(seat.setup, error))?;
        self.book(&mut seat.trace.many, rows.len(), took)
    }

    /// The prompt at once, then one token after the other, each by every setup.
    fn decode(
        &mut self,
        pass: &Pass<'_>,
        seats: &mut [Seat<'_>],
        sessions: &mut [R],
    ) -> Result<(), LabError> {
        let prompt = self.job.plan.prompt;
        for (seat, session) in seats.iter_mut().zip(sessions.iter_mut()) {
            let started = Instant::now();
            let done = session.prefill(&pass.inputs[..prompt], self.cancel);
            done.map_err(|error| pass.engine(seat.setup, error))?;
            self.book(&mut seat.trace.many, prompt, started.elapsed())?;
            if self.job.compares {
                session.observe();
            }
        }
        for row in prompt..pass.inputs.len() {
            let scored = row >= pass.window.first_row;
            self.base.clear();
            for (index, (seat, session)) in seats.iter_mut().zip(sessions.iter_mut()).enumerate() {
                let started = Instant::now();
                let logits =
                    session.decode(pass.inputs[row]).map_err(|error| pass.engine(seat.setup, error))?;
                let took = started.elapsed();
                if scored {
                    self.score(pass, row, 0, logits, index, seat)?;
                }
                self.book(&mut seat.trace.single, 1, took)?;
            }
            if scored {
                self.missed(pass, seats, sessions)?;
            }
        }
        Ok(())
    }

    /// What each setup made the token just fed miss of the attention that the full cache gives.
    fn missed(&self, pass: &Pass<'_>, seats: &mut [Seat<'_>], sessions: &mut [R]) -> Result<(), LabError> {
        let (Some((base, others)), Some((full, seats))) =
            (sessions.split_first_mut(), seats.split_first_mut())
        else {
            return Ok(());
        };
        if self.job.compares && full.setup.cache == CacheSpec::Full {
            for (seat, session) in seats.iter_mut().zip(others) {
                let missed = base.missed(session).map_err(|error| pass.engine(seat.setup, error))?;
                seat.trace.missed.push(missed);
            }
        }
        Ok(())
    }

    /// Takes down row `row` of a window, the `held`-th that is held of the reference.
    fn score(
        &mut self,
        pass: &Pass<'_>,
        row: usize,
        held: usize,
        logits: &[f32],
        index: usize,
        seat: &mut Seat<'_>,
    ) -> Result<(), LabError> {
        let scored = Scored::new(logits).ok_or_else(|| pass.not_finite(seat.setup, row))?;
        seat.trace.nll.push(scored.nll(pass.target(row)));
        match (self.job.compares, index) {
            (false, _) => {}
            (true, 0) => self.base.push(&scored),
            (true, _) => {
                let base = self.base.row(held, logits.len());
                seat.trace.divergence.push(base.divergence(&scored));
                seat.trace.same_top += usize::from(base.top() == scored.top());
            }
        }
        Ok(())
    }

    fn book(&mut self, rate: &mut Rate, tokens: usize, time: Duration) -> Result<(), LabError> {
        rate.tokens += tokens;
        rate.time += time;
        self.progress.done += tokens;
        (self.watch)(self.progress);
        match self.cancel.load(Ordering::Relaxed) {
            true => Err(LabError::Cancelled),
            false => Ok(()),
        }
    }
}
