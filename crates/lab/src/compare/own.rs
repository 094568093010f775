//! Roofline's own side: the same work as a peer's, timed in the same places.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use roofline_engine::{Budget, CacheSpec, KvFormat, Session, SessionOptions};

use super::peer::Times;
use crate::error::LabError;
use crate::experiment::rows::{Bytes, ModelFacts};
use crate::experiment::subjects::Subject;

/// Roofline with a model.
pub(super) struct Own<'a> {
    subject: Subject,
    session: Session,
    depth: Vec<u32>, // in the cache
    cancel: &'a AtomicBool,
}

impl<'a> Own<'a> {
    pub fn new(
        subject: Subject,
        kv_format: KvFormat,
        context: usize,
        cancel: &'a AtomicBool,
    ) -> Result<Own<'a>, LabError> {
        // Reserved up front, as llama.cpp does: no page is taken from the system while the clock runs.
        let options = SessionOptions {
            cache: CacheSpec::Static { capacity: Budget::Tokens(context) },
            kv_format: kv_format.into(),
            context: Some(context),
            ..SessionOptions::default()
        };
        let session = Session::new(subject.model.clone(), options)?;
        Ok(Own { subject, session, depth: Vec::new(), cancel })
    }

    pub fn vocab_size(&self) -> usize {
        self.subject.model.config().vocab_size
    }

    pub fn facts(&self) -> &ModelFacts {
        &self.subject.facts
    }

    pub fn bytes(&self) -> Bytes {
        let kv = self.session.cache_bytes();
        Bytes {
            weights: self.subject.model.facts().weight_bytes,
            kv_live: kv.live,
            kv_committed: kv.committed,
            kv_peak: kv.peak,
            peak_rss: None, // the peers' memory is not in it, so it would compare nothing
        }
    }

    /// As [`Peer::run`](super::peer::Peer::run).
    pub fn run(&mut self, depth: &[u32], prompt: &[u32], decode: &[u32]) -> Result<Times, LabError> {
        let seen = self.session.tokens().len();
        if self.depth == depth {
            self.session.rollback(seen - depth.len())?;
        } else {
            self.session.rollback(seen)?;
            self.depth.clear();
            if !depth.is_empty() {
                self.prefill(depth)?;
            }
            self.depth = depth.to_vec();
        }
        let began = Instant::now();
        self.prefill(prompt)?;
        let prefill_s = began.elapsed().as_secs_f64();
        let best = best(self.session.logits()?);
        let mut steps_s = Vec::with_capacity(decode.len());
        for &id in decode {
            let began = Instant::now();
            self.session.decode(id)?;
            steps_s.push(began.elapsed().as_secs_f64());
            if self.cancel.load(Ordering::Relaxed) {
                return Err(LabError::Cancelled);
            }
        }
        Ok(Times::of_steps(prefill_s, steps_s, best))
    }

    fn prefill(&mut self, ids: &[u32]) -> Result<(), LabError> {
        let cancel = self.cancel;
        self.session.prefill_with(ids, &mut |done| {
            let asked = cancel.load(Ordering::Relaxed) && done < ids.len();
            if asked { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok(())
    }
}

/// The first of the largest.
fn best(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (id, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = id;
        }
    }
    best as u32
}
