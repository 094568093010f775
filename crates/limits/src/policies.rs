//! What a KV-cache policy can save: bytes it keeps, bytes a decoded token reads, and the ceiling that the weights set.
//!
//! A policy only shortens the reading of K and V; the weights are read as before. So where every byte takes the same time
//! the speed-up of any policy is below (weights + KV) / weights; one measured above it says that the full cache was read
//! more slowly than the weights.

use crate::accounting::{Accounting, AttentionWork};
use crate::error::{LimitsError, count_in_range, in_range, product, sum};
use crate::forecast::Forecast;
use crate::report::{MOST_TOKENS, Request, decode_shape};
use roofline_model::operator::Operator;
use serde::Serialize;

/// A policy as far as its bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "policy")]
pub enum Policy {
    /// Everything is kept and read.
    Full,
    /// StreamingLLM: sinks and a window are kept; the query sees one more, itself.
    Streaming {
        /// First tokens.
        sinks: u64,
        /// Last tokens.
        window: u64,
    },
    /// Compression to a budget of tokens per lane on average (SnapKV, AdaKV, H2O, TOVA, …).
    Budget {
        /// Tokens per lane.
        tokens: u64,
    },
    /// One token leaves for each that comes (H2O, TOVA): a query sees one more than is kept, and its scores are computed
    /// once more to see whom it attends to.
    OneOut {
        /// Tokens kept per lane.
        tokens: u64,
    },
    /// Quest: everything is kept; bounds of every page and a budget of tokens are read, except in the first layers.
    Quest {
        /// Tokens read per lane.
        budget: u64,
        /// Tokens per page.
        page: u64,
        /// First layers that read everything.
        dense_layers: u64,
    },
}

impl Policy {
    fn validate(self) -> Result<(), LimitsError> {
        match self {
            Policy::Full => Ok(()),
            Policy::Streaming { sinks, window } => {
                count_in_range("the sinks", sinks, 0, MOST_TOKENS)?;
                count_in_range("the window", window, 1, MOST_TOKENS).map(drop)
            }
            Policy::Budget { tokens } | Policy::OneOut { tokens } => {
                count_in_range("the budget in tokens", tokens, 1, MOST_TOKENS).map(drop)
            }
            Policy::Quest { budget, page, .. } => {
                count_in_range("the budget in tokens", budget, 1, MOST_TOKENS)?;
                count_in_range("the page in tokens", page, 1, MOST_TOKENS).map(drop)
            }
        }
    }

    /// Slots kept and slots read per lane at a context of `tokens`, as shares of all.
    ///
    /// Quest's page bounds are the minimum and the maximum of the keys, as large as one slot's K and V.
    fn shares(self, tokens: u64, layers: u64) -> (f64, f64) {
        let t = tokens as f64;
        let share = |kept: u64| (kept as f64 / t).min(1.0);
        match self {
            Policy::Full => (1.0, 1.0),
            Policy::Streaming { sinks, window } => (share(sinks + window), share(sinks + window + 1)),
            Policy::Budget { tokens } => (share(tokens), share(tokens)),
            // The keys are read a second time.
            Policy::OneOut { tokens } => (share(tokens), 1.5 * share(tokens + 1)),
            Policy::Quest { budget, page, dense_layers } => {
                let bounds = tokens.div_ceil(page) as f64 / t;
                // with fewer pages than the budget it reads all of them and no bounds
                let sparse = if budget >= tokens { 1.0 } else { bounds + share(budget) };
                let dense = dense_layers.min(layers) as f64 / layers as f64;
                (1.0 + (1.0 - dense) * bounds, dense + (1.0 - dense) * sparse)
            }
        }
    }
}

/// What attention of one decoded token reads and multiplies under `policy`, as the integers that the engine's meter counts. `seen`:
/// tokens in the cache, this one included; `prompt`: how many of them a policy that compresses prompts compressed.
///
/// # Errors
/// A policy out of range, an overflow.
pub fn decode_work(
    accounting: &Accounting,
    policy: Policy,
    prompt: u64,
    seen: u64,
) -> Result<AttentionWork, LimitsError> {
    policy.validate()?;
    let dims = &accounting.dims;
    let lanes = product("lanes", &[dims.layers, dims.kv_heads])?;
    let group = dims.heads / dims.kv_heads.max(1);
    let even = |slots: u64| -> Result<AttentionWork, LimitsError> {
        let slots_read = product("slots read", &[lanes, slots])?;
        let pairs = product("visible pairs", &[slots_read, group])?;
        Ok(AttentionWork { slots_read, pairs, watched_pairs: 0, metadata_bytes: 0 })
    };
    match policy {
        Policy::Full => even(seen),
        Policy::Streaming { sinks, window } => even(seen.min(sinks + window + 1)),
        Policy::Budget { tokens } => even(prompt.min(tokens) + (seen - prompt.min(seen))),
        Policy::OneOut { tokens } => {
            let work = even(seen.min(tokens + 1))?;
            let metadata_bytes = product("bytes of keys", &[work.slots_read, accounting.key_bytes()])?;
            Ok(AttentionWork { watched_pairs: work.pairs, metadata_bytes, ..work })
        }
        Policy::Quest { budget, page, dense_layers } => {
            let (pages, chosen) = (seen.div_ceil(page), (budget / page).max(1));
            let dense = if chosen >= pages { dims.layers } else { dense_layers.min(dims.layers) };
            let sparse_lanes = product("lanes", &[dims.layers - dense, dims.kv_heads])?;
            let dense_lanes = product("lanes", &[dense, dims.kv_heads])?;
            // The last page, which may not be full, and the best of the others.
            let slots = (chosen - 1) * page + (seen - (pages - 1) * page);
            let sparse = product("slots read", &[sparse_lanes, slots.min(seen)])?;
            let slots_read = sum("slots read", &[sparse, product("slots read", &[dense_lanes, seen])?])?;
            let metadata_bytes =
                product("bytes of bounds", &[sparse_lanes, pages, accounting.bound_bytes()])?;
            let pairs = product("visible pairs", &[slots_read, group])?;
            Ok(AttentionWork { slots_read, pairs, watched_pairs: 0, metadata_bytes })
        }
    }
}

/// Bytes of a decoded token under a policy, and what follows from them while reading is what takes time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct PolicyLimit {
    /// The policy.
    pub policy: Policy,
    /// Tokens seen.
    pub tokens: u64,
    /// Bytes that the policy holds, page bounds included.
    pub kept_bytes: f64,
    /// Bytes of K, V and bounds that a decoded token reads.
    pub read_bytes: f64,
    /// Bytes of everything else that a decoded token moves.
    pub other_bytes: f64,
    /// Share of K and V in the bytes of a step with the full cache.
    pub kv_share: f64,
    /// Speed-up of a policy that reads nothing: the ceiling of every policy.
    pub ceiling: f64,
    /// Speed-up of this one.
    pub speedup: f64,
}

/// Speed-up when the reading of K and V falls to `fraction` of itself and `other_bytes` stay.
pub fn amdahl(other_bytes: f64, kv_bytes: f64, fraction: f64) -> Result<f64, LimitsError> {
    in_range("bytes beside K and V", other_bytes, f64::MIN_POSITIVE, 1e30)?;
    in_range("bytes of K and V", kv_bytes, 0.0, 1e30)?;
    in_range("the share of K and V that is read", fraction, 0.0, 2.0)?;
    Ok((other_bytes + kv_bytes) / (other_bytes + kv_bytes * fraction))
}

/// The share of K and V (with page bounds) that a decoded token reads under `policy` at a context of `tokens`.
pub fn read_share(policy: Policy, tokens: u64, layers: u64) -> Result<f64, LimitsError> {
    policy.validate()?;
    count_in_range("the context in tokens", tokens, 1, MOST_TOKENS)?;
    count_in_range("the layers", layers, 1, 1 << 16)?;
    Ok(policy.shares(tokens, layers).1)
}

/// What `policy` saves for one sequence of `request`'s model at a context of `tokens`.
pub fn policy_limit(request: &Request<'_>, policy: Policy, tokens: u64) -> Result<PolicyLimit, LimitsError> {
    let share = read_share(policy, tokens, request.config.n_layers as u64)?;
    let accounting = Accounting::new(request.config, request.formats, request.precision.kv)?;
    let forecast = Forecast::new(&accounting, request.precision, request.switches);
    let loads = forecast.loads(decode_shape(tokens, 1.0));
    let read = loads[Operator::Attention as usize].bytes;
    let other = loads.iter().map(|load| load.bytes).sum::<f64>() - read;
    let (kept, _) = policy.shares(tokens, accounting.dims.layers);
    Ok(PolicyLimit {
        policy,
        tokens,
        kept_bytes: forecast.kv_bytes_per_token() * tokens as f64 * kept,
        read_bytes: read * share,
        other_bytes: other,
        kv_share: read / (read + other),
        ceiling: amdahl(other, read, 0.0)?,
        speedup: amdahl(other, read, share)?,
    })
}
