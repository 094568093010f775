//! The two register tiles of attention: queries by slots (scores) and queries by channels (outputs).
//!
//! Each number of a result is one chain of multiply-adds in a fixed order (channels for a score, slots for an
//! output), whatever tile it is computed in. So a query's result has the same bits alone and among others.

#![allow(clippy::needless_range_loop)] // the index of a register tile runs over several arrays

use std::marker::PhantomData;

use super::ahead::{Ahead, Fetch, Near};
use crate::kv_page::{BLOCK, KvFormat};
use crate::vectors::{Kernel, Simd};

/// Slots that are scored, softened and accumulated at a time. 64 scores are the four vectors of an AVX-512 tile.
pub(super) const STRIP: usize = 64;
/// Queries of a tile when there are many: 6 × 4 accumulators and 4 operands fit 32 vector registers.
pub(super) const PANEL: usize = 6;
/// Most queries of a tile, so that a group of up to 8 query heads is served without a widened copy of the keys.
pub(super) const MAX_PANEL: usize = 8;

/// Rows of an operand that are taken between two counts of what to ask for, which has more instructions than a row of one query.
const ROWS: usize = 4;

/// How stored numbers are read.
pub(super) trait Source {
    /// Bytes per number.
    const WIDTH: usize;
    /// Whether each [`BLOCK`] of channels has a factor of its own, to multiply what is loaded with: exactly, since a
    /// code of 8 bits times a factor of 11 fits f32. So read directly and widened, a number has the same bits.
    const BLOCKS: bool = false;
    /// A vector of numbers.
    ///
    /// # Safety
    /// `S::LANES` numbers may be read at `p`.
    unsafe fn load<S: Simd>(simd: S, p: *const u8) -> S::F;
}

/// Numbers that are f32.
pub(super) struct F32;
/// Numbers that are IEEE half floats.
pub(super) struct F16;
/// Numbers that are bfloat16.
pub(super) struct Bf16;
/// 8-bit integers whose factor, one per slot, is applied to scores and to probabilities.
pub(super) struct I8;
/// 8-bit integers in blocks.
pub(super) struct Q8_0;

impl Source for F32 {
    const WIDTH: usize = 4;
    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, p: *const u8) -> S::F {
        // SAFETY: the caller owes LANES numbers of 4 bytes.
        unsafe { simd.load(p.cast()) }
    }
}

impl Source for F16 {
    const WIDTH: usize = 2;
    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, p: *const u8) -> S::F {
        // SAFETY: the caller owes LANES numbers of 2 bytes.
        unsafe { simd.load_f16(p.cast()) }
    }
}

impl Source for Bf16 {
    const WIDTH: usize = 2;
    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, p: *const u8) -> S::F {
        // SAFETY: the caller owes LANES numbers of 2 bytes.
        unsafe { simd.load_bf16(p.cast()) }
    }
}

impl Source for I8 {
    const WIDTH: usize = 1;
    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, p: *const u8) -> S::F {
        // SAFETY: the caller owes LANES numbers of 1 byte.
        unsafe { simd.load_i8(p.cast()) }
    }
}

impl Source for Q8_0 {
    const WIDTH: usize = 1;
    const BLOCKS: bool = true;
    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, p: *const u8) -> S::F {
        // SAFETY: the caller owes LANES numbers of 1 byte.
        unsafe { simd.load_i8(p.cast()) }
    }
}

/// Rows of keys or values as they lie in memory, `stride` numbers from one row to the next.
#[derive(Clone, Copy)]
pub(super) struct Operand {
    pub data: *const u8,
    pub format: KvFormat,
    pub stride: usize,
    /// Factors of the blocks of [`Q8_0`], read for no other format: `(blocks, STRIP)` of keys, `(slots, blocks)` of values.
    pub factors: *const f32,
    /// What will be read next.
    pub ahead: Ahead,
    /// Whether it was widened just now, and so is near.
    pub wide: bool,
}

/// The dot products of some queries with the keys of a strip.
#[derive(Clone, Copy)]
pub(super) struct Scores<'a> {
    /// Queries, 1 to [`MAX_PANEL`].
    pub queries: usize,
    pub head_dim: usize,
    /// Slots, a multiple of 16, at most [`STRIP`].
    pub width: usize,
    pub q: *const f32,     // (head_dim, queries)
    pub keys: &'a Operand, // (head_dim, width)
    /// What each slot's scores are multiplied with.
    pub slot_factors: Option<*const f32>, // (width)
    pub out: *mut f32,     // (queries, STRIP)
}

/// `acc = acc * rescale + p · values` for some queries and the slots `from..to` of a strip.
#[derive(Clone, Copy)]
pub(super) struct Outputs<'a> {
    /// Queries, 1 to [`MAX_PANEL`].
    pub queries: usize,
    /// Channels, padded to whole vectors.
    pub channels: usize,
    pub from: usize,
    pub to: usize,
    pub p: *const f32,       // (queries, STRIP)
    pub values: &'a Operand, // (slots of the strip, channels)
    pub rescale: *const f32, // (queries)
    pub acc: *mut f32,       // (queries, channels)
}

/// Enters the tile made for a number of queries: as many vectors wide as the registers hold.
macro_rules! by_queries {
    ($simd:ident: $S:ty, $Tile:ident, $E:ty, $job:expr) => {{
        // By reference: a copy reads in vectors what was just written field by field, which waits for each to arrive (2 % of a prompt).
        let job = &$job;
        macro_rules! tile {
            ($m:literal, $many:literal, $few:literal) => {
                if <$S>::MANY_REGISTERS {
                    $simd.enter($Tile::<$E, $m, $many> { job, source: PhantomData })
                } else {
                    $simd.enter($Tile::<$E, $m, $few> { job, source: PhantomData })
                }
            };
        }
        match job.queries {
            1 => tile!(1, 4, 4),
            2 => tile!(2, 4, 4),
            3 => tile!(3, 4, 2),
            4 => tile!(4, 4, 2),
            5 => tile!(5, 4, 2),
            6 => tile!(6, 4, 2),
            7 => tile!(7, 2, 1),
            _ => tile!(8, 2, 1),
        }
    }};
}

impl Scores<'_> {
    /// # Safety
    /// The pointers hold what their comments say, and nothing else uses `out` meanwhile.
    #[inline(always)]
    pub unsafe fn run<S: Simd>(self, simd: S) {
        assert!((1..=MAX_PANEL).contains(&self.queries));
        match self.keys.format {
            KvFormat::F32 => by_queries!(simd: S, ScoreTile, F32, self),
            KvFormat::F16 => by_queries!(simd: S, ScoreTile, F16, self),
            KvFormat::Bf16 => by_queries!(simd: S, ScoreTile, Bf16, self),
            KvFormat::I8 => by_queries!(simd: S, ScoreTile, I8, self),
            KvFormat::Q8_0 => by_queries!(simd: S, ScoreTile, Q8_0, self),
            _ => unreachable!("a sealed page is widened first"),
        }
    }
}

impl Outputs<'_> {
    /// # Safety
    /// The pointers hold what their comments say, and nothing else uses `acc` meanwhile.
    #[inline(always)]
    pub unsafe fn run<S: Simd>(self, simd: S) {
        assert!((1..=MAX_PANEL).contains(&self.queries));
        match self.values.format {
            KvFormat::F32 => by_queries!(simd: S, OutputTile, F32, self),
            KvFormat::F16 => by_queries!(simd: S, OutputTile, F16, self),
            KvFormat::Bf16 => by_queries!(simd: S, OutputTile, Bf16, self),
            KvFormat::I8 => by_queries!(simd: S, OutputTile, I8, self),
            KvFormat::Q8_0 => by_queries!(simd: S, OutputTile, Q8_0, self),
            _ => unreachable!("a sealed page is widened first"),
        }
    }
}

/// [`Scores`] for `M` queries, `NV` vectors of slots at a time. Made only by [`Scores::run`], whose caller owes the
/// memory behind the pointers.
struct ScoreTile<'a, E, const M: usize, const NV: usize> {
    job: &'a Scores<'a>,
    source: PhantomData<E>,
}

impl<E: Source, const M: usize, const NV: usize> Kernel for ScoreTile<'_, E, M, NV> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let vectors = self.job.width / S::LANES;
        let (mut at, mut fetch) = (0, Fetch::new(self.job.keys.ahead));
        while at + NV <= vectors {
            // SAFETY: the vectors lie within the width, and the maker of `self` vouched for the pointers.
            unsafe { self.columns::<S, NV>(simd, at * S::LANES, &mut fetch) };
            at += NV;
        }
        while NV > 2 && at + 2 <= vectors {
            // SAFETY: as above.
            unsafe { self.columns::<S, 2>(simd, at * S::LANES, &mut fetch) };
            at += 2;
        }
        while at < vectors {
            // SAFETY: as above.
            unsafe { self.columns::<S, 1>(simd, at * S::LANES, &mut fetch) };
            at += 1;
        }
    }
}

impl<E: Source, const M: usize, const NV: usize> ScoreTile<'_, E, M, NV> {
    /// Adds the products of `R` channels from `c` on.
    ///
    /// # Safety
    /// These rows of the keys have N vectors from `first` on, and `q` a row of M queries per channel.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)] // a register tile and what it reads
    unsafe fn rows<S: Simd, const N: usize, const R: usize>(
        &self,
        simd: S,
        c: usize,
        first: usize,
        factors: &[S::F; N],
        fetch: &mut Fetch,
        near: Near,
        acc: &mut [[S::F; N]; M],
    ) {
        let &Operand { data, stride, .. } = self.job.keys;
        // SAFETY: by the contract.
        unsafe {
            let from = data.add((c * stride + first) * E::WIDTH);
            fetch.step(simd, R * N * S::LANES * E::WIDTH);
            near.step(simd, c, R, from, stride * E::WIDTH);
            for r in 0..R {
                let mut k: [S::F; N] = load_row::<S, E, N>(simd, from.add(r * stride * E::WIDTH));
                for j in 0..N {
                    if E::BLOCKS {
                        k[j] = simd.mul(k[j], factors[j]);
                    }
                }
                for m in 0..M {
                    let q = simd.splat(*self.job.q.add((c + r) * M + m));
                    for j in 0..N {
                        acc[m][j] = simd.fma(q, k[j], acc[m][j]);
                    }
                }
            }
        }
    }

    /// The slots from `first` on, `N` vectors of them.
    ///
    /// # Safety
    /// They lie within the width, and the pointers hold what their comments say.
    #[inline(always)]
    unsafe fn columns<S: Simd, const N: usize>(&self, simd: S, first: usize, fetch: &mut Fetch) {
        let Scores { head_dim, slot_factors, out, .. } = *self.job;
        let &Operand { factors: block_factors, wide, .. } = self.job.keys;
        let near = Near::new(head_dim, N * S::LANES * E::WIDTH, wide, M);
        let mut acc = [[simd.splat(0.0); N]; M];
        for block in (0..head_dim).step_by(if E::BLOCKS { BLOCK } else { head_dim }) {
            let channels = if E::BLOCKS { BLOCK } else { head_dim };
            let mut factors = [simd.splat(1.0); N];
            if E::BLOCKS {
                // SAFETY: each block has a row of STRIP factors, N vectors of them from `first` on.
                factors = unsafe {
                    load_row::<S, F32, N>(simd, block_factors.add(block / BLOCK * STRIP + first).cast())
                };
            }
            let (mut c, end) = (block, block + channels);
            // SAFETY: rows `c` and on of the keys have N vectors from `first` on.
            unsafe {
                while c + ROWS <= end {
                    self.rows::<S, N, ROWS>(simd, c, first, &factors, fetch, near, &mut acc);
                    c += ROWS;
                }
                while c < end {
                    self.rows::<S, N, 1>(simd, c, first, &factors, fetch, near, &mut acc);
                    c += 1;
                }
            }
        }
        if let Some(factors) = slot_factors {
            for j in 0..N {
                // SAFETY: a factor per slot of the width.
                let factor = unsafe { simd.load(factors.add(first + j * S::LANES)) };
                for m in 0..M {
                    acc[m][j] = simd.mul(acc[m][j], factor);
                }
            }
        }
        for (m, acc) in acc.iter().enumerate() {
            for (j, acc) in acc.iter().enumerate() {
                // SAFETY: `out` has M rows of STRIP numbers.
                unsafe { simd.store(out.add(m * STRIP + first + j * S::LANES), *acc) };
            }
        }
    }
}

/// [`Outputs`] for `M` queries, `NV` vectors of channels at a time. Made only by [`Outputs::run`], whose caller owes
/// the memory behind the pointers.
struct OutputTile<'a, E, const M: usize, const NV: usize> {
    job: &'a Outputs<'a>,
    source: PhantomData<E>,
}

impl<E: Source, const M: usize, const NV: usize> Kernel for OutputTile<'_, E, M, NV> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let vectors = self.job.channels / S::LANES;
        let (mut at, mut fetch) = (0, Fetch::new(self.job.values.ahead));
        while at + NV <= vectors {
            // SAFETY: the vectors lie within the channels, and the maker of `self` vouched for the pointers.
            unsafe { self.columns::<S, NV>(simd, at * S::LANES, &mut fetch) };
            at += NV;
        }
        while NV > 2 && at + 2 <= vectors {
            // SAFETY: as above.
            unsafe { self.columns::<S, 2>(simd, at * S::LANES, &mut fetch) };
            at += 2;
        }
        while at < vectors {
            // SAFETY: as above.
            unsafe { self.columns::<S, 1>(simd, at * S::LANES, &mut fetch) };
            at += 1;
        }
    }
}

impl<E: Source, const M: usize, const NV: usize> OutputTile<'_, E, M, NV> {
    /// Adds the products of `R` slots from `s` on.
    ///
    /// # Safety
    /// These rows of the values have N vectors from `first` on, and `p` a number per query and slot.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)] // as of scores
    unsafe fn rows<S: Simd, const N: usize, const R: usize>(
        &self,
        simd: S,
        s: usize,
        first: usize,
        fetch: &mut Fetch,
        near: Near,
        acc: &mut [[S::F; N]; M],
    ) {
        let Outputs { channels, p, .. } = *self.job;
        let &Operand { data, stride, factors, .. } = self.job.values;
        // SAFETY: by the contract.
        unsafe {
            let row = data.add((s * stride + first) * E::WIDTH);
            fetch.step(simd, R * N * S::LANES * E::WIDTH);
            near.step(simd, s, R, row, stride * E::WIDTH);
            for r in 0..R {
                let mut v: [S::F; N] = load_row::<S, E, N>(simd, row.add(r * stride * E::WIDTH));
                for j in 0..N {
                    if E::BLOCKS {
                        let block = (first + j * S::LANES) / BLOCK;
                        let factor = *factors.add((s + r) * (channels / BLOCK) + block);
                        v[j] = simd.mul(v[j], simd.splat(factor));
                    }
                }
                for m in 0..M {
                    let p = simd.splat(*p.add(m * STRIP + s + r));
                    for j in 0..N {
                        acc[m][j] = simd.fma(p, v[j], acc[m][j]);
                    }
                }
            }
        }
    }

    /// The channels from `first` on, `N` vectors of them.
    ///
    /// # Safety
    /// They lie within the channels, and the pointers hold what their comments say.
    #[inline(always)]
    unsafe fn columns<S: Simd, const N: usize>(&self, simd: S, first: usize, fetch: &mut Fetch) {
        let Outputs { channels, from, to, rescale, acc: out, .. } = *self.job;
        let wide = self.job.values.wide;
        let near = Near::new(to, N * S::LANES * E::WIDTH, wide, M);
        let mut acc = [[simd.splat(0.0); N]; M];
        for m in 0..M {
            for j in 0..N {
                // SAFETY: `out` has M rows of `channels` numbers, `rescale` has M.
                unsafe {
                    let before = simd.load(out.add(m * channels + first + j * S::LANES));
                    acc[m][j] = simd.mul(before, simd.splat(*rescale.add(m)));
                }
            }
        }
        let mut s = from;
        // SAFETY: rows `s` and on of the values have N vectors from `first` on.
        unsafe {
            while s + ROWS <= to {
                self.rows::<S, N, ROWS>(simd, s, first, fetch, near, &mut acc);
                s += ROWS;
            }
            while s < to {
                self.rows::<S, N, 1>(simd, s, first, fetch, near, &mut acc);
                s += 1;
            }
        }
        for (m, acc) in acc.iter().enumerate() {
            for (j, acc) in acc.iter().enumerate() {
                // SAFETY: as above.
                unsafe { simd.store(out.add(m * channels + first + j * S::LANES), *acc) };
            }
        }
    }
}

/// `N` vectors of numbers one behind the other.
///
/// # Safety
/// `N * S::LANES` numbers may be read at `p`.
#[inline(always)]
unsafe fn load_row<S: Simd, E: Source, const N: usize>(simd: S, p: *const u8) -> [S::F; N] {
    let mut row = [simd.splat(0.0); N];
    for (j, vector) in row.iter_mut().enumerate() {
        // SAFETY: vector `j` of N.
        *vector = unsafe { E::load(simd, p.add(j * S::LANES * E::WIDTH)) };
    }
    row
}
