//! Quest: which pages a decoded token reads. Nothing is evicted; the bounds of a page's keys say how large a score it can hold.
//!
//! The page that is being filled is always read, and of the others those with the largest bounds; ties go to the lower
//! page. Where there are no more pages than the budget, everything is read and no bound is looked at.

use super::lane::Lane;
use super::{Budget, KvCache, LayerLanes, Quest, Reads, Select};
use crate::cpu::Cpu;
use crate::error::EngineError;
use crate::eviction::top;
use roofline_kernels::{AttentionShape, KernelError, KvLayer, LaneView, PageRef, PageScore};

/// The pages chosen for one layer, kept between layers so that a token allocates nothing.
#[derive(Default)]
pub(crate) struct Selection {
    lanes: Vec<Choice>,    // (n_kv_heads)
    readers_a_lane: usize, // 1, or the query heads of a group
}

/// What the readers of one lane chose.
#[derive(Default)]
struct Choice {
    scores: Vec<f32>,     // (group, pages)
    readers: Vec<Reader>, // (readers_a_lane)
    bound_pages: usize,   // pages whose bounds were read
    failed: Option<KernelError>,
}

/// A list of pages to read as if it were a lane.
#[derive(Default)]
struct Reader {
    table: Vec<u32>,  // page ids
    len: usize,       // slots
    chosen: Vec<u32>, // indices of the pages in the lane; empty where all are read
}

impl Selection {
    fn readers(&self) -> impl Iterator<Item = &Reader> {
        self.lanes.iter().flat_map(|lane| &lane.readers)
    }

    /// Indices of the pages that each reader chose: (n_kv_heads) or (n_heads); empty where it read all.
    pub fn chosen(&self) -> impl Iterator<Item = &Vec<u32>> {
        self.readers().map(|reader| &reader.chosen)
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
        let group = shape.group();
        out.readers_a_lane = match quest.select {
            Select::Lane => 1,
            Select::Head => group,
        };
        let (readers, row) = (out.readers_a_lane, group * shape.head_dim);
        out.lanes.resize_with(shape.n_kv_heads, Choice::default);
        cpu.team.each(&mut out.lanes, &|kv_head, choice| {
            let lane = &self.lanes[layer * shape.n_kv_heads + kv_head];
            choice.readers.resize_with(readers, Reader::default);
            choice.failed = self.choose(cpu, quest, lane, &q[kv_head * row..][..row], choice).err();
        });
        match out.lanes.iter_mut().find_map(|choice| choice.failed.take()) {
            Some(error) => Err(error.into()),
            None => Ok(()),
        }
    }

    /// Chooses for one lane. `q`: (group, head_dim).
    fn choose(
        &self,
        cpu: &Cpu,
        quest: &Quest,
        lane: &Lane,
        q: &[f32],
        out: &mut Choice,
    ) -> Result<(), KernelError> {
        let pages = lane.len.div_ceil(quest.page);
        let budget = self.budget_pages(quest, lane.len);
        out.bound_pages = 0;
        let sparse = budget < pages;
        if let Some(bounds) = lane.bounds.as_ref().filter(|_| sparse) {
            let score = match quest.select {
                Select::Lane => PageScore::MaxOfGroup,
                Select::Head => PageScore::PerHead,
            };
            out.scores.resize(out.readers.len() * pages, 0.0);
            bounds.score(&cpu.table, q, pages, score, &mut out.scores)?;
            out.bound_pages = pages;
        }
        for (index, Reader { table, len, chosen }) in out.readers.iter_mut().enumerate() {
            table.clear();
            chosen.clear();
            if !sparse {
                table.extend_from_slice(&lane.table[..pages]);
                *len = lane.len;
                continue;
            }
            top(&out.scores[index * pages..][..pages - 1], budget - 1, chosen);
            chosen.push(pages as u32 - 1);
            table.extend(chosen.iter().map(|page| lane.table[*page as usize]));
            *len = (budget - 1) * quest.page + lane.len - (pages - 1) * quest.page;
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
        let slots: u64 = selection.readers().map(|reader| reader.len as u64).sum();
        let pairs = if quest.select == Select::Lane { slots } else { slots.div_ceil(group as u64) };
        let key_bytes = self.layout.head_dim()
            * if self.layout.key_format() == roofline_kernels::KvFormat::F32 { 4 } else { 2 };
        let bound_pages: usize = selection.lanes.iter().map(|lane| lane.bound_pages).sum();
        (Reads { slots, pairs, sealed_pages: 0 }, (bound_pages * 2 * key_bytes) as u64)
    }
}

/// A layer's lanes cut down to what was chosen.
pub(crate) struct Selected<'a> {
    pub layer: LayerLanes<'a>,
    pub selection: &'a Selection,
}

impl KvLayer for Selected<'_> {
    fn lane(&self, reader: usize) -> LaneView<'_> {
        let Selection { lanes, readers_a_lane } = self.selection;
        let Reader { table, len, .. } = &lanes[reader / readers_a_lane].readers[reader % readers_a_lane];
        LaneView { table, len: *len }
    }

    fn page(&self, id: u32) -> PageRef<'_> {
        self.layer.page(id)
    }
}
