//! Whether every weight is a number, from the bytes that decide it: each float, or the f16 scales of each block.

use half::f16;

use crate::Format;

/// Index of the first weight of `bytes` (whole blocks) that decodes to NaN or infinity. Of a quantized block the scales
/// alone decide, for all its weights at once: finite scales give finite weights, since the largest f16 times every scale
/// and code is far inside f32, and an infinite or NaN scale leaves none finite.
pub fn first_not_finite(format: Format, bytes: &[u8]) -> Option<usize> {
    match format {
        Format::F32 => position::<4>(bytes, |bytes| f32::from_le_bytes(*bytes).is_finite()),
        Format::F16 => position::<2>(bytes, |bytes| f16::from_le_bytes(*bytes).is_finite()),
        Format::Bf16 => position::<2>(bytes, |bytes| half::bf16::from_le_bytes(*bytes).is_finite()),
        Format::Q8_0 | Format::Q5_0 | Format::Q4_0 => scales(format, bytes, &[0]),
        Format::Q5_1 | Format::Q4_1 | Format::Q5K | Format::Q4K => scales(format, bytes, &[0, 2]),
        Format::Q6K => scales(format, bytes, &[208]),
        Format::Q3K => scales(format, bytes, &[108]),
        Format::Q2K => scales(format, bytes, &[80, 82]),
    }
}

fn position<const N: usize>(bytes: &[u8], is_finite: fn(&[u8; N]) -> bool) -> Option<usize> {
    bytes.as_chunks::<N>().0.iter().position(|bytes| !is_finite(bytes))
}

/// The f16 at each of `offsets` of every block.
fn scales(format: Format, bytes: &[u8], offsets: &[usize]) -> Option<usize> {
    let is_finite =
        |block: &[u8]| offsets.iter().all(|&at| f16::from_le_bytes([block[at], block[at + 1]]).is_finite());
    let block = bytes.chunks_exact(format.block_bytes()).position(|block| !is_finite(block))?;
    Some(block * format.block_len())
}
