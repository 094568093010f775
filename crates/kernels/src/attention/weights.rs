//! The exact weights of attention, for those who want to look at them. Attention itself never stores them.

use super::band::{Band, Part};
use super::block::{Block, Query, Workspace, load_queries};
use super::softmax::NO_MAX;
use super::strip::{Strip, load_keys, score_panel};
use super::tile::STRIP;
use super::{AttentionScratch, AttentionShape, expect};
use crate::error::KernelError;
use crate::kv_page::{KvLayer, PageLayout};
use crate::table::KernelTable;
use crate::vectors::{Kernel, Map, Simd, dispatch, map};

/// The attention weights of one query row: `out[head, slot]` is the share of `slot`, in `0..visible` of the lane of
/// that head. `softmax(q · kᵀ · scale)`, each row summing to 1 within rounding. Allocates nothing.
///
/// # Errors
/// As [`attention`](super::attention()).
#[allow(clippy::too_many_arguments)] // as `attention`
pub fn attention_weights(
    table: &KernelTable,
    shape: &AttentionShape,
    layout: PageLayout,
    kv: &dyn KvLayer,
    q: &[f32], // (n_heads, head_dim)
    visible: usize,
    scratch: &mut AttentionScratch,
    out: &mut [f32], // (n_heads, visible)
) -> Result<(), KernelError> {
    shape.check()?;
    expect("channels of the page layout", layout.head_dim(), shape.head_dim)?;
    expect("numbers in a query row", q.len(), shape.row())?;
    expect("attention weights", out.len(), shape.n_heads * visible)?;
    scratch.check(shape, 1)?;
    if visible == 0 {
        return Ok(());
    }
    let work = scratch.worker();
    for kv_head in 0..shape.n_kv_heads {
        let lane = kv.lane(kv_head);
        let len = lane.len.min(lane.table.len() * layout.slots());
        if visible > len {
            return Err(KernelError::NotInLane { row: 0, kv_head, visible, len });
        }
        let heads = kv_head * shape.group();
        let block = Block { layout, kv, lane, queries: shape.group(), into_first: false };
        load_queries(&block, work, shape.scale, |i| {
            let q = &q[(heads + i) * shape.head_dim..][..shape.head_dim];
            Query { q, sink_q: None, band: Band::first(visible) }
        });
        let out = &mut out[heads * visible..][..shape.group() * visible];
        dispatch(table.vectors(), Weigh { block, work, out });
    }
    Ok(())
}

/// The weights of every query of a block that sees as many slots as the others, written out.
struct Weigh<'a> {
    block: Block<'a>,
    work: &'a mut Workspace,
    out: &'a mut [f32], // (queries, visible)
}

impl Kernel for Weigh<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Weigh { block, work, out } = self;
        let visible = out.len() / block.queries;
        for first in (0..visible).step_by(STRIP) {
            let width = work.look(block.queries, Part::Window, first);
            let strip = Strip::new(&block, first, width, visible).keys_only();
            let keys = load_keys(simd, &block, work, &strip);
            for panel in block.panels() {
                score_panel(simd, &block, work, &strip, &keys, Part::Window, panel, width);
                let out = out.chunks_exact_mut(visible).skip(panel.first);
                for (out, scores) in
                    out.take(panel.queries).zip(work.scores[panel.scores()].chunks_exact(STRIP))
                {
                    let n = STRIP.min(visible - first);
                    out[first..first + n].copy_from_slice(&scores[..n]);
                }
            }
        }
        for out in out.chunks_exact_mut(visible) {
            let max = out.iter().copied().fold(NO_MAX, f32::max);
            map(simd, PowerOfTwo { minus: max }, out);
            let share = 1.0 / out.iter().map(|x| f64::from(*x)).sum::<f64>();
            out.iter_mut().for_each(|x| *x = (f64::from(*x) * share) as f32);
        }
    }
}

/// 2^(x - minus).
#[derive(Clone, Copy)]
struct PowerOfTwo {
    minus: f32,
}

impl Map for PowerOfTwo {
    #[inline(always)]
    fn apply<S: Simd>(self, simd: S, x: S::F) -> S::F {
        simd.exp2(simd.sub(x, simd.splat(self.minus)))
    }
}
