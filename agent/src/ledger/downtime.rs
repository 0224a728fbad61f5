//! The record of downtime: `state_dir/downtime`, a record file whose first line names the format and its version.
//!
//! A line holds the facts that were counted at once, on the disk before anything follows from them. When the file has grown
//! far beyond what it says, it is written anew as a whole and replaced at once. A record that cannot be read is an error,
//! never an empty one: budgets would be full again.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::domain::downtime::DowntimeTotals;
use crate::domain::downtime::totals::DowntimeEntry;
use crate::domain::ids::RunId;
use crate::domain::yaml::single_line;
use crate::host::disk::{self, DiskError};
use crate::host::log::{self, Log, LogError};

/// The version of the record that this program writes, and the newest that it reads.
const VERSION: u32 = 1;

/// A record below this size is never written anew.
const SMALL: u64 = 256 << 10;

/// Why the record of downtime cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DowntimeError {
    /// The file.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The disk.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// It was written by a newer program.
    #[error("{} has format {version}, and this program knows {VERSION}: install the newer hostler again", path.display())]
    Newer {
        /// Where.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// A line that is none.
    #[error("{} cannot be read in line {line}: {}", path.display(), single_line(&why.to_string()))]
    Unreadable {
        /// Where.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        why: serde_json::Error,
    },
}

#[derive(Serialize, Deserialize)]
struct Header {
    downtime: u32,
}

/// The open record, and what it adds up to.
#[derive(Debug)]
pub struct DowntimeRecord {
    path: PathBuf,
    log: Log,
    totals: DowntimeTotals,
    compacted: u64,
}

fn parse(path: &Path, lines: &[String]) -> Result<DowntimeTotals, DowntimeError> {
    let unreadable =
        |line: usize, why| DowntimeError::Unreadable { path: path.to_owned(), line: line + 1, why };
    let mut totals = DowntimeTotals::default();
    for (i, line) in lines.iter().enumerate() {
        if i == 0 {
            let header: Header = serde_json::from_str(line).map_err(|why| unreadable(i, why))?;
            if header.downtime > VERSION {
                return Err(DowntimeError::Newer { path: path.to_owned(), version: header.downtime });
            }
        } else {
            let facts: Vec<DowntimeEntry> = serde_json::from_str(line).map_err(|why| unreadable(i, why))?;
            facts.into_iter().for_each(|fact| totals.take(fact));
        }
    }
    Ok(totals)
}

/// What the record of a host says, without opening it for writing; no file, no downtime.
pub fn read(state_dir: &Path) -> Result<DowntimeTotals, DowntimeError> {
    let path = file(state_dir);
    parse(&path, &log::read(&path)?)
}

fn file(state_dir: &Path) -> PathBuf {
    state_dir.join("downtime")
}

impl DowntimeRecord {
    /// Opens the record of a state folder, or begins one where there is none.
    pub fn open(state_dir: &Path) -> Result<Self, DowntimeError> {
        let path = file(state_dir);
        let (mut log, lines) = Log::open(&path)?;
        let totals = parse(&path, &lines)?;
        if lines.is_empty() {
            log.append(&json(&Header { downtime: VERSION }))?;
        }
        Ok(Self { path, log, totals, compacted: 0 })
    }

    /// What is remembered.
    pub fn totals(&self) -> &DowntimeTotals {
        &self.totals
    }

    /// Adds facts, all of them or none; when this returns they are on the disk. Runs in `standing` may report more.
    pub fn count(
        &mut self,
        facts: Vec<DowntimeEntry>,
        standing: &BTreeSet<RunId>,
    ) -> Result<(), DowntimeError> {
        self.log.append(&json(&facts))?;
        facts.into_iter().for_each(|fact| self.totals.take(fact));
        self.totals.trim(standing);
        // What was to be kept is kept; the file stays long until there is room for its short form.
        if self.log.length() >= SMALL.max(4 * self.compacted)
            && let Err(error) = self.rewrite()
        {
            tracing::warn!("the record of downtime is not shortened: {error}");
        }
        Ok(())
    }

    fn rewrite(&mut self) -> Result<(), DowntimeError> {
        let mut contents = log::line(&json(&Header { downtime: VERSION }));
        for fact in self.totals.facts() {
            contents.push_str(&log::line(&json(&[fact])));
        }
        let replaced = disk::replace(&self.path, contents.as_bytes(), 0o600);
        // Whichever of the two stands there now is whole; nothing may be added to one that is gone.
        self.log.poison();
        self.log = Log::open(&self.path)?.0;
        self.compacted = self.log.length();
        Ok(replaced?)
    }
}

/// Facts hold texts and numbers only, which cannot fail to be written as JSON.
fn json<T: Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::downtime::totals::Day;
    use crate::domain::downtime::{Downtime, Millis};

    fn counted(run: u64, number: u32) -> DowntimeEntry {
        let downtime = Downtime {
            service: "web".parse().unwrap(),
            seconds: Millis(250),
            from: None,
            to: None,
            failed: 1,
        };
        DowntimeEntry::Counted {
            run: RunId::new(run, 1),
            task: "t".parse().unwrap(),
            order: "o".parse().unwrap(),
            epoch: 1,
            number,
            at: Day(20_000).begins(),
            downtime,
        }
    }

    #[test]
    fn what_was_counted_is_there_again_and_the_file_stays_short() {
        let dir = tempfile::tempdir().unwrap();
        let mut record = DowntimeRecord::open(dir.path()).unwrap();
        assert_eq!(read(dir.path()).unwrap(), DowntimeTotals::default());
        for n in 0..6_000 {
            record.count(vec![counted(n, 1), counted(n, 2)], &BTreeSet::new()).unwrap();
        }
        assert!(std::fs::metadata(dir.path().join("downtime")).unwrap().len() < 512 << 10);
        let again = DowntimeRecord::open(dir.path()).unwrap();
        let mut expected = record.totals().clone();
        expected.trim(&BTreeSet::new());
        let mut found = again.totals().clone();
        found.trim(&BTreeSet::new());
        assert_eq!(found, expected);
        let sum = found.days.values().next().unwrap();
        assert_eq!((sum.seconds, sum.failed), (Millis(3_000_000), 12_000));
        assert_eq!(read(dir.path()).unwrap().lifetimes, found.lifetimes);
    }

    /// The specimen is never changed once its version is released: whatever comes later reads it as it is.
    #[test]
    fn what_version_1_wrote_is_read() {
        let specimen = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/formats/1/state");
        let totals = read(&specimen).unwrap();
        let web = "web".parse().unwrap();
        let days: Vec<_> =
            totals.days_of(&web).map(|(day, cost)| (day.to_string(), cost.seconds.0)).collect();
        assert_eq!(days, [("2026-11-20".to_owned(), 1_500), ("2026-11-21".to_owned(), 420)]);
        assert_eq!((totals.lifetimes[&web].seconds.0, totals.lifetimes[&web].failed), (61_670, 12));
        let run = totals.runs.values().next().unwrap();
        assert_eq!((run.counted, run.services[&web].seconds.0), ((2, 1), 1_920));
        assert_eq!(totals.samples(&"restart-web".parse().unwrap(), &web), [Millis(1_920)]);
    }

    #[test]
    fn a_record_that_cannot_be_read_is_never_an_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("downtime");
        let refused = |contents: &str| {
            std::fs::write(&path, contents).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), contents);
            DowntimeRecord::open(dir.path()).unwrap_err()
        };
        assert!(matches!(refused(&log::line("{\"downtime\":2}")), DowntimeError::Newer { version: 2, .. }));
        assert!(matches!(refused(&log::line("{}")), DowntimeError::Unreadable { line: 1, .. }));
        let unknown = format!("{}{}", log::line("{\"downtime\":1}"), log::line("[{\"fact\":\"new\"}]"));
        assert!(matches!(refused(&unknown), DowntimeError::Unreadable { line: 2, .. }));
        assert!(refused("nonsense\n").to_string().contains("damaged in line 1"));
    }
}
