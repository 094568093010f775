//! Instruction sets, as levels that include one another.

use crate::error::KernelError;

/// An instruction-set level that kernels are written for. A level includes those below it in its own family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Isa {
    /// Plain Rust, the same on every machine.
    Scalar,
    /// x86-64 with AVX2, FMA and F16C (the x86-64-v3 level).
    Avx2,
    /// AVX-512 F, BW, DQ and VL on top (the x86-64-v4 level).
    Avx512,
    /// AVX-512 with the integer dot products of VNNI on top.
    Avx512Vnni,
    /// VNNI and the bf16 dot products of AVX-512 on top (Zen 4, Cooper Lake, Sapphire Rapids and later).
    Avx512Bf16,
    /// aarch64 with its base vectors.
    Neon,
    /// aarch64 with the integer dot products of `dotprod` on top.
    NeonDot,
    /// `dotprod` and `i8mm` on top: products of signed by unsigned bytes, and of matrices of signed ones.
    NeonI8mm,
}

impl Isa {
    /// Every level, narrow before wide within a family.
    pub const ALL: [Isa; 8] = [
        Isa::Scalar,
        Isa::Avx2,
        Isa::Avx512,
        Isa::Avx512Vnni,
        Isa::Avx512Bf16,
        Isa::Neon,
        Isa::NeonDot,
        Isa::NeonI8mm,
    ];

    /// Lower-case name, as `avx512vnni`.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Avx512Vnni => "avx512vnni",
            Isa::Avx512Bf16 => "avx512bf16",
            Isa::Neon => "neon",
            Isa::NeonDot => "neondot",
            Isa::NeonI8mm => "neoni8mm",
        }
    }

    /// Whether code written for `other` runs on a machine of this level.
    pub fn includes(self, other: Isa) -> bool {
        match (self.rung(), other.rung()) {
            (_, (_, 0)) => true,
            ((family, level), (other_family, other_level)) => family == other_family && level >= other_level,
        }
    }

    /// Family and height on its ladder; `Scalar` is the foot of both.
    fn rung(self) -> (u8, u8) {
        match self {
            Isa::Scalar => (0, 0),
            Isa::Avx2 => (1, 1),
            Isa::Avx512 => (1, 2),
            Isa::Avx512Vnni => (1, 3),
            Isa::Avx512Bf16 => (1, 4),
            Isa::Neon => (2, 1),
            Isa::NeonDot => (2, 2),
            Isa::NeonI8mm => (2, 3),
        }
    }

    /// Whether this machine has the level.
    pub fn is_available(self) -> bool {
        match self {
            Isa::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => {
                Isa::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni => Isa::Avx512.is_available() && is_x86_feature_detected!("avx512vnni"),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Bf16 => Isa::Avx512Vnni.is_available() && is_x86_feature_detected!("avx512bf16"),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => std::arch::is_aarch64_feature_detected!("neon"),
            #[cfg(target_arch = "aarch64")]
            Isa::NeonDot => Isa::Neon.is_available() && std::arch::is_aarch64_feature_detected!("dotprod"),
            #[cfg(target_arch = "aarch64")]
            Isa::NeonI8mm => Isa::NeonDot.is_available() && std::arch::is_aarch64_feature_detected!("i8mm"),
            #[allow(unreachable_patterns)] // which arms are left depends on the target
            _ => false,
        }
    }

    /// The levels of this machine, narrow before wide.
    pub fn available() -> impl Iterator<Item = Isa> {
        Isa::ALL.into_iter().filter(|isa| isa.is_available())
    }

    /// The widest level of this machine.
    pub fn widest() -> Isa {
        Isa::available().last().unwrap_or(Isa::Scalar)
    }

    /// Whether bf16 dot products are faster than f32 multiply-adds on this machine. AMD's issue as often and do twice the
    /// work; Intel's issue a quarter as often (measured on Granite Rapids: 123 against 243 GFLOP/s of one core).
    pub(crate) fn bf16_dot_pays() -> bool {
        Isa::amd_family().is_some() && Isa::Avx512Bf16.is_available()
    }

    /// The family of this processor if AMD made it: 0x19 is Zen 3 and 4, 0x1a Zen 5.
    pub(crate) fn amd_family() -> Option<u32> {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::__cpuid;
            let vendor = __cpuid(0);
            let vendor = [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes);
            let signature = __cpuid(1).eax;
            let family = (signature >> 8 & 0xf) + (signature >> 20 & 0xff);
            (vendor.as_flattened() == b"AuthenticAMD").then_some(family)
        }
        #[cfg(not(target_arch = "x86_64"))]
        None
    }

    /// The levels of this machine in words, for messages.
    pub(crate) fn list_available() -> String {
        Isa::available().map(Isa::name).collect::<Vec<_>>().join(", ")
    }
}

impl std::fmt::Display for Isa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

impl std::str::FromStr for Isa {
    type Err = KernelError;

    /// The level of that name, in either case. It need not be on this machine.
    fn from_str(name: &str) -> Result<Isa, KernelError> {
        Isa::ALL
            .into_iter()
            .find(|isa| isa.name().eq_ignore_ascii_case(name))
            .ok_or_else(|| KernelError::IsaUnknown { name: name.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_unknown_names_are_refused_with_what_there_is() {
        for isa in Isa::ALL {
            assert_eq!(isa.name().to_uppercase().parse::<Isa>().unwrap(), isa);
        }
        let message = "sse9".parse::<Isa>().unwrap_err().to_string();
        assert!(message.contains("sse9") && message.contains("scalar"), "{message}");
    }

    #[test]
    fn a_level_includes_its_own_ladder_only() {
        assert!(Isa::Avx512Vnni.includes(Isa::Avx2));
        assert!(!Isa::Avx2.includes(Isa::Avx512));
        assert!(!Isa::NeonDot.includes(Isa::Avx2));
        assert!(Isa::ALL.into_iter().all(|isa| isa.includes(Isa::Scalar) && isa.includes(isa)));
    }

    #[test]
    fn an_available_level_makes_all_below_it_available() {
        let widest = Isa::widest();
        for isa in Isa::ALL {
            assert_eq!(isa.is_available(), widest.includes(isa), "{isa} on a machine of {widest}");
        }
    }
}
