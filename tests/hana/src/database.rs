//! The rows of one database, and the log that they are rebuilt from.
//!
//! The data volume holds a savepoint, the log volume every change since, a line each, with a position that grows by one
//! and its instant. What is committed is in the log on the disk; a line that a power cut left half is no commit.

use crate::clock;
use crate::files;
use crate::halt::Halt;
use crate::root::Root;
use crate::system::{Database, System};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The rows and users of a database at one position of its log.
#[derive(Clone, Default, Serialize, Deserialize, PartialEq, Debug)]
pub(crate) struct Content {
    pub(crate) position: u64,
    /// Instant of the last change.
    pub(crate) time: i64,
    /// The history that the rows belong to: a recovery that clears the log begins a new one.
    #[serde(default)]
    pub(crate) branch: i64,
    pub(crate) tables: BTreeMap<String, Table>,
    /// Users and what is kept of their passwords.
    pub(crate) users: BTreeMap<String, String>,
}

/// A table.
#[derive(Clone, Default, Serialize, Deserialize, PartialEq, Debug)]
pub(crate) struct Table {
    pub(crate) columns: Vec<String>,
    /// Place of the primary key's column, if it has one.
    pub(crate) key: Option<usize>,
    pub(crate) rows: Vec<Vec<Value>>,
}

/// One change.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) enum Change {
    /// A table, new or as a whole.
    Table(String, Table),
    Drop(String),
    Insert(String, Vec<Vec<Value>>),
    User(String, String),
    DropUser(String),
}

/// A change in the log.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) position: u64,
    pub(crate) time: i64,
    pub(crate) change: Change,
}

impl Content {
    pub(crate) fn apply(&mut self, entry: &Entry) {
        match &entry.change {
            Change::Table(name, table) => {
                self.tables.insert(name.clone(), table.clone());
            }
            Change::Drop(name) => {
                self.tables.remove(name);
            }
            Change::Insert(name, rows) => {
                if let Some(table) = self.tables.get_mut(name) {
                    table.rows.extend(rows.iter().cloned());
                }
            }
            Change::User(name, kept) => {
                self.users.insert(name.clone(), kept.clone());
            }
            Change::DropUser(name) => {
                self.users.remove(name);
            }
        }
        self.position = entry.position;
        self.time = entry.time;
    }
}

/// The files of a database: its savepoint and its log.
pub(crate) struct Volume {
    pub(crate) data: PathBuf,
    pub(crate) log: PathBuf,
}

impl Volume {
    pub(crate) fn of(root: &Root, system: &System, database: &Database) -> Self {
        let folder = format!("mnt00001/hdb{:05}", database.volume);
        Self {
            data: root.at(&system.datapath).join(&folder).join("datavolume_0000.dat"),
            log: root.at(&system.logpath).join(&folder).join("logsegment_000_00000000.dat"),
        }
    }

    /// What is in the log, up to the first line that is not whole.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        text.lines().map_while(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The rows now. Halts where the data volume is not there or not readable.
    pub(crate) fn content(&self) -> Result<Content, Halt> {
        let mut content: Content = files::load(&self.data)?
            .ok_or_else(|| Halt::new(1, format!("{}: the data volume is missing", self.data.display())))?;
        for entry in self.entries() {
            if entry.position > content.position {
                content.apply(&entry);
            }
        }
        Ok(content)
    }

    /// Commits a change: `content` is what the volume holds, and holds the change afterwards.
    pub(crate) fn commit(&self, root: &Root, content: &mut Content, change: Change) -> Result<Entry, Halt> {
        let entry =
            Entry { position: content.position + 1, time: clock::now().max(content.time + 1), change };
        files::crash_point(root, "commit.before-log");
        whole_lines(root, &self.log)?;
        let line = serde_json::to_string(&entry)? + "\n";
        files::append(root, &self.log, line.as_bytes())?;
        files::crash_point(root, "commit.after-log");
        content.apply(&entry);
        Ok(entry)
    }

    /// Takes a commit of the primary into the log.
    pub(crate) fn receive(&self, root: &Root, entry: &Entry) -> Result<(), Halt> {
        whole_lines(root, &self.log)?;
        files::append(root, &self.log, (serde_json::to_string(entry)? + "\n").as_bytes())
    }

    /// Writes the content as the savepoint, and begins a new log with the given entries.
    ///
    /// Entries up to the savepoint's position are in its rows already: they stay in the log until a log backup has them.
    pub(crate) fn savepoint(&self, root: &Root, content: &Content, keep: &[Entry]) -> Result<(), Halt> {
        let mut log = String::new();
        for entry in keep {
            log += &(serde_json::to_string(entry)? + "\n");
        }
        files::save(root, &self.data, content)?;
        files::write(root, &self.log, log.as_bytes())
    }
}

/// Cuts off a last line that is not whole, so that the next does not become part of it.
fn whole_lines(root: &Root, path: &Path) -> Result<(), Halt> {
    let bytes = fs::read(path).unwrap_or_default();
    if bytes.last().is_none_or(|last| *last == b'\n') {
        return Ok(());
    }
    let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |place| place + 1);
    files::write(root, path, bytes.get(..end).unwrap_or_default())
}

/// What is kept of a password: enough to know it again, not enough to read it.
pub(crate) fn kept(password: &str) -> String {
    use std::hash::{Hash, Hasher};
    let mut hasher = std::hash::DefaultHasher::new();
    password.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_half_written_line_is_no_commit() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        let volume = Volume { data: folder.path().join("data"), log: folder.path().join("log") };
        volume.savepoint(&root, &Content::default(), &[]).unwrap();
        let mut content = volume.content().unwrap();
        let table = Table { columns: vec!["N".into()], key: None, rows: Vec::new() };
        volume.commit(&root, &mut content, Change::Table("T".into(), table)).unwrap();
        volume.commit(&root, &mut content, Change::Insert("T".into(), vec![vec![1.into()]])).unwrap();
        let whole = fs::read(&volume.log).unwrap();
        fs::write(&volume.log, &whole[..whole.len() - 3]).unwrap();
        assert!(volume.content().unwrap().tables["T"].rows.is_empty());
        // The next commit takes the place of the half one.
        let mut content = volume.content().unwrap();
        volume.commit(&root, &mut content, Change::Insert("T".into(), vec![vec![2.into()]])).unwrap();
        assert_eq!(volume.content().unwrap().tables["T"].rows, [[Value::from(2)]]);
        assert_eq!(volume.content().unwrap(), content);
    }
}
