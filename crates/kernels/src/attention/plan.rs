//! How a call is cut: by KV head and block of rows, and by run of slots too where that leaves too few tiles.

use super::band::{Band, Run, Runs};
use super::block::{Block, block_rows};
use super::{AttentionJob, AttentionScratch, AttentionShape};
use crate::kv_page::PageLayout;

/// Queries below which a block is not cut for the sake of threads: widening its keys and values would cost too much.
const FEW_QUERIES: usize = 48;

/// What is cut.
#[derive(Clone, Copy)]
pub(super) struct Cut<'a> {
    pub shape: &'a AttentionShape,
    pub layout: PageLayout,
    pub jobs: &'a [AttentionJob<'a>],
    pub into_first: bool, // as of a block
}

/// One (KV head, block of rows) of a job.
pub(super) struct Unit<'a> {
    pub job: &'a AttentionJob<'a>,
    pub block: Block<'a>,
    pub kv_head: usize,
    pub first_row: usize, // of the job
}

impl Unit<'_> {
    /// The runs of slots that its rows see.
    fn runs(&self, shape: &AttentionShape) -> Runs {
        let rows = self.first_row..self.first_row + self.block.queries / shape.group();
        Runs::of(rows.map(|row| self.sees(row)))
    }

    /// What a row of the job sees; every row was checked to see something that there is.
    pub fn sees(&self, row: usize) -> Band {
        self.job.sees(&self.block.lane, self.kv_head, row).unwrap_or_default()
    }
}

/// One tile: a unit, or a run of it.
pub(super) struct Tile<'a> {
    pub unit: Unit<'a>,
    /// Which run, counted from the first that the unit sees; `None` for all of them.
    pub run: Option<(usize, Runs)>,
    pub index: usize,  // of the unit among those of the call
    pub states: usize, // first partial state of the unit
}

impl Tile<'_> {
    /// First partial state of a run of the unit.
    pub fn states_of(&self, run: usize) -> usize {
        self.states + run * self.unit.block.queries
    }
}

/// How many tiles of which kind.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    block_rows: usize,
    split: bool,
    pub units: usize,
    pub tiles: usize,
}

impl Plan {
    pub fn new(cut: Cut<'_>, threads: usize, scratch: &AttentionScratch) -> Plan {
        let mut plan = Plan { block_rows: block_rows(cut.shape.group()), split: false, units: 0, tiles: 0 };
        plan.units = cut.jobs.iter().map(|job| plan.units(cut, job)).sum();
        plan.tiles = plan.units;
        if threads > 1 && plan.units < 4 * threads && plan.units <= scratch.pending.len() {
            let (mut runs, mut states) = (0, 0);
            for unit in plan.all_units(cut) {
                let count = unit.runs(cut.shape).count();
                runs += count;
                states += count * unit.block.queries;
            }
            if runs > plan.units && states <= scratch.states.len() {
                (plan.split, plan.tiles) = (true, runs);
            }
        }
        if !plan.split && threads > 1 && plan.units < 2 * threads {
            plan.narrow(cut, threads);
        }
        plan
    }

    /// Blocks of fewer rows, where there are so few units that threads would have nothing to do.
    fn narrow(&mut self, cut: Cut<'_>, threads: usize) {
        let rows = cut.jobs.iter().map(|job| job.rows.len()).max().unwrap_or(0);
        let blocks = (2 * threads).div_ceil(cut.shape.n_kv_heads);
        let least = (FEW_QUERIES / cut.shape.group()).max(1);
        self.block_rows = self.block_rows.min(rows.div_ceil(blocks).max(least));
        self.units = cut.jobs.iter().map(|job| self.units(cut, job)).sum();
        self.tiles = self.units;
    }

    /// Units whose runs are counted down while the call runs.
    pub fn pending(&self) -> usize {
        if self.split { self.units } else { 0 }
    }

    /// Units of a job.
    fn units(&self, cut: Cut<'_>, job: &AttentionJob<'_>) -> usize {
        job.rows.len().div_ceil(self.block_rows) * cut.shape.n_kv_heads
    }

    /// Unit `unit` of a job. Later rows commonly see more, so they come first.
    fn unit<'a>(&self, cut: Cut<'a>, job: &'a AttentionJob<'a>, unit: usize) -> Unit<'a> {
        let (block, kv_head) = (unit / cut.shape.n_kv_heads, unit % cut.shape.n_kv_heads);
        let first_row = (job.rows.len().div_ceil(self.block_rows) - 1 - block) * self.block_rows;
        let queries = self.block_rows.min(job.rows.len() - first_row) * cut.shape.group();
        let (layout, lane, into_first) = (cut.layout, job.kv.lane(kv_head), cut.into_first);
        let block = Block { layout, kv: job.kv, lane, queries, into_first };
        Unit { job, block, kv_head, first_row }
    }

    /// The units of all jobs, in order.
    fn all_units<'a>(&self, cut: Cut<'a>) -> impl Iterator<Item = Unit<'a>> {
        let plan = *self;
        let of_job = move |job| (0..plan.units(cut, job)).map(move |unit| plan.unit(cut, job, unit));
        cut.jobs.iter().flat_map(of_job)
    }

    /// Tile `tile` of `tiles`.
    pub fn tile<'a>(&self, cut: Cut<'a>, tile: usize) -> Tile<'a> {
        if self.split {
            return self.split_tile(cut, tile);
        }
        let mut left = tile;
        for job in cut.jobs {
            let units = self.units(cut, job);
            if left < units {
                return Tile { unit: self.unit(cut, job, left), run: None, index: tile, states: 0 };
            }
            left -= units;
        }
        unreachable!("a tile beyond the last job")
    }

    /// As [`tile`](Plan::tile) where units are cut into runs; there are few of them, so they are counted each time.
    fn split_tile<'a>(&self, cut: Cut<'a>, mut tile: usize) -> Tile<'a> {
        let mut states = 0;
        for (index, unit) in self.all_units(cut).enumerate() {
            let runs = unit.runs(cut.shape);
            if tile < runs.count() {
                return Tile { unit, run: Some((tile, runs)), index, states };
            }
            tile -= runs.count();
            states += runs.count() * unit.block.queries;
        }
        unreachable!("a tile beyond the last unit")
    }
}

impl Tile<'_> {
    /// The runs of the unit with the place of each, where it is cut into runs.
    pub fn all_runs(&self) -> impl Iterator<Item = (usize, Run)> {
        let runs = self.run.map(|(_, runs)| runs);
        runs.into_iter().flat_map(|runs| (0..runs.count()).map(move |i| (i, runs.get(i))))
    }
}
