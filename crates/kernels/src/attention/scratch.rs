//! What attention needs beside its operands, sized once.

use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;

use super::AttentionShape;
use super::block::{RUN, Workspace, padded};
use super::softmax::State;
use crate::error::KernelError;

/// Room for one call of [`attention`](super::attention()) at a time.
pub struct AttentionScratch {
    shape: AttentionShape,
    pub(super) workers: Vec<Mutex<Workspace>>,
    pub(super) states: Vec<State>, // (units, runs, queries of a block), where a context is split
    pub(super) accs: Vec<f32>,     // (as states, channels)
    pub(super) pending: Vec<AtomicUsize>, // (units)
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
        let states = if threads > 1 { 2 * shape.n_heads * max_slots.div_ceil(RUN) } else { 0 };
        Ok(AttentionScratch {
            shape: *shape,
            workers: (0..threads).map(|_| Mutex::new(Workspace::new(shape))).collect(),
            states: vec![State::EMPTY; states],
            accs: vec![0.0; states * padded(shape.head_dim)],
            pending: (0..4 * threads).map(|_| AtomicUsize::new(0)).collect(),
        })
    }

    /// Bytes reserved.
    pub fn bytes(&self) -> usize {
        let workers: usize = self.workers.len() * Workspace::bytes(&self.shape);
        workers
            + std::mem::size_of_val(&self.states[..])
            + std::mem::size_of_val(&self.accs[..])
            + std::mem::size_of_val(&self.pending[..])
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
