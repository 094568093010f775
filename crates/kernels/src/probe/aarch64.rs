//! The loops of AArch64: NEON, the products of 8-bit integers and bf16 where the processor has them.
#![allow(unsafe_code)]

use std::arch::aarch64::*;
use std::arch::{asm, is_aarch64_feature_detected};
use std::hint::black_box;

use super::arithmetic::{Arithmetic, Chain};

/// Independent sums in flight: latency 4 cycles times four units, with 32 registers of 128 bits.
const CHAINS: usize = 16;

pub(super) fn chain(kind: Arithmetic) -> Option<Chain> {
    let chain = |name, lanes: u64, run| Some(Chain { name, operations: 2 * CHAINS as u64 * lanes, run });
    match kind {
        // SAFETY: NEON belongs to the AArch64 baseline.
        Arithmetic::F32 => chain("fmla 4s", 4, |n| unsafe { f32_neon(n) }),
        Arithmetic::Bf16 if is_aarch64_feature_detected!("bf16") => {
            // SAFETY: bf16 was just detected.
            chain("bfdot 4s", 8, |n| unsafe { bf16_dot(n) })
        }
        Arithmetic::Int8 if is_aarch64_feature_detected!("i8mm") => {
            // SAFETY: i8mm was just detected.
            chain("smmla 4s", 32, |n| unsafe { i8_matrix(n) })
        }
        Arithmetic::Int8 if is_aarch64_feature_detected!("dotprod") => {
            // SAFETY: dotprod was just detected.
            chain("sdot 4s", 16, |n| unsafe { i8_dot(n) })
        }
        _ => None,
    }
}

#[target_feature(enable = "neon")]
fn f32_neon(iterations: u64) -> u64 {
    let (scale, step) = (black_box(vdupq_n_f32(0.999)), black_box(vdupq_n_f32(0.5)));
    let mut sums: [float32x4_t; CHAINS] = std::array::from_fn(|i| vdupq_n_f32(black_box(i as f32)));
    for _ in 0..iterations {
        for s in &mut sums {
            *s = vfmaq_f32(*s, scale, step);
        }
    }
    let all = sums.into_iter().fold(vdupq_n_f32(0.0), |a, b| vaddq_f32(a, b));
    u64::from(vaddvq_f32(all).to_bits())
}

#[target_feature(enable = "neon,bf16")]
fn bf16_dot(iterations: u64) -> u64 {
    let halves = vdupq_n_u16(black_box(0x3f00)); // 0.5 in bf16
    let mut sums: [float32x4_t; CHAINS] = std::array::from_fn(|i| vdupq_n_f32(black_box(i as f32)));
    for _ in 0..iterations {
        for s in &mut sums {
            // SAFETY: reads and writes these registers only; bf16 is enabled on this function.
            unsafe {
                asm!("bfdot {s:v}.4s, {a:v}.8h, {a:v}.8h", s = inout(vreg) *s, a = in(vreg) halves,
                    options(pure, nomem, nostack, preserves_flags));
            }
        }
    }
    let all = sums.into_iter().fold(vdupq_n_f32(0.0), |a, b| vaddq_f32(a, b));
    u64::from(vaddvq_f32(all).to_bits())
}

#[target_feature(enable = "neon,dotprod")]
fn i8_dot(iterations: u64) -> u64 {
    let ones = vdupq_n_s8(black_box(1));
    let mut sums: [int32x4_t; CHAINS] = std::array::from_fn(|i| vdupq_n_s32(black_box(i as i32)));
    for _ in 0..iterations {
        for s in &mut sums {
            // SAFETY: reads and writes these registers only; dotprod is enabled on this function.
            unsafe {
                asm!("sdot {s:v}.4s, {a:v}.16b, {a:v}.16b", s = inout(vreg) *s, a = in(vreg) ones,
                    options(pure, nomem, nostack, preserves_flags));
            }
        }
    }
    let all = sums.into_iter().fold(vdupq_n_s32(0), |a, b| vaddq_s32(a, b));
    vaddvq_s32(all) as u64
}

#[target_feature(enable = "neon,i8mm")]
fn i8_matrix(iterations: u64) -> u64 {
    let ones = vdupq_n_s8(black_box(1));
    let mut sums: [int32x4_t; CHAINS] = std::array::from_fn(|i| vdupq_n_s32(black_box(i as i32)));
    for _ in 0..iterations {
        for s in &mut sums {
            // SAFETY: reads and writes these registers only; i8mm is enabled on this function.
            unsafe {
                asm!("smmla {s:v}.4s, {a:v}.16b, {a:v}.16b", s = inout(vreg) *s, a = in(vreg) ones,
                    options(pure, nomem, nostack, preserves_flags));
            }
        }
    }
    let all = sums.into_iter().fold(vdupq_n_s32(0), |a, b| vaddq_s32(a, b));
    vaddvq_s32(all) as u64
}
