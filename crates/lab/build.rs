//! Records the commit and the compiler this was built from. Outside of git the commit is simply absent.

use std::process::Command;

fn main() {
    let compiler = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    set("ROOFLINE_COMPILER", output(Command::new(compiler).arg("--version")));
    let commit = output(git().args(["rev-parse", "--short=12", "HEAD"]));
    let changes = output(git().args(["status", "--porcelain", "--untracked-files=no"]));
    let dirty = commit.is_some().then_some(changes.is_some());
    let version = std::env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let summary = match (&commit, dirty) {
        (Some(commit), Some(true)) => format!("{version} ({commit}, modified)"),
        (Some(commit), _) => format!("{version} ({commit})"),
        (None, _) => version,
    };
    set("ROOFLINE_SUMMARY", Some(summary));
    set("ROOFLINE_COMMIT", commit);
    set("ROOFLINE_DIRTY", dirty.map(|dirty| dirty.to_string()));
    set("ROOFLINE_TARGET", std::env::var("TARGET").ok());
    set("ROOFLINE_PROFILE", std::env::var("PROFILE").ok());

    // Sources and the checked-out commit; both may lie elsewhere in a linked work tree.
    println!("cargo:rerun-if-changed=..");
    for file in ["HEAD", "index", "logs/HEAD"] {
        if let Some(path) = output(git().args(["rev-parse", "--git-path", file]))
            && std::path::Path::new(&path).exists()
        {
            println!("cargo:rerun-if-changed={path}");
        }
    }
}

fn git() -> Command {
    Command::new("git")
}

/// Trimmed standard output of a command that succeeded and said something.
fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_string();
    (!text.is_empty()).then_some(text)
}

fn set(name: &str, value: Option<String>) {
    println!("cargo:rustc-env={name}={}", value.unwrap_or_default());
}
