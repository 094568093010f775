//! Plots inside of a page: the page brings style, title and legend; its script moves what is drawn here when an axis
//! changes its scale.
//!
//! Ticks of every view of an axis are drawn, and all but those of the first carry the class `off`. A tick group names
//! what it spans in `data-span`, so that whoever moves points needs no arithmetic but that of [`Span::place`].

use std::fmt::Write;

use super::axis::Span;
use super::draw::{FOOT, Frame, Panel, room_for};
use super::svg::{Anchor, Svg, color, escape, number};
use super::{Axis, Chart, Mark, PlotError, Scale, Series};

const WIDTH: f64 = 820.0;
const RIGHT: f64 = 18.0;
/// Above a plot: half a disc.
const HEAD: f64 = 12.0;
/// Around a plot: discs at its edge are shown whole.
const EDGE: f64 = 10.0;
const LINE_HEIGHT: f64 = 17.0;
/// Of a letter of 12 px.
const LETTER: f64 = 6.3;

/// A plot for a page.
#[derive(Debug, Clone, PartialEq)]
pub struct Inline {
    /// An `svg` element.
    pub svg: String,
    /// Whether x can be read logarithmically too: numbers, all of them above zero.
    pub log_x: bool,
    /// The same of y.
    pub log_y: bool,
    /// Whether there is a small end to look at closer.
    pub zoom: bool,
}

/// Draws `chart` with a plot of `height` pixels; `id` names it in its page. Its remarks stand above the plot; its notes
/// are not drawn, since they would not move.
///
/// # Errors
/// As [`render`](super::render()).
pub fn inline(id: &str, chart: &Chart, height: f64) -> Result<Inline, PlotError> {
    let panel = Panel::new(chart)?;
    let left = room_for(&chart.y);
    let lines = remark_lines(chart, WIDTH - left);
    let top = HEAD + lines.len() as f64 * LINE_HEIGHT;
    let frame = Frame { left, top, width: WIDTH - left - RIGHT, height };
    let views = Views::of(chart, &panel);
    let mut svg = Svg::inline(id, WIDTH, top + height + FOOT, &chart.title, &attributes(chart, &frame));
    for (i, line) in lines.iter().enumerate() {
        svg.text("muted small", (left, HEAD + 4.0 + i as f64 * LINE_HEIGHT), Anchor::Start, line);
    }
    for view in &views.x {
        begin_ticks(&mut svg, "x", view);
        view.axis.ticks(&view.span).iter().for_each(|tick| frame.draw_x_tick(&mut svg, &view.span, tick));
        svg.end_group();
    }
    for view in &views.y {
        begin_ticks(&mut svg, "y", view);
        view.axis.ticks(&view.span).iter().for_each(|tick| frame.draw_y_tick(&mut svg, &view.span, tick));
        svg.end_group();
    }
    frame.draw_border(&mut svg, &chart.x, &chart.y);
    let corner = (frame.left - EDGE, frame.top - EDGE);
    svg.begin_clipped(&format!("{id}-clip"), corner, frame.width + 2.0 * EDGE, height + 2.0 * EDGE);
    for (index, series) in chart.series.iter().enumerate() {
        svg.begin_group(&format!(
            "class=\"series\" data-series=\"{index}\" data-mark=\"{}\"",
            mark_name(&series.mark)
        ));
        draw_series(&mut svg, &panel, &frame, series);
        svg.end_group();
    }
    svg.end_group();
    let has =
        |views: &[View], small: bool, scale| views.iter().any(|v| v.small == small && v.span.scale == scale);
    let both = |views: &[View]| has(views, false, Scale::Log) && has(views, false, Scale::Linear);
    let (log_x, log_y) = (both(&views.x), both(&views.y));
    Ok(Inline { svg: svg.finish(), log_x, log_y, zoom: views.x.iter().any(|view| view.small) })
}

/// `line`, `dashed`, `band`, `whiskers`, `dots`, `rings`, `labelled`.
pub fn mark_name(mark: &Mark) -> &'static str {
    match mark {
        Mark::Line => "line",
        Mark::Dashed => "dashed",
        Mark::Band => "band",
        Mark::Whiskers => "whiskers",
        Mark::Dots => "dots",
        Mark::Rings => "rings",
        Mark::Labelled(_) => "labelled",
    }
}

/// One way to look at an axis.
struct View {
    axis: Axis,
    span: Span,
    small: bool,
    shown: bool,
}

struct Views {
    x: Vec<View>,
    y: Vec<View>,
}

impl Views {
    fn of(chart: &Chart, panel: &Panel<'_>) -> Views {
        let points = || chart.series.iter().flat_map(|series| series.points.iter().copied());
        let small_end = small_end(chart);
        let near = |(x, _): &(f64, f64)| small_end.is_none_or(|end| *x <= end);
        let x_values: Vec<f64> = points().map(|p| p.0).collect();
        let y_values: Vec<f64> = points().map(|p| p.1).collect();
        let small_x: Vec<f64> = points().filter(near).map(|p| p.0).collect();
        let small_y: Vec<f64> = points().filter(near).map(|p| p.1).collect();
        let mut views = Views { x: views(&chart.x, &x_values, false), y: views(&chart.y, &y_values, false) };
        if small_end.is_some() {
            views.x.extend(self::views(&chart.x, &small_x, true));
            views.y.extend(self::views(&chart.y, &small_y, true));
        }
        let is_first = |view: &View, span: &Span| !view.small && view.span.scale == span.scale;
        views.x.iter_mut().for_each(|view| view.shown = is_first(view, &panel.x));
        views.y.iter_mut().for_each(|view| view.shown = is_first(view, &panel.y));
        views
    }
}

/// Both scales where both can show `all`.
fn views(axis: &Axis, values: &[f64], small: bool) -> Vec<View> {
    let scales = if axis.names.is_empty() { &[Scale::Linear, Scale::Log][..] } else { &[Scale::Linear] };
    let can_show = |scale: &Scale| values.iter().all(|value| scale.can_show(*value));
    let view = |scale: &Scale| {
        let include: Vec<f64> =
            axis.include.iter().copied().filter(|value| scale.can_show(*value) && !small).collect();
        let zero = *scale == Scale::Linear && axis.include.contains(&0.0);
        let include = if small && zero { vec![0.0] } else { include };
        let axis = Axis { scale: *scale, include, ..axis.clone() };
        let span = axis.span(values.iter().copied())?;
        Some(View { axis, span, small, shown: false })
    };
    scales.iter().filter(|scale| can_show(scale)).filter_map(view).collect()
}

/// The x up to which half of the measured x lie, where the other half takes more than three quarters of the room.
fn small_end(chart: &Chart) -> Option<f64> {
    let dots = chart.series.iter().filter(|series| series.mark == Mark::Dots);
    let mut xs: Vec<f64> = dots.flat_map(|series| series.points.iter().map(|p| p.0)).collect();
    xs.sort_by(f64::total_cmp);
    xs.dedup();
    let (first, last, middle) = (*xs.first()?, *xs.last()?, xs[(xs.len() - 1) / 2]);
    let numbers = chart.x.names.is_empty() && chart.y.names.is_empty();
    (numbers && xs.len() >= 4 && (middle - first) < (last - first) / 4.0).then_some(middle)
}

fn attributes(chart: &Chart, frame: &Frame) -> String {
    let [left, top, width, height] = [frame.left, frame.top, frame.width, frame.height].map(number);
    let mut text = format!("data-frame=\"{left} {top} {width} {height}\"");
    for (name, axis) in [("x", &chart.x), ("y", &chart.y)] {
        if !axis.names.is_empty() {
            let names = serde_json::Value::from(axis.names.clone()).to_string();
            let _ = write!(text, " data-{name}-names=\"{}\"", escape(&names)); // writing to a String cannot fail
        }
    }
    text
}

fn begin_ticks(svg: &mut Svg, axis: &str, view: &View) {
    let scale = if view.span.scale == Scale::Log { "log" } else { "linear" };
    let small = if view.small { "small-" } else { "" };
    let off = if view.shown { "" } else { " off" };
    let (low, high) = (view.span.low, view.span.high);
    svg.begin_group(&format!(
        "class=\"ticks{off}\" data-axis=\"{axis}\" data-view=\"{small}{scale}\" data-span=\"{low} {high}\""
    ));
}

fn draw_series(svg: &mut Svg, panel: &Panel<'_>, frame: &Frame, series: &Series) {
    let places = series.points.iter().map(|point| panel.place(frame, *point));
    match &series.mark {
        Mark::Dots => places.for_each(|place| svg.dot(series.color, place)),
        Mark::Rings => places.for_each(|place| svg.ring(series.color, place)),
        Mark::Labelled(text) => {
            for (x, y) in places {
                let [x, y] = [x, y].map(number);
                svg.begin_group(&format!("class=\"disc\" transform=\"translate({x} {y})\""));
                svg.circle(&format!("f {}", color(series.color)), (0.0, 0.0), 9.0);
                svg.text("on number", (0.0, 4.0), Anchor::Middle, text);
                svg.end_group();
            }
        }
        Mark::Line | Mark::Dashed | Mark::Band | Mark::Whiskers => panel.draw_lines(svg, frame, series),
    }
}

/// Remarks in lines that fit.
fn remark_lines(chart: &Chart, room: f64) -> Vec<String> {
    let letters = (room / LETTER) as usize;
    chart.remarks.iter().flat_map(|remark| super::draw::wrap(remark, letters)).collect()
}

/// A small picture of a mark, for a legend.
pub fn swatch(series: &Series) -> String {
    let mut svg = Svg::swatch();
    super::draw::legend_mark(&mut svg, (14.0, 8.0), series);
    svg.finish()
}
