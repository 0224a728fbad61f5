//! What is known of a backup: written last, when its files and all WAL that they need are proved to be there, so that
//! what has a record is a backup and nothing else is.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::depot::{Depot, Place};
use crate::error::Error;
use crate::wal::{Lsn, Size};

/// The version of the format, of a backup that stands for itself.
const FORMAT: u32 = 1;
/// Of one that builds on another: who does not know of such ones must not take its files for a cluster's.
const BUILDS: u32 = 2;
/// The longest chain that is followed.
const LONGEST: usize = 1000;

/// A backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Version of this format.
    pub format: u32,
    /// The last part of the names of everything that belongs to it.
    pub stamp: String,
    /// The cluster, as it was called on its host.
    pub cluster: String,
    /// System identifier, in decimal digits.
    pub system: String,
    /// Version of the server, as `server_version_num`.
    pub server: u32,
    /// Timeline.
    pub timeline: u32,
    /// Where a recovery begins.
    pub start: String,
    /// Where its files are consistent.
    pub stop: String,
    /// Bytes of a segment.
    pub segment: u64,
    /// When it was begun.
    pub began: Timestamp,
    /// A moment, by the server's clock, at which it had ended.
    pub stopped: Timestamp,
    /// Bytes of its files.
    pub bytes: u64,
    /// The backup that it builds on: it has only what was changed since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
}

/// A record whose parts are understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    /// What is written down.
    pub record: Record,
    /// System identifier.
    pub system: u64,
    /// Where a recovery begins.
    pub start: Lsn,
    /// Where its files are consistent.
    pub stop: Lsn,
    /// How large segments are.
    pub size: Size,
    /// Why its files cannot be read; `None` if they can.
    pub damage: Option<String>,
}

impl Record {
    /// Understands it; `None` if a part of it is nonsense.
    fn read(self) -> Option<Backup> {
        let (start, stop) = (self.start.parse().ok()?, self.stop.parse().ok()?);
        let (system, size) = (self.system.parse().ok()?, Size::new(self.segment)?);
        let sane = self.format == format(self.parent.is_some()) && start < stop && self.timeline > 0;
        sane.then_some(Backup { record: self, system, start, stop, size, damage: None })
    }
}

#[cfg(test)]
impl Backup {
    /// One of those that tests compare: its name, when it began and ended, in seconds, and from where to where it goes.
    pub(crate) fn of_tests(stamp: &str, at: i64, start: u64, stop: u64) -> Self {
        let time = Timestamp::from_second(at).unwrap_or_default();
        let record = Record {
            format: FORMAT,
            stamp: stamp.to_owned(),
            cluster: String::new(),
            system: "7".to_owned(),
            server: 150_000,
            timeline: 1,
            start: String::new(),
            stop: String::new(),
            segment: Size::MIB.bytes(),
            began: time,
            stopped: time,
            bytes: 1,
            parent: None,
        };
        Self { record, system: 7, start: Lsn(start), stop: Lsn(stop), size: Size::MIB, damage: None }
    }
}

impl Backup {
    /// The major version of its server.
    pub fn version(&self) -> u16 {
        u16::try_from(self.record.server / 10_000).unwrap_or_default()
    }
}

/// Names of what belongs to backups.
pub fn name(place: &Place, what: &str, stamp: &str) -> String {
    format!("{}/{what}/{stamp}", place.id)
}

/// The version of the format that is written, of a backup that builds on another or does not.
pub const fn format(builds: bool) -> u32 {
    if builds { BUILDS } else { FORMAT }
}

/// What a backup needs to be restored, the one that stands for itself first, and itself last.
///
/// # Errors
/// If a part of it is missing.
pub fn chain(backups: &[Backup], backup: &Backup) -> Result<Vec<Backup>, Error> {
    let mut chain = vec![backup.clone()];
    while let Some(stamp) = chain.last().and_then(|last| last.record.parent.as_deref()) {
        let parent = backups.iter().find(|other| other.record.stamp == stamp && chain.len() < LONGEST);
        let parent = parent.ok_or_else(|| {
            Error::Damaged(format!("{} builds on {stamp}, which is missing", backup.record.stamp))
        })?;
        chain.push(parent.clone());
    }
    chain.reverse();
    Ok(chain)
}

/// All backups of a cluster, the oldest first.
///
/// # Errors
/// If the store does not answer, or one of them cannot be understood: what it needs could then be deleted.
pub async fn all(depot: &Depot) -> Result<Vec<Backup>, Error> {
    let bases: BTreeMap<_, _> = depot
        .list(&name(&depot.place, "base", ""))
        .await?
        .into_iter()
        .map(|stored| (stored.name, stored.state))
        .collect();
    let mut backups = Vec::new();
    for stored in depot.list(&name(&depot.place, "backup", "")).await? {
        let record = serde_json::from_value::<Record>(stored.label.clone()).ok();
        let stamp = stored.name.rsplit('/').next().unwrap_or_default().to_owned();
        let backup = record.filter(|record| record.stamp == stamp).and_then(Record::read);
        let mut backup = backup.ok_or_else(|| {
            Error::Unclear(format!(
                "{} is {} and cannot be understood: `hostler-depot show` it, and delete it if it is nothing",
                stored.name, stored.state
            ))
        })?;
        let base = name(&depot.place, "base", &stamp);
        backup.damage = match bases.get(&base).map(String::as_str) {
            Some("good") => None,
            Some(state) => Some(format!("{base}: {state}")),
            None => Some(format!("{base} is gone")),
        };
        backups.push(backup);
    }
    backups.sort_by_key(|backup| backup.record.stopped);
    Ok(backups)
}
