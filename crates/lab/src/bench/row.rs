//! A measured row: its samples summed up and held against the roof.

use serde::Serialize;

use super::{Case, Phase, Roof, Sample, Subject};
use crate::error::LabError;
use crate::statistics::Sorted;

/// Order statistics of a rate.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// Median.
    pub median: f64,
    /// First quartile.
    pub quartile_low: f64,
    /// Third quartile.
    pub quartile_high: f64,
    /// Smallest.
    pub min: f64,
    /// Largest.
    pub max: f64,
}

impl Spread {
    fn of(samples: &[f64]) -> Result<Spread, LabError> {
        let sorted = Sorted::new(samples)?;
        let quartiles = sorted.quartiles();
        Ok(Spread {
            median: sorted.median(),
            quartile_low: quartiles.low,
            quartile_high: quartiles.high,
            min: sorted.min(),
            max: sorted.max(),
        })
    }
}

/// One line of the result.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Name of the model.
    pub model: String,
    /// Formats of its weights, by bytes, as `q4_k+q6_k+f32`.
    pub formats: String,
    /// Bytes of its weights.
    pub weight_bytes: u64,
    /// Its weights.
    pub parameters: u64,
    /// When its matrices are packed: `at load`, or `at use` from the file.
    pub packing: &'static str,
    /// Instruction set of the kernels.
    pub isa: &'static str,
    /// Threads.
    pub threads: usize,
    /// Storage of the KV cache, as `i8` or `k=i8,v=f16`.
    pub kv_type: String,
    /// Policy of the KV cache.
    pub cache: String,
    /// Prompt rows per step.
    pub chunk: usize,
    /// Tokens in the cache before.
    pub depth: usize,
    /// As `pp512`.
    pub test: String,
    /// What it does.
    pub phase: Phase,
    /// Tokens of a run.
    pub tokens: usize,
    /// Counted runs.
    pub n: usize,
    /// Tokens per second of the runs.
    pub tokens_per_s: Spread,
    /// Bytes of weights and cache that a run moves, by the engine's meter.
    pub bytes: u64,
    /// FLOPs of a run, by the engine's meter.
    pub flops: u64,
    /// Bytes per second of the median run.
    pub bytes_per_s: f64,
    /// FLOP/s of the median run.
    pub flops_per_s: f64,
    /// Seconds of the median run outside of operators, per token.
    pub overhead_s_per_token: f64,
    /// What it is held against.
    pub roof: Roof,
    /// Model bandwidth utilization: bytes/s over the roof's bandwidth.
    pub mbu: f64,
    /// The same over the usual bandwidth.
    pub mbu_usual: f64,
    /// Model FLOPs utilization: FLOP/s over the roof's peak.
    pub mfu: f64,
    /// `MBU` or `MFU` where the median is above its limit: a defect of the meter, the clock or the probe. Rows whose
    /// weights fit a cache are not flagged for MBU: part of their bytes may come from a level nearer still.
    pub above_limit: Vec<&'static str>,
    /// Bytes of the cache in use after a run.
    pub kv_bytes: u64,
    /// Bytes of the cache held after a run.
    pub kv_committed_bytes: u64,
    /// Most memory the process had resident in the uncounted run of this row: all models of the benchmark and the
    /// caches of the rows before it included, no probe; absent where the system does not say.
    pub peak_rss_bytes: Option<u64>,
    /// The runs.
    pub samples: Vec<Sample>,
}

impl Row {
    pub(super) fn of(
        case: &Case,
        subject: &Subject,
        isa: &'static str,
        chunk: usize,
        measured: Measured,
        roof: Roof,
    ) -> Result<Row, LabError> {
        let Measured { samples, bytes, flops, kv_bytes, kv_committed_bytes, peak_rss_bytes } = measured;
        let tokens = case.tokens as f64;
        let rates: Vec<f64> = samples.iter().map(|sample| tokens / sample.seconds).collect();
        let overheads: Vec<f64> =
            samples.iter().map(|sample| (sample.seconds - sample.operator_seconds) / tokens).collect();
        let tokens_per_s = Spread::of(&rates)?;
        let runs_per_s = tokens_per_s.median / tokens;
        let (bytes_per_s, flops_per_s) = (bytes as f64 * runs_per_s, flops as f64 * runs_per_s);
        let (mbu, mfu) = (bytes_per_s / roof.bandwidth, flops_per_s / roof.peak);
        let mut above_limit = Vec::new();
        if mbu > 1.0 && roof.level == "memory" {
            above_limit.push("MBU");
        }
        if mfu > 1.0 {
            above_limit.push("MFU");
        }
        let facts = subject.model.facts();
        Ok(Row {
            model: subject.name.clone(),
            formats: subject.formats.clone(),
            weight_bytes: facts.weight_bytes,
            parameters: facts.parameters,
            packing: facts.packing.name(),
            isa,
            threads: case.setup.threads,
            kv_type: case.setup.kv_format.to_string(),
            cache: case.setup.cache.to_string(),
            chunk,
            depth: case.setup.depth,
            test: case.test(),
            phase: case.phase,
            tokens: case.tokens,
            n: samples.len(),
            tokens_per_s,
            bytes,
            flops,
            bytes_per_s,
            flops_per_s,
            overhead_s_per_token: Sorted::new(&overheads)?.median(),
            mbu,
            mbu_usual: bytes_per_s / roof.usual_bandwidth,
            mfu,
            roof,
            above_limit,
            kv_bytes,
            kv_committed_bytes,
            peak_rss_bytes,
            samples,
        })
    }
}

/// What the runs of a row left.
#[derive(Debug, Clone, Default)]
pub(super) struct Measured {
    pub samples: Vec<Sample>,
    pub bytes: u64,
    pub flops: u64,
    pub kv_bytes: u64,
    pub kv_committed_bytes: u64,
    pub peak_rss_bytes: Option<u64>,
}
