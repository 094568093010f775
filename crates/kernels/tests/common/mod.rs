//! Random matrices and the reference product that the kernel tests share.
#![allow(dead_code)] // each test binary uses its own part

use roofline_kernels::{Arithmetic, FileRows, Isa, PackedMatrix, Team};
use roofline_weights::{Format, blocks};

/// SplitMix64: enough randomness for tests, and the same on every machine.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in -1..1.
    pub fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.unit()).collect()
    }
}

/// Where the f16 scales of a block lie.
pub fn half_offsets(format: Format) -> &'static [usize] {
    match format {
        Format::F32 | Format::F16 | Format::Bf16 => &[],
        Format::Q8_0 | Format::Q4_0 | Format::Q5_0 => &[0],
        Format::Q4_1 | Format::Q5_1 | Format::Q4K | Format::Q5K => &[0, 2],
        Format::Q2K => &[80, 82],
        Format::Q3K => &[108],
        Format::Q6K => &[208],
    }
}

/// A matrix as a file holds it, and as f32.
pub struct Matrix {
    pub format: Format,
    pub rows: usize,
    pub cols: usize,
    pub bytes: Vec<u8>,
    pub decoded: Vec<f32>, // (rows, cols)
}

impl Matrix {
    /// Any bits at all in the weights and integer scales; f16 scales of moderate size and either sign.
    pub fn random(format: Format, rows: usize, cols: usize, random: &mut Random) -> Matrix {
        let mut bytes = Vec::new();
        for _ in 0..rows * cols / format.block_len() {
            match format {
                Format::F32 => bytes.extend(random.unit().to_le_bytes()),
                Format::F16 => bytes.extend(half::f16::from_f32(random.unit()).to_le_bytes()),
                Format::Bf16 => bytes.extend(half::bf16::from_f32(random.unit()).to_le_bytes()),
                _ => {
                    let start = bytes.len();
                    bytes.extend((0..format.block_bytes()).map(|_| random.next() as u8));
                    for at in half_offsets(format) {
                        let scale = half::f16::from_f32(random.unit() * 0.01).to_le_bytes();
                        bytes[start + at..start + at + 2].copy_from_slice(&scale);
                    }
                }
            }
        }
        Matrix::from_bytes(format, rows, cols, bytes)
    }

    pub fn from_bytes(format: Format, rows: usize, cols: usize, bytes: Vec<u8>) -> Matrix {
        let mut decoded = vec![0.0; rows * cols];
        blocks::decode(format, &bytes, &mut decoded).unwrap();
        Matrix { format, rows, cols, bytes, decoded }
    }

    pub fn row_bytes(&self, row: usize) -> &[u8] {
        let len = self.format.bytes_of(self.cols).unwrap();
        &self.bytes[row * len..(row + 1) * len]
    }

    pub fn pack(&self, team: &Team) -> PackedMatrix {
        PackedMatrix::pack(self.format, self.rows, self.cols, &|row| self.row_bytes(row), team).unwrap()
    }

    /// The product of one row of weights and one of activations in f64, and how far a kernel may be from it:
    /// half a step of the integer activations in each term where weights are quantized, the rounding of activations
    /// to bf16 where that happens, and that of f32.
    pub fn dot(&self, row: usize, x: &[f32], kind: (Isa, Arithmetic)) -> (f64, f64) {
        let largest_integer = if kind.1 == Arithmetic::Fast { 127.0 } else { 16383.0 };
        let by_bf16 = self.format == Format::Bf16 && kind == (Isa::Avx512Bf16, Arithmetic::Fast);
        let rounding = if by_bf16 { 1.0 / 256.0 } else { 0.0 } + 2e-6;
        let weights = &self.decoded[row * self.cols..(row + 1) * self.cols];
        let (mut sum, mut allowed) = (0.0, 1e-30);
        for (weights, x) in weights.chunks(32).zip(x.chunks(32)) {
            let largest = x.iter().fold(0.0f32, |m, x| m.max(x.abs()));
            let step = if self.format.is_quantized() { f64::from(largest) / largest_integer } else { 0.0 };
            for (w, x) in weights.iter().zip(x) {
                let (w, x) = (f64::from(*w), f64::from(*x));
                sum += w * x;
                // Formats with a min subtract two larger numbers, so the rounding is relative to those.
                allowed +=
                    w.abs() * 0.51 * step + rounding * (w * x).abs() + 4e-8 * self.largest_weight() * x.abs();
            }
        }
        (sum, allowed)
    }

    fn largest_weight(&self) -> f64 {
        if self.format.is_quantized() { 4.0 } else { 0.0 }
    }
}

/// Widths that a format can have, odd ones where it allows them.
pub fn widths(format: Format) -> &'static [usize] {
    match format.block_len() {
        1 => &[1, 2, 7, 16, 31, 64, 257, 300],
        32 => &[32, 64, 96, 256, 288, 544],
        _ => &[256, 512, 768],
    }
}

impl FileRows for Matrix {
    fn name(&self) -> &str {
        "a.weight"
    }

    fn row(&self, row: usize) -> &[u8] {
        self.row_bytes(row)
    }
}
