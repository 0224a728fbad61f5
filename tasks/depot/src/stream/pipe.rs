//! The two ends outside: a descriptor that is read or written with a deadline, whatever its other side does.
//!
//! A named pipe is opened without blocking, and the first event on it is waited for: a peer that opens late is
//! given its time, one that never comes or goes silent is an error with the name of the pipe, never a hang.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Pipes are asked to hold this much: fewer calls for the same bytes.
const PIPE_BYTES: i32 = 1024 * 1024;
/// How often a wait looks whether it was called off, and an unopened pipe is tried again.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// How often a pipe without a reader is tried again.
const RETRY_INTERVAL: Duration = Duration::from_millis(20);

/// How long to wait for the other side.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For it to come.
    pub open: Duration,
    /// For its next byte.
    pub idle: Duration,
}

/// A descriptor with deadlines.
pub struct Endpoint {
    fd: File,
    name: String,
    /// Time for the next event.
    next: Duration,
    idle: Duration,
    called_off: Arc<AtomicBool>,
    polled: bool,
}

/// Takes the pipe for this reader alone, for as long as the descriptor is open: two readers of one pipe get a part of its
/// bytes each, and both see a good end.
fn alone(fd: &File, name: &str) -> io::Result<()> {
    if !fd.metadata()?.file_type().is_fifo() {
        return Ok(());
    }
    match fd.try_lock() {
        Err(TryLockError::WouldBlock) => {
            Err(io::Error::other(format!("{name}: another hostler-depot is reading this pipe")))
        }
        // Where pipes cannot be locked nobody can tell.
        Ok(()) | Err(TryLockError::Error(_)) => Ok(()),
    }
}

/// Takes the pipe for this writer alone: of two, the reader would get a mixture. A lock of another kind than that of
/// readers, because a pipe may lead from one hostler-depot to another.
fn only_writer(fd: &File, name: &str) -> io::Result<()> {
    if !fd.metadata()?.file_type().is_fifo() {
        return Ok(());
    }
    let all = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    match fcntl(fd, FcntlArg::F_OFD_SETLK(&all)) {
        Err(Errno::EAGAIN | Errno::EACCES) => {
            Err(io::Error::other(format!("{name}: another hostler-depot is writing into this pipe")))
        }
        // Where pipes cannot be locked nobody can tell.
        _ => Ok(()),
    }
}

fn too_late(name: &str, time: Duration, what: &str) -> io::Error {
    let text = format!("{name}: {what} within {} s", time.as_secs_f64());
    io::Error::new(io::ErrorKind::TimedOut, text)
}

/// Whether the path is a named pipe.
pub fn is_pipe(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| found.file_type().is_fifo())
}

impl Endpoint {
    /// Takes over a descriptor that is open already.
    pub fn new(fd: OwnedFd, name: &str, idle: Duration, called_off: Arc<AtomicBool>) -> io::Result<Self> {
        let fd = File::from(fd);
        // Poll says "ready" of regular files at once, and knows nothing else; they need no deadline.
        let kind = fd.metadata()?.file_type();
        let polled = kind.is_fifo() || kind.is_socket() || kind.is_char_device();
        if kind.is_fifo() {
            // Fails where the user has used up what pipes may hold; it only makes things faster.
            let _ = fcntl(&fd, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES));
        }
        Ok(Self { fd, name: name.to_owned(), next: idle, idle, called_off, polled })
    }

    /// Standard input (0) or output (1). A pipe is opened anew: who shares it must not find it changed.
    pub fn standard(number: u32, idle: Duration, called_off: Arc<AtomicBool>) -> io::Result<Self> {
        let output = number == 1;
        let own = if output {
            io::stdout().as_fd().try_clone_to_owned()
        } else {
            io::stdin().as_fd().try_clone_to_owned()
        };
        let own = File::from(own?);
        let fd = if own.metadata()?.file_type().is_fifo() {
            OpenOptions::new()
                .read(!output)
                .write(output)
                .custom_flags(OFlag::O_NONBLOCK.bits())
                .open(format!("/proc/self/fd/{number}"))
                .unwrap_or(own)
        } else {
            own
        };
        let name = if output { "standard output" } else { "standard input" };
        if !output {
            alone(&fd, name)?;
        }
        Self::new(fd.into(), name, idle, called_off)
    }

    /// Opens a pipe or a file to read.
    pub fn reading(path: &Path, patience: Patience, called_off: Arc<AtomicBool>) -> io::Result<Self> {
        let fd = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
        alone(&fd, &path.display().to_string())?;
        let mut end = Self::new(fd.into(), &path.display().to_string(), patience.idle, called_off)?;
        end.next = patience.open;
        Ok(end)
    }

    /// Opens a pipe to write, once somebody reads it.
    pub fn writing(path: &Path, patience: Patience, called_off: Arc<AtomicBool>) -> io::Result<Self> {
        let begun = Instant::now();
        let name = path.display().to_string();
        loop {
            match OpenOptions::new().write(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path) {
                Ok(fd) => {
                    only_writer(&fd, &name)?;
                    return Self::new(fd.into(), &name, patience.idle, called_off);
                }
                Err(error) if error.raw_os_error() == Some(Errno::ENXIO as i32) => {
                    if begun.elapsed() > patience.open {
                        return Err(too_late(&name, patience.open, "nobody opened it to read"));
                    }
                    if called_off.load(Ordering::Relaxed) {
                        return Err(io::Error::other("called off"));
                    }
                    std::thread::sleep(RETRY_INTERVAL);
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn wait(&mut self, flags: PollFlags) -> io::Result<()> {
        if !self.polled {
            return Ok(());
        }
        let begun = Instant::now();
        loop {
            if self.called_off.load(Ordering::Relaxed) {
                return Err(io::Error::other("called off"));
            }
            let mut fds = [PollFd::new(self.fd.as_fd(), flags)];
            let timeout = PollTimeout::try_from(POLL_INTERVAL).unwrap_or(PollTimeout::ZERO);
            match poll(&mut fds, timeout) {
                Ok(0) | Err(Errno::EINTR) if begun.elapsed() < self.next => {}
                Ok(0) | Err(Errno::EINTR) => {
                    let way = if flags == PollFlags::POLLIN { "nothing came" } else { "nothing was read" };
                    return Err(too_late(&self.name, self.next, way));
                }
                Ok(_) => {
                    self.next = self.idle;
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Read for Endpoint {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            self.wait(PollFlags::POLLIN)?;
            match self.fd.read(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
        }
    }
}

impl Write for Endpoint {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            self.wait(PollFlags::POLLOUT)?;
            match self.fd.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.fd.flush()
    }
}
