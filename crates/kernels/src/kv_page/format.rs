//! Storage formats of keys and values, by name.

use crate::error::KernelError;

/// Channels that share a scale in `q8_0`.
pub(crate) const BLOCK: usize = 32;

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
}

impl KvFormat {
    /// Every format.
    pub const ALL: [KvFormat; 5] =
        [KvFormat::F32, KvFormat::F16, KvFormat::Bf16, KvFormat::I8, KvFormat::Q8_0];

    /// Lower-case name, as `bf16`.
    pub fn name(self) -> &'static str {
        match self {
            KvFormat::F32 => "f32",
            KvFormat::F16 => "f16",
            KvFormat::Bf16 => "bf16",
            KvFormat::I8 => "i8",
            KvFormat::Q8_0 => "q8_0",
        }
    }

    /// The format of that name, in either case.
    pub fn from_name(name: &str) -> Option<KvFormat> {
        KvFormat::ALL.into_iter().find(|format| format.name().eq_ignore_ascii_case(name))
    }

    /// Bytes of one number, scales apart.
    pub fn width(self) -> usize {
        match self {
            KvFormat::F32 => 4,
            KvFormat::F16 | KvFormat::Bf16 => 2,
            KvFormat::I8 | KvFormat::Q8_0 => 1,
        }
    }

    /// Scales, f16 each, of one row of `head_dim` numbers.
    pub fn scales(self, head_dim: usize) -> usize {
        match self {
            KvFormat::F32 | KvFormat::F16 | KvFormat::Bf16 => 0,
            KvFormat::I8 => 1,
            KvFormat::Q8_0 => head_dim / BLOCK,
        }
    }

    /// Bytes of one row of `head_dim` numbers, scales included.
    pub fn row_bytes(self, head_dim: usize) -> usize {
        self.width() * head_dim + 2 * self.scales(head_dim)
    }

    /// An error unless rows of `head_dim` numbers can be stored.
    pub(super) fn check(self, head_dim: usize) -> Result<(), KernelError> {
        match self {
            KvFormat::Q8_0 if !head_dim.is_multiple_of(BLOCK) => {
                Err(KernelError::PartialKvBlock { format: self, head_dim })
            }
            _ => Ok(()),
        }
    }
}

impl std::fmt::Display for KvFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}
