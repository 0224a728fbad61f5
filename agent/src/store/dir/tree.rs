//! Walks the folder of a store without following a link, and makes the folders that a new key needs.
//!
//! Each component below the root is opened from the one before it, so nothing on the way can be swapped for
//! a link. Only folders and regular files count that belong to root or to the user of this process and that
//! others cannot write: whoever else could place an order would be somebody else than root. What does not
//! count is passed over and named; what cannot be read is an error, for the key may well be there.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat, mkdirat};
use nix::unistd::{Uid, fsync};
use sha2::{Digest, Sha256};

use super::writer::{self, Writer};
use crate::domain::keys;
use crate::store::MAX_VALUE;

/// The most keys below one prefix.
const MAX_FILES: usize = 10_000;

/// The most bytes below one prefix.
const MAX_TOTAL: usize = 32 * 1024 * 1024;

/// The most folders above a key.
const MAX_DEPTH: usize = 32;

/// How many files that are passed over are named.
const MAX_PASSED_OVER: usize = 100;

/// Why a file or folder is not trusted.
const UNTRUSTED: &str = "it belongs to another user, or others can write to it: chown root, chmod go-w";

/// The longest file name, in bytes, that leaves room for the name of a temp file.
const MAX_PART: usize = 250;

const FOLDER: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(COMMON);
const FILE: OFlag = OFlag::O_RDONLY.union(OFlag::O_NONBLOCK).union(COMMON);
const COMMON: OFlag = OFlag::O_NOFOLLOW.union(OFlag::O_CLOEXEC);

/// A file that is a key.
pub(super) struct Found {
    /// The key.
    pub(super) key: String,
    /// Its value.
    pub(super) value: Vec<u8>,
    /// SHA-256 of the value, hexadecimal.
    pub(super) digest: String,
    /// For a content that was not counted yet: whether the file is complete.
    pub(super) news: Option<News>,
}

/// A content that is seen for the first time.
pub(super) struct News {
    /// What changes with each writing.
    pub(super) stamp: Stamp,
    /// Who writes it.
    pub(super) writer: Writer,
}

/// Inode, size, and the times of the last change of content and of the file, in nanoseconds.
pub(super) type Stamp = (u64, i64, i128, i128);

/// Something that is in the folder and is no key, with its path below the root and the reason.
pub(super) type PassedOver = (String, &'static str);

/// What editors and package managers leave beside a file.
const LEFTOVERS: [&str; 26] = [
    "~",
    ".tmp",
    ".temp",
    ".bak",
    ".orig",
    ".rej",
    ".swp",
    ".swo",
    ".swx",
    ".save",
    ".old",
    ".part",
    ".partial",
    ".filepart",
    ".crdownload",
    ".rpmnew",
    ".rpmsave",
    ".rpmorig",
    ".dpkg-new",
    ".dpkg-old",
    ".dpkg-dist",
    ".dpkg-tmp",
    ".dpkg-bak",
    ".ucf-new",
    ".ucf-old",
    ".ucf-dist",
];

/// Whether the name of an order's, freeze's or control's file is one of a copy that was left beside it.
pub(super) fn leftover(key: &str) -> Option<&'static str> {
    let name = key.rsplit('/').next().unwrap_or(key);
    let left = LEFTOVERS.iter().any(|ending| name.ends_with(ending))
        || (name.starts_with('#') && name.ends_with('#'));
    (left && keys::above_sources(key).is_some())
        .then_some("a copy that an editor or a package manager left: remove it, or give it another name")
}

/// Whether a part of a key may be a file's name; says why not.
pub(super) fn bad_part(part: &str) -> Option<&'static str> {
    if part.starts_with('.') {
        Some("in a folder no part of a key starts with '.'")
    } else if part.ends_with('~') || part.ends_with(".tmp") {
        Some("in a folder no part of a key ends in '~' or '.tmp'")
    } else if part.len() > MAX_PART {
        Some("in a folder no part of a key is longer than 250 bytes")
    } else {
        None
    }
}

/// Opens the root of the store; it must be as trustworthy as what stands in it.
pub(super) fn open_root(path: &Path) -> io::Result<OwnedFd> {
    let root = nix::fcntl::open(path, FOLDER, Mode::empty()).map_err(io::Error::from)?;
    if !trusted(&fstat(&root)?) {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "it belongs to another user, or others can write to it",
        ));
    }
    Ok(root)
}

/// All keys that start with `prefix`, in no order, and what was passed over; `counted` says which content is no news.
pub(super) fn scan(
    root: &OwnedFd,
    prefix: &str,
    counted: &dyn Fn(&str, &str) -> bool,
) -> io::Result<(Vec<Found>, Vec<PassedOver>)> {
    let mut walk = Walk { prefix, counted, found: Vec::new(), passed_over: Vec::new(), total: 0 };
    walk.folder(root, "", 0)?;
    Ok((walk.found, walk.passed_over))
}

/// Makes the folders above `key`, each durable, none of them through a link.
pub(super) fn make_folders(root: &OwnedFd, key: &str) -> io::Result<()> {
    let mut at = root.try_clone()?;
    let Some((folders, _)) = key.rsplit_once('/') else { return Ok(()) };
    for part in folders.split('/') {
        match mkdirat(&at, part, Mode::S_IRWXU) {
            Ok(()) => fsync(&at)?,
            Err(Errno::EEXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let next = openat(&at, part, FOLDER, Mode::empty())?;
        if !trusted(&fstat(&next)?) {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("{part:?} belongs to another user, or others can write to it"),
            ));
        }
        at = next;
    }
    Ok(())
}

struct Walk<'a> {
    prefix: &'a str,
    counted: &'a dyn Fn(&str, &str) -> bool,
    found: Vec<Found>,
    passed_over: Vec<PassedOver>,
    total: usize,
}

impl Walk<'_> {
    /// `above`: the key of this folder with its final slash; empty for the root.
    fn folder(&mut self, folder: &OwnedFd, above: &str, depth: usize) -> io::Result<()> {
        let mut entries = Dir::openat(folder, ".", FOLDER, Mode::empty())?;
        for entry in entries.iter() {
            let entry = entry?;
            let raw = entry.file_name().to_string_lossy();
            let key = format!("{above}{raw}");
            // The store's own files, and the way back.
            if matches!(&*raw, "." | "..") || (above.is_empty() && raw.starts_with('.')) {
                continue;
            }
            let Some(name) = entry.file_name().to_str().ok().filter(|name| !name.contains(char::is_control))
            else {
                self.pass_over(&key, "its name is not plain text: rename it");
                continue;
            };
            if let Some(why) = bad_part(name).or_else(|| leftover(&key)) {
                self.pass_over(&key, why);
                continue;
            }
            match self.entry(folder, name, &key, depth) {
                // Removed or replaced since its name was read: the next walk tells.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
        Ok(())
    }

    fn pass_over(&mut self, key: &str, why: &'static str) {
        if key.starts_with(self.prefix) && self.passed_over.len() < MAX_PASSED_OVER {
            self.passed_over.push((key.to_owned(), why));
        }
    }

    fn entry(&mut self, folder: &OwnedFd, name: &str, key: &str, depth: usize) -> io::Result<()> {
        let look = fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        match kind(&look) {
            SFlag::S_IFDIR if depth < MAX_DEPTH => {
                let below = format!("{key}/");
                let wanted = below.starts_with(self.prefix) || self.prefix.starts_with(&below);
                if !wanted {
                    return Ok(());
                }
                if !trusted(&look) {
                    self.pass_over(&below, UNTRUSTED);
                    return Ok(());
                }
                match openat(folder, name, FOLDER, Mode::empty()) {
                    Ok(next) if trusted(&fstat(&next)?) => self.folder(&next, &below, depth + 1),
                    Ok(_) | Err(Errno::ELOOP | Errno::ENOTDIR) => Ok(()),
                    Err(error) => Err(error.into()),
                }
            }
            SFlag::S_IFREG if key.starts_with(self.prefix) && !trusted(&look) => {
                self.pass_over(key, UNTRUSTED);
                Ok(())
            }
            SFlag::S_IFREG if key.starts_with(self.prefix) => {
                match openat(folder, name, FILE, Mode::empty()) {
                    Ok(file) => self.file(file, key),
                    Err(Errno::ELOOP) => Ok(()),
                    Err(error) => Err(error.into()),
                }
            }
            SFlag::S_IFREG => Ok(()),
            SFlag::S_IFDIR => {
                self.pass_over(key, "too many folders above it: move it up");
                Ok(())
            }
            _ => {
                self.pass_over(key, "it is no plain file: links and devices are not followed");
                Ok(())
            }
        }
    }

    fn file(&mut self, file: OwnedFd, key: &str) -> io::Result<()> {
        let look = fstat(&file)?;
        if kind(&look) != SFlag::S_IFREG || !trusted(&look) {
            return Ok(());
        }
        // One byte more than a value can have: the reader refuses it, and the key does not vanish.
        let mut value = Vec::new();
        let file = File::from(file);
        (&file).take(MAX_VALUE as u64 + 1).read_to_end(&mut value)?;
        let digest = hex::encode(Sha256::digest(&value));
        let news = (!(self.counted)(key, &digest)).then(|| {
            // First who writes it, then when it was written: what came in between shows as another stamp.
            let file = OwnedFd::from(file);
            let writer = writer::of(&file);
            let nanos = |secs: i64, nanos: i64| i128::from(secs) * 1_000_000_000 + i128::from(nanos);
            let after = fstat(&file).unwrap_or(look);
            let stamp = (
                after.st_ino,
                after.st_size,
                nanos(after.st_mtime, after.st_mtime_nsec),
                nanos(after.st_ctime, after.st_ctime_nsec),
            );
            News { stamp, writer }
        });
        self.total += value.len();
        if self.total > MAX_TOTAL || self.found.len() >= MAX_FILES {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("more than {MAX_FILES} files or {MAX_TOTAL} bytes below {:?}", self.prefix),
            ));
        }
        self.found.push(Found { key: key.to_owned(), value, digest, news });
        Ok(())
    }
}

fn kind(look: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(look.st_mode & SFlag::S_IFMT.bits())
}

/// Of root or of this user, and others cannot write. The group can where this user is not root: that is how
/// many systems give a user's own files.
fn trusted(look: &FileStat) -> bool {
    let me = Uid::effective();
    let loose = if me.is_root() { 0o022 } else { 0o002 };
    (look.st_uid == 0 || look.st_uid == me.as_raw()) && look.st_mode & loose == 0
}

/// Opens the lock file, and makes it if need be.
pub(super) fn open_lock(root: &OwnedFd) -> io::Result<File> {
    let flags = OFlag::O_RDWR.union(OFlag::O_CREAT).union(COMMON);
    Ok(File::from(openat(root.as_fd(), ".lock", flags, Mode::S_IRUSR.union(Mode::S_IWUSR))?))
}
