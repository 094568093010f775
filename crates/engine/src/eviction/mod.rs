//! What a policy sees of a layer while its rows pass, and what it evicts when the last of them is through.
//!
//! The order is append, attend to everything, watch, evict: a policy never changes what the step it watches has computed.

mod choose;
mod expected;
mod score;

pub(crate) use choose::top;
use expected::Moments;
pub(crate) use expected::SINKS;

use crate::cache::{CacheSpec, Compress, Heavy, Scorer};
use crate::error::EngineError;
use crate::forward::Pass;
use crate::observe::Latest;
use choose::Work;
use roofline_kernels::{self as kernels, AttentionJob, Visible};
use roofline_model::config::ModelConfig;
use roofline_model::operator::{Cost, Operator};

/// What a policy has seen of a layer's rows so far. Buffers grow with the prompt and are kept; a decoded token
/// allocates nothing.
#[derive(Default)]
pub(crate) struct Evidence {
    window_q: Vec<f32>, // (window_rows, n_heads, head_dim), the last queries of the unit
    mass: Vec<f32>,     // (n_kv_heads, stride), attention received per slot
    stride: usize,      // slots of a row of `mass`
    scores: Vec<f32>,   // (n_kv_heads, stride)
    moments: Option<Moments>,
    tova_cap: usize, // tokens per lane since the last prompt
    /// What an observer is to know of the latest token.
    pub latest: Option<Latest>,
    work: Work,
    order: Vec<u32>, // (slots)
}

impl Evidence {
    /// Buffers for `spec` on a model.
    pub fn new(spec: &CacheSpec, config: &ModelConfig) -> Evidence {
        let moments = match spec.eviction() {
            CacheSpec::Compress(Compress { scorer: Scorer::Expected { .. }, .. }) => {
                Some(Moments::new(config.n_heads, config.head_dim))
            }
            _ => None,
        };
        let mut evidence = Evidence { moments, ..Evidence::default() };
        if let CacheSpec::Heavy(Heavy::H2o { heavy, recent, .. }) = spec {
            // A decoded token looks at one slot more than the policy keeps.
            evidence.mass.reserve(config.n_kv_heads * (heavy + recent + 1));
        }
        evidence
    }

    /// Takes over what decides the steps after a fork.
    pub fn follow(&mut self, other: &Evidence) {
        self.tova_cap = other.tova_cap;
    }
}

impl Pass<'_> {
    /// Means and covariances of queries before RoPE, for the policy that expects attention from them.
    pub(crate) fn watch_raw_queries(&mut self) {
        let Some(moments) = &mut self.evidence.moments else { return };
        if self.first == 0 {
            moments.clear();
        }
        let row = self.model.config.q_dim();
        let sinks = expected::SINKS.saturating_sub(self.start).min(self.rows);
        moments.add(&self.model.cpu, &self.s.q[sinks * row..self.rows * row]);
    }

    /// Notes what the policy wants to know of the rows whose attention was just computed.
    pub(crate) fn watch_attention(&mut self, layer: usize) -> Result<(), EngineError> {
        if self.evidence.latest.is_some() && self.is_last_chunk() {
            self.note_latest(layer);
        }
        match *self.cache.spec().eviction() {
            CacheSpec::Compress(Compress { scorer: Scorer::Attention { .. }, window, .. }) => {
                self.keep_window_queries(window);
                Ok(())
            }
            CacheSpec::Heavy(Heavy::H2o { .. }) => {
                if self.first == 0 {
                    self.begin_mass(layer, self.unit_rows - self.rows);
                }
                self.add_mass(layer, 0..self.rows)
            }
            CacheSpec::Heavy(Heavy::Tova { .. }) if self.is_last_chunk() => {
                self.begin_mass(layer, 0);
                self.add_mass(layer, self.rows - 1..self.rows)
            }
            _ => Ok(()),
        }
    }

    /// Notes the queries of the latest row, and which pages it read.
    fn note_latest(&mut self, layer: usize) {
        let row = self.model.config.q_dim();
        let Some(latest) = &mut self.evidence.latest else { return };
        if layer == 0 {
            latest.q.clear();
            latest.pages.clear();
        }
        latest.q.extend_from_slice(&self.s.q[(self.rows - 1) * row..self.rows * row]);
        if self.cache.spec().quest().is_some() {
            let selects = self.cache.selects(layer).filter(|_| !self.prompt);
            let readers = self.cache.readers();
            match selects {
                Some(_) => latest.pages.extend(self.s.selection.chosen().cloned()),
                None => latest.pages.resize_with(latest.pages.len() + readers, Vec::new),
            }
        }
    }

    fn is_last_chunk(&self) -> bool {
        self.first + self.rows == self.unit_rows
    }

    /// Copies the queries that are among the last `window` of the unit.
    fn keep_window_queries(&mut self, window: usize) {
        let row = self.model.config.q_dim();
        let wanted = self.unit_rows.saturating_sub(window).max(self.first);
        let end = self.first + self.rows;
        if self.first == 0 {
            self.evidence.window_q.clear();
        }
        if wanted < end {
            let queries = &self.s.q[(wanted - self.first) * row..self.rows * row];
            self.evidence.window_q.extend_from_slice(queries);
        }
    }

    /// `mass` begins with what the lanes remember, for the slots there are and `to_come` more.
    fn begin_mass(&mut self, layer: usize, to_come: usize) {
        let Evidence { mass, stride, .. } = &mut *self.evidence;
        *stride = longest_lane(self.cache, layer, self.model.config.n_kv_heads) + to_come;
        mass.clear();
        mass.resize(self.model.config.n_kv_heads * *stride, 0.0);
        for (kv_head, mass) in mass.chunks_exact_mut(*stride).enumerate() {
            let before = self.cache.mass(layer, kv_head);
            mass[..before.len()].copy_from_slice(before);
        }
    }

    /// Adds the attention of `rows` of the chunk to `mass`.
    fn add_mass(&mut self, layer: usize, rows: std::ops::Range<usize>) -> Result<(), EngineError> {
        let row = self.model.config.q_dim();
        let (count, q) = (rows.len(), &self.s.q[rows.start * row..rows.end * row]);
        let mass = &mut self.evidence.mass;
        let cost = attention_mass(
            self.model,
            self.cache,
            layer,
            count,
            q,
            &mut self.s.attention,
            mass,
            self.evidence.stride,
        )?;
        self.meter.count(Operator::Attention, cost);
        Ok(())
    }

    /// The last row of the unit is through the layer: the policy evicts.
    pub(crate) fn settle(&mut self, layer: usize) -> Result<(), EngineError> {
        match *self.cache.spec().eviction() {
            CacheSpec::Compress(compress) if self.prompt => self.compress(layer, &compress),
            CacheSpec::Heavy(Heavy::H2o { heavy, recent, pinned }) => {
                self.remember_mass(layer);
                self.cache.forbid_rollback(self.start + self.rows);
                self.evict_light(layer, heavy + recent, recent, pinned, Share::Own)
            }
            CacheSpec::Heavy(Heavy::Tova { budget, pinned }) => {
                if self.prompt {
                    let len = longest_lane(self.cache, layer, self.model.config.n_kv_heads);
                    self.evidence.tova_cap = self.cache.budget_tokens(budget, len, pinned + 1)?;
                }
                self.evict_light(layer, self.evidence.tova_cap, 0, pinned, Share::Layer)
            }
            _ => Ok(()),
        }
    }

    /// Cuts the lanes of a layer down to the budget of a prompt.
    fn compress(&mut self, layer: usize, compress: &Compress) -> Result<(), EngineError> {
        let config = &self.model.config;
        let n = config.n_kv_heads;
        let longest = longest_lane(self.cache, layer, n);
        let budget =
            self.cache.budget_tokens(compress.budget, longest, compress.window + compress.pinned + 1)?;
        if longest <= budget {
            return Ok(());
        }
        self.evidence.stride = longest;
        self.evidence.scores.clear();
        self.evidence.scores.resize(n * longest, 0.0);
        self.score(layer, compress)?;
        let budget = choose::layer_budget(compress, budget, longest, layer, config.n_layers);
        let Evidence { scores, work, .. } = &mut *self.evidence;
        let lanes: Vec<choose::Lane<'_>> = scores
            .chunks_exact(longest)
            .enumerate()
            .map(|(head, scores)| choose::Lane { scores: &scores[..self.cache.lane_len(layer, head)] })
            .collect();
        choose::keep(compress, budget, &lanes, work);
        let mut first = 0;
        for (head, end) in work.ends.iter().enumerate() {
            self.cache.keep(layer, head, &work.keep[first..*end])?;
            first = *end;
        }
        self.cache.forbid_rollback(self.start + self.rows);
        Ok(())
    }

    /// Fills `scores` with what each slot of the layer is worth.
    fn score(&mut self, layer: usize, compress: &Compress) -> Result<(), EngineError> {
        let stride = self.evidence.stride;
        match compress.scorer {
            Scorer::Attention { kernel, pool } => {
                let n = self.model.config.n_kv_heads;
                let Evidence { window_q, mass, scores, work, .. } = &mut *self.evidence;
                mass.clear();
                mass.resize(n * stride, 0.0);
                let rows = window_q.len() / self.model.config.q_dim();
                let scratch = &mut self.s.attention;
                let cost =
                    attention_mass(self.model, self.cache, layer, rows, window_q, scratch, mass, stride)?;
                self.meter.count(Operator::Attention, cost);
                for head in 0..n {
                    let before_window = self.cache.lane_len(layer, head).saturating_sub(compress.window);
                    let raw = &mass[head * stride..][..before_window];
                    let scores = &mut scores[head * stride..][..before_window];
                    choose::pool(raw, kernel, pool, work.pooled());
                    scores.copy_from_slice(work.pooled());
                }
                Ok(())
            }
            Scorer::KeyNorm | Scorer::KeyDifference | Scorer::Expected { .. } => score::by_keys(
                self.model,
                self.cache,
                layer,
                compress.scorer,
                self.start + self.rows,
                self.evidence,
            ),
        }
    }

    /// What each slot has received so far goes to the lanes.
    fn remember_mass(&mut self, layer: usize) {
        let Evidence { mass, stride, .. } = &*self.evidence;
        for (head, mass) in mass.chunks_exact((*stride).max(1)).enumerate() {
            self.cache.set_mass(layer, head, mass);
        }
    }

    /// Drops the slots with the least mass until `cap` are left; the last `recent` positions and the first `pinned`
    /// stay, and of equal ones the lower position.
    fn evict_light(
        &mut self,
        layer: usize,
        cap: usize,
        recent: usize,
        pinned: usize,
        share: Share,
    ) -> Result<(), EngineError> {
        let n = self.model.config.n_kv_heads;
        let len = self.cache.lane_len(layer, 0);
        if len <= cap {
            return Ok(());
        }
        let Evidence { mass, stride, order, work, .. } = &mut *self.evidence;
        if share == Share::Layer {
            let (total, others) = mass.split_at_mut(*stride);
            for other in others.chunks_exact(*stride) {
                total.iter_mut().zip(other).for_each(|(total, other)| *total += other);
            }
        }
        let newest = self.start + self.rows;
        for head in 0..n {
            let mass = match share {
                Share::Own => &mass[head * *stride..][..len],
                Share::Layer => &mass[..len],
            };
            let cache = &mut *self.cache;
            let position = |slot: u32| cache.position(layer, head, slot as usize);
            let stays = |slot: u32| position(slot) < pinned || position(slot) + recent >= newest;
            order.clear();
            order.extend((0..len as u32).filter(|slot| !stays(*slot)));
            let worst_first = |a: &u32, b: &u32| {
                mass[*a as usize].total_cmp(&mass[*b as usize]).then(position(*b).cmp(&position(*a)))
            };
            let leave = (len - cap).min(order.len());
            if leave == 1 {
                if let Some(slot) = order.iter().copied().min_by(worst_first) {
                    cache.drop_slot(layer, head, slot as usize)?;
                }
                continue;
            }
            if leave > 0 && leave < order.len() {
                order.select_nth_unstable_by(leave - 1, worst_first);
            }
            order.truncate(leave);
            order.sort_unstable();
            let mut gone = order.iter().copied().peekable();
            work.keep.clear();
            work.keep.extend((0..len as u32).filter(|slot| gone.next_if_eq(slot).is_none()));
            cache.keep(layer, head, &work.keep)?;
        }
        self.cache.forbid_rollback(newest);
        Ok(())
    }
}

/// Whose attention decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Share {
    /// The lane's own.
    Own,
    /// The sum over the lanes of the layer.
    Layer,
}

fn longest_lane(cache: &crate::cache::KvCache, layer: usize, n_kv_heads: usize) -> usize {
    (0..n_kv_heads).map(|head| cache.lane_len(layer, head)).max().unwrap_or(0)
}

/// Adds the attention that the newest `rows` rows of a layer, whose queries are `q`, give to each slot.
#[allow(clippy::too_many_arguments)] // one operation of the device: each argument is an operand
fn attention_mass(
    model: &crate::model::Model,
    cache: &crate::cache::KvCache,
    layer: usize,
    rows: usize,
    q: &[f32], // (rows, n_heads, head_dim)
    scratch: &mut kernels::AttentionScratch,
    mass: &mut [f32], // (n_kv_heads, stride)
    stride: usize,
) -> Result<Cost, EngineError> {
    let (cpu, shape, layout) = (&model.cpu, model.attention_shape(), cache.layout());
    let job = AttentionJob { kv: &cache.layer(layer), rows: 0..rows, visible: Visible::Causal };
    kernels::attention_mass(&cpu.table, &cpu.team, &shape, layout, &job, q, scratch, mass, stride)?;
    let reads = cache.reads(layer, rows, Visible::Causal);
    Ok(Cost {
        kv_read_bytes: reads.slots * layout.key_format().row_bytes(shape.head_dim) as u64,
        flops: 2 * (shape.head_dim * shape.group()) as u64 * reads.pairs,
        ..Cost::default()
    })
}
