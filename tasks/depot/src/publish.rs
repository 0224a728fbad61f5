//! The last write of a put or a move: the manifest.
//!
//! It is the moment at which a backup begins to exist, or to be elsewhere. A request that was sent may be carried out
//! long after its sender gave up or died; whoever threw the bytes away meanwhile would leave a manifest of nothing. So
//! the manifest goes into the journal before it is sent, and from there on the operation can only go forward: whoever
//! clears up sends the same manifest again, and a late request changes nothing any more.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::journal::Open;
use crate::manifest::{MOST_BYTES, Manifest};
use crate::name::Name;
use crate::store::Store;
use crate::store::fault::{Class, Fault};
use crate::store::objects::Terms;

/// A manifest that is about to be written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Last {
    /// The sealed document.
    pub text: String,
    /// Parameters of the object.
    pub terms: Terms,
    /// There must be none yet.
    pub new: bool,
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
pub async fn publish(
    store: &Store,
    open: &mut Open,
    name: &Name,
    manifest: &Manifest,
    terms: Terms,
    new: bool,
) -> Result<Written, Error> {
    let text = String::from_utf8(manifest.seal().map_err(Error::Local)?);
    let text = text.map_err(|error| Error::Local(format!("the manifest of `{name}`: {error}")))?;
    let last = Last { text, terms, new };
    open.last(last.clone())?;
    write(store, name, &last).await.map_err(|fault| fault.error(&format!("writing the manifest of `{name}`")))
}

/// Writes it.
async fn write(store: &Store, name: &Name, last: &Last) -> Result<Written, Fault> {
    let key = name.manifest();
    let text = Bytes::from(last.text.clone());
    let crc = crc32c::crc32c(&text);
    match store.put(&key, text.clone(), crc, &last.terms, last.new).await {
        Ok(_) => Ok(Written::There),
        // It was looked for before; a server without conditions can do no better.
        Err(fault) if last.new && fault.class == Class::Unsupported => {
            store.put(&key, text, crc, &last.terms, false).await.map(|_| Written::There)
        }
        // It may be our own, whose answer was lost.
        Err(fault) if last.new && fault.class == Class::Exists => {
            match store.small(&key, MOST_BYTES).await? {
                Some(there) if there == text => Ok(Written::There),
                _ => Ok(Written::Taken),
            }
        }
        Err(fault) => Err(fault),
    }
}

/// Carries on where somebody died who had begun the last write: `true` if its manifest is there now. `live` is the key
/// of the bytes that the present manifest names, `keys` are those of the operation.
pub async fn forward(
    store: &Store,
    name: &Name,
    last: &Last,
    live: Option<&String>,
    keys: &[String],
) -> Result<bool, Error> {
    let what = format!("finishing `{name}`");
    let manifest = Manifest::open(last.text.as_bytes()).map_err(|why| Error::damaged(name.as_str(), why))?;
    let key = &manifest.stored.key;
    let due = match live {
        None => last.new,
        // A move goes on only from where it began; whatever else is there is newer.
        Some(live) => !last.new && live != key && keys.contains(live),
    };
    if !due {
        return Ok(live == Some(key));
    }
    let found = store.head(key).await.map_err(|fault| fault.error(&what))?;
    if found.is_none_or(|found| found.size != manifest.stored.size) {
        return Ok(false);
    }
    match write(store, name, last).await {
        Ok(written) => Ok(written == Written::There),
        // Refused for good, and so is every earlier request for it: then the bytes are waste.
        Err(fault) if matches!(fault.class, Class::Fatal | Class::Missing | Class::Unsupported) => Ok(false),
        Err(fault) => Err(fault.error(&what)),
    }
}
