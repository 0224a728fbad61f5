//! An agent that is the first process of its namespace, as in a container without an init.
//!
//! The kernel gives process 1 every process whose parent has ended: what steps leave running, when they and their executor
//! are over. Someone has to wait for them when they end, or each stays as a zombie. An agent that waited for any process
//! could take the status of its own children from whoever waits for those. So process 1 does nothing else: it starts the
//! agent as its child, hands on the signals that people and container runtimes send, waits for everything that ends, and
//! ends as the agent does. The kernel then ends whatever is left in the namespace.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// What is handed on to the agent.
const HANDED_ON: [Signal; 7] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGCONT,
];

/// Where this process is the first of its namespace: starts the same command again as its child, and returns the status
/// that it ended with. `None`: it is not the first, and is to do the work itself.
///
/// # Errors
/// Where the child cannot be started or waited for.
pub fn instead_of_first() -> io::Result<Option<u8>> {
    if std::process::id() != 1 {
        return Ok(None);
    }
    let mut awaited = SigSet::empty();
    HANDED_ON.into_iter().chain([Signal::SIGCHLD]).for_each(|signal| awaited.add(signal));
    // Blocked before there is a child: none is missed, and none ends this process. The child unblocks them itself.
    awaited.thread_block()?;
    let mut words = std::env::args_os();
    let mut command = Command::new(std::env::current_exe()?);
    if let Some(name) = words.next() {
        command.arg0(name);
    }
    let child = command.args(words).spawn()?;
    let child = Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?);
    loop {
        match awaited.wait()? {
            Signal::SIGCHLD => {
                if let Some(status) = reap(child)? {
                    return Ok(Some(status));
                }
            }
            // One that has ended is about to be reaped.
            signal => {
                let _ = kill(child, signal);
            }
        }
    }
}

/// Waits for everything that has ended; the status of the child, if it has.
fn reap(child: Pid) -> io::Result<Option<u8>> {
    let mut ended = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == child => {
                ended = Some(u8::try_from(code).unwrap_or(1))
            }
            // As shells say it.
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => {
                ended = Some(128_u8.saturating_add(u8::try_from(signal as i32).unwrap_or(127)));
            }
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(ended),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}
