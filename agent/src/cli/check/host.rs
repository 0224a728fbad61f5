//! What is to be checked on the host itself: folders, disk, clock, launcher, tasks.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::{Check, fail, ok, warn};
use crate::admission::PATH;
use crate::admission::policy::Policy;
use crate::app::open;
use crate::catalog::Catalog;
use crate::catalog::facts::FactCatalog;
use crate::catalog::trust::OwnerRule;
use crate::config::{ClockChoice, Settings, StoreSettings};
use crate::domain::span::Bytes;
use crate::exec::launcher::Launcher;
use crate::host::clock;
use crate::host::program::is_noexec;

/// With less than this a run's records could not be written: twice the reserve of a full disk.
const LEAST_BYTES: u64 = 32 << 20;
/// A run needs a dozen files.
const LEAST_INODES: u64 = 1000;
/// From here on somebody should look.
const LOW_PERCENT: u64 = 10;

pub(super) fn checks(settings: &Settings) -> Vec<Check> {
    let mut checks = vec![state(&settings.state_dir)];
    checks.extend(noexec(&settings.state_dir.join("tasks")));
    checks.extend(disk(&settings.state_dir));
    checks.push(clock(settings));
    checks.push(launcher(settings));
    if matches!(settings.store, StoreSettings::Dir(_)) {
        checks.push(warn(
            "dir store",
            "a directory store does not distinguish a restored copy from an edit",
            "after you restore the directory, check hostler status before you start the agent",
        ));
    }
    checks.extend(tasks(settings));
    checks.extend(facts(settings));
    checks.push(admitted());
    checks
}

fn state(dir: &Path) -> Check {
    let (name, shown) = ("state folder", dir.display());
    let meta = match fs::metadata(dir) {
        Ok(meta) if meta.is_dir() => meta,
        Ok(_) => return fail(name, format!("{shown} is no folder"), "remove it, or set `state_dir`"),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return warn(name, format!("{shown} is not there"), "the agent makes it when it first starts");
        }
        Err(error) => return fail(name, format!("{shown}: {error}"), "run this as root"),
    };
    let me = nix::unistd::geteuid().as_raw();
    let mode = meta.permissions().mode() & 0o7777;
    if meta.uid() != 0 && meta.uid() != me {
        fail(name, format!("{shown} belongs to user {}", meta.uid()), format!("chown root {shown}"))
    } else if mode & 0o066 != 0 {
        // To go through it to a task's copy is allowed to the users of steps.
        fail(name, format!("{shown} has mode {mode:04o}: others can look in"), format!("chmod 0711 {shown}"))
    } else {
        ok(name, format!("{shown}, mode {mode:04o}"))
    }
}

/// What is not there yet will be made in the nearest folder that is.
fn nearest(dir: &Path) -> &Path {
    dir.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/"))
}

/// Runs start their scripts from the copies of tasks in the state folder, wherever the tasks are installed.
fn noexec(copies: &Path) -> Option<Check> {
    is_noexec(nearest(copies)).unwrap_or(false).then(|| {
        let shown = copies.display();
        warn(
            "noexec",
            format!("{shown} is on a file system that is mounted with noexec: no script of a task can start from there"),
            "mount it without noexec, or set `state_dir` to a folder elsewhere",
        )
    })
}

fn disk(dir: &Path) -> [Check; 2] {
    let there = nearest(dir);
    let stat = match nix::sys::statvfs::statvfs(there) {
        Ok(stat) => stat,
        Err(error) => {
            let why = || format!("{}: {error}", there.display());
            return ["disk", "inodes"].map(|name| fail(name, why(), "check the file system"));
        }
    };
    let free = stat.blocks_free().saturating_mul(stat.fragment_size());
    let cure = format!("free some space on the file system of {}", there.display());
    let percent = |free: u64, all: u64| free.saturating_mul(100) / all.max(1);
    let of_bytes = percent(stat.blocks_free(), stat.blocks());
    let unit = if free >> 30 > 0 { 30 } else { 20 };
    let bytes = format!("{} free ({of_bytes} %)", Bytes(free >> unit << unit));
    let disk = if free < LEAST_BYTES {
        fail("disk", bytes, cure.clone())
    } else if of_bytes < LOW_PERCENT {
        warn("disk", bytes, cure.clone())
    } else {
        ok("disk", bytes)
    };
    let of_inodes = percent(stat.files_free(), stat.files());
    let inodes = format!("{} inodes free ({of_inodes} %)", stat.files_free());
    let inodes = match stat.files() {
        // Some file systems do not count them.
        0 => ok("inodes", "not counted by this file system"),
        _ if stat.files_free() < LEAST_INODES => fail("inodes", inodes, cure),
        _ if of_inodes < LOW_PERCENT => warn("inodes", inodes, cure),
        _ => ok("inodes", inodes),
    };
    [disk, inodes]
}

/// What the agent asks as well: what depends on the time of day waits while the kernel says no.
fn clock(settings: &Settings) -> Check {
    match settings.clock {
        ClockChoice::Trusted => ok("clock", "trusted by the configuration"),
        ClockChoice::Synchronised if clock::synchronised() => {
            ok("clock", "synchronised, according to the kernel")
        }
        ClockChoice::Synchronised => warn(
            "clock",
            "not synchronised, according to the kernel: schedules, windows, not_before and not_after wait",
            "run a time service, see timedatectl; or, if the clock is right without one, configure `clock: trusted`",
        ),
    }
}

fn launcher(settings: &Settings) -> Check {
    match open::launcher(settings.launcher) {
        Launcher::Systemd => ok("launcher", "each run is a unit of systemd"),
        Launcher::Detached => warn(
            "launcher",
            "runs are detached processes: a stopped run could leave processes behind, and `limits:` of tasks are not enforced",
            "run under systemd with launcher: auto",
        ),
    }
}

/// What the shipped tasks may touch.
fn admitted() -> Check {
    let name = "tasks.yml";
    let policy = match Policy::read(Path::new(PATH)) {
        Ok(policy) => policy,
        Err(error) => {
            let cure = "correct it: until then the shipped tasks do nothing that it could admit";
            return fail(name, error.to_string(), cure);
        }
    };
    let paths = |paths: &[PathBuf]| {
        let shown: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        if shown.is_empty() { "nowhere".to_owned() } else { shown.join(", ") }
    };
    let Policy { places, packages, postgres } = policy;
    let ports: Vec<String> = postgres.ports.iter().map(u16::to_string).collect();
    ok(
        name,
        format!(
            "clean: {}; backup: {}; restore: {}; packages: {} without {}; postgres: {}, ports {}",
            paths(&places.clean),
            paths(&places.backup),
            paths(&places.restore),
            packages.allow.join(", "),
            packages.deny.join(", "),
            paths(&postgres.sockets),
            ports.join(", "),
        ),
    )
}

fn tasks(settings: &Settings) -> Vec<Check> {
    let catalog = Catalog::load(&settings.task_dirs, OwnerRule::of_process());
    let mut checks: Vec<Check> =
        catalog.unreadable().iter().map(|why| fail("tasks", why.clone(), "see `task_dirs`")).collect();
    let mut good = 0;
    for (name, task) in catalog.iter() {
        match task {
            Ok(_) => good += 1,
            Err(broken) => checks.push(fail(
                "tasks",
                format!("{name} is broken: {}", broken.faults.join("; ")),
                format!("correct it, then: hostler task lint {name}"),
            )),
        }
    }
    let dirs: Vec<String> = settings.task_dirs.iter().map(|dir| dir.display().to_string()).collect();
    checks.push(match good {
        0 => warn("tasks", format!("none can be run from {}", dirs.join(", ")), "install one there"),
        _ => ok("tasks", format!("{good} can be run from {}", dirs.join(", "))),
    });
    checks
}

fn facts(settings: &Settings) -> Vec<Check> {
    let catalog = FactCatalog::load(&settings.facts_dirs, OwnerRule::of_process());
    let cure = "correct it, then: systemctl reload hostler";
    let broken = catalog.facts.iter().filter_map(|(name, fact)| Some((name, fact.as_ref().err()?)));
    let mut checks: Vec<Check> =
        broken.map(|(name, why)| fail("facts", format!("{name} is broken: {why}"), cure)).collect();
    checks.extend(catalog.odd.iter().map(|why| warn("facts", why.clone(), cure)));
    let good = catalog.facts.values().filter(|fact| fact.is_ok()).count();
    let dirs: Vec<String> = settings.facts_dirs.iter().map(|dir| dir.display().to_string()).collect();
    checks.push(ok("facts", format!("the built-in one, and {good} from {}", dirs.join(", "))));
    checks
}
