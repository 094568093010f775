//! Attention over the pages of the KV cache, for decode and prefill alike.
//!
//! A row's result does not depend on the rows beside it, on how the work is cut, or on the number of threads, bit
//! for bit: every number is computed by one chain of operations whose order only the row and its slots decide.
//! Scores are never stored beyond one strip of 64 slots. See `docs/attention.md` for layout and measurements.

mod block;
mod scratch;
mod sealed;
mod softmax;
mod tile;
mod weights;

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

pub use scratch::AttentionScratch;
pub use weights::attention_weights;

use crate::error::KernelError;
use crate::kv_page::{KvLayer, LaneView, PageLayout};
use crate::shared_slice::SharedSlice;
use crate::table::KernelTable;
use crate::team::Team;
use crate::vectors::dispatch;

use block::{AllRuns, Block, OneRun, RUN, Workspace, block_rows, load_queries, padded};
use softmax::State;

/// Multiply-adds below which waking the team costs more than it saves (some µs of one core).
const ALONE: usize = 200_000;

/// Heads of one attention layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionShape {
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads, each shared by `n_heads / n_kv_heads` query heads in a row.
    pub n_kv_heads: usize,
    /// Channels of a head.
    pub head_dim: usize,
    /// Factor of the scores, commonly 1/√head_dim.
    pub scale: f32,
}

impl AttentionShape {
    /// Query heads per KV head.
    pub fn group(&self) -> usize {
        self.n_heads / self.n_kv_heads.max(1)
    }

    /// Numbers in one row of queries or outputs.
    pub fn row(&self) -> usize {
        self.n_heads * self.head_dim
    }

    pub(crate) fn check(&self) -> Result<(), KernelError> {
        let AttentionShape { n_heads, n_kv_heads, head_dim, .. } = *self;
        if n_heads == 0 || n_kv_heads == 0 || !n_heads.is_multiple_of(n_kv_heads) {
            return Err(KernelError::HeadGroups { n_heads, n_kv_heads });
        }
        if !(1..=PageLayout::MAX_HEAD_DIM).contains(&head_dim) {
            return Err(KernelError::HeadDim { head_dim });
        }
        Ok(())
    }
}

/// Which slots the rows of a job see.
#[derive(Debug, Clone, Copy)]
pub enum Visible<'a> {
    /// The rows are the newest slots of every lane: row `i` of `n` sees the first `len - n + i + 1`.
    Causal,
    /// Row `i` sees the first `slots[i]` of every lane. A row that sees none comes out as zeros.
    First(&'a [usize]),
}

/// Rows of queries that read one sequence.
#[derive(Clone)]
pub struct AttentionJob<'a> {
    /// The sequence's pages of this layer.
    pub kv: &'a dyn KvLayer,
    /// Which rows of the queries and outputs.
    pub rows: Range<usize>,
    /// What they see.
    pub visible: Visible<'a>,
}

impl AttentionJob<'_> {
    /// Slots of `lane` that row `i` of the job sees.
    fn sees(&self, lane: &LaneView<'_>, i: usize) -> Option<usize> {
        match self.visible {
            Visible::Causal => (lane.len + i + 1).checked_sub(self.rows.len()),
            Visible::First(slots) => slots.get(i).copied(),
        }
    }
}

/// Attention of every job, `out = softmax(q · kᵀ · scale) · v`, in one region of the team.
///
/// `q` and `out` are `(rows, n_heads, head_dim)`; the jobs name their rows in ascending order, and rows that no job names are left as they are. Allocates nothing.
///
/// # Errors
/// [`KernelError::Shape`], [`KernelError::HeadGroups`], [`KernelError::HeadDim`] when shapes disagree,
/// [`KernelError::NotInLane`] when a row is to see slots that a lane does not hold, and
/// [`KernelError::ScratchTooSmall`] when the scratch was made for another shape or for fewer threads.
///
/// # Panics
/// When a page is not `page_bytes` long.
#[allow(clippy::too_many_arguments)] // one operation of the device: each argument is an operand
pub fn attention(
    table: &KernelTable,
    team: &Team,
    shape: &AttentionShape,
    layout: PageLayout,
    jobs: &[AttentionJob<'_>],
    q: &[f32], // (rows, n_heads, head_dim)
    scratch: &mut AttentionScratch,
    out: &mut [f32], // (rows, n_heads, head_dim)
) -> Result<(), KernelError> {
    shape.check()?;
    expect("channels of the page layout", layout.head_dim(), shape.head_dim)?;
    expect("numbers in the outputs of attention", out.len(), q.len())?;
    scratch.check(shape, team.threads())?;
    let mut work = 0;
    let mut end = 0;
    for job in jobs {
        if job.rows.start < end {
            return Err(KernelError::Shape {
                what: "first row of an attention job",
                got: job.rows.start,
                want: end,
            });
        }
        end = job.rows.end;
        work += check_job(shape, layout, job, q)?;
    }
    let plan = Plan::new(shape, jobs, team.threads(), scratch);
    let AttentionScratch { workers, states, accs, pending, .. } = scratch;
    for pending in &mut pending[..if plan.split { plan.units } else { 0 }] {
        *pending.get_mut() = 0;
    }
    let (states, accs) = (SharedSlice::new(states), SharedSlice::new(accs));
    let call = Call {
        table,
        shape,
        layout,
        jobs,
        plan,
        q,
        workers,
        states,
        accs,
        pending,
        out: SharedSlice::new(out),
    };
    if work < ALONE {
        (0..plan.tiles).for_each(|tile| call.tile(tile, 0));
    } else {
        team.run(plan.tiles, &|tile, worker| call.tile(tile, worker));
    }
    Ok(())
}

/// An error unless `got` is `want`.
fn expect(what: &'static str, got: usize, want: usize) -> Result<(), KernelError> {
    if got == want { Ok(()) } else { Err(KernelError::Shape { what, got, want }) }
}

/// Checks a job; returns its multiply-adds.
fn check_job(
    shape: &AttentionShape,
    layout: PageLayout,
    job: &AttentionJob<'_>,
    q: &[f32],
) -> Result<usize, KernelError> {
    let rows = q.len() / shape.row();
    if job.rows.start > job.rows.end || job.rows.end > rows {
        return Err(KernelError::Shape { what: "rows of an attention job", got: job.rows.end, want: rows });
    }
    if let Visible::First(slots) = job.visible {
        expect("rows with visible slots", slots.len(), job.rows.len())?;
    }
    let mut slots = 0;
    for kv_head in 0..shape.n_kv_heads {
        let lane = job.kv.lane(kv_head);
        let len = lane.len.min(lane.table.len() * layout.slots());
        for i in 0..job.rows.len() {
            let visible = job.sees(&lane, i).unwrap_or(usize::MAX);
            if visible > len {
                // A causal row of more rows than slots sees a negative number of them.
                let visible = if visible == usize::MAX { job.rows.len() } else { visible };
                return Err(KernelError::NotInLane { row: job.rows.start + i, kv_head, visible, len });
            }
            slots += visible;
        }
    }
    Ok(2 * slots * shape.group() * shape.head_dim)
}

/// How a call is cut: by KV head and block of rows, and by run of slots too where that leaves too few tiles.
#[derive(Clone, Copy)]
struct Plan {
    block_rows: usize,
    split: bool,
    units: usize, // (KV head, block of rows) of all jobs
    tiles: usize,
}

impl Plan {
    fn new(
        shape: &AttentionShape,
        jobs: &[AttentionJob<'_>],
        threads: usize,
        scratch: &AttentionScratch,
    ) -> Plan {
        let whole = Plan { block_rows: block_rows(shape.group()), split: false, units: 0, tiles: 0 };
        let split = Plan { split: true, ..whole };
        let units = jobs.iter().map(|job| whole.units(shape, job)).sum();
        let tiles: usize = jobs.iter().map(|job| split.units(shape, job) * split.runs(shape, job)).sum();
        let states: usize = jobs.iter().map(|job| split.states(shape, job)).sum();
        let room = states <= scratch.states.len() && units <= scratch.pending.len();
        if threads > 1 && units < 4 * threads && tiles > units && room {
            Plan { units, tiles, ..split }
        } else {
            Plan { units, tiles: units, ..whole }
        }
    }

    fn blocks(&self, job: &AttentionJob<'_>) -> usize {
        job.rows.len().div_ceil(self.block_rows)
    }

    fn units(&self, shape: &AttentionShape, job: &AttentionJob<'_>) -> usize {
        self.blocks(job) * shape.n_kv_heads
    }

    /// Runs of slots that the job's units are cut into.
    fn runs(&self, shape: &AttentionShape, job: &AttentionJob<'_>) -> usize {
        if !self.split {
            return 1;
        }
        let most = |kv_head: usize| match job.visible {
            Visible::Causal => job.kv.lane(kv_head).len,
            Visible::First(slots) => slots.iter().copied().max().unwrap_or(0),
        };
        (0..shape.n_kv_heads).map(most).max().unwrap_or(0).div_ceil(RUN).max(1)
    }

    /// Partial states that the job's tiles leave, `(units, runs, queries of a block)`.
    fn states(&self, shape: &AttentionShape, job: &AttentionJob<'_>) -> usize {
        self.units(shape, job) * self.runs(shape, job) * self.queries(shape, job)
    }

    /// Most queries of one of the job's blocks.
    fn queries(&self, shape: &AttentionShape, job: &AttentionJob<'_>) -> usize {
        self.block_rows.min(job.rows.len()) * shape.group()
    }
}

/// One call while the team runs it.
struct Call<'a> {
    table: &'a KernelTable,
    shape: &'a AttentionShape,
    layout: PageLayout,
    jobs: &'a [AttentionJob<'a>],
    plan: Plan,
    q: &'a [f32],
    workers: &'a [Mutex<Workspace>],
    states: SharedSlice<'a, State>, // (jobs: units, runs, queries)
    accs: SharedSlice<'a, f32>,     // (as states, channels)
    pending: &'a [AtomicUsize],     // (units): runs that are done
    out: SharedSlice<'a, f32>,
}

/// One (KV head, block of rows) of a job.
struct Unit<'a> {
    job: &'a AttentionJob<'a>,
    block: Block<'a>,
    kv_head: usize,
    first_row: usize, // of the job
    index: usize,     // among the units of the call
    states: usize,    // its first partial state
}

impl<'a> Call<'a> {
    fn tile(&self, tile: usize, worker: usize) {
        let (unit, run, runs) = self.locate(tile);
        let mut work = self.workers[worker].lock().unwrap_or_else(PoisonError::into_inner);
        let (shape, heads) = (self.shape, unit.kv_head * self.shape.group());
        load_queries(&unit.block, &mut work, shape.scale, |i| {
            let row = unit.first_row + i / shape.group();
            let head = heads + i % shape.group();
            let at = ((unit.job.rows.start + row) * shape.n_heads + head) * shape.head_dim;
            (&self.q[at..at + shape.head_dim], unit.job.sees(&unit.block.lane, row).unwrap_or(0))
        });
        let (block, level) = (unit.block, self.table.vectors());
        if runs == 1 && !self.plan.split {
            dispatch(level, AllRuns { block, work: &mut work });
            self.write(&unit, &work);
            return;
        }
        dispatch(level, OneRun { block, work: &mut work, run });
        let channels = padded(shape.head_dim);
        let first = unit.states + run * self.plan.queries(shape, unit.job);
        for i in 0..block.queries {
            let (state, acc) = work.part(i, channels);
            // SAFETY: each (unit, run, query) has a place of its own, and nobody reads it before all runs are done.
            unsafe {
                self.states.part(first + i, 1)[0] = state;
                self.accs.part((first + i) * channels, channels).copy_from_slice(acc);
            }
        }
        // Whoever comes last merges, in the order of the runs; acquires what the others released.
        if self.pending[unit.index].fetch_add(1, Ordering::AcqRel) + 1 == runs {
            self.merge(&unit, runs, &mut work);
            self.write(&unit, &work);
        }
    }

    /// The unit and run of a tile, and the runs of the unit. Later rows see more, so they come first.
    fn locate(&self, mut tile: usize) -> (Unit<'a>, usize, usize) {
        let (mut index, mut states) = (0, 0);
        let mut jobs = self.jobs.iter();
        loop {
            let Some(job) = jobs.next() else { unreachable!("a tile beyond the last job") };
            let (units, runs) = (self.plan.units(self.shape, job), self.plan.runs(self.shape, job));
            if tile >= units * runs {
                tile -= units * runs;
                index += units;
                states += self.plan.states(self.shape, job);
                continue;
            }
            let (unit, run) = (tile / runs, tile % runs);
            let kv_head = unit % self.shape.n_kv_heads;
            let first_row = (self.plan.blocks(job) - 1 - unit / self.shape.n_kv_heads) * self.plan.block_rows;
            let rows = self.plan.block_rows.min(job.rows.len() - first_row);
            let queries = rows * self.shape.group();
            let block = Block { layout: self.layout, kv: job.kv, lane: job.kv.lane(kv_head), queries };
            let states = states + unit * runs * self.plan.queries(self.shape, job);
            return (Unit { job, block, kv_head, first_row, index: index + unit, states }, run, runs);
        }
    }

    /// Merges the partial states of a unit into `whole`.
    fn merge(&self, unit: &Unit<'_>, runs: usize, work: &mut Workspace) {
        let channels = padded(self.shape.head_dim);
        let queries = self.plan.queries(self.shape, unit.job);
        work.clear_whole(unit.block.queries, channels);
        for run in 0..runs {
            for i in 0..unit.block.queries {
                let at = unit.states + run * queries + i;
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
        let (shape, channels) = (self.shape, padded(self.shape.head_dim));
        for i in 0..unit.block.queries {
            let row = unit.job.rows.start + unit.first_row + i / shape.group();
            let head = unit.kv_head * shape.group() + i % shape.group();
            // SAFETY: each (row, head) belongs to one unit, and the rows of the jobs
            // ascend, which `attention` has checked.
            let out = unsafe { self.out.part((row * shape.n_heads + head) * shape.head_dim, shape.head_dim) };
            work.finish(i, channels, out);
        }
    }
}
