//! Quest: which pages a decoded token reads. Nothing is evicted; the bounds of a page's keys say how large a score it can hold.
//!
//! The page that is being filled is always read, and of the others those with the largest bounds; ties go to the lower
//! page. Where there are no more pages than the budget, everything is read and no bound is looked at.

use super::{Budget, KvCache, LayerLanes, Quest, Reads, Select};
use crate::cpu::Cpu;
use crate::error::EngineError;
use crate::eviction::top;
use roofline_kernels::{AttentionShape, KvLayer, LaneView, PageRef, PageScore};

/// The pages chosen for one layer, kept between layers so that a token allocates nothing.
#[derive(Default)]
pub(crate) struct Selection {
    scores: Vec<f32>,      // (group, pages)
    tables: Vec<Vec<u32>>, // (n_kv_heads) or (n_heads), page ids
    lens: Vec<usize>,      // (tables), slots
    chosen: Vec<Vec<u32>>, // (tables), indices of the pages in the lane; empty where all were read
    bound_pages: usize,    // pages whose bounds were read, over all lanes
}

impl Selection {
    /// Indices of the pages that each reader chose: (n_kv_heads) or (n_heads); empty where it read all.
    pub fn chosen(&self) -> &[Vec<u32>] {
        &self.chosen
    }
}

impl KvCache {
    /// Lanes that choose for themselves in one layer: KV heads, or query heads.
    pub(crate) fn readers(&self) -> usize {
        match self.spec.quest() {
            Some(Quest { select: Select::Head, .. }) => self.geometry.n_heads,
            _ => self.geometry.n_kv_heads,
        }
    }

    /// Whether a decoded token chooses among the pages of a layer.
    pub(crate) fn selects(&self, layer: usize) -> Option<Quest> {
        self.spec.quest().filter(|quest| layer >= quest.dense_layers).copied()
    }

    /// Chooses pages for `q`: (n_heads, head_dim), the query of the newest token.
    pub(crate) fn select(
        &self,
        cpu: &Cpu,
        quest: &Quest,
        layer: usize,
        shape: &AttentionShape,
        q: &[f32],
        out: &mut Selection,
    ) -> Result<(), EngineError> {
        let (group, d) = (shape.group(), shape.head_dim);
        let per_lane = match quest.select {
            Select::Lane => 1,
            Select::Head => group,
        };
        let readers = shape.n_kv_heads * per_lane;
        out.tables.resize_with(readers, Vec::new);
        out.chosen.resize_with(readers, Vec::new);
        out.lens.resize(readers, 0);
        out.bound_pages = 0;
        for kv_head in 0..shape.n_kv_heads {
            let lane = &self.lanes[layer * shape.n_kv_heads + kv_head];
            let pages = lane.len.div_ceil(quest.page);
            let budget = self.budget_pages(quest, lane.len);
            let q = &q[kv_head * group * d..][..group * d];
            let sparse = budget < pages;
            if let Some(bounds) = lane.bounds.as_ref().filter(|_| sparse) {
                let (score, rows) = match quest.select {
                    Select::Lane => (PageScore::MaxOfGroup, 1),
                    Select::Head => (PageScore::PerHead, group),
                };
                out.scores.resize(rows * pages, 0.0);
                bounds.score(&cpu.table, q, pages, score, &mut out.scores)?;
                out.bound_pages += pages;
            }
            for reader in 0..per_lane {
                let at = kv_head * per_lane + reader;
                let table = &mut out.tables[at];
                table.clear();
                out.chosen[at].clear();
                if !sparse {
                    table.extend_from_slice(&lane.table[..pages]);
                    out.lens[at] = lane.len;
                    continue;
                }
                let scores = &out.scores[reader * pages..][..pages - 1];
                let chosen = &mut out.chosen[at];
                top(scores, budget - 1, chosen);
                chosen.push(pages as u32 - 1);
                table.extend(chosen.iter().map(|page| lane.table[*page as usize]));
                out.lens[at] = (budget - 1) * quest.page + lane.len - (pages - 1) * quest.page;
            }
        }
        Ok(())
    }

    /// Pages that a lane of `len` slots may read, at least the last one.
    fn budget_pages(&self, quest: &Quest, len: usize) -> usize {
        let token_bytes = (self.geometry.lanes() * self.layout.slot_bytes()) as u64;
        let tokens = match quest.budget {
            Budget::Tokens(tokens) => tokens,
            other => other.tokens(len, token_bytes),
        };
        (tokens / quest.page).max(1)
    }

    /// What the selected pages cost to read: slots and pairs, and bytes of bounds.
    pub(crate) fn selected_reads(&self, quest: &Quest, selection: &Selection, group: usize) -> (Reads, u64) {
        let slots: u64 = selection.lens.iter().map(|len| *len as u64).sum();
        let pairs = if quest.select == Select::Lane { slots } else { slots.div_ceil(group as u64) };
        let key_bytes = self.layout.head_dim()
            * if self.layout.key_format() == roofline_kernels::KvFormat::F32 { 4 } else { 2 };
        (Reads { slots, pairs, sealed_pages: 0 }, (selection.bound_pages * 2 * key_bytes) as u64)
    }
}

/// A layer's lanes cut down to what was chosen.
pub(crate) struct Selected<'a> {
    pub layer: LayerLanes<'a>,
    pub selection: &'a Selection,
}

impl KvLayer for Selected<'_> {
    fn lane(&self, reader: usize) -> LaneView<'_> {
        LaneView { table: &self.selection.tables[reader], len: self.selection.lens[reader] }
    }

    fn page(&self, id: u32) -> PageRef<'_> {
        self.layer.page(id)
    }
}
