//! The matrix kernels compiled for each instruction set, and which of them a format may choose from.
//!
//! This is the one place where generic code takes on instructions. The numbers after a format are the register tile:
//! vectors of outputs by activation rows, so that sums, weights and one activation fit the registers (16 of AVX2, 32
//! of AVX-512 and NEON).

use roofline_weights::Format;

use crate::isa::Isa;
use crate::matmul::MatmulKernels;
use crate::scalar;
use crate::table::{Candidate, Chooser, Operation};
use crate::tile::TileKernel;

/// Kernels of one format and level.
pub(crate) struct Compiled {
    pub isa: Isa,
    pub gemv: TileKernel,
    pub gemm: TileKernel,
}

/// Writes the `#[target_feature]` functions of one instruction set.
macro_rules! compile {
    (
        $module:ident, $features:literal, $simd:ty,
        quantized $dot:ident $gemv_units:literal, $units:literal x $rows:literal,
        floats $float_gemv_units:literal, $float_units:literal x $float_rows:literal
    ) => {
        #[allow(dead_code)] // floats gain nothing from VNNI, and take the kernels of the level below
        mod $module {
            use super::Compiled;
            use crate::floats::{self, Floats};
            use crate::isa::Isa;
            use crate::quantized::{self, Quantized};
            use crate::tile::{Tile, TileKernel};

            /// # Safety
            /// As for [`TileKernel`].
            #[target_feature(enable = $features)]
            unsafe fn quantized_gemv<Q: Quantized>(tile: &Tile<'_>) {
                // SAFETY: this function has the instructions, and the contract is the caller's.
                unsafe { quantized::gemv::<$simd, Q, quantized::$dot, $gemv_units>(tile) }
            }

            /// # Safety
            /// As for [`TileKernel`].
            #[target_feature(enable = $features)]
            unsafe fn quantized_gemm<Q: Quantized>(tile: &Tile<'_>) {
                // SAFETY: as above.
                unsafe { quantized::gemm::<$simd, Q, $units, $rows>(tile) }
            }

            /// # Safety
            /// As for [`TileKernel`].
            #[target_feature(enable = $features)]
            unsafe fn float_gemv<W: Floats>(tile: &Tile<'_>) {
                // SAFETY: as above.
                unsafe { floats::gemv::<$simd, W, $float_gemv_units>(tile) }
            }

            /// # Safety
            /// As for [`TileKernel`].
            #[target_feature(enable = $features)]
            unsafe fn float_gemm<W: Floats>(tile: &Tile<'_>) {
                // SAFETY: as above.
                unsafe { floats::gemm::<$simd, W, $float_units, $float_rows>(tile) }
            }

            pub(super) fn quantized<Q: Quantized>(isa: Isa) -> Compiled {
                let (gemv, gemm): (TileKernel, TileKernel) = (quantized_gemv::<Q>, quantized_gemm::<Q>);
                Compiled { isa, gemv, gemm }
            }

            pub(super) fn floats<W: Floats>(isa: Isa) -> Compiled {
                let (gemv, gemm): (TileKernel, TileKernel) = (float_gemv::<W>, float_gemm::<W>);
                Compiled { isa, gemv, gemm }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
compile!(avx2, "avx2,fma,f16c", crate::simd::avx2::Avx2, quantized ByPairs 2, 2 x 4, floats 4, 2 x 4);
#[cfg(target_arch = "x86_64")]
compile!(
    avx512, "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl", crate::simd::avx512::Avx512<false>,
    quantized ByPairs 2, 2 x 8, floats 4, 2 x 8
);
#[cfg(target_arch = "x86_64")]
compile!(
    avx512vnni, "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni", crate::simd::avx512::Avx512<true>,
    quantized ByBytes 2, 2 x 8, floats 4, 2 x 8
);
#[cfg(target_arch = "aarch64")]
compile!(neon, "neon", crate::simd::neon::Neon, quantized ByPairs 4, 4 x 2, floats 4, 4 x 4);

/// Kernels of a quantized format for each level of this architecture.
fn quantized<Q: crate::quantized::Quantized>() -> Vec<Compiled> {
    debug_assert!(Q::FORMAT.is_quantized());
    vec![
        #[cfg(target_arch = "x86_64")]
        avx2::quantized::<Q>(Isa::Avx2),
        #[cfg(target_arch = "x86_64")]
        avx512::quantized::<Q>(Isa::Avx512),
        #[cfg(target_arch = "x86_64")]
        avx512vnni::quantized::<Q>(Isa::Avx512Vnni),
        #[cfg(target_arch = "aarch64")]
        neon::quantized::<Q>(Isa::Neon),
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

fn compiled(format: Format) -> Vec<Compiled> {
    use crate::floats as f;
    use crate::quantized as q;
    match format {
        Format::F32 => floats::<f::F32>(),
        Format::F16 => floats::<f::F16>(),
        Format::Bf16 => floats::<f::Bf16>(),
        Format::Q8_0 => quantized::<q::Q8_0>(),
        Format::Q6K => quantized::<q::Q6K>(),
        Format::Q5K => quantized::<q::Q5K>(),
        Format::Q4K => quantized::<q::Q4K>(),
        Format::Q3K => quantized::<q::Q3K>(),
        Format::Q2K => quantized::<q::Q2K>(),
        Format::Q5_0 => quantized::<q::Q5_0>(),
        Format::Q5_1 => quantized::<q::Q5_1>(),
        Format::Q4_0 => quantized::<q::Q4_0>(),
        Format::Q4_1 => quantized::<q::Q4_1>(),
    }
}

/// Chooses the kernels of every format.
pub(crate) fn choose(chooser: &mut Chooser) -> [MatmulKernels; Format::ALL.len()] {
    Format::ALL.map(|format| {
        let scalar: TileKernel =
            if format.is_quantized() { scalar::quantized_tile } else { scalar::float_tile };
        let compiled = compiled(format);
        let candidates = |kernel: fn(&Compiled) -> TileKernel| -> Vec<Candidate<TileKernel>> {
            compiled.iter().map(|c| Candidate { isa: c.isa, kernel: kernel(c) }).collect()
        };
        MatmulKernels {
            gemv: chooser.pick(Operation::Gemv, format.name(), scalar, &candidates(|c| c.gemv)),
            gemm: chooser.pick(Operation::Gemm, format.name(), scalar, &candidates(|c| c.gemm)),
        }
    })
}
