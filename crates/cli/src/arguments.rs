//! Arguments that several commands share.

use clap::Args;
use roofline_kernels::physical_cores;

use crate::failure::Failure;
use crate::output::Format;

/// How many threads work.
#[derive(Debug, Clone, Default, Args)]
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
            None => Ok(physical_cores()),
            Some(n) if (1..=MOST_THREADS).contains(&n) => Ok(n),
            Some(n) => Err(Failure::new(format_args!("--threads {n} is not between 1 and {MOST_THREADS}"))
                .hint("leave it out to use the physical cores")),
        }
    }
}

/// How facts are printed.
#[derive(Debug, Clone, Args)]
pub struct Print {
    /// How to print
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// Short for --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
}

impl Print {
    pub fn format(&self) -> Format {
        if self.json { Format::Json } else { self.format }
    }
}
