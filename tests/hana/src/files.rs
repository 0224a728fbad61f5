//! Changes of files that survive a power cut, locks, and the points at which a test may kill a tool.
//!
//! A file is written beside its place, synced and renamed, so it is either the old or the new one. Files and folders are
//! open to all users: root and `<sid>adm` change the same state.

use crate::halt::Halt;
use crate::root::Root;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Makes the folder and those above it.
pub(crate) fn folder(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(above) = path.parent() {
        folder(above)?;
    }
    match fs::create_dir(path) {
        Ok(()) => fs::set_permissions(path, Permissions::from_mode(0o777)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Replaces the file as a whole, durably. The fault `disk-full` makes it fail as a full disk does.
pub(crate) fn write(root: &Root, path: &Path, bytes: &[u8]) -> Result<(), Halt> {
    room(root, path)?;
    let above = path.parent().unwrap_or(Path::new("/"));
    folder(above)?;
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.new", std::process::id()));
    let beside = above.join(name);
    let mut file = File::create(&beside)?;
    file.write_all(bytes)?;
    file.set_permissions(Permissions::from_mode(0o666))?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    File::open(above)?.sync_all()?;
    Ok(())
}

/// Adds to the end of the file, durably.
pub(crate) fn append(root: &Root, path: &Path, bytes: &[u8]) -> Result<(), Halt> {
    room(root, path)?;
    folder(path.parent().unwrap_or(Path::new("/")))?;
    let new = !path.exists();
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    if new {
        file.set_permissions(Permissions::from_mode(0o666))?;
    }
    file.write_all(bytes)?;
    file.sync_all()?;
    Ok(())
}

fn room(root: &Root, path: &Path) -> Result<(), Halt> {
    let full = root.faults().find("disk-full", |below| path.starts_with(root.at(below)));
    if full.is_some() {
        return Err(Halt::new(1, format!("{}: No space left on device", path.display())));
    }
    Ok(())
}

/// Writes a value as JSON, durably.
pub(crate) fn save<T: Serialize>(root: &Root, path: &Path, value: &T) -> Result<(), Halt> {
    write(root, path, &serde_json::to_vec_pretty(value)?)
}

/// Reads a value of JSON; `None` where there is no file.
pub(crate) fn load<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Halt> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Halt::new(1, format!("{}: {error}", path.display()))),
    }
}

/// Waits for the exclusive lock of the file, which lasts until what it gives is dropped.
pub(crate) fn lock(path: &Path) -> io::Result<File> {
    let file = lock_file(path)?;
    file.lock()?;
    Ok(file)
}

/// Opens a file to lock.
pub(crate) fn lock_file(path: &Path) -> io::Result<File> {
    folder(path.parent().unwrap_or(Path::new("/")))?;
    let new = !path.exists();
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    if new {
        // Another user may have made it in this instant; then it is open already.
        let _ = file.set_permissions(Permissions::from_mode(0o666));
    }
    Ok(file)
}

/// Every point at which the fault `crash` kills a tool by SIGKILL, as `hana-standins crash-points` lists them.
pub(crate) const CRASH_POINTS: &[&str] = &[
    "start.noted",
    "stop.noted",
    "commit.before-log",
    "commit.after-log",
    "configuration.set",
    "database.volume-made",
    "backup.noted",
    "backup.topology",
    "backup.volume",
    "backup.written",
    "backup.recorded",
    "backup.catalog",
    "log-backup.sent",
    "log-backup.recorded",
    "recovery.read",
    "recovery.written",
    "recovery.started",
    "snapshot.prepared",
    "catalog.pieces-deleted",
    "replication.set",
    "replication.registered",
    "replication.suspended",
    "replication.taken",
    "replication.fetched",
    "sapcar.extracted",
    "hdblcm.install.extract",
    "hdblcm.install.create",
    "hdblcm.install.start",
    "hdblcm.install.finish",
    "hdblcm.update.prepare",
    "hdblcm.update.stop",
    "hdblcm.update.manifest",
    "hdblcm.update.switch",
    "hdblcm.update.start",
    "hdblcm.update.finish",
    "hdblcm.uninstall.stopped",
    "hdblcm.uninstall.files",
];

/// Kills the nearest process above this one that has the name.
fn kill_above(program: &str) {
    let mut pid = nix::unistd::getppid().as_raw();
    while pid > 1 {
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return };
        // `PID (NAME) STATE PPID …`
        let Some((name, rest)) = stat.split_once('(').and_then(|(_, rest)| rest.rsplit_once(") ")) else {
            return;
        };
        if name == program {
            let _ =
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
            return;
        }
        pid = rest.split(' ').nth(1).and_then(|above| above.parse().ok()).unwrap_or(0);
    }
}

/// Kills this process where the fault `crash` names the point, or those above it where another one does.
pub(crate) fn crash_point(root: &Root, name: &str) {
    debug_assert!(CRASH_POINTS.contains(&name), "{name} is not in the list");
    for (fault, program) in [("kill-step", "hostler-hana"), ("kill-executor", "hostler")] {
        if root.faults().find(fault, |point| point == name).is_some() {
            kill_above(program);
        }
    }
    if root.faults().find("crash", |point| point == name).is_some() {
        die();
    }
}

/// Ends this process as SIGKILL does.
pub(crate) fn die() -> ! {
    let _ = nix::sys::signal::kill(nix::unistd::getpid(), nix::sys::signal::Signal::SIGKILL);
    std::process::abort()
}
