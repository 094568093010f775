//! `--limits`: what each stage and operator of a run took, beside what the machine could not beat.

use std::time::Duration;

use roofline_engine::Meter;
use roofline_lab::environment::Environment;
use roofline_lab::machine;
use roofline_lab::units::{bytes, si, three_digits};
use roofline_limits::Hardware;
use roofline_limits::hardware::NumberType;
use roofline_model::{Cost, Operator};
use serde_json::{Value, json};

use crate::devices;
use crate::failure::Failure;
use crate::output::{Align, Table};
use crate::record::Record;

/// A roof to hold a run against.
pub struct Roof {
    /// `probe` or `data sheet`.
    pub kind: &'static str,
    /// The device.
    pub hardware: Hardware,
    bandwidth: f64,        // bytes/s of the level of memory that holds the model
    level: Option<String>, // the cache it fits, if it fits one
    peak: f64,             // FLOP/s of the arithmetic that the weights' formats are multiplied in
    peak_type: NumberType,
}

/// What a cost takes at least, and by which of the two.
struct Bound {
    seconds: f64,
    by: &'static str,
}

impl Roof {
    fn new(kind: &'static str, hardware: Hardware, load: Load) -> Result<Roof, Failure> {
        let (peak_type, figure) = hardware.peak_for(load.bits)?;
        let peak = figure.value;
        let cache = hardware.cache_for(load.resident_bytes as f64);
        let bandwidth = cache.map_or(hardware.bandwidth.value, |cache| cache.bandwidth.value);
        let level = cache.map(|cache| cache.name.clone());
        Ok(Roof { kind, bandwidth, level, peak, peak_type, hardware })
    }

    fn bound(&self, cost: Cost) -> Bound {
        let read = cost.bytes() as f64 / self.bandwidth;
        let compute = cost.flops as f64 / self.peak;
        if compute > read {
            Bound { seconds: compute, by: "compute" }
        } else {
            Bound { seconds: read, by: "memory" }
        }
    }

    /// One line of what the roof is.
    pub fn words(&self) -> String {
        let level = self
            .level
            .as_ref()
            .map_or(String::new(), |level| format!(" from {level}, which holds the model"));
        format!(
            "{} ({}): {}{level}, and {} {}",
            self.kind,
            self.hardware.name,
            si(self.bandwidth, "B/s"),
            si(self.peak, "FLOP/s"),
            self.peak_type.key()
        )
    }

    /// Both stages and their operators under this roof.
    pub fn table(&self, record: &Record) -> Table {
        let left = |name| (name, Align::Left);
        let right = |name| (name, Align::Right);
        let mut table = Table::new(&[
            left("stage"),
            left("operator"),
            right("took"),
            right("moved"),
            right("limit"),
            left("bound by"),
            right("of limit"),
            right("MBU"),
            right("MFU"),
        ]);
        for (stage, meter, wall) in stages(record) {
            self.row(&mut table, stage, "all", meter.total(), wall);
            for operator in Operator::ALL {
                if !meter.time(operator).is_zero() {
                    self.row(&mut table, "", operator.name(), meter.cost(operator), meter.time(operator));
                }
            }
        }
        table
    }

    fn row(&self, table: &mut Table, stage: &str, operator: &str, cost: Cost, took: Duration) {
        let percent = |share: f64| format!("{} %", three_digits(100.0 * share));
        let shares = self.shares(cost, took);
        let cell = |share: Option<f64>| share.map_or("-".to_string(), percent);
        let bound = self.bound(cost);
        let (limit, by) =
            if bound.seconds > 0.0 { (ms(bound.seconds), bound.by) } else { ("-".to_string(), "-") };
        table.row([
            stage.to_string(),
            operator.to_string(),
            ms(took.as_secs_f64()),
            bytes(cost.bytes()),
            limit,
            by.to_string(),
            cell(shares.of_limit),
            cell(shares.mbu),
            cell(shares.mfu),
        ]);
    }

    fn shares(&self, cost: Cost, took: Duration) -> Shares {
        let seconds = took.as_secs_f64();
        let share = |seconds_at_least: f64| {
            (seconds_at_least > 0.0 && seconds > 0.0).then(|| seconds_at_least / seconds)
        };
        Shares {
            of_limit: share(self.bound(cost).seconds),
            mbu: share(cost.bytes() as f64 / self.bandwidth),
            mfu: share(cost.flops as f64 / self.peak),
        }
    }

    /// The same for programs.
    pub fn json(&self, record: &Record) -> Value {
        let entry = |stage: &str, operator: &str, cost: Cost, took: Duration| {
            let (bound, shares) = (self.bound(cost), self.shares(cost, took));
            json!({
                "stage": stage, "operator": operator, "seconds": took.as_secs_f64(), "bytes": cost.bytes(),
                "flops": cost.flops, "limit_s": bound.seconds, "bound_by": bound.by,
                "of_limit": shares.of_limit, "mbu": shares.mbu, "mfu": shares.mfu,
            })
        };
        let mut entries = Vec::new();
        for (stage, meter, wall) in stages(record) {
            entries.push(entry(stage, "all", meter.total(), wall));
            let ran = Operator::ALL.into_iter().filter(|&operator| !meter.time(operator).is_zero());
            entries.extend(
                ran.map(|operator| entry(stage, operator.name(), meter.cost(operator), meter.time(operator))),
            );
        }
        json!({
            "roof": self.kind,
            "device": self.hardware.name,
            "bandwidth_bytes_per_s": self.bandwidth,
            "cache_level": self.level,
            "peak_flops_per_s": self.peak,
            "peak_type": self.peak_type.key(),
            "stages": entries,
        })
    }
}

/// Shares of one entry; nothing where there is nothing to divide.
struct Shares {
    of_limit: Option<f64>,
    mbu: Option<f64>,
    mfu: Option<f64>,
}

fn stages(record: &Record) -> [(&'static str, &Meter, Duration); 2] {
    [("prefill", &record.prefill, record.stages.prefill), ("decode", &record.decode, record.stages.decode)]
}

fn ms(seconds: f64) -> String {
    format!("{} ms", three_digits(1e3 * seconds))
}

/// What a run asks of a machine.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Weights and live cache.
    pub resident_bytes: u64,
    /// Width of the arithmetic.
    pub bits: u32,
}

/// The probe of this minute, and the data sheet of `device` or of this processor if the table has it; and what there
/// is to say about a data sheet that is missing.
pub fn roofs(
    device: Option<&str>,
    threads: usize,
    load: Load,
) -> Result<(Vec<Roof>, Option<String>), Failure> {
    let probe = machine::measure_quickly(threads)?.device()?;
    let mut roofs = vec![Roof::new("probe", probe, load)?];
    let table = devices::table(None)?;
    let note = match (device, Environment::read().cpu.name) {
        (Some(name), _) => {
            roofs.push(Roof::new("data sheet", table.get(name)?.clone(), load)?);
            None
        }
        (None, Some(name)) => match table.get(&name) {
            Ok(hardware) => {
                roofs.push(Roof::new("data sheet", hardware.clone(), load)?);
                None
            }
            Err(_) => Some(format!("no data sheet is known for {name}; name a device with --device")),
        },
        (None, None) => {
            Some("no data sheet: the processor's name is not known; name a device with --device".into())
        }
    };
    Ok((roofs, note))
}
