//! What a backup builds on: it can be restored only with all of it, down to the one that builds on nothing.
//!
//! Storing a child and deleting its base may meet. Each announces itself before it looks for the other: a put writes a
//! note beside its base, and looks at the whole chain just before its manifest; a deletion writes a mark beside what
//! it deletes, then looks for notes, and then for manifests. So at least one of them sees the other and gives way.

use std::collections::{BTreeSet, HashMap};

use crate::catalog::{self, Catalog};
use crate::error::Error;
use crate::manifest::Manifest;
use crate::name::{self, Kind, Name};
use crate::store::Store;

/// Fails with [`Error::Damaged`] of `child` if what it builds on cannot be restored.
///
/// # Errors
/// Any other error says that nobody can tell.
pub async fn whole(store: &Store, child: &str, parent: Option<&str>) -> Result<(), Error> {
    walk(store, child, parent, false).await
}

/// The same for who is about to build on it: a base that is being deleted counts as missing.
pub async fn stays(store: &Store, child: &str, parent: Option<&str>) -> Result<(), Error> {
    walk(store, child, parent, true).await
}

async fn walk(store: &Store, child: &str, parent: Option<&str>, storing: bool) -> Result<(), Error> {
    let mut seen = BTreeSet::from([child.to_owned()]);
    let mut next = parent.map(str::to_owned);
    while let Some(base) = next {
        let broken = |why: &str| Error::damaged(child, format!("its base is missing: `{base}` {why}"));
        if !seen.insert(base.clone()) {
            return Err(Error::damaged(child, "its base is missing: it builds on itself"));
        }
        let name: Name = base.parse().map_err(|_| broken("is no name of a backup"))?;
        next = match link(store, &name, storing).await {
            Ok(manifest) => manifest.parent,
            Err(Error::Missing(_)) => return Err(broken("does not exist")),
            Err(Error::Damaged { why, .. }) => return Err(broken(&format!("is damaged: {why}"))),
            Err(error) => return Err(error),
        };
    }
    Ok(())
}

/// One link: its manifest, if its bytes are there.
async fn link(store: &Store, name: &Name, storing: bool) -> Result<Manifest, Error> {
    let what = format!("looking for `{name}`");
    let mut manifest = catalog::manifest(store, name).await?;
    loop {
        let beside = store.list(&name.data("")).await.map_err(|fault| fault.error(&what))?;
        if storing && beside.iter().any(|one| matches!(name::split(&one.key), Some((_, Kind::Mark)))) {
            return Err(Error::damaged(name.as_str(), "it is being deleted"));
        }
        let stored = &manifest.stored;
        if beside.iter().any(|one| one.key == stored.key && one.size == stored.size) {
            return Ok(manifest);
        }
        // Moved since its manifest was read, or gone.
        let now = catalog::manifest(store, name).await?;
        if now.stored.key == manifest.stored.key {
            return Err(Error::damaged(name.as_str(), "its bytes are gone"));
        }
        manifest = now;
    }
}

/// Writes into each backup of the catalog whether what it builds on can be restored. What is outside of the catalog is
/// asked for, once each.
pub async fn judge(store: &Store, catalog: &mut Catalog) -> Result<(), Error> {
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
                    let why = match whole(store, backup.name.as_str(), Some(&base)).await {
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
