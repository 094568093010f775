//! Curves that are linear in their coefficients, by weighted least squares; and the broken line.

use serde::{Deserialize, Serialize};

use super::student::two_sided;
use super::{Interval, StatisticsError, check};

/// A point with its weight: 1/variance, up to a factor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Where.
    pub x: f64,
    /// What was measured.
    pub y: f64,
    /// How much it counts; positive.
    pub weight: f64,
}

impl Point {
    /// Points whose errors have one variance.
    pub fn even(points: &[(f64, f64)]) -> Vec<Point> {
        points.iter().map(|&(x, y)| Point { x, y, weight: 1.0 }).collect()
    }

    /// Points whose errors are in proportion to y: a share of it, as times are over orders of magnitude.
    pub fn relative(points: &[(f64, f64)]) -> Vec<Point> {
        points.iter().map(|&(x, y)| Point { x, y, weight: 1.0 / (y * y) }).collect()
    }
}

/// y = k₀ + k₁x + … + kₘxᵐ
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Polynomial {
    /// From the constant upwards: (degree + 1).
    pub coefficients: Vec<f64>,
    /// Where each lies with the asked confidence.
    pub intervals: Vec<Interval>,
    /// √(Σ weight·residual² / (n − degree − 1)).
    pub residual_deviation: f64,
    /// Points.
    pub n: usize,
}

impl Polynomial {
    /// y at `x`.
    pub fn at(&self, x: f64) -> f64 {
        self.coefficients.iter().rev().fold(0.0, |y, k| y * x + k)
    }
}

/// Weighted least squares of a polynomial of `degree` ≤ 4; intervals from Student's t, exact for independent normal
/// errors. Solved in x divided by its largest magnitude, so that powers of thousands stay apart.
///
/// # Errors
/// Fewer than degree + 2 points, values that are not finite, fewer different x than coefficients.
pub fn polynomial(points: &[Point], degree: usize, confidence: f64) -> Result<Polynomial, StatisticsError> {
    let scale = points.iter().map(|p| p.x.abs()).fold(0.0, f64::max).max(f64::MIN_POSITIVE);
    let basis = |x: f64| -> Vec<f64> { (0..=degree).map(|power| (x / scale).powi(power as i32)).collect() };
    let solved = solve("a polynomial", points, degree + 1, confidence, &basis)?;
    let unscale = |power: usize| scale.powi(power as i32);
    Ok(Polynomial {
        coefficients: solved.k.iter().enumerate().map(|(power, k)| k / unscale(power)).collect(),
        intervals: (solved.k.iter().zip(&solved.half).enumerate())
            .map(|(power, (k, half))| Interval {
                low: (k - half) / unscale(power),
                high: (k + half) / unscale(power),
            })
            .collect(),
        residual_deviation: (solved.squares / (points.len() - degree - 1) as f64).sqrt(),
        n: points.len(),
    })
}

/// y = k₀ + k₁x + k₂·max(0, x − turn)
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Segmented {
    /// k₀, k₁, k₂.
    pub coefficients: [f64; 3],
    /// Where the line breaks.
    pub turn: f64,
    /// Where the break lies with the asked confidence; one end may be that of the points.
    pub turn_interval: Interval,
    /// √(Σ weight·residual² / (n − 4)).
    pub residual_deviation: f64,
    /// F = how many times more a break explains than chance does.
    pub f: f64,
    /// Whether a break explains the points better than a straight line at the asked confidence.
    pub broken: bool,
    /// Points.
    pub n: usize,
}

impl Segmented {
    /// y at `x`.
    pub fn at(&self, x: f64) -> f64 {
        let [k0, k1, k2] = self.coefficients;
        k0 + k1 * x + k2 * (x - self.turn).max(0.0)
    }
}

/// Candidate breaks between the second and the last but one x, evenly in ln x or in x.
const CANDIDATES: usize = 400;

/// The broken line with the least weighted squares (Hudson 1966), its break searched on a grid between the second and
/// the last but one different x, even in ln x where all x are positive. The interval of the break holds every candidate
/// that the F test does not refuse (a profile of the squares; Feder 1975).
///
/// # Errors
/// Fewer than six points, values that are not finite, fewer than four different x.
pub fn segmented(points: &[Point], confidence: f64) -> Result<Segmented, StatisticsError> {
    let n = points.len();
    let xs: Vec<f64> = points.iter().map(|p| p.x).collect();
    check("a broken line", 6, &xs)?;
    let mut different = xs;
    different.sort_unstable_by(f64::total_cmp);
    different.dedup();
    let [first, low, .., high, _] = different[..] else {
        return Err(StatisticsError::TooFew { method: "a broken line", needed: 4, got: different.len() });
    };
    let straight = solve("a line", points, 2, confidence, &|x| vec![1.0, x])?;
    let candidate = |i: usize| {
        let share = i as f64 / (CANDIDATES - 1) as f64;
        if first > 0.0 { low * (high / low).powf(share) } else { low + (high - low) * share }
    };
    let mut profile = Vec::with_capacity(CANDIDATES); // (turn, squares)
    let mut best: Option<(f64, Solved)> = None;
    for turn in (0..CANDIDATES).map(candidate) {
        let basis = |x: f64| vec![1.0, x, (x - turn).max(0.0)];
        let Ok(solved) = solve("a broken line", points, 3, confidence, &basis) else { continue };
        profile.push((turn, solved.squares));
        if best.as_ref().is_none_or(|(_, best)| solved.squares < best.squares) {
            best = Some((turn, solved));
        }
    }
    let Some((turn, solved)) = best else {
        return Err(StatisticsError::SameX { n, x: first });
    };
    let variance = solved.squares / (n - 4) as f64;
    // t² with one degree is F(1, n − 4).
    let t = two_sided(confidence, (n - 4) as f64);
    let inside = |(_, squares): &&(f64, f64)| *squares <= solved.squares + t * t * variance;
    let kept = || profile.iter().filter(inside).map(|(turn, _)| *turn);
    let f = if variance > 0.0 { (straight.squares - solved.squares) / 2.0 / variance } else { f64::INFINITY };
    Ok(Segmented {
        coefficients: [solved.k[0], solved.k[1], solved.k[2]],
        turn,
        turn_interval: Interval { low: kept().fold(turn, f64::min), high: kept().fold(turn, f64::max) },
        residual_deviation: variance.sqrt(),
        f,
        // The break is chosen, so the usual F is too easily passed; Bonferroni over some ten independent places for it.
        broken: f > f_of_two(1.0 - (1.0 - confidence) / 10.0, (n - 4) as f64),
        n,
    })
}

/// The F with two degrees over `degrees` that is not exceeded with this confidence: its distribution has a closed form,
/// P(F > f) = (1 + 2f/d)^(−d/2).
fn f_of_two(confidence: f64, degrees: f64) -> f64 {
    degrees / 2.0 * ((1.0 - confidence).powf(-2.0 / degrees) - 1.0)
}

/// Coefficients, half widths of their intervals, and the weighted squares left.
struct Solved {
    k: Vec<f64>,
    half: Vec<f64>,
    squares: f64,
}

/// Normal equations: few coefficients over scaled columns, so they are well conditioned.
fn solve(
    method: &'static str,
    points: &[Point],
    terms: usize,
    confidence: f64,
    basis: &dyn Fn(f64) -> Vec<f64>,
) -> Result<Solved, StatisticsError> {
    let ys: Vec<f64> = points.iter().flat_map(|p| [p.y, p.x, p.weight]).collect();
    check(method, 1, &ys)?;
    if points.len() < terms + 1 {
        return Err(StatisticsError::TooFew { method, needed: terms + 1, got: points.len() });
    }
    if !(confidence > 0.0 && confidence < 1.0) {
        return Err(StatisticsError::Fraction { what: "the confidence", value: confidence });
    }
    let rows: Vec<Vec<f64>> = points.iter().map(|p| basis(p.x)).collect(); // (n, terms)
    let mut a = vec![vec![0.0; terms]; terms]; // Σ weight·basis·basisᵀ
    let mut b = vec![0.0; terms]; // Σ weight·y·basis
    for (row, point) in rows.iter().zip(points) {
        for i in 0..terms {
            b[i] += point.weight * point.y * row[i];
            for j in 0..terms {
                a[i][j] += point.weight * row[i] * row[j];
            }
        }
    }
    let same_x = StatisticsError::SameX { n: points.len(), x: points[0].x };
    let inverse = invert(&a).ok_or(same_x)?;
    let k: Vec<f64> = inverse.iter().map(|row| row.iter().zip(&b).map(|(a, b)| a * b).sum()).collect();
    let residual = |(row, p): (&Vec<f64>, &Point)| {
        let fitted: f64 = row.iter().zip(&k).map(|(x, k)| x * k).sum();
        p.weight * (p.y - fitted).powi(2)
    };
    let squares: f64 = rows.iter().zip(points).map(residual).sum();
    let degrees = (points.len() - terms) as f64;
    let t = two_sided(confidence, degrees);
    let half = (0..terms).map(|i| t * (squares / degrees * inverse[i][i]).max(0.0).sqrt()).collect();
    Ok(Solved { k, half, squares })
}

/// Inverse of a symmetric positive matrix; `None` when a pivot is nothing but rounding.
fn invert(a: &[Vec<f64>]) -> Option<Vec<Vec<f64>>> {
    let n = a.len();
    let mut work: Vec<Vec<f64>> = (0..n)
        .map(|i| a[i].iter().copied().chain((0..n).map(|j| f64::from(u8::from(i == j)))).collect())
        .collect(); // (n, 2n): a and the unit matrix
    for column in 0..n {
        let pivot = (column..n).max_by(|&i, &j| work[i][column].abs().total_cmp(&work[j][column].abs()))?;
        if work[pivot][column].abs() <= 1e-12 * a[column][column].abs() {
            return None;
        }
        work.swap(column, pivot);
        let scale = work[column][column];
        work[column].iter_mut().for_each(|value| *value /= scale);
        let row = work[column].clone();
        for (_, other) in work.iter_mut().enumerate().filter(|(i, _)| *i != column) {
            let factor = other[column];
            other.iter_mut().zip(&row).for_each(|(value, pivot)| *value -= factor * pivot);
        }
    }
    Some(work.into_iter().map(|row| row[n..].to_vec()).collect())
}
