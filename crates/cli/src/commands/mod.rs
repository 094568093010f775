//! One file per command.

mod bench;
mod chat;
mod compare;
mod devices;
mod experiment;
mod inspect;
mod limits;
mod logits;
mod machine;
mod ppl;
mod pull;
mod quantize;
mod report;
mod run;
mod synth;
mod tokenize;
pub mod tour;

use clap::Subcommand;

use crate::failure::Failure;

/// What the program can be asked to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    Run(Box<run::Run>),
    Chat(Box<chat::Chat>),
    Logits(logits::Logits),
    Tokenize(tokenize::Tokenize),
    Inspect(inspect::Inspect),
    Machine(machine::Machine),
    Devices(devices::Devices),
    Limits(Box<limits::Limits>),
    Bench(bench::Bench),
    Ppl(Box<ppl::Ppl>),
    Experiment(experiment::Experiment),
    Pull(pull::Pull),
    Quantize(quantize::Quantize),
    Report(report::Report),
    Compare(Box<compare::Compare>),
    Synth(synth::Synth),
}

impl Command {
    /// Does it.
    pub fn run(self) -> Result<(), Failure> {
        match self {
            Command::Run(command) => command.run(),
            Command::Chat(command) => command.run(),
            Command::Logits(command) => command.run(),
            Command::Tokenize(command) => command.run(),
            Command::Inspect(command) => command.run(),
            Command::Machine(command) => command.run(),
            Command::Devices(command) => command.run(),
            Command::Limits(command) => command.run(),
            Command::Bench(command) => command.run(),
            Command::Ppl(command) => command.run(),
            Command::Experiment(command) => command.run(),
            Command::Pull(command) => command.run(),
            Command::Quantize(command) => command.run(),
            Command::Report(command) => command.run(),
            Command::Compare(command) => command.run(),
            Command::Synth(command) => command.run(),
        }
    }
}
