//! One writer at a time: two that hold and release clients at once could let them write on both sides.
//!
//! The lock is the kernel's and ends with the process that has it, however that ends. Of such a lock the kernel also says
//! which process has it, so that [`seize`] can end one that hangs while clients wait.

use std::fs::{File, OpenOptions};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::durable;
use crate::error::Error;

/// How long the holder may take to let go by itself when clients wait.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long its end may take.
const END: Duration = Duration::from_secs(5);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(5);

/// The right to change what belongs to the upgrade of a cluster; kept until it is dropped.
#[must_use]
pub struct Lock(#[expect(dead_code, reason = "its lock ends when it is closed")] File);

fn whole(kind: i32) -> nix::libc::flock {
    let narrow = |number: i32| nix::libc::c_short::try_from(number).unwrap_or_default();
    nix::libc::flock {
        l_type: narrow(kind),
        l_whence: narrow(nix::libc::SEEK_SET),
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

fn open(name: &str) -> Result<File, Error> {
    let folder = durable::state();
    std::fs::create_dir_all(&folder).map_err(Error::local(folder.display()))?;
    let path = folder.join(format!("lock-{name}"));
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    file.map_err(Error::local(path.display()))
}

/// Whether the lock was got.
fn got(file: &File) -> Result<bool, Error> {
    match fcntl(file, FcntlArg::F_SETLK(&whole(nix::libc::F_WRLCK))) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(error) => Err(Error::Local(format!("a lock: {error}"))),
    }
}

/// The process that has the lock.
fn holder(file: &File) -> Option<Pid> {
    let mut asked = whole(nix::libc::F_WRLCK);
    fcntl(file, FcntlArg::F_GETLK(&mut asked)).ok()?;
    (i32::from(asked.l_type) != nix::libc::F_UNLCK && asked.l_pid > 0).then(|| Pid::from_raw(asked.l_pid))
}

/// Takes the lock for the cluster of this name.
///
/// # Errors
/// If another process has it.
pub fn take(name: &str) -> Result<Lock, Error> {
    let file = open(name)?;
    if got(&file)? {
        return Ok(Lock(file));
    }
    let who = holder(&file).map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
    Err(Error::Refused(format!("{who} works at {name}: wait for it, or end it")))
}

/// Takes the lock, and ends whoever has it and does not let go within half a second: for when clients wait.
///
/// # Errors
/// If that does not end.
pub async fn seize(name: &str) -> Result<Lock, Error> {
    let file = open(name)?;
    let begun = Instant::now();
    loop {
        if got(&file)? {
            return Ok(Lock(file));
        }
        if begun.elapsed() > PATIENCE
            && let Some(pid) = holder(&file)
        {
            // It has the lock at this moment, so the number is its own.
            let _ = kill(pid, Signal::SIGKILL);
        }
        if begun.elapsed() > END {
            return Err(Error::Local(format!(
                "the upgrade of {name} is held by a process that does not end"
            )));
        }
        tokio::time::sleep(LOOK).await;
    }
}
