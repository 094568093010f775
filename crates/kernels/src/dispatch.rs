//! The matrix kernels compiled for each instruction set, and which of them a format may choose from.
//!
//! This is the one place where generic code takes on instructions. The numbers after a format are the register tile:
//! vectors of outputs by activation rows, so that sums, weights and one activation fit the registers (16 of AVX2, 32
//! of AVX-512 and NEON); behind `or`, the rows where a block has two totals.

use roofline_weights::Format;

use crate::activations::Form;
use crate::isa::Isa;
use crate::matmul::MatmulKernels;
use crate::scalar;
use crate::table::{Arithmetic, Candidate, Chooser, Operation, SkipReason};
use crate::tile::TileKernel;

/// Kernels of one format, level and form of activations.
pub(crate) struct Compiled {
    pub isa: Isa,
    pub gemv: Option<TileKernel>, // none where the level below does the same
    pub gemm: TileKernel,
}

/// Writes the `#[target_feature]` functions of one instruction set.
macro_rules! compile {
    (
        $module:ident, $features:literal, $simd:ty,
        bytes $byte_gemv_units:literal, $byte_units:literal x $byte_rows:literal or $two_rows:literal,
        pairs $dot:ident $gemv_units:literal, $units:literal x $rows:literal,
        floats $float_gemv_units:literal, $float_units:literal x $float_rows:literal
    ) => {
        #[allow(dead_code)] // floats gain nothing from VNNI, and take the kernels of the level below
        mod $module {
            use super::Compiled;
            use crate::floats::{self, ByFloats, Floats};
            use crate::isa::Isa;
            use crate::quantized::{self, Quantized};
            use crate::tile::{Tile, TileKernel};
            use roofline_weights::Format;

            /// # Safety
            /// As for [`TileKernel`].
            #[target_feature(enable = $features)]
            unsafe fn byte_gemv<Q: Quantized>(tile: &Tile<'_>) {
                // SAFETY: this function has the instructions, and the contract is the caller's.
                unsafe { quantized::byte_gemv::<$simd, Q, $byte_gemv_units>(tile) }
            }

            /// # Safety
            /// As for [`TileKernel`].
            #[target_feature(enable = $features)]
            unsafe fn byte_gemm<Q: Quantized>(tile: &Tile<'_>) {
                // SAFETY: as above.
                unsafe { quantized::byte_gemm::<$simd, Q, $byte_units, $byte_rows>(tile) }
            }

            /// # Safety
            /// As for [`TileKernel`].
            #[target_feature(enable = $features)]
            unsafe fn two_totals_gemm<Q: Quantized>(tile: &Tile<'_>) {
                // SAFETY: as above.
                unsafe { quantized::byte_gemm::<$simd, Q, $byte_units, $two_rows>(tile) }
            }

            /// # Safety
            /// As for [`TileKernel`].
            #[target_feature(enable = $features)]
            unsafe fn pair_gemv<Q: Quantized>(tile: &Tile<'_>) {
                // SAFETY: as above.
                unsafe { quantized::gemv::<$simd, Q, quantized::$dot, $gemv_units>(tile) }
            }

            /// # Safety
            /// As for [`TileKernel`].
            #[target_feature(enable = $features)]
            unsafe fn pair_gemm<Q: Quantized>(tile: &Tile<'_>) {
                // SAFETY: as above.
                unsafe { quantized::gemm::<$simd, Q, $units, $rows>(tile) }
            }

            /// # Safety
            /// As for [`TileKernel`].
            #[target_feature(enable = $features)]
            unsafe fn float_gemv<W: Floats>(tile: &Tile<'_>) {
                // SAFETY: as above.
                unsafe { floats::one_row::<$simd, ByFloats<W>, $float_gemv_units>(tile) }
            }

            /// # Safety
            /// As for [`TileKernel`].
            #[target_feature(enable = $features)]
            unsafe fn float_gemm<W: Floats>(tile: &Tile<'_>) {
                // SAFETY: as above.
                unsafe {
                    match W::FORMAT {
                        // The others take one operation a vector, or none, which costs less than a panel.
                        Format::F16 => floats::wide_gemm::<$simd, W, $float_units, $float_rows>(tile),
                        _ => floats::many_rows::<$simd, ByFloats<W>, $float_units, $float_rows>(tile),
                    }
                }
            }

            pub(super) fn bytes<Q: Quantized>(isa: Isa) -> Compiled {
                let (gemv, gemm): (TileKernel, TileKernel) = (byte_gemv::<Q>, byte_gemm::<Q>);
                Compiled { isa, gemv: Some(gemv), gemm }
            }

            pub(super) fn two_totals<Q: Quantized>(isa: Isa) -> Compiled {
                let (gemv, gemm): (TileKernel, TileKernel) = (byte_gemv::<Q>, two_totals_gemm::<Q>);
                Compiled { isa, gemv: Some(gemv), gemm }
            }

            pub(super) fn pairs<Q: Quantized>(isa: Isa) -> Compiled {
                let (gemv, gemm): (TileKernel, TileKernel) = (pair_gemv::<Q>, pair_gemm::<Q>);
                Compiled { isa, gemv: Some(gemv), gemm }
            }

            pub(super) fn floats<W: Floats>(isa: Isa) -> Compiled {
                let (gemv, gemm): (TileKernel, TileKernel) = (float_gemv::<W>, float_gemm::<W>);
                Compiled { isa, gemv: Some(gemv), gemm }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
compile!(
    avx2, "avx2,fma,f16c", crate::simd::avx2::Avx2,
    bytes 2, 2 x 3 or 2, pairs ByPairs 2, 2 x 4, floats 4, 2 x 4
);
#[cfg(target_arch = "x86_64")]
compile!(
    avx512, "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl", crate::simd::avx512::Avx512<false>,
    bytes 2, 2 x 6 or 4, pairs ByPairs 2, 2 x 8, floats 4, 2 x 8
);
#[cfg(target_arch = "x86_64")]
compile!(
    avx512vnni, "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni", crate::simd::avx512::Avx512<true>,
    bytes 2, 2 x 6 or 4, pairs ByBytes 2, 2 x 8, floats 4, 2 x 8
);
/// bf16 pairs. Its dot products come two a cycle at best, and take six.
#[cfg(target_arch = "x86_64")]
mod avx512bf16 {
    use crate::floats::{ByBf16Pairs, many_rows, one_row};
    use crate::simd::avx512::Avx512Bf16;
    use crate::tile::Tile;

    /// # Safety
    /// As for [`TileKernel`](crate::tile::TileKernel).
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16")]
    pub(super) unsafe fn gemv(tile: &Tile<'_>) {
        // SAFETY: this function has the instructions, and the contract is the caller's.
        unsafe { one_row::<Avx512Bf16, ByBf16Pairs, 4>(tile) }
    }

    /// # Safety
    /// As for [`TileKernel`](crate::tile::TileKernel).
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16")]
    pub(super) unsafe fn gemm(tile: &Tile<'_>) {
        // SAFETY: as above.
        unsafe { many_rows::<Avx512Bf16, ByBf16Pairs, 2, 8>(tile) }
    }
}
#[cfg(target_arch = "aarch64")]
compile!(neon, "neon", crate::simd::neon::Neon, bytes 4, 4 x 2 or 1, pairs ByPairs 4, 4 x 2, floats 4, 4 x 4);
// Sums that are one vector instead of two leave room for more rows.
#[cfg(target_arch = "aarch64")]
compile!(
    neondot, "neon,dotprod", crate::simd::neon::Neon<{ crate::simd::neon::DOTPROD }>,
    bytes 4, 4 x 4 or 2, pairs ByPairs 4, 4 x 2, floats 4, 4 x 4
);
#[cfg(target_arch = "aarch64")]
compile!(
    neoni8mm, "neon,dotprod,i8mm", crate::simd::neon::Neon<{ crate::simd::neon::I8MM }>,
    bytes 4, 4 x 4 or 2, pairs ByPairs 4, 4 x 2, floats 4, 4 x 4
);

/// Kernels of a quantized format and 8-bit activations for each level of this architecture.
fn bytes<Q: crate::quantized::Quantized>() -> Vec<Compiled> {
    debug_assert!(Q::FORMAT.is_quantized());
    let mut all = vec![
        #[cfg(target_arch = "x86_64")]
        avx2::bytes::<Q>(Isa::Avx2),
        #[cfg(target_arch = "x86_64")]
        avx512::bytes::<Q>(Isa::Avx512),
        #[cfg(target_arch = "x86_64")]
        avx512vnni::bytes::<Q>(Isa::Avx512Vnni),
        #[cfg(target_arch = "aarch64")]
        neon::bytes::<Q>(Isa::Neon),
        #[cfg(target_arch = "aarch64")]
        neondot::bytes::<Q>(Isa::NeonDot),
        #[cfg(target_arch = "aarch64")]
        neoni8mm::bytes::<Q>(Isa::NeonI8mm),
    ];
    without_needless_gemv::<Q>(&mut all);
    all
}

/// Decode multiplies one row of activations, for which `i8mm` has something only where weights are unsigned bytes.
fn without_needless_gemv<Q: crate::quantized::Quantized>(all: &mut [Compiled]) {
    for compiled in all.iter_mut().filter(|c| c.isa == Isa::NeonI8mm && Q::LAYOUT.low_bits < 8) {
        compiled.gemv = None;
    }
}

/// The same of a format that has two totals a block, and so fewer rows in registers.
fn two_totals<Q: crate::quantized::Quantized>() -> Vec<Compiled> {
    debug_assert_eq!(Q::LAYOUT.byte_totals(), 2);
    let mut all = vec![
        #[cfg(target_arch = "x86_64")]
        avx2::two_totals::<Q>(Isa::Avx2),
        #[cfg(target_arch = "x86_64")]
        avx512::two_totals::<Q>(Isa::Avx512),
        #[cfg(target_arch = "x86_64")]
        avx512vnni::two_totals::<Q>(Isa::Avx512Vnni),
        #[cfg(target_arch = "aarch64")]
        neon::two_totals::<Q>(Isa::Neon),
        #[cfg(target_arch = "aarch64")]
        neondot::two_totals::<Q>(Isa::NeonDot),
        #[cfg(target_arch = "aarch64")]
        neoni8mm::two_totals::<Q>(Isa::NeonI8mm),
    ];
    without_needless_gemv::<Q>(&mut all);
    all
}

/// The same of 16-bit activations.
fn pairs<Q: crate::quantized::Quantized>() -> Vec<Compiled> {
    debug_assert!(Q::FORMAT.is_quantized());
    vec![
        #[cfg(target_arch = "x86_64")]
        avx2::pairs::<Q>(Isa::Avx2),
        #[cfg(target_arch = "x86_64")]
        avx512::pairs::<Q>(Isa::Avx512),
        #[cfg(target_arch = "x86_64")]
        avx512vnni::pairs::<Q>(Isa::Avx512Vnni),
        #[cfg(target_arch = "aarch64")]
        neon::pairs::<Q>(Isa::Neon),
    ]
}

/// Kernels of a float format for each level of this architecture that has something to add.
fn floats<W: crate::floats::Floats>() -> Vec<Compiled> {
    debug_assert!(!W::FORMAT.is_quantized());
    vec![
        #[cfg(target_arch = "x86_64")]
        avx2::floats::<W>(Isa::Avx2),
        #[cfg(target_arch = "x86_64")]
        avx512::floats::<W>(Isa::Avx512),
        #[cfg(target_arch = "aarch64")]
        neon::floats::<W>(Isa::Neon),
    ]
}

/// Kernels of bf16 weights and activations.
fn bf16_pairs() -> Vec<Compiled> {
    vec![
        #[cfg(target_arch = "x86_64")]
        Compiled { isa: Isa::Avx512Bf16, gemv: Some(avx512bf16::gemv), gemm: avx512bf16::gemm },
    ]
}

/// Kernels of a quantized format and either form of integers.
fn quantized<Q: crate::quantized::Quantized>(form: Form) -> Vec<Compiled> {
    if form == Form::Bytes { bytes::<Q>() } else { pairs::<Q>() }
}

fn compiled(format: Format, form: Form) -> Vec<Compiled> {
    use crate::floats as f;
    use crate::quantized as q;
    match format {
        Format::F32 => floats::<f::F32>(),
        Format::F16 => floats::<f::F16>(),
        Format::Bf16 if form == Form::Bf16 => bf16_pairs(),
        Format::Bf16 => floats::<f::Bf16>(),
        Format::Q8_0 => quantized::<q::Q8_0>(form),
        Format::Q6K if form == Form::Bytes => two_totals::<q::Q6K>(),
        Format::Q6K => pairs::<q::Q6K>(),
        Format::Q5K => quantized::<q::Q5K>(form),
        Format::Q4K => quantized::<q::Q4K>(form),
        Format::Q3K => quantized::<q::Q3K>(form),
        Format::Q2K => quantized::<q::Q2K>(form),
        Format::Q5_0 => quantized::<q::Q5_0>(form),
        Format::Q5_1 => quantized::<q::Q5_1>(form),
        Format::Q4_0 => quantized::<q::Q4_0>(form),
        Format::Q4_1 => quantized::<q::Q4_1>(form),
    }
}

/// What a format is multiplied by, and why not by bf16 where it could be.
fn form_of(format: Format, arithmetic: Arithmetic, chooser: &Chooser) -> (Form, Option<SkipReason>) {
    match arithmetic {
        Arithmetic::Fast if format.is_quantized() => (Form::Bytes, None),
        Arithmetic::Exact if format.is_quantized() => (Form::Pairs, None),
        _ if format != Format::Bf16 => (Form::Floats, None),
        _ if !Isa::Avx512Bf16.is_available() => (Form::Floats, Some(SkipReason::NotOnThisMachine)),
        Arithmetic::Exact => (Form::Floats, Some(SkipReason::NotExact)),
        _ if !chooser.includes(Isa::Avx512Bf16) => (Form::Floats, Some(SkipReason::WiderThanRequested)),
        _ if chooser.was_asked() || Isa::bf16_dot_pays() => (Form::Bf16, None),
        _ => (Form::Floats, Some(SkipReason::SlowerHere)),
    }
}

/// Chooses the kernels of every format.
pub(crate) fn choose(chooser: &mut Chooser, arithmetic: Arithmetic) -> [MatmulKernels; Format::ALL.len()] {
    use crate::floats::WIDE_TILE_ROWS;
    use crate::quantized::{BYTE_TILE_ROWS, TILE_ROWS};
    Format::ALL.map(|format| {
        let (form, not_bf16) = form_of(format, arithmetic, chooser);
        let (scalar, tile_rows): (TileKernel, usize) = match form {
            Form::Floats if format == Format::F16 => (scalar::float_tile, WIDE_TILE_ROWS),
            Form::Floats => (scalar::float_tile, TILE_ROWS),
            Form::Bf16 => (scalar::bf16_tile, TILE_ROWS),
            Form::Bytes => (scalar::byte_tile, BYTE_TILE_ROWS),
            Form::Pairs => (scalar::pair_tile, TILE_ROWS),
        };
        let compiled = compiled(format, form);
        let mut pick = |operation: Operation, kernel: fn(&Compiled) -> Option<TileKernel>| {
            let candidates: Vec<Candidate<TileKernel>> =
                compiled.iter().filter_map(|c| Some(Candidate { isa: c.isa, kernel: kernel(c)? })).collect();
            let picked = chooser.pick_of(operation, format.name(), form.name(), scalar, &candidates);
            if let Some(reason) = not_bf16 {
                chooser.skip(Isa::Avx512Bf16, reason);
            }
            picked
        };
        let (gemv, gemm) = (pick(Operation::Gemv, |c| c.gemv), pick(Operation::Gemm, |c| Some(c.gemm)));
        MatmulKernels { gemv, gemm, form, tile_rows }
    })
}
