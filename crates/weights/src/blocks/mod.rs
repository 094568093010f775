//! The block formats: what their bytes mean, as plain scalar code. Everything faster is tested against this.
//!
//! A quantized format cuts a row into blocks of 32 or 256 weights. Layouts and arithmetic are those of ggml
//! (`ggml-common.h`, `dequantize_row_*`): decoding gives the same bits as its reference, no fused multiply-add.
//! Encoding minimises the squared error of each block (see [`encode`]).

mod affine;
mod finite;
mod float;
mod q2_k;
mod q3_k;
mod q4_k;
mod q5_k;
mod q6_k;
mod q8_0;
mod search;
mod small;
mod symmetric;

pub use finite::first_not_finite;
use half::f16;

use crate::{Format, WeightsError};

/// Decodes `bytes` into `out`, one f32 for each weight. Any bytes decode; scales that are NaN or infinite give such
/// weights.
///
/// # Errors
/// [`WeightsError::BlockBytes`] when `bytes` are not exactly the blocks of `out.len()` weights.
pub fn decode(format: Format, bytes: &[u8], out: &mut [f32]) -> Result<(), WeightsError> {
    let expected = format.bytes_of(out.len());
    if expected != Some(bytes.len()) {
        let expected = match expected {
            Some(bytes) => format!("{bytes} bytes"),
            None => format!("not a whole number of blocks of {}", format.block_len()),
        };
        return Err(WeightsError::BlockBytes { format, weights: out.len(), expected, bytes: bytes.len() });
    }
    match format {
        Format::F32 => each(bytes, out, float::decode_f32),
        Format::F16 => each(bytes, out, float::decode_f16),
        Format::Bf16 => each(bytes, out, float::decode_bf16),
        Format::Q8_0 => each(bytes, out, q8_0::decode),
        Format::Q6K => each(bytes, out, q6_k::decode),
        Format::Q5K => each(bytes, out, q5_k::decode),
        Format::Q4K => each(bytes, out, q4_k::decode),
        Format::Q3K => each(bytes, out, q3_k::decode),
        Format::Q2K => each(bytes, out, q2_k::decode),
        Format::Q5_0 => each(bytes, out, small::decode_q5_0),
        Format::Q5_1 => each(bytes, out, small::decode_q5_1),
        Format::Q4_0 => each(bytes, out, small::decode_q4_0),
        Format::Q4_1 => each(bytes, out, small::decode_q4_1),
    }
    Ok(())
}

fn each<const BYTES: usize, const LEN: usize>(
    bytes: &[u8],
    out: &mut [f32],
    decode: fn(&[u8; BYTES], &mut [f32; LEN]),
) {
    for (block, out) in bytes.as_chunks::<BYTES>().0.iter().zip(out.as_chunks_mut::<LEN>().0) {
        decode(block, out);
    }
}

/// Encodes whole rows and appends their blocks to `out`.
///
/// `importance` holds one non-negative weight per column (an "importance matrix" row: the mean square of the
/// activation that meets the column); `values` are then rows of that many columns. The encoder minimises
/// Σ importance·(value − decoded)² over each block, `None` meaning all alike; Q2_K with importance leans towards large values
/// (see `q2_k::encode_weighted`). The older formats without importance are written as ggml's reference writes them, bit for
/// bit (plain range scaling); everything else searches.
///
/// # Errors
/// Values that do not fill whole blocks or rows; a value that is not finite or too large for the format (named by its
/// index). `out` is then as it was.
pub fn encode(
    format: Format,
    values: &[f32],
    importance: Option<&[f32]>,
    out: &mut Vec<u8>,
) -> Result<(), WeightsError> {
    check_values(format, values, importance)?;
    let before = out.len();
    let done = match (format, importance) {
        (Format::F32, _) => append(values, None, out, |x, _| float::encode_f32(x)),
        (Format::F16, _) => append(values, None, out, |x, _| float::encode_f16(x)),
        (Format::Bf16, _) => append(values, None, out, |x, _| float::encode_bf16(x)),
        (Format::Q8_0, None) => append(values, None, out, |x, _| q8_0::encode(x)),
        (Format::Q4_0, None) => append(values, None, out, |x, _| small::encode_q4_0(x)),
        (Format::Q4_1, None) => append(values, None, out, |x, _| small::encode_q4_1(x)),
        (Format::Q5_0, None) => append(values, None, out, |x, _| small::encode_q5_0(x)),
        (Format::Q5_1, None) => append(values, None, out, |x, _| small::encode_q5_1(x)),
        (Format::Q8_0, _) => append(values, importance, out, q8_0::encode_weighted),
        (Format::Q4_0, _) => append(values, importance, out, small::encode_q4_0_weighted),
        (Format::Q4_1, _) => append(values, importance, out, small::encode_q4_1_weighted),
        (Format::Q5_0, _) => append(values, importance, out, small::encode_q5_0_weighted),
        (Format::Q5_1, _) => append(values, importance, out, small::encode_q5_1_weighted),
        (Format::Q6K, _) => append(values, importance, out, q6_k::encode),
        (Format::Q5K, _) => append(values, importance, out, q5_k::encode),
        (Format::Q4K, _) => append(values, importance, out, q4_k::encode),
        (Format::Q3K, _) => append(values, importance, out, q3_k::encode),
        (Format::Q2K, None) => append(values, None, out, q2_k::encode),
        (Format::Q2K, _) => append(values, importance, out, q2_k::encode_weighted),
    };
    done.map_err(|block| {
        out.truncate(before);
        let first = block * format.block_len();
        let largest = |a: usize, b: usize| if values[b].abs() > values[a].abs() { b } else { a };
        let index = (first..first + format.block_len()).reduce(largest).unwrap_or(first);
        WeightsError::OutOfRange { index, value: values[index], format }
    })
}

/// No block format reaches this magnitude (Q6_K's largest weight is 2.7e8), and the square of anything smaller, summed
/// over a block, stays far inside f32.
const LARGEST: f32 = 1e15;

fn check_values(format: Format, values: &[f32], importance: Option<&[f32]>) -> Result<(), WeightsError> {
    if let Some(index) = values.iter().position(|value| !value.is_finite()) {
        return Err(WeightsError::NotFinite { what: "value", index, value: values[index], format });
    }
    if format.is_quantized()
        && let Some(index) = values.iter().position(|value| value.abs() > LARGEST)
    {
        return Err(WeightsError::OutOfRange { index, value: values[index], format });
    }
    let columns = importance.map_or(format.block_len(), <[f32]>::len);
    if columns == 0 || !columns.is_multiple_of(format.block_len()) || !values.len().is_multiple_of(columns) {
        return Err(WeightsError::EncodeLength {
            format,
            weights: values.len(),
            block: format.block_len(),
            columns,
        });
    }
    let bad = |weight: &f32| !(weight.is_finite() && *weight >= 0.0);
    match importance.and_then(|importance| importance.iter().position(bad).map(|at| (at, importance[at]))) {
        Some((index, value)) => Err(WeightsError::NotFinite { what: "importance", index, value, format }),
        None => Ok(()),
    }
}

/// Encodes block after block; the error is the index of a block whose scale does not fit.
fn append<const BYTES: usize, const LEN: usize>(
    values: &[f32],
    importance: Option<&[f32]>,
    out: &mut Vec<u8>,
    encode: impl Fn(&[f32; LEN], &[f32; LEN]) -> Option<[u8; BYTES]>,
) -> Result<(), usize> {
    let blocks = values.as_chunks::<LEN>().0;
    out.reserve(blocks.len() * BYTES);
    let rows = importance.map(|importance| importance.as_chunks::<LEN>().0);
    for (i, block) in blocks.iter().enumerate() {
        let weights = rows.map_or([1.0; LEN], |row| normalised(&row[i % row.len()]));
        out.extend_from_slice(&encode(block, &weights).ok_or(i)?);
    }
    Ok(())
}

/// Importance with its largest entry 1, so that sums of squares stay far from the ends of f32; a block that matters to
/// nobody counts all its weights alike.
fn normalised<const LEN: usize>(importance: &[f32; LEN]) -> [f32; LEN] {
    let largest = importance.iter().copied().fold(0.0, f32::max);
    if largest < f32::MIN_POSITIVE {
        return [1.0; LEN];
    }
    importance.map(|weight| weight / largest)
}

/// The f16 at `bytes[at..at + 2]`.
fn f16_at<const N: usize>(bytes: &[u8; N], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

/// A scale as a file can hold it, `None` where f16 can't.
fn to_f16(scale: f32) -> Option<f16> {
    let rounded = f16::from_f32(scale);
    rounded.is_finite().then_some(rounded)
}
