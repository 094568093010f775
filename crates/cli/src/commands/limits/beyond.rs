//! Limits beyond one user and one token at a time: speculation, serving, chunks and cache policies, each on request.

use clap::Args;
use roofline_engine::cache::Heavy;
use roofline_engine::{Budget, CacheSpec};
use roofline_lab::units::{bytes, grouped};
use roofline_limits::policies::{Policy, PolicyLimit, policy_limit};
use roofline_limits::report::Request;
use roofline_limits::serving::{
    Batch, BatchBound, ChunkedPrefill, Serving, Targets, chunked_prefill, serving, smallest_chunk,
};
use roofline_limits::speculative::{Draft, Speculation, speculation};
use serde::Serialize;

use super::facts::Value;
use super::tables::factor;
use crate::failure::Failure;
use crate::output::{Align, Section, Table};

/// What is asked for besides the report.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Beyond one user")]
pub struct Questions {
    /// Speculative decoding at this acceptance of a drafted token, from 0 to 1
    #[arg(long, value_name = "RATE")]
    speculate: Option<f64>,
    /// What drafting a token costs, as a share of a step of the model
    #[arg(long, value_name = "SHARE", default_value_t = 0.1, requires = "speculate")]
    draft_cost: f64,
    /// Serving many users whose outputs have this many tokens
    #[arg(long, value_name = "TOKENS")]
    serve: Option<u64>,
    /// Longest time to first token that users accept, in seconds
    #[arg(long, value_name = "S", default_value_t = Targets::default().ttft_s, requires = "serve")]
    ttft: f64,
    /// Longest time per further token that users accept, in seconds
    #[arg(long, value_name = "S", default_value_t = Targets::default().tpot_s, requires = "serve")]
    tpot: f64,
    /// The prompt in chunks of this many tokens
    #[arg(long, value_name = "TOKENS")]
    chunk: Option<u64>,
    /// A KV-cache policy as --cache has it: streaming:sinks=4,window=1020, adakv:budget=128, quest:budget=1024, …
    #[arg(long, value_name = "POLICY")]
    policy: Vec<String>,
}

/// An answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Beyond {
    Speculation(Speculation),
    Serving(Serving),
    Chunks {
        asked: ChunkedPrefill,
        smallest_compute_bound: Option<u64>,
    },
    Policy {
        cache: String,
        #[serde(flatten)]
        limit: PolicyLimit,
    },
}

impl Questions {
    pub fn answer(&self, request: &Request<'_>) -> Result<Vec<Beyond>, Failure> {
        let last = request.workload.positions.iter().copied().max().unwrap_or(1);
        let mut answers = Vec::new();
        if let Some(chunk) = self.chunk {
            let asked = chunked_prefill(request, chunk)?;
            answers.push(Beyond::Chunks { asked, smallest_compute_bound: smallest_chunk(request)? });
        }
        if let Some(acceptance) = self.speculate {
            answers.push(Beyond::Speculation(speculation(
                request,
                Draft::Cost(self.draft_cost),
                acceptance,
                last,
            )?));
        }
        if let Some(output) = self.serve {
            let targets = Targets { ttft_s: self.ttft, tpot_s: self.tpot };
            answers.push(Beyond::Serving(serving(request, output, targets)?));
        }
        for policy in &self.policy {
            let cache: CacheSpec =
                policy.parse().map_err(|error| Failure::new(format_args!("--policy: {error}")))?;
            let limit = policy_limit(request, policy_of(&cache, last)?, last)?;
            answers.push(Beyond::Policy { cache: cache.to_string(), limit });
        }
        Ok(answers)
    }
}

/// What a cache policy means for the bytes of one lane at `tokens`.
fn policy_of(cache: &CacheSpec, tokens: u64) -> Result<Policy, Failure> {
    let refused = |why: &str| Err(Failure::new(format_args!("--policy {cache}: {why}")));
    let budget = |budget: Budget| match budget {
        Budget::Tokens(tokens) => Ok(tokens as u64),
        Budget::Share(share) => Ok((share * tokens as f64) as u64),
        Budget::Bytes(_) => Err(Failure::new(format_args!(
            "--policy {cache}: limits count budgets in tokens or shares, as 1024 or 10%"
        ))),
    };
    Ok(match cache {
        CacheSpec::Full | CacheSpec::Static { .. } => Policy::Full,
        CacheSpec::Streaming(s) => Policy::Streaming { sinks: s.sinks as u64, window: s.window as u64 },
        CacheSpec::Compress(compress) => Policy::Budget { tokens: budget(compress.budget)? },
        CacheSpec::Heavy(Heavy::H2o { heavy, recent, .. }) => {
            Policy::OneOut { tokens: (heavy + recent) as u64 }
        }
        CacheSpec::Heavy(Heavy::Tova { budget: kept, .. }) => Policy::OneOut { tokens: budget(*kept)? },
        CacheSpec::Quest(quest) => Policy::Quest {
            budget: budget(quest.budget)?,
            page: quest.page as u64,
            dense_layers: quest.dense_layers as u64,
        },
        CacheSpec::Duo(_) => return refused("its bytes depend on a pattern file; ask for its lanes apart"),
        CacheSpec::EvictThenQuest(..) => return refused("ask for its two parts apart"),
    })
}

impl Beyond {
    pub fn section(&self, precision: &str) -> Section {
        let mut table = Table::new(&[("", Align::Left), ("", Align::Right)]);
        for (_, name, value) in self.figures() {
            table.row([name, value.text()]);
        }
        Section::table(format!("{}, {precision}", self.title()), table)
    }

    fn title(&self) -> String {
        match self {
            Beyond::Speculation(s) => {
                format!("Speculation at acceptance {} and position {}", s.acceptance, grouped(s.position))
            }
            Beyond::Serving(s) => format!(
                "Serving prompts of {} and outputs of {} tokens within TTFT {} s and TPOT {} s",
                grouped(s.prompt),
                grouped(s.output),
                s.targets.ttft_s,
                s.targets.tpot_s
            ),
            Beyond::Chunks { asked, .. } => format!("Prompt in chunks of {} tokens", grouped(asked.chunk)),
            Beyond::Policy { cache, limit } => {
                format!("KV-cache policy {cache} at {} tokens", grouped(limit.tokens))
            }
        }
    }

    /// Group, name and value of every figure.
    pub fn figures(&self) -> Vec<(&'static str, String, Value)> {
        let named =
            |group, rows: Vec<(String, Value)>| rows.into_iter().map(|(name, v)| (group, name, v)).collect();
        match self {
            Beyond::Speculation(s) => named("speculation", speculation_rows(s)),
            Beyond::Serving(s) => named("serving", serving_rows(s)),
            Beyond::Chunks { asked, smallest_compute_bound } => {
                named("chunks", chunk_rows(asked, *smallest_compute_bound))
            }
            Beyond::Policy { limit, .. } => named("policy", policy_rows(limit)),
        }
    }
}

fn batch_bound(bound: BatchBound) -> &'static str {
    match bound {
        BatchBound::Ttft => "the TTFT target",
        BatchBound::Tpot => "the TPOT target",
        BatchBound::Memory => "memory",
        BatchBound::Nothing => "nothing considered",
    }
}

fn row(name: &str, value: Value) -> (String, Value) {
    (name.to_string(), value)
}

fn text(name: &str, value: impl Into<String>) -> (String, Value) {
    row(name, Value::Text(value.into()))
}

fn speculation_rows(s: &Speculation) -> Vec<(String, Value)> {
    let mut rows = vec![
        row("plain decode", Value::Milliseconds(s.plain_ms)),
        text("best draft length", s.best.to_string()),
    ];
    for round in
        s.rounds.iter().filter(|round| [1, 2, 4, 8, 16].contains(&round.drafted) || round.drafted == s.best)
    {
        let each = |what: &str| format!("{} drafted: {what}", round.drafted);
        rows.push((each("tokens per round"), Value::Tokens(round.expected_tokens)));
        rows.push((each("per token"), Value::Milliseconds(round.per_token_ms)));
        rows.push((each("speed-up"), Value::Text(factor(round.speedup))));
        rows.push((each("speed-up if checking were free"), Value::Text(factor(round.speedup_free_check))));
    }
    rows
}

fn serving_rows(s: &Serving) -> Vec<(String, Value)> {
    let why_none = if s.ttft_ms > 1e3 * s.targets.ttft_s {
        "none: one prompt alone takes longer than the TTFT target"
    } else if s.batch_by_memory.is_none() {
        "none: the device's memory is not known"
    } else {
        "none: not even one sequence"
    };
    let batch = |name: &str, batch: &Option<Batch>| match batch {
        None => vec![text(&format!("{name}: batch"), why_none)],
        Some(b) => vec![
            text(
                &format!("{name}: batch"),
                format!("{} sequences, bound by {}", grouped(b.sequences), batch_bound(b.bound)),
            ),
            row(&format!("{name}: step"), Value::Milliseconds(b.step_ms)),
            row(&format!("{name}: output speed"), Value::TokensPerSecond(b.tokens_per_s)),
        ],
    };
    let by_memory = s.batch_by_memory.map_or("memory not known".to_string(), grouped);
    let mut rows = vec![
        row("one prompt alone, TTFT", Value::Milliseconds(s.ttft_ms)),
        text("prompts that arrive at once within TTFT", grouped(s.simultaneous_prompts)),
        text("sequences that fit in memory", by_memory),
    ];
    rows.extend(batch("within targets", &s.interactive));
    rows.extend(batch("offline", &s.offline));
    rows
}

fn chunk_rows(c: &ChunkedPrefill, smallest: Option<u64>) -> Vec<(String, Value)> {
    vec![
        text("steps", grouped(c.steps)),
        row("limit", Value::Milliseconds(c.limit_ms)),
        row("limit in one step", Value::Milliseconds(c.whole_ms)),
        row("activations and logits", Value::Bytes(c.scratch_bytes)),
        text("first chunk bound by", if c.compute_bound { "compute" } else { "bandwidth" }),
        text("smallest chunk that is compute-bound", smallest.map_or("none".to_string(), grouped)),
    ]
}

fn policy_rows(p: &PolicyLimit) -> Vec<(String, Value)> {
    vec![
        row("kept", Value::Bytes(p.kept_bytes)),
        row("KV read per token", Value::Bytes(p.read_bytes)),
        text("other bytes per token", bytes(p.other_bytes.round() as u64)),
        text("share of KV with the full cache", format!("{:.1} %", 100.0 * p.kv_share)),
        text("speed-up", factor(p.speedup)),
        text("ceiling of every policy", factor(p.ceiling)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_policies_mean_their_bytes() {
        for (text, policy) in [
            ("full", Policy::Full),
            ("streaming:sinks=8", Policy::Streaming { sinks: 8, window: 1020 }),
            ("adakv:budget=10%", Policy::Budget { tokens: 300 }),
            ("h2o:heavy=20,recent=30", Policy::OneOut { tokens: 50 }),
            ("quest:budget=256,page=32", Policy::Quest { budget: 256, page: 32, dense_layers: 2 }),
        ] {
            assert_eq!(policy_of(&text.parse().unwrap(), 3000).unwrap(), policy, "{text}");
        }
        for refused in ["duo:pattern=f", "adakv+quest", "snapkv:budget=1MiB"] {
            assert!(policy_of(&refused.parse().unwrap(), 3000).is_err(), "{refused}");
        }
    }
}
