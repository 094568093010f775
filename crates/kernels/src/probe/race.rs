//! Threads that start together, again and again, and are timed from the first start to the last end.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::{Plan, ProbeError};

/// Most passes of one sample; a pass that takes no measurable time must not loop for ever.
const MOST_PASSES: u64 = 1 << 40;

/// Calibrates every one of `loops` loops, then takes `plan.repeats` samples of each in turn, so that all of them see
/// the same moments. Returns, for each loop, the passes per second of its samples, counted per thread: multiply by the
/// work of one pass of all threads.
///
/// `prepare` builds a thread's state on that thread (so that its memory is near it); `work(state, loop, passes)` does
/// that many passes of that loop.
pub(super) fn passes_per_second<State>(
    plan: Plan,
    loops: usize,
    prepare: impl Fn(usize) -> State + Sync,
    work: impl Fn(&mut State, usize, u64) + Sync,
) -> Result<Vec<Vec<f64>>, ProbeError> {
    if plan.threads == 0 || plan.repeats == 0 {
        return Err(ProbeError::Empty { threads: plan.threads, repeats: plan.repeats, bytes: 0 });
    }
    let course = Course::new(plan);
    std::thread::scope(|scope| {
        for thread in 1..plan.threads {
            let (course, prepare, work) = (&course, &prepare, &work);
            let spawned = std::thread::Builder::new()
                .name(format!("probe-{thread}"))
                .spawn_scoped(scope, move || course.follow(prepare(thread), work));
            if let Err(source) = spawned {
                course.cancelled.store(true, Ordering::Release);
                return Err(ProbeError::Thread { thread, threads: plan.threads, source });
            }
        }
        Ok(course.lead(loops, prepare(0), &work))
    })
}

/// What the threads of one probe share.
struct Course {
    plan: Plan,
    epoch: Instant,
    arrived: AtomicUsize,
    generation: AtomicUsize,
    cancelled: AtomicBool,
    /// The loop of the next lap.
    chosen: AtomicUsize,
    /// Passes of the next lap; 0 says that there is none.
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
            chosen: AtomicUsize::new(0),
            passes: AtomicU64::new(1),
            first_start: AtomicU64::new(u64::MAX),
            last_end: AtomicU64::new(0),
        }
    }

    /// The first thread: works like the others and decides what comes next.
    fn lead<State>(
        &self,
        loops: usize,
        mut state: State,
        work: &impl Fn(&mut State, usize, u64),
    ) -> Vec<Vec<f64>> {
        let mut lap = |chosen, passes| self.timed_lap(&mut state, chosen, passes, work);
        let passes: Vec<u64> =
            (0..loops).map(|chosen| calibrate(self.plan.sample, |n| lap(chosen, n))).collect();
        let mut rates = vec![Vec::with_capacity(self.plan.repeats); loops]; // (loops, repeats)
        for _ in 0..self.plan.repeats {
            for (chosen, (rates, &passes)) in rates.iter_mut().zip(&passes).enumerate() {
                rates.push(passes as f64 / lap(chosen, passes).as_secs_f64());
            }
        }
        self.passes.store(0, Ordering::Release);
        self.wait();
        rates
    }

    /// One lap of all threads, from the first start to the last end.
    fn timed_lap<State>(
        &self,
        state: &mut State,
        chosen: usize,
        passes: u64,
        work: &impl Fn(&mut State, usize, u64),
    ) -> Duration {
        self.first_start.store(u64::MAX, Ordering::Relaxed);
        self.last_end.store(0, Ordering::Relaxed);
        self.chosen.store(chosen, Ordering::Relaxed);
        self.passes.store(passes, Ordering::Release);
        self.wait();
        self.lap(state, chosen, passes, work);
        self.wait();
        let span = self.last_end.load(Ordering::Acquire) - self.first_start.load(Ordering::Acquire);
        Duration::from_nanos(span.max(1))
    }

    fn follow<State>(&self, mut state: State, work: &impl Fn(&mut State, usize, u64)) {
        loop {
            if !self.wait() {
                return;
            }
            let passes = self.passes.load(Ordering::Acquire);
            if passes == 0 {
                return;
            }
            self.lap(&mut state, self.chosen.load(Ordering::Acquire), passes, work);
            if !self.wait() {
                return;
            }
        }
    }

    fn lap<State>(
        &self,
        state: &mut State,
        chosen: usize,
        passes: u64,
        work: &impl Fn(&mut State, usize, u64),
    ) {
        let start = self.epoch.elapsed().as_nanos() as u64;
        work(state, chosen, passes);
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
            if spins.is_multiple_of(1024) {
                std::thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
        }
        true
    }
}

/// Passes that fill `sample`, found by longer and longer laps; they also warm up.
fn calibrate(sample: Duration, mut lap: impl FnMut(u64) -> Duration) -> u64 {
    let mut passes = 1u64;
    loop {
        let span = lap(passes);
        if span >= sample || passes >= MOST_PASSES {
            return passes;
        }
        let growth = (sample.as_secs_f64() / span.as_secs_f64() * 1.2).clamp(1.5, 64.0);
        passes = (passes as f64 * growth).ceil() as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(threads: usize, repeats: usize) -> Plan {
        Plan { threads, repeats, sample: Duration::from_micros(200) }
    }

    #[test]
    fn every_thread_runs_every_loop_as_often() {
        let laps: Vec<AtomicU64> = (0..6).map(|_| AtomicU64::new(0)).collect(); // (threads, loops)
        let rates = passes_per_second(
            plan(3, 4),
            2,
            |thread| thread,
            |thread, chosen, passes| {
                laps[*thread * 2 + chosen].fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_micros(100 * passes));
            },
        )
        .unwrap();
        assert_eq!(rates.iter().map(Vec::len).collect::<Vec<_>>(), [4, 4]);
        // A pass sleeps 100 µs at least, so no sample can count more than 10,000 passes per second.
        assert!(rates.iter().flatten().all(|&rate| rate > 0.0 && rate <= 10_000.0), "{rates:?}");
        let laps: Vec<u64> = laps.iter().map(|l| l.load(Ordering::Relaxed)).collect();
        assert!(laps[0] > 4 && laps[1] > 4, "warm-up laps come on top: {laps:?}");
        assert!(laps.chunks(2).all(|of_thread| of_thread == &laps[..2]), "{laps:?}");
    }

    #[test]
    fn nothing_to_do_is_an_error() {
        let run = |plan| passes_per_second(plan, 1, |_| (), |(), _, _| ());
        assert!(matches!(run(plan(0, 1)), Err(ProbeError::Empty { .. })));
        assert!(matches!(run(plan(1, 0)), Err(ProbeError::Empty { .. })));
    }

    /// A loop the compiler emptied takes no time however often it runs.
    #[test]
    fn calibration_ends() {
        let passes = calibrate(Duration::from_secs(1), |_| Duration::from_nanos(1));
        assert!(passes >= MOST_PASSES);
    }
}
