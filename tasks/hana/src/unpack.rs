//! `media`: an archive of SAP becomes the folder that `install` and `update` read, or such a folder is looked at.
//!
//! The archive's checksum comes first, from the order: SAP shows it where the archive is downloaded. The folder has its
//! name only when all of it is extracted, its signature is where hdblcm looks for it, and its version is the wanted one.
//! hdblcm itself holds the files against the signature.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use nix::unistd::syncfs;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::change;
use crate::check;
use crate::error::{Error, quoted};
use crate::neighbours::media::{self, Media};
use crate::neighbours::sapcar;
use crate::report;
use crate::runner::Runner;
use crate::system::Version;

/// The file that says of which archive a folder is.
const NOTE: &str = ".hostler-media";
/// Most bytes of that file.
const MAX_NOTE: u64 = 4096;
/// Bytes that are read of an archive at a time.
const PIECE: usize = 1 << 20;

/// The SHA-256 of an archive, as 64 small hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Checksum(String);

impl std::str::FromStr for Checksum {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err("a SHA-256 is 64 hexadecimal digits".to_owned());
        }
        Ok(Self(text.to_ascii_lowercase()))
    }
}

impl Checksum {
    /// Of a file, read from its beginning to its end.
    fn of(runner: &Runner, path: &Path) -> Result<Self, Error> {
        let mut file = File::open(path).map_err(Error::local(path.display()))?;
        let (mut hash, mut piece) = (Sha256::new(), vec![0_u8; PIECE]);
        loop {
            runner.stopped()?;
            match file.read(&mut piece) {
                Ok(0) => break,
                Ok(length) => hash.update(piece.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::local(path.display())(error)),
            }
        }
        Ok(Self(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()))
    }
}

/// An archive and what it must be.
#[derive(Clone, Debug)]
pub struct Archive {
    /// Its place.
    pub path: PathBuf,
    /// Its checksum.
    pub sha256: Checksum,
    /// The program that extracts it.
    pub sapcar: PathBuf,
}

/// What a folder with media must be.
#[derive(Clone, Debug)]
pub struct Wish {
    /// The folder.
    pub folder: PathBuf,
    /// The archive that it is extracted from; `None`: somebody has extracted it.
    pub archive: Option<Archive>,
    /// The version that the media must have; `None`: any.
    pub version: Option<Version>,
}

/// What the folder says of its archive.
#[derive(Serialize, Deserialize)]
struct Note {
    sha256: Checksum,
}

fn beside(folder: &Path, more: &str) -> PathBuf {
    let mut name: OsString = folder.as_os_str().to_owned();
    name.push(more);
    PathBuf::from(name)
}

/// Looks at extracted media: it is whole enough for hdblcm, signed, and of the wanted version.
fn look(runner: &Runner, folder: &Path, version: Option<&Version>) -> Result<Version, Error> {
    let system = runner.system();
    let found = Media::find(&system.root, folder)?;
    let manifest = system.at(&found.manifest);
    let has = media::version_at(&manifest)?
        .ok_or_else(|| Error::Unclear(format!("{} is not there", manifest.display())))?;
    if let Some(wanted) = version.filter(|wanted| **wanted != has) {
        return Err(Error::Refused(format!(
            "the media in {} is {has} and not {wanted}: bring the archive of {wanted}, or name the version {has} if you want it",
            folder.display()
        )));
    }
    let signature = system.at(&found.signature);
    match fs::metadata(&signature) {
        Ok(there) if there.is_file() && there.len() > 0 => Ok(has),
        Ok(_) => Err(Error::Refused(format!("{} is empty: extract the archive again", signature.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::Refused(format!(
            "{} is not there, and hdblcm verifies the signature: extract the archive with -manifest {}",
            signature.display(),
            sapcar::SIGNATURE
        ))),
        Err(error) => Err(Error::local(signature.display())(error)),
    }
}

/// The checksum of the archive that a folder was extracted from; `None` when it has no such note, or is not there.
fn noted(folder: &Path) -> Result<Option<Checksum>, Error> {
    let place = folder.join(NOTE);
    match fs::metadata(&place) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(Error::local(place.display())(error)),
        Ok(there) if there.len() > MAX_NOTE => {
            return Err(Error::Unclear(format!("{} is too large", place.display())));
        }
        Ok(_) => {}
    }
    let text = fs::read(&place).map_err(Error::local(place.display()))?;
    let note: Note = serde_json::from_slice(&text)
        .map_err(|error| Error::Unclear(format!("{}: {error}", place.display())))?;
    Ok(Some(note.sha256))
}

/// Whether the folder is there as wanted; nothing is changed.
///
/// # Errors
/// `No` when the archive is not extracted yet.
pub fn is_there(runner: &Runner, wish: &Wish) -> Result<Version, Error> {
    let place = runner.system().at(&wish.folder);
    if let Some(archive) = &wish.archive
        && noted(&place)?.as_ref() != Some(&archive.sha256)
    {
        return Err(Error::No(format!("{} is not extracted from this archive", wish.folder.display())));
    }
    look(runner, &wish.folder, wish.version.as_ref())
}

/// Extracts the archive, if the folder is not there as wanted. A repetition changes nothing.
pub fn carry_out(runner: &Runner, wish: &Wish) -> Result<Version, Error> {
    let Some(archive) = &wish.archive else { return look(runner, &wish.folder, wish.version.as_ref()) };
    let system = runner.system();
    let place = system.at(&wish.folder);
    match noted(&place)? {
        Some(of) if of == archive.sha256 => return look(runner, &wish.folder, wish.version.as_ref()),
        _ if fs::symlink_metadata(&place).is_ok() => {
            return Err(Error::Refused(format!(
                "{} is there and is not of this archive: name another folder, or remove it",
                place.display()
            )));
        }
        _ => {}
    }
    report::message(&format!("reading {}", archive.path.display()))?;
    let from = system.at(&archive.path);
    let has = Checksum::of(runner, &from)?;
    if has != archive.sha256 {
        return Err(Error::Refused(format!(
            "{} has the SHA-256 {} and not {}: download it again, or compare the number with SAP's",
            from.display(),
            has.0,
            archive.sha256.0
        )));
    }
    // A SAPCAR whose caller was killed would write among the files of the next one. What it left is of no use.
    change::wait_alone(runner, "SAPCAR", check::extractions_at_work)?;
    let new = beside(&wish.folder, ".hostler-new");
    let into = system.at(&new);
    match fs::remove_dir_all(&into) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(Error::local(into.display())(error));
        }
        _ => {}
    }
    fs::create_dir_all(&into).map_err(Error::local(into.display()))?;
    report::message(&format!("extracting {}", archive.path.display()))?;
    let outcome = runner.run(&sapcar::extract(&archive.sapcar, &archive.path, &new))?;
    match outcome.code()? {
        0 => {}
        code => {
            let text = if outcome.err.trim().is_empty() { &outcome.out } else { &outcome.err };
            let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
            return Err(Error::Tool(format!("SAPCAR ended with {code}: {}", quoted(last.trim()))));
        }
    }
    let version = match signed(runner, &new, wish.version.as_ref()) {
        Ok(version) => version,
        Err(error) => {
            // It is of no use to anybody, and large.
            let _ = fs::remove_dir_all(&into);
            return Err(error);
        }
    };
    let note = serde_json::to_vec(&Note { sha256: archive.sha256.clone() })
        .map_err(|error| Error::Local(error.to_string()))?;
    finish(&into, &place, &note).map_err(Error::local(place.display()))?;
    Ok(version)
}

/// Puts the signature where hdblcm looks for it, in the component's folder, and looks at what was extracted.
fn signed(runner: &Runner, new: &Path, version: Option<&Version>) -> Result<Version, Error> {
    let system = runner.system();
    let signature = system.at(new).join(sapcar::SIGNATURE);
    let found = Media::find(&system.root, new)?;
    if signature.is_file() {
        fs::rename(&signature, system.at(&found.signature)).map_err(Error::local(signature.display()))?;
    }
    look(runner, new, version)
}

/// Gives the extracted folder its name, once all of it is on the disk.
fn finish(new: &Path, place: &Path, note: &[u8]) -> io::Result<()> {
    fs::write(new.join(NOTE), note)?;
    syncfs(File::open(new)?)?;
    fs::rename(new, place)?;
    place.parent().map_or(Ok(()), |above| File::open(above)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums() {
        let text = "ABCDEF0123456789".repeat(4);
        assert_eq!(text.parse::<Checksum>().unwrap().0, text.to_ascii_lowercase());
        for wrong in ["", "ab", &"g".repeat(64), &"a".repeat(63), &"a".repeat(65)] {
            assert!(wrong.parse::<Checksum>().is_err(), "{wrong}");
        }
    }
}
