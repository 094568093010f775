//! What will be read next, and fetching it line by line while something else is read.
//!
//! Lines are asked for in the order in which they lie, whatever the order in which a tile walks its operand: a tile of 7
//! queries reads a row of 128 bytes in two passes of half a row, and asking for every other line and then for the rest got a
//! third less out of memory than asking for one after the other (docs/kernels-log.md).

use crate::vectors::Simd;

const LINE: usize = 64;

/// Memory that will be read next: rows of some bytes. Nothing is read of it here, so it may be gone.
#[derive(Clone, Copy)]
pub(super) struct Ahead {
    first: *const u8,
    rows: usize,
    row_lines: usize,
    stride: usize, // bytes
}

impl Ahead {
    /// Nothing.
    pub const NONE: Ahead = Ahead { first: std::ptr::null(), rows: 0, row_lines: 0, stride: 0 };

    /// The first `bytes` of `from`, or as many as there are.
    #[inline(always)]
    pub fn run(from: &[u8], bytes: usize) -> Ahead {
        Ahead { first: from.as_ptr(), rows: 1, row_lines: from.len().min(bytes).div_ceil(LINE), stride: 0 }
    }

    /// `rows` rows of `row` bytes that begin every `stride` bytes from the start of `from` on.
    #[inline(always)]
    pub fn rows(from: &[u8], rows: usize, row: usize, stride: usize) -> Ahead {
        if row == stride {
            return Ahead::run(from, rows * row);
        }
        Ahead { first: from.as_ptr(), rows, row_lines: row.div_ceil(LINE), stride }
    }

    /// Fetches all of it at once.
    #[inline(always)]
    pub fn fetch<S: Simd>(self, simd: S) {
        let mut fetch = Fetch::new(self);
        (0..self.rows * self.row_lines).for_each(|_| fetch.line(simd));
    }
}

/// How far the fetching of an [`Ahead`] has come.
pub(super) struct Fetch {
    next: *const u8,
    left: usize, // lines of this row
    row: *const u8,
    ahead: Ahead, // its rows are those left after this one
    due: usize,   // bytes read since the last line was asked for
}

impl Fetch {
    #[inline(always)]
    pub fn new(ahead: Ahead) -> Fetch {
        Fetch { next: ahead.first, left: 0, row: ahead.first, ahead, due: 0 }
    }

    /// As much is fetched as was read.
    #[inline(always)]
    pub fn step<S: Simd>(&mut self, simd: S, read: usize) {
        if read.is_multiple_of(LINE) {
            (0..read / LINE).for_each(|_| self.line(simd));
            return;
        }
        self.due += read;
        while self.due >= LINE {
            self.due -= LINE;
            self.line(simd);
        }
    }

    #[inline(always)]
    fn line<S: Simd>(&mut self, simd: S) {
        if self.left == 0 && !self.next_row() {
            return;
        }
        simd.prefetch(self.next);
        self.next = self.next.wrapping_add(LINE);
        self.left -= 1;
    }

    /// Whether there is one.
    #[inline(always)]
    fn next_row(&mut self) -> bool {
        if self.ahead.rows == 0 || self.ahead.row_lines == 0 {
            return false;
        }
        self.ahead.rows -= 1;
        (self.next, self.left) = (self.row, self.ahead.row_lines);
        self.row = self.row.wrapping_add(self.ahead.stride);
        true
    }
}
