//! A page as Markdown: sentences and tables; plots are files of their own.

use std::fmt::Write;

use super::csv::markdown_row;
use super::page::{Block, Line, Page, Table};

/// The text.
pub(super) fn markdown(page: &Page, pictures: Option<&str>) -> String {
    let mut out = format!("# {}\n", plain(&page.title));
    if !page.warnings.is_empty() {
        out.push_str("\n**Read this first**\n\n");
        list(&mut out, &page.warnings);
    }
    for section in &page.sections {
        // Writing to a String cannot fail.
        let _ = write!(out, "\n## {}\n", plain(&section.title));
        for block in &section.blocks {
            write_block(&mut out, block, pictures);
        }
    }
    out
}

fn write_block(out: &mut String, block: &Block, pictures: Option<&str>) {
    out.push('\n');
    match block {
        Block::Text(text) => {
            let _ = writeln!(out, "{}", plain(text));
        }
        Block::Heading(text) => {
            let _ = writeln!(out, "### {}", plain(text));
        }
        Block::Command(text) => {
            // Longer than any row of backquotes inside.
            let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
            let fence = "`".repeat(3.max(longest + 1));
            let _ = writeln!(out, "{fence}\n{text}\n{fence}");
        }
        Block::List(lines) => list(out, lines),
        Block::Definitions(words) => {
            for (word, meaning) in words {
                let _ = writeln!(out, "- **{}**: {}", plain(word), plain(meaning));
            }
        }
        Block::Table(of) | Block::Folded(of) => table(out, of),
        Block::Plot(plot) => {
            let chart = &plot.main.chart;
            picture(out, &chart.title, &plot.id, pictures);
            for remark in &chart.remarks {
                let _ = writeln!(out, "\n{}", plain(remark));
            }
        }
        Block::Stack(stack) => picture(out, &stack.stack.title, &stack.id, pictures),
    }
}

fn picture(out: &mut String, title: &str, id: &str, folder: Option<&str>) {
    let title = plain(title);
    let _ = match folder {
        // Angle brackets allow spaces in a path.
        Some(folder) => writeln!(out, "![{title}](<{folder}/{id}.svg>)"),
        None => writeln!(out, "*{title}*"),
    };
}

fn list(out: &mut String, lines: &[Line]) {
    for line in lines {
        let rows: Vec<&str> = line.links.iter().map(|(text, _)| text.as_str()).collect();
        let rows = if rows.is_empty() { String::new() } else { format!(" ({})", plain(&rows.join(", "))) };
        let _ = writeln!(out, "- {}{rows}", plain(&line.text));
    }
}

fn table(out: &mut String, table: &Table) {
    let _ = writeln!(out, "{}\n", plain(&table.caption));
    out.push_str(&markdown_row(table.columns.iter().map(|(name, _)| plain(name))));
    out.push_str(&markdown_row(
        table.columns.iter().map(|(_, number)| if *number { "---:" } else { "---" }.into()),
    ));
    for row in &table.rows {
        out.push_str(&markdown_row(row.cells.iter().map(|cell| plain(&cell.text))));
    }
}

/// Text that means only itself: one line, no markup, no HTML.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '|' | '#' => {
                plain.push('\\');
                plain.push(c);
            }
            c if c.is_control() => plain.push(' '),
            c => plain.push(c),
        }
    }
    plain
}
