//! What the tests of the converter share.
#![allow(clippy::unwrap_used, dead_code)] // each test binary uses its own part

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use roofline_lab::convert::{QuantizeOptions, quantize};
use roofline_limits::Recipe;
use roofline_weights::Checkpoint;

/// The golden models of the engine.
pub static GOLDEN: LazyLock<PathBuf> =
    LazyLock::new(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/tests/golden"));

/// Every golden model's folder.
pub fn golden_folders() -> impl Iterator<Item = PathBuf> {
    let mut all: Vec<PathBuf> = fs::read_dir(&*GOLDEN).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.retain(|path| path.join("golden.json").exists());
    all.sort();
    assert!(all.len() >= 20, "golden models are missing");
    all.into_iter()
}

/// The demo model, or `None` with the reason printed.
pub fn demo() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let places = [root.join("../cli/demo"), root.join("../../../shared/data/models/demo")];
    let found = places.into_iter().find(|place| place.join("model.safetensors").exists());
    if found.is_none() {
        println!("skipped: the demo model is not here");
    }
    found
}

/// An empty folder of this test's own.
pub fn folder(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("convert").join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// A golden model's folder without its GGUF, to be changed.
pub fn copy_of(golden: &str, into: &Path) -> PathBuf {
    let copy = into.join(golden);
    fs::create_dir_all(&copy).unwrap();
    for entry in fs::read_dir(GOLDEN.join(golden)).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension != "gguf") {
            fs::copy(&path, copy.join(path.file_name().unwrap())).unwrap();
        }
    }
    copy
}

/// Two threads, nothing forced.
pub fn options(kind: &str) -> QuantizeOptions {
    QuantizeOptions {
        recipe: Recipe::from_name(kind).unwrap(),
        threads: 2,
        importance: None,
        force: false,
        requantize: false,
    }
}

/// `input` written as `kind`, replacing what is at `output`, and opened.
pub fn quantized(input: &Path, kind: &str, output: &Path) -> Checkpoint {
    let mut options = options(kind);
    options.force = true;
    quantize(input, output, &options, |_| ControlFlow::Continue(())).unwrap();
    Checkpoint::open_gguf(output).unwrap()
}
