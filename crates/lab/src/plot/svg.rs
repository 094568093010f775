//! Writing SVG: numbers, escapes, elements and the one style sheet.

use std::fmt::Write;

/// Colours for light and dark backgrounds; contrast with either is at least 4.5 : 1. The first five stay apart under
/// simulated protanopia, deuteranopia and tritanopia (Machado 2009: at least 15 in CIE Lab); dots differ in shape too.
pub(crate) const COLORS: [(&str, &str); 6] = [
    ("#1f6fd0", "#4f9bff"),
    ("#a83f00", "#ff9a4d"),
    ("#00463a", "#a7f3d0"),
    ("#c2297f", "#ff5fa2"),
    ("#2b0f66", "#fff3a0"),
    ("#57606a", "#a8b3bf"),
];

/// Outlines of dots around (0, 0), about equal in area: disc, square, triangle, diamond, triangle on its head, cross.
const SHAPES: [&str; 6] = [
    "M-2.9 0a2.9 2.9 0 1 0 5.8 0a2.9 2.9 0 1 0 -5.8 0z",
    "M-2.6 -2.6h5.2v5.2h-5.2z",
    "M0 -3.8L3.5 2.5H-3.5z",
    "M0 -3.8L3.8 0L0 3.8L-3.8 0z",
    "M0 3.8L3.5 -2.5H-3.5z",
    "M-1.1 -3.6h2.2v2.5h2.5v2.2h-2.5v2.5h-2.2v-2.5h-2.5v-2.2h2.5z",
];

/// Number of the muted colour.
pub(crate) const GREY: usize = 5;

/// A growing SVG text.
#[derive(Debug)]
pub(super) struct Svg {
    text: String,
}

/// Where a text stands relative to its point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

impl Svg {
    pub(super) fn new(width: f64, height: f64, title: &str) -> Svg {
        let (w, h) = (number(width), number(height));
        let mut text = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{w}\" height=\"{h}\" viewBox=\"0 0 {w} {h}\" role=\"img\">\n\
             <title>{}</title>\n",
            escape(title)
        );
        text.push_str(&style());
        text.push_str("<rect class=\"paper\" width=\"100%\" height=\"100%\"/>\n");
        Svg { text }
    }

    /// For a page that brings the style sheet; nothing but `content` in it yet.
    pub(super) fn inline(id: &str, width: f64, height: f64, title: &str, data: &str) -> Svg {
        let (w, h) = (number(width), number(height));
        Svg {
            text: format!(
                "<svg class=\"chart\" id=\"{id}\" viewBox=\"0 0 {w} {h}\" role=\"img\" aria-labelledby=\"{id}-title\" {data}>\n\
                 <title id=\"{id}-title\">{}</title>\n",
                escape(title)
            ),
        }
    }

    /// A small picture beside a text.
    pub(super) fn swatch() -> Svg {
        let text =
            "<svg class=\"swatch\" viewBox=\"0 0 28 16\" width=\"28\" height=\"16\" aria-hidden=\"true\">\n"
                .to_string();
        Svg { text }
    }

    pub(super) fn finish(mut self) -> String {
        self.text.push_str("</svg>\n");
        self.text
    }

    pub(super) fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        let [x1, y1, x2, y2] = [from.0, from.1, to.0, to.1].map(number);
        self.push(format_args!("<line class=\"{class}\" x1=\"{x1}\" y1=\"{y1}\" x2=\"{x2}\" y2=\"{y2}\"/>"));
    }

    pub(super) fn polyline(&mut self, class: &str, points: &[(f64, f64)]) {
        self.push(format_args!("<polyline class=\"{class}\" points=\"{}\"/>", coordinates(points)));
    }

    pub(super) fn polygon(&mut self, class: &str, points: &[(f64, f64)]) {
        self.push(format_args!("<polygon class=\"{class}\" points=\"{}\"/>", coordinates(points)));
    }

    pub(super) fn circle(&mut self, class: &str, center: (f64, f64), radius: f64) {
        let [x, y, r] = [center.0, center.1, radius].map(number);
        self.push(format_args!("<circle class=\"{class}\" cx=\"{x}\" cy=\"{y}\" r=\"{r}\"/>"));
    }

    /// A point, in the colour's own shape.
    pub(super) fn dot(&mut self, number_of_color: usize, at: (f64, f64)) {
        let [x, y] = [at.0, at.1].map(number);
        let shape = SHAPES[number_of_color % SHAPES.len()];
        let color = color(number_of_color);
        self.push(format_args!(
            "<path class=\"f dot {color}\" transform=\"translate({x} {y})\" d=\"{shape}\"/>"
        ));
    }

    /// A circle around a point.
    pub(super) fn ring(&mut self, number_of_color: usize, at: (f64, f64)) {
        let [x, y] = [at.0, at.1].map(number);
        let color = color(number_of_color);
        self.push(format_args!("<circle class=\"s {color}\" transform=\"translate({x} {y})\" r=\"6.5\"/>"));
    }

    pub(super) fn rectangle(&mut self, class: &str, corner: (f64, f64), width: f64, height: f64) {
        let [x, y, w, h] = [corner.0, corner.1, width, height].map(number);
        self.push(format_args!("<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{w}\" height=\"{h}\"/>"));
    }

    pub(super) fn text(&mut self, class: &str, at: (f64, f64), anchor: Anchor, text: &str) {
        let [x, y] = [at.0, at.1].map(number);
        let anchor = anchor.attribute();
        self.push(format_args!(
            "<text class=\"{class}\" x=\"{x}\" y=\"{y}\"{anchor}>{}</text>",
            escape(text)
        ));
    }

    /// Text that reads upwards.
    pub(super) fn upward_text(&mut self, class: &str, at: (f64, f64), text: &str) {
        let [x, y] = [at.0, at.1].map(number);
        let text = escape(text);
        self.push(format_args!(
            "<text class=\"{class}\" transform=\"translate({x} {y}) rotate(-90)\" text-anchor=\"middle\">{text}</text>"
        ));
    }

    /// Everything until [`Svg::end_group`] is cut at this rectangle.
    pub(super) fn begin_clipped(&mut self, id: &str, corner: (f64, f64), width: f64, height: f64) {
        let [x, y, w, h] = [corner.0, corner.1, width, height].map(number);
        self.push(format_args!(
            "<clipPath id=\"{id}\"><rect x=\"{x}\" y=\"{y}\" width=\"{w}\" height=\"{h}\"/></clipPath>\n\
             <g clip-path=\"url(#{id})\">"
        ));
    }

    /// Everything until [`Svg::end_group`] shares these attributes, which are not escaped.
    pub(super) fn begin_group(&mut self, attributes: &str) {
        self.push(format_args!("<g {attributes}>"));
    }

    pub(super) fn end_group(&mut self) {
        self.push(format_args!("</g>"));
    }

    fn push(&mut self, element: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "{element}");
    }
}

impl Anchor {
    fn attribute(self) -> &'static str {
        match self {
            Anchor::Start => "",
            Anchor::Middle => " text-anchor=\"middle\"",
            Anchor::End => " text-anchor=\"end\"",
        }
    }
}

/// Class of colour `color`.
pub(super) fn color(color: usize) -> String {
    format!("c{}", color % COLORS.len())
}

/// Rules twice, once per scheme: custom properties would be shorter, and several SVG readers do not know them.
fn style() -> String {
    let scheme = |paper: &str,
                  ink: &str,
                  muted: &str,
                  grid: &str,
                  pick: fn(&(&'static str, &'static str)) -> &'static str| {
        let mut css = format!(
            ".paper{{fill:{paper}}}.ink{{fill:{ink}}}.muted{{fill:{muted}}}.grid{{stroke:{grid}}}.frame{{stroke:{muted}}}\
             .on{{fill:{paper}}}.halo{{stroke:{paper}}}.part{{stroke:{paper}}}"
        );
        for (i, pair) in COLORS.iter().enumerate() {
            let color = pick(pair);
            let _ = write!(css, ".f.c{i}{{fill:{color}}}.s.c{i}{{stroke:{color}}}");
        }
        css
    };
    format!(
        "<style>text{{font:13px system-ui,'DejaVu Sans',sans-serif}}.title{{font-size:17px;font-weight:600}}\
         .small{{font-size:12px}}.number{{font-size:11px;font-weight:600}}\
         .grid,.frame{{fill:none;stroke-width:1}}.minor{{stroke-opacity:.45}}\
         .s{{fill:none;stroke-width:2.2;stroke-linejoin:round}}.dashed{{stroke-dasharray:7 5;stroke-width:1.6}}\
         .thread{{stroke-width:1.2}}.whisker{{stroke-width:7;stroke-opacity:.35}}\
         .pale{{fill-opacity:.5}}.band{{fill-opacity:.2}}.halo{{fill:none;stroke-width:4;stroke-linejoin:round}}\n\
         {}\n@media (prefers-color-scheme:dark){{{}}}</style>\n",
        scheme("#ffffff", "#1f2328", "#57606a", "#d0d7de", |pair| pair.0),
        scheme("#0d1117", "#e6edf3", "#a8b3bf", "#30363d", |pair| pair.1),
    )
}

fn coordinates(points: &[(f64, f64)]) -> String {
    let pairs: Vec<String> = points.iter().map(|p| format!("{},{}", number(p.0), number(p.1))).collect();
    pairs.join(" ")
}

/// At most two decimals, no trailing zeros, no negative zero.
pub(super) fn number(x: f64) -> String {
    let text = format!("{x:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_string() } else { text.to_string() }
}

pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            // XML 1.0 has no way to write most control characters.
            c if c.is_control() => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (x, text) in
            [(1.0, "1"), (0.125, "0.12"), (-0.001, "0"), (10.0, "10"), (2.50, "2.5"), (-3.25, "-3.25")]
        {
            assert_eq!(number(x), text);
        }
    }

    #[test]
    fn names_cannot_break_the_file() {
        let mut svg = Svg::new(1.0, 1.0, "<&\">\u{0}");
        svg.text("ink", (0.0, 0.0), Anchor::End, "</text><script>");
        let text = svg.finish();
        assert!(text.contains("<title>&lt;&amp;&quot;&gt;\u{fffd}</title>"));
        assert!(text.contains(">&lt;/text&gt;&lt;script&gt;</text>"));
        assert!(!text.contains("<script>"));
    }
}
