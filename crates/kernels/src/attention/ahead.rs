//! What will be read next, and fetching it line by line while something else is read.
//!
//! Lines are asked for in the order in which they lie, whatever the order in which a tile walks its operand: a tile of 7
//! queries reads a row of 128 bytes in two passes of half a row, and asking for every other line and then for the rest got a
//! third less out of memory than asking for one after the other (docs/kernels-log.md).

use crate::layout::LINE;
use crate::vectors::Simd;

/// Memory that will be read next: rows of some bytes. Nothing is read of it here, so it may be gone.
#[derive(Clone, Copy)]
pub(super) struct Ahead {
    first: *const u8,
    rows: usize,
    row_lines: usize,
    stride: usize,    // bytes
    into_first: bool, // level of cache, or into the second
}

impl Ahead {
    /// Nothing.
    pub const NONE: Ahead =
        Ahead { first: std::ptr::null(), rows: 0, row_lines: 0, stride: 0, into_first: false };

    /// The first `bytes` of `from`, or as many as there are.
    #[inline(always)]
    pub fn run(from: &[u8], bytes: usize) -> Ahead {
        let row_lines = from.len().min(bytes).div_ceil(LINE);
        Ahead { first: from.as_ptr(), rows: 1, row_lines, ..Ahead::NONE }
    }

    /// `rows` rows of `row` bytes that begin every `stride` bytes from the start of `from` on.
    #[inline(always)]
    pub fn rows(from: &[u8], rows: usize, row: usize, stride: usize) -> Ahead {
        if row == stride {
            return Ahead::run(from, rows * row);
        }
        Ahead { first: from.as_ptr(), rows, row_lines: row.div_ceil(LINE), stride, ..Ahead::NONE }
    }

    /// The same, to be fetched into the first-level cache or not.
    #[inline(always)]
    pub fn into_first(self, into_first: bool) -> Ahead {
        Ahead { into_first, ..self }
    }

    /// Fetches all of it at once.
    #[inline(always)]
    pub fn fetch<S: Simd>(self, simd: S) {
        self.fetch_first(simd, usize::MAX);
    }

    /// Fetches so many lines of it at once, or as many as there are.
    #[inline(always)]
    pub fn fetch_first<S: Simd>(self, simd: S, lines: usize) {
        let mut fetch = Fetch::new(self);
        for _ in 0..lines {
            let Some(line) = fetch.line() else { return };
            fetch.ask(simd, line);
        }
    }
}

/// How far ahead of its use a row of an operand is asked for once more, from the second-level cache into the first, in bytes.
/// A row that has to come from the second holds up what is behind it, the next requests among it (docs/kernels-log.md).
/// Where several queries share a row there is enough to multiply meanwhile, and asking only costs: 0 to 10 % of the rate.
const NEAR: usize = 2048;

/// Which rows to ask for once more while an operand is read row by row.
#[derive(Clone, Copy)]
pub(super) struct Near {
    distance: usize, // rows
    end: usize,      // from here on nothing is asked for, but for the rest of a step of some rows
    row: usize,      // bytes that are read of a row
}

impl Near {
    /// Of `rows` rows, of which `row` bytes each are read: none if they were widened just now, or if several queries share them.
    #[inline(always)]
    pub fn new(rows: usize, row: usize, wide: bool, queries: usize) -> Near {
        let end = if wide || queries > 1 { 0 } else { rows };
        Near { distance: (NEAR / row).max(1), end, row }
    }

    /// Asks for what is due while `rows` rows from number `at` on are read, which lie from `from` on, `stride` bytes from row to
    /// row.
    #[inline(always)]
    pub fn step<S: Simd>(self, simd: S, at: usize, rows: usize, from: *const u8, stride: usize) {
        if at + self.distance >= self.end {
            return;
        }
        let from = from.wrapping_add(self.distance * stride);
        for row in 0..rows {
            for line in (0..self.row).step_by(LINE) {
                simd.prefetch_near(from.wrapping_add(row * stride + line));
            }
        }
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
        let mut lines = read / LINE;
        if !read.is_multiple_of(LINE) {
            lines = (self.due + read) / LINE;
            self.due = (self.due + read) % LINE;
        }
        if lines <= self.left {
            for line in 0..lines {
                self.ask(simd, self.next.wrapping_add(line * LINE));
            }
            self.next = self.next.wrapping_add(lines * LINE);
            self.left -= lines;
            return;
        }
        for _ in 0..lines {
            if let Some(line) = self.line() {
                self.ask(simd, line);
            }
        }
    }

    /// Asks for one line.
    #[inline(always)]
    fn ask<S: Simd>(&self, simd: S, line: *const u8) {
        if self.ahead.into_first { simd.prefetch_near(line) } else { simd.prefetch(line) }
    }

    /// The next line, until there are no more.
    #[inline(always)]
    fn line(&mut self) -> Option<*const u8> {
        if self.left == 0 && !self.next_row() {
            return None;
        }
        let line = self.next;
        self.next = line.wrapping_add(LINE);
        self.left -= 1;
        Some(line)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the lines begin, in bytes from the start of `page`.
    fn lines(page: &[u8], ahead: Ahead) -> Vec<usize> {
        let mut fetch = Fetch::new(ahead);
        std::iter::from_fn(|| fetch.line()).map(|line| line as usize - page.as_ptr() as usize).collect()
    }

    #[test]
    fn every_line_is_fetched_once_and_in_order() {
        let page = [0; 1000];
        assert!(lines(&page, Ahead::NONE).is_empty());
        assert!(lines(&page, Ahead::run(&page, 0)).is_empty());
        assert_eq!(lines(&page, Ahead::run(&page, 129)), [0, 64, 128]);
        // No further than the memory that it is said to lie in.
        assert_eq!(lines(&page[900..], Ahead::run(&page[900..], 4096)), [0, 64]);
        // Three rows of 128 bytes, every 256.
        assert_eq!(lines(&page, Ahead::rows(&page, 3, 128, 256)), [0, 64, 256, 320, 512, 576]);
        // Rows without a gap are one run, whatever they are cut to.
        assert_eq!(lines(&page, Ahead::rows(&page, 4, 32, 32)), [0, 64]);
    }

    #[test]
    fn as_many_lines_are_fetched_as_were_read() {
        let page = [0; 1024];
        let portable = crate::vectors::Portable;
        for read in [16, 32, 48, 64, 80, 128, 160] {
            let mut fetch = Fetch::new(Ahead::run(&page, page.len()));
            for steps in 1..=6 {
                fetch.step(portable, read);
                assert_eq!(
                    fetch.next as usize - page.as_ptr() as usize,
                    steps * read / LINE * LINE,
                    "{read}"
                );
            }
        }
    }
}
