//! For each page of a lane, the smallest and largest value of each channel of its keys: what bounds the score of any
//! query with any key of the page (Quest).
//!
//! Σ_c max(q_c·min_c, q_c·max_c) is at least q·k for every key k between the bounds. Since min ≤ max, the larger
//! product is that of max where q_c > 0 and that of min where q_c < 0: one multiply-add per channel and page.

use half::f16;

use crate::error::KernelError;
use crate::kv_page::{KvFormat, PageLayout, PageRef};
use crate::table::KernelTable;
use crate::vectors::{Kernel, Simd, dispatch};

/// Pages whose bounds lie side by side: the lanes of the widest vector.
const GROUP: usize = 16;
/// Groups of pages that are scored together, so that one sum need not wait for the last.
const TOGETHER: usize = 4;

/// What [`PageBounds::score`] says of a page where several query heads share a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageScore {
    /// The bound of each query head, `(group, pages)`.
    PerHead,
    /// The largest bound of the group, `(pages)`.
    MaxOfGroup,
}

/// The bounds of the pages of one lane.
///
/// Kept in f32 for f32 keys and else in f16, rounded outward, so that the bound stays one: as many bytes as two
/// slots' keys of that width per page. A value beyond f16 becomes infinite, which makes its page a certain choice.
#[derive(Debug, Clone)]
pub struct PageBounds {
    layout: PageLayout,
    pages: usize,
    bounds: Bounds,
}

/// `(groups of pages, head_dim, (min, max), GROUP)`.
#[derive(Debug, Clone)]
enum Bounds {
    F32(Vec<f32>),
    F16(Vec<f16>),
}

/// The bounds of a page without keys: every key widens them.
const NOTHING: (f32, f32) = (f32::INFINITY, f32::NEG_INFINITY);

impl PageBounds {
    /// The bounds of a lane without pages, whose pages will be of `layout`.
    pub fn new(layout: PageLayout) -> PageBounds {
        let bounds = if layout.key_format() == KvFormat::F32 {
            Bounds::F32(Vec::new())
        } else {
            Bounds::F16(Vec::new())
        };
        PageBounds { layout, pages: 0, bounds }
    }

    /// Pages that have bounds.
    pub fn pages(&self) -> usize {
        self.pages
    }

    /// Bytes reserved.
    pub fn bytes(&self) -> usize {
        match &self.bounds {
            Bounds::F32(bounds) => bounds.capacity() * size_of::<f32>(),
            Bounds::F16(bounds) => bounds.capacity() * size_of::<f16>(),
        }
    }

    /// Bytes that so many pages of `layout` need: whole groups of 16 pages.
    pub fn bytes_for(layout: PageLayout, pages: usize) -> usize {
        let width = if layout.key_format() == KvFormat::F32 { 4 } else { 2 };
        pages.next_multiple_of(GROUP) * 2 * layout.head_dim() * width
    }

    /// Room for so many pages, so that [`resize`](PageBounds::resize) up to them allocates nothing.
    pub fn reserve(&mut self, pages: usize) {
        let numbers = pages.next_multiple_of(GROUP) * 2 * self.layout.head_dim();
        match &mut self.bounds {
            Bounds::F32(bounds) => bounds.reserve_exact(numbers.saturating_sub(bounds.len())),
            Bounds::F16(bounds) => bounds.reserve_exact(numbers.saturating_sub(bounds.len())),
        }
    }

    /// Makes it bounds of so many pages: those that are new hold no key, those beyond are forgotten.
    pub fn resize(&mut self, pages: usize) {
        let numbers = pages.next_multiple_of(GROUP) * 2 * self.layout.head_dim();
        match &mut self.bounds {
            Bounds::F32(bounds) => bounds.resize(numbers, 0.0),
            Bounds::F16(bounds) => bounds.resize(numbers, f16::ZERO),
        }
        for page in std::mem::replace(&mut self.pages, pages)..pages {
            self.reset(page);
        }
    }

    /// Gives back room for pages that it no longer has.
    pub fn shrink(&mut self) {
        match &mut self.bounds {
            Bounds::F32(bounds) => bounds.shrink_to_fit(),
            Bounds::F16(bounds) => bounds.shrink_to_fit(),
        }
    }

    /// Forgets the keys of a page.
    ///
    /// # Panics
    /// When there is no such page.
    pub fn reset(&mut self, page: usize) {
        self.place(page);
        for channel in 0..self.layout.head_dim() {
            self.set(page, channel, NOTHING);
        }
    }

    /// Widens the bounds of page `page` of the lane to the keys in the slots `slots` of `bytes`, as they are stored there.
    /// A slot that is overwritten leaves its bounds too wide, so still good; [`reset`](PageBounds::reset) and an
    /// update with all slots make them narrow again.
    ///
    /// # Panics
    /// When there is no such page, or `bytes` or `slots` do not fit the layout.
    pub fn update<'a>(&mut self, page: usize, bytes: impl Into<PageRef<'a>>, slots: std::ops::Range<usize>) {
        self.place(page);
        let bytes = bytes.into();
        let d = self.layout.head_dim();
        let mut key = [0.0; PageLayout::MAX_HEAD_DIM];
        let (mut min, mut max) =
            ([NOTHING.0; PageLayout::MAX_HEAD_DIM], [NOTHING.1; PageLayout::MAX_HEAD_DIM]);
        for slot in slots {
            self.layout.read_key(bytes, slot, &mut key[..d]);
            for ((min, max), key) in min.iter_mut().zip(&mut max).zip(&key[..d]) {
                (*min, *max) = (min.min(*key), max.max(*key));
            }
        }
        for (channel, (min, max)) in min.iter().zip(&max).enumerate().take(d) {
            let (low, high) = self.get(page, channel);
            self.set(page, channel, (low.min(*min), high.max(*max)));
        }
    }

    /// Smallest and largest value of a channel in a page, as kept; infinities the wrong way round where it has no keys.
    ///
    /// # Panics
    /// When there is no such page or channel.
    pub fn get(&self, page: usize, channel: usize) -> (f32, f32) {
        assert!(channel < self.layout.head_dim(), "channel {channel}");
        let at = self.place(page) + channel * 2 * GROUP;
        match &self.bounds {
            Bounds::F32(bounds) => (bounds[at], bounds[at + GROUP]),
            Bounds::F16(bounds) => (bounds[at].to_f32(), bounds[at + GROUP].to_f32()),
        }
    }

    fn set(&mut self, page: usize, channel: usize, (min, max): (f32, f32)) {
        let at = self.place(page) + channel * 2 * GROUP;
        match &mut self.bounds {
            Bounds::F32(bounds) => (bounds[at], bounds[at + GROUP]) = (min, max),
            Bounds::F16(bounds) => (bounds[at], bounds[at + GROUP]) = (below(min), above(max)),
        }
    }

    /// Where the numbers of a page begin.
    fn place(&self, page: usize) -> usize {
        assert!(page < self.pages, "page {page} of {} that have bounds", self.pages);
        page / GROUP * GROUP * 2 * self.layout.head_dim() + page % GROUP
    }

    /// The bound of each of the first `pages` pages for the query heads of a group: no key of the page has a larger
    /// `q · k` (without the scale of attention, which changes no order), but for the rounding of the sum. A page
    /// without keys scores minus infinity.
    ///
    /// # Errors
    /// [`KernelError::Shape`] when `q` is not whole heads, when there are fewer pages, or when `out` is not as large as
    /// `score` says.
    pub fn score(
        &self,
        table: &KernelTable,
        q: &[f32], // (group, head_dim)
        pages: usize,
        score: PageScore,
        out: &mut [f32], // (group, pages) or (pages)
    ) -> Result<(), KernelError> {
        let d = self.layout.head_dim();
        let group = q.len() / d;
        let check = |what, got, want| {
            if got == want { Ok(()) } else { Err(KernelError::Shape { what, got, want }) }
        };
        check("numbers in a group of queries", q.len(), group.max(1) * d)?;
        check("pages with bounds", self.pages.min(pages), pages)?;
        let rows = if score == PageScore::PerHead { group } else { 1 };
        check("scores of pages", out.len(), rows * pages)?;
        for (head, q) in q.chunks_exact(d).enumerate() {
            let (out, merge) = match score {
                PageScore::PerHead => (&mut out[head * pages..][..pages], false),
                PageScore::MaxOfGroup => (&mut *out, head > 0),
            };
            match &self.bounds {
                Bounds::F32(bounds) => {
                    dispatch(table.vectors(), Score { bounds: F32(bounds), q, out, merge });
                }
                Bounds::F16(bounds) => {
                    dispatch(table.vectors(), Score { bounds: F16(bounds), q, out, merge });
                }
            }
        }
        Ok(())
    }
}

/// The largest f16 that is not above `x`.
fn below(x: f32) -> f16 {
    let near = f16::from_f32(x);
    if near.to_f32() > x { next_down(near) } else { near }
}

/// The smallest f16 that is not below `x`.
fn above(x: f32) -> f16 {
    -below(-x)
}

/// The next smaller number; of zero, the smallest negative one.
fn next_down(x: f16) -> f16 {
    let bits = x.to_bits();
    f16::from_bits(match bits {
        0x0000 | 0x8000 => 0x8001,
        _ if bits & 0x8000 == 0 => bits - 1,
        _ => bits + 1,
    })
}

/// Numbers that a vector is loaded from.
trait Numbers: Copy {
    /// `S::LANES` numbers from `at` on.
    fn read<S: Simd>(&self, simd: S, at: usize) -> S::F;
}

#[derive(Clone, Copy)]
struct F32<'a>(&'a [f32]);
#[derive(Clone, Copy)]
struct F16<'a>(&'a [f16]);

impl Numbers for F32<'_> {
    #[inline(always)]
    fn read<S: Simd>(&self, simd: S, at: usize) -> S::F {
        simd.read(&self.0[at..])
    }
}

impl Numbers for F16<'_> {
    #[inline(always)]
    fn read<S: Simd>(&self, simd: S, at: usize) -> S::F {
        let numbers = &self.0[at..at + S::LANES];
        // SAFETY: the slice holds LANES half floats.
        unsafe { simd.load_f16(numbers.as_ptr().cast()) }
    }
}

/// The bounds of some pages for one query head.
struct Score<'a, N> {
    bounds: N, // (groups, head_dim, (min, max), GROUP)
    q: &'a [f32],
    out: &'a mut [f32],
    merge: bool, // keep what is larger in `out`
}

impl<N: Numbers> Kernel for Score<'_, N> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Score { bounds, q, out, merge } = self;
        let (mut rest, mut group) = (out, 0);
        while !rest.is_empty() {
            if rest.len() >= TOGETHER * GROUP {
                let (now, later) = rest.split_at_mut(TOGETHER * GROUP);
                score_groups::<S, N, TOGETHER>(simd, bounds, q, group, now, merge);
                (rest, group) = (later, group + TOGETHER);
            } else {
                let (now, later) = rest.split_at_mut(GROUP.min(rest.len()));
                score_groups::<S, N, 1>(simd, bounds, q, group, now, merge);
                (rest, group) = (later, group + 1);
            }
        }
    }
}

/// Vectors of a group on the narrowest level, plain Rust.
const MAX_VECTORS: usize = GROUP;

/// The pages of `G` groups; `out` may end within the last.
#[inline(always)]
fn score_groups<S: Simd, N: Numbers, const G: usize>(
    simd: S,
    bounds: N,
    q: &[f32],
    group: usize,
    out: &mut [f32],
    merge: bool,
) {
    let size = 2 * GROUP * q.len();
    for lane in (0..GROUP).step_by(S::LANES) {
        let mut sums = [simd.splat(0.0); G];
        for (channel, q) in q.iter().enumerate() {
            // Where q is zero nothing is added, not even zero times infinity.
            if *q != 0.0 {
                let side = if *q > 0.0 { GROUP } else { 0 };
                let factor = simd.splat(*q);
                for (g, sum) in sums.iter_mut().enumerate() {
                    let at = (group + g) * size + channel * 2 * GROUP + side + lane;
                    *sum = simd.fma(factor, bounds.read(simd, at), *sum);
                }
            }
        }
        for (g, sum) in sums.iter().enumerate() {
            let mut pages = [0.0; MAX_VECTORS];
            simd.write(&mut pages, *sum);
            let first = g * GROUP + lane;
            for (out, bound) in out.iter_mut().skip(first).take(S::LANES).zip(&pages) {
                *out = if merge { out.max(*bound) } else { *bound };
            }
        }
    }
}
