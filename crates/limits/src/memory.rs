//! Where the bytes in memory go, and how many tokens of cache fit beside them.

use crate::accounting::Accounting;
use crate::forecast::{Forecast, Rates};
use crate::report::Request;
use crate::switches::{Switch, Switches};
use serde::Serialize;

/// How many tokens fit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum Capacity {
    /// This many tokens of KV cache, over all sequences.
    Tokens {
        /// Whole tokens.
        tokens: u64,
    },
    /// The weights alone do not fit.
    DoesNotFit {
        /// Bytes that are lacking.
        missing_bytes: f64,
    },
    /// The device's memory is not known.
    MemoryNotKnown,
}

/// Where the bytes in memory go.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Memory {
    /// Memory of the device, if known.
    pub device_bytes: Option<f64>,
    /// Weights.
    pub weight_bytes: f64,
    /// Activations of a chunk and logits.
    pub scratch_bytes: f64,
    /// K and V of the asked context and batch.
    pub kv_bytes: f64,
    /// All of it.
    pub total_bytes: f64,
    /// Tokens of cache that fit beside weights and scratch.
    pub capacity: Capacity,
}

/// Bytes of the weights in memory under the switches.
pub(crate) fn resident_bytes(
    accounting: &Accounting,
    forecast: &Forecast,
    switches: Switches,
    nominal_bits: f64,
) -> f64 {
    let read = forecast.weight_bytes();
    if !switches.has(Switch::ResidentTensors) {
        let norms =
            if switches.has(Switch::EveryTensor) { accounting.parameters().norms as f64 * 4.0 } else { 0.0 };
        return read - norms;
    }
    let norms =
        if switches.has(Switch::EveryTensor) { 0.0 } else { accounting.parameters().norms as f64 * 4.0 };
    let embedding = match (accounting.dims.tied, switches.has(Switch::RealBits)) {
        (true, _) => 0.0,
        (false, true) => accounting.embedding_bytes as f64,
        (false, false) => accounting.parameters().embedding as f64 * nominal_bits / 8.0,
    };
    read + norms + embedding
}

/// Activations of a chunk and the logits, f32. Per row: the residual stream, its normed copy and one branch (hidden each), q
/// and the attention's output, k and v, and the two halves of the feed-forward part (of each expert a row visits).
pub(crate) fn scratch_bytes(accounting: &Accounting, rows: f64, head_rows: f64) -> f64 {
    let d = &accounting.dims;
    let active = d.experts.map_or(1, |e| e.active) as f64;
    let halves = if d.gated { 2.0 } else { 1.0 };
    let row = 3.0 * d.hidden as f64 + 2.0 * (d.q + d.kv) as f64 + halves * active * d.ff as f64;
    4.0 * (rows * row + head_rows * d.vocab as f64)
}

pub(crate) fn memory(
    request: &Request<'_>,
    accounting: &Accounting,
    rates: &Rates,
    forecast: &Forecast,
) -> Memory {
    let workload = request.workload;
    let batch = workload.batch as f64;
    let nominal = request.precision.nominal_weight_bits;
    let weight_bytes = resident_bytes(accounting, forecast, request.switches, nominal);
    let scratch = if request.switches.has(Switch::Scratch) {
        // a prompt's chunk of one sequence, or one row of each
        let rows = workload.chunk.min(workload.prompt).max(workload.batch) as f64;
        scratch_bytes(accounting, rows, batch)
    } else {
        0.0
    };
    let kv_bytes = forecast.kv_bytes_per_token() * workload.context as f64 * batch;
    let capacity = match rates.memory {
        None => Capacity::MemoryNotKnown,
        Some(bytes) if bytes < weight_bytes + scratch => {
            Capacity::DoesNotFit { missing_bytes: weight_bytes + scratch - bytes }
        }
        // below 2^63: memory is at most 10^18 bytes and a token takes at least one
        Some(bytes) => Capacity::Tokens {
            tokens: ((bytes - weight_bytes - scratch) / forecast.kv_bytes_per_token()) as u64,
        },
    };
    Memory {
        device_bytes: rates.memory,
        weight_bytes,
        scratch_bytes: scratch,
        kv_bytes,
        total_bytes: weight_bytes + scratch + kv_bytes,
        capacity,
    }
}
