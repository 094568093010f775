//! Threads that start together, again and again, and are timed from the first start to the last end.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::{Plan, ProbeError};

/// Most passes of one sample; a pass that takes no measurable time must not loop for ever.
const MOST_PASSES: u64 = 1 << 40;

/// One warm-up plus calibration, then `plan.repeats` samples. Returns passes per second of each sample, counted per
/// thread: multiply by the work of one pass of all threads.
///
/// `prepare` builds a thread's state on that thread (so that its memory is near it); `work` does that many passes.
pub(super) fn passes_per_second<State>(
    plan: Plan,
    prepare: impl Fn(usize) -> State + Sync,
    work: impl Fn(&mut State, u64) + Sync,
) -> Result<Vec<f64>, ProbeError> {
    if plan.threads == 0 || plan.repeats == 0 {
        return Err(ProbeError::Empty { threads: plan.threads, repeats: plan.repeats, bytes: 0 });
    }
    let course = Course::new(plan);
    std::thread::scope(|scope| {
        for thread in 1..plan.threads {
            let (course, prepare, work) = (&course, &prepare, &work);
            let spawned = std::thread::Builder::new()
                .name(format!("probe-{thread}"))
                .spawn_scoped(scope, move || course.follow(thread, prepare(thread), work));
            if let Err(source) = spawned {
                course.cancelled.store(true, Ordering::Release);
                return Err(ProbeError::Thread { thread, threads: plan.threads, source });
            }
        }
        Ok(course.lead(prepare(0), &work))
    })
}

/// What the threads of one probe share.
struct Course {
    plan: Plan,
    epoch: Instant,
    arrived: AtomicUsize,
    generation: AtomicUsize,
    cancelled: AtomicBool,
    /// Passes of the next sample; 0 says that there is none.
    passes: AtomicU64,
    /// Nanoseconds since the epoch.
    first_start: AtomicU64,
    last_end: AtomicU64,
}

impl Course {
    fn new(plan: Plan) -> Course {
        Course {
            plan,
            epoch: Instant::now(),
            arrived: AtomicUsize::new(0),
            generation: AtomicUsize::new(0),
            cancelled: AtomicBool::new(false),
            passes: AtomicU64::new(1),
            first_start: AtomicU64::new(u64::MAX),
            last_end: AtomicU64::new(0),
        }
    }

    /// The first thread: works like the others and decides what comes next.
    fn lead<State>(&self, mut state: State, work: &impl Fn(&mut State, u64)) -> Vec<f64> {
        let mut rates = Vec::with_capacity(self.plan.repeats);
        let mut passes = 1;
        let mut calibrated = false;
        while rates.len() < self.plan.repeats {
            self.first_start.store(u64::MAX, Ordering::Relaxed);
            self.last_end.store(0, Ordering::Relaxed);
            self.passes.store(passes, Ordering::Release);
            self.wait();
            self.lap(&mut state, passes, work);
            self.wait();
            let span = self.last_end.load(Ordering::Acquire) - self.first_start.load(Ordering::Acquire);
            let span = Duration::from_nanos(span.max(1));
            if calibrated {
                rates.push(passes as f64 / span.as_secs_f64());
            } else {
                (passes, calibrated) = next_passes(passes, span, self.plan.sample);
            }
        }
        self.passes.store(0, Ordering::Release);
        self.wait();
        rates
    }

    fn follow<State>(&self, _thread: usize, mut state: State, work: &impl Fn(&mut State, u64)) {
        loop {
            if !self.wait() {
                return;
            }
            let passes = self.passes.load(Ordering::Acquire);
            if passes == 0 {
                return;
            }
            self.lap(&mut state, passes, work);
            if !self.wait() {
                return;
            }
        }
    }

    fn lap<State>(&self, state: &mut State, passes: u64, work: &impl Fn(&mut State, u64)) {
        let start = self.epoch.elapsed().as_nanos() as u64;
        work(state, passes);
        let end = self.epoch.elapsed().as_nanos() as u64;
        self.first_start.fetch_min(start, Ordering::AcqRel);
        self.last_end.fetch_max(end, Ordering::AcqRel);
    }

    /// Waits for all threads; false when the probe was called off. Spins, since a sleeping thread wakes up late, and
    /// yields now and then, since another program may need the core to let the others come.
    fn wait(&self) -> bool {
        let generation = self.generation.load(Ordering::Acquire);
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 == self.plan.threads {
            self.arrived.store(0, Ordering::Release);
            self.generation.fetch_add(1, Ordering::Release);
            return true;
        }
        let mut spins = 0u32;
        while self.generation.load(Ordering::Acquire) == generation {
            if self.cancelled.load(Ordering::Acquire) {
                return false;
            }
            spins = spins.wrapping_add(1);
            if spins.is_multiple_of(4096) {
                std::thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
        }
        true
    }
}

/// Passes that fill `sample`, and whether the last lap was already long enough to trust its count.
fn next_passes(passes: u64, span: Duration, sample: Duration) -> (u64, bool) {
    if span >= sample || passes >= MOST_PASSES {
        return (passes, true);
    }
    let growth = (sample.as_secs_f64() / span.as_secs_f64() * 1.2).clamp(1.5, 64.0);
    ((passes as f64 * growth).ceil() as u64, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(threads: usize, repeats: usize) -> Plan {
        Plan { threads, repeats, sample: Duration::from_micros(200) }
    }

    #[test]
    fn every_thread_works_every_sample() {
        let laps: Vec<AtomicU64> = (0..3).map(|_| AtomicU64::new(0)).collect();
        let rates = passes_per_second(
            plan(3, 4),
            |thread| thread,
            |thread, passes| {
                laps[*thread].fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_micros(100 * passes));
            },
        )
        .unwrap();
        assert_eq!(rates.len(), 4);
        // A pass sleeps 100 µs at least, so no sample can count more than 10,000 passes per second.
        assert!(rates.iter().all(|&rate| rate > 0.0 && rate <= 10_000.0), "{rates:?}");
        let laps: Vec<u64> = laps.iter().map(|l| l.load(Ordering::Relaxed)).collect();
        assert!(laps[0] > 4, "warm-up laps come on top: {laps:?}");
        assert!(laps.iter().all(|&l| l == laps[0]), "{laps:?}");
    }

    #[test]
    fn nothing_to_do_is_an_error() {
        assert!(matches!(passes_per_second(plan(0, 1), |_| (), |(), _| ()), Err(ProbeError::Empty { .. })));
        assert!(matches!(passes_per_second(plan(1, 0), |_| (), |(), _| ()), Err(ProbeError::Empty { .. })));
    }

    #[test]
    fn calibration_ends() {
        let mut passes = 1;
        for _ in 0..60 {
            let (next, done) = next_passes(passes, Duration::from_nanos(1), Duration::from_secs(1));
            if done {
                return;
            }
            assert!(next > passes);
            passes = next;
        }
        panic!("an empty loop never ends its calibration");
    }
}
