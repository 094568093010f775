//! How numbers multiply: packed matrices, matrix products, attention and the element-wise operations, one set of
//! functions per instruction set, the table that says which of them run here, and the team of threads that runs them.
//!
//! Nothing here knows of models, layers or files. See `docs/kernels.md` for how each kernel is laid out and why.

// Products of bytes by halves and of bf16 pairs are written for any vectors, but only those of x86-64 have them.
#![cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]

pub mod activation;
pub mod activations;
mod aligned;
mod arena;
pub mod attention;
mod bands;
mod dispatch;
pub mod error;
mod file_block;
mod floats;
pub mod isa;
pub mod kv_page;
mod layout;
pub mod matmul;
pub mod norm;
pub mod packed;
mod packing;
pub mod page_bounds;
pub mod probe;
mod quantize;
mod quantized;
pub mod rope;
mod scalar;
mod shared_bytes;
mod shared_slice;
mod shares;
mod simd;
pub mod softmax;
pub mod table;
pub mod team;
mod tile;
mod vectors;
mod whole_groups;

pub use activation::{Activation, activate, activate_gated, add, add_bias};
pub use activations::Activations;
pub use aligned::{Buffer, Number};
pub use attention::{
    AttentionJob, AttentionScratch, AttentionShape, Band, Visible, attention, attention_mass,
    attention_weights,
};
pub use error::KernelError;
pub use isa::Isa;
pub use kv_page::{KvFormat, KvLayer, LaneView, PageLayout, PageRef, Rows};
pub use matmul::{MatmulJob, matmul, matmul_experts};
pub use norm::{Norm, NormKind, norm_rows, norm_rows_in_place};
pub use packed::{FileRows, PackedMatrix};
pub use page_bounds::{PageBounds, PageScore};
pub use rope::{Pairing, RopeScaling, inverse_frequencies, rope, rope_angles};
pub use shared_bytes::SharedBytes;
pub use softmax::{all_finite, argmax, log_softmax, log_sum_exp, route, softmax};
pub use table::{Arithmetic, Choice, KernelTable, Operation, SkipReason};
pub use team::{Team, physical_cores};
pub use vectors::{Plain, widely};
