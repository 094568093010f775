//! The attention weight that each slot receives: the evidence on which caches decide what to keep.

use std::sync::PoisonError;

use super::band::{Part, Run, Runs};
use super::block::{Block, RUN, Workspace, block_rows, soften, width_seen};
use super::plan::{Cut, Unit};
use super::softmax::{NO_MAX, Seen, hide};
use super::strip::{Strip, load_keys, score_panel};
use super::tile::STRIP;
use super::{ALONE, AttentionJob, AttentionScratch, AttentionShape, check_job, expect};
use crate::error::KernelError;
use crate::kv_page::PageLayout;
use crate::shared_slice::SharedSlice;
use crate::table::KernelTable;
use crate::team::Team;
use crate::vectors::{Kernel, Simd, dispatch};

/// Adds the attention weight that every slot of every lane receives from the rows of a job, summed over the rows and over the
/// query heads of the group: `mass[kv_head * stride + slot] += Σ softmax(q · kᵀ · scale)[slot]`.
///
/// Keys are scored twice: once for the maximum and the sum of each query, once for the weights, which are then exact. A
/// slot's mass is one chain of additions, row by row in ascending order and head by head within a row, begun at what
/// `mass` holds. So rows given in several calls, in order, leave the same bits as in one, on any number of threads.
/// Slots that no row sees are not touched. Allocates nothing.
///
/// # Errors
/// As [`attention`](super::attention()); [`KernelError::Shape`] too when `mass` is not `(n_kv_heads, stride)` or a lane
/// is longer than `stride`, and [`KernelError::ScratchTooSmall`] when a context is longer than the scratch was made for.
///
/// # Panics
/// When a page is not `page_bytes` long.
#[allow(clippy::too_many_arguments)] // as `attention`
pub fn attention_mass(
    table: &KernelTable,
    team: &Team,
    shape: &AttentionShape,
    layout: PageLayout,
    job: &AttentionJob<'_>,
    q: &[f32], // (rows, n_heads, head_dim)
    scratch: &mut AttentionScratch,
    mass: &mut [f32], // (n_kv_heads, stride)
    stride: usize,
) -> Result<(), KernelError> {
    shape.check()?;
    expect("channels of the page layout", layout.head_dim(), shape.head_dim)?;
    expect("slots of attention mass", mass.len(), shape.n_kv_heads * stride)?;
    scratch.check(shape, team.threads())?;
    let work = check_job(shape, layout, job, q)?;
    let into_first = table.fetches_into_first();
    let cut = Cut { shape, layout, jobs: std::slice::from_ref(job), into_first };
    let mut rows = 0..0;
    while rows.end < job.rows.len() {
        rows = rows.end..(rows.end + block_rows(shape.group())).min(job.rows.len());
        let mut pass = Pass::new(cut, rows.clone(), stride)?;
        while pass.room() > scratch.mass_max.len() {
            // A context longer than the scratch was made for is done in fewer rows at a time.
            if rows.len() == 1 {
                let (got, capacity) = (pass.room(), scratch.mass_max.len());
                return Err(KernelError::ScratchTooSmall { what: "states of attention mass", got, capacity });
            }
            rows.end = rows.start + rows.len() / 2;
            pass = Pass::new(cut, rows.clone(), stride)?;
        }
        let share = work / job.rows.len();
        let threads = if share * rows.len() < ALONE { None } else { Some(team) };
        pass.run(table, threads, q, scratch, mass);
    }
    Ok(())
}

/// A block of rows, for all KV heads.
struct Pass<'a> {
    cut: Cut<'a>,
    rows: std::ops::Range<usize>, // of the job
    stride: usize,
    runs: usize,    // most runs of a KV head
    places: usize,  // most runs of slots of a KV head
    queries: usize, // of a KV head, padded to whole vectors
}

impl<'a> Pass<'a> {
    fn new(cut: Cut<'a>, rows: std::ops::Range<usize>, stride: usize) -> Result<Pass<'a>, KernelError> {
        let queries = (rows.len() * cut.shape.group()).next_multiple_of(16);
        let mut pass = Pass { cut, rows, stride, runs: 0, places: 0, queries };
        for kv_head in 0..cut.shape.n_kv_heads {
            let (runs, end) = pass.runs(&pass.unit(kv_head));
            if end > stride {
                let what = "slots of a lane in the attention mass";
                return Err(KernelError::Shape { what, got: stride, want: end });
            }
            pass.runs = pass.runs.max(runs.count());
            pass.places = pass.places.max(runs.places());
        }
        Ok(pass)
    }

    fn unit(&self, kv_head: usize) -> Unit<'a> {
        let Cut { shape, layout, jobs, into_first } = self.cut;
        let (job, queries) = (&jobs[0], self.rows.len() * shape.group());
        let block = Block { layout, kv: job.kv, lane: job.kv.lane(kv_head), queries, into_first };
        Unit { job, block, kv_head, first_row: self.rows.start }
    }

    /// The runs that a unit sees, and the end of the slots that it sees.
    fn runs(&self, unit: &Unit<'_>) -> (Runs, usize) {
        let bands = || self.rows.clone().map(|row| unit.sees(row));
        (Runs::of(bands()), bands().map(|band| band.to).max().unwrap_or(0))
    }

    /// States of all KV heads: of each run, then of the whole.
    fn room(&self) -> usize {
        self.cut.shape.n_kv_heads * (self.runs + 1) * self.queries
    }

    /// Where the states of a run of a KV head begin; those of the whole follow the runs.
    fn states(&self, kv_head: usize, run: usize) -> usize {
        (kv_head * (self.runs + 1) + run) * self.queries
    }

    fn run(
        &self,
        table: &KernelTable,
        team: Option<&Team>,
        q: &[f32],
        scratch: &mut AttentionScratch,
        mass: &mut [f32],
    ) {
        let heads = self.cut.shape.n_kv_heads;
        let AttentionScratch { workers, mass_max, mass_sum, .. } = scratch;
        let region = |tiles: usize, tile: &(dyn Fn(usize, usize) + Sync)| match team {
            Some(team) => team.run(tiles, tile),
            None => (0..tiles).for_each(|i| tile(i, 0)),
        };
        {
            let (max, sum) = (SharedSlice::new(mass_max), SharedSlice::new(mass_sum));
            region(heads * self.runs, &|tile, worker| {
                let unit = self.unit(tile / self.runs);
                let (runs, run) = (self.runs(&unit).0, tile % self.runs);
                if run >= runs.count() {
                    return;
                }
                let mut work = workers[worker].lock().unwrap_or_else(PoisonError::into_inner);
                unit.load(self.cut, q, &mut work);
                let at = self.states(unit.kv_head, run);
                // SAFETY: each run of each KV head has a place of its own, which only this tile writes.
                let (max, sum) = unsafe { (max.part(at, self.queries), sum.part(at, self.queries)) };
                let run = runs.get(run);
                dispatch(table.vectors(), Peaks { block: unit.block, work: &mut work, run, max, sum });
            });
        }
        for kv_head in 0..heads {
            let runs = self.runs(&self.unit(kv_head)).0.count();
            let all = self.states(kv_head, 0)..self.states(kv_head, runs);
            let whole = self.states(kv_head, self.runs)..self.states(kv_head, self.runs + 1);
            let (max, whole_max) = mass_max.split_at_mut(whole.start);
            let (sum, share) = mass_sum.split_at_mut(whole.start);
            let (max, sum) = (&max[all.clone()], &sum[all]);
            let (whole_max, share) = (&mut whole_max[..self.queries], &mut share[..self.queries]);
            dispatch(table.vectors(), MergeAll { max, sum, whole_max, share });
        }
        let mass = SharedSlice::new(mass);
        region(heads * self.places, &|tile, worker| {
            let unit = self.unit(tile / self.places);
            let (runs, end) = self.runs(&unit);
            let Some(place) = runs.place(tile % self.places) else { return };
            let mut work = workers[worker].lock().unwrap_or_else(PoisonError::into_inner);
            unit.load(self.cut, q, &mut work);
            let slots = place * RUN..end.min((place + 1) * RUN);
            // SAFETY: each run of slots of each lane belongs to one tile, and `end` is within the stride.
            let mass = unsafe { mass.part(unit.kv_head * self.stride + slots.start, slots.len()) };
            let at = self.states(unit.kv_head, self.runs);
            let (max, share) = (&mass_max[at..][..self.queries], &mass_sum[at..][..self.queries]);
            let add = AddMass { block: unit.block, work: &mut work, first: slots.start, max, share, mass };
            dispatch(table.vectors(), add);
        });
    }
}

/// Maximum and sum of each query over a run.
struct Peaks<'a> {
    block: Block<'a>,
    work: &'a mut Workspace,
    run: Run,
    max: &'a mut [f32], // (queries), padded
    sum: &'a mut [f32], // (queries), padded
}

impl Kernel for Peaks<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Peaks { block, work, run, max, sum } = self;
        work.part.clear(block.queries);
        let span = work.span(block.queries, run);
        for first in span.clone().step_by(STRIP) {
            let width = work.look(block.queries, run.part, first);
            if width > 0 {
                let strip = Strip::new(&block, first, width, span.end).keys_only();
                let keys = load_keys(simd, &block, work, &strip);
                for panel in block.panels() {
                    let width = width_seen(&work.seen[panel.range()]);
                    if width > 0 {
                        score_panel(simd, &block, work, &strip, &keys, run.part, panel, width);
                    }
                }
                soften(simd, &block, work);
            }
        }
        max.fill(NO_MAX);
        sum.fill(0.0);
        max[..block.queries].copy_from_slice(&work.part.max[..block.queries]);
        sum[..block.queries].copy_from_slice(&work.part.sum[..block.queries]);
    }
}

/// The maxima over all runs, and what a weight relative to them is to be multiplied by.
struct MergeAll<'a> {
    max: &'a [f32],           // (runs, queries), whole vectors
    sum: &'a [f32],           // (runs, queries)
    whole_max: &'a mut [f32], // (queries)
    share: &'a mut [f32],     // (queries)
}

impl Kernel for MergeAll<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let queries = self.share.len();
        for at in (0..queries).step_by(S::LANES) {
            let mut max = simd.splat(NO_MAX);
            for run in self.max.chunks_exact(queries) {
                max = simd.max(max, simd.read(&run[at..]));
            }
            let mut sum = simd.splat(0.0);
            for (run, run_sum) in self.max.chunks_exact(queries).zip(self.sum.chunks_exact(queries)) {
                let factor = simd.exp2(simd.sub(simd.read(&run[at..]), max));
                sum = simd.fma(simd.read(&run_sum[at..]), factor, sum);
            }
            simd.write(&mut self.whole_max[at..], max);
            simd.write(&mut self.share[at..], simd.div(simd.splat(1.0), sum));
        }
    }
}

/// Adds the weights of every query to the slots of a run, query by query.
struct AddMass<'a> {
    block: Block<'a>,
    work: &'a mut Workspace,
    first: usize,        // slot of the lane at which `mass` begins
    max: &'a [f32],      // (queries)
    share: &'a [f32],    // (queries)
    mass: &'a mut [f32], // (slots of the run)
}

impl Kernel for AddMass<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let AddMass { block, work, first, max, share, mass } = self;
        let span = |part| work.span(block.queries, Run { part, index: first / RUN }).end;
        let end = span(Part::Sinks).max(span(Part::Window));
        for (strip, mass) in mass.chunks_mut(STRIP).enumerate() {
            let first = first + strip * STRIP;
            let width = work.look_at_both(block.queries, first);
            if width > 0 {
                let mut sums = [0.0; STRIP];
                sums[..mass.len()].copy_from_slice(mass);
                let strip = Strip::new(&block, first, width, end).keys_only();
                add_strip(simd, &block, work, &strip, max, share, &mut sums);
                mass.copy_from_slice(&sums[..mass.len()]);
            }
        }
    }
}

#[inline(always)]
fn add_strip<S: Simd>(
    simd: S,
    block: &Block<'_>,
    work: &mut Workspace,
    strip: &Strip<'_>,
    max: &[f32],   // (queries)
    share: &[f32], // (queries)
    sums: &mut [f32; STRIP],
) {
    let keys = load_keys(simd, block, work, strip);
    for panel in block.panels() {
        // The sinks' first, aside, as there is one place for both.
        for part in [Part::Sinks, Part::Window] {
            if width_seen(&work.seen_of(part)[panel.range()]) > 0 {
                score_panel(simd, block, work, strip, &keys, part, panel, strip.width());
            }
            if part == Part::Sinks {
                let scores = &work.scores[panel.scores()];
                work.sink_scores[..scores.len()].copy_from_slice(scores);
            }
        }
        let (mut window, mut sinks) =
            (std::mem::take(&mut work.scores), std::mem::take(&mut work.sink_scores));
        // Query by query, so that a slot's sum does not depend on where panels begin.
        for (i, query) in panel.range().enumerate() {
            for (row, part) in
                [(&mut window[query * STRIP..], Part::Window), (&mut sinks[i * STRIP..], Part::Sinks)]
            {
                let row = &mut row[..strip.width()];
                add_row(simd, row, work.seen_of(part)[query], max[query], share[query], sums);
            }
        }
        (work.scores, work.sink_scores) = (window, sinks);
    }
}

/// Adds the weights of one query: `sums += 2^(row - max) * share` where it sees.
#[inline(always)]
fn add_row<S: Simd>(simd: S, row: &mut [f32], seen: Seen, max: f32, share: f32, sums: &mut [f32; STRIP]) {
    if seen.is_empty() {
        return;
    }
    hide(simd, row, seen);
    let (max, share) = (simd.splat(max), simd.splat(share));
    for (sums, row) in sums.chunks_exact_mut(S::LANES).zip(row.chunks_exact(S::LANES)) {
        let weight = simd.mul(simd.exp2(simd.sub(simd.read(row), max)), share);
        simd.write(sums, simd.add(simd.read(sums), weight));
    }
}
