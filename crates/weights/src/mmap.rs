//! Read-only bytes of a weight file: mapped from disk, shared, or embedded in the binary.

use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use crate::WeightsError;

/// Largest page of the systems we run on (64 KiB, aarch64); a multiple of all smaller ones.
#[cfg(unix)]
const LARGEST_PAGE: usize = 64 * 1024;

/// The bytes of one file and the name by which errors speak of it.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) name: String,
    bytes: Bytes,
}

#[derive(Debug)]
enum Bytes {
    Mapped(memmap2::Mmap),
    Shared(Arc<[u8]>),
    Static(&'static [u8]),
}

impl Source {
    /// Maps `path`. Pages are read from disk when first touched.
    pub(crate) fn map(path: &Path) -> Result<Source, WeightsError> {
        let name = path.display().to_string();
        let io = |action| {
            let file = name.clone();
            move |source| WeightsError::Io { file, action, source }
        };
        // Asked before opening: opening a pipe waits for whoever writes to it.
        if !std::fs::metadata(path).map_err(io("open"))?.is_file() {
            return Err(WeightsError::NotACheckpoint { file: name, why: "not a regular file".to_owned() });
        }
        let file = File::open(path).map_err(io("open"))?;
        let map = map_file(&file).map_err(io("map"))?;
        Ok(Source { name, bytes: Bytes::Mapped(map) })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Mapped(map) => map,
            Bytes::Shared(bytes) => bytes,
            Bytes::Static(bytes) => bytes,
        }
    }

    /// Lets the system take back the pages of `range` that are resident; they are read from disk again when touched.
    /// Whole pages inside the range only, so a neighbour's bytes stay.
    #[cfg(unix)]
    #[allow(unsafe_code)]
    pub(crate) fn release(&self, range: Range<usize>) {
        let Bytes::Mapped(map) = &self.bytes else { return };
        let (start, end) =
            (range.start.next_multiple_of(LARGEST_PAGE), range.end / LARGEST_PAGE * LARGEST_PAGE);
        if start < end {
            // SAFETY: the mapping is shared, read-only and backed by the file, so a page that is dropped comes back with
            // the file's bytes. It is advice: a system that declines changes nothing, and there is nothing to report.
            let _ =
                unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, end - start) };
        }
    }

    #[cfg(not(unix))]
    pub(crate) fn release(&self, _range: Range<usize>) {}

    pub(crate) fn memory(name: &str, bytes: MemoryBytes) -> Source {
        let bytes = match bytes {
            MemoryBytes::Shared(bytes) => Bytes::Shared(bytes),
            MemoryBytes::Static(bytes) => Bytes::Static(bytes),
        };
        Source { name: name.to_owned(), bytes }
    }
}

#[allow(unsafe_code)]
fn map_file(file: &File) -> std::io::Result<memmap2::Mmap> {
    // SAFETY: the mapping is private and read-only, and every offset handed out was checked against its length at
    // opening. What cannot be excluded is another process changing the file while it is mapped: bytes that change only
    // change numbers (they are decoded as plain integers and floats, for which every bit pattern is valid, and the
    // header is parsed into owned values once), while shrinking the file ends the process with SIGBUS. Copying the
    // weights would exclude that at the price of twice the memory; like its peers, this crate asks that weight
    // files be replaced (new file, rename), not rewritten in place.
    unsafe { memmap2::Mmap::map(file) }
}

/// Bytes already in memory: shared by reference count, or living as long as the program (`include_bytes!`).
#[derive(Debug, Clone)]
pub enum MemoryBytes {
    /// Counted.
    Shared(Arc<[u8]>),
    /// Embedded.
    Static(&'static [u8]),
}

impl From<Arc<[u8]>> for MemoryBytes {
    fn from(bytes: Arc<[u8]>) -> Self {
        MemoryBytes::Shared(bytes)
    }
}

impl From<Vec<u8>> for MemoryBytes {
    fn from(bytes: Vec<u8>) -> Self {
        MemoryBytes::Shared(bytes.into())
    }
}

impl From<&'static [u8]> for MemoryBytes {
    fn from(bytes: &'static [u8]) -> Self {
        MemoryBytes::Static(bytes)
    }
}

impl<const N: usize> From<&'static [u8; N]> for MemoryBytes {
    fn from(bytes: &'static [u8; N]) -> Self {
        MemoryBytes::Static(bytes)
    }
}
