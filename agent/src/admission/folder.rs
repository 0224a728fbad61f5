//! A folder that was opened and checked: found component by component from `/`, no link followed, in a place of root's
//! list. What works in it uses its descriptor, so that no later change of names leads elsewhere.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{FileStat, Mode, fstat};
use nix::unistd::geteuid;

use super::{PATH, Refusal};

const FOLDER: OFlag = OFlag::O_DIRECTORY.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// What tells one file from another: device and number.
pub type Identity = (u64, u64);

/// Whether a file belongs to root, or to the user as which this process runs.
pub fn is_of_root(uid: u32) -> bool {
    uid == 0 || uid == geteuid().as_raw()
}

/// Hostler's own folders, which no shipped task touches.
#[derive(Clone, Debug, Default)]
pub struct Own {
    paths: Vec<PathBuf>,
    ids: Vec<Identity>,
}

impl Own {
    /// These folders, as far as they exist.
    ///
    /// # Errors
    /// One of them cannot be looked at: what is in it could not be protected.
    pub fn new(paths: impl IntoIterator<Item = PathBuf>) -> Result<Self, Refusal> {
        let mut own = Self::default();
        for path in paths {
            match fs::canonicalize(&path).and_then(|path| Ok((fs::metadata(&path)?, path))) {
                Ok((meta, path)) => {
                    own.ids.push((meta.dev(), meta.ino()));
                    own.paths.push(path);
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(Refusal::io(path.display())(error)),
            }
        }
        Ok(own)
    }

    /// Whether this is one of them.
    pub fn has(&self, id: Identity) -> bool {
        self.ids.contains(&id)
    }

    /// Those below a folder, by their names from it.
    pub fn below<'a>(&'a self, folder: &'a Path) -> impl Iterator<Item = &'a Path> {
        self.paths.iter().filter_map(move |own| own.strip_prefix(folder).ok())
    }
}

/// An open folder.
#[derive(Debug)]
pub struct Folder {
    /// Its descriptor.
    pub fd: OwnedFd,
    /// As it was named.
    pub path: PathBuf,
    /// As it is, without links: where it is now, should it be renamed later.
    pub real: PathBuf,
}

impl Folder {
    /// What it is.
    pub fn stat(&self) -> Result<FileStat, Refusal> {
        fstat(&self.fd).map_err(|errno| Refusal::io(self.path.display())(errno.into()))
    }

    /// Its name for a program that inherits the descriptor, as long as it is open there.
    pub fn name(&self) -> String {
        format!("/proc/self/fd/{}", self.fd.as_raw_fd())
    }
}

/// Opens a folder in one of the places, or below one.
///
/// `rootly`: it and each folder from the place down to it must belong to root and be writable by nobody else, as it has
/// to be where something is made in it by name.
///
/// # Errors
/// It is in no place, a component is a link or missing, or it belongs to Hostler.
pub fn admit(
    path: &Path,
    places: &[PathBuf],
    list: &str,
    own: &Own,
    rootly: bool,
) -> Result<Folder, Refusal> {
    let shown = path.display();
    let refused = |why: String| Refusal::Refused(format!("{shown} is refused: {why}"));
    let plain = |path: &Path| {
        path.is_absolute() && path.components().skip(1).all(|c| matches!(c, Component::Normal(_)))
    };
    let text = path.to_string_lossy();
    if !plain(path) || text.contains("//") || text.contains("/./") || text.ends_with("/.") {
        return Err(refused("a full path without `.`, `..` and `//` is needed".to_owned()));
    }
    // Root may name a place by a link; what is below it may have none.
    let found = places.iter().find_map(|place| {
        let real = fs::canonicalize(place).ok()?;
        let rest = path.strip_prefix(place).or_else(|_| path.strip_prefix(&real)).ok()?.to_owned();
        Some((real, rest))
    });
    let Some((place, rest)) = found else {
        let there: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
        let why = format!("it is in none of the folders of {list} in {PATH} ({})", there.join(", "));
        return Err(refused(why));
    };
    let step = |fd: &OwnedFd, part: &std::ffi::OsStr, so_far: &Path| {
        openat(fd, part, FOLDER, Mode::empty()).map_err(|errno| match errno {
            Errno::ELOOP | Errno::ENOTDIR => refused(format!("{} is no folder, or a link", so_far.display())),
            errno => Refusal::io(so_far.display())(errno.into()),
        })
    };
    let look = |fd: &OwnedFd| fstat(fd).map_err(|errno| Refusal::io(&shown)(errno.into()));
    let mut fd = open("/", FOLDER, Mode::empty()).map_err(|errno| Refusal::io("/")(errno.into()))?;
    let mut real = PathBuf::from("/");
    let in_place = place.components().count();
    for (n, part) in place.join(&rest).components().enumerate().skip(1) {
        let stat = look(&fd)?;
        // Above the place others could put another folder in its stead; a sticky folder keeps what is root's.
        if n < in_place
            && (!is_of_root(stat.st_uid) || (stat.st_mode & 0o022 != 0 && stat.st_mode & 0o1000 == 0))
        {
            let why =
                format!("others than root can write {}, above the place {}", real.display(), place.display());
            return Err(refused(why));
        }
        if own.has((stat.st_dev, stat.st_ino)) {
            return Err(refused("it belongs to Hostler".to_owned()));
        }
        if rootly && n >= in_place {
            only_root(&stat, &real).map_err(&refused)?;
        }
        real.push(part);
        fd = step(&fd, part.as_os_str(), &real)?;
    }
    let stat = look(&fd)?;
    if own.has((stat.st_dev, stat.st_ino)) {
        return Err(refused("it belongs to Hostler".to_owned()));
    }
    if rootly {
        only_root(&stat, &real).map_err(&refused)?;
    }
    // A bind mount can show one of Hostler's folders, or a part of it, under another name.
    if own_above(fd.as_fd(), own).map_err(|errno| Refusal::io(&shown)(errno.into()))? {
        return Err(refused("it belongs to Hostler".to_owned()));
    }
    Ok(Folder { fd, path: path.to_owned(), real })
}

fn only_root(stat: &FileStat, path: &Path) -> Result<(), String> {
    if is_of_root(stat.st_uid) && stat.st_mode & 0o022 == 0 {
        return Ok(());
    }
    Err(format!("others than root can write {}", path.display()))
}

/// Whether a folder is below one of Hostler's, climbing by `..` as the kernel sees it.
fn own_above(fd: std::os::fd::BorrowedFd<'_>, own: &Own) -> nix::Result<bool> {
    let mut here = openat(fd, ".", FOLDER, Mode::empty())?;
    let mut last = None;
    loop {
        let stat = fstat(&here)?;
        let id = (stat.st_dev, stat.st_ino);
        if own.has(id) {
            return Ok(true);
        }
        if last == Some(id) {
            return Ok(false);
        }
        last = Some(id);
        here = openat(&here, "..", FOLDER, Mode::empty())?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn refused(path: &Path, places: &[PathBuf], own: &Own, rootly: bool) -> String {
        admit(path, places, "places.x", own, rootly).unwrap_err().to_string()
    }

    #[test]
    fn only_folders_of_the_places_are_opened_and_no_link_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["place/a/b", "place/state/runs", "other"] {
            fs::create_dir_all(at(name)).unwrap();
        }
        symlink(at("other"), at("place/link")).unwrap();
        symlink(at("place"), at("named")).unwrap();
        fs::write(at("place/file"), "").unwrap();
        let places = [at("place")];
        let own = Own::new([at("place/state"), at("missing")]).unwrap();
        let open = |name: &str| admit(&at(name), &places, "places.x", &own, false).unwrap();
        assert_eq!(open("place").real, at("place"));
        assert_eq!(open("place/a/b").real, at("place/a/b"));
        // Root's own link is a place, whose other name counts, too.
        for name in ["named/a", "place/a"] {
            let folder = admit(&at(name), &[at("named")], "places.x", &own, false).unwrap();
            assert_eq!(folder.real, at("place/a"));
        }
        for (name, why) in [
            ("other", "in none of the folders"),
            ("placed", "in none of the folders"),
            ("place/../other", "without `.`"),
            ("place//a", "without `.`"),
            ("place/./a", "without `.`"),
            ("place/link", "a link"),
            ("place/link/x", "a link"),
            ("place/file", "no folder"),
            ("place/state", "belongs to Hostler"),
            ("place/state/runs", "belongs to Hostler"),
        ] {
            assert!(refused(&at(name), &places, &own, false).contains(why), "{name}");
        }
        assert!(refused(Path::new("place"), &places, &own, false).contains("full path"));
        assert_eq!(own.below(&at("place")).collect::<Vec<_>>(), [Path::new("state")]);
    }

    #[test]
    fn where_others_can_write_nothing_is_made_and_no_place_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("open/place/a")).unwrap();
        let places = [at("open/place")];
        let own = Own::default();
        let set = |name: &str, mode| fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).unwrap();
        assert!(admit(&at("open/place/a"), &places, "places.x", &own, true).is_ok());
        set("open/place/a", 0o1777);
        assert!(admit(&at("open/place/a"), &places, "places.x", &own, false).is_ok());
        assert!(refused(&at("open/place/a"), &places, &own, true).contains("others than root"));
        set("open/place/a", 0o755);
        set("open/place", 0o775);
        assert!(refused(&at("open/place/a"), &places, &own, true).contains("others than root"));
        set("open/place", 0o755);
        set("open", 0o777);
        assert!(refused(&at("open/place/a"), &places, &own, false).contains("above the place"));
    }
}
