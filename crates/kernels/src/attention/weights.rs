//! The exact weights of attention, for those who want to look at them. Attention itself never stores them.

use super::block::{Block, Weigh, Workspace, load_queries};
use super::{AttentionShape, expect};
use crate::error::KernelError;
use crate::kv_page::{KvLayer, PageLayout};
use crate::table::KernelTable;
use crate::vectors::dispatch;

/// The attention weights of one query row: `out[head, slot]` is the share of `slot`, in `0..visible` of the lane of
/// that head. `softmax(q · kᵀ · scale)`, each row summing to 1 within rounding. Allocates its own scratch.
///
/// # Errors
/// As [`attention`](super::attention()).
pub fn attention_weights(
    table: &KernelTable,
    shape: &AttentionShape,
    layout: PageLayout,
    kv: &dyn KvLayer,
    q: &[f32], // (n_heads, head_dim)
    visible: usize,
    out: &mut [f32], // (n_heads, visible)
) -> Result<(), KernelError> {
    shape.check()?;
    expect("channels of the page layout", layout.head_dim(), shape.head_dim)?;
    expect("numbers in a query row", q.len(), shape.row())?;
    expect("attention weights", out.len(), shape.n_heads * visible)?;
    if visible == 0 {
        return Ok(());
    }
    let mut work = Workspace::new(shape);
    for kv_head in 0..shape.n_kv_heads {
        let lane = kv.lane(kv_head);
        let len = lane.len.min(lane.table.len() * layout.slots());
        if visible > len {
            return Err(KernelError::NotInLane { row: 0, kv_head, visible, len });
        }
        let heads = kv_head * shape.group();
        let block = Block { layout, kv, lane, queries: shape.group() };
        load_queries(&block, &mut work, shape.scale, |i| {
            (&q[(heads + i) * shape.head_dim..][..shape.head_dim], visible)
        });
        let out = &mut out[heads * visible..][..shape.group() * visible];
        dispatch(table.vectors(), Weigh { block, work: &mut work, out });
    }
    Ok(())
}
