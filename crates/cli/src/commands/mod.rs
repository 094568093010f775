//! One file per command.

mod devices;
mod limits;
mod machine;

use clap::Subcommand;

use crate::failure::Failure;

/// What the program can be asked to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    Machine(machine::Machine),
    Devices(devices::Devices),
    Limits(Box<limits::Limits>),
}

impl Command {
    /// Does it.
    pub fn run(self) -> Result<(), Failure> {
        match self {
            Command::Machine(command) => command.run(),
            Command::Devices(command) => command.run(),
            Command::Limits(command) => command.run(),
        }
    }
}
