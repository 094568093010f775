//! Straight lines through points: least squares where noise is symmetric, Theil–Sen where it has outliers.

use serde::{Deserialize, Serialize};

use super::student::two_sided;
use super::{Interval, Sorted, StatisticsError, check};

/// y = intercept + slope · x, with intervals.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Change of y per x.
    pub slope: f64,
    /// y at x = 0.
    pub intercept: f64,
    /// Where the slope lies with the asked confidence.
    pub slope_interval: Interval,
    /// Where the intercept lies with the asked confidence.
    pub intercept_interval: Interval,
    /// Root of the squared distances in y over n − 2.
    pub residual_deviation: f64,
    /// Number of points.
    pub n: usize,
}

impl Line {
    /// y on the line.
    pub fn at(&self, x: f64) -> f64 {
        self.intercept + self.slope * x
    }
}

/// Ordinary least squares; intervals from Student's t with n − 2 degrees of freedom, exact for independent normal
/// errors of one variance.
///
/// # Errors
/// Fewer than three points, values that are not finite, all x equal, a confidence outside (0, 1).
pub fn least_squares(points: &[(f64, f64)], confidence: f64) -> Result<Line, StatisticsError> {
    check_points("least squares", points, confidence)?;
    let n = points.len() as f64;
    let x_mean = points.iter().map(|p| p.0).sum::<f64>() / n;
    let y_mean = points.iter().map(|p| p.1).sum::<f64>() / n;
    let sxx: f64 = points.iter().map(|p| (p.0 - x_mean).powi(2)).sum();
    let sxy: f64 = points.iter().map(|p| (p.0 - x_mean) * (p.1 - y_mean)).sum();
    let slope = sxy / sxx;
    let intercept = y_mean - slope * x_mean;
    let residual: f64 = points.iter().map(|p| (p.1 - intercept - slope * p.0).powi(2)).sum();
    let variance = residual / (n - 2.0);
    let t = two_sided(confidence, n - 2.0);
    let slope_half = t * (variance / sxx).sqrt();
    let intercept_half = t * (variance * (1.0 / n + x_mean * x_mean / sxx)).sqrt();
    Ok(Line {
        slope,
        intercept,
        slope_interval: around(slope, slope_half),
        intercept_interval: around(intercept, intercept_half),
        residual_deviation: variance.sqrt(),
        n: points.len(),
    })
}

/// Median of the slopes of all pairs (Theil 1950, Sen 1968), unmoved by up to 29 % outliers. The slope's interval is
/// Sen's, from the normal approximation of Kendall's statistic without ties in y; the intercept's carries that slope
/// interval through the median point. Pairs grow with n²; give it at most a few thousand points.
///
/// # Errors
/// As [`least_squares`].
pub fn theil_sen(points: &[(f64, f64)], confidence: f64) -> Result<Line, StatisticsError> {
    check_points("Theil–Sen", points, confidence)?;
    let mut slopes = Vec::with_capacity(points.len() * (points.len() - 1) / 2);
    for (i, a) in points.iter().enumerate() {
        slopes.extend(points[..i].iter().filter(|b| b.0 != a.0).map(|b| (a.1 - b.1) / (a.0 - b.0)));
    }
    let slopes = Sorted::new(&slopes)?;
    let slope = slopes.median();
    let n = points.len() as f64;
    let normal = two_sided(confidence, 1e7);
    let kendall_deviation = (n * (n - 1.0) * (2.0 * n + 5.0) / 18.0).sqrt();
    let half = normal * kendall_deviation / slopes.n() as f64 / 2.0;
    let slope_interval = Interval { low: slopes.quantile(0.5 - half), high: slopes.quantile(0.5 + half) };
    let offsets: Vec<f64> = points.iter().map(|p| p.1 - slope * p.0).collect();
    let intercept = Sorted::new(&offsets)?.median();
    let x_median = Sorted::new(&points.iter().map(|p| p.0).collect::<Vec<_>>())?.median();
    let ends = [slope_interval.low, slope_interval.high].map(|s| intercept + (slope - s) * x_median);
    let intercept_interval = Interval { low: ends[0].min(ends[1]), high: ends[0].max(ends[1]) };
    let squares: f64 = offsets.iter().map(|offset| (offset - intercept).powi(2)).sum();
    let residual_deviation = (squares / (n - 2.0)).sqrt();
    Ok(Line { slope, intercept, slope_interval, intercept_interval, residual_deviation, n: points.len() })
}

fn around(middle: f64, half: f64) -> Interval {
    Interval { low: middle - half, high: middle + half }
}

fn check_points(method: &'static str, points: &[(f64, f64)], confidence: f64) -> Result<(), StatisticsError> {
    let (xs, ys): (Vec<f64>, Vec<f64>) = points.iter().copied().unzip();
    check(method, 3, &xs)?;
    check(method, 3, &ys)?;
    if !(confidence > 0.0 && confidence < 1.0) {
        return Err(StatisticsError::Fraction { what: "the confidence", value: confidence });
    }
    if xs.iter().all(|x| *x == xs[0]) {
        return Err(StatisticsError::SameX { n: xs.len(), x: xs[0] });
    }
    Ok(())
}
