//! Memory that several owners share: bytes that start on a cache line, with the count of their owners on the line before.
//!
//! An `Arc` of a buffer is two steps away from its bytes, and the step in between is a line that has left the cache when
//! a page of a long context is read again a token later: 14 % of a step of Quest, which reads pages of 16 slots.

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering, fence};

use crate::shared_slice::SharedSlice;
use crate::team::Team;

/// A cache line; also the room before the bytes.
const LINE: usize = 64;
/// What the allocator is asked for: with more, the standard library would zero by hand.
const ALLOCATED: usize = 16;

/// Memory that a thread clears at a time.
const CLEARED: usize = 1 << 20;

/// On the line before the bytes.
struct Header {
    owners: AtomicUsize,
    allocated: NonNull<u8>,
}

/// Bytes with counted owners.
pub struct SharedBytes {
    start: NonNull<u8>, // on a cache line, a header before it
    len: usize,
}

// SAFETY: shared bytes are only read, and whoever writes is the only owner.
unsafe impl Send for SharedBytes {}
// SAFETY: as above.
unsafe impl Sync for SharedBytes {}

impl SharedBytes {
    /// `len` zeros with one owner, or `None` when memory is short.
    pub fn zeroed(len: usize) -> Option<SharedBytes> {
        // SAFETY: the size is not zero.
        let allocated = NonNull::new(unsafe { alloc_zeroed(Self::layout(len)?) })?;
        // SAFETY: allocated with the layout for `len`, all zeros.
        Some(unsafe { Self::within(allocated, len) })
    }

    /// `count` times [`zeroed`](SharedBytes::zeroed), cleared by all threads of a team: what takes time is the system handing out memory that is
    /// touched for the first time, and allocators clear memory of some KB by hand, which is 8 µs for 16 KB (docs/kernels-log.md).
    pub fn zeroed_many(team: &Team, count: usize, len: usize) -> Option<Vec<SharedBytes>> {
        let mut all = Vec::new();
        all.try_reserve_exact(count).ok()?;
        for _ in 0..count {
            // SAFETY: the size is not zero.
            let allocated = NonNull::new(unsafe { alloc(Self::layout(len)?) })?;
            // SAFETY: allocated with the layout for `len`; it is cleared below, before anyone reads it.
            all.push(unsafe { Self::within(allocated, len) });
        }
        let at_a_time = (CLEARED / len.max(1)).max(1);
        let clear = |each: &mut [SharedBytes]| {
            for bytes in each {
                // SAFETY: `len` bytes from `start` on were allocated, and nobody else owns them yet.
                unsafe { bytes.start.as_ptr().write_bytes(0, len) };
            }
        };
        if count <= at_a_time {
            clear(&mut all);
            return Some(all);
        }
        let shared = SharedSlice::new(&mut all);
        team.run(count.div_ceil(at_a_time), &|tile, _| {
            let first = tile * at_a_time;
            // SAFETY: each tile has bytes of its own.
            clear(unsafe { shared.part(first, at_a_time.min(count - first)) });
        });
        Some(all)
    }

    /// The bytes inside of an allocation, with one owner.
    ///
    /// # Safety
    /// It was made with [`layout`](SharedBytes::layout) for `len`, and the bytes are initialized before they are read.
    unsafe fn within(allocated: NonNull<u8>, len: usize) -> SharedBytes {
        let offset =
            (allocated.as_ptr() as usize + LINE).next_multiple_of(LINE) - allocated.as_ptr() as usize;
        // SAFETY: the offset is from one line to below two, the room that the layout has beside the bytes; so the line
        // before `start` is inside of the allocation, and it is aligned for a header.
        let start = unsafe {
            let start = allocated.add(offset);
            start.sub(LINE).cast::<Header>().write(Header { owners: AtomicUsize::new(1), allocated });
            start
        };
        SharedBytes { start, len }
    }

    fn layout(len: usize) -> Option<Layout> {
        Layout::from_size_align(len.checked_add(2 * LINE)?, ALLOCATED).ok()
    }

    fn header(&self) -> &Header {
        // SAFETY: written in `zeroed`, and alive as long as an owner is.
        unsafe { self.start.sub(LINE).cast::<Header>().as_ref() }
    }

    /// The bytes.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: `len` bytes from `start` on were allocated, are initialized, and are written by an only owner alone.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    /// The bytes to write to, where there is no other owner.
    pub fn get_mut(&mut self) -> Option<&mut [u8]> {
        // Acquires what owners that are gone have done.
        if self.header().owners.load(Ordering::Acquire) != 1 {
            return None;
        }
        // SAFETY: as in `as_slice`; nobody else owns them, and a new owner would have to borrow `self`.
        Some(unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) })
    }
}

impl Clone for SharedBytes {
    /// One more owner of the same bytes.
    fn clone(&self) -> SharedBytes {
        let owners = self.header().owners.fetch_add(1, Ordering::Relaxed);
        if owners > isize::MAX as usize {
            std::process::abort(); // as `Arc`: a count that wraps would free what is in use
        }
        SharedBytes { start: self.start, len: self.len }
    }
}

impl Drop for SharedBytes {
    fn drop(&mut self) {
        if self.header().owners.fetch_sub(1, Ordering::Release) != 1 {
            return;
        }
        fence(Ordering::Acquire);
        let allocated = self.header().allocated;
        if let Some(layout) = Self::layout(self.len) {
            // SAFETY: allocated in `zeroed` with this layout, and this was the last owner.
            unsafe { dealloc(allocated.as_ptr(), layout) }
        }
    }
}

impl std::fmt::Debug for SharedBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SharedBytes({})", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_are_zero_wherever_the_memory_was_used_before() {
        let team = Team::new(3).unwrap();
        for (count, len) in [(0, 100), (1, 0), (3, 5000), (300, 16384), (5, CLEARED + 1)] {
            let mut used = SharedBytes::zeroed_many(&team, count, len).unwrap();
            used.iter_mut().for_each(|bytes| bytes.get_mut().unwrap().fill(0xff));
            drop(used);
            let again = SharedBytes::zeroed_many(&team, count, len).unwrap();
            assert_eq!(again.len(), count);
            for bytes in &again {
                assert!(bytes.as_slice().len() == len && bytes.as_slice().iter().all(|byte| *byte == 0));
            }
        }
        assert!(SharedBytes::zeroed_many(&team, 2, usize::MAX - 8).is_none());
        assert!(SharedBytes::zeroed_many(&team, usize::MAX, 64).is_none());
    }

    #[test]
    fn bytes_are_zero_on_a_line_and_written_by_an_only_owner() {
        for len in [0, 1, 63, 64, 4096, 16384] {
            let mut bytes = SharedBytes::zeroed(len).unwrap();
            assert_eq!(bytes.as_slice().as_ptr() as usize % LINE, 0);
            assert_eq!(bytes.as_slice(), vec![0; len]);
            bytes.get_mut().unwrap().fill(7);
            let mut other = bytes.clone();
            assert!(bytes.get_mut().is_none() && other.get_mut().is_none());
            assert_eq!(other.as_slice().as_ptr(), bytes.as_slice().as_ptr());
            drop(bytes);
            other.get_mut().unwrap().fill(8);
            assert_eq!(other.as_slice(), vec![8; len]);
        }
        assert!(SharedBytes::zeroed(usize::MAX - 8).is_none());
    }

    #[test]
    fn owners_on_many_threads_free_it_once() {
        let bytes = SharedBytes::zeroed(1000).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(|_| assert_eq!(bytes.clone().as_slice()[999], 0)));
            }
        });
        let mut bytes = bytes;
        assert!(bytes.get_mut().is_some(), "all others are gone");
    }
}
