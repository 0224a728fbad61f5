//! All backups below the prefix: one listing, and each manifest read.
//!
//! One object that cannot be read hides no other: it is put aside with its reason, and nothing of it is touched.

use std::collections::{HashMap, HashSet};

use futures_util::stream::{self, StreamExt};
use jiff::Timestamp;

use crate::chain;
use crate::error::Error;
use crate::manifest::{MOST_BYTES, Manifest};
use crate::name::{self, Kind, Name};
use crate::retention::Item;
use crate::store::Store;
use crate::store::objects::{Found, Listed};

/// Manifests read at once.
const AT_ONCE: usize = 16;
/// When this many cannot be read for the store's sake, and none can, the store is to blame.
const HOPELESS: usize = 32;

/// A backup, and whether its bytes are where its manifest says.
#[derive(Clone, Debug)]
pub struct Backup {
    /// Name.
    pub name: Name,
    /// Manifest.
    pub manifest: Manifest,
    /// There is an object of the right size.
    pub whole: bool,
    /// Somebody has begun to delete it.
    pub deleting: bool,
    /// Why what it builds on cannot be restored; `None` if it can, or it builds on nothing.
    pub broken: Option<String>,
}

impl Backup {
    /// Whether it can be restored, in a word.
    pub fn state(&self) -> &'static str {
        match (self.whole, self.deleting, &self.broken) {
            (false, true, _) => "deleting",
            (false, false, _) => "bytes are missing",
            (true, _, Some(_)) => "base is missing",
            (true, _, None) => "good",
        }
    }

    /// Why it cannot be restored; `None` if it can, or is being deleted.
    pub fn damage(&self) -> Option<String> {
        match self.state() {
            "bytes are missing" => Some("its bytes are missing".to_owned()),
            "base is missing" => self.broken.clone(),
            _ => None,
        }
    }
}

/// A manifest that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unreadable {
    /// Name.
    pub name: Name,
    /// Why.
    pub why: String,
    /// It was read, and is wrong. Otherwise it could not be read at all: nobody can tell.
    pub damaged: bool,
}

impl Unreadable {
    /// In a word.
    pub fn state(&self) -> &'static str {
        if self.damaged { "damaged" } else { "unreadable" }
    }
}

/// All backups.
#[derive(Debug, Default)]
pub struct Catalog {
    /// Oldest first.
    pub backups: Vec<Backup>,
    /// Manifests that cannot be read.
    pub unreadable: Vec<Unreadable>,
    /// Backups of another, longer prefix: not ours to judge.
    pub foreign: Vec<Name>,
    /// All objects.
    pub objects: Vec<Listed>,
}

enum Read {
    Ours(Box<Manifest>),
    Foreign,
}

/// Reads a manifest, and knows those of a longer prefix.
async fn read_one(store: &Store, name: &Name) -> Result<Read, Error> {
    let what = format!("reading the manifest of `{name}`");
    let mut wrong = None;
    // Once more, if it is not what was written: bits flip on the way too.
    for _ in 0..2 {
        let text = store.small(&name.manifest(), MOST_BYTES).await.map_err(|fault| fault.error(&what))?;
        let text = text.ok_or_else(|| Error::Missing(name.as_str().to_owned()))?;
        match Manifest::open(&text) {
            Ok(manifest) if manifest.name == name.as_str() => return Ok(Read::Ours(Box::new(manifest))),
            Ok(manifest) if name.as_str().ends_with(&format!("/{}", manifest.name)) => {
                return Ok(Read::Foreign);
            }
            Ok(manifest) => wrong = Some(format!("its manifest is that of `{}`", manifest.name)),
            Err(why) => wrong = Some(why),
        }
    }
    Err(Error::damaged(name.as_str(), wrong.unwrap_or_default()))
}

/// Reads one manifest.
pub async fn manifest(store: &Store, name: &Name) -> Result<Manifest, Error> {
    match read_one(store, name).await? {
        Read::Ours(manifest) => Ok(*manifest),
        Read::Foreign => {
            Err(Error::damaged(name.as_str(), "it was stored below a longer prefix: say that as --prefix"))
        }
    }
}

/// The bytes of a backup, where they are now: who reads it may meet a move or a deletion.
///
/// # Errors
/// [`Error::Missing`] if it is gone or going, [`Error::Damaged`] if its manifest stays and its bytes do not.
pub async fn bytes(store: &Store, name: &Name, manifest: &Manifest) -> Result<(Manifest, Found), Error> {
    let what = format!("looking for `{name}`");
    let mut known = manifest.clone();
    loop {
        match store.head(&known.stored.key).await.map_err(|fault| fault.error(&what))? {
            Some(found) if found.size == known.stored.size => return Ok((known, found)),
            Some(found) => {
                let why = format!("{} bytes are stored, {} were written", found.size, known.stored.size);
                return Err(Error::damaged(name.as_str(), why));
            }
            None => {}
        }
        let now = self::manifest(store, name).await?;
        if now.stored.key == known.stored.key {
            let beside = store.list(&name.data("")).await.map_err(|fault| fault.error(&what))?;
            if beside.iter().any(|one| matches!(name::split(&one.key), Some((_, Kind::Mark)))) {
                return Err(Error::Missing(name.as_str().to_owned()));
            }
            // Deleted between the two looks, mark and all.
            self::manifest(store, name).await?;
            return Err(Error::damaged(name.as_str(), "its bytes are gone"));
        }
        known = now;
    }
}

/// The names of the backups whose name begins so, by the listing alone.
pub async fn names(store: &Store, below: &str) -> Result<Vec<(Name, Option<Timestamp>)>, Error> {
    let objects = store.list(below).await.map_err(|fault| fault.error("listing backups"))?;
    let names = objects.iter().filter_map(|object| match name::split(&object.key) {
        Some((name, Kind::Manifest)) => Some((name, object.modified)),
        _ => None,
    });
    Ok(names.collect())
}

/// Reads all below a name's beginning.
pub async fn read(store: &Store, below: &str) -> Result<Catalog, Error> {
    again(store, below, &Catalog::default()).await
}

/// Reads all below a name's beginning, and of the manifests only those that have changed since `before`.
pub async fn again(store: &Store, below: &str, before: &Catalog) -> Result<Catalog, Error> {
    let objects = store.list(below).await.map_err(|fault| fault.error("listing backups"))?;
    let sizes: HashMap<&str, u64> = objects.iter().map(|object| (object.key.as_str(), object.size)).collect();
    let etags: HashMap<&str, &str> = before
        .objects
        .iter()
        .filter_map(|object| Some((object.key.as_str(), object.etag.as_deref()?)))
        .collect();
    let known: HashMap<&Name, &Manifest> =
        before.backups.iter().map(|one| (&one.name, &one.manifest)).collect();
    let mut marked: HashSet<Name> = HashSet::new();
    let mut names: Vec<(Name, Option<Manifest>)> = Vec::new();
    for object in &objects {
        match name::split(&object.key) {
            Some((name, Kind::Manifest)) => {
                let same =
                    object.etag.as_deref().is_some_and(|etag| etags.get(object.key.as_str()) == Some(&etag));
                let manifest = known.get(&name).filter(|_| same).map(|manifest| (*manifest).clone());
                names.push((name, manifest));
            }
            Some((name, Kind::Mark)) => {
                marked.insert(name);
            }
            _ => {}
        }
    }
    let mut read = stream::iter(names)
        .map(|(name, known)| async move {
            let answer = match known {
                Some(manifest) => Ok(Read::Ours(Box::new(manifest))),
                None => read_one(store, &name).await,
            };
            (name, answer)
        })
        .buffer_unordered(AT_ONCE);
    let mut catalog = Catalog::default();
    while let Some((name, answer)) = read.next().await {
        match answer {
            Ok(Read::Ours(manifest)) => {
                let whole = sizes.get(manifest.stored.key.as_str()) == Some(&manifest.stored.size);
                let deleting = marked.contains(&name);
                let manifest = *manifest;
                catalog.backups.push(Backup { name, manifest, whole, deleting, broken: None });
            }
            Ok(Read::Foreign) => catalog.foreign.push(name),
            // Removed between the listing and the reading.
            Err(Error::Missing(_)) => {}
            Err(Error::Damaged { why, .. }) => {
                catalog.unreadable.push(Unreadable { name, why, damaged: true });
            }
            // Wrong for all.
            Err(error @ Error::Config(_)) => return Err(error),
            Err(error) => {
                if catalog.backups.is_empty() && catalog.unreadable.len() >= HOPELESS {
                    return Err(error);
                }
                catalog.unreadable.push(Unreadable { name, why: error.to_string(), damaged: false });
            }
        }
    }
    drop(read);
    catalog
        .backups
        .sort_by(|one, other| (one.manifest.time, &one.name).cmp(&(other.manifest.time, &other.name)));
    catalog.unreadable.sort();
    catalog.objects = objects;
    chain::judge(store, &mut catalog).await?;
    Ok(catalog)
}

impl Catalog {
    /// What the rules of retention look at, for one database: what has an owner is passed over.
    pub fn items(&self, database: &str) -> Vec<Item> {
        self.backups
            .iter()
            .filter(|backup| backup.manifest.database == database && !backup.manifest.owned())
            .map(|backup| Item {
                name: backup.name.as_str().to_owned(),
                time: backup.manifest.time,
                parent: backup.manifest.parent.clone(),
                whole: backup.whole && backup.broken.is_none(),
                empty: backup.manifest.size == 0,
            })
            .collect()
    }

    /// The databases that there are backups of.
    pub fn databases(&self) -> Vec<String> {
        let mut all: Vec<String> =
            self.backups.iter().map(|backup| backup.manifest.database.clone()).collect();
        all.sort();
        all.dedup();
        all
    }

    /// Backups whose manifest nobody here has understood: nothing of theirs is touched.
    pub fn unread(&self) -> impl Iterator<Item = &Name> {
        self.unreadable.iter().map(|one| &one.name).chain(&self.foreign)
    }

    /// Those that build on this one.
    pub fn children<'a>(&'a self, name: &'a Name) -> impl Iterator<Item = &'a Backup> {
        self.backups.iter().filter(|one| one.manifest.parent.as_deref() == Some(name.as_str()))
    }
}

/// How long ago, in the two largest units.
pub fn age(time: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(time).as_secs();
    if seconds < -crate::store::clock::MOST_SKEW.as_secs() {
        return "in the future".to_owned();
    }
    let seconds = seconds.max(0);
    match seconds {
        0..=59 => format!("{seconds}s"),
        60..=3599 => format!("{}m", seconds / 60),
        3600..=86_399 => format!("{}h{}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d{}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}
