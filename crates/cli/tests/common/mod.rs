//! Runs the built binary.
#![allow(clippy::unwrap_used, dead_code)] // each test file uses its part of it

pub mod model;

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// The program, with a configuration folder of its own.
pub fn roofline(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_roofline"));
    command.args(arguments).env("XDG_CONFIG_HOME", scratch("config")).stdin(Stdio::null());
    command
}

/// Runs it to its end.
pub fn run(arguments: &[&str]) -> Output {
    roofline(arguments).output().unwrap()
}

/// What it wrote on stdout; it must have succeeded.
pub fn stdout(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The one line it complained with; it must have ended with exit code 2 and printed nothing else.
pub fn complaint(arguments: &[&str]) -> String {
    let output = run(arguments);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
    assert!(output.stdout.is_empty(), "{arguments:?} printed before it failed");
    assert!(stderr.starts_with("roofline: ") && stderr.lines().count() == 1, "{arguments:?}: {stderr}");
    stderr.trim_end().to_string()
}

/// The JSON object it printed.
pub fn json(arguments: &[&str]) -> serde_json::Value {
    serde_json::from_str(&stdout(arguments)).unwrap()
}

/// A folder of this name for this test run.
pub fn scratch(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name)
}
