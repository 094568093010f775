//! A file of rows, read back: also one whose writer was killed in the middle of a line.

use std::path::Path;

use super::error::ExperimentError;
use super::rows::{About, Finding, Header, Measurement, Note, Quality, Row, SCHEMA};
use crate::error::LabError;

/// The rows of one file.
#[derive(Debug, Clone, PartialEq)]
pub struct Recording {
    /// Its first line.
    pub header: Header,
    /// All other rows that are known, in the order of the file.
    pub rows: Vec<Row>,
    /// What was left out in reading, one sentence each.
    pub left_out: Vec<String>,
    /// Bytes of the file up to the end of its last whole line: where an append may begin.
    pub whole_bytes: u64,
}

impl Recording {
    /// Reads a file.
    ///
    /// # Errors
    /// No such file; a first line that is no header, or of a later schema; a broken line that is not the last.
    pub fn read(path: &Path) -> Result<Recording, LabError> {
        let failed = |source| LabError::File { action: "read", path: path.to_path_buf(), source };
        // A device would be read for ever, a pipe waited for.
        if !std::fs::metadata(path).map_err(failed)?.is_file() {
            return Err(failed(std::io::Error::other("this is no regular file")));
        }
        let bytes = std::fs::read(path).map_err(failed)?;
        Ok(Recording::parse(&bytes, &path.display().to_string())?)
    }

    /// The same from memory; `name` is what errors call it.
    ///
    /// # Errors
    /// As [`Recording::read`].
    pub fn parse(bytes: &[u8], name: &str) -> Result<Recording, ExperimentError> {
        let broken = |line: usize, why: String| ExperimentError::Row { file: name.to_string(), line, why };
        let mut header = None;
        let (mut rows, mut left_out, mut whole_bytes) = (Vec::new(), Vec::new(), 0u64);
        let mut lines = bytes.split_inclusive(|&byte| byte == b'\n').enumerate().peekable();
        while let Some((index, line)) = lines.next() {
            let is_last = lines.peek().is_none();
            match serde_json::from_slice::<Row>(line) {
                // A line without its end may be the beginning of a longer one that happens to read.
                Ok(_) | Err(_) if is_last && !line.ends_with(b"\n") => {
                    left_out.push(format!("line {} was not written to its end", index + 1));
                    break;
                }
                Ok(Row::Header(first)) if header.is_none() && index == 0 => header = Some(*first),
                Ok(_) if index == 0 => {
                    return Err(broken(1, "the first line is no header of an experiment".into()));
                }
                Ok(Row::Unknown) => {
                    left_out.push(format!("line {} is of a kind this version does not know", index + 1));
                }
                Ok(row) => rows.push(row),
                Err(error) => return Err(broken(index + 1, error.to_string())),
            }
            whole_bytes += line.len() as u64;
        }
        let Some(header) = header else {
            return Err(broken(1, "there is no header; this is no file of an experiment".into()));
        };
        if header.schema > SCHEMA {
            let why = format!("schema {} is newer than this program's {SCHEMA}", header.schema);
            return Err(broken(1, why));
        }
        Ok(Recording { header, rows, left_out, whole_bytes })
    }

    /// Whether every run is there.
    pub fn is_finished(&self) -> bool {
        self.notes().any(|note| note.about == About::Finished)
    }

    /// Counted runs and warm-ups.
    pub fn measurements(&self) -> impl Iterator<Item = &Measurement> {
        self.rows.iter().filter_map(|row| match row {
            Row::Measurement(run) => Some(&**run),
            _ => None,
        })
    }

    /// Counted runs.
    pub fn counted(&self) -> impl Iterator<Item = &Measurement> {
        self.measurements().filter(|run| !run.warm_up)
    }

    /// Quality of configurations.
    pub fn qualities(&self) -> impl Iterator<Item = &Quality> {
        self.rows.iter().filter_map(|row| match row {
            Row::Quality(quality) => Some(&**quality),
            _ => None,
        })
    }

    /// What happened on the way.
    pub fn notes(&self) -> impl Iterator<Item = &Note> {
        self.rows.iter().filter_map(|row| match row {
            Row::Note(note) => Some(note),
            _ => None,
        })
    }

    /// Conclusions as they were written.
    pub fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.rows.iter().filter_map(|row| match row {
            Row::Finding(finding) => Some(&**finding),
            _ => None,
        })
    }
}
