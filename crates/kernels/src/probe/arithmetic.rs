//! Multiply-adds as fast as they go: independent chains in registers, no memory.

use std::hint::black_box;

use super::race::passes_per_second;
use super::{Plan, ProbeError, Samples};

/// What is multiplied, and what it is added up in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Arithmetic {
    /// f32 · f32 + f32
    F32,
    /// bf16 pairs, added up in f32
    Bf16,
    /// i16 pairs, added up in i32
    Int16,
    /// i8 (or u8) quadruples, added up in i32
    Int8,
}

/// A loop of multiply-adds, with the instruction it is made of.
pub(super) struct Chain {
    pub(super) name: &'static str,
    /// Operations of one iteration; a multiply-add is two.
    pub(super) operations: u64,
    pub(super) run: fn(iterations: u64) -> u64,
}

/// Iterations of one pass; about a microsecond, so that counting passes costs nothing.
const ITERATIONS: u64 = 256;

impl Arithmetic {
    /// All of them.
    pub const ALL: [Arithmetic; 4] = [Arithmetic::F32, Arithmetic::Bf16, Arithmetic::Int16, Arithmetic::Int8];

    /// Operations per second of `plan.threads` threads, or `None` when this processor has no instruction for it (the
    /// kernels then convert to f32).
    ///
    /// # Errors
    /// [`ProbeError::Thread`] when a thread cannot be started.
    pub fn measure(self, plan: Plan) -> Result<Option<Samples>, ProbeError> {
        let Some(chain) = self.chain() else { return Ok(None) };
        let rates = passes_per_second(
            plan,
            1,
            |_| (),
            |(), _, passes| {
                for _ in 0..passes {
                    black_box((chain.run)(black_box(ITERATIONS)));
                }
            },
        )?;
        let work = plan.threads as f64 * (ITERATIONS * chain.operations) as f64;
        let rates = rates.iter().flatten().map(|rate| rate * work).collect();
        Ok(Some(Samples { instruction: chain.name, threads: plan.threads, rates }))
    }

    fn chain(self) -> Option<Chain> {
        #[cfg(target_arch = "x86_64")]
        if let Some(chain) = super::x86::chain(self) {
            return Some(chain);
        }
        #[cfg(target_arch = "aarch64")]
        if let Some(chain) = super::aarch64::chain(self) {
            return Some(chain);
        }
        (self == Arithmetic::F32).then_some(Chain {
            name: "portable f32 multiply, add",
            operations: 2 * PORTABLE_LANES as u64,
            run: f32_portable,
        })
    }
}

const PORTABLE_LANES: usize = 32;

fn f32_portable(iterations: u64) -> u64 {
    let mut sums: [f32; PORTABLE_LANES] = std::array::from_fn(|i| black_box(i as f32));
    let (scale, step) = (black_box(0.999), black_box(0.001));
    for _ in 0..iterations {
        for s in &mut sums {
            *s = *s * scale + step;
        }
    }
    sums.iter().sum::<f32>() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn every_machine_multiplies_f32() {
        let plan = Plan { threads: 2, repeats: 3, sample: Duration::from_micros(100) };
        for kind in Arithmetic::ALL {
            let samples = kind.measure(plan).unwrap();
            assert!(samples.is_some() || kind != Arithmetic::F32);
            if let Some(s) = samples {
                assert_eq!((s.threads, s.rates.len()), (2, 3), "{kind:?}");
                assert!(s.rates.iter().all(|r| r.is_finite() && *r > 0.0), "{s:?}");
            }
        }
    }

    /// The chains must really run: the sum they return after n iterations is known.
    #[test]
    fn chains_compute_what_they_count() {
        for kind in Arithmetic::ALL {
            let Some(chain) = kind.chain() else { continue };
            let (short, long) = ((chain.run)(1), (chain.run)(1001));
            assert_ne!(short, long, "{kind:?} {}", chain.name);
            if matches!(kind, Arithmetic::Int8 | Arithmetic::Int16) {
                // Operands are ones, so each multiply-add adds exactly one to some sum.
                assert_eq!(long - short, 1000 * chain.operations / 2, "{kind:?} {}", chain.name);
            }
        }
    }
}
