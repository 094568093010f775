//! Memory that starts on a cache line.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;

/// A cache line: a line of a packed matrix is then one load that touches one line.
const LINE: usize = 64;
/// What the allocator is asked for. More than this and the standard library zeroes by hand, on one thread; up to
/// this the system hands out zero pages that whoever packs into them touches first.
const ALLOCATED: usize = 16;

/// Bytes on the heap, the first of them on a cache line.
pub struct AlignedBytes {
    allocated: NonNull<u8>,
    start: usize, // offset of the first byte on a cache line
    len: usize,
}

// SAFETY: it owns its bytes, like a `Vec<u8>`.
unsafe impl Send for AlignedBytes {}
// SAFETY: as above; shared access only reads.
unsafe impl Sync for AlignedBytes {}

impl AlignedBytes {
    /// `len` zeros, or `None` when memory is short.
    pub fn zeroed(len: usize) -> Option<AlignedBytes> {
        let layout = Self::layout(len)?;
        // SAFETY: the size is not zero.
        let allocated = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        advise_huge_pages(allocated.as_ptr(), layout.size());
        let start = (allocated.as_ptr() as usize).next_multiple_of(LINE) - allocated.as_ptr() as usize;
        Some(AlignedBytes { allocated, start, len })
    }

    fn layout(len: usize) -> Option<Layout> {
        Layout::from_size_align(len.checked_add(LINE)?, ALLOCATED).ok()
    }

    /// The bytes, to write to.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: `start + len` bytes, start being below LINE, were allocated, zeroed, and live as long as `self`, which is
        // borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.allocated.as_ptr().add(self.start), self.len) }
    }
}

impl std::fmt::Debug for AlignedBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AlignedBytes({})", self.len)
    }
}

/// Asks for pages of 2 MiB: 512 times fewer faults while packing, and no page border every 4 KiB in the streams of
/// decode. A system that refuses gives small pages as before.
#[cfg(target_os = "linux")]
fn advise_huge_pages(start: *mut u8, len: usize) {
    const HUGE: usize = 2 << 20;
    const MADV_HUGEPAGE: i32 = 14; // linux/mman.h
    unsafe extern "C" {
        fn madvise(start: *mut std::ffi::c_void, len: usize, advice: i32) -> i32;
    }
    let first = (start as usize).next_multiple_of(HUGE);
    let end = (start as usize + len) / HUGE * HUGE;
    if first < end {
        // SAFETY: the range is inside one allocation, and the advice changes no byte of it.
        let _refused = unsafe { madvise(first as *mut std::ffi::c_void, end - first, MADV_HUGEPAGE) };
    }
}

#[cfg(not(target_os = "linux"))]
fn advise_huge_pages(_start: *mut u8, _len: usize) {}

impl Drop for AlignedBytes {
    fn drop(&mut self) {
        if let Some(layout) = Self::layout(self.len) {
            // SAFETY: allocated in `zeroed` with this layout.
            unsafe { dealloc(self.allocated.as_ptr(), layout) }
        }
    }
}
