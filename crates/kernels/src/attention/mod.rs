//! Attention over the pages of the KV cache, for decode and prefill alike.
//!
//! A row's result does not depend on the rows beside it, on how the work is cut, or on the number of threads, bit
//! for bit: every number is computed by one chain of operations whose order only the row and its slots decide.
//! Scores are never stored beyond one strip of 64 slots. See `docs/attention.md` for layout and measurements.

mod ahead;
mod band;
mod block;
mod call;
mod mass;
mod plan;
mod scratch;
mod sealed;
mod softmax;
mod strip;
mod tile;
mod weights;
mod widen;

use std::ops::Range;

pub use band::Band;
pub use mass::attention_mass;
pub use scratch::AttentionScratch;
pub use weights::attention_weights;

use crate::error::KernelError;
use crate::kv_page::{KvLayer, LaneView, PageLayout};
use crate::table::KernelTable;
use crate::team::Team;

use call::Call;
use plan::{Cut, Plan};

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
    /// Row `i` of `n` sees `bands[kv_head * n + i]` of the lane of each KV head: some of the first slots and a window, with
    /// one softmax over both. What no row sees is not read.
    Bands {
        /// `(n_kv_heads, rows of the job)`.
        bands: &'a [Band],
        /// Queries that read the sinks, where those are not the ones that read the window: rows of the whole call,
        /// `(rows, n_heads, head_dim)`, as `q`. StreamingLLM's second frame.
        sink_q: Option<&'a [f32]>,
    },
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
    /// What row `i` of the job sees of the lane of a KV head.
    fn sees(&self, lane: &LaneView<'_>, kv_head: usize, i: usize) -> Option<Band> {
        match self.visible {
            Visible::Causal => (lane.len + i + 1).checked_sub(self.rows.len()).map(Band::first),
            Visible::First(slots) => slots.get(i).copied().map(Band::first),
            Visible::Bands { bands, sink_q: None } => {
                bands.get(kv_head * self.rows.len() + i).map(|b| b.joined())
            }
            Visible::Bands { bands, sink_q: Some(_) } => bands.get(kv_head * self.rows.len() + i).copied(),
        }
    }

    /// The queries that read the sinks, where those have their own.
    fn sink_q(&self) -> Option<&[f32]> {
        match self.visible {
            Visible::Bands { sink_q, .. } => sink_q,
            _ => None,
        }
    }
}

/// Attention of every job, `out = softmax(q · kᵀ · scale) · v`, in one region of the team.
///
/// `q` and `out` are `(rows, n_heads, head_dim)`; the jobs name their rows in ascending order, and rows that no job names are left as they are. Allocates nothing.
///
/// # Errors
/// [`KernelError::Shape`], [`KernelError::HeadGroups`], [`KernelError::HeadDim`] when shapes disagree,
/// [`KernelError::NotInLane`] when a row is to see slots that a lane does not hold, [`KernelError::BandOrder`] when a band
/// is not in order, and [`KernelError::ScratchTooSmall`] when the scratch was made for another shape or for fewer threads.
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
    let cut = Cut { shape, layout, jobs, into_first: table.fetches_into_first() };
    let plan = Plan::new(cut, team.threads(), scratch);
    let call = Call::new(table, cut, plan, q, scratch, out);
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
    match job.visible {
        Visible::Causal => {}
        Visible::First(slots) => expect("rows with visible slots", slots.len(), job.rows.len())?,
        Visible::Bands { bands, .. } => {
            expect("bands of an attention job", bands.len(), shape.n_kv_heads * job.rows.len())?;
        }
    }
    if let Some(sink_q) = job.sink_q() {
        expect("numbers in the sink queries of attention", sink_q.len(), q.len())?;
    }
    let mut slots = 0;
    for kv_head in 0..shape.n_kv_heads {
        let lane = job.kv.lane(kv_head);
        let len = lane.len.min(lane.table.len() * layout.slots());
        for i in 0..job.rows.len() {
            let row = job.rows.start + i;
            let Some(band) = job.sees(&lane, kv_head, i) else {
                // A causal row of more rows than slots sees a negative number of them.
                return Err(KernelError::NotInLane { row, kv_head, visible: job.rows.len(), len });
            };
            if !band.is_ordered() {
                return Err(KernelError::BandOrder { row, kv_head, band });
            }
            if band.to > len {
                return Err(KernelError::NotInLane { row, kv_head, visible: band.to, len });
            }
            slots += band.slots();
        }
    }
    Ok(2 * slots * shape.group() * shape.head_dim)
}
