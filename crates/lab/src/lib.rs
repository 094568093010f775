//! What we learn: this machine's own roof, measurements with their spread and surroundings, plots and reports.
#![forbid(unsafe_code)]

pub mod bench;
pub mod compare;
pub mod convert;
pub mod environment;
pub mod error;
pub mod experiment;
pub mod machine;
pub mod plot;
pub mod quality;
pub mod report;
pub mod statistics;
pub mod timestamp;
pub mod units;

pub use error::LabError;
