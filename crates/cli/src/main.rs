//! `roofline`: runs a language model, says how fast physics would let it run, and shows where the time went.
#![forbid(unsafe_code)]
// They panic where the stream is full or closed; `output` has ways that do not.
#![warn(clippy::print_stdout, clippy::print_stderr)]

mod arguments;
mod commands;
mod devices;
mod failure;
mod interrupt;
mod model;
mod output;
mod record;
mod roof;
mod sampling;

use std::process::ExitCode;

use clap::Parser;

use commands::Command;
use failure::Failure;

/// Runs a language model on this machine, says how fast physics would let it run, and shows where the time went.
#[derive(Debug, Parser)]
#[command(name = "roofline", version = roofline_lab::environment::VERSION, max_term_width = 110)]
#[command(
    after_help = "Example:\n  roofline machine    measure this machine, once\n\nEvery command explains itself: roofline COMMAND --help"
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

fn main() -> ExitCode {
    let result = match Cli::try_parse() {
        Ok(Cli { command: Some(command) }) => command.run(),
        Ok(Cli { command: None }) => commands::tour::run(),
        Err(error) => Failure::from_arguments(&error),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
