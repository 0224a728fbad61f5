//! The built-in fact `host`: what the kernel, the machine and `/etc/os-release` say.

use std::fs;

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use sysinfo::{MemoryRefreshKind, RefreshKind, System};

use super::machine;

/// What is known of this host without a command: `os`, `os_version`, `kernel`, `arch`, `cpus`, `memory_bytes`,
/// `boot_time` (UTC), `virtualization` (in the words of systemd-detect-virt), `machine` (the machine id), `timezone`,
/// `hostler` (this program's version). What is not known is null.
pub fn host() -> Map<String, Value> {
    let memory = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
    let memory = System::new_with_specifics(memory).total_memory();
    let boot = i64::try_from(System::boot_time()).ok().filter(|at| *at > 0);
    let boot = boot.and_then(|at| Timestamp::from_second(at).ok());
    let cpus = nix::unistd::sysconf(nix::unistd::SysconfVar::_NPROCESSORS_ONLN).ok().flatten();
    let timezone = jiff::tz::TimeZone::try_system().ok();
    let timezone = timezone.and_then(|zone| zone.iana_name().map(str::to_owned));
    let fact = json!({
        "arch": std::env::consts::ARCH,
        "boot_time": boot.map(|at| at.to_string()),
        "cpus": cpus,
        "hostler": env!("CARGO_PKG_VERSION"),
        "kernel": System::kernel_version(),
        "machine": machine::machine_id(),
        "memory_bytes": memory,
        "os": System::distribution_id(),
        "os_version": System::os_version(),
        "timezone": timezone,
        "virtualization": virtualization(),
    });
    match fact {
        Value::Object(fact) => fact,
        _ => Map::new(),
    }
}

/// Makers of virtual machines as the firmware names them, in the words of systemd-detect-virt.
const MAKERS: [(&str, &str); 12] = [
    ("KVM", "kvm"),
    ("QEMU", "qemu"),
    ("OpenStack", "kvm"),
    ("VMware", "vmware"),
    ("VMW", "vmware"),
    ("innotek", "oracle"),
    ("VirtualBox", "oracle"),
    ("Xen", "xen"),
    ("Bochs", "bochs"),
    ("Parallels", "parallels"),
    ("Amazon EC2", "amazon"),
    ("Google Compute Engine", "google"),
];

/// A container or a virtual machine, or `none`.
fn virtualization() -> String {
    let text = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
    let container = text("/run/systemd/container");
    if !container.is_empty() {
        return container;
    }
    if fs::exists("/.dockerenv").unwrap_or(false) {
        return "docker".to_owned();
    }
    if fs::exists("/run/.containerenv").unwrap_or(false) {
        return "podman".to_owned();
    }
    let firmware = ["product_name", "sys_vendor", "board_vendor", "bios_vendor"];
    let firmware = firmware.map(|name| text(&format!("/sys/class/dmi/id/{name}")));
    let virtual_cpu =
        text("/proc/cpuinfo").lines().any(|line| line.starts_with("flags") && line.contains(" hypervisor"));
    of_firmware(&firmware, &text("/sys/hypervisor/type"), virtual_cpu).to_owned()
}

fn of_firmware(firmware: &[String], hypervisor: &str, virtual_cpu: bool) -> &'static str {
    let maker = MAKERS.iter().find(|(maker, _)| firmware.iter().any(|said| said.contains(maker)));
    match maker {
        Some((_, word)) => word,
        None if hypervisor == "xen" => "xen",
        None if !virtual_cpu => "none",
        None if firmware.iter().any(|said| said.contains("Microsoft")) => "microsoft",
        None => "vm-other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_knows_itself() {
        let fact = host();
        let number = |name: &str| fact[name].as_u64().unwrap();
        assert!(number("cpus") > 0 && number("memory_bytes") > 64 << 20, "{fact:?}");
        let text = |name: &str| fact[name].as_str().unwrap_or_default().to_owned();
        assert!(
            !text("kernel").is_empty() && !text("os").is_empty() && !text("virtualization").is_empty(),
            "{fact:?}"
        );
        assert!(text("boot_time").parse::<Timestamp>().unwrap() < Timestamp::now());
        assert_eq!(fact.len(), 11);
    }

    #[test]
    fn virtual_machines_are_known_by_their_firmware() {
        let of = |firmware: &[&str], hypervisor, cpu| {
            of_firmware(&firmware.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>(), hypervisor, cpu)
        };
        assert_eq!(of(&["Standard PC (Q35 + ICH9, 2009)", "QEMU"], "", true), "qemu");
        assert_eq!(of(&["VMware Virtual Platform", "VMware, Inc."], "", true), "vmware");
        assert_eq!(of(&["Virtual Machine", "Microsoft Corporation"], "", true), "microsoft");
        assert_eq!(of(&["Surface Pro", "Microsoft Corporation"], "", false), "none");
        assert_eq!(of(&["m5.large", "Amazon EC2"], "", true), "amazon");
        assert_eq!(of(&[""], "xen", false), "xen");
        assert_eq!(of(&["ProLiant DL380", "HPE"], "", false), "none");
        assert_eq!(of(&["?"], "", true), "vm-other");
    }
}
