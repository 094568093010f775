//! The invariants of ARCHITECTURE.md that a program can check: who imports whom, and where `unsafe` may stand.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

use std::path::{Path, PathBuf};

/// Every crate and the crates of this workspace it may import.
const GRAPH: [(&str, &[&str]); 7] = [
    ("weights", &[]),
    ("model", &["weights"]),
    ("kernels", &["weights"]),
    ("limits", &["model", "weights"]),
    ("engine", &["weights", "model", "kernels"]),
    ("lab", &["engine", "limits", "kernels", "model", "weights"]),
    ("cli", &["weights", "model", "kernels", "limits", "engine", "lab"]),
];

fn crates() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn imports_run_one_way() {
    let mut names: Vec<String> = (std::fs::read_dir(crates()).unwrap())
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let mut known: Vec<&str> = GRAPH.iter().map(|(name, _)| *name).collect();
    known.sort_unstable();
    assert_eq!(names, known, "a crate is missing from the graph");
    for (name, allowed) in GRAPH {
        let manifest = std::fs::read_to_string(crates().join(name).join("Cargo.toml")).unwrap();
        let dependencies = manifest.split("[dev-dependencies]").next().unwrap();
        for line in dependencies.lines().filter_map(|line| line.strip_prefix("roofline-")) {
            let import = line.split([' ', '=', '.']).next().unwrap();
            assert!(allowed.contains(&import), "{name} must not import {import}");
        }
    }
}

#[test]
fn unsafe_stands_in_the_kernels_and_the_mmap_only() {
    for (name, _) in GRAPH {
        let root = crates().join(name).join("src");
        let mut files = Vec::new();
        sources(&root, &mut files);
        assert!(!files.is_empty());
        for file in files {
            let text = std::fs::read_to_string(&file).unwrap();
            let code = text.lines().map(|line| line.split("//").next().unwrap_or_default());
            let found = code.clone().any(|line| line.contains("unsafe ") && !line.contains("unsafe_code"));
            let allowed = name == "kernels" || (name == "weights" && file.ends_with("mmap.rs"));
            assert!(allowed || !found, "{} holds unsafe code", file.display());
        }
        let first = if name == "cli" { "main.rs" } else { "lib.rs" };
        let text = std::fs::read_to_string(root.join(first)).unwrap();
        let fenced = text.contains("#![forbid(unsafe_code)]") || text.contains("#![deny(unsafe_code)]");
        assert!(fenced || name == "kernels", "{name} does not forbid unsafe code");
    }
}

/// One layer loop: the engine never asks which family it runs.
#[test]
fn the_engine_knows_no_family() {
    let mut files = Vec::new();
    sources(&crates().join("engine/src"), &mut files);
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(!text.contains("Family::"), "{} asks for a family", file.display());
    }
}
