//! The rows of one (layer, KV head).

use roofline_kernels::{PageBounds, PageLayout};
use std::ops::Range;

/// Slots, the pages they are in and the positions they hold.
#[derive(Debug, Clone, Default)]
pub(super) struct Lane {
    /// Ids into the pool; slot `s` is slot `s % slots` of page `table[s / slots]`.
    pub table: Vec<u32>, // (pages)
    /// Slots in use, from the first on.
    pub len: usize,
    /// Slots among them that no query will see again and that still share a page with one that will.
    pub dead: usize,
    /// The position in each slot; empty in a cache that never evicts, where slot i holds position i.
    pub positions: Vec<u32>, // (len)
    /// Attention that each slot has received (H2O); empty elsewhere.
    pub mass: Vec<f32>, // (len)
    /// Smallest and largest keys of each page (Quest).
    pub bounds: Option<PageBounds>, // (pages)
}

impl Lane {
    /// The position in `slot`.
    pub fn position(&self, slot: usize) -> usize {
        self.positions.get(slot).map_or(slot, |position| *position as usize)
    }

    /// Shortens what is kept per slot to `len` slots.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
        self.positions.truncate(len);
        self.mass.truncate(len);
    }

    /// Gives back what is kept per slot beyond the pages in use and one more of `slots`, which a step may open: the rest
    /// of a prompt that was compressed would be a quarter of what is left of it.
    pub fn release(&mut self, slots: usize) {
        let pages = self.table.len() + 1;
        self.table.shrink_to(pages);
        self.positions.shrink_to(pages * slots);
        self.mass.shrink_to(pages * slots);
    }

    /// The keys in `slots` of page `page`, whose bytes are `bytes`, are new.
    pub fn widen_bounds(&mut self, page: usize, bytes: &[u8], slots: Range<usize>) {
        if let Some(bounds) = &mut self.bounds {
            if page >= bounds.pages() {
                bounds.resize(page + 1);
            }
            bounds.update(page, bytes, slots);
        }
    }

    /// Takes the bounds of the pages from `first` on anew from the keys that are left.
    pub fn renew_bounds<'a>(&mut self, layout: PageLayout, first: usize, page: impl Fn(u32) -> &'a [u8]) {
        let pages = self.len.div_ceil(layout.slots());
        if let Some(bounds) = &mut self.bounds {
            bounds.resize(pages);
            for index in first..pages {
                let slots = (self.len - index * layout.slots()).min(layout.slots());
                bounds.reset(index);
                bounds.update(index, page(self.table[index]), 0..slots);
            }
        }
    }

    /// Bytes held beside the pages.
    pub fn metadata_bytes(&self) -> usize {
        let bounds = self.bounds.as_ref().map_or(0, PageBounds::bytes);
        4 * (self.table.capacity() + self.positions.capacity() + self.mass.capacity()) + bounds
    }
}
