//! The reserve: room in the state folder that is taken beforehand, and given up for what frees a full disk.
//!
//! A folder of one file that holds bytes and many empty ones that hold inodes. It is made whole again when the disk has
//! room for it twice. Nothing is promised of what a third party does with the room in the moment it becomes free.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::statvfs::statvfs;

use crate::host::disk::{self, DiskError, PathContext};

/// The bytes that are held.
pub const BYTES: u64 = 16 << 20;
/// The inodes that are held: a run takes a dozen.
pub const INODES: u64 = 64;

/// What is free on the file system of a folder, for root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Free {
    /// Bytes.
    pub bytes: u64,
    /// Inodes; none where the file system has as many as it needs.
    pub inodes: Option<u64>,
}

impl Free {
    /// Asks the system.
    pub fn of(folder: &Path) -> Result<Self, DiskError> {
        let stat = statvfs(folder).map_err(std::io::Error::from).with_path("look at the disk of", folder)?;
        let inodes = (stat.files() > 0).then(|| stat.files_free());
        Ok(Self { bytes: stat.blocks_free().saturating_mul(stat.fragment_size()), inodes })
    }

    fn has(self, bytes: u64, inodes: u64) -> bool {
        self.bytes >= bytes && self.inodes.is_none_or(|free| free >= inodes)
    }

    /// Whether so little is left that nothing ordinary may start; one line for the operator.
    pub fn low(self, folder: &Path) -> Option<String> {
        let tasks = "nothing starts but tasks with `emergency: true`, such as disk-cleanup";
        let place = folder.display();
        if self.bytes < BYTES {
            return Some(format!("disk full: {} KiB are free for {place}; {tasks}", self.bytes >> 10));
        }
        let inodes = self.inodes.filter(|free| *free < INODES)?;
        Some(format!("disk full: {inodes} inodes are free for {place}; {tasks}"))
    }
}

/// The reserve of a state folder.
#[derive(Clone, Debug)]
pub struct Reserve {
    dir: PathBuf,
}

impl Reserve {
    /// Of this state folder.
    pub fn of(state_dir: &Path) -> Self {
        Self { dir: state_dir.join("reserve") }
    }

    fn bytes(&self) -> PathBuf {
        self.dir.join("bytes")
    }

    /// Whether there is something to give up.
    pub fn is_there(&self) -> bool {
        self.bytes().exists()
    }

    /// Makes it, unless that would take what is left; whether it is whole now.
    pub fn make(&self) -> Result<bool, DiskError> {
        if self.is_there() {
            return Ok(true);
        }
        if !Free::of(disk::parent(&self.dir))?.has(2 * BYTES, 2 * INODES) {
            return Ok(false);
        }
        disk::make_dir(&self.dir)?;
        for n in 0..INODES {
            let path = self.dir.join(format!("inode.{n}"));
            OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)
                .with_path("create", &path)?;
        }
        // The file that says that all is there comes last, under its name when it has its size.
        self.make_bytes()?;
        disk::sync_dir(&self.dir)?;
        Ok(true)
    }

    /// Of a file that cannot get its size or its name nothing is left: it would be the last room of a full disk.
    fn make_bytes(&self) -> Result<(), DiskError> {
        let temp = self.dir.join("bytes.tmp");
        self.fill_bytes(&temp).inspect_err(|_| drop(fs::remove_file(&temp)))
    }

    fn fill_bytes(&self, temp: &Path) -> Result<(), DiskError> {
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(temp);
        let file = file.with_path("create", temp)?;
        let length = i64::try_from(BYTES).unwrap_or(i64::MAX);
        match fallocate(&file, FallocateFlags::empty(), 0, length) {
            Ok(()) => {}
            // Such a file system takes room only for what is written.
            Err(Errno::EOPNOTSUPP) => fill(&file).with_path("write", temp)?,
            Err(errno) => return Err(std::io::Error::from(errno)).with_path("reserve room in", temp),
        }
        file.sync_all().with_path("sync", temp)?;
        fs::rename(temp, self.bytes()).with_path("replace", &self.bytes())
    }

    /// Gives it up; whether there was something to give.
    pub fn release(&self) -> Result<bool, DiskError> {
        let was = self.is_there();
        match fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_path("remove", &self.dir)
            }
            _ => Ok(was),
        }
    }
}

fn fill(mut file: &fs::File) -> std::io::Result<()> {
    use std::io::Write;
    let block = [0xa5_u8; 1 << 16];
    (0..BYTES >> 16).try_for_each(|_| file.write_all(&block))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn it_takes_its_room_and_gives_it_back() {
        let dir = tempfile::tempdir().unwrap();
        let reserve = Reserve::of(dir.path());
        assert!(!reserve.release().unwrap());
        assert!(reserve.make().unwrap() && reserve.make().unwrap());
        let taken = fs::metadata(reserve.bytes()).unwrap();
        assert!(taken.blocks() * 512 >= BYTES, "{} blocks", taken.blocks());
        assert_eq!(fs::read_dir(dir.path().join("reserve")).unwrap().count() as u64, INODES + 1);
        assert!(reserve.release().unwrap() && !reserve.is_there());
    }

    #[test]
    fn what_cannot_be_made_takes_no_room() {
        let dir = tempfile::tempdir().unwrap();
        let reserve = Reserve::of(dir.path());
        // A folder that is not empty in its place: nothing can be renamed over it.
        fs::create_dir_all(reserve.bytes().join("x")).unwrap();
        assert!(reserve.make_bytes().is_err());
        assert_eq!(fs::read_dir(&reserve.dir).unwrap().count(), 1, "the folder alone");
    }

    #[test]
    fn little_is_told_for_what_it_is() {
        let low = |bytes, inodes| Free { bytes, inodes }.low(Path::new("/s"));
        assert_eq!(low(BYTES, None), None);
        assert_eq!(low(BYTES, Some(INODES)), None);
        assert!(low(BYTES - 1, None).unwrap().contains("16383 KiB are free for /s"));
        assert!(low(BYTES, Some(3)).unwrap().contains("3 inodes are free"));
    }
}
