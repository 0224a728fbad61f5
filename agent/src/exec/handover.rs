//! How the agent gives an executor what nobody else may see: by a sealed memory file that the executor inherits.
//!
//! systemd starts its units with none of the agent's descriptors, and whatever stands in a unit's properties can be
//! read by every user over D-Bus. There the bytes go through a file of root alone in the runtime folder, in memory,
//! which the executor removes as soon as it has read it; what is never read is swept at the agent's start.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, FdFlag, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use zeroize::Zeroizing;

use crate::host::disk;

/// The most that is handed over, in bytes.
const MOST: u64 = 64 << 10;

/// The word of the executor's arguments that says where it is.
#[derive(Debug)]
pub struct Word(pub String);

/// A memory file with these bytes that nobody can change any more; the child of `command` inherits it.
#[expect(unsafe_code, reason = "the standard library has no other way to let one child inherit a descriptor")]
pub fn inherit(command: &mut std::process::Command, bytes: &[u8]) -> io::Result<Word> {
    let fd = memfd_create(c"hostler", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    let mut file = File::from(fd);
    file.write_all(bytes)?;
    let seals =
        SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    let fd = OwnedFd::from(file);
    let word = Word(format!("fd:{}", fd.as_raw_fd()));
    let prepare = move || {
        fcntl(&fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
        Ok(())
    };
    // SAFETY: the closure makes one system call, on a descriptor that it owns.
    unsafe {
        command.pre_exec(prepare);
    }
    Ok(word)
}

/// A file of root alone, for one epoch of a run.
pub fn leave(runtime: &Path, name: &str, bytes: &[u8]) -> io::Result<Word> {
    let dir = folder(runtime);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
    disk::set_mode(&dir, 0o700).map_err(|error| error.source)?;
    let path = dir.join(name);
    let _ = fs::remove_file(&path);
    disk::create(&path, bytes, 0o400).map_err(|error| error.source)?;
    Ok(Word(path.to_string_lossy().into_owned()))
}

/// Reads what was handed over, and takes it away.
pub fn take(word: &str) -> io::Result<Zeroizing<Vec<u8>>> {
    let path = match word.strip_prefix("fd:") {
        Some(fd) => PathBuf::from(format!("/proc/self/fd/{}", fd.parse::<u32>().map_err(io::Error::other)?)),
        None => PathBuf::from(word),
    };
    let mut bytes = Zeroizing::new(Vec::with_capacity(4096));
    let read = File::open(&path).and_then(|file| file.take(MOST).read_to_end(&mut bytes));
    match word.strip_prefix("fd:").and_then(|fd| fd.parse::<i32>().ok()) {
        // No step may inherit it.
        Some(fd) => nix::unistd::close(fd)?,
        None => fs::remove_file(&path)?,
    }
    read.map(|_| bytes)
}

/// Removes what no executor came for.
pub fn sweep(runtime: &Path) {
    // Nothing there is the rule.
    let _ = fs::remove_dir_all(folder(runtime));
}

fn folder(runtime: &Path) -> PathBuf {
    runtime.join("grants")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_gone_once_it_was_read() {
        let dir = tempfile::tempdir().unwrap();
        let word = leave(dir.path(), "r.1", b"token").unwrap();
        assert_eq!(take(&word.0).unwrap().as_slice(), b"token");
        assert!(!Path::new(&word.0).exists() && take(&word.0).is_err());
        leave(dir.path(), "r.2", b"token").unwrap();
        sweep(dir.path());
        assert!(!dir.path().join("grants").exists());
    }
}
