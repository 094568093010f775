//! Matrix products: against f64 over the decoded weights, against the scalar kernels, and against themselves with
//! other rows beside them.
#![allow(clippy::unwrap_used)] // the lint exempts test functions, not their helpers

mod common;

use common::{Matrix, Random, widths};
use roofline_kernels::{
    Activations, Arithmetic, Isa, KernelError, KernelTable, MatmulJob, PackedMatrix, Team, matmul,
    matmul_experts,
};
use roofline_weights::Format;

const BOTH: [Arithmetic; 2] = [Arithmetic::Fast, Arithmetic::Exact];

/// Every level of this machine in either arithmetic.
fn kinds() -> impl Iterator<Item = (Isa, Arithmetic)> {
    Isa::available().flat_map(|isa| BOTH.map(|arithmetic| (isa, arithmetic)))
}

/// `x * w^T` for `rows` rows.
fn product(kind: (Isa, Arithmetic), team: &Team, w: &PackedMatrix, x: &[f32], rows: usize) -> Vec<f32> {
    let table = KernelTable::detect_for(Some(kind.0), kind.1).unwrap();
    let mut activations = Activations::with_capacity(rows, w.cols()).unwrap();
    activations.set(&table, team, x, rows, w.cols(), &[w.format()]).unwrap();
    let mut out = vec![f32::NAN; rows * w.rows()];
    let job = MatmulJob { w, bias: None, out: &mut out, add: false };
    matmul(&table, team, &activations, &mut [job]).unwrap();
    out
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn products_are_those_of_the_decoded_weights() {
    let team = Team::new(2).unwrap();
    let mut random = Random(10);
    for (isa, arithmetic) in kinds() {
        for format in Format::ALL {
            for &cols in widths(format) {
                for rows in [1, 2, 3, 5, 13, 33] {
                    let matrix = Matrix::random(format, 1 + random.below(150), cols, &mut random);
                    let x = random.floats(rows * cols);
                    let out = product((isa, arithmetic), &team, &matrix.pack(&team), &x, rows);
                    for (i, &got) in out.iter().enumerate() {
                        let (row, r) = (i / matrix.rows, i % matrix.rows);
                        let (want, allowed) =
                            matrix.dot(r, &x[row * cols..(row + 1) * cols], (isa, arithmetic));
                        let off = (f64::from(got) - want).abs();
                        assert!(
                            off <= allowed,
                            "{isa} {arithmetic} {format} {}x{cols}, row {row} of {rows}, output {r}: {got} for {want}, \
                             {off:e} off, {allowed:e} allowed",
                            matrix.rows
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn a_row_does_not_depend_on_the_rows_beside_it_nor_on_the_threads() {
    let mut random = Random(11);
    let teams = [1, 2, 3].map(|threads| Team::new(threads).unwrap());
    for kind in kinds() {
        for format in Format::ALL {
            let cols = if format.block_len() == 32 { 544 } else { 768 };
            let matrix = Matrix::random(format, 150, cols, &mut random);
            let packed = matrix.pack(&teams[0]);
            let x = random.floats(197 * cols);
            let alone: Vec<Vec<u32>> = (0..197)
                .map(|row| bits(&product(kind, &teams[0], &packed, &x[row * cols..(row + 1) * cols], 1)))
                .collect();
            for rows in [2, 3, 4, 7, 16, 33, 197] {
                for team in &teams {
                    let out = product(kind, team, &packed, &x[..rows * cols], rows);
                    for (row, out) in out.chunks(150).enumerate() {
                        let threads = team.threads();
                        assert_eq!(
                            bits(out),
                            alone[row],
                            "{kind:?} {format} row {row} of {rows}, {threads} threads"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn rows_of_several_tiles_are_each_what_they_are_alone() {
    let (team, cols) = (Team::new(2).unwrap(), 288);
    let mut random = Random(17);
    for kind in kinds() {
        for format in [Format::F32, Format::F16, Format::Bf16, Format::Q8_0, Format::Q5_1] {
            let packed = Matrix::random(format, 40, cols, &mut random).pack(&team);
            let x = random.floats(601 * cols);
            let out = product(kind, &team, &packed, &x, 601);
            for row in [0, 95, 96, 263, 264, 400, 599, 600] {
                let alone = product(kind, &team, &packed, &x[row * cols..(row + 1) * cols], 1);
                assert_eq!(bits(&out[row * 40..(row + 1) * 40]), bits(&alone), "{kind:?} {format} row {row}");
            }
        }
    }
}

#[test]
fn every_level_gives_the_same_bits_save_that_scalar_floats_round_twice_and_bf16_is_rounded_to() {
    let team = Team::new(2).unwrap();
    let mut random = Random(12);
    for format in Format::ALL {
        for &cols in widths(format) {
            let matrix = Matrix::random(format, 70, cols, &mut random);
            let packed = matrix.pack(&team);
            for (rows, arithmetic) in [1, 9].into_iter().flat_map(|rows| BOTH.map(|kind| (rows, kind))) {
                let x = random.floats(rows * cols);
                let levels: Vec<(Isa, Vec<u32>)> = Isa::available()
                    .filter(|&isa| format.is_quantized() || isa != Isa::Scalar)
                    .filter(|&isa| {
                        (format, isa, arithmetic) != (Format::Bf16, Isa::Avx512Bf16, Arithmetic::Fast)
                    })
                    .map(|isa| (isa, bits(&product((isa, arithmetic), &team, &packed, &x, rows))))
                    .collect();
                for pair in levels.windows(2) {
                    assert_eq!(pair[0].1, pair[1].1, "{format} {cols} columns: {} {}", pair[0].0, pair[1].0);
                }
            }
        }
    }
}

/// Bytes of a quantized matrix with every weight and integer scale at one end of its range.
fn extreme(format: Format, rows: usize, cols: usize, byte: u8, scale: f32) -> Matrix {
    let mut bytes = vec![byte; format.bytes_of(cols).unwrap() * rows];
    for block in bytes.chunks_exact_mut(format.block_bytes()) {
        for at in common::half_offsets(format) {
            block[*at..at + 2].copy_from_slice(&half::f16::from_f32(scale).to_le_bytes());
        }
    }
    Matrix::from_bytes(format, rows, cols, bytes)
}

#[test]
fn extreme_values_neither_saturate_nor_wrap() {
    let team = Team::new(1).unwrap();
    let (rows, cols) = (33, 512);
    for (isa, arithmetic) in kinds() {
        for format in Format::ALL.into_iter().filter(|format| format.is_quantized()) {
            for byte in [0x00, 0xff, 0x80, 0x7f] {
                for scale in [1.0, 65504.0, 6e-8, -0.5] {
                    let matrix = extreme(format, rows, cols, byte, scale);
                    let packed = matrix.pack(&team);
                    for x in [1.0f32, -1.0, 0.0, 1e-42, 3e30, -1e-30] {
                        for activation_rows in [1, 5] {
                            let x = vec![x; activation_rows * cols];
                            let out = product((isa, arithmetic), &team, &packed, &x, activation_rows);
                            let (want, _) = matrix.dot(0, &x[..cols], (isa, arithmetic));
                            for got in out {
                                let got = f64::from(got);
                                // The min of a format is as large as its weights, and what is left may be small;
                                // activations are kept to half of the smallest normal number; the product of
                                // two scales may be subnormal.
                                let weights = f64::from(scale.abs()) * 4096.0 * cols as f64;
                                let scale = f64::from(x[0].abs()) * weights;
                                let allowed = 1e-5 * want.abs() + 2e-7 * scale + 6e-39 * weights + 1e-34;
                                let overflows =
                                    want.abs() > f64::from(f32::MAX) || scale > f64::from(f32::MAX);
                                assert!(
                                    (got - want).abs() <= allowed || overflows,
                                    "{isa} {arithmetic} {format} {byte:#x} {scale}: {got} for {want}"
                                );
                            }
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn activations_that_are_no_numbers_show_in_the_outputs_of_their_row_only() {
    let team = Team::new(1).unwrap();
    let mut random = Random(13);
    for kind in kinds() {
        for format in Format::ALL {
            let matrix = Matrix::random(format, 20, 256, &mut random);
            let packed = matrix.pack(&team);
            for bad in [f32::NAN, f32::INFINITY] {
                let mut x = random.floats(5 * 256);
                x[256 * 3 + 100] = bad;
                let out = product(kind, &team, &packed, &x, 5);
                for (row, out) in out.chunks(20).enumerate() {
                    assert!(
                        out.iter().all(|x| x.is_finite() == (row != 3)),
                        "{kind:?} {format} {bad} row {row}"
                    );
                }
            }
        }
    }
}

#[test]
fn bias_and_residual_are_added_once_and_jobs_share_one_input() {
    let team = Team::new(2).unwrap();
    let mut random = Random(14);
    for kind in kinds() {
        let table = KernelTable::detect_for(Some(kind.0), kind.1).unwrap();
        let cols = 256;
        let formats = [Format::F32, Format::Q4K, Format::Bf16, Format::Q8_0, Format::F16];
        let packed: Vec<PackedMatrix> = (0..11)
            .map(|i| Matrix::random(formats[i % formats.len()], 3 + 13 * i, cols, &mut random).pack(&team))
            .collect();
        for rows in [1, 6] {
            let x = random.floats(rows * cols);
            let mut activations = Activations::with_capacity(rows + 2, cols + 7).unwrap();
            activations.set(&table, &team, &x, rows, cols, &formats).unwrap();
            let biases: Vec<Vec<f32>> = packed.iter().map(|w| random.floats(w.rows())).collect();
            let mut outs: Vec<Vec<f32>> = packed.iter().map(|w| random.floats(rows * w.rows())).collect();
            let before = outs.clone();
            let mut jobs: Vec<MatmulJob<'_>> = packed
                .iter()
                .zip(&mut outs)
                .enumerate()
                .map(|(i, (w, out))| {
                    let bias = (i % 3 != 0).then_some(biases[i].as_slice());
                    MatmulJob { w, bias, out, add: i % 2 == 0 }
                })
                .collect();
            matmul(&table, &team, &activations, &mut jobs).unwrap();
            for (i, w) in packed.iter().enumerate() {
                let plain = product(kind, &team, w, &x, rows);
                for (at, got) in outs[i].iter().enumerate() {
                    let mut want = plain[at];
                    if i % 3 != 0 {
                        want += biases[i][at % w.rows()];
                    }
                    if i % 2 == 0 {
                        want += before[i][at];
                    }
                    assert_eq!(got.to_bits(), want.to_bits(), "{kind:?} job {i} element {at}");
                }
            }
        }
    }
}

#[test]
fn experts_multiply_their_own_rows_only() {
    let team = Team::new(3).unwrap();
    let mut random = Random(15);
    for kind in kinds() {
        let table = KernelTable::detect_for(Some(kind.0), kind.1).unwrap();
        for format in [Format::F32, Format::Q4K, Format::Q6K] {
            let experts: Vec<PackedMatrix> =
                (0..5).map(|_| Matrix::random(format, 40, 256, &mut random).pack(&team)).collect();
            let groups = [0..1, 1..1, 1..12, 12..14, 14..14];
            let x = random.floats(14 * 256);
            let mut activations = Activations::with_capacity(14, 256).unwrap();
            activations.set(&table, &team, &x, 14, 256, &[format]).unwrap();
            let mut out = vec![f32::NAN; 14 * 40];
            matmul_experts(&table, &team, &activations, &experts, &groups, &mut out).unwrap();
            for (w, rows) in experts.iter().zip(groups) {
                let want = product(kind, &team, w, &x[rows.start * 256..rows.end * 256], rows.len());
                assert_eq!(
                    bits(&out[rows.start * 40..rows.end * 40]),
                    bits(&want),
                    "{kind:?} {format} {rows:?}"
                );
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_and_nothing_written() {
    let team = Team::new(1).unwrap();
    let table = KernelTable::detect(None).unwrap();
    let mut random = Random(16);
    let float = Matrix::random(Format::F32, 8, 64, &mut random).pack(&team);
    let quantized = Matrix::random(Format::Q8_0, 8, 64, &mut random).pack(&team);
    let mut x = Activations::with_capacity(4, 64).unwrap();
    let values = random.floats(4 * 64);
    let shape = |result: Result<(), KernelError>| matches!(result, Err(KernelError::Shape { .. }));
    assert!(shape(x.set(&table, &team, &values, 5, 64, &[Format::F32])));
    assert!(shape(x.set(&table, &team, &values, 3, 64, &[Format::F32])));
    assert!(shape(x.set(&table, &team, &values, 2, 128, &[Format::F32])));
    assert!(matches!(
        x.set(&table, &team, &values[..4 * 33], 4, 33, &[Format::F32, Format::Q4_0]),
        Err(KernelError::PartialBlock { format: Format::Q4_0, cols: 33 })
    ));
    x.set(&table, &team, &values, 4, 64, &[Format::F32]).unwrap();
    let mut out = [7.0; 32];
    let run =
        |w, bias, out: &mut [f32]| matmul(&table, &team, &x, &mut [MatmulJob { w, bias, out, add: false }]);
    assert!(matches!(
        run(&quantized, None, &mut out),
        Err(KernelError::NotPrepared { format: Format::Q8_0 })
    ));
    assert!(shape(run(&float, Some(&[0.0; 7]), &mut out)));
    assert!(shape(run(&float, None, &mut out[..31])));
    assert_eq!(out, [7.0; 32]);
    let experts = [float];
    #[allow(clippy::single_range_in_vec_init)]
    for groups in [&[0..3][..], &[1..4], &[0..4, 4..4], &[]] {
        assert!(shape(matmul_experts(&table, &team, &x, &experts, groups, &mut out)), "{groups:?}");
    }
    assert_eq!(out, [7.0; 32]);
}
