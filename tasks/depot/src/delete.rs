//! Deleting backups: the bytes first, because only they can be locked, and the manifest last. So a backup whose bytes
//! the server keeps never disappears from a list.
//!
//! ```text
//! look for locks -> mark -> look for children -> journal: it goes -> bytes -> manifest, notes
//!       |                        |                                     |
//!       +------ refused ---------+------------- refused ---------------+    the backup stays, the mark goes
//! ```
//! Who sees a manifest without bytes and a mark beside it sees a deletion under way, not damage.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::stream::{self, StreamExt};
use jiff::Timestamp;
use serde::Serialize;
use ulid::Ulid;

use crate::catalog::{self, Catalog};
use crate::clean;
use crate::error::Error;
use crate::journal::{Journal, Open};
use crate::lookup;
use crate::manifest::Manifest;
use crate::name::{self, Kind, Name};
use crate::remove;
use crate::store::Store;
use crate::store::objects::ObjectOptions;

/// Deletions at once.
const AT_ONCE: usize = 16;

/// What the mark says to people.
#[derive(Serialize)]
struct Mark<'a> {
    deleting: &'a str,
    since: Timestamp,
}

/// Looks, writes the journal and the mark, and looks whether somebody is storing a backup that builds on it.
async fn begin(
    store: &Store,
    journal: &Journal,
    name: &Name,
    manifest: &Manifest,
    force: bool,
) -> Result<Open, Error> {
    let what = format!("deleting `{name}`");
    let stored = &manifest.stored;
    remove::deletable(store, name, &stored.key, stored.locked_until).await?;
    let mark = name.mark(&Ulid::generate().to_string());
    let open = journal.begin(name.as_str(), vec![stored.key.clone(), name.thaw(), mark.clone()])?;
    let text = serde_json::to_vec(&Mark { deleting: name.as_str(), since: store.clock().now() });
    let text = text.map_err(|error| Error::Local(format!("{what}: {error}")))?;
    store
        .put(&mark, text.into(), &ObjectOptions::default(), false)
        .await
        .map_err(|fault| fault.error(&what))?;
    let beside = store.list(&name.data("")).await.map_err(|fault| fault.error(&what))?;
    let child = beside.iter().find(|one| matches!(name::split(&one.key), Some((_, Kind::Child))));
    if let Some(child) = child.filter(|_| !force) {
        let since = child.modified.map(|time| format!(" since {time}")).unwrap_or_default();
        let text = format!(
            "`{name}` is not deleted: a backup that builds on it is being stored{since}; if that was interrupted, run `hostler-depot clean`"
        );
        give_up(store, open).await;
        return Err(Error::Refused(text));
    }
    Ok(open)
}

/// The backup stays: only the mark goes. What fails is left to the journal.
async fn give_up(store: &Store, open: Open) {
    let _ = clean::clear(store, open).await;
}

/// From here on it goes, unless the server keeps the bytes.
async fn finish(store: &Store, mut open: Open, name: &Name, manifest: &Manifest) -> Result<(), Error> {
    let data = manifest.stored.key.clone();
    // A move may have come between.
    match lookup::manifest(store, name).await {
        Ok(now) if now.stored.key == data => {}
        Err(Error::Damaged { .. }) => {}
        Err(error) => {
            give_up(store, open).await;
            return Err(error);
        }
        Ok(_) => {
            give_up(store, open).await;
            return Err(Error::Refused(format!("`{name}` was moved at the same time: try again")));
        }
    }
    open.delete(Some(data.clone()))?;
    match remove::bytes(store, name, &data).await {
        Ok(()) => remove::finish(store, open, name).await,
        Err(error @ Error::Refused(_)) => {
            open.delete(None)?;
            give_up(store, open).await;
            Err(error)
        }
        Err(error) => Err(error),
    }
}

/// Deletes backups, those that build on others first. `before` is what is known already; without `force` nothing goes
/// that something else builds on. Each has its own answer, in the order of the question.
pub async fn all(
    store: &Store,
    journal: &Journal,
    doomed: Vec<(Name, Manifest)>,
    before: &Catalog,
    force: bool,
) -> Vec<(Name, Result<(), Error>)> {
    let order: Vec<Name> = doomed.iter().map(|(name, _)| name.clone()).collect();
    let mut answers: BTreeMap<Name, Result<(), Error>> = BTreeMap::new();
    let mut going: BTreeMap<Name, (Manifest, Open)> = BTreeMap::new();
    let mut begun = stream::iter(doomed)
        .map(|(name, manifest)| async move {
            let open = begin(store, journal, &name, &manifest, force).await;
            (name, manifest, open)
        })
        .buffer_unordered(AT_ONCE);
    while let Some((name, manifest, open)) = begun.next().await {
        match open {
            Ok(open) => drop(going.insert(name, (manifest, open))),
            Err(error) => drop(answers.insert(name, Err(error))),
        }
    }
    drop(begun);
    let catalog =
        if force || going.is_empty() { None } else { Some(catalog::again(store, "", before).await) };
    let catalog = match catalog.transpose() {
        Ok(catalog) => catalog,
        Err(error) => {
            let text = error.to_string();
            for (name, (_, open)) in going {
                give_up(store, open).await;
                answers.insert(name, Err(Error::Store(text.clone())));
            }
            return order.into_iter().filter_map(|name| answers.remove_entry(&name)).collect();
        }
    };
    while !going.is_empty() {
        let mut ready: Vec<(Name, Manifest, Open)> = Vec::new();
        let mut refused: Vec<(Name, Open, String)> = Vec::new();
        let names: BTreeSet<Name> = going.keys().cloned().collect();
        let mut waiting = BTreeMap::new();
        for (name, (manifest, open)) in std::mem::take(&mut going) {
            let children = catalog.iter().flat_map(|catalog| catalog.children(&name));
            let alive: Vec<&Name> = children
                .map(|child| &child.name)
                .filter(|child| !matches!(answers.get(*child), Some(Ok(()))) && **child != name)
                .collect();
            match alive.iter().find(|child| !names.contains(**child)) {
                Some(child) => {
                    let text = format!("`{child}` builds on `{name}`: delete it first, or use --force");
                    refused.push((name, open, text));
                }
                None if alive.is_empty() => ready.push((name, manifest, open)),
                None => drop(waiting.insert(name, (manifest, open))),
            }
        }
        if ready.is_empty() && refused.is_empty() {
            // A ring of parents: nothing in it can be restored, and nothing in it has a right order.
            ready.extend(waiting.into_iter().map(|(name, (manifest, open))| (name, manifest, open)));
        } else {
            going = waiting;
        }
        for (name, open, text) in refused {
            give_up(store, open).await;
            answers.insert(name, Err(Error::Refused(text)));
        }
        let mut done = stream::iter(ready)
            .map(|(name, manifest, open)| async move {
                let answer = finish(store, open, &name, &manifest).await;
                (name, answer)
            })
            .buffer_unordered(AT_ONCE);
        while let Some((name, answer)) = done.next().await {
            answers.insert(name, answer);
        }
    }
    order.into_iter().filter_map(|name| answers.remove_entry(&name)).collect()
}

/// Deletes one backup, whatever builds on it.
pub async fn one(store: &Store, journal: &Journal, name: &Name, manifest: &Manifest) -> Result<(), Error> {
    let doomed = vec![(name.clone(), manifest.clone())];
    match all(store, journal, doomed, &Catalog::default(), true).await.pop() {
        Some((_, answer)) => answer,
        None => Ok(()),
    }
}
