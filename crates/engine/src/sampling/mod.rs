//! From logits to a token, by an explicit, ordered chain of stages.
//!
//! ```
//! use roofline_engine::sampling::{Sampler, SamplerConfig};
//!
//! let config: SamplerConfig = "chain=llamacpp,temperature=0.8,top_k=40,top_p=0.95,min_p=0.05,seed=7".parse()?;
//! let mut sampler = Sampler::new(config, 4, 1024)?; // 4 tokens in the vocabulary, room for 1024 in the sequence
//! sampler.accept(&[2, 0])?; // the prompt
//! let draw = sampler.sample(&[0.5, 3.0, -1.0, 2.5])?;
//! sampler.accept(&[draw.token])?;
//! # Ok::<(), roofline_engine::sampling::SamplingError>(())
//! ```
//!
//! - Formulas: those of transformers 5.23 (`logits_process.py`) and llama.cpp (`llama-sampler.cpp`), which agree wherever
//!   both have a stage. Where they leave a choice between equal logits open, the lower id wins.
//! - A draw reads the cumulative distribution in order of ids at one number of the [`Rng`]: a seed, a configuration and
//!   the logits determine the token.
//! - Nothing is allocated after construction while the sequence stays within the room it was given.

mod candidates;
mod chain;
mod config;
mod error;
mod rng;
mod softmax;
mod text;
mod token_stages;

pub use chain::{Chain, Stage};
pub use config::{Dry, SamplerConfig, Window};
pub use error::SamplingError;
pub use rng::Rng;

use candidates::Candidates;
use token_stages::{Effect, TokenStages};

/// A drawn token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Draw {
    /// Its id.
    pub token: u32,
    /// Natural logarithm of its probability under the model: log-softmax of the logits as they came, before any stage.
    pub logprob: f32,
    /// Probability with which it was drawn, after all stages; 1 when greedy.
    pub sampling_prob: f32,
    /// Tokens that could have been drawn; 1 when greedy.
    pub candidates_left: usize,
}

/// A token and its log-probability under the model, before any stage.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenLogprob {
    /// The token.
    pub token: u32,
    /// Natural logarithm of its probability.
    pub logprob: f32,
}

/// What one stage did to the candidates of one draw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StageTrace {
    /// The stage; only those whose option is set appear.
    pub stage: Stage,
    /// Candidates before it.
    pub before: usize,
    /// Candidates after it.
    pub after: usize,
    /// Tokens whose logit it aimed at: for penalties the distinct tokens in the window, whether still candidates or
    /// not; for temperature every candidate; for cuts 0.
    pub changed: usize,
}

/// Draws the tokens of one sequence.
#[derive(Debug)]
pub struct Sampler {
    config: SamplerConfig,
    vocab_size: usize,
    rng: Rng,
    history: Vec<u32>, // prompt and output
    candidates: Candidates,
    token_stages: TokenStages,
    trace: Vec<StageTrace>,
    top: Vec<TokenLogprob>,
}

/// Raw logits after the checks: their maximum, ln Σ e^(logit − max), and how many are -inf.
struct Checked {
    max: f32,
    log_total: f64,
    banned: usize,
}

impl Checked {
    fn logprob(&self, logit: f32) -> f32 {
        (f64::from(logit) - f64::from(self.max) - self.log_total) as f32
    }
}

impl Sampler {
    /// A sampler for a vocabulary, with room for a sequence of `capacity` tokens. Refuses options that are out of range,
    /// have no stage in the chain, or name tokens the vocabulary does not have.
    pub fn new(config: SamplerConfig, vocab_size: usize, capacity: usize) -> Result<Sampler, SamplingError> {
        if vocab_size == 0 || u32::try_from(vocab_size).is_err() {
            return Err(SamplingError::VocabularySize { vocab_size });
        }
        config.validate()?;
        config.check_tokens(vocab_size)?;
        Ok(Sampler {
            vocab_size,
            rng: Rng::new(config.seed),
            history: Vec::with_capacity(capacity),
            candidates: Candidates::with_vocabulary(vocab_size),
            token_stages: TokenStages::new(&config, vocab_size, capacity),
            trace: Vec::with_capacity(config.chain.stages().len()),
            top: Vec::new(),
            config,
        })
    }

    /// A second sampler in the same state, for a forked sequence; its draws are the ones this one would make.
    pub fn fork(&self) -> Result<Sampler, SamplingError> {
        let mut copy = Sampler::new(self.config.clone(), self.vocab_size, self.history.capacity())?;
        copy.history.extend_from_slice(&self.history);
        copy.rng = self.rng.clone();
        Ok(copy)
    }

    /// The options.
    pub fn config(&self) -> &SamplerConfig {
        &self.config
    }

    /// The sequence so far: prompt and output, which penalties, n-gram ban and DRY look at.
    pub fn history(&self) -> &[u32] {
        &self.history
    }

    /// Appends tokens to the sequence: the prompt, and every drawn or forced token.
    pub fn accept(&mut self, tokens: &[u32]) -> Result<(), SamplingError> {
        token_stages::check_history(tokens, self.vocab_size)?;
        self.history.extend_from_slice(tokens);
        Ok(())
    }

    /// Shortens the sequence to its first `len` tokens, if it is longer (rollback). The random numbers go on where they
    /// are: a draw is never made twice with the same number.
    pub fn truncate(&mut self, len: usize) {
        self.history.truncate(len);
    }

    /// The random numbers, for decisions beside the draw (acceptance of drafted tokens).
    pub fn rng_mut(&mut self) -> &mut Rng {
        &mut self.rng
    }

    /// Draws the token that follows the sequence; does not [accept](Self::accept) it. `logits`: (vocab_size).
    ///
    /// A NaN or +inf among the logits, or nothing but -inf, is an error that names position and token.
    pub fn sample(&mut self, logits: &[f32]) -> Result<Draw, SamplingError> {
        if self.config.is_greedy() && !self.config.changes_logits() {
            let checked = self.check(logits)?;
            self.trace.clear();
            let token = softmax::first_of(logits, checked.max) as u32;
            let logprob = checked.logprob(checked.max);
            return Ok(Draw { token, logprob, sampling_prob: 1.0, candidates_left: 1 });
        }
        let checked = self.apply(logits)?;
        let (token, sampling_prob, candidates_left) = if self.config.is_greedy() {
            (self.candidates.argmax(), 1.0, 1)
        } else {
            let pick = self.candidates.draw(self.rng.next_unit());
            (pick.id, pick.probability as f32, self.candidates.left())
        };
        let logprob = checked.logprob(logits[token as usize]);
        Ok(Draw { token, logprob, sampling_prob, candidates_left })
    }

    /// (token, probability) of everything that could be drawn next, in order of ids; draws nothing.
    pub fn distribution(&mut self, logits: &[f32], out: &mut Vec<(u32, f64)>) -> Result<(), SamplingError> {
        self.apply(logits)?;
        if self.config.is_greedy() {
            out.clear();
            out.push((self.candidates.argmax(), 1.0));
        } else {
            self.candidates.distribution(out);
        }
        Ok(())
    }

    /// What each stage did in the last [`sample`](Self::sample) or [`distribution`](Self::distribution), in order.
    pub fn trace(&self) -> &[StageTrace] {
        &self.trace
    }

    /// The n most probable tokens under the model, before any stage, most probable first; of equal ones the lower id
    /// first. Fewer where the vocabulary or the logits above -inf are fewer. Allocates when n grows.
    pub fn top_logprobs(&mut self, logits: &[f32], n: usize) -> Result<&[TokenLogprob], SamplingError> {
        let checked = self.check(logits)?;
        self.top.clear();
        self.top.reserve(n.min(logits.len()));
        if n > 0 {
            self.candidates.load(logits, checked.banned);
            self.candidates.top_k(n);
            let top = &mut self.top;
            self.candidates
                .for_each(|token, logit| top.push(TokenLogprob { token, logprob: checked.logprob(logit) }));
            top.sort_unstable_by(|a, b| b.logprob.total_cmp(&a.logprob).then(a.token.cmp(&b.token)));
        }
        Ok(&self.top)
    }

    fn check(&self, logits: &[f32]) -> Result<Checked, SamplingError> {
        if logits.len() != self.vocab_size {
            return Err(SamplingError::LogitsLength { given: logits.len(), vocab_size: self.vocab_size });
        }
        let position = self.history.len();
        let found = softmax::scan(logits);
        if let Some(token) = found.broken {
            return Err(SamplingError::NotFinite { position, token: token as u32, value: logits[token] });
        }
        if found.banned == logits.len() {
            return Err(SamplingError::AllInfinite { position });
        }
        let log_total = softmax::sum_exp(logits, found.max).ln();
        Ok(Checked { max: found.max, log_total, banned: found.banned })
    }

    /// Runs the chain over `logits`, leaving its result in `candidates`.
    fn apply(&mut self, logits: &[f32]) -> Result<Checked, SamplingError> {
        let checked = self.check(logits)?;
        self.candidates.load(logits, checked.banned);
        self.trace.clear();
        for i in 0..self.config.chain.stages().len() {
            let stage = self.config.chain.stages()[i];
            if self.config.is_greedy() && !stage.acts_on_tokens() {
                continue;
            }
            let before = self.candidates.left();
            let Some(effect) = self.run(stage) else { continue };
            let position = self.history.len();
            if !effect.sound {
                return Err(SamplingError::Overflow { position, stage });
            }
            let after = self.candidates.left();
            if after == 0 {
                return Err(SamplingError::NoCandidates { position, stage });
            }
            self.trace.push(StageTrace { stage, before, after, changed: effect.changed });
        }
        Ok(checked)
    }

    /// Runs one stage; `None` where its option is not set.
    fn run(&mut self, stage: Stage) -> Option<Effect> {
        let (config, candidates, stages) = (&self.config, &mut self.candidates, &mut self.token_stages);
        let cut = Effect { changed: 0, sound: true };
        match stage {
            Stage::LogitBias if config.logit_bias.is_empty() => None,
            Stage::LogitBias => Some(TokenStages::logit_bias(&config.logit_bias, candidates)),
            Stage::Penalties => {
                let set = [config.repetition_penalty, config.presence_penalty, config.frequency_penalty];
                let window = config.effective_penalty_window().of(&self.history);
                set.iter().any(Option::is_some).then(|| stages.penalties(config, window, candidates))
            }
            Stage::NoRepeatNgram => {
                config.no_repeat_ngram.map(|n| stages.no_repeat_ngram(n, &self.history, candidates))
            }
            Stage::Dry => {
                config.dry.as_ref().map(|dry| stages.dry(dry, dry.window.of(&self.history), candidates))
            }
            Stage::Temperature => config.temperature.map(|temperature| {
                let sound = candidates.divide(temperature);
                Effect { changed: candidates.left(), sound }
            }),
            Stage::TopK => config.top_k.map(|k| candidates.top_k(k)).map(|()| cut),
            Stage::TopP => config.top_p.map(|p| candidates.top_p(p)).map(|()| cut),
            Stage::MinP => config.min_p.map(|p| candidates.min_p(p)).map(|()| cut),
            Stage::TypicalP => config.typical_p.map(|p| candidates.typical_p(p)).map(|()| cut),
        }
    }
}
