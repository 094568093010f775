//! Eviction of single slots: what stays moves up, in order, and pages that fall empty go back.

use super::{CacheError, KvCache};

impl KvCache {
    /// Keeps the slots `keep` (ascending) of a lane and forgets the others. A row is copied byte for byte: nothing is
    /// rounded again. Pages a fork shares are copied first.
    ///
    /// # Errors
    /// [`CacheError::Memory`] when a shared page cannot be copied.
    pub(crate) fn keep(&mut self, layer: usize, kv_head: usize, keep: &[u32]) -> Result<(), CacheError> {
        let at = layer * self.geometry.n_kv_heads + kv_head;
        let slots = self.layout.slots();
        let first_moved = keep.iter().zip(0u32..).position(|(from, to)| *from != to).unwrap_or(keep.len());
        let pages = first_moved / slots..keep.len().div_ceil(slots);
        self.own(at, pages)?;
        for (to, from) in keep.iter().enumerate().skip(first_moved) {
            self.move_slot(at, *from as usize, to);
        }
        let lane = &mut self.lanes[at];
        for (to, from) in keep.iter().enumerate().skip(first_moved) {
            let from = *from as usize;
            if !lane.positions.is_empty() {
                lane.positions[to] = lane.positions[from];
            }
            if !lane.mass.is_empty() {
                lane.mass[to] = lane.mass[from];
            }
        }
        self.shrink(at, keep.len(), false);
        self.lanes[at].release(slots);
        let pool = &self.pool;
        self.lanes[at].renew_bounds(self.layout, first_moved / slots, |id| pool.page(id));
        Ok(())
    }

    /// Forgets one slot of a lane; the last one takes its place.
    ///
    /// # Errors
    /// [`CacheError::Memory`] when a shared page cannot be copied.
    pub(crate) fn drop_slot(&mut self, layer: usize, kv_head: usize, slot: usize) -> Result<(), CacheError> {
        let at = layer * self.geometry.n_kv_heads + kv_head;
        let last = self.lanes[at].len - 1;
        if slot < last {
            let page = slot / self.layout.slots();
            self.own(at, page..page + 1)?;
            self.move_slot(at, last, slot);
            let lane = &mut self.lanes[at];
            lane.positions[slot] = lane.positions[last];
            if !lane.mass.is_empty() {
                lane.mass[slot] = lane.mass[last];
            }
        }
        self.shrink(at, last, true);
        Ok(())
    }

    /// Copies slot `from` of a lane onto slot `to`, whose page is the cache's own.
    fn move_slot(&mut self, lane: usize, from: usize, to: usize) {
        let slots = self.layout.slots();
        let table = &self.lanes[lane].table;
        let (source, target) = (table[from / slots], table[to / slots]);
        let (from, to) = (from % slots, to % slots);
        if source == target {
            self.layout.copy_slot_within(self.pool.page_mut(target), from, to);
        } else {
            let layout = self.layout;
            self.pool.with_two(source, target, |source, target| layout.copy_slot(source, from, target, to));
        }
    }

    /// Cuts a lane to its first `len` slots.
    pub(super) fn shrink(&mut self, lane: usize, len: usize, keep_free: bool) {
        let lane = &mut self.lanes[lane];
        let shorter = len < lane.len;
        lane.truncate(len);
        let pages = len.div_ceil(self.layout.slots()).min(lane.table.len());
        for page in lane.table.drain(pages..) {
            self.pool.give_back(page, keep_free);
        }
        if shorter {
            // The bounds of the page that is open again are those of the keys that are left in it.
            let pool = &self.pool;
            lane.renew_bounds(self.layout, len / self.layout.slots(), |id| pool.page(id));
        }
    }
}
