//! The archive of WAL: what the server hands over is stored before it is told so, and what a recovery asks for is
//! given, or refused in a way that stops it.
//!
//! ```text
//!  put (archive_command)    fetch (restore_command)
//!      \                    /
//!       shelf                  what is in the archive, and what is missing in between
//! ```
//! The server forgets a segment once it was told that it is stored, and opens with what it has once it was told that
//! there is no more. So both answers are given only for what is known: everything else is a failure.

pub mod fetch;
pub mod shelf;

use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};

use crate::depot::{Depot, Place, Put, Source};
use crate::error::Error;
use crate::wal::{self, HEADER, Name};

/// The largest history or label that is taken.
const MOST: u64 = 1 << 20;

/// What something in `pg_wal` is called in the depot; `None` for what is not archived.
pub fn key(place: &Place, system: u64, name: &str) -> Option<String> {
    let below = format!("{}/{system}", place.wal());
    Some(match Name::parse(name)? {
        Name::History { .. } => format!("{below}/{name}"),
        other => format!("{below}/{:08X}/{name}", other.timeline()),
    })
}

/// The folder of data to which a path in its `pg_wal` belongs: the server works in it, and names paths from there.
fn data(path: &Path) -> PathBuf {
    let data = path.parent().and_then(Path::parent).unwrap_or(Path::new(""));
    if data.as_os_str().is_empty() { PathBuf::from(".") } else { data.to_owned() }
}

/// Stores a file of `pg_wal`, or finds the same contents stored; before a segment the history of its timeline. Where the
/// archive was switched on after a promotion the server does not hand that over, and no segment is of use without it.
///
/// # Errors
/// As [`put`].
pub async fn hand_over(depot: &Depot, path: &Path) -> Result<(), Error> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if let Some(Name::Segment { timeline: 2.., .. }) = Name::parse(name) {
        let history = path.with_file_name(format!("{}.history", name.get(..8).unwrap_or_default()));
        if history.exists() {
            put(depot, &history).await?;
        }
    }
    put(depot, path).await
}

/// Proves that a segment comes back from the archive, and is what its name says.
///
/// # Errors
/// If it does not, or is something else.
pub async fn comes_back(depot: &Depot, system: &str, key: &str) -> Result<(), Error> {
    let folder = tempfile::tempdir().map_err(Error::local("a temporary folder"))?;
    depot.give(folder.path())?;
    let (path, name) = (folder.path().join("segment"), key.rsplit('/').next().unwrap_or_default());
    depot.get(key, &path).await?;
    let mut file = File::open(&path).map_err(Error::local(path.display()))?;
    let length = file.metadata().map_err(Error::local(path.display()))?.len();
    let system = system.parse().map_err(|_| Error::Server(format!("no identifier: {system}")))?;
    let wrong = |why: String| Error::Damaged(format!("{key}: what comes back is not it: {why}"));
    wal::check(name, system, length, &header(&mut file, &path)?).map_err(wrong).map(|_| ())
}

/// Stores a file of `pg_wal`, or finds the same contents stored.
///
/// # Errors
/// If it is not what its name says, other contents are stored under its name, or it cannot be stored: then the server
/// keeps it and asks again.
pub async fn put(depot: &Depot, path: &Path) -> Result<(), Error> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let refused = |why: &str| Error::Refused(format!("{} is not archived: {why}", path.display()));
    let kind = Name::parse(name).ok_or_else(|| refused("no file of WAL has such a name"))?;
    let system = wal::system(&data(path))?;
    let key = key(&depot.place, system, name).ok_or_else(|| refused("no file of WAL has such a name"))?;
    let mut file = File::open(path).map_err(Error::local(path.display()))?;
    let length = file.metadata().map_err(Error::local(path.display()))?.len();
    match kind {
        Name::Segment { .. } | Name::Partial { .. } => {
            wal::check(name, system, length, &header(&mut file, path)?).map_err(|why| refused(&why))?;
        }
        Name::History { timeline } => {
            wal::history(timeline, &text(&mut file, path, length)?).map_err(|why| refused(&why))?;
        }
        Name::Label { .. } => {
            let label = text(&mut file, path, length)?;
            if !(label.starts_with("START WAL LOCATION:") && label.contains("STOP WAL LOCATION:")) {
                return Err(refused("it is no label of a base backup"));
            }
        }
    }
    file.rewind().map_err(Error::local(path.display()))?;
    let wish = Put { database: depot.place.wal(), expect: Some(length), same: true, ..Put::default() };
    let stored = match depot.put(&key, Source::File(file), wish).await {
        Err(Error::Refused(why)) => {
            return Err(refused(&format!(
                "other contents are archived under its name, so that a second server of this cluster writes there, or \
                 this one was restored: give one of them another --id ({why})"
            )));
        }
        stored => stored?,
    };
    let size = stored.pointer("/backup/size").and_then(serde_json::Value::as_u64);
    if size != Some(length) {
        let size = size.map_or_else(|| "an unknown number".to_owned(), |size| size.to_string());
        return Err(Error::Damaged(format!("{key}: {size} of {length} bytes were stored")));
    }
    Ok(())
}

fn header(file: &mut File, path: &Path) -> Result<Vec<u8>, Error> {
    let mut header = Vec::with_capacity(HEADER);
    file.take(HEADER as u64).read_to_end(&mut header).map_err(Error::local(path.display()))?;
    Ok(header)
}

fn text(file: &mut File, path: &Path, length: u64) -> Result<String, Error> {
    if length > MOST {
        return Err(Error::Refused(format!("{} has {length} bytes, which is too much", path.display())));
    }
    let mut text = String::new();
    file.take(MOST).read_to_string(&mut text).map_err(Error::local(path.display()))?;
    Ok(text)
}
