//! [`Session`]: one conversation with a model: its tokens, its cache, its buffers.

use crate::cache::{CacheBytes, CacheSpec, KvCache};
use crate::error::EngineError;
use crate::forward::{forward, output_head};
use crate::kv_formats::KvFormats;
use crate::meter::Meter;
use crate::model::Model;
use crate::scratch::Scratch;
use roofline_kernels::{KvFormat, PageLayout};
use std::ops::ControlFlow;
use std::sync::Arc;

/// How a session runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionOptions {
    /// What the KV cache keeps.
    pub cache: CacheSpec,
    /// How it stores keys and values.
    pub kv_format: KvFormats,
    /// Most tokens it takes; the model's context when absent.
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

/// Slots of a KV page.
const PAGE_SLOTS: usize = 64;

/// A model, the tokens it has seen and what it remembers of them.
pub struct Session {
    model: Arc<Model>,
    options: SessionOptions,
    context: usize,
    cache: KvCache,
    tokens: Vec<u32>, // (seen)
    scratch: Scratch,
    meter: Meter,
    has_logits: bool,
}

impl Session {
    /// An empty session.
    ///
    /// # Errors
    /// A context of 0 or beyond the model's, a chunk of 0, a storage format whose blocks a head does not fill, or no
    /// memory.
    pub fn new(model: Arc<Model>, options: SessionOptions) -> Result<Session, EngineError> {
        let config = model.config();
        let limit = config.context_length;
        let context = options.context.unwrap_or(limit);
        if context == 0 || context > limit {
            return Err(EngineError::ContextOption { context, limit });
        }
        if options.chunk == 0 {
            let why = "a step needs at least one row";
            return Err(EngineError::Option { option: "chunk", value: "0".into(), why });
        }
        let KvFormats { key, value } = options.kv_format;
        let layout = PageLayout::with_formats(key, value, PAGE_SLOTS, config.head_dim)?;
        let cache = KvCache::new(options.cache, layout, config.n_layers, config.n_kv_heads)?;
        let rows = options.chunk.min(context);
        let scratch = Scratch::new(&model, rows, LOGIT_ROWS.min(rows), context)?;
        let mut tokens = Vec::new();
        let no_memory = |_| EngineError::Memory { what: "token ids", bytes: 4 * context as u64 };
        tokens.try_reserve_exact(context).map_err(no_memory)?;
        let meter = Meter::new(config.n_layers);
        Ok(Session { model, options, context, cache, tokens, scratch, meter, has_logits: false })
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// How the session runs.
    pub fn options(&self) -> SessionOptions {
        self.options
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
        if !self.has_logits {
            return Err(EngineError::NoLogits);
        }
        let logits = &self.scratch.logits[..self.model.config().vocab_size];
        match logits.iter().all(|logit| logit.is_finite()) {
            true => Ok(logits),
            false => Err(EngineError::LogitsNotFinite { seen: self.tokens.len() }),
        }
    }

    /// Takes in `ids` and leaves the logits after the last of them.
    ///
    /// # Errors
    /// Empty `ids`, ids outside the vocabulary, more than the context takes, a full cache. Nothing was taken in then.
    pub fn prefill(&mut self, ids: &[u32]) -> Result<(), EngineError> {
        self.prefill_with(ids, &mut |_| ControlFlow::Continue(()))
    }

    /// [`Session::prefill`] that calls `progress` with the tokens done after every step; `Break` ends it there with
    /// [`EngineError::Cancelled`], and what was done stays.
    pub fn prefill_with(
        &mut self,
        ids: &[u32],
        progress: &mut dyn FnMut(usize) -> ControlFlow<()>,
    ) -> Result<(), EngineError> {
        self.check(ids)?;
        let mut done = 0;
        for chunk in ids.chunks(self.options.chunk) {
            self.step(chunk)?;
            done += chunk.len();
            if done == ids.len() {
                self.last_logits(chunk.len())?;
            }
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
        ids.chunks(self.options.chunk).try_for_each(|chunk| self.step(chunk))
    }

    /// Takes in one token and leaves the logits after it. Allocates nothing, but for the pages of a `full` cache once
    /// in 64 tokens.
    ///
    /// # Errors
    /// As [`Session::prefill`].
    pub fn decode(&mut self, id: u32) -> Result<&[f32], EngineError> {
        self.check(&[id])?;
        self.step(&[id])?;
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
        for chunk in ids.chunks(self.options.chunk) {
            self.step(chunk)?;
            let mut count = 0;
            for first in (0..chunk.len()).step_by(head_rows) {
                count = head_rows.min(chunk.len() - first);
                output_head(&self.model, first, count, &mut self.scratch, &mut self.meter)?;
                for logits in self.scratch.logits.chunks_exact(vocab).take(count) {
                    if !logits.iter().all(|logit| logit.is_finite()) {
                        return Err(EngineError::LogitsNotFinite { seen: first_seen + index + 1 });
                    }
                    if sink(index, logits).is_break() {
                        return Err(EngineError::Cancelled);
                    }
                    index += 1;
                }
            }
            self.scratch.logits.copy_within((count - 1) * vocab..count * vocab, 0);
            self.has_logits = true;
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
        self.has_logits = self.has_logits && count == 0;
        Ok(())
    }

    /// A second session that has seen the same tokens. They share the cache's pages until one of them writes.
    ///
    /// # Errors
    /// No memory for its buffers.
    pub fn fork(&self) -> Result<Session, EngineError> {
        let mut fork =
            Session::new(self.model.clone(), SessionOptions { cache: CacheSpec::Full, ..self.options })?;
        fork.options = self.options;
        fork.cache = self.cache.fork()?;
        fork.tokens.extend_from_slice(&self.tokens);
        fork.has_logits = self.has_logits;
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

    /// One pass through the layers.
    fn step(&mut self, ids: &[u32]) -> Result<(), EngineError> {
        self.has_logits = false;
        let result = forward(&self.model, ids, &mut self.cache, &mut self.scratch, &mut self.meter);
        match result {
            Ok(()) => self.tokens.extend_from_slice(ids),
            Err(_) => self.cache.trim(),
        }
        result
    }

    /// Logits of the last of the `rows` rows just computed, in row 0 of the buffer.
    fn last_logits(&mut self, rows: usize) -> Result<(), EngineError> {
        output_head(&self.model, rows - 1, 1, &mut self.scratch, &mut self.meter)?;
        self.has_logits = true;
        Ok(())
    }
}
