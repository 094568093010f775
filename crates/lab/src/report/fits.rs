//! Fitted curves: which line they belong to, as points, as words, and what they leave over.

use super::run::Run;
use super::shown::{Shown, digits};
use super::sweep::{Strand, Traced, trace};
use crate::experiment::rows::{Fit, Form};
use crate::plot::Mark;

/// Fits of a metric over an axis: (row, fit, the strands it may go through). One that names no axis by which strands
/// differ may have been fitted to any of them.
pub(super) fn fits<'s, 'a>(
    strands: &'s [Strand<'a>],
    x: &str,
    metric: &str,
) -> Vec<(&'a str, &'a Fit, Vec<&'s Strand<'a>>)> {
    let mut runs: Vec<&'a Run<'a>> = Vec::new();
    for strand in strands {
        if !runs.iter().any(|run| std::ptr::eq(*run, strand.run)) {
            runs.push(strand.run);
        }
    }
    let mut all = Vec::new();
    for run in runs {
        for (row, finding) in &run.findings {
            let Some(fit) = finding.fit.as_ref().filter(|fit| fit.x == x && fit.y == metric) else {
                continue;
            };
            let through: Vec<&Strand<'a>> = strands
                .iter()
                .filter(|strand| std::ptr::eq(strand.run, run) && strand.belongs_to(x, &finding.cell))
                .collect();
            if !through.is_empty() {
                all.push((row.as_str(), fit, through));
            }
        }
    }
    all
}

/// A factor from the unit of a fit to that of the rows.
fn to_row_unit(fit: &Fit) -> f64 {
    match fit.y_unit.as_str() {
        "ms" => 1e-3,
        "µs" | "us" => 1e-6,
        _ => 1.0,
    }
}

/// The curve on sixty-four places, evenly by difference and by ratio, so that it is round on both scales.
pub(super) fn fit_curve(fit: &Fit, shown: &Shown, row: &str, (name, color): (String, usize)) -> Traced {
    let scale = shown.factor * to_row_unit(fit);
    let points = curve_places(fit).into_iter().map(|x| (x, fit.at(x) * scale, row.to_string())).collect();
    trace(name, color, Mark::Dashed, points)
}

pub(super) fn form_words(form: Form) -> &'static str {
    match form {
        Form::Line => "fit: line",
        Form::Quadratic => "fit: parabola",
        Form::Power => "fit: power",
        Form::Segmented => "fit: two lines",
    }
}

/// Where a curve is computed.
pub(super) fn curve_places(fit: &Fit) -> Vec<f64> {
    let [from, to] = fit.range;
    let mut places: Vec<f64> = (0..=32).map(|i| from + (to - from) * f64::from(i) / 32.0).collect();
    if from > 0.0 {
        places.extend((1..32).map(|i| from * (to / from).powf(f64::from(i) / 32.0)));
    }
    if fit.form == Form::Segmented {
        places.extend(fit.coefficients.get(3));
    }
    places.retain(|x| *x >= from && *x <= to);
    places.sort_by(f64::total_cmp);
    places.dedup();
    places
}

/// Points minus the fit.
pub(super) fn residuals(
    points: impl Iterator<Item = (f64, f64, String)>,
    fit: &Fit,
    shown: &Shown,
    color: usize,
) -> Traced {
    let inside = |x: f64| fit.range[0] <= x && x <= fit.range[1];
    let distance =
        |(x, y, row): (f64, f64, String)| (x, (y - fit.at(x) * to_row_unit(fit)) * shown.factor, row);
    trace(
        "runs − fit".into(),
        color,
        Mark::Dots,
        points.filter(|(x, _, _)| inside(*x)).map(distance).collect(),
    )
}

/// A fit as a formula in the unit of the axis, with n and the deviation of what it leaves over.
pub(super) fn words(fit: &Fit, shown: &Shown) -> String {
    let scale = shown.factor * to_row_unit(fit);
    let k = |i: usize| fit.coefficients.get(i).copied().unwrap_or(f64::NAN);
    let unit = if shown.unit.is_empty() { String::new() } else { format!(" {}", shown.unit) };
    let n = |i: usize| significant(k(i) * scale);
    let signed = |i: usize| {
        if k(i) < 0.0 { format!("− {}", significant(-k(i) * scale)) } else { format!("+ {}", n(i)) }
    };
    let formula = match fit.form {
        Form::Line => format!("{} {}·x", n(0), signed(1)),
        Form::Quadratic => format!("{} {}·x {}·x²", n(0), signed(1), signed(2)),
        Form::Power => format!("{} · x^{}", significant(k(0).exp() * scale), significant(k(1))),
        Form::Segmented => format!("{} {}·x {}·max(0, x − {})", n(0), signed(1), signed(2), digits(k(3))),
    };
    let deviation = match fit.form {
        // Not every method has one.
        _ if fit.residual_deviation == 0.0 => String::new(),
        Form::Power => format!("; residual deviation {} %", digits(100.0 * fit.residual_deviation)),
        _ => format!("; residual deviation {}{unit}", significant(fit.residual_deviation * scale)),
    };
    format!(
        "fit: {} = {formula}{unit}{deviation}; n = {}; x from {} to {}",
        fit.y,
        fit.n,
        digits(fit.range[0]),
        digits(fit.range[1])
    )
}

/// Four significant digits.
fn significant(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return value.to_string();
    }
    let places = (3 - value.abs().log10().floor() as i32).clamp(0, 12) as usize;
    if value.abs() < 1e-6 { format!("{value:.3e}") } else { format!("{value:.places$}") }
}
