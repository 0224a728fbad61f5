//! Files that a decision rests on: changed as a whole, and on the disk before the next step.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Uid};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Error;
use crate::exec::Owner;

/// The largest file of configuration that is read.
const MOST: u64 = 4 << 20;

/// The folder of what has to be known after a death.
pub fn state() -> PathBuf {
    std::env::var_os("HOSTLER_POSTGRES_STATE")
        .map_or_else(|| PathBuf::from("/var/lib/hostler-postgres"), PathBuf::from)
}

/// Replaces a file, or makes it: whoever reads sees the whole old or the whole new one, also after a power cut.
/// An existing file keeps its owner and mode; a new one belongs to `owner`, mode 0640.
///
/// # Errors
/// If any part of it fails; the file is as it was then, or as it should be.
pub fn replace(path: &Path, text: &str, owner: Owner) -> Result<(), Error> {
    let local = |error| Error::local(path.display())(error);
    let folder = path.parent().unwrap_or(Path::new("/"));
    let (uid, gid, mode) = match fs::metadata(path) {
        Ok(is) => (is.uid(), is.gid(), is.mode() & 0o7777),
        Err(_) => (owner.uid, owner.gid, 0o640),
    };
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(local)?;
    file.write_all(text.as_bytes()).map_err(local)?;
    file.as_file().set_permissions(fs::Permissions::from_mode(mode)).map_err(local)?;
    if nix::unistd::geteuid().is_root() {
        nix::unistd::fchown(file.as_file(), Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
            .map_err(|error| local(error.into()))?;
    }
    file.as_file().sync_all().map_err(local)?;
    file.persist(path).map_err(|error| local(error.error))?;
    sync(folder)
}

/// Removes a file, if it is there.
///
/// # Errors
/// If it is still there, or could come back.
pub fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Ok(()) => sync(path.parent().unwrap_or(Path::new("/"))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::local(path.display())(error)),
    }
}

/// Keeps what has to be known after a death, as JSON with its version, in a file of root in [`state`].
///
/// # Errors
/// As [`replace`], and if the folder cannot be made.
pub fn keep(path: &Path, value: &impl Serialize) -> Result<(), Error> {
    let folder = state();
    fs::create_dir_all(&folder).map_err(Error::local(folder.display()))?;
    let text = serde_json::to_string(value).map_err(|error| Error::Local(error.to_string()))?;
    replace(path, &text, Owner { uid: 0, gid: 0 })
}

/// What [`keep`] wrote, if `known` knows its version; `None`: nothing is kept.
///
/// # Errors
/// As [`read`], and if it is another version or not JSON of that shape: nothing may be decided on it.
pub fn kept<T: DeserializeOwned>(path: &Path, known: impl Fn(&T) -> bool) -> Result<Option<T>, Error> {
    let Some(text) = read(path)? else { return Ok(None) };
    let value = serde_json::from_str(&text).ok().filter(known);
    let wrong = || Error::Unclear(format!("{} cannot be understood: look into it", path.display()));
    value.map(Some).ok_or_else(wrong)
}

/// What a file holds; `None` if there is no such file.
///
/// # Errors
/// If it is there and cannot be read, is no text, or has more than 4 MiB.
pub fn read(path: &Path) -> Result<Option<String>, Error> {
    // Opened once: a file such as `postmaster.pid` may go at any moment.
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::local(path.display())(error)),
    };
    let mut bytes = Vec::new();
    let size = file.take(MOST + 1).read_to_end(&mut bytes).map_err(Error::local(path.display()))?;
    if size as u64 > MOST {
        return Err(Error::Refused(format!(
            "{} has more than {MOST} bytes, which is too much",
            path.display()
        )));
    }
    let invalid = |error| std::io::Error::new(std::io::ErrorKind::InvalidData, error);
    String::from_utf8(bytes).map(Some).map_err(|error| Error::local(path.display())(invalid(error)))
}

/// Has the names in a folder on the disk.
///
/// # Errors
/// If that fails.
pub fn sync(folder: &Path) -> Result<(), Error> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(Error::local(folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_whole_or_missing_or_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("postmaster.pid");
        assert_eq!(read(&path).unwrap(), None);
        fs::write(&path, "12\n").unwrap();
        assert_eq!(read(&path).unwrap().as_deref(), Some("12\n"));
        fs::write(&path, vec![b'x'; 4 << 20]).unwrap();
        assert!(read(&path).is_ok());
        fs::write(&path, vec![0xc3; (4 << 20) + 1]).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("too much"));
        fs::write(&path, [0xff]).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("postmaster.pid"));
    }
}
