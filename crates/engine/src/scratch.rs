//! [`Scratch`]: every buffer of a step, allocated once per session.

use crate::cache::{KvCache, Selection};
use crate::error::EngineError;
use crate::model::Model;
use roofline_kernels::{Activations, AttentionScratch, Band, Buffer, rope_angles};
use roofline_model::config::Ffn;
use std::ops::Range;

/// Buffers for steps of up to `rows` rows. Pages the allocator hands out zeroed are not resident before they are
/// written, so a session that only decodes touches one row of each.
pub(crate) struct Scratch {
    pub x: Buffer<f32>,        // (rows, hidden), the residual stream
    pub normed: Buffer<f32>,   // (rows, hidden)
    pub q: Buffer<f32>,        // (rows, n_heads, head_dim)
    pub k: Buffer<f32>,        // (rows, n_kv_heads, head_dim)
    pub v: Buffer<f32>,        // (rows, n_kv_heads, head_dim)
    pub mixed: Buffer<f32>,    // (rows, n_heads, head_dim)
    pub gate: Buffer<f32>,     // (rows · n_active, ff)
    pub up: Buffer<f32>,       // (rows · n_active, ff)
    pub sink_q: Buffer<f32>,   // (rows, n_heads, head_dim), or empty
    pub bands: Vec<Band>,      // (n_kv_heads, rows), or empty
    pub positions: Vec<usize>, // (rows)
    pub rope: Angles,          // (rows)
    pub sink_rope: Angles,     // (rows), or empty
    pub logits: Buffer<f32>,   // (head_rows, vocab_size)
    pub experts: Option<ExpertScratch>,
    pub activations: Activations, // (rows · n_active, max(hidden, q, ff))
    pub attention: AttentionScratch,
    pub selection: Selection,
    on_large_pages: bool,
}

/// Cosines and sines of the positions of a step.
#[derive(Default)]
pub(crate) struct Angles {
    pub cos: Vec<f32>, // (rows, rotary_dim / 2)
    pub sin: Vec<f32>, // (rows, rotary_dim / 2)
}

impl Angles {
    /// Those of `positions`.
    pub fn set(&mut self, positions: &[usize], inv_freq: &[f64]) -> Result<(), EngineError> {
        let n = positions.len() * inv_freq.len();
        self.cos.resize(n, 0.0);
        self.sin.resize(n, 0.0);
        Ok(rope_angles(positions, inv_freq, &mut self.cos, &mut self.sin)?)
    }

    fn with_capacity(rows: usize, pairs: usize) -> Angles {
        Angles { cos: Vec::with_capacity(rows * pairs), sin: Vec::with_capacity(rows * pairs) }
    }
}

/// Buffers of the expert path.
pub(crate) struct ExpertScratch {
    pub router: Buffer<f32>,       // (rows, n_experts)
    pub ids: Vec<u32>,             // (rows, n_active), the most probable first
    pub weights: Buffer<f32>,      // (rows, n_active)
    pub groups: Vec<Range<usize>>, // (n_experts), rows of `grouped` that each expert works on
    pub place: Vec<usize>,         // (rows, n_active), where in `grouped` a row's visit is
    pub grouped: Buffer<f32>,      // (rows · n_active, hidden)
}

impl Scratch {
    /// Buffers for `rows` rows through the layers, `head_rows` rows through the output head and lanes of up to
    /// `context` slots; with a second frame for queries and a list of bands where `cache` has windows.
    ///
    /// # Errors
    /// [`EngineError::Memory`] when they cannot be had.
    pub fn new(
        model: &Model,
        rows: usize,
        head_rows: usize,
        context: usize,
        cache: &KvCache,
    ) -> Result<Scratch, EngineError> {
        let config = model.config();
        let pairs = config.rope.rotary_dim / 2;
        let (windows, frames) = (cache.has_windows(), cache.sink_frame().is_some());
        let q = config.n_heads * config.head_dim;
        let kv = config.n_kv_heads * config.head_dim;
        let (ff, visits) = match config.ffn {
            Ffn::Gated { intermediate_size, .. } | Ffn::Plain { intermediate_size, .. } => {
                (intermediate_size, 1)
            }
            Ffn::Experts { intermediate_size, n_active, .. } => (intermediate_size, n_active),
        };
        let hidden = config.hidden_size;
        let experts = match config.ffn {
            Ffn::Experts { n_experts, n_active, .. } => Some(ExpertScratch {
                router: floats(rows, n_experts)?,
                ids: vec![0; rows * n_active],
                weights: floats(rows, n_active)?,
                groups: vec![0..0; n_experts],
                place: vec![0; rows * n_active],
                grouped: floats(rows * n_active, hidden)?,
            }),
            _ => None,
        };
        Ok(Scratch {
            x: floats(rows, hidden)?,
            normed: floats(rows, hidden)?,
            q: floats(rows, q)?,
            k: floats(rows, kv)?,
            v: floats(rows, kv)?,
            mixed: floats(rows, q)?,
            gate: floats(rows * visits, ff)?,
            up: floats(rows * visits, ff)?,
            sink_q: floats(if frames { rows } else { 0 }, q)?,
            bands: vec![Band::default(); if windows { rows * config.n_kv_heads } else { 0 }],
            positions: vec![0; rows],
            rope: Angles::with_capacity(rows, pairs),
            sink_rope: Angles::with_capacity(if frames { rows } else { 0 }, pairs),
            logits: floats(head_rows, config.vocab_size)?,
            experts,
            activations: Activations::with_capacity(rows * visits, hidden.max(q).max(ff))?,
            selection: Selection::default(),
            on_large_pages: false,
            attention: AttentionScratch::new(model.cpu().threads(), &model.attention_shape(), context)?,
        })
    }
}

/// From this many rows on, buffers are on large pages: each column of outputs that a tile writes lies on a page of its
/// own for every row, and small pages then cost up to 8 % of a prefill (docs/kernels-log.md).
const LARGE_PAGE_ROWS: usize = 64;

impl Scratch {
    /// Asks for large pages if a step of `rows` rows is worth them. Once: a page that is there stays as it is.
    pub fn choose_pages(&mut self, rows: usize) {
        if rows < LARGE_PAGE_ROWS || self.on_large_pages {
            return;
        }
        self.on_large_pages = true;
        let Scratch { x, normed, q, k, v, mixed, gate, up, sink_q, .. } = self;
        for buffer in [x, normed, q, k, v, mixed, gate, up, sink_q] {
            buffer.ask_for_large_pages();
        }
        self.activations.ask_for_large_pages();
        if let Some(experts) = &self.experts {
            experts.grouped.ask_for_large_pages();
        }
    }

    /// Makes room for the hidden states of `rows` rows, of which the other buffers hold a chunk at a time.
    ///
    /// # Errors
    /// [`EngineError::Memory`] when it cannot be had.
    pub fn hold(&mut self, rows: usize, hidden: usize) -> Result<(), EngineError> {
        if self.x.len() < rows * hidden {
            self.x = floats(rows, hidden)?;
            self.x.ask_for_large_pages();
        }
        if self.positions.len() < rows {
            self.positions.resize(rows, 0);
        }
        Ok(())
    }

    /// Lets go of what [`Scratch::hold`] made beyond `rows` rows, and of the hidden states. Should there be no memory for a
    /// smaller buffer, the larger one serves as well.
    pub fn release(&mut self, rows: usize, hidden: usize) {
        if self.x.len() > rows * hidden
            && let Ok(x) = floats(rows, hidden)
        {
            if self.on_large_pages {
                x.ask_for_large_pages();
            }
            self.x = x;
        }
    }
}

/// `rows · cols` zeros.
fn floats(rows: usize, cols: usize) -> Result<Buffer<f32>, EngineError> {
    let len = rows.checked_mul(cols);
    len.and_then(Buffer::zeroed).ok_or_else(|| {
        let bytes = len.and_then(|len| len.checked_mul(4)).map_or(u64::MAX, |bytes| bytes as u64);
        EngineError::Memory { what: "scratch", bytes }
    })
}
