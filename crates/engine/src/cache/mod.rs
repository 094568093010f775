//! [`KvCache`]: keys and values in lanes and pages.
//!
//! A lane is one (layer, KV head). Its rows live in pages of one lane each, taken from a pool; a page that no lane
//! holds any more goes back. Forks share pages and copy one only when they write to it. Lanes of one cache may be of
//! unequal length: each keeps what its policy decided, and the position of every slot.

mod bands;
mod compaction;
mod error;
mod lane;
mod pattern;
mod pool;
mod sealing;
mod selection;
mod spec;

pub(crate) use selection::{Selected, Selection};

pub use error::CacheError;
pub use spec::{
    Budget, CacheSpec, CacheSpecError, Compress, Duo, FORMS, Geometry, Heavy, Pool as Pooling, Quest,
    Rollback, Scorer, Select, Split, Streaming,
};

use crate::cpu::Cpu;
use bands::Window;
use lane::Lane;
use pool::Pool;
use roofline_kernels::{
    AttentionShape, Band, KvLayer, LaneView, PageBounds, PageLayout, PageRef, Rows, SharedBytes, Team,
    Visible,
};
use roofline_model::operator::Cost;
use std::ops::Range;
use std::sync::Arc;

/// Byte counts of a cache, counted and not estimated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CacheBytes {
    /// Slots in use that a query can still see.
    pub live: u64,
    /// Pages held, shared ones included.
    pub committed: u64,
    /// Most that was ever committed.
    pub peak: u64,
    /// Page tables, positions, scores and page bounds, beside the pages.
    pub metadata: u64,
}

/// Keys and values of the tokens seen.
#[derive(Clone)]
pub struct KvCache {
    spec: Arc<CacheSpec>,
    layout: PageLayout,
    geometry: Geometry,
    capacity: Option<usize>,                // tokens of `static`
    windows: Option<Arc<[Option<Window>]>>, // (n_layers, n_kv_heads)
    lanes: Vec<Lane>,                       // (n_layers, n_kv_heads)
    pool: Pool,
    seen: usize,
    floor: usize,  // tokens below which nothing can be taken back
    sealed: usize, // pages of each lane, its first ones
    peak: u64,
    lent: Vec<Lent>, // pages of a layer while they are written, empty otherwise
}

/// Slots `first..first + count` of a page, which rows `row..` of a KV head go to.
#[derive(Clone)]
struct Lent {
    page: SharedBytes,
    index: usize, // in the table of its lane
    head: usize,
    first: usize,
    count: usize,
    row: usize,
}

impl KvCache {
    /// An empty cache. `static` takes all its pages here, the others none.
    ///
    /// # Errors
    /// [`CacheSpecError`] when the policy does not fit the model; [`CacheError::Memory`] when the pages of a `static`
    /// cache cannot be had.
    pub fn new(
        spec: &CacheSpec,
        layout: PageLayout,
        geometry: Geometry,
        team: &Team,
    ) -> Result<KvCache, crate::EngineError> {
        let token_bytes = (geometry.lanes() * layout.slot_bytes()) as u64;
        spec.check(&geometry, token_bytes)?;
        sealing::check(spec, layout)?;
        let capacity = match spec {
            CacheSpec::Static { capacity } => Some(capacity.tokens(geometry.context_length, token_bytes)),
            _ => None,
        };
        let mut cache = KvCache {
            spec: Arc::new(spec.clone()),
            layout,
            geometry,
            capacity,
            windows: windows(spec, &geometry)?,
            lanes: vec![Lane::default(); geometry.lanes()],
            pool: Pool::default(),
            seen: 0,
            floor: 0,
            sealed: 0,
            peak: 0,
            lent: Vec::with_capacity(geometry.n_kv_heads),
        };
        if let Some(quest) = spec.quest() {
            let first = quest.dense_layers.saturating_mul(geometry.n_kv_heads).min(geometry.lanes());
            for lane in &mut cache.lanes[first..] {
                lane.bounds = Some(PageBounds::new(layout));
            }
        }
        if let Some(capacity) = capacity {
            let pages = capacity.div_ceil(layout.slots()).saturating_mul(cache.lanes.len());
            cache.grow(team, pages)?;
            for lane in &mut cache.lanes {
                lane.table.reserve(capacity.div_ceil(layout.slots()));
            }
        }
        Ok(cache)
    }

    /// The policy.
    pub fn spec(&self) -> &CacheSpec {
        &self.spec
    }

    /// How a page is laid out.
    pub fn layout(&self) -> PageLayout {
        self.layout
    }

    /// Tokens seen: the position of the next one.
    pub fn seen(&self) -> usize {
        self.seen
    }

    /// Bytes in use, held, most ever held, and beside the pages.
    pub fn bytes(&self) -> CacheBytes {
        let slots: usize = self.lanes.iter().map(|lane| lane.len - lane.dead).sum();
        let metadata: usize = self.lanes.iter().map(Lane::metadata_bytes).sum();
        let sealed = self.sealed * self.lanes.len();
        let live = (slots - sealed * self.layout.slots()) * self.layout.slot_bytes()
            + sealed * self.layout.sealed_page_bytes();
        CacheBytes {
            live: live as u64,
            committed: self.committed(),
            peak: self.peak,
            metadata: metadata as u64,
        }
    }

    /// Positions that a lane holds for later queries, ascending.
    pub fn positions(&self, layer: usize, kv_head: usize) -> Vec<usize> {
        let at = layer * self.geometry.n_kv_heads + kv_head;
        let lane = &self.lanes[at];
        let hidden = match self.windows.as_ref().and_then(|windows| windows[at]) {
            Some(Window { sinks, .. }) => sinks..sinks + lane.dead,
            None => 0..0,
        };
        let mut positions: Vec<usize> =
            (0..lane.len).filter(|slot| !hidden.contains(slot)).map(|slot| lane.position(slot)).collect();
        positions.sort_unstable();
        positions
    }

    /// Positions in some pages of a lane, by their index.
    pub(crate) fn page_positions(&self, layer: usize, kv_head: usize, pages: &[u32]) -> Vec<usize> {
        let lane = &self.lanes[layer * self.geometry.n_kv_heads + kv_head];
        let slots = self.layout.slots();
        let slots_of = |page: &u32| *page as usize * slots..((*page as usize + 1) * slots).min(lane.len);
        pages.iter().flat_map(slots_of).map(|slot| lane.position(slot)).collect()
    }

    fn committed(&self) -> u64 {
        let sealed = self.pool.sealed();
        let hot = self.pool.held() - sealed;
        (hot * self.layout.page_bytes() + sealed * self.layout.sealed_page_bytes()) as u64
    }

    /// Whether the policy lets `rows` more tokens in.
    ///
    /// # Errors
    /// [`CacheError::Full`] past a fixed capacity.
    pub(crate) fn check_room(&self, rows: usize) -> Result<(), CacheError> {
        match self.room() {
            Some(room) if rows > room => {
                Err(CacheError::Full { spec: self.spec().clone(), seen: self.seen, wanted: rows })
            }
            _ => Ok(()),
        }
    }

    /// Tokens that still fit under a fixed capacity.
    pub fn room(&self) -> Option<usize> {
        self.capacity.map(|capacity| capacity - self.seen)
    }

    /// A cache with the same rows. Pages in use are shared until one side writes to them; a `static` fork reserves
    /// the rest of its capacity for itself.
    ///
    /// # Errors
    /// [`CacheError::Memory`] when the reserve of a `static` fork cannot be had.
    pub fn fork(&self, team: &Team) -> Result<KvCache, CacheError> {
        let mut fork = self.clone();
        if self.capacity.is_some() {
            fork.grow(team, self.pool.free())?;
        }
        fork.peak = fork.committed();
        Ok(fork)
    }

    /// Makes room for `rows` more tokens in the lanes of `layers`; nothing is in the cache yet.
    ///
    /// # Errors
    /// [`CacheError::Full`] past a fixed capacity, [`CacheError::Memory`] when no page can be had. The cache holds the
    /// same rows then.
    pub(crate) fn reserve(
        &mut self,
        team: &Team,
        layers: Range<usize>,
        rows: usize,
    ) -> Result<(), CacheError> {
        self.check_room(rows)?;
        let slots = self.layout.slots();
        let lanes = layers.start * self.geometry.n_kv_heads..layers.end * self.geometry.n_kv_heads;
        let pages = |lane: &Lane| (lane.len + rows).div_ceil(slots);
        let missing: usize =
            self.lanes[lanes.clone()].iter().map(|lane| pages(lane).saturating_sub(lane.table.len())).sum();
        if missing > self.pool.free() {
            self.grow(team, missing - self.pool.free())?;
        }
        for at in lanes {
            while self.lanes[at].table.len() < pages(&self.lanes[at]) {
                let Some(page) = self.pool.take() else {
                    return Err(self.no_memory(1));
                };
                self.lanes[at].table.push(page);
            }
            let open = self.lanes[at].len / slots..self.lanes[at].table.len();
            self.own(at, open)?;
        }
        Ok(())
    }

    /// Copies those of a lane's `pages` that a fork still shares.
    fn own(&mut self, lane: usize, pages: Range<usize>) -> Result<(), CacheError> {
        for index in pages {
            if !self.pool.own(self.lanes[lane].table[index]) {
                return Err(self.no_memory(1));
            }
        }
        Ok(())
    }

    fn no_memory(&self, pages: usize) -> CacheError {
        let wanted = (pages as u64).saturating_mul(self.layout.page_bytes() as u64);
        CacheError::Memory { committed: self.committed(), wanted }
    }

    fn grow(&mut self, team: &Team, pages: usize) -> Result<(), CacheError> {
        if !self.pool.grow(team, pages, self.layout.page_bytes()) {
            return Err(self.no_memory(pages));
        }
        self.peak = self.peak.max(self.committed());
        Ok(())
    }

    /// Writes the keys and values of `rows` new tokens of one layer, from position `start` on, which
    /// [`KvCache::reserve`] made room for. `k`, `v`: (rows, n_kv_heads, head_dim), keys after RoPE. Each page is one thread's:
    /// a key is a line of memory for every channel, and waiting for them is all there is to do.
    pub(crate) fn append(
        &mut self,
        cpu: &Cpu,
        layer: usize,
        start: usize,
        rows: usize,
        k: &[f32],
        v: &[f32],
    ) {
        let (head_dim, slots, layout) = (self.layout.head_dim(), self.layout.slots(), self.layout);
        let n_kv_heads = self.geometry.n_kv_heads;
        let stride = n_kv_heads * head_dim;
        let evicts = self.evicts();
        let lanes = &mut self.lanes[layer * n_kv_heads..][..n_kv_heads];
        for (head, lane) in lanes.iter().enumerate() {
            let mut row = 0;
            while row < rows {
                let (index, first) = ((lane.len + row) / slots, (lane.len + row) % slots);
                let count = (slots - first).min(rows - row);
                let Some(page) = self.pool.lend(lane.table[index]) else {
                    unreachable!("a page of a lane is held until the lane gives it back");
                };
                self.lent.push(Lent { page, index, head, first, count, row });
                row += count;
            }
        }
        cpu.team.each(&mut self.lent, &|_, lent| {
            let at = lent.row * stride + lent.head * head_dim;
            let (k, v) = (Rows { data: &k[at..], stride }, Rows { data: &v[at..], stride });
            let page = lent.page.get_mut().unwrap_or_default();
            layout.write_slots(&cpu.table, page, lent.first, lent.count, k, v);
        });
        for Lent { page, index, head, first, count, .. } in self.lent.drain(..) {
            let lane = &mut lanes[head];
            lane.widen_bounds(index, page.as_slice(), first..first + count);
            self.pool.put_back(lane.table[index], page);
        }
        for lane in lanes {
            lane.len += rows;
            if evicts {
                lane.positions.extend((start..start + rows).map(|position| position as u32));
            }
        }
    }

    /// Whether slots may ever hold another position than their index.
    fn evicts(&self) -> bool {
        !matches!(self.spec.eviction(), CacheSpec::Full | CacheSpec::Static { .. } | CacheSpec::Quest(_))
    }

    /// The step is over: `rows` more tokens were seen.
    pub(crate) fn advance(&mut self, rows: usize) {
        self.seen += rows;
        self.drop_unseen(rows == 1);
    }

    /// Something was evicted when `seen` tokens had been: no token before that can be taken back.
    pub(crate) fn forbid_rollback(&mut self, seen: usize) {
        self.floor = self.floor.max(seen);
    }

    /// Forgets the last `count` tokens as if they had never been seen; pages that fall empty go back.
    ///
    /// # Errors
    /// [`CacheError::Rollback`] when fewer were seen, [`CacheError::Evicted`] when the policy has evicted what the
    /// token before them saw, [`CacheError::Sealed`] when they reach into a sealed page.
    pub fn rollback(&mut self, count: usize) -> Result<(), CacheError> {
        if count > self.seen {
            return Err(CacheError::Rollback { seen: self.seen, wanted: count });
        }
        let possible = if count == self.seen { count } else { self.seen.saturating_sub(self.floor) };
        if count > possible {
            return Err(CacheError::Evicted { spec: self.spec().clone(), wanted: count, possible });
        }
        if count > self.unsealed() && count < self.seen {
            return Err(CacheError::Sealed {
                formats: self.formats(),
                wanted: count,
                possible: self.unsealed(),
            });
        }
        self.seen -= count;
        if self.seen == 0 {
            (self.floor, self.sealed) = (0, 0);
        }
        self.trim();
        Ok(())
    }

    /// Takes slots past `seen` out of use: after a rollback, and after a step that failed midway.
    pub(crate) fn trim(&mut self) {
        for at in 0..self.lanes.len() {
            let lane = &self.lanes[at];
            let mut len = if self.evicts() { lane.len } else { lane.len.min(self.seen) };
            while len > 0 && lane.position(len - 1) >= self.seen {
                len -= 1;
            }
            self.shrink(at, len, self.capacity.is_some());
        }
        self.mend_dead();
    }

    /// One layer's lanes, as attention reads them.
    pub(crate) fn layer(&self, layer: usize) -> LayerLanes<'_> {
        LayerLanes { cache: self, first: layer * self.geometry.n_kv_heads }
    }

    /// The position in a slot of a lane.
    pub(crate) fn position(&self, layer: usize, kv_head: usize, slot: usize) -> usize {
        self.lanes[layer * self.geometry.n_kv_heads + kv_head].position(slot)
    }

    /// Attention that each slot of a lane has received, as far as it remembers.
    pub(crate) fn mass(&self, layer: usize, kv_head: usize) -> &[f32] {
        &self.lanes[layer * self.geometry.n_kv_heads + kv_head].mass
    }

    /// Sets [`KvCache::mass`] for every slot of a lane; `mass` may be longer than the lane.
    pub(crate) fn set_mass(&mut self, layer: usize, kv_head: usize, mass: &[f32]) {
        let lane = &mut self.lanes[layer * self.geometry.n_kv_heads + kv_head];
        lane.mass.clear();
        lane.mass.extend_from_slice(&mass[..lane.len]);
    }

    /// The key in a slot as attention reads it, into `out`: (head_dim).
    pub(crate) fn read_key(&self, layer: usize, kv_head: usize, slot: usize, out: &mut [f32]) {
        let (page, at) = self.slot(layer, kv_head, slot);
        self.layout.read_key(page, at, out);
    }

    /// The value in a slot, into `out`: (head_dim).
    pub(crate) fn read_value(&self, layer: usize, kv_head: usize, slot: usize, out: &mut [f32]) {
        let (page, at) = self.slot(layer, kv_head, slot);
        self.layout.read_value(page, at, out);
    }

    fn slot(&self, layer: usize, kv_head: usize, slot: usize) -> (PageRef<'_>, usize) {
        let lane = &self.lanes[layer * self.geometry.n_kv_heads + kv_head];
        let slots = self.layout.slots();
        (self.pool.read(lane.table[slot / slots]), slot % slots)
    }

    /// Tokens per lane that a budget comes to where a lane holds `len`.
    ///
    /// # Errors
    /// [`CacheError::Budget`] when that is less than `least` and less than what is there.
    pub(crate) fn budget_tokens(
        &self,
        budget: Budget,
        len: usize,
        least: usize,
    ) -> Result<usize, CacheError> {
        let token_bytes = (self.geometry.lanes() * self.layout.slot_bytes()) as u64;
        let tokens = budget.tokens(len, token_bytes);
        if tokens < least && tokens < len {
            return Err(CacheError::Budget { spec: self.spec().clone(), tokens, len, least });
        }
        Ok(tokens)
    }

    /// What the newest `rows` rows of a layer read.
    pub(crate) fn reads(&self, layer: usize, rows: usize, visible: Visible<'_>) -> Reads {
        let (n, mut reads) = (self.geometry.n_kv_heads, Reads::default());
        match visible {
            Visible::Bands { bands, .. } => {
                for bands in bands.chunks_exact(rows.max(1)) {
                    let seen = |band: &Band| band.sinks + band.to - band.from;
                    reads.pairs += bands.iter().map(seen).sum::<usize>() as u64;
                    // Windows overlap: one pass reads them from the first slot of the first to the last of the last.
                    let (Some(first), Some(last)) = (bands.first(), bands.last()) else { continue };
                    let sinks = last.sinks.min(first.from);
                    reads.slots += (sinks + last.to - first.from) as u64;
                }
            }
            _ => {
                for lane in &self.lanes[layer * n..(layer + 1) * n] {
                    let (len, rows) = (lane.len as u64, rows as u64);
                    reads.sealed_pages += self.sealed as u64;
                    reads.slots += len - (self.sealed * self.layout.slots()) as u64;
                    reads.pairs += rows * (len - rows) + rows * (rows + 1) / 2; // a row sees itself and all before
                }
            }
        }
        reads
    }

    /// Slots in use of a lane.
    pub(crate) fn lane_len(&self, layer: usize, kv_head: usize) -> usize {
        self.lanes[layer * self.geometry.n_kv_heads + kv_head].len
    }
}

/// What one step reads of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Reads {
    /// Slots read at least once, over all lanes, those of sealed pages apart.
    pub slots: u64,
    /// Sealed pages read, over all lanes.
    pub sealed_pages: u64,
    /// (row, slot) pairs, over all lanes.
    pub pairs: u64,
}

impl Reads {
    /// What attention over them costs: scores and outputs, 4 operations per channel and pair of query head and slot.
    pub fn cost(self, layout: PageLayout, shape: AttentionShape) -> Cost {
        let sealed_bytes = self.sealed_pages * layout.sealed_page_bytes() as u64;
        Cost {
            kv_read_bytes: self.slots * layout.slot_bytes() as u64 + sealed_bytes,
            flops: 4 * (shape.head_dim * shape.group()) as u64 * self.pairs,
            ..Cost::default()
        }
    }
}

/// Sinks and windows of the lanes, where the policy has them.
fn windows(spec: &CacheSpec, geometry: &Geometry) -> Result<Option<Arc<[Option<Window>]>>, CacheSpecError> {
    Ok(match spec {
        CacheSpec::Streaming(Streaming { sinks, window, .. }) => {
            Some(vec![Some(Window { sinks: *sinks, recent: *window }); geometry.lanes()].into())
        }
        CacheSpec::Duo(duo) => {
            let window = Window { sinks: duo.sinks, recent: duo.recent };
            let full = pattern::full_lanes(duo, geometry)?;
            Some(full.into_iter().map(|full| (!full).then_some(window)).collect())
        }
        _ => None,
    })
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
        self.cache.pool.read(id)
    }
}
