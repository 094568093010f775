//! The kernel table: which function does each operation on this machine, what was asked, what was skipped and why.

use roofline_weights::Format;

use crate::activations::Form;
use crate::dispatch;
use crate::error::KernelError;
use crate::isa::Isa;
use crate::matmul::MatmulKernels;
use crate::quantize::{self, QuantizeRow, RoundBf16};
use crate::tile::Walk;
use crate::vectors::{self, Level};

/// How narrow the numbers may be that weights are multiplied by. Sums are f32 or exact integers either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Arithmetic {
    /// As the peers: activations of 8 bits with one scale per 32 for quantized weights, of bf16 for bf16 weights where an
    /// instruction makes that faster.
    #[default]
    Fast,
    /// Activations of 16 bits for quantized weights, of f32 for all others.
    Exact,
}

impl Arithmetic {
    /// Lower-case name, as `fast`.
    pub fn name(self) -> &'static str {
        match self {
            Arithmetic::Fast => "fast",
            Arithmetic::Exact => "exact",
        }
    }
}

impl std::fmt::Display for Arithmetic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

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
    /// It rounds to fewer bits than exact arithmetic does.
    NotExact,
    /// This machine runs it slower than the one that was chosen.
    SlowerHere,
}

impl std::fmt::Display for SkipReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            SkipReason::NotOnThisMachine => "not on this machine",
            SkipReason::WiderThanRequested => "wider than requested",
            SkipReason::NotExact => "not exact",
            SkipReason::SlowerHere => "slower here",
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
    /// The numbers that are multiplied, as `i8`: what activations are rounded to. Empty where only f32 is read.
    pub numbers: &'static str,
    /// Level that the chosen kernel was written for.
    pub chosen: Isa,
    /// Kernels of other levels that exist and were not taken, and why.
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
    asked: bool, // for that ceiling by name
    choices: Vec<Choice>,
}

impl Chooser {
    /// The widest of `scalar` and `wider` that the ceiling includes, of an operation on f32.
    pub fn pick<F: Copy>(
        &mut self,
        operation: Operation,
        format: &'static str,
        scalar: F,
        wider: &[Candidate<F>],
    ) -> F {
        self.pick_of(operation, format, "", scalar, wider)
    }

    /// The same of an operation that multiplies `numbers`.
    pub fn pick_of<F: Copy>(
        &mut self,
        operation: Operation,
        format: &'static str,
        numbers: &'static str,
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
        self.choices.push(Choice { operation, format, numbers, chosen: best.isa, skipped });
        best.kernel
    }

    /// Adds to the last choice a kernel of a level that was not among its candidates.
    pub fn skip(&mut self, isa: Isa, reason: SkipReason) {
        if let Some(choice) = self.choices.last_mut() {
            choice.skipped.push((isa, reason));
        }
    }

    /// Whether kernels of `isa` may be chosen.
    pub fn includes(&self, isa: Isa) -> bool {
        self.ceiling.includes(isa)
    }

    /// Whether the ceiling was asked for by name.
    pub fn was_asked(&self) -> bool {
        self.asked
    }
}

/// The function chosen for each (operation, format).
pub struct KernelTable {
    isa: Isa,
    requested: Option<Isa>,
    arithmetic: Arithmetic,
    vectors: Level,
    choices: Vec<Choice>,
    pub(crate) matmul: [MatmulKernels; Format::ALL.len()], // by discriminant of the weights' format
    pub(crate) quantize: QuantizeRow,                      // to bytes or pairs, by what is not empty
    pub(crate) round_bf16: RoundBf16,
    pub(crate) walk: Walk, // of decode
}

impl KernelTable {
    /// Chooses the widest kernels of [`Arithmetic::Fast`] that this machine runs, no wider than `requested`.
    ///
    /// # Errors
    /// [`KernelError::IsaUnavailable`] when the machine lacks the level that was asked for.
    pub fn detect(requested: Option<Isa>) -> Result<KernelTable, KernelError> {
        KernelTable::detect_for(requested, Arithmetic::Fast)
    }

    /// The same of any arithmetic.
    ///
    /// # Errors
    /// As for [`KernelTable::detect`].
    pub fn detect_for(requested: Option<Isa>, arithmetic: Arithmetic) -> Result<KernelTable, KernelError> {
        let isa = match requested {
            Some(requested) if !requested.is_available() => {
                return Err(KernelError::IsaUnavailable { requested });
            }
            Some(requested) => requested,
            None => Isa::widest(),
        };
        let mut chooser = Chooser { ceiling: isa, asked: requested.is_some(), choices: Vec::new() };
        let matmul = dispatch::choose(&mut chooser, arithmetic);
        let integers = if arithmetic == Arithmetic::Fast { Form::Bytes } else { Form::Pairs };
        let quantize = quantize::choose(&mut chooser, integers);
        let round_bf16 = quantize::choose_bf16(isa);
        let vectors = vectors::choose(&mut chooser);
        let choices = chooser.choices;
        let walk = Walk::here();
        Ok(KernelTable { isa, requested, arithmetic, vectors, choices, matmul, quantize, round_bf16, walk })
    }

    /// The level that the choices were made under.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// The level that was asked for, if one was.
    pub fn requested(&self) -> Option<Isa> {
        self.requested
    }

    /// The arithmetic that was asked for.
    pub fn arithmetic(&self) -> Arithmetic {
        self.arithmetic
    }

    /// What weights of `format` are multiplied by.
    pub(crate) fn form(&self, format: Format) -> Form {
        self.matmul[format as usize].form
    }

    /// The level of the kernels that are written once over vectors of any width.
    pub(crate) fn vectors(&self) -> Level {
        self.vectors
    }

    /// How decode walks through the groups of rows of a matrix on this machine: `abreast` or `in line`.
    pub fn walk(&self) -> &'static str {
        match self.walk {
            Walk::Abreast => "abreast",
            Walk::InLine => "in line",
        }
    }

    /// Whether keys and values that will be read next are fetched from memory into the first-level cache: that of Zen 5 (48 KiB)
    /// holds them up to 128 channels in 16 bits, and has enough lines under way; beyond that it is no slower. That of Zen 4 (32 KiB) loses what is being read, and Intel's has too few
    /// lines under way; both get them from the second (docs/attention.md).
    pub(crate) fn fetches_into_first(&self) -> bool {
        self.walk == Walk::InLine
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
        let mut chooser = Chooser { ceiling: Isa::Avx512, asked: true, choices: Vec::new() };
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
