//! Units as they are read: seconds as ms, bytes as MB.

use crate::units::{grouped, si, three_digits};

/// How a quantity is shown on an axis.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Shown {
    /// Multiplies the number of the row.
    pub factor: f64,
    /// The unit after that; empty for ratios.
    pub unit: String,
}

impl Shown {
    /// For numbers up to `largest` in `unit`, with the prefix that leaves the largest between 1 and 1000.
    pub fn of(unit: &str, largest: f64) -> Shown {
        if !matches!(unit, "s" | "B" | "B/s" | "FLOP/s" | "op/s") {
            return Shown { factor: 1.0, unit: if unit == "1" { String::new() } else { unit.to_string() } };
        }
        let prefixes = [
            (1e12, "T"),
            (1e9, "G"),
            (1e6, "M"),
            (1e3, "k"),
            (1.0, ""),
            (1e-3, "m"),
            (1e-6, "µ"),
            (1e-9, "n"),
        ];
        // Minutes are read better as 120 s than as 0.12 ks.
        let usable = prefixes.iter().filter(|(scale, _)| unit != "s" || *scale <= 1.0);
        let fits = |(scale, _): &&(f64, &str)| largest.abs() >= *scale;
        let (scale, prefix) = usable.clone().find(fits).copied().unwrap_or((1.0, ""));
        Shown { factor: 1.0 / scale, unit: format!("{prefix}{unit}") }
    }

    /// `name (unit)`.
    pub fn label(&self, name: &str) -> String {
        if self.unit.is_empty() { name.to_string() } else { format!("{name} ({})", self.unit) }
    }
}

/// A number of a row for people: three digits, a prefix where the unit takes one.
pub(super) fn read(value: f64, unit: &str) -> String {
    match unit {
        "s" | "s/tok" | "B" | "B/s" | "FLOP/s" | "op/s" => si(value, unit),
        "1" => digits(value),
        _ => format!("{} {unit}", digits(value)),
    }
}

/// A number of a row in full.
pub(super) fn exact(value: f64, unit: &str) -> String {
    if unit == "1" { value.to_string() } else { format!("{value} {unit}") }
}

/// Whole numbers in full, others with three digits or more.
pub(super) fn digits(value: f64) -> String {
    let size = value.abs();
    if value.fract() == 0.0 && size < 1e15 {
        let sign = if value < 0.0 { "−" } else { "" };
        format!("{sign}{}", grouped(size as u64))
    } else if (0.01..1e6).contains(&size) {
        three_digits(value)
    } else {
        format!("{value:.3e}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_read_in_small_numbers() {
        for (unit, largest, factor, shown) in [
            ("s", 0.012, 1e3, "ms"),
            ("s", 90.0, 1.0, "s"),
            ("s", 5000.0, 1.0, "s"),
            ("B", 3e6, 1e-6, "MB"),
            ("B/s", 3e10, 1e-9, "GB/s"),
            ("tok/s", 5e4, 1.0, "tok/s"),
            ("1", 0.7, 1.0, ""),
        ] {
            let got = Shown::of(unit, largest);
            assert!(
                (got.factor / factor - 1.0).abs() < 1e-12 && got.unit == shown,
                "{unit} {largest}: {got:?}"
            );
        }
    }

    #[test]
    fn numbers_read_and_exact() {
        assert_eq!(read(0.0123456, "s"), "12.3 ms");
        assert_eq!(read(4096.0, "tok"), "4,096 tok");
        assert_eq!(read(0.5, "1"), "0.50");
        assert_eq!(exact(0.1, "1"), "0.1");
        assert_eq!(digits(-3.0), "−3");
        assert_eq!(digits(1.5e-7), "1.500e-7");
    }
}
