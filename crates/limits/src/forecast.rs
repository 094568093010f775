//! Bytes, FLOPs and time of a step as real numbers, under a set of switches.
//!
//! With all switches on this is the integer accounting, with touched experts at their expectation; with all off it is the paper.

use crate::accounting::Accounting;
use crate::error::{LimitsError, in_range};
use crate::hardware::{Hardware, NumberType};
use crate::precision::Precision;
use crate::switches::{Switch, Switches};
use roofline_model::operator::Operator;

/// Bytes and FLOPs of an operator.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Load {
    pub bytes: f64,
    pub flops: f64,
}

/// A step of `segments` equal sequences. Rows may be fractional: the turning point is a real number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub rows: f64,      // new tokens of each sequence
    pub kv_before: f64, // tokens already in each cache
    pub segments: f64,
    pub head_rows: f64, // rows of all sequences that go through the head
}

/// What the device offers to a precision.
#[derive(Debug, Clone)]
pub(crate) struct Rates {
    pub bandwidth: f64,          // bytes/s of memory
    pub caches: Vec<(f64, f64)>, // (bytes, bytes/s) of those faster than memory, smallest first
    pub matmul: f64,             // FLOP/s
    pub attention: f64,          // FLOP/s
    pub memory: Option<f64>,     // bytes
    pub matmul_type: NumberType,
    pub attention_type: NumberType,
}

impl Rates {
    /// The device's rates under `switches`.
    pub fn new(hardware: &Hardware, precision: &Precision, switches: Switches) -> Result<Rates, LimitsError> {
        hardware.validate()?;
        let bits = if switches.has(Switch::MatrixPeak) { precision.arithmetic_bits } else { 32 };
        let (matmul_type, matmul) = hardware.peak_for(bits)?;
        // softmax needs more than 8 bits, so K and V meet in 16 bits whatever the weights do
        let (attention_type, attention) = hardware.peak_for(bits.max(16))?;
        let (giga, tera) = if switches.has(Switch::VendorUnits) {
            (1.0, 1.0)
        } else {
            ((1u64 << 30) as f64 / 1e9, (1u64 << 40) as f64 / 1e12)
        };
        Ok(Rates {
            bandwidth: in_range("bandwidth", hardware.bandwidth.value * giga, 1.0, 1e19)?,
            matmul: in_range("peak", matmul.value * tera, 1.0, 1e22)?,
            attention: in_range("peak", attention.value * tera, 1.0, 1e22)?,
            caches: if switches.has(Switch::CacheLevels) {
                let faster =
                    hardware.caches.iter().rev().filter(|c| c.bandwidth.value > hardware.bandwidth.value);
                faster.map(|c| (c.bytes, c.bandwidth.value * giga)).collect()
            } else {
                Vec::new()
            },
            memory: hardware.memory_bytes(),
            matmul_type,
            attention_type,
        })
    }

    /// Bandwidth of a step that moves `bytes`: of the smallest cache that they all fit in, otherwise of memory.
    pub fn bandwidth_of(&self, bytes: f64) -> f64 {
        self.caches
            .iter()
            .find(|(size, _)| *size >= bytes)
            .map_or(self.bandwidth, |(_, bandwidth)| *bandwidth)
    }

    /// Seconds to compute an operator's FLOPs.
    pub fn compute_s(&self, operator: Operator, flops: f64) -> f64 {
        flops / if operator == Operator::Attention { self.attention } else { self.matmul }
    }
}

/// Seconds of a step: of its reads, of its FLOPs, and operator by operator.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct StepTime {
    pub read_s: f64,
    pub compute_s: f64,
    pub by_operator_s: f64, // each operator waits for its own bytes
}

impl StepTime {
    /// The limit: everything overlaps.
    pub fn limit_s(&self) -> f64 {
        self.read_s.max(self.compute_s)
    }
}

/// Bytes of a whole step.
pub(crate) fn total_bytes(loads: &[Load; Operator::COUNT]) -> f64 {
    loads.iter().map(|load| load.bytes).sum()
}

/// A model under a set of switches, ready to be asked about steps.
#[derive(Debug, Clone)]
pub(crate) struct Forecast {
    weight_bytes: [f64; Operator::COUNT],
    flops_per_row: [f64; Operator::COUNT],
    embedding_row_bytes: f64,
    head_flops: f64,             // per row through the head
    experts: Option<(f64, f64)>, // count, active
    kv_bytes_per_token: f64,
    attention_flops_per_pair: f64, // over all heads and layers
    switches: Switches,
}

impl Forecast {
    pub fn new(accounting: &Accounting, precision: &Precision, switches: Switches) -> Forecast {
        let d = &accounting.dims;
        let real = switches.has(Switch::RealBits);
        let nominal = precision.nominal_weight_bits / 8.0;
        let every = if switches.has(Switch::EveryTensor) { 1.0 } else { 0.0 };
        let mut weight_bytes = [0.0; Operator::COUNT];
        let mut flops_per_row = [0.0; Operator::COUNT];
        for operator in Operator::ALL {
            let w = &accounting.weights[operator as usize];
            let norm = matches!(
                operator,
                Operator::AttentionNorm | Operator::FfnNorm | Operator::FinalNorm | Operator::QkNorm
            );
            weight_bytes[operator as usize] = if norm {
                every * w.vector_bytes as f64
            } else if real {
                w.stored_bytes as f64 + w.vector_bytes as f64
            } else {
                (w.matrix_elements as f64 + w.bias_elements as f64) * nominal
            };
            let bias =
                if switches.has(Switch::MatrixFlops) || norm { 0.0 } else { 2.0 * w.bias_elements as f64 };
            flops_per_row[operator as usize] = accounting.flops_per_row[operator as usize] as f64 + bias;
        }
        let active = switches.has(Switch::ActiveExperts);
        let experts = d.experts.map(|e| (e.count as f64, e.active as f64));
        if let (Some((count, used)), false) = (experts, active) {
            flops_per_row[Operator::Experts as usize] *= count / used;
        }
        let kv_elements = accounting.kv_elements_per_token() as f64;
        Forecast {
            weight_bytes,
            flops_per_row,
            embedding_row_bytes: every
                * if real { accounting.embedding_row_bytes as f64 } else { d.hidden as f64 * nominal },
            head_flops: 2.0 * accounting.weights[Operator::OutputHead as usize].matrix_elements as f64,
            experts: if active { experts } else { None },
            kv_bytes_per_token: if switches.has(Switch::KvWidth) {
                accounting.kv_bytes_per_token() as f64
            } else {
                kv_elements * precision.nominal_kv_bits / 8.0
            },
            attention_flops_per_pair: 4.0 * d.q as f64 * d.layers as f64,
            switches,
        }
    }

    /// Bytes of K and V of one token.
    pub fn kv_bytes_per_token(&self) -> f64 {
        self.kv_bytes_per_token
    }

    /// Bytes of the weights that a step of many rows reads, without the embedding table.
    pub fn weight_bytes(&self) -> f64 {
        self.weight_bytes.iter().sum()
    }

    /// FLOPs of one row and of the head for one row, without attention.
    pub fn row_and_head_flops(&self) -> (f64, f64) {
        (self.flops_per_row.iter().sum(), self.head_flops)
    }

    /// FLOPs of one (query, key) pair over all heads and layers.
    pub fn pair_flops(&self) -> f64 {
        self.attention_flops_per_pair
    }

    /// How many different experts `rows` rows visit, expected under even routing.
    pub fn touched_experts(&self, rows: f64) -> Option<f64> {
        self.experts.map(|(count, active)| count * (1.0 - (1.0 - active / count).powf(rows)))
    }

    /// (query, key) pairs of one head of one sequence.
    pub fn pairs(&self, rows: f64, kv_before: f64) -> f64 {
        if self.switches.has(Switch::CausalAttention) {
            rows * kv_before + rows * (rows + 1.0) / 2.0
        } else {
            2.0 * rows - 1.0 + kv_before
        }
    }

    /// Bytes and FLOPs of every operator.
    pub fn loads(&self, shape: Shape) -> [Load; Operator::COUNT] {
        let rows = shape.rows * shape.segments;
        let headless = shape.head_rows == 0.0;
        let mut loads = [Load::default(); Operator::COUNT];
        for (i, load) in loads.iter_mut().enumerate() {
            *load = Load { bytes: self.weight_bytes[i], flops: self.flops_per_row[i] * rows };
        }
        loads[Operator::Embed as usize].bytes = self.embedding_row_bytes * rows;
        if let (Some((count, _)), Some(touched)) = (self.experts, self.touched_experts(rows)) {
            loads[Operator::Experts as usize].bytes *= touched / count;
        }
        loads[Operator::OutputHead as usize].flops = self.head_flops * shape.head_rows;
        if headless {
            loads[Operator::OutputHead as usize].bytes = 0.0;
            loads[Operator::FinalNorm as usize].bytes = 0.0;
        }
        // the paper's count is 2n − 1 slots in all: n written, the others read
        let read = shape.kv_before
            + if self.switches.has(Switch::KvTraffic) { shape.rows } else { shape.rows - 1.0 };
        loads[Operator::KvAppend as usize].bytes = self.kv_bytes_per_token * rows;
        loads[Operator::Attention as usize] = Load {
            bytes: self.kv_bytes_per_token * read * shape.segments,
            flops: self.attention_flops_per_pair * self.pairs(shape.rows, shape.kv_before) * shape.segments,
        };
        loads
    }

    /// Time of a step.
    pub fn time(&self, shape: Shape, rates: &Rates) -> StepTime {
        let mut time = StepTime::default();
        let loads = self.loads(shape);
        let bandwidth = rates.bandwidth_of(total_bytes(&loads));
        for (operator, load) in Operator::ALL.into_iter().zip(loads) {
            let (read, compute) = (load.bytes / bandwidth, rates.compute_s(operator, load.flops));
            time.read_s += read;
            time.compute_s += compute;
            time.by_operator_s += read.max(compute);
        }
        time
    }

    /// The number of rows at which computing takes as long as reading; `head_rows(n)` says how many of them go through the head.
    /// `None` when reading is slower at any length up to 2^30.
    ///
    /// compute − read is convex in n and negative at 0 (all weights are read, nothing is multiplied), so it crosses once. (On a device
    /// with caches reading jumps where a step outgrows one; the result is then the first of the crossings that doubling finds.)
    pub fn turning_point(&self, rates: &Rates, head_rows: impl Fn(f64) -> f64) -> Option<f64> {
        let behind = |n: f64| {
            let shape = Shape { rows: n, kv_before: 0.0, segments: 1.0, head_rows: head_rows(n) };
            let time = self.time(shape, rates);
            time.compute_s < time.read_s
        };
        let (mut low, mut high) = (0.0, 1.0);
        while behind(high) {
            low = high;
            high *= 2.0;
            if high > (1u64 << 30) as f64 {
                return None;
            }
        }
        while high - low > 1e-9 * high {
            let middle = 0.5 * (low + high);
            if behind(middle) { low = middle } else { high = middle }
        }
        Some(high)
    }
}
