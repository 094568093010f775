//! The forward pass: one layer loop for every family. It reads like the paper; what differs between families is data
//! in the configuration and in [`Layer`].

use crate::cache::{KvCache, Quest, Select, Selected};
use crate::cpu::{activation, pairing};
use crate::error::EngineError;
use crate::eviction::Evidence;
use crate::experts::experts;
use crate::meter::Meter;
use crate::model::{Layer, LayerFfn, Linear, Model, NormWeights};
use crate::scratch::{Angles, Scratch};
use roofline_kernels::{self as kernels, AttentionJob, AttentionShape, MatmulJob, Norm, NormKind, Visible};
use roofline_model::config::{QkNorm, Residual};
use roofline_model::operator::{Cost, Operator};
use std::ops::ControlFlow;

/// Tokens on their way through the layers, and how.
pub(crate) struct Unit<'a> {
    pub ids: &'a [u32],
    /// Rows that pass a layer at a time, at least 1; the whole unit passes one layer before the next one begins.
    pub chunk: usize,
    /// Take pages layer by layer: a cache that compresses prompts then holds one whole layer at most.
    pub by_layer: bool,
    /// Whether these are a prompt, at whose end a policy may compress.
    pub prompt: bool,
}

/// Runs a unit through the layers behind what `cache` has seen, and adds it to it. Leaves the hidden states in
/// `scratch.x`. `watch` is called after every layer of every chunk with the share of the work done.
///
/// # Errors
/// The cache's, when it has no room, and [`EngineError::Cancelled`] when `watch` breaks. The caller takes back what
/// the layers before have appended.
pub(crate) fn forward(
    model: &Model,
    unit: &Unit<'_>,
    cache: &mut KvCache,
    scratch: &mut Scratch,
    evidence: &mut Evidence,
    meter: &mut Meter,
    watch: &mut dyn FnMut(f64) -> ControlFlow<()>,
) -> Result<(), EngineError> {
    let (n, layers) = (unit.ids.len(), model.layers.len());
    if !unit.by_layer {
        cache.reserve(&model.cpu.team, 0..layers, n)?;
    }
    let start = cache.seen();
    let prompt = unit.prompt;
    let mut pass =
        Pass { model, first: 0, rows: n, unit_rows: n, prompt, start, cache, s: scratch, evidence, meter };
    pass.meter.start();
    pass.embed(unit.ids)?;
    pass.angles()?;
    for (index, layer) in model.layers.iter().enumerate() {
        for first in (0..n).step_by(unit.chunk) {
            (pass.first, pass.rows) = (first, unit.chunk.min(n - first));
            pass.start = start + first;
            if unit.by_layer {
                pass.cache.reserve(&model.cpu.team, index..index + 1, pass.rows)?;
            }
            pass.block(index, layer)?;
            let done = index * n + first + pass.rows;
            if done < layers * n && watch(done as f64 / (layers * n) as f64).is_break() {
                return Err(EngineError::Cancelled);
            }
        }
        pass.settle(index)?;
    }
    let sealing = cache.seal(n)?;
    meter.count(Operator::KvAppend, sealing);
    cache.advance(n);
    Ok(())
}

/// Logits of rows `first..first + count` of the hidden states that [`forward`] left, in `scratch.logits`.
pub(crate) fn output_head(
    model: &Model,
    first: usize,
    count: usize,
    s: &mut Scratch,
    meter: &mut Meter,
) -> Result<(), EngineError> {
    let (cpu, hidden) = (&model.cpu, model.config.hidden_size);
    let w = model.output_head();
    meter.start();
    let x = &s.x[first * hidden..(first + count) * hidden]; // (count, hidden)
    let normed = &mut s.normed[..count * hidden]; // (count, hidden)
    kernels::norm_rows(&cpu.table, &cpu.team, &model.final_norm.of(model.config.norm), x, normed)?;
    meter.count(Operator::FinalNorm, model.final_norm.cost());
    s.activations.set(&cpu.table, &cpu.team, normed, count, hidden, &[w.format()])?;
    let out = &mut s.logits[..count * w.rows()]; // (count, vocab)
    kernels::matmul(
        &cpu.table,
        &cpu.team,
        &s.activations,
        &mut [MatmulJob { w, bias: None, out, add: false }],
    )?;
    meter.count(Operator::OutputHead, crate::model::matrix_cost(w, count));
    Ok(())
}

/// The rows of a unit that are at a layer.
pub(crate) struct Pass<'a> {
    pub model: &'a Model,
    pub first: usize,     // of the unit
    pub rows: usize,      // from there on
    pub unit_rows: usize, // of the whole unit
    pub prompt: bool,     // the unit is a prompt
    pub start: usize,     // position of the first row
    pub cache: &'a mut KvCache,
    pub s: &'a mut Scratch,
    pub evidence: &'a mut Evidence,
    pub meter: &'a mut Meter,
}

impl Pass<'_> {
    fn embed(&mut self, ids: &[u32]) -> Result<(), EngineError> {
        for (&id, row) in ids.iter().zip(self.s.x.chunks_exact_mut(self.model.config.hidden_size)) {
            self.model.embed(id, row)?;
        }
        let weight_bytes = self.rows as u64 * self.model.embedding_row_bytes();
        self.meter.count(Operator::Embed, Cost { weight_bytes, ..Cost::default() });
        Ok(())
    }

    /// Cosines and sines of the unit's positions, for all layers; and of the positions at which its queries read the
    /// sinks, where that is another one.
    fn angles(&mut self) -> Result<(), EngineError> {
        let (pairs, rows) = (self.model.inv_freq.len(), self.rows);
        let Scratch { positions, rope, sink_rope, .. } = &mut *self.s;
        let positions = &mut positions[..rows];
        positions.iter_mut().zip(self.start..).for_each(|(position, at)| *position = at);
        rope.set(positions, &self.model.inv_freq)?;
        if let Some(most) = self.cache.sink_frame() {
            positions.iter_mut().for_each(|position| *position = (*position).min(most));
            sink_rope.set(positions, &self.model.inv_freq)?;
        }
        debug_assert_eq!(self.s.rope.cos.len(), rows * pairs);
        self.meter.count(Operator::Rope, Cost::default());
        Ok(())
    }

    /// One transformer block: attention and feed-forward, each added to the residual stream x.
    fn block(&mut self, index: usize, layer: &Layer) -> Result<(), EngineError> {
        self.norm(Operator::AttentionNorm, &layer.attention_norm)?;
        self.qkv(layer)?;
        self.qk_norm(layer)?;
        self.clip();
        self.watch_raw_queries();
        self.rope()?;
        self.append(index);
        self.attention(index)?;
        self.watch_attention(index)?;
        // A parallel residual feeds both branches from the same x: its FFN norm comes before attention is added.
        match self.model.config.residual {
            Residual::Sequential => {
                self.wo(&layer.wo)?;
                self.norm(Operator::FfnNorm, &layer.ffn_norm)?;
            }
            Residual::Parallel => {
                self.norm(Operator::FfnNorm, &layer.ffn_norm)?;
                self.wo(&layer.wo)?;
            }
        }
        match &layer.ffn {
            LayerFfn::Gated { w_gate, w_up, w_down } => self.gated(w_gate, w_up, w_down),
            LayerFfn::Plain { w_up, w_down } => self.plain(w_up, w_down),
            LayerFfn::Experts(weights) => experts(self, index, weights),
        }
    }

    /// normed = norm(x)
    fn norm(&mut self, operator: Operator, weights: &NormWeights) -> Result<(), EngineError> {
        let (cpu, hidden) = (&self.model.cpu, self.model.config.hidden_size);
        let n = self.rows * hidden;
        let (x, normed) = (&self.s.x[self.first * hidden..][..n], &mut self.s.normed[..n]); // (rows, hidden)
        kernels::norm_rows(&cpu.table, &cpu.team, &weights.of(self.model.config.norm), x, normed)?;
        self.meter.count(operator, weights.cost());
        Ok(())
    }

    /// q, k, v = w·normed + b, from one quantization of `normed`
    fn qkv(&mut self, layer: &Layer) -> Result<(), EngineError> {
        let Layer { wq, wk, wv, .. } = layer;
        let (cpu, rows, hidden) = (&self.model.cpu, self.rows, self.model.config.hidden_size);
        let formats = [wq.w.format(), wk.w.format(), wv.w.format()];
        let Scratch { normed, activations, q, k, v, .. } = &mut *self.s;
        activations.set(&cpu.table, &cpu.team, &normed[..rows * hidden], rows, hidden, &formats)?;
        let mut jobs = [wq.job(rows, q, false), wk.job(rows, k, false), wv.job(rows, v, false)];
        kernels::matmul(&cpu.table, &cpu.team, activations, &mut jobs)?;
        let mut cost = wq.cost(rows);
        cost += wk.cost(rows);
        cost += wv.cost(rows);
        self.meter.count(Operator::Qkv, cost);
        Ok(())
    }

    /// RMSNorm on q and k where the family has it: over each head, or over the whole projection.
    fn qk_norm(&mut self, layer: &Layer) -> Result<(), EngineError> {
        let (cpu, config, rows) = (&self.model.cpu, &self.model.config, self.rows);
        if config.qk_norm == QkNorm::None {
            return Ok(());
        }
        let mut cost = Cost::default();
        let (q, k) = (config.q_dim(), config.kv_dim());
        for (weight, x) in
            [(&layer.q_norm, &mut self.s.q[..rows * q]), (&layer.k_norm, &mut self.s.k[..rows * k])]
        {
            if let Some(weight) = weight {
                let norm = Norm { kind: NormKind::Rms, eps: config.norm.eps, weight, bias: None };
                kernels::norm_rows_in_place(&cpu.table, &cpu.team, &norm, x)?;
                cost.weight_bytes += 4 * weight.len() as u64;
            }
        }
        self.meter.count(Operator::QkNorm, cost);
        Ok(())
    }

    /// OLMoE's clamp on q, k and v, after the q/k norm as transformers has it.
    fn clip(&mut self) {
        let Some(limit) = self.model.config.clip_qkv else { return };
        let rows = self.rows;
        let (q, kv) = (rows * self.model.config.q_dim(), rows * self.model.config.kv_dim());
        for x in [&mut self.s.q[..q], &mut self.s.k[..kv], &mut self.s.v[..kv]] {
            x.iter_mut().for_each(|value| *value = value.clamp(-limit, limit));
        }
    }

    /// Turns q and k to their positions; the sinks are read by a copy of q that stands right behind their window.
    fn rope(&mut self) -> Result<(), EngineError> {
        let (cpu, config, rows) = (&self.model.cpu, &self.model.config, self.rows);
        let (pairing, pairs) = (pairing(config.rope.pairing), self.model.inv_freq.len());
        let at = self.first * pairs..(self.first + rows) * pairs;
        let (q, kv) = (rows * config.q_dim(), rows * config.kv_dim());
        let Scratch { q: queries, k: keys, sink_q, rope, sink_rope, .. } = &mut *self.s;
        let turn = |rope: &Angles, x: &mut [f32]| {
            let (cos, sin) = (&rope.cos[at.clone()], &rope.sin[at.clone()]);
            kernels::rope(&cpu.table, &cpu.team, pairing, config.head_dim, cos, sin, rows, x)
        };
        if self.cache.sink_frame().is_some_and(|most| self.start + rows > most + 1) {
            sink_q[..q].copy_from_slice(&queries[..q]);
            turn(sink_rope, &mut sink_q[..q])?;
        }
        turn(rope, &mut queries[..q])?;
        turn(rope, &mut keys[..kv])?;
        self.meter.count(Operator::Rope, Cost::default());
        Ok(())
    }

    /// K and V of the new rows go to their pages.
    fn append(&mut self, index: usize) {
        let kv = self.model.config.n_kv_heads * self.model.config.head_dim;
        let (k, v) = (&self.s.k[..self.rows * kv], &self.s.v[..self.rows * kv]);
        self.cache.append(&self.model.cpu, index, self.start, self.rows, k, v);
        let slots = (self.rows * self.model.config.n_kv_heads) as u64;
        let kv_write_bytes = slots * self.cache.layout().slot_bytes() as u64;
        self.meter.count(Operator::KvAppend, Cost { kv_write_bytes, ..Cost::default() });
    }

    /// mixed = softmax(q·K / √head_dim)·V over the slots each row sees
    fn attention(&mut self, index: usize) -> Result<(), EngineError> {
        if let Some(quest) = self.cache.selects(index).filter(|_| !self.prompt) {
            return self.selected_attention(index, &quest);
        }
        let (cpu, config, rows) = (&self.model.cpu, &self.model.config, self.rows);
        let (shape, n) = (self.model.attention_shape(), rows * config.q_dim());
        let Scratch { q, sink_q, mixed, attention, bands, .. } = &mut *self.s;
        let bands = &mut bands[..if self.cache.has_windows() { rows * config.n_kv_heads } else { 0 }];
        let visible = if self.cache.bands(index, rows, bands) {
            let apart = self.cache.sink_frame().is_some() && bands.iter().any(|band| band.sinks > 0);
            Visible::Bands { bands, sink_q: apart.then(|| &sink_q[..n]) }
        } else {
            Visible::Causal
        };
        let layer = self.cache.layer(index);
        let jobs = [AttentionJob { kv: &layer, rows: 0..rows, visible }];
        let (table, team, q, mixed) = (&cpu.table, &cpu.team, &q[..n], &mut mixed[..n]);
        kernels::attention(table, team, &shape, self.cache.layout(), &jobs, q, attention, mixed)?;
        let reads = self.cache.reads(index, rows, visible);
        let cost = reads.cost(self.cache.layout(), shape);
        self.meter.count(Operator::Attention, cost);
        Ok(())
    }

    /// The same over the pages that Quest chooses for the row.
    fn selected_attention(&mut self, index: usize, quest: &Quest) -> Result<(), EngineError> {
        let (cpu, shape) = (&self.model.cpu, self.model.attention_shape());
        let n = shape.row();
        let Scratch { q, mixed, attention, selection, .. } = &mut *self.s;
        self.cache.select(cpu, quest, index, &shape, &q[..n], selection)?;
        // Query heads that choose for themselves are lanes of their own.
        let readers = match quest.select {
            Select::Lane => shape,
            Select::Head => AttentionShape { n_kv_heads: shape.n_heads, ..shape },
        };
        let selected = Selected { layer: self.cache.layer(index), selection };
        let jobs = [AttentionJob { kv: &selected, rows: 0..1, visible: Visible::Causal }];
        let (table, team, q, mixed) = (&cpu.table, &cpu.team, &q[..n], &mut mixed[..n]);
        kernels::attention(table, team, &readers, self.cache.layout(), &jobs, q, attention, mixed)?;
        let (reads, bound_bytes) = self.cache.selected_reads(quest, selection, shape.group());
        let mut cost = reads.cost(self.cache.layout(), shape);
        cost.kv_read_bytes += bound_bytes;
        self.meter.count(Operator::Attention, cost);
        Ok(())
    }

    /// x += wo·mixed
    fn wo(&mut self, wo: &Linear) -> Result<(), EngineError> {
        let Scratch { mixed, activations, x, .. } = &mut *self.s;
        let x = &mut x[self.first * self.model.config.hidden_size..];
        onto_residual(self.model, self.rows, wo, mixed, activations, x)?;
        self.meter.count(Operator::Wo, wo.cost(self.rows));
        Ok(())
    }

    /// x += w_down·(act(w_gate·normed) ⊙ w_up·normed)
    fn gated(&mut self, w_gate: &Linear, w_up: &Linear, w_down: &Linear) -> Result<(), EngineError> {
        let (cpu, rows, hidden) = (&self.model.cpu, self.rows, self.model.config.hidden_size);
        let Scratch { normed, activations, gate, up, x, .. } = &mut *self.s;
        let x = &mut x[self.first * hidden..];
        let formats = [w_gate.w.format(), w_up.w.format()];
        activations.set(&cpu.table, &cpu.team, &normed[..rows * hidden], rows, hidden, &formats)?;
        let mut jobs = [w_gate.job(rows, gate, false), w_up.job(rows, up, false)];
        kernels::matmul(&cpu.table, &cpu.team, activations, &mut jobs)?;
        let mut cost = w_gate.cost(rows);
        cost += w_up.cost(rows);
        self.meter.count(Operator::WGateUp, cost);

        let n = rows * w_gate.w.rows();
        let function = activation(self.model.config.ffn.activation());
        kernels::activate_gated(&cpu.table, &cpu.team, function, &mut gate[..n], &up[..n])?;
        self.meter.count(Operator::Activation, Cost::default());

        onto_residual(self.model, rows, w_down, gate, activations, x)?;
        self.meter.count(Operator::WDown, w_down.cost(rows));
        Ok(())
    }

    /// x += w_down·act(w_up·normed)
    fn plain(&mut self, w_up: &Linear, w_down: &Linear) -> Result<(), EngineError> {
        let (cpu, rows, hidden) = (&self.model.cpu, self.rows, self.model.config.hidden_size);
        let Scratch { normed, activations, up, x, .. } = &mut *self.s;
        let x = &mut x[self.first * hidden..];
        activations.set(&cpu.table, &cpu.team, &normed[..rows * hidden], rows, hidden, &[w_up.w.format()])?;
        kernels::matmul(&cpu.table, &cpu.team, activations, &mut [w_up.job(rows, up, false)])?;
        self.meter.count(Operator::WGateUp, w_up.cost(rows));

        let function = activation(self.model.config.ffn.activation());
        kernels::activate(&cpu.table, &cpu.team, function, &mut up[..rows * w_up.w.rows()]);
        self.meter.count(Operator::Activation, Cost::default());

        onto_residual(self.model, rows, w_down, up, activations, x)?;
        self.meter.count(Operator::WDown, w_down.cost(rows));
        Ok(())
    }
}

/// x += w·input + b, `input`: (rows, w.cols)
fn onto_residual(
    model: &Model,
    rows: usize,
    linear: &Linear,
    input: &[f32],
    activations: &mut kernels::Activations,
    x: &mut [f32],
) -> Result<(), EngineError> {
    let (cpu, cols) = (&model.cpu, linear.w.cols());
    activations.set(&cpu.table, &cpu.team, &input[..rows * cols], rows, cols, &[linear.w.format()])?;
    Ok(kernels::matmul(&cpu.table, &cpu.team, activations, &mut [linear.job(rows, x, true)])?)
}
