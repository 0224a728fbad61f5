//! Files that a decision rests on: changed as a whole, and on the disk before the next step.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Uid};

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

/// What a file holds; `None` if there is no such file.
///
/// # Errors
/// If it is there and cannot be read, is no text, or has more than 4 MiB.
pub fn read(path: &Path) -> Result<Option<String>, Error> {
    let size = match fs::metadata(path) {
        Ok(is) => is.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::local(path.display())(error)),
    };
    if size > MOST {
        return Err(Error::Refused(format!("{} has {size} bytes, which is too much", path.display())));
    }
    fs::read_to_string(path).map(Some).map_err(Error::local(path.display()))
}

fn sync(folder: &Path) -> Result<(), Error> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(Error::local(folder.display()))
}
