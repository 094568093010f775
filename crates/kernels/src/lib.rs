//! See ARCHITECTURE.md.

pub mod probe;
