//! Storage formats of keys and values, by name.

use super::codec::Codec;
use crate::error::KernelError;

/// Channels that share a scale in `q8_0`.
pub(crate) const BLOCK: usize = 32;

/// Most numbers of a sealed half: outliers are found by an index of 16 bits.
const MOST_SEALED: usize = 1 << 16;

/// How the numbers of a page are stored. Arithmetic is f32 in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KvFormat {
    /// 32-bit floats.
    F32,
    /// IEEE half floats.
    F16,
    /// bfloat16.
    Bf16,
    /// 8-bit integers and one f16 scale per slot: the largest magnitude of the row becomes ±127. A row that holds a
    /// NaN, an infinity or a magnitude above 8.3e6 (whose scale f16 cannot hold) is stored as NaN.
    I8,
    /// Blocks of 32 8-bit integers with an f16 scale, as ggml quantizes them; NaN as in [`KvFormat::I8`].
    Q8_0,
    /// KIVI with 4 bits, after RoPE: keys per channel over groups of 32 slots, values per slot over groups of 32 channels,
    /// f16 scale and minimum: 5 bits per number. f16 until its page is sealed, like all that follow.
    Kivi4,
    /// KIVI with 2 bits: 3 bits per number.
    Kivi2,
    /// A reduced KVQuant with 4 bits, after RoPE: one fixed table of uneven levels, keys scaled per channel of a page and values
    /// per slot, 1 % of outliers apart. What the paper trains on gradients and calibrates beforehand is not in it.
    KvQuant4,
    /// The same with 3 bits.
    KvQuant3,
}

impl KvFormat {
    /// Every format.
    pub const ALL: [KvFormat; 9] = [
        KvFormat::F32,
        KvFormat::F16,
        KvFormat::Bf16,
        KvFormat::I8,
        KvFormat::Q8_0,
        KvFormat::Kivi4,
        KvFormat::Kivi2,
        KvFormat::KvQuant4,
        KvFormat::KvQuant3,
    ];

    /// Lower-case name, as `bf16`.
    pub fn name(self) -> &'static str {
        match self {
            KvFormat::F32 => "f32",
            KvFormat::F16 => "f16",
            KvFormat::Bf16 => "bf16",
            KvFormat::I8 => "i8",
            KvFormat::Q8_0 => "q8_0",
            KvFormat::Kivi4 => "kivi4",
            KvFormat::Kivi2 => "kivi2",
            KvFormat::KvQuant4 => "kvquant4",
            KvFormat::KvQuant3 => "kvquant3",
        }
    }

    /// The format of that name, in either case.
    pub fn from_name(name: &str) -> Option<KvFormat> {
        KvFormat::ALL.into_iter().find(|format| format.name().eq_ignore_ascii_case(name))
    }

    /// Whether pages are sealed some time after they are full; if not, the format is what is written at once.
    pub fn seals(self) -> bool {
        Codec::of(self).is_some()
    }

    /// What a row is written as.
    pub fn hot(self) -> KvFormat {
        if self.seals() { KvFormat::F16 } else { self }
    }

    /// Bytes of one number as it is written, scales apart.
    pub fn width(self) -> usize {
        match self.hot() {
            KvFormat::F32 => 4,
            KvFormat::I8 | KvFormat::Q8_0 => 1,
            _ => 2,
        }
    }

    /// Scales, f16 each, of one row of `head_dim` numbers as it is written.
    pub fn scales(self, head_dim: usize) -> usize {
        match self {
            KvFormat::I8 => 1,
            KvFormat::Q8_0 => head_dim / BLOCK,
            _ => 0,
        }
    }

    /// Bytes of one row of `head_dim` numbers as it is written, scales included.
    pub fn row_bytes(self, head_dim: usize) -> usize {
        self.width() * head_dim + 2 * self.scales(head_dim)
    }

    /// An error unless pages of so many slots of `head_dim` numbers can be stored.
    pub(super) fn check(self, slots: usize, head_dim: usize) -> Result<(), KernelError> {
        let blocks = self.seals() || self == KvFormat::Q8_0;
        if blocks && !head_dim.is_multiple_of(BLOCK) {
            return Err(KernelError::PartialKvBlock { format: self, head_dim });
        }
        let fits = slots >= BLOCK && slots * head_dim <= MOST_SEALED;
        if self.seals() && !fits {
            return Err(KernelError::SealedPage { format: self, slots, head_dim });
        }
        Ok(())
    }
}

impl std::fmt::Display for KvFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}
