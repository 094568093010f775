//! See ARCHITECTURE.md.

pub mod sampling;
