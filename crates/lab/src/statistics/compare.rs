//! Two things measured in turn: is one slower, or is it noise?

use serde::{Deserialize, Serialize};

use super::student::two_sided;
use super::{Interval, Sorted, StatisticsError, mean, standard_deviation};

/// How b compares with a, from pairs measured in the same round.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// b over a: the exponential of the mean of ln(b/a).
    pub ratio: f64,
    /// Where it lies with the asked confidence.
    pub interval: Interval,
    /// Median of b over a, pair by pair: what the mean does not say where there are outliers.
    pub median_ratio: f64,
    /// Pairs.
    pub n: usize,
}

/// What may be said of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// b takes less than a.
    Less,
    /// b takes more than a.
    More,
    /// The interval holds 1, or the ratio lies inside of the noise floor.
    NoDifferenceShown,
}

impl Comparison {
    /// What may be said, given that the same thing against itself differs by up to a share of `floor` (0.01 is 1 %).
    pub fn verdict(&self, floor: f64) -> Verdict {
        if self.interval.contains(1.0) || self.ratio.ln().abs() <= (1.0 + floor.max(0.0)).ln() {
            Verdict::NoDifferenceShown
        } else if self.ratio < 1.0 {
            Verdict::Less
        } else {
            Verdict::More
        }
    }
}

/// Compares b with a from pairs (a, b) of positive numbers. The interval is Student's for the mean of ln(b/a): exact for
/// normal errors, too wide (never too narrow) where some pairs are outliers. A percentile bootstrap of five pairs would
/// call equal things different once in sixteen times, and a sign test of five pairs can never decide at 5 %.
///
/// # Errors
/// Fewer than two pairs, numbers that are not finite and positive.
pub fn compare(pairs: &[(f64, f64)], confidence: f64) -> Result<Comparison, StatisticsError> {
    let logs: Vec<f64> = pairs.iter().map(|(a, b)| (b / a).ln()).collect();
    if !(confidence > 0.0 && confidence < 1.0) {
        return Err(StatisticsError::Fraction { what: "the confidence", value: confidence });
    }
    let deviation = standard_deviation(&logs)?;
    let middle = mean(&logs)?;
    let n = logs.len() as f64;
    let half = two_sided(confidence, n - 1.0) * deviation / n.sqrt();
    Ok(Comparison {
        ratio: middle.exp(),
        interval: Interval { low: (middle - half).exp(), high: (middle + half).exp() },
        median_ratio: Sorted::new(&logs)?.median().exp(),
        n: logs.len(),
    })
}

/// Mean and its interval by Student's t, for numbers that come once per run.
///
/// # Errors
/// Fewer than two numbers, or some that are not finite.
pub fn mean_interval(samples: &[f64], confidence: f64) -> Result<(f64, Interval), StatisticsError> {
    if !(confidence > 0.0 && confidence < 1.0) {
        return Err(StatisticsError::Fraction { what: "the confidence", value: confidence });
    }
    let (middle, n) = (mean(samples)?, samples.len() as f64);
    let half = two_sided(confidence, n - 1.0) * standard_deviation(samples)? / n.sqrt();
    Ok((middle, Interval { low: middle - half, high: middle + half }))
}
