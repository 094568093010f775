//! Devices: bandwidth, peaks and memory, each figure with its source.

use crate::error::{LimitsError, in_range};
use crate::nearest::{nearest, normalized};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;

/// How far a figure can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Confidence {
    /// A data sheet, or two sources that agree.
    A,
    /// Computed from the ratios of its generation, or one secondary source.
    B,
    /// General knowledge, or sources that disagree.
    C,
    /// Measured on this machine.
    Probe,
}

/// A number and where it comes from.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    /// In bytes per second, FLOP/s or bytes.
    pub value: f64,
    /// Where it was read or how it was computed.
    pub source: String,
    /// How far to trust it.
    pub confidence: Confidence,
}

/// What is multiplied, and what it is added up in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // input_accumulator
pub enum NumberType {
    F32,
    Tf32,
    Bf16F32,
    F16F32,
    F16F16,
    Fp8F32,
    Fp8F16,
    Int8I32,
    Int4I32,
    Fp4F32,
}

impl NumberType {
    /// Every type, widest first.
    pub const ALL: [NumberType; 10] = [
        NumberType::F32,
        NumberType::Tf32,
        NumberType::Bf16F32,
        NumberType::F16F32,
        NumberType::F16F16,
        NumberType::Fp8F32,
        NumberType::Fp8F16,
        NumberType::Int8I32,
        NumberType::Int4I32,
        NumberType::Fp4F32,
    ];

    /// Key in a hardware file: `bf16_f32`.
    pub fn key(self) -> &'static str {
        match self {
            NumberType::F32 => "f32",
            NumberType::Tf32 => "tf32",
            NumberType::Bf16F32 => "bf16_f32",
            NumberType::F16F32 => "f16_f32",
            NumberType::F16F16 => "f16_f16",
            NumberType::Fp8F32 => "fp8_f32",
            NumberType::Fp8F16 => "fp8_f16",
            NumberType::Int8I32 => "int8_i32",
            NumberType::Int4I32 => "int4_i32",
            NumberType::Fp4F32 => "fp4_f32",
        }
    }

    /// In words: `bf16, f32 accumulate`.
    pub fn words(self) -> &'static str {
        match self {
            NumberType::F32 => "f32",
            NumberType::Tf32 => "tf32, f32 accumulate",
            NumberType::Bf16F32 => "bf16, f32 accumulate",
            NumberType::F16F32 => "f16, f32 accumulate",
            NumberType::F16F16 => "f16, f16 accumulate",
            NumberType::Fp8F32 => "fp8, f32 accumulate",
            NumberType::Fp8F16 => "fp8, f16 accumulate",
            NumberType::Int8I32 => "int8, i32 accumulate",
            NumberType::Int4I32 => "int4, i32 accumulate",
            NumberType::Fp4F32 => "fp4, f32 accumulate",
        }
    }
}

/// A cache that all cores together can hold a step in.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cache {
    /// `L2`, `L3`.
    pub name: String,
    /// Size in bytes, of all cores together.
    pub bytes: f64,
    /// Read bandwidth in bytes per second, of all cores together.
    pub bandwidth: Figure,
}

/// A device.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Hardware {
    /// Its name.
    pub name: String,
    /// Other names that mean exactly this device.
    pub aliases: Vec<String>,
    /// `gpu-consumer`, `gpu-server`, `cpu`, …
    pub class: String,
    /// Memory it is sold with, in bytes, ascending; empty when it is the system's and not known.
    pub memory: Vec<Figure>,
    /// Memory bandwidth, bytes per second, as the vendor states it (1 GB = 10^9 bytes).
    pub bandwidth: Figure,
    /// Dense peaks, operations per second.
    pub peaks: BTreeMap<NumberType, Figure>,
    /// Bandwidths that somebody reached, bytes per second.
    pub measured_bandwidth: Vec<Figure>,
    /// Caches that a whole step may fit in, largest first; empty when nobody measured them.
    pub caches: Vec<Cache>,
    /// What else one should know.
    pub notes: String,
}

impl Hardware {
    /// A machine from a probe: bandwidth in bytes/s, peaks in operations/s, memory in bytes.
    pub fn from_probe(
        name: &str,
        bandwidth: f64,
        peaks: &[(NumberType, f64)],
        memory_bytes: Option<u64>,
        source: &str,
    ) -> Result<Hardware, LimitsError> {
        let figure = |value| Figure { value, source: source.to_owned(), confidence: Confidence::Probe };
        let hardware = Hardware {
            name: name.to_owned(),
            aliases: Vec::new(),
            class: "this machine".to_owned(),
            memory: memory_bytes.map(|bytes| figure(bytes as f64)).into_iter().collect(),
            bandwidth: figure(bandwidth),
            peaks: peaks.iter().map(|&(number, value)| (number, figure(value))).collect(),
            measured_bandwidth: Vec::new(),
            caches: Vec::new(),
            notes: String::new(),
        };
        hardware.validate()?;
        Ok(hardware)
    }

    /// This device with one more cache: `bytes` that all cores together hold, read at `bandwidth` bytes/s.
    pub fn with_cache(
        mut self,
        name: &str,
        bytes: u64,
        bandwidth: f64,
        source: &str,
    ) -> Result<Hardware, LimitsError> {
        let bandwidth = Figure { value: bandwidth, source: source.to_owned(), confidence: Confidence::Probe };
        self.caches.push(Cache { name: name.to_owned(), bytes: bytes as f64, bandwidth });
        self.caches.sort_by(|a, b| b.bytes.total_cmp(&a.bytes));
        self.validate()?;
        Ok(self)
    }

    /// The smallest cache that holds `bytes` and is faster than memory.
    pub fn cache_for(&self, bytes: f64) -> Option<&Cache> {
        self.caches.iter().rev().find(|c| c.bytes >= bytes && c.bandwidth.value > self.bandwidth.value)
    }

    /// Checks that every figure is a positive number of plausible size.
    pub fn validate(&self) -> Result<(), LimitsError> {
        in_range("bandwidth in bytes/s", self.bandwidth.value, 1e6, 1e18)?;
        for peak in self.peaks.values() {
            in_range("a peak in operations/s", peak.value, 1e6, 1e21)?;
        }
        for memory in &self.memory {
            in_range("memory in bytes", memory.value, 1e6, 1e18)?;
        }
        for cache in &self.caches {
            in_range("a cache in bytes", cache.bytes, 1.0, 1e15)?;
            in_range("a cache's bandwidth in bytes/s", cache.bandwidth.value, 1e6, 1e18)?;
        }
        for measured in &self.measured_bandwidth {
            in_range("a measured bandwidth in bytes/s", measured.value, 1e6, 1e18)?;
        }
        Ok(())
    }

    /// The largest memory it is sold with.
    pub fn memory_bytes(&self) -> Option<f64> {
        self.memory.last().map(|figure| figure.value)
    }

    /// The peak that products with activations of `bits` can reach, and its number type: the fastest of that width with the
    /// widest accumulator the device offers, or the next wider type when it has none of that width.
    pub fn peak_for(&self, bits: u32) -> Result<(NumberType, &Figure), LimitsError> {
        use NumberType::{Bf16F32, F16F32, F32, Fp4F32, Fp8F32, Int4I32, Int8I32};
        let widths: &[&[NumberType]] = match bits {
            4 => &[&[Int4I32, Fp4F32], &[Int8I32, Fp8F32], &[Bf16F32, F16F32], &[F32]],
            8 => &[&[Int8I32, Fp8F32], &[Bf16F32, F16F32], &[F32]],
            16 => &[&[Bf16F32, F16F32], &[F32]],
            _ => &[&[F32]],
        };
        for width in widths {
            let fastest = width
                .iter()
                .filter_map(|number| self.peaks.get(number).map(|figure| (*number, figure)))
                .reduce(|a, b| if b.1.value > a.1.value { b } else { a });
            // a narrower type is never slower than a wider one that could stand in for it
            if let Some(found) = fastest {
                let wider = self.peaks.get(&F32).filter(|f32_peak| f32_peak.value > found.1.value);
                return Ok(wider.map_or(found, |figure| (F32, figure)));
            }
        }
        Err(LimitsError::MissingFigure { device: self.name.clone(), what: "the f32 peak" })
    }

    fn answers_to(&self, wanted: &str) -> bool {
        std::iter::once(&self.name).chain(&self.aliases).any(|name| simple(name) == *wanted)
    }
}

/// A normalized name without the maker's: `NVIDIA GeForce RTX 4090` is `rtx4090`. Nothing else is dropped, so that a laptop
/// card never passes for the desktop one.
fn simple(name: &str) -> String {
    let mut name = normalized(name);
    for maker in ["nvidia", "geforce", "amd", "apple", "intel"] {
        if let Some(rest) = name.strip_prefix(maker) {
            name = rest.to_owned();
        }
    }
    name
}

/// All devices that are known.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HardwareTable {
    /// In the order of the files.
    pub devices: Vec<Hardware>,
}

impl HardwareTable {
    /// The devices that come with the program.
    pub fn built_in() -> Result<&'static HardwareTable, LimitsError> {
        static TABLE: OnceLock<Result<HardwareTable, String>> = OnceLock::new();
        TABLE
            .get_or_init(|| {
                HardwareTable::parse("built in", include_str!("../data/hardware.toml"))
                    .map_err(|e| e.to_string())
            })
            .as_ref()
            .map_err(|reason| LimitsError::HardwareFile {
                file: "built in".to_owned(),
                reason: reason.clone(),
            })
    }

    /// Reads a hardware file's text; `file` names it in errors. The format is that of `data/hardware.toml`.
    pub fn parse(file: &str, text: &str) -> Result<HardwareTable, LimitsError> {
        let fail = |reason: String| LimitsError::HardwareFile { file: file.to_owned(), reason };
        let parsed: File = toml::from_str(text).map_err(|e| fail(e.to_string()))?;
        let mut table = HardwareTable { devices: Vec::new() };
        for device in parsed.device {
            let name = device.name.clone();
            let hardware = device.into_hardware().map_err(|e| fail(format!("device {name:?}: {e}")))?;
            if table.find(&hardware.name).is_some() {
                return Err(fail(format!("device {name:?} is there twice")));
            }
            table.devices.push(hardware);
        }
        Ok(table)
    }

    /// Reads a hardware file from disk.
    pub fn read(path: &Path) -> Result<HardwareTable, LimitsError> {
        let file = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|e| LimitsError::HardwareFile { file: file.clone(), reason: e.to_string() })?;
        HardwareTable::parse(&file, &text)
    }

    /// This table with the devices of `other` in front of it: where both have a name, `other` is meant.
    pub fn merged(&self, other: HardwareTable) -> HardwareTable {
        let mut devices = other.devices;
        let own: Vec<Hardware> =
            self.devices.iter().filter(|d| !devices.iter().any(|o| o.name == d.name)).cloned().collect();
        devices.extend(own);
        HardwareTable { devices }
    }

    /// The device of that name or alias, whatever its case and punctuation and with or without the maker's name.
    pub fn get(&self, name: &str) -> Result<&Hardware, LimitsError> {
        self.find(name).ok_or_else(|| LimitsError::UnknownDevice {
            name: name.to_owned(),
            nearest: nearest(&simple(name), self.devices.iter().map(|d| d.name.as_str()), 3),
        })
    }

    fn find(&self, name: &str) -> Option<&Hardware> {
        let wanted = simple(name);
        self.devices.iter().find(|device| device.answers_to(&wanted))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    device: Vec<FileDevice>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileDevice {
    name: String,
    #[serde(default)]
    aliases: Vec<String>,
    #[serde(default = "own_class")]
    class: String,
    #[serde(default)]
    memory_gib: Vec<f64>,
    bandwidth_gb_s: f64,
    #[serde(default)]
    peak_tflops: BTreeMap<NumberType, f64>,
    #[serde(default)]
    measured: Vec<FileMeasured>,
    #[serde(default)]
    cache: Vec<FileCache>,
    #[serde(default = "own_source")]
    source: String,
    #[serde(default = "own_confidence")]
    confidence: Confidence,
    #[serde(default)]
    figure: BTreeMap<String, FileFigure>,
    #[serde(default)]
    notes: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileMeasured {
    bandwidth_gb_s: f64,
    source: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileCache {
    name: String,
    mib: f64,
    bandwidth_gb_s: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileFigure {
    source: String,
    confidence: Confidence,
}

fn own_class() -> String {
    "user".to_owned()
}

fn own_source() -> String {
    "user's file".to_owned()
}

fn own_confidence() -> Confidence {
    Confidence::B
}

impl FileDevice {
    fn into_hardware(self) -> Result<Hardware, LimitsError> {
        let known = |key: &str| {
            key == "bandwidth_gb_s" || key == "memory_gib" || NumberType::ALL.iter().any(|n| n.key() == key)
        };
        if let Some(key) = self.figure.keys().find(|key| !known(key)) {
            return Err(LimitsError::Config(format!(
                "figure {key:?} is neither bandwidth_gb_s, memory_gib nor a peak"
            )));
        }
        let figure = |key: &str, value: f64| match self.figure.get(key) {
            Some(own) => Figure { value, source: own.source.clone(), confidence: own.confidence },
            None => Figure { value, source: self.source.clone(), confidence: self.confidence },
        };
        let mut memory: Vec<Figure> =
            self.memory_gib.iter().map(|gib| figure("memory_gib", gib * (1u64 << 30) as f64)).collect();
        memory.sort_by(|a, b| a.value.total_cmp(&b.value));
        let cache = |c: &FileCache| Cache {
            name: c.name.clone(),
            bytes: c.mib * (1u64 << 20) as f64,
            bandwidth: figure("cache", c.bandwidth_gb_s * 1e9),
        };
        let mut caches: Vec<Cache> = self.cache.iter().map(cache).collect();
        caches.sort_by(|a, b| b.bytes.total_cmp(&a.bytes));
        let hardware = Hardware {
            bandwidth: figure("bandwidth_gb_s", self.bandwidth_gb_s * 1e9),
            peaks: self.peak_tflops.iter().map(|(n, v)| (*n, figure(n.key(), v * 1e12))).collect(),
            measured_bandwidth: self
                .measured
                .into_iter()
                .map(|m| Figure {
                    value: m.bandwidth_gb_s * 1e9,
                    source: m.source,
                    confidence: Confidence::B,
                })
                .collect(),
            memory,
            caches,
            name: self.name,
            aliases: self.aliases,
            class: self.class,
            notes: self.notes,
        };
        hardware.validate()?;
        Ok(hardware)
    }
}
