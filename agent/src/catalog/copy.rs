//! Copies of tasks, named by what is in them: `tasks/<sha256>/` in the state folder.
//!
//! A run, its undo and its resumes use only the copy that it was planned with, so that an upgrade of a package
//! never changes a run under way. A copy is there as a whole or not at all, and it is looked at again each time
//! it is asked for: one that is not what its name says is replaced.
//!
//! **The digest** is SHA-256 over the text `hostler-task-1\n` and then, for each thing in the folder in the
//! order of the bytes of its path: one byte for its kind (`d` folder, `f` file, `x` executable file, `l` link),
//! the length of its path as 8 bytes, big endian, the path, the length of its contents as 8 bytes, big endian,
//! and the contents (a link's are its text, a folder's empty). Owners, times and other mode bits do not count.
//!
//! **Who can read it.** Steps run as other users, and their scripts stand here. Files are 0444 or 0555, folders
//! 0755, and `tasks/` itself is 0711: passed through, not listed. A copy holds no secret, it is what root
//! installed. The state folder above needs 0711 as well for a full path to work; under 0700 a step still finds
//! its scripts by `./name`, because the executor enters the copy before it gives up its rights.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::trust::{self, Entry, Kind, MAX_BYTES, OwnerRule};
use crate::host::disk::{self, DiskError, PathContext};

/// A copy that is on the disk as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// `sha256:` and 64 hexadecimal digits.
    pub digest: String,
    /// Its folder.
    pub path: PathBuf,
}

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// A file could not be read or written.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The folder is not one that may be used.
    #[error("{}", .0.join("; "))]
    Untrusted(Vec<String>),
    /// The task was changed in between.
    #[error("{} was changed while it was copied: try again", .0.display())]
    Changed(PathBuf),
    /// Not the name of a copy.
    #[error("{0:?} is not the digest of a task (sha256: and 64 hexadecimal digits)")]
    BadDigest(String),
    /// The copy is gone or not what its name says.
    #[error("{} does not match its digest: it was removed or changed", .0.display())]
    Damaged(PathBuf),
}

/// Copies a task's folder below `tasks`, or finds the copy that is there.
pub fn store(folder: &Path, tasks: &Path, rule: OwnerRule) -> Result<Copied, CopyError> {
    disk::make_dirs(tasks)?;
    set_mode(tasks, 0o711)?;
    let entries = trust::walk(folder, rule).map_err(CopyError::Untrusted)?;
    let hex = digest(folder, &entries)?;
    let path = tasks.join(&hex);
    let copied = Copied { digest: format!("sha256:{hex}"), path: path.clone() };
    if is_whole(&path, &hex, rule) {
        return Ok(copied);
    }
    let temp = tasks.join(format!(".{hex}.tmp"));
    clear(&temp)?;
    write(folder, &entries, &temp)?;
    if !is_whole(&temp, &hex, rule) {
        clear(&temp)?;
        return Err(CopyError::Changed(folder.to_owned()));
    }
    clear(&path)?;
    fs::rename(&temp, &path).with_path("rename", &temp)?;
    disk::sync_dir(tasks)?;
    Ok(copied)
}

/// The digest that a copy of a task's folder would have now: `sha256:` and 64 hexadecimal digits.
pub fn digest_of(folder: &Path, rule: OwnerRule) -> Result<String, CopyError> {
    let entries = trust::walk(folder, rule).map_err(CopyError::Untrusted)?;
    Ok(format!("sha256:{}", digest(folder, &entries)?))
}

/// The folder of a copy, if it still is what its name says.
pub fn open(tasks: &Path, digest: &str, rule: OwnerRule) -> Result<PathBuf, CopyError> {
    let hex = hex_of(digest)?;
    let path = tasks.join(hex);
    if is_whole(&path, hex, rule) { Ok(path) } else { Err(CopyError::Damaged(path)) }
}

/// Removes the copies that no run needs, and what a crash left of others; says how many it removed.
pub fn remove_unneeded(tasks: &Path, needed: &BTreeSet<String>) -> Result<usize, DiskError> {
    let entries = match fs::read_dir(tasks) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error).with_path("list", tasks),
    };
    let mut removed = 0;
    for entry in entries {
        let entry = entry.with_path("list", tasks)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !needed.contains(&format!("sha256:{name}")) {
            clear(&entry.path())?;
            removed += 1;
        }
    }
    disk::sync_dir(tasks)?;
    Ok(removed)
}

fn hex_of(digest: &str) -> Result<&str, CopyError> {
    let small = |c: char| matches!(c, '0'..='9' | 'a'..='f');
    digest
        .strip_prefix("sha256:")
        .filter(|hex| hex.len() == 64 && hex.chars().all(small))
        .ok_or_else(|| CopyError::BadDigest(digest.chars().take(80).collect()))
}

fn is_whole(path: &Path, hex: &str, rule: OwnerRule) -> bool {
    let real = path.symlink_metadata().is_ok_and(|meta| meta.is_dir());
    real && trust::walk(path, rule)
        .is_ok_and(|entries| digest(path, &entries).is_ok_and(|found| found == hex))
}

fn digest(folder: &Path, entries: &[Entry]) -> Result<String, DiskError> {
    let mut hash = Sha256::new();
    hash.update(b"hostler-task-1\n");
    for entry in entries {
        let contents = match &entry.kind {
            Kind::Folder => Vec::new(),
            Kind::Link(target) => target.as_os_str().as_bytes().to_vec(),
            Kind::File | Kind::Program => contents(&folder.join(&entry.path))?,
        };
        let kind = match entry.kind {
            Kind::Folder => b"d",
            Kind::File => b"f",
            Kind::Program => b"x",
            Kind::Link(_) => b"l",
        };
        let path = entry.path.as_os_str().as_bytes();
        hash.update(kind);
        hash.update((path.len() as u64).to_be_bytes());
        hash.update(path);
        hash.update((contents.len() as u64).to_be_bytes());
        hash.update(contents);
    }
    Ok(hex::encode(hash.finalize()))
}

/// A file as it is now; it may have grown since it was listed.
fn contents(path: &Path) -> Result<Vec<u8>, DiskError> {
    let mut contents = Vec::new();
    let file = File::open(path).with_path("open", path)?;
    file.take(MAX_BYTES + 1).read_to_end(&mut contents).with_path("read", path)?;
    Ok(contents)
}

fn write(folder: &Path, entries: &[Entry], to: &Path) -> Result<(), DiskError> {
    make_folder(to)?;
    let mut folders = vec![to.to_owned()];
    // Sorted by path, so that a folder comes before what is in it.
    for entry in entries {
        let target = to.join(&entry.path);
        match &entry.kind {
            Kind::Folder => {
                make_folder(&target)?;
                folders.push(target);
            }
            Kind::Link(text) => symlink(text, &target).with_path("link", &target)?,
            Kind::File => write_file(&target, &contents(&folder.join(&entry.path))?, 0o444)?,
            Kind::Program => write_file(&target, &contents(&folder.join(&entry.path))?, 0o555)?,
        }
    }
    folders.iter().try_for_each(|folder| disk::sync_dir(folder))
}

fn make_folder(path: &Path) -> Result<(), DiskError> {
    DirBuilder::new().mode(0o755).create(path).with_path("create", path)?;
    // Whatever the umask took away.
    set_mode(path, 0o755)
}

fn write_file(path: &Path, contents: &[u8], mode: u32) -> Result<(), DiskError> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_path("create", path)?;
    file.write_all(contents).with_path("write", path)?;
    file.set_permissions(Permissions::from_mode(mode)).with_path("set the mode of", path)?;
    file.sync_all().with_path("sync", path)
}

fn set_mode(path: &Path, mode: u32) -> Result<(), DiskError> {
    fs::set_permissions(path, Permissions::from_mode(mode)).with_path("set the mode of", path)
}

/// Removes whatever stands at a path.
fn clear(path: &Path) -> Result<(), DiskError> {
    let removed = match path.symlink_metadata() {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).with_path("remove", path),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule() -> OwnerRule {
        OwnerRule::of_process()
    }

    fn task(root: &Path) -> PathBuf {
        let folder = root.join("t");
        fs::create_dir_all(folder.join("sub/empty")).unwrap();
        fs::write(folder.join("task.yml"), "name: t\n").unwrap();
        fs::write(folder.join("sub/run"), "#!/bin/sh\n").unwrap();
        fs::write(folder.join("sub.txt"), "x").unwrap();
        for (path, mode) in [
            ("task.yml", 0o644),
            ("sub/run", 0o755),
            ("sub.txt", 0o600),
            ("", 0o755),
            ("sub", 0o755),
            ("sub/empty", 0o755),
        ] {
            set_mode(&folder.join(path), mode).unwrap();
        }
        symlink("sub/run", folder.join("link")).unwrap();
        folder
    }

    #[test]
    fn a_copy_is_named_by_its_contents_and_made_once() {
        let root = tempfile::tempdir().unwrap();
        let (folder, tasks) = (task(root.path()), root.path().join("state/tasks"));
        let copied = store(&folder, &tasks, rule()).unwrap();
        // The format is a contract with what older versions wrote.
        assert_eq!(copied.digest, "sha256:c27862b5a566beef88d2b376f982ce242a446dc2bed09527816bd7c07913cf11");
        let mode = |path: &str| fs::metadata(copied.path.join(path)).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode("task.yml"), mode("sub/run"), mode("sub"), mode("")), (0o444, 0o555, 0o755, 0o755));
        assert_eq!(fs::read_link(copied.path.join("link")).unwrap(), Path::new("sub/run"));
        let before = fs::metadata(&copied.path).unwrap().modified().unwrap();
        assert_eq!(store(&folder, &tasks, rule()).unwrap(), copied);
        assert_eq!(fs::metadata(&copied.path).unwrap().modified().unwrap(), before);
        assert_eq!(open(&tasks, &copied.digest, rule()).unwrap(), copied.path);
        fs::write(folder.join("sub.txt"), "y").unwrap();
        assert_ne!(store(&folder, &tasks, rule()).unwrap().digest, copied.digest);
        assert_eq!(fs::read_to_string(copied.path.join("sub.txt")).unwrap(), "x");
    }

    #[test]
    fn a_damaged_copy_is_noticed_and_replaced() {
        let root = tempfile::tempdir().unwrap();
        let (folder, tasks) = (task(root.path()), root.path().join("tasks"));
        let copied = store(&folder, &tasks, rule()).unwrap();
        type Damage = fn(&Path);
        let cases: &[Damage] = &[
            |path| fs::remove_file(path.join("sub.txt")).unwrap(),
            |path| fs::write(path.join("more"), "x").unwrap(),
            |path| set_mode(&path.join("sub/run"), 0o444).unwrap(),
            |path| {
                fs::remove_file(path.join("link")).unwrap();
                symlink("/etc", path.join("link")).unwrap()
            },
            |path| set_mode(&path.join("sub"), 0o777).unwrap(),
            |path| fs::remove_dir_all(path).unwrap(),
            |path| {
                fs::remove_dir_all(path).unwrap();
                fs::write(path, "x").unwrap()
            },
        ];
        for damage in cases {
            damage(&copied.path);
            assert!(open(&tasks, &copied.digest, rule()).is_err());
            // What a crash left of another attempt is no obstacle.
            fs::create_dir_all(tasks.join(format!(".{}.tmp/x", &copied.digest[7..]))).unwrap();
            assert_eq!(store(&folder, &tasks, rule()).unwrap(), copied);
            assert!(open(&tasks, &copied.digest, rule()).is_ok());
        }
        for bad in ["", "sha256:", "sha256:../../etc", &copied.digest.to_uppercase()] {
            assert!(matches!(open(&tasks, bad, rule()), Err(CopyError::BadDigest(_))), "{bad}");
        }
    }

    #[test]
    fn copies_that_no_run_needs_are_removed() {
        let root = tempfile::tempdir().unwrap();
        let (folder, tasks) = (task(root.path()), root.path().join("tasks"));
        let old = store(&folder, &tasks, rule()).unwrap();
        fs::write(folder.join("sub.txt"), "y").unwrap();
        let new = store(&folder, &tasks, rule()).unwrap();
        fs::create_dir(tasks.join(".half.tmp")).unwrap();
        let needed = BTreeSet::from([new.digest.clone()]);
        assert_eq!(remove_unneeded(&tasks, &needed).unwrap(), 2);
        assert!(open(&tasks, &new.digest, rule()).is_ok() && !old.path.exists());
        assert_eq!(remove_unneeded(&root.path().join("none"), &needed).unwrap(), 0);
    }
}
