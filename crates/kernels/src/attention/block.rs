//! A block of queries of one KV head over a run of its slots.

use super::AttentionShape;
use super::band::{Band, Part, Run, Runs};
use super::sealed::pairs_len;
use super::softmax::{Merge, Seen, State};
use super::strip::{Strip, accumulate_strip, load_keys, score_panel, soften_strip};
use super::tile::{MAX_PANEL, PANEL, STRIP};
use crate::kv_page::{KvLayer, LaneView, PageLayout};
use crate::vectors::{Kernel, Simd};

/// Slots after which a query's state is closed and merged into the whole, in order. The boundaries depend on nothing
/// but the slot, so a context may be split there among threads without changing a bit. A multiple of every page.
pub(super) const RUN: usize = 512;

/// Queries that share one pass over keys and values. More of them spread the cost of widening 16-bit pages (48, 96,
/// 192 queries: 0.62-0.70, 0.68-0.76, 0.72-0.80 of the multiply-add peak); what a block touches, 0.4 MB at 128
/// channels, still fits a second-level cache of 1 MB.
pub(super) const BLOCK: usize = 192;

/// What one worker needs for a block, sized once.
pub(super) struct Workspace {
    q: Vec<f32>,                        // panels of (head_dim, queries of the panel)
    sink_q: Vec<f32>,                   // the same, where sinks have queries of their own
    two_frames: bool,                   // whether they have
    pub(super) scores: Vec<f32>,        // (queries, STRIP)
    pub(super) sink_scores: Vec<f32>, // (MAX_PANEL, STRIP), where they are looked at beside those of the window
    pub(super) k_wide: Vec<f32>,      // (head_dim, STRIP)
    pub(super) v_wide: Vec<f32>,      // (STRIP, channels)
    pub(super) factors: Vec<f32>,     // scales of a strip's keys or values
    bands: Vec<Band>,                 // (queries): slots that each sees
    pub(super) seen: Vec<Seen>,       // (queries), of the strip at hand
    seen_sinks: Vec<Seen>,            // (queries), the same of the sinks where both are looked at
    pub(super) rescale: Vec<[f32; 16]>, // (panels)
    pub(super) part: Vec<State>,      // (queries), of the run at hand
    pub(super) part_acc: Vec<f32>,    // (queries, channels)
    whole: Vec<State>,                // (queries), of the runs before
    whole_acc: Vec<f32>,              // (queries, channels)
}

/// Channels of an output row in the workspace: whole vectors of any level.
pub(super) fn padded(head_dim: usize) -> usize {
    head_dim.next_multiple_of(16)
}

/// Room for the scales of a strip: at most a pair for every 32 numbers, row by row in whole vectors.
fn factors_len(head_dim: usize) -> usize {
    pairs_len(head_dim, STRIP).max(pairs_len(STRIP, head_dim))
}

/// Most queries of a block for a group of up to so many query heads.
pub(super) fn block_queries(group: usize) -> usize {
    BLOCK.max(group)
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
            sink_q: vec![0.0; queries * d],
            two_frames: false,
            scores: vec![0.0; queries * STRIP],
            sink_scores: vec![0.0; MAX_PANEL * STRIP],
            k_wide: vec![0.0; d * STRIP],
            v_wide: vec![0.0; STRIP * channels],
            factors: vec![0.0; factors_len(d)],
            bands: vec![Band::default(); queries],
            seen: vec![Seen { from: 0, to: 0 }; queries],
            seen_sinks: vec![Seen { from: 0, to: 0 }; queries],
            rescale: vec![[0.0; 16]; panels(queries)],
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
        let floats =
            queries * (2 * d + STRIP + 2 * channels) + (MAX_PANEL + d + channels) * STRIP + factors_len(d);
        let states = queries * (2 * size_of::<State>() + size_of::<Band>() + 2 * size_of::<Seen>());
        4 * floats + states + panels(queries) * size_of::<[f32; 16]>()
    }

    /// The packed queries that read a part of the bands.
    pub fn queries(&self, part: Part) -> &[f32] {
        if self.two_frames && part == Part::Sinks { &self.sink_q } else { &self.q }
    }
}

/// Panels of so many queries, at most.
fn panels(queries: usize) -> usize {
    queries.div_ceil(PANEL)
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
    pub fn panel(&self) -> usize {
        if self.queries <= MAX_PANEL { self.queries } else { PANEL }
    }
}

/// One query as it is loaded.
pub(super) struct Query<'a> {
    pub q: &'a [f32],              // (head_dim)
    pub sink_q: Option<&'a [f32]>, // (head_dim), for all queries of a block or for none
    pub band: Band,
}

/// Loads the queries of a block.
pub(super) fn load_queries<'q>(
    block: &Block<'_>,
    work: &mut Workspace,
    scale: f32,
    mut query: impl FnMut(usize) -> Query<'q>,
) {
    let scale = scale * std::f32::consts::LOG2_E;
    work.two_frames = false;
    for i in 0..block.queries {
        let Query { q, sink_q, band } = query(i);
        pack_query(block, i, q, scale, &mut work.q);
        if let Some(sink_q) = sink_q {
            pack_query(block, i, sink_q, scale, &mut work.sink_q);
            work.two_frames = true;
        }
        work.bands[i] = band;
    }
}

/// Puts query `i` where the tiles read it: scaled, in powers of two, channel by channel within each panel.
fn pack_query(block: &Block<'_>, i: usize, q: &[f32], scale: f32, packed: &mut [f32]) {
    let (panel, d) = (block.panel(), block.layout.head_dim());
    let first = i - i % panel;
    let width = panel.min(block.queries - first);
    let place = &mut packed[first * d..][..width * d];
    for (x, column) in q.iter().zip(place.chunks_exact_mut(width)) {
        column[i % panel] = x * scale;
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
        let runs = Runs::of(work.bands[..block.queries].iter().copied());
        for run in (0..runs.count()).map(|i| runs.get(i)) {
            run_once(simd, &block, work, run);
            for i in 0..block.queries {
                if work.bands[i].sees(run) {
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
    pub run: Run,
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
        run: Run,
        part: State,
        part_acc: &'a [f32],
    ) -> Option<Merge<'a>> {
        let acc = &mut self.whole_acc[i * part_acc.len()..][..part_acc.len()];
        self.bands[i].sees(run).then_some(Merge { state: &mut self.whole[i], acc, part, part_acc })
    }

    /// The result of query `i`: zeros when it sees nothing.
    pub fn finish(&self, i: usize, channels: usize, out: &mut [f32] /* (head_dim) */) {
        if self.bands[i].slots() == 0 {
            out.fill(0.0);
            return;
        }
        let share = 1.0 / self.whole[i].sum;
        for (out, acc) in out.iter_mut().zip(&self.whole_acc[i * channels..]) {
            *out = acc * share;
        }
    }

    /// Notes what each query sees of the strip that begins at slot `first`, as one part of its band; returns the
    /// slots of the strip that are worth scoring, 0 when nobody sees any.
    #[inline(always)]
    pub fn look(&mut self, queries: usize, part: Part, first: usize) -> usize {
        look(&mut self.seen[..queries], &self.bands, part, first)
    }

    /// [`look`](Workspace::look) for both parts, the sinks beside the window.
    #[inline(always)]
    pub fn look_at_both(&mut self, queries: usize, first: usize) -> usize {
        let sinks = look(&mut self.seen_sinks[..queries], &self.bands, Part::Sinks, first);
        sinks.max(self.look(queries, Part::Window, first))
    }

    /// What each query sees of the strip that [`look_at_both`](Workspace::look_at_both) looked at.
    #[inline(always)]
    pub fn seen_of(&self, part: Part) -> &[Seen] {
        if part == Part::Sinks { &self.seen_sinks } else { &self.seen }
    }

    /// The slots that every query sees, as one part of its band.
    #[inline(always)]
    fn core(&self, queries: usize, part: Part) -> std::ops::Range<usize> {
        self.bands[..queries].iter().fold(0..usize::MAX, |core, band| {
            let (from, to) = band.part(part);
            core.start.max(from)..core.end.min(to)
        })
    }

    /// The slots of a run between the first and the last that any query sees, from the beginning of a strip on.
    #[inline(always)]
    pub fn span(&self, queries: usize, run: Run) -> std::ops::Range<usize> {
        let (mut from, mut to) = (usize::MAX, 0);
        for band in self.bands[..queries].iter().filter(|band| band.sees(run)) {
            let part = band.part(run.part);
            (from, to) = (from.min(part.0), to.max(part.1));
        }
        let (from, to) = (from.max(run.index * RUN), to.min((run.index + 1) * RUN));
        from - from % STRIP..to
    }
}

#[inline(always)]
fn look(seen: &mut [Seen], bands: &[Band], part: Part, first: usize) -> usize {
    let mut width = 0;
    for (seen, band) in seen.iter_mut().zip(bands) {
        let (from, to) = band.part(part);
        *seen = Seen { from: from.saturating_sub(first).min(STRIP), to: to.saturating_sub(first).min(STRIP) };
        width = width.max(if seen.is_empty() { 0 } else { seen.to });
    }
    width.next_multiple_of(16)
}

#[inline(always)]
fn run_once<S: Simd>(simd: S, block: &Block<'_>, work: &mut Workspace, run: Run) {
    let channels = padded(block.layout.head_dim());
    work.part[..block.queries].fill(State::EMPTY);
    work.part_acc[..block.queries * channels].fill(0.0);
    let (span, core) = (work.span(block.queries, run), work.core(block.queries, run.part));
    for first in span.clone().step_by(STRIP) {
        let all_see = core.start <= first && first + STRIP <= core.end;
        let width = if all_see {
            work.seen[..block.queries].fill(Seen { from: 0, to: STRIP });
            STRIP
        } else {
            work.look(block.queries, run.part, first)
        };
        if width > 0 {
            let strip = Strip::new(block, first, width, span.end);
            score_strip(simd, block, work, &strip, run.part);
            soften_strip(simd, block, work, width);
            accumulate_strip(simd, block, work, &strip, all_see);
        }
    }
}

/// Scores of every panel that sees something of a strip, before the softmax.
#[inline(always)]
pub(super) fn score_strip<S: Simd>(
    simd: S,
    block: &Block<'_>,
    work: &mut Workspace,
    strip: &Strip<'_>,
    part: Part,
) {
    let keys = load_keys(simd, block, work, strip);
    let (d, panel) = (block.layout.head_dim(), block.panel());
    for first in (0..block.queries).step_by(panel) {
        let queries = panel.min(block.queries - first);
        if work.seen[first..first + queries].iter().any(|seen| !seen.is_empty()) {
            let q = work.queries(part)[first * d..][..queries * d].as_ptr();
            let scores = &mut work.scores[first * STRIP..][..queries * STRIP];
            // SAFETY: `q` holds d rows of the panel.
            unsafe { score_panel(simd, block, strip, &keys, queries, q, scores) };
        }
    }
}
