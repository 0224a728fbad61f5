//! Where the secrets of a running step lie: files of its user alone, on memory that is never swapped.
//!
//! `<runtime>/secrets` is a file system of its own: ramfs, else tmpfs that is never swapped, else, where nothing may
//! be mounted, a plain folder of whatever the runtime folder is on. Each run has a folder there for as long as one of
//! its commands runs. Who is killed leaves it behind: the agent sweeps it when it finds the executor dead, and at its
//! own start.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{major, minor};
use procfs::process::MountInfo;

use super::user::User;
use crate::domain::ids::RunId;
use crate::host::disk;

/// How long another executor may take to mount the place of secrets.
const LOCKED_FOR: Duration = Duration::from_secs(2);

/// What secrets lie on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Memory that is never swapped.
    NeverSwapped,
    /// What the runtime folder lies on: memory on every ordinary host, and swapped where there is swap.
    Plain,
}

fn place(runtime: &Path) -> PathBuf {
    runtime.join("secrets")
}

/// The folder of one run's secrets.
pub fn folder(runtime: &Path, run: RunId) -> PathBuf {
    place(runtime).join(run.to_string())
}

/// What the secrets lie on now.
pub fn kind(runtime: &Path) -> Kind {
    if mounts(runtime).iter().any(never_swapped) { Kind::NeverSwapped } else { Kind::Plain }
}

/// The mounts of the file system that the secrets lie on; none where they cannot be told.
fn mounts(runtime: &Path) -> Vec<MountInfo> {
    // The device tells, and not the path, which may be reached through a link or be written otherwise in mountinfo.
    let Ok(device) = fs::metadata(place(runtime)).map(|place| place.dev()) else { return Vec::new() };
    let device = format!("{}:{}", major(device), minor(device));
    let mounts = fs::read("/proc/self/mountinfo").unwrap_or_default();
    read(&mounts).filter(|mount| mount.majmin == device).collect()
}

/// The lines of mountinfo that can be read: another one, whose name need not be text, hides none of ours.
fn read(mounts: &[u8]) -> impl Iterator<Item = MountInfo> {
    let lines = mounts.split(|byte| *byte == b'\n');
    lines.filter_map(|line| MountInfo::from_line(&String::from_utf8_lossy(line)).ok())
}

fn never_swapped(mount: &MountInfo) -> bool {
    mount.fs_type == "ramfs" || (mount.fs_type == "tmpfs" && mount.super_options.contains_key("noswap"))
}

/// Whether it is mounted so that nothing in it can be started.
fn is_without_programs(mount: &MountInfo) -> bool {
    mount.mount_options.contains_key("noexec")
}

/// Takes a lock that nobody but this user can open, also where an earlier version made its file for everybody.
///
/// # Errors
/// Another holds it for longer than a mount takes: nothing waits here that a deadline or a cancel does not reach.
fn lock(path: &Path) -> io::Result<Flock<File>> {
    let mut file = disk::lock_file(path).map_err(|error| error.source)?;
    let until = Instant::now().checked_add(LOCKED_FOR);
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((_, errno)) if errno != Errno::EWOULDBLOCK => return Err(errno.into()),
            Err(_) if until.is_none_or(|until| Instant::now() >= until) => {
                return Err(io::Error::new(
                    io::ErrorKind::WouldBlock,
                    format!("another process holds {}: find it with fuser, and end it", path.display()),
                ));
            }
            Err((back, _)) => file = back,
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Makes sure that there is a place for secrets, on memory that is never swapped if that can be had.
fn prepare(runtime: &Path) -> io::Result<()> {
    let place = place(runtime);
    DirBuilder::new().recursive(true).mode(0o755).create(runtime)?;
    // Two executors at once would mount one over the other's secrets.
    let _lock = lock(&runtime.join("secrets.lock"))?;
    DirBuilder::new().recursive(true).mode(0o711).create(&place)?;
    // Not without programs: Ansible copies a script here before it starts it.
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    if kind(runtime) == Kind::NeverSwapped {
        // As an earlier version has mounted it.
        if mounts(runtime).iter().any(is_without_programs) {
            let again = flags | MsFlags::MS_REMOUNT | MsFlags::MS_BIND;
            let remounted = mount(None::<&str>, &place, None::<&str>, again, None::<&str>);
            let _ = remounted.inspect_err(|error| {
                tracing::warn!("cannot remount {} without noexec: {error}", place.display())
            });
        }
        return Ok(());
    }
    let with = |kind: &str, options: &str| mount(Some("hostler"), &place, Some(kind), flags, Some(options));
    if with("ramfs", "mode=0711").or_else(|_| with("tmpfs", "mode=0711,noswap,size=64m")).is_err() {
        tracing::warn!(
            "mounting is not permitted: secrets are stored as ordinary files in {}",
            place.display()
        );
    }
    disk::set_mode(&place, 0o711).map_err(|error| error.source)
}

/// The files of one command's secrets; they go with this value.
#[derive(Debug)]
pub struct Files {
    path: PathBuf,
}

impl Files {
    /// Writes a file a secret, for `user` alone. Others may be added until [`Files::close`].
    pub fn write<'a>(
        runtime: &Path,
        run: RunId,
        user: &User,
        secrets: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> io::Result<Self> {
        prepare(runtime)?;
        let files = Self { path: folder(runtime, run) };
        disk::clear_away(&files.path)?;
        DirBuilder::new().mode(0o700).create(&files.path)?;
        for (name, value) in secrets {
            let path = files.path.join(name);
            disk::create(&path, value.as_bytes(), 0o400).map_err(|error| error.source)?;
            user.own(&path)?;
        }
        Ok(files)
    }

    /// Hands the folder over when all is in it: `user` can read what there is, and add nothing.
    pub fn close(&self, user: &User) -> io::Result<()> {
        user.own(&self.path)?;
        disk::set_mode(&self.path, 0o500).map_err(|error| error.source)
    }

    /// Where.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn remove(&self) {
        sweep_one(&self.path);
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        self.remove();
    }
}

fn sweep_one(path: &Path) {
    let _ = disk::set_mode(path, 0o700);
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::error!("cannot remove secrets from {}: {error}", path.display());
        }
        _ => {}
    }
}

/// Takes the place of secrets away, with the file system that was mounted there.
///
/// # Errors
/// Those of the kernel; that nothing is mounted is none.
pub fn take_away(runtime: &Path) -> io::Result<()> {
    loop {
        match umount2(&place(runtime), MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            // One may have been mounted over another.
            Ok(()) => {}
            Err(Errno::EINVAL | Errno::ENOENT | Errno::EPERM) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Removes what a dead executor of this run left.
pub fn sweep_run(runtime: &Path, run: RunId) {
    sweep_one(&folder(runtime, run));
}

/// Removes the secrets of all runs but those of which an executor lives.
pub fn sweep(runtime: &Path, alive: impl Fn(&str) -> bool) {
    for entry in fs::read_dir(place(runtime)).into_iter().flatten().flatten() {
        if !entry.file_name().to_str().is_some_and(&alive) {
            sweep_one(&entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_for_nobody_else_and_is_not_waited_for_without_end() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secrets.lock");
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let held = lock(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let began = Instant::now();
        assert_eq!(lock(&path).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert!(began.elapsed() >= LOCKED_FOR);
        drop(held);
        assert!(lock(&path).is_ok());
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        assert!(lock(&path).is_err(), "no link is followed");
    }

    #[test]
    fn mounts_are_told_apart() {
        let line = |mounted: &str, kind: &str, options: &str| {
            let line = format!(
                "36 35 0:32 / /run/a\\040b/secrets rw,nosuid{mounted} shared:7 - {kind} hostler rw{options}\n"
            );
            let others = [&b"35 1 0:30 / /home/\xff rw - fuse  rw\n"[..], b"half of a line\n"].concat();
            let found: Vec<MountInfo> = read(&[&others, line.as_bytes()].concat()).collect();
            found.into_iter().find(|mount| mount.majmin == "0:32").unwrap()
        };
        assert!(never_swapped(&line("", "ramfs", "")));
        assert!(never_swapped(&line("", "tmpfs", ",size=1m,noswap")));
        assert!(!never_swapped(&line("", "tmpfs", ",size=1m")));
        assert!(!never_swapped(&line("", "ext4", ",noswap")));
        assert!(is_without_programs(&line(",noexec", "ramfs", "")));
        assert!(!is_without_programs(&line("", "ramfs", ",noexec")));
    }

    /// A second file system over the first would hide the secrets of running steps.
    #[test]
    fn nothing_is_mounted_twice_whatever_the_path_looks_like() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().join("a b\\040\tc");
        fs::create_dir(&real).unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let id = fs::canonicalize(&real).unwrap();
        let mounted = || {
            let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
            let below = dir.path().to_string_lossy().into_owned();
            mounts.lines().filter(|line| line.contains(&below)).count()
        };
        for runtime in [&real, &link, &id] {
            prepare(runtime).unwrap();
            // Where nothing may be mounted there is nothing to be seen.
            let count = mounted();
            assert!(count <= 1, "{count} mounts after {}", runtime.display());
            assert_eq!(kind(runtime) == Kind::NeverSwapped, count == 1);
        }
        take_away(&link).unwrap();
        assert_eq!(mounted(), 0);
    }
}
