//! The devices that are known: those that come with the program, the user's own, and this machine.

use std::path::Path;

use roofline_kernels::physical_cores;
use roofline_lab::LabError;
use roofline_lab::machine::{self, Machine, THIS};
use roofline_limits::{Hardware, HardwareTable};

use crate::failure::Failure;
use crate::output::say;

/// Name of the user's own hardware file in the configuration folder.
pub const USER_FILE: &str = "devices.toml";

/// All devices but this machine: those of `file` before the user's own before the built-in ones.
pub fn table(file: Option<&Path>) -> Result<HardwareTable, Failure> {
    let mut table = HardwareTable::built_in()?.clone();
    // Without a configuration folder there are no own devices.
    if let Some(path) =
        machine::config_folder().ok().map(|folder| folder.join(USER_FILE)).filter(|path| path.exists())
    {
        table = table.merged(HardwareTable::read(&path)?);
    }
    if let Some(path) = file {
        table = table.merged(HardwareTable::read(path)?);
    }
    Ok(table)
}

/// The measured machine, if it was measured.
pub fn kept_machine() -> Result<Option<Machine>, Failure> {
    match machine::default_path().and_then(|path| machine::load(&path)) {
        Ok(machine) => Ok(Some(machine)),
        Err(LabError::NoConfigFolder) => Ok(None),
        Err(LabError::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The device of that name; `this` is this machine, measured now if it never was.
pub fn find(name: &str, file: Option<&Path>) -> Result<Hardware, Failure> {
    if name != THIS {
        return Ok(table(file)?.get(name)?.clone());
    }
    let machine = match kept_machine()? {
        Some(machine) => machine,
        None => {
            say!(
                "roofline: this machine was never measured, so here is a one-second look (roofline machine keeps a better one)"
            );
            machine::measure_quickly(physical_cores())?
        }
    };
    Ok(machine.device()?)
}
