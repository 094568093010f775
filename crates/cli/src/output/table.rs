//! Tables whose columns line up.

use comfy_table::presets::NOTHING;
use comfy_table::{Cell, CellAlignment, LineStyle, Table as Grid};

/// Where the text of a column stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// Named columns and rows of text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    columns: Vec<(String, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table with these columns.
    pub fn new(columns: &[(&str, Align)]) -> Table {
        Table {
            columns: columns.iter().map(|(name, align)| (name.to_string(), *align)).collect(),
            rows: Vec::new(),
        }
    }

    /// A table of names and values, without a head.
    pub fn of_facts() -> Table {
        Table::new(&[("", Align::Left), ("", Align::Left)])
    }

    /// Adds a row; a missing cell is empty.
    pub fn row<Text: Into<String>>(&mut self, cells: impl IntoIterator<Item = Text>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    /// For a terminal: aligned, a line below the head, no frame.
    pub fn to_text(&self) -> String {
        let mut grid = Grid::new();
        grid.load_style(NOTHING.header_separator(LineStyle::none().fill('─').junction('─')));
        if self.columns.iter().any(|(name, _)| !name.is_empty()) {
            grid.set_header(self.columns.iter().map(|(name, align)| cell(name, *align)));
        }
        for row in &self.rows {
            grid.add_row(row.iter().zip(&self.columns).map(|(text, (_, align))| cell(text, *align)));
        }
        for column in grid.column_iter_mut() {
            column.set_padding((0, 1));
        }
        let lines: Vec<String> = grid.lines().map(|line| format!("{}\n", line.trim_end())).collect();
        lines.concat()
    }

    /// For a document; a table without a head gets an empty one, since Markdown knows no other.
    pub fn to_markdown(&self) -> String {
        let line = |cells: &[String]| {
            let cells: Vec<String> =
                cells.iter().map(|text| text.replace('|', "\\|").replace('\n', " ")).collect();
            format!("| {} |\n", cells.join(" | "))
        };
        let head: Vec<String> = self.columns.iter().map(|(name, _)| name.clone()).collect();
        let rule = |align: &Align| if *align == Align::Right { "---:" } else { "---" }.to_string();
        let rules: Vec<String> = self.columns.iter().map(|(_, align)| rule(align)).collect();
        let rows: Vec<String> = self.rows.iter().map(|row| line(row)).collect();
        format!("{}{}{}", line(&head), line(&rules), rows.concat())
    }
}

/// One line of comma-separated values (RFC 4180).
pub fn csv_line(cells: &[&str]) -> String {
    let quoted = |cell: &&str| {
        if cell.contains([',', '"', '\n', '\r']) {
            format!("\"{}\"", cell.replace('"', "\"\""))
        } else {
            cell.to_string()
        }
    };
    let cells: Vec<String> = cells.iter().map(quoted).collect();
    format!("{}\n", cells.join(","))
}

fn cell(text: &str, align: Align) -> Cell {
    Cell::new(text).set_alignment(match align {
        Align::Left => CellAlignment::Left,
        Align::Right => CellAlignment::Right,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&[("name", Align::Left), ("rate", Align::Right)]);
        table.row(["read µ", "30.2 GB/s"]);
        table.row(["f32", "1 B/s"]);
        let text = table.to_text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines,
            ["name         rate", "──────────────────", "read µ  30.2 GB/s", "f32         1 B/s"]
        );
    }

    #[test]
    fn separators_inside_of_cells_are_escaped() {
        let mut table = Table::new(&[("a", Align::Left), ("b", Align::Right)]);
        table.row(["x|y", "1"]);
        assert_eq!(table.to_markdown(), "| a | b |\n| --- | ---: |\n| x\\|y | 1 |\n");
        assert_eq!(csv_line(&["a,b", "say \"x\"", "1"]), "\"a,b\",\"say \"\"x\"\"\",1\n");
    }

    #[test]
    fn facts_have_no_head() {
        let mut table = Table::of_facts();
        table.row(["cores", "2"]);
        assert_eq!(table.to_text(), "cores  2\n");
    }
}
