//! Arguments that several commands share.

use clap::{Args, ValueEnum};
use roofline_lab::environment::default_threads;

use crate::failure::Failure;
use crate::output::Format;

/// How many threads work.
#[derive(Debug, Clone, Args)]
pub struct Threads {
    /// Threads that work [default: physical cores]
    #[arg(long = "threads", value_name = "N")]
    threads: Option<usize>,
}

/// More threads than any machine has cores; a typing error.
const MOST_THREADS: usize = 4096;

impl Threads {
    /// What was asked for, or the physical cores.
    pub fn count(&self) -> Result<usize, Failure> {
        match self.threads {
            None => Ok(default_threads()),
            Some(n) if (1..=MOST_THREADS).contains(&n) => Ok(n),
            Some(n) => Err(Failure::new(format_args!("--threads {n} is not between 1 and {MOST_THREADS}"))
                .hint("leave it out to use the physical cores")),
        }
    }
}

/// Table for people or JSON for programs.
#[derive(Debug, Clone, Args)]
pub struct TableOrJson {
    /// How to print
    #[arg(long, value_enum, default_value = "table")]
    format: TableOrJsonFormat,
    /// Short for --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum TableOrJsonFormat {
    Table,
    Json,
}

impl TableOrJson {
    pub fn format(&self) -> Format {
        if self.json || self.format == TableOrJsonFormat::Json { Format::Json } else { Format::Table }
    }
}
