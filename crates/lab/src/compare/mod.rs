//! Roofline beside its peers: the same file, the same token ids, the same threads, in turn within the same minutes.
//!
//! Every round runs Roofline, then each peer, once per length and depth: A B A B. A run takes in its depth untimed, then
//! the prompt at once and the decode tokens one by one, each timed; neither side tokenizes or samples, and logits are
//! computed after the prompt and after every decode token. Ratios are taken over the pairs of the same round, so that a
//! slow minute slows both sides of a pair. The rows are those of an experiment with the axis `engine`.

mod driver;
mod error;
mod findings;
mod llama_bench;
mod own;
mod peer;

pub use error::CompareError;
pub use peer::{Kind, Places};

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use roofline_engine::{Arithmetic, Cpu, EmbeddedModel, Isa, KvFormat};

use crate::environment::Environment;
use crate::error::LabError;
use crate::experiment::rows::{
    About, Bytes, Header, Measurement, Metric, ModelFacts, Note, Row, SCHEMA, Surroundings, Value, View,
};
use crate::experiment::subjects::Workshop;
use crate::experiment::surroundings::{Moment, complaints};
use crate::experiment::writer::Writer;
use crate::experiment::{Analysis, Ordered, Prompts, Recording, Spec, hash_of, hash_of_ids};
use crate::machine;
use crate::statistics::Random;
use crate::timestamp;
use own::Own;
use peer::{Load, Peer, Times};

/// What to compare.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// File or folder that all engines read.
    pub model: String,
    /// With whom.
    pub peers: Vec<Kind>,
    /// Tokens taken in at once.
    pub prompts: Vec<usize>,
    /// Tokens taken in one by one after that.
    pub output: usize,
    /// Tokens in the cache before.
    pub depths: Vec<usize>,
    /// Threads of every engine.
    pub threads: usize,
    /// Format of the KV cache of Roofline and llama.cpp; transformers has its own.
    pub kv_format: KvFormat,
    /// Counted rounds.
    pub repeats: usize,
    /// Rounds before that.
    pub warm_up: usize,
    /// Draws the token ids.
    pub seed: u64,
}

/// What is needed beside the settings.
#[derive(Debug, Clone)]
pub struct Job<'a> {
    /// What to compare.
    pub settings: &'a Settings,
    /// Where the peers are.
    pub places: &'a Places,
    /// The file of rows; nothing may stand there.
    pub path: &'a Path,
    /// The command line that reproduces it.
    pub command: &'a str,
    /// The model that is part of the program.
    pub embedded: EmbeddedModel,
    /// Caps the kernels' instruction set.
    pub isa: Option<Isa>,
}

/// Where a comparison stands.
#[derive(Debug, Clone, PartialEq)]
pub enum Progress<'a> {
    /// Something is loaded, started or probed.
    Preparing(&'a str),
    /// A run is about to begin.
    Running {
        /// Runs done, warm-ups too.
        done: usize,
        /// Runs in all.
        runs: usize,
        /// What runs next.
        what: &'a str,
    },
}

/// Rest between two engines: idle threads of the one that ran may still spin for its next call.
const REST: Duration = Duration::from_millis(50);
const MOST_TOKENS: usize = 1 << 20;

impl Settings {
    /// Checks what can be checked before anything is loaded.
    ///
    /// # Errors
    /// Empty lists, counts of zero or beyond reason, a model that a peer does not read.
    pub fn check(&self) -> Result<(), CompareError> {
        let between = |what: &str, given: usize, least: usize, most: usize| match (least..=most)
            .contains(&given)
        {
            true => Ok(()),
            false => Err(CompareError::Setting(format!("{what} {given} is not between {least} and {most}"))),
        };
        for (what, list) in
            [("prompt", self.prompts.len()), ("depth", self.depths.len()), ("peer", self.peers.len())]
        {
            if list == 0 {
                return Err(CompareError::Setting(format!("nothing to compare: give at least one {what}")));
            }
        }
        for &prompt in &self.prompts {
            between("-p", prompt, 1, MOST_TOKENS)?;
        }
        for &depth in &self.depths {
            between("--depth", depth, 0, MOST_TOKENS)?;
        }
        between("-n", self.output, 1, MOST_TOKENS)?;
        between("-r", self.repeats, 2, 10_000)?;
        between("--warm-up", self.warm_up, 1, 100)?;
        for (index, peer) in self.peers.iter().enumerate() {
            if self.peers[..index].contains(peer) {
                return Err(CompareError::Setting(format!("--with: {} is given twice", peer.name())));
            }
            peer.check(&self.model)?;
        }
        Ok(())
    }

    /// Tokens of context that the longest run needs.
    fn context(&self) -> usize {
        let most = |list: &[usize]| list.iter().copied().max().unwrap_or(0);
        most(&self.prompts) + most(&self.depths) + self.output
    }

    fn cells(&self) -> Vec<(usize, usize)> {
        self.depths
            .iter()
            .flat_map(|&depth| self.prompts.iter().map(move |&prompt| (depth, prompt)))
            .collect()
    }

    fn spec(&self, engines: &[String]) -> Spec {
        let whole = |list: &[usize]| list.iter().map(|&n| Value::Whole(n as u64)).collect::<Vec<_>>();
        let axes = [
            ("model", vec![Value::Text(self.model.clone())]),
            ("engine", engines.iter().map(|name| Value::Text(name.clone())).collect()),
            ("threads", whole(&[self.threads])),
            ("kv_type", vec![Value::Text(self.kv_format.name().into())]),
            ("depth", whole(&self.depths)),
            ("prompt", whole(&self.prompts)),
            ("output", whole(&[self.output])),
        ];
        Spec {
            name: "compare".into(),
            question:
                "How fast is Roofline beside its peers, with the same file, token ids and threads, in turn?"
                    .into(),
            analysis: Analysis::Plain,
            axes: axes.into_iter().collect(),
            repeats: self.repeats,
            warm_up: self.warm_up,
            prompts: Prompts::Random,
            temperature: 0.0,
            quality: false,
            seed: self.seed,
        }
    }

    fn view(&self) -> View {
        let y = vec!["prefill_rate".to_string(), "decode_rate".to_string()];
        let along = if self.depths.len() > 1 {
            Some("depth")
        } else if self.prompts.len() > 1 {
            Some("prompt")
        } else {
            None
        };
        match along {
            Some(x) => View { x: x.into(), by: Some("engine".into()), y, log_x: x == "prompt", log_y: false },
            None => View { x: "engine".into(), by: None, y, log_x: false, log_y: false },
        }
    }
}

/// Compares; the rows stand in the file as they come. `cancel` ends it within a run, and what was measured stays.
///
/// # Errors
/// As [`Settings::check`]; a model that cannot be had; everything that a peer or the engine can fail at; a file that
/// stands there already or cannot be written; [`LabError::Cancelled`].
pub fn run(
    job: &Job<'_>,
    cancel: &AtomicBool,
    watch: &mut dyn FnMut(Progress<'_>),
) -> Result<Recording, LabError> {
    let settings = job.settings;
    settings.check()?;
    let mut peers = Vec::with_capacity(settings.peers.len());
    let mut details = Vec::new();
    for &kind in &settings.peers {
        watch(Progress::Preparing(&format!("starting {}", kind.name())));
        let (peer, stands_in) = Peer::start(kind, job.places, cancel)?;
        peers.push(peer);
        details.extend(stands_in);
    }
    let own = load_own(job, cancel, watch)?;
    for peer in &mut peers {
        watch(Progress::Preparing(&format!("loading {} into {}", settings.model, peer.version())));
        let kv_type = settings.kv_format.name();
        let load =
            Load { model: &settings.model, threads: settings.threads, context: settings.context(), kv_type };
        let chosen = peer.load(load)?;
        details.push(format!("{}: {chosen}", peer.version()));
    }
    watch(Progress::Preparing(&format!("probing the machine on {} thread(s)", settings.threads)));
    let machine = machine::measure_quickly(settings.threads)?;
    let mut engines = vec![format!("roofline {}", env!("CARGO_PKG_VERSION"))];
    engines.extend(peers.iter().map(|peer| peer.version().to_string()));
    let spec = settings.spec(&engines);
    let mut writer = Writer::create(job.path)?;
    let header = Header {
        schema: SCHEMA,
        experiment: spec.name.clone(),
        question: spec.question.clone(),
        experiment_hash: spec.hash(),
        seed: spec.seed,
        spec,
        command: job.command.to_string(),
        view: settings.view(),
        environment: Environment::read(),
        machine: Some(machine),
        started: now(),
    };
    writer.write(&Row::Header(Box::new(header)))?;
    for text in details {
        writer.write(&note(About::Environment, text))?;
    }
    let mut rounds =
        Rounds { job, own, peers, engines, writer, order: 0, agreed: (0, 0), complained: Vec::new(), cancel };
    match rounds.all(watch) {
        Ok(()) => rounds.finish(),
        Err(LabError::Cancelled) => {
            rounds.writer.write(&note(About::Interrupted, "ended by the user".into()))?;
            Err(LabError::Cancelled)
        }
        Err(error) => {
            // The rows before stay; the file says why there are no more.
            rounds.writer.write(&note(About::Interrupted, error.to_string()))?;
            Err(error)
        }
    }
}

fn load_own<'a>(
    job: &Job<'_>,
    cancel: &'a AtomicBool,
    watch: &mut dyn FnMut(Progress<'_>),
) -> Result<Own<'a>, LabError> {
    let settings = job.settings;
    let workshop = Workshop::new(job.embedded, settings.threads);
    let cpu = Cpu::with_arithmetic(settings.threads, job.isa, Arithmetic::Fast)?;
    let mut going_on = |what: &str| {
        watch(Progress::Preparing(what));
        if cancel.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let subject = workshop.subject(&settings.model, crate::experiment::axes::STORED, &cpu, &mut going_on)?;
    let limit = subject.model.config().context_length;
    if settings.context() > limit {
        let wanted = settings.context();
        let why =
            format!("the longest run needs {wanted} tokens of context; {} takes {limit}", settings.model);
        return Err(CompareError::Setting(why).into());
    }
    Own::new(subject, settings.kv_format, settings.context(), cancel)
}

fn now() -> String {
    timestamp::rfc3339(SystemTime::now())
}

fn note(about: About, text: String) -> Row {
    Row::Note(Note { about, text, at: now(), cell_hash: None })
}

struct Rounds<'j, 'a> {
    job: &'j Job<'j>,
    own: Own<'a>,
    peers: Vec<Peer<'a>>,
    engines: Vec<String>,
    writer: Writer,
    order: usize,
    /// Runs of peers whose most probable token was Roofline's, and all of them.
    agreed: (usize, usize),
    complained: Vec<String>,
    cancel: &'a AtomicBool,
}

impl Rounds<'_, '_> {
    fn all(&mut self, watch: &mut dyn FnMut(Progress<'_>)) -> Result<(), LabError> {
        let settings = self.job.settings;
        let cells = settings.cells();
        let runs = (settings.warm_up + settings.repeats) * cells.len() * self.engines.len();
        for round in 0..settings.warm_up + settings.repeats {
            let place = (round < settings.warm_up, round.saturating_sub(settings.warm_up));
            let place = if place.0 { (true, round) } else { place };
            for &(depth, prompt) in &cells {
                let mut best = None;
                for engine in 0..self.engines.len() {
                    if self.cancel.load(Ordering::Relaxed) {
                        return Err(LabError::Cancelled);
                    }
                    let what = format!("{}: prompt of {prompt} at {depth}", self.engines[engine]);
                    watch(Progress::Running { done: self.order, runs, what: &what });
                    let times = self.one(engine, depth, prompt, place)?;
                    let own = *best.get_or_insert(times.best);
                    if engine > 0 && times.best.is_some() {
                        self.agreed.0 += usize::from(own == times.best);
                        self.agreed.1 += 1;
                    }
                }
            }
        }
        Ok(())
    }

    fn one(
        &mut self,
        engine: usize,
        depth: usize,
        prompt: usize,
        (warm_up, repeat): (bool, usize),
    ) -> Result<Times, LabError> {
        let settings = self.job.settings;
        let vocab_size = self.own.vocab_size();
        let ids = |stream: u64, count: usize| -> Vec<u32> {
            let mut random = Random(settings.seed ^ stream.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            (0..count).map(|_| random.below(vocab_size) as u32).collect()
        };
        let (before, text, steps) = (ids(1, depth), ids(2, prompt), ids(3, settings.output));
        std::thread::sleep(REST);
        let (began, started) = (Moment::now(), now());
        let times = match engine.checked_sub(1) {
            None => self.own.run(&before, &text, &steps)?,
            Some(peer) => self.peers[peer].run(&before, &text, &steps)?,
        };
        let around = began.until(&Moment::now());
        let cell = self.cell(engine, depth, prompt);
        let bytes = if engine == 0 { self.own.bytes() } else { Bytes::default() };
        let facts = self.own.facts().clone();
        self.complain(&around);
        let at = (repeat, self.order, warm_up);
        let row = measurement(
            cell,
            facts,
            (&times, settings.output),
            at,
            (started, around, bytes),
            &text,
            settings.seed,
        );
        self.writer.write(&Row::Measurement(Box::new(row)))?;
        self.order += 1;
        Ok(times)
    }

    fn cell(&self, engine: usize, depth: usize, prompt: usize) -> Ordered<Value> {
        let settings = self.job.settings;
        let whole = |n: usize| Value::Whole(n as u64);
        let axes = [
            ("model", Value::Text(settings.model.clone())),
            ("engine", Value::Text(self.engines[engine].clone())),
            ("threads", whole(settings.threads)),
            ("kv_type", Value::Text(settings.kv_format.name().into())),
            ("depth", whole(depth)),
            ("prompt", whole(prompt)),
            ("output", whole(settings.output)),
        ];
        axes.into_iter().collect()
    }

    /// Other programs are told once per kind, not once per run. A peer is itself another program: its share of the CPU
    /// is no disturbance.
    fn complain(&mut self, around: &Surroundings) {
        let quiet = Surroundings { others: None, ..around.clone() };
        for text in complaints(&quiet) {
            let kind = text.split(char::is_numeric).next().unwrap_or_default().to_string();
            if !self.complained.iter().any(|have| have.starts_with(&kind)) {
                self.complained.push(text);
            }
        }
    }

    fn finish(mut self) -> Result<Recording, LabError> {
        let (same, all) = self.agreed;
        let what = if same == all {
            "the engines compute the same"
        } else {
            "look at this before believing a ratio"
        };
        if all > 0 {
            let text = format!(
                "after the prompt the most probable token was Roofline's in {same} of {all} runs of peers: {what}"
            );
            self.writer.write(&note(About::Environment, text))?;
        }
        for text in std::mem::take(&mut self.complained) {
            self.writer.write(&note(About::Background, text))?;
        }
        for finding in findings::of(&Recording::read(self.job.path)?) {
            self.writer.write(&Row::Finding(Box::new(finding)))?;
        }
        self.writer.write(&note(About::Finished, "every run is there".into()))?;
        Recording::read(self.job.path)
    }
}

fn measurement(
    cell: Ordered<Value>,
    model: ModelFacts,
    (times, output): (&Times, usize),
    (repeat, order, warm_up): (usize, usize, bool),
    (started, surroundings, bytes): (String, Surroundings, Bytes),
    text: &[u32],
    seed: u64,
) -> Measurement {
    let decode = times.decode_s;
    let tpot = decode / output as f64;
    let mut tokens = if times.steps_s.is_empty() { Vec::new() } else { vec![times.prefill_s] };
    let mut at = times.prefill_s;
    for step in &times.steps_s {
        at += step;
        tokens.push(at);
    }
    let metrics = [
        ("prefill", times.prefill_s, "s"),
        ("prefill_rate", text.len() as f64 / times.prefill_s, "tok/s"),
        ("tpot", tpot, "s"),
        ("decode_rate", 1.0 / tpot, "tok/s"),
    ];
    Measurement {
        cell_hash: hash_of(&cell),
        cell,
        repeat,
        order,
        warm_up,
        model,
        prompt_hash: hash_of_ids(text),
        prompt_tokens: text.len(),
        seed,
        started,
        wall_s: times.prefill_s + decode,
        metrics: metrics.into_iter().map(|(name, value, unit)| (name, Metric::new(value, unit))).collect(),
        stages: [("prefill", times.prefill_s), ("decode", decode)].into_iter().collect(),
        // Both are sums of the same calls: what lies between calls belongs to nobody.
        unaccounted: 0.0,
        adds_up: true,
        tokens: if warm_up { Vec::new() } else { tokens },
        decode_operators: Ordered::default(),
        bytes,
        finish: None,
        output_hash: None,
        limits: Ordered::default(),
        surroundings,
    }
}
