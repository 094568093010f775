//! A block of queries of one KV head over a run of its slots.

use super::AttentionShape;
use super::softmax::{Merge, NO_MAX, Seen, Soften, State};
use super::tile::{Half, MAX_PANEL, Operand, Outputs, PANEL, STRIP, Scores, Widen};
use crate::kv_page::{BLOCK as SCALE_BLOCK, KvFormat, KvLayer, LaneView, PageLayout};
use crate::vectors::{Kernel, Map, Simd, Zip, map, zip};

/// Slots after which a query's state is closed and merged into the whole, in order. The boundaries depend on nothing
/// but the slot, so a context may be split there among threads without changing a bit. A multiple of every page.
pub(super) const RUN: usize = 512;

/// Queries that share one pass over keys and values. More of them spread the cost of widening 16-bit pages (48, 96,
/// 192 queries: 0.62-0.70, 0.68-0.76, 0.72-0.80 of the multiply-add peak); what a block touches, 0.4 MB at 128
/// channels, still fits a second-level cache of 1 MB.
pub(super) const BLOCK: usize = 192;

/// What one worker needs for a block, sized once.
pub(super) struct Workspace {
    q: Vec<f32>,             // panels of (head_dim, queries of the panel)
    scores: Vec<f32>,        // (queries, STRIP)
    k_wide: Vec<f32>,        // (head_dim, STRIP)
    v_wide: Vec<f32>,        // (STRIP, channels)
    factors: Vec<f32>,       // (scales of a row, STRIP) of keys, (STRIP, scales of a row) of values
    to: Vec<usize>,          // (queries): slots that each sees
    seen: Vec<Seen>,         // (queries)
    rescale: Vec<[f32; 16]>, // (panels)
    part: Vec<State>,        // (queries), of the run at hand
    part_acc: Vec<f32>,      // (queries, channels)
    whole: Vec<State>,       // (queries), of the runs before
    whole_acc: Vec<f32>,     // (queries, channels)
}

/// Channels of an output row in the workspace: whole vectors of any level.
pub(super) fn padded(head_dim: usize) -> usize {
    head_dim.next_multiple_of(16)
}

/// Most queries of a block for a group of so many query heads.
pub(super) fn block_queries(group: usize) -> usize {
    block_rows(group) * group
}

/// Query rows of a block.
pub(super) fn block_rows(group: usize) -> usize {
    (BLOCK / group).max(1)
}

impl Workspace {
    pub fn new(shape: &AttentionShape) -> Workspace {
        let (queries, d) = (block_queries(shape.group()), shape.head_dim);
        let channels = padded(d);
        Workspace {
            q: vec![0.0; queries * d],
            scores: vec![0.0; queries * STRIP],
            k_wide: vec![0.0; d * STRIP],
            v_wide: vec![0.0; STRIP * channels],
            factors: vec![0.0; STRIP * d.div_ceil(SCALE_BLOCK)],
            to: vec![0; queries],
            seen: vec![Seen { from: 0, to: 0 }; queries],
            rescale: vec![[0.0; 16]; queries.div_ceil(PANEL)],
            part: vec![State::EMPTY; queries],
            part_acc: vec![0.0; queries * channels],
            whole: vec![State::EMPTY; queries],
            whole_acc: vec![0.0; queries * channels],
        }
    }

    /// Bytes that [`new`](Workspace::new) reserves.
    pub fn bytes(shape: &AttentionShape) -> usize {
        let (queries, d) = (block_queries(shape.group()), shape.head_dim);
        let channels = padded(d);
        let floats = queries * (d + STRIP + 2 * channels) + STRIP * (d + channels + d.div_ceil(SCALE_BLOCK));
        let states = queries * (2 * size_of::<State>() + size_of::<usize>() + size_of::<Seen>());
        4 * floats + states + queries.div_ceil(PANEL) * size_of::<[f32; 16]>()
    }
}

/// The queries of a block, how they are cut into panels, and where their keys and values are.
#[derive(Clone, Copy)]
pub(super) struct Block<'a> {
    pub layout: PageLayout,
    pub kv: &'a dyn KvLayer,
    pub lane: LaneView<'a>,
    pub queries: usize,
}

impl Block<'_> {
    /// Queries of a panel: all of them when one tile holds them.
    fn panel(&self) -> usize {
        if self.queries <= MAX_PANEL { self.queries } else { PANEL }
    }
}

/// Loads the queries of a block: scaled, in powers of two, channel by channel within each panel.
pub(super) fn load_queries<'q>(
    block: &Block<'_>,
    work: &mut Workspace,
    scale: f32,
    mut query: impl FnMut(usize) -> (&'q [f32] /* (head_dim) */, usize /* slots it sees */),
) {
    let (panel, d) = (block.panel(), block.layout.head_dim());
    let scale = scale * std::f32::consts::LOG2_E;
    for i in 0..block.queries {
        let first = i - i % panel;
        let width = panel.min(block.queries - first);
        let (q, to) = query(i);
        let place = &mut work.q[first * d..][..width * d];
        for (x, column) in q.iter().zip(place.chunks_exact_mut(width)) {
            column[i % panel] = x * scale;
        }
        work.to[i] = to;
    }
}

/// All runs of a block, one after the other, into `whole`.
pub(super) struct AllRuns<'a> {
    pub block: Block<'a>,
    pub work: &'a mut Workspace,
}

impl Kernel for AllRuns<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let AllRuns { block, work } = self;
        let channels = padded(block.layout.head_dim());
        work.clear_whole(block.queries, channels);
        let most = work.to[..block.queries].iter().copied().max().unwrap_or(0);
        for run in 0..most.div_ceil(RUN) {
            run_once(simd, &block, work, run);
            for i in 0..block.queries {
                if work.to[i] > run * RUN {
                    let (state, part) = (&mut work.whole[i], work.part[i]);
                    let acc = &mut work.whole_acc[i * channels..][..channels];
                    let part_acc = &work.part_acc[i * channels..][..channels];
                    Merge { state, acc, part, part_acc }.run(simd);
                }
            }
        }
    }
}

/// One run of a block into `part`.
pub(super) struct OneRun<'a> {
    pub block: Block<'a>,
    pub work: &'a mut Workspace,
    pub run: usize,
}

impl Kernel for OneRun<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        run_once(simd, &self.block, self.work, self.run);
    }
}

impl Workspace {
    /// State and outputs of query `i` over the run at hand.
    pub fn part(&self, i: usize, channels: usize) -> (State, &[f32]) {
        (self.part[i], &self.part_acc[i * channels..][..channels])
    }

    /// Forgets the runs merged so far.
    pub fn clear_whole(&mut self, queries: usize, channels: usize) {
        self.whole[..queries].fill(State::EMPTY);
        self.whole_acc[..queries * channels].fill(0.0);
    }

    /// Adds what `run` gave query `i`, if it sees anything of that run.
    pub fn merge<'a>(
        &'a mut self,
        i: usize,
        run: usize,
        part: State,
        part_acc: &'a [f32],
    ) -> Option<Merge<'a>> {
        let acc = &mut self.whole_acc[i * part_acc.len()..][..part_acc.len()];
        (self.to[i] > run * RUN).then_some(Merge { state: &mut self.whole[i], acc, part, part_acc })
    }

    /// The result of query `i`: zeros when it sees nothing.
    pub fn finish(&self, i: usize, channels: usize, out: &mut [f32] /* (head_dim) */) {
        if self.to[i] == 0 {
            out.fill(0.0);
            return;
        }
        let share = 1.0 / self.whole[i].sum;
        for (out, acc) in out.iter_mut().zip(&self.whole_acc[i * channels..]) {
            *out = acc * share;
        }
    }
}

#[inline(always)]
fn run_once<S: Simd>(simd: S, block: &Block<'_>, work: &mut Workspace, run: usize) {
    let layout = block.layout;
    let channels = padded(layout.head_dim());
    work.part[..block.queries].fill(State::EMPTY);
    work.part_acc[..block.queries * channels].fill(0.0);
    let most = work.to[..block.queries].iter().copied().max().unwrap_or(0).min((run + 1) * RUN);
    for first in (run * RUN..most).step_by(layout.slots().min(STRIP)) {
        let strip = strip_at(block, first);
        look(work, block.queries, first, strip.width);
        score_strip(simd, block, work, strip);
        soften_strip(simd, block, work, strip.width);
        accumulate_strip(simd, block, work, strip);
    }
}

/// Notes what each query sees of the strip that begins at slot `first`.
#[inline(always)]
fn look(work: &mut Workspace, queries: usize, first: usize, width: usize) {
    for (seen, to) in work.seen.iter_mut().zip(&work.to[..queries]) {
        *seen = Seen { from: 0, to: to.saturating_sub(first).min(width) };
    }
}

/// The weights of every query of a block that sees as many slots as the others, written out.
pub(super) struct Weigh<'a> {
    pub block: Block<'a>,
    pub work: &'a mut Workspace,
    pub out: &'a mut [f32], // (queries, visible)
}

impl Kernel for Weigh<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Weigh { block, work, out } = self;
        let visible = out.len() / block.queries;
        for first in (0..visible).step_by(block.layout.slots().min(STRIP)) {
            let strip = strip_at(&block, first);
            look(work, block.queries, first, strip.width);
            score_strip(simd, &block, work, strip);
            for (out, scores) in out.chunks_exact_mut(visible).zip(work.scores.chunks_exact(STRIP)) {
                let n = strip.width.min(visible - first);
                out[first..first + n].copy_from_slice(&scores[..n]);
            }
        }
        for out in out.chunks_exact_mut(visible) {
            let max = out.iter().copied().fold(NO_MAX, f32::max);
            map(simd, PowerOfTwo { minus: max }, out);
            let share = 1.0 / out.iter().map(|x| f64::from(*x)).sum::<f64>();
            out.iter_mut().for_each(|x| *x = (f64::from(*x) * share) as f32);
        }
    }
}

/// 2^(x - minus).
#[derive(Clone, Copy)]
struct PowerOfTwo {
    minus: f32,
}

impl Map for PowerOfTwo {
    #[inline(always)]
    fn apply<S: Simd>(self, simd: S, x: S::F) -> S::F {
        simd.exp2(simd.sub(x, simd.splat(self.minus)))
    }
}

/// a · b.
#[derive(Clone, Copy)]
struct Times;

impl Zip for Times {
    #[inline(always)]
    fn apply<S: Simd>(self, simd: S, a: S::F, b: S::F) -> S::F {
        simd.mul(a, b)
    }
}

/// Where a strip lies: the slots `at..at + width` of a page.
#[derive(Clone, Copy)]
struct Strip<'a> {
    page: &'a [u8],
    at: usize,
    width: usize,
    /// Bytes from the keys of this strip to those of the next one, 0 when there is none.
    next: isize,
}

/// The strip that begins at slot `first` of the lane.
#[inline(always)]
fn strip_at<'a>(block: &Block<'a>, first: usize) -> Strip<'a> {
    let layout = block.layout;
    let page = block.kv.page(block.lane.table[first / layout.slots()]);
    assert_eq!(page.len(), layout.page_bytes(), "a page of another layout");
    let (at, width) = (first % layout.slots(), layout.slots().min(STRIP));
    let next = if at + width < layout.slots() {
        (width * layout.key_format().width()) as isize
    } else {
        let next = block.lane.table.get(first / layout.slots() + 1).map_or(page, |id| block.kv.page(*id));
        (next.as_ptr() as isize).wrapping_sub(page[at * layout.key_format().width()..].as_ptr() as isize)
    };
    Strip { page, at, width, next }
}

/// Loads the scales of one half of a strip, as f32.
#[inline(always)]
fn load_factors<S: Simd>(simd: S, block: &Block<'_>, factors: &mut [f32], half: Half, strip: Strip<'_>) {
    let (layout, Strip { page, at, width, .. }) = (block.layout, strip);
    let (scales, offset, rows, columns, stride) = match half {
        Half::Keys => {
            let scales = layout.key_format().scales(layout.head_dim());
            (scales, layout.key_scale_offset() + 2 * at, scales, width, layout.slots())
        }
        Half::Values => {
            let scales = layout.value_format().scales(layout.head_dim());
            (scales, layout.value_scale_offset() + 2 * at * scales, 1, width * scales, 0)
        }
    };
    if scales > 0 {
        let data = page[offset..].as_ptr();
        let from = Operand { data, format: KvFormat::F16, stride, factors: std::ptr::null(), ahead: 0 };
        let padded = if half == Half::Keys { STRIP } else { columns };
        assert!(factors.len() >= rows * padded);
        // SAFETY: the page holds `scales` scales for each of the `width` slots from `at` on, and `factors` that many
        // rows of `padded` numbers; a width is a multiple of 16.
        unsafe { Widen { half, from, rows, columns, to: factors.as_mut_ptr(), padded }.run(simd) };
    }
}

/// Scores of every panel that sees something of a strip, before the softmax.
#[inline(always)]
fn score_strip<S: Simd>(simd: S, block: &Block<'_>, work: &mut Workspace, strip: Strip<'_>) {
    let Strip { page, at, width, .. } = strip;
    let layout = block.layout;
    let (d, format, panel) = (layout.head_dim(), layout.key_format(), block.panel());
    let data = page[at * format.width()..].as_ptr();
    // While keys are scored, the values of the strip are fetched; while values are summed, the next keys.
    let values = layout.value_offset() + at * d * layout.value_format().width();
    let ahead = values as isize - (at * format.width()) as isize;
    load_factors(simd, block, &mut work.factors, Half::Keys, strip);
    let factors = work.factors.as_ptr();
    let slot_factors = (format == KvFormat::I8).then_some(factors);
    let keys = Operand { data, format, stride: layout.slots(), factors, ahead };
    let keys = if block.queries > panel && keys.format != KvFormat::F32 {
        let wide = work.k_wide.as_mut_ptr();
        // SAFETY: the page holds d rows of `slots` keys, `width` of them from `at` on; `k_wide` d rows of STRIP.
        unsafe {
            Widen { half: Half::Keys, from: keys, rows: d, columns: width, to: wide, padded: STRIP }.run(simd)
        };
        Operand { data: wide.cast(), format: KvFormat::F32, stride: STRIP, factors, ahead: 0 }
    } else {
        keys
    };
    for first in (0..block.queries).step_by(panel) {
        let queries = panel.min(block.queries - first);
        let seen = &work.seen[first..first + queries];
        if seen.iter().all(|seen| seen.is_empty()) {
            continue;
        }
        let q = work.q[first * d..][..queries * d].as_ptr();
        let scores = &mut work.scores[first * STRIP..][..queries * STRIP];
        let out = scores.as_mut_ptr();
        let tile = Scores { queries, head_dim: d, width, q, keys, slot_factors, out };
        // SAFETY: `q` holds d rows of the panel, `keys` d rows of `width` slots, `scores` a row of STRIP per query; the
        // factors of the keys were loaded.
        unsafe { tile.run(simd) };
    }
}

/// Softmax of every panel that sees something of a strip.
#[inline(always)]
fn soften_strip<S: Simd>(simd: S, block: &Block<'_>, work: &mut Workspace, width: usize) {
    let panel = block.panel();
    for first in (0..block.queries).step_by(panel) {
        let queries = panel.min(block.queries - first);
        let seen = &work.seen[first..first + queries];
        if seen.iter().any(|seen| !seen.is_empty()) {
            let scores = &mut work.scores[first * STRIP..][..queries * STRIP];
            let states = &mut work.part[first..first + queries];
            let rescale = &mut work.rescale[first / panel];
            simd.enter(Soften { width, scores, seen, states, rescale });
        }
    }
}

/// Outputs of every panel over a strip.
#[inline(always)]
fn accumulate_strip<S: Simd>(simd: S, block: &Block<'_>, work: &mut Workspace, strip: Strip<'_>) {
    let Strip { page, at, next, .. } = strip;
    let layout = block.layout;
    let (d, channels, panel) = (layout.head_dim(), padded(layout.head_dim()), block.panel());
    let value_width = layout.value_format().width();
    let offset = layout.value_offset() + at * d * value_width;
    let ahead = next - (offset - at * layout.key_format().width()) as isize;
    let values = page[offset..].as_ptr();
    load_factors(simd, block, &mut work.factors, Half::Values, strip);
    if layout.value_format() == KvFormat::I8 {
        let factors = &work.factors[..strip.width];
        for (scores, seen) in work.scores.chunks_exact_mut(STRIP).zip(&work.seen[..block.queries]) {
            if !seen.is_empty() {
                zip(simd, Times, &mut scores[..strip.width], factors);
            }
        }
    }
    let factors = work.factors.as_ptr();
    let values = Operand { data: values, format: layout.value_format(), stride: d, factors, ahead };
    let values = if channels != d || (block.queries > panel && values.format != KvFormat::F32) {
        let wide = work.v_wide.as_mut_ptr();
        let rows = work.seen[..block.queries].iter().map(|seen| seen.to).max().unwrap_or(0);
        // SAFETY: the page holds `width` rows of d values from slot `at` on, `rows` is no more, and `v_wide` has
        // STRIP rows of `channels`.
        unsafe {
            Widen { half: Half::Values, from: values, rows, columns: d, to: wide, padded: channels }.run(simd)
        };
        Operand { data: wide.cast(), format: KvFormat::F32, stride: channels, factors, ahead: 0 }
    } else {
        values
    };
    for first in (0..block.queries).step_by(panel) {
        let queries = panel.min(block.queries - first);
        let rows = first..first + queries;
        let p = &work.scores[first * STRIP..][..queries * STRIP];
        let acc = &mut work.part_acc[first * channels..][..queries * channels];
        accumulate(simd, values, channels, &work.seen[rows], p, &mut work.rescale[first / panel], acc);
    }
}

/// Outputs of a panel. The slots that all its queries see go through one tile; what only some see (at the causal
/// edge) is done query by query, before and behind, in the order of the slots.
#[inline(always)]
fn accumulate<S: Simd>(
    simd: S,
    values: Operand,
    channels: usize,
    seen: &[Seen],
    p: &[f32],               // (queries, STRIP)
    rescale: &mut [f32; 16], // (queries)
    acc: &mut [f32],         // (queries, channels)
) {
    let queries = seen.len();
    let common = Seen {
        from: seen.iter().map(|seen| seen.from).max().unwrap_or(0),
        to: seen.iter().map(|seen| seen.to).min().unwrap_or(0),
    };
    let alone = |i: usize, from: usize, to: usize, rescale: &mut [f32; 16], acc: &mut [f32]| {
        if from < to {
            let (p, rescaled) = (p[i * STRIP..].as_ptr(), &raw const rescale[i]);
            let acc = acc[i * channels..][..channels].as_mut_ptr();
            // SAFETY: one query's row of `p` and `acc` and its factor; the slots are those of a strip.
            unsafe {
                Outputs { queries: 1, channels, from, to, p, values, rescale: rescaled, acc }.run(simd)
            };
            rescale[i] = 1.0; // done once
        }
    };
    if common.is_empty() {
        for (i, seen) in seen.iter().enumerate() {
            alone(i, seen.from, seen.to, rescale, acc);
        }
        return;
    }
    for (i, seen) in seen.iter().enumerate() {
        alone(i, seen.from, common.from, rescale, acc);
    }
    let (from, to) = (common.from, common.to);
    let tile = Outputs {
        queries,
        channels,
        from,
        to,
        p: p.as_ptr(),
        values,
        rescale: rescale.as_ptr(),
        acc: acc.as_mut_ptr(),
    };
    // SAFETY: `p` has a row of STRIP per query, `acc` one of `channels`, `rescale` a factor; all queries see `from..to`.
    unsafe { tile.run(simd) };
    rescale[..queries].fill(1.0);
    for (i, seen) in seen.iter().enumerate() {
        alone(i, common.to, seen.to, rescale, acc);
    }
}
