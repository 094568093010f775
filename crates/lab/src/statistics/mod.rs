//! Statistics for few, noisy samples: order statistics, bootstrap intervals and straight lines with intervals.
//!
//! Everything is deterministic: the bootstrap draws from a seeded generator of its own.

mod blocks;
mod bootstrap;
mod compare;
mod curve;
mod line;
mod student;

pub use blocks::{Block, BlockMean, block_mean};
pub(crate) use bootstrap::Random;
pub use bootstrap::{Bootstrap, bootstrap, bootstrap_median};
pub use compare::{Comparison, Verdict, compare, mean_interval};
pub use curve::{Point, Polynomial, Segmented, polynomial, segmented};
pub use line::{Line, least_squares, theil_sen};

use serde::{Deserialize, Serialize};

/// A range that holds a quantity with some confidence.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Interval {
    /// Whether `x` lies inside, ends included.
    pub fn contains(&self, x: f64) -> bool {
        self.low <= x && x <= self.high
    }

    /// high − low
    pub fn width(&self) -> f64 {
        self.high - self.low
    }
}

/// Why samples cannot be summed up.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum StatisticsError {
    /// Fewer samples than the method needs.
    #[error("{method} needs at least {needed} samples, got {got}")]
    TooFew {
        /// The method.
        method: &'static str,
        /// Samples it needs.
        needed: usize,
        /// Samples given.
        got: usize,
    },
    /// NaN or infinite sample.
    #[error("sample {index} is {value}, not a finite number")]
    NotFinite {
        /// Its place.
        index: usize,
        /// What stood there.
        value: f64,
    },
    /// All x are the same, so no line has a slope.
    #[error("all {n} points have x = {x}; a line needs two different x")]
    SameX {
        /// Number of points.
        n: usize,
        /// The one x.
        x: f64,
    },
    /// A fraction outside of its range.
    #[error("{what} must lie between 0 and 1, got {value}")]
    Fraction {
        /// Which argument.
        what: &'static str,
        /// What was given.
        value: f64,
    },
}

/// Samples in ascending order; at least one, all finite.
#[derive(Debug, Clone, PartialEq)]
pub struct Sorted(Vec<f64>);

impl Sorted {
    /// Sorts a copy of `samples`.
    ///
    /// # Errors
    /// [`StatisticsError::TooFew`] for none, [`StatisticsError::NotFinite`] for NaN and infinity.
    pub fn new(samples: &[f64]) -> Result<Sorted, StatisticsError> {
        check("an order statistic", 1, samples)?;
        let mut sorted = samples.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        Ok(Sorted(sorted))
    }

    /// The `p`-quantile, 0 ≤ p ≤ 1 (clipped), linear between order statistics: rank p·(n − 1), Hyndman and Fan's
    /// type 7, the default of R and NumPy.
    pub fn quantile(&self, p: f64) -> f64 {
        let rank = p.clamp(0.0, 1.0) * (self.0.len() - 1) as f64;
        let (below, above) = (rank.floor() as usize, rank.ceil() as usize);
        self.0[below] + (self.0[above] - self.0[below]) * (rank - below as f64)
    }

    /// The 0.5-quantile.
    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// First to third quartile.
    pub fn quartiles(&self) -> Interval {
        Interval { low: self.quantile(0.25), high: self.quantile(0.75) }
    }

    /// Smallest sample.
    pub fn min(&self) -> f64 {
        self.0[0]
    }

    /// Largest sample.
    pub fn max(&self) -> f64 {
        self.0[self.0.len() - 1]
    }

    /// Number of samples, at least one.
    pub fn n(&self) -> usize {
        self.0.len()
    }

    /// The samples, ascending.
    pub fn samples(&self) -> &[f64] {
        &self.0
    }
}

/// Median of `samples`.
///
/// # Errors
/// As [`Sorted::new`].
pub fn median(samples: &[f64]) -> Result<f64, StatisticsError> {
    Ok(Sorted::new(samples)?.median())
}

/// Arithmetic mean.
///
/// # Errors
/// As [`Sorted::new`].
pub fn mean(samples: &[f64]) -> Result<f64, StatisticsError> {
    check("a mean", 1, samples)?;
    Ok(samples.iter().sum::<f64>() / samples.len() as f64)
}

/// Standard deviation with the divisor n − 1.
///
/// # Errors
/// As [`Sorted::new`], and fewer than two samples.
pub fn standard_deviation(samples: &[f64]) -> Result<f64, StatisticsError> {
    check("a standard deviation", 2, samples)?;
    let mean = mean(samples)?;
    let squares: f64 = samples.iter().map(|x| (x - mean).powi(2)).sum();
    Ok((squares / (samples.len() - 1) as f64).sqrt())
}

fn check(method: &'static str, needed: usize, samples: &[f64]) -> Result<(), StatisticsError> {
    if samples.len() < needed {
        return Err(StatisticsError::TooFew { method, needed, got: samples.len() });
    }
    match samples.iter().position(|x| !x.is_finite()) {
        Some(index) => Err(StatisticsError::NotFinite { index, value: samples[index] }),
        None => Ok(()),
    }
}
