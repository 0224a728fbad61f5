//! A restored folder: made new beside its later name, filled through its descriptor, and renamed when it is whole.
//!
//! All of it happens in a folder of root's in which nobody else can make a name, so that nobody can put a link there.

use std::ffi::OsString;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, RenameFlags, openat, renameat, renameat2};
use nix::sys::stat::{Mode, fstatat, mkdirat};
use nix::unistd::syncfs;

use super::Refusal;
use super::folder::{self, Folder, Own};

/// A folder that is being restored; it goes with this value unless it was [kept](Target::keep).
#[derive(Debug)]
pub struct Target {
    parent: Folder,
    name: OsString,
    new: OsString,
    /// The new folder: what is unpacked into it goes through this descriptor.
    pub fd: OwnedFd,
    kept: bool,
}

impl Target {
    /// Makes a new folder beside `path`, and removes what earlier attempts for the same path have left.
    ///
    /// # Errors
    /// It may not be made there, or there is something already.
    pub fn make(path: &Path, places: &[PathBuf], own: &Own) -> Result<Self, Refusal> {
        let shown = path.display();
        let failed = |errno: Errno| Refusal::io(&shown)(errno.into());
        let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Refusal::Refused(format!("{shown} names no folder")));
        };
        // A place that is not there yet is made; root's own list names it.
        for place in places.iter().filter(|place| above.starts_with(place)) {
            fs::create_dir_all(place).map_err(Refusal::io(place.display()))?;
        }
        let parent = folder::admit(above, places, "places.restore", own, true)?;
        match fstatat(&parent.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Err(Errno::ENOENT) => {}
            Ok(_) => return Err(Refusal::Refused(format!("{shown} exists: nothing is overwritten"))),
            Err(errno) => return Err(failed(errno)),
        }
        let mut prefix = OsString::from(".");
        prefix.push(name);
        prefix.push(".hostler-");
        for entry in fs::read_dir(parent.name()).map_err(Refusal::io(&shown))?.flatten() {
            if entry.file_name().as_encoded_bytes().starts_with(prefix.as_encoded_bytes()) {
                fs::remove_dir_all(entry.path()).map_err(Refusal::io(&shown))?;
            }
        }
        let mut new = prefix;
        new.push(std::process::id().to_string());
        mkdirat(&parent.fd, new.as_os_str(), Mode::S_IRWXU).map_err(failed)?;
        let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = openat(&parent.fd, new.as_os_str(), flags, Mode::empty()).map_err(failed)?;
        Ok(Self { parent, name: name.to_owned(), new, fd, kept: false })
    }

    /// Gives it its name, once all of it is on the disk.
    ///
    /// # Errors
    /// It has no name then, and is removed.
    pub fn keep(mut self) -> Result<(), Refusal> {
        let shown = self.parent.path.join(&self.name);
        let failed = |errno: Errno| Refusal::io(shown.display())(errno.into());
        syncfs(&self.fd).map_err(failed)?;
        let (parent, new, name) = (&self.parent.fd, self.new.as_os_str(), self.name.as_os_str());
        match renameat2(parent, new, parent, name, RenameFlags::RENAME_NOREPLACE) {
            // Not every file system can; nobody else can make a name here.
            Err(Errno::EINVAL | Errno::ENOSYS) => renameat(parent, new, parent, name),
            renamed => renamed,
        }
        .map_err(failed)?;
        self.kept = true;
        nix::unistd::fsync(&self.parent.fd).map_err(failed)
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        let path = Path::new(&self.parent.name()).join(&self.new);
        if let Err(error) = fs::remove_dir_all(&path) {
            tracing::error!("{} of {} is left: {error}", self.new.display(), self.parent.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_appears_when_the_folder_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("restore");
        let path = place.join("db");
        let places = [place.clone()];
        let own = Own::default();
        let target = Target::make(&path, &places, &own).unwrap();
        drop(target);
        assert_eq!(fs::read_dir(&place).unwrap().count(), 0, "what failed leaves nothing");
        // What died leaves a folder; the next attempt removes it.
        fs::create_dir_all(place.join(".db.hostler-1/x")).unwrap();
        let target = Target::make(&path, &places, &own).unwrap();
        assert!(!path.exists());
        target.keep().unwrap();
        assert_eq!(fs::read_dir(&place).unwrap().count(), 1);
        let again = Target::make(&path, &places, &own).unwrap_err().to_string();
        assert!(again.contains("nothing is overwritten"), "{again}");
        assert!(Target::make(&place.join("no/db"), &places, &own).is_err());
        assert!(Target::make(&dir.path().join("db"), &places, &own).is_err());
    }
}
