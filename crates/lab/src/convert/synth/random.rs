//! Random weights: xoshiro256++ streams, values that are nearly normal, and blocks that every reader of a format accepts.
//!
//! Each piece of a tensor has a stream of its own, seeded by the model's seed, the tensor's name and the piece's first row, so the
//! weights do not depend on the number of threads.

use half::f16;
use roofline_weights::Format;

/// xoshiro256++ 1.0 of Blackman and Vigna.
#[derive(Debug, Clone)]
pub(super) struct Stream([u64; 4]);

impl Stream {
    /// The stream of one piece.
    pub fn new(seed: u64, tensor: &str, row: usize) -> Stream {
        // FNV-1a tells names apart; SplitMix64 spreads whatever comes out over the state, never all zeros.
        let name = tensor.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        let mut state = seed ^ name.rotate_left(17) ^ (row as u64).wrapping_mul(0xd6e8_feb8_6659_fd93);
        Stream([(); 4].map(|()| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        }))
    }

    fn next(&mut self) -> u64 {
        let s = &mut self.0;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// Values of mean 0 and this deviation: the sum of four uniform ones, normal to the eye and never beyond 3.5 deviations.
    pub fn normal(&mut self, deviation: f32, out: &mut [f32]) {
        // Four uniform numbers of 0..65536 have a variance of 4·(2³² − 1)/12 together.
        let scale = deviation / ((4.0 * (65536.0f64 * 65536.0 - 1.0) / 12.0).sqrt() as f32);
        for value in out {
            let bits = self.next();
            let sum = (bits & 0xffff) + (bits >> 16 & 0xffff) + (bits >> 32 & 0xffff) + (bits >> 48);
            *value = (sum as f32 - 2.0 * 65535.0) * scale;
        }
    }

    fn bytes(&mut self, out: &mut [u8]) {
        let mut words = out.chunks_exact_mut(8);
        for word in &mut words {
            word.copy_from_slice(&self.next().to_le_bytes());
        }
        let last = self.next().to_le_bytes();
        let rest = words.into_remainder();
        rest.copy_from_slice(&last[..rest.len()]);
    }

    /// Appends `count` blocks of a quantized format whose weights have mean 0 and about this deviation: quants are uniform over
    /// their levels, scales are set so that the rest follows.
    pub fn blocks(&mut self, format: Format, deviation: f32, count: usize, out: &mut Vec<u8>) {
        let size = format.block_bytes();
        let start = out.len();
        out.resize(start + count * size, 0);
        self.bytes(&mut out[start..]);
        for block in out[start..].chunks_exact_mut(size) {
            self.scale(format, deviation, block);
        }
    }

    /// Puts scales into a block of random bits. Layouts: ggml-common.h.
    fn scale(&mut self, format: Format, deviation: f32, block: &mut [u8]) {
        // A symmetric format has one level more below zero than above; a random sign of the scale takes that mean away.
        let signed = |d: f32, bits: u64| if bits & 1 == 0 { d } else { -d };
        match format {
            Format::Q8_0 => {
                // −128 is what no encoder writes and some kernels cannot negate.
                block[2..].iter_mut().filter(|quant| **quant == 0x80).for_each(|quant| *quant = 0x81);
                put(block, 0, deviation / uniform(255));
            }
            Format::Q4_0 => put(block, 0, signed(deviation / lopsided(16), self.next())),
            Format::Q5_0 => put(block, 0, signed(deviation / lopsided(32), self.next())),
            Format::Q4_1 => put_affine(block, 0, deviation / uniform(16), -7.5),
            Format::Q5_1 => put_affine(block, 0, deviation / uniform(32), -15.5),
            Format::Q2K => {
                // A nibble is the scale of 16 weights, the other their minimum: alike, so that 0..=3 lies about zero.
                block[..16].iter_mut().for_each(|scales| *scales = (*scales | 8) & 15 | (*scales | 8) << 4);
                put_affine(block, 80, deviation / (uniform(4) * 11.7), 1.5); // √mean square of 8..=15
            }
            Format::Q4K | Format::Q5K => {
                pack_scales(&mut block[4..16], self.next());
                let levels = if format == Format::Q4K { 16 } else { 32 };
                let middle = (levels - 1) as f32 / 2.0;
                put_affine(block, 0, deviation / (uniform(levels) * 48.4), middle); // √mean square of 32..=63
            }
            // Signed scales of 6 and of 8 bits are random as they are.
            Format::Q3K => put(block, 108, signed(deviation / (lopsided(8) * lopsided(64)), self.next())),
            Format::Q6K => put(block, 208, signed(deviation / (lopsided(64) * lopsided(256)), self.next())),
            Format::F32 | Format::F16 | Format::Bf16 => {}
        }
    }
}

/// Deviation of numbers that take `levels` neighbouring whole values alike often.
fn uniform(levels: u32) -> f32 {
    ((f64::from(levels) * f64::from(levels) - 1.0) / 12.0).sqrt() as f32
}

/// Root of the mean square of −levels/2..levels/2, whose mean is −½.
fn lopsided(levels: u32) -> f32 {
    (uniform(levels).powi(2) + 0.25).sqrt()
}

fn put(block: &mut [u8], at: usize, scale: f32) {
    // Below the least normal f16 a scale would lose its bits; no geometry comes near it.
    block[at..at + 2].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
}

/// A scale and beside it the minimum that is `middle` of its steps.
fn put_affine(block: &mut [u8], at: usize, scale: f32, middle: f32) {
    let scale = f16::from_f32(scale);
    block[at..at + 2].copy_from_slice(&scale.to_le_bytes());
    put(block, at + 2, scale.to_f32() * middle);
}

/// Eight scales of 32..=63 and eight minima like them, as Q4_K and Q5_K pack them: 6 bits each in 12 bytes.
fn pack_scales(packed: &mut [u8], bits: u64) {
    let scales = bits.to_le_bytes().map(|byte| 32 | byte & 31);
    for j in 0..4 {
        let (low, high) = (scales[j], scales[j + 4]);
        packed[j] = low | high >> 4 << 6;
        packed[j + 4] = packed[j];
        packed[j + 8] = high & 15 | (high & 15) << 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use roofline_weights::blocks;

    fn moments(values: &[f32]) -> (f64, f64) {
        let n = values.len() as f64;
        let mean = values.iter().map(|x| f64::from(*x)).sum::<f64>() / n;
        let variance = values.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / n;
        (mean, variance.sqrt())
    }

    #[test]
    fn values_have_the_deviation_asked_for() {
        let mut values = vec![0.0; 100_000];
        Stream::new(1, "a", 0).normal(0.02, &mut values);
        let (mean, deviation) = moments(&values);
        assert!(mean.abs() < 3e-4 && (deviation / 0.02 - 1.0).abs() < 0.01, "{mean} {deviation}");
    }

    #[test]
    fn blocks_of_every_format_decode_to_the_deviation_asked_for() {
        for format in Format::ALL.into_iter().filter(|format| format.is_quantized()) {
            let count = (1 << 18) / format.block_len();
            let mut bytes = Vec::new();
            Stream::new(7, "w", 3).blocks(format, 0.02, count, &mut bytes);
            assert_eq!(bytes.len(), count * format.block_bytes());
            let mut values = vec![0.0; count * format.block_len()];
            blocks::decode(format, &bytes, &mut values).unwrap();
            let (mean, deviation) = moments(&values);
            assert!(values.iter().all(|value| value.is_finite() && value.abs() < 0.2), "{format}");
            assert!(
                mean.abs() < 4e-4 && (deviation / 0.02 - 1.0).abs() < 0.02,
                "{format}: {mean} {deviation}"
            );
        }
    }

    #[test]
    fn streams_differ_by_seed_name_and_row_and_repeat() {
        let first = |seed, name, row| Stream::new(seed, name, row).next();
        let all = [first(1, "a", 0), first(2, "a", 0), first(1, "b", 0), first(1, "a", 1), first(0, "", 0)];
        for (i, one) in all.iter().enumerate() {
            assert!(all[..i].iter().all(|other| other != one));
        }
        assert_eq!(first(1, "a", 0), all[0]);
    }
}
