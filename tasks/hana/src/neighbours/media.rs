//! SAP's media after it was extracted, and the manifest that says which version it has.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, Reading, quoted, unclear};
use crate::system::Version;

/// Most that is read of a manifest or a label.
const MAX_BYTES: u64 = 64 * 1024;

/// A folder with the database server and its hdblcm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Media {
    /// What `--component_root` is.
    pub root: PathBuf,
    /// The program.
    pub hdblcm: PathBuf,
    /// The server's manifest.
    pub manifest: PathBuf,
    /// The signature of the server's component, without which `--verify_signature` fails.
    pub signature: PathBuf,
}

impl Media {
    /// The layout of today: `SAP_HANA_DATABASE` with everything in it.
    ///
    /// Source: SUSE/shaptools shaptools/hana.py; community.sap_install roles/sap_hana_install extract_sarfile.yml.
    pub fn current(root: &Path) -> Self {
        let server = root.join("SAP_HANA_DATABASE");
        Self {
            root: root.to_owned(),
            hdblcm: server.join("hdblcm"),
            manifest: server.join("server/manifest"),
            signature: server.join("SIGNATURE.SMF"),
        }
    }

    /// The layout of full media: `LABEL.ASC` and `DATA_UNITS`. Source: SUSE/shaptools shaptools/hana.py.
    pub fn labelled(root: &Path) -> Self {
        let server = root.join("DATA_UNITS/HDB_SERVER_LINUX_X86_64");
        Self {
            root: root.to_owned(),
            hdblcm: root.join("DATA_UNITS/HDB_LCM_LINUX_X86_64/hdblcm"),
            manifest: server.join("server/manifest"),
            signature: server.join("SIGNATURE.SMF"),
        }
    }

    /// Finds which layout the folder has. Paths in the result are as in `folder`; files are sought below `root`.
    pub fn find(root: &Path, folder: &Path) -> Result<Self, Error> {
        let at = |path: &Path| root.join(path.strip_prefix("/").unwrap_or(path));
        let current = Self::current(folder);
        if at(&current.hdblcm).is_file() {
            return Ok(current);
        }
        let label = folder.join("LABEL.ASC");
        if at(&label).is_file() && is_hana(&read(&at(&label))?) {
            let labelled = Self::labelled(folder);
            if at(&labelled.hdblcm).is_file() {
                return Ok(labelled);
            }
        }
        Err(Error::Config(format!(
            "{} holds no SAP_HANA_DATABASE/hdblcm: name the folder into which the media was extracted",
            folder.display()
        )))
    }
}

/// Whether a `LABEL.ASC` is of HANA for this machine: `HDB:HANA:…:LINUX_X86_64:…`
pub fn is_hana(label: &str) -> bool {
    label
        .lines()
        .any(|line| line.strip_prefix("HDB:HANA:").is_some_and(|rest| rest.contains(":LINUX_X86_64:")))
}

/// The version in a manifest: its line `fullversion: 2.00.063.00 Build 1655123455-1530`.
pub fn version(manifest: &str) -> Reading<Version> {
    let mut versions = manifest.lines().filter_map(|line| line.trim().strip_prefix("fullversion:"));
    match (versions.next(), versions.next()) {
        (Some(text), None) => Version::read(text.trim()),
        (Some(_), Some(_)) => unclear("the manifest has two lines fullversion"),
        (None, _) => unclear(format!("the manifest has no line fullversion: {}", quoted(manifest.trim()))),
    }
}

/// The version in the manifest at that path; `None` when it does not exist.
pub fn version_at(path: &Path) -> Result<Option<Version>, Error> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::local(path.display())(error)),
        Ok(_) => match version(&read(path)?) {
            Ok(version) => Ok(Some(version)),
            Err(unclear) => Err(Error::Unclear(format!("{}: {unclear}", path.display()))),
        },
    }
}

fn read(path: &Path) -> Result<String, Error> {
    let size = fs::metadata(path).map_err(Error::local(path.display()))?.len();
    if size > MAX_BYTES {
        return Err(Error::Unclear(format!("{}: {size} bytes are too many", path.display())));
    }
    let bytes = fs::read(path).map_err(Error::local(path.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_manifests() {
        let text = "compversion-id: 1\nfullversion: 2.00.063.00 Build 1655123455-1530\nrev-number: 63\nsp-number: 060\n";
        assert_eq!(version(text).unwrap(), "2.00.063.00".parse().unwrap());
        for odd in ["", "rev-number: 63", "fullversion:", "fullversion: new", &format!("{text}{text}")] {
            assert!(version(odd).is_err(), "{odd}");
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("manifest");
        assert_eq!(version_at(&path).unwrap(), None);
        fs::write(&path, text).unwrap();
        assert!(version_at(&path).unwrap().is_some());
        fs::write(&path, "").unwrap();
        assert_eq!(version_at(&path).unwrap_err().code(), 5);
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("nowhere", &path).unwrap();
        assert_eq!(version_at(&path).unwrap_err().code(), 9, "a link to nothing is not `nothing`");
    }

    #[test]
    fn layouts() {
        let root = tempfile::tempdir().unwrap();
        let folder = Path::new("/media/hana");
        assert_eq!(Media::find(root.path(), folder).unwrap_err().code(), 3);
        let old = root.path().join("media/hana/DATA_UNITS/HDB_LCM_LINUX_X86_64");
        fs::create_dir_all(&old).unwrap();
        fs::write(old.join("hdblcm"), "").unwrap();
        assert!(Media::find(root.path(), folder).is_err(), "without its label");
        fs::write(root.path().join("media/hana/LABEL.ASC"), "HDB:HANA:2.0:LINUX_X86_64:SAP HANA\n").unwrap();
        assert_eq!(Media::find(root.path(), folder).unwrap(), Media::labelled(folder));
        let new = root.path().join("media/hana/SAP_HANA_DATABASE");
        fs::create_dir_all(&new).unwrap();
        fs::write(new.join("hdblcm"), "").unwrap();
        assert_eq!(Media::find(root.path(), folder).unwrap(), Media::current(folder));
        assert!(!is_hana("HDB:CLIENT:2.0:LINUX_X86_64:x"));
        assert!(!is_hana("HDB:HANA:2.0:LINUX_PPC64LE:x"));
    }
}
