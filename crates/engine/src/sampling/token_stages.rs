//! The stages that look at the sequence so far and change logits of single tokens: penalties, n-gram ban, DRY.

use std::collections::HashMap;

use super::candidates::Candidates;
use super::{Dry, SamplerConfig, SamplingError};

/// Scratch of the stages, sized for a vocabulary and a sequence.
#[derive(Debug)]
pub(super) struct TokenStages {
    counts: Vec<u32>,                      // (vocab_size), 0 between stages
    touched: Vec<u32>,                     // tokens whose count is not 0
    shared: Vec<u32>,                      // (history length), DRY's suffix lengths
    breakers: HashMap<u32, Vec<Vec<u32>>>, // first token -> what follows it
}

/// What a stage did: tokens it changed, and whether every new logit is a number below +inf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Effect {
    pub changed: usize,
    pub sound: bool,
}

impl TokenStages {
    pub fn new(config: &SamplerConfig, vocab_size: usize, capacity: usize) -> TokenStages {
        let mut breakers: HashMap<u32, Vec<Vec<u32>>> = HashMap::new();
        for sequence in config.dry.iter().flat_map(|dry| &dry.breakers) {
            if let Some((head, tail)) = sequence.split_first() {
                breakers.entry(*head).or_default().push(tail.to_vec());
            }
        }
        TokenStages {
            counts: vec![0; vocab_size],
            touched: Vec::with_capacity(capacity.min(vocab_size)),
            shared: Vec::with_capacity(if config.dry.is_some() { capacity } else { 0 }),
            breakers,
        }
    }

    /// Adds the biases.
    pub fn logit_bias(biases: &[(u32, f32)], candidates: &mut Candidates) -> Effect {
        let mut sound = true;
        for &(id, bias) in biases {
            sound &= candidates.update(id, |logit| logit + bias);
        }
        Effect { changed: biases.len(), sound }
    }

    /// Repetition, frequency and presence penalty for the tokens of `window`, in this order, as llama.cpp's one pass.
    pub fn penalties(
        &mut self,
        config: &SamplerConfig,
        window: &[u32],
        candidates: &mut Candidates,
    ) -> Effect {
        let repetition = config.repetition_penalty.unwrap_or(1.0);
        let frequency = config.frequency_penalty.unwrap_or(0.0);
        let presence = config.presence_penalty.unwrap_or(0.0);
        for &id in window {
            self.raise(id, self.counts[id as usize] + 1);
        }
        self.drain(|id, count| {
            candidates.update(id, |logit| {
                let scaled = if logit > 0.0 { logit / repetition } else { logit * repetition };
                scaled - (count as f32 * frequency + presence)
            })
        })
    }

    /// Bans tokens that would complete an n-gram of `history` a second time.
    pub fn no_repeat_ngram(&mut self, n: usize, history: &[u32], candidates: &mut Candidates) -> Effect {
        let suffix = &history[(history.len() + 1).saturating_sub(n)..];
        for ngram in history.windows(n) {
            if let Some((&last, start)) = ngram.split_last()
                && start == suffix
            {
                self.raise(last, 1);
            }
        }
        self.drain(|id, _| candidates.update(id, |_| f32::NEG_INFINITY))
    }

    /// Penalises tokens by the longest repeat they would extend. Linear in the window.
    pub fn dry(&mut self, dry: &Dry, window: &[u32], candidates: &mut Candidates) -> Effect {
        let limit = self.tokens_after_breaker(window);
        if limit < dry.allowed_length || window.len() <= dry.allowed_length {
            return Effect { changed: 0, sound: true };
        }
        suffix_lengths(window, &mut self.shared);
        for k in 1..window.len() {
            // The window ends with the same tokens k places earlier; the one after those, drawn now, extends the repeat.
            let repeat = (self.shared[k] as usize).min(limit);
            let next = window[window.len() - k];
            if repeat >= dry.allowed_length && !self.is_breaker(next) {
                self.raise(next, repeat as u32);
            }
        }
        self.drain(|id, repeat| {
            let beyond = repeat as usize - dry.allowed_length;
            let penalty = f64::from(dry.multiplier) * f64::from(dry.base).powf(beyond as f64);
            candidates.update(id, |logit| (f64::from(logit) - penalty) as f32)
        })
    }

    /// Number of tokens at the end of `window` that stand behind its last breaker: a longer repeat does not count.
    fn tokens_after_breaker(&self, window: &[u32]) -> usize {
        for (start, head) in window.iter().enumerate().rev() {
            let Some(tails) = self.breakers.get(head) else { continue };
            let rest = &window[start + 1..];
            if let Some(longest) = tails.iter().filter(|tail| rest.starts_with(tail)).map(Vec::len).max() {
                return rest.len() - longest;
            }
        }
        window.len()
    }

    fn is_breaker(&self, id: u32) -> bool {
        self.breakers.get(&id).is_some_and(|tails| tails.iter().any(Vec::is_empty))
    }

    /// Sets a token's count to at least `count`.
    fn raise(&mut self, id: u32, count: u32) {
        let slot = &mut self.counts[id as usize];
        if *slot == 0 {
            self.touched.push(id);
        }
        *slot = count.max(*slot);
    }

    /// Hands every counted token to `apply` and sets the counts back to 0.
    fn drain(&mut self, mut apply: impl FnMut(u32, u32) -> bool) -> Effect {
        let mut sound = true;
        for &id in &self.touched {
            sound &= apply(id, std::mem::take(&mut self.counts[id as usize]));
        }
        let changed = self.touched.len();
        self.touched.clear();
        Effect { changed, sound }
    }
}

/// For every k: how many tokens, read backwards, the window shares with itself shifted by k (Z-algorithm on the
/// reversed window: a match found once is never compared again).
fn suffix_lengths(window: &[u32], shared: &mut Vec<u32>) {
    let n = window.len();
    let at = |i: usize| window[n - 1 - i];
    shared.clear();
    shared.resize(n, 0);
    let (mut start, mut end) = (0, 0); // the match that reaches farthest
    for k in 1..n {
        let mut length = if k < end { (shared[k - start] as usize).min(end - k) } else { 0 };
        while k + length < n && at(length) == at(k + length) {
            length += 1;
        }
        shared[k] = length as u32;
        if k + length > end {
            (start, end) = (k, k + length);
        }
    }
}

/// Refuses ids the vocabulary does not have.
pub(super) fn check_history(tokens: &[u32], vocab_size: usize) -> Result<(), SamplingError> {
    match tokens.iter().find(|&&token| token as usize >= vocab_size) {
        Some(&token) => Err(SamplingError::TokenOutOfRange { what: "the sequence", token, vocab_size }),
        None => Ok(()),
    }
}
