//! Many rows of 16-bit numbers at once: rounded in vectors, and turned where channels come before slots.

use super::{KvFormat, Rows};
use crate::quantize::round_bf16;
use crate::vectors::{Kernel, Simd};

/// Rows and channels of a tile: 2 KiB, which stay in the first-level cache while they are turned.
const TILE: (usize, usize) = (16, 64);

/// Writes `count` rows; number `c` of row `i` goes to place `first + i * row_step + c * step` of a half page.
pub(super) struct WriteSixteen<'a> {
    pub format: KvFormat, // f16 or bf16
    pub rows: Rows<'a>,
    pub count: usize,
    pub head_dim: usize,
    pub half: &'a mut [u8],
    pub first: usize,
    pub row_step: usize,
    pub step: usize,
}

impl Kernel for WriteSixteen<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let WriteSixteen { format, rows, count, head_dim, half, first, row_step, step } = self;
        let mut tile = [[0u16; TILE.1]; TILE.0]; // (rows, channels)
        for row in (0..count).step_by(TILE.0) {
            let height = TILE.0.min(count - row);
            for channel in (0..head_dim).step_by(TILE.1) {
                let width = TILE.1.min(head_dim - channel);
                for (i, narrowed) in tile[..height].iter_mut().enumerate() {
                    let x = &rows.row(row + i, head_dim)[channel..channel + width];
                    let narrowed = &mut narrowed[..width];
                    if format == KvFormat::Bf16 {
                        round_bf16(x, narrowed)
                    } else {
                        round_f16(simd, x, narrowed)
                    }
                }
                let at = first + row * row_step + channel * step;
                if step == 1 {
                    for i in 0..height {
                        let place = &mut half[2 * (at + i * row_step)..][..2 * width];
                        place.copy_from_slice(bytemuck::cast_slice(&tile[i][..width]));
                    }
                } else {
                    for c in 0..width {
                        let places = &mut half[2 * (at + c * step)..][..2 * height];
                        for i in 0..height {
                            places[2 * i..2 * i + 2].copy_from_slice(&tile[i][c].to_ne_bytes());
                        }
                    }
                }
            }
        }
    }
}

/// Rounds to IEEE half floats, ties to even.
#[inline(always)]
fn round_f16<S: Simd>(simd: S, x: &[f32], out: &mut [u16]) {
    assert_eq!(x.len(), out.len());
    let whole = x.len() - x.len() % S::LANES;
    for at in (0..whole).step_by(S::LANES) {
        let x = simd.read(&x[at..]);
        // SAFETY: both slices hold LANES more numbers.
        unsafe { simd.store_f16(out[at..].as_mut_ptr(), x) };
    }
    if whole < x.len() {
        let mut last = [0; 16];
        // SAFETY: no vector has more lanes than 16.
        unsafe { simd.store_f16(last.as_mut_ptr(), simd.read_part(&x[whole..])) };
        out[whole..].copy_from_slice(&last[..x.len() - whole]);
    }
}
