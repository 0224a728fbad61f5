//! Removes old files below an open folder: no link is followed, no other file system is entered, Hostler's own folders
//! are passed over, and each file is removed by its name in the very folder in which it was looked at.

use std::os::fd::{AsFd, OwnedFd};

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::folder::Own;

/// How deep folders may be nested; each level keeps a descriptor open.
const DEEPEST: usize = 200;

const FOLDER: OFlag = OFlag::O_DIRECTORY.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// Which files are removed.
#[derive(Clone, Copy, Debug)]
pub struct Old {
    /// Changed at this time or earlier, in seconds since 1970.
    pub before: i64,
    /// At least so large, in bytes.
    pub bytes: i64,
}

impl Old {
    fn matches(self, stat: &FileStat) -> bool {
        stat.st_mtime <= self.before && stat.st_size >= self.bytes
    }
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cleaned {
    /// How many files.
    pub files: u64,
    /// How many bytes were in them.
    pub bytes: u64,
    /// What could not be looked at or removed.
    pub failed: u64,
}

/// Removes the old files, or, to `look` only, counts the first one that would be removed.
pub fn clean(fd: &OwnedFd, device: u64, old: Old, own: &Own, look: bool) -> Cleaned {
    let mut cleaned = Cleaned::default();
    let walk = Walk { device, old, own, look };
    match openat(fd, ".", FOLDER, Mode::empty()) {
        Ok(folder) => walk.folder(folder, 0, &mut cleaned),
        Err(_) => cleaned.failed = 1,
    }
    cleaned
}

struct Walk<'a> {
    device: u64,
    old: Old,
    own: &'a Own,
    look: bool,
}

impl Walk<'_> {
    fn folder(&self, fd: OwnedFd, depth: usize, cleaned: &mut Cleaned) {
        let mut done = |result: nix::Result<()>| match result {
            // Removed by another meanwhile.
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(_) => cleaned.failed = cleaned.failed.saturating_add(1),
        };
        let mut folders = Vec::new();
        let mut dir = match Dir::from_fd(fd) {
            Ok(dir) => dir,
            Err(errno) => return done(Err(errno)),
        };
        let entries: Vec<_> = dir.iter().collect();
        let mut removed = (0_u64, 0_u64);
        for entry in entries {
            let entry = match entry {
                Ok(entry) => entry,
                Err(errno) => {
                    done(Err(errno));
                    continue;
                }
            };
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") || matches!(entry.file_type(), Some(Type::Symlink)) {
                continue;
            }
            let stat = match fstatat(dir.as_fd(), name, AtFlags::AT_SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(errno) => {
                    done(Err(errno));
                    continue;
                }
            };
            match SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) {
                SFlag::S_IFDIR if stat.st_dev == self.device && !self.own.has((stat.st_dev, stat.st_ino)) => {
                    folders.push((name.to_owned(), (stat.st_dev, stat.st_ino)));
                }
                SFlag::S_IFREG if self.old.matches(&stat) => {
                    let result = if self.look {
                        Ok(())
                    } else {
                        unlinkat(dir.as_fd(), name, UnlinkatFlags::NoRemoveDir)
                    };
                    if result.is_ok() {
                        removed.0 = removed.0.saturating_add(1);
                        removed.1 = removed.1.saturating_add(u64::try_from(stat.st_size).unwrap_or_default());
                    }
                    done(result);
                    if self.look {
                        break;
                    }
                }
                _ => {}
            }
        }
        if !folders.is_empty() && depth >= DEEPEST {
            done(Err(Errno::ENAMETOOLONG));
            folders.clear();
        }
        cleaned.files = cleaned.files.saturating_add(removed.0);
        cleaned.bytes = cleaned.bytes.saturating_add(removed.1);
        for (name, id) in folders {
            if self.look && cleaned.files > 0 {
                return;
            }
            let opened = openat(dir.as_fd(), name.as_c_str(), FOLDER, Mode::empty());
            match opened.and_then(|fd| nix::sys::stat::fstat(&fd).map(|stat| (fd, stat))) {
                // What is here by now may be another: it is passed over.
                Ok((fd, stat)) if (stat.st_dev, stat.st_ino) == id => {
                    self.folder(fd, depth.saturating_add(1), cleaned);
                }
                Ok(_) | Err(Errno::ENOENT | Errno::ELOOP | Errno::ENOTDIR) => {}
                Err(_) => cleaned.failed = cleaned.failed.saturating_add(1),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    #[test]
    fn old_files_go_and_links_and_hostlers_own_stay() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for folder in ["p/a/b", "p/state", "other"] {
            fs::create_dir_all(at(folder)).unwrap();
        }
        for file in ["p/one", "p/a/b/two", "p/state/ledger", "other/three"] {
            fs::write(at(file), "12345").unwrap();
        }
        symlink(at("other"), at("p/a/link")).unwrap();
        let own = Own::new([at("p/state")]).unwrap();
        let fd = OwnedFd::from(fs::File::open(at("p")).unwrap());
        let device = fs::metadata(at("p")).unwrap().dev();
        let run = |before, bytes, look| clean(&fd, device, Old { before, bytes }, &own, look);
        assert_eq!(run(0, 0, false), Cleaned::default(), "too young");
        assert_eq!(run(i64::MAX, 6, false), Cleaned::default(), "too small");
        assert_eq!(run(i64::MAX, 0, true).files, 1);
        assert_eq!(run(i64::MAX, 0, false), Cleaned { files: 2, bytes: 10, failed: 0 });
        assert!(at("p/state/ledger").exists() && at("other/three").exists() && at("p/a/b").exists());
        assert_eq!(run(i64::MAX, 0, true), Cleaned::default());
    }
}
