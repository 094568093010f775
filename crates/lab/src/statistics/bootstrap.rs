//! Percentile bootstrap with a generator of our own, so that a report is the same on every machine.

use super::{Interval, Sorted, StatisticsError, check};

/// How to resample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bootstrap {
    /// Resamples drawn; 2,000 settle the ends of a 95 % interval to a few percent of its width.
    pub resamples: usize,
    /// Share of resamples inside the interval, between 0 and 1.
    pub confidence: f64,
    /// Seed of the generator.
    pub seed: u64,
}

impl Default for Bootstrap {
    fn default() -> Self {
        Bootstrap { resamples: 2000, confidence: 0.95, seed: 0x0520_2611_2105_3500 }
    }
}

/// Percentile interval of `statistic` over resamples of `samples` with replacement (Efron 1979). With fewer than
/// about eight samples it is too narrow; say n beside it.
///
/// # Errors
/// Fewer than two samples, a sample or a statistic that is not finite, a confidence outside (0, 1), no resamples.
pub fn bootstrap(
    samples: &[f64],
    options: Bootstrap,
    mut statistic: impl FnMut(&[f64]) -> f64,
) -> Result<Interval, StatisticsError> {
    check("a bootstrap interval", 2, samples)?;
    if !(options.confidence > 0.0 && options.confidence < 1.0) {
        return Err(StatisticsError::Fraction { what: "the confidence", value: options.confidence });
    }
    let mut random = Random(options.seed);
    let mut resample = vec![0.0; samples.len()]; // (n)
    let mut values = Vec::with_capacity(options.resamples);
    for _ in 0..options.resamples {
        for slot in &mut resample {
            *slot = samples[random.below(samples.len())];
        }
        values.push(statistic(&resample));
    }
    let values = Sorted::new(&values)?;
    let tail = 0.5 * (1.0 - options.confidence);
    Ok(Interval { low: values.quantile(tail), high: values.quantile(1.0 - tail) })
}

/// [`bootstrap`] of the median, widened to the order statistics that hold it: of few samples the percentile interval
/// alone is too narrow (seven normal ones: 88 % instead of 95 %).
///
/// # Errors
/// As [`bootstrap`].
pub fn bootstrap_median(samples: &[f64], options: Bootstrap) -> Result<Interval, StatisticsError> {
    let median = |resample: &[f64]| Sorted::new(resample).map_or(f64::NAN, |sorted| sorted.median());
    let drawn = bootstrap(samples, options, median)?;
    let (low, high) = order_statistics(samples, options.confidence);
    Ok(Interval { low: drawn.low.min(low), high: drawn.high.max(high) })
}

/// The narrowest pair of order statistics, as far from the smallest as from the largest, between which the median lies with
/// `confidence` whatever the distribution: x(k) and x(n + 1 - k) miss it with probability 2 P(B(n, 1/2) < k). The
/// smallest and the largest where no pair has it (fewer than six samples at 95 %).
fn order_statistics(samples: &[f64], confidence: f64) -> (f64, f64) {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    let (mut first, mut missed, mut term) = (0, 0.0, 0.5f64.powi(n as i32));
    for k in 0..n / 2 {
        missed += 2.0 * term; // B(n, 1/2) = k
        if missed > 1.0 - confidence {
            break;
        }
        first = k;
        term *= (n - k) as f64 / (k + 1) as f64;
    }
    (sorted[first], sorted[n - 1 - first])
}

/// SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Debug, Clone)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform below `n` > 0; the bias of the multiplication is n / 2⁶⁴.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }
}
