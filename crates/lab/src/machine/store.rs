//! A measured machine as a TOML file among the user's own.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::Machine;
use crate::error::LabError;

/// `machine.toml` in the [`config_folder`].
///
/// # Errors
/// As [`config_folder`].
pub fn default_path() -> Result<PathBuf, LabError> {
    Ok(config_folder()?.join("machine.toml"))
}

/// The user's own files: `$XDG_CONFIG_HOME/roofline`, or `~/.config/roofline`.
///
/// # Errors
/// [`LabError::NoConfigFolder`] when neither variable is set.
pub fn config_folder() -> Result<PathBuf, LabError> {
    folder_from(std::env::var_os("XDG_CONFIG_HOME"), std::env::var_os("HOME"))
}

fn folder_from(config: Option<OsString>, home: Option<OsString>) -> Result<PathBuf, LabError> {
    let set = |value: Option<OsString>| value.filter(|v| !v.is_empty()).map(PathBuf::from);
    let folder = set(config).or_else(|| Some(set(home)?.join(".config"))).ok_or(LabError::NoConfigFolder)?;
    Ok(folder.join("roofline"))
}

/// Writes the machine, and the folders above it where they are missing.
///
/// # Errors
/// [`LabError::File`] when that fails.
pub fn save(machine: &Machine, path: &Path) -> Result<(), LabError> {
    let failed = |source| LabError::File { action: "write", path: path.to_path_buf(), source };
    let body = toml::to_string(machine)
        .map_err(|e| LabError::MachineFile { path: path.to_path_buf(), reason: e.to_string() })?;
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    let head = "# Measured by `roofline machine`. Rates are per second: bytes, FLOPs or operations.\n\n";
    std::fs::write(path, format!("{head}{body}")).map_err(failed)
}

/// Reads a machine back.
///
/// # Errors
/// [`LabError::File`] when there is no such file, [`LabError::MachineFile`] when it holds something else.
pub fn load(path: &Path) -> Result<Machine, LabError> {
    let text = std::fs::read_to_string(path).map_err(|source| LabError::File {
        action: "read",
        path: path.to_path_buf(),
        source,
    })?;
    let wrong = |reason: String| LabError::MachineFile { path: path.to_path_buf(), reason };
    let machine: Machine = toml::from_str(&text).map_err(|e| wrong(e.message().to_string()))?;
    let sane = |rate: f64| rate.is_finite() && rate > 0.0;
    match machine.figures.iter().find(|f| !(sane(f.best) && sane(f.median)) || f.threads == 0) {
        Some(f) => Err(wrong(format!(
            "figure `{}` on {} threads has the rate {}",
            f.what.label(),
            f.threads,
            f.best
        ))),
        None => Ok(machine),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::measure_quickly;

    #[test]
    fn the_configuration_folder_is_found() {
        let os = |s: &str| Some(OsString::from(s));
        assert_eq!(folder_from(os("/c"), os("/h")).unwrap(), Path::new("/c/roofline"));
        assert_eq!(folder_from(None, os("/h")).unwrap(), Path::new("/h/.config/roofline"));
        assert_eq!(folder_from(os(""), os("/h")).unwrap(), Path::new("/h/.config/roofline"));
        assert!(matches!(folder_from(None, os("")), Err(LabError::NoConfigFolder)));
    }

    #[test]
    fn a_machine_comes_back_as_it_went() {
        let folder = std::env::temp_dir().join(format!("roofline-machine-{}", std::process::id()));
        let path = folder.join("deep/machine.toml");
        let machine = measure_quickly(1).unwrap();
        save(&machine, &path).unwrap();
        assert_eq!(load(&path).unwrap(), machine);

        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("best = ", "best = -")).unwrap();
        assert!(load(&path).unwrap_err().to_string().contains("has the rate -"));
        std::fs::write(&path, "measured_at = 3").unwrap();
        assert!(matches!(load(&path), Err(LabError::MachineFile { .. })));
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(load(&path).unwrap_err().to_string().starts_with("cannot read"));
    }
}
