//! The ledger: the facts about orders, on disk before anything follows from them.
//!
//! The first line names the format and its version. When the file has grown far beyond what it says, it is
//! written anew as a whole and replaced at once. A ledger that cannot be read is an error, never an empty one:
//! whoever took it for empty would carry out again what was done long ago.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::domain::format;
use crate::domain::state::{LedgerEntry, LedgerState};
use crate::domain::yaml::single_line;
use crate::host::disk::{self, DiskError};
use crate::host::log::{self, Log, LogError};

/// A ledger below this size is never compacted.
const SMALL: u64 = 256 << 10;

/// Why the ledger cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The file.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The disk.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// It was written by a newer program.
    #[error("{} has format {version}, and this program knows {known}: install the newer hostler again", path.display())]
    Newer {
        /// Where.
        path: PathBuf,
        /// Its version.
        version: u32,
        /// The newest version that this program reads.
        known: u32,
    },
    /// A fact that the version in which the ledger is kept cannot say.
    #[error("{} is kept in format {version}, which cannot hold this: nothing was written", path.display())]
    Former {
        /// Where.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// A record that is none.
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
    ledger: u32,
}

/// The open ledger, and what it adds up to.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    /// In which it is kept: that of its first line, until [`Ledger::upgrade`].
    version: u32,
    /// The newest that this program writes.
    newest: u32,
    log: Log,
    memory: LedgerState,
    /// Lines in the file, with the first.
    lines: usize,
    compacted: u64,
}

/// The memory that the lines of a ledger add up to; pure, so that it can be tested on any text.
pub fn parse(path: &Path, lines: &[String]) -> Result<(u32, LedgerState), LedgerError> {
    parse_up_to(format::newest_ledger(), path, lines)
}

fn parse_up_to(newest: u32, path: &Path, lines: &[String]) -> Result<(u32, LedgerState), LedgerError> {
    let unreadable =
        |line: usize, why| LedgerError::Unreadable { path: path.to_owned(), line: line + 1, why };
    let mut memory = LedgerState::default();
    // One that is not there yet has nothing to be read by an older program.
    let mut version = newest;
    for (i, line) in lines.iter().enumerate() {
        if i == 0 {
            let header: Header = serde_json::from_str(line).map_err(|why| unreadable(i, why))?;
            if header.ledger > newest {
                return Err(LedgerError::Newer {
                    path: path.to_owned(),
                    version: header.ledger,
                    known: newest,
                });
            }
            version = header.ledger;
        } else {
            let facts: Vec<LedgerEntry> = serde_json::from_str(line).map_err(|why| unreadable(i, why))?;
            facts.into_iter().for_each(|fact| memory.apply(fact));
        }
    }
    Ok((version, memory))
}

impl Ledger {
    /// Opens the ledger, or begins one where there is none.
    pub fn open(path: &Path) -> Result<Self, LedgerError> {
        Self::open_as(format::newest_ledger(), path)
    }

    /// As a program whose newest version of the ledger is `newest`.
    fn open_as(newest: u32, path: &Path) -> Result<Self, LedgerError> {
        let (mut log, lines) = Log::open(path)?;
        let (version, memory) = parse_up_to(newest, path, &lines)?;
        if lines.is_empty() {
            log.append(&json(&Header { ledger: version }))?;
        }
        let lines = lines.len().max(1);
        let mut ledger = Self { path: path.to_owned(), version, newest, log, memory, lines, compacted: 0 };
        ledger.compact_if_grown()?;
        Ok(ledger)
    }

    /// Its bytes and its records.
    pub fn size(&self) -> (u64, usize) {
        (self.log.length(), self.lines - 1)
    }

    /// What is remembered.
    pub fn state(&self) -> &LedgerState {
        &self.memory
    }

    /// Keeps no room between the orders in memory: at rest no new ones are about to come.
    pub fn pack(&mut self) {
        self.memory.orders = std::mem::take(&mut self.memory.orders).into_iter().collect();
    }

    /// Whether it is kept in the newest version; otherwise the program before can still read it.
    pub fn is_newest(&self) -> bool {
        self.version >= self.newest
    }

    /// Writes it anew in the newest version; a program that knows only the former one cannot read it any more.
    pub fn upgrade(&mut self) -> Result<(), LedgerError> {
        let former = std::mem::replace(&mut self.version, self.newest);
        self.rewrite().inspect_err(|_| self.version = former)
    }

    /// Adds facts, all of them or none; when this returns they are on the disk.
    pub fn record(&mut self, facts: Vec<LedgerEntry>) -> Result<(), LedgerError> {
        self.record_if(facts, LedgerEntry::format)
    }

    /// Adds facts, of which `needs` says the first version of the ledger that can say each.
    fn record_if(
        &mut self,
        facts: Vec<LedgerEntry>,
        needs: fn(&LedgerEntry) -> u32,
    ) -> Result<(), LedgerError> {
        if facts.iter().any(|fact| needs(fact) > self.version) {
            return Err(LedgerError::Former { path: self.path.clone(), version: self.version });
        }
        self.log.append(&json(&facts))?;
        self.lines += 1;
        facts.into_iter().for_each(|fact| self.memory.apply(fact));
        // What was to be kept is kept; the file stays long until there is room for its short form.
        self.compact_if_grown()
            .inspect_err(|error| tracing::warn!("cannot compact the ledger: {error}"))
            .ok();
        Ok(())
    }

    fn compact_if_grown(&mut self) -> Result<(), LedgerError> {
        if self.log.length() < SMALL.max(4 * self.compacted) {
            return Ok(());
        }
        self.rewrite()
    }

    fn rewrite(&mut self) -> Result<(), LedgerError> {
        let mut contents = log::line(&json(&Header { ledger: self.version }));
        for fact in self.memory.facts() {
            contents.push_str(&log::line(&json(&[fact])));
        }
        let replaced = disk::replace(&self.path, contents.as_bytes(), 0o600);
        // Whichever of the two stands there now is whole; nothing may be added to one that is gone.
        self.log.poison();
        let lines;
        (self.log, lines) = Log::open(&self.path)?;
        self.lines = lines.len();
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
    use jiff::Timestamp;

    use super::*;
    use crate::domain::ids::{InstructionHash, RunId};
    use crate::domain::plan::Trigger;

    fn flip(n: u32) -> LedgerEntry {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        LedgerEntry::Activation {
            key: "hosts/db1/backup".parse().unwrap(),
            run: RunId::new(u64::from(n), 1),
            identity: InstructionHash::new(bytes),
            index: u64::from(n),
            trigger: Trigger::Placed,
            at: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn ten_thousand_flips_leave_a_small_file_that_says_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        let mut ledger = Ledger::open(&path).unwrap();
        for n in 0..10_000 {
            ledger.record(vec![flip(n)]).unwrap();
        }
        assert!(std::fs::metadata(&path).unwrap().len() < 1 << 20);
        let again = Ledger::open(&path).unwrap();
        assert_eq!(again.state(), ledger.state());
        assert_eq!(again.size(), ledger.size());
        assert!((1..10_000).contains(&again.size().1), "{:?}", again.size());
    }

    #[test]
    fn a_ledger_of_a_newer_program_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        std::fs::write(&path, log::line("{\"ledger\":2}")).unwrap();
        assert!(matches!(Ledger::open(&path), Err(LedgerError::Newer { version: 2, known: 1, .. })));
    }

    /// As the next release will have it, whose version is 2: there a firing needs the newer one.
    #[test]
    fn a_ledger_stays_in_its_version_until_it_is_upgraded() {
        let needs: fn(&LedgerEntry) -> u32 = |fact| match fact {
            LedgerEntry::Activation { trigger: Trigger::Firing(_), .. } => 2,
            _ => 1,
        };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        let version = || {
            let (_, lines) = Log::open(&path).unwrap();
            parse_up_to(2, &path, &lines).unwrap().0
        };
        Ledger::open_as(2, &path).unwrap();
        assert_eq!(version(), 2, "a new one is of the newest");
        std::fs::remove_file(&path).unwrap();
        assert!(Ledger::open_as(1, &path).unwrap().is_newest());
        let mut ledger = Ledger::open_as(2, &path).unwrap();
        assert!(!ledger.is_newest());
        // Far beyond the size at which it is written anew.
        for n in 0..3_000 {
            ledger.record_if(vec![flip(n)], needs).unwrap();
        }
        assert_eq!(version(), 1);
        let mut firing = flip(3_000);
        if let LedgerEntry::Activation { trigger, .. } = &mut firing {
            *trigger = Trigger::Firing(Timestamp::UNIX_EPOCH);
        }
        let refused = ledger.record_if(vec![firing.clone()], needs);
        assert!(matches!(refused, Err(LedgerError::Former { version: 1, .. })));
        let before = ledger.state().clone();
        ledger.upgrade().unwrap();
        assert_eq!((version(), ledger.state(), ledger.is_newest()), (2, &before, true));
        ledger.record_if(vec![firing], needs).unwrap();
        assert_eq!(Ledger::open_as(2, &path).unwrap().state(), ledger.state());
        assert!(matches!(Ledger::open_as(1, &path), Err(LedgerError::Newer { version: 2, known: 1, .. })));
    }

    #[test]
    fn an_error_about_a_hostile_fact_is_one_short_line() {
        let fact = format!("[{{\"fact\":\"{}\"}}]", "x\\n".repeat(9000));
        let error = parse(Path::new("ledger"), &["{\"ledger\":1}".to_owned(), fact]).unwrap_err().to_string();
        assert!(!error.contains('\n') && error.len() < 2000, "{error}");
    }

    #[test]
    fn a_damaged_ledger_is_never_an_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        Ledger::open(&path).unwrap().record(vec![flip(1)]).unwrap();
        let mut contents = std::fs::read(&path).unwrap();
        contents[12] ^= 1;
        std::fs::write(&path, contents).unwrap();
        let error = Ledger::open(&path).unwrap_err().to_string();
        assert!(error.contains("damaged in line 1"), "{error}");
    }
}
