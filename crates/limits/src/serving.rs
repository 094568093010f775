//! Limits beyond one user and one step: chunked prefill, batches under latency targets, throughput.

use crate::accounting::Accounting;
use crate::error::{LimitsError, count_in_range, in_range};
use crate::forecast::{Forecast, Rates, Shape};
use crate::memory::{resident_bytes, scratch_bytes};
use crate::report::{LARGEST_BATCH, MOST_TOKENS, Request, decode_shape, ms};
use crate::switches::Switch;
use roofline_model::ModelConfig;
use serde::Serialize;

/// Most steps that a chunked prompt may take in this calculator.
const MOST_STEPS: u64 = 1 << 20;

/// The configuration with a key/value head for every query head.
pub fn without_gqa(config: &ModelConfig) -> ModelConfig {
    ModelConfig { n_kv_heads: config.n_heads, ..config.clone() }
}

/// A request priced once.
struct Priced<'a> {
    request: &'a Request<'a>,
    accounting: Accounting,
    forecast: Forecast,
    rates: Rates,
}

impl<'a> Priced<'a> {
    fn new(request: &'a Request<'a>) -> Result<Priced<'a>, LimitsError> {
        let accounting = Accounting::new(request.config, request.formats, request.precision.kv)?;
        let rates = Rates::new(request.hardware, request.precision, request.switches)?;
        let forecast = Forecast::new(&accounting, request.precision, request.switches);
        Ok(Priced { request, accounting, forecast, rates })
    }

    fn scratch(&self, rows: f64, head_rows: f64) -> f64 {
        if self.request.switches.has(Switch::Scratch) {
            scratch_bytes(&self.accounting, rows, head_rows)
        } else {
            0.0
        }
    }
}

/// A prompt of one sequence, a chunk at a time. Every chunk reads all weights again, and only the last one the head.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ChunkedPrefill {
    /// Tokens per chunk.
    pub chunk: u64,
    /// Steps.
    pub steps: u64,
    /// Milliseconds: the sum of the steps' limits.
    pub limit_ms: f64,
    /// Milliseconds of the prompt in one step.
    pub whole_ms: f64,
    /// Bytes of activations of a chunk and logits.
    pub scratch_bytes: f64,
    /// Whether a chunk at the start of the prompt computes at least as long as it reads.
    pub compute_bound: bool,
}

/// The limit of a prompt in chunks of `chunk` tokens.
pub fn chunked_prefill(request: &Request<'_>, chunk: u64) -> Result<ChunkedPrefill, LimitsError> {
    let prompt = count_in_range("the prompt in tokens", request.workload.prompt, 1, MOST_TOKENS)?;
    let chunk = count_in_range("the chunk in tokens", chunk, 1, MOST_TOKENS)?.min(prompt);
    let steps = count_in_range("the steps of a chunked prompt", prompt.div_ceil(chunk), 1, MOST_STEPS)?;
    let priced = Priced::new(request)?;
    let limit = |rows: u64, before: u64, head: f64| {
        let shape = Shape { rows: rows as f64, kv_before: before as f64, segments: 1.0, head_rows: head };
        priced.forecast.time(shape, &priced.rates)
    };
    let mut seconds = 0.0;
    for step in 0..steps {
        let before = step * chunk;
        let rows = chunk.min(prompt - before);
        seconds += limit(rows, before, if step + 1 == steps { 1.0 } else { 0.0 }).limit_s();
    }
    let first = limit(chunk, 0, 0.0);
    Ok(ChunkedPrefill {
        chunk,
        steps,
        limit_ms: ms(seconds),
        whole_ms: ms(limit(prompt, 0, 1.0).limit_s()),
        scratch_bytes: priced.scratch(chunk as f64, 1.0),
        compute_bound: first.compute_s >= first.read_s,
    })
}

/// The smallest chunk that is bound by arithmetic, or `None` when none is: larger ones cost memory and gain nothing.
pub fn smallest_chunk(request: &Request<'_>) -> Result<Option<u64>, LimitsError> {
    let priced = Priced::new(request)?;
    let turning = priced.forecast.turning_point(&priced.rates, |_| 0.0);
    Ok(turning.map(|n| (n.ceil() as u64).max(1)))
}

/// What users of a shared machine are promised.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Targets {
    /// Longest time to first token, seconds.
    pub ttft_s: f64,
    /// Longest time per further token, seconds.
    pub tpot_s: f64,
}

impl Default for Targets {
    /// The article's: 2 to 3 s (the stricter), and 50 ms.
    fn default() -> Targets {
        Targets { ttft_s: 2.0, tpot_s: 0.05 }
    }
}

/// What a step of many users is limited by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BatchBound {
    /// One prompt alone takes longer than the TTFT target.
    Ttft,
    /// A larger batch would exceed the TPOT target.
    Tpot,
    /// A larger batch would not fit in memory.
    Memory,
    /// Not limited below the largest batch considered.
    Nothing,
}

/// A batch in steady state: each sequence has a prompt and an output of given lengths, and a new one comes as one ends.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Batch {
    /// Sequences at once.
    pub sequences: u64,
    /// Milliseconds of a step: one token for each, and the share of new prompts that keeps the batch full.
    pub step_ms: f64,
    /// Output tokens per second over all sequences; no schedule can give more at this batch.
    pub tokens_per_s: f64,
    /// Why it is not larger.
    pub bound: BatchBound,
}

/// Limits of serving many users.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Serving {
    /// The promises.
    pub targets: Targets,
    /// Prompt tokens of a sequence.
    pub prompt: u64,
    /// Output tokens of a sequence.
    pub output: u64,
    /// Milliseconds to first token of one prompt that has the machine to itself.
    pub ttft_ms: f64,
    /// Prompts that can be answered together within the TTFT target when they arrive at once.
    pub simultaneous_prompts: u64,
    /// Sequences that fit in memory at full length; `None` when the memory is not known.
    pub batch_by_memory: Option<u64>,
    /// The largest batch that keeps both targets, with its throughput.
    pub interactive: Option<Batch>,
    /// The batch that memory allows, with no targets: the bound of offline work.
    pub offline: Option<Batch>,
}

/// The limits of serving `request`'s model to users with prompts and outputs of the given lengths.
pub fn serving(request: &Request<'_>, output: u64, targets: Targets) -> Result<Serving, LimitsError> {
    let prompt = count_in_range("the prompt in tokens", request.workload.prompt, 1, MOST_TOKENS)?;
    count_in_range("the output in tokens", output, 1, MOST_TOKENS)?;
    in_range("the TTFT target in seconds", targets.ttft_s, 1e-6, 1e6)?;
    in_range("the TPOT target in seconds", targets.tpot_s, 1e-6, 1e6)?;
    let users = Users { priced: Priced::new(request)?, prompt: prompt as f64, output: output as f64 };
    let by_memory = users.priced.rates.memory.map(|bytes| largest(|b| users.memory(b) <= bytes));
    let fits = by_memory.unwrap_or(LARGEST_BATCH);
    let ttft_s = users.prefill_s(1);
    let keeps = largest(|b| users.step_s(b) <= targets.tpot_s);
    let interactive = if ttft_s > targets.ttft_s {
        users.batch(0, BatchBound::Ttft)
    } else if keeps < fits {
        users.batch(keeps, BatchBound::Tpot)
    } else {
        users.batch(fits, bound_of(by_memory))
    };
    Ok(Serving {
        targets,
        prompt,
        output,
        ttft_ms: ms(ttft_s),
        simultaneous_prompts: largest(|b| users.prefill_s(b) <= targets.ttft_s).min(fits),
        batch_by_memory: by_memory,
        interactive,
        offline: users.batch(fits, bound_of(by_memory)),
    })
}

fn bound_of(by_memory: Option<u64>) -> BatchBound {
    match by_memory {
        Some(batch) if batch < LARGEST_BATCH => BatchBound::Memory,
        _ => BatchBound::Nothing,
    }
}

/// The largest batch for which `holds`, which must hold for every smaller one too; 0 when it holds for none.
fn largest(holds: impl Fn(u64) -> bool) -> u64 {
    let (mut low, mut high) = (0, LARGEST_BATCH + 1); // holds at low, not at high
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if holds(middle) { low = middle } else { high = middle }
    }
    low
}

struct Users<'a> {
    priced: Priced<'a>,
    prompt: f64,
    output: f64,
}

impl Users<'_> {
    /// Weights, scratch and the caches of `batch` sequences at full length.
    fn memory(&self, batch: u64) -> f64 {
        let p = &self.priced;
        let nominal = p.request.precision.nominal_weight_bits;
        let weights = resident_bytes(&p.accounting, &p.forecast, p.request.switches, nominal);
        let b = batch as f64;
        weights + p.scratch(b, b) + p.forecast.kv_bytes_per_token() * (self.prompt + self.output) * b
    }

    fn prefill_s(&self, batch: u64) -> f64 {
        let b = batch as f64;
        let shape = Shape { rows: self.prompt, kv_before: 0.0, segments: b, head_rows: b };
        self.priced.forecast.time(shape, &self.priced.rates).limit_s()
    }

    /// The average step of a sequence's life, which is one step of prompt and `output − 1` of decode: of `batch` sequences,
    /// 1/output are at their prompt and the others halfway through their output. The weights are read once for all.
    fn step_s(&self, batch: u64) -> f64 {
        let (p, b) = (&self.priced, batch as f64);
        let arriving = b / self.output;
        let decode = Shape {
            rows: 1.0,
            kv_before: self.prompt + self.output / 2.0,
            segments: b - arriving,
            head_rows: b - arriving,
        };
        let prompt = Shape { rows: self.prompt, kv_before: 0.0, segments: 1.0, head_rows: 1.0 };
        let time = p.forecast.time(decode, &p.rates);
        let compute = time.compute_s + arriving * p.forecast.time(prompt, &p.rates).compute_s;
        let written = arriving * self.prompt * p.forecast.kv_bytes_per_token() / p.rates.bandwidth;
        (time.read_s + written).max(compute)
    }

    fn batch(&self, sequences: u64, bound: BatchBound) -> Option<Batch> {
        if sequences == 0 {
            return None;
        }
        let step_s = self.step_s(sequences);
        Some(Batch { sequences, step_ms: ms(step_s), tokens_per_s: sequences as f64 / step_s, bound })
    }
}

/// The step that a decode of `batch` sequences at `position` takes, in milliseconds: what a batch costs its users.
pub fn batch_step_ms(request: &Request<'_>, batch: u64, position: u64) -> Result<f64, LimitsError> {
    count_in_range("the batch", batch, 1, LARGEST_BATCH)?;
    count_in_range("a position", position, 1, MOST_TOKENS)?;
    let priced = Priced::new(request)?;
    Ok(ms(priced.forecast.time(decode_shape(position, batch as f64), &priced.rates).limit_s()))
}
