//! Memory that starts on a cache line, or on a large page where it fills one.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// A cache line: a line of a packed matrix is then one load that touches one line.
const LINE: usize = 64;
/// A large page: 512 times fewer faults, and no page border every 4 KiB.
const LARGE_PAGE: usize = 2 << 20;
/// What the allocator is asked for. More than this and the standard library zeroes by hand, on one thread; up to
/// this the system hands out zero pages that whoever writes to them touches first.
const ALLOCATED: usize = 16;

/// Bytes on the heap. They start on a cache line, and from 2 MiB on they are whole large pages, should the system give any.
pub(crate) struct AlignedBytes {
    allocated: NonNull<u8>,
    start: usize, // offset of the first byte that is used
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
        let at = allocated.as_ptr() as usize;
        Some(AlignedBytes { allocated, start: at.next_multiple_of(Self::unit(len)) - at, len })
    }

    /// The same, on large pages: what is touched of it is touched all over.
    pub fn zeroed_on_large_pages(len: usize) -> Option<AlignedBytes> {
        let bytes = Self::zeroed(len)?;
        bytes.ask_for_large_pages();
        Some(bytes)
    }

    /// What the first byte lies on, and what is reserved a multiple of.
    fn unit(len: usize) -> usize {
        if len < LARGE_PAGE { LINE } else { LARGE_PAGE }
    }

    fn layout(len: usize) -> Option<Layout> {
        let unit = Self::unit(len);
        Layout::from_size_align(len.checked_next_multiple_of(unit)?.checked_add(unit)?, ALLOCATED).ok()
    }

    /// Asks for large pages behind what is touched from now on; the last one if the bytes fill half of it. A system that
    /// refuses gives small pages as before.
    pub fn ask_for_large_pages(&self) {
        if self.len >= LARGE_PAGE {
            let pages = (self.len + LARGE_PAGE / 2) / LARGE_PAGE;
            // SAFETY: `start` is inside of the allocation.
            let start = unsafe { self.allocated.as_ptr().add(self.start) };
            advise_large_pages(start, pages * LARGE_PAGE);
        }
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: `start + len` bytes were allocated, zeroed, and live as long as `self`.
        unsafe { std::slice::from_raw_parts(self.allocated.as_ptr().add(self.start), self.len) }
    }

    /// The bytes, to write to.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as above; `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.allocated.as_ptr().add(self.start), self.len) }
    }
}

impl std::fmt::Debug for AlignedBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AlignedBytes({})", self.len)
    }
}

/// Asks for pages of 2 MiB from `start` on, which lies on one.
#[cfg(target_os = "linux")]
fn advise_large_pages(start: *mut u8, len: usize) {
    const MADV_HUGEPAGE: i32 = 14; // linux/mman.h
    unsafe extern "C" {
        fn madvise(start: *mut std::ffi::c_void, len: usize, advice: i32) -> i32;
    }
    // SAFETY: the range is inside one allocation, and the advice changes no byte of it.
    let _refused = unsafe { madvise(start.cast(), len, MADV_HUGEPAGE) };
}

#[cfg(not(target_os = "linux"))]
fn advise_large_pages(_start: *mut u8, _len: usize) {}

impl Drop for AlignedBytes {
    fn drop(&mut self) {
        if let Some(layout) = Self::layout(self.len) {
            // SAFETY: allocated in `zeroed` with this layout.
            unsafe { dealloc(self.allocated.as_ptr(), layout) }
        }
    }
}

/// Numbers of which every pattern of bits is one, and which have no alignment beyond a cache line.
///
/// # Safety
/// That is so.
pub unsafe trait Number: Copy {}

// SAFETY: any four bytes are one.
unsafe impl Number for f32 {}
// SAFETY: as above.
unsafe impl Number for i32 {}
// SAFETY: as above.
unsafe impl Number for u32 {}
// SAFETY: any two bytes are one.
unsafe impl Number for i16 {}
// SAFETY: as above.
unsafe impl Number for u16 {}
// SAFETY: any byte is one.
unsafe impl Number for i8 {}
// SAFETY: as above.
unsafe impl Number for u8 {}

/// Numbers on the heap, zero at first, for what the steps of a session write and read. The system keeps no memory for
/// what is never touched. They start on a cache line.
pub struct Buffer<T> {
    bytes: AlignedBytes,
    len: usize,
    numbers: PhantomData<T>,
}

impl<T: Number> Buffer<T> {
    /// `len` zeros, or `None` when memory is short.
    pub fn zeroed(len: usize) -> Option<Buffer<T>> {
        let bytes = AlignedBytes::zeroed(len.checked_mul(size_of::<T>())?)?;
        Some(Buffer { bytes, len, numbers: PhantomData })
    }

    /// Asks for pages of 2 MiB behind what is touched from now on. A prompt's rows touch a page each in every column of
    /// outputs; one token's touch little of a large page.
    pub fn ask_for_large_pages(&self) {
        self.bytes.ask_for_large_pages();
    }
}

impl<T: Number> Deref for Buffer<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        let bytes = self.bytes.as_slice();
        // SAFETY: that many numbers fit into the bytes, which start on a cache line; any bits are one.
        unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), self.len) }
    }
}

impl<T: Number> DerefMut for Buffer<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [T] {
        let bytes = self.bytes.as_mut_slice();
        // SAFETY: as above; `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast(), self.len) }
    }
}

impl<T> std::fmt::Debug for Buffer<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer({})", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_start_where_lines_or_large_pages_do() {
        for (len, unit) in
            [(0, LINE), (1, LINE), (4097, LINE), (LARGE_PAGE - 1, LINE), (LARGE_PAGE, LARGE_PAGE)]
        {
            let mut bytes = AlignedBytes::zeroed_on_large_pages(len).unwrap();
            assert_eq!(bytes.as_slice().as_ptr() as usize % unit, 0, "{len}");
            assert_eq!(bytes.as_slice().iter().position(|&byte| byte != 0), None, "{len}");
            bytes.as_mut_slice().fill(7);
            assert_eq!(bytes.as_slice().len(), len);
        }
        assert!(AlignedBytes::zeroed(usize::MAX - 8).is_none());
        assert!(Buffer::<f32>::zeroed(usize::MAX / 4 + 2).is_none());
    }

    #[test]
    fn a_buffer_keeps_its_numbers_when_it_asks_for_large_pages() {
        let mut buffer = Buffer::<i16>::zeroed((3 << 20) + 5).unwrap();
        let last = buffer.len() - 1;
        (buffer[0], buffer[last]) = (-3, 9);
        buffer.ask_for_large_pages();
        buffer[last / 2] = 1;
        assert_eq!((buffer[0], buffer[last / 2], buffer[last]), (-3, 1, 9));
        assert_eq!(buffer.iter().filter(|&&x| x != 0).count(), 3);
    }
}
