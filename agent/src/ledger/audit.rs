//! The audit on the disk: `audit/<number of the first line>.log`, appended to and never changed.
//!
//! Each line carries the hash of the line before, across files, so that a line that was changed, taken out or put
//! in breaks the chain from there on. Files are ended at a mebibyte, and 64 are kept; before the oldest is removed, a
//! line names the lines that go with it. Number and hash of the newest line are in the agent's report: [`contradicts`]
//! compares them with the disk, and so finds lines that were cut off at the end, and a chain that was written again as
//! a whole. To hide a change, both the host and the store have to be changed.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::domain::audit::{Entry, Head, Line, NumberedEntry, Standing};
use crate::domain::yaml::single_line;
use crate::host::clock;
use crate::host::disk::{self, DiskError, PathContext};
use crate::host::log::{self, Log, LogError};

/// A file is ended when it is this long, in bytes.
const FULL: u64 = 1 << 20;
/// So many files are kept, some years of a busy host.
const FILES: usize = 64;
/// The entry that names the lines of a file that is about to be removed.
const REMOVED: &str = "removed";
/// How much of the newest entries is held for the host's report, in bytes of JSON.
const NEWEST: usize = 7 << 10;
/// What the very first line follows.
const NOTHING: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Why the audit cannot be written or believed.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// A file.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The folder.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// It could not be opened.
    #[error("{0}")]
    NotOpen(String),
    /// It is not the record whose newest line was reported.
    #[error("{0}")]
    Contradicted(String),
    /// A line that is none, or that does not follow the one before.
    #[error("{} line {line}: {why}", path.display())]
    Broken {
        /// Which file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        why: String,
    },
}

fn first() -> Head {
    Head { n: 0, hash: NOTHING.to_owned() }
}

fn head_of(line: &Line, json: &str) -> Head {
    Head { n: line.n, hash: hash(json) }
}

/// The open audit.
#[derive(Debug)]
pub struct Audit {
    dir: PathBuf,
    log: Log,
    head: Head,
    newest: Newest,
    standing: Standing,
    full: u64,
    most_files: usize,
}

/// The newest entries, the oldest of them first, each with its size in bytes of JSON.
#[derive(Debug, Default)]
struct Newest {
    entries: VecDeque<(usize, NumberedEntry)>,
    bytes: usize,
}

impl Newest {
    fn add(&mut self, entry: NumberedEntry) {
        let size = serde_json::to_string(&entry).map_or(0, |json| json.len() + 1);
        self.bytes += size;
        self.entries.push_back((size, entry));
        while self.bytes > NEWEST
            && let Some((size, _)) = self.entries.pop_front()
        {
            self.bytes = self.bytes.saturating_sub(size);
        }
    }
}

impl Audit {
    /// Opens the audit of a state folder, or begins one.
    pub fn open(state_dir: &Path) -> Result<Self, AuditError> {
        Self::open_bounded(state_dir, FULL, FILES)
    }

    fn open_bounded(state_dir: &Path, full: u64, most_files: usize) -> Result<Self, AuditError> {
        let dir = folder(state_dir);
        disk::make_dir(&dir)?;
        let files = files(&dir)?;
        let last = files.last().cloned().unwrap_or_else(|| file(&dir, 1));
        let (log, lines) = Log::open(&last)?;
        let newest = match lines.last() {
            Some(json) => Some((last, lines.len(), json.clone())),
            // A crash left a file without a line: the chain goes on from the file before.
            None => match files.iter().rev().nth(1) {
                Some(before) => log::read(before)?.pop().map(|json| (before.clone(), 0, json)),
                None => None,
            },
        };
        let head = match newest {
            Some((path, line, json)) => head_of(&parse(&path, line, &json)?, &json),
            None => first(),
        };
        let (newest, standing) = (Newest::default(), Standing::default());
        let mut audit = Self { dir, log, head, newest, standing, full, most_files };
        for (i, json) in lines.iter().enumerate() {
            let line = parse(&file(&audit.dir, 0), i + 1, json)?;
            audit.follow(line);
        }
        Ok(audit)
    }

    /// The newest line.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The newest entries, the newest first, as many as the host's report has room for.
    pub fn newest(&self) -> impl Iterator<Item = &NumberedEntry> {
        self.newest.entries.iter().rev().map(|(_, entry)| entry)
    }

    /// What the newest file says of things that last.
    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    fn follow(&mut self, line: Line) {
        for entry in line.entries {
            self.standing.follow(&entry);
            self.newest.add(NumberedEntry { n: line.n, at: line.at, entry });
        }
    }

    /// Adds a line; when this returns it is on the disk.
    pub fn append(&mut self, entries: Vec<Entry>) -> Result<(), AuditError> {
        if self.log.length() >= self.full {
            self.next_file()?;
        }
        self.add(entries)
    }

    fn add(&mut self, entries: Vec<Entry>) -> Result<(), AuditError> {
        let line = Line { n: self.head.n + 1, prev: self.head.hash.clone(), at: clock::now(), entries };
        // Texts and numbers only, which cannot fail to be written as JSON.
        let json = serde_json::to_string(&line).unwrap_or_default();
        self.log.append(&json)?;
        self.head = head_of(&line, &json);
        self.follow(line);
        Ok(())
    }

    fn next_file(&mut self) -> Result<(), AuditError> {
        let files = files(&self.dir)?;
        if let [oldest, second, ..] = files.as_slice()
            && files.len() >= self.most_files
        {
            let what = format!("lines {} to {}", number(oldest), number(second).saturating_sub(1));
            self.add(vec![Entry { what: REMOVED.to_owned(), why: Some(what), ..Entry::default() }])?;
            disk::remove(oldest)?;
        }
        self.log = Log::open(&file(&self.dir, self.head.n + 1))?.0;
        Ok(())
    }
}

/// Reads all lines that are kept, oldest first, and follows the chain; `each` gets every line. Lines that are missing
/// before the first one are an error, too, unless a line names them as removed.
pub fn walk(state_dir: &Path, mut each: impl FnMut(Line)) -> Result<Head, AuditError> {
    let mut head = None;
    let (mut before_first, mut removed) = (0, 0);
    for path in files(&folder(state_dir))? {
        for (i, json) in log::read(&path)?.into_iter().enumerate() {
            let line = parse(&path, i + 1, &json)?;
            // What the first kept line follows may have been removed with its file.
            let before = head.get_or_insert_with(|| match line.n {
                1 => first(),
                n => {
                    before_first = n.saturating_sub(1);
                    Head { n: before_first, hash: line.prev.clone() }
                }
            });
            let broken = |why: String| AuditError::Broken { path: path.clone(), line: i + 1, why };
            if line.n != before.n + 1 {
                return Err(broken(format!("number {} follows {}: lines are missing", line.n, before.n)));
            }
            if line.prev != before.hash {
                return Err(broken(format!(
                    "it does not follow line {}: one of the two was changed",
                    before.n
                )));
            }
            head = Some(head_of(&line, &json));
            removed = line.entries.iter().filter_map(removed_to).fold(removed, u64::max);
            each(line);
        }
    }
    if removed < before_first {
        let why = format!("lines {} to {before_first} are missing", removed + 1);
        return Err(AuditError::Broken { path: folder(state_dir), line: 1, why });
    }
    Ok(head.unwrap_or_else(first))
}

/// The last line that an entry names as removed.
fn removed_to(entry: &Entry) -> Option<u64> {
    let why = entry.why.as_deref().filter(|_| entry.what == REMOVED)?;
    why.rsplit_once(" to ")?.1.parse().ok()
}

/// Why the record on the disk is not the one whose newest line was reported, in one line for the operator.
///
/// `None`: it is; or it names the gap itself; or that line is too old to be kept. Only one file is read, unless there is
/// a contradiction. Reports are read before the disk: the record may only grow meanwhile.
pub fn contradicts(state_dir: &Path, reported: &Head) -> Result<Option<String>, AuditError> {
    let n = reported.n;
    let files = files(&folder(state_dir))?;
    let found = match files.iter().rev().find(|path| number(path) <= n) {
        Some(path) => hash_in(path, n)?,
        // Before the oldest: only a full record has lost its first lines to age.
        None if n == 0 || files.len() + 1 >= FILES => return Ok(None),
        None => None,
    };
    let why = match found {
        Some(hash) if reported.hash == hash => return Ok(None),
        Some(_) => format!("line {n} of the audit is not the one that was reported: it was changed"),
        None => {
            let last = match files.last() {
                Some(path) => (number(path) + log::read(path)?.len() as u64).saturating_sub(1),
                None => 0,
            };
            format!(
                "the audit ends with line {last}, and line {n} was reported: lines are missing at the end"
            )
        }
    };
    let mut is_named = false;
    walk(state_dir, |line| is_named |= line.entries.iter().any(|entry| entry.is_gap_of(reported)))?;
    Ok((!is_named).then_some(why))
}

/// The hash of a line of this file.
fn hash_in(path: &Path, n: u64) -> Result<Option<String>, AuditError> {
    for (i, json) in log::read(path)?.into_iter().enumerate() {
        if parse(path, i + 1, &json)?.n == n {
            return Ok(Some(hash(&json)));
        }
    }
    Ok(None)
}

/// The number of the oldest line that is kept; none where there is no audit.
pub fn oldest(state_dir: &Path) -> Result<Option<u64>, AuditError> {
    Ok(files(&folder(state_dir))?.first().map(|path| number(path)))
}

fn folder(state_dir: &Path) -> PathBuf {
    state_dir.join("audit")
}

fn file(dir: &Path, first: u64) -> PathBuf {
    dir.join(format!("{first:012}.log"))
}

/// The files by their names, which sort as their first lines do.
fn files(dir: &Path) -> Result<Vec<PathBuf>, AuditError> {
    let mut files = Vec::new();
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(files),
        entries => entries.with_path("list", dir)?,
    };
    for entry in entries {
        let path = entry.with_path("list", dir)?.path();
        if path.extension().is_some_and(|extension| extension == "log") && number(&path) > 0 {
            files.push(path);
        }
    }
    files.sort_unstable();
    Ok(files)
}

/// The number of a file's first line; 0 for what is not one of ours.
fn number(path: &Path) -> u64 {
    path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok()).unwrap_or(0)
}

fn parse(path: &Path, line: usize, json: &str) -> Result<Line, AuditError> {
    serde_json::from_str(json).map_err(|error| AuditError::Broken {
        path: path.to_owned(),
        line,
        why: single_line(&error.to_string()),
    })
}

fn hash(json: &str) -> String {
    hex::encode(Sha256::digest(json.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(n: usize) -> Entry {
        Entry { what: format!("held {n}"), why: Some("x".repeat(300)), ..Entry::default() }
    }

    fn walked(dir: &Path) -> Result<Vec<u64>, AuditError> {
        let mut numbers = Vec::new();
        walk(dir, |line| numbers.push(line.n)).map(|_| numbers)
    }

    #[test]
    fn the_chain_goes_on_across_openings_and_files() {
        let dir = tempfile::tempdir().unwrap();
        for part in 0..6 {
            let mut audit = Audit::open_bounded(dir.path(), 4096, FILES).unwrap();
            (0..10).for_each(|n| audit.append(vec![entry(part * 10 + n)]).unwrap());
            assert_eq!(audit.head().n, u64::try_from((part + 1) * 10).unwrap());
        }
        assert!(files(&folder(dir.path())).unwrap().len() > 3);
        assert_eq!(walked(dir.path()).unwrap(), (1..=60).collect::<Vec<_>>());
        // A crash between two files.
        fs::write(file(&folder(dir.path()), 61), b"").unwrap();
        Audit::open(dir.path()).unwrap().append(vec![entry(0)]).unwrap();
        assert_eq!(walked(dir.path()).unwrap().len(), 61);
    }

    #[test]
    fn each_change_of_what_was_written_is_found() {
        let whole = |dir: &Path| {
            let mut audit = Audit::open(dir).unwrap();
            (0..5).for_each(|n| audit.append(vec![entry(n)]).unwrap());
            let path = file(&folder(dir), 1);
            let lines: Vec<String> = log::read(&path).unwrap();
            (path, lines)
        };
        let rewritten = |change: &dyn Fn(&mut Vec<String>)| {
            let dir = tempfile::tempdir().unwrap();
            let (path, mut lines) = whole(dir.path());
            change(&mut lines);
            fs::write(&path, lines.iter().map(|json| log::line(json)).collect::<String>()).unwrap();
            walked(dir.path()).err().map(|error| error.to_string())
        };
        assert_eq!(rewritten(&|_| {}), None);
        let changed = rewritten(&|lines| lines[2] = lines[2].replace("held 2", "held 9")).unwrap();
        assert!(changed.contains("line 4: it does not follow line 3"), "{changed}");
        let missing = rewritten(&|lines| drop(lines.remove(2))).unwrap();
        assert!(missing.contains("number 4 follows 2"), "{missing}");
        assert!(rewritten(&|lines| lines.swap(1, 2)).is_some());
        assert!(rewritten(&|lines| lines[1] = "{}".to_owned()).is_some());
        // The first line cannot be passed off as one that follows removed ones.
        assert!(rewritten(&|lines| lines[0] = lines[0].replace("000000", "000001")).is_some());
    }

    #[test]
    fn the_reported_line_tells_of_a_cut_and_of_a_chain_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut heads = vec![first()];
        let mut audit = Audit::open(dir.path()).unwrap();
        for n in 0..6 {
            audit.append(vec![entry(n)]).unwrap();
            heads.push(audit.head().clone());
        }
        let why = |reported: &Head| contradicts(dir.path(), reported).unwrap();
        for head in &heads {
            assert_eq!(why(head), None);
        }
        let path = file(&folder(dir.path()), 1);
        let lines = log::read(&path).unwrap();
        let kept: String = lines.iter().take(4).map(|json| log::line(json)).collect();
        fs::write(&path, kept).unwrap();
        let cut = why(&heads[6]).unwrap();
        assert!(cut.contains("ends with line 4, and line 6 was reported"), "{cut}");
        assert_eq!(why(&heads[4]), None);
        // It goes on from there, beyond the reported number, with a chain that is whole in itself.
        let mut audit = Audit::open(dir.path()).unwrap();
        (0..5).for_each(|n| audit.append(vec![entry(n + 100)]).unwrap());
        assert_eq!(walked(dir.path()).unwrap().len(), 9);
        let changed = why(&heads[6]).unwrap();
        assert!(changed.contains("line 6 of the audit is not the one"), "{changed}");
        // A gap that the record names is one that nobody hides.
        audit.append(vec![Entry::gap(&heads[6], "restored")]).unwrap();
        assert_eq!(why(&heads[6]), None);
        assert!(why(&heads[5]).is_some());
        fs::remove_dir_all(folder(dir.path())).unwrap();
        assert!(why(&heads[1]).unwrap().contains("ends with line 0"));
    }

    #[test]
    fn lines_that_are_missing_at_the_beginning_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let mut audit = Audit::open_bounded(dir.path(), 1000, FILES).unwrap();
        (0..30).for_each(|n| audit.append(vec![entry(n)]).unwrap());
        let files = files(&folder(dir.path())).unwrap();
        fs::remove_file(&files[0]).unwrap();
        let error = walked(dir.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("lines 1 to {} are missing", number(&files[1]) - 1)), "{error}");
        // Nor is a line believed that is older than all that is kept, unless the record is full.
        assert!(contradicts(dir.path(), &Head { n: 1, hash: String::new() }).is_err());
    }

    #[test]
    fn what_is_removed_is_said_first() {
        let dir = tempfile::tempdir().unwrap();
        let mut audit = Audit::open_bounded(dir.path(), 1000, 4).unwrap();
        (0..30).for_each(|n| audit.append(vec![entry(n)]).unwrap());
        assert!(files(&folder(dir.path())).unwrap().len() <= 4);
        let oldest = oldest(dir.path()).unwrap().unwrap();
        let mut said = Vec::new();
        walk(dir.path(), |line| {
            said.extend(line.entries.into_iter().filter(|entry| entry.what == "removed"))
        })
        .unwrap();
        let last = said.last().and_then(|entry| entry.why.clone()).unwrap();
        assert!(oldest > 1 && last.ends_with(&format!(" to {}", oldest - 1)), "{last} {oldest}");
    }
}
