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

use super::{ClaimState, Folder};
use crate::domain::ids::RunId;
use crate::host::clock;
use crate::host::disk::{self, At, DiskError};

/// The largest record, in bytes.
const MAX_RECORD: u64 = 16 << 10;
/// An executor that has no claim after this will not get one.
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
        let json = serde_json::to_vec(&written).map_err(io::Error::other).at("write", &path)?;
        disk::replace(&path, &json, 0o600)?;
        Ok(path)
    }

    /// All tokens that are recorded, the oldest first. What is no record is left alone.
    pub fn all(&self) -> Result<Vec<Token>, DiskError> {
        let dir = self.dir();
        let entries = match fs::read_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.at("list", &dir)?,
        };
        let mut all = Vec::new();
        for entry in entries {
            let path = entry.at("list", &dir)?.path();
            let Some(json) = disk::read(&path, MAX_RECORD)? else { continue };
            if let Ok(Written { run, epoch, accessor }) = serde_json::from_slice(&json) {
                all.push(Token { path, run, epoch, accessor });
            }
        }
        all.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        Ok(all)
    }

    /// Whether nobody has a use for a token any more: its run is gone, its epoch is over or was never claimed in time.
    /// What cannot be looked at may be in use.
    pub fn is_due(&self, token: &Token) -> bool {
        let folders = ["runs", "checks"].map(|place| Folder::new(&self.state_dir.join(place), token.run));
        let Some(folder) = folders.iter().find(|folder| folder.path().exists()) else { return true };
        match folder.newest_claim() {
            Ok((epoch, state)) if epoch >= token.epoch => epoch > token.epoch || state != ClaimState::Held,
            Ok(_) => folder.unready(token.epoch).is_some() || is_older(&token.path, CLAIMS_WITHIN),
            Err(_) => false,
        }
    }
}

/// Whether a file is older; a clock that was set back must not make it young for ever.
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
        assert!(tokens.is_due(&token), "its run is gone");
        fs::create_dir_all(folder.path()).unwrap();
        assert!(!tokens.is_due(&token), "its executor may be on its way");
        let holder = Holder { boot: "b".into(), pid: 1, start: 1, invocation: None, void: false };
        let claim = Claim::take(folder.path(), 1, &holder).unwrap().unwrap();
        assert!(!tokens.is_due(&token), "its executor lives");
        drop(claim);
        assert!(tokens.is_due(&token), "its executor is dead");
        tokens.record(run, 2, "next").unwrap();
        let next = tokens.all().unwrap().into_iter().find(|token| token.epoch == 2).unwrap();
        assert!(!tokens.is_due(&next));
        folder.set_unready(2, &NotReady { why: "sealed".into(), after: None }).unwrap();
        assert!(tokens.is_due(&next), "its executor has left");
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
