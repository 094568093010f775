//! Memory for packed matrices: many in one chunk of large pages.
//!
//! A matrix of a small model is a few MiB, and pages of 2 MiB that begin and end with it would either miss most of it
//! or waste some. In chunks, matrices follow one another and every page is whole: decode then walks pages 512 times
//! more rarely, which is worth half of the bandwidth (docs/kernels-log.md).

use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::aligned::AlignedBytes;

/// Bytes of a chunk, at least. What is never touched of it takes no memory.
const CHUNK: usize = 64 << 20;
/// A cache line, on which each matrix starts.
const LINE: usize = 64;

/// A chunk, whose bytes are handed out once each.
struct Chunk {
    start: *mut u8,
    len: usize,
    _bytes: AlignedBytes, // what `start` points into
}

// SAFETY: it owns its bytes, and parts of them are handed out to one owner each.
unsafe impl Send for Chunk {}
// SAFETY: as above.
unsafe impl Sync for Chunk {}

impl Chunk {
    fn new(len: usize) -> Option<Chunk> {
        let mut bytes = AlignedBytes::zeroed_on_large_pages(len)?;
        let start = bytes.as_mut_slice().as_mut_ptr();
        Some(Chunk { start, len, _bytes: bytes })
    }
}

/// The chunk that is being filled and how far it is. It lives as long as a matrix in it.
static FILLING: Mutex<(Weak<Chunk>, usize)> = Mutex::new((Weak::new(), 0));

/// A part of a chunk.
pub(crate) struct ArenaBytes {
    chunk: Arc<Chunk>,
    start: usize,
    len: usize,
}

impl ArenaBytes {
    /// `len` zeros, or `None` when memory is short.
    pub fn zeroed(len: usize) -> Option<ArenaBytes> {
        let mut filling = FILLING.lock().unwrap_or_else(PoisonError::into_inner);
        let start = filling.1.next_multiple_of(LINE);
        let end = start.checked_add(len)?;
        if let Some(chunk) = filling.0.upgrade().filter(|chunk| end <= chunk.len) {
            filling.1 = end;
            return Some(ArenaBytes { chunk, start, len });
        }
        let chunk = Arc::new(Chunk::new(len.max(CHUNK))?);
        *filling = (Arc::downgrade(&chunk), len);
        Some(ArenaBytes { chunk, start: 0, len })
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: inside the chunk, initialized to zero, and handed out to this owner alone.
        unsafe { std::slice::from_raw_parts(self.chunk.start.add(self.start), self.len) }
    }

    /// The bytes, to write to.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.chunk.start.add(self.start), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_zero_apart_and_on_cache_lines() {
        let mut parts: Vec<ArenaBytes> =
            [1, 64, 0, 100, CHUNK, 7, CHUNK + 1, 3].map(|len| ArenaBytes::zeroed(len).unwrap()).into();
        for (i, part) in parts.iter_mut().enumerate() {
            assert_eq!(part.as_slice().as_ptr() as usize % LINE, 0);
            let ends = [0, part.len.saturating_sub(1)];
            for at in ends.into_iter().take(part.len) {
                assert_eq!(part.as_slice()[at], 0);
            }
            for at in ends.into_iter().take(part.len) {
                part.as_mut_slice()[at] = i as u8 + 1;
            }
        }
        for (i, part) in parts.iter().enumerate().filter(|(_, part)| part.len > 0) {
            assert_eq!([part.as_slice()[0], part.as_slice()[part.len - 1]], [i as u8 + 1; 2]);
        }
        assert!(ArenaBytes::zeroed(usize::MAX - 8).is_none());
    }
}
