//! The limits of one model at one precision on one device.

use crate::accounting::{Accounting, Parameters, WeightFormats};
use crate::error::{LimitsError, count_in_range};
use crate::forecast::{Forecast, Load, Rates, Shape, StepTime, total_bytes};
use crate::hardware::{Confidence, Hardware, NumberType};
use crate::memory::memory;
pub use crate::memory::{Capacity, Memory};
use crate::precision::Precision;
use crate::switches::{Switch, Switches};
use roofline_model::ModelConfig;
use roofline_model::operator::Operator;
use serde::Serialize;

/// Longest prompt and context that a question may have.
pub const MOST_TOKENS: u64 = 1 << 30;
/// Largest batch that a question may have.
pub const LARGEST_BATCH: u64 = 1 << 20;

/// What is to be run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Workload {
    /// Tokens of the prompt.
    pub prompt: u64,
    /// Tokens in the cache for which memory is counted.
    pub context: u64,
    /// Sequences at once.
    pub batch: u64,
    /// Prompt tokens per step; sizes the scratch.
    pub chunk: u64,
    /// Positions (1 is the first token) at which decode is timed.
    pub positions: Vec<u64>,
}

impl Default for Workload {
    fn default() -> Workload {
        Workload { prompt: 1000, context: 4096, batch: 1, chunk: 512, positions: vec![1, 1000, 4096] }
    }
}

impl Workload {
    fn validate(&self) -> Result<(), LimitsError> {
        count_in_range("the prompt in tokens", self.prompt, 1, MOST_TOKENS)?;
        count_in_range("the context in tokens", self.context, 1, MOST_TOKENS)?;
        count_in_range("the batch", self.batch, 1, LARGEST_BATCH)?;
        count_in_range("the chunk in tokens", self.chunk, 1, MOST_TOKENS)?;
        for &position in &self.positions {
            count_in_range("a position", position, 1, MOST_TOKENS)?;
        }
        Ok(())
    }
}

/// One question.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The model.
    pub config: &'a ModelConfig,
    /// The format of each tensor; usually [`Request::new`] takes it from the precision.
    pub formats: WeightFormats<'a>,
    /// The device.
    pub hardware: &'a Hardware,
    /// Arithmetic, cache and nominal widths.
    pub precision: &'a Precision,
    /// What is to be run.
    pub workload: &'a Workload,
    /// Which departures from the paper count.
    pub switches: Switches,
}

impl<'a> Request<'a> {
    /// A question whose weight formats are those of `precision`.
    pub fn new(
        config: &'a ModelConfig,
        hardware: &'a Hardware,
        precision: &'a Precision,
        workload: &'a Workload,
        switches: Switches,
    ) -> Request<'a> {
        let formats = WeightFormats::Recipe(precision.weights);
        Request { config, formats, hardware, precision, workload, switches }
    }
}

/// What stands in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// Memory bandwidth.
    Bandwidth,
    /// Arithmetic.
    Compute,
    /// The operator costs nothing.
    Nothing,
}

/// Bytes, FLOPs and time of one operator over all layers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct OperatorLimit {
    /// The operator.
    pub operator: Operator,
    /// Bytes read and written.
    pub bytes: f64,
    /// FLOPs.
    pub flops: f64,
    /// FLOPs per byte; 0 when it moves nothing.
    pub intensity: f64,
    /// Milliseconds to move the bytes.
    pub read_ms: f64,
    /// Milliseconds to compute the FLOPs.
    pub compute_ms: f64,
    /// The larger of the two.
    pub limit_ms: f64,
    /// Which one it is.
    pub bound: Bound,
}

/// The prompt's limit: the whole prompt in one step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Prefill {
    /// Prompt tokens of each sequence.
    pub prompt: u64,
    /// Milliseconds to read weights and move K and V.
    pub read_ms: f64,
    /// Milliseconds of all FLOPs if every row went through the head.
    pub compute_coarse_ms: f64,
    /// Milliseconds of the FLOPs, only the last row through the head.
    pub compute_fine_ms: f64,
    /// Time to first token: the larger of reading and computing (fine). No run can be faster.
    pub ttft_ms: f64,
    /// The same if each operator waits for its own bytes: closer to what an engine without prefetch across operators can do.
    pub ttft_by_operator_ms: f64,
    /// What `ttft_ms` is bound by.
    pub bound: Bound,
    /// Prompt tokens per second at that limit, over all sequences.
    pub tokens_per_s: f64,
}

/// Rows at which computing takes as long as reading; `null` when reading is slower at any length.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct TurningPoint {
    /// Every row through the head.
    pub coarse: Option<f64>,
    /// Only the last one.
    pub fine: Option<f64>,
    /// No row: every chunk of a prompt but the last.
    pub headless: Option<f64>,
}

/// Decode at one position.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct DecodeAt {
    /// 1 is the first token of the sequence.
    pub position: u64,
    /// Milliseconds to read.
    pub read_ms: f64,
    /// Milliseconds to compute.
    pub compute_ms: f64,
    /// The larger: no run can be faster.
    pub latency_ms: f64,
    /// The same if each operator waits for its own bytes.
    pub latency_by_operator_ms: f64,
    /// What it is bound by.
    pub bound: Bound,
    /// Tokens per second over all sequences.
    pub tokens_per_s: f64,
}

/// Decode: latency(n) = B + (n − 1)/W while reading is what takes time.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Decode {
    /// W: tokens of context after which a step takes 1 ms longer.
    pub w_tokens_per_ms: f64,
    /// B: milliseconds of the step at position 1.
    pub b_ms: f64,
    /// Latency at the asked positions.
    pub positions: Vec<DecodeAt>,
}

/// The rates that the limits are computed with.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DeviceUsed {
    /// Name.
    pub name: String,
    /// Bytes per second.
    pub bandwidth: f64,
    /// FLOP/s of matrix products.
    pub peak: f64,
    /// Number type of that peak.
    pub peak_type: NumberType,
    /// FLOP/s of attention.
    pub attention_peak: f64,
    /// Number type of that peak.
    pub attention_peak_type: NumberType,
}

/// Everything the calculator says about one question. Times in milliseconds, sizes in bytes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The device's rates.
    pub device: DeviceUsed,
    /// The precision.
    pub precision: Precision,
    /// The workload.
    pub workload: Workload,
    /// Departures from the paper that count.
    pub switches: Switches,
    /// Parameter counts.
    pub parameters: Parameters,
    /// Bytes of K and V per token.
    pub kv_bytes_per_token: f64,
    /// Stored bits per weight over everything resident.
    pub bits_per_weight: f64,
    /// Memory and capacity.
    pub memory: Memory,
    /// The prompt.
    pub prefill: Prefill,
    /// Where the prompt turns from reading to computing.
    pub turning_point: TurningPoint,
    /// Token by token.
    pub decode: Decode,
    /// The prompt, operator by operator.
    pub prefill_operators: Vec<OperatorLimit>,
    /// Decode at the last asked position, operator by operator.
    pub decode_operators: Vec<OperatorLimit>,
    /// What the reader should know: stand-ins, doubtful figures, contexts beyond the model.
    pub notes: Vec<String>,
}

/// Answers one question. Every number in the report is finite.
pub fn report(request: &Request<'_>) -> Result<Report, LimitsError> {
    request.workload.validate()?;
    let accounting = Accounting::new(request.config, request.formats, request.precision.kv)?;
    let rates = Rates::new(request.hardware, request.precision, request.switches)?;
    let forecast = Forecast::new(&accounting, request.precision, request.switches);
    Ok(assemble(request, &accounting, &rates, &forecast))
}

fn assemble(request: &Request<'_>, accounting: &Accounting, rates: &Rates, forecast: &Forecast) -> Report {
    let workload = request.workload;
    let parameters = accounting.parameters();
    let batch = workload.batch as f64;
    let kv_bytes_per_token = forecast.kv_bytes_per_token();
    let prompt_shape = prefill_shape(workload);
    let last = workload.positions.last().copied().unwrap_or(workload.context);
    let step_bandwidth =
        |position| rates.bandwidth_of(total_bytes(&forecast.loads(decode_shape(position, batch))));
    Report {
        device: DeviceUsed {
            name: request.hardware.name.clone(),
            bandwidth: rates.bandwidth,
            peak: rates.matmul,
            peak_type: rates.matmul_type,
            attention_peak: rates.attention,
            attention_peak_type: rates.attention_type,
        },
        precision: request.precision.clone(),
        workload: workload.clone(),
        switches: request.switches,
        parameters,
        kv_bytes_per_token,
        bits_per_weight: accounting.resident_bytes() as f64 * 8.0 / parameters.total as f64,
        memory: memory(request, accounting, rates, forecast),
        prefill: prefill(workload, forecast, rates),
        turning_point: TurningPoint {
            coarse: forecast.turning_point(rates, |n| n),
            fine: forecast.turning_point(rates, |_| 1.0),
            headless: forecast.turning_point(rates, |_| 0.0),
        },
        decode: Decode {
            w_tokens_per_ms: step_bandwidth(last) / 1e3 / (kv_bytes_per_token * batch),
            b_ms: ms(forecast.time(decode_shape(1, batch), rates).limit_s()),
            positions: workload.positions.iter().map(|&p| decode_at(p, batch, forecast, rates)).collect(),
        },
        prefill_operators: operators(prompt_shape, forecast, rates),
        decode_operators: operators(decode_shape(last, batch), forecast, rates),
        notes: notes(request, accounting, rates, step_bandwidth(last)),
    }
}

pub(crate) fn ms(seconds: f64) -> f64 {
    seconds * 1e3
}

pub(crate) fn prefill_shape(workload: &Workload) -> Shape {
    let batch = workload.batch as f64;
    Shape { rows: workload.prompt as f64, kv_before: 0.0, segments: batch, head_rows: batch }
}

/// The step that makes the token after `position` tokens, the newest of which is its input.
pub(crate) fn decode_shape(position: u64, batch: f64) -> Shape {
    Shape { rows: 1.0, kv_before: position as f64 - 1.0, segments: batch, head_rows: batch }
}

fn bound(read: f64, compute: f64) -> Bound {
    if read == 0.0 && compute == 0.0 {
        Bound::Nothing
    } else if compute > read {
        Bound::Compute
    } else {
        Bound::Bandwidth
    }
}

fn prefill(workload: &Workload, forecast: &Forecast, rates: &Rates) -> Prefill {
    let shape = prefill_shape(workload);
    let time = forecast.time(shape, rates);
    let coarse = forecast.time(Shape { head_rows: shape.rows * shape.segments, ..shape }, rates);
    Prefill {
        prompt: workload.prompt,
        read_ms: ms(time.read_s),
        compute_coarse_ms: ms(coarse.compute_s),
        compute_fine_ms: ms(time.compute_s),
        ttft_ms: ms(time.limit_s()),
        ttft_by_operator_ms: ms(time.by_operator_s),
        bound: bound(time.read_s, time.compute_s),
        tokens_per_s: shape.rows * shape.segments / time.limit_s(),
    }
}

fn decode_at(position: u64, batch: f64, forecast: &Forecast, rates: &Rates) -> DecodeAt {
    let time: StepTime = forecast.time(decode_shape(position, batch), rates);
    DecodeAt {
        position,
        read_ms: ms(time.read_s),
        compute_ms: ms(time.compute_s),
        latency_ms: ms(time.limit_s()),
        latency_by_operator_ms: ms(time.by_operator_s),
        bound: bound(time.read_s, time.compute_s),
        tokens_per_s: batch / time.limit_s(),
    }
}

fn operators(shape: Shape, forecast: &Forecast, rates: &Rates) -> Vec<OperatorLimit> {
    let loads = forecast.loads(shape);
    let bandwidth = rates.bandwidth_of(total_bytes(&loads));
    let row = |(operator, load): (Operator, Load)| {
        let (read, compute) = (load.bytes / bandwidth, rates.compute_s(operator, load.flops));
        OperatorLimit {
            operator,
            bytes: load.bytes,
            flops: load.flops,
            intensity: if load.bytes > 0.0 { load.flops / load.bytes } else { 0.0 },
            read_ms: ms(read),
            compute_ms: ms(compute),
            limit_ms: ms(read.max(compute)),
            bound: bound(read, compute),
        }
    };
    Operator::ALL.into_iter().zip(loads).map(row).collect()
}

fn notes(
    request: &Request<'_>,
    accounting: &Accounting,
    rates: &Rates,
    decode_bandwidth: f64,
) -> Vec<String> {
    let mut notes = Vec::new();
    let hardware = request.hardware;
    let bits = request.precision.arithmetic_bits;
    let narrow = |number: NumberType| match number {
        NumberType::F32 | NumberType::Tf32 => 32,
        NumberType::Bf16F32 | NumberType::F16F32 | NumberType::F16F16 => 16,
        NumberType::Int4I32 | NumberType::Fp4F32 => 4,
        _ => 8,
    };
    if request.switches.has(Switch::MatrixPeak) && narrow(rates.matmul_type) > bits {
        let used = rates.matmul_type.words();
        notes.push(format!("{} lists no {bits}-bit peak; {used} is used instead", hardware.name));
    }
    if decode_bandwidth > rates.bandwidth {
        let (cache, memory) = (decode_bandwidth / 1e9, rates.bandwidth / 1e9);
        notes.push(format!(
            "a decode step fits in a cache: its {cache:.0} GB/s are the limit, not memory's {memory:.0} GB/s"
        ));
    }
    if hardware.bandwidth.confidence == Confidence::C {
        notes.push(format!("the bandwidth of {} is general knowledge, not read in a source", hardware.name));
    }
    if hardware.peaks.get(&rates.matmul_type).is_some_and(|p| p.confidence == Confidence::C) {
        notes.push(format!(
            "the {} peak of {} is disputed or general knowledge",
            rates.matmul_type.words(),
            hardware.name
        ));
    }
    if hardware.memory.len() > 1 {
        notes.push(format!("{} is sold with several memory sizes; the largest is used", hardware.name));
    }
    if rates.memory.is_none() {
        notes.push(format!(
            "the memory of {} is not known; give it in a hardware file to get a capacity",
            hardware.name
        ));
    }
    let longest = request
        .workload
        .positions
        .iter()
        .copied()
        .chain([request.workload.context, request.workload.prompt])
        .max();
    if let Some(longest) = longest.filter(|&n| n > request.config.context_length as u64) {
        notes.push(format!(
            "{longest} tokens are beyond the model's context of {}",
            request.config.context_length
        ));
    }
    if accounting.dims.experts.is_some() && request.switches.has(Switch::ActiveExperts) {
        notes.push(
            "touched experts are their expectation under even routing, n(1 - (1 - k/n)^rows)".to_owned(),
        );
    }
    notes
}
