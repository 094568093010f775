//! Models written as files: converted and quantized to GGUF, or made up from a geometry.
//!
//! Everything is streamed: a tensor is read from its mapped file, encoded piece by piece on all threads and written, so memory holds a
//! few pieces and never a model. Files appear whole or not at all.

mod encode;
mod error;
mod importance;
mod metadata;
mod quantize;
mod side_file;
mod synth;
mod tensors;
mod vocabulary;

pub use error::ConvertError;
pub use quantize::{Progress, QuantizeOptions, Quantized, QuantizedTensor, quantize};
pub use synth::{Blocks, SynthOptions, Synthesized, synthesize};
