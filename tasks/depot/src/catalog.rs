//! All backups below the prefix: one listing, and each manifest read.
//!
//! One object that cannot be read hides no other: it is put aside with its reason, and nothing of it is touched.

use std::collections::{BTreeSet, HashMap, HashSet};

use futures_util::stream::{self, StreamExt};
use jiff::Timestamp;

use crate::chain;
use crate::error::Error;
use crate::lookup::{self, Read};
use crate::manifest::Manifest;
use crate::name::{self, Kind, Name};
use crate::retention::Item;
use crate::store::Store;
use crate::store::objects::Listed;

/// Manifests read at once.
const AT_ONCE: usize = 16;
/// When this many cannot be read for the store's sake, and none can, the store is to blame.
const MAX_FAILURES: usize = 32;

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
                None => lookup::read(store, &name).await,
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
                if catalog.backups.is_empty() && catalog.unreadable.len() >= MAX_FAILURES {
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
    judge(store, &mut catalog).await?;
    Ok(catalog)
}

/// Writes into each backup of the catalog whether what it builds on can be restored. What is outside of the catalog is
/// asked for, once each.
async fn judge(store: &Store, catalog: &mut Catalog) -> Result<(), Error> {
    let links: HashMap<String, (Option<String>, bool)> = catalog
        .backups
        .iter()
        .map(|one| (one.name.as_str().to_owned(), (one.manifest.parent.clone(), one.whole)))
        .collect();
    let unreadable: HashMap<String, String> = catalog
        .unreadable
        .iter()
        .map(|one| (one.name.as_str().to_owned(), format!("is {}: {}", one.state(), one.why)))
        .collect();
    // Of what is outside, why it cannot be restored.
    let mut outside: HashMap<String, Option<String>> = HashMap::new();
    for backup in catalog.backups.iter_mut().filter(|one| one.manifest.parent.is_some()) {
        let mut seen = BTreeSet::from([backup.name.as_str().to_owned()]);
        let mut next = backup.manifest.parent.clone();
        while let Some(base) = next.take() {
            let missing = |why: &str| Some(format!("its base is missing: `{base}` {why}"));
            if !seen.insert(base.clone()) {
                backup.broken = Some("its base is missing: it builds on itself".to_owned());
            } else if let Some((parent, whole)) = links.get(&base) {
                if *whole {
                    next.clone_from(parent);
                } else {
                    backup.broken = missing("has no bytes");
                }
            } else if let Some(why) = unreadable.get(&base) {
                backup.broken = missing(why);
            } else {
                if !outside.contains_key(&base) {
                    let why = match chain::whole(store, backup.name.as_str(), Some(&base)).await {
                        Ok(()) => None,
                        Err(Error::Damaged { why, .. }) => Some(why),
                        Err(error @ Error::Config(_)) => return Err(error),
                        Err(error) => missing(&format!("cannot be read: {error}")),
                    };
                    outside.insert(base.clone(), why);
                }
                backup.broken = outside.get(&base).cloned().flatten();
            }
        }
    }
    Ok(())
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
    if seconds < -crate::store::clock::MAX_SKEW.as_secs() {
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
