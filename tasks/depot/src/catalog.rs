//! All backups below the prefix: one listing, and each manifest read.

use std::collections::HashMap;

use futures_util::stream::{self, StreamExt};
use jiff::Timestamp;

use crate::error::Error;
use crate::manifest::{MOST_BYTES, Manifest};
use crate::name::{self, Kind, Name};
use crate::retention::Item;
use crate::store::Store;
use crate::store::objects::Listed;

/// Manifests read at once.
const AT_ONCE: usize = 16;

/// A backup, and whether its bytes are where its manifest says.
#[derive(Clone, Debug)]
pub struct Backup {
    /// Name.
    pub name: Name,
    /// Manifest.
    pub manifest: Manifest,
    /// There is an object of the right size.
    pub whole: bool,
}

/// All backups.
#[derive(Debug, Default)]
pub struct Catalog {
    /// Oldest first.
    pub backups: Vec<Backup>,
    /// Manifests that cannot be read, and why.
    pub unreadable: Vec<(Name, String)>,
    /// All objects.
    pub objects: Vec<Listed>,
}

/// Reads one manifest.
pub async fn manifest(store: &Store, name: &Name) -> Result<Manifest, Error> {
    let what = format!("reading the manifest of `{name}`");
    let text = store.small(&name.manifest(), MOST_BYTES).await.map_err(|fault| fault.error(&what))?;
    let text = text.ok_or_else(|| Error::Missing(name.as_str().to_owned()))?;
    let manifest = Manifest::open(&text).map_err(|why| Error::damaged(name.as_str(), why))?;
    if manifest.name != name.as_str() {
        return Err(Error::damaged(name.as_str(), format!("its manifest is that of `{}`", manifest.name)));
    }
    Ok(manifest)
}

/// Reads all below a name's beginning.
pub async fn read(store: &Store, below: &str) -> Result<Catalog, Error> {
    let objects = store.list(below).await.map_err(|fault| fault.error("listing backups"))?;
    let sizes: HashMap<&str, u64> = objects.iter().map(|object| (object.key.as_str(), object.size)).collect();
    let names: Vec<Name> = objects
        .iter()
        .filter_map(|object| name::split(&object.key))
        .filter_map(|(name, kind)| (kind == Kind::Manifest).then_some(name))
        .collect();
    let mut read = stream::iter(names)
        .map(|name| async move {
            let answer = manifest(store, &name).await;
            (name, answer)
        })
        .buffer_unordered(AT_ONCE);
    let mut catalog = Catalog::default();
    while let Some((name, answer)) = read.next().await {
        match answer {
            Ok(manifest) => {
                let whole = sizes.get(manifest.stored.key.as_str()) == Some(&manifest.stored.size);
                catalog.backups.push(Backup { name, manifest, whole });
            }
            Err(Error::Damaged { why, .. }) => catalog.unreadable.push((name, why)),
            // Removed between the listing and the reading.
            Err(Error::Missing(_)) => {}
            Err(error) => return Err(error),
        }
    }
    drop(read);
    catalog
        .backups
        .sort_by(|one, other| (one.manifest.time, &one.name).cmp(&(other.manifest.time, &other.name)));
    catalog.unreadable.sort();
    catalog.objects = objects;
    Ok(catalog)
}

impl Catalog {
    /// What the rules of retention look at, for one database.
    pub fn items(&self, database: &str) -> Vec<Item> {
        self.backups
            .iter()
            .filter(|backup| backup.manifest.database == database)
            .map(|backup| Item {
                name: backup.name.as_str().to_owned(),
                time: backup.manifest.time,
                parent: backup.manifest.parent.clone(),
                whole: backup.whole,
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
}

/// How long ago, in the two largest units.
pub fn age(time: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(time).as_secs().max(0);
    match seconds {
        0..=59 => format!("{seconds}s"),
        60..=3599 => format!("{}m", seconds / 60),
        3600..=86_399 => format!("{}h{}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d{}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}
