//! The processor: name, cores, caches, instruction sets.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::Source;

/// A processor as the operating system describes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cpu {
    /// Marketing name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// As `x86_64`.
    pub architecture: String,
    /// Hardware threads of the whole machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hardware_threads: Option<usize>,
    /// Physical cores of the whole machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cores: Option<usize>,
    /// Physical cores this process may run on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usable_cores: Option<usize>,
    /// Processor packages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sockets: Option<usize>,
    /// Highest clock the system allows, in Hz.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_hz: Option<f64>,
    /// Frequency governor of the first core.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub governor: Option<String>,
    /// Whether a hypervisor runs below the system, so that others may share the cores.
    pub virtual_machine: bool,
    /// Instruction sets that matter here, weakest first.
    pub instruction_sets: Vec<String>,
    /// Data and unified caches, nearest first.
    pub caches: Vec<Cache>,
}

/// One level of data cache.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cache {
    /// 1 is nearest to the core.
    pub level: u32,
    /// Bytes of one instance.
    pub bytes: u64,
    /// Instances in the machine.
    pub instances: usize,
}

/// The sets a kernel may be written for, as `/proc/cpuinfo` names them: x86 flags and AArch64 features.
const INSTRUCTION_SETS: [&str; 18] = [
    "sse4_2",
    "avx",
    "f16c",
    "fma",
    "avx2",
    "avx_vnni",
    "avx512f",
    "avx512bw",
    "avx512vl",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_bf16",
    "amx_int8",
    "asimd",
    "asimddp",
    "i8mm",
    "bf16",
];

impl Cpu {
    pub(super) fn read(source: &Source) -> Cpu {
        let info = source.text("proc/cpuinfo").unwrap_or_default();
        let field = |key: &str| {
            let line = info.lines().find(|line| line.split(':').next().is_some_and(|k| k.trim() == key))?;
            let value = line.split_once(':')?.1.trim();
            (!value.is_empty()).then(|| value.to_string())
        };
        let flags = field("flags").or_else(|| field("Features")).unwrap_or_default();
        let flags: BTreeSet<&str> = flags.split_whitespace().collect();
        let online = source.text("sys/devices/system/cpu/online").and_then(|list| parse_list(&list));
        let cores = online.as_ref().and_then(|all| count_cores(source, all));
        let allowed = allowed_cpus(source).or_else(|| online.clone());
        let kilohertz = source.line("sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq");
        Cpu {
            name: field("model name").or_else(|| field("Model")),
            architecture: std::env::consts::ARCH.to_string(),
            hardware_threads: online.as_ref().map(BTreeSet::len),
            cores,
            usable_cores: allowed.as_ref().and_then(|allowed| count_cores(source, allowed)),
            sockets: online.as_ref().and_then(|all| distinct(source, all, &["physical_package_id"])),
            max_hz: kilohertz.and_then(|khz| Some(khz.parse::<f64>().ok()? * 1e3)),
            governor: source.line("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            virtual_machine: flags.contains("hypervisor"),
            instruction_sets: INSTRUCTION_SETS
                .iter()
                .filter(|s| flags.contains(**s))
                .map(|s| s.to_string())
                .collect(),
            caches: online.map(|all| read_caches(source, &all)).unwrap_or_default(),
        }
    }

    /// The last level of data cache.
    pub fn last_level_cache(&self) -> Option<&Cache> {
        self.caches.last()
    }
}

/// CPUs in a list as `0-3,8,10-11`; `None` when it is not one.
pub(super) fn parse_list(list: &str) -> Option<BTreeSet<usize>> {
    let mut cpus = BTreeSet::new();
    for part in list.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        // A mask of 64 Ki CPUs is the most Linux knows; more is a damaged file.
        if last < first || last > 1 << 16 {
            return None;
        }
        cpus.extend(first..=last);
    }
    (!cpus.is_empty()).then_some(cpus)
}

fn allowed_cpus(source: &Source) -> Option<BTreeSet<usize>> {
    let status = source.text("proc/self/status")?;
    parse_list(status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?)
}

fn count_cores(source: &Source, cpus: &BTreeSet<usize>) -> Option<usize> {
    distinct(source, cpus, &["physical_package_id", "core_id"])
}

/// How many different values these topology files have together over some CPUs.
fn distinct(source: &Source, cpus: &BTreeSet<usize>, files: &[&str]) -> Option<usize> {
    let key = |cpu: &usize| {
        let line = |file| source.line(format!("sys/devices/system/cpu/cpu{cpu}/topology/{file}"));
        files.iter().map(line).collect::<Option<Vec<String>>>()
    };
    Some(cpus.iter().map(key).collect::<Option<BTreeSet<_>>>()?.len())
}

fn read_caches(source: &Source, cpus: &BTreeSet<usize>) -> Vec<Cache> {
    // (level, bytes, CPUs that share it): cores share an instance exactly when they give the same list.
    let mut instances = BTreeSet::new();
    for cpu in cpus {
        let folder = format!("sys/devices/system/cpu/cpu{cpu}/cache");
        for index in source.names(&folder) {
            let line = |file: &str| source.line(format!("{folder}/{index}/{file}"));
            let (Some(level), Some(size), Some(kind)) = (line("level"), line("size"), line("type")) else {
                continue;
            };
            let (Ok(level), Some(bytes)) = (level.parse::<u32>(), parse_size(&size)) else { continue };
            if kind != "Instruction" {
                instances.insert((level, bytes, line("shared_cpu_list").unwrap_or_else(|| cpu.to_string())));
            }
        }
    }
    let mut caches: Vec<Cache> = Vec::new();
    for (level, bytes, _) in instances {
        match caches.last_mut().filter(|cache| cache.level == level) {
            // Cores of different size (big and little) have different caches; the larger one is described.
            Some(cache) => {
                cache.instances += 1;
                cache.bytes = cache.bytes.max(bytes);
            }
            None => caches.push(Cache { level, bytes, instances: 1 }),
        }
    }
    caches
}

/// `512K`, `32M` or plain bytes.
fn parse_size(size: &str) -> Option<u64> {
    let (digits, unit) = match size.as_bytes().last()? {
        b'K' => (&size[..size.len() - 1], 1024),
        b'M' => (&size[..size.len() - 1], 1024 * 1024),
        _ => (size, 1),
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists() {
        assert_eq!(parse_list("0-2,5\n").unwrap(), BTreeSet::from([0, 1, 2, 5]));
        for bad in ["", "x", "3-1", "0-99999999999"] {
            assert_eq!(parse_list(bad), None, "{bad}");
        }
    }

    #[test]
    fn cache_sizes() {
        assert_eq!(parse_size("32K"), Some(32768));
        assert_eq!(parse_size("32M"), Some(33_554_432));
        assert_eq!(parse_size("99999999999999999999K"), None);
        assert_eq!(parse_size("K"), None);
    }
}
