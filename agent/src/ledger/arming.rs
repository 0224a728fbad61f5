//! What lies in a run's folder for one arming of a guard: `guards/<epoch>-<step>/`, with a lock and a log.
//!
//! Whoever fires the guard holds the lock, and writes into the log under it alone: that firing has begun, each attempt
//! that failed, and how it ended. The journal is the executor's; this log is what a watcher or a later epoch can add to
//! it. The executor takes the same lock before it records the success that disarms the guard. So a guard has either
//! begun to fire, or its step has succeeded, and never both.
//!
//! The lock ends with its holder, so nobody waits for the dead.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::Folder;
use crate::domain::yaml::single_line;
use crate::host::disk::{self, PathContext};
use crate::host::log::{self, Log, LogError};

/// What happened to an arming, in its log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum FiringEvent {
    /// The guard is about to be carried out. On disk before its command is started.
    Firing {
        /// The epoch for which somebody does it.
        epoch: u32,
        /// Why.
        why: String,
    },
    /// Its command has failed once.
    Attempt {
        /// Which attempt, counted from 1.
        n: u32,
        /// How.
        how: String,
    },
    /// Its command has succeeded.
    Fired {
        /// With this attempt.
        n: u32,
    },
    /// It was carried out again and again, in vain.
    GivenUp {
        /// So often.
        n: u32,
        /// The epoch for which it was.
        epoch: u32,
        /// How the last attempt failed.
        how: String,
    },
}

/// One record of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FiringRecord {
    /// When.
    pub at: Timestamp,
    /// What.
    #[serde(flatten)]
    pub event: FiringEvent,
}

/// The folder of one arming.
#[derive(Clone, Debug)]
pub struct ArmingFolder {
    path: PathBuf,
}

/// The right to fire, or to say that the guard need not.
#[derive(Debug)]
pub struct ArmingLock {
    log: Log,
    records: Vec<FiringRecord>,
    _lock: Flock<File>,
}

impl ArmingFolder {
    /// The folder of the guard of a step (counted from 0) that was armed in an epoch; it need not exist.
    pub fn of(run: &Folder, epoch: u32, step: usize) -> Self {
        Self { path: run.path().join("guards").join(format!("{epoch}-{step}")) }
    }

    /// Where.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the folder, on the disk when this returns; one that exists is left alone.
    pub fn create(&self) -> Result<(), LogError> {
        disk::make_dir(disk::parent(&self.path))?;
        disk::make_dir(&self.path)?;
        Ok(())
    }

    fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    /// Takes the lock, unless somebody has it.
    pub fn try_lock(&self) -> Result<Option<ArmingLock>, LogError> {
        let path = self.path.join("lock");
        let lock = match Flock::lock(disk::lock_file(&path)?, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((_, Errno::EWOULDBLOCK)) => return Ok(None),
            Err((_, errno)) => {
                return Err(io::Error::from(errno)).with_path("lock", &path).map_err(Into::into);
            }
        };
        let (log, lines) = Log::open(&self.log())?;
        Ok(Some(ArmingLock { log, records: parse(&lines), _lock: lock }))
    }

    /// Whether it is known to have fired, whoever has the lock.
    pub fn has_fired(&self) -> bool {
        let fired = |record: &FiringRecord| matches!(record.event, FiringEvent::Fired { .. });
        self.records().is_ok_and(|records| records.iter().any(fired))
    }

    /// What stands in the log, whoever has the lock.
    pub fn records(&self) -> Result<Vec<FiringRecord>, LogError> {
        Ok(parse(&log::read(&self.log())?))
    }
}

/// A line that this version does not know says at least that firing has begun; it is passed over, since to fire once
/// more is allowed.
fn parse(lines: &[String]) -> Vec<FiringRecord> {
    let read = |line: &String| match serde_json::from_str(line) {
        Ok(record) => Some(record),
        Err(error) => {
            tracing::warn!("cannot read a line in the log of a guard: {}", single_line(&error.to_string()));
            None
        }
    };
    lines.iter().filter_map(read).collect()
}

impl ArmingLock {
    /// What happened so far.
    pub fn records(&self) -> &[FiringRecord] {
        &self.records
    }

    /// Whether somebody has begun to fire.
    pub fn has_begun(&self) -> bool {
        !self.records.is_empty()
    }

    /// With which attempt it has fired, if it has.
    pub fn fired(&self) -> Option<u32> {
        self.records.iter().find_map(|record| match record.event {
            FiringEvent::Fired { n } => Some(n),
            _ => None,
        })
    }

    /// Why it was carried out the last time.
    pub fn reason(&self) -> Option<&str> {
        self.records.iter().rev().find_map(|record| match &record.event {
            FiringEvent::Firing { why, .. } => Some(why.as_str()),
            _ => None,
        })
    }

    /// Adds a record, on the disk when this returns.
    pub fn record(&mut self, at: Timestamp, event: FiringEvent) -> Result<(), LogError> {
        let record = FiringRecord { at, event };
        let json =
            serde_json::to_string(&record).map_err(io::Error::other).with_path("write", Path::new("log"))?;
        self.log.append(&json)?;
        self.records.push(record);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(n: u32) -> FiringEvent {
        FiringEvent::Attempt { n, how: "ended with status 1".into() }
    }

    #[test]
    fn one_holds_the_lock_and_what_it_writes_is_read_by_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let arming = ArmingFolder { path: dir.path().join("guards/1-0") };
        arming.create().unwrap();
        arming.create().unwrap();
        let mut held = arming.try_lock().unwrap().expect("it is free");
        assert!(arming.try_lock().unwrap().is_none() && !held.has_begun());
        held.record(Timestamp::UNIX_EPOCH, event(1)).unwrap();
        assert_eq!(arming.records().unwrap().len(), 1, "it can be read beside the lock");
        drop(held);
        let mut next = arming.try_lock().unwrap().expect("it is free again");
        assert!(next.has_begun() && next.fired().is_none());
        next.record(Timestamp::UNIX_EPOCH, FiringEvent::Fired { n: 2 }).unwrap();
        assert_eq!(next.fired(), Some(2));
    }
}
