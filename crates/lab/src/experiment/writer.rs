//! The file that rows are appended to. A row is on the disk, whole, before the next run begins.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::error::ExperimentError;
use super::rows::Row;

/// Appends rows.
#[derive(Debug)]
pub struct Writer {
    file: File,
    path: PathBuf,
    whole: u64, // bytes up to the end of the last whole line
    rows: usize,
}

impl Writer {
    /// A new file; nothing may stand there.
    ///
    /// # Errors
    /// [`ExperimentError::Write`].
    pub fn create(path: &Path) -> Result<Writer, ExperimentError> {
        let file = OpenOptions::new().write(true).create_new(true).open(path);
        let file =
            file.map_err(|source| ExperimentError::Write { path: path.to_path_buf(), rows: 0, source })?;
        Ok(Writer { file, path: path.to_path_buf(), whole: 0, rows: 0 })
    }

    /// A file that has `whole` bytes of whole lines, `rows` of them; what stands behind is cut off.
    ///
    /// # Errors
    /// [`ExperimentError::Write`].
    pub fn append(path: &Path, whole: u64, rows: usize) -> Result<Writer, ExperimentError> {
        let open = || {
            let mut file = OpenOptions::new().write(true).open(path)?;
            file.set_len(whole)?;
            file.seek(SeekFrom::Start(whole))?;
            Ok(file)
        };
        let file =
            open().map_err(|source| ExperimentError::Write { path: path.to_path_buf(), rows, source })?;
        Ok(Writer { file, path: path.to_path_buf(), whole, rows })
    }

    /// Appends one row and waits until it is on the disk.
    ///
    /// # Errors
    /// [`ExperimentError::Write`]; the part of the row that was written is taken back then.
    pub fn write(&mut self, row: &Row) -> Result<(), ExperimentError> {
        let failed = |source| ExperimentError::Write { path: self.path.clone(), rows: self.rows, source };
        let mut line = serde_json::to_vec(row).map_err(|error| failed(error.into()))?;
        line.push(b'\n');
        if let Err(source) = self.file.write_all(&line).and_then(|()| self.file.sync_data()) {
            // A full disk leaves half a line. Where even this fails, the reader drops it.
            let _ = self.file.set_len(self.whole);
            return Err(failed(source));
        }
        self.whole += line.len() as u64;
        self.rows += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::rows::{About, Note};
    use super::*;

    fn note(text: &str) -> Row {
        Row::Note(Note { about: About::Drift, text: text.into(), at: "now".into(), cell_hash: None })
    }

    #[test]
    fn a_torn_line_is_cut_off_before_more_is_written() {
        let path = std::env::temp_dir().join(format!("roofline-writer-{}.jsonl", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let mut writer = Writer::create(&path).unwrap();
        writer.write(&note("one")).unwrap();
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, [&whole[..], b"{\"kind\":\"note\",\"te"].concat()).unwrap();
        assert!(matches!(Writer::create(&path), Err(ExperimentError::Write { .. })));
        let mut writer = Writer::append(&path, whole.len() as u64, 1).unwrap();
        writer.write(&note("two")).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let rows: Vec<Row> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(rows, [note("one"), note("two")]);
        std::fs::remove_file(&path).unwrap();
    }

    /// `/dev/full` takes nothing, as a full disk does.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_says_how_many_rows_are_safe() {
        let file = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut writer = Writer { file, path: "rows.jsonl".into(), whole: 0, rows: 7 };
        let error = writer.write(&note("x")).unwrap_err().to_string();
        assert!(
            error.starts_with("cannot write rows.jsonl: ") && error.contains("the 7 rows before"),
            "{error}"
        );
    }
}
