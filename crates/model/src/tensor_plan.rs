//! [`TensorPlan`]: every tensor a configuration implies, by role, with the names it has in a checkpoint.
//!
//! The plan drives loading (which bytes become which matrix) and limits (how many weights a token touches).
//! Which roles a configuration has and their shapes is said once, in [`roles`]; a family file only names them.

use crate::config::{Ffn, ModelConfig, NormKind, QkNorm, RopeScaling};
use std::collections::{HashMap, HashSet};

/// What a tensor is for. Matrices are (rows = outputs, cols = inputs).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)] // the shapes say it
pub enum Role {
    /// (vocab_size, hidden_size)
    TokenEmbedding,
    /// (hidden_size)
    FinalNorm,
    /// (hidden_size)
    FinalNormBias,
    /// (vocab_size, hidden_size); absent when the embeddings are tied.
    OutputHead,
    /// (rotary_dim / 2)
    RopeFactors,
    /// One tensor of block `.0`.
    Layer(usize, LayerRole),
}

/// What a tensor of one block is for. q = n_heads·head_dim, kv = n_kv_heads·head_dim, ff = intermediate_size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)] // the shapes say it
pub enum LayerRole {
    AttentionNorm,     // (hidden)
    AttentionNormBias, // (hidden)
    Wq,                // (q, hidden)
    Wk,                // (kv, hidden)
    Wv,                // (kv, hidden)
    Bq,                // (q)
    Bk,                // (kv)
    Bv,                // (kv)
    QNorm,             // (head_dim) per head, (q) full width
    KNorm,             // (head_dim) per head, (kv) full width
    Wo,                // (hidden, q)
    Bo,                // (hidden)
    FfnNorm,           // (hidden)
    FfnNormBias,       // (hidden)
    Router,            // (n_experts, hidden)
    WGate,             // (ff, hidden)
    WUp,               // (ff, hidden)
    WDown,             // (hidden, ff)
    BGate,             // (ff)
    BUp,               // (ff)
    BDown,             // (hidden)
    ExpertGate(usize), // (ff, hidden)
    ExpertUp(usize),   // (ff, hidden)
    ExpertDown(usize), // (hidden, ff)
}

/// Which rows of a checkpoint tensor, seen as (product of the leading dimensions, last dimension), form the planned
/// one. Covers fused and stacked tensors. A tensor of one dimension is seen as (length, 1): its rows are its elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rows {
    /// The whole tensor.
    All,
    /// `count` runs of `run` rows, the first at `start`, `stride` rows apart.
    Runs {
        /// First row.
        start: usize,
        /// Rows taken at a time.
        run: usize,
        /// Rows from one run's start to the next.
        stride: usize,
        /// Number of runs.
        count: usize,
    },
}

impl Rows {
    /// Where row `row` of the planned tensor is among the rows of its source.
    pub fn source_row(self, row: usize) -> usize {
        match self {
            Rows::All => row,
            Rows::Runs { start, run, stride, .. } => start + row / run * stride + row % run,
        }
    }
}

/// One place where a planned tensor may be found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Name in the checkpoint.
    pub name: String,
    /// Shape it must have there, outermost dimension first.
    pub shape: Vec<usize>,
    /// The rows that are ours.
    pub rows: Rows,
}

/// One tensor the model needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedTensor {
    /// What it is for.
    pub role: Role,
    /// (rows, cols) of a matrix, (len) of a vector.
    pub shape: Vec<usize>,
    /// Where to look, the usual place first; the first name present in the checkpoint counts.
    pub sources: Vec<Source>,
}

/// All tensors of a model, in the order a forward pass meets them, and the names that may be present and are unused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorPlan {
    /// What must be there.
    pub tensors: Vec<PlannedTensor>,
    /// Names (or suffixes, starting with a dot) that old checkpoints carry and no forward pass needs.
    pub ignored: Vec<String>,
}

impl Rows {
    /// `run` rows beginning at `start`.
    pub fn range(start: usize, run: usize) -> Rows {
        Rows::Runs { start, run, stride: run, count: 1 }
    }

    /// Rows taken from a tensor of `total` rows.
    pub fn count(&self, total: usize) -> usize {
        match self {
            Rows::All => total,
            Rows::Runs { run, count, .. } => run * count,
        }
    }
}

impl Source {
    /// The whole tensor called `name`.
    pub fn whole(name: impl Into<String>, shape: &[usize]) -> Source {
        Source { name: name.into(), shape: shape.to_vec(), rows: Rows::All }
    }
}

/// Every tensor the configuration implies with its shape, in the order a forward pass meets them.
pub fn roles(config: &ModelConfig) -> Vec<(Role, Vec<usize>)> {
    let hidden = config.hidden_size;
    let mut all = vec![(Role::TokenEmbedding, vec![config.vocab_size, hidden])];
    if config.rope.scaling == RopeScaling::FrequencyFactors {
        all.push((Role::RopeFactors, vec![config.rope.rotary_dim / 2]));
    }
    for layer in 0..config.n_layers {
        all.extend(
            attention_roles(config).into_iter().map(|(role, shape)| (Role::Layer(layer, role), shape)),
        );
        all.extend(ffn_roles(config).into_iter().map(|(role, shape)| (Role::Layer(layer, role), shape)));
    }
    all.push((Role::FinalNorm, vec![hidden]));
    if config.norm.kind == NormKind::Layer {
        all.push((Role::FinalNormBias, vec![hidden]));
    }
    if !config.tied_embeddings {
        all.push((Role::OutputHead, vec![config.vocab_size, hidden]));
    }
    all
}

/// The attention half of one block.
fn attention_roles(config: &ModelConfig) -> Vec<(LayerRole, Vec<usize>)> {
    let (hidden, q, kv) = (config.hidden_size, config.q_dim(), config.kv_dim());
    let mut all = vec![(LayerRole::AttentionNorm, vec![hidden])];
    if config.norm.kind == NormKind::Layer {
        all.push((LayerRole::AttentionNormBias, vec![hidden]));
    }
    all.push((LayerRole::Wq, vec![q, hidden]));
    all.push((LayerRole::Wk, vec![kv, hidden]));
    all.push((LayerRole::Wv, vec![kv, hidden]));
    if config.bias.qkv {
        all.extend([(LayerRole::Bq, vec![q]), (LayerRole::Bk, vec![kv]), (LayerRole::Bv, vec![kv])]);
    }
    match config.qk_norm {
        QkNorm::None => {}
        QkNorm::PerHead => {
            all.extend([
                (LayerRole::QNorm, vec![config.head_dim]),
                (LayerRole::KNorm, vec![config.head_dim]),
            ]);
        }
        QkNorm::FullWidth => all.extend([(LayerRole::QNorm, vec![q]), (LayerRole::KNorm, vec![kv])]),
    }
    all.push((LayerRole::Wo, vec![hidden, q]));
    if config.bias.out {
        all.push((LayerRole::Bo, vec![hidden]));
    }
    all
}

/// The feed-forward half of one block.
fn ffn_roles(config: &ModelConfig) -> Vec<(LayerRole, Vec<usize>)> {
    let hidden = config.hidden_size;
    let mut all = vec![(LayerRole::FfnNorm, vec![hidden])];
    if config.norm.kind == NormKind::Layer {
        all.push((LayerRole::FfnNormBias, vec![hidden]));
    }
    match config.ffn {
        Ffn::Gated { intermediate_size: ff, .. } => {
            all.push((LayerRole::WGate, vec![ff, hidden]));
            all.push((LayerRole::WUp, vec![ff, hidden]));
            if config.bias.ffn {
                all.extend([(LayerRole::BGate, vec![ff]), (LayerRole::BUp, vec![ff])]);
            }
            all.push((LayerRole::WDown, vec![hidden, ff]));
        }
        Ffn::Plain { intermediate_size: ff, .. } => {
            all.push((LayerRole::WUp, vec![ff, hidden]));
            if config.bias.ffn {
                all.push((LayerRole::BUp, vec![ff]));
            }
            all.push((LayerRole::WDown, vec![hidden, ff]));
        }
        Ffn::Experts { intermediate_size: ff, n_experts, .. } => {
            all.push((LayerRole::Router, vec![n_experts, hidden]));
            for expert in 0..n_experts {
                all.push((LayerRole::ExpertGate(expert), vec![ff, hidden]));
                all.push((LayerRole::ExpertUp(expert), vec![ff, hidden]));
                all.push((LayerRole::ExpertDown(expert), vec![hidden, ff]));
            }
        }
    }
    if config.bias.ffn {
        all.push((LayerRole::BDown, vec![hidden]));
    }
    all
}

impl TensorPlan {
    /// Weights the plan asks for. RoPE factors are constants of the position code, not weights.
    pub fn weights(&self) -> u64 {
        let weights = self.tensors.iter().filter(|tensor| tensor.role != Role::RopeFactors);
        weights.map(|tensor| tensor.shape.iter().map(|&n| n as u64).product::<u64>()).sum()
    }

    /// Whether `name` is one that old checkpoints carry and no forward pass needs.
    pub fn ignores(&self, name: &str) -> bool {
        self.ignored.iter().any(|ignored| match ignored.strip_prefix('.') {
            Some(_) => name.ends_with(ignored.as_str()),
            None => name == ignored,
        })
    }

    /// Compares the plan with the tensors (name, shape) of a checkpoint. Gives the source to load for each planned
    /// tensor, in the plan's order.
    ///
    /// # Errors
    /// [`PlanMismatch`] with every tensor that is missing, has another shape, or belongs to no role.
    pub fn check<'a>(
        &self,
        present: impl IntoIterator<Item = (&'a str, &'a [usize])>,
    ) -> Result<Vec<&Source>, PlanMismatch> {
        let present: HashMap<&str, &[usize]> = present.into_iter().collect();
        let mut mismatch = PlanMismatch::default();
        let mut used = HashSet::new();
        let mut chosen = Vec::with_capacity(self.tensors.len());
        for tensor in &self.tensors {
            let found = tensor.sources.iter().find_map(|s| Some((s, *present.get(s.name.as_str())?)));
            let Some((source, shape)) = found else {
                mismatch.missing.extend(tensor.sources.first().map(|source| source.name.clone()));
                continue;
            };
            if source.shape != shape && !used.contains(source.name.as_str()) {
                let wrong = WrongShape {
                    name: source.name.clone(),
                    expected: source.shape.clone(),
                    found: shape.to_vec(),
                };
                mismatch.wrong_shape.push(wrong);
            }
            used.insert(source.name.as_str());
            chosen.push(source);
        }
        let stray = present.keys().filter(|name| !used.contains(**name) && !self.ignores(name));
        mismatch.unexpected = stray.map(|name| name.to_string()).collect();
        mismatch.unexpected.sort_unstable();
        if mismatch == PlanMismatch::default() { Ok(chosen) } else { Err(mismatch) }
    }
}

/// How a checkpoint differs from the plan of its configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PlanMismatch {
    /// Planned tensors that are not there, by their usual name.
    pub missing: Vec<String>,
    /// Tensors that belong to no role and are not known to be harmless.
    pub unexpected: Vec<String>,
    /// Tensors of another shape than the configuration implies.
    pub wrong_shape: Vec<WrongShape>,
}

/// A tensor whose shape disagrees with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrongShape {
    /// Name in the checkpoint.
    pub name: String,
    /// Shape that the configuration implies.
    pub expected: Vec<usize>,
    /// Shape in the checkpoint.
    pub found: Vec<usize>,
}

impl std::fmt::Display for WrongShape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} is {:?}, the configuration implies {:?}", self.name, self.found, self.expected)
    }
}

impl std::fmt::Display for PlanMismatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the tensors do not fit the configuration")?;
        let groups = [
            ("missing", self.missing.clone()),
            ("of another shape", self.wrong_shape.iter().map(|wrong| wrong.to_string()).collect()),
            ("unexpected", self.unexpected.clone()),
        ];
        for (what, names) in groups.iter().filter(|(_, names)| !names.is_empty()) {
            const SHOWN: usize = 5; // a wrong family misses hundreds; five show the pattern
            write!(f, "; {} {what}: {}", names.len(), names[..names.len().min(SHOWN)].join(", "))?;
            if names.len() > SHOWN {
                write!(f, " and {} more", names.len() - SHOWN)?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for PlanMismatch {}
