//! Pages of the KV cache: some slots of one lane (one layer, one KV head) with their keys and values.
//!
//! The two halves of a page lie so that attention reads each of them in whole vectors: keys channel-major, because
//! a score is a sum over channels and slots then fill the lanes of a vector without any sum across lanes; values
//! slot-major, because the result is a sum over slots and channels fill the lanes.

mod codec;
mod format;
mod outliers;
mod row;
mod sealed;
mod sixteen;

use crate::error::KernelError;
use crate::table::KernelTable;
use crate::vectors::dispatch;

pub(crate) use codec::{Codec, unpack};
pub(crate) use format::BLOCK;
pub use format::KvFormat;
use row::Place;
pub(crate) use sealed::SealedHalf;
use sixteen::WriteSixteen;

/// What the bytes of a page mean: keys `(head_dim, slots)` and their scales `(scales, slots)`, then values
/// `(slots, head_dim)` and their scales `(slots, scales)`, nothing between. Formats without scales have none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PageLayout {
    key: KvFormat,
    value: KvFormat,
    slots: usize,
    head_dim: usize,
}

impl PageLayout {
    /// Slots of a page where nothing asks for another number.
    pub const DEFAULT_SLOTS: usize = 64;
    /// The widest head.
    pub const MAX_HEAD_DIM: usize = 1024;

    /// A layout whose keys and values have one format.
    ///
    /// # Errors
    /// [`KernelError::PageSlots`] unless `slots` is a power of two from 16 to 256, [`KernelError::HeadDim`] unless
    /// `head_dim` is from 1 to [`MAX_HEAD_DIM`](PageLayout::MAX_HEAD_DIM), [`KernelError::PartialKvBlock`] unless it
    /// fills the blocks of the format, [`KernelError::SealedPage`] when the format cannot seal such a page.
    pub fn new(format: KvFormat, slots: usize, head_dim: usize) -> Result<PageLayout, KernelError> {
        PageLayout::with_formats(format, format, slots, head_dim)
    }

    /// A layout whose keys and values may have different formats.
    ///
    /// # Errors
    /// As [`new`](PageLayout::new).
    pub fn with_formats(
        key: KvFormat,
        value: KvFormat,
        slots: usize,
        head_dim: usize,
    ) -> Result<PageLayout, KernelError> {
        if !slots.is_power_of_two() || !(16..=256).contains(&slots) {
            return Err(KernelError::PageSlots { slots });
        }
        if !(1..=PageLayout::MAX_HEAD_DIM).contains(&head_dim) {
            return Err(KernelError::HeadDim { head_dim });
        }
        key.check(slots, head_dim)?;
        value.check(slots, head_dim)?;
        Ok(PageLayout { key, value, slots, head_dim })
    }

    /// Format of the keys.
    pub fn key_format(&self) -> KvFormat {
        self.key
    }

    /// Format of the values.
    pub fn value_format(&self) -> KvFormat {
        self.value
    }

    /// Slots of a page.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// Channels of a key and of a value.
    pub fn head_dim(&self) -> usize {
        self.head_dim
    }

    /// Bytes of one slot as it is written: a key and a value.
    pub fn slot_bytes(&self) -> usize {
        self.key.row_bytes(self.head_dim) + self.value.row_bytes(self.head_dim)
    }

    /// Bytes of a page that is written to. There is no padding: `slots * slot_bytes`.
    pub fn page_bytes(&self) -> usize {
        self.slots * self.slot_bytes()
    }

    /// Whether full pages are to be sealed: they take fewer bytes and are never written again.
    pub fn seals(&self) -> bool {
        self.key.seals() || self.value.seals()
    }

    /// Bytes of a sealed page; those of any other where the formats do not seal.
    pub fn sealed_page_bytes(&self) -> usize {
        self.sealed_value_offset()
            + self.sealed_values().map_or(self.page_bytes() - self.value_offset(), |half| half.bytes())
    }

    /// The keys of a sealed page, `None` when they stay as they were written.
    pub(crate) fn sealed_keys(&self) -> Option<SealedHalf> {
        let (rows, columns) = (self.head_dim, self.slots);
        Codec::of(self.key).map(|codec| SealedHalf { codec, rows, columns })
    }

    /// The values of a sealed page, `None` when they stay as they were written.
    pub(crate) fn sealed_values(&self) -> Option<SealedHalf> {
        let (rows, columns) = (self.slots, self.head_dim);
        Codec::of(self.value).map(|codec| SealedHalf { codec, rows, columns })
    }

    /// Where the values of a sealed page begin.
    pub(crate) fn sealed_value_offset(&self) -> usize {
        self.sealed_keys().map_or(self.value_offset(), |half| half.bytes())
    }

    /// The bytes of the keys and of the values of a page.
    pub(crate) fn split<'a>(&self, page: PageRef<'a>) -> (&'a [u8], &'a [u8]) {
        let (bytes, all, keys) = match page {
            PageRef::Hot(bytes) => (bytes, self.page_bytes(), self.value_offset()),
            PageRef::Sealed(bytes) => (bytes, self.sealed_page_bytes(), self.sealed_value_offset()),
        };
        assert_eq!(bytes.len(), all, "a page of another layout");
        bytes.split_at(keys)
    }

    /// Codes a page into `sealed`. No slot of the result can be written, copied or moved; the page as a whole can be
    /// dropped, or kept. Allocates some room while it works.
    ///
    /// # Panics
    /// When `hot` is not [`page_bytes`](PageLayout::page_bytes) long or `sealed` not
    /// [`sealed_page_bytes`](PageLayout::sealed_page_bytes).
    pub fn seal(&self, hot: &[u8], sealed: &mut [u8]) {
        assert_eq!(sealed.len(), self.sealed_page_bytes(), "a sealed page of another layout");
        let (keys, values) = self.split(PageRef::Hot(hot));
        let (sealed_keys, sealed_values) = sealed.split_at_mut(self.sealed_value_offset());
        for (half, hot, sealed) in
            [(self.sealed_keys(), keys, sealed_keys), (self.sealed_values(), values, sealed_values)]
        {
            match half {
                Some(half) => half.seal(hot, sealed),
                None => sealed.copy_from_slice(hot),
            }
        }
    }

    /// Where the values begin.
    pub(crate) fn value_offset(&self) -> usize {
        self.slots * self.key.row_bytes(self.head_dim)
    }

    /// Where the scales of the keys begin, `(scales, slots)`.
    pub(crate) fn key_scale_offset(&self) -> usize {
        self.slots * self.key.width() * self.head_dim
    }

    /// Where the scales of the values begin, `(slots, scales)`.
    pub(crate) fn value_scale_offset(&self) -> usize {
        self.value_offset() + self.slots * self.value.width() * self.head_dim
    }

    /// Where the key of a slot lies.
    fn key_place(&self, slot: usize) -> Place {
        let scale = self.key_scale_offset() + 2 * slot;
        Place { first: slot, step: self.slots, scale, scale_step: 2 * self.slots }
    }

    /// Where the value of a slot lies, from the first byte of the values on.
    fn value_place(&self, slot: usize) -> Place {
        let scale = self.value_scale_offset() - self.value_offset();
        let scale = scale + 2 * slot * self.value.scales(self.head_dim);
        Place { first: slot * self.head_dim, step: 1, scale, scale_step: 2 }
    }

    /// The two halves of a page.
    fn halves<'a>(&self, page: &'a mut [u8]) -> (&'a mut [u8], &'a mut [u8]) {
        assert_eq!(page.len(), self.page_bytes(), "a page of another layout");
        page.split_at_mut(self.value_offset())
    }

    /// Writes one slot of a page, rounded as the format says, in plain Rust.
    ///
    /// # Panics
    /// When `page`, `slot`, `k` or `v` does not fit the layout.
    pub fn write_slot(&self, page: &mut [u8], slot: usize, k: &[f32] /* (head_dim) */, v: &[f32]) {
        assert!(slot < self.slots, "slot {slot} of a page of {}", self.slots);
        assert!(k.len() == self.head_dim && v.len() == self.head_dim);
        let (keys, values) = self.halves(page);
        row::put(self.key, keys, self.key_place(slot), k);
        row::put(self.value, values, self.value_place(slot), v);
    }

    /// Writes `count` slots of a page from `first` on, the same bytes as [`write_slot`](PageLayout::write_slot). Row `i`
    /// of a [`Rows`] goes to slot `first + i`; the stride lets one head be taken out of `(rows, n_kv_heads, head_dim)`.
    ///
    /// # Panics
    /// When `page`, the slots, `k` or `v` do not fit the layout.
    pub fn write_slots(
        &self,
        table: &KernelTable,
        page: &mut [u8],
        first: usize,
        count: usize,
        k: Rows<'_>,
        v: Rows<'_>,
    ) {
        assert!(first + count <= self.slots, "slots {first}+{count} of a page of {}", self.slots);
        let (keys, values) = self.halves(page);
        let place = |format, rows, half, place: Place, row_step| WriteSixteen {
            format,
            rows,
            count,
            head_dim: self.head_dim,
            half,
            first: place.first,
            row_step,
            step: place.step,
        };
        match self.key.hot() {
            format @ (KvFormat::F16 | KvFormat::Bf16) => {
                dispatch(table.vectors(), place(format, k, keys, self.key_place(first), 1));
            }
            _ => (0..count).for_each(|i| {
                row::put(self.key, keys, self.key_place(first + i), k.row(i, self.head_dim));
            }),
        }
        match self.value.hot() {
            format @ (KvFormat::F16 | KvFormat::Bf16) => {
                dispatch(table.vectors(), place(format, v, values, self.value_place(first), self.head_dim));
            }
            _ => (0..count).for_each(|i| {
                row::put(self.value, values, self.value_place(first + i), v.row(i, self.head_dim));
            }),
        }
    }

    /// The key of one slot.
    ///
    /// # Panics
    /// When `page`, `slot` or `out` does not fit the layout.
    pub fn read_key<'a>(
        &self,
        page: impl Into<PageRef<'a>>,
        slot: usize,
        out: &mut [f32], // (head_dim)
    ) {
        let page = page.into();
        assert!(slot < self.slots && out.len() == self.head_dim);
        let (keys, _) = self.split(page);
        match (page, self.sealed_keys()) {
            (PageRef::Sealed(_), Some(half)) => {
                half.get_column(keys, slot, out);
            }
            _ => row::get(self.key, keys, self.key_place(slot), out),
        }
    }

    /// The value of one slot.
    ///
    /// # Panics
    /// As [`read_key`](PageLayout::read_key).
    pub fn read_value<'a>(
        &self,
        page: impl Into<PageRef<'a>>,
        slot: usize,
        out: &mut [f32], // (head_dim)
    ) {
        let page = page.into();
        assert!(slot < self.slots && out.len() == self.head_dim);
        let (_, values) = self.split(page);
        match (page, self.sealed_values()) {
            (PageRef::Sealed(_), Some(half)) => {
                half.get_row(values, slot, out);
            }
            _ => row::get(self.value, values, self.value_place(slot), out),
        }
    }

    /// Copies a slot into a slot of another page, byte for byte.
    ///
    /// # Panics
    /// When a page or a slot does not fit the layout.
    pub fn copy_slot(&self, src: &[u8], src_slot: usize, dst: &mut [u8], dst_slot: usize) {
        assert!(src.len() == self.page_bytes() && src_slot < self.slots && dst_slot < self.slots);
        let (src_keys, src_values) = src.split_at(self.value_offset());
        let (dst_keys, dst_values) = self.halves(dst);
        let (from, to) = (self.key_place(src_slot), self.key_place(dst_slot));
        for (from, to, n) in from.copies(to, self.key, self.head_dim) {
            dst_keys[to..to + n].copy_from_slice(&src_keys[from..from + n]);
        }
        let (from, to) = (self.value_place(src_slot), self.value_place(dst_slot));
        for (from, to, n) in from.copies(to, self.value, self.head_dim) {
            dst_values[to..to + n].copy_from_slice(&src_values[from..from + n]);
        }
    }

    /// Copies a slot onto another slot of the same page, byte for byte.
    ///
    /// # Panics
    /// When the page or a slot does not fit the layout.
    pub fn copy_slot_within(&self, page: &mut [u8], src_slot: usize, dst_slot: usize) {
        assert!(src_slot < self.slots && dst_slot < self.slots);
        let (keys, values) = self.halves(page);
        let (from, to) = (self.key_place(src_slot), self.key_place(dst_slot));
        for (from, to, n) in from.copies(to, self.key, self.head_dim) {
            keys.copy_within(from..from + n, to);
        }
        let (from, to) = (self.value_place(src_slot), self.value_place(dst_slot));
        for (from, to, n) in from.copies(to, self.value, self.head_dim) {
            values.copy_within(from..from + n, to);
        }
    }
}

/// A page as it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageRef<'a> {
    /// As slots are written: `page_bytes` of the layout.
    Hot(&'a [u8]),
    /// After [`PageLayout::seal`]: `sealed_page_bytes` of the layout.
    Sealed(&'a [u8]),
}

impl<'a> PageRef<'a> {
    /// The bytes, whatever they mean.
    pub fn bytes(self) -> &'a [u8] {
        match self {
            PageRef::Hot(bytes) | PageRef::Sealed(bytes) => bytes,
        }
    }
}

impl<'a> From<&'a [u8]> for PageRef<'a> {
    fn from(bytes: &'a [u8]) -> PageRef<'a> {
        PageRef::Hot(bytes)
    }
}

impl<'a> From<&'a Vec<u8>> for PageRef<'a> {
    fn from(bytes: &'a Vec<u8>) -> PageRef<'a> {
        PageRef::Hot(bytes)
    }
}

/// Rows that lie `stride` numbers apart.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    /// From the first number of the first row on.
    pub data: &'a [f32],
    /// From one row to the next.
    pub stride: usize,
}

impl<'a> Rows<'a> {
    fn row(&self, index: usize, len: usize) -> &'a [f32] {
        &self.data[index * self.stride..][..len]
    }
}

/// The pages of one layer, as attention reads them.
pub trait KvLayer: Sync {
    /// The lane of a KV head.
    fn lane(&self, kv_head: usize) -> LaneView<'_>;
    /// A page. One lane may have sealed pages and others.
    fn page(&self, id: u32) -> PageRef<'_>;
}

/// The pages of a lane in order, and how much of them is in use.
#[derive(Debug, Clone, Copy)]
pub struct LaneView<'a> {
    /// Ids of the pages; slot `s` is slot `s % slots` of page `table[s / slots]`.
    pub table: &'a [u32],
    /// Slots in use, from the first on.
    pub len: usize,
}
