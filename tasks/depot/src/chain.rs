//! What a backup builds on: it can be restored only with all of it, down to the one that builds on nothing.
//!
//! Storing a child and deleting its base may meet. Each announces itself before it looks for the other: a put writes a
//! note beside its base, and looks at the whole chain just before its manifest; a deletion writes a mark beside what
//! it deletes, then looks for notes, and then for manifests. So at least one of them sees the other and gives way.

use std::collections::BTreeSet;

use crate::error::Error;
use crate::lookup;
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
    let mut manifest = lookup::manifest(store, name).await?;
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
        let now = lookup::manifest(store, name).await?;
        if now.stored.key == manifest.stored.key {
            return Err(Error::damaged(name.as_str(), "its bytes are missing"));
        }
        manifest = now;
    }
}
