//! What the kernel and the system say of this machine.

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

/// What the kernel counts of this process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Process {
    /// When it started, in seconds since the boot.
    pub started: f64,
    /// The seconds of processors that it has used.
    pub cpu: f64,
    /// Its resident memory, in bytes.
    pub resident: u64,
}

/// This process (`proc(5)`); zeros where that cannot be read.
pub fn process() -> Process {
    let Ok(stat) = procfs::process::Process::myself().and_then(|own| own.stat()) else {
        return Process::default();
    };
    let seconds = |ticks: u64| ticks as f64 / procfs::ticks_per_second() as f64;
    Process {
        started: seconds(stat.starttime),
        cpu: seconds(stat.utime + stat.stime),
        resident: stat.rss * procfs::page_size(),
    }
}

/// The name of the host, as the kernel knows it.
pub fn hostname() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname").map(|name| name.trim().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_knows_itself() {
        let own = process();
        let now = crate::host::clock::since_boot().as_secs_f64();
        assert!(own.started > 0.0 && own.started <= now, "{own:?} at {now}");
        assert!(own.resident > 1 << 20 && own.resident < 1 << 32, "{own:?}");
        assert!(own.cpu < now, "{own:?}");
    }
}
