//! What this host says of itself.

use std::fs;
use std::path::Path;

/// The kernel's boot id: a new one for each boot.
pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}

/// Whether systemd is this host's service manager (`sd_booted(3)`).
pub fn systemd_runs() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// The share of a file system that is free for root, in percent, and the bytes.
pub fn disk_free(path: &Path) -> nix::Result<(u64, u64)> {
    let stat = nix::sys::statvfs::statvfs(path)?;
    let (free, all) = (stat.blocks_free(), stat.blocks().max(1));
    Ok((free * 100 / all, free.saturating_mul(stat.fragment_size())))
}

/// The machine's id (`machine-id(5)`); empty where there is none.
pub fn machine_id() -> String {
    fs::read_to_string("/etc/machine-id").map(|id| id.trim().to_owned()).unwrap_or_default()
}

/// The name of the host, as the kernel knows it.
pub fn hostname() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname").map(|name| name.trim().to_owned()).unwrap_or_default()
}
