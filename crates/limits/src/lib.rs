//! What is possible: from a configuration, a precision, a device and a workload to bytes, FLOPs, memory and time.
//!
//! Pure arithmetic. [`accounting`] gives the exact integers that the engine's meter must equal, [`mod@report`] the limits
//! of one model on one device, [`paper`] the definitions of the document that the project started from.
//! Everything is in bytes, FLOPs and seconds unless the name ends in a unit.
#![forbid(unsafe_code)]

pub mod accounting;
mod dims;
pub mod error;
pub mod explain;
pub mod file_formats;
mod forecast;
pub mod hardware;
pub mod kv_format;
mod memory;
pub mod mix;
pub use roofline_model::nearest;
pub mod paper;
pub mod policies;
pub mod precision;
pub mod report;
pub mod serving;
pub mod speculative;
pub mod switches;

pub use accounting::{Accounting, AttentionWork, Segment, Step, StepCost, step_cost};
pub use error::LimitsError;
pub use file_formats::FileFormats;
pub use hardware::{Hardware, HardwareTable};
pub use kv_format::{KvFormat, KvFormats};
pub use mix::Recipe;
pub use precision::Precision;
pub use report::{Report, Request, Workload, report};
pub use switches::{Profile, Switch, Switches};
