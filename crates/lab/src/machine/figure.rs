//! One measured rate.

use roofline_kernels::probe::{Arithmetic, Samples};
use serde::{Deserialize, Serialize};

use crate::statistics::{Interval, Sorted, StatisticsError};

/// What a figure measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// Reading main memory.
    ReadMemory,
    /// Writing main memory.
    WriteMemory,
    /// Reading the first-level cache.
    ReadL1,
    /// Reading the second-level cache.
    ReadL2,
    /// Reading the third-level cache.
    ReadL3,
    /// f32 multiply-adds.
    F32,
    /// bf16 dot products, summed in f32.
    Bf16,
    /// i16 dot products, summed in i32.
    Int16,
    /// i8 dot products, summed in i32.
    Int8,
}

/// What a rate counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// B/s
    BytesPerSecond,
    /// FLOP/s; a multiply-add is two.
    FlopPerSecond,
    /// op/s on whole numbers; a multiply-add is two.
    OpPerSecond,
}

impl What {
    /// All of them, in the order they are shown.
    pub const ALL: [What; 9] = [
        What::ReadMemory,
        What::WriteMemory,
        What::ReadL3,
        What::ReadL2,
        What::ReadL1,
        What::F32,
        What::Bf16,
        What::Int16,
        What::Int8,
    ];

    /// For a table.
    pub fn label(self) -> &'static str {
        match self {
            What::ReadMemory => "read memory",
            What::WriteMemory => "write memory",
            What::ReadL1 => "read L1",
            What::ReadL2 => "read L2",
            What::ReadL3 => "read L3",
            What::F32 => "f32",
            What::Bf16 => "bf16 → f32",
            What::Int16 => "int16 → int32",
            What::Int8 => "int8 → int32",
        }
    }

    /// What its rate counts.
    pub fn unit(self) -> Unit {
        match self {
            What::ReadMemory | What::WriteMemory | What::ReadL1 | What::ReadL2 | What::ReadL3 => {
                Unit::BytesPerSecond
            }
            What::F32 | What::Bf16 => Unit::FlopPerSecond,
            What::Int16 | What::Int8 => Unit::OpPerSecond,
        }
    }
}

impl From<Arithmetic> for What {
    fn from(kind: Arithmetic) -> What {
        match kind {
            Arithmetic::F32 => What::F32,
            Arithmetic::Bf16 => What::Bf16,
            Arithmetic::Int16 => What::Int16,
            Arithmetic::Int8 => What::Int8,
        }
    }
}

impl Unit {
    /// As `GB/s` without the prefix.
    pub fn symbol(self) -> &'static str {
        match self {
            Unit::BytesPerSecond => "B/s",
            Unit::FlopPerSecond => "FLOP/s",
            Unit::OpPerSecond => "op/s",
        }
    }
}

/// A rate per second (bytes, FLOPs or operations), summed up from its samples.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// What was measured.
    pub what: What,
    /// Threads that worked at the same time.
    pub threads: usize,
    /// The loop that was fastest.
    pub instruction: String,
    /// Highest sample: what the machine can do.
    pub best: f64,
    /// Median sample: what it usually does.
    pub median: f64,
    /// First to third quartile.
    pub quartiles: Interval,
    /// Number of samples.
    pub n: usize,
}

impl Figure {
    /// Of several loops that do the same, the one with the best sample.
    pub(super) fn of_fastest(what: What, loops: &[Samples]) -> Result<Option<Figure>, StatisticsError> {
        let mut fastest: Option<Figure> = None;
        for samples in loops {
            let sorted = Sorted::new(&samples.rates)?;
            if fastest.as_ref().is_none_or(|f| sorted.max() > f.best) {
                fastest = Some(Figure {
                    what,
                    threads: samples.threads,
                    instruction: samples.instruction.to_string(),
                    best: sorted.max(),
                    median: sorted.median(),
                    quartiles: sorted.quartiles(),
                    n: sorted.n(),
                });
            }
        }
        Ok(fastest)
    }

    /// Width of the quartiles over the median.
    pub fn spread(&self) -> f64 {
        self.quartiles.width() / self.median
    }
}
