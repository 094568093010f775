//! Student's t distribution, as far as confidence intervals need it.

/// The t with P(|T| ≤ t) = `confidence` for `degrees` > 0 degrees of freedom, 0 < confidence < 1. By bisection of the
/// distribution function; relative error below 1e-9.
pub(super) fn two_sided(confidence: f64, degrees: f64) -> f64 {
    let inside = |t: f64| 1.0 - incomplete_beta(degrees / (degrees + t * t), degrees / 2.0, 0.5);
    let mut high = 1.0;
    while inside(high) < confidence && high < 1e15 {
        high *= 2.0;
    }
    let mut low = 0.0;
    for _ in 0..100 {
        let middle = 0.5 * (low + high);
        if inside(middle) < confidence {
            low = middle;
        } else {
            high = middle;
        }
    }
    0.5 * (low + high)
}

/// Regularised incomplete beta function I_x(a, b) by its continued fraction (Lentz's method; DLMF 8.17.22).
fn incomplete_beta(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if x >= 1.0 {
        return 1.0;
    }
    // The fraction converges fast only on one side of the mean; the other side by symmetry.
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - incomplete_beta(1.0 - x, b, a);
    }
    let front = (ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b) + a * x.ln() + b * (1.0 - x).ln()).exp() / a;
    let keep_off_zero = |v: f64| if v.abs() < 1e-300 { 1e-300 } else { v };
    let mut c = 1.0;
    let mut d = 1.0 / keep_off_zero(1.0 - (a + b) * x / (a + 1.0));
    let mut fraction = d;
    for m in 1..500 {
        let m = f64::from(m);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let mut change = 1.0;
        for term in [even, odd] {
            d = 1.0 / keep_off_zero(1.0 + term * d);
            c = keep_off_zero(1.0 + term / c);
            change = c * d;
            fraction *= change;
        }
        if (change - 1.0).abs() < 1e-15 {
            break;
        }
    }
    front * fraction
}

/// ln Γ(x) for x > 0: recurrence up to x ≥ 10, then Stirling's series (DLMF 5.11.1).
fn ln_gamma(x: f64) -> f64 {
    let mut shift = 0.0;
    let mut x = x;
    while x < 10.0 {
        shift -= x.ln();
        x += 1.0;
    }
    let r = 1.0 / (x * x);
    let series = (1.0 / 12.0 - r * (1.0 / 360.0 - r * (1.0 / 1260.0 - r / 1680.0))) / x;
    shift + (x - 0.5) * x.ln() - x + 0.5 * (2.0 * std::f64::consts::PI).ln() + series
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Printed tables of the t distribution.
    #[test]
    fn quantiles_are_the_tabulated_ones() {
        for (confidence, degrees, t) in [
            (0.95, 1.0, 12.706),
            (0.95, 2.0, 4.303),
            (0.95, 5.0, 2.571),
            (0.95, 10.0, 2.228),
            (0.95, 30.0, 2.042),
            (0.99, 10.0, 3.169),
            (0.90, 4.0, 2.132),
            (0.95, 1000.0, 1.962),
        ] {
            let got = two_sided(confidence, degrees);
            assert!((got - t).abs() < 5e-4 + 5e-5 * t, "{confidence} {degrees}: {got} ≠ {t}");
        }
    }

    #[test]
    fn gamma_of_whole_and_half_numbers() {
        assert!((ln_gamma(5.0) - 24f64.ln()).abs() < 1e-12);
        assert!((ln_gamma(0.5) - 0.5 * std::f64::consts::PI.ln()).abs() < 1e-12);
    }
}
