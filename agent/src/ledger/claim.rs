//! The claim of an epoch: whoever creates `claim.<epoch>` first may act in it, and nobody else ever.
//!
//! The holder keeps a lock on the file for life, so that others can tell whether it lives without trusting a pid.
//! The file appears under its name already written, synced and locked: a temporary file is prepared
//! and linked to the name, which fails where the name is taken. Nobody can meet a claim without a lock
//! whose holder is only about to lock it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::host::disk::{self, DiskError, PathContext};

/// The largest claim, in bytes.
const MAX_CLAIM: u64 = 16 << 10;

/// Who has an epoch; for people and for the search for leftovers, never the proof that somebody lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The kernel's boot id.
    pub boot: String,
    /// The process.
    pub pid: u32,
    /// Its start time in clock ticks since the boot, field 22 of `/proc/<pid>/stat`.
    pub start: u64,
    /// systemd's invocation id of the unit, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invocation: Option<String>,
    /// The agent took the epoch so that no executor can: nothing was or will be done in it.
    #[serde(default)]
    pub fenced: bool,
}

/// A claim that this process holds; the lock ends with it.
#[derive(Debug)]
pub struct Claim {
    _lock: Flock<File>,
}

/// What a claim says from the outside: its lock alone, whatever a newer program may write into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimState {
    /// Nobody has the epoch.
    None,
    /// Its holder lives.
    Held,
    /// Its holder is gone.
    Dead,
}

fn path(dir: &Path, epoch: u32) -> PathBuf {
    dir.join(format!("claim.{epoch}"))
}

impl Claim {
    /// Tries to get the epoch; `None`: somebody else has it.
    pub fn take(dir: &Path, epoch: u32, holder: &Holder) -> Result<Option<Self>, DiskError> {
        let name = path(dir, epoch);
        let temp = dir.join(format!(".claim.{epoch}.{}.{}", holder.pid, holder.start));
        let json = serde_json::to_vec(holder).map_err(io::Error::other).with_path("write", &temp)?;
        // Only a dead process with the same pid and start time can have left it.
        let _ = fs::remove_file(&temp);
        let file = disk::write_new(&temp, &json, 0o600)?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock)
            .map_err(|(_, errno)| io::Error::from(errno))
            .with_path("lock", &temp)?;
        let linked = fs::hard_link(&temp, &name);
        fs::remove_file(&temp).with_path("remove", &temp)?;
        match linked {
            Ok(()) => disk::sync_dir(dir).map(|()| Some(Self { _lock: lock })),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
            Err(error) => Err(error).with_path("create", &name),
        }
    }

    /// Whether the agent took the epoch, so that no executor can. A claim that cannot be read is an executor's.
    pub fn is_fenced(dir: &Path, epoch: u32) -> bool {
        let json = disk::read(&path(dir, epoch), MAX_CLAIM).ok().flatten().unwrap_or_default();
        serde_json::from_slice(&json).is_ok_and(|holder: Holder| holder.fenced)
    }

    /// Whether somebody has the epoch, and lives.
    pub fn look(dir: &Path, epoch: u32) -> Result<ClaimState, DiskError> {
        let name = path(dir, epoch);
        let file = match File::open(&name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(ClaimState::None),
            file => file.with_path("open", &name)?,
        };
        match Flock::lock(file, FlockArg::LockSharedNonblock) {
            Ok(_) => Ok(ClaimState::Dead),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(ClaimState::Held),
            Err((_, errno)) => Err(io::Error::from(errno)).with_path("lock", &name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(pid: u32) -> Holder {
        Holder { boot: "b".into(), pid, start: 1, invocation: None, fenced: false }
    }

    #[test]
    fn only_one_gets_an_epoch_and_its_death_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Claim::look(dir.path(), 1).unwrap(), ClaimState::None);
        let first = Claim::take(dir.path(), 1, &holder(1)).unwrap().expect("the epoch is free");
        assert!(Claim::take(dir.path(), 1, &holder(2)).unwrap().is_none());
        assert_eq!(Claim::look(dir.path(), 1).unwrap(), ClaimState::Held);
        drop(first);
        assert_eq!(Claim::look(dir.path(), 1).unwrap(), ClaimState::Dead);
        assert!(Claim::take(dir.path(), 1, &holder(3)).unwrap().is_none(), "a dead holder still has it");
        assert!(Claim::take(dir.path(), 2, &holder(3)).unwrap().is_some());
        let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "no temporary file is left: {names:?}");
    }

    #[test]
    fn of_many_at_once_exactly_one_gets_it() {
        let dir = tempfile::tempdir().unwrap();
        let got = std::thread::scope(|scope| {
            let take = |pid| Claim::take(dir.path(), 1, &holder(pid)).unwrap();
            let threads: Vec<_> = (1..=16).map(|pid| scope.spawn(move || take(pid))).collect();
            threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        assert_eq!(got.len(), 1);
    }
}
