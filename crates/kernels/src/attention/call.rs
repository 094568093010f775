//! One call of attention while the team runs it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::AttentionScratch;
use super::block::{AllRuns, OneRun, Query, Workspace, load_queries, padded};
use super::plan::{Cut, Plan, Tile, Unit};
use super::softmax::State;
use crate::shared_slice::SharedSlice;
use crate::table::KernelTable;
use crate::vectors::dispatch;

pub(super) struct Call<'a> {
    table: &'a KernelTable,
    cut: Cut<'a>,
    plan: Plan,
    q: &'a [f32], // (rows, n_heads, head_dim)
    workers: &'a [Mutex<Workspace>],
    states: SharedSlice<'a, State>, // (units: runs, queries)
    accs: SharedSlice<'a, f32>,     // (as states, channels)
    pending: &'a [AtomicUsize],     // (units): runs that are done
    out: SharedSlice<'a, f32>,      // (rows, n_heads, head_dim)
}

impl<'a> Call<'a> {
    pub fn new(
        table: &'a KernelTable,
        cut: Cut<'a>,
        plan: Plan,
        q: &'a [f32],
        scratch: &'a mut AttentionScratch,
        out: &'a mut [f32],
    ) -> Call<'a> {
        let AttentionScratch { workers, states, accs, pending, .. } = scratch;
        for pending in &mut pending[..plan.pending()] {
            *pending.get_mut() = 0;
        }
        let (states, accs) = (SharedSlice::new(states), SharedSlice::new(accs));
        Call { table, cut, plan, q, workers, states, accs, pending, out: SharedSlice::new(out) }
    }

    pub fn tile(&self, tile: usize, worker: usize) {
        let tile = self.plan.tile(self.cut, tile);
        let mut work = self.workers[worker].lock().unwrap_or_else(PoisonError::into_inner);
        tile.unit.load(self.cut, self.q, &mut work);
        let (block, level) = (tile.unit.block, self.table.vectors());
        let Some((run, runs)) = tile.run else {
            dispatch(level, AllRuns { block, work: &mut work });
            self.write(&tile.unit, &work);
            return;
        };
        dispatch(level, OneRun { block, work: &mut work, run: runs.get(run) });
        let channels = padded(self.cut.shape.head_dim);
        let first = tile.states_of(run);
        for i in 0..block.queries {
            let (state, acc) = work.part(i, channels);
            // SAFETY: each (unit, run, query) has a place of its own, and nobody reads it before all runs are done.
            unsafe {
                self.states.part(first + i, 1)[0] = state;
                self.accs.part((first + i) * channels, channels).copy_from_slice(acc);
            }
        }
        // Whoever comes last merges, in the order of the runs; acquires what the others released.
        if self.pending[tile.index].fetch_add(1, Ordering::AcqRel) + 1 == runs.count() {
            self.merge(&tile, &mut work);
            self.write(&tile.unit, &work);
        }
    }

    /// Merges the partial states of a unit into `whole`.
    fn merge(&self, tile: &Tile<'_>, work: &mut Workspace) {
        let (channels, queries) = (padded(self.cut.shape.head_dim), tile.unit.block.queries);
        work.clear_whole(queries, channels);
        for (place, run) in tile.all_runs() {
            for i in 0..queries {
                let at = tile.states_of(place) + i;
                // SAFETY: all runs of this unit are done, and only this thread merges it.
                let (part, acc) =
                    unsafe { (self.states.part(at, 1)[0], self.accs.part(at * channels, channels)) };
                if let Some(merge) = work.merge(i, run, part, acc) {
                    dispatch(self.table.vectors(), merge);
                }
            }
        }
    }

    /// Writes the outputs of a unit.
    fn write(&self, unit: &Unit<'_>, work: &Workspace) {
        let (shape, channels) = (self.cut.shape, padded(self.cut.shape.head_dim));
        for i in 0..unit.block.queries {
            // SAFETY: each (row, head) belongs to one unit, and the rows of the jobs
            // ascend, which `attention` has checked.
            let out = unsafe { self.out.part(unit.query_at(shape, i), shape.head_dim) };
            work.finish(i, channels, out);
        }
    }
}

impl Unit<'_> {
    /// Where query `i` of the unit begins among those of the call.
    fn query_at(&self, shape: &super::AttentionShape, i: usize) -> usize {
        let row = self.job.rows.start + self.first_row + i / shape.group();
        let head = self.kv_head * shape.group() + i % shape.group();
        (row * shape.n_heads + head) * shape.head_dim
    }

    /// Loads the queries of the unit and what they see.
    pub fn load(&self, cut: Cut<'_>, q: &[f32], work: &mut Workspace) {
        let shape = cut.shape;
        load_queries(&self.block, work, shape.scale, |i| {
            let at = self.query_at(shape, i);
            Query {
                q: &q[at..at + shape.head_dim],
                sink_q: self.job.sink_q().map(|q| &q[at..at + shape.head_dim]),
                band: self.sees(self.first_row + i / shape.group()),
            }
        });
    }
}
