//! What commands print on stdout. A reader who leaves early (`| head`) ends the program quietly.

mod table;
mod whole_file;

use std::fmt::Arguments;
use std::io::{self, Write};

use clap::ValueEnum;
use serde::Serialize;

use crate::failure::Failure;

pub use table::{Align, Table, csv_line};
pub use whole_file::WholeFile;

/// Something under a title.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// One line; none when empty.
    pub title: String,
    /// What stands below it.
    pub body: Body,
}

/// What stands below a title.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    Table(Table),
    /// Each with lines that belong to it.
    Items(Vec<(String, Vec<String>)>),
}

/// Sections below one another, for a terminal or a document.
pub fn sections(sections: &[Section], format: Format) -> String {
    let texts: Vec<String> = sections.iter().map(|section| section.to_text(format)).collect();
    texts.join("\n")
}

impl Section {
    /// A table under a title.
    pub fn table(title: impl Into<String>, table: Table) -> Section {
        Section { title: title.into(), body: Body::Table(table) }
    }

    /// A list under a title.
    pub fn items(title: impl Into<String>, items: Vec<(String, Vec<String>)>) -> Section {
        Section { title: title.into(), body: Body::Items(items) }
    }

    fn to_text(&self, format: Format) -> String {
        let markdown = format == Format::Markdown;
        let body = match &self.body {
            Body::Table(table) if markdown => table.to_markdown(),
            Body::Table(table) => table.to_text(),
            Body::Items(items) => items.iter().map(|item| item_text(item, markdown)).collect(),
        };
        match (self.title.is_empty(), markdown) {
            (true, _) => body,
            (false, true) => format!("### {}\n\n{body}", self.title),
            (false, false) => format!("{}\n{body}", self.title),
        }
    }
}

fn item_text((head, lines): &(String, Vec<String>), markdown: bool) -> String {
    let bullet = if markdown { "- " } else { "" };
    let indent = if markdown { "  - " } else { "    " };
    let lines: String = lines.iter().map(|line| format!("{indent}{line}\n")).collect();
    format!("{bullet}{head}\n{lines}")
}

/// How facts are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns that line up, for people.
    Table,
    /// The same for a document.
    Markdown,
    /// One object, for programs.
    Json,
    /// One figure per line with its unit, for spreadsheets.
    Csv,
}

/// Prints text as it is.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()?;
    Ok(())
}

/// Prints one JSON object and a line end.
pub fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|e| Failure::new(format_args!("cannot write this as JSON: {e}")))?;
    print(&format!("{text}\n"))
}

/// A line on stderr, as `eprintln!` writes it, but without its panic where stderr is full or closed.
macro_rules! say {
    ($($line:tt)*) => { $crate::output::to_stderr(format_args!("{}\n", format_args!($($line)*))) };
}
pub(crate) use say;

/// Says something on stderr if anyone listens; what cannot be said there can be said nowhere.
pub fn to_stderr(text: Arguments<'_>) {
    let _ = io::stderr().lock().write_fmt(text);
}
