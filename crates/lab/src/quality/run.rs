//! Windows through sessions, all setups in lockstep: each sees the same tokens in the same minutes, and the divergence
//! from the reference needs no stored logits.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use roofline_engine::{CacheBytes, EngineError, Model, Session, SessionOptions};

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
    let places = plan.places(texts)?;
    let all: Vec<&Setup> = reference.into_iter().chain(setups).collect();
    let longest = places.iter().map(|place| place.window.len()).max().unwrap_or(0);
    plan.check(texts, model.config().context_length, &all)?;

    let measured_at = timestamp::rfc3339(SystemTime::now());
    let fed: usize = places.iter().map(|place| place.window.len()).sum();
    let progress = Progress { done: 0, all: fed * all.len() };
    let compares = reference.is_some();
    let mut runner =
        Runner { model, plan, longest, compares, cancel, watch, progress, base: Base::default() };
    let mut seats: Vec<Seat> = all.iter().map(|&setup| Seat { setup, trace: Trace::default() }).collect();
    for (index, place) in places.iter().enumerate() {
        runner.window(index, place, &texts[place.text], &mut seats)?;
    }

    let blocks = report::blocks(&places);
    let mut rows = seats.iter().map(|seat| {
        let base = compares.then(|| &seats[0].trace);
        let base = base.filter(|base| !std::ptr::eq(*base, &seat.trace));
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

struct Runner<'a> {
    model: &'a Arc<Model>,
    plan: &'a Plan,
    longest: usize,
    compares: bool,
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

impl Runner<'_> {
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
        let mut sessions =
            seats.iter().map(|seat| self.session(seat.setup)).collect::<Result<Vec<_>, _>>()?;
        match self.plan.mode {
            Mode::Parallel => self.parallel(&pass, seats, &mut sessions)?,
            Mode::Decode => self.decode(&pass, seats, &mut sessions)?,
        }
        for (seat, session) in seats.iter_mut().zip(&sessions) {
            let (most, bytes) = (&mut seat.trace.kv, session.cache_bytes());
            most.live = most.live.max(bytes.live);
            most.committed = most.committed.max(bytes.committed);
            most.peak = most.peak.max(bytes.peak);
        }
        Ok(())
    }

    fn session(&self, setup: &Setup) -> Result<Session, LabError> {
        let options = SessionOptions {
            cache: setup.cache,
            kv_format: setup.kv_format,
            context: Some(self.longest),
            chunk: self.plan.chunk,
        };
        Ok(Session::new(self.model.clone(), options)?)
    }

    /// Rows that are not scored first, without logits; the others in pieces, each by every setup.
    fn parallel(
        &mut self,
        pass: &Pass<'_>,
        seats: &mut [Seat<'_>],
        sessions: &mut [Session],
    ) -> Result<(), LabError> {
        let first = pass.window.first_row;
        for (seat, session) in seats.iter_mut().zip(sessions.iter_mut()) {
            for chunk in pass.inputs[..first].chunks(self.plan.chunk) {
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
        let vocab = self.model.config().vocab_size;
        (PIECE_BYTES / (4 * vocab)).clamp(1, self.plan.chunk)
    }

    fn rows(
        &mut self,
        pass: &Pass<'_>,
        rows: Range<usize>,
        index: usize,
        seat: &mut Seat<'_>,
        session: &mut Session,
    ) -> Result<(), LabError> {
        let mut scoring = Duration::ZERO;
        let mut failed = None;
        let started = Instant::now();
        let done = session.prefill_logits(&pass.inputs[rows.clone()], &mut |row, logits| {
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
        sessions: &mut [Session],
    ) -> Result<(), LabError> {
        let prompt = self.plan.prompt;
        for (seat, session) in seats.iter_mut().zip(sessions.iter_mut()) {
            let started = Instant::now();
            session.prefill(&pass.inputs[..prompt]).map_err(|error| pass.engine(seat.setup, error))?;
            self.book(&mut seat.trace.many, prompt, started.elapsed())?;
        }
        for row in prompt..pass.inputs.len() {
            self.base.clear();
            for (index, (seat, session)) in seats.iter_mut().zip(sessions.iter_mut()).enumerate() {
                let started = Instant::now();
                let logits =
                    session.decode(pass.inputs[row]).map_err(|error| pass.engine(seat.setup, error))?;
                let took = started.elapsed();
                if row >= pass.window.first_row {
                    self.score(pass, row, 0, logits, index, seat)?;
                }
                self.book(&mut seat.trace.single, 1, took)?;
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
        match (self.compares, index) {
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
