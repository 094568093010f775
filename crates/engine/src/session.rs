//! [`Session`]: one conversation with a model: its tokens, its cache, its buffers.

use crate::cache::{CacheBytes, CacheSpec, Geometry, KvCache};
use crate::error::EngineError;
use crate::eviction::Evidence;
use crate::forward::{Unit, forward, output_head};
use crate::kv_formats::KvFormats;
use crate::meter::Meter;
use crate::model::Model;
use crate::observe::Latest;
use crate::scratch::Scratch;
use roofline_kernels::{self as kernels, AttentionScratch, KvFormat, PageLayout};
use std::ops::ControlFlow;
use std::sync::Arc;

/// How a session runs.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionOptions {
    /// What the KV cache keeps.
    pub cache: CacheSpec,
    /// How it stores keys and values.
    pub kv_format: KvFormats,
    /// Most tokens it takes; the model's context when absent, or no limit where the policy reads every text at
    /// distances the model knows.
    pub context: Option<usize>,
    /// Prompt rows per step, at least 1.
    pub chunk: usize,
}

impl Default for SessionOptions {
    /// All tokens, in f16, up to the model's context, 512 rows a step.
    fn default() -> Self {
        let kv_format = KvFormat::F16.into();
        SessionOptions { cache: CacheSpec::Full, kv_format, context: None, chunk: 512 }
    }
}

/// Rows that go through the output head at a time when every row's logits are wanted: bounds the buffer at
/// 32 · vocab_size floats (19 MB for a vocabulary of 151936).
const LOGIT_ROWS: usize = 32;

/// Slots of a KV page where the policy does not say.
const PAGE_SLOTS: usize = 64;

/// Most tokens of a session without another limit: positions are stored in 32 bits.
const ENDLESS: usize = u32::MAX as usize;

/// What the first row of the buffer of logits holds.
#[derive(Clone, Copy)]
enum Logits {
    /// Nothing of the last token.
    None,
    /// Numbers.
    Finite,
    /// Something that is NaN or infinite.
    NotFinite,
}

/// A model, the tokens it has seen and what it remembers of them.
pub struct Session {
    model: Arc<Model>,
    options: SessionOptions,
    context: usize,
    cache: KvCache,
    tokens: Vec<u32>, // (seen)
    scratch: Scratch,
    evidence: Evidence,
    meter: Meter,
    logits: Logits,
}

impl Session {
    /// An empty session.
    ///
    /// # Errors
    /// A context of 0 or beyond the model's, a chunk of 0, a policy or a storage format that does not fit the model,
    /// or no memory.
    pub fn new(model: Arc<Model>, options: SessionOptions) -> Result<Session, EngineError> {
        let config = model.config();
        let slots = options.cache.quest().map_or(PAGE_SLOTS, |quest| quest.page);
        let KvFormats { key, value } = options.kv_format;
        let layout = PageLayout::with_formats(key, value, slots, config.head_dim)?;
        let geometry = Geometry {
            n_layers: config.n_layers,
            n_heads: config.n_heads,
            n_kv_heads: config.n_kv_heads,
            context_length: config.context_length,
        };
        let cache = KvCache::new(&options.cache, layout, geometry, &model.cpu.team)?;
        Session::with_cache(model, options, cache)
    }

    fn with_cache(
        model: Arc<Model>,
        options: SessionOptions,
        cache: KvCache,
    ) -> Result<Session, EngineError> {
        let config = model.config();
        let limit = config.context_length;
        let endless = options.cache.is_endless();
        let context = options.context.unwrap_or(if endless { ENDLESS } else { limit });
        if context == 0 || (context > limit && !endless) || context > ENDLESS {
            return Err(EngineError::ContextOption { context, limit });
        }
        if options.chunk == 0 {
            let why = "a step needs at least one row";
            return Err(EngineError::Option { option: "chunk", value: "0".into(), why });
        }
        let rows = options.chunk.min(context);
        let lane = if endless { limit + rows } else { context };
        let scratch = Scratch::new(&model, rows, LOGIT_ROWS.min(rows), lane, &cache)?;
        let mut tokens = Vec::new();
        let no_memory = |_| EngineError::Memory { what: "token ids", bytes: 4 * context as u64 };
        tokens.try_reserve_exact(context.min(limit)).map_err(no_memory)?;
        let (evidence, meter) = (Evidence::new(&options.cache, config), Meter::new(config.n_layers));
        Ok(Session { model, options, context, cache, tokens, scratch, evidence, meter, logits: Logits::None })
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// How the session runs.
    pub fn options(&self) -> &SessionOptions {
        &self.options
    }

    /// Most tokens it takes.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Tokens seen.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Tokens that still fit: into the context, and into a fixed cache.
    pub fn room(&self) -> usize {
        let context = self.context - self.tokens.len();
        self.cache.room().map_or(context, |room| room.min(context))
    }

    /// Bytes of the KV cache.
    pub fn cache_bytes(&self) -> CacheBytes {
        self.cache.bytes()
    }

    /// Positions that a lane still holds for later queries, ascending.
    pub fn cache_positions(&self, layer: usize, kv_head: usize) -> Vec<usize> {
        self.cache.positions(layer, kv_head)
    }

    /// What the steps since the last [`Meter::clear`] cost.
    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    /// The meter, to clear it.
    pub fn meter_mut(&mut self) -> &mut Meter {
        &mut self.meter
    }

    /// Logits after the last token: (vocab_size).
    ///
    /// # Errors
    /// [`EngineError::NoLogits`] before the first token and after a rollback; [`EngineError::LogitsNotFinite`] when
    /// one of them is NaN or infinite.
    pub fn logits(&self) -> Result<&[f32], EngineError> {
        match self.logits {
            Logits::None => Err(EngineError::NoLogits),
            Logits::NotFinite => Err(EngineError::LogitsNotFinite { seen: self.tokens.len() }),
            Logits::Finite => Ok(&self.scratch.logits[..self.model.config().vocab_size]),
        }
    }

    /// Takes in `ids` and leaves the logits after the last of them.
    ///
    /// # Errors
    /// Empty `ids`, ids outside the vocabulary, more than the context takes, a full cache. Nothing was taken in then. With
    /// [`Packing::AtUse`](crate::Packing) also a weight that is no number: one in the output head leaves the tokens seen
    /// and no logits.
    pub fn prefill(&mut self, ids: &[u32]) -> Result<(), EngineError> {
        self.prefill_with(ids, &mut |_| ControlFlow::Continue(()))
    }

    /// [`Session::prefill`] that calls `progress` with the tokens done after every layer and every step; `Break` ends
    /// it there with [`EngineError::Cancelled`]. Steps that were done stay, one under way was never seen. A policy that
    /// compresses prompts takes a prompt in one step: the share of the layers that are through stands for tokens then.
    pub fn prefill_with(
        &mut self,
        ids: &[u32],
        progress: &mut dyn FnMut(usize) -> ControlFlow<()>,
    ) -> Result<(), EngineError> {
        self.check(ids)?;
        let mut done = 0;
        for unit in ids.chunks(self.unit_rows(ids)) {
            let part = if self.options.cache.compresses_prompts() { unit.len() as f64 } else { 0.0 };
            self.step(unit, true, &mut |share| progress(done + (share * part) as usize))?;
            done += unit.len();
            if done == ids.len() {
                self.last_logits(unit.len())?;
            }
            self.release();
            if progress(done).is_break() {
                return Err(EngineError::Cancelled);
            }
        }
        Ok(())
    }

    /// Takes in `ids` and computes no logits.
    ///
    /// # Errors
    /// As [`Session::prefill`].
    pub fn extend(&mut self, ids: &[u32]) -> Result<(), EngineError> {
        self.check(ids)?;
        for unit in ids.chunks(self.unit_rows(ids)) {
            self.step(unit, true, &mut |_| ControlFlow::Continue(()))?;
            self.release();
        }
        Ok(())
    }

    /// Takes in one token and leaves the logits after it. Allocates nothing, but for the pages of a `full` cache once
    /// in 64 tokens.
    ///
    /// # Errors
    /// As [`Session::prefill`].
    pub fn decode(&mut self, id: u32) -> Result<&[f32], EngineError> {
        self.check(&[id])?;
        self.step(&[id], false, &mut |_| ControlFlow::Continue(()))?;
        self.last_logits(1)?;
        self.logits()
    }

    /// Takes in `ids` and hands the logits after each of them to `sink`, as (index in `ids`, (vocab_size)).
    ///
    /// # Errors
    /// As [`Session::prefill`].
    pub fn prefill_logits(
        &mut self,
        ids: &[u32],
        sink: &mut dyn FnMut(usize, &[f32]) -> ControlFlow<()>,
    ) -> Result<(), EngineError> {
        self.check(ids)?;
        let vocab = self.model.config().vocab_size;
        let head_rows = self.scratch.logits.len() / vocab;
        let first_seen = self.tokens.len();
        let mut index = 0;
        for unit in ids.chunks(self.unit_rows(ids)) {
            self.step(unit, true, &mut |_| ControlFlow::Continue(()))?;
            let mut count = 0;
            for first in (0..unit.len()).step_by(head_rows) {
                count = head_rows.min(unit.len() - first);
                output_head(&self.model, first, count, &mut self.scratch, &mut self.meter)?;
                for logits in self.scratch.logits.chunks_exact(vocab).take(count) {
                    if !kernels::all_finite(logits) {
                        return Err(EngineError::LogitsNotFinite { seen: first_seen + index + 1 });
                    }
                    if sink(index, logits).is_break() {
                        return Err(EngineError::Cancelled);
                    }
                    index += 1;
                }
            }
            self.scratch.logits.copy_within((count - 1) * vocab..count * vocab, 0);
            self.logits = Logits::Finite;
            self.release();
        }
        Ok(())
    }

    /// Forgets the last `count` tokens as if they had never been seen.
    ///
    /// # Errors
    /// When fewer were seen.
    pub fn rollback(&mut self, count: usize) -> Result<(), EngineError> {
        self.cache.rollback(count)?;
        self.tokens.truncate(self.cache.seen());
        if count > 0 {
            self.logits = Logits::None;
        }
        Ok(())
    }

    /// A second session that has seen the same tokens. They share the cache's pages until one of them writes.
    ///
    /// # Errors
    /// No memory for its buffers.
    pub fn fork(&self) -> Result<Session, EngineError> {
        let mut fork = Session::with_cache(
            self.model.clone(),
            self.options.clone(),
            self.cache.fork(&self.model.cpu.team)?,
        )?;
        fork.evidence.follow(&self.evidence);
        fork.tokens.extend_from_slice(&self.tokens);
        fork.logits = self.logits;
        let vocab = self.model.config().vocab_size;
        fork.scratch.logits[..vocab].copy_from_slice(&self.scratch.logits[..vocab]);
        Ok(fork)
    }

    fn check(&self, ids: &[u32]) -> Result<(), EngineError> {
        let (vocab_size, seen) = (self.model.config().vocab_size, self.tokens.len());
        if ids.is_empty() {
            return Err(EngineError::EmptyPrompt);
        }
        if let Some(index) = ids.iter().position(|&id| id as usize >= vocab_size) {
            return Err(EngineError::TokenId { id: ids[index], index: seen + index, vocab_size });
        }
        if ids.len() > self.context - seen {
            let limit = self.model.config().context_length;
            return Err(EngineError::Context { seen, wanted: ids.len(), context: self.context, limit });
        }
        self.cache.check_room(ids.len())?;
        Ok(())
    }

    /// Rows of `ids` that are taken in together. A policy that compresses prompts sees a prompt as a whole.
    fn unit_rows(&self, ids: &[u32]) -> usize {
        if self.options.cache.compresses_prompts() { ids.len() } else { self.options.chunk }
    }

    /// One pass through the layers. When it fails, the session is as it was before.
    fn step(
        &mut self,
        ids: &[u32],
        prompt: bool,
        watch: &mut dyn FnMut(f64) -> ControlFlow<()>,
    ) -> Result<(), EngineError> {
        self.logits = Logits::None;
        let by_layer = prompt && self.options.cache.compresses_prompts();
        // What a policy evicts layer by layer cannot be taken back: a copy shares the pages until they are written.
        let before = by_layer.then(|| self.cache.clone());
        self.scratch.hold(ids.len(), self.model.config().hidden_size)?;
        self.scratch.choose_pages(ids.len());
        let unit = Unit { ids, chunk: self.options.chunk, prompt, by_layer };
        let Session { model, cache, scratch, evidence, meter, .. } = self;
        let result = forward(model, &unit, cache, scratch, evidence, meter, watch);
        match (&result, before) {
            (Ok(()), _) => self.tokens.extend_from_slice(ids),
            (Err(_), Some(before)) => self.cache = before,
            (Err(_), None) => self.cache.trim(),
        }
        result
    }

    /// Lets go of the hidden states of a long prompt.
    fn release(&mut self) {
        self.scratch.release(self.options.chunk.min(self.context), self.model.config().hidden_size);
    }

    pub(crate) fn observe_with(&mut self, latest: Option<Latest>) {
        self.evidence.latest = latest;
    }

    pub(crate) fn latest(&self) -> Option<&Latest> {
        self.evidence.latest.as_ref()
    }

    pub(crate) fn cache_and_attention(&mut self) -> (&KvCache, &mut AttentionScratch) {
        (&self.cache, &mut self.scratch.attention)
    }

    pub(crate) fn page_positions(&self, layer: usize, kv_head: usize, pages: &[u32]) -> Vec<usize> {
        self.cache.page_positions(layer, kv_head, pages)
    }

    /// Logits of the last of the `rows` rows just computed, in row 0 of the buffer.
    fn last_logits(&mut self, rows: usize) -> Result<(), EngineError> {
        output_head(&self.model, rows - 1, 1, &mut self.scratch, &mut self.meter)?;
        let finite = kernels::all_finite(&self.scratch.logits[..self.model.config().vocab_size]);
        self.logits = if finite { Logits::Finite } else { Logits::NotFinite };
        Ok(())
    }
}
