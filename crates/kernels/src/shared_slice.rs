//! A slice that the tiles of one region write in disjoint parts.

use std::marker::PhantomData;

/// A mutable slice that several threads hold, each using its own part.
#[derive(Clone, Copy)]
pub(crate) struct SharedSlice<'a, T> {
    start: *mut T,
    len: usize,
    lives: PhantomData<&'a mut [T]>,
}

// SAFETY: it is a `&mut [T]` that the callers of `part` promise to divide among them.
unsafe impl<T: Send> Sync for SharedSlice<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for SharedSlice<'_, T> {}

impl<'a, T> SharedSlice<'a, T> {
    pub fn new(slice: &'a mut [T]) -> SharedSlice<'a, T> {
        SharedSlice { start: slice.as_mut_ptr(), len: slice.len(), lives: PhantomData }
    }

    /// The first element.
    pub fn as_ptr(&self) -> *const T {
        self.start
    }

    /// Elements of the whole slice.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The elements `first..first + len`.
    ///
    /// # Safety
    /// Nobody else uses any of these elements while the result lives.
    #[allow(clippy::mut_from_ref)] // that is what it is for
    #[inline]
    pub unsafe fn part(&self, first: usize, len: usize) -> &mut [T] {
        assert!(first <= self.len && len <= self.len - first, "part outside the slice");
        // SAFETY: inside the slice by the line above, unshared by the contract.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(first), len) }
    }
}
