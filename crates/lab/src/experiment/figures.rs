//! The figures of one run, and what they could be at best on the machine it ran on.

use std::time::Duration;

use roofline_engine::Meter;
use roofline_limits::{Hardware, KvFormats, Report, Request, Switches, Workload, report};
use roofline_model::Operator;

use super::error::ExperimentError;
use super::ordered::Ordered;
use super::plan::Cell;
use super::rows::{Bytes, Metric};
use super::subjects::Subject;
use crate::error::LabError;
use crate::statistics::Sorted;

/// What the figures are computed from.
pub struct Figures<'a> {
    /// The cell.
    pub cell: &'a Cell,
    /// The model.
    pub subject: &'a Subject,
    /// The roof of as many threads.
    pub device: &'a Hardware,
    /// Tᵢ − T₀ of every token, in seconds.
    pub tokens: &'a [f64],
    /// From T₀ to the end.
    pub wall: Duration,
    /// Forward steps over the prompt.
    pub prefill_time: Duration,
    /// What they cost.
    pub prefill: &'a Meter,
    /// What the forward steps over generated tokens cost.
    pub decode: &'a Meter,
    /// What memory held.
    pub bytes: &'a Bytes,
}

/// Seven significant digits: more than a clock of 20 to 30 ns has to say, in half the characters.
pub fn rounded(value: f64) -> f64 {
    format!("{value:.6e}").parse().unwrap_or(value)
}

impl Figures<'_> {
    /// Name → figure; what a run of one token cannot have is absent, and so is all but the times where `brief`.
    ///
    /// # Errors
    /// Times that are no numbers.
    pub fn metrics(&self, brief: bool) -> Result<Ordered<Metric>, LabError> {
        let mut all = Ordered::default();
        let mut set = |name: &str, value: f64, unit: &str| {
            if value.is_finite() {
                all.set(name, Metric::new(rounded(value), unit));
            }
        };
        let prefill_s = self.prefill_time.as_secs_f64();
        set("generated", self.tokens.len() as f64, "tok");
        set("e2e", self.wall.as_secs_f64(), "s");
        if let Some(first) = self.tokens.first() {
            set("ttft", *first, "s");
        }
        set("prefill", prefill_s, "s");
        if brief {
            return Ok(all);
        }
        set("prefill_rate", self.cell.count("prompt") as f64 / prefill_s, "tok/s");
        set("prefill_flops", self.prefill.total().flops as f64 / prefill_s, "FLOP/s");
        if let Some(gaps) = self.gaps() {
            let sorted = Sorted::new(&gaps)?;
            let tpot = gaps.iter().sum::<f64>() / gaps.len() as f64;
            set("tpot", tpot, "s");
            set("decode_rate", 1.0 / tpot, "tok/s");
            for (name, p) in [("itl_p50", 0.5), ("itl_p95", 0.95), ("itl_p99", 0.99)] {
                set(name, sorted.quantile(p), "s");
            }
            let spent: f64 = gaps.iter().sum();
            let moved = self.decode.total().bytes() as f64;
            set("decode_bytes", moved / gaps.len() as f64, "B");
            set("decode_bandwidth", moved / spent, "B/s");
            set("mbu", moved / spent / self.bandwidth(), "1");
            let attention = self.decode.time(Operator::Attention).as_secs_f64();
            set("attention_share", attention / spent, "1");
        }
        set("kv_live", self.bytes.kv_live as f64, "B");
        set("kv_peak", self.bytes.kv_peak as f64, "B");
        set("weights", self.bytes.weights as f64, "B");
        Ok(all)
    }

    /// ITL of the second token and on: (n − 1), absent for fewer than two tokens.
    fn gaps(&self) -> Option<Vec<f64>> {
        let gaps: Vec<f64> = self.tokens.windows(2).map(|pair| pair[1] - pair[0]).collect();
        (!gaps.is_empty()).then_some(gaps)
    }

    /// Bytes per second of the level of memory that holds weights and cache.
    fn bandwidth(&self) -> f64 {
        let resident = (self.bytes.weights + self.bytes.kv_live) as f64;
        let cache = self.device.cache_for(resident);
        cache.map_or(self.device.bandwidth.value, |cache| cache.bandwidth.value)
    }

    /// Metric → the best it could be: `ttft` and `tpot` in seconds; `b` (a step with nothing in the cache, s), `w`
    /// (tokens of context that make it 1 s longer) and `turning_point` (prompt rows) from the configuration alone.
    ///
    /// # Errors
    /// What the calculator refuses.
    pub fn limits(&self) -> Result<Ordered<Metric>, LabError> {
        let mut all = Ordered::default();
        let mut set = |name: &str, value: f64, unit: &str| {
            if value.is_finite() {
                all.set(name, Metric::new(rounded(value), unit));
            }
        };
        let (depth, prompt, n) = (self.cell.count("depth"), self.cell.count("prompt"), self.tokens.len());
        let before = (depth + prompt) as u64;
        let (first, last) = (before + 1, before + (n as u64).saturating_sub(1).max(1));
        let report = self.report(vec![first, last])?;
        if depth == 0 {
            set("ttft", report.prefill.ttft_ms / 1e3, "s");
        }
        let keeps_all = self.cell.text("cache") == "full" || self.cell.text("cache").starts_with("static");
        let steps = n.saturating_sub(1);
        if steps > 0 && keeps_all {
            let [first, .., last] = report.decode.positions.as_slice() else { return Ok(all) };
            set("tpot", (first.latency_ms + last.latency_ms) / 2.0 / 1e3, "s");
        } else if steps > 0 {
            // What a policy reads is counted where it happens; the calculator knows the ceiling, not the choice.
            set("tpot", self.decode.total().bytes() as f64 / steps as f64 / self.bandwidth(), "s");
        }
        set("b", report.decode.b_ms / 1e3, "s");
        set("w", report.decode.w_tokens_per_ms * 1e3, "tok/s");
        if let Some(rows) = report.turning_point.fine {
            set("turning_point", rows, "tok");
        }
        Ok(all)
    }

    fn report(&self, positions: Vec<u64>) -> Result<Report, LabError> {
        let kv: KvFormats = self.cell.text("kv_type").parse()?;
        let precision = self.subject.formats.precision(kv);
        let workload = Workload {
            prompt: self.cell.count("prompt") as u64,
            context: self.cell.context() as u64,
            batch: 1,
            chunk: self.cell.count("chunk") as u64,
            positions,
        };
        let config = self.subject.model.config();
        self.subject.formats.with(|formats| {
            let switches = Switches::SI;
            let (hardware, precision, workload) = (self.device, &precision, &workload);
            let request = Request { config, formats, hardware, precision, workload, switches };
            report(&request).map_err(|error| ExperimentError::Spec(error.to_string()).into())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::rounded;

    #[test]
    fn seven_digits_stay() {
        for (value, text) in [
            (0.123456789, "0.1234568"),
            (123456789.0, "123456800"),
            (-0.000012345678, "-0.00001234568"),
            (0.0, "0"),
            (1.0, "1"),
        ] {
            assert_eq!(rounded(value).to_string(), text);
        }
        assert!(
            rounded(f64::NAN).is_nan()
                && rounded(f64::MIN_POSITIVE) > 0.0
                && rounded(111_031_199_999.7) == 111_031_200_000.0
        );
    }
}
