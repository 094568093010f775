//! From lists of settings to the rows they multiply to, all of them checked.

use roofline_engine::{Budget, CacheSpec, EngineError, KvFormats};
use roofline_kernels::PageLayout;
use roofline_model::ModelConfig;
use serde::Serialize;

use super::BenchError;
use crate::environment::Environment;
use crate::error::LabError;

/// What to measure: every combination of the lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Tokens taken in at once, one prefill row each.
    pub prefill: Vec<usize>,
    /// Tokens taken in one by one, one decode row each.
    pub decode: Vec<usize>,
    /// Tokens in the cache before.
    pub depths: Vec<usize>,
    /// Threads.
    pub threads: Vec<usize>,
    /// Cache policies.
    pub caches: Vec<CacheSpec>,
    /// Formats of the cache.
    pub kv_formats: Vec<KvFormats>,
    /// Prompt rows per step.
    pub chunk: usize,
    /// Counted runs of each row.
    pub repetitions: usize,
    /// Draws the token ids.
    pub seed: u64,
}

/// What a row does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Tokens at once.
    Prefill,
    /// Tokens one by one.
    Decode,
}

/// What a session is made for; rows that differ only in their test share one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setup {
    /// Index of the model.
    pub model: usize,
    /// Threads.
    pub threads: usize,
    /// Cache policy.
    pub cache: CacheSpec,
    /// Format of the cache.
    pub kv_format: KvFormats,
    /// Tokens in the cache before.
    pub depth: usize,
}

/// One row to measure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// Where it runs.
    pub setup: Setup,
    /// What it does.
    pub phase: Phase,
    /// With how many tokens.
    pub tokens: usize,
}

const MOST_REPETITIONS: usize = 10_000;
const MOST_THREADS: usize = 4096;
const MOST_ROWS: usize = 1000;
/// Slots of a page, to round a cache up to.
const PAGE_SLOTS: usize = 64;

impl Case {
    /// As `pp512` or `tg128`; the depth is told apart.
    pub fn test(&self) -> String {
        let phase = match self.phase {
            Phase::Prefill => "pp",
            Phase::Decode => "tg",
        };
        format!("{phase}{}", self.tokens)
    }

    fn check(&self, name: &str, config: &ModelConfig) -> Result<(), BenchError> {
        let (depth, limit) = (self.setup.depth, config.context_length);
        let wanted = depth.saturating_add(self.tokens);
        if wanted > limit {
            let (model, test) = (name.to_string(), self.test());
            return Err(BenchError::Context { model, test, depth, wanted, limit });
        }
        if let CacheSpec::Static { capacity: Budget::Tokens(capacity) } = self.setup.cache {
            let refuse = |why| Err(BenchError::Capacity { cache: self.setup.cache.clone(), capacity, why });
            if capacity > limit {
                return refuse(format!("{name} has a context of {limit}"));
            }
            if wanted > capacity {
                return refuse(format!("{} at depth {depth} needs {wanted}", self.test()));
            }
        }
        Ok(())
    }
}

/// All rows of the models (name, configuration) in the order in which they run: by model, then threads, cache, depth,
/// test.
///
/// # Errors
/// Empty lists, counts of zero or beyond what makes sense, tests beyond a context or a fixed cache.
pub fn plan(models: &[(&str, &ModelConfig)], settings: &Settings) -> Result<Vec<Case>, BenchError> {
    check_counts(settings)?;
    let tests = tests(settings);
    let lists = [
        ("model", models.len()),
        ("test (-p or -n)", tests.len()),
        ("depth", settings.depths.len()),
        ("thread count", settings.threads.len()),
        ("cache", settings.caches.len()),
        ("KV type", settings.kv_formats.len()),
    ];
    let mut rows = 1usize;
    for (what, len) in lists {
        if len == 0 {
            return Err(BenchError::Nothing { what });
        }
        rows = rows.saturating_mul(len);
    }
    if rows > MOST_ROWS {
        return Err(BenchError::Rows { rows, most: MOST_ROWS });
    }
    let mut cases = Vec::with_capacity(rows);
    for (model, (name, config)) in models.iter().enumerate() {
        for setup in setups(model, settings) {
            for &(phase, tokens) in &tests {
                let case = Case { setup: setup.clone(), phase, tokens };
                case.check(name, config)?;
                cases.push(case);
            }
        }
    }
    Ok(cases)
}

fn check_counts(settings: &Settings) -> Result<(), BenchError> {
    let check = |what, given: usize, least, most| {
        if (least..=most).contains(&given) {
            Ok(())
        } else {
            Err(BenchError::Count { what, given, least, most })
        }
    };
    let token_limit = u32::MAX as usize; // positions are counted in it; contexts end long before
    for &tokens in &settings.prefill {
        check("-p", tokens, 1, token_limit)?;
    }
    for &tokens in &settings.decode {
        check("-n", tokens, 1, token_limit)?;
    }
    for &threads in &settings.threads {
        check("--threads", threads, 1, MOST_THREADS)?;
    }
    check("--chunk", settings.chunk, 1, token_limit)?;
    check("-r", settings.repetitions, 1, MOST_REPETITIONS)
}

fn tests(settings: &Settings) -> Vec<(Phase, usize)> {
    let prefill = settings.prefill.iter().map(|&tokens| (Phase::Prefill, tokens));
    prefill.chain(settings.decode.iter().map(|&tokens| (Phase::Decode, tokens))).collect()
}

fn setups(model: usize, settings: &Settings) -> Vec<Setup> {
    let mut all = Vec::new();
    for &threads in &settings.threads {
        for cache in &settings.caches {
            for &kv_format in &settings.kv_formats {
                all.extend(settings.depths.iter().map(|&depth| Setup {
                    model,
                    threads,
                    cache: cache.clone(),
                    kv_format,
                    depth,
                }));
            }
        }
    }
    all
}

/// Checks that `weight_bytes` and the caches of all rows at their fullest fit the memory that is free.
///
/// # Errors
/// [`BenchError::Memory`] when they do not; a cache that cannot be laid out.
pub fn check_memory(
    cases: &[Case],
    models: &[(&str, &ModelConfig)],
    weight_bytes: u64,
    environment: &Environment,
) -> Result<(), LabError> {
    let wanted = cache_bytes(cases, models)?.saturating_add(weight_bytes);
    match environment.memory.available_bytes {
        Some(available) if wanted > available => Err(BenchError::Memory { wanted, available }.into()),
        _ => Ok(()),
    }
}

/// Bytes that the caches of all sessions hold at their fullest.
fn cache_bytes(cases: &[Case], models: &[(&str, &ModelConfig)]) -> Result<u64, LabError> {
    let mut sessions: Vec<(Setup, usize)> = Vec::new();
    for case in cases {
        let wanted = match case.setup.cache {
            CacheSpec::Static { capacity: Budget::Tokens(capacity) } => capacity,
            _ => case.setup.depth + case.tokens,
        };
        match sessions.iter_mut().find(|(setup, _)| *setup == case.setup) {
            Some((_, tokens)) => *tokens = wanted.max(*tokens),
            None => sessions.push((case.setup.clone(), wanted)),
        }
    }
    let mut total = 0u64;
    for (setup, tokens) in sessions {
        let (_, config) = models[setup.model];
        let KvFormats { key, value } = setup.kv_format;
        let layout =
            PageLayout::with_formats(key, value, PAGE_SLOTS, config.head_dim).map_err(EngineError::from)?;
        let pages = tokens.div_ceil(PAGE_SLOTS) * config.n_layers * config.n_kv_heads;
        total = total.saturating_add(pages as u64 * layout.page_bytes() as u64);
    }
    Ok(total)
}
