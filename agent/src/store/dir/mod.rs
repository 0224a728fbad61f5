//! The adapter for a folder: the same tree of keys, one file a key.
//!
//! ```text
//! <root>/hostler/hosts/db1/orders/backup    the value of hostler/hosts/db1/orders/backup
//! <root>/.index                             the counter, see index.rs
//! <root>/.lock                              held by whoever reads or writes, agent and commands alike
//! ```
//!
//! It promises what the port promises: a change of content has a higher index than everything before it,
//! written down before it is told; a folder that is not there is an error and never an empty listing.
//! A file counts when nobody has it open for writing and it was the same for a moment, however it came there.
//! Two things it cannot do: tell a restored folder from an edited one, and hold `a` beside `a/b`.

mod events;
mod index;
mod tree;
mod worker;
mod writer;

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use self::events::Events;
use self::index::Index;
use self::worker::Worker;
use self::writer::Writer;
use super::{
    Entry, Listing, MAX_READ_VALUE, MAX_READS, MAX_VALUE, MAX_WAIT, Read, Store, StoreError, StoreFuture,
    When, bad_key, bad_prefix,
};
use crate::domain::keys;
use crate::host::disk::{self, DiskError};

/// How often it looks where the system gives no events.
const TURN: Duration = Duration::from_secs(2);

/// The pause after a look that brought nothing, so that a busy neighbour costs twenty looks a second at most.
const REST: Duration = Duration::from_millis(50);

/// How long a content must stay the same before it counts.
const MOMENT: Duration = Duration::from_millis(50);

/// The same where the system does not tell who writes a file.
const LONG_MOMENT: Duration = Duration::from_secs(2);

/// How long one look waits for files to be complete.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long one look or write may take: a disk that is slower is gone.
const DEADLINE: Duration = Duration::from_secs(20);

/// How long to wait for another process that holds the lock.
const LOCK_DEADLINE: Duration = Duration::from_secs(10);

/// The largest counter file, in bytes: ten thousand keys of the longest kind.
const MAX_INDEX: u64 = 16 * 1024 * 1024;

/// A store in a folder.
pub struct Dir {
    inner: Arc<Inner>,
    worker: Worker,
}

struct Inner {
    root: PathBuf,
    events: Events,
    /// One at a time within this process; the lock file sees to the others.
    turn: Mutex<()>,
    /// What was seen for the first time, and since when it is the same.
    fresh: Mutex<BTreeMap<String, (tree::Stamp, Instant)>>,
    /// What the last look at each prefix passed over.
    passed_over: Mutex<BTreeMap<String, Vec<tree::PassedOver>>>,
}

/// What went wrong, before it is known where.
enum Trouble {
    Io(io::Error),
    Disk(DiskError),
    Index(String),
    Locked,
    /// This key's file is not complete yet.
    Writing(String),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<DiskError> for Trouble {
    fn from(error: DiskError) -> Self {
        Self::Disk(error)
    }
}

impl Dir {
    /// A store in the folder `root`; touches nothing yet.
    pub fn new(root: &Path) -> Self {
        let inner = Inner {
            root: root.to_owned(),
            events: Events::new(root),
            turn: Mutex::new(()),
            fresh: Mutex::default(),
            passed_over: Mutex::default(),
        };
        Self { inner: Arc::new(inner), worker: Worker::default() }
    }

    /// Makes the folder, mode 0700, if it is not there.
    pub fn make(&self) -> Result<(), DiskError> {
        disk::make_dirs(&self.inner.root)
    }

    /// Sends work on the disk to its thread, with a deadline.
    async fn run<T: Send + 'static>(
        &self,
        action: String,
        work: impl FnOnce(&Inner) -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = Arc::clone(&self.inner);
        let answer = self.worker.work(move || work(&inner));
        let answer = answer.map_err(|why| self.unreachable(&why.to_string()))?;
        match tokio::time::timeout(DEADLINE, answer).await {
            Ok(Ok(Ok(value))) => Ok(value),
            Ok(Ok(Err(trouble))) => Err(self.error(&action, trouble)),
            Ok(Err(_)) => Err(self.unreachable("the thread that read it broke off")),
            Err(_) => Err(self.unreachable("the disk does not answer")),
        }
    }

    fn error(&self, action: &str, trouble: Trouble) -> StoreError {
        let place = self.place();
        let (kind, why) = match trouble {
            Trouble::Io(error) => (error.kind(), error.to_string()),
            Trouble::Disk(error) => (error.source.kind(), error.to_string()),
            Trouble::Locked => return StoreError::Busy { place, why: "another process holds .lock".into() },
            Trouble::Writing(key) => {
                return StoreError::Busy { place, why: format!("{key} is still being written") };
            }
            Trouble::Index(why) => {
                let cure = "remove .index to count anew; orders that are known are then held";
                return StoreError::Unreadable { place, why: format!(".index: {why}; {cure}") };
            }
        };
        let action = action.to_owned();
        match kind {
            io::ErrorKind::FileTooLarge => StoreError::TooLarge { place, action, why },
            io::ErrorKind::PermissionDenied => StoreError::Denied { place, action, why },
            io::ErrorKind::NotADirectory
            | io::ErrorKind::IsADirectory
            | io::ErrorKind::AlreadyExists
            | io::ErrorKind::DirectoryNotEmpty
            | io::ErrorKind::InvalidInput => StoreError::Refused { place, action, why },
            _ => {
                // Perhaps another folder stands there by now: watch that one.
                self.inner.events.reset();
                StoreError::Unreachable { place, why }
            }
        }
    }

    fn unreachable(&self, why: &str) -> StoreError {
        StoreError::Unreachable { place: self.place(), why: why.to_owned() }
    }

    fn refused(&self, action: &str, why: &str) -> StoreError {
        StoreError::Refused { place: self.place(), action: action.to_owned(), why: why.to_owned() }
    }

    fn check_key(&self, key: &str, action: &str) -> Result<(), StoreError> {
        match bad_key(key).or_else(|| key.split('/').find_map(tree::bad_part)).or_else(|| tree::leftover(key))
        {
            Some(why) => Err(self.refused(action, why)),
            None => Ok(()),
        }
    }

    fn check_prefix(&self, prefix: &str, action: &str) -> Result<(), StoreError> {
        match bad_prefix(prefix) {
            Some(why) => Err(self.refused(action, why)),
            None => Ok(()),
        }
    }

    async fn get(&self, prefix: &str) -> Result<Listing, StoreError> {
        let action = format!("to list {prefix:?}");
        self.check_prefix(prefix, &action)?;
        let prefix = prefix.to_owned();
        self.run(action, move |inner| inner.list(&prefix)).await
    }
}

impl Inner {
    /// Holds the folder for one reading or writing, with its counter.
    fn with<T>(&self, work: impl FnOnce(&mut Held<'_>) -> Result<T, Trouble>) -> Result<T, Trouble> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let root = tree::open_root(&self.root)?;
        let _lock = lock(&root)?;
        let index = match disk::read(&self.root.join(".index"), MAX_INDEX)? {
            None => Index::default(),
            Some(text) => Index::read(&text).map_err(Trouble::Index)?,
        };
        work(&mut Held { inner: self, path: &self.root, root, index })
    }

    fn list(&self, prefix: &str) -> Result<Listing, Trouble> {
        self.with(|held| held.list(prefix))
    }
}

/// The folder while this process alone holds it.
struct Held<'a> {
    inner: &'a Inner,
    path: &'a Path,
    root: OwnedFd,
    index: Index,
}

impl Held<'_> {
    /// Counts what changed below `prefix`, and tells it only when the count is on the disk.
    fn list(&mut self, prefix: &str) -> Result<Listing, Trouble> {
        let scope = scope(prefix);
        let mut found = self.complete(&scope)?;
        let mut digests = digests(&found);
        if self.index.misses(&scope, &digests) {
            // An editor that renames while the folder is read can hide a key that is there all the time.
            found = self.complete(&scope)?;
            digests = self::digests(&found);
        }
        if self.index.update(&scope, &digests) {
            self.save()?;
        }
        found.retain(|found| found.key.starts_with(prefix));
        let entry = |found: tree::Found| {
            let modify_index = self.index.of_key(&found.key)?;
            let too_large = found.value.len() > MAX_READ_VALUE;
            let value = if too_large { Vec::new() } else { found.value };
            Some(Entry { key: found.key, value, too_large, modify_index })
        };
        let mut entries: Vec<Entry> = found.into_iter().filter_map(entry).collect();
        entries.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Listing { index: self.index.of_prefix(prefix), entries, sent: 0 })
    }

    /// All keys of a scope, when each file of it is complete: half an order is another order.
    fn complete(&self, scope: &[String]) -> Result<Vec<tree::Found>, Trouble> {
        let until = Instant::now() + PATIENCE;
        loop {
            let (mut found, mut passed_over) = (Vec::new(), Vec::new());
            for prefix in scope {
                let (more, files) =
                    tree::scan(&self.root, prefix, &|key, digest| self.index.holds(key, digest))?;
                found.extend(more);
                passed_over.push((prefix.clone(), files));
            }
            let now = Instant::now();
            let mut seen = self.inner.fresh.lock().unwrap_or_else(PoisonError::into_inner);
            let known = std::mem::take(&mut *seen);
            // Of other prefixes it is kept, of these only what is still news.
            let other = |key: &str| !scope.iter().any(|prefix| key.starts_with(prefix));
            seen.extend(known.iter().filter(|(key, _)| other(key)).map(|(key, at)| (key.clone(), *at)));
            let mut writing = None;
            for tree::Found { key, news, .. } in &found {
                let Some(news) = news else { continue };
                let since = match known.get(key) {
                    Some((stamp, since)) if *stamp == news.stamp => *since,
                    _ => now,
                };
                seen.insert(key.clone(), (news.stamp, since));
                let moment = match news.writer {
                    Writer::Nobody => MOMENT,
                    Writer::Unknown => LONG_MOMENT,
                    Writer::Somebody => Duration::MAX,
                };
                if now.duration_since(since) < moment {
                    writing = Some(key.clone());
                }
            }
            drop(seen);
            let Some(key) = writing else {
                let mut all = self.inner.passed_over.lock().unwrap_or_else(PoisonError::into_inner);
                all.extend(passed_over);
                return Ok(found);
            };
            if now >= until {
                return Err(Trouble::Writing(key));
            }
            std::thread::sleep(MOMENT);
        }
    }

    fn look(&mut self, read: &Read) -> Result<Listing, Trouble> {
        let entries = match read {
            Read::Prefix(prefix) => self.list(prefix)?.entries,
            Read::Key(key) => {
                let mut entries = self.list(key)?.entries;
                entries.retain(|entry| entry.key == *key);
                entries
            }
        };
        let index = entries.iter().map(|entry| entry.modify_index).max().unwrap_or(0);
        Ok(Listing { index, entries, sent: 0 })
    }

    fn put(&mut self, key: &str, value: &[u8], when: When) -> Result<bool, Trouble> {
        let now = self.look(&Read::Key(key.to_owned()))?.entries.pop();
        let stands = now.as_ref().map_or(0, |entry| entry.modify_index);
        if let When::Unchanged(expected) = when
            && expected != stands
        {
            return Ok(false);
        }
        if now.is_some_and(|entry| !entry.too_large && entry.value == value) {
            return Ok(true);
        }
        tree::make_folders(&self.root, key)?;
        disk::replace(&self.path.join(key), value, 0o600)?;
        // This file is complete, as it was renamed into its place just now.
        let digest = digest(value);
        self.index.count(key, Some(&digest));
        self.save()?;
        self.list(key)?;
        Ok(true)
    }

    fn delete(&mut self, key: &str) -> Result<(), Trouble> {
        // Only what counts as a key is removed, never a link or somebody else's file.
        if self.look(&Read::Key(key.to_owned()))?.entries.is_empty() {
            return Ok(());
        }
        disk::remove(&self.path.join(key))?;
        self.list(key)?;
        Ok(())
    }

    fn save(&self) -> Result<(), Trouble> {
        let text = self.index.write().map_err(Trouble::Index)?;
        Ok(disk::replace(&self.path.join(".index"), &text, 0o600)?)
    }
}

/// The prefixes that are counted together with one: those of hosts and of groups are, so that the counts tell which
/// order came first.
fn scope(prefix: &str) -> Vec<String> {
    match keys::above_sources(prefix) {
        Some(above) => ["hosts/", "groups/"].map(|kind| format!("{above}{kind}")).to_vec(),
        None => vec![prefix.to_owned()],
    }
}

/// Waits for the lock file; held until the file is dropped.
fn lock(root: &OwnedFd) -> Result<File, Trouble> {
    let file = tree::open_lock(root)?;
    let until = Instant::now() + LOCK_DEADLINE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(error.into()),
            Err(TryLockError::WouldBlock) if Instant::now() >= until => return Err(Trouble::Locked),
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// Each key with the SHA-256 of its value, hexadecimal.
fn digests(found: &[tree::Found]) -> BTreeMap<String, String> {
    found.iter().map(|found| (found.key.clone(), found.digest.clone())).collect()
}

fn digest(value: &[u8]) -> String {
    hex::encode(Sha256::digest(value))
}

impl Store for Dir {
    fn node(&self) -> StoreFuture<'_, String> {
        // A folder knows nobody: the kernel's name of this host, without the domain.
        let name = crate::host::machine::hostname();
        Box::pin(async move { Ok(name.split('.').next().unwrap_or_default().to_owned()) })
    }

    fn list<'a>(&'a self, prefix: &'a str) -> StoreFuture<'a, Listing> {
        Box::pin(self.get(prefix))
    }

    fn changed<'a>(
        &'a self,
        prefix: &'a str,
        seen: Option<u64>,
        within: Duration,
    ) -> StoreFuture<'a, Listing> {
        Box::pin(async move {
            let until = tokio::time::Instant::now() + MAX_WAIT.min(within);
            loop {
                // First listen, then look: what happens between the two is not lost.
                let events = if seen.is_some() { self.inner.events.listen() } else { None };
                let listing = match self.get(prefix).await {
                    // Somebody writes a file: what was seen counts until it is complete.
                    Err(StoreError::Busy { .. }) if seen.is_some() && tokio::time::Instant::now() < until => {
                        tokio::time::sleep(PATIENCE / 4).await;
                        continue;
                    }
                    answer => answer?,
                };
                if seen != Some(listing.index) || tokio::time::Instant::now() >= until {
                    return Ok(listing);
                }
                tokio::time::sleep(REST).await;
                match events {
                    // Woken by an event or not: looking again settles it.
                    Some(mut events) => drop(tokio::time::timeout_at(until, events.changed()).await),
                    None => tokio::time::sleep(TURN).await,
                }
            }
        })
    }

    fn look<'a>(&'a self, reads: &'a [Read]) -> StoreFuture<'a, Vec<Listing>> {
        Box::pin(async move {
            let action = "to look at several keys";
            if reads.len() > MAX_READS {
                return Err(self.refused(action, "more than 64 reads"));
            }
            for read in reads {
                match read {
                    Read::Key(key) => self.check_key(key, action)?,
                    Read::Prefix(prefix) => self.check_prefix(prefix, action)?,
                }
            }
            let reads = reads.to_vec();
            let work =
                move |inner: &Inner| inner.with(|held| reads.iter().map(|read| held.look(read)).collect());
            self.run(action.to_owned(), work).await
        })
    }

    fn put<'a>(&'a self, key: &'a str, value: Vec<u8>, when: When) -> StoreFuture<'a, bool> {
        Box::pin(async move {
            let action = format!("to write {key:?}");
            self.check_key(key, &action)?;
            if value.len() > MAX_VALUE {
                return Err(self.refused(&action, "a value has at most 524288 bytes"));
            }
            let key = key.to_owned();
            self.run(action, move |inner| inner.with(|held| held.put(&key, &value, when))).await
        })
    }

    fn delete<'a>(&'a self, key: &'a str) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            let action = format!("to delete {key:?}");
            self.check_key(key, &action)?;
            let key = key.to_owned();
            self.run(action, move |inner| inner.with(|held| held.delete(&key))).await
        })
    }

    fn passed_over(&self, prefix: &str) -> Vec<(String, String)> {
        let all = self.inner.passed_over.lock().unwrap_or_else(PoisonError::into_inner);
        let scope = scope(prefix);
        let files = scope.iter().filter_map(|prefix| all.get(prefix)).flatten();
        let own = files.filter(|(key, _)| key.starts_with(prefix));
        own.map(|(key, why)| (key.clone(), (*why).to_owned())).collect()
    }

    fn place(&self) -> String {
        format!("the folder {}", self.inner.root.display())
    }
}

#[cfg(test)]
mod tests;
