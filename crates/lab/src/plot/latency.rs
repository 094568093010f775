//! Time per decoded token against its position: B is where the line starts, W how slowly it climbs.

use super::svg::GREY;
use super::{Axis, Chart, Mark, Note, Series, Side};
use crate::statistics::Line;
use crate::units::three_digits;

/// Limits and measurements of one model.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Latency {
    /// First line above the chart.
    pub title: String,
    /// Second line.
    pub subtitle: String,
    /// (position, milliseconds) of the limit, in order of position.
    pub limit: Vec<(f64, f64)>,
    /// B, in milliseconds: the first token's step.
    pub b_ms: f64,
    /// W, in tokens: the context after which a step takes one millisecond longer.
    pub w_tokens_per_ms: f64,
    /// (position, milliseconds) of measured tokens.
    pub measured: Vec<(f64, f64)>,
    /// Line through the measured tokens, in milliseconds per position.
    pub fit: Option<Line>,
}

const LIMIT: usize = 0;
const MEASURED: usize = 1;

/// Draws them.
pub fn latency(data: &Latency) -> Chart {
    let last = data.limit.iter().chain(&data.measured).map(|p| p.0).fold(1.0, f64::max);
    let b = format!("{} ms", three_digits(data.b_ms));
    let mut series = vec![
        Series {
            name: format!("B = {b}: what a step costs without context"),
            color: GREY,
            mark: Mark::Dashed,
            points: vec![(1.0, data.b_ms), (last, data.b_ms)],
        },
        Series {
            name: format!(
                "limit: B + (position − 1) / W, W = {} tokens per ms",
                w_text(data.w_tokens_per_ms)
            ),
            color: LIMIT,
            mark: Mark::Line,
            points: data.limit.clone(),
        },
    ];
    if !data.measured.is_empty() {
        let name = format!("measured, {} tokens", data.measured.len());
        series.push(Series { name, color: MEASURED, mark: Mark::Dots, points: data.measured.clone() });
    }
    if let Some(fit) = &data.fit {
        let w = 1.0 / fit.slope;
        let name = format!("fit: B = {} ms, W = {} tokens per ms", three_digits(fit.at(1.0)), w_text(w));
        let points = vec![(1.0, fit.at(1.0)), (last, fit.at(last))];
        series.push(Series { name, color: MEASURED, mark: Mark::Line, points });
    }
    Chart {
        title: data.title.clone(),
        subtitle: data.subtitle.clone(),
        x: Axis { label: "position of the token".into(), include: vec![0.0], ..Axis::default() },
        y: Axis { label: "time per token (ms)".into(), include: vec![0.0], ..Axis::default() },
        series,
        notes: vec![Note {
            at: (0.0, data.b_ms),
            text: format!("B = {b}"),
            color: GREY,
            side: Side::BelowRight,
        }],
        remarks: Vec::new(),
    }
}

/// Whole tokens above ten.
fn w_text(w: f64) -> String {
    if w >= 10.0 { crate::units::grouped(w.round() as u64) } else { three_digits(w) }
}
