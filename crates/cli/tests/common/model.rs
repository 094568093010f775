//! Small model folders to damage: copies of the golden models of the engine's tests.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::scratch;

/// The golden folder of that name, not to be written to.
pub fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/tests/golden").join(name)
}

/// A copy of golden folder `base` under `name`, which no other test uses.
pub fn copy(base: &str, name: &str) -> PathBuf {
    let to = scratch(name);
    let _ = fs::remove_dir_all(&to); // of an earlier run
    fs::create_dir_all(&to).unwrap();
    for entry in fs::read_dir(golden(base)).unwrap().map(Result::unwrap) {
        let file = entry.file_name().into_string().unwrap();
        if !file.starts_with("golden") && !file.ends_with(".gguf") {
            fs::write(to.join(&file), fs::read(entry.path()).unwrap()).unwrap();
        }
    }
    to
}

/// Rewrites a JSON file.
pub fn change_json(file: &Path, change: impl FnOnce(&mut Value)) {
    let mut value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    change(&mut value);
    fs::write(file, value.to_string()).unwrap();
}

/// Rewrites the header and the data of a safetensors file.
pub fn change_tensors(file: &Path, change: impl FnOnce(&mut Value, &mut Vec<u8>)) {
    let bytes = fs::read(file).unwrap();
    let (length, rest) = bytes.split_first_chunk::<8>().unwrap();
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let (mut header, mut data) = (serde_json::from_slice(header).unwrap(), data.to_vec());
    change(&mut header, &mut data);
    let header = header.to_string();
    let whole = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data].concat();
    fs::write(file, whole).unwrap();
}

/// First and one-past-last data byte of a tensor.
pub fn offsets(header: &Value, tensor: &str) -> (usize, usize) {
    let offset = |at: usize| header[tensor]["data_offsets"][at].as_u64().unwrap() as usize;
    (offset(0), offset(1))
}
