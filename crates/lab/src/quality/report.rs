//! What was found: perplexities with their errors, by position, beside speed, bytes and the reference.

use roofline_engine::CacheBytes;
use serde::Serialize;

use super::plan::Place;
use super::run::{Rate, Trace};
use super::text::{Counts, Source};
use super::{Convention, Mode, Plan, Setup, Text};
use crate::error::LabError;
use crate::statistics::{Block, BlockMean, Interval, Sorted, block_mean, mean};

/// Tokens that are taken as one observation, about: perplexity varies with the passage, so that neighbours are no
/// independent ones.
const BLOCK_TOKENS: usize = 256;
const CONFIDENCE: f64 = 0.95;

/// A figure with its error.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimate {
    /// The figure.
    pub value: f64,
    /// Its standard error over blocks; none from a single block.
    pub standard_error: Option<f64>,
    /// Where it lies with a confidence of 95 %, by Student's t over blocks.
    pub interval: Option<Interval>,
}

impl Estimate {
    fn of(mean: &BlockMean) -> Estimate {
        Estimate { value: mean.mean, standard_error: mean.standard_error, interval: mean.interval }
    }

    /// exp(`scale` · mean), its error by the first derivative, its interval by the ends.
    fn exp(mean: &BlockMean, scale: f64) -> Estimate {
        let exp = |nll: f64| (scale * nll).exp();
        let value = exp(mean.mean);
        Estimate {
            value,
            standard_error: mean.standard_error.map(|error| value * scale * error),
            interval: mean.interval.map(|ends| Interval { low: exp(ends.low), high: exp(ends.high) }),
        }
    }
}

/// How well a text is predicted.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Perplexity {
    /// Scored tokens.
    pub tokens: usize,
    /// Mean −ln p of a token, in nats.
    pub nll: Estimate,
    /// exp(Σ −ln p / tokens)
    pub token: Estimate,
    /// exp(Σ −ln p / words); none where the text is not known.
    pub word: Option<Estimate>,
    /// exp(Σ −ln p / bytes)
    pub byte: Option<Estimate>,
    /// Σ −log₂ p / bytes
    pub bits_per_byte: Option<f64>,
    /// The token perplexity as the reference implementation weights its windows: other than `token` in
    /// [`Convention::Strided`] alone, and only there for windows that overlap. None in decode mode.
    pub as_reference: Option<f64>,
    /// The standard error that llama-perplexity would print for `token`: tokens taken as independent.
    pub standard_error_of_tokens: Option<f64>,
}

/// Perplexity of the tokens that stood behind so many others.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Bucket {
    /// Fewest tokens before the scored one in its window.
    pub first: usize,
    /// Most.
    pub last: usize,
    /// Scored tokens.
    pub tokens: usize,
    /// Their perplexity.
    pub perplexity: f64,
}

/// Tokens that went through the engine, and how fast.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Speed {
    /// Tokens.
    pub tokens: usize,
    /// Seconds in the engine, logits included, scoring not.
    pub seconds: f64,
    /// Tokens per second.
    pub per_second: f64,
}

/// Bytes of the cache at the ends of windows, the most of all windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct KvBytes {
    /// Slots in use.
    pub live: u64,
    /// Pages held.
    pub committed: u64,
    /// Most ever held.
    pub peak: u64,
    /// Positions, scores and page bounds, beside the pages.
    pub metadata: u64,
}

/// A setup beside the reference, token by token.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Against {
    /// Mean of −ln p less the reference's, in nats, paired.
    pub nll_difference: Estimate,
    /// Token perplexity over the reference's.
    pub ratio: Estimate,
    /// Token perplexity less the reference's.
    pub difference: f64,
    /// Whether the interval of the difference leaves zero out; none from a single block.
    pub differs: Option<bool>,
    /// KL(reference ‖ setup), in nats.
    pub kl: Estimate,
    /// Its median.
    pub kl_median: f64,
    /// Its 99th percentile.
    pub kl_p99: f64,
    /// Its largest.
    pub kl_max: f64,
    /// Share of tokens whose most probable next token is the same.
    pub same_top: f64,
    /// Share of the full cache's attention that went to what the setup did not read, mean over layers and query heads;
    /// none in parallel mode, whose rows leave no trace.
    pub missed_attention: Option<Estimate>,
}

/// One setup.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Its policy.
    pub cache: String,
    /// How it stores numbers.
    pub kv_type: String,
    /// How well it predicts.
    pub perplexity: Perplexity,
    /// The same by position.
    pub buckets: Vec<Bucket>,
    /// Tokens that went in many at once: all of them in parallel mode, the prompts in decode mode.
    pub at_once: Option<Speed>,
    /// Tokens that went in one by one.
    pub one_by_one: Option<Speed>,
    /// Bytes of its cache.
    pub kv: KvBytes,
    /// Beside the reference.
    pub against: Option<Against>,
}

/// What was measured, how, and what was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// When it began.
    pub measured_at: String,
    /// Windows and scored range.
    pub convention: Convention,
    /// Whose convention it is.
    pub reference_implementation: &'static str,
    /// Tokens of a window.
    pub context: usize,
    /// Tokens from window to window.
    pub stride: usize,
    /// How the tokens went in.
    pub mode: Mode,
    /// Tokens of a window that went in as its prompt.
    pub prompt: Option<usize>,
    /// Which tokens are scored.
    pub scored_range: String,
    /// The token before a text or in place of a window's first.
    pub bos: Option<u32>,
    /// What words and bytes are counted of.
    pub normalizer: &'static str,
    /// Those words and bytes.
    pub counts: Option<Counts>,
    /// The texts.
    pub texts: Vec<Source>,
    /// Tokens of the texts that were used.
    pub tokens: usize,
    /// Windows run.
    pub windows: usize,
    /// Blocks that the errors are over.
    pub blocks: usize,
    /// What the rows are compared with.
    pub reference: Option<Row>,
    /// A row per setup.
    pub rows: Vec<Row>,
}

impl Report {
    pub(super) fn of(
        measured_at: String,
        plan: &Plan,
        texts: &[Text],
        places: &[Place],
        blocks: usize,
        reference: Option<Row>,
        rows: Vec<Row>,
    ) -> Report {
        Report {
            measured_at,
            convention: plan.convention,
            reference_implementation: plan.convention.reference(),
            context: plan.context,
            stride: plan.stride,
            mode: plan.mode,
            prompt: (plan.mode == Mode::Decode).then_some(plan.prompt),
            scored_range: plan.scored_range(),
            bos: plan.bos,
            normalizer: match whole(plan, texts) {
                true => "words and bytes of the texts, as lm-evaluation-harness counts them",
                false => "words and bytes that the scored tokens decode to",
            },
            counts: counts(plan, texts, places),
            texts: texts.iter().filter_map(|text| text.source().cloned()).collect(),
            tokens: texts.iter().map(|text| text.tokens().len()).sum(),
            windows: places.len(),
            blocks,
            reference,
            rows,
        }
    }
}

impl Row {
    pub(super) fn of(
        setup: &Setup,
        trace: &Trace,
        base: Option<&Trace>,
        places: &[Place],
        texts: &[Text],
        blocks: &[usize],
        plan: &Plan,
    ) -> Result<Row, LabError> {
        let CacheBytes { live, committed, peak, metadata } = trace.kv;
        Ok(Row {
            cache: setup.cache.to_string(),
            kv_type: setup.kv_format.to_string(),
            perplexity: perplexity(trace, places, counts(plan, texts, places), blocks, plan)?,
            buckets: buckets(&trace.nll, places, plan.buckets),
            at_once: speed(trace.many),
            one_by_one: speed(trace.single),
            kv: KvBytes { live, committed, peak, metadata },
            against: base.map(|base| against(trace, base, blocks)).transpose()?,
        })
    }
}

/// Whether the texts are scored whole, so that their own words and bytes are those of the scored tokens.
fn whole(plan: &Plan, texts: &[Text]) -> bool {
    let uncut = texts.iter().all(|text| text.source().is_some() && !text.is_cut());
    plan.convention == Convention::RollingDoc && plan.mode == Mode::Parallel && uncut
}

fn counts(plan: &Plan, texts: &[Text], places: &[Place]) -> Option<Counts> {
    let add =
        |sum: Counts, more: Counts| Counts { bytes: sum.bytes + more.bytes, words: sum.words + more.words };
    let parts: Option<Vec<Counts>> = if whole(plan, texts) {
        texts.iter().map(|text| text.source().map(|source| source.whole)).collect()
    } else {
        places.iter().map(|place| texts[place.text].worth(place.window.targets())).collect()
    };
    parts.map(|parts| parts.into_iter().fold(Counts::default(), add))
}

/// Scored tokens of each block: windows taken together until they make half of [`BLOCK_TOKENS`], long ones cut. A block
/// lies in one text.
pub(super) fn blocks(places: &[Place]) -> Vec<usize> {
    let mut blocks: Vec<usize> = Vec::new();
    for text in places.chunk_by(|a, b| a.text == b.text) {
        let first = blocks.len();
        let mut open = 0;
        for scored in text.iter().map(|place| place.window.scored()) {
            open += scored;
            if open >= BLOCK_TOKENS / 2 {
                let parts = (open as f64 / BLOCK_TOKENS as f64).round().max(1.0) as usize;
                blocks.extend((0..parts).map(|part| open * (part + 1) / parts - open * part / parts));
                open = 0;
            }
        }
        match blocks[first..].last_mut() {
            Some(last) => *last += open,
            None if open > 0 => blocks.push(open),
            None => {}
        }
    }
    blocks
}

fn over_blocks(values: &[f64], blocks: &[usize]) -> Result<BlockMean, LabError> {
    let mut rest = values;
    let mut sums = Vec::with_capacity(blocks.len());
    for &n in blocks {
        let (block, after) = rest.split_at(n);
        sums.push(Block { sum: block.iter().sum(), n });
        rest = after;
    }
    Ok(block_mean(&sums, CONFIDENCE)?)
}

fn perplexity(
    trace: &Trace,
    places: &[Place],
    counts: Option<Counts>,
    blocks: &[usize],
    plan: &Plan,
) -> Result<Perplexity, LabError> {
    let nll = over_blocks(&trace.nll, blocks)?;
    let n = nll.n as f64;
    let per = |count: u64| (count > 0).then(|| n / count as f64);
    let (per_word, per_byte) =
        (counts.and_then(|counts| per(counts.words)), counts.and_then(|counts| per(counts.bytes)));
    let squares = mean(&trace.nll.iter().map(|nll| nll * nll).collect::<Vec<_>>())?;
    let spread = (squares - nll.mean * nll.mean).max(0.0);
    Ok(Perplexity {
        tokens: nll.n,
        nll: Estimate::of(&nll),
        token: Estimate::exp(&nll, 1.0),
        word: per_word.map(|scale| Estimate::exp(&nll, scale)),
        byte: per_byte.map(|scale| Estimate::exp(&nll, scale)),
        bits_per_byte: per_byte.map(|scale| nll.mean * scale / std::f64::consts::LN_2),
        as_reference: (plan.mode == Mode::Parallel).then(|| as_reference(&trace.nll, places)),
        standard_error_of_tokens: (nll.n > 1).then(|| nll.mean.exp() * (spread / (n - 1.0)).sqrt()),
    })
}

/// exp of the windows' means under the reference's weights.
fn as_reference(nll: &[f64], places: &[Place]) -> f64 {
    let (mut rest, mut sum, mut weights) = (nll, 0.0, 0.0);
    for place in places {
        let (window, after) = rest.split_at(place.window.scored());
        let weight = place.window.weight as f64;
        sum += window.iter().sum::<f64>() / window.len() as f64 * weight;
        weights += weight;
        rest = after;
    }
    (sum / weights).exp()
}

/// Equal ranges of the position that cover all scored tokens; empty ones are left out.
fn buckets(nll: &[f64], places: &[Place], count: usize) -> Vec<Bucket> {
    let first = places.iter().map(|place| place.window.first_row + 1).min().unwrap_or(1);
    let last = places.iter().map(|place| place.window.len()).max().unwrap_or(1);
    let width = (last + 1 - first).div_ceil(count);
    let mut sums = vec![(0usize, 0.0f64); count]; // (buckets), tokens and their −ln p
    let rows = places.iter().flat_map(|place| place.window.first_row..place.window.len());
    for (row, nll) in rows.zip(nll) {
        let (tokens, sum) = &mut sums[(row + 1 - first) / width];
        *tokens += 1;
        *sum += nll;
    }
    let bucket = |(index, (tokens, sum)): (usize, (usize, f64))| Bucket {
        first: first + index * width,
        last: (first + (index + 1) * width - 1).min(last),
        tokens,
        perplexity: (sum / tokens as f64).exp(),
    };
    sums.into_iter().enumerate().filter(|(_, (tokens, _))| *tokens > 0).map(bucket).collect()
}

fn speed(rate: Rate) -> Option<Speed> {
    let seconds = rate.time.as_secs_f64();
    (rate.tokens > 0).then(|| Speed {
        tokens: rate.tokens,
        seconds,
        per_second: rate.tokens as f64 / seconds,
    })
}

fn against(trace: &Trace, base: &Trace, blocks: &[usize]) -> Result<Against, LabError> {
    let differences: Vec<f64> = trace.nll.iter().zip(&base.nll).map(|(own, base)| own - base).collect();
    let difference = over_blocks(&differences, blocks)?;
    let divergence = Sorted::new(&trace.divergence)?;
    let (own, other) = (over_blocks(&trace.nll, blocks)?, over_blocks(&base.nll, blocks)?);
    Ok(Against {
        nll_difference: Estimate::of(&difference),
        ratio: Estimate::exp(&difference, 1.0),
        difference: own.mean.exp() - other.mean.exp(),
        differs: difference.interval.map(|interval| !interval.contains(0.0)),
        kl: Estimate::of(&over_blocks(&trace.divergence, blocks)?),
        kl_median: divergence.median(),
        kl_p99: divergence.quantile(0.99),
        kl_max: divergence.max(),
        same_top: trace.same_top as f64 / trace.divergence.len() as f64,
        missed_attention: match trace.missed.is_empty() {
            true => None,
            false => Some(Estimate::of(&over_blocks(&trace.missed, blocks)?)),
        },
    })
}
