//! Tablespaces where files are linked. Each version has a folder of its own in a tablespace, `PG_13_202007201` beside
//! `PG_15_202209061`, so that two clusters of different versions share the place and no file.
//!
//! In place both clusters use the same places. A copy must not: it is of the old version, and has its tablespaces in places
//! of its own beside those, which the new cluster keeps.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use super::{Cluster, remove_folder};
use crate::error::Error;

/// The places of a cluster's tablespaces; of one that is half removed those that it still names.
///
/// # Errors
/// [`Error::Refused`] if one is a folder inside the data, which no upgrade can tell from it.
pub fn of(cluster: &Cluster) -> Result<Vec<PathBuf>, Error> {
    let mut places = Vec::new();
    for entry in entries(&cluster.data.join("pg_tblspc"))? {
        match outside(&entry, &cluster.data) {
            Some(place) => places.push(place),
            None => {
                return Err(Error::Refused(format!(
                    "{}: the tablespace {} is inside of its folder of data: move its tables first",
                    cluster.title(),
                    entry.display()
                )));
            }
        }
    }
    places.sort();
    Ok(places)
}

/// Where a link of a folder of data leads, if that is outside of it.
fn outside(link: &Path, data: &Path) -> Option<PathBuf> {
    fs::read_link(link).ok().filter(|place| place.is_absolute() && !place.starts_with(data))
}

/// Removes what a folder of data that is about to be removed has in tablespaces outside of it.
///
/// # Errors
/// If something of it is still there.
pub(super) fn clear_of(data: &Path, version: u16) -> Result<(), Error> {
    let links = entries(&data.join("pg_tblspc"))?;
    let places: Vec<_> = links.iter().filter_map(|link| outside(link, data)).collect();
    clear(&places, version)
}

/// What is in a folder; nothing if it does not exist.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let all = match fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        all => all.map_err(Error::local(folder.display()))?,
    };
    all.map(|entry| Ok(entry.map_err(Error::local(folder.display()))?.path())).collect()
}

/// The folders of a version in a tablespace.
fn folders(place: &Path, version: u16) -> Result<Vec<PathBuf>, Error> {
    let mut all = entries(place)?;
    let begins = format!("PG_{version}_");
    all.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&begins)));
    Ok(all)
}

/// The tablespaces of a cluster, if no cluster of another version has files in them.
///
/// # Errors
/// [`Error::Refused`] if one has.
pub fn free(cluster: &Cluster, version: u16) -> Result<Vec<PathBuf>, Error> {
    let places = of(cluster)?;
    for place in &places {
        if let Some(folder) = folders(place, version)?.first() {
            return Err(Error::Refused(format!(
                "{} exists: a cluster of version {version} uses the tablespace, or has left it: move that away",
                folder.display()
            )));
        }
    }
    Ok(places)
}

/// Removes what a version has in these places. Only for what the caller knows to be its own work.
///
/// # Errors
/// If something of it is still there.
pub fn clear(places: &[PathBuf], version: u16) -> Result<(), Error> {
    for place in places {
        for folder in folders(place, version)? {
            remove_folder(&folder)?;
        }
    }
    Ok(())
}

/// The place of a copy of a tablespace, beside it: on the same file system where that can be.
pub fn beside(place: &Path, to: u16, name: &str) -> PathBuf {
    let mut beside = place.as_os_str().to_owned();
    beside.push(format!(".{to}-{name}"));
    beside.into()
}

/// The option of `pg_basebackup` that copies a tablespace to another place.
pub fn mapping(from: &Path, to: &Path) -> OsString {
    let quoted = |path: &Path| path.display().to_string().replace('=', "\\=");
    format!("--tablespace-mapping={}={}", quoted(from), quoted(to)).into()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::{beside, clear, free, mapping, of};
    use crate::exec::Owner;
    use crate::layout::Cluster;

    #[test]
    fn only_the_folders_of_a_version_go() {
        let folder = tempfile::tempdir().unwrap();
        let (data, place) = (folder.path().join("data"), folder.path().join("a=b"));
        for made in ["PG_13_202007201/1", "PG_15_202209061/1", "PG_150_1", "mine"] {
            fs::create_dir_all(place.join(made)).unwrap();
        }
        let cluster = Cluster {
            version: 13,
            name: "main".to_owned(),
            port: 1,
            configured: 1,
            socket: "/".into(),
            data: data.clone(),
            conf: "/".into(),
            running: false,
            owner: Owner { uid: 0, gid: 0 },
        };
        assert!(of(&cluster).unwrap().is_empty());
        fs::create_dir_all(data.join("pg_tblspc")).unwrap();
        symlink(&place, data.join("pg_tblspc/16400")).unwrap();
        assert_eq!(of(&cluster).unwrap(), std::slice::from_ref(&place));
        assert!(free(&cluster, 15).unwrap_err().to_string().contains("PG_15_202209061 exists"));
        clear(std::slice::from_ref(&place), 15).unwrap();
        assert_eq!(free(&cluster, 15).unwrap(), std::slice::from_ref(&place));
        assert!(
            place.join("PG_13_202007201").exists()
                && place.join("PG_150_1").exists()
                && place.join("mine").exists()
        );
        assert_eq!(beside(&place, 15, "main").file_name().unwrap(), "a=b.15-main");
        let said = mapping(Path::new("/a=b"), Path::new("/c"));
        assert_eq!(said, "--tablespace-mapping=/a\\=b=/c");
        fs::create_dir(data.join("pg_tblspc/16401")).unwrap();
        assert!(of(&cluster).unwrap_err().to_string().contains("inside"));
    }
}
