//! The surroundings of a measurement: processor, memory, operating system, and the build that measured.
//!
//! Everything is read from `/proc` and `/sys`; what a system does not tell is absent, never guessed.

mod cpu;
pub mod resident;
mod source;

pub use cpu::{Cache, Cpu};
pub use source::Source;

use serde::{Deserialize, Serialize};

/// What a figure depends on besides the code and the model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Environment {
    /// The processor.
    pub cpu: Cpu,
    /// Main memory.
    pub memory: MainMemory,
    /// Operating system kernel, as `Linux 6.1.0-18-amd64`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// The program that measured.
    pub engine: Engine,
}

/// Main memory.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct MainMemory {
    /// Bytes the system has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_bytes: Option<u64>,
    /// Bytes that a program could get without swapping, when this was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub available_bytes: Option<u64>,
    /// Bytes a control group grants, where one does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_bytes: Option<u64>,
    /// Number of NUMA nodes with memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub numa_nodes: Option<usize>,
    /// When the system backs memory with huge pages: `always`, `madvise` or `never`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub huge_pages: Option<String>,
}

/// The program that measured, as it was built.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Engine {
    /// Version of the workspace.
    pub version: String,
    /// Commit; absent when built outside of git.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Whether tracked files differed from the commit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dirty: Option<bool>,
    /// Compiler, as `rustc 1.95.0 (…)`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compiler: Option<String>,
    /// Target triple.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Cargo profile: `release` or `debug`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
}

/// Version and commit of this build in a line, as `0.1.0 (2e654fa1b2c3, modified)`.
pub const VERSION: &str = env!("ROOFLINE_SUMMARY");

impl Environment {
    /// Reads the running system's.
    pub fn read() -> Environment {
        Environment::read_from(&Source::system())
    }

    /// Reads the one that `source` describes.
    pub fn read_from(source: &Source) -> Environment {
        Environment {
            cpu: Cpu::read(source),
            memory: MainMemory::read(source),
            kernel: source.line("proc/sys/kernel/osrelease").map(|release| {
                let name = source.line("proc/sys/kernel/ostype").unwrap_or_else(|| "Linux".to_string());
                format!("{name} {release}")
            }),
            engine: Engine::this(),
        }
    }
}

impl MainMemory {
    fn read(source: &Source) -> MainMemory {
        let meminfo = source.text("proc/meminfo").unwrap_or_default();
        let kibibytes = |key: &str| {
            let line = meminfo.lines().find_map(|line| line.strip_prefix(key))?;
            line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
        };
        let nodes = source.text("sys/devices/system/node/has_memory").and_then(|list| cpu::parse_list(&list));
        let huge_pages = source.text("sys/kernel/mm/transparent_hugepage/enabled");
        MainMemory {
            total_bytes: kibibytes("MemTotal:"),
            available_bytes: kibibytes("MemAvailable:"),
            limit_bytes: source.line("sys/fs/cgroup/memory.max").and_then(|limit| limit.parse().ok()),
            numa_nodes: nodes.map(|nodes| nodes.len()),
            huge_pages: huge_pages
                .and_then(|modes| Some(modes.split_once('[')?.1.split_once(']')?.0.to_string())),
        }
    }
}

impl Engine {
    /// The build this code belongs to.
    pub fn this() -> Engine {
        let known = |text: &str| (!text.is_empty()).then(|| text.to_string());
        Engine {
            version: env!("CARGO_PKG_VERSION").to_string(),
            commit: known(env!("ROOFLINE_COMMIT")),
            dirty: env!("ROOFLINE_DIRTY").parse().ok(),
            compiler: known(env!("ROOFLINE_COMPILER")),
            target: known(env!("ROOFLINE_TARGET")),
            profile: known(env!("ROOFLINE_PROFILE")),
        }
    }
}
