//! How the program ends when it cannot do what was asked: one line on stderr and an exit code.

use std::fmt::Display;
use std::io;
use std::process::ExitCode;

use clap::CommandFactory;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use roofline_engine::EngineError;
use roofline_engine::sampling::SamplingError;
use roofline_lab::LabError;
use roofline_limits::LimitsError;
use roofline_model::ModelError;
use roofline_weights::WeightsError;

use crate::Cli;
use crate::output::say;

/// The reader of our output is gone; there is nobody left to tell.
const NOBODY_LISTENS: u8 = 0;
const BAD_INPUT: u8 = 2;
/// 128 + SIGINT, as shells report it.
const INTERRUPTED: u8 = 130;

/// Why a command ended early.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    what: Option<String>,
    hint: Option<String>,
    status: u8,
}

impl Failure {
    /// Something the user can see and mend.
    pub fn new(what: impl Display) -> Failure {
        Failure { what: Some(what.to_string()), hint: None, status: BAD_INPUT }
    }

    /// The way out, shown in parentheses.
    pub fn hint(self, hint: impl Display) -> Failure {
        Failure { hint: Some(hint.to_string()), ..self }
    }

    /// Ctrl-C.
    pub fn interrupted() -> Failure {
        Failure { what: None, hint: None, status: INTERRUPTED }
    }

    /// Prints help and version as they were asked for; turns every other complaint about arguments into one line.
    pub fn from_arguments(error: &clap::Error) -> Result<(), Failure> {
        match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                error.print()?;
                Ok(())
            }
            _ => Err(Failure { what: Some(complaint(error)), hint: Some(way_out(error)), status: BAD_INPUT }),
        }
    }

    /// Whether the reader of our output is gone.
    pub fn nobody_listens(&self) -> bool {
        self.status == NOBODY_LISTENS
    }

    /// Says it on stderr and gives the exit code.
    pub fn report(&self) -> ExitCode {
        if self.what.is_some() {
            say!("roofline: {self}");
        }
        ExitCode::from(self.status)
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.what.as_deref().unwrap_or("interrupted"))?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Failure { what: None, hint: None, status: NOBODY_LISTENS };
        }
        Failure::new(format_args!("cannot write the output: {error}"))
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Failure {
        if matches!(error, EngineError::Cancelled) { Failure::interrupted() } else { Failure::new(error) }
    }
}

impl From<SamplingError> for Failure {
    fn from(error: SamplingError) -> Failure {
        Failure::new(error)
    }
}

impl From<LabError> for Failure {
    fn from(error: LabError) -> Failure {
        if matches!(error, LabError::Cancelled) { Failure::interrupted() } else { Failure::new(error) }
    }
}

impl From<LimitsError> for Failure {
    fn from(error: LimitsError) -> Failure {
        Failure::new(error)
    }
}

impl From<ModelError> for Failure {
    fn from(error: ModelError) -> Failure {
        Failure::new(error)
    }
}

impl From<WeightsError> for Failure {
    fn from(error: WeightsError) -> Failure {
        Failure::new(error)
    }
}

/// The first paragraph of clap's message in one line, without its own `error:`.
fn complaint(error: &clap::Error) -> String {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
        || error.kind() == ErrorKind::MissingSubcommand
    {
        return "no command given".to_string();
    }
    let text = error.to_string();
    let paragraph = text.split("\n\n").next().unwrap_or_default();
    let words: Vec<&str> = paragraph.split_whitespace().collect();
    let line = words.join(" ");
    line.strip_prefix("error: ").unwrap_or(&line).to_string()
}

fn way_out(error: &clap::Error) -> String {
    let suggestion =
        [ContextKind::SuggestedSubcommand, ContextKind::SuggestedArg, ContextKind::SuggestedValue]
            .into_iter()
            .find_map(|kind| error.get(kind));
    match suggestion {
        Some(ContextValue::String(name)) => format!("did you mean {name}?"),
        Some(ContextValue::Strings(names)) if !names.is_empty() => {
            format!("did you mean {}?", names.join(" or "))
        }
        _ => match asked_command() {
            Some(command) => format!("see roofline {command} --help"),
            None => "see roofline --help".to_string(),
        },
    }
}

/// The command on our own command line; not every complaint of clap's carries it.
fn asked_command() -> Option<String> {
    let names: Vec<String> =
        Cli::command().get_subcommands().map(|command| command.get_name().to_string()).collect();
    std::env::args().skip(1).find(|argument| names.contains(argument))
}
