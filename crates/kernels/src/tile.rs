//! What a matrix kernel is handed: some groups of one matrix, some activation rows, and where the outputs go.

use crate::activations::Activations;
use crate::isa::Isa;
use crate::layout::{GROUP, LINE};
use crate::packed::Groups;
use crate::shared_slice::SharedSlice;
use crate::simd::Simd;

/// One tile of a matrix product.
pub(crate) struct Tile<'a> {
    pub w: Groups<'a>,
    pub first_group: usize,
    pub groups: usize,
    pub x: &'a Activations,
    pub first_row: usize,
    pub rows: usize,
    pub out: &'a SharedSlice<'a, f32>, // (activation rows, w.rows); nobody else writes this tile's part
    pub bias: Option<&'a [f32]>,       // (w.rows)
    pub add: bool,
    pub walk: Walk, // of decode
}

/// Computes a tile.
///
/// # Safety
/// The machine has the instructions that the function was compiled for; the tile lies inside its matrix and its
/// activations, which are prepared for the matrix's format and have its columns; and no other thread touches the
/// outputs of the tile.
pub(crate) type TileKernel = unsafe fn(&Tile<'_>);

impl Tile<'_> {
    /// Asks for the lines of `outputs` outputs from `first` on, of rows `row..row + rows` of the tile, before they are stored:
    /// those of a row lie on lines of their own, which a store would have to wait for.
    ///
    /// # Safety
    /// The machine has the instructions of `S`.
    #[inline(always)]
    pub unsafe fn fetch_outputs<S: Simd>(&self, first: usize, outputs: usize, row: usize, rows: usize) {
        let stride = self.w.rows();
        let start = self.out.as_ptr().wrapping_add((self.first_row + row) * stride + first);
        for row in 0..rows {
            for line in (0..outputs * 4).step_by(LINE) {
                // SAFETY: by the contract; the address of a prefetch need not be good.
                unsafe { S::prefetch_near(start.wrapping_add(row * stride).cast::<u8>().wrapping_add(line)) };
            }
        }
    }

    /// Stores the 16 sums of one group and one activation row, bias and residual added.
    ///
    /// # Safety
    /// No other thread touches these outputs.
    #[inline(always)]
    pub unsafe fn store(&self, group: usize, row: usize, sums: &[f32; GROUP]) {
        // SAFETY: by the contract.
        unsafe { self.store_some(group * GROUP, row, sums) };
    }

    /// The same in vectors. The loop above becomes a store and two branches for each float: 5 to 9 % of a whole prefill
    /// (docs/kernels-log.md).
    ///
    /// # Safety
    /// As for [`Tile::store`]; the machine has the instructions of `S`.
    #[inline(always)]
    pub unsafe fn store_vectors<S: Simd>(&self, group: usize, row: usize, sums: &[f32; GROUP]) {
        for lane in (0..GROUP).step_by(S::LANES) {
            // SAFETY: by the contract; `LANES` divides 16.
            unsafe { self.store_lanes::<S>(group, row, lane, S::load_f32(sums.as_ptr().add(lane))) };
        }
    }

    /// The same of outputs `lane..lane + LANES` of a group, in a vector.
    ///
    /// # Safety
    /// As for [`Tile::store`]; the machine has the instructions of `S`; `lane + LANES <= 16`.
    #[inline(always)]
    pub unsafe fn store_lanes<S: Simd>(&self, group: usize, row: usize, lane: usize, sums: S::Float) {
        let first = group * GROUP + lane;
        // SAFETY: by the contract; where the vector is full, as many outputs and elements of the bias are there.
        unsafe {
            if first + S::LANES > self.w.rows() {
                let mut lanes = [0.0; GROUP];
                S::store_f32(lanes.as_mut_ptr(), sums);
                return self.store_some(first, row, &lanes);
            }
            let out = self.out.part(row * self.w.rows() + first, S::LANES).as_mut_ptr();
            let mut sum = sums;
            if let Some(bias) = self.bias {
                sum = S::add(sum, S::load_f32(bias.as_ptr().add(first)));
            }
            if self.add {
                sum = S::add(sum, S::load_f32(out));
            }
            S::store_f32(out, sum);
        }
    }

    /// Those of 16 outputs from `first` on that the matrix has, or none.
    ///
    /// # Safety
    /// As for [`Tile::store`].
    unsafe fn store_some(&self, first: usize, row: usize, sums: &[f32; GROUP]) {
        let len = self.w.rows().saturating_sub(first).min(GROUP);
        if len == 0 {
            return;
        }
        // SAFETY: by the contract.
        let out = unsafe { self.out.part(row * self.w.rows() + first, len) };
        for (i, out) in out.iter_mut().enumerate() {
            let sum = self.bias.map_or(sums[i], |bias| sums[i] + bias[first + i]);
            *out = if self.add { sum + *out } else { sum };
        }
    }
}

/// How decode walks through the groups of a matrix. The outputs are the same bit for bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Walk {
    /// Some groups side by side, which share each activation that is loaded.
    Abreast,
    /// One group after the other, so that memory is read in one stream.
    InLine,
}

impl Walk {
    /// The faster one on this machine. Zen 5 reads one stream a fifth faster than two or four (kernels: 0.84 to 0.97 of what
    /// a plain loop reads, against 0.73 to 0.86, docs/kernels-log.md), and what follows it is taken to do so too. Zen 4 and
    /// Intel's were measured abreast, aarch64 not at all; they stay so.
    pub fn here() -> Walk {
        const ZEN_5: u32 = 0x1a;
        match Isa::amd_family() {
            Some(ZEN_5..) => Walk::InLine,
            _ => Walk::Abreast,
        }
    }
}

/// How far ahead of its use a weight of a decode kernel is asked for, in bytes of its group.
#[derive(Clone, Copy)]
pub(crate) struct Distances {
    far: Option<usize>, // from memory into the second-level cache
    near: usize,        // into the first, from the second or from memory
}

impl Distances {
    pub const ABREAST: Distances = Distances { far: Some(4096), near: 2048 };
    /// In line, weights that are unpacked.
    pub const UNPACKED: Distances = Distances { far: Some(6144), near: 3072 };
    /// In line, weights that are multiplied as they are: so few instructions that none is worth a second request.
    pub const AS_THEY_ARE: Distances = Distances { far: None, near: 6144 };
}

/// Asks for `lines` lines, as far ahead of byte `read` of the group at `group` as weights are asked for, when groups are
/// read `at_once` together: in that group, or in the one that is read after it.
///
/// The processor's own prefetchers stop at the end of each page, and a kernel with some hundred instructions a block
/// does not look far enough ahead to start the next one in time: without this, time in memory and time in arithmetic
/// add up. The first level has too few lines under way to keep memory busy, so they come to the second. From there
/// they take some 16 cycles, in which instructions that wait for them fill the scheduler, and what is behind those, the
/// next requests among it, does not start: so they are asked for once more, into the first (docs/kernels-log.md).
///
/// # Safety
/// The machine has the instructions of `S`. The addresses need not be good.
#[inline(always)]
pub(crate) unsafe fn fetch_ahead<S: Simd>(
    distances: Distances,
    group: *const u8,
    read: usize,
    lines: usize,
    group_bytes: usize,
    at_once: usize,
) {
    let ahead = |distance: usize| {
        let next = read + distance;
        let beside = if next < group_bytes { 0 } else { (at_once - 1) * group_bytes };
        group.wrapping_add(next + beside)
    };
    let (far, near) = (distances.far.map(ahead), ahead(distances.near));
    for line in (0..lines * LINE).step_by(LINE) {
        // SAFETY: by the contract.
        unsafe {
            if let Some(far) = far {
                S::prefetch(far.wrapping_add(line));
            }
            S::prefetch_near(near.wrapping_add(line));
        }
    }
}

/// Asks for the weights of two groups that prefill will unpack next, some lines beside the products of some rows.
pub(crate) struct Ahead {
    groups: [*const u8; 2],
    lines: usize, // at a time, of each group
}

impl Ahead {
    /// For `lines` lines from `first` on and of the group after that one, `times` times.
    #[inline(always)]
    pub fn new(first: *const u8, group_bytes: usize, lines: usize, times: usize) -> Ahead {
        Ahead { groups: [first, first.wrapping_add(group_bytes)], lines: lines.div_ceil(times.max(1)) }
    }

    /// # Safety
    /// The machine has the instructions of `S`.
    #[inline(always)]
    pub unsafe fn fetch_some<S: Simd>(&mut self) {
        for _ in 0..self.lines {
            for group in &mut self.groups {
                // SAFETY: by the contract; the address of a prefetch need not be good.
                unsafe { S::prefetch(*group) };
                *group = group.wrapping_add(LINE);
            }
        }
    }
}
