//! Where a backup that is got back goes: looked at before the first byte, as a person would.
//!
//! | what is there | what is done |
//! | --- | --- |
//! | nothing, a file | a new file beside it, which takes its place when it is whole; owner and mode of a file stay |
//! | a link | what it leads to |
//! | a pipe, a character or block device, anything below /dev and /proc | written into |
//! | a folder, a socket | refused |

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use nix::fcntl::OFlag;

use super::pipe::{Endpoint, Patience};

/// Links that are followed by hand, where the last of them leads to nothing yet.
const MAX_LINKS: usize = 40;

/// What was found at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A file will be there, at this path without links.
    File(PathBuf),
    /// A named pipe.
    Pipe(PathBuf),
    /// Something else that takes bytes.
    Device(PathBuf),
}

fn wrong(path: &Path, why: &str) -> io::Error {
    io::Error::other(format!("{}: {why}", path.display()))
}

/// Whether the path names devices and streams, not files. /dev/shm is a folder for files like any other.
fn is_special(path: &Path) -> bool {
    (path.starts_with("/dev") && !path.starts_with("/dev/shm")) || path.starts_with("/proc")
}

impl Target {
    /// Looks at the path, and writes nothing.
    ///
    /// # Errors
    /// With the path, if nothing can be written there.
    pub fn look(path: &Path) -> io::Result<Self> {
        let special = is_special(path);
        match std::fs::metadata(path) {
            Ok(found) => {
                let kind = found.file_type();
                if kind.is_dir() {
                    return Err(wrong(path, "is a folder: name a file in it"));
                }
                if kind.is_socket() {
                    return Err(wrong(path, "is a socket: name a file, a pipe or a device"));
                }
                if kind.is_fifo() && !special {
                    return Ok(Self::Pipe(path.to_owned()));
                }
                if kind.is_char_device() || kind.is_block_device() || special {
                    return Ok(Self::Device(path.to_owned()));
                }
                let real = std::fs::canonicalize(path).map_err(|error| wrong(path, &error.to_string()))?;
                if is_mounted(&real) {
                    return Err(wrong(path, "is a mount point, which cannot be replaced: name another file"));
                }
                Ok(Self::File(real))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut real = path.to_owned();
                // A link to what is not there yet: the file is made where it leads to.
                for _ in 0..MAX_LINKS {
                    let Ok(next) = std::fs::read_link(&real) else { break };
                    real = folder(&real).join(next);
                }
                if special || is_special(&real) {
                    return Err(wrong(path, "there is no such device"));
                }
                if real.file_name().is_none() || path.to_string_lossy().ends_with('/') {
                    return Err(wrong(path, "names no file"));
                }
                if !folder(&real).is_dir() {
                    return Err(wrong(&real, "its folder does not exist"));
                }
                Ok(Self::File(real))
            }
            Err(error) => Err(wrong(path, &error.to_string())),
        }
    }

    /// Opens it. A pipe waits until the first byte is there to be read by somebody.
    pub fn open(self, patience: Patience, called_off: Arc<AtomicBool>) -> io::Result<Sink> {
        match self {
            Self::File(path) => NewFile::create(&path).map(Sink::File),
            Self::Pipe(path) => Ok(Sink::Pipe { path, patience, called_off, end: None }),
            Self::Device(path) => {
                let opened = OpenOptions::new().write(true).custom_flags(OFlag::O_NOCTTY.bits()).open(&path);
                let file = opened.map_err(|error| wrong(&path, &error.to_string()))?;
                Ok(Sink::Device(file))
            }
        }
    }
}

/// Whether a file system is mounted here, as files are into containers: nothing can take the place of such a file.
fn is_mounted(path: &Path) -> bool {
    let Ok(mounts) = std::fs::read_to_string("/proc/self/mountinfo") else { return false };
    mounts.lines().filter_map(|line| line.split(' ').nth(4)).any(|place| path == Path::new(&unescaped(place)))
}

/// A path of mountinfo, where blanks and backslashes are three octal digits behind a backslash.
fn unescaped(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        let code = after.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                out.push(char::from(code));
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                out.push('\\');
                rest = after;
            }
        }
    }
    out + rest
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// An open target.
pub enum Sink {
    /// A file that appears when it is whole.
    File(NewFile),
    /// A pipe that is opened when the first byte is there.
    Pipe {
        /// Where.
        path: PathBuf,
        /// How long to wait for its reader.
        patience: Patience,
        /// Whether to wait no longer.
        called_off: Arc<AtomicBool>,
        /// The open end.
        end: Option<Endpoint>,
    },
    /// A device.
    Device(File),
}

impl Sink {
    /// All bytes were right: a file takes its place, a device is synced, whoever reads a pipe sees its end.
    pub fn keep(self) -> io::Result<()> {
        match self {
            Self::File(file) => file.keep(),
            Self::Pipe { end: Some(_), .. } => Ok(()),
            // Also of nothing.
            Self::Pipe { path, patience, called_off, end: None } => {
                Endpoint::writing(&path, patience, called_off).map(|_| ())
            }
            // What cannot be synced, such as a terminal, has nothing to sync.
            Self::Device(file) if file.metadata()?.file_type().is_block_device() => file.sync_all(),
            Self::Device(_) => Ok(()),
        }
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.write(bytes),
            Self::Device(file) => file.write(bytes),
            Self::Pipe { path, patience, called_off, end } => {
                if end.is_none() {
                    *end = Some(Endpoint::writing(path, *patience, Arc::clone(called_off))?);
                }
                end.as_mut().map_or(Ok(0), |end| end.write(bytes))
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A file that appears under its name only when it is whole and on the disk.
pub struct NewFile {
    file: tempfile::NamedTempFile,
    path: PathBuf,
}

impl NewFile {
    /// Begins beside the path, with the owner and the mode of the file that it will replace.
    fn create(path: &Path) -> io::Result<Self> {
        let made = tempfile::Builder::new().prefix(".hostler-depot.").tempfile_in(folder(path));
        let file = made.map_err(|error| wrong(path, &format!("its folder takes no file: {error}")))?;
        if let Ok(old) = std::fs::metadata(path) {
            let new = file.as_file().metadata()?;
            if (old.uid(), old.gid()) != (new.uid(), new.gid()) {
                let owned = std::os::unix::fs::fchown(file.as_file(), Some(old.uid()), Some(old.gid()));
                owned.map_err(|error| wrong(path, &format!("its owner cannot be kept: {error}")))?;
            }
            file.as_file().set_permissions(std::fs::Permissions::from_mode(old.mode() & 0o7777))?;
        }
        Ok(Self { file, path: path.to_owned() })
    }

    /// Makes it appear.
    fn keep(self) -> io::Result<()> {
        self.file.as_file().sync_all()?;
        let folder = folder(&self.path).to_owned();
        self.file.persist(&self.path).map_err(|error| wrong(&self.path, &error.error.to_string()))?;
        File::open(folder)?.sync_all()
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_target_is_known_before_anything_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("file"), "old").unwrap();
        std::fs::create_dir(at("folder")).unwrap();
        std::os::unix::fs::symlink("file", at("link")).unwrap();
        std::os::unix::fs::symlink("not yet", at("dangling")).unwrap();
        std::os::unix::fs::symlink("nowhere/file", at("lost")).unwrap();
        std::os::unix::fs::symlink("ring", at("ring")).unwrap();
        nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::os::unix::fs::symlink("pipe", at("to pipe")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        let real = std::fs::canonicalize(folder.path()).unwrap();
        assert_eq!(Target::look(&at("file")).unwrap(), Target::File(real.join("file")));
        assert_eq!(Target::look(&at("link")).unwrap(), Target::File(real.join("file")));
        assert_eq!(Target::look(&at("new")).unwrap(), Target::File(at("new")));
        assert_eq!(Target::look(&at("dangling")).unwrap(), Target::File(at("not yet")));
        assert_eq!(Target::look(&at("pipe")).unwrap(), Target::Pipe(at("pipe")));
        assert_eq!(Target::look(&at("to pipe")).unwrap(), Target::Pipe(at("to pipe")));
        assert_eq!(Target::look(Path::new("/dev/null")).unwrap(), Target::Device("/dev/null".into()));
        for bad in ["folder", "socket", "lost", "ring", "nowhere/file", "file/below", "new/"] {
            let error = Target::look(&at(bad)).unwrap_err().to_string();
            assert!(error.contains(folder.path().to_str().unwrap()), "{bad}: {error}");
        }
        assert!(
            Target::look(Path::new("/dev/no-such-disk")).unwrap_err().to_string().contains("no such device")
        );
        let memory = Path::new("/dev/shm");
        if memory.is_dir() {
            let new = memory.join(format!("hostler-depot-test-{}", std::process::id()));
            assert_eq!(Target::look(&new).unwrap(), Target::File(new));
            let old = tempfile::NamedTempFile::new_in(memory).unwrap();
            let real = std::fs::canonicalize(old.path()).unwrap();
            assert_eq!(Target::look(old.path()).unwrap(), Target::File(real), "replaced when it is whole");
        }
    }

    #[test]
    fn a_file_that_is_mounted_is_refused_before_anything_is_read() {
        // What is mounted as a file: in a container several are, elsewhere perhaps none.
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let places = mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(unescaped);
        for place in places.filter(|place| {
            let outside = !place.starts_with("/proc") && !place.starts_with("/dev");
            outside && std::fs::metadata(place).is_ok_and(|found| found.is_file())
        }) {
            assert!(Target::look(Path::new(&place)).unwrap_err().to_string().contains("is a mount point"));
        }
        assert_eq!(unescaped("/a\\040b\\134c"), "/a b\\c");
        assert!(is_mounted(Path::new("/")) && !is_mounted(Path::new("/no/such")));
    }

    #[test]
    fn a_file_that_is_replaced_keeps_its_mode_and_its_links() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        std::fs::write(&file, "old").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink("file", &link).unwrap();
        let patience =
            Patience { open: std::time::Duration::from_secs(1), idle: std::time::Duration::from_secs(1) };
        let mut sink = Target::look(&link).unwrap().open(patience, Arc::default()).unwrap();
        sink.write_all(b"new").unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), b"old", "until it is whole");
        sink.keep().unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), b"new");
        assert_eq!(file.metadata().unwrap().mode() & 0o7777, 0o640);
        assert!(link.symlink_metadata().unwrap().is_symlink());
    }
}
