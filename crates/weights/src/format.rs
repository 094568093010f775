//! The number formats of weights: how many weights share a block, and how many bytes the block takes.

/// A number format as it lies in a file. K formats group 256 weights, the older ones 32, floats one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)] // the variants are their names
pub enum Format {
    F32,
    F16,
    Bf16,
    Q8_0,
    Q6K,
    Q5K,
    Q4K,
    Q3K,
    Q2K,
    Q5_0,
    Q5_1,
    Q4_0,
    Q4_1,
}

/// One row of the format table.
struct Row {
    format: Format,
    name: &'static str,
    ggml_type: u32,
    block_len: usize,   // weights per block
    block_bytes: usize, // bytes per block
}

const fn row(
    format: Format,
    name: &'static str,
    ggml_type: u32,
    block_len: usize,
    block_bytes: usize,
) -> Row {
    Row { format, name, ggml_type, block_len, block_bytes }
}

/// Block sizes from the struct definitions of ggml (`ggml-common.h`); type numbers from the GGUF specification.
/// Indexed by the discriminant of [`Format`].
const TABLE: [Row; 13] = [
    row(Format::F32, "f32", 0, 1, 4),
    row(Format::F16, "f16", 1, 1, 2),
    row(Format::Bf16, "bf16", 30, 1, 2),
    row(Format::Q8_0, "q8_0", 8, 32, 2 + 32),
    row(Format::Q6K, "q6_k", 14, 256, 128 + 64 + 16 + 2),
    row(Format::Q5K, "q5_k", 13, 256, 2 + 2 + 12 + 32 + 128),
    row(Format::Q4K, "q4_k", 12, 256, 2 + 2 + 12 + 128),
    row(Format::Q3K, "q3_k", 11, 256, 32 + 64 + 12 + 2),
    row(Format::Q2K, "q2_k", 10, 256, 16 + 64 + 2 + 2),
    row(Format::Q5_0, "q5_0", 6, 32, 2 + 4 + 16),
    row(Format::Q5_1, "q5_1", 7, 32, 2 + 2 + 4 + 16),
    row(Format::Q4_0, "q4_0", 2, 32, 2 + 16),
    row(Format::Q4_1, "q4_1", 3, 32, 2 + 2 + 16),
];

impl Format {
    /// Every format, floats first.
    pub const ALL: [Format; 13] = [
        Format::F32,
        Format::F16,
        Format::Bf16,
        Format::Q8_0,
        Format::Q6K,
        Format::Q5K,
        Format::Q4K,
        Format::Q3K,
        Format::Q2K,
        Format::Q5_0,
        Format::Q5_1,
        Format::Q4_0,
        Format::Q4_1,
    ];

    fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }

    /// Lower-case name, as `q4_k`.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// The format of that name, in either case.
    pub fn from_name(name: &str) -> Option<Format> {
        TABLE.iter().find(|row| row.name.eq_ignore_ascii_case(name)).map(|row| row.format)
    }

    /// Type number in a GGUF tensor record.
    pub fn ggml_type(self) -> u32 {
        self.row().ggml_type
    }

    /// The format of a GGUF type number, if it is one of ours.
    pub fn from_ggml_type(ggml_type: u32) -> Option<Format> {
        TABLE.iter().find(|row| row.ggml_type == ggml_type).map(|row| row.format)
    }

    /// Weights per block.
    pub fn block_len(self) -> usize {
        self.row().block_len
    }

    /// Bytes per block.
    pub fn block_bytes(self) -> usize {
        self.row().block_bytes
    }

    /// Stored bits per weight, scales included.
    pub fn bits_per_weight(self) -> f64 {
        self.block_bytes() as f64 * 8.0 / self.block_len() as f64
    }

    /// Whether weights share scales (everything but F32, F16 and BF16).
    pub fn is_quantized(self) -> bool {
        self.block_len() > 1
    }

    /// Bytes of `weights` weights, or `None` when they do not fill whole blocks or the size overflows.
    pub fn bytes_of(self, weights: usize) -> Option<usize> {
        if !weights.is_multiple_of(self.block_len()) {
            return None;
        }
        (weights / self.block_len()).checked_mul(self.block_bytes())
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_indexed_by_discriminant() {
        for (i, format) in Format::ALL.into_iter().enumerate() {
            assert_eq!(format as usize, i);
            assert_eq!(TABLE[i].format, format);
            assert_eq!(Format::from_name(&format.name().to_uppercase()), Some(format));
            assert_eq!(Format::from_ggml_type(format.ggml_type()), Some(format));
        }
    }

    #[test]
    fn bits_per_weight_are_the_published_ones() {
        let bits = |f: Format| f.bits_per_weight();
        assert_eq!(bits(Format::Q8_0), 8.5);
        assert_eq!(bits(Format::Q6K), 6.5625);
        assert_eq!(bits(Format::Q5K), 5.5);
        assert_eq!(bits(Format::Q4K), 4.5);
        assert_eq!(bits(Format::Q3K), 3.4375);
        assert_eq!(bits(Format::Q2K), 2.625);
        assert_eq!(Format::Q4_0.bytes_of(33), None);
        assert_eq!(Format::F32.bytes_of(usize::MAX), None);
    }
}
