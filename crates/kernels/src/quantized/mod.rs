//! Matrix products of quantized weights in vectors, for any layout and any instruction set.
//!
//! Decode ([`decode`]) unpacks weights in registers, uses them once and waits for memory. Prefill ([`gemm`]) unpacks a
//! superblock of two groups into a panel in the first-level cache and uses it for all rows of the tile. Both sum the
//! same integers and apply the same scales in the same order, so a row's result does not tell which of them made it.

mod byte_gemm;
mod byte_gemv;
mod byte_scales;
mod decode;
mod gemm;
mod gemv;
mod planes;
mod scales;

use roofline_weights::Format;

pub(crate) use byte_gemm::{BYTE_TILE_ROWS, byte_gemm};
pub(crate) use byte_gemv::byte_gemv;
pub(crate) use gemm::{TILE_ROWS, gemm};
#[cfg(target_arch = "x86_64")]
pub(crate) use gemv::ByBytes;
pub(crate) use gemv::{ByPairs, gemv};

use crate::layout::Layout;

/// A quantized format at compile time.
pub(crate) trait Quantized {
    const FORMAT: Format;
    const LAYOUT: Layout;
}

/// Makes a type of each format.
macro_rules! quantized {
    ($($name:ident)*) => {$(
        pub(crate) struct $name;
        impl Quantized for $name {
            const FORMAT: Format = Format::$name;
            const LAYOUT: Layout = match Layout::of(Format::$name) {
                Some(layout) => layout,
                None => unreachable!(),
            };
        }
    )*};
}

#[allow(non_camel_case_types)] // the formats are called that
mod formats {
    use super::*;
    quantized! { Q8_0 Q6K Q5K Q4K Q3K Q2K Q5_0 Q5_1 Q4_0 Q4_1 }
}
pub(crate) use formats::*;

/// Repeats a block with `$i` as the constants 0 to 7, so that shift counts become immediates.
macro_rules! unroll8 {
    ($i:ident => $body:block) => {{
        {
            const $i: usize = 0;
            $body
        }
        {
            const $i: usize = 1;
            $body
        }
        {
            const $i: usize = 2;
            $body
        }
        {
            const $i: usize = 3;
            $body
        }
        {
            const $i: usize = 4;
            $body
        }
        {
            const $i: usize = 5;
            $body
        }
        {
            const $i: usize = 6;
            $body
        }
        {
            const $i: usize = 7;
            $body
        }
    }};
}
use unroll8;
