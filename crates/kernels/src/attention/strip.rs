//! A strip of up to 64 slots, which may lie in several pages: its scores, its softmax, its outputs.

use super::ahead::Ahead;
use super::band::Part;
use super::block::{Block, Panel, Workspace, padded};
use super::sealed::WidenSealed;
use super::softmax::Seen;
use super::tile::{MAX_PANEL, Operand, Outputs, STRIP, Scores};
use super::widen::{Along, Widen};
use crate::kv_page::{KvFormat, PageLayout, PageRef, SealedHalf};
use crate::vectors::{Simd, Zip, zip};
use std::ops::Range;

/// Most pages of a strip: those of 16 slots.
const PIECES: usize = STRIP / 16;

/// Lines of keys that are asked for before a softmax: as many as memory brings in its time.
const FIRST_LINES: usize = 32;

/// Where the slots of a strip lie. Strips begin at multiples of [`STRIP`] slots of the lane whatever the size of its pages,
/// so that this size changes no bit.
pub(super) struct Strip<'a> {
    pieces: [Piece<'a>; PIECES],
    /// Slots of each piece, the last one excepted.
    piece_slots: usize,
    /// Slots to score, a multiple of 16.
    width: usize,
}

/// The slots of a strip that lie in one page, from slot `at` of it on.
#[derive(Clone, Copy)]
struct Piece<'a> {
    keys: &'a [u8],   // of the page
    values: &'a [u8], // of the page
    sealed: bool,
    at: usize,
    /// What will be read after these keys.
    after_keys: Ahead,
    /// The keys that will be read next.
    next: Ahead,
}

impl Piece<'_> {
    const NONE: Piece<'static> =
        Piece { keys: &[], values: &[], sealed: false, at: 0, after_keys: Ahead::NONE, next: Ahead::NONE };
}

impl<'a> Strip<'a> {
    /// The `width` slots from slot `first` of the lane on. The strips behind it are to be read up to slot `end`.
    #[inline(always)]
    pub fn new(block: &Block<'a>, first: usize, width: usize, end: usize) -> Strip<'a> {
        let piece_slots = block.layout.slots().min(STRIP);
        let mut pieces = [Piece::NONE; PIECES];
        for (i, piece) in pieces.iter_mut().take(width.div_ceil(piece_slots)).enumerate() {
            let before = i * piece_slots;
            *piece = Piece::new(block, first + before, piece_slots.min(width - before), end);
        }
        Strip { pieces, piece_slots, width }
    }

    /// The same strip, of which only the keys will be read.
    #[inline(always)]
    pub fn keys_only(mut self) -> Strip<'a> {
        self.pieces.iter_mut().for_each(|piece| piece.after_keys = piece.next);
        self
    }

    /// The pieces of the first `width` slots, with the first slot of each, counted in the strip, and its slots.
    #[inline(always)]
    fn pieces(&self, width: usize) -> impl Iterator<Item = (&Piece<'a>, usize, usize)> {
        let starts = (0..width).step_by(self.piece_slots);
        self.pieces.iter().zip(starts).map(move |(p, first)| (p, first, self.piece_slots.min(width - first)))
    }

    /// Asks for the first of the keys that will be read next: before the softmax, in which nothing else is asked for.
    #[inline(always)]
    pub fn fetch_next<S: Simd>(&self, simd: S) {
        self.pieces[0].next.fetch_first(simd, FIRST_LINES);
    }

    /// Slots to score, a multiple of 16.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Whether a page is sealed.
    fn is_sealed(&self) -> bool {
        self.pieces.iter().any(|piece| piece.sealed)
    }

    /// Whether it lies in one page.
    fn is_whole(&self) -> bool {
        self.width <= self.piece_slots
    }
}

impl<'a> Piece<'a> {
    /// The piece of `slots` slots that begins at slot `first` of the lane.
    #[inline(always)]
    fn new(block: &Block<'a>, first: usize, slots: usize, end: usize) -> Piece<'a> {
        let (layout, table) = (block.layout, block.lane.table);
        let page = block.kv.page(table[first / layout.slots()]);
        let (keys, values) = layout.split(page);
        let at = first % layout.slots();
        let next = match first + STRIP {
            next if next >= end => Ahead::NONE,
            next => keys_ahead(layout, block.kv.page(table[next / layout.slots()]), next % layout.slots())
                .into_first(block.into_first),
        };
        let after_keys = match page {
            PageRef::Hot(_) => {
                let slot = layout.head_dim() * layout.value_format().width();
                Ahead::run(values.get(at * slot..).unwrap_or_default(), slots * slot)
            }
            PageRef::Sealed(_) => Ahead::run(values, values.len()),
        }
        .into_first(block.into_first);
        Piece { keys, values, sealed: matches!(page, PageRef::Sealed(_)), at, after_keys, next }
    }

    /// The keys as they were written; while they are scored, what follows them is fetched. `factors`: those of
    /// their blocks, `(scales, STRIP)`.
    #[inline(always)]
    fn keys(&self, layout: PageLayout, factors: *const f32) -> Operand {
        let format = layout.key_format().hot();
        let data = self.keys[self.at * format.width()..].as_ptr();
        Operand { data, format, stride: layout.slots(), factors, ahead: self.after_keys, wide: false }
    }

    /// The values as they were written; while they are summed, the next keys are fetched. `factors`: those of their blocks,
    /// `(slots, scales)`.
    #[inline(always)]
    fn values(&self, layout: PageLayout, factors: *const f32) -> Operand {
        let (d, format) = (layout.head_dim(), layout.value_format().hot());
        let data = self.values[self.at * d * format.width()..].as_ptr();
        Operand { data, format, stride: d, factors, ahead: self.next, wide: false }
    }

    /// Loads the scales of so many keys as f32, `(scales, STRIP)`.
    #[inline(always)]
    fn load_key_scales<S: Simd>(&self, simd: S, layout: PageLayout, slots: usize, factors: &mut [f32]) {
        let (offset, rows) = (layout.key_scale_offset(), layout.key_format().scales(layout.head_dim()));
        if rows > 0 {
            let from = &self.keys[offset + 2 * self.at..];
            load_scales(simd, from, [rows, slots], layout.slots(), factors, STRIP);
        }
    }

    /// Loads the scales of so many values as f32, `(slots, scales)`.
    #[inline(always)]
    fn load_value_scales<S: Simd>(&self, simd: S, layout: PageLayout, slots: usize, factors: &mut [f32]) {
        let scales = layout.value_format().scales(layout.head_dim());
        let offset = layout.value_scale_offset() - layout.value_offset();
        if scales > 0 {
            let from = &self.values[offset + 2 * self.at * scales..];
            load_scales(simd, from, [1, slots * scales], 0, factors, slots * scales);
        }
    }
}

/// The keys of the strip that begins at slot `at` of a page, to fetch ahead. Of a sealed page, those of all its slots.
#[inline(always)]
fn keys_ahead(layout: PageLayout, page: PageRef<'_>, at: usize) -> Ahead {
    let (keys, _) = layout.split(page);
    match page {
        PageRef::Hot(_) => {
            let width = layout.key_format().width();
            let (row, stride) = (layout.slots().min(STRIP) * width, layout.slots() * width);
            Ahead::rows(keys.get(at * width..).unwrap_or_default(), layout.head_dim(), row, stride)
        }
        PageRef::Sealed(_) => Ahead::run(keys, keys.len()),
    }
}

/// Widens `[rows, columns]` f16 scales, `stride` from row to row, to rows of `padded` f32.
#[inline(always)]
fn load_scales<S: Simd>(
    simd: S,
    from: &[u8],
    [rows, columns]: [usize; 2],
    stride: usize,
    to: &mut [f32],
    padded: usize,
) {
    assert!(columns.is_multiple_of(16) && from.len() >= 2 * ((rows - 1) * stride + columns));
    assert!(to.len() >= (rows - 1) * padded + columns);
    let from = Operand {
        data: from.as_ptr(),
        format: KvFormat::F16,
        stride,
        factors: std::ptr::null(),
        ahead: Ahead::NONE,
        wide: false,
    };
    // SAFETY: `rows` rows of `columns` halves lie at `from`, and as many numbers in `to`; whole vectors leave no padding.
    unsafe { Widen { along: Along::Slots, from, rows, columns, to: to.as_mut_ptr(), padded }.run(simd) };
}

/// The keys or the values of a strip as its panels read them.
pub(super) struct Loaded {
    /// Widened to f32 once for all panels, (head_dim, STRIP) or (STRIP, channels), unless they are read where they lie.
    wide: Option<Operand>,
    /// Their scales, (scales, STRIP) or (slots, scales).
    factors: *const f32,
}

impl Loaded {
    fn wide(data: &[f32], stride: usize, factors: *const f32) -> Loaded {
        let data = data.as_ptr().cast();
        Loaded {
            wide: Some(Operand {
                data,
                format: KvFormat::F32,
                stride,
                factors,
                ahead: Ahead::NONE,
                wide: true,
            }),
            factors,
        }
    }
}

/// Prepares the keys of a strip for the panels of a block.
#[inline(always)]
pub(super) fn load_keys<S: Simd>(
    simd: S,
    block: &Block<'_>,
    work: &mut Workspace,
    strip: &Strip<'_>,
) -> Loaded {
    let (layout, width) = (block.layout, strip.width);
    for (piece, first, slots) in strip.pieces(width) {
        piece.load_key_scales(simd, layout, slots, &mut work.k_factors[first..]);
    }
    let factors = work.k_factors.as_ptr();
    let coded = layout.sealed_keys().filter(|_| strip.is_sealed());
    let is_f32 = layout.key_format() == KvFormat::F32;
    if coded.is_none() && (block.queries <= block.panel() || (is_f32 && strip.is_whole())) {
        return Loaded { wide: None, factors };
    }
    for (piece, first, columns) in strip.pieces(width) {
        let rows = layout.head_dim();
        let to = &mut work.k_wide[first..];
        if let Some(half) = coded.filter(|_| piece.sealed) {
            let columns = piece.at..piece.at + columns.next_multiple_of(SealedHalf::BLOCK);
            let (bytes, pairs) = (piece.keys, &mut work.k_factors[..]);
            piece.after_keys.fetch(simd);
            simd.enter(WidenSealed { half, bytes, rows: 0..rows, columns, to, padded: STRIP, pairs });
            continue;
        }
        let (from, to) = (piece.keys(layout, factors.wrapping_add(first)), to.as_mut_ptr());
        // SAFETY: the page holds d rows of `slots` keys, `columns` of them from this piece on, and `k_wide` has d
        // rows of STRIP, of which the piece takes the columns from `first` on; the scales were loaded.
        unsafe { Widen { along: Along::Channels, from, rows, columns, to, padded: STRIP }.run(simd) };
    }
    Loaded::wide(&work.k_wide, STRIP, factors)
}

/// Scores of a panel over the first `width` slots of a strip, into `work.scores`.
#[inline(always)]
#[allow(clippy::too_many_arguments)] // a panel, a strip, and what they lie in
pub(super) fn score_panel<S: Simd>(
    simd: S,
    block: &Block<'_>,
    work: &mut Workspace,
    strip: &Strip<'_>,
    keys: &Loaded,
    part: Part,
    panel: Panel,
    width: usize,
) {
    let (layout, queries, head_dim) = (block.layout, panel.queries, block.layout.head_dim());
    let q = work.queries(part)[panel.first * head_dim..][..queries * head_dim].as_ptr();
    let out = work.scores[panel.scores()].as_mut_ptr();
    // The numbers of i8 are whole; a score takes up its slot's scale.
    let slot_factors =
        |first: usize| (layout.key_format() == KvFormat::I8).then(|| keys.factors.wrapping_add(first));
    if let Some(keys) = &keys.wide {
        let tile = Scores { queries, head_dim, width, q, keys, slot_factors: slot_factors(0), out };
        // SAFETY: the wide keys are d rows of STRIP slots, the scores a row of STRIP per query, `q` d rows of the panel.
        unsafe { tile.run(simd) };
        return;
    }
    for (piece, first, width) in strip.pieces(width) {
        // SAFETY: the page holds d rows of keys, `width` of them from this piece on; their scores are the columns
        // from `first` on. `q` as above.
        unsafe {
            let slot_factors = slot_factors(first);
            let keys = &piece.keys(layout, keys.factors.wrapping_add(first));
            let out = out.add(first);
            let tile = Scores { queries, head_dim, width, q, keys, slot_factors, out };
            tile.run(simd);
        }
    }
}

/// Prepares the values of a strip for the panels of a block.
#[inline(always)]
pub(super) fn load_values<S: Simd>(
    simd: S,
    block: &Block<'_>,
    work: &mut Workspace,
    strip: &Strip<'_>,
) -> Loaded {
    let (layout, width) = (block.layout, strip.width);
    let (d, format) = (layout.head_dim(), layout.value_format());
    let (channels, scales) = (padded(d), format.scales(d));
    for (piece, first, slots) in strip.pieces(width) {
        piece.load_value_scales(simd, layout, slots, &mut work.v_factors[first * scales..]);
    }
    let factors = work.v_factors.as_ptr();
    let many = block.queries > block.panel();
    let coded = layout.sealed_values().filter(|_| strip.is_sealed());
    if coded.is_none() && channels == d && !(many && (format != KvFormat::F32 || !strip.is_whole())) {
        return Loaded { wide: None, factors };
    }
    let most = work.seen[..block.queries].iter().map(|seen| seen.to).max().unwrap_or(0);
    for (piece, first, slots) in strip.pieces(width) {
        let rows = slots.min(most.saturating_sub(first));
        let to = &mut work.v_wide[first * channels..];
        if let Some(half) = coded.filter(|_| piece.sealed) {
            let (rows, columns) = (piece.at..piece.at + rows, 0..d);
            let (bytes, pairs) = (piece.values, &mut work.v_factors[..]);
            piece.next.fetch(simd);
            simd.enter(WidenSealed { half, bytes, rows, columns, to, padded: channels, pairs });
            continue;
        }
        let (from, to) = (piece.values(layout, factors.wrapping_add(first * scales)), to.as_mut_ptr());
        // SAFETY: the page holds `slots` rows of d values from this piece on, `rows` is no more, and `v_wide` has
        // STRIP rows of `channels`, of which the piece takes those from `first` on; the scales were loaded.
        unsafe { Widen { along: Along::Slots, from, rows, columns: d, to, padded: channels }.run(simd) };
    }
    Loaded::wide(&work.v_wide, channels, factors)
}

/// Outputs of a panel over the first `width` slots of a strip, whose weights are in `work.scores`. `all_see`: every query sees
/// all of them.
#[inline(always)]
#[allow(clippy::too_many_arguments)] // as score_panel
pub(super) fn accumulate_panel<S: Simd>(
    simd: S,
    block: &Block<'_>,
    work: &mut Workspace,
    strip: &Strip<'_>,
    values: &Loaded,
    panel: Panel,
    width: usize,
    all_see: bool,
) {
    let (layout, queries) = (block.layout, panel.queries);
    let (format, channels) = (layout.value_format(), padded(layout.head_dim()));
    let Workspace { scores, seen, v_factors, part, part_acc, .. } = work;
    let (scores, seen) = (&mut scores[panel.scores()], &seen[panel.range()]);
    let rescale = &mut part.rescale[panel.range()];
    let acc = &mut part_acc[panel.first * channels..][..queries * channels];
    if format == KvFormat::I8 {
        scale_weights(simd, scores, seen, &v_factors[..width]);
    }
    let scales = format.scales(layout.head_dim());
    if let Some(values) = &values.wide {
        accumulate_slots(simd, values, channels, 0..width, seen, scores, rescale, acc, all_see);
        return;
    }
    for (piece, first, slots) in strip.pieces(width) {
        let values = &piece.values(layout, values.factors.wrapping_add(first * scales));
        accumulate_slots(simd, values, channels, first..first + slots, seen, scores, rescale, acc, all_see);
    }
}

/// Multiplies the weights of every query with the scales of the slots' values.
#[inline(always)]
fn scale_weights<S: Simd>(simd: S, scores: &mut [f32], seen: &[Seen], factors: &[f32] /* (width) */) {
    for (scores, seen) in scores.chunks_exact_mut(STRIP).zip(seen) {
        if !seen.is_empty() {
            zip(simd, Times, &mut scores[..factors.len()], factors);
        }
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

/// Outputs of a panel over some slots of a strip, which are the rows of `values`.
#[inline(always)]
#[allow(clippy::too_many_arguments)] // a tile and its operands, as slices
fn accumulate_slots<S: Simd>(
    simd: S,
    values: &Operand, // (slots, channels)
    channels: usize,
    slots: Range<usize>,
    seen: &[Seen],       // (queries)
    p: &[f32],           // (queries, STRIP)
    rescale: &mut [f32], // (queries)
    acc: &mut [f32],     // (queries, channels)
    all_see: bool,
) {
    let p = &p[slots.start..];
    if all_see {
        let all = Seen { from: 0, to: slots.len() };
        accumulate_common(simd, values, channels, seen.len(), all, p, rescale, acc);
        return;
    }
    let mut within = [Seen { from: 0, to: 0 }; MAX_PANEL];
    let inside = |slot: usize| slot.saturating_sub(slots.start).min(slots.len());
    for (within, seen) in within.iter_mut().zip(seen) {
        *within = Seen { from: inside(seen.from), to: inside(seen.to) };
    }
    accumulate(simd, values, channels, &within[..seen.len()], p, rescale, acc);
}

/// Outputs of a panel over the slots that all its queries see.
#[inline(always)]
#[allow(clippy::too_many_arguments)] // a tile and its operands, as slices
fn accumulate_common<S: Simd>(
    simd: S,
    values: &Operand,
    channels: usize,
    queries: usize,
    Seen { from, to }: Seen,
    p: &[f32],           // (queries, STRIP), from the first slot of `values` on
    rescale: &mut [f32], // (queries)
    acc: &mut [f32],     // (queries, channels)
) {
    assert!(acc.len() == queries * channels && p.len() >= (queries - 1) * STRIP + to);
    assert_eq!(rescale.len(), queries);
    let (p, acc) = (p.as_ptr(), acc.as_mut_ptr());
    let tile = Outputs { queries, channels, from, to, p, values, rescale: rescale.as_ptr(), acc };
    // SAFETY: `p` has a row of STRIP per query, `acc` one of `channels`, `rescale` a factor; all queries see `from..to`.
    unsafe { tile.run(simd) };
    rescale.fill(1.0);
}

/// Outputs of a panel. The slots that all its queries see go through one tile; what only some see (at the causal
/// edge) is done query by query, before and behind, in the order of the slots.
#[inline(always)]
fn accumulate<S: Simd>(
    simd: S,
    values: &Operand,
    channels: usize,
    seen: &[Seen],
    p: &[f32],           // (queries, STRIP), from the first slot of `values` on
    rescale: &mut [f32], // (queries)
    acc: &mut [f32],     // (queries, channels)
) {
    let queries = seen.len();
    let common = Seen {
        from: seen.iter().map(|seen| seen.from).max().unwrap_or(0),
        to: seen.iter().map(|seen| seen.to).min().unwrap_or(0),
    };
    let alone = |i: usize, from: usize, to: usize, rescale: &mut [f32], acc: &mut [f32]| {
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
    accumulate_common(simd, values, channels, queries, common, p, rescale, acc);
    for (i, seen) in seen.iter().enumerate() {
        alone(i, common.to, seen.to, rescale, acc);
    }
}
