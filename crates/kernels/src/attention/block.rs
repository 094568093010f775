//! A block of queries of one KV head over a run of its slots.

use super::AttentionShape;
use super::band::{Band, Part, Run, Runs};
use super::sealed::pairs_len;
use super::softmax::{Merge, Seen, Soften, State, States};
use super::strip::{Strip, accumulate_panel, load_keys, load_values, score_panel};
use super::tile::{MAX_PANEL, PANEL, STRIP};
use crate::kv_page::{KvLayer, LaneView, PageLayout};
use crate::layout::LINE;
use crate::vectors::{Kernel, Simd, prefetch};

/// Slots after which a query's state is closed and merged into the whole, in order. The boundaries depend on nothing
/// but the slot, so a context may be split there among threads without changing a bit. A multiple of every page.
pub(super) const RUN: usize = 512;

/// Queries that share one pass over keys and values. More of them spread the cost of widening 16-bit pages (48, 96,
/// 192 queries: 0.62-0.70, 0.68-0.76, 0.72-0.80 of the multiply-add peak); what a block touches, 0.4 MB at 128
/// channels, still fits a second-level cache of 1 MB.
pub(super) const BLOCK: usize = 192;

/// What one worker needs for a block, sized once.
pub(super) struct Workspace {
    q: Vec<f32>,                      // panels of (head_dim, queries of the panel)
    sink_q: Vec<f32>,                 // the same, where sinks have queries of their own
    two_frames: bool,                 // whether they have
    pub(super) scores: Vec<f32>,      // (queries, STRIP)
    pub(super) sink_scores: Vec<f32>, // (MAX_PANEL, STRIP), where they are looked at beside those of the window
    pub(super) k_wide: Vec<f32>,      // (head_dim, STRIP)
    pub(super) v_wide: Vec<f32>,      // (STRIP, channels)
    pub(super) k_factors: Vec<f32>,   // scales of a strip's keys
    pub(super) v_factors: Vec<f32>,   // scales of a strip's values
    bands: Vec<Band>,                 // (queries): slots that each sees
    pub(super) seen: Vec<Seen>,       // (queries), of the strip at hand
    seen_sinks: Vec<Seen>,            // (queries), the same of the sinks where both are looked at
    pub(super) part: States,          // (queries), of the run at hand
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
            k_factors: vec![0.0; factors_len(d)],
            v_factors: vec![0.0; factors_len(d)],
            bands: vec![Band::default(); queries],
            seen: vec![Seen { from: 0, to: 0 }; queries],
            seen_sinks: vec![Seen { from: 0, to: 0 }; queries],
            part: States::new(queries),
            part_acc: vec![0.0; queries * channels],
            whole: vec![State::EMPTY; queries],
            whole_acc: vec![0.0; queries * channels],
        }
    }

    /// Bytes that [`new`](Workspace::new) reserves.
    pub fn bytes(shape: &AttentionShape) -> usize {
        let (queries, d) = (block_queries(shape.group()), shape.head_dim);
        let channels = padded(d);
        let floats = queries * (2 * d + STRIP + 2 * channels)
            + (MAX_PANEL + d + channels) * STRIP
            + 2 * factors_len(d);
        let states = queries * (size_of::<State>() + size_of::<Band>() + 2 * size_of::<Seen>());
        4 * floats + states + States::bytes(queries)
    }

    /// The packed queries that read a part of the bands.
    pub fn queries(&self, part: Part) -> &[f32] {
        if self.two_frames && part == Part::Sinks { &self.sink_q } else { &self.q }
    }
}

/// The queries of a block, how they are cut into panels, and where their keys and values are.
#[derive(Clone, Copy)]
pub(super) struct Block<'a> {
    pub layout: PageLayout,
    pub kv: &'a dyn KvLayer,
    pub lane: LaneView<'a>,
    pub queries: usize,
    /// Whether what will be read next is fetched into the first-level cache, or into the second.
    pub into_first: bool,
}

impl Block<'_> {
    /// Queries of a panel: all of them when one tile holds them.
    pub fn panel(&self) -> usize {
        if self.queries <= MAX_PANEL { self.queries } else { PANEL }
    }

    /// The panels, in order.
    #[inline(always)]
    pub fn panels(&self) -> impl Iterator<Item = Panel> + use<> {
        let (all, panel) = (self.queries, self.panel());
        (0..all).step_by(panel).map(move |first| Panel { first, queries: panel.min(all - first) })
    }
}

/// Queries of a block that go through the register tiles together.
#[derive(Clone, Copy)]
pub(super) struct Panel {
    pub first: usize,
    pub queries: usize,
}

impl Panel {
    pub fn range(self) -> std::ops::Range<usize> {
        self.first..self.first + self.queries
    }

    /// Where the scores of its queries are.
    pub fn scores(self) -> std::ops::Range<usize> {
        self.first * STRIP..(self.first + self.queries) * STRIP
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
    let d = block.layout.head_dim();
    work.two_frames = false;
    for panel in block.panels() {
        // Rows of a prompt lie far apart, where the processor's own prefetchers follow none of them.
        for next in (panel.range().end..block.queries).take(panel.queries) {
            let q = query(next).q;
            q.iter().step_by(LINE / 4).for_each(|x| prefetch((&raw const *x).cast()));
        }
        let (mut q, mut sink_q) = ([&[][..]; MAX_PANEL], [None; MAX_PANEL]);
        for (at, i) in panel.range().enumerate() {
            let query = query(i);
            (q[at], sink_q[at]) = (query.q, query.sink_q);
            work.bands[i] = query.band;
        }
        let place = panel.first * d..(panel.first + panel.queries) * d;
        pack_queries(&q[..panel.queries], scale, &mut work.q[place.clone()]);
        if sink_q[0].is_some() {
            let sink_q = sink_q.map(Option::unwrap_or_default);
            pack_queries(&sink_q[..panel.queries], scale, &mut work.sink_q[place]);
            work.two_frames = true;
        }
    }
}

/// Puts the queries of a panel where the tiles read them: scaled, in powers of two, channel by channel.
fn pack_queries(q: &[&[f32]] /* (queries, head_dim) */, scale: f32, packed: &mut [f32]) {
    if let Ok(q) = <&[&[f32]; PANEL]>::try_from(q) {
        // Side by side, as there are enough to hide each other's way.
        for (channel, column) in packed.as_chunks_mut::<PANEL>().0.iter_mut().enumerate() {
            for (x, q) in column.iter_mut().zip(q) {
                *x = q[channel] * scale;
            }
        }
        return;
    }
    for (i, row) in q.iter().enumerate() {
        for (x, column) in row.iter().zip(packed.chunks_exact_mut(q.len())) {
            column[i] = x * scale;
        }
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
                    let (state, part) = (&mut work.whole[i], work.part.get(i));
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
        (self.part.get(i), &self.part_acc[i * channels..][..channels])
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
    for (seen, band) in seen.iter_mut().zip(bands) {
        let (from, to) = band.part(part);
        *seen = Seen { from: from.saturating_sub(first).min(STRIP), to: to.saturating_sub(first).min(STRIP) };
    }
    width_seen(seen)
}

/// The slots of a strip up to the last that any query sees, in whole vectors; 0 when nobody sees any.
#[inline(always)]
pub(super) fn width_seen(seen: &[Seen]) -> usize {
    let mut width = 0;
    for seen in seen {
        width = width.max(seen.width());
    }
    width
}

#[inline(always)]
fn run_once<S: Simd>(simd: S, block: &Block<'_>, work: &mut Workspace, run: Run) {
    let channels = padded(block.layout.head_dim());
    work.part.clear(block.queries);
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
            attend_strip(simd, block, work, &strip, run.part, all_see);
        }
    }
}

/// Scores, softmax and outputs of a strip. `all_see`: every query sees all of it.
#[inline(always)]
fn attend_strip<S: Simd>(
    simd: S,
    block: &Block<'_>,
    work: &mut Workspace,
    strip: &Strip<'_>,
    part: Part,
    all_see: bool,
) {
    let width = |work: &Workspace, panel: Panel| {
        if all_see { STRIP } else { width_seen(&work.seen[panel.range()]) }
    };
    let keys = load_keys(simd, block, work, strip);
    for panel in block.panels() {
        let width = width(work, panel);
        if width > 0 {
            score_panel(simd, block, work, strip, &keys, part, panel, width);
        }
    }
    strip.fetch_next(simd);
    soften(simd, block, work);
    let values = load_values(simd, block, work, strip);
    for panel in block.panels() {
        let width = width(work, panel);
        if width > 0 {
            accumulate_panel(simd, block, work, strip, &values, panel, width, all_see);
        }
    }
}

/// Softmax of a strip that has been scored.
#[inline(always)]
pub(super) fn soften<S: Simd>(simd: S, block: &Block<'_>, work: &mut Workspace) {
    let (scores, seen) = (&mut work.scores[..block.queries * STRIP], &work.seen[..block.queries]);
    simd.enter(Soften { scores, seen, states: &mut work.part });
}
