//! Help pages, complaints and exit codes that all commands share.
#![allow(clippy::unwrap_used)] // helpers outside of #[test] too
mod common;

use std::io::Read;
use std::process::Stdio;

use common::{complaint, roofline, stdout};

/// Every command the program lists.
fn commands() -> Vec<String> {
    let help = stdout(&["--help"]);
    let list = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let names = list.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(String::from)
        .collect()
}

#[test]
fn every_help_page_shows_an_example() {
    let commands = commands();
    assert!(commands.contains(&"machine".to_string()), "{commands:?}");
    for command in commands {
        let help = stdout(&[&command, "--help"]);
        let example = help.split("Example").nth(1).unwrap_or_else(|| panic!("{command} shows no example"));
        assert!(example.contains(&format!("roofline {command}")), "{command}: {example}");
    }
}

#[test]
fn complaints_name_the_way_out() {
    assert!(complaint(&["machin"]).ends_with("(did you mean machine?)"));
    assert!(complaint(&["machine", "--thread", "3"]).ends_with("(did you mean --threads?)"));
    assert!(complaint(&["machine", "--threads", "0"]).contains("--threads 0 is not between 1 and 4096"));
    assert!(complaint(&["machine", "--threads", "two"]).ends_with("(see roofline machine --help)"));
}

#[test]
fn version_names_the_build() {
    assert!(stdout(&["--version"]).starts_with(concat!("roofline ", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn a_reader_who_leaves_is_no_error() {
    let mut child = roofline(&["machine", "--quick", "--threads", "1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!((child.wait().unwrap().code(), stderr.as_str()), (Some(0), ""));
}
