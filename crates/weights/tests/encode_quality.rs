//! How good the encoder's searches are: never worse than ggml's own quantizers on the same numbers.
#![allow(clippy::unwrap_used)]

mod common;

use common::Random;
use proptest::prelude::*;
use roofline_weights::{Format, blocks};

const COLUMNS: usize = 1024;

/// Relative RMS error (weighted by the importance in the last column) of ggml's `quantize_*`, compiled from the sources in
/// llama-cpp-python 0.3.36, on the very values and importance of `gaussian_rows`.
const GGML: [(Format, f64, f64); 10] = [
    (Format::Q8_0, 0.005366, 0.005343),
    (Format::Q6K, 0.017848, 0.016118),
    (Format::Q5K, 0.036040, 0.032489),
    (Format::Q4K, 0.071522, 0.063757),
    (Format::Q3K, 0.151067, 0.132959),
    (Format::Q2K, 0.297428, 0.231622),
    (Format::Q5_0, 0.042724, 0.038033),
    (Format::Q5_1, 0.037750, 0.030285),
    (Format::Q4_0, 0.086179, 0.076692),
    (Format::Q4_1, 0.078394, 0.062692),
];

/// Values (64, COLUMNS) of deviation 0.02, and a log-normal importance per column.
fn gaussian_rows() -> (Vec<f32>, Vec<f32>) {
    let mut random = Random(7);
    let values = random.normals(64 * COLUMNS, 0.02);
    let importance = (0..COLUMNS).map(|_| random.normal().exp() as f32).collect();
    (values, importance)
}

fn round_trip(format: Format, values: &[f32], importance: Option<&[f32]>) -> Vec<f32> {
    let mut bytes = Vec::new();
    blocks::encode(format, values, importance, &mut bytes).unwrap();
    let mut decoded = vec![0.0; values.len()];
    blocks::decode(format, &bytes, &mut decoded).unwrap();
    decoded
}

fn relative_error(values: &[f32], decoded: &[f32], importance: &[f32]) -> f64 {
    let (mut error, mut power) = (0.0, 0.0);
    for (i, (&value, &decoded)) in values.iter().zip(decoded).enumerate() {
        let weight = f64::from(importance[i % importance.len()]);
        error += weight * f64::from(value - decoded).powi(2);
        power += weight * f64::from(value).powi(2);
    }
    (error / power).sqrt()
}

#[test]
fn no_worse_than_ggml_on_gaussian_rows() {
    let (values, importance) = gaussian_rows();
    let alike = vec![1.0; COLUMNS];
    for (format, plain, weighted) in GGML {
        let ours = relative_error(&values, &round_trip(format, &values, None), &alike);
        assert!(ours < plain + 1e-6, "{format}: {ours:.6}, ggml {plain:.6}");
        let ours = relative_error(&values, &round_trip(format, &values, Some(&importance)), &importance);
        assert!(ours < weighted, "{format} with importance: {ours:.6}, ggml {weighted:.6}");
    }
}

#[test]
fn importance_moves_the_error_to_where_it_does_not_matter() {
    let (values, importance) = gaussian_rows();
    for (format, ..) in GGML {
        let blind = relative_error(&values, &round_trip(format, &values, None), &importance);
        let seeing = relative_error(&values, &round_trip(format, &values, Some(&importance)), &importance);
        assert!(seeing < 0.95 * blind, "{format}: {seeing:.6} against {blind:.6}");
    }
}

#[test]
fn two_levels_are_kept_to_the_precision_of_the_scale() {
    for format in Format::ALL {
        assert_eq!(round_trip(format, &[0.0; 256], None), [0.0; 256], "{format}");
        let two_levels: Vec<f32> = (0..256).map(|i| if i % 3 == 0 { -0.5 } else { 0.0 }).collect();
        let decoded = round_trip(format, &two_levels, None);
        let worst = decoded.iter().zip(&two_levels).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 0.5 / 1024.0, "{format}: {worst}");
    }
}

/// Found by `any_finite_values_encode_or_are_refused`: where d rounded to zero and dmin did not, a sub-block decoded to −dmin.
#[test]
fn values_below_the_smallest_scale_are_no_worse_than_zeros() {
    for (format, size) in [(Format::Q2K, 6e-7), (Format::Q4K, 2.5e-6), (Format::Q5K, 2.5e-6)] {
        let values: Vec<f32> = (0..256).map(|i| if i % 2 == 0 { size } else { -size }).collect();
        assert!(relative_error(&values, &round_trip(format, &values, None), &[1.0]) <= 1.0, "{format}");
    }
}

#[test]
fn values_no_scale_can_hold_are_refused_by_index() {
    for format in Format::ALL.into_iter().filter(|format| format.is_quantized() || *format == Format::F16) {
        for value in [3e8, -1e20, f32::MAX] {
            let mut values = [1.0; 512];
            values[300] = value;
            let mut out = vec![7];
            let error = blocks::encode(format, &values, None, &mut out).unwrap_err().to_string();
            assert!(error.contains("value 300") && error.contains(format.name()), "{error}");
            assert_eq!(out, [7]);
        }
    }
}

#[test]
fn what_cannot_be_encoded_is_refused_with_its_numbers() {
    let encode = |values: &[f32], importance: Option<&[f32]>| {
        blocks::encode(Format::Q4K, values, importance, &mut Vec::new()).unwrap_err().to_string()
    };
    let mut values = vec![0.5; 512];
    values[13] = f32::NAN;
    assert!(encode(&values, None).contains("value 13 is NaN"));
    assert!(encode(&[1.0; 255], None).contains("255 weights as q4_k"));
    assert!(encode(&[1.0; 256], Some(&[1.0; 512])).contains("rows of 512 columns"));
    assert!(encode(&[1.0; 256], Some(&[])).contains("rows of 0 columns"));
    let mut importance = [1.0; 256];
    importance[9] = -1.0;
    assert!(encode(&[1.0; 256], Some(&importance)).contains("importance 9 is -1"));
    let error = blocks::decode(Format::Q4K, &[0; 143], &mut [0.0; 256]).unwrap_err().to_string();
    assert_eq!(error, "256 weights as q4_k are 144 bytes, got 143 bytes");
    let error = blocks::decode(Format::Q4K, &[0; 144], &mut [0.0; 255]).unwrap_err().to_string();
    assert_eq!(error, "255 weights as q4_k are not a whole number of blocks of 256, got 144 bytes");
}

fn any_format() -> impl Strategy<Value = Format> {
    proptest::sample::select(Format::ALL.to_vec())
}

proptest! {
    #[test]
    fn any_bytes_decode(format in any_format(), seed in any::<u64>()) {
        let mut random = Random(seed);
        let bytes: Vec<u8> = (0..format.bytes_of(512).unwrap()).map(|_| random.next() as u8).collect();
        blocks::decode(format, &bytes, &mut [0.0; 512]).unwrap();
    }

    /// Bits of any finite values, importance of any kind: encoded or refused, and what is encoded decodes finite.
    #[test]
    fn any_finite_values_encode_or_are_refused(
        format in any_format(),
        seed in any::<u64>(),
        exponents in 0u32..40,
        middle in 90u32..160,
    ) {
        let mut random = Random(seed);
        let mut value = || {
            let exponent = middle + random.next() as u32 % (exponents + 1);
            f32::from_bits((random.next() as u32 & 0x807f_ffff) | exponent.min(254) << 23)
        };
        let values: Vec<f32> = (0..256).map(|_| value()).collect();
        let importance: Vec<f32> = (0..256).map(|_| value().abs()).collect();
        for importance in [None, Some(&importance[..])] {
            let mut bytes = Vec::new();
            if blocks::encode(format, &values, importance, &mut bytes).is_ok() {
                let mut decoded = [0.0; 256];
                blocks::decode(format, &bytes, &mut decoded).unwrap();
                prop_assert!(decoded.iter().all(|value| value.is_finite()));
                if format.block_len() == 256 {
                    let error = relative_error(&values, &decoded, importance.unwrap_or(&[1.0]));
                    prop_assert!(error <= 1.0 + 1e-6, "worse than zeros: {format}: {error}");
                }
            } else {
                prop_assert!(bytes.is_empty());
            }
        }
    }

    /// What a format decodes to, it can represent: encoding that again loses next to nothing.
    #[test]
    fn encoding_decoded_values_keeps_them(format in any_format(), seed in any::<u64>()) {
        let values = Random(seed).normals(256, 0.02);
        let once = round_trip(format, &values, None);
        let twice = round_trip(format, &once, None);
        let (first, second) = (relative_error(&values, &once, &[1.0]), relative_error(&once, &twice, &[1.0]));
        prop_assert!(second <= 0.6 * first + 1e-7, "{format}: {second} after {first}");
    }
}
