//! What an experiment writes down: one JSON object per line, told apart by `"kind"`. `docs/measuring.md` is the
//! description for readers.
//!
//! Files grow at their end only: a header, then measurements and notes as they come, findings last. Readers ignore
//! fields and kinds they do not know. Times are seconds, sizes bytes, unless a unit stands beside the number.

use serde::{Deserialize, Serialize};

use super::ordered::Ordered;
use super::spec::Spec;
use crate::environment::Environment;
use crate::machine::Machine;

/// Version of this schema. It rises when a reader of the old one would misread a new file.
pub const SCHEMA: u32 = 1;

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Row {
    /// First line: what was asked, where, and how to ask again.
    Header(Box<Header>),
    /// One run of one cell.
    Measurement(Box<Measurement>),
    /// Perplexity and divergence of one configuration.
    Quality(Box<Quality>),
    /// Something that happened on the way.
    Note(Note),
    /// A conclusion. It follows from the measurements: `experiment::findings` computes it again.
    Finding(Box<Finding>),
    /// Of a later version.
    #[serde(other)]
    Unknown,
}

/// What was asked, where, and how to ask again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// [`SCHEMA`] of the writer.
    pub schema: u32,
    /// Name, as `output-tokens`.
    pub experiment: String,
    /// The question it answers, one sentence.
    pub question: String,
    /// Everything that was asked, defaults expanded.
    pub spec: Spec,
    /// Hash of `spec`, 16 hexadecimal digits. Rows of another hash belong to another experiment.
    pub experiment_hash: String,
    /// Draws the order of runs and random token ids.
    pub seed: u64,
    /// The command line that reproduces the file.
    pub command: String,
    /// What the report should draw first.
    pub view: View,
    /// Processor, memory, kernel, build.
    pub environment: Environment,
    /// The machine's own roof, probed before the first run on the largest thread count of the experiment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<Machine>,
    /// When it began, as `2026-11-24T22:00:00Z`.
    pub started: String,
}

/// Which axis and which metrics tell the story.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// Axis along x.
    pub x: String,
    /// Axis whose values are lines of their own; absent when there is one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Metrics along y, most important first.
    pub y: Vec<String>,
    /// Whether x is better read logarithmically.
    #[serde(default)]
    pub log_x: bool,
    /// Whether y is better read logarithmically.
    #[serde(default)]
    pub log_y: bool,
}

/// A value of an axis.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// On or off.
    Flag(bool),
    /// A count.
    Whole(u64),
    /// A measure.
    Real(f64),
    /// A name: model, precision, cache policy.
    Text(String),
}

impl Value {
    /// As a number, if it is one.
    pub fn number(&self) -> Option<f64> {
        match self {
            Value::Whole(n) => Some(*n as f64),
            Value::Real(x) => Some(*x),
            Value::Flag(_) | Value::Text(_) => None,
        }
    }
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Value::Flag(true) => f.pad("on"),
            Value::Flag(false) => f.pad("off"),
            Value::Whole(n) => f.pad(&n.to_string()),
            Value::Real(x) => f.pad(&x.to_string()),
            Value::Text(text) => f.pad(text),
        }
    }
}

/// One run of one cell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// Axis → value, every axis, in the order of the specification.
    pub cell: Ordered<Value>,
    /// Hash of `cell`, whatever the order of its fields.
    pub cell_hash: String,
    /// The round it belongs to: every cell runs once in every round. Warm-ups are counted on their own, from 0.
    pub repeat: usize,
    /// Its place among all runs of the experiment, warm-ups included, from 0.
    pub order: usize,
    /// Whether it only warms up; such a run enters no figure.
    pub warm_up: bool,
    /// What ran.
    pub model: ModelFacts,
    /// Hash of the prompt's token ids.
    pub prompt_hash: String,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Seed of the sampler.
    pub seed: u64,
    /// When it began.
    pub started: String,
    /// From T₀ (the call) until the last token's text was there, by the monotonic clock.
    pub wall_s: f64,
    /// Name → value and unit, as `tpot`, `ttft`, `decode_bandwidth`.
    pub metrics: Ordered<Metric>,
    /// Stage → seconds, in the order in which they happen.
    pub stages: Ordered<f64>,
    /// 1 − Σ stages / wall. Beyond ±2 % the run is flagged: `adds_up` is false and the reports say so.
    pub unaccounted: f64,
    /// Whether the stages add up to the wall time within 2 %.
    pub adds_up: bool,
    /// Tᵢ − T₀ of every generated token, to 0.1 µs. Empty for a warm-up.
    pub tokens: Vec<f64>,
    /// Operator → seconds over all decode steps.
    #[serde(default)]
    pub decode_operators: Ordered<f64>,
    /// What memory held.
    pub bytes: Bytes,
    /// Why the text ended: `eos`, `length`, `stop`, `context_full`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish: Option<String>,
    /// Hash of the generated token ids: equal hashes mean the same text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_hash: Option<String>,
    /// Metric → what it could be at best on the probed machine.
    #[serde(default)]
    pub limits: Ordered<Metric>,
    /// What went on around it.
    #[serde(default)]
    pub surroundings: Surroundings,
}

/// A number with its unit: `s`, `tok/s`, `B/s`, `FLOP/s`, `B`, `1` (a share or ratio), `tok`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// The number.
    pub value: f64,
    /// Its unit.
    pub unit: String,
}

impl Metric {
    /// `value` in `unit`.
    pub fn new(value: f64, unit: &str) -> Metric {
        Metric { value, unit: unit.to_string() }
    }
}

/// A model as it was measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelFacts {
    /// As it was asked for: `demo`, a file or folder, a geometry.
    pub name: String,
    /// The geometry whose weights were made up; absent for a model that was trained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub geometry: Option<String>,
    /// Formats of its weights, by bytes, as `q4_k+q6_k+f32`.
    pub formats: String,
    /// Hash of its tensors' names, formats, shapes and bytes.
    pub hash: String,
    /// Weights.
    pub parameters: u64,
}

/// What memory held.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bytes {
    /// Weights.
    pub weights: u64,
    /// Slots of the KV cache in use at the end.
    pub kv_live: u64,
    /// Pages of the KV cache held at the end.
    pub kv_committed: u64,
    /// Most pages held.
    pub kv_peak: u64,
    /// Most memory the process had resident during the run; absent where the system does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_rss: Option<u64>,
}

/// What went on around a run. Absent is not zero: the system did not say.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Surroundings {
    /// Load average over the minute before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_average: Option<f64>,
    /// Share of CPU time that a hypervisor took, 0 to 1. Counted in ticks of 10 ms: coarse for a short run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stolen: Option<f64>,
    /// Share of CPU time that other programs used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub others: Option<f64>,
    /// Pages that the system swapped in or out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swapped_pages: Option<u64>,
    /// Times the processor was throttled for heat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttled: Option<u64>,
    /// Seconds by which the wall clock ran ahead of the monotonic one; negative when it was set back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_step_s: Option<f64>,
}

/// Perplexity and divergence of one configuration: it does not depend on threads or lengths, so `cell` names fewer axes
/// than a measurement's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// Axis → value of the axes that matter: model, precision, cache, kv_type.
    pub cell: Ordered<Value>,
    /// Hash of `cell`.
    pub cell_hash: String,
    /// What was measured.
    pub model: ModelFacts,
    /// The text it was measured on, and how.
    pub method: String,
    /// Name → value, interval and tokens, as `perplexity`, `kl`.
    pub metrics: Ordered<Quantity>,
    /// How long it took.
    pub wall_s: f64,
}

/// Something that happened on the way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Note {
    /// What it is about.
    pub about: About,
    /// One sentence.
    pub text: String,
    /// When.
    pub at: String,
    /// Hash of the cell it is about, if it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cell_hash: Option<String>,
}

/// What a note is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum About {
    /// Figures that moved from round to round.
    Drift,
    /// Other programs, a hypervisor, swapping, heat.
    Background,
    /// The wall clock was set while runs went on.
    Clock,
    /// The warm-up, and when it settled.
    WarmUp,
    /// Ctrl-C.
    Interrupted,
    /// A file that was continued.
    Resumed,
    /// A cell that cannot run, as one beyond the context.
    Skipped,
    /// A cap that is far too large, or too small.
    Guard,
    /// The environment differs from the header's.
    Environment,
    /// Everything is there.
    Finished,
    /// Of a later version.
    #[serde(other)]
    Unknown,
}

/// A conclusion in one sentence with the numbers it stands on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// Name, the same in every file of an experiment, as `decode_line`.
    pub name: String,
    /// The cells it is about: axes that are fixed, with their values.
    #[serde(default)]
    pub cell: Ordered<Value>,
    /// The conclusion. Says "no difference shown" where the noise floor is not exceeded.
    pub sentence: String,
    /// The numbers.
    #[serde(default)]
    pub values: Ordered<Quantity>,
    /// The curve, where one was fitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fit: Option<Fit>,
}

/// A number with unit, 95 % interval and the samples it rests on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Quantity {
    /// Best estimate.
    pub value: f64,
    /// Its unit.
    pub unit: String,
    /// Lower end of the 95 % interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub low: Option<f64>,
    /// Upper end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub high: Option<f64>,
    /// Samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n: Option<usize>,
}

/// A fitted curve y(x), to be drawn over the points with its residuals below.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fit {
    /// What it is.
    pub form: Form,
    /// Axis or quantity along x, as `output`, or `position` for the tokens of a run.
    pub x: String,
    /// Metric along y, as `tpot`.
    pub y: String,
    /// Unit of y.
    pub y_unit: String,
    /// From the constant upwards; see [`Form`].
    pub coefficients: Vec<f64>,
    /// Smallest and largest x that was fitted.
    pub range: [f64; 2],
    /// √(Σ residual² / (n − p)) in the unit of y (of ln y for a power).
    pub residual_deviation: f64,
    /// Points fitted.
    pub n: usize,
}

/// Form of a fitted curve with coefficients k₀, k₁, …
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// y = k₀ + k₁x
    Line,
    /// y = k₀ + k₁x + k₂x²
    Quadratic,
    /// y = exp(k₀)·x^k₁
    Power,
    /// y = k₀ + k₁x + k₂·max(0, x − k₃)
    Segmented,
}

impl Fit {
    /// y of the curve at `x`.
    pub fn at(&self, x: f64) -> f64 {
        let k = |i: usize| self.coefficients.get(i).copied().unwrap_or(0.0);
        match self.form {
            Form::Line => k(0) + k(1) * x,
            Form::Quadratic => k(0) + (k(1) + k(2) * x) * x,
            Form::Power => k(0).exp() * x.powf(k(1)),
            Form::Segmented => k(0) + k(1) * x + k(2) * (x - k(3)).max(0.0),
        }
    }
}
