//! Charts as SVG: the same bytes for the same data, readable in light and dark, axes with exact ticks and units.

mod axis;
mod draw;
mod inline;
mod latency;
mod roofline;
mod stack;
mod svg;

pub use axis::{Axis, Scale};
pub use inline::{Inline, inline, mark_name, swatch};
pub use latency::{Latency, latency};
pub use roofline::{Ceiling, OperatorPoint, Roof, roofline};
pub use stack::{Bar, Stack, part_swatch};
pub(crate) use svg::{COLORS, GREY, escape};

/// Points of one kind, with the look they share.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Text in the legend; nothing there when empty.
    pub name: String,
    /// Number of a colour; six colours repeat.
    pub color: usize,
    /// How the points are drawn.
    pub mark: Mark,
    /// (x, y) in the units of the axes.
    pub points: Vec<(f64, f64)>,
}

/// How points are drawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mark {
    /// A line through them.
    Line,
    /// A broken line through them.
    Dashed,
    /// A dot at each.
    Dots,
    /// A filled area; the points walk around it.
    Band,
    /// A broad stroke between each two of them: an interval where there is no area to fill.
    Whiskers,
    /// A circle around each, to mark it among dots.
    Rings,
    /// A disc at each with a text of one or two characters, repeated in the legend.
    Labelled(String),
}

/// Text inside the plot, beside a point of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Note {
    /// Where, in the units of the axes.
    pub at: (f64, f64),
    /// What; one line.
    pub text: String,
    /// Number of a colour.
    pub color: usize,
    /// On which side of the point it stands.
    pub side: Side,
}

/// On which side of a point a note stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Above it and to the right.
    AboveRight,
    /// Above it and to the left.
    AboveLeft,
    /// Below it and to the right.
    BelowRight,
}

/// One chart.
#[derive(Debug, Clone, PartialEq)]
pub struct Chart {
    /// First line above it.
    pub title: String,
    /// Second line above it: what exactly was computed or measured.
    pub subtitle: String,
    /// Horizontal axis.
    pub x: Axis,
    /// Vertical axis.
    pub y: Axis,
    /// What is drawn, the first below the others.
    pub series: Vec<Series>,
    /// Texts inside the plot.
    pub notes: Vec<Note>,
    /// Lines below the legend.
    pub remarks: Vec<String>,
}

/// Why a chart cannot be drawn.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PlotError {
    /// No points at all.
    #[error("chart `{chart}` has no points")]
    Empty {
        /// Its title.
        chart: String,
    },
    /// A coordinate that no axis can show.
    #[error("chart `{chart}`: {axis} = {value} in `{series}` cannot stand on a {scale} axis")]
    Coordinate {
        /// Title of the chart.
        chart: String,
        /// Name of the series.
        series: String,
        /// `x` or `y`.
        axis: &'static str,
        /// The value.
        value: f64,
        /// `linear` or `logarithmic`.
        scale: &'static str,
    },
}

/// An SVG file with these charts below one another.
///
/// # Errors
/// [`PlotError`] when a chart is empty or a point does not fit on its axes (NaN, infinite, not positive on a
/// logarithmic one).
pub fn render(charts: &[Chart]) -> Result<String, PlotError> {
    draw::document(charts)
}
