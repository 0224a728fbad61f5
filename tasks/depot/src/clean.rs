//! Clearing away what somebody who died has left, by the one rule of the journal: a key that the backup's manifest
//! does not name is waste. Who died in the last write is finished first.

use std::collections::HashSet;

use jiff::{SignedDuration, Timestamp};

use crate::catalog;
use crate::error::Error;
use crate::journal::{Journal, Open};
use crate::manifest::Manifest;
use crate::name::{self, Name};
use crate::publish;
use crate::store::Store;

/// Clears one entry, and takes it from the journal when nothing of it is left. `true`: its manifest is there.
pub async fn clear(store: &Store, open: Open) -> Result<bool, Error> {
    let entry = open.entry().clone();
    let what = format!("clearing up after `{}`", entry.name);
    let name: Name = entry.name.parse().map_err(|why| Error::Local(format!("{what}: {why}")))?;
    let text = store
        .small(&name.manifest(), crate::manifest::MOST_BYTES)
        .await
        .map_err(|fault| fault.error(&what))?;
    // What cannot be read might name anything: then nothing is removed.
    let mut live = match text {
        Some(text) => {
            Some(Manifest::open(&text).map_err(|why| Error::damaged(name.as_str(), why))?.stored.key)
        }
        None => None,
    };
    let mut stands = false;
    if let Some(last) = &entry.last {
        stands = publish::forward(store, &name, last, live.as_ref(), &entry.keys).await?;
        // From now on this one says what is waste.
        if stands {
            live = Manifest::open(last.text.as_bytes()).ok().map(|manifest| manifest.stored.key);
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
                if store.has_parts(key, id).await.map_err(|fault| fault.error(&what))? {
                    if gone.is_ok() {
                        gone = store.abort(key, id).await;
                    }
                    gone.map_err(|fault| fault.error(&what))?;
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

/// Clears all that died on this host; gives the number of entries.
pub async fn dead(store: &Store, journal: &Journal) -> Result<usize, Error> {
    let dead = journal.dead()?;
    let count = dead.len();
    let mut worst = None;
    for open in dead {
        // One backup with a broken manifest must not keep the others' waste.
        if let Err(error) = clear(store, open).await {
            worst = Some(error);
        }
    }
    worst.map_or(Ok(count), Err)
}

/// What was cleared away of other hosts.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Stale {
    /// Uploads that were aborted.
    pub uploads: usize,
    /// Data objects without a manifest.
    pub objects: usize,
}

/// Clears what other hosts, or lost ones, left longer ago than `age`, by the server's clock.
pub async fn stale(
    store: &Store,
    journal: &Journal,
    catalog: &catalog::Catalog,
    age: SignedDuration,
) -> Result<Stale, Error> {
    let what = "clearing up what is stale";
    let living: HashSet<String> = journal.living().into_iter().collect();
    let named: HashSet<&str> = catalog.backups.iter().map(|one| one.manifest.stored.key.as_str()).collect();
    let unread: HashSet<&Name> = catalog.unreadable.iter().map(|(name, _)| name).collect();
    let old = |time: Option<Timestamp>| time.is_some_and(|time| Timestamp::now().duration_since(time) >= age);
    let mut done = Stale::default();
    for pending in store.pending("").await.map_err(|fault| fault.error(what))?.unwrap_or_default() {
        let ours = name::split(&pending.key).is_some_and(|(_, kind)| kind == name::Kind::Data);
        if ours && old(pending.begun) && !living.contains(&pending.key) {
            store.abort(&pending.key, &pending.id).await.map_err(|fault| fault.error(what))?;
            done.uploads += 1;
        }
    }
    for object in &catalog.objects {
        let Some((name, name::Kind::Data)) = name::split(&object.key) else { continue };
        let wanted =
            named.contains(object.key.as_str()) || unread.contains(&name) || living.contains(&object.key);
        if !wanted && old(object.modified) {
            store.remove(&object.key, None).await.map_err(|fault| fault.error(what))?;
            done.objects += 1;
        }
    }
    Ok(done)
}
