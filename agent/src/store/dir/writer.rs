//! Whether somebody still writes a file: the kernel gives a read lease only on one that nobody has open for writing.
//!
//! See fcntl(2). The lease is given back at once; a writer that comes in between waits for that long.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;

/// `F_SETSIG` of <linux/fcntl.h>; the crate does not name it.
const F_SETSIG: libc::c_int = 10;

/// Who has a file open for writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Writer {
    /// Nobody.
    Nobody,
    /// Somebody.
    Somebody,
    /// The file system or the rights of this process do not tell.
    Unknown,
}

/// Asks the kernel about a file that is open for reading alone.
pub(super) fn of(file: &OwnedFd) -> Writer {
    // A writer that opens the file while the lease is held is announced by a signal; this one is ignored by default.
    let lease = |command: libc::c_int, argument: libc::c_int| control(file, command, argument);
    let taken = lease(F_SETSIG, libc::SIGURG).and_then(|()| lease(libc::F_SETLEASE, libc::F_RDLCK));
    match taken {
        Ok(()) => match lease(libc::F_SETLEASE, libc::F_UNLCK) {
            Ok(()) => Writer::Nobody,
            Err(_) => Writer::Unknown,
        },
        Err(error) if error.raw_os_error() == Some(Errno::EAGAIN as i32) => Writer::Somebody,
        Err(_) => Writer::Unknown,
    }
}

#[expect(unsafe_code, reason = "no safe interface has leases")]
fn control(file: &OwnedFd, command: libc::c_int, argument: libc::c_int) -> io::Result<()> {
    // SAFETY: the descriptor is open for as long as it is borrowed, and both commands take a plain number.
    match unsafe { libc::fcntl(file.as_raw_fd(), command, argument) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File, OpenOptions};
    use std::os::fd::OwnedFd;

    use super::*;

    #[test]
    fn a_file_has_a_writer_until_the_last_one_closes_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let first = File::create(&path).unwrap();
        let second = OpenOptions::new().append(true).open(&path).unwrap();
        let now = || of(&OwnedFd::from(File::open(&path).unwrap()));
        if now() == Writer::Unknown {
            return; // Not on this file system.
        }
        assert_eq!(now(), Writer::Somebody);
        drop(first);
        assert_eq!(now(), Writer::Somebody);
        drop(second);
        assert_eq!(now(), Writer::Nobody);
        assert_eq!(now(), Writer::Nobody, "the lease was given back");
        fs::write(&path, "a writer is not kept out").unwrap();
    }
}
