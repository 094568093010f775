//! Sinks and a window (StreamingLLM, DuoAttention): which slots a row sees, and which pages nobody will see again.
//!
//! The row at position p sees the first `sinks` tokens and those from p - window to p. Slots of a lane are in the order
//! of their positions, so what is seen is a run of slots behind the sinks; pages that fall out of it go back whole, and
//! nothing is ever moved.

use super::lane::Lane;
use super::{CacheSpec, KvCache, Streaming};
use roofline_kernels::Band;

/// Sinks and window of a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    pub sinks: usize,
    pub recent: usize,
}

impl KvCache {
    /// Whether lanes have sinks and windows.
    pub(crate) fn has_windows(&self) -> bool {
        self.windows.is_some()
    }

    /// The furthest position from which a query reads the sinks, where they lie right before its window.
    pub(crate) fn sink_frame(&self) -> Option<usize> {
        match self.spec() {
            CacheSpec::Streaming(Streaming { sinks, window, true_positions: false }) => Some(sinks + window),
            _ => None,
        }
    }

    /// What the newest `rows` rows of a layer see, if its lanes have windows: (n_kv_heads, rows).
    pub(crate) fn bands(&self, layer: usize, rows: usize, bands: &mut [Band]) -> bool {
        let Some(windows) = &self.windows else { return false };
        let first = layer * self.geometry.n_kv_heads;
        let lanes = self.lanes[first..].iter().zip(&windows[first..]);
        for ((lane, window), bands) in lanes.zip(bands.chunks_exact_mut(rows.max(1))) {
            for (i, band) in bands.iter_mut().enumerate() {
                let to = lane.len - rows + i + 1;
                *band = band_of(*window, lane.position(to - 1), to);
            }
        }
        true
    }

    /// Gives back the pages that no later row sees. `seen` is the position of the next one.
    pub(super) fn drop_unseen(&mut self, keep_free: bool) {
        let Some(windows) = &self.windows else { return };
        let slots = self.layout.slots();
        for (lane, window) in self.lanes.iter_mut().zip(windows.iter()) {
            let Some(Window { sinks, recent }) = *window else { continue };
            if self.seen <= sinks + recent {
                continue;
            }
            let first_seen = lane.len - recent; // of the next row
            let pages = sinks.div_ceil(slots)..(first_seen / slots).max(sinks.div_ceil(slots));
            let gone = pages.len() * slots;
            if gone > 0 {
                lane.positions.drain(pages.start * slots..pages.start * slots + gone);
                for page in lane.table.drain(pages) {
                    self.pool.give_back(page, keep_free);
                }
                lane.len -= gone;
                self.floor = self.floor.max(oldest_in_window(lane, sinks) + recent);
            }
            lane.dead = first_seen - gone - sinks;
        }
    }
}

impl KvCache {
    /// Counts again the slots that nobody sees, after rows were taken back.
    pub(super) fn mend_dead(&mut self) {
        let Some(windows) = &self.windows else { return };
        for (lane, window) in self.lanes.iter_mut().zip(windows.iter()) {
            lane.dead = match *window {
                Some(Window { sinks, recent }) if self.seen > sinks + recent => lane.len - recent - sinks,
                _ => 0,
            };
        }
    }
}

/// What the row in slot `to - 1`, at position `p`, sees.
fn band_of(window: Option<Window>, p: usize, to: usize) -> Band {
    match window {
        Some(Window { sinks, recent }) if p > sinks + recent => Band { sinks, from: to - 1 - recent, to },
        _ => Band { sinks: 0, from: 0, to },
    }
}

/// Position of the oldest slot behind the sinks: no row that sees further back can be taken up again.
fn oldest_in_window(lane: &Lane, sinks: usize) -> usize {
    // A page that also holds sinks was never dropped; what lies behind it is the oldest that is contiguous.
    let contiguous = |slot: &usize| lane.position(*slot) + lane.len == lane.position(lane.len - 1) + 1 + slot;
    (sinks..lane.len).find(contiguous).map_or(0, |slot| lane.position(slot))
}
