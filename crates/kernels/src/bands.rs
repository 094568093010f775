//! Memory in which the workers of a team pack the groups of a mapped matrix just before they multiply them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::aligned::AlignedBytes;
use crate::error::KernelError;

/// Keeps the locks of different workers on different cache lines.
#[repr(align(128))]
struct Band(Mutex<Option<AlignedBytes>>);

/// One band a worker; none has memory until a product asks for it.
pub(crate) struct Bands {
    workers: Box<[Band]>, // (threads)
    len: AtomicUsize,     // bytes that each band has at least
}

impl Bands {
    pub fn new(threads: usize) -> Bands {
        Bands { workers: (0..threads).map(|_| Band(Mutex::new(None))).collect(), len: AtomicUsize::new(0) }
    }

    /// Makes every band `len` bytes long at least. Allocates only if one is shorter.
    ///
    /// # Errors
    /// [`BandMemory`](KernelError::BandMemory).
    pub fn reserve(&self, len: usize) -> Result<(), KernelError> {
        if len <= self.len.load(Ordering::Acquire) {
            return Ok(());
        }
        for band in &self.workers {
            let mut band = lock(&band.0);
            if band.as_mut().is_none_or(|band| band.as_mut_slice().len() < len) {
                let threads = self.workers.len();
                *band = Some(
                    AlignedBytes::zeroed_on_large_pages(len)
                        .ok_or(KernelError::BandMemory { bytes: len, threads })?,
                );
            }
        }
        self.len.fetch_max(len, Ordering::Release);
        Ok(())
    }

    /// Hands `work` the band of `worker`.
    pub fn with<R>(&self, worker: usize, work: impl FnOnce(&mut [u8]) -> R) -> R {
        match lock(&self.workers[worker].0).as_mut() {
            Some(band) => work(band.as_mut_slice()),
            None => work(&mut []),
        }
    }
}

/// Locks; what a panic leaves half written in a band is packed again before it is read.
fn lock(band: &Mutex<Option<AlignedBytes>>) -> MutexGuard<'_, Option<AlignedBytes>> {
    band.lock().unwrap_or_else(PoisonError::into_inner)
}
