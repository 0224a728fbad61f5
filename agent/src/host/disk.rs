//! Files that are still there after a power cut.
//!
//! Every write that a promise rests on goes through this module, and each function here returns only
//! when what it promises is on the disk: temp file in the same folder, fsync, rename, fsync of the folder.
//! Its error is an error of the caller: what could not be written did not happen.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Something went wrong with one file; says which and at what.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {source}", path.display())]
pub struct DiskError {
    /// What was tried, as a verb.
    pub action: &'static str,
    /// Where.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

/// Adds the place to an I/O error.
pub trait PathContext<T> {
    /// Says what was tried (a verb) and where.
    fn with_path(self, action: &'static str, path: &Path) -> Result<T, DiskError>;
}

impl<T> PathContext<T> for io::Result<T> {
    fn with_path(self, action: &'static str, path: &Path) -> Result<T, DiskError> {
        self.map_err(|source| DiskError { action, path: path.to_owned(), source })
    }
}

/// Makes the entries of a folder durable: what was created, renamed or removed in it stays so.
pub fn sync_dir(dir: &Path) -> Result<(), DiskError> {
    File::open(dir).and_then(|file| file.sync_all()).with_path("sync", dir)
}

/// Creates a folder with mode 0700 and makes its entry durable; one that exists is left alone.
pub fn make_dir(dir: &Path) -> Result<(), DiskError> {
    match fs::DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => sync_dir(parent(dir)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error).with_path("create", dir),
    }
}

/// Creates a folder and all that lead to it, each with mode 0700.
pub fn make_dirs(dir: &Path) -> Result<(), DiskError> {
    if !dir.is_dir() {
        if let Some(up) = dir.parent().filter(|up| !up.as_os_str().is_empty()) {
            make_dirs(up)?;
        }
        make_dir(dir)?;
    }
    Ok(())
}

/// Sets the mode of a file or folder.
pub fn set_mode(path: &Path, mode: u32) -> Result<(), DiskError> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).with_path("set the mode of", path)
}

/// Writes a new file and makes its contents durable, but not its entry: for several files of one folder,
/// which is synced once at the end. Fails where the file exists.
pub fn write_new(path: &Path, contents: &[u8], mode: u32) -> Result<File, DiskError> {
    let file = create(path, contents, mode)?;
    file.sync_all().with_path("sync", path)?;
    Ok(file)
}

/// Opens the file of a lock, made where it is missing, for this user alone whatever it was made as; no link is followed.
pub fn lock_file(path: &Path) -> Result<File, DiskError> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    let file = options.open(path).with_path("open", path)?;
    file.set_permissions(fs::Permissions::from_mode(0o600)).with_path("set the mode of", path)?;
    Ok(file)
}

/// Removes a folder in a folder of this user's own, or at least frees its name: a process that was left in it may make
/// files there for as long as it lives, which keeps the folder from being removed.
pub fn clear_away(path: &Path) -> io::Result<()> {
    for n in 0..u32::MAX {
        let mut aside = path.as_os_str().to_owned();
        aside.push(format!(".old{n}"));
        match fs::rename(path, &aside) {
            Ok(()) => {
                let _ = fs::set_permissions(&aside, fs::Permissions::from_mode(0o700));
                // Whoever still uses it has no way back to the name.
                let _ = fs::remove_dir_all(&aside);
                return Ok(());
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Writes a new file that need not outlive the host's next boot.
pub fn create(path: &Path, contents: &[u8], mode: u32) -> Result<File, DiskError> {
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(mode).open(path).with_path("create", path)?;
    file.write_all(contents).with_path("write", path)?;
    Ok(file)
}

/// Replaces a file as a whole: after a crash it holds the old contents or the new, never a part.
pub fn replace(path: &Path, contents: &[u8], mode: u32) -> Result<(), DiskError> {
    let temp = temp_name(path);
    match fs::remove_file(&temp) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_path("remove", &temp);
        }
        _ => {}
    }
    let replaced =
        write_new(&temp, contents, mode).and_then(|_| fs::rename(&temp, path).with_path("replace", path));
    if let Err(error) = replaced {
        // On a full disk the part that was written may be all the room that was left.
        let _ = fs::remove_file(&temp);
        return Err(error);
    }
    sync_dir(parent(path))
}

/// Reads a whole file of at most `limit` bytes; `None` where there is none.
pub fn read(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, DiskError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_path("open", path),
    };
    let mut contents = Vec::new();
    file.take(limit + 1).read_to_end(&mut contents).with_path("read", path)?;
    if contents.len() as u64 > limit {
        let error = io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {limit} bytes"));
        return Err(error).with_path("read", path);
    }
    Ok(Some(contents))
}

/// Removes a file and makes that durable; one that is not there is no error.
pub fn remove(path: &Path) -> Result<(), DiskError> {
    match fs::remove_file(path) {
        Ok(()) => sync_dir(parent(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_path("remove", path),
    }
}

/// The folder that holds `path`.
pub fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(up) if !up.as_os_str().is_empty() => up,
        _ => Path::new("."),
    }
}

fn temp_name(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_free_again_whoever_still_uses_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run");
        for _ in 0..3 {
            fs::create_dir(&path).unwrap();
            fs::write(path.join("file"), "x").unwrap();
            // What cannot be replaced: an earlier one that could not be removed.
            fs::create_dir_all(dir.path().join("run.old0/kept")).unwrap();
            clear_away(&path).unwrap();
            assert!(!path.exists() && dir.path().join("run.old0/kept").exists());
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        clear_away(&path).unwrap();
    }

    #[test]
    fn replace_leaves_the_new_contents_and_no_temp_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        replace(&path, b"one", 0o600).unwrap();
        fs::write(dir.path().join("x.tmp"), b"left by a crash").unwrap();
        replace(&path, b"two", 0o600).unwrap();
        assert_eq!(read(&path, 10).unwrap().unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_cannot_replace_a_file_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        // A folder cannot be replaced by a file.
        fs::create_dir(&path).unwrap();
        assert!(replace(&path, b"one", 0o600).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(path.is_dir());
    }

    #[test]
    fn reading_has_a_bound_and_says_where() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        assert!(read(&path, 10).unwrap().is_none());
        fs::write(&path, b"12345").unwrap();
        let error = read(&path, 4).unwrap_err().to_string();
        assert!(error.contains("x: more than 4 bytes"), "{error}");
    }
}
