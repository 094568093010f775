//! Memory of this process, as Linux counts it.

/// Most memory this process ever had resident, or since [`reset_peak_rss`], in bytes; absent where the system does not
/// say.
pub fn peak_rss() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// Starts the peak anew from what is resident now; whether the system could (proc(5), `clear_refs`, value 5).
pub fn reset_peak_rss() -> bool {
    std::fs::write("/proc/self/clear_refs", "5").is_ok()
}
