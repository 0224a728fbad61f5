//! Where the secrets of a running step lie: files of its user alone, on memory that is never swapped.
//!
//! `<runtime>/secrets` is a file system of its own: ramfs, else tmpfs that is never swapped, else, where nothing may
//! be mounted, a plain folder of whatever the runtime folder is on. Each run has a folder there for as long as one of
//! its commands runs. Who is killed leaves it behind: the agent sweeps it when it finds the executor dead, and at its
//! own start.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

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
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    if never_swapped(&mounts, &place(runtime).to_string_lossy()) { Kind::NeverSwapped } else { Kind::Plain }
}

/// A line of mountinfo: id, parent, device, root, mount point, options, …, `-`, type, source, options.
fn never_swapped(mounts: &str, point: &str) -> bool {
    mounts.lines().any(|line| {
        let Some((before, behind)) = line.split_once(" - ") else { return false };
        let mut words = behind.split(' ');
        let (kind, options) = (words.next(), words.nth(1).unwrap_or_default());
        before.split(' ').nth(4) == Some(point)
            && (kind == Some("ramfs") || (kind == Some("tmpfs") && options.split(',').any(|o| o == "noswap")))
    })
}

/// Whether what is mounted there is mounted so that nothing in it can be started.
fn is_without_programs(mounts: &str, point: &str) -> bool {
    mounts.lines().any(|line| {
        let mut words = line.split(' ').skip(4);
        words.next() == Some(point)
            && words.next().is_some_and(|options| options.split(',').any(|o| o == "noexec"))
    })
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
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        if is_without_programs(&mounts, &place.to_string_lossy()) {
            let again = flags | MsFlags::MS_REMOUNT | MsFlags::MS_BIND;
            let remounted = mount(None::<&str>, &place, None::<&str>, again, None::<&str>);
            let _ =
                remounted.inspect_err(|error| tracing::warn!("{} stays noexec: {error}", place.display()));
        }
        return Ok(());
    }
    let with = |kind: &str, options: &str| mount(Some("hostler"), &place, Some(kind), flags, Some(options));
    if with("ramfs", "mode=0711").or_else(|_| with("tmpfs", "mode=0711,noswap,size=64m")).is_err() {
        tracing::warn!("nothing may be mounted here: secrets lie in {} like other files", place.display());
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
            tracing::error!("secrets are left in {}: {error}", path.display());
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
        let line = |kind: &str, options: &str| {
            format!("36 35 0:32 / /run/hostler/secrets rw,nosuid shared:7 - {kind} hostler rw{options}\n")
        };
        assert!(never_swapped(&line("ramfs", ""), "/run/hostler/secrets"));
        assert!(never_swapped(&line("tmpfs", ",size=1m,noswap"), "/run/hostler/secrets"));
        assert!(!never_swapped(&line("tmpfs", ",size=1m"), "/run/hostler/secrets"));
        assert!(!never_swapped(&line("ramfs", ""), "/run/other"));
        assert!(!never_swapped("", "/run/hostler/secrets"));
        let noexec = line("ramfs", "").replace("rw,nosuid", "rw,nosuid,noexec");
        assert!(is_without_programs(&noexec, "/run/hostler/secrets"));
        assert!(!is_without_programs(&noexec, "/run/other"));
        assert!(!is_without_programs(&line("ramfs", ",noexec"), "/run/hostler/secrets"));
    }
}
