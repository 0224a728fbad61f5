//! The operations that this host has begun in the bucket and not ended: one small file for each, on the disk before
//! the effect.
//!
//! An entry names a backup and the data keys that an operation creates or removes. One rule cleans up after every
//! interrupted operation: **a key that the backup's manifest does not name is waste.** An interrupted put left no
//! manifest, so its bytes are removed; after an interrupted move the manifest names either the old key or the new
//! one, and the other is removed. Two operations go forward instead. If the manifest was about to be written, nobody
//! can tell whether the server will still take it, so it is written again: see `publish`. If the bytes were about to
//! be deleted, the deletion is finished: see `delete`.
//!
//! A lock on the file beside an entry shows that its writer lives; a pid would not.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use ulid::Ulid;

use crate::error::Error;
use crate::store::objects::ObjectOptions;

/// The version of entries.
const VERSION: u32 = 1;

/// A manifest that is about to be written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PendingManifest {
    /// The sealed document.
    pub text: String,
    /// Parameters of the object.
    #[serde(rename = "terms")]
    pub object_options: ObjectOptions,
    /// There must be none yet.
    pub new: bool,
}

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
    #[serde(rename = "last", default, skip_serializing_if = "Option::is_none")]
    pub pending_manifest: Option<PendingManifest>,
    /// The bytes that a deletion removes, once nothing speaks against it: from here on it goes forward, unless the
    /// server refuses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delete: Option<String>,
}

impl Entry {
    /// Reads an entry.
    ///
    /// # Errors
    /// What is wrong with it, in one line. The entry of a newer version is refused: cleaning up by rules that this
    /// version does not know could remove what is needed.
    pub fn read(text: &[u8]) -> Result<Self, String> {
        let entry: Self = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        if entry.version != VERSION {
            return Err(format!("it has version {}, this program reads {VERSION}", entry.version));
        }
        Ok(entry)
    }
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
    /// Names the folder. It is made when the first entry is: who only reads needs no place to write.
    pub fn new(folder: &Path, store: String) -> Self {
        Self { folder: folder.to_owned(), store }
    }

    /// Writes down what is about to be done.
    pub fn begin(&self, name: &str, keys: Vec<String>) -> Result<Open, Error> {
        let place = format!("state folder {}", self.folder.display());
        fs::create_dir_all(&self.folder).map_err(Error::local(place.clone()))?;
        let id = Ulid::generate().to_string();
        // Locked before it has its name: nobody who looks for the dead can find it without its lock.
        let file = tempfile::NamedTempFile::new_in(&self.folder).map_err(Error::local(place.clone()))?;
        let held = file.as_file().try_clone().map_err(Error::local(place.clone()))?;
        let lock = Flock::lock(held, FlockArg::LockExclusiveNonblock)
            .map_err(|(_, error)| Error::Local(format!("{place}: {error}")))?;
        let path = self.folder.join(format!("{id}.lock"));
        file.persist(&path).map_err(|error| Error::Local(format!("{place}: {}", error.error)))?;
        let entry = Entry {
            version: VERSION,
            store: self.store.clone(),
            name: name.to_owned(),
            keys,
            upload: None,
            pending_manifest: None,
            delete: None,
        };
        let open = Open { folder: self.folder.clone(), id, entry, _lock: lock };
        open.write()?;
        Ok(open)
    }

    /// The entries whose writer is dead, with their locks taken, and why others cannot be read: one bad entry keeps
    /// nobody from clearing up after the rest.
    pub fn abandoned(&self) -> (Vec<Open>, Vec<String>) {
        let place = self.folder.display();
        let (mut abandoned, mut bad) = (Vec::new(), Vec::new());
        let files = match fs::read_dir(&self.folder) {
            Ok(files) => files,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return (abandoned, bad),
            Err(error) => return (abandoned, vec![format!("{place}: {error}")]),
        };
        for file in files {
            let path = match file {
                Ok(file) => file.path(),
                Err(error) => {
                    bad.push(format!("{place}: {error}"));
                    continue;
                }
            };
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
                    // It died before it began, or after it ended.
                    let _ = fs::remove_file(&path);
                    continue;
                }
                Err(error) => {
                    bad.push(format!("{place}/{id}.json: {error}"));
                    continue;
                }
            };
            match Entry::read(&text) {
                Ok(entry) if entry.store == self.store => {
                    abandoned.push(Open {
                        folder: self.folder.clone(),
                        id: id.to_owned(),
                        entry,
                        _lock: lock,
                    });
                }
                Ok(_) => {}
                Err(why) => bad.push(format!("{place}/{id}.json: {why}; with a program that can read it, run `clean`, or remove the file")),
            }
        }
        (abandoned, bad)
    }

    /// Keys that a living process on this host works on.
    pub fn living(&self) -> Vec<String> {
        let Ok(files) = fs::read_dir(&self.folder) else { return Vec::new() };
        files
            .flatten()
            .filter(|file| file.path().extension().is_some_and(|extension| extension == "json"))
            .filter_map(|file| Entry::read(&fs::read(file.path()).ok()?).ok())
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
    pub fn manifest(&mut self, pending: PendingManifest) -> Result<(), Error> {
        self.entry.pending_manifest = Some(pending);
        self.write()
    }

    /// The manifest was not taken: whoever clears up must not write it.
    pub fn forget(&mut self) -> Result<(), Error> {
        self.entry.pending_manifest = None;
        self.write()
    }

    /// Adds a key that this operation makes, on the disk before it is made.
    pub fn key(&mut self, key: String) -> Result<(), Error> {
        self.entry.keys.push(key);
        self.write()
    }

    /// Notes that these bytes go, or, with `None`, that they stay after all.
    pub fn delete(&mut self, key: Option<String>) -> Result<(), Error> {
        self.entry.delete = key;
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
        let journal = Journal::new(folder.path(), "http://s/bucket".to_owned());
        let other = Journal::new(folder.path(), "http://t/bucket".to_owned());
        let mut open = journal.begin("a", vec!["a/data.1".to_owned()]).unwrap();
        open.upload("a/data.1", "u").unwrap();
        assert_eq!(journal.abandoned().0.len(), 0, "it lives");
        assert_eq!(journal.living(), ["a/data.1"]);
        drop(open);
        assert_eq!(other.abandoned().0.len(), 0, "not theirs");
        let abandoned = journal.abandoned().0.remove(0);
        assert_eq!(abandoned.entry().upload, Some(("a/data.1".to_owned(), "u".to_owned())));
        abandoned.end().unwrap();
        assert_eq!(journal.abandoned().0.len(), 0);
        assert_eq!(journal.living(), Vec::<String>::new());
    }

    #[test]
    fn the_first_version_can_be_read_and_no_newer_one() {
        let text = include_str!("../tests/fixtures/entry-1.json");
        let entry = Entry::read(text.as_bytes()).unwrap();
        let pending = entry.pending_manifest.as_ref().unwrap();
        assert_eq!((pending.new, pending.object_options.class.as_deref()), (true, Some("STANDARD_IA")));
        assert_eq!((entry.keys.len(), entry.delete.as_deref()), (2, Some("db/a/data.1")));
        assert_eq!(serde_json::to_string(&entry).unwrap(), text.trim_end(), "and is written the same");
        let newer = text.replacen("\"version\":1", "\"version\":2", 1);
        assert!(Entry::read(newer.as_bytes()).unwrap_err().contains("version 2"));
    }

    #[test]
    fn one_bad_entry_keeps_no_other_from_being_found_and_reading_makes_no_folder() {
        let folder = tempfile::tempdir().unwrap();
        let nowhere = folder.path().join("not there");
        let journal = Journal::new(&nowhere, "s".to_owned());
        assert!(
            journal.abandoned().0.is_empty()
                && journal.abandoned().1.is_empty()
                && journal.living().is_empty()
        );
        assert!(!nowhere.exists());
        drop(journal.begin("a", vec!["a/data.1".to_owned()]).unwrap());
        for (id, text) in [("bad", "{"), ("odd", "[1]"), ("folder", "")] {
            fs::write(nowhere.join(format!("{id}.lock")), "").unwrap();
            let path = nowhere.join(format!("{id}.json"));
            if text.is_empty() { fs::create_dir(path).unwrap() } else { fs::write(path, text).unwrap() }
        }
        let (abandoned, bad) = journal.abandoned();
        assert_eq!((abandoned.len(), bad.len()), (1, 3), "{bad:?}");
        assert!(bad.iter().any(|line| line.contains("bad.json") && line.contains("or remove the file")));
    }

    #[test]
    fn an_entry_can_be_begun_while_somebody_looks_for_the_dead() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::new(folder.path(), "s".to_owned());
        let over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(std::sync::atomic::Ordering::SeqCst) {
                    assert_eq!(journal.abandoned().0.len(), 0, "nobody died");
                }
            });
            for _ in 0..200 {
                journal.begin("a", Vec::new()).unwrap().end().unwrap();
            }
            over.store(true, std::sync::atomic::Ordering::SeqCst);
        });
    }
}
