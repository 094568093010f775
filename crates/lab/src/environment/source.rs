//! Where facts about the system come from: its `/proc` and `/sys`, or a copy of them.

use std::path::{Path, PathBuf};

/// A folder with `proc` and `sys` in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    root: PathBuf,
}

impl Source {
    /// The running system.
    pub fn system() -> Source {
        Source { root: PathBuf::from("/") }
    }

    /// A copy, for tests and for machines described elsewhere.
    pub fn at(root: impl Into<PathBuf>) -> Source {
        Source { root: root.into() }
    }

    /// A whole file, or nothing when it cannot be read.
    pub(crate) fn text(&self, path: impl AsRef<Path>) -> Option<String> {
        std::fs::read_to_string(self.root.join(path)).ok()
    }

    /// The trimmed content of a file of one line, unless it is empty.
    pub(crate) fn line(&self, path: impl AsRef<Path>) -> Option<String> {
        let text = self.text(path)?.trim().to_string();
        (!text.is_empty()).then_some(text)
    }

    /// Names in a folder, sorted.
    pub(crate) fn names(&self, path: impl AsRef<Path>) -> Vec<String> {
        let entries = std::fs::read_dir(self.root.join(path)).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.filter_map(|e| e.file_name().into_string().ok()).collect();
        names.sort();
        names
    }
}
