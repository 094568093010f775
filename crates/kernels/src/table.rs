//! The kernel table: which function does each operation on this machine, what was asked, what was skipped and why.

use roofline_weights::Format;

use crate::dispatch;
use crate::error::KernelError;
use crate::isa::Isa;
use crate::matmul::MatmulKernels;
use crate::quantize::{self, QuantizeRow};
use crate::vectors::{self, Level};

/// An operation that has more than one implementation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Operation {
    /// One activation row (or few) by a packed matrix: decode.
    Gemv,
    /// Many activation rows by a packed matrix: prefill.
    Gemm,
    /// Activations from f32 to what a weight format multiplies by.
    QuantizeActivations,
    /// RMSNorm and LayerNorm.
    Norm,
    /// Rotary position embedding.
    Rope,
    /// Gated and plain activation functions.
    Activation,
    /// Softmax over a row.
    Softmax,
    /// Values into and out of the pages of the KV cache.
    KvPage,
    /// Attention over the pages of the KV cache.
    Attention,
}

impl Operation {
    /// Lower-case name, as `quantize activations`.
    pub fn name(self) -> &'static str {
        match self {
            Operation::Gemv => "gemv",
            Operation::Gemm => "gemm",
            Operation::QuantizeActivations => "quantize activations",
            Operation::Norm => "norm",
            Operation::Rope => "rope",
            Operation::Activation => "activation",
            Operation::Softmax => "softmax",
            Operation::KvPage => "kv page",
            Operation::Attention => "attention",
        }
    }
}

impl std::fmt::Display for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// Why a kernel wider than the chosen one was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SkipReason {
    /// The machine lacks its instructions.
    NotOnThisMachine,
    /// A narrower instruction set was asked for.
    WiderThanRequested,
}

impl std::fmt::Display for SkipReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            SkipReason::NotOnThisMachine => "not on this machine",
            SkipReason::WiderThanRequested => "wider than requested",
        })
    }
}

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The operation.
    pub operation: Operation,
    /// Name of the number format that the kernel reads, as `q4_k`; empty where it reads only f32.
    pub format: &'static str,
    /// Level that the chosen kernel was written for.
    pub chosen: Isa,
    /// Kernels of other levels that exist and were not taken because they may not run.
    pub skipped: Vec<(Isa, SkipReason)>,
}

/// An implementation and the level it was written for.
#[derive(Clone, Copy)]
pub(crate) struct Candidate<F> {
    pub isa: Isa,
    pub kernel: F,
}

/// Picks kernels below one ceiling and writes down each choice.
pub(crate) struct Chooser {
    ceiling: Isa,
    choices: Vec<Choice>,
}

impl Chooser {
    /// The widest of `scalar` and `wider` that the ceiling includes.
    pub fn pick<F: Copy>(
        &mut self,
        operation: Operation,
        format: &'static str,
        scalar: F,
        wider: &[Candidate<F>],
    ) -> F {
        let mut best = Candidate { isa: Isa::Scalar, kernel: scalar };
        let mut skipped = Vec::new();
        for candidate in wider {
            if self.ceiling.includes(candidate.isa) {
                if candidate.isa.includes(best.isa) {
                    best = *candidate;
                }
            } else if candidate.isa.is_available() {
                skipped.push((candidate.isa, SkipReason::WiderThanRequested));
            } else {
                skipped.push((candidate.isa, SkipReason::NotOnThisMachine));
            }
        }
        self.choices.push(Choice { operation, format, chosen: best.isa, skipped });
        best.kernel
    }
}

/// The function chosen for each (operation, format).
pub struct KernelTable {
    isa: Isa,
    requested: Option<Isa>,
    vectors: Level,
    choices: Vec<Choice>,
    pub(crate) matmul: [MatmulKernels; Format::ALL.len()], // by discriminant of the weights' format
    pub(crate) quantize: QuantizeRow,
}

impl KernelTable {
    /// Chooses the widest kernels that this machine runs, no wider than `requested`.
    ///
    /// # Errors
    /// [`KernelError::IsaUnavailable`] when the machine lacks the level that was asked for.
    pub fn detect(requested: Option<Isa>) -> Result<KernelTable, KernelError> {
        let isa = match requested {
            Some(requested) if !requested.is_available() => {
                return Err(KernelError::IsaUnavailable { requested });
            }
            Some(requested) => requested,
            None => Isa::widest(),
        };
        let mut chooser = Chooser { ceiling: isa, choices: Vec::new() };
        let matmul = dispatch::choose(&mut chooser);
        let quantize = quantize::choose(&mut chooser);
        let vectors = vectors::choose(&mut chooser);
        Ok(KernelTable { isa, requested, vectors, choices: chooser.choices, matmul, quantize })
    }

    /// The level that the choices were made under.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// The level that was asked for, if one was.
    pub fn requested(&self) -> Option<Isa> {
        self.requested
    }

    /// The level of the kernels that are written once over vectors of any width.
    pub(crate) fn vectors(&self) -> Level {
        self.vectors
    }

    /// Every choice made, operation by operation.
    pub fn choices(&self) -> impl Iterator<Item = &Choice> {
        self.choices.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_widest_level_under_the_ceiling_is_picked_and_the_rest_is_explained() {
        let wider = [Isa::Avx512Vnni, Isa::Avx2, Isa::NeonDot].map(|isa| Candidate { isa, kernel: isa });
        let mut chooser = Chooser { ceiling: Isa::Avx512, choices: Vec::new() };
        assert_eq!(chooser.pick(Operation::Gemv, "q8_0", Isa::Scalar, &wider), Isa::Avx2);
        let skipped: Vec<Isa> = chooser.choices[0].skipped.iter().map(|(isa, _)| *isa).collect();
        assert_eq!(skipped, [Isa::Avx512Vnni, Isa::NeonDot]);
    }

    #[test]
    fn a_level_that_the_machine_lacks_is_refused_by_name() {
        for isa in Isa::ALL.into_iter().filter(|isa| !isa.is_available()) {
            let message = KernelTable::detect(Some(isa)).err().map(|e| e.to_string()).unwrap_or_default();
            assert!(message.contains(isa.name()) && message.contains("scalar"), "{message}");
        }
        for isa in Isa::available() {
            assert_eq!(KernelTable::detect(Some(isa)).unwrap().isa(), isa);
        }
        assert_eq!(KernelTable::detect(None).unwrap().isa(), Isa::widest());
    }
}
