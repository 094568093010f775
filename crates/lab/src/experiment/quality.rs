//! What a cache policy or a narrower weight costs in quality, beside the times: perplexity on the prose that prompts
//! are cut from, and the divergence from the first value of the axis, token by token.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use roofline_engine::{CacheSpec, EngineError, KvFormats, Model, Session, SessionOptions};

use super::error::ExperimentError;
use super::figures::rounded;
use super::hash::hash_of;
use super::ordered::Ordered;
use super::prompt::PROSE;
use super::rows::{Quality, Quantity, Value};
use super::subjects::Subject;
use crate::error::LabError;
use crate::quality::{self, Convention, Estimate, Mode, Plan, Scored, Setup, Text};
use crate::statistics::{Block, BlockMean, block_mean};

/// Longest window; shorter where the model takes less.
const CONTEXT: usize = 1024;
/// Tokens of one observation, as in [`crate::quality`].
const BLOCK: usize = 256;
/// Rows of logits of two models that are held at once.
const ROWS: usize = 32;

/// What is compared: one model with several caches, or several precisions with one cache.
#[derive(Debug, Clone, PartialEq)]
pub struct Configuration {
    /// Axes that matter, with their values: model, precision, cache, kv_type.
    pub cell: Ordered<Value>,
    /// Its hash.
    pub hash: String,
}

impl Configuration {
    /// The part of a cell that quality depends on.
    pub fn of(cell: &Ordered<Value>) -> Configuration {
        let axes = ["model", "precision", "cache", "kv_type"];
        let cell: Ordered<Value> =
            axes.iter().filter_map(|axis| Some((*axis, cell.get(axis)?.clone()))).collect();
        let hash = hash_of(&cell);
        Configuration { cell, hash }
    }

    fn text(&self, axis: &str) -> String {
        self.cell.get(axis).map(ToString::to_string).unwrap_or_default()
    }

    fn kv_format(&self) -> Result<KvFormats, LabError> {
        self.text("kv_type")
            .parse()
            .map_err(|error| ExperimentError::Spec(format!("kv_type: {error}")).into())
    }

    fn spec(&self, context: usize) -> Result<CacheSpec, LabError> {
        let text = match self.text("cache").as_str() {
            super::axes::FIT => format!("static:{context}"),
            text => text.to_string(),
        };
        Ok(text.parse::<CacheSpec>().map_err(EngineError::from)?)
    }
}

/// Measures `configuration`, held against `first`. `None` where quality means nothing: weights that are made up, no
/// tokenizer.
///
/// # Errors
/// What the engine refuses; [`LabError::Cancelled`].
pub fn measure(
    configuration: &Configuration,
    first: &Configuration,
    subjects: &[Subject],
    cancel: &AtomicBool,
    watch: &mut dyn FnMut(&str),
) -> Result<Option<Quality>, LabError> {
    let find = |wanted: &Configuration| {
        let (name, precision) = (wanted.text("model"), wanted.text("precision"));
        subjects.iter().find(|subject| subject.name == name && subject.precision == precision)
    };
    let (Some(subject), Some(base)) = (find(configuration), find(first)) else { return Ok(None) };
    if subject.made_up() || subject.files.tokenizer().is_none() {
        return Ok(None);
    }
    let what = ["precision", "cache"].map(|axis| configuration.text(axis)).join(", ");
    watch(&format!("perplexity and divergence of {}: {what}", subject.name));
    let started = Instant::now();
    // Figures of one table are of one kind: where a model is there in several precisions, the first of them is measured as
    // the others are, against itself.
    let several = subjects.iter().filter(|other| other.name == subject.name).count() > 1;
    let same_cache = ["cache", "kv_type"].iter().all(|axis| configuration.text(axis) == first.text(axis));
    let (method, metrics) = match several && same_cache && subject.name == base.name {
        true => precisions(subject, base, configuration, cancel)?,
        false => caches(subject, configuration, cancel)?,
    };
    Ok(Some(Quality {
        cell: configuration.cell.clone(),
        cell_hash: configuration.hash.clone(),
        model: subject.facts.clone(),
        method,
        metrics,
        wall_s: rounded(started.elapsed().as_secs_f64()),
    }))
}

fn text_of(subject: &Subject) -> Result<Text, LabError> {
    let tokenizer = subject.files.tokenizer().ok_or_else(|| ExperimentError::Spec("no tokenizer".into()))?;
    Ok(Text::encode(tokenizer, "Middlemarch, chapter 15", PROSE, Convention::HalfChunk, None)?)
}

/// One model with a cache, against the same model with the cache that keeps everything.
fn caches(
    subject: &Subject,
    configuration: &Configuration,
    cancel: &AtomicBool,
) -> Result<(String, Ordered<Quantity>), LabError> {
    let text = text_of(subject)?;
    let context = CONTEXT.min(subject.model.config().context_length).min(text.tokens().len());
    let tokenizer = subject.files.tokenizer().ok_or_else(|| ExperimentError::Spec("no tokenizer".into()))?;
    let bos = quality::lead(tokenizer, Convention::HalfChunk)?;
    let plan = Plan {
        convention: Convention::HalfChunk,
        context,
        stride: context,
        bos,
        // What a policy does when a text is generated, for all of them: figures of one table are of one kind.
        mode: Mode::Decode,
        // Longer than half, so that a budget of half a window has something to evict.
        prompt: context / 4 * 3,
        chunk: SessionOptions::default().chunk,
        buckets: 1,
    };
    let kv_format = configuration.kv_format()?;
    let setup = Setup { cache: configuration.spec(context)?, kv_format };
    let reference = Setup::full(kv_format);
    let report = quality::measure(
        &subject.model,
        &[text],
        &plan,
        std::slice::from_ref(&setup),
        Some(&reference),
        cancel,
        &mut |_| {},
    )?;
    let mut metrics = Ordered::default();
    for row in &report.rows {
        let estimate = |estimate: &Estimate, unit: &str| Quantity {
            value: rounded(estimate.value),
            unit: unit.to_string(),
            low: estimate.interval.map(|ends| rounded(ends.low)),
            high: estimate.interval.map(|ends| rounded(ends.high)),
            n: Some(row.perplexity.tokens),
        };
        metrics.set("perplexity", estimate(&row.perplexity.token, "1"));
        if let Some(against) = &row.against {
            metrics.set("perplexity_ratio", estimate(&against.ratio, "1"));
            metrics.set("kl", estimate(&against.kl, "nat"));
            metrics.set("same_top", share(against.same_top, row.perplexity.tokens));
        }
    }
    let method = format!(
        "Middlemarch, chapter 15: {} windows of {context} tokens, three quarters taken in as a prompt and the rest scored \
         one by one, against the full cache; intervals over blocks of {BLOCK} tokens",
        report.windows
    );
    Ok((method, metrics))
}

/// One precision against another of the same model, both reading the same windows.
fn precisions(
    subject: &Subject,
    base: &Subject,
    configuration: &Configuration,
    cancel: &AtomicBool,
) -> Result<(String, Ordered<Quantity>), LabError> {
    let text = text_of(base)?;
    let context = CONTEXT.min(subject.model.config().context_length).min(text.tokens().len());
    let options = SessionOptions {
        cache: configuration.spec(context)?,
        kv_format: configuration.kv_format()?,
        ..SessionOptions::default()
    };
    let mut sums = Sums::default();
    let windows: Vec<&[u32]> = text.tokens().chunks_exact(context).collect();
    for window in &windows {
        if cancel.load(Ordering::Relaxed) {
            return Err(LabError::Cancelled);
        }
        let open = |model: &Arc<Model>| Session::new(model.clone(), options.clone());
        let (mut reference, mut other) = (open(&base.model)?, open(&subject.model)?);
        let half = context / 2;
        reference.extend(&window[..half])?;
        other.extend(&window[..half])?;
        for first in (half..context - 1).step_by(ROWS) {
            let end = (first + ROWS).min(context - 1);
            let mut kept: Vec<Vec<f32>> = Vec::with_capacity(ROWS); // (rows, vocab_size)
            reference.prefill_logits(&window[first..end], &mut |_, logits| {
                kept.push(logits.to_vec());
                std::ops::ControlFlow::Continue(())
            })?;
            other.prefill_logits(&window[first..end], &mut |row, logits| {
                sums.add(&kept[row], logits, window[first + row + 1]);
                std::ops::ControlFlow::Continue(())
            })?;
        }
        sums.end_block();
    }
    let method = format!(
        "Middlemarch, chapter 15: {} windows of {context} tokens, the second half scored, against {} at {}; intervals over \
         blocks of {BLOCK} tokens",
        windows.len(),
        base.name,
        base.precision
    );
    Ok((method, sums.metrics()?))
}

/// Sums over blocks of tokens, for two models that read the same.
#[derive(Default)]
struct Sums {
    nll: Vec<Block>,
    difference: Vec<Block>,
    kl: Vec<Block>,
    open: usize, // tokens of the block that is being filled
    same_top: usize,
    tokens: usize,
}

impl Sums {
    fn add(&mut self, reference: &[f32], logits: &[f32], token: u32) {
        // The session refuses logits that are not finite; nothing is left out here.
        let (Some(a), Some(b)) = (Scored::new(reference), Scored::new(logits)) else { return };
        if self.open == 0 {
            for all in [&mut self.nll, &mut self.difference, &mut self.kl] {
                all.push(Block::default());
            }
        }
        let nll = b.nll(token);
        for (all, value) in [
            (&mut self.nll, nll),
            (&mut self.difference, nll - a.nll(token)),
            (&mut self.kl, a.divergence(&b)),
        ] {
            if let Some(block) = all.last_mut() {
                block.sum += value;
                block.n += 1;
            }
        }
        self.same_top += usize::from(a.top() == b.top());
        self.tokens += 1;
        self.open = (self.open + 1) % BLOCK;
    }

    fn end_block(&mut self) {
        self.open = 0;
    }

    fn metrics(&self) -> Result<Ordered<Quantity>, LabError> {
        let mut metrics = Ordered::default();
        let mean = |blocks: &[Block]| block_mean(blocks, 0.95);
        metrics.set("perplexity", quantity(&mean(&self.nll)?, "1", f64::exp));
        metrics.set("perplexity_ratio", quantity(&mean(&self.difference)?, "1", f64::exp));
        metrics.set("kl", quantity(&mean(&self.kl)?, "nat", |nats| nats));
        metrics.set("same_top", share(self.same_top as f64 / self.tokens as f64, self.tokens));
        Ok(metrics)
    }
}

fn quantity(mean: &BlockMean, unit: &str, of: fn(f64) -> f64) -> Quantity {
    Quantity {
        value: rounded(of(mean.mean)),
        unit: unit.to_string(),
        low: mean.interval.map(|ends| rounded(of(ends.low))),
        high: mean.interval.map(|ends| rounded(of(ends.high))),
        n: Some(mean.n),
    }
}

fn share(value: f64, n: usize) -> Quantity {
    Quantity { value: rounded(value), unit: "1".to_string(), low: None, high: None, n: Some(n) }
}
