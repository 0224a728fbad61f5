//! The two last steps of a deletion: the bytes, if nothing forbids it, and then all that was beside them.
//!
//! `delete` takes them in their order; `clean` takes them for a deletion that was interrupted.

use jiff::Timestamp;

use crate::error::Error;
use crate::journal::Open;
use crate::name::Name;
use crate::store::Store;
use crate::store::fault::Class;

/// Whether anything is known to forbid that these bytes are deleted: what the manifest says, what the server says of
/// the object, both by the server's clock. Gives the version to delete; `None` if there are no bytes.
pub async fn deletable(
    store: &Store,
    name: &Name,
    data: &str,
    locked: Option<Timestamp>,
) -> Result<Option<Option<String>>, Error> {
    let what = format!("deleting `{name}`");
    let found = store.head(data).await.map_err(|fault| fault.error(&what))?;
    let now = store.clock().now();
    if let Some(until) = locked.filter(|until| *until > now) {
        return Err(Error::Refused(format!("`{name}` is locked until {until}")));
    }
    let Some(found) = found else { return Ok(None) };
    match found.held.why(now) {
        Some(why) => Err(Error::Refused(format!("`{name}` is {why}"))),
        None => Ok(Some(found.version.filter(|version| version != "null"))),
    }
}

/// Removes the bytes.
///
/// # Errors
/// [`Error::Refused`] if the server keeps them; after any other error they may be gone, and are asked for again.
pub async fn bytes(store: &Store, name: &Name, data: &str) -> Result<(), Error> {
    let Some(version) = deletable(store, name, data, None).await? else { return Ok(()) };
    // Without its version only a marker would be set, and the bytes be paid for ever.
    match store.remove(data, version.as_deref()).await {
        Err(fault) if fault.class == Class::Denied => Err(Error::Refused(format!(
            "`{name}` is not deleted: the server keeps its bytes: {}: they are locked, or the keys lack s3:DeleteObject or s3:DeleteObjectVersion",
            fault.text
        ))),
        answer => answer.map_err(|fault| fault.error(&format!("deleting `{name}`"))),
    }
}

/// The last steps of a deletion whose bytes are gone: the manifest, and all that was beside it.
pub async fn finish(store: &Store, open: Open, name: &Name) -> Result<(), Error> {
    let what = format!("deleting `{name}`");
    store.remove(&name.manifest(), None).await.map_err(|fault| fault.error(&what))?;
    for key in open.entry().keys.iter().filter(|key| Some(*key) != open.entry().delete.as_ref()) {
        store.remove(key, None).await.map_err(|fault| fault.error(&what))?;
    }
    open.end()
}
