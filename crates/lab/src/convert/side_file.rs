//! A file that appears whole or not at all: written beside its place under another name, then renamed.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use super::error::ConvertError;

/// The file being written. Dropping it before [`SideFile::keep`] removes what was written.
#[derive(Debug)]
pub(super) struct SideFile {
    path: PathBuf,
    side: PathBuf,
    file: File,
    kept: bool,
}

impl SideFile {
    /// Begins the file that is to stand at `path`. One that is there already is replaced only with `force`, and at the end.
    pub fn create(path: &Path, force: bool) -> Result<SideFile, ConvertError> {
        refuse_existing(path, force)?;
        let side = beside(path);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&side)
            .map_err(|source| ConvertError::File { action: "write", path: path.to_path_buf(), source })?;
        Ok(SideFile { path: path.to_path_buf(), side, file, kept: false })
    }

    /// Where the bytes go.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Puts the complete file in its place.
    pub fn keep(mut self) -> Result<(), ConvertError> {
        let error = |source| ConvertError::File { action: "write", path: self.path.clone(), source };
        self.file.sync_all().map_err(error)?;
        fs::rename(&self.side, &self.path).map_err(error)?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for SideFile {
    fn drop(&mut self) {
        if !self.kept {
            // Nothing can be done about a failure here, and the error that led here is the one to tell.
            let _ = fs::remove_file(&self.side);
        }
    }
}

fn refuse_existing(path: &Path, force: bool) -> Result<(), ConvertError> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => {
            Err(ConvertError::WrongOutput { path: path.to_path_buf(), what: "a folder", wanted: "file" })
        }
        Ok(_) if !force => Err(ConvertError::Exists { path: path.to_path_buf() }),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(ConvertError::File { action: "write", path: path.to_path_buf(), source }),
    }
}

/// A hidden name in the same folder, so that the rename stays inside one file system.
fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    path.with_file_name(format!(".{name}.{}.part", std::process::id()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("roofline-side-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_file_appears_when_it_is_kept_and_not_before() {
        let folder = folder("kept");
        let path = folder.join("model.gguf");
        let side = SideFile::create(&path, false).unwrap();
        side.file().write_all(b"abc").unwrap();
        assert!(!path.exists());
        side.keep().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"abc");
        assert_eq!(names(&folder), ["model.gguf"]);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn what_is_dropped_leaves_nothing_and_spares_what_was_there() {
        let folder = folder("dropped");
        let path = folder.join("model.gguf");
        fs::write(&path, "before").unwrap();
        assert!(matches!(SideFile::create(&path, false), Err(ConvertError::Exists { .. })));
        let side = SideFile::create(&path, true).unwrap();
        side.file().write_all(b"half").unwrap();
        drop(side);
        assert_eq!(fs::read(&path).unwrap(), b"before");
        assert_eq!(names(&folder), ["model.gguf"]);
        assert!(matches!(SideFile::create(&folder, true), Err(ConvertError::WrongOutput { .. })));
        assert!(matches!(
            SideFile::create(&folder.join("absent/model.gguf"), true),
            Err(ConvertError::File { .. })
        ));
        fs::remove_dir_all(folder).unwrap();
    }
}
