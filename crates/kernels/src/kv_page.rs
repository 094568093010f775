//! Pages of the KV cache: some slots of one lane (one layer, one KV head) with their keys and values.
//!
//! The two halves of a page lie so that attention reads each of them in whole vectors: keys channel-major, because
//! a score is a sum over channels and slots then fill the lanes of a vector without any sum across lanes; values
//! slot-major, because the result is a sum over slots and channels fill the lanes.

use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use half::{bf16, f16};

use crate::error::KernelError;

/// How the numbers of a page are stored. Arithmetic is f32 in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the variants are their names
pub enum KvFormat {
    F32,
    F16,
    Bf16,
}

impl KvFormat {
    /// Every format.
    pub const ALL: [KvFormat; 3] = [KvFormat::F32, KvFormat::F16, KvFormat::Bf16];

    /// Lower-case name, as `bf16`.
    pub fn name(self) -> &'static str {
        match self {
            KvFormat::F32 => "f32",
            KvFormat::F16 => "f16",
            KvFormat::Bf16 => "bf16",
        }
    }

    /// The format of that name, in either case.
    pub fn from_name(name: &str) -> Option<KvFormat> {
        KvFormat::ALL.into_iter().find(|format| format.name().eq_ignore_ascii_case(name))
    }

    /// Bytes of one number.
    pub fn width(self) -> usize {
        match self {
            KvFormat::F32 => 4,
            KvFormat::F16 | KvFormat::Bf16 => 2,
        }
    }
}

impl std::fmt::Display for KvFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// What the bytes of a page mean: keys `(head_dim, slots)`, then values `(slots, head_dim)`, nothing between.
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
    /// `head_dim` is from 1 to [`MAX_HEAD_DIM`](PageLayout::MAX_HEAD_DIM).
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

    /// Bytes of one slot: a key and a value.
    pub fn slot_bytes(&self) -> usize {
        (self.key.width() + self.value.width()) * self.head_dim
    }

    /// Bytes of a page. There is no padding: `slots * slot_bytes`.
    pub fn page_bytes(&self) -> usize {
        self.slots * self.slot_bytes()
    }

    /// Where the values begin.
    pub(crate) fn value_offset(&self) -> usize {
        self.key.width() * self.slots * self.head_dim
    }

    /// The two halves of a page.
    fn halves<'a>(&self, page: &'a mut [u8]) -> (&'a mut [u8], &'a mut [u8]) {
        assert_eq!(page.len(), self.page_bytes(), "a page of another layout");
        page.split_at_mut(self.value_offset())
    }

    /// Writes one slot of a page, rounding to nearest even.
    ///
    /// # Panics
    /// When `page`, `slot`, `k` or `v` does not fit the layout.
    pub fn write_slot(&self, page: &mut [u8], slot: usize, k: &[f32] /* (head_dim) */, v: &[f32]) {
        assert!(k.len() == self.head_dim && v.len() == self.head_dim);
        let stride = self.head_dim;
        self.write_slots(page, slot, 1, Rows { data: k, stride }, Rows { data: v, stride });
    }

    /// Writes `count` slots of a page from `first` on, rounding to nearest even. Row `i` of a [`Rows`] goes to slot
    /// `first + i`; the stride lets one head be taken out of `(rows, n_kv_heads, head_dim)`.
    ///
    /// # Panics
    /// When `page`, the slots, `k` or `v` do not fit the layout.
    pub fn write_slots(&self, page: &mut [u8], first: usize, count: usize, k: Rows<'_>, v: Rows<'_>) {
        assert!(first + count <= self.slots, "slots {first}+{count} of a page of {}", self.slots);
        let (keys, values) = self.halves(page);
        for i in 0..count {
            let slot = first + i;
            put_strided(self.key, keys, slot, self.slots, k.row(i, self.head_dim));
            put_strided(self.value, values, slot * self.head_dim, 1, v.row(i, self.head_dim));
        }
    }

    /// The key of one slot.
    ///
    /// # Panics
    /// When `page`, `slot` or `out` does not fit the layout.
    pub fn read_key(&self, page: &[u8], slot: usize, out: &mut [f32] /* (head_dim) */) {
        assert!(page.len() == self.page_bytes() && slot < self.slots && out.len() == self.head_dim);
        for (channel, x) in out.iter_mut().enumerate() {
            *x = get(self.key, page, channel * self.slots + slot);
        }
    }

    /// The value of one slot.
    ///
    /// # Panics
    /// As [`read_key`](PageLayout::read_key).
    pub fn read_value(&self, page: &[u8], slot: usize, out: &mut [f32] /* (head_dim) */) {
        assert!(page.len() == self.page_bytes() && slot < self.slots && out.len() == self.head_dim);
        let values = &page[self.value_offset()..];
        for (channel, x) in out.iter_mut().enumerate() {
            *x = get(self.value, values, slot * self.head_dim + channel);
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
        let width = self.key.width();
        for channel in 0..self.head_dim {
            let from = (channel * self.slots + src_slot) * width;
            let to = (channel * self.slots + dst_slot) * width;
            dst_keys[to..to + width].copy_from_slice(&src_keys[from..from + width]);
        }
        let row = self.value.width() * self.head_dim;
        dst_values[dst_slot * row..][..row].copy_from_slice(&src_values[src_slot * row..][..row]);
    }

    /// Copies a slot onto another slot of the same page, byte for byte.
    ///
    /// # Panics
    /// When the page or a slot does not fit the layout.
    pub fn copy_slot_within(&self, page: &mut [u8], src_slot: usize, dst_slot: usize) {
        assert!(src_slot < self.slots && dst_slot < self.slots);
        let (keys, values) = self.halves(page);
        let width = self.key.width();
        for channel in 0..self.head_dim {
            let from = (channel * self.slots + src_slot) * width;
            keys.copy_within(from..from + width, (channel * self.slots + dst_slot) * width);
        }
        let row = self.value.width() * self.head_dim;
        values.copy_within(src_slot * row..(src_slot + 1) * row, dst_slot * row);
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

/// Numbers that are rounded together: a batch uses the conversion instructions where there are any.
const BATCH: usize = 64;

/// Writes `x[i]`, rounded to nearest even, as number `first + i * step` of `bytes`.
fn put_strided(format: KvFormat, bytes: &mut [u8], first: usize, step: usize, x: &[f32]) {
    let width = format.width();
    let mut bits = [0u16; BATCH];
    for (i, x) in x.chunks(BATCH).enumerate() {
        let places = &mut bytes[(first + i * BATCH * step) * width..];
        let bits = &mut bits[..x.len()];
        match format {
            KvFormat::F32 => scatter(places, step, x.iter().map(|x| x.to_le_bytes())),
            KvFormat::F16 => {
                bits.reinterpret_cast_mut::<f16>().convert_from_f32_slice(x);
                scatter(places, step, bits.iter().map(|bits| bits.to_le_bytes()));
            }
            KvFormat::Bf16 => {
                bits.reinterpret_cast_mut::<bf16>().convert_from_f32_slice(x);
                scatter(places, step, bits.iter().map(|bits| bits.to_le_bytes()));
            }
        }
    }
}

/// Writes numbers `step` of them apart.
fn scatter<const WIDTH: usize>(places: &mut [u8], step: usize, numbers: impl Iterator<Item = [u8; WIDTH]>) {
    for (place, number) in places.chunks_mut(step * WIDTH).zip(numbers) {
        place[..WIDTH].copy_from_slice(&number);
    }
}

/// Number `index` of `bytes`.
fn get(format: KvFormat, bytes: &[u8], index: usize) -> f32 {
    let b = &bytes[index * format.width()..];
    match format {
        KvFormat::F32 => f32::from_le_bytes([b[0], b[1], b[2], b[3]]),
        KvFormat::F16 => f16::from_le_bytes([b[0], b[1]]).to_f32(),
        KvFormat::Bf16 => bf16::from_le_bytes([b[0], b[1]]).to_f32(),
    }
}

/// The pages of one layer, as attention reads them.
pub trait KvLayer: Sync {
    /// The lane of a KV head.
    fn lane(&self, kv_head: usize) -> LaneView<'_>;
    /// The bytes of a page, `page_bytes` of the layout.
    fn page(&self, id: u32) -> &[u8];
}

/// The pages of a lane in order, and how much of them is in use.
#[derive(Debug, Clone, Copy)]
pub struct LaneView<'a> {
    /// Ids of the pages; slot `s` is slot `s % slots` of page `table[s / slots]`.
    pub table: &'a [u32],
    /// Slots in use, from the first on.
    pub len: usize,
}
