//! The measurement itself: which probes, how long, in what order.

use std::ops::ControlFlow;
use std::time::{Duration, Instant, SystemTime};

use roofline_kernels::probe::{self, Arithmetic, Memory, Plan, Samples};

use super::noise::Clock;
use super::{Figure, Machine, Noise, What};
use crate::environment::{Environment, Source};
use crate::error::LabError;
use crate::timestamp;

/// What to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Most threads; lower counts are measured as well.
    pub threads: usize,
    /// Times the whole list of probes is gone through.
    pub rounds: usize,
    /// Samples of each memory probe in a round; the shorter probes take three times as many.
    pub repeats: usize,
}

impl Options {
    /// Five rounds of ten (thirty) samples; fewer rounds where they would take longer than 15 s.
    pub fn thorough(threads: usize) -> Options {
        Options { threads, rounds: 5, repeats: 10 }
    }
}

/// A probe that is about to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// What it measures.
    pub what: What,
    /// On how many threads.
    pub threads: usize,
    /// Its number, from 0.
    pub index: usize,
    /// Steps in all.
    pub steps: usize,
}

/// Least time of one sample: long against the skew of a start, short against a scheduler's time slice, so that some
/// samples fall between two visits of other programs.
const MEMORY_SAMPLE: Duration = Duration::from_millis(2);
const CACHE_SAMPLE: Duration = Duration::from_millis(1);
const ARITHMETIC_SAMPLE: Duration = Duration::from_millis(1);

/// Cache and arithmetic samples for every one of memory.
const SHORT_PER_LONG: usize = 3;

/// No round begins that would probably end later than this, however busy the machine is.
const BUDGET: Duration = Duration::from_secs(15);

/// Samples of each probe in a quick measurement.
const QUICK_REPEATS: usize = 15;

/// A buffer shall be this many times the last-level cache, so that what a pass leaves there is of no use to the next.
const CACHES_PER_BUFFER: u64 = 4;
const LEAST_BUFFER: u64 = 256 << 20;
const LARGEST_BUFFER: u64 = 2 << 30;

/// Measures this machine. `watch` sees every step before it runs and may call the measurement off.
///
/// # Errors
/// [`LabError::Cancelled`] when `watch` breaks, [`LabError::Probe`] when a thread or a buffer cannot be had.
pub fn measure(
    options: Options,
    mut watch: impl FnMut(Step) -> ControlFlow<()>,
) -> Result<Machine, LabError> {
    let environment = Environment::read();
    let probes = probes(&environment, options.threads);
    let mut loops: Vec<Vec<Samples>> = vec![Vec::new(); probes.len()];
    let started = Instant::now();
    let before = Clock::read(&Source::system());
    for round in 0..options.rounds {
        if round > 0 && started.elapsed() * (round as u32 + 1) / round as u32 > BUDGET {
            break;
        }
        for (i, (probe, loops)) in probes.iter().zip(&mut loops).enumerate() {
            let (index, steps) = (round * probes.len() + i, options.rounds * probes.len());
            let step = Step { what: probe.what, threads: probe.threads, index, steps };
            if watch(step).is_break() {
                return Err(LabError::Cancelled);
            }
            merge(loops, probe.run(options.repeats)?);
        }
    }
    let after = Clock::read(&Source::system());
    finish(environment, &probes, &loops, started, &before, &after)
}

/// Measures reading memory and the larger caches and all arithmetic on `threads` threads only, in well under a second, to stand beside a
/// benchmark that runs at the same time of day.
///
/// # Errors
/// As [`measure`].
pub fn measure_quickly(threads: usize) -> Result<Machine, LabError> {
    let environment = Environment::read();
    let mut probes = probes(&environment, threads);
    probes.retain(|probe| {
        probe.threads == threads && probe.what != What::WriteMemory && probe.what != What::ReadL1
    });
    let started = Instant::now();
    let before = Clock::read(&Source::system());
    let loops = probes
        .iter()
        .map(|probe| {
            let mut loops = Vec::new();
            merge(&mut loops, probe.run(QUICK_REPEATS)?);
            Ok(loops)
        })
        .collect::<Result<Vec<_>, LabError>>()?;
    let after = Clock::read(&Source::system());
    finish(environment, &probes, &loops, started, &before, &after)
}

fn finish(
    environment: Environment,
    probes: &[Probe],
    loops: &[Vec<Samples>],
    started: Instant,
    before: &Clock,
    after: &Clock,
) -> Result<Machine, LabError> {
    let mut figures = Vec::new();
    for (probe, loops) in probes.iter().zip(loops) {
        figures.extend(Figure::of_fastest(probe.what, loops)?);
    }
    Ok(Machine {
        measured_at: timestamp::rfc3339(SystemTime::now()),
        seconds: started.elapsed().as_secs_f64(),
        noise: Noise::judge(before, after, &figures),
        environment,
        figures,
    })
}

/// One line of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Probe {
    what: What,
    threads: usize,
    /// Bytes of the cache it stays inside, per thread; `None` for memory and arithmetic.
    cache_bytes: Option<usize>,
    buffer_bytes: usize, // of all threads, for memory
}

impl Probe {
    fn run(&self, repeats: usize) -> Result<Vec<Samples>, LabError> {
        // Short samples are cheap, and the more there are, the surer one of them was left alone.
        let plan = |sample| Plan {
            threads: self.threads,
            repeats: if sample < MEMORY_SAMPLE { SHORT_PER_LONG * repeats } else { repeats },
            sample,
        };
        if let Some(bytes_per_thread) = self.cache_bytes {
            return Ok(probe::read(plan(CACHE_SAMPLE), Memory { bytes_per_thread })?);
        }
        let memory = Memory { bytes_per_thread: self.buffer_bytes.div_ceil(self.threads) };
        let arithmetic = |kind: Arithmetic| Ok(kind.measure(plan(ARITHMETIC_SAMPLE))?.into_iter().collect());
        match self.what {
            What::WriteMemory => Ok(probe::write(plan(MEMORY_SAMPLE), memory)?),
            What::F32 => arithmetic(Arithmetic::F32),
            What::Bf16 => arithmetic(Arithmetic::Bf16),
            What::Int16 => arithmetic(Arithmetic::Int16),
            What::Int8 => arithmetic(Arithmetic::Int8),
            What::ReadMemory | What::ReadL1 | What::ReadL2 | What::ReadL3 => {
                Ok(probe::read(plan(MEMORY_SAMPLE), memory)?)
            }
        }
    }
}

fn probes(environment: &Environment, threads: usize) -> Vec<Probe> {
    let ends = if threads > 1 { vec![1, threads] } else { vec![1] };
    let buffer_bytes = buffer_bytes(environment);
    let probe = |what, threads| Probe { what, threads, cache_bytes: None, buffer_bytes };
    let mut probes: Vec<Probe> =
        thread_counts(threads).into_iter().map(|n| probe(What::ReadMemory, n)).collect();
    probes.extend(ends.iter().map(|&n| probe(What::WriteMemory, n)));
    for cache in environment.cpu.caches.iter().rev() {
        let what = match cache.level {
            1 => What::ReadL1,
            2 => What::ReadL2,
            3 => What::ReadL3,
            _ => continue,
        };
        for &n in &ends {
            // Half of a thread's share: the other half is for whoever else lives there.
            let sharing = n.div_ceil(cache.instances.max(1)) as u64;
            let cache_bytes = Some((cache.bytes / sharing / 2).max(1) as usize);
            probes.push(Probe { cache_bytes, ..probe(what, n) });
        }
    }
    for kind in Arithmetic::ALL {
        probes.extend(ends.iter().map(|&n| probe(kind.into(), n)));
    }
    probes
}

/// 1, 2, 4, … and `threads` itself.
fn thread_counts(threads: usize) -> Vec<usize> {
    let doubling = std::iter::successors(Some(1usize), |n| n.checked_mul(2));
    let mut counts: Vec<usize> = doubling.take_while(|n| *n < threads).collect();
    counts.push(threads);
    counts
}

/// Bytes of the memory probe's buffer, all threads together: several times the last-level caches, and never more than
/// a quarter of what is free.
fn buffer_bytes(environment: &Environment) -> usize {
    let caches = environment.cpu.last_level_cache().map_or(0, |cache| cache.bytes * cache.instances as u64);
    let wanted = (CACHES_PER_BUFFER * caches).clamp(LEAST_BUFFER, LARGEST_BUFFER);
    let memory = &environment.memory;
    let free = memory.available_bytes.into_iter().chain(memory.limit_bytes).min();
    free.map_or(wanted, |free| wanted.min(free / 4)) as usize
}

/// Adds a round's samples to those of the rounds before; the loops come in the same order every time.
fn merge(all: &mut Vec<Samples>, round: Vec<Samples>) {
    if all.is_empty() {
        *all = round;
        return;
    }
    for (all, round) in all.iter_mut().zip(round) {
        all.rates.extend(round.rates);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::Cache;

    #[test]
    fn thread_counts_double_and_end_at_the_top() {
        assert_eq!(thread_counts(1), [1]);
        assert_eq!(thread_counts(2), [1, 2]);
        assert_eq!(thread_counts(6), [1, 2, 4, 6]);
        assert_eq!(thread_counts(8), [1, 2, 4, 8]);
    }

    #[test]
    fn buffers_exceed_caches_and_spare_memory() {
        let mut environment = Environment::read();
        environment.memory.available_bytes = Some(64 << 30);
        environment.memory.limit_bytes = None;
        environment.cpu.caches = vec![Cache { level: 3, bytes: 32 << 20, instances: 8 }];
        assert_eq!(buffer_bytes(&environment), 1 << 30);
        environment.memory.limit_bytes = Some(1 << 30);
        assert_eq!(buffer_bytes(&environment), 256 << 20);
    }

    #[test]
    fn a_cache_probe_stays_inside_its_share() {
        let mut environment = Environment::read();
        environment.cpu.caches = vec![Cache { level: 3, bytes: 32 << 20, instances: 2 }];
        let probes = probes(&environment, 8);
        let l3 = |threads| probes.iter().find(|p| p.what == What::ReadL3 && p.threads == threads).unwrap();
        assert_eq!(l3(1).cache_bytes, Some(16 << 20));
        assert_eq!(l3(8).cache_bytes, Some(4 << 20), "four threads share each of two caches");
    }

    #[test]
    fn a_quick_measurement_has_a_roof_for_memory_and_arithmetic() {
        let machine = measure_quickly(1).unwrap();
        for what in [What::ReadMemory, What::F32] {
            let figure = machine.roof(what).unwrap();
            assert!(figure.best >= figure.median && figure.median > 0.0, "{figure:?}");
            assert!(figure.quartiles.contains(figure.median) && figure.n >= QUICK_REPEATS, "{figure:?}");
        }
    }

    #[test]
    fn a_measurement_can_be_called_off() {
        let stop = measure(Options::thorough(1), |_| ControlFlow::Break(()));
        assert!(matches!(stop, Err(LabError::Cancelled)));
    }
}
