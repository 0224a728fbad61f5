//! Removes old runs: by count, age and bytes. Runs that somebody still needs are spared, and the newest always.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use jiff::{Timestamp, ToSpan};

use super::{Folder, FolderError};
use crate::domain::ids::RunId;
use crate::host::disk::At;

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
    for entry in fs::read_dir(runs).at("list", runs)? {
        let name = entry.at("list", runs)?.file_name();
        let run: Option<RunId> = name.to_str().and_then(|name| name.parse().ok());
        found.extend(run);
    }
    found.sort_unstable();
    Ok(found)
}

/// The digests of the tasks that the runs with a folder use.
pub fn digests(runs: &Path) -> Result<BTreeSet<String>, FolderError> {
    let folders = folders(runs)?.into_iter().map(|run| Folder::new(runs, run));
    // A folder without a readable plan uses no copy; one of a newer program does.
    Ok(folders.filter_map(|folder| folder.task_digest().ok()).collect())
}

/// Removes the runs that are too many, too old or too large, oldest first; says how many it removed.
pub fn trim(
    runs: &Path,
    spared: &BTreeSet<RunId>,
    keep: &Keep,
    now: Timestamp,
) -> Result<usize, FolderError> {
    let folders = folders(runs)?;
    let oldest = now.checked_sub((i64::from(keep.days) * 24).hours()).unwrap_or(Timestamp::MIN);
    let mut removed = 0;
    let mut bytes = 0;
    // The newest first, so that what is beyond the bounds is the oldest.
    for (i, run) in folders.iter().rev().enumerate() {
        let folder = Folder::new(runs, *run);
        bytes += size(folder.path());
        let beyond = i >= keep.count || bytes > keep.bytes || made(*run) < oldest;
        if beyond && i >= ALWAYS && !spared.contains(run) {
            folder.remove()?;
            removed += 1;
        }
    }
    Ok(removed)
}

fn made(run: RunId) -> Timestamp {
    Timestamp::from_millisecond(i64::try_from(run.millis()).unwrap_or(i64::MAX)).unwrap_or(Timestamp::MAX)
}

fn size(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    entries.flatten().filter_map(|entry| entry.metadata().ok()).map(|meta| meta.len()).sum()
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
        assert_eq!(trim(dir.path(), &BTreeSet::from([run(900)]), &keep, now).unwrap(), 9);
        assert_eq!((left().len(), left()[0]), (91, run(900)));
        let keep = Keep { count: 1000, days: 50, bytes: u64::MAX };
        trim(dir.path(), &BTreeSet::new(), &keep, now).unwrap();
        assert_eq!(left()[0], run(950));
        let keep = Keep { count: 1000, days: 5, bytes: 10 };
        trim(dir.path(), &BTreeSet::new(), &keep, now).unwrap();
        assert_eq!((left().len(), left()[0]), (ALWAYS, run(980)));
    }
}
