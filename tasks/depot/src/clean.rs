//! Clearing away what somebody who died has left, by the one rule of the journal: a key that the backup's manifest
//! does not name is waste. Who died in the last write is finished first.

use std::collections::HashSet;

use jiff::{SignedDuration, Timestamp};

use crate::catalog;
use crate::error::Error;
use crate::journal::{Journal, Open};
use crate::manifest::Manifest;
use crate::name::{self, Kind, Name};
use crate::publish;
use crate::remove;
use crate::store::Store;
use crate::store::fault::Class;

/// Clears one entry, and takes it from the journal when nothing of it is left. `true`: its manifest is there.
pub async fn clear(store: &Store, open: Open) -> Result<bool, Error> {
    let entry = open.entry().clone();
    let what = format!("clearing up after `{}`", entry.name);
    let name: Name = entry.name.parse().map_err(|why| Error::Local(format!("{what}: {why}")))?;
    let text = store
        .small(&name.manifest(), crate::manifest::MAX_BYTES)
        .await
        .map_err(|fault| fault.error(&what))?;
    // What cannot be read might name anything: then nothing is removed.
    let mut live = match text {
        Some(text) => {
            Some(Manifest::open(&text).map_err(|why| Error::damaged(name.as_str(), why))?.stored.key)
        }
        None => None,
    };
    // Bytes of a backup that is elsewhere by now are waste like any other, and so is the mark of one that stays.
    let there = live.is_none() || live == entry.delete;
    if let Some(data) = entry.delete.as_ref().filter(|_| there) {
        match remove::bytes(store, &name, data).await {
            Ok(()) => return remove::finish(store, open, &name).await.map(|()| false),
            // The server keeps them: the backup stays.
            Err(Error::Refused(_)) if live.is_some() => {}
            Err(error) => return Err(error),
        }
    }
    let mut stands = false;
    if let Some(pending) = &entry.pending_manifest {
        stands = publish::roll_forward(store, &name, pending, live.as_ref(), &entry.keys).await?;
        // From now on this one says what is waste.
        if stands {
            live = Manifest::open(pending.text.as_bytes()).ok().map(|manifest| manifest.stored.key);
        }
    }
    for key in &entry.keys {
        let wanted = live.as_ref() == Some(key) || (*key == name.thaw() && live.is_some());
        if wanted {
            continue;
        }
        match &entry.upload {
            Some((at, id)) if at == key => {
                // An upload that is complete or gone cannot be aborted; servers refuse that in different words. What
                // counts is that nothing of it is left to be paid for.
                let mut gone = store.abort(key, id).await;
                // A part that was still under way may have come after it.
                match store.has_parts(key, id).await.map_err(|fault| fault.error(&what))? {
                    Some(true) => {
                        if gone.is_ok() {
                            gone = store.abort(key, id).await;
                        }
                        gone.map_err(|fault| fault.error(&what))?;
                    }
                    Some(false) => {}
                    // Where the server cannot list parts, its answer to the abort is all that can be known, and that it
                    // can tell of an upload no more says that it is over.
                    None => match gone {
                        Err(fault)
                            if matches!(fault.class, Class::Transient | Class::Expired | Class::Denied) =>
                        {
                            return Err(fault.error(&what));
                        }
                        _ => {}
                    },
                }
            }
            // It died between the server's answer and its own note of it: no part was sent.
            _ => {
                for pending in
                    store.pending(key).await.map_err(|fault| fault.error(&what))?.unwrap_or_default()
                {
                    store.abort(&pending.key, &pending.id).await.map_err(|fault| fault.error(&what))?;
                }
            }
        }
        store.remove(key, None).await.map_err(|fault| fault.error(&what))?;
    }
    open.end()?;
    Ok(stands)
}

/// Clears all that died on this host; gives the number of entries, and what could not be cleared.
pub async fn abandoned(store: &Store, journal: &Journal) -> (usize, Vec<String>) {
    let (abandoned, mut bad) = journal.abandoned();
    let count = abandoned.len();
    for open in abandoned {
        // One backup with a broken manifest must not keep the others' waste.
        if let Err(error) = clear(store, open).await {
            bad.push(error.to_string());
        }
    }
    (count, bad)
}

/// What was cleared away of other hosts.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Stale {
    /// Uploads that were aborted.
    pub uploads: usize,
    /// Data objects without a manifest.
    pub objects: usize,
    /// Why data objects without a manifest stay: the server keeps them.
    pub kept: Vec<String>,
}

/// Clears what other hosts, or lost ones, left longer ago than `age`, by the server's clock.
///
/// # Errors
/// [`Error::Refused`] where this host's clock differs from the server's: nothing is cleared then.
pub async fn stale(
    store: &Store,
    journal: &Journal,
    catalog: &catalog::Catalog,
    age: SignedDuration,
) -> Result<Stale, Error> {
    let what = "clearing up what is stale";
    let now = store.clock().trusted(what)?;
    let living: HashSet<String> = journal.living().into_iter().collect();
    let named: HashSet<&str> = catalog.backups.iter().map(|one| one.manifest.stored.key.as_str()).collect();
    let unread: HashSet<&Name> = catalog.unread().collect();
    let backups: HashSet<&Name> = catalog.backups.iter().map(|one| &one.name).collect();
    let old = |time: Option<Timestamp>| time.is_some_and(|time| now.duration_since(time) >= age);
    let mut done = Stale::default();
    for pending in store.pending("").await.map_err(|fault| fault.error(what))?.unwrap_or_default() {
        let ours = name::split(&pending.key).is_some_and(|(_, kind)| kind == Kind::Data);
        if ours && old(pending.begun) && !living.contains(&pending.key) {
            store.abort(&pending.key, &pending.id).await.map_err(|fault| fault.error(what))?;
            done.uploads += 1;
        }
    }
    // A deletion that a lost host began, and whose bytes are gone, can only be ended.
    let marked = |name: &Name| {
        catalog.objects.iter().any(|object| {
            matches!(name::split(&object.key), Some((of, Kind::Mark)) if of == *name && old(object.modified))
        })
    };
    let halves = catalog.backups.iter().filter(|one| one.deleting && !one.whole && marked(&one.name));
    for half in halves {
        for key in [half.name.manifest(), half.name.thaw()] {
            store.remove(&key, None).await.map_err(|fault| fault.error(what))?;
        }
        done.objects += 1;
    }
    for object in &catalog.objects {
        let Some((name, kind)) = name::split(&object.key) else { continue };
        let wanted = match kind {
            Kind::Manifest => true,
            Kind::Thaw => backups.contains(&name),
            Kind::Data | Kind::Child | Kind::Mark => named.contains(object.key.as_str()),
        };
        let wanted = wanted || unread.contains(&name) || living.contains(&object.key);
        if wanted || !old(object.modified) {
            continue;
        }
        let removed = match kind {
            // As in a deletion: what is locked must not disappear behind a marker.
            Kind::Data => remove::bytes(store, &name, &object.key).await,
            _ => store.remove(&object.key, None).await.map_err(|fault| fault.error(what)),
        };
        match removed {
            Ok(()) => done.objects += 1,
            Err(Error::Refused(why)) => done.kept.push(format!("{}: {why}", object.key)),
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}
