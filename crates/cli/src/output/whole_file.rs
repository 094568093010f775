//! A file that is either written whole or not there.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Written beside its place and moved there when finished; dropped before that, it leaves nothing.
pub struct WholeFile {
    out: BufWriter<File>,
    part: PathBuf,
    path: PathBuf,
    whole: bool,
}

impl WholeFile {
    /// Begins a file that will stand at `path`. A link is followed: the file it leads to is replaced.
    ///
    /// # Errors
    /// A folder, a device or a pipe at `path` (none of them can be replaced by a file), a folder that is not there or
    /// not writable.
    pub fn create(path: &Path) -> io::Result<WholeFile> {
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
        if path.exists() && !path.is_file() {
            let kind = if path.is_dir() { "a folder" } else { "no regular file" };
            return Err(io::Error::other(format!("this is {kind}; name a file")));
        }
        let Some(name) = path.file_name() else { return Err(io::Error::other("this names no file")) };
        let mut part = name.to_os_string();
        part.push(format!(".{}.part", std::process::id()));
        let part = path.with_file_name(part);
        Ok(WholeFile { out: BufWriter::new(File::create(&part)?), part, path, whole: false })
    }

    /// Moves it to its place.
    ///
    /// # Errors
    /// What could not be written, or moved.
    pub fn finish(mut self) -> io::Result<()> {
        self.out.flush()?;
        fs::rename(&self.part, &self.path)?;
        self.whole = true;
        Ok(())
    }
}

impl Write for WholeFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl Drop for WholeFile {
    fn drop(&mut self) {
        if !self.whole {
            let _ = fs::remove_file(&self.part); // it is already an error that brought us here
        }
    }
}
