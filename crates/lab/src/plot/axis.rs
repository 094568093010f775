//! Axes: from values to places, and where the ticks are.

use crate::units::grouped;

/// How values map to places.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scale {
    /// Equal differences take equal room.
    #[default]
    Linear,
    /// Equal ratios take equal room.
    Log,
}

/// One axis.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Axis {
    /// What is shown, with its unit: `latency per token (ms)`.
    pub label: String,
    /// How values map to places.
    pub scale: Scale,
    /// Values that must be inside, besides the data.
    pub include: Vec<f64>,
    /// Names at 0, 1, 2, … instead of numbers; such an axis is linear.
    pub names: Vec<String>,
}

/// A place with a line across the plot, and a text where it is a major one.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tick {
    pub(super) value: f64,
    pub(super) text: Option<String>,
}

/// The values an axis spans, ends on ticks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Span {
    pub(super) scale: Scale,
    pub(super) low: f64,
    pub(super) high: f64,
}

impl Scale {
    pub(super) fn name(self) -> &'static str {
        match self {
            Scale::Linear => "linear",
            Scale::Log => "logarithmic",
        }
    }

    pub(super) fn can_show(self, value: f64) -> bool {
        value.is_finite() && (self == Scale::Linear || value > 0.0)
    }
}

impl Axis {
    /// The span of some values that this axis can show; at least one.
    pub(super) fn span(&self, values: impl Iterator<Item = f64>) -> Option<Span> {
        if !self.names.is_empty() {
            return Some(Span { scale: Scale::Linear, low: -0.5, high: self.names.len() as f64 - 0.5 });
        }
        let all = values.chain(self.include.iter().copied());
        let (low, high) = all.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        (low <= high).then(|| match self.scale {
            Scale::Linear => linear_span(low, high),
            Scale::Log => log_span(low, high),
        })
    }
}

impl Axis {
    /// Places on `span` with their texts.
    pub(super) fn ticks(&self, span: &Span) -> Vec<Tick> {
        if self.names.is_empty() {
            return span.ticks();
        }
        let tick = |(at, name): (usize, &String)| Tick { value: at as f64, text: Some(shortened(name)) };
        self.names.iter().enumerate().map(tick).collect()
    }
}

impl Span {
    /// 0 at the low end, 1 at the high end.
    pub(super) fn place(&self, value: f64) -> f64 {
        match self.scale {
            Scale::Linear => (value - self.low) / (self.high - self.low),
            Scale::Log => (value / self.low).ln() / (self.high / self.low).ln(),
        }
    }

    fn ticks(&self) -> Vec<Tick> {
        match self.scale {
            Scale::Linear => linear_ticks(self.low, self.high),
            Scale::Log => log_ticks(self.low, self.high),
        }
    }
}

/// Letters of a name beside an axis.
pub(super) const LONGEST_NAME: usize = 36;

/// A name as it stands beside an axis: of a long one the beginning and the end, which tell most apart.
pub(super) fn shortened(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    if letters.len() <= LONGEST_NAME {
        return name.to_string();
    }
    let (begin, end) = (&letters[..LONGEST_NAME - 14], &letters[letters.len() - 13..]);
    format!("{}…{}", begin.iter().collect::<String>(), end.iter().collect::<String>())
}

/// The smallest of 1, 2, 5 · 10ᵏ that divides a range into at most seven steps.
fn step_of(range: f64) -> f64 {
    let least = range / 7.0;
    let decade = 10f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|m| m * decade)
        .find(|s| *s >= least * 0.999_999)
        .unwrap_or(10.0 * decade)
}

fn linear_span(low: f64, high: f64) -> Span {
    let (low, high) = if low == high {
        (low - low.abs().max(1.0) / 2.0, high + high.abs().max(1.0) / 2.0)
    } else {
        (low, high)
    };
    let step = step_of(high - low);
    Span { scale: Scale::Linear, low: (low / step).floor() * step, high: (high / step).ceil() * step }
}

fn linear_ticks(low: f64, high: f64) -> Vec<Tick> {
    let step = step_of(high - low);
    let decimals = (-step.log10().floor()).max(0.0) as usize;
    let count = ((high - low) / step).round() as usize;
    let first = (low / step).round();
    (0..=count)
        .map(|i| {
            let value = (first + i as f64) * step;
            Tick { value, text: Some(decimal(value, decimals)) }
        })
        .collect()
}

/// With thousands apart.
fn decimal(value: f64, decimals: usize) -> String {
    let text = format!("{:.decimals$}", value.abs());
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let whole = whole.parse().map_or(whole.to_string(), grouped);
    let negative = value < 0.0 && text.bytes().any(|b| (b'1'..=b'9').contains(&b));
    format!("{}{whole}{rest}", if negative { "−" } else { "" })
}

/// Ends on 1, 2 or 5 of a decade.
fn log_span(low: f64, high: f64) -> Span {
    let decade = |v: f64| 10f64.powf(v.log10().floor());
    let below =
        |v: f64| [5.0, 2.0].into_iter().find(|m| m * decade(v) <= v * 1.000_001).unwrap_or(1.0) * decade(v);
    let above = |v: f64| {
        [1.0, 2.0, 5.0].into_iter().find(|m| m * decade(v) >= v * 0.999_999).unwrap_or(10.0) * decade(v)
    };
    let (low, high) = (below(low), above(high));
    Span { scale: Scale::Log, low, high: if high > low { high } else { low * 10.0 } }
}

fn log_ticks(low: f64, high: f64) -> Vec<Tick> {
    let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
    let decades = last - first;
    let mut ticks = Vec::new();
    for exponent in first..=last {
        for mantissa in 1..10 {
            let value = format!("{mantissa}e{exponent}").parse().unwrap_or(f64::NAN);
            if value < low * 0.999_999 || value > high * 1.000_001 {
                continue;
            }
            let named = if high / low < 150.0 { matches!(mantissa, 1 | 2 | 5) } else { mantissa == 1 };
            // More than eight decades: a text on every second one.
            let named = named && (decades <= 8 || exponent.rem_euclid(2) == 0);
            ticks.push(Tick { value, text: named.then(|| prefixed(mantissa, exponent)) });
        }
    }
    ticks
}

/// mantissa · 10^exponent with an SI prefix above a thousand and plain digits below one: `0.05`, `20`, `500 G`.
fn prefixed(mantissa: i32, exponent: i32) -> String {
    if exponent < 0 {
        return format!("0.{}{mantissa}", "0".repeat((-exponent - 1) as usize));
    }
    let zeros = "0".repeat((exponent % 3) as usize);
    match ["", " k", " M", " G", " T", " P", " E"].get((exponent / 3) as usize) {
        Some(prefix) => format!("{mantissa}{zeros}{prefix}"),
        None => format!("{mantissa}e{exponent}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn axis(scale: Scale) -> Axis {
        Axis { scale, ..Axis::default() }
    }

    fn texts(span: &Span) -> Vec<String> {
        span.ticks().into_iter().filter_map(|tick| tick.text).collect()
    }

    #[test]
    fn linear_ticks_are_round() {
        let span = axis(Scale::Linear).span([0.0, 4096.0].into_iter()).unwrap();
        assert_eq!(texts(&span), ["0", "1,000", "2,000", "3,000", "4,000", "5,000"]);
        let span = axis(Scale::Linear).span([-0.02, 0.05].into_iter()).unwrap();
        assert_eq!(texts(&span), ["−0.02", "−0.01", "0.00", "0.01", "0.02", "0.03", "0.04", "0.05"]);
    }

    #[test]
    fn log_ticks_are_decades_with_prefixes() {
        let span = axis(Scale::Log).span([3e9, 2e12].into_iter()).unwrap();
        assert_eq!(texts(&span), ["10 G", "100 G", "1 T"]);
        assert_eq!((span.low, span.high), (2e9, 2e12));
        let span = axis(Scale::Log).span([0.3, 4.0].into_iter()).unwrap();
        assert_eq!(texts(&span), ["0.2", "0.5", "1", "2", "5"]);
        assert_eq!(span.place(span.low), 0.0);
        assert_eq!(span.place(span.high), 1.0);
    }

    #[test]
    fn names_stand_at_whole_numbers() {
        let axis = Axis { names: vec!["full".into(), "static:8".into()], ..Axis::default() };
        let span = axis.span([0.0, 1.0].into_iter()).unwrap();
        assert_eq!((span.low, span.high), (-0.5, 1.5));
        let texts: Vec<_> = axis.ticks(&span).into_iter().map(|tick| (tick.value, tick.text)).collect();
        assert_eq!(texts, [(0.0, Some("full".into())), (1.0, Some("static:8".into()))]);
    }

    #[test]
    fn long_names_keep_both_ends() {
        assert_eq!(shortened("streaming:sinks=4,window=252"), "streaming:sinks=4,window=252");
        let short = shortened(&format!("{}tail", "x".repeat(80)));
        assert_eq!(short.chars().count(), LONGEST_NAME);
        assert!(short.starts_with("xxx") && short.contains('…') && short.ends_with("tail"));
    }

    #[test]
    fn one_value_still_makes_an_axis() {
        for scale in [Scale::Linear, Scale::Log] {
            let span = axis(scale).span([7.0].into_iter()).unwrap();
            assert!(span.low <= 7.0 && 7.0 <= span.high && span.low < span.high, "{span:?}");
        }
        assert_eq!(axis(Scale::Linear).span([].into_iter()), None);
    }

    proptest! {
        #[test]
        fn spans_hold_their_values_and_have_texts(a in -1e12..1e12f64, b in -1e12..1e12f64, scale in 0..2) {
            let scale = if scale == 0 { Scale::Linear } else { Scale::Log };
            let values = if scale == Scale::Log { [a.abs() + 1e-6, b.abs() + 1e-6] } else { [a, b] };
            let span = axis(scale).span(values.into_iter()).unwrap();
            for v in values {
                prop_assert!((-1e-9..=1.0 + 1e-9).contains(&span.place(v)), "{v} in {span:?}");
            }
            let ticks = span.ticks();
            prop_assert!((2..=220).contains(&ticks.len()), "{}", ticks.len());
            prop_assert!(ticks.iter().filter(|t| t.text.is_some()).count() >= 2);
            prop_assert!(ticks.windows(2).all(|pair| pair[0].value < pair[1].value));
        }
    }
}
