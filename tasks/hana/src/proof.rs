//! What counts as a proof that a system could be restored. Pure.
//!
//! For SYSTEMDB and each active tenant: a complete data backup that the catalog calls successful, young enough, and
//! no sign since that its log has a gap. The catalog says nothing of whether the parts can still be read.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;

use crate::neighbours::catalog::{Database, Entry, Kind, State};

/// Why a database has no proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lack {
    /// The catalog has no successful complete backup of it in the time that was read.
    None,
    /// The newest one is that old.
    Old(Duration),
    /// The newest one is from the future: the clocks of host and database differ.
    Future,
    /// The database says that a part of its log since then is missing.
    LogGap,
    /// The newest log backup since then failed.
    LogFails,
}

impl fmt::Display for Lack {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => write!(to, "no complete backup"),
            Self::Old(age) => write!(to, "the newest complete backup is {} h old", age.as_secs() / 3600),
            Self::Future => write!(to, "the newest complete backup is from the future: compare the clocks"),
            Self::LogGap => write!(to, "the log has a gap since the newest complete backup"),
            Self::LogFails => write!(to, "the newest log backup failed"),
        }
    }
}

/// The newest complete backup of a database, if it is a proof.
pub fn proof<'a>(
    database: &Database,
    entries: &'a [Entry],
    now: Timestamp,
    age: Duration,
) -> Result<&'a Entry, Lack> {
    let mine = || entries.iter().filter(|entry| entry.database == *database);
    let complete = |entry: &&Entry| entry.kind == Kind::Complete && entry.state == State::Successful;
    let newest = mine().filter(complete).max_by_key(|entry| entry.begun).ok_or(Lack::None)?;
    let old = now.duration_since(newest.begun);
    if old.is_negative() {
        return Err(Lack::Future);
    }
    if old.unsigned_abs() > age {
        return Err(Lack::Old(old.unsigned_abs()));
    }
    let since = || mine().filter(|entry| entry.begun >= newest.begun);
    if since().any(|entry| entry.kind == Kind::LogMissing) {
        return Err(Lack::LogGap);
    }
    // One that is being made says nothing yet.
    let ended = |entry: &&Entry| entry.kind == Kind::Log && entry.state != State::Running;
    match since().filter(ended).max_by_key(|entry| entry.begun) {
        Some(log) if log.state != State::Successful => Err(Lack::LogFails),
        _ => Ok(newest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn entry(database: &str, kind: Kind, state: State, hours: i64) -> Entry {
        let begun = Timestamp::from_second(1_800_000_000 - hours * 3600).unwrap();
        let id = u64::try_from(begun.as_millisecond()).unwrap();
        Entry { database: database.parse().unwrap(), id, kind, state, begun, ended: Some(begun) }
    }

    fn of(entries: &[Entry]) -> Result<u64, Lack> {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        proof(&"HDB".parse().unwrap(), entries, now, DAY).map(|entry| entry.id)
    }

    #[test]
    fn what_is_a_proof_and_what_is_not() {
        use Kind::{Complete, Differential, Incremental, Log, LogMissing, Snapshot};
        use State::{CancelPending, Canceled, Failed, Prepared, Running, Successful};
        let good = entry("HDB", Complete, Successful, 3);
        let cases: &[(&[Entry], Option<Lack>)] = &[
            (&[], Some(Lack::None)),
            (std::slice::from_ref(&good), None),
            (&[entry("QA1", Complete, Successful, 3)], Some(Lack::None)),
            (&[entry("SYSTEMDB", Complete, Successful, 3)], Some(Lack::None)),
            (&[entry("HDB", Incremental, Successful, 3)], Some(Lack::None)),
            (&[entry("HDB", Differential, Successful, 3)], Some(Lack::None)),
            (&[entry("HDB", Snapshot, Successful, 3)], Some(Lack::None)),
            (&[entry("HDB", Complete, Running, 3)], Some(Lack::None)),
            (&[entry("HDB", Complete, Failed, 3)], Some(Lack::None)),
            (&[entry("HDB", Complete, Canceled, 3)], Some(Lack::None)),
            (&[entry("HDB", Complete, CancelPending, 3)], Some(Lack::None)),
            (&[entry("HDB", Complete, Prepared, 3)], Some(Lack::None)),
            (&[entry("HDB", Complete, Successful, 24)], None),
            (&[entry("HDB", Complete, Successful, 25)], Some(Lack::Old(Duration::from_secs(25 * 3600)))),
            (&[entry("HDB", Complete, Successful, -1)], Some(Lack::Future)),
            // A newer one that failed takes nothing from an older one.
            (&[good.clone(), entry("HDB", Complete, Failed, 1)], None),
            (&[good.clone(), entry("HDB", LogMissing, Successful, 2)], Some(Lack::LogGap)),
            (&[good.clone(), entry("HDB", LogMissing, Failed, 2)], Some(Lack::LogGap)),
            (&[good.clone(), entry("HDB", LogMissing, Successful, 4)], None),
            (&[good.clone(), entry("QA1", LogMissing, Successful, 2)], None),
            (&[good.clone(), entry("HDB", Log, Failed, 2)], Some(Lack::LogFails)),
            (&[good.clone(), entry("HDB", Log, Canceled, 2)], Some(Lack::LogFails)),
            (&[good.clone(), entry("HDB", Log, Failed, 2), entry("HDB", Log, Successful, 1)], None),
            (&[good.clone(), entry("HDB", Log, Successful, 2), entry("HDB", Log, Running, 1)], None),
            (&[good.clone(), entry("HDB", Log, Failed, 4)], None),
        ];
        for (entries, lack) in cases {
            assert_eq!(of(entries).err(), *lack, "{entries:?}");
            let mut turned = entries.to_vec();
            turned.reverse();
            assert_eq!(of(&turned), of(entries), "the order of the rows says nothing");
        }
        assert_eq!(of(&[entry("HDB", Complete, Successful, 9), good.clone()]), Ok(good.id));
    }
}
