//! Where the numbers are: checkpoints on disk and the block formats inside them.
//!
//! [`Format`] is the table of number formats; [`blocks`] holds the reference decoder and encoder of each.
//! [`Checkpoint`] maps the files of a model and hands out [`TensorView`]s; it knows names, shapes and bytes, and
//! nothing of layers. [`gguf`] reads and writes the one container that carries metadata.
#![deny(unsafe_code)]

pub mod blocks;
mod checkpoint;
mod directory;
mod error;
pub mod format;
pub mod gguf;
mod mmap;
pub mod safetensors;
mod shards;

pub use checkpoint::{Checkpoint, TensorView};
pub use error::WeightsError;
pub use format::Format;
pub use mmap::MemoryBytes;
