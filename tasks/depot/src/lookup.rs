//! One backup in the bucket: its manifest, and its bytes, where they are at this moment.

use crate::error::Error;
use crate::manifest::{MAX_BYTES, Manifest};
use crate::name::{self, Kind, Name};
use crate::store::Store;
use crate::store::objects::Found;

/// What was read under a name.
pub enum Read {
    /// The manifest of this backup.
    Ours(Box<Manifest>),
    /// That of a backup below a longer prefix.
    Foreign,
}

/// Reads a manifest, and recognizes those of a longer prefix.
///
/// # Errors
/// [`Error::Missing`] if there is none, [`Error::Damaged`] if it was read and is wrong.
pub async fn read(store: &Store, name: &Name) -> Result<Read, Error> {
    let what = format!("reading the manifest of `{name}`");
    let mut wrong = None;
    // Once more, if it is not what was written: bits flip on the way too.
    for _ in 0..2 {
        let text = store.small(&name.manifest(), MAX_BYTES).await.map_err(|fault| fault.error(&what))?;
        let text = text.ok_or_else(|| Error::Missing(name.as_str().to_owned()))?;
        match Manifest::open(&text) {
            Ok(manifest) if manifest.name == name.as_str() => return Ok(Read::Ours(Box::new(manifest))),
            Ok(manifest) if name.as_str().ends_with(&format!("/{}", manifest.name)) => {
                return Ok(Read::Foreign);
            }
            Ok(manifest) => wrong = Some(format!("its manifest is that of `{}`", manifest.name)),
            Err(why) => wrong = Some(why),
        }
    }
    Err(Error::damaged(name.as_str(), wrong.unwrap_or_default()))
}

/// Reads one manifest.
pub async fn manifest(store: &Store, name: &Name) -> Result<Manifest, Error> {
    match read(store, name).await? {
        Read::Ours(manifest) => Ok(*manifest),
        Read::Foreign => {
            Err(Error::damaged(name.as_str(), "it was stored below a longer prefix: use that as --prefix"))
        }
    }
}

/// The bytes of a backup, where they are now: who reads it may meet a move or a deletion.
///
/// # Errors
/// [`Error::Missing`] if it is gone or going, [`Error::Damaged`] if its manifest stays and its bytes do not.
pub async fn bytes(store: &Store, name: &Name, manifest: &Manifest) -> Result<(Manifest, Found), Error> {
    let what = format!("looking for `{name}`");
    let mut known = manifest.clone();
    loop {
        match store.head(&known.stored.key).await.map_err(|fault| fault.error(&what))? {
            Some(found) if found.size == known.stored.size => return Ok((known, found)),
            Some(found) => {
                let why = format!("{} bytes are stored, {} were written", found.size, known.stored.size);
                return Err(Error::damaged(name.as_str(), why));
            }
            None => {}
        }
        let now = self::manifest(store, name).await?;
        if now.stored.key == known.stored.key {
            let beside = store.list(&name.data("")).await.map_err(|fault| fault.error(&what))?;
            if beside.iter().any(|one| matches!(name::split(&one.key), Some((_, Kind::Mark)))) {
                return Err(Error::Missing(name.as_str().to_owned()));
            }
            // Deleted between the two looks, mark and all.
            self::manifest(store, name).await?;
            return Err(Error::damaged(name.as_str(), "its bytes are missing"));
        }
        known = now;
    }
}
