//! The tokens for Vault that runs have, by their accessors: what is needed to give a token back whose run is dead.
//!
//! An accessor is no secret. It names a token to whoever may revoke it, and reads nothing. A record is on the disk
//! before the executor has the token, and goes when the token was revoked: by the executor at its end, or later by the
//! agent, for whatever died between.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::{Claim, ClaimState, Folder};
use crate::domain::ids::RunId;
use crate::host::clock;
use crate::host::disk::{self, DiskError, PathContext};

/// The largest record, in bytes.
const MAX_RECORD: u64 = 16 << 10;
/// An executor that has no claim after this will not get one, and reads no more.
const CLAIMS_WITHIN: Duration = Duration::from_secs(60);

/// The folder with all records of a host.
#[derive(Clone, Debug)]
pub struct Tokens {
    state_dir: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Written {
    run: RunId,
    epoch: u32,
    accessor: String,
}

/// One token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Its record.
    pub path: PathBuf,
    /// Whose it is.
    pub run: RunId,
    /// For which epoch.
    pub epoch: u32,
    /// What Vault knows it by.
    pub accessor: String,
}

impl Tokens {
    /// Those of the host whose state is in this folder.
    pub fn of(state_dir: &Path) -> Self {
        Self { state_dir: state_dir.to_owned() }
    }

    fn dir(&self) -> PathBuf {
        self.state_dir.join("tokens")
    }

    /// Records a token, on the disk when this returns; where.
    pub fn record(&self, run: RunId, epoch: u32, accessor: &str) -> Result<PathBuf, DiskError> {
        let dir = self.dir();
        disk::make_dir(&dir)?;
        let path = dir.join(format!("{run}.{epoch}.{}", clock::new_run()));
        let written = Written { run, epoch, accessor: accessor.to_owned() };
        let json = serde_json::to_vec(&written).map_err(io::Error::other).with_path("write", &path)?;
        disk::replace(&path, &json, 0o600)?;
        Ok(path)
    }

    /// All tokens that are recorded, the oldest first. What is no record is left alone.
    pub fn all(&self) -> Result<Vec<Token>, DiskError> {
        let dir = self.dir();
        let entries = match fs::read_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.with_path("list", &dir)?,
        };
        let mut all = Vec::new();
        for entry in entries {
            let path = entry.with_path("list", &dir)?.path();
            let Some(json) = disk::read(&path, MAX_RECORD)? else { continue };
            if let Ok(Written { run, epoch, accessor }) = serde_json::from_slice(&json) {
                all.push(Token { path, run, epoch, accessor });
            }
        }
        all.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        Ok(all)
    }

    /// Whether nobody has a use for a token any more: its executor is dead, has left, or has had the time to.
    ///
    /// An executor may still be reading when its run is gone or its epoch was taken from it. Vault keeps what it makes for a
    /// token that is revoked in that moment, so such a token is left to its executor first. What cannot be looked at
    /// may be in use.
    pub fn is_due(&self, token: &Token) -> bool {
        let folders = ["runs", "checks"].map(|place| Folder::new(&self.state_dir.join(place), token.run));
        let has_had_time = || is_older(&token.path, CLAIMS_WITHIN);
        let Some(folder) = folders.iter().find(|folder| folder.path().exists()) else {
            return has_had_time();
        };
        match Claim::look(folder.path(), token.epoch) {
            Ok(ClaimState::Held) | Err(_) => false,
            Ok(ClaimState::Dead) if !Claim::is_fenced(folder.path(), token.epoch) => true,
            Ok(ClaimState::Dead | ClaimState::None) => {
                folder.unready(token.epoch).is_some() || has_had_time()
            }
        }
    }
}

/// Whether a file is older; a clock that was set back must not make it young for ever.
#[expect(clippy::disallowed_methods, reason = "compared with the time that the kernel gave the file")]
fn is_older(path: &Path, span: Duration) -> bool {
    let Ok(made) = fs::metadata(path).and_then(|about| about.modified()) else { return false };
    SystemTime::now().duration_since(made).is_ok_and(|age| age > span)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Claim;
    use crate::ledger::claim::Holder;
    use crate::ledger::folder::NotReady;

    #[test]
    fn a_token_is_due_once_nobody_can_use_it() {
        let dir = tempfile::tempdir().unwrap();
        let tokens = Tokens::of(dir.path());
        assert_eq!(tokens.all().unwrap(), Vec::new());
        let run = clock::new_run();
        let folder = Folder::new(&dir.path().join("runs"), run);
        tokens.record(run, 1, "acc").unwrap();
        let token = tokens.all().unwrap().remove(0);
        assert_eq!((token.run, token.epoch, token.accessor.as_str()), (run, 1, "acc"));
        let age = |token: &Token, seconds: u64| {
            let file = fs::File::open(&token.path).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(seconds)).unwrap();
        };
        assert!(!tokens.is_due(&token), "its run is gone, and its executor may still read");
        age(&token, 61);
        assert!(tokens.is_due(&token), "its run is gone");
        age(&token, 0);
        fs::create_dir_all(folder.path()).unwrap();
        assert!(!tokens.is_due(&token), "its executor may be on its way");
        let holder = Holder { boot: "b".into(), pid: 1, start: 1, invocation: None, fenced: false };
        let claim = Claim::take(folder.path(), 1, &holder).unwrap().unwrap();
        assert!(!tokens.is_due(&token), "its executor lives");
        drop(claim);
        assert!(tokens.is_due(&token), "its executor is dead");
        tokens.record(run, 2, "next").unwrap();
        let next = tokens.all().unwrap().into_iter().find(|token| token.epoch == 2).unwrap();
        assert!(!tokens.is_due(&next));
        folder.set_unready(2, &NotReady { why: "sealed".into(), after: None }).unwrap();
        assert!(tokens.is_due(&next), "its executor has left");
        tokens.record(run, 3, "void").unwrap();
        let token = tokens.all().unwrap().into_iter().find(|token| token.epoch == 3).unwrap();
        let holder = Holder { fenced: true, ..holder };
        drop(Claim::take(folder.path(), 3, &holder).unwrap().unwrap());
        assert!(!tokens.is_due(&token), "the epoch was taken from an executor that may still read");
        age(&token, 61);
        assert!(tokens.is_due(&token));
    }

    #[test]
    fn what_is_no_record_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let tokens = Tokens::of(dir.path());
        fs::create_dir(dir.path().join("tokens")).unwrap();
        fs::write(dir.path().join("tokens/x"), "{").unwrap();
        assert_eq!(tokens.all().unwrap(), Vec::new());
        assert!(dir.path().join("tokens/x").exists());
    }
}
