//! Removes old runs: by count, age and bytes. Runs that somebody still needs are spared, and the newest always.
//!
//! A folder that cannot be removed stops none of the others. What cannot be read counts as in use.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use jiff::{Timestamp, ToSpan};

use super::{Folder, FolderError};
use crate::domain::ids::RunId;
use crate::host::disk::{DiskError, PathContext};

/// So many of the newest are reported, and so never removed.
const ALWAYS: usize = 20;

/// What is kept.
#[derive(Clone, Copy, Debug)]
pub struct Keep {
    /// Folders at most.
    pub count: usize,
    /// Days at most.
    pub days: u32,
    /// Bytes at most, of all folders together.
    pub bytes: u64,
}

/// The runs that have a folder, oldest first.
pub fn folders(runs: &Path) -> Result<Vec<RunId>, FolderError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(runs).with_path("list", runs)? {
        let name = entry.with_path("list", runs)?.file_name();
        let run: Option<RunId> = name.to_str().and_then(|name| name.parse().ok());
        found.extend(run);
    }
    found.sort_unstable();
    Ok(found)
}

/// The digests of the tasks that the runs with a folder use, whichever version of a plan names them. An error where a
/// plan cannot be read: any copy may then be in use. A folder that a crash left without a plan uses none.
pub fn digests(runs: &Path) -> Result<BTreeSet<String>, FolderError> {
    let mut digests = BTreeSet::new();
    for run in folders(runs)? {
        let folder = Folder::new(runs, run);
        match folder.task_digest() {
            Ok(digest) => drop(digests.insert(digest)),
            Err(_) if folder.is_unfinished() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(digests)
}

/// What became of old runs.
#[derive(Debug, Default)]
pub struct Trimmed {
    /// How many were removed.
    pub removed: usize,
    /// Those that could not be removed or measured.
    pub failed: Vec<FolderError>,
}

/// Removes the runs that are too many, too old or too large. An error means that the runs cannot even be listed.
pub fn trim(
    runs: &Path,
    spared: &BTreeSet<RunId>,
    keep: &Keep,
    now: Timestamp,
) -> Result<Trimmed, FolderError> {
    let folders = folders(runs)?;
    let oldest = now.checked_sub((i64::from(keep.days) * 24).hours()).unwrap_or(Timestamp::MIN);
    let mut trimmed = Trimmed::default();
    let mut bytes = 0_u64;
    // The newest first, so that what is beyond the bounds is the oldest.
    for (i, run) in folders.iter().rev().enumerate() {
        let folder = Folder::new(runs, *run);
        match size(folder.path()) {
            Ok(size) => bytes = bytes.saturating_add(size),
            Err(error) => trimmed.failed.push(error.into()),
        }
        let beyond = i >= keep.count || bytes > keep.bytes || made(*run) < oldest;
        if beyond && i >= ALWAYS && !spared.contains(run) {
            match folder.remove() {
                Ok(()) => trimmed.removed += 1,
                Err(error) => trimmed.failed.push(error),
            }
        }
    }
    Ok(trimmed)
}

fn made(run: RunId) -> Timestamp {
    Timestamp::from_millisecond(i64::try_from(run.millis()).unwrap_or(i64::MAX)).unwrap_or(Timestamp::MAX)
}

/// The bytes of the files in a folder; one that goes away meanwhile has none.
fn size(folder: &Path) -> Result<u64, DiskError> {
    let mut bytes = 0_u64;
    for entry in fs::read_dir(folder).with_path("list", folder)? {
        match entry.and_then(|entry| entry.metadata()) {
            Ok(meta) => bytes = bytes.saturating_add(meta.len()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_path("measure", folder),
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_first_and_the_spared_and_newest_stay() {
        let dir = tempfile::tempdir().unwrap();
        let day = 86_400_000;
        let now = Timestamp::from_millisecond(1_000 * day).unwrap();
        let run = |n: u64| RunId::new(u64::try_from(day).unwrap() * n, u128::from(n));
        for n in 900..1000 {
            fs::create_dir(dir.path().join(run(n).to_string())).unwrap();
            fs::write(dir.path().join(run(n).to_string()).join("output"), [0; 100]).unwrap();
        }
        let left = || folders(dir.path()).unwrap();
        let keep = Keep { count: 90, days: 400, bytes: u64::MAX };
        assert_eq!(trim(dir.path(), &BTreeSet::from([run(900)]), &keep, now).unwrap().removed, 9);
        assert_eq!((left().len(), left()[0]), (91, run(900)));
        let keep = Keep { count: 1000, days: 50, bytes: u64::MAX };
        trim(dir.path(), &BTreeSet::new(), &keep, now).unwrap();
        assert_eq!(left()[0], run(950));
        let keep = Keep { count: 1000, days: 5, bytes: 10 };
        trim(dir.path(), &BTreeSet::new(), &keep, now).unwrap();
        assert_eq!((left().len(), left()[0]), (ALWAYS, run(980)));
    }

    #[test]
    fn what_cannot_be_removed_or_measured_stops_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let now = Timestamp::from_second(4_000_000_000).unwrap();
        let run = |n: u64| RunId::new(1_000 * n, u128::from(n));
        for n in 1..=40 {
            fs::create_dir(dir.path().join(run(n).to_string())).unwrap();
        }
        // Files in the place of folders: they can be neither listed nor removed as folders, whoever tries.
        for n in [15, 18] {
            fs::remove_dir(dir.path().join(run(n).to_string())).unwrap();
            fs::write(dir.path().join(run(n).to_string()), "").unwrap();
        }
        let keep = Keep { count: 0, days: 1, bytes: 0 };
        let trimmed = trim(dir.path(), &BTreeSet::new(), &keep, now).unwrap();
        assert_eq!(trimmed.removed, 18);
        assert!(trimmed.failed.iter().any(|error| error.to_string().contains(&run(15).to_string())));
        let left = folders(dir.path()).unwrap();
        assert_eq!((left.len(), left[0], left[1], left[2]), (22, run(15), run(18), run(21)));
    }

    #[test]
    fn a_plan_that_cannot_be_read_may_use_any_copy() {
        let dir = tempfile::tempdir().unwrap();
        let plan = |n: u64, text: &str| {
            let folder = dir.path().join(RunId::new(n, 1).to_string());
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join("plan"), text).unwrap();
            folder
        };
        plan(1, r#"{"version": 99, "task_digest": "sha256:a"}"#);
        // Made, and the host lost its power before the plan was on the disk.
        fs::remove_file(plan(2, "").join("plan")).unwrap();
        assert_eq!(digests(dir.path()).unwrap(), BTreeSet::from(["sha256:a".to_owned()]));
        // The same with a claim is a run whose plan was lost.
        let claimed = plan(3, "");
        fs::remove_file(claimed.join("plan")).unwrap();
        fs::write(claimed.join("claim.1"), "").unwrap();
        assert!(digests(dir.path()).is_err());
        fs::remove_dir_all(claimed).unwrap();
        for bad in ["", "{", "[]", r#"{"version": 1}"#, "\u{0}\u{0}"] {
            let folder = plan(4, bad);
            assert!(digests(dir.path()).is_err(), "{bad:?}");
            fs::remove_dir_all(folder).unwrap();
        }
        // A folder in the place of the plan fails to be read in another way.
        let folder = plan(5, "");
        fs::remove_file(folder.join("plan")).unwrap();
        fs::create_dir(folder.join("plan")).unwrap();
        assert!(digests(dir.path()).is_err());
    }
}
