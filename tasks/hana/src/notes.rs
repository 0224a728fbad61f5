//! What a run has done so far, on the disk: a repetition goes on from there, whatever died.
//!
//! A note is a small JSON file in `/var/lib/hostler-hana`, named after the system, the run and what it is of. It is on the
//! disk, with its folder, before the next thing happens.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::backup::Run;
use crate::error::Error;
use crate::system::System;

const FOLDER: &str = "/var/lib/hostler-hana";
/// Most that a note may hold.
const MAX_BYTES: u64 = 64 * 1024;

/// The note of one thing.
#[derive(Clone, Debug)]
pub struct Note {
    folder: PathBuf,
    name: String,
}

impl Note {
    /// The note of that run.
    pub fn of(system: &System, run: &Run, what: &str) -> Self {
        Self { folder: system.at(FOLDER), name: format!("{}.{}.{what}", system.sid, run.as_str()) }
    }

    fn path(&self) -> PathBuf {
        self.folder.join(&self.name)
    }

    /// What was noted; `None` when nothing was.
    pub fn read<T: DeserializeOwned>(&self) -> Result<Option<T>, Error> {
        let path = self.path();
        match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::local(path.display())(error)),
            Ok(there) if there.len() > MAX_BYTES => {
                return Err(Error::Unclear(format!("{}: this is no note of this program", path.display())));
            }
            Ok(_) => {}
        }
        let bytes = fs::read(&path).map_err(Error::local(path.display()))?;
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| Error::Unclear(format!("{}: {error}", path.display())))
    }

    /// Notes it, durably.
    pub fn write(&self, value: &impl Serialize) -> Result<(), Error> {
        let text = serde_json::to_vec(value).map_err(|error| Error::Local(error.to_string()))?;
        self.put(&text).map_err(Error::local(self.path().display()))
    }

    fn put(&self, text: &[u8]) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        fs::set_permissions(&self.folder, fs::Permissions::from_mode(0o700))?;
        let beside = self.folder.join(format!(".{}.new", self.name));
        let mut file = File::create(&beside)?;
        file.write_all(text)?;
        file.sync_all()?;
        fs::rename(&beside, self.path())?;
        File::open(&self.folder)?.sync_all()?;
        // The folder itself may be new.
        self.folder.parent().map_or(Ok(()), |above| File::open(above)?.sync_all())
    }

    /// Forgets it: what it was of has ended.
    pub fn remove(&self) -> Result<(), Error> {
        match fs::remove_file(self.path()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::local(self.path().display())(error))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_of_one_run_and_one_thing() {
        let root = tempfile::tempdir().unwrap();
        let system = System {
            sid: "HDB".parse().unwrap(),
            number: "00".parse().unwrap(),
            root: root.path().to_owned(),
            sapmnt: "/hana/shared".into(),
        };
        let note = |run: &str, what| Note::of(&system, &run.parse().unwrap(), what);
        assert_eq!(note("R1", "restore").read::<Vec<String>>().unwrap(), None);
        note("R1", "restore").write(&["SYSTEMDB"]).unwrap();
        note("R1", "restore").write(&["SYSTEMDB", "HDB"]).unwrap();
        assert_eq!(note("R1", "restore").read::<Vec<String>>().unwrap().unwrap().len(), 2);
        assert_eq!(note("R2", "restore").read::<Vec<String>>().unwrap(), None);
        assert_eq!(note("R1", "takeover").read::<Vec<String>>().unwrap(), None);
        fs::write(root.path().join("var/lib/hostler-hana/HDB.R2.restore"), "{").unwrap();
        assert_eq!(note("R2", "restore").read::<Vec<String>>().unwrap_err().code(), 5, "no guess");
        note("R1", "restore").remove().unwrap();
        note("R1", "restore").remove().unwrap();
        assert_eq!(note("R1", "restore").read::<Vec<String>>().unwrap(), None);
    }
}
