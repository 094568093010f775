//! Sealing: full pages that have grown old are coded once and take fewer bytes from then on.
//!
//! A page is sealed after the step in which the [`HOT`] tokens behind its last one have been seen, so a lane mixes sealed
//! pages with others, and the newest tokens are always as they were written.

use super::{CacheError, CacheSpec, CacheSpecError, KvCache};
use roofline_kernels::{PageLayout, SharedBytes};
use roofline_model::operator::Cost;

/// Tokens that are never sealed, the newest ones: KIVI's residual.
pub const HOT: usize = 128;

/// Refuses a policy that moves, drops or reserves what sealing would change under its hands.
pub(super) fn check(spec: &CacheSpec, layout: PageLayout) -> Result<(), CacheSpecError> {
    if !layout.seals() || *spec == CacheSpec::Full {
        return Ok(());
    }
    let sealing = if layout.key_format().seals() { layout.key_format() } else { layout.value_format() };
    let why = match spec {
        CacheSpec::Static { .. } => {
            "reserves pages of one size, and they become smaller when they are sealed"
        }
        _ => "moves or chooses among single slots and pages, which sealing codes together",
    };
    Err(CacheSpecError::Unfit {
        spec: spec.to_string(),
        why: format!(
            "it {why}, so --kv-type {sealing} goes with --cache full only; i8 and q8_0 go with every policy"
        ),
    })
}

/// Pages of a lane that are sealed once `seen` tokens have been seen.
fn pages(layout: PageLayout, seen: usize) -> usize {
    if layout.seals() { seen.saturating_sub(HOT) / layout.slots() } else { 0 }
}

impl KvCache {
    /// Seals the pages that are due once `rows` more tokens will have been seen, in every lane; says what that read
    /// and wrote.
    ///
    /// # Errors
    /// [`CacheError::Memory`] when there is none for the coded pages. Nothing is sealed then.
    pub(crate) fn seal(&mut self, rows: usize) -> Result<Cost, CacheError> {
        let (layout, due) = (self.layout, pages(self.layout, self.seen + rows));
        let count = due.saturating_sub(self.sealed) * self.lanes.len();
        if count == 0 {
            return Ok(Cost::default());
        }
        let (page_bytes, sealed_bytes) = (layout.page_bytes() as u64, layout.sealed_page_bytes() as u64);
        let wanted = count as u64 * sealed_bytes;
        let no_memory = CacheError::Memory { committed: self.committed(), wanted };
        let mut room = Vec::new();
        room.try_reserve_exact(count).map_err(|_| no_memory.clone())?;
        for _ in 0..count {
            room.push(SharedBytes::zeroed(layout.sealed_page_bytes()).ok_or_else(|| no_memory.clone())?);
        }
        self.peak = self.peak.max(self.committed() + wanted); // both forms of the first page are there at once
        for lane in &self.lanes {
            for &id in &lane.table[self.sealed..due] {
                if let Some(mut sealed) = room.pop() {
                    if let Some(bytes) = sealed.get_mut() {
                        layout.seal(self.pool.page(id), bytes);
                    }
                    self.pool.seal(id, sealed);
                }
            }
        }
        self.sealed = due;
        let count = count as u64;
        Ok(Cost {
            kv_read_bytes: count * page_bytes,
            kv_write_bytes: count * sealed_bytes,
            ..Cost::default()
        })
    }

    /// Tokens that can be taken back before a sealed page would have to be opened.
    pub(super) fn unsealed(&self) -> usize {
        self.seen - self.sealed * self.layout.slots()
    }

    /// The formats, as an error names them.
    pub(super) fn formats(&self) -> String {
        crate::KvFormats { key: self.layout.key_format(), value: self.layout.value_format() }.to_string()
    }
}
