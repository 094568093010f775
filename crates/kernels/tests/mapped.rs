//! A matrix whose groups are packed at each use gives the bits of one that was packed at once.
#![allow(clippy::unwrap_used)] // the lint exempts test functions, not their helpers

mod common;

use std::sync::Arc;

use common::{Matrix, Random, half_offsets, widths};
use roofline_kernels::{
    Activations, Arithmetic, Isa, KernelError, KernelTable, MatmulJob, PackedMatrix, Team, matmul,
    matmul_experts,
};
use roofline_weights::Format;

/// The same matrix packed and mapped.
fn both(matrix: Matrix, team: &Team) -> [PackedMatrix; 2] {
    let packed = matrix.pack(team);
    let (format, rows, cols) = (matrix.format, matrix.rows, matrix.cols);
    [packed, PackedMatrix::mapped(format, rows, cols, Arc::new(matrix)).unwrap()]
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

/// Every table of this machine.
fn tables() -> impl Iterator<Item = KernelTable> {
    let both = [Arithmetic::Fast, Arithmetic::Exact];
    Isa::available().flat_map(move |isa| both.map(|kind| KernelTable::detect_for(Some(isa), kind).unwrap()))
}

/// `x * w^T + bias`, added to `x`'s first element of each row.
fn product(table: &KernelTable, team: &Team, w: &PackedMatrix, x: &[f32], rows: usize) -> Vec<u32> {
    let mut activations = Activations::with_capacity(rows, w.cols()).unwrap();
    activations.set(table, team, x, rows, w.cols(), &[w.format()]).unwrap();
    let bias: Vec<f32> = (0..w.rows()).map(|i| i as f32).collect(); // (w.rows)
    let mut out = vec![0.5; rows * w.rows()]; // (rows, w.rows)
    let job = MatmulJob { w, bias: Some(&bias), out: &mut out, add: true };
    matmul(table, team, &activations, &mut [job]).unwrap();
    bits(&out)
}

#[test]
fn products_have_the_same_bits() {
    let mut random = Random(20);
    let teams = [1, 3].map(|threads| Team::new(threads).unwrap());
    for table in tables() {
        for format in Format::ALL {
            for &cols in widths(format) {
                let outputs = 1 + random.below(150);
                let [packed, mapped] = both(Matrix::random(format, outputs, cols, &mut random), &teams[0]);
                let x = random.floats(250 * cols);
                for rows in [1, 3, 4, 33, 250] {
                    let want = product(&table, &teams[0], &packed, &x[..rows * cols], rows);
                    for team in &teams {
                        let got = product(&table, team, &mapped, &x[..rows * cols], rows);
                        assert!(got == want, "{} {format} {outputs}x{cols}, {rows} rows", table.isa());
                    }
                }
            }
        }
    }
}

#[test]
fn wide_matrices_of_few_groups_a_band_have_the_same_bits() {
    let mut random = Random(21);
    let team = Team::new(2).unwrap();
    let table = KernelTable::detect_for(None, Arithmetic::Fast).unwrap();
    let [packed, mapped] = both(Matrix::random(Format::F32, 100, 5000, &mut random), &team);
    for rows in [1, 9] {
        let x = random.floats(rows * 5000);
        assert_eq!(product(&table, &team, &packed, &x, rows), product(&table, &team, &mapped, &x, rows));
    }
}

#[test]
fn experts_have_the_same_bits() {
    let mut random = Random(22);
    let team = Team::new(2).unwrap();
    let (rows, cols) = (40, 512);
    for format in Format::ALL {
        let (packed, mapped): (Vec<_>, Vec<_>) = (0..3)
            .map(|_| both(Matrix::random(format, rows, cols, &mut random), &team))
            .map(|[packed, mapped]: [PackedMatrix; 2]| (packed, mapped))
            .unzip();
        let x = random.floats(7 * cols);
        let table = KernelTable::detect_for(None, Arithmetic::Fast).unwrap();
        let mut activations = Activations::with_capacity(7, cols).unwrap();
        activations.set(&table, &team, &x, 7, cols, &[format]).unwrap();
        let all = [&packed, &mapped].map(|experts| {
            let mut out = vec![f32::NAN; 7 * rows]; // (7, rows)
            matmul_experts(&table, &team, &activations, experts, &[0..2, 2..2, 2..7], &mut out).unwrap();
            bits(&out)
        });
        assert_eq!(all[0], all[1], "{format}");
    }
}

#[test]
fn rows_decode_to_the_same_bits() {
    let mut random = Random(23);
    let team = Team::new(1).unwrap();
    for format in Format::ALL {
        for &cols in widths(format) {
            let pair = both(Matrix::random(format, 35, cols, &mut random), &team);
            for row in 0..35 {
                let decoded = [0, 1].map(|i| {
                    let mut out = vec![f32::NAN; cols]; // (cols)
                    pair[i].decode_row(row, &mut out).unwrap();
                    bits(&out)
                });
                assert_eq!(decoded[0], decoded[1], "{format} {cols} row {row}");
            }
        }
    }
}

#[test]
fn a_weight_that_is_no_number_is_named_when_it_is_multiplied() {
    let mut random = Random(24);
    let team = Team::new(2).unwrap();
    let table = KernelTable::detect_for(None, Arithmetic::Fast).unwrap();
    for format in Format::ALL {
        let (rows, cols, row, col) = (300, 512, 200, 256);
        let mut bytes = Matrix::random(format, rows, cols, &mut random).bytes;
        for bad_row in [row, row + 30] {
            let at = bad_row * format.bytes_of(cols).unwrap() + format.bytes_of(col).unwrap();
            match format {
                Format::F32 => bytes[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes()),
                Format::Bf16 => bytes[at..at + 2].copy_from_slice(&half::bf16::NAN.to_le_bytes()),
                _ => {
                    let at = at + half_offsets(format).last().copied().unwrap_or(0);
                    bytes[at..at + 2].copy_from_slice(&half::f16::INFINITY.to_le_bytes());
                }
            }
        }
        let source = Arc::new(Matrix::from_bytes(format, rows, cols, bytes));
        let w = PackedMatrix::mapped(format, rows, cols, source).unwrap();
        let mut activations = Activations::with_capacity(1, cols).unwrap();
        activations.set(&table, &team, &random.floats(cols), 1, cols, &[format]).unwrap();
        let mut out = vec![0.0; rows]; // (1, rows)
        let job = MatmulJob { w: &w, bias: None, out: &mut out, add: false };
        let refused = matmul(&table, &team, &activations, &mut [job]);
        let Err(KernelError::NotFiniteIn { name, row: found, col: near }) = refused else {
            panic!("{format}: {refused:?}");
        };
        assert_eq!((name.as_str(), found, near), ("a.weight", row, col), "{format}");
        let looked_up = w.decode_row(row, &mut vec![0.0; cols]);
        assert!(
            matches!(looked_up, Err(KernelError::NotFiniteIn { row: 200, col: 256, .. })),
            "{looked_up:?}"
        );
    }
}
