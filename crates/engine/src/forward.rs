//! The forward pass: one layer loop for every family. It reads like the paper; what differs between families is data
//! in the configuration and in [`Layer`].

use crate::cache::KvCache;
use crate::cpu::{activation, pairing};
use crate::error::EngineError;
use crate::experts::experts;
use crate::meter::Meter;
use crate::model::{Layer, LayerFfn, Linear, Model, NormWeights};
use crate::scratch::Scratch;
use roofline_kernels::{self as kernels, AttentionJob, MatmulJob, Norm, NormKind, Visible};
use roofline_model::config::{QkNorm, Residual};
use roofline_model::operator::{Cost, Operator};
use std::ops::ControlFlow;

/// Runs `ids` through the layers behind what `cache` has seen, and adds them to it. Leaves the hidden states in
/// `scratch.x`. Asks `go_on` between layers: a step over a long chunk can take seconds.
///
/// # Errors
/// The cache's, when it has no room: it is unchanged then. [`EngineError::Cancelled`] when `go_on` breaks: the cache
/// then holds rows past what it has seen, for the caller to trim.
pub(crate) fn forward(
    model: &Model,
    ids: &[u32],
    cache: &mut KvCache,
    scratch: &mut Scratch,
    meter: &mut Meter,
    go_on: &mut dyn FnMut() -> ControlFlow<()>,
) -> Result<(), EngineError> {
    cache.reserve(ids.len())?;
    let mut pass = Pass { model, rows: ids.len(), start: cache.seen(), cache, s: scratch, meter };
    pass.meter.start();
    pass.embed(ids)?;
    pass.angles()?;
    for (index, layer) in model.layers.iter().enumerate() {
        if index > 0 && go_on().is_break() {
            return Err(EngineError::Cancelled);
        }
        pass.block(index, layer)?;
    }
    cache.advance(ids.len());
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

/// One step's rows on their way through the layers.
pub(crate) struct Pass<'a> {
    pub model: &'a Model,
    pub rows: usize,
    pub start: usize, // position of the first row
    pub cache: &'a mut KvCache,
    pub s: &'a mut Scratch,
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

    /// Cosines and sines of this step's positions, for all layers.
    fn angles(&mut self) -> Result<(), EngineError> {
        let pairs = self.model.inv_freq.len();
        let Scratch { positions, cos, sin, .. } = &mut *self.s;
        let positions = &mut positions[..self.rows];
        positions.iter_mut().zip(self.start..).for_each(|(position, at)| *position = at);
        let (cos, sin) = (&mut cos[..self.rows * pairs], &mut sin[..self.rows * pairs]);
        kernels::rope_angles(positions, &self.model.inv_freq, cos, sin)?;
        self.meter.count(Operator::Rope, Cost::default());
        Ok(())
    }

    /// One transformer block: attention and feed-forward, each added to the residual stream x.
    fn block(&mut self, index: usize, layer: &Layer) -> Result<(), EngineError> {
        self.norm(Operator::AttentionNorm, &layer.attention_norm)?;
        self.qkv(layer)?;
        self.qk_norm(layer)?;
        self.clip();
        self.rope()?;
        self.append(index);
        self.attention(index)?;
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
        let (cpu, n) = (&self.model.cpu, self.rows * self.model.config.hidden_size);
        let (x, normed) = (&self.s.x[..n], &mut self.s.normed[..n]); // (rows, hidden)
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

    fn rope(&mut self) -> Result<(), EngineError> {
        let (cpu, config, rows) = (&self.model.cpu, &self.model.config, self.rows);
        let (pairing, pairs) = (pairing(config.rope.pairing), self.model.inv_freq.len());
        let (cos, sin) = (&self.s.cos[..rows * pairs], &self.s.sin[..rows * pairs]);
        let (q, kv) = (rows * config.q_dim(), rows * config.kv_dim());
        for x in [&mut self.s.q[..q], &mut self.s.k[..kv]] {
            kernels::rope(&cpu.table, &cpu.team, pairing, config.head_dim, cos, sin, rows, x)?;
        }
        self.meter.count(Operator::Rope, Cost::default());
        Ok(())
    }

    /// K and V of the new rows go to their pages.
    fn append(&mut self, index: usize) {
        let kv = self.model.config.n_kv_heads * self.model.config.head_dim;
        self.cache.append(index, self.rows, &self.s.k[..self.rows * kv], &self.s.v[..self.rows * kv]);
        let slots = (self.rows * self.model.config.n_kv_heads) as u64;
        let kv_write_bytes = slots * self.cache.layout().slot_bytes() as u64;
        self.meter.count(Operator::KvAppend, Cost { kv_write_bytes, ..Cost::default() });
    }

    /// mixed = softmax(q·K / √head_dim)·V over the slots each row sees
    fn attention(&mut self, index: usize) -> Result<(), EngineError> {
        let (cpu, config, rows) = (&self.model.cpu, &self.model.config, self.rows);
        let (shape, layout, n) = (self.model.attention_shape(), self.cache.layout(), rows * config.q_dim());
        let jobs = [AttentionJob { kv: &self.cache.layer(index), rows: 0..rows, visible: Visible::Causal }];
        let Scratch { q, mixed, attention, .. } = &mut *self.s;
        kernels::attention(
            &cpu.table,
            &cpu.team,
            &shape,
            layout,
            &jobs,
            &q[..n],
            attention,
            &mut mixed[..n],
        )?;
        let seen = (self.start + rows) as u64;
        let pairs = (1..=rows as u64).map(|row| self.start as u64 + row).sum::<u64>(); // a row sees itself and all before
        let cost = Cost {
            kv_read_bytes: seen * config.n_kv_heads as u64 * self.cache.layout().slot_bytes() as u64,
            flops: 4 * (config.head_dim * config.n_heads) as u64 * pairs,
            ..Cost::default()
        };
        self.meter.count(Operator::Attention, cost);
        Ok(())
    }

    /// x += wo·mixed
    fn wo(&mut self, wo: &Linear) -> Result<(), EngineError> {
        let Scratch { mixed, activations, x, .. } = &mut *self.s;
        onto_residual(self.model, self.rows, wo, mixed, activations, x)?;
        self.meter.count(Operator::Wo, wo.cost(self.rows));
        Ok(())
    }

    /// x += w_down·(act(w_gate·normed) ⊙ w_up·normed)
    fn gated(&mut self, w_gate: &Linear, w_up: &Linear, w_down: &Linear) -> Result<(), EngineError> {
        let (cpu, rows, hidden) = (&self.model.cpu, self.rows, self.model.config.hidden_size);
        let Scratch { normed, activations, gate, up, x, .. } = &mut *self.s;
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
