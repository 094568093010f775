//! Bars of parts laid end to end: where the time of each thing went.

use super::PlotError;
use super::axis::{Axis, Span, shortened};
use super::draw::{FOOT, Frame, room_for, wrap};
use super::svg::{Anchor, Svg, color};

/// Bars of parts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stack {
    /// First line above it.
    pub title: String,
    /// Second line above it.
    pub subtitle: String,
    /// What the length of a part is, with its unit.
    pub label: String,
    /// Names of the parts.
    pub parts: Vec<String>,
    /// The bars.
    pub bars: Vec<Bar>,
}

/// One bar.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Bar {
    /// What stands left of it.
    pub name: String,
    /// Length of each part, none of them negative.
    pub lengths: Vec<f64>,
}

const WIDTH: f64 = 820.0;
const RIGHT: f64 = 24.0;
const BAR: f64 = 20.0;
const STEP: f64 = 30.0;
const LEGEND_WIDTH: f64 = 300.0;

impl Stack {
    /// The same with every bar 100 % long.
    pub fn shares(&self) -> Stack {
        let share = |bar: &Bar| {
            let total: f64 = bar.lengths.iter().sum();
            let lengths = bar.lengths.iter().map(|l| if total > 0.0 { 100.0 * l / total } else { 0.0 });
            Bar { name: bar.name.clone(), lengths: lengths.collect() }
        };
        Stack { label: "share (%)".into(), bars: self.bars.iter().map(share).collect(), ..self.clone() }
    }

    fn span(&self) -> Result<(Axis, Span), PlotError> {
        let ends = self.bars.iter().map(|bar| bar.lengths.iter().sum::<f64>());
        let axis = Axis { label: self.label.clone(), include: vec![0.0], ..Axis::default() };
        let bad = self.bars.iter().flat_map(|bar| &bar.lengths).find(|l| !l.is_finite() || **l < 0.0);
        if let Some(&value) = bad {
            let (chart, series) = (self.title.clone(), self.label.clone());
            return Err(PlotError::Coordinate { chart, series, axis: "x", value, scale: "linear" });
        }
        let empty = || PlotError::Empty { chart: self.title.clone() };
        if self.parts.is_empty() || self.bars.is_empty() {
            return Err(empty());
        }
        let span = axis.span(ends).ok_or_else(empty)?;
        Ok((axis, span))
    }

    /// A plot for a page, as [`inline`](super::inline()).
    ///
    /// # Errors
    /// No bars or no parts; a length that is negative or not finite.
    pub fn inline(&self, id: &str) -> Result<String, PlotError> {
        let left = self.left();
        let frame = self.frame(left, 8.0, WIDTH - left - RIGHT);
        let mut svg = Svg::inline(id, WIDTH, frame.bottom() + FOOT, &self.title, "");
        self.draw(&mut svg, &frame)?;
        Ok(svg.finish())
    }

    /// An SVG file.
    ///
    /// # Errors
    /// As [`Stack::inline`].
    pub fn render(&self) -> Result<String, PlotError> {
        let left = self.left();
        let frame = self.frame(left, 70.0, WIDTH - left - RIGHT);
        let height = frame.bottom() + FOOT;
        let mut svg =
            Svg::new(WIDTH + LEGEND_WIDTH, height.max(100.0 + 20.0 * self.parts.len() as f64), &self.title);
        svg.text("ink title", (left, 30.0), Anchor::Start, &self.title);
        svg.text("muted small", (left, 50.0), Anchor::Start, &self.subtitle);
        self.draw(&mut svg, &frame)?;
        let mut y = 80.0;
        for (part, name) in self.parts.iter().enumerate() {
            svg.rectangle(&part_class(part), (WIDTH, y - 10.0), 16.0, 12.0);
            for line in wrap(name, 38) {
                svg.text("ink small", (WIDTH + 24.0, y), Anchor::Start, &line);
                y += 18.0;
            }
        }
        Ok(svg.finish())
    }

    fn left(&self) -> f64 {
        room_for(&Axis { names: self.bars.iter().map(|bar| bar.name.clone()).collect(), ..Axis::default() })
    }

    fn frame(&self, left: f64, top: f64, width: f64) -> Frame {
        Frame { left, top, width, height: self.bars.len() as f64 * STEP + 8.0 }
    }

    fn draw(&self, svg: &mut Svg, frame: &Frame) -> Result<(), PlotError> {
        let (axis, span) = self.span()?;
        for tick in axis.ticks(&span) {
            frame.draw_x_tick(svg, &span, &tick);
        }
        let top = |bar: usize| frame.top + 4.0 + bar as f64 * STEP + (STEP - BAR) / 2.0;
        for (index, bar) in self.bars.iter().enumerate() {
            svg.text("ink small", (frame.left - 8.0, top(index) + 14.0), Anchor::End, &shortened(&bar.name));
        }
        let place = |length: f64| frame.left + span.place(length) * frame.width;
        for (index, bar) in self.bars.iter().enumerate() {
            // Pale parts let nothing through but paper.
            let end = place(bar.lengths.iter().sum());
            svg.rectangle("paper", (frame.left, top(index)), end - frame.left, BAR);
        }
        for part in 0..self.parts.len() {
            svg.begin_group(&format!("class=\"series\" data-series=\"{part}\" data-mark=\"bars\""));
            for (index, bar) in self.bars.iter().enumerate() {
                let before: f64 = bar.lengths.iter().take(part).sum();
                let length = bar.lengths.get(part).copied().unwrap_or(0.0);
                let (from, to) = (place(before), place(before + length));
                svg.rectangle(&part_class(part), (from, top(index)), to - from, BAR);
            }
            svg.end_group();
        }
        frame.draw_border(svg, &axis, &Axis::default());
        Ok(())
    }
}

/// Six colours, then the same ones paler.
fn part_class(part: usize) -> String {
    format!("f part {}{}", color(part), if part >= 6 { " pale" } else { "" })
}

/// A small picture of a part, for a legend.
pub fn part_swatch(part: usize) -> String {
    let mut svg = Svg::swatch();
    svg.rectangle(&part_class(part), (5.0, 2.0), 18.0, 12.0);
    svg.finish()
}
