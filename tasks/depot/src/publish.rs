//! The last write of a put or a move: the manifest.
//!
//! It is the moment at which a backup begins to exist, or to be elsewhere. A request that was sent may be carried out
//! long after its sender gave up or died; whoever threw the bytes away meanwhile would leave a manifest of nothing. So
//! the manifest goes into the journal before it is sent, and from there on the operation can only go forward: whoever
//! clears up sends the same manifest again, and a late request changes nothing any more.

use std::time::Duration;

use bytes::Bytes;

use crate::chain;
use crate::error::Error;
use crate::journal::{Open, PendingManifest};
use crate::manifest::{MAX_BYTES, Manifest};
use crate::name::{self, Kind, Name};
use crate::store::Store;
use crate::store::fault::{Class, Fault};
use crate::store::objects::ObjectOptions;

/// What must be there for the manifest to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Nothing.
    Nothing,
    /// The manifest that the server calls so, if it told.
    Same(Option<String>),
}

/// A manifest that is to be written.
#[derive(Debug)]
pub struct Publication<'a> {
    /// Name of the backup.
    pub name: &'a Name,
    /// Its manifest.
    pub manifest: &'a Manifest,
    /// Parameters of the manifest's object.
    pub object_options: ObjectOptions,
    /// What must be there before.
    pub expected: Expected,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// The manifest is there.
    There,
    /// There was one already, and it is another.
    Taken,
}

/// Notes the manifest in the journal, then writes it.
pub async fn publish(store: &Store, open: &mut Open, publication: Publication<'_>) -> Result<Written, Error> {
    let Publication { name, manifest, object_options, expected } = publication;
    let text = String::from_utf8(manifest.seal().map_err(Error::Local)?);
    let text = text.map_err(|error| Error::Local(format!("the manifest of `{name}`: {error}")))?;
    let pending = PendingManifest { text, object_options, new: expected == Expected::Nothing };
    open.manifest(pending.clone())?;
    let etag = if let Expected::Same(etag) = expected { etag } else { None };
    write(store, name, &pending, etag.as_deref())
        .await
        .map_err(|fault| fault.error(&format!("writing the manifest of `{name}`")))
}

/// The time within which two writers who both saw a free name have both written.
const RECHECK_DELAY: Duration = Duration::from_secs(2);

/// Writes it.
async fn write(
    store: &Store,
    name: &Name,
    pending: &PendingManifest,
    etag: Option<&str>,
) -> Result<Written, Fault> {
    let key = name.manifest();
    let text = Bytes::from(pending.text.clone());
    if !pending.new {
        if let Some(etag) = etag {
            match store.replace(&key, text.clone(), &pending.object_options, etag).await {
                Ok(_) => return Ok(Written::There),
                // It may be our own, whose answer was lost.
                Err(fault) if matches!(fault.class, Class::Exists | Class::Missing) => {
                    return same(store, &key, &text).await;
                }
                Err(fault) if fault.class == Class::Unsupported => {}
                Err(fault) => return Err(fault),
            }
        }
        return store.put(&key, text, &pending.object_options, false).await.map(|_| Written::There);
    }
    let conditions = match store.put(&key, text.clone(), &pending.object_options, true).await {
        Ok(_) if store.place().endpoint.is_none() => return Ok(Written::There),
        Ok(_) => true,
        Err(fault) if fault.class == Class::Unsupported => {
            if let Some(there) = store.small(&key, MAX_BYTES).await? {
                return Ok(if there == text { Written::There } else { Written::Taken });
            }
            store.put(&key, text.clone(), &pending.object_options, false).await?;
            false
        }
        // It may be our own, whose answer was lost.
        Err(fault) if fault.class == Class::Exists => return same(store, &key, &text).await,
        Err(fault) => return Err(fault),
    };
    // Some servers accept the condition and ignore it, and there the last writer wins. Whoever writes a manifest has
    // stored its bytes before: if there are no other bytes now, all others will find this manifest.
    let beside = store.list(&name.data("")).await?;
    let own = Manifest::open(&text).ok().map(|manifest| manifest.stored.key);
    let alone = beside
        .iter()
        .all(|one| Some(&one.key) == own.as_ref() || !matches!(name::split(&one.key), Some((_, Kind::Data))));
    if conditions && alone {
        return Ok(Written::There);
    }
    if same(store, &key, &text).await? == Written::Taken {
        return Ok(Written::Taken);
    }
    tokio::time::sleep(RECHECK_DELAY).await;
    same(store, &key, &text).await
}

/// Whether this manifest is the one that is there.
async fn same(store: &Store, key: &str, text: &Bytes) -> Result<Written, Fault> {
    Ok(match store.small(key, MAX_BYTES).await? {
        Some(there) if there == *text => Written::There,
        _ => Written::Taken,
    })
}

/// Carries on where somebody died who had begun the last write: `true` if its manifest is there now. `live` is the key
/// of the bytes that the present manifest names, `keys` are those of the operation.
pub async fn roll_forward(
    store: &Store,
    name: &Name,
    pending: &PendingManifest,
    live: Option<&String>,
    keys: &[String],
) -> Result<bool, Error> {
    let what = format!("finishing `{name}`");
    let manifest =
        Manifest::open(pending.text.as_bytes()).map_err(|why| Error::damaged(name.as_str(), why))?;
    let key = &manifest.stored.key;
    let due = match live {
        None => pending.new,
        // A move goes on only from where it began; whatever else is there is newer.
        Some(live) => !pending.new && live != key && keys.contains(live),
    };
    if !due {
        return Ok(live == Some(key));
    }
    let found = store.head(key).await.map_err(|fault| fault.error(&what))?;
    if found.is_none_or(|found| found.size != manifest.stored.size) {
        return Ok(false);
    }
    // What it builds on may have gone since: then it is no backup.
    match chain::stays(store, name.as_str(), manifest.parent.as_deref()).await {
        Err(Error::Damaged { .. }) if pending.new => return Ok(false),
        Err(error) if pending.new => return Err(error),
        _ => {}
    }
    match write(store, name, pending, None).await {
        Ok(written) => Ok(written == Written::There),
        // Refused for good, and so is every earlier request for it: then the bytes are waste.
        Err(fault)
            if matches!(
                fault.class,
                Class::Fatal | Class::Denied | Class::Config | Class::Missing | Class::Unsupported
            ) =>
        {
            Ok(false)
        }
        Err(fault) => Err(fault.error(&what)),
    }
}
