//! From charts to SVG: one panel per chart, plot on the left, legend on the right.

use super::axis::{LONGEST_NAME, Span, Tick, shortened};
use super::svg::{Anchor, Svg, color};
use super::{Axis, Chart, Mark, Note, PlotError, Series, Side};

// One panel, in pixels.
const LEFT: f64 = 92.0;
const TOP: f64 = 70.0;
/// Below a plot: its numbers and its label.
pub(super) const FOOT: f64 = 66.0;
const PLOT_WIDTH: f64 = 560.0;
const PLOT_HEIGHT: f64 = 344.0;
const LEGEND_WIDTH: f64 = 328.0;
const LINE_HEIGHT: f64 = 18.0;
/// Of a letter of 12 px, wide ones included.
const LETTER: f64 = 6.6;
/// Of a labelled disc.
const RADIUS: f64 = 8.5;
/// Characters of 12 px that fit beside a legend mark; wide letters included.
const LEGEND_CHARACTERS: usize = 39;

pub(super) fn document(charts: &[Chart]) -> Result<String, PlotError> {
    let title = charts.iter().map(|chart| chart.title.as_str()).collect::<Vec<_>>().join("; ");
    let panels = charts.iter().map(Panel::new).collect::<Result<Vec<_>, _>>()?;
    let width = panels.iter().map(Panel::width).fold(0.0, f64::max);
    let mut svg = Svg::new(width, panels.iter().map(Panel::height).sum(), &title);
    let mut top = 0.0;
    for (i, panel) in panels.iter().enumerate() {
        panel.draw(&mut svg, i, top);
        top += panel.height();
    }
    Ok(svg.finish())
}

/// The rectangle of a plot, without what stands around it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Frame {
    pub(super) left: f64,
    pub(super) top: f64,
    pub(super) width: f64,
    pub(super) height: f64,
}

impl Frame {
    pub(super) fn bottom(&self) -> f64 {
        self.top + self.height
    }

    /// A line across and, where it is named, its text below.
    pub(super) fn draw_x_tick(&self, svg: &mut Svg, span: &Span, tick: &Tick) {
        let x = self.left + span.place(tick.value) * self.width;
        svg.line(grid_class(tick), (x, self.top), (x, self.bottom()));
        if let Some(text) = &tick.text {
            svg.text("muted small", (x, self.bottom() + 18.0), Anchor::Middle, text);
        }
    }

    /// A line across and, where it is named, its text on the left.
    pub(super) fn draw_y_tick(&self, svg: &mut Svg, span: &Span, tick: &Tick) {
        let y = self.top + (1.0 - span.place(tick.value)) * self.height;
        svg.line(grid_class(tick), (self.left, y), (self.left + self.width, y));
        if let Some(text) = &tick.text {
            svg.text("muted small", (self.left - 8.0, y + 4.0), Anchor::End, text);
        }
    }

    pub(super) fn draw_border(&self, svg: &mut Svg, x: &Axis, y: &Axis) {
        let (right, bottom) = (self.left + self.width, self.bottom());
        svg.polyline("frame", &[(self.left, self.top), (self.left, bottom), (right, bottom)]);
        svg.text("ink", (self.left + self.width / 2.0, bottom + 42.0), Anchor::Middle, &x.label);
        svg.upward_text("ink", (16.0, self.top + self.height / 2.0), &shortened(&y.label));
    }
}

fn grid_class(tick: &Tick) -> &'static str {
    if tick.text.is_some() { "grid" } else { "grid minor" }
}

/// Room on the left for the label of an axis and the texts of its ticks.
pub(super) fn room_for(axis: &Axis) -> f64 {
    let longest = axis.names.iter().map(|name| name.chars().count().min(LONGEST_NAME)).max().unwrap_or(0);
    LEFT.max(40.0 + longest as f64 * LETTER)
}

/// A chart and what its axes span.
pub(super) struct Panel<'a> {
    chart: &'a Chart,
    pub(super) x: Span,
    pub(super) y: Span,
    legend: Vec<LegendLine<'a>>,
}

/// A line of the legend; its mark stands beside the first line of a text.
struct LegendLine<'a> {
    mark: Option<&'a Series>,
    text: String,
    class: &'static str,
}

impl<'a> Panel<'a> {
    pub(super) fn new(chart: &'a Chart) -> Result<Panel<'a>, PlotError> {
        for series in &chart.series {
            for &(x, y) in &series.points {
                check(chart, series, "x", &chart.x, x)?;
                check(chart, series, "y", &chart.y, y)?;
            }
        }
        let empty = || PlotError::Empty { chart: chart.title.clone() };
        let points = || chart.series.iter().flat_map(|series| &series.points);
        points().next().ok_or_else(empty)?;
        let x = chart.x.span(points().map(|p| p.0)).ok_or_else(empty)?;
        let y = chart.y.span(points().map(|p| p.1)).ok_or_else(empty)?;
        Ok(Panel { chart, x, y, legend: legend(chart) })
    }

    fn width(&self) -> f64 {
        room_for(&self.chart.y) + PLOT_WIDTH + LEGEND_WIDTH
    }

    fn height(&self) -> f64 {
        let height = TOP + PLOT_HEIGHT + FOOT;
        height.max(TOP + self.legend.len() as f64 * LINE_HEIGHT + 40.0)
    }

    fn draw(&self, svg: &mut Svg, index: usize, top: f64) {
        let left = room_for(&self.chart.y);
        let frame = Frame { left, top: top + TOP, width: PLOT_WIDTH, height: PLOT_HEIGHT };
        svg.text("ink title", (LEFT, top + 30.0), Anchor::Start, &self.chart.title);
        svg.text("muted small", (LEFT, top + 50.0), Anchor::Start, &self.chart.subtitle);
        for tick in self.chart.x.ticks(&self.x) {
            frame.draw_x_tick(svg, &self.x, &tick);
        }
        for tick in self.chart.y.ticks(&self.y) {
            frame.draw_y_tick(svg, &self.y, &tick);
        }
        frame.draw_border(svg, &self.chart.x, &self.chart.y);
        svg.begin_clipped(&format!("plot{index}"), (left, frame.top), PLOT_WIDTH, PLOT_HEIGHT);
        for series in &self.chart.series {
            self.draw_lines(svg, &frame, series);
        }
        svg.end_group();
        self.draw_discs(svg, &frame);
        for note in &self.chart.notes {
            self.draw_note(svg, &frame, note);
        }
        self.draw_legend(svg, &frame);
    }

    pub(super) fn place(&self, frame: &Frame, (x, y): (f64, f64)) -> (f64, f64) {
        let down = 1.0 - self.y.place(y);
        (frame.left + self.x.place(x) * frame.width, frame.top + down * frame.height)
    }

    pub(super) fn draw_lines(&self, svg: &mut Svg, frame: &Frame, series: &Series) {
        let places: Vec<(f64, f64)> = series.points.iter().map(|p| self.place(frame, *p)).collect();
        let color = color(series.color);
        match series.mark {
            Mark::Line => svg.polyline(&format!("s {color}"), &places),
            Mark::Dashed => svg.polyline(&format!("s dashed {color}"), &places),
            Mark::Band => svg.polygon(&format!("f band {color}"), &places),
            Mark::Whiskers => {
                for ends in places.chunks_exact(2) {
                    svg.line(&format!("s whisker {color}"), ends[0], ends[1]);
                }
            }
            Mark::Dots | Mark::Rings | Mark::Labelled(_) => {}
        }
    }

    /// Dots and labelled discs. A disc that would cover another moves aside and keeps a thread to its point.
    fn draw_discs(&self, svg: &mut Svg, frame: &Frame) {
        let mut taken: Vec<(f64, f64)> = Vec::new();
        for series in &self.chart.series {
            let places = series.points.iter().map(|point| self.place(frame, *point));
            match &series.mark {
                Mark::Dots => places.for_each(|place| svg.dot(series.color, place)),
                Mark::Rings => places.for_each(|place| svg.ring(series.color, place)),
                Mark::Labelled(text) => {
                    for place in places {
                        let aside = free_place(place, &taken);
                        if aside != place {
                            let end = edge_towards(place, aside, &taken);
                            svg.line(&format!("s thread {}", color(series.color)), end, aside);
                        }
                        taken.extend([place, aside]);
                        disc(svg, aside, series.color, text);
                    }
                }
                Mark::Line | Mark::Dashed | Mark::Band | Mark::Whiskers => {}
            }
        }
    }

    fn draw_note(&self, svg: &mut Svg, frame: &Frame, note: &Note) {
        let (x, y) = self.place(frame, note.at);
        let (place, anchor) = match note.side {
            Side::AboveRight => ((x + 6.0, y - 7.0), Anchor::Start),
            Side::AboveLeft => ((x - 6.0, y - 12.0), Anchor::End),
            Side::BelowRight => ((x + 6.0, y + 17.0), Anchor::Start),
        };
        // The paper's colour around the letters keeps lines from running through them.
        svg.text("halo small", place, anchor, &note.text);
        svg.text(&format!("f {} small", color(note.color)), place, anchor, &note.text);
    }

    fn draw_legend(&self, svg: &mut Svg, frame: &Frame) {
        let legend = frame.left + frame.width + 26.0;
        for (i, line) in self.legend.iter().enumerate() {
            let y = frame.top + 10.0 + i as f64 * LINE_HEIGHT;
            if let Some(series) = line.mark {
                legend_mark(svg, (legend + 11.0, y - 4.0), series);
            }
            let indent = if line.class.starts_with("ink") { 30.0 } else { 0.0 };
            svg.text(line.class, (legend + indent, y), Anchor::Start, &line.text);
        }
    }
}

fn check(
    chart: &Chart,
    series: &Series,
    name: &'static str,
    axis: &Axis,
    value: f64,
) -> Result<(), PlotError> {
    if axis.scale.can_show(value) {
        return Ok(());
    }
    Err(PlotError::Coordinate {
        chart: chart.title.clone(),
        series: series.name.clone(),
        axis: name,
        value,
        scale: axis.scale.name(),
    })
}

fn legend(chart: &Chart) -> Vec<LegendLine<'_>> {
    let mut lines = Vec::new();
    for series in chart.series.iter().filter(|series| !series.name.is_empty()) {
        for (i, text) in wrap(&series.name, LEGEND_CHARACTERS).into_iter().enumerate() {
            lines.push(LegendLine { mark: (i == 0).then_some(series), text, class: "ink small" });
        }
    }
    for remark in &chart.remarks {
        lines.push(LegendLine { mark: None, text: String::new(), class: "muted small" });
        for text in wrap(remark, LEGEND_CHARACTERS + 4) {
            lines.push(LegendLine { mark: None, text, class: "muted small" });
        }
    }
    lines
}

pub(super) fn legend_mark(svg: &mut Svg, (x, y): (f64, f64), series: &Series) {
    let color = color(series.color);
    let (from, to) = ((x - 11.0, y), (x + 11.0, y));
    match &series.mark {
        Mark::Line => svg.line(&format!("s {color}"), from, to),
        Mark::Dashed => svg.line(&format!("s dashed {color}"), from, to),
        Mark::Whiskers => svg.line(&format!("s whisker {color}"), from, to),
        Mark::Dots => svg.dot(series.color, (x, y)),
        Mark::Rings => svg.ring(series.color, (x, y)),
        Mark::Band => {
            let corners =
                [(x - 11.0, y - 5.0), (x + 11.0, y - 5.0), (x + 11.0, y + 5.0), (x - 11.0, y + 5.0)];
            svg.polygon(&format!("f band {color}"), &corners);
        }
        Mark::Labelled(text) => disc(svg, (x, y), series.color, text),
    }
}

fn disc(svg: &mut Svg, (x, y): (f64, f64), number: usize, text: &str) {
    svg.circle(&format!("f {}", color(number)), (x, y), RADIUS);
    svg.text("on number", (x, y + 4.0), Anchor::Middle, text);
}

/// Where a disc stands that belongs to `place`: there, or on a growing circle around it, first up and to the left,
/// where a roofline leaves room.
fn free_place(place: (f64, f64), taken: &[(f64, f64)]) -> (f64, f64) {
    const APART: f64 = 18.0;
    let is_free = |(x, y): (f64, f64)| taken.iter().all(|t| (t.0 - x).hypot(t.1 - y) >= APART);
    let around = |ring: i32, turn: i32| {
        let (radius, angle) = (f64::from(ring) * 20.0, f64::from(135 + turn * 40).to_radians());
        (place.0 + radius * angle.cos(), place.1 - radius * angle.sin())
    };
    let rings = (1..4).flat_map(|ring| [0, 1, -1, 2, -2, 3, -3, 4, -4].map(|turn| around(ring, turn)));
    std::iter::once(place).chain(rings).find(|p| is_free(*p)).unwrap_or(place)
}

/// Where a thread from a disc at `aside` to its point ends: there, or at the edge of a disc that covers the point.
fn edge_towards(place: (f64, f64), aside: (f64, f64), taken: &[(f64, f64)]) -> (f64, f64) {
    let Some(disc) = taken.iter().find(|t| (t.0 - place.0).hypot(t.1 - place.1) < RADIUS) else {
        return place;
    };
    let (dx, dy) = (aside.0 - disc.0, aside.1 - disc.1);
    let scale = RADIUS / dx.hypot(dy);
    (disc.0 + dx * scale, disc.1 + dy * scale)
}

/// Words in lines of at most `characters`; a longer word keeps a line of its own.
pub(super) fn wrap(text: &str, characters: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= characters => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_string()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn discs_never_cover_one_another() {
        let mut taken: Vec<(f64, f64)> = Vec::new();
        for _ in 0..8 {
            let free = free_place((100.0, 100.0), &taken);
            assert!(
                taken.iter().all(|t| (t.0 - free.0).hypot(t.1 - free.1) >= 18.0),
                "{free:?} in {taken:?}"
            );
            taken.push(free);
        }
    }

    #[test]
    fn long_names_wrap_between_words() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("incomprehensibilities x", 5), ["incomprehensibilities", "x"]);
        assert_eq!(wrap("a 1\u{a0}%", 4), ["a", "1\u{a0}%"]);
        assert!(wrap("", 5).is_empty());
    }
}
