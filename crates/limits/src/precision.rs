//! Precision strings: `w4a16kv8`, `q4_k_m`, `bf16`.

use crate::error::LimitsError;
use crate::kv_format::{KvFormat, KvFormats};
use crate::mix::Recipe;
use crate::nearest::nearest;
use crate::switches::Profile;
use roofline_weights::format::Format;
use serde::Serialize;

/// How wide weights, arithmetic and cache are.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Precision {
    /// As it was written.
    pub label: String,
    /// The format of each weight tensor.
    pub weights: Recipe,
    /// Bits per weight in the name; what a weight takes with the switch `real_bits` off.
    pub nominal_weight_bits: f64,
    /// Width of the activations in the matrix products: 32, 16, 8 or 4 bits.
    pub arithmetic_bits: u32,
    /// Storage of the KV cache.
    pub kv: KvFormats,
    /// Bits per KV element with the switch `kv_width` off.
    pub nominal_kv_bits: f64,
}

/// Bits in a name and the format that stores them with its scales.
const WEIGHT_BITS: [(u32, Format); 8] = [
    (32, Format::F32),
    (16, Format::Bf16),
    (8, Format::Q8_0),
    (6, Format::Q6K),
    (5, Format::Q5K),
    (4, Format::Q4K),
    (3, Format::Q3K),
    (2, Format::Q2K),
];

const EXAMPLES: [&str; 8] = ["w16a16", "w8a16", "w4a16", "w6a16", "w4a16kv8", "w8a8", "w4a8kv8", "w32a32"];

impl Precision {
    /// Reads `wN[aM][kvK]` or `FILETYPE[aM][kvK]`; `kvK` may also name a cache format (`w4a16kv-q8_0`),
    /// or one for keys and one for values (`w4a16kv-k=i8,v=f16`).
    ///
    /// In the paper profile `a` is the width of the cache, so `w4a8` there stands for `w4a16kv8`.
    /// A quantized file type computes in 8 bits unless `aM` says otherwise, since its kernels quantize the activations.
    pub fn parse(text: &str, profile: Profile) -> Result<Precision, LimitsError> {
        let lower = text.trim().to_ascii_lowercase();
        let bad = |reason| LimitsError::Precision {
            text: text.to_owned(),
            reason,
            nearest: nearest(text, Recipe::names().chain(EXAMPLES), 3),
        };
        let (head, kv) = match lower.split_once("kv") {
            Some((head, kv)) => (head, Some(kv.trim_start_matches(['-', '=', ':']))),
            None => (lower.as_str(), None),
        };
        let head = head.trim_end_matches(['-', ',', ':']);
        let (weights, nominal_weight_bits, activation) = match head.strip_prefix('w') {
            Some(rest) => {
                let (bits, activation) = match rest.split_once('a') {
                    Some((bits, a)) => (bits, Some(a)),
                    None => (rest, None),
                };
                let bits: u32 = bits.parse().map_err(|_| bad("the w is not followed by a number of bits"))?;
                let row = WEIGHT_BITS
                    .iter()
                    .find(|row| row.0 == bits)
                    .ok_or_else(|| bad("weights are 32, 16, 8, 6, 5, 4, 3 or 2 bits wide"))?;
                (Recipe::Uniform(row.1), f64::from(bits), activation)
            }
            None => {
                let (name, activation) = match head.rsplit_once('a') {
                    Some((name, a)) if !a.is_empty() && a.bytes().all(|b| b.is_ascii_digit()) => {
                        (name, Some(a))
                    }
                    _ => (head, None),
                };
                let recipe = Recipe::from_name(name.trim_end_matches('-'))
                    .map_err(|_| bad("it is neither a file type nor wN[aM][kvK]"))?;
                (recipe, nominal_bits(recipe.base()), activation)
            }
        };
        let written = match activation {
            Some(a) => Some(match a {
                "32" => 32,
                "16" => 16,
                "8" => 8,
                "4" => 4,
                _ => return Err(bad("activations are 32, 16, 8 or 4 bits wide")),
            }),
            None => None,
        };
        let own = match weights {
            Recipe::Uniform(Format::F32) => 32,
            Recipe::Uniform(_) => 16,
            Recipe::Gguf(_) => 8,
        };
        let paper_alias = profile == Profile::Paper && kv.is_none();
        let kv_bits = if paper_alias { written.unwrap_or(16) } else { 16 };
        let kv = match kv {
            Some(kv) => kv_formats(kv).ok_or_else(|| {
                bad("the cache is f32, f16, bf16, i8, q8_0, kivi4, kivi2, kvquant4, kvquant3, or 32, 16, 8, 4, 2 bits, or k=i8,v=f16")
            })?,
            None => match kv_bits {
                32 => KvFormat::F32.into(),
                8 => KvFormat::I8.into(),
                4 => KvFormat::Kivi4.into(),
                _ if weights == Recipe::Uniform(Format::F32) => KvFormat::F32.into(),
                _ => KvFormat::F16.into(),
            },
        };
        let arithmetic_bits = if paper_alias { own.max(16) } else { written.unwrap_or(own) };
        Ok(Precision {
            label: lower.clone(),
            weights,
            nominal_weight_bits,
            arithmetic_bits,
            kv,
            nominal_kv_bits: kv.nominal_bits(),
        })
    }
}

fn kv_formats(text: &str) -> Option<KvFormats> {
    let bits = match text {
        "32" => Some(KvFormat::F32),
        "16" => Some(KvFormat::F16),
        "8" => Some(KvFormat::I8),
        "4" => Some(KvFormat::Kivi4),
        "2" => Some(KvFormat::Kivi2),
        _ => None,
    };
    bits.map(KvFormats::from).or_else(|| text.parse().ok())
}

/// Bits of a format without its scales.
pub(crate) fn nominal_bits(format: Format) -> f64 {
    match format {
        Format::F32 => 32.0,
        Format::F16 | Format::Bf16 => 16.0,
        Format::Q8_0 => 8.0,
        Format::Q6K => 6.0,
        Format::Q5K | Format::Q5_0 | Format::Q5_1 => 5.0,
        Format::Q4K | Format::Q4_0 | Format::Q4_1 => 4.0,
        Format::Q3K => 3.0,
        Format::Q2K => 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn si(text: &str) -> Precision {
        Precision::parse(text, Profile::Si).unwrap()
    }

    #[test]
    fn letters_are_weights_arithmetic_and_cache() {
        let p = si("W4A16KV8");
        assert_eq!(
            (p.weights, p.arithmetic_bits, p.kv),
            (Recipe::Uniform(Format::Q4K), 16, KvFormat::I8.into())
        );
        assert_eq!(si("w16").kv, KvFormat::F16.into());
        assert_eq!(si("w32a32").kv, KvFormat::F32.into());
        assert_eq!(si("w4a8").arithmetic_bits, 8);
        assert_eq!(si("q4_k_mkv-q8_0").kv, KvFormat::Q8_0.into());
        assert_eq!(si("w4a16kv-k=i8,v=f16").kv.to_string(), "k=i8,v=f16");
        assert_eq!(si("q4_k_ma16").arithmetic_bits, 16);
        assert_eq!(si("q6_k").arithmetic_bits, 8);
    }

    #[test]
    fn in_the_paper_a_is_the_cache() {
        let p = Precision::parse("w4a8", Profile::Paper).unwrap();
        assert_eq!((p.arithmetic_bits, p.kv, p.nominal_kv_bits), (16, KvFormat::I8.into(), 8.0));
        assert_eq!(Precision::parse("w4a16", Profile::Paper).unwrap().nominal_kv_bits, 16.0);
    }

    #[test]
    fn nonsense_is_refused_with_the_nearest_forms() {
        for text in ["", "w", "w7a16", "w4a5", "w4a16kv", "w4a16kv7", "q4_k_x", "-4", "w-4a16", "wÿ", "kv8"]
        {
            let error = Precision::parse(text, Profile::Si).unwrap_err();
            assert!(matches!(error, LimitsError::Precision { .. }), "{text}: {error}");
        }
        assert!(Precision::parse("q4_k_n", Profile::Si).unwrap_err().to_string().contains("q4_k_m"));
    }
}
