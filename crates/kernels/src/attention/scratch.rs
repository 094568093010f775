//! What attention needs beside its operands, sized once.

use std::sync::atomic::AtomicUsize;
use std::sync::{Mutex, PoisonError};

use super::AttentionShape;
use super::block::{RUN, Workspace, block_queries, padded};
use super::softmax::State;
use crate::error::KernelError;

/// Room for one call of [`attention`](super::attention()), [`attention_mass`](super::attention_mass()) or
/// [`attention_weights`](super::attention_weights()) at a time.
///
/// Made for the shape of a model, it serves every shape with no wider heads and no larger groups: so too a call in which each
/// query head has a lane of its own.
pub struct AttentionScratch {
    shape: AttentionShape,
    pub(super) workers: Vec<Mutex<Workspace>>,
    pub(super) states: Vec<State>, // (units, runs, queries of a block), where a context is split
    pub(super) accs: Vec<f32>,     // (as states, channels)
    pub(super) pending: Vec<AtomicUsize>, // (units)
    pub(super) mass_max: Vec<f32>, // (KV heads, runs, queries of a block), then the same without runs
    pub(super) mass_sum: Vec<f32>, // (as mass_max)
}

impl AttentionScratch {
    /// Room for a team of `threads` and contexts of up to `max_slots`, in which the context of few rows can be split
    /// among the threads. A longer context is served too, less evenly; more rows need no more room.
    ///
    /// # Errors
    /// [`KernelError::HeadGroups`] or [`KernelError::HeadDim`] when the shape is impossible,
    /// [`KernelError::NoThreads`] for no threads.
    pub fn new(
        threads: usize,
        shape: &AttentionShape,
        max_slots: usize,
    ) -> Result<AttentionScratch, KernelError> {
        shape.check()?;
        if threads == 0 {
            return Err(KernelError::NoThreads);
        }
        // Two rows at full length, or more rows of a shorter context. Untouched memory stays uncommitted.
        let runs = max_slots.div_ceil(RUN) + 1; // one more for the sinks
        let states = if threads > 1 { 2 * shape.n_heads * runs } else { 0 };
        let mass = shape.n_kv_heads * block_queries(shape.group()).next_multiple_of(16) * (runs + 1);
        Ok(AttentionScratch {
            shape: *shape,
            workers: (0..threads).map(|_| Mutex::new(Workspace::new(shape))).collect(),
            states: vec![State::EMPTY; states],
            accs: vec![0.0; states * padded(shape.head_dim)],
            pending: (0..4 * threads).map(|_| AtomicUsize::new(0)).collect(),
            mass_max: vec![0.0; mass],
            mass_sum: vec![0.0; mass],
        })
    }

    /// Bytes reserved.
    pub fn bytes(&self) -> usize {
        let workers: usize = self.workers.len() * Workspace::bytes(&self.shape);
        workers
            + std::mem::size_of_val(&self.states[..])
            + std::mem::size_of_val(&self.accs[..])
            + std::mem::size_of_val(&self.pending[..])
            + std::mem::size_of_val(&self.mass_max[..])
            + std::mem::size_of_val(&self.mass_sum[..])
    }

    /// The room of the calling thread.
    pub(super) fn worker(&mut self) -> &mut Workspace {
        self.workers[0].get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn check(&self, shape: &AttentionShape, threads: usize) -> Result<(), KernelError> {
        for (what, got, capacity) in [
            ("threads", threads, self.workers.len()),
            ("head_dim", shape.head_dim, self.shape.head_dim),
            ("query heads per KV head", shape.group(), self.shape.group()),
        ] {
            if got > capacity {
                return Err(KernelError::ScratchTooSmall { what, got, capacity });
            }
        }
        Ok(())
    }
}
