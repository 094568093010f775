//! How a key or a value is stored in the cache.

use crate::error::LimitsError;
use crate::nearest::nearest;
use serde::{Deserialize, Serialize};

/// A storage format of the KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KvFormat {
    /// 32-bit floats.
    F32,
    /// IEEE half floats.
    F16,
    /// bfloat16.
    Bf16,
    /// 8-bit integers, one f16 scale per token, KV head and K or V.
    I8,
    /// Blocks of 32 8-bit integers with an f16 scale.
    Q8_0,
    /// KIVI with 4 bits, groups of 32 with f16 scale and minimum: 5 bits per element. The newest tokens, which KIVI keeps
    /// in 16 bits, are not counted here.
    Kivi4,
    /// KIVI with 2 bits: 3 bits per element.
    Kivi2,
}

impl KvFormat {
    /// Every format, widest first.
    pub const ALL: [KvFormat; 7] = [
        KvFormat::F32,
        KvFormat::F16,
        KvFormat::Bf16,
        KvFormat::Q8_0,
        KvFormat::I8,
        KvFormat::Kivi4,
        KvFormat::Kivi2,
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
        }
    }

    /// The format of that name, in either case.
    pub fn from_name(name: &str) -> Result<KvFormat, LimitsError> {
        let wanted = name.trim().to_ascii_lowercase();
        KvFormat::ALL.into_iter().find(|f| f.name() == wanted).ok_or_else(|| LimitsError::Precision {
            text: name.to_owned(),
            reason: "no KV cache format has that name",
            nearest: nearest(name, KvFormat::ALL.iter().map(|f| f.name()), 3),
        })
    }

    /// Bits per element without scales.
    pub fn nominal_bits(self) -> f64 {
        match self {
            KvFormat::F32 => 32.0,
            KvFormat::F16 | KvFormat::Bf16 => 16.0,
            KvFormat::I8 | KvFormat::Q8_0 => 8.0,
            KvFormat::Kivi4 => 4.0,
            KvFormat::Kivi2 => 2.0,
        }
    }

    /// Bytes of the K and V of one token in one KV head, scales included.
    pub fn slot_bytes(self, head_dim: u64) -> Result<u64, LimitsError> {
        let blocks = |len: u64, bytes: u64| {
            if head_dim.is_multiple_of(len) {
                Ok(head_dim / len * bytes)
            } else {
                Err(LimitsError::Config(format!(
                    "head_dim {head_dim} does not fill the blocks of {len} of kv format {}",
                    self.name()
                )))
            }
        };
        let vector = match self {
            KvFormat::F32 => head_dim.checked_mul(4),
            KvFormat::F16 | KvFormat::Bf16 => head_dim.checked_mul(2),
            KvFormat::I8 => head_dim.checked_add(2),
            KvFormat::Q8_0 => Some(blocks(32, 34)?),
            KvFormat::Kivi4 => Some(blocks(32, 20)?),
            KvFormat::Kivi2 => Some(blocks(32, 12)?),
        };
        vector.and_then(|v| v.checked_mul(2)).ok_or(LimitsError::Overflow { what: "bytes of one KV slot" })
    }
}

impl std::fmt::Display for KvFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_bits_are_those_of_the_published_formats() {
        let bits = |f: KvFormat| f.slot_bytes(128).unwrap() as f64 * 8.0 / 256.0;
        assert_eq!(bits(KvFormat::F16), 16.0);
        assert_eq!(bits(KvFormat::I8), 8.125);
        assert_eq!(bits(KvFormat::Q8_0), 8.5);
        assert_eq!(bits(KvFormat::Kivi4), 5.0);
        assert_eq!(bits(KvFormat::Kivi2), 3.0);
    }

    #[test]
    fn a_head_that_does_not_fill_blocks_is_refused() {
        assert!(KvFormat::Q8_0.slot_bytes(48).is_err());
        assert_eq!(KvFormat::I8.slot_bytes(48).unwrap(), 100);
    }
}
