//! Who else was using the machine while it was measured.

use serde::{Deserialize, Serialize};

use super::Figure;
use crate::environment::Source;

/// A figure whose quartiles are further apart than this share of its median is not steady.
const STEADY: f64 = 0.05;
/// Best sample over median sample above which the roof is rarely reached.
const RARE: f64 = 1.10;
/// Share of CPU time that a hypervisor may take before it matters.
const STOLEN: f64 = 0.01;
/// Share of CPU time that other programs may take before it matters.
const OTHERS: f64 = 0.05;

/// How quiet the machine was.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Noise {
    /// Why the figures should be taken with care; empty when it was quiet.
    pub reasons: Vec<Reason>,
    /// Share of CPU time the hypervisor gave to others, 0 to 1; absent where the system does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stolen: Option<f64>,
    /// Share of CPU time that other programs used, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub others: Option<f64>,
    /// Load average over a minute when the measurement began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_average: Option<f64>,
    /// Quartile width over median of the least steady figure.
    pub worst_spread: f64,
}

/// A reason to distrust a measurement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Reason {
    /// A hypervisor took CPU time.
    Stolen {
        /// Of all CPU time.
        share: f64,
    },
    /// Other programs ran.
    Others {
        /// Of all CPU time.
        share: f64,
    },
    /// Quartiles far apart.
    Unsteady {
        /// Label of the least steady figure.
        figure: String,
        /// Its threads.
        threads: usize,
        /// Quartile width over median.
        spread: f64,
    },
    /// The best sample stands far above the median.
    Rare {
        /// Label of the figure.
        figure: String,
        /// Its threads.
        threads: usize,
        /// Best over median.
        ratio: f64,
    },
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Reason::Stolen { share } => {
                write!(f, "the hypervisor took {:.1} % of the CPU time", share * 100.0)
            }
            Reason::Others { share } => {
                write!(f, "other programs used {:.0} % of the CPU time", share * 100.0)
            }
            Reason::Unsteady { figure, threads, spread } => {
                let on = on(*threads);
                write!(f, "{figure} on {on} varies by {:.0} % between quartiles", spread * 100.0)
            }
            Reason::Rare { figure, threads, ratio } => {
                let on = on(*threads);
                write!(f, "the best {figure} on {on} is {:.0} % above its median", (ratio - 1.0) * 100.0)
            }
        }
    }
}

fn on(threads: usize) -> String {
    if threads == 1 { "1 thread".to_string() } else { format!("{threads} threads") }
}

impl Noise {
    /// Whether the figures should be taken with care.
    pub fn is_noisy(&self) -> bool {
        !self.reasons.is_empty()
    }

    pub(super) fn judge(before: &Clock, after: &Clock, figures: &[Figure]) -> Noise {
        let mut reasons = Vec::new();
        let shares = after.shares_since(before);
        if let Some(share) = shares.map(|s| s.stolen).filter(|share| *share > STOLEN) {
            reasons.push(Reason::Stolen { share });
        }
        if let Some(share) = shares.map(|s| s.others).filter(|share| *share > OTHERS) {
            reasons.push(Reason::Others { share });
        }
        let least_steady = figures.iter().max_by(|a, b| a.spread().total_cmp(&b.spread()));
        if let Some(f) = least_steady.filter(|f| f.spread() > STEADY) {
            let figure = f.what.label().to_string();
            reasons.push(Reason::Unsteady { figure, threads: f.threads, spread: f.spread() });
        }
        let ratio = |f: &Figure| f.best / f.median;
        let rarest = figures.iter().max_by(|a, b| ratio(a).total_cmp(&ratio(b)));
        if let Some(f) = rarest.filter(|f| ratio(f) > RARE) {
            let figure = f.what.label().to_string();
            reasons.push(Reason::Rare { figure, threads: f.threads, ratio: ratio(f) });
        }
        Noise {
            reasons,
            stolen: shares.map(|s| s.stolen),
            others: shares.map(|s| s.others),
            load_average: before.load_average,
            worst_spread: least_steady.map_or(0.0, Figure::spread),
        }
    }
}

/// CPU time counters at one moment, in ticks.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Clock {
    cpu: Option<CpuTicks>,
    own: Option<u64>,
    load_average: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct CpuTicks {
    total: u64,
    busy: u64,
    stolen: u64,
}

/// Shares of CPU time, 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Shares {
    /// Taken by a hypervisor.
    pub stolen: f64,
    /// Used by other programs.
    pub others: f64,
}

impl Clock {
    pub(crate) fn read(source: &Source) -> Clock {
        Clock {
            cpu: source.text("proc/stat").and_then(|stat| cpu_ticks(&stat)),
            own: source.text("proc/self/stat").and_then(|stat| own_ticks(&stat)),
            load_average: source.text("proc/loadavg").and_then(|l| l.split_whitespace().next()?.parse().ok()),
        }
    }

    /// Load average over the last minute.
    pub(crate) fn load_average(&self) -> Option<f64> {
        self.load_average
    }

    /// Who used the processor between `before` and now; absent where the counters stood still or make no sense.
    pub(crate) fn shares_since(&self, before: &Clock) -> Option<Shares> {
        let (now, then) = (self.cpu?, before.cpu?);
        let total = now.total.checked_sub(then.total).filter(|total| *total > 0)? as f64;
        let busy = now.busy.saturating_sub(then.busy);
        let own = self.own?.saturating_sub(before.own?);
        Some(Shares {
            stolen: now.stolen.saturating_sub(then.stolen) as f64 / total,
            others: busy.saturating_sub(own) as f64 / total,
        })
    }
}

/// The line `cpu  user nice system idle iowait irq softirq steal guest guest_nice` (proc(5)); guest time is part of user.
fn cpu_ticks(stat: &str) -> Option<CpuTicks> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u64> = line.split_whitespace().map_while(|t| t.parse().ok()).collect();
    let &[user, nice, system, idle, iowait, irq, softirq, stolen, ..] = ticks.as_slice() else { return None };
    let busy = [nice, system, irq, softirq].iter().try_fold(user, |sum, t| sum.checked_add(*t))?;
    let total = [idle, iowait, stolen].iter().try_fold(busy, |sum, t| sum.checked_add(*t))?;
    Some(CpuTicks { total, busy, stolen })
}

/// utime + stime: fields 14 and 15, counted after the name in parentheses, which may hold spaces.
fn own_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    user.checked_add(system)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::What;
    use crate::statistics::Interval;

    fn clock(stat: &str, own: &str) -> Clock {
        Clock { cpu: cpu_ticks(stat), own: own_ticks(own), load_average: Some(0.5) }
    }

    fn figure(best: f64, median: f64, low: f64, high: f64) -> Figure {
        let quartiles = Interval { low, high };
        Figure { what: What::Int8, threads: 2, instruction: "x".into(), best, median, quartiles, n: 9 }
    }

    const STILL: &str = "cpu  100 0 0 100 0 0 0 0 0 0\n";
    const OWN: &str = "1 (a b) c) R 1 1 1 0 -1 0 0 0 0 0 60 40 0 0";

    #[test]
    fn a_quiet_machine_has_no_reasons() {
        // 200 ticks passed, 100 busy, all of them ours.
        let before = clock(STILL, OWN);
        let after = clock("cpu  180 0 20 200 0 0 0 0 0 0\n", "1 (a b) c) R 1 1 1 0 -1 0 0 0 0 0 150 50 0 0");
        let noise = Noise::judge(&before, &after, &[figure(101.0, 100.0, 99.0, 100.5)]);
        assert!(!noise.is_noisy(), "{noise:?}");
        assert_eq!((noise.stolen, noise.others, noise.worst_spread), (Some(0.0), Some(0.0), 0.015));
    }

    #[test]
    fn every_reason_is_found_and_said() {
        let before = clock(STILL, OWN);
        // 200 ticks: 100 busy of which 20 ours, 60 idle, 40 stolen.
        let after = clock("cpu  180 0 20 160 0 0 0 40 0 0\n", "1 (a b) c) R 1 1 1 0 -1 0 0 0 0 0 70 50 0 0");
        let noise = Noise::judge(&before, &after, &[figure(150.0, 100.0, 90.0, 110.0)]);
        assert_eq!((noise.stolen, noise.others), (Some(0.2), Some(0.4)));
        let said: Vec<String> = noise.reasons.iter().map(Reason::to_string).collect();
        assert_eq!(
            said,
            [
                "the hypervisor took 20.0 % of the CPU time",
                "other programs used 40 % of the CPU time",
                "int8 → int32 on 2 threads varies by 20 % between quartiles",
                "the best int8 → int32 on 2 threads is 50 % above its median",
            ]
        );
    }

    #[test]
    fn counters_that_make_no_sense_say_nothing() {
        for stat in ["", "cpu  1 2 3", "cpu  18446744073709551615 1 1 1 1 1 1 1"] {
            assert_eq!(cpu_ticks(stat), None, "{stat}");
        }
        assert_eq!(own_ticks("no parenthesis"), None);
        let backwards = Noise::judge(
            &clock("cpu  9 9 9 9 9 9 9 9 9 9\n", OWN),
            &clock("cpu  1 1 1 1 1 1 1 1 1 1\n", OWN),
            &[],
        );
        assert_eq!((backwards.stolen, backwards.others, backwards.is_noisy()), (None, None, false));
    }
}
