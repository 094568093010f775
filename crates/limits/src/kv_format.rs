//! How a key or a value is stored in the cache.

use crate::error::{LimitsError, product, sum};
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
    /// KIVI with 4 bits, groups of 32 with f16 scale and minimum: 5 bits per element. f16 until its page is sealed.
    Kivi4,
    /// KIVI with 2 bits: 3 bits per element.
    Kivi2,
    /// A reduced KVQuant with 4 bits, f16 scale and offset per channel of a page (K) or token (V), 1 % outliers of 4 bytes:
    /// 4.8 and 4.6 bits per element at 128 channels.
    #[serde(rename = "kvquant4")]
    KvQuant4,
    /// The same with 3 bits.
    #[serde(rename = "kvquant3")]
    KvQuant3,
}

/// Slots of a page.
pub(crate) const PAGE_SLOTS: u64 = 64;
/// Tokens that are never sealed, the newest ones.
pub(crate) const HOT_TOKENS: u64 = 128;

impl KvFormat {
    /// Every format, widest first.
    pub const ALL: [KvFormat; 9] = [
        KvFormat::F32,
        KvFormat::F16,
        KvFormat::Bf16,
        KvFormat::Q8_0,
        KvFormat::I8,
        KvFormat::Kivi4,
        KvFormat::KvQuant4,
        KvFormat::KvQuant3,
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
            KvFormat::KvQuant4 => "kvquant4",
            KvFormat::KvQuant3 => "kvquant3",
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
            KvFormat::Kivi4 | KvFormat::KvQuant4 => 4.0,
            KvFormat::KvQuant3 => 3.0,
            KvFormat::Kivi2 => 2.0,
        }
    }

    /// Bits of a code, where pages are coded once they are full and 128 tokens old.
    fn sealed_bits(self) -> Option<u64> {
        match self {
            KvFormat::Kivi4 | KvFormat::KvQuant4 => Some(4),
            KvFormat::KvQuant3 => Some(3),
            KvFormat::Kivi2 => Some(2),
            KvFormat::F32 | KvFormat::F16 | KvFormat::Bf16 | KvFormat::I8 | KvFormat::Q8_0 => None,
        }
    }

    /// Bytes of the K or of the V of one token in one KV head as it is written, scales included.
    pub fn row_bytes(self, head_dim: u64) -> Result<u64, LimitsError> {
        let blocks = self.sealed_bits().is_some() || self == KvFormat::Q8_0;
        if blocks && !head_dim.is_multiple_of(32) {
            return Err(LimitsError::Config(format!(
                "head_dim {head_dim} does not fill the blocks of 32 of kv format {}; i8 takes any",
                self.name()
            )));
        }
        let row = match self {
            KvFormat::F32 => head_dim.checked_mul(4),
            KvFormat::I8 => head_dim.checked_add(2),
            KvFormat::Q8_0 => (head_dim / 32).checked_mul(34),
            _ => head_dim.checked_mul(2),
        };
        row.ok_or(LimitsError::Overflow { what: "bytes of one KV slot" })
    }

    /// Bytes of the K or of the V of a page of one KV head once it is sealed. `rows` of the coded matrix: channels of K,
    /// slots of V.
    fn sealed_bytes(self, head_dim: u64, rows: u64) -> Result<u64, LimitsError> {
        let numbers = product("numbers of a KV page", &[PAGE_SLOTS, head_dim])?;
        let Some(bits) = self.sealed_bits() else {
            return product("bytes of a KV page", &[PAGE_SLOTS, self.row_bytes(head_dim)?]);
        };
        self.row_bytes(head_dim)?;
        let codes = product("bytes of a KV page", &[numbers / 8, bits])?;
        let (groups, outliers) = match self {
            KvFormat::Kivi4 | KvFormat::Kivi2 => (numbers / 32, 0),
            _ => (rows, numbers / 100),
        };
        sum("bytes of a KV page", &[codes, product("bytes of a KV page", &[groups + outliers, 4])?])
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

    /// Whether pages are coded once they are full and 128 tokens old.
    pub fn seals(self) -> bool {
        self.key.sealed_bits().is_some() || self.value.sealed_bits().is_some()
    }

    /// Bytes of the K and V of one token in one KV head as they are written, scales included.
    pub fn written_slot_bytes(self, head_dim: u64) -> Result<u64, LimitsError> {
        sum("bytes of one KV slot", &[self.key.row_bytes(head_dim)?, self.value.row_bytes(head_dim)?])
    }

    /// Bytes of the K and V of a page of 64 tokens in one KV head once it is sealed.
    pub fn sealed_page_bytes(self, head_dim: u64) -> Result<u64, LimitsError> {
        let keys = self.key.sealed_bytes(head_dim, head_dim)?;
        sum("bytes of a KV page", &[keys, self.value.sealed_bytes(head_dim, PAGE_SLOTS)?])
    }

    /// Bytes of the K and V of one token in one KV head in a long context: sealed, rounded up to whole bytes.
    pub fn slot_bytes(self, head_dim: u64) -> Result<u64, LimitsError> {
        Ok(self.sealed_page_bytes(head_dim)?.div_ceil(PAGE_SLOTS))
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
        let sealing: KvFormats = "k=kivi2,v=f16".parse().unwrap();
        assert!(sealing.seals() && !pair.seals());
        assert_eq!(sealing.written_slot_bytes(64).unwrap(), 256);
        assert_eq!(sealing.sealed_page_bytes(64).unwrap(), 64 * (24 + 128));
    }

    #[test]
    fn stored_bits_are_those_of_the_published_formats() {
        let bits = |f: KvFormat| f.slot_bytes(128).unwrap() as f64 * 8.0 / 256.0;
        assert_eq!(bits(KvFormat::F16), 16.0);
        assert_eq!(bits(KvFormat::I8), 8.125);
        assert_eq!(bits(KvFormat::Q8_0), 8.5);
        assert_eq!(bits(KvFormat::Kivi4), 5.0);
        assert_eq!(bits(KvFormat::Kivi2), 3.0);
        // K 4 + 32/64 + 81·32/8192, V 4 + 32/128 + the same, rounded up to a byte per slot.
        assert_eq!(KvFormats::from(KvFormat::KvQuant4).sealed_page_bytes(128).unwrap(), 9608);
        assert_eq!(KvFormats::from(KvFormat::KvQuant3).sealed_page_bytes(128).unwrap(), 7560);
        assert_eq!(bits(KvFormat::KvQuant4), 4.71875);
    }

    #[test]
    fn a_head_that_does_not_fill_blocks_is_refused() {
        assert!(KvFormat::Q8_0.slot_bytes(48).is_err());
        assert_eq!(KvFormat::I8.slot_bytes(48).unwrap(), 100);
    }
}
