//! A measured machine as a device that limits can be computed for.

use roofline_limits::hardware::{Hardware, NumberType};

use super::{Figure, Machine, What};
use crate::error::LabError;

/// The name under which this machine stands in the device table.
pub const THIS: &str = "this";

impl Machine {
    /// The device `this`: best sample of every figure over all thread counts, since a limit is what cannot be exceeded.
    ///
    /// # Errors
    /// [`LabError::NoFigure`] when memory or f32 was not measured, [`LabError::Limits`] when a figure is absurd.
    pub fn device(&self) -> Result<Hardware, LabError> {
        let roof = |what| self.roof(what).ok_or(LabError::NoFigure { what: What::label(what) });
        let bandwidth = roof(What::ReadMemory)?.best;
        let mut peaks = vec![(NumberType::F32, roof(What::F32)?.best)];
        let narrow = [(What::Bf16, NumberType::Bf16F32), (What::Int8, NumberType::Int8I32)];
        peaks.extend(narrow.iter().filter_map(|(what, number)| Some((*number, self.roof(*what)?.best))));
        let memory = &self.environment.memory;
        let bytes = memory.total_bytes.into_iter().chain(memory.limit_bytes).min();
        let samples = self.figures.iter().map(|figure| figure.n).max().unwrap_or(0);
        let source = format!("measured {}, best of {samples} samples", self.measured_at);
        let mut device = Hardware::from_probe(THIS, bandwidth, &peaks, bytes, &source)?;
        // A model that fits a cache is not held back by memory; its roof is what the cache delivers.
        for (what, level) in [(What::ReadL3, 3), (What::ReadL2, 2)] {
            let all = self.environment.cpu.caches.iter().filter(|cache| cache.level == level);
            let size: u64 = all.map(|cache| cache.bytes * cache.instances as u64).sum();
            if let Some(figure) = self.roof(what).filter(|_| size > 0) {
                device = device.with_cache(&format!("L{level}"), size, figure.best, &source)?;
            }
        }
        device.notes = self.notes();
        Ok(device)
    }

    fn notes(&self) -> String {
        let cpu = &self.environment.cpu;
        let cores = cpu.usable_cores.map_or(String::new(), |cores| format!(", {cores} cores"));
        let name = cpu.name.as_deref().unwrap_or("processor not known");
        let usual = self.roof(What::ReadMemory).map_or(1.0, |f: &Figure| f.median / f.best);
        let mut notes = format!("{name}{cores}; median memory read is {:.0} % of the best", usual * 100.0);
        if self.noise.is_noisy() {
            notes.push_str(
                "; others used the machine while it was measured, so the true figures may be higher",
            );
        }
        notes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::measure_quickly;

    #[test]
    fn a_machine_is_a_device_with_its_best_figures() {
        let mut machine = measure_quickly(1).unwrap();
        let device = machine.device().unwrap();
        assert_eq!(device.name, "this");
        assert_eq!(device.bandwidth.value, machine.roof(What::ReadMemory).unwrap().best);
        assert_eq!(device.peaks[&NumberType::F32].value, machine.roof(What::F32).unwrap().best);
        assert!(device.bandwidth.source.contains(&machine.measured_at));
        machine.figures.retain(|figure| figure.what != What::ReadMemory);
        assert!(matches!(machine.device(), Err(LabError::NoFigure { what: "read memory" })));
    }
}
