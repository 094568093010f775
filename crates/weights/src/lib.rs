//! Where the numbers are: checkpoints on disk and the block formats inside them.
//!
//! [`Format`] is the table of number formats; [`blocks`] holds the reference decoder and encoder of each.
//! [`Checkpoint`] maps the files of a model and hands out [`TensorView`]s; it knows names, shapes and bytes, and
//! nothing of layers.
#![deny(unsafe_code)]

pub mod format;

pub use format::Format;
