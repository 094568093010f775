//! How a token is made: the forward pass, the KV cache and its policies, sampling, the session.
//!
//! Nothing here prints, parses arguments or knows JSON.
#![forbid(unsafe_code)]

pub mod cache;
mod cpu;
mod error;
mod eviction;
mod experts;
mod files;
mod forward;
mod generate;
mod kv_formats;
mod loader;
mod meter;
mod model;
mod observe;
pub mod sampling;
mod scratch;
mod session;
mod stop;

pub use cache::{Budget, CacheBytes, CacheError, CacheSpec, CacheSpecError, KvCache, Rollback};
pub use cpu::Cpu;
pub use error::EngineError;
pub use files::{EmbeddedModel, ModelFiles, StopId};
pub use generate::{FinishReason, GenerateOptions, Generation, GenerationInput, Stages, TokenEvent};
pub use kv_formats::{KvFormats, KvFormatsError};
pub use meter::Meter;
pub use model::{LoadFacts, Model, Packing};
pub use roofline_kernels::{Arithmetic, Isa, KvFormat};
pub use session::{Session, SessionOptions};
