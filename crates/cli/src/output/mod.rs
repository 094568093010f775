//! What commands print on stdout. A reader who leaves early (`| head`) ends the program quietly.

mod table;

use std::io::{self, Write};

use serde::Serialize;

use crate::failure::Failure;

pub use table::{Align, Table};

/// How facts are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Columns that line up, for people.
    Table,
    /// One object, for programs.
    Json,
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
