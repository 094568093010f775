//! GGUF, the file format of llama.cpp: typed metadata, a directory of tensors, aligned data. Versions 1 to 3 are read,
//! version 3 is written.
//!
//! Source: the GGUF specification in the ggml repository. Version 1 counts and measures strings in 32 bits (as the
//! dimensions of a tensor), later ones in 64; everything else is alike. All numbers are little-endian.

mod cursor;
mod header;
mod metadata;
mod texts;
mod types;
mod value;
mod writer;

pub use header::{Header, TensorInfo};
pub use metadata::{FromValue, Metadata};
pub use texts::Texts;
pub use types::ggml_type_name;
pub use value::{Array, Value, ValueType};
pub use writer::{TensorSpec, Writer};

/// First four bytes of a file.
pub const MAGIC: [u8; 4] = *b"GGUF";
/// Data alignment where the metadata names none, in bytes.
pub const DEFAULT_ALIGNMENT: u64 = 32;
/// Most dimensions of a tensor.
pub const MAX_DIMS: u32 = 4;
