//! What went on around a run: load, other programs, a hypervisor, swapping, heat, and the wall clock.

use std::time::{Duration, Instant, SystemTime};

use super::rows::Surroundings;
use crate::environment::Source;
use crate::machine::Clock;

/// Ticks of 10 ms say nothing about a shorter time than this.
const LONG_ENOUGH: Duration = Duration::from_millis(200);
/// A wall clock that is slewed by NTP gains half a millisecond a second; a step is more than this.
const STEP: f64 = 0.25;

/// Counters at one moment.
pub struct Moment {
    clock: Clock,
    swapped: Option<u64>,
    throttled: Option<u64>,
    monotonic: Instant,
    wall: SystemTime,
}

impl Moment {
    /// Reads them from the running system.
    pub fn now() -> Moment {
        Moment::read(&Source::system())
    }

    fn read(source: &Source) -> Moment {
        Moment {
            clock: Clock::read(source),
            swapped: source.text("proc/vmstat").and_then(|text| swapped(&text)),
            throttled: throttled(source),
            monotonic: Instant::now(),
            wall: SystemTime::now(),
        }
    }

    /// The wall clock.
    pub fn wall(&self) -> SystemTime {
        self.wall
    }

    /// What went on between this moment and a later one.
    pub fn until(&self, later: &Moment) -> Surroundings {
        let elapsed = later.monotonic.saturating_duration_since(self.monotonic);
        let shares = later.clock.shares_since(&self.clock).filter(|_| elapsed >= LONG_ENOUGH);
        let wall = match later.wall.duration_since(self.wall) {
            Ok(forward) => forward.as_secs_f64(),
            Err(back) => -back.duration().as_secs_f64(),
        };
        let step = wall - elapsed.as_secs_f64();
        let since = |now: Option<u64>, then: Option<u64>| Some(now?.saturating_sub(then?));
        Surroundings {
            load_average: self.clock.load_average(),
            stolen: shares.map(|shares| round(shares.stolen)),
            others: shares.map(|shares| round(shares.others)),
            swapped_pages: since(later.swapped, self.swapped),
            throttled: since(later.throttled, self.throttled),
            clock_step_s: (step.abs() > STEP).then_some(step),
        }
    }
}

fn round(share: f64) -> f64 {
    (share * 1e4).round() / 1e4
}

/// Pages swapped in and out since the system started (proc(5)).
fn swapped(vmstat: &str) -> Option<u64> {
    let field = |name: &str| {
        let line = vmstat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        line.trim().parse::<u64>().ok()
    };
    field("pswpin")?.checked_add(field("pswpout")?)
}

/// Throttling events of all cores; absent where no core tells.
fn throttled(source: &Source) -> Option<u64> {
    let folder = "sys/devices/system/cpu";
    let counts = source.names(folder).into_iter().filter_map(|cpu| {
        source.line(format!("{folder}/{cpu}/thermal_throttle/core_throttle_count"))?.parse::<u64>().ok()
    });
    counts.fold(None, |sum: Option<u64>, count| Some(sum.unwrap_or(0).saturating_add(count)))
}

/// Why rows of this time should be taken with care; empty when it was quiet.
pub fn complaints(around: &Surroundings) -> Vec<String> {
    let mut all = Vec::new();
    if let Some(share) = around.others.filter(|share| *share > 0.05) {
        all.push(format!("other programs used {:.0} % of the CPU time", 100.0 * share));
    }
    if let Some(share) = around.stolen.filter(|share| *share > 0.01) {
        all.push(format!("the hypervisor took {:.1} % of the CPU time", 100.0 * share));
    }
    if let Some(pages) = around.swapped_pages.filter(|pages| *pages > 0) {
        all.push(format!("{pages} pages were swapped"));
    }
    if let Some(times) = around.throttled.filter(|times| *times > 0) {
        all.push(format!("the processor was throttled for heat {times} times"));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_and_nonsense_is_absent() {
        assert_eq!(swapped("nr_free 1\npswpin 3\npswpout 4\n"), Some(7));
        for bad in ["", "pswpin 3", "pswpin x\npswpout 1", "pswpinx 3\npswpout 1"] {
            assert_eq!(swapped(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_clock_that_was_set_back_is_seen_and_durations_are_not_touched() {
        let mut before = Moment::now();
        let mut after = Moment::now();
        assert_eq!(before.until(&after).clock_step_s, None);
        before.wall += Duration::from_secs(3600);
        let step = before.until(&after).clock_step_s.unwrap();
        assert!((step + 3600.0).abs() < 1.0, "{step}");
        after.wall += Duration::from_secs(7200);
        assert!(before.until(&after).clock_step_s.unwrap() > 3590.0);
    }

    #[test]
    fn shares_of_a_short_time_are_not_told() {
        let (before, after) = (Moment::now(), Moment::now());
        assert_eq!(before.until(&after).others, None);
    }

    #[test]
    fn complaints_name_what_was_seen() {
        assert!(complaints(&Surroundings::default()).is_empty());
        let loud = Surroundings {
            others: Some(0.3),
            stolen: Some(0.02),
            swapped_pages: Some(5),
            throttled: Some(1),
            ..Surroundings::default()
        };
        assert_eq!(complaints(&loud).len(), 4);
    }
}
