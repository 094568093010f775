//! A page as one HTML file: nothing is fetched, nothing but its own style and script runs, every text of a row is text.

use std::fmt::Write;

use super::csv::{plot_csv, stack_csv};
use super::digest::sha256_base64;
use super::page::{Block, Line, Page, Panel, Plot, Section, StackPlot, Table, TableRow};
use crate::error::LabError;
use crate::plot::{COLORS, escape, inline, part_swatch, swatch};

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");
/// Heights of plots, in pixels of their own.
const MAIN: f64 = 320.0;
const RESIDUALS: f64 = 110.0;

/// The file.
///
/// # Errors
/// A number that no axis can show.
pub(super) fn html(page: &Page) -> Result<String, LabError> {
    let style = style();
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; base-uri 'none'; form-action 'none'",
        sha256_base64(&style),
        sha256_base64(SCRIPT)
    );
    let mut out = Out::default();
    let title = escape(&page.title);
    out.add(format_args!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{policy}\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n<style>{style}</style>\n</head>\n\
         <body>\n<a class=\"skip\" href=\"#main\">To the content</a>\n<header>\n<h1>{title}</h1>\n\
         <button type=\"button\" id=\"theme\" title=\"light, dark, or as the system\">theme: system</button>\n</header>"
    ));
    contents(&mut out, page);
    out.add(format_args!("<main id=\"main\">"));
    if !page.warnings.is_empty() {
        out.add(format_args!(
            "<section class=\"warning\" role=\"alert\" aria-label=\"Warnings\">\n<h2>Read this first</h2>"
        ));
        list(&mut out, &page.warnings);
        out.add(format_args!("</section>"));
    }
    for section in &page.sections {
        write_section(&mut out, section)?;
    }
    out.add(format_args!("</main>\n<script>{SCRIPT}</script>\n</body>\n</html>"));
    Ok(out.0)
}

/// The style sheet with the colours of the plots.
fn style() -> String {
    let mut colors = [String::new(), String::new()];
    for (index, pair) in COLORS.iter().enumerate() {
        // Writing to a String cannot fail.
        let _ = write!(colors[0], "--c{index}:{};", pair.0);
        let _ = write!(colors[1], "--c{index}:{};", pair.1);
    }
    STYLE.replace("/*light*/", &colors[0]).replace("/*dark*/", &colors[1])
}

#[derive(Default)]
struct Out(String);

impl Out {
    fn add(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "{text}");
    }
}

fn contents(out: &mut Out, page: &Page) {
    out.add(format_args!("<nav aria-label=\"Contents\"><ul>"));
    for section in &page.sections {
        out.add(format_args!("<li><a href=\"#{}\">{}</a></li>", section.id, escape(&section.title)));
    }
    out.add(format_args!("</ul></nav>"));
}

fn write_section(out: &mut Out, section: &Section) -> Result<(), LabError> {
    out.add(format_args!("<section id=\"{}\">\n<h2>{}</h2>", section.id, escape(&section.title)));
    for block in &section.blocks {
        match block {
            Block::Text(text) => out.add(format_args!("<p>{}</p>", escape(text))),
            Block::Heading(text) => out.add(format_args!("<h3>{}</h3>", escape(text))),
            Block::Command(text) => {
                out.add(format_args!(
                    "<pre class=\"command\" tabindex=\"0\"><code>{}</code></pre>",
                    escape(text)
                ));
            }
            Block::List(lines) => list(out, lines),
            Block::Definitions(words) => definitions(out, words),
            Block::Table(of) => table(out, of),
            Block::Folded(of) => {
                out.add(format_args!("<details>\n<summary>{}</summary>", escape(&of.caption)));
                table(out, of);
                out.add(format_args!("</details>"));
            }
            Block::Plot(of) => plot(out, of)?,
            Block::Stack(of) => stack(out, of)?,
        }
    }
    out.add(format_args!("</section>"));
    Ok(())
}

fn list(out: &mut Out, lines: &[Line]) {
    out.add(format_args!("<ul class=\"sentences\">"));
    for line in lines {
        let link = |(text, row): &(String, String)| {
            format!(" <a class=\"row\" href=\"#{row}\">{}</a>", escape(text))
        };
        let links: String = line.links.iter().map(link).collect();
        out.add(format_args!("<li>{}{links}</li>", escape(&line.text)));
    }
    out.add(format_args!("</ul>"));
}

fn definitions(out: &mut Out, words: &[(String, String)]) {
    out.add(format_args!("<dl>"));
    for (word, meaning) in words {
        out.add(format_args!("<dt>{}</dt><dd>{}</dd>", escape(word), escape(meaning)));
    }
    out.add(format_args!("</dl>"));
}

fn table(out: &mut Out, table: &Table) {
    out.add(format_args!(
        "<div class=\"table\" tabindex=\"0\" role=\"region\" aria-label=\"{0}\"><table>\n<caption>{0}</caption>\n<thead><tr>",
        escape(&table.caption)
    ));
    for (name, is_number) in &table.columns {
        let class = if *is_number { " class=\"number\"" } else { "" };
        out.add(format_args!("<th scope=\"col\"{class}>{}</th>", escape(name)));
    }
    out.add(format_args!("</tr></thead>\n<tbody>"));
    for row in &table.rows {
        table_row(out, row, table);
    }
    out.add(format_args!("</tbody></table></div>"));
}

fn table_row(out: &mut Out, row: &TableRow, table: &Table) {
    let id = if row.id.is_empty() { String::new() } else { format!(" id=\"{}\"", row.id) };
    let class = if row.muted { " class=\"muted\"" } else { "" };
    let mut text = format!("<tr{id}{class}>");
    for (cell, (_, is_number)) in row.cells.iter().zip(&table.columns) {
        let class = if *is_number { " class=\"number\"" } else { "" };
        let title =
            if cell.exact.is_empty() { String::new() } else { format!(" title=\"{}\"", escape(&cell.exact)) };
        let inner = match cell.row.is_empty() {
            true => escape(&cell.text),
            false => format!("<a class=\"row\" href=\"#{}\">{}</a>", cell.row, escape(&cell.text)),
        };
        let _ = write!(text, "<td{class}{title}>{inner}</td>");
    }
    out.add(format_args!("{text}</tr>"));
}

fn plot(out: &mut Out, plot: &Plot) -> Result<(), LabError> {
    let id = &plot.id;
    let chart = &plot.main.chart;
    let main = inline(&format!("{id}-main"), chart, MAIN)?;
    let rest = match &plot.residuals {
        Some(panel) => Some(inline(&format!("{id}-rest"), &panel.chart, RESIDUALS)?),
        None => None,
    };
    out.add(format_args!("<figure class=\"plot\" id=\"{id}\">"));
    caption(out, &chart.title, &chart.subtitle);
    out.add(format_args!("<div class=\"controls\">"));
    let button = |toggle: &str, text: &str, pressed: bool| {
        format!("<button type=\"button\" data-toggle=\"{toggle}\" aria-pressed=\"{pressed}\">{text}</button>")
    };
    let is_log = |axis: &crate::plot::Axis| axis.scale == crate::plot::Scale::Log;
    if main.log_x {
        out.add(format_args!("{}", button("log-x", "x logarithmic", is_log(&chart.x))));
    }
    if main.log_y {
        out.add(format_args!("{}", button("log-y", "y logarithmic", is_log(&chart.y))));
    }
    if main.zoom {
        out.add(format_args!("{}", button("small", "small end", false)));
    }
    download(out, id, &plot_csv(plot));
    let label = format!("{}: arrow keys walk through the points, Enter goes to the row", chart.title);
    out.add(format_args!(
        "</div>\n<div class=\"canvas\" tabindex=\"0\" role=\"group\" aria-label=\"{}\">\n{}",
        escape(&label),
        main.svg.trim_end()
    ));
    if let Some(rest) = rest {
        out.add(format_args!("{}", rest.svg.trim_end()));
    }
    out.add(format_args!("<output class=\"readout\"></output>\n</div>"));
    legend(out, &plot.main);
    out.add(format_args!("</figure>"));
    Ok(())
}

fn caption(out: &mut Out, title: &str, subtitle: &str) {
    out.add(format_args!(
        "<figcaption><strong>{}</strong> <span>{}</span></figcaption>",
        escape(title),
        escape(subtitle)
    ));
}

/// A link that holds the file.
fn download(out: &mut Out, id: &str, csv: &str) {
    let mut data = String::with_capacity(csv.len() * 5 / 4);
    for byte in csv.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b',' | b'.' | b'-' | b'_' => {
                data.push(char::from(byte))
            }
            _ => {
                let _ = write!(data, "%{byte:02X}");
            }
        }
    }
    out.add(format_args!(
        "<a class=\"csv\" download=\"{id}.csv\" href=\"data:text/csv;charset=utf-8,{data}\">CSV of what is drawn</a>"
    ));
}

fn legend(out: &mut Out, panel: &Panel) {
    out.add(format_args!("<ul class=\"legend\" aria-label=\"Legend: each entry shows or hides its marks\">"));
    for (index, series) in panel.chart.series.iter().enumerate() {
        entry(out, index, &swatch(series), &series.name);
    }
    out.add(format_args!("</ul>"));
}

fn entry(out: &mut Out, index: usize, swatch: &str, name: &str) {
    out.add(format_args!(
        "<li><button type=\"button\" data-series=\"{index}\" aria-pressed=\"true\">{}<span>{}</span></button></li>",
        swatch.trim_end(),
        escape(name)
    ));
}

fn stack(out: &mut Out, plot: &StackPlot) -> Result<(), LabError> {
    let id = &plot.id;
    let absolute = plot.stack.inline(&format!("{id}-absolute"))?;
    let shares = plot.stack.shares().inline(&format!("{id}-shares"))?;
    out.add(format_args!("<figure class=\"stack\" id=\"{id}\">"));
    caption(out, &plot.stack.title, &plot.stack.subtitle);
    out.add(format_args!(
        "<div class=\"controls\">\n<button type=\"button\" data-toggle=\"share\" aria-pressed=\"false\">as 100 %</button>"
    ));
    download(out, id, &stack_csv(plot));
    let label = format!("{}: arrow keys walk through the parts, Enter goes to the row", plot.stack.title);
    out.add(format_args!(
        "</div>\n<div class=\"canvas\" tabindex=\"0\" role=\"group\" aria-label=\"{}\">\n<div data-mode=\"absolute\">\n{}\n</div>\n\
         <div data-mode=\"share\" class=\"off\">\n{}\n</div>\n<output class=\"readout\"></output>\n</div>\n\
         <ul class=\"legend\" aria-label=\"Legend: each entry shows or hides its part\">",
        escape(&label),
        absolute.trim_end(),
        shares.trim_end()
    ));
    for (index, part) in plot.stack.parts.iter().enumerate() {
        entry(out, index, &part_swatch(index), part);
    }
    out.add(format_args!("</ul>\n</figure>"));
    Ok(())
}
