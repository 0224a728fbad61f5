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

use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MsFlags, mount};

use super::user::User;
use crate::domain::ids::RunId;
use crate::host::disk;

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

/// Makes sure that there is a place for secrets, on memory that is never swapped if that can be had.
fn prepare(runtime: &Path) -> io::Result<()> {
    let place = place(runtime);
    DirBuilder::new().recursive(true).mode(0o755).create(runtime)?;
    // Two executors at once would mount one over the other's secrets.
    let file = File::create(runtime.join("secrets.lock"))?;
    let _lock = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?;
    DirBuilder::new().recursive(true).mode(0o711).create(&place)?;
    if kind(runtime) == Kind::NeverSwapped {
        return Ok(());
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
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
    /// Writes a file a secret, for `user` alone.
    pub fn write<'a>(
        runtime: &Path,
        run: RunId,
        user: &User,
        secrets: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> io::Result<Self> {
        prepare(runtime)?;
        let files = Self { path: folder(runtime, run) };
        files.remove();
        DirBuilder::new().mode(0o700).create(&files.path)?;
        for (name, value) in secrets {
            let path = files.path.join(name);
            disk::create(&path, value.as_bytes(), 0o400).map_err(|error| error.source)?;
            user.own(&path)?;
        }
        user.own(&files.path)?;
        disk::set_mode(&files.path, 0o500).map_err(|error| error.source)?;
        Ok(files)
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
    fn mounts_are_told_apart() {
        let line = |kind: &str, options: &str| {
            format!("36 35 0:32 / /run/hostler/secrets rw,nosuid shared:7 - {kind} hostler rw{options}\n")
        };
        assert!(never_swapped(&line("ramfs", ""), "/run/hostler/secrets"));
        assert!(never_swapped(&line("tmpfs", ",size=1m,noswap"), "/run/hostler/secrets"));
        assert!(!never_swapped(&line("tmpfs", ",size=1m"), "/run/hostler/secrets"));
        assert!(!never_swapped(&line("ramfs", ""), "/run/other"));
        assert!(!never_swapped("", "/run/hostler/secrets"));
    }
}
