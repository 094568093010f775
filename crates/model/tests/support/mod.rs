//! Where the shared test data lies, and a skip that says so.
#![allow(dead_code)] // each test binary uses its own part

use std::path::PathBuf;

use roofline_model::tokenizer::Tokenizer;
use roofline_weights::gguf::Header;

/// `../shared/data/<path>` from the repository root, or `None` with the reason printed.
pub fn shared_data(path: &str) -> Option<PathBuf> {
    let full = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data").join(path);
    if full.exists() {
        return Some(full);
    }
    println!("skipped: {path} is not in the shared data folder");
    None
}

/// The header of a GGUF file in the shared data.
pub fn shared_header(path: &str) -> Option<Header> {
    let bytes = std::fs::read(shared_data(path)?).unwrap();
    Some(Header::parse(path, &bytes).unwrap())
}

/// The tokenizer of a GGUF file in the shared data.
pub fn shared_gguf(path: &str) -> Option<Tokenizer> {
    Some(Tokenizer::from_gguf(&shared_header(path)?.metadata).unwrap())
}
