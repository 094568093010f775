//! A strip of up to 64 slots, which may lie in several pages: its scores, its softmax, its outputs.

use super::block::{Block, Workspace, padded};
use super::softmax::{Seen, Soften};
use super::tile::{MAX_PANEL, Operand, Outputs, STRIP, Scores, Widen};
use crate::kv_page::KvFormat;
use crate::vectors::Simd;

/// Most pages of a strip: those of 16 slots.
const PIECES: usize = STRIP / 16;

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
    page: &'a [u8],
    at: usize,
    /// Bytes from these keys to those that will be read next, 0 when there are none.
    next: isize,
}

impl<'a> Strip<'a> {
    /// The `width` slots from slot `first` of the lane on. The strips behind it are to be read up to slot `end`.
    #[inline(always)]
    pub fn new(block: &Block<'a>, first: usize, width: usize, end: usize) -> Strip<'a> {
        let piece_slots = block.layout.slots().min(STRIP);
        let mut pieces = [Piece { page: &[], at: 0, next: 0 }; PIECES];
        for (i, piece) in pieces.iter_mut().take(width.div_ceil(piece_slots)).enumerate() {
            *piece = Piece::new(block, first + i * piece_slots, end);
        }
        Strip { pieces, piece_slots, width }
    }

    /// The pieces with the first slot of each, counted in the strip, and its slots.
    #[inline(always)]
    fn pieces(&self) -> impl Iterator<Item = (&Piece<'a>, usize, usize)> {
        let starts = (0..self.width).step_by(self.piece_slots);
        self.pieces.iter().zip(starts).map(|(p, first)| (p, first, self.piece_slots.min(self.width - first)))
    }

    /// Slots to score, a multiple of 16.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Whether it lies in one page.
    fn is_whole(&self) -> bool {
        self.width <= self.piece_slots
    }
}

impl<'a> Piece<'a> {
    /// The piece that begins at slot `first` of the lane.
    #[inline(always)]
    fn new(block: &Block<'a>, first: usize, end: usize) -> Piece<'a> {
        let (layout, table) = (block.layout, block.lane.table);
        let page = block.kv.page(table[first / layout.slots()]);
        assert_eq!(page.len(), layout.page_bytes(), "a page of another layout");
        let at = first % layout.slots();
        let width = layout.key_format().width();
        let next = if first + STRIP >= end {
            0
        } else if at + STRIP < layout.slots() {
            (STRIP * width) as isize
        } else {
            let next = block.kv.page(table[(first + STRIP) / layout.slots()]);
            (next.as_ptr() as isize).wrapping_sub(page[at * width..].as_ptr() as isize)
        };
        Piece { page, at, next }
    }

    /// The keys; while they are scored, the values of the piece are fetched.
    #[inline(always)]
    fn keys(&self, block: &Block<'_>) -> Operand {
        let layout = block.layout;
        let (format, at) = (layout.key_format(), self.at * layout.key_format().width());
        let values = layout.value_offset() + self.at * layout.head_dim() * layout.value_format().width();
        let data = self.page[at..].as_ptr();
        Operand { data, format, stride: layout.slots(), ahead: values as isize - at as isize }
    }

    /// The values; while they are summed, the next keys are fetched.
    #[inline(always)]
    fn values(&self, block: &Block<'_>) -> Operand {
        let layout = block.layout;
        let (d, format) = (layout.head_dim(), layout.value_format());
        let offset = layout.value_offset() + self.at * d * format.width();
        let ahead = self.next - (offset - self.at * layout.key_format().width()) as isize;
        Operand { data: self.page[offset..].as_ptr(), format, stride: d, ahead }
    }
}

/// The keys of a strip as its panels read them.
pub(super) enum Keys {
    /// Where they lie.
    Stored,
    /// Widened once for all panels, (head_dim, STRIP).
    Wide(Operand),
}

/// Prepares the keys of a strip for the panels of a block.
#[inline(always)]
pub(super) fn load_keys<S: Simd>(
    simd: S,
    block: &Block<'_>,
    work: &mut Workspace,
    strip: &Strip<'_>,
) -> Keys {
    let format = block.layout.key_format();
    if block.queries <= block.panel() || (format == KvFormat::F32 && strip.is_whole()) {
        return Keys::Stored;
    }
    for (piece, first, columns) in strip.pieces() {
        let (from, rows) = (piece.keys(block), block.layout.head_dim());
        let to = work.k_wide[first..].as_mut_ptr();
        // SAFETY: the page holds d rows of `slots` keys, `columns` of them from this piece on, and `k_wide` has d
        // rows of STRIP, of which the piece takes the columns from `first` on.
        unsafe { Widen { from, rows, columns, to, padded: STRIP }.run(simd) };
    }
    let data = work.k_wide.as_ptr().cast();
    Keys::Wide(Operand { data, format: KvFormat::F32, stride: STRIP, ahead: 0 })
}

/// Scores of one panel over a strip.
///
/// # Safety
/// `q` holds a row of `queries` for each channel.
#[inline(always)]
pub(super) unsafe fn score_panel<S: Simd>(
    simd: S,
    block: &Block<'_>,
    strip: &Strip<'_>,
    keys: &Keys,
    queries: usize,
    q: *const f32,      // (head_dim, queries)
    scores: &mut [f32], // (queries, STRIP)
) {
    assert_eq!(scores.len(), queries * STRIP);
    let (head_dim, width, out) = (block.layout.head_dim(), strip.width, scores.as_mut_ptr());
    if let Keys::Wide(keys) = keys {
        let tile = Scores { queries, head_dim, width, q, keys: *keys, out };
        // SAFETY: the wide keys are d rows of STRIP slots, `scores` a row of STRIP per query; `q` is the caller's.
        unsafe { tile.run(simd) };
        return;
    }
    for (piece, first, width) in strip.pieces() {
        // SAFETY: the page holds d rows of keys, `width` of them from this piece on; their scores are the columns
        // from `first` on. `q` is the caller's.
        unsafe {
            let tile = Scores { queries, head_dim, width, q, keys: piece.keys(block), out: out.add(first) };
            tile.run(simd);
        }
    }
}

/// Softmax of every panel that sees something of a strip.
#[inline(always)]
pub(super) fn soften_strip<S: Simd>(simd: S, block: &Block<'_>, work: &mut Workspace, width: usize) {
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
pub(super) fn accumulate_strip<S: Simd>(simd: S, block: &Block<'_>, work: &mut Workspace, strip: &Strip<'_>) {
    let (d, format) = (block.layout.head_dim(), block.layout.value_format());
    let channels = padded(d);
    let many = block.queries > block.panel();
    if channels == d && !(many && (format != KvFormat::F32 || !strip.is_whole())) {
        for (piece, first, slots) in strip.pieces() {
            accumulate_slots(simd, block, work, piece.values(block), first, slots);
        }
        return;
    }
    let most = work.seen[..block.queries].iter().map(|seen| seen.to).max().unwrap_or(0);
    for (piece, first, slots) in strip.pieces() {
        let (from, rows) = (piece.values(block), slots.min(most.saturating_sub(first)));
        let to = work.v_wide[first * channels..].as_mut_ptr();
        // SAFETY: the page holds `slots` rows of d values from this piece on, `rows` is no more, and `v_wide` has
        // STRIP rows of `channels`, of which the piece takes those from `first` on.
        unsafe { Widen { from, rows, columns: d, to, padded: channels }.run(simd) };
    }
    let data = work.v_wide.as_ptr().cast();
    let wide = Operand { data, format: KvFormat::F32, stride: channels, ahead: 0 };
    accumulate_slots(simd, block, work, wide, 0, strip.width);
}

/// Outputs of every panel over the slots `first..first + slots` of a strip, which are the rows of `values`.
#[inline(always)]
fn accumulate_slots<S: Simd>(
    simd: S,
    block: &Block<'_>,
    work: &mut Workspace,
    values: Operand, // (slots, channels)
    first: usize,
    slots: usize,
) {
    let (channels, panel) = (padded(block.layout.head_dim()), block.panel());
    for query in (0..block.queries).step_by(panel) {
        let queries = panel.min(block.queries - query);
        let mut seen = [Seen { from: 0, to: 0 }; MAX_PANEL];
        for (seen, all) in seen.iter_mut().zip(&work.seen[query..query + queries]) {
            let within = |slot: usize| slot.saturating_sub(first).min(slots);
            *seen = Seen { from: within(all.from), to: within(all.to) };
        }
        let p = &work.scores[query * STRIP..][..queries * STRIP];
        let acc = &mut work.part_acc[query * channels..][..queries * channels];
        let rescale = &mut work.rescale[query / panel];
        accumulate(simd, values, channels, &seen[..queries], &p[first..], rescale, acc);
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
    p: &[f32],               // (queries, STRIP), from the first slot of `values` on
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
