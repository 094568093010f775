//! [`Cpu`]: this machine's threads and chosen kernels, and the model's words in the kernels' terms.

use crate::error::EngineError;
use roofline_kernels as kernels;
use roofline_kernels::{Arithmetic, Isa, KernelTable, Team};
use roofline_model::config;
use std::sync::Arc;

/// Threads and chosen kernels, shared by everything that runs on them.
#[derive(Clone)]
pub struct Cpu {
    pub(crate) table: Arc<KernelTable>,
    pub(crate) team: Arc<Team>,
}

impl Cpu {
    /// A team of `threads` with the kernels of `isa`, or of the widest instruction set there is, in exact arithmetic: who
    /// wants the faster, narrower one asks for it ([`Cpu::with_arithmetic`]).
    ///
    /// # Errors
    /// No threads, threads the system refuses, or an instruction set this machine lacks.
    pub fn new(threads: usize, isa: Option<Isa>) -> Result<Cpu, EngineError> {
        Cpu::with_arithmetic(threads, isa, Arithmetic::Exact)
    }

    /// The same with the arithmetic named.
    ///
    /// # Errors
    /// As for [`Cpu::new`].
    pub fn with_arithmetic(
        threads: usize,
        isa: Option<Isa>,
        arithmetic: Arithmetic,
    ) -> Result<Cpu, EngineError> {
        let table = Arc::new(KernelTable::detect_for(isa, arithmetic)?);
        Ok(Cpu { table, team: Arc::new(Team::new(threads)?) })
    }

    /// The same kernels with a team of its own.
    ///
    /// # Errors
    /// No threads, or threads the system refuses.
    pub fn with_threads(&self, threads: usize) -> Result<Cpu, EngineError> {
        Ok(Cpu { table: Arc::clone(&self.table), team: Arc::new(Team::new(threads)?) })
    }

    /// Threads of the team.
    pub fn threads(&self) -> usize {
        self.team.threads()
    }

    /// The team, to run other work on.
    pub fn team(&self) -> &Team {
        &self.team
    }

    /// Which kernel was chosen for what.
    pub fn table(&self) -> &KernelTable {
        &self.table
    }
}

pub(crate) fn norm_kind(kind: config::NormKind) -> kernels::NormKind {
    match kind {
        config::NormKind::Rms => kernels::NormKind::Rms,
        config::NormKind::Layer => kernels::NormKind::Layer,
    }
}

pub(crate) fn pairing(pairing: config::Pairing) -> kernels::Pairing {
    match pairing {
        config::Pairing::Halves => kernels::Pairing::Halves,
        config::Pairing::Adjacent => kernels::Pairing::Adjacent,
    }
}

pub(crate) fn activation(activation: config::Activation) -> kernels::Activation {
    match activation {
        config::Activation::Silu => kernels::Activation::Silu,
        config::Activation::Gelu => kernels::Activation::Gelu,
        config::Activation::GeluTanh => kernels::Activation::GeluTanh,
        config::Activation::Relu => kernels::Activation::Relu,
    }
}

/// Frequencies of `rope`; `factors` (rotary_dim / 2) are there when its scaling is
/// [`config::RopeScaling::FrequencyFactors`].
pub(crate) fn inv_freq(rope: &config::Rope, factors: Option<&[f32]>) -> Vec<f64> {
    let scaling = match rope.scaling {
        config::RopeScaling::Linear { factor } => kernels::RopeScaling::Linear { factor },
        config::RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
            let original_context = original_context as f64;
            kernels::RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context }
        }
        config::RopeScaling::None | config::RopeScaling::FrequencyFactors => kernels::RopeScaling::None,
    };
    let mut frequencies = kernels::inverse_frequencies(rope.theta, rope.rotary_dim, scaling);
    for (frequency, factor) in frequencies.iter_mut().zip(factors.unwrap_or_default()) {
        *frequency /= f64::from(*factor);
    }
    frequencies
}
