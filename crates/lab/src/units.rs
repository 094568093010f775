//! Numbers for people: three significant digits and an SI prefix. Binary units never appear without their i.

/// Prefixes from 10⁻⁹ to 10¹⁵.
const PREFIXES: [(f64, &str); 9] = [
    (1e15, "P"),
    (1e12, "T"),
    (1e9, "G"),
    (1e6, "M"),
    (1e3, "k"),
    (1.0, ""),
    (1e-3, "m"),
    (1e-6, "µ"),
    (1e-9, "n"),
];

/// `value` with three significant digits and a prefix, as `30.2 GB/s`; negative values keep their sign. Values from
/// outside of 10⁻⁹ to 10¹⁸ are written with an exponent.
///
/// ```
/// use roofline_lab::units::si;
/// assert_eq!(si(30_190_000_000.0, "B/s"), "30.2 GB/s");
/// assert_eq!(si(0.012, "s"), "12.0 ms");
/// ```
pub fn si(value: f64, unit: &str) -> String {
    let size = value.abs();
    if size == 0.0 {
        return format!("0 {unit}").trim_end().to_string();
    }
    // 999.5 rounds up to the next prefix.
    match PREFIXES.iter().find(|(scale, _)| size >= scale * 0.9995) {
        Some((scale, prefix)) if size < 999.5e15 => {
            format!("{} {prefix}{unit}", three_digits(value / scale)).trim_end().to_string()
        }
        _ => format!("{value:.2e} {unit}").trim_end().to_string(),
    }
}

/// Three significant digits of a number below 1000, without an exponent.
pub fn three_digits(value: f64) -> String {
    let size = value.abs();
    let decimals = if size >= 99.95 {
        0
    } else if size >= 9.995 {
        1
    } else {
        2
    };
    format!("{value:.decimals$}")
}

/// Bytes with an SI prefix; exact below a thousand.
pub fn bytes(bytes: u64) -> String {
    if bytes < 1000 { format!("{bytes} B") } else { si(bytes as f64, "B") }
}

/// Bytes as a binary multiple, for things that come in powers of two, as `32 KiB`.
pub fn binary_bytes(bytes: u64) -> String {
    let (scale, unit) = [(1u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")]
        .into_iter()
        .find(|(scale, _)| bytes >= *scale)
        .unwrap_or((1, "B"));
    if bytes.is_multiple_of(scale) {
        format!("{} {unit}", bytes / scale)
    } else {
        format!("{} {unit}", three_digits(bytes as f64 / scale as f64))
    }
}

/// A whole number with its thousands apart, as `1,234,567`.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_and_a_prefix() {
        for (value, unit, text) in [
            (0.0, "B", "0 B"),
            (1.0, "B", "1.00 B"),
            (999.4, "B", "999 B"),
            (999.6, "B", "1.00 kB"),
            (9_994.0, "B", "9.99 kB"),
            (9_996.0, "B", "10.0 kB"),
            (99_960.0, "B", "100 kB"),
            (942e9, "op/s", "942 Gop/s"),
            (2.5e-7, "s", "250 ns"),
            (-1500.0, "B", "-1.50 kB"),
            (0.5, "", "500 m"),
            (3e18, "B", "3.00e18 B"),
            (1e-12, "s", "1.00e-12 s"),
        ] {
            assert_eq!(si(value, unit), text);
        }
    }

    #[test]
    fn bytes_and_groups() {
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1_000_000), "1.00 MB");
        assert_eq!(binary_bytes(32 << 10), "32 KiB");
        assert_eq!(binary_bytes(1536), "1.50 KiB");
        assert_eq!(binary_bytes(7), "7 B");
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(grouped(123), "123");
    }
}
