//! The roof of a row: what the probes of this run reached on as many threads.

use roofline_limits::hardware::NumberType;
use serde::Serialize;

use super::Setup;
use crate::error::LabError;
use crate::machine::{Figure, Machine, What};
use crate::statistics::{Interval, Sorted};

/// What a row is held against. Bandwidths in bytes/s, the peak in FLOP/s.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Roof {
    /// `memory`, or the cache that holds weights and KV cache.
    pub level: String,
    /// Highest sample of all probes of that level.
    pub bandwidth: f64,
    /// Median of the probes' medians: what was usually to be had.
    pub usual_bandwidth: f64,
    /// Highest sample of the arithmetic.
    pub peak: f64,
    /// The arithmetic, as `int8_i32`: the fastest that the weights' format can be multiplied in.
    pub peak_type: &'static str,
}

/// The probes of one thread count as one measurement.
pub(super) fn together(probes: &[Machine]) -> Result<Option<Machine>, LabError> {
    let Some(mut all) = probes.first().cloned() else { return Ok(None) };
    for figure in &mut all.figures {
        let same: Vec<&Figure> =
            probes.iter().filter_map(|probe| probe.figure(figure.what, figure.threads)).collect();
        let over = |of: fn(&Figure) -> f64| Sorted::new(&same.iter().map(|f| of(f)).collect::<Vec<_>>());
        figure.best = over(|f| f.best)?.max();
        figure.median = over(|f| f.median)?.median();
        let (low, high) = (over(|f| f.quartiles.low)?.min(), over(|f| f.quartiles.high)?.max());
        figure.quartiles = Interval { low, high };
        figure.n = same.iter().map(|f| f.n).sum();
    }
    all.seconds = probes.iter().map(|probe| probe.seconds).sum();
    all.noise.reasons.clear();
    for probe in probes {
        for reason in &probe.noise.reasons {
            if !all.noise.reasons.contains(reason) {
                all.noise.reasons.push(reason.clone());
            }
        }
    }
    Ok(Some(all))
}

impl Roof {
    /// For a step over `resident_bytes` in arithmetic of `bits`.
    pub(super) fn of(
        machine: &Machine,
        setup: &Setup,
        resident_bytes: u64,
        bits: u32,
    ) -> Result<Roof, LabError> {
        let device = machine.device()?;
        let (peak_type, peak) = device.peak_for(bits)?;
        let (level, what) = match device.cache_for(resident_bytes as f64).map(|cache| cache.name.as_str()) {
            Some("L3") => ("L3", What::ReadL3),
            Some("L2") => ("L2", What::ReadL2),
            _ => ("memory", What::ReadMemory),
        };
        let figure =
            machine.figure(what, setup.threads).ok_or(LabError::NoFigure { what: What::label(what) })?;
        Ok(Roof {
            level: level.to_string(),
            bandwidth: figure.best,
            usual_bandwidth: figure.median,
            peak: peak.value,
            peak_type: NumberType::key(peak_type),
        })
    }
}
