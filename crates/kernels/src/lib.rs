//! How numbers multiply: packed matrices, matrix products, attention and the element-wise operations, one set of
//! functions per instruction set, the table that says which of them run here, and the team of threads that runs them.
//!
//! Nothing here knows of models, layers or files. See `docs/kernels.md` for how each kernel is laid out and why.

pub mod error;
pub mod isa;
pub mod probe;
pub mod table;
pub mod team;

pub use error::KernelError;
pub use isa::Isa;
pub use table::{Choice, KernelTable, Operation, SkipReason};
pub use team::{Team, physical_cores};
