//! How a key or a value is stored in the cache.

use crate::error::LimitsError;
use crate::nearest::nearest;
use roofline_model::kv_text::key_and_value;
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

    /// Bytes of the K or of the V of one token in one KV head, scales included.
    pub fn row_bytes(self, head_dim: u64) -> Result<u64, LimitsError> {
        let blocks = |len: u64, bytes: u64| {
            if head_dim.is_multiple_of(len) {
                Ok(head_dim / len * bytes)
            } else {
                Err(LimitsError::Config(format!(
                    "head_dim {head_dim} does not fill the blocks of {len} of kv format {}; i8 takes any",
                    self.name()
                )))
            }
        };
        let row = match self {
            KvFormat::F32 => head_dim.checked_mul(4),
            KvFormat::F16 | KvFormat::Bf16 => head_dim.checked_mul(2),
            KvFormat::I8 => head_dim.checked_add(2),
            KvFormat::Q8_0 => Some(blocks(32, 34)?),
            KvFormat::Kivi4 => Some(blocks(32, 20)?),
            KvFormat::Kivi2 => Some(blocks(32, 12)?),
        };
        row.ok_or(LimitsError::Overflow { what: "bytes of one KV slot" })
    }

    /// Bytes of the K and V of one token in one KV head, both in this format.
    pub fn slot_bytes(self, head_dim: u64) -> Result<u64, LimitsError> {
        KvFormats::from(self).slot_bytes(head_dim)
    }
}

impl std::fmt::Display for KvFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// Storage formats of keys and values: as text `i8` where both are one, `k=i8,v=f16` where they are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KvFormats {
    /// Format of the keys.
    pub key: KvFormat,
    /// Format of the values.
    pub value: KvFormat,
}

impl KvFormats {
    /// Bits per element without scales, keys and values together.
    pub fn nominal_bits(self) -> f64 {
        (self.key.nominal_bits() + self.value.nominal_bits()) / 2.0
    }

    /// Bytes of the K and V of one token in one KV head, scales included.
    pub fn slot_bytes(self, head_dim: u64) -> Result<u64, LimitsError> {
        let (key, value) = (self.key.row_bytes(head_dim)?, self.value.row_bytes(head_dim)?);
        key.checked_add(value).ok_or(LimitsError::Overflow { what: "bytes of one KV slot" })
    }
}

impl From<KvFormat> for KvFormats {
    fn from(format: KvFormat) -> KvFormats {
        KvFormats { key: format, value: format }
    }
}

impl std::str::FromStr for KvFormats {
    type Err = LimitsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (key, value) = key_and_value(text).ok_or_else(|| LimitsError::Precision {
            text: text.to_owned(),
            reason: "the cache is one format for both, as i8, or k=i8,v=f16",
            nearest: KvFormat::ALL.map(|f| f.name().to_owned()).to_vec(),
        })?;
        Ok(KvFormats { key: KvFormat::from_name(key)?, value: KvFormat::from_name(value)? })
    }
}

impl std::fmt::Display for KvFormats {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.key == self.value {
            return f.pad(self.key.name());
        }
        f.pad(&format!("k={},v={}", self.key, self.value))
    }
}

impl Serialize for KvFormats {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values_may_differ() {
        let pair: KvFormats = "v=f16,k=i8".parse().unwrap();
        assert_eq!((pair.key, pair.value), (KvFormat::I8, KvFormat::F16));
        assert_eq!((pair.to_string().as_str(), pair.nominal_bits()), ("k=i8,v=f16", 12.0));
        assert_eq!(pair.slot_bytes(80).unwrap(), 82 + 160);
        assert_eq!("q8_0".parse::<KvFormats>().unwrap(), KvFormat::Q8_0.into());
        assert!("k=i8".parse::<KvFormats>().is_err() && "k=i8,v=f17".parse::<KvFormats>().is_err());
        assert!(pair.slot_bytes(u64::MAX / 2).is_err());
    }

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
