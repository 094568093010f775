//! [`KvCache`]: keys and values in lanes and pages.
//!
//! A lane is one (layer, KV head). Its rows live in pages of one lane each, taken from a pool; a page that no lane
//! holds any more goes back. Forks share pages and copy one only when they write to it.

mod pool;
mod spec;

pub use spec::{CacheSpec, CacheSpecError};

use pool::Pool;
use roofline_kernels::{KvLayer, LaneView, PageLayout, PageRef, Rows};

/// What a cache can refuse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CacheError {
    /// A fixed capacity is used up.
    #[error("the cache {spec} is full: {seen} tokens are in it, {wanted} more were to come")]
    Full {
        /// The policy that set the cap.
        spec: CacheSpec,
        /// Tokens in the cache.
        seen: usize,
        /// Tokens the step would have added.
        wanted: usize,
    },
    /// The allocator had no page left.
    #[error(
        "no memory for the KV cache: {committed} bytes are held and {wanted} more were asked for; use a shorter \
         context or a narrower --kv-type"
    )]
    Memory {
        /// Bytes held.
        committed: u64,
        /// Bytes asked for.
        wanted: u64,
    },
    /// More tokens were to be taken back than are there.
    #[error("cannot roll back {wanted} tokens: only {seen} were seen")]
    Rollback {
        /// Tokens in the cache.
        seen: usize,
        /// Tokens to take back.
        wanted: usize,
    },
}

/// Three byte counts of a cache, counted and not estimated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CacheBytes {
    /// Slots in use.
    pub live: u64,
    /// Pages held, shared ones included.
    pub committed: u64,
    /// Most that was ever committed.
    pub peak: u64,
}

/// The rows of one (layer, KV head).
#[derive(Debug, Clone, Default)]
struct Lane {
    table: Vec<u32>, // (pages of the lane), ids into the pool
    len: usize,      // slots in use
}

/// Keys and values of the tokens seen.
#[derive(Clone)]
pub struct KvCache {
    spec: CacheSpec,
    layout: PageLayout,
    n_kv_heads: usize,
    lanes: Vec<Lane>, // (n_layers, n_kv_heads)
    pool: Pool,
    seen: usize,
    peak: u64,
}

impl KvCache {
    /// An empty cache. `static` takes all its pages here, `full` none.
    ///
    /// # Errors
    /// [`CacheError::Memory`] when the pages of a `static` cache cannot be had.
    pub fn new(
        spec: CacheSpec,
        layout: PageLayout,
        n_layers: usize,
        n_kv_heads: usize,
    ) -> Result<KvCache, CacheError> {
        let lanes = vec![Lane::default(); n_layers * n_kv_heads];
        let mut cache = KvCache { spec, layout, n_kv_heads, lanes, pool: Pool::default(), seen: 0, peak: 0 };
        if let CacheSpec::Static { capacity } = spec {
            let pages = capacity.div_ceil(layout.slots()).saturating_mul(cache.lanes.len());
            cache.grow(pages)?;
            for lane in &mut cache.lanes {
                lane.table.reserve(capacity.div_ceil(layout.slots()));
            }
        }
        Ok(cache)
    }

    /// The policy.
    pub fn spec(&self) -> CacheSpec {
        self.spec
    }

    /// How a page is laid out.
    pub fn layout(&self) -> PageLayout {
        self.layout
    }

    /// Tokens seen: the position of the next one.
    pub fn seen(&self) -> usize {
        self.seen
    }

    /// Bytes in use, held, and most ever held.
    pub fn bytes(&self) -> CacheBytes {
        let slots: usize = self.lanes.iter().map(|lane| lane.len).sum();
        CacheBytes {
            live: slots as u64 * self.layout.slot_bytes() as u64,
            committed: self.committed(),
            peak: self.peak,
        }
    }

    fn committed(&self) -> u64 {
        self.pool.held() as u64 * self.layout.page_bytes() as u64
    }

    /// Whether the policy lets `rows` more tokens in.
    ///
    /// # Errors
    /// [`CacheError::Full`] past a fixed capacity.
    pub(crate) fn check_room(&self, rows: usize) -> Result<(), CacheError> {
        match self.room() {
            Some(room) if rows > room => {
                Err(CacheError::Full { spec: self.spec, seen: self.seen, wanted: rows })
            }
            _ => Ok(()),
        }
    }

    /// Tokens that still fit under a fixed capacity.
    pub fn room(&self) -> Option<usize> {
        match self.spec {
            CacheSpec::Full => None,
            CacheSpec::Static { capacity } => Some(capacity - self.seen),
        }
    }

    /// A cache with the same rows. Pages in use are shared until one side writes to them; a `static` fork reserves
    /// the rest of its capacity for itself.
    ///
    /// # Errors
    /// [`CacheError::Memory`] when the reserve of a `static` fork cannot be had.
    pub fn fork(&self) -> Result<KvCache, CacheError> {
        let mut fork = self.clone();
        fork.grow(self.pool.free())?;
        fork.peak = fork.committed();
        Ok(fork)
    }

    /// Makes room for `rows` more tokens in every lane; nothing is in the cache yet.
    ///
    /// # Errors
    /// [`CacheError::Full`] past a fixed capacity, [`CacheError::Memory`] when no page can be had. The cache is
    /// unchanged then.
    pub(crate) fn reserve(&mut self, rows: usize) -> Result<(), CacheError> {
        self.check_room(rows)?;
        let pages_per_lane = (self.seen + rows).div_ceil(self.layout.slots());
        let missing: usize =
            self.lanes.iter().map(|lane| pages_per_lane.saturating_sub(lane.table.len())).sum();
        if missing > self.pool.free() {
            self.grow(missing - self.pool.free())?;
        }
        for lane in &mut self.lanes {
            while lane.table.len() < pages_per_lane {
                match self.pool.take() {
                    Some(page) => lane.table.push(page),
                    None => {
                        return Err(CacheError::Memory {
                            committed: 0,
                            wanted: self.layout.page_bytes() as u64,
                        });
                    }
                }
            }
        }
        self.own_open_pages()
    }

    /// Copies the pages that this step writes to and a fork still shares.
    fn own_open_pages(&mut self) -> Result<(), CacheError> {
        let first = self.seen / self.layout.slots();
        let committed = self.committed();
        for lane in &self.lanes {
            for &page in lane.table.iter().skip(first) {
                if !self.pool.own(page) {
                    return Err(CacheError::Memory { committed, wanted: self.layout.page_bytes() as u64 });
                }
            }
        }
        Ok(())
    }

    fn grow(&mut self, pages: usize) -> Result<(), CacheError> {
        if !self.pool.grow(pages, self.layout.page_bytes()) {
            let wanted = (pages as u64).saturating_mul(self.layout.page_bytes() as u64);
            return Err(CacheError::Memory { committed: self.committed(), wanted });
        }
        self.peak = self.peak.max(self.committed());
        Ok(())
    }

    /// Writes the keys and values of `rows` new tokens of one layer, which [`KvCache::reserve`] made room for.
    /// `k`, `v`: (rows, n_kv_heads, head_dim), keys after RoPE.
    pub(crate) fn append(&mut self, layer: usize, rows: usize, k: &[f32], v: &[f32]) {
        let (head_dim, slots) = (self.layout.head_dim(), self.layout.slots());
        let stride = self.n_kv_heads * head_dim;
        for head in 0..self.n_kv_heads {
            let lane = &mut self.lanes[layer * self.n_kv_heads + head];
            let mut row = 0;
            while row < rows {
                let (page, first) = ((self.seen + row) / slots, (self.seen + row) % slots);
                let count = (slots - first).min(rows - row);
                let at = row * stride + head * head_dim;
                let page = self.pool.page_mut(lane.table[page]);
                let (k, v) = (Rows { data: &k[at..], stride }, Rows { data: &v[at..], stride });
                self.layout.write_slots(page, first, count, k, v);
                row += count;
            }
            lane.len = self.seen + rows;
        }
    }

    /// The step is over: `rows` more tokens were seen.
    pub(crate) fn advance(&mut self, rows: usize) {
        self.seen += rows;
    }

    /// Forgets the last `count` tokens as if they had never been seen; pages that fall empty go back.
    ///
    /// # Errors
    /// [`CacheError::Rollback`] when fewer were seen.
    pub fn rollback(&mut self, count: usize) -> Result<(), CacheError> {
        if count > self.seen {
            return Err(CacheError::Rollback { seen: self.seen, wanted: count });
        }
        self.seen -= count;
        self.trim();
        Ok(())
    }

    /// Takes slots past `seen` out of use: after a rollback, and after a step that failed midway.
    pub(crate) fn trim(&mut self) {
        let keep = self.seen.div_ceil(self.layout.slots());
        let reserved = matches!(self.spec, CacheSpec::Static { .. });
        for lane in &mut self.lanes {
            lane.len = lane.len.min(self.seen);
            for page in lane.table.drain(keep.min(lane.table.len())..) {
                self.pool.give_back(page, reserved);
            }
        }
    }

    /// One layer's lanes, as attention reads them.
    pub(crate) fn layer(&self, layer: usize) -> LayerLanes<'_> {
        LayerLanes { cache: self, first: layer * self.n_kv_heads }
    }
}

/// The lanes of one layer.
pub(crate) struct LayerLanes<'a> {
    cache: &'a KvCache,
    first: usize,
}

impl KvLayer for LayerLanes<'_> {
    fn lane(&self, kv_head: usize) -> LaneView<'_> {
        let lane = &self.cache.lanes[self.first + kv_head];
        LaneView { table: &lane.table, len: lane.len }
    }

    fn page(&self, id: u32) -> PageRef<'_> {
        PageRef::Hot(self.cache.pool.page(id))
    }
}
