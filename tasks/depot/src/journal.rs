//! What this host has begun in the bucket and not ended: one small file for each, on the disk before the effect.
//!
//! An entry names a backup and the data keys that an operation makes or removes. Whatever the operation was and
//! wherever it died, one rule cleans up: **a key that the backup's manifest does not name is waste.** A put that
//! died leaves no manifest, so its bytes go; a delete that died after the manifest finishes; a move that died
//! leaves the manifest naming either the old key or the new one, and the other goes. Only who died in the last write
//! itself is finished instead, because nobody can tell whether it will still be carried out: see `publish`.
//!
//! Whether the one who wrote an entry lives is told by a lock on the file beside it, never by a pid.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use ulid::Ulid;

use crate::error::Error;
use crate::publish::Last;

/// What was begun.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Version of this format.
    pub version: u32,
    /// Endpoint, bucket and prefix: another store's entries are not ours to clean.
    pub store: String,
    /// Name of the backup.
    pub name: String,
    /// Keys below the prefix that may be waste.
    pub keys: Vec<String>,
    /// A multipart upload that was begun: key and id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload: Option<(String, String)>,
    /// The manifest, once all bytes are where it says: from here on the operation can only go forward.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Last>,
}

/// The folder of entries.
#[derive(Clone)]
pub struct Journal {
    folder: PathBuf,
    store: String,
}

/// An entry of this process, with its lock.
pub struct Open {
    folder: PathBuf,
    id: String,
    entry: Entry,
    _lock: Flock<File>,
}

impl Journal {
    /// Opens the folder, and makes it if it is not there.
    pub fn new(folder: &Path, store: String) -> Result<Self, Error> {
        let place = || format!("state folder {}", folder.display());
        fs::create_dir_all(folder).map_err(Error::local(place()))?;
        Ok(Self { folder: folder.to_owned(), store })
    }

    /// Writes down what is about to be done.
    pub fn begin(&self, name: &str, keys: Vec<String>) -> Result<Open, Error> {
        let id = Ulid::generate().to_string();
        let path = self.folder.join(format!("{id}.lock"));
        let place = path.display().to_string();
        let file = File::create(&path).map_err(Error::local(place.clone()))?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock)
            .map_err(|(_, error)| Error::Local(format!("{place}: {error}")))?;
        let entry = Entry {
            version: 1,
            store: self.store.clone(),
            name: name.to_owned(),
            keys,
            upload: None,
            last: None,
        };
        let open = Open { folder: self.folder.clone(), id, entry, _lock: lock };
        open.write()?;
        Ok(open)
    }

    /// The entries whose writer is dead, with their locks taken.
    pub fn dead(&self) -> Result<Vec<Open>, Error> {
        let place = self.folder.display().to_string();
        let mut dead = Vec::new();
        for file in fs::read_dir(&self.folder).map_err(Error::local(place.clone()))? {
            let path = file.map_err(Error::local(place.clone()))?.path();
            let (Some(id), Some("lock")) = (
                path.file_stem().and_then(|stem| stem.to_str()),
                path.extension().and_then(|extension| extension.to_str()),
            ) else {
                continue;
            };
            let Ok(file) = File::open(&path) else { continue };
            let Ok(lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else { continue };
            let text = match fs::read(self.folder.join(format!("{id}.json"))) {
                Ok(text) => text,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    // It died before it began, or after it ended; unless it is just beginning.
                    let young = lock
                        .metadata()
                        .and_then(|found| found.modified())
                        .is_ok_and(|time| time.elapsed().is_ok_and(|age| age.as_secs() < 60));
                    if !young {
                        let _ = fs::remove_file(&path);
                    }
                    continue;
                }
                Err(error) => return Err(Error::Local(format!("{place}/{id}.json: {error}"))),
            };
            let entry: Entry = serde_json::from_slice(&text).map_err(|error| {
                Error::Local(format!("{place}/{id}.json: {error}: remove it, then prune"))
            })?;
            if entry.store == self.store {
                dead.push(Open { folder: self.folder.clone(), id: id.to_owned(), entry, _lock: lock });
            }
        }
        Ok(dead)
    }

    /// Keys that a living process on this host works on.
    pub fn living(&self) -> Vec<String> {
        let Ok(files) = fs::read_dir(&self.folder) else { return Vec::new() };
        files
            .flatten()
            .filter(|file| file.path().extension().is_some_and(|extension| extension == "json"))
            .filter_map(|file| serde_json::from_slice::<Entry>(&fs::read(file.path()).ok()?).ok())
            .filter(|entry| entry.store == self.store)
            .flat_map(|entry| entry.keys)
            .collect()
    }
}

impl Open {
    /// What was begun.
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// Adds the upload, on the disk before its first part is sent.
    pub fn upload(&mut self, key: &str, id: &str) -> Result<(), Error> {
        self.entry.upload = Some((key.to_owned(), id.to_owned()));
        self.write()
    }

    /// Adds the manifest, on the disk before it is sent.
    pub fn last(&mut self, last: Last) -> Result<(), Error> {
        self.entry.last = Some(last);
        self.write()
    }

    fn path(&self, extension: &str) -> PathBuf {
        self.folder.join(format!("{}.{extension}", self.id))
    }

    fn write(&self) -> Result<(), Error> {
        let path = self.path("json");
        let work = || -> std::io::Result<()> {
            let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
            file.write_all(&serde_json::to_vec(&self.entry)?)?;
            file.as_file().sync_all()?;
            file.persist(&path).map_err(|error| error.error)?;
            File::open(&self.folder)?.sync_all()
        };
        work().map_err(Error::local(path.display().to_string()))
    }

    /// It is over: nothing of it can be waste any more.
    pub fn end(self) -> Result<(), Error> {
        let path = self.path("json");
        fs::remove_file(&path).map_err(Error::local(path.display().to_string()))?;
        // A lock without an entry says nothing; it may stay behind.
        let _ = fs::remove_file(self.path("lock"));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_entries_of_the_dead_of_the_same_store_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::new(folder.path(), "http://s/bucket".to_owned()).unwrap();
        let other = Journal::new(folder.path(), "http://t/bucket".to_owned()).unwrap();
        let mut open = journal.begin("a", vec!["a/data.1".to_owned()]).unwrap();
        open.upload("a/data.1", "u").unwrap();
        assert_eq!(journal.dead().unwrap().len(), 0, "it lives");
        assert_eq!(journal.living(), ["a/data.1"]);
        drop(open);
        assert_eq!(other.dead().unwrap().len(), 0, "not theirs");
        let dead = journal.dead().unwrap().remove(0);
        assert_eq!(dead.entry().upload, Some(("a/data.1".to_owned(), "u".to_owned())));
        dead.end().unwrap();
        assert_eq!(journal.dead().unwrap().len(), 0);
        assert_eq!(journal.living(), Vec::<String>::new());
    }
}
