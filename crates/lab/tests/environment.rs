//! The environment of a machine described by files.
#![allow(clippy::unwrap_used)] // helpers outside of #[test] too

use std::path::Path;

use roofline_lab::environment::{Cache, Engine, Environment, Source, VERSION};

fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// Two cores with two hardware threads each, of which this process may use three threads on both cores.
fn two_cores_with_two_threads(root: &Path) {
    let flags = "fpu sse4_2 avx avx2 fma hypervisor avx512f avx512_vnni";
    write(root, "proc/cpuinfo", &format!("processor\t: 0\nmodel name\t: Example 9000\nflags\t\t: {flags}\n"));
    write(root, "proc/self/status", "Name:\tx\nCpus_allowed_list:\t0-2\n");
    write(root, "proc/meminfo", "MemTotal:       16000 kB\nMemAvailable:   8000 kB\n");
    write(root, "proc/sys/kernel/osrelease", "6.1.0\n");
    write(root, "sys/devices/system/cpu/online", "0-3\n");
    write(root, "sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n");
    for cpu in 0..4 {
        let cpu_folder = format!("sys/devices/system/cpu/cpu{cpu}");
        let core = cpu % 2;
        write(root, &format!("{cpu_folder}/topology/physical_package_id"), "0\n");
        write(root, &format!("{cpu_folder}/topology/core_id"), &format!("{core}\n"));
        let siblings = format!("{core},{}", core + 2);
        for (index, level, kind, size, shared) in [
            (0, 1, "Data", "32K", siblings.as_str()),
            (1, 1, "Instruction", "32K", &siblings),
            (2, 3, "Unified", "8M", "0-3"),
        ] {
            for (file, text) in [
                ("level", level.to_string().as_str()),
                ("type", kind),
                ("size", size),
                ("shared_cpu_list", shared),
            ] {
                write(root, &format!("{cpu_folder}/cache/index{index}/{file}"), text);
            }
        }
    }
}

#[test]
fn reads_a_described_machine() {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("environment");
    two_cores_with_two_threads(&root);
    let environment = Environment::read_from(&Source::at(&root));
    let cpu = &environment.cpu;
    assert_eq!(cpu.name.as_deref(), Some("Example 9000"));
    assert_eq!(
        (cpu.hardware_threads, cpu.cores, cpu.usable_cores, cpu.sockets),
        (Some(4), Some(2), Some(2), Some(1))
    );
    assert!(cpu.virtual_machine);
    assert_eq!(cpu.instruction_sets, ["sse4_2", "avx", "fma", "avx2", "avx512f", "avx512_vnni"]);
    assert_eq!(
        cpu.caches,
        [Cache { level: 1, bytes: 32 << 10, instances: 2 }, Cache { level: 3, bytes: 8 << 20, instances: 1 }]
    );
    assert_eq!((cpu.governor.as_deref(), cpu.max_hz), (None, None));
    assert_eq!(environment.memory.total_bytes, Some(16_384_000));
    assert_eq!(environment.memory.huge_pages.as_deref(), Some("madvise"));
    assert_eq!(environment.kernel.as_deref(), Some("Linux 6.1.0"));
}

#[test]
fn a_silent_system_is_described_by_what_is_absent() {
    let environment =
        Environment::read_from(&Source::at(Path::new(env!("CARGO_TARGET_TMPDIR")).join("absent")));
    assert_eq!(environment.cpu.cores, None);
    assert_eq!(environment.memory.total_bytes, None);
    assert!(environment.cpu.caches.is_empty());
}

#[test]
fn the_build_knows_its_version_and_compiler() {
    let engine = Engine::this();
    assert_eq!(engine.version, env!("CARGO_PKG_VERSION"));
    assert!(engine.compiler.as_deref().is_some_and(|compiler| compiler.starts_with("rustc ")), "{engine:?}");
    assert!(VERSION.starts_with(&engine.version));
}
