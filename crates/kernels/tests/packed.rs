//! Packing: what goes in comes out, bit for bit; what cannot be packed is refused by name.
#![allow(clippy::unwrap_used)] // the lint exempts test functions, not their helpers

mod common;

use common::{Matrix, Random, half_offsets, widths};
use roofline_kernels::{KernelError, PackedMatrix, Team};
use roofline_weights::Format;

#[test]
fn a_packed_row_decodes_as_the_format_defines_it() {
    let team = Team::new(2).unwrap();
    let mut random = Random(1);
    for format in Format::ALL {
        for &cols in widths(format) {
            for rows in [1, 15, 16, 17, 40] {
                let matrix = Matrix::random(format, rows, cols, &mut random);
                let packed = matrix.pack(&team);
                assert_eq!((packed.rows(), packed.cols(), packed.format()), (rows, cols, format));
                assert_eq!(packed.stored_bytes(), matrix.bytes.len());
                let padding = format.bytes_of(cols).unwrap() * (rows.next_multiple_of(16) - rows);
                let odd_pairs =
                    if format == Format::Bf16 { 2 * (cols % 2) * rows.next_multiple_of(16) } else { 0 };
                assert_eq!(packed.allocated_bytes(), matrix.bytes.len() + padding + odd_pairs);
                let mut row_out = vec![0.0; cols];
                for row in 0..rows {
                    packed.decode_row(row, &mut row_out).unwrap();
                    let want = &matrix.decoded[row * cols..(row + 1) * cols];
                    let same = row_out.iter().zip(want).all(|(a, b)| a.to_bits() == b.to_bits() || a == b);
                    assert!(same, "{format} {rows}x{cols} row {row}\n{row_out:?}\n{want:?}");
                }
            }
        }
    }
}

#[test]
fn a_weight_or_scale_that_is_no_number_is_found_and_its_place_told() {
    let team = Team::new(2).unwrap();
    let mut random = Random(2);
    for format in Format::ALL {
        let (rows, cols) = (37, 512);
        let matrix = Matrix::random(format, rows, cols, &mut random);
        let row_len = format.bytes_of(cols).unwrap();
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let (row, col) = (33, 256);
            let mut bytes = matrix.bytes.clone();
            // A later row has one too: the first is named.
            for row in [row, row + 1] {
                let at = row * row_len + format.bytes_of(col).unwrap();
                match format {
                    Format::F32 => bytes[at..at + 4].copy_from_slice(&bad.to_le_bytes()),
                    Format::Bf16 => {
                        bytes[at..at + 2].copy_from_slice(&half::bf16::from_f32(bad).to_le_bytes())
                    }
                    _ => {
                        let at = at + half_offsets(format).last().copied().unwrap_or(0);
                        bytes[at..at + 2].copy_from_slice(&half::f16::from_f32(bad).to_le_bytes());
                    }
                }
            }
            let refused =
                PackedMatrix::pack(format, rows, cols, &|r| &bytes[r * row_len..(r + 1) * row_len], &team);
            let Err(KernelError::NotFinite { row: found, col: near }) = refused else {
                panic!("{format} {bad}: {refused:?}");
            };
            assert_eq!((found, near), (row, col), "{format} {bad}");
        }
    }
}

#[test]
fn a_large_matrix_is_packed_in_bands_that_tell_how_far_they_are() {
    let team = Team::new(2).unwrap();
    let (rows, cols) = (2500, 4096); // 41 MB
    let row: Vec<u8> = (0..cols).flat_map(|k| (k as f32).to_le_bytes()).collect();
    let mut heard = Vec::new();
    let packed =
        PackedMatrix::pack_with(Format::F32, rows, cols, &|_| &row, &team, &mut |done| heard.push(done));
    assert_eq!(heard, [1024, 2048, 2500]);
    let mut out = vec![0.0; cols];
    packed.unwrap().decode_row(rows - 1, &mut out).unwrap();
    assert!(out.iter().enumerate().all(|(k, &x)| x == k as f32));
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let team = Team::new(1).unwrap();
    let pack = |format, rows, cols, len: usize| {
        let bytes = vec![0u8; len];
        PackedMatrix::pack(format, rows, cols, &|_| &bytes, &team).err()
    };
    assert!(matches!(pack(Format::Q4_0, 3, 33, 18), Some(KernelError::PartialBlock { cols: 33, .. })));
    assert!(matches!(pack(Format::Q4K, 3, 128, 72), Some(KernelError::PartialBlock { .. })));
    assert!(matches!(
        pack(Format::F32, 3, 8, 31),
        Some(KernelError::RowBytes { row: 0, got: 31, want: 32, .. })
    ));
    assert!(matches!(pack(Format::F32, usize::MAX / 8, 4, 16), Some(KernelError::TooLarge { .. })));
    assert!(matches!(pack(Format::F32, 1 << 40, 1 << 20, 4 << 20), Some(KernelError::TooLarge { .. })));
    assert!(pack(Format::F32, 0, 8, 0).is_none());

    let matrix = Matrix::random(Format::F32, 2, 3, &mut Random(3));
    let packed = matrix.pack(&team);
    assert!(matches!(packed.decode_row(2, &mut [0.0; 3]), Err(KernelError::Shape { got: 2, .. })));
    assert!(matches!(packed.decode_row(0, &mut [0.0; 4]), Err(KernelError::Shape { got: 4, want: 3, .. })));
}
