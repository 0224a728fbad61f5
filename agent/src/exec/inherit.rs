//! Programs that inherit folders which this process has opened and checked.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

/// Lets every program that is started from here on have this descriptor.
///
/// # Errors
/// Those of the kernel.
pub fn keep_open(fd: &OwnedFd) -> io::Result<()> {
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
    Ok(())
}

fn command(words: &[String]) -> io::Result<Command> {
    let (program, arguments) = words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut command = Command::new(program);
    command.args(arguments);
    Ok(command)
}

/// Becomes a program; returns only where it could not be started.
pub fn become_program(words: &[String]) -> io::Error {
    match command(words) {
        Ok(mut command) => command.exec(),
        Err(error) => error,
    }
}

/// Runs a program to its end, with this process's input and output.
///
/// # Errors
/// It could not be started.
pub fn run(words: &[String]) -> io::Result<ExitStatus> {
    command(words)?.status()
}
