//! One run of one cell: a session, a prompt, tokens with their times, and everything counted on the way.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use roofline_engine::sampling::{Sampler, SamplerConfig};
use roofline_engine::{
    CacheSpec, Cpu, EngineError, FinishReason, GenerateOptions, Generation, GenerationInput, KvFormats,
    Model, Session, SessionOptions, TokenEvent,
};
use roofline_limits::Hardware;
use roofline_model::Operator;

use super::error::ExperimentError;
use super::figures::{self, Figures};
use super::hash::hash_of_ids;
use super::ordered::Ordered;
use super::plan::Cell;
use super::prompt::{self, Prompt, Source};
use super::rows::{Bytes, Measurement};
use super::spec::{Prompts, Spec};
use super::subjects::Subject;
use super::surroundings::Moment;
use crate::environment::resident::{peak_rss, reset_peak_rss};
use crate::error::LabError;
use crate::timestamp;

/// Stages and wall time of one run must agree this well.
pub const ADDS_UP: f64 = 0.02;

/// Threads with their kernels, and the roof that as many threads reach.
pub struct Bay {
    /// How many.
    pub threads: usize,
    /// The team.
    pub cpu: Cpu,
    /// What the probes of as many threads reached.
    pub device: Hardware,
}

/// Where a run stands in the experiment.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// Its round, or its number among the warm-ups.
    pub repeat: usize,
    /// Its number among all runs.
    pub order: usize,
    /// Whether it only warms up.
    pub warm_up: bool,
}

/// Everything that runs need and share.
pub struct Stand<'a> {
    spec: &'a Spec,
    subjects: &'a [Subject],
    bays: &'a [Bay],
    cancel: &'a AtomicBool,
    models: HashMap<(usize, usize), Arc<Model>>, // (subject, threads)
    seats: HashMap<String, Session>,             // with their depth filled
    prompts: HashMap<(usize, usize, u64), Prompt>, // (subject, tokens, item)
}

/// Passage for the tokens that are in the cache before the clock starts; no prompt uses it.
const DEPTH_ITEM: u64 = 10_000;

impl<'a> Stand<'a> {
    /// With nothing filled yet.
    pub fn new(
        spec: &'a Spec,
        subjects: &'a [Subject],
        bays: &'a [Bay],
        cancel: &'a AtomicBool,
    ) -> Stand<'a> {
        let (models, seats, prompts) = (HashMap::new(), HashMap::new(), HashMap::new());
        Stand { spec, subjects, bays, cancel, models, seats, prompts }
    }

    /// The model of a cell.
    ///
    /// # Errors
    /// [`ExperimentError::Spec`] for a cell of another experiment.
    pub fn subject(&self, cell: &Cell) -> Result<usize, LabError> {
        let wanted = (cell.text("model"), cell.text("precision"));
        let found = self.subjects.iter().position(|s| (s.name.as_str(), s.precision.as_str()) == wanted);
        found.ok_or_else(|| ExperimentError::Spec(format!("{} was not loaded", wanted.0)).into())
    }

    /// Why `cell` cannot run on its model, if it cannot.
    ///
    /// # Errors
    /// As [`Stand::subject`].
    pub fn beyond(&self, cell: &Cell) -> Result<Option<String>, LabError> {
        let subject = &self.subjects[self.subject(cell)?];
        if let Some(why) = cell.beyond(&subject.name, subject.model.config().context_length) {
            return Ok(Some(why));
        }
        // A policy may not fit the geometry; the engine says so when it makes the session.
        match Session::new(subject.model.clone(), session_options(cell)?) {
            Ok(_) => Ok(None),
            Err(error) => Ok(Some(error.to_string())),
        }
    }

    fn bay(&self, cell: &Cell) -> Result<&'a Bay, LabError> {
        let threads = cell.count("threads");
        let found = self.bays.iter().find(|bay| bay.threads == threads);
        found.ok_or_else(|| ExperimentError::Spec(format!("{threads} threads were not started")).into())
    }

    fn model(&mut self, subject: usize, bay: &Bay) -> Arc<Model> {
        let made = || Arc::new(self.subjects[subject].model.with_cpu(bay.cpu.clone()));
        self.models.entry((subject, bay.threads)).or_insert_with(made).clone()
    }

    /// Runs `cell` once.
    ///
    /// # Errors
    /// What the engine refuses or fails at; [`LabError::Cancelled`], and then there is no row.
    pub fn run(&mut self, cell: &Cell, place: Place) -> Result<Measurement, LabError> {
        let (subject, bay) = (self.subject(cell)?, self.bay(cell)?);
        let model = self.model(subject, bay);
        self.seat(cell, subject, &model)?;
        let prompt = self.prompt(subject, cell.count("prompt"), cell.count("item") as u64)?;
        let options = session_options(cell)?;
        let sampling = sampler_config(self.spec, cell);
        let seat = self.seats.get(&seat_name(cell));
        let subject = &self.subjects[subject];
        let stop_ids = subject.stop_ids(cell.text("eos"));
        let resettable = reset_peak_rss();
        let before = Moment::now();

        let called = Instant::now();
        let mut session = match seat {
            Some(seat) => seat.fork()?,
            None => Session::new(model.clone(), options)?,
        };
        let session_there = called.elapsed();
        let ids = match (&prompt.text, subject.files.tokenizer()) {
            (Some(text), Some(tokenizer)) => {
                let mut ids = prompt::encode(tokenizer, text)?;
                ids.truncate(prompt.ids.len());
                ids
            }
            _ => prompt.ids.clone(),
        };
        let tokenized = called.elapsed();
        let mut sampler = Sampler::new(sampling, model.config().vocab_size, session.context())
            .map_err(EngineError::from)?;
        let input = GenerationInput {
            session: &mut session,
            sampler: &mut sampler,
            tokenizer: subject.files.tokenizer(),
            prompt: &ids,
            options: GenerateOptions {
                max_new_tokens: Some(cell.most_tokens()),
                stop_ids,
                ..GenerateOptions::default()
            },
            cancel: self.cancel,
            called,
        };
        let mut generation = Generation::start(input, &mut |_| {})?;
        let mut events: Vec<TokenEvent> = Vec::with_capacity(cell.most_tokens());
        for event in generation.by_ref() {
            events.push(event?);
        }
        let wall = called.elapsed();

        let after = Moment::now();
        if generation.finish() == Some(FinishReason::Cancelled) {
            return Err(LabError::Cancelled);
        }
        let kv = generation.session().cache_bytes();
        let facts = model.facts();
        let bytes = Bytes {
            weights: facts.weight_bytes,
            kv_live: kv.live,
            kv_committed: kv.committed,
            kv_peak: kv.peak,
            peak_rss: if resettable { peak_rss() } else { None },
        };
        let timed = generation.stages();
        let stages: Ordered<f64> = [
            ("session", session_there),
            ("tokenize", tokenized - session_there),
            ("sampler", timed.before.saturating_sub(tokenized)),
            ("prefill", timed.prefill),
            ("decode", timed.decode),
            ("sampling", timed.sampling),
            ("text", timed.text),
        ]
        .into_iter()
        .map(|(name, took): (_, Duration)| (name, figures::rounded(took.as_secs_f64())))
        .collect();
        let staged: f64 = stages.iter().map(|(_, seconds)| seconds).sum();
        let unaccounted = 1.0 - staged / wall.as_secs_f64();
        let tokens: Vec<f64> = events.iter().map(|event| event.at.as_secs_f64()).collect();
        let generated: Vec<u32> = events.iter().map(|event| event.id).collect();
        let figures = Figures {
            cell,
            subject,
            device: &bay.device,
            tokens: &tokens,
            wall,
            prefill_time: timed.prefill,
            prefill: generation.prefill_meter(),
            decode: generation.decode_meter(),
            bytes: &bytes,
        };
        let operators = |operator: Operator| {
            let took = generation.decode_meter().time(operator);
            (!took.is_zero()).then(|| (operator.name(), figures::rounded(took.as_secs_f64())))
        };
        Ok(Measurement {
            cell: cell.values.clone(),
            cell_hash: cell.hash.clone(),
            repeat: place.repeat,
            order: place.order,
            warm_up: place.warm_up,
            model: subject.facts.clone(),
            prompt_hash: hash_of_ids(&ids),
            prompt_tokens: ids.len(),
            seed: sampler_seed(self.spec, cell),
            started: timestamp::rfc3339(before.wall()),
            wall_s: figures::rounded(wall.as_secs_f64()),
            metrics: figures.metrics(place.warm_up)?,
            limits: if place.warm_up { Ordered::default() } else { figures.limits()? },
            stages,
            unaccounted: figures::rounded(unaccounted),
            adds_up: unaccounted.abs() <= ADDS_UP,
            tokens: match place.warm_up {
                true => Vec::new(),
                false => tokens.iter().map(|at| (at * 1e7).round() / 1e7).collect(),
            },
            decode_operators: match place.warm_up {
                true => Ordered::default(),
                false => Operator::ALL.into_iter().filter_map(operators).collect(),
            },
            finish: generation.finish().map(finish_name),
            output_hash: Some(hash_of_ids(&generated)),
            surroundings: before.until(&after),
            bytes,
        })
    }

    /// Makes the session that has seen the cell's depth, if it has one.
    fn seat(&mut self, cell: &Cell, subject: usize, model: &Arc<Model>) -> Result<(), LabError> {
        let depth = cell.count("depth");
        let name = seat_name(cell);
        if depth == 0 || self.seats.contains_key(&name) {
            return Ok(());
        }
        let ids = self.prompt(subject, depth, DEPTH_ITEM)?.ids;
        let mut session = Session::new(model.clone(), session_options(cell)?)?;
        let cancel = self.cancel;
        session.prefill_with(&ids, &mut |_| match cancel.load(Ordering::Relaxed) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        })?;
        self.seats.insert(name, session);
        Ok(())
    }

    fn prompt(&mut self, subject: usize, tokens: usize, item: u64) -> Result<Prompt, LabError> {
        let key = (subject, tokens, item);
        if let Some(prompt) = self.prompts.get(&key) {
            return Ok(prompt.clone());
        }
        let of = &self.subjects[subject];
        let source = match of.files.tokenizer() {
            Some(tokenizer) if self.spec.prompts == Prompts::Text && !of.made_up() => {
                Source::Prose(tokenizer)
            }
            _ => Source::Random(of.model.config().vocab_size),
        };
        let prompt = prompt::prompt(&source, tokens, item, self.spec.seed)?;
        self.prompts.insert(key, prompt.clone());
        Ok(prompt)
    }
}

/// Cells that agree in this share a filled session.
fn seat_name(cell: &Cell) -> String {
    cell.words(&["model", "precision", "threads", "kv_type", "chunk", "depth"]) + "; " + &cell.cache()
}

fn session_options(cell: &Cell) -> Result<SessionOptions, LabError> {
    let cache: CacheSpec = cell.cache().parse().map_err(EngineError::from)?;
    let kv_format: KvFormats =
        cell.text("kv_type").parse().map_err(|error| ExperimentError::Spec(format!("kv_type: {error}")))?;
    Ok(SessionOptions { cache, kv_format, context: None, chunk: cell.count("chunk") })
}

/// The same for every cap, policy and repetition of a passage, so that texts differ by what is asked about only.
fn sampler_seed(spec: &Spec, cell: &Cell) -> u64 {
    spec.seed.wrapping_add(cell.count("item") as u64)
}

fn sampler_config(spec: &Spec, cell: &Cell) -> SamplerConfig {
    let temperature = Some(spec.temperature as f32);
    SamplerConfig { temperature, seed: sampler_seed(spec, cell), ..SamplerConfig::default() }
}

fn finish_name(finish: FinishReason) -> String {
    match finish {
        FinishReason::ContextFull => "context_full".to_string(),
        other => other.name().to_string(),
    }
}
