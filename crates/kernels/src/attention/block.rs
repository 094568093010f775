//! A block of queries of one KV head over a run of its slots.

use super::AttentionShape;
use super::sealed::{WidenSealed, pairs_len};
use super::softmax::{Merge, NO_MAX, Seen, Soften, State};
use super::tile::{Along, MAX_PANEL, Operand, Outputs, PANEL, STRIP, Scores, Widen};
use crate::kv_page::{KvFormat, KvLayer, LaneView, PageLayout, PageRef, SealedHalf};
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
    factors: Vec<f32>,       // what a strip's numbers are scaled with, in the order of its half
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

/// Numbers that scale a strip: at most a pair for every 32 of its numbers, row by row in whole vectors.
fn factors_len(head_dim: usize) -> usize {
    pairs_len(head_dim, STRIP).max(pairs_len(STRIP, head_dim))
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
            factors: vec![0.0; factors_len(d)],
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
        let floats = queries * (d + STRIP + 2 * channels) + STRIP * (d + channels) + factors_len(d);
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
    keys: &'a [u8],   // of the page
    values: &'a [u8], // of the page
    sealed: bool,
    at: usize,
    width: usize,
    /// The page whose keys are read next.
    next: *const u8,
}

/// The strip that begins at slot `first` of the lane.
#[inline(always)]
fn strip_at<'a>(block: &Block<'a>, first: usize) -> Strip<'a> {
    let layout = block.layout;
    let page = block.kv.page(block.lane.table[first / layout.slots()]);
    let (keys, values) = layout.split(page);
    let (at, width) = (first % layout.slots(), layout.slots().min(STRIP));
    let next = if at + width < layout.slots() {
        keys[(at + width) * layout.key_format().width()..].as_ptr()
    } else {
        let next = block.lane.table.get(first / layout.slots() + 1);
        next.map_or(keys, |id| block.kv.page(*id).bytes()).as_ptr()
    };
    Strip { keys, values, sealed: matches!(page, PageRef::Sealed(_)), at, width, next }
}

impl Strip<'_> {
    /// The keys, if they are coded.
    #[inline(always)]
    fn sealed_keys(&self, layout: PageLayout) -> Option<SealedHalf> {
        if self.sealed { layout.sealed_keys() } else { None }
    }

    /// The values, if they are coded.
    #[inline(always)]
    fn sealed_values(&self, layout: PageLayout) -> Option<SealedHalf> {
        if self.sealed { layout.sealed_values() } else { None }
    }
}

/// Bytes from one place to another, to fetch ahead.
#[inline(always)]
fn distance(from: *const u8, to: *const u8) -> isize {
    (to as isize).wrapping_sub(from as isize)
}

/// Loads the scales of one half of a strip of a page as it was written, as f32: `(scales, STRIP)` of keys,
/// `(slots, scales)` of values.
#[inline(always)]
fn load_factors<S: Simd>(simd: S, layout: PageLayout, factors: &mut [f32], along: Along, strip: Strip<'_>) {
    let Strip { at, width, .. } = strip;
    let (from, rows, columns, stride, padded) = match along {
        Along::Channels => {
            let scales = layout.key_format().scales(layout.head_dim());
            (&strip.keys[layout.key_scale_offset() + 2 * at..], scales, width, layout.slots(), STRIP)
        }
        Along::Slots => {
            let scales = layout.value_format().scales(layout.head_dim());
            let offset = layout.value_scale_offset() - layout.value_offset();
            (&strip.values[offset + 2 * at * scales..], 1, width * scales, 0, width * scales)
        }
    };
    if rows * columns > 0 {
        assert!(factors.len() >= rows * padded && from.len() >= 2 * ((rows - 1) * stride + columns));
        let data = from.as_ptr();
        let from = Operand { data, format: KvFormat::F16, stride, factors: std::ptr::null(), ahead: 0 };
        // SAFETY: `rows` rows of `columns` halves lie at `data`, and `factors` has `rows` rows of `padded` numbers; a
        // width is a multiple of 16.
        unsafe { Widen { along, from, rows, columns, to: factors.as_mut_ptr(), padded }.run(simd) };
    }
}

/// The keys of a strip as the tiles read them, and what each slot's scores are multiplied with. Widened to f32 when they
/// are coded, and when there are so many queries that it pays.
#[inline(always)]
fn load_keys<S: Simd>(
    simd: S,
    block: &Block<'_>,
    work: &mut Workspace,
    strip: Strip<'_>,
) -> (Operand, Option<*const f32>) {
    let (layout, Strip { at, width, .. }) = (block.layout, strip);
    let d = layout.head_dim();
    let wide_keys = |wide: *mut f32| Operand {
        data: wide.cast_const().cast(),
        format: KvFormat::F32,
        stride: STRIP,
        factors: std::ptr::null(),
        ahead: 0,
    };
    if let Some(half) = strip.sealed_keys(layout) {
        let (to, pairs) = (&mut work.k_wide[..], &mut work.factors[..]);
        let (rows, columns) = (0..d, at..at + width);
        let bytes = strip.keys;
        simd.enter(WidenSealed { half, bytes, rows, columns, to, padded: STRIP, pairs });
        return (wide_keys(work.k_wide.as_mut_ptr()), None);
    }
    let format = layout.key_format().hot();
    let data = strip.keys[at * format.width()..].as_ptr();
    // While keys are scored, the values of the strip are fetched; while values are summed, the next keys.
    let values = strip.values.as_ptr().wrapping_add(at * d * layout.value_format().width());
    load_factors(simd, layout, &mut work.factors, Along::Channels, strip);
    let factors = work.factors.as_ptr();
    let slot_factors = (format == KvFormat::I8).then_some(factors);
    let keys = Operand { data, format, stride: layout.slots(), factors, ahead: distance(data, values) };
    if block.queries <= block.panel() || format == KvFormat::F32 {
        return (keys, slot_factors);
    }
    let to = work.k_wide.as_mut_ptr();
    // SAFETY: the page holds d rows of `slots` keys, `width` of them from `at` on; `k_wide` d rows of STRIP.
    unsafe {
        Widen { along: Along::Channels, from: keys, rows: d, columns: width, to, padded: STRIP }.run(simd)
    };
    (wide_keys(to), slot_factors)
}

/// Scores of every panel that sees something of a strip, before the softmax.
#[inline(always)]
fn score_strip<S: Simd>(simd: S, block: &Block<'_>, work: &mut Workspace, strip: Strip<'_>) {
    let (d, panel, width) = (block.layout.head_dim(), block.panel(), strip.width);
    let (keys, slot_factors) = load_keys(simd, block, work, strip);
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

/// The values of a strip as the tiles read them, padded to whole vectors; the probabilities take up what each slot's
/// values are multiplied with.
#[inline(always)]
fn load_values<S: Simd>(simd: S, block: &Block<'_>, work: &mut Workspace, strip: Strip<'_>) -> Operand {
    let (layout, Strip { at, width, .. }) = (block.layout, strip);
    let (d, channels) = (layout.head_dim(), padded(layout.head_dim()));
    let rows = work.seen[..block.queries].iter().map(|seen| seen.to).max().unwrap_or(0);
    let wide_values = |wide: *mut f32| Operand {
        data: wide.cast_const().cast(),
        format: KvFormat::F32,
        stride: channels,
        factors: std::ptr::null(),
        ahead: 0,
    };
    if let Some(half) = strip.sealed_values(layout) {
        let (to, pairs) = (&mut work.v_wide[..], &mut work.factors[..]);
        let bytes = strip.values;
        simd.enter(WidenSealed {
            half,
            bytes,
            rows: at..at + rows,
            columns: 0..d,
            to,
            padded: channels,
            pairs,
        });
        return wide_values(work.v_wide.as_mut_ptr());
    }
    let format = layout.value_format().hot();
    let data = strip.values[at * d * format.width()..].as_ptr();
    load_factors(simd, layout, &mut work.factors, Along::Slots, strip);
    if format == KvFormat::I8 {
        let factors = &work.factors[..width];
        for (scores, seen) in work.scores.chunks_exact_mut(STRIP).zip(&work.seen[..block.queries]) {
            if !seen.is_empty() {
                zip(simd, Times, &mut scores[..width], factors);
            }
        }
    }
    let ahead = distance(data, strip.next);
    let values = Operand { data, format, stride: d, factors: work.factors.as_ptr(), ahead };
    if channels == d && (block.queries <= block.panel() || format == KvFormat::F32) {
        return values;
    }
    let to = work.v_wide.as_mut_ptr();
    // SAFETY: the page holds `width` rows of d values from slot `at` on, `rows` is no more, and `v_wide` has STRIP rows
    // of `channels`.
    unsafe { Widen { along: Along::Slots, from: values, rows, columns: d, to, padded: channels }.run(simd) };
    wide_values(to)
}

/// Outputs of every panel over a strip.
#[inline(always)]
fn accumulate_strip<S: Simd>(simd: S, block: &Block<'_>, work: &mut Workspace, strip: Strip<'_>) {
    let (channels, panel) = (padded(block.layout.head_dim()), block.panel());
    let values = load_values(simd, block, work, strip);
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
