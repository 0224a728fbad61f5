//! What this process takes over from whoever started it, made the same everywhere: systemd gives it, a shell may not.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::sys::prctl::set_dumpable;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::SigSet;
use nix::sys::stat::{Mode, umask};
use nix::unistd::geteuid;

use super::disk::{self, DiskError, PathContext};

/// The soft limit of open files that systemd gives: more breaks programs that use `select`.
const USUAL_FILES: u64 = 1024;
/// What the agent needs to have open at once, with room to spare.
const LEAST_FILES: u64 = 64;

/// Too few files may be open at once.
#[derive(Debug, thiserror::Error)]
#[error(
    "only {0} files may be open at once, and the agent needs {LEAST_FILES}: raise the limit (LimitNOFILE=, or `ulimit -n`)"
)]
pub struct TooFewFiles(u64);

/// New files have the modes that they are made with, but for what group and others could write.
pub fn usual_umask() {
    umask(Mode::S_IWGRP | Mode::S_IWOTH);
}

/// This thread, and every program that it starts, blocks no signal: what whoever started it blocked would never arrive.
///
/// # Errors
/// Where the system refuses.
pub fn usual_signals() -> io::Result<()> {
    Ok(SigSet::empty().thread_set_mask()?)
}

/// Keeps this process out of core dumps, also where they go to a program, which no limit of their size stops: it holds
/// secrets. What it starts is not concerned. Only as root: anybody else could not look at his own `/proc` any more.
pub fn keep_out_of_dumps() {
    if geteuid().is_root()
        && let Err(error) = set_dumpable(false)
    {
        tracing::warn!("cannot exclude this process from core dumps: {error}");
    }
}

/// Sets the soft limit of open files to the usual one, or to the hard one where that is lower; the limit.
///
/// # Errors
/// Where the system refuses.
pub fn usual_files() -> io::Result<u64> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let soft = hard.min(USUAL_FILES);
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard)?;
    Ok(soft)
}

/// Whether enough files may be open for the agent to work at all.
///
/// # Errors
/// Where they are too few.
pub fn enough_files(limit: u64) -> Result<(), TooFewFiles> {
    if limit < LEAST_FILES { Err(TooFewFiles(limit)) } else { Ok(()) }
}

/// Lets everybody pass through a folder that is there; nothing else of its mode is changed.
///
/// # Errors
/// Where its mode cannot be read or set.
pub fn pass_through(folder: &Path) -> Result<(), DiskError> {
    let mode = std::fs::metadata(folder).with_path("look at", folder)?.permissions().mode() & 0o7777;
    if mode & 0o011 == 0o011 { Ok(()) } else { disk::set_mode(folder, mode | 0o011) }
}
