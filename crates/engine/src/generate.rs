//! Generation: prompt in, [`TokenEvent`]s out, each with the time it was there.
//!
//! Clock: T₀ is when the caller was asked, Tᵢ when token i is available. TTFT = T₁ − T₀, ITLᵢ = Tᵢ − Tᵢ₋₁,
//! TPOT = (Tₙ − T₁)/(n − 1), so E2E = TTFT + (n − 1)·TPOT exactly. n counts the end token.

use crate::error::EngineError;
use crate::meter::Meter;
use crate::sampling::{Sampler, TokenLogprob};
use crate::session::Session;
use crate::stop::StopTexts;
use roofline_model::tokenizer::{StreamDecoder, Tokenizer};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// When to stop, and what to report of every token. `max_new_tokens` is a stop rule only: it sizes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GenerateOptions {
    /// Tokens generated at most; no limit but the context when absent.
    pub max_new_tokens: Option<usize>,
    /// Tokens that end the text; they count as generated and print nothing.
    pub stop_ids: Vec<u32>,
    /// Texts that end the text; neither they nor what follows is printed.
    pub stop_texts: Vec<String>,
    /// Alternatives reported beside each token.
    pub top_logprobs: usize,
}

/// Why a text ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// A stop id came.
    Eos,
    /// A stop text came.
    Stop,
    /// `max_new_tokens` are there.
    Length,
    /// The context or a fixed cache is full: a `length` that the user did not set.
    ContextFull,
    /// The caller asked to stop.
    Cancelled,
}

impl FinishReason {
    /// `eos`, `stop`, `length` or `cancelled`.
    pub fn name(self) -> &'static str {
        match self {
            FinishReason::Eos => "eos",
            FinishReason::Stop => "stop",
            FinishReason::Length | FinishReason::ContextFull => "length",
            FinishReason::Cancelled => "cancelled",
        }
    }
}

/// One generated token.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenEvent {
    /// 0 for the first.
    pub index: usize,
    /// The token.
    pub id: u32,
    /// Text that is certain now: complete characters that no stop text can still claim.
    pub text: String,
    /// ln p under the model's own distribution, before any sampling stage.
    pub logprob: f32,
    /// The most probable tokens and their ln p, best first.
    pub alternatives: Vec<TokenLogprob>,
    /// Tᵢ − T₀.
    pub at: Duration,
    /// Set on the last event.
    pub finish: Option<FinishReason>,
}

/// Where the time of one generation went, timed inline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stages {
    /// From T₀ to the first forward step: tokenizer, template, buffers.
    pub before: Duration,
    /// Forward steps over the prompt.
    pub prefill: Duration,
    /// Forward steps over generated tokens.
    pub decode: Duration,
    /// Sampling chain and log-probabilities.
    pub sampling: Duration,
    /// Text out of tokens, stop texts.
    pub text: Duration,
}

/// What a generation works with.
pub struct GenerationInput<'a> {
    /// What has been seen, and the model.
    pub session: &'a mut Session,
    /// Draws the tokens; it hears of everything the session sees.
    pub sampler: &'a mut Sampler,
    /// Makes text; without one, events carry none.
    pub tokenizer: Option<&'a Tokenizer>,
    /// Tokens to take in first, at least one.
    pub prompt: &'a [u32],
    /// When to stop and what to report.
    pub options: GenerateOptions,
    /// Set from outside to end it within one step.
    pub cancel: &'a AtomicBool,
    /// T₀.
    pub called: Instant,
}

/// A running generation; iterate over it.
pub struct Generation<'a> {
    session: &'a mut Session,
    sampler: &'a mut Sampler,
    tokenizer: Option<&'a Tokenizer>,
    decoder: StreamDecoder,
    cancel: &'a AtomicBool,
    options: GenerateOptions,
    stop_texts: StopTexts,
    called: Instant,
    stages: Stages,
    prefill_meter: Meter,
    generated: Vec<u32>,
    finish: Option<FinishReason>,
}

impl<'a> Generation<'a> {
    /// Takes in the prompt behind what the session has seen and stands before the first token. `progress` hears the
    /// prompt tokens done after every layer and every step, and it ends within a layer once `cancel` is set.
    ///
    /// # Errors
    /// As [`Session::prefill`]; a cancelled prefill is no error but a generation that yields nothing.
    pub fn start(
        input: GenerationInput<'a>,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Generation<'a>, EngineError> {
        let GenerationInput { session, sampler, tokenizer, prompt, options, cancel, called } = input;
        let mut stages = Stages { before: called.elapsed(), ..Stages::default() };
        session.meter_mut().clear();
        let started = Instant::now();
        let done = session.prefill_with(prompt, &mut |done| {
            progress(done);
            if cancel.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        stages.prefill = started.elapsed();
        let finish = match done {
            Ok(()) => None,
            Err(EngineError::Cancelled) => Some(FinishReason::Cancelled),
            Err(error) => return Err(error),
        };
        let prefill_meter = session.meter().clone();
        session.meter_mut().clear();
        sampler.truncate(0);
        sampler.accept(session.tokens())?;
        let stop_texts = StopTexts::new(&options.stop_texts);
        let decoder = StreamDecoder::continuing(true);
        let generated = Vec::new();
        Ok(Generation {
            session,
            sampler,
            tokenizer,
            decoder,
            cancel,
            options,
            stop_texts,
            called,
            stages,
            prefill_meter,
            generated,
            finish,
        })
    }

    /// Tokens generated so far.
    pub fn generated(&self) -> &[u32] {
        &self.generated
    }

    /// Where the time went so far.
    pub fn stages(&self) -> Stages {
        self.stages
    }

    /// What the steps over the prompt cost.
    pub fn prefill_meter(&self) -> &Meter {
        &self.prefill_meter
    }

    /// What the steps over generated tokens cost so far.
    pub fn decode_meter(&self) -> &Meter {
        self.session.meter()
    }

    /// Why it ended, once it has.
    pub fn finish(&self) -> Option<FinishReason> {
        self.finish
    }

    /// The session, to read its counters between tokens.
    pub fn session(&self) -> &Session {
        self.session
    }

    /// Text that was held back when the generation was cancelled: the end of a character, or what might have become a
    /// stop text.
    pub fn rest(&mut self) -> String {
        let mut text = self.stop_texts.push(self.decoder.finish());
        text.push_str(&self.stop_texts.flush());
        text
    }

    /// Feeds the last token, draws the next one and turns it into text.
    fn next_token(&mut self) -> Result<TokenEvent, EngineError> {
        if let Some(&last) = self.generated.last() {
            let started = Instant::now();
            self.session.decode(last)?;
            self.stages.decode += started.elapsed();
        }
        let started = Instant::now();
        let draw = self.sampler.sample(self.session.logits()?)?;
        let at = self.called.elapsed(); // token i is available here
        let alternatives = match self.options.top_logprobs {
            0 => Vec::new(),
            n => self.sampler.top_logprobs(self.session.logits()?, n)?.to_vec(),
        };
        self.sampler.accept(&[draw.token])?;
        self.stages.sampling += started.elapsed();
        self.generated.push(draw.token);

        let started = Instant::now();
        let mut finish = self.finish_after(draw.token);
        let mut text = self.text_of(draw.token, finish)?;
        if self.stop_texts.found() && finish != Some(FinishReason::Eos) {
            finish = Some(FinishReason::Stop);
        }
        if finish.is_some() {
            text.push_str(&self.stop_texts.flush());
        }
        self.stages.text += started.elapsed();
        self.finish = finish;
        let index = self.generated.len() - 1;
        Ok(TokenEvent { index, id: draw.token, text, logprob: draw.logprob, alternatives, at, finish })
    }

    /// The reason why nothing comes after `token`, if there is one.
    fn finish_after(&self, token: u32) -> Option<FinishReason> {
        if self.options.stop_ids.contains(&token) {
            Some(FinishReason::Eos)
        } else if self.options.max_new_tokens.is_some_and(|max| self.generated.len() >= max) {
            Some(FinishReason::Length)
        } else if self.session.room() == 0 {
            Some(FinishReason::ContextFull)
        } else {
            None
        }
    }

    /// The text that `token` makes certain. A stop id prints nothing.
    fn text_of(&mut self, token: u32, finish: Option<FinishReason>) -> Result<String, EngineError> {
        let Some(tokenizer) = self.tokenizer else { return Ok(String::new()) };
        let mut text = String::new();
        if finish != Some(FinishReason::Eos) {
            text.push_str(self.decoder.push(tokenizer, token)?);
        }
        if finish.is_some() {
            text.push_str(self.decoder.finish());
        }
        Ok(self.stop_texts.push(&text))
    }
}

impl Iterator for Generation<'_> {
    type Item = Result<TokenEvent, EngineError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.finish.is_some() {
            return None;
        }
        if self.options.max_new_tokens == Some(0) {
            self.finish = Some(FinishReason::Length);
            return None;
        }
        if self.cancel.load(Ordering::Relaxed) {
            self.finish = Some(FinishReason::Cancelled);
            return None;
        }
        let event = self.next_token();
        if event.is_err() {
            self.finish = Some(FinishReason::Cancelled);
        }
        Some(event)
    }
}
