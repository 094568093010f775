//! The block formats against ggml's own arithmetic: `tools/golden_blocks.py` made the files.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use roofline_weights::{Format, blocks};

struct Golden {
    blocks: Vec<u8>,
    values: Vec<f32>,
}

fn read(format: Format, kind: &str) -> Golden {
    let name = format!("tests/golden/{}.{kind}", format.name());
    let file = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap();
    let (count, rest) = file.split_first_chunk::<4>().unwrap();
    let (blocks, values) = rest.split_at(u32::from_le_bytes(*count) as usize * format.block_bytes());
    let values = values.as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
    Golden { blocks: blocks.to_vec(), values }
}

fn same_bits(a: f32, b: f32) -> bool {
    a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()
}

#[test]
fn decode_gives_the_bits_of_ggml() {
    for format in Format::ALL.into_iter().filter(|&format| format != Format::F32) {
        let golden = read(format, "decode");
        let mut out = vec![0.0; golden.values.len()];
        blocks::decode(format, &golden.blocks, &mut out).unwrap();
        for (i, (&ours, &theirs)) in out.iter().zip(&golden.values).enumerate() {
            let block = i / format.block_len();
            assert!(same_bits(ours, theirs), "{format} block {block} weight {i}: {ours:e} != {theirs:e}");
        }
    }
}

#[test]
fn encode_without_importance_gives_the_bytes_of_ggml() {
    for format in
        [Format::F16, Format::Bf16, Format::Q8_0, Format::Q5_0, Format::Q5_1, Format::Q4_0, Format::Q4_1]
    {
        let golden = read(format, "encode");
        let mut out = Vec::new();
        blocks::encode(format, &golden.values, None, &mut out).unwrap();
        for (i, (ours, theirs)) in
            out.chunks(format.block_bytes()).zip(golden.blocks.chunks(format.block_bytes())).enumerate()
        {
            let values = &golden.values[i * format.block_len()..][..format.block_len()];
            assert_eq!(ours, theirs, "{format} block {i} of {values:?}");
        }
        assert_eq!(out.len(), golden.blocks.len());
    }
}

/// The golden blocks hold infinite and NaN scales; the finite test must agree with what decoding says of each block.
#[test]
fn first_not_finite_agrees_with_decoding() {
    for format in Format::ALL.into_iter().filter(|&format| format != Format::F32) {
        let golden = read(format, "decode");
        let mut bad_blocks = 0;
        for (bytes, values) in
            golden.blocks.chunks(format.block_bytes()).zip(golden.values.chunks(format.block_len()))
        {
            let expected = values.iter().position(|value| !value.is_finite());
            assert_eq!(blocks::first_not_finite(format, bytes), expected, "{format} {bytes:?}");
            bad_blocks += usize::from(expected.is_some());
        }
        assert!(bad_blocks > 0, "{format}: no block of the file is bad");
        let first = golden.values.iter().position(|value| !value.is_finite());
        assert_eq!(blocks::first_not_finite(format, &golden.blocks), first, "{format}");
    }
    let floats: Vec<u8> =
        [1.0, -0.0, f32::NEG_INFINITY, f32::NAN].iter().flat_map(|v: &f32| v.to_le_bytes()).collect();
    assert_eq!(blocks::first_not_finite(Format::F32, &floats), Some(2));
    assert_eq!(blocks::first_not_finite(Format::F32, &floats[..8]), None);
}
