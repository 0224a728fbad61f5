//! `hostler admit`: what the shipped tasks call for what they touch on this host. Not for people.
//!
//! Exit status: 0 done or yes, 1 no, 2 refused or cannot tell, with the reason in one line.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;
use zeroize::Zeroizing;

use super::connection::ConnectionArgs;
use super::{Failure, show};
use crate::admission::PATH;
use crate::admission::archive;
use crate::admission::clean::{self, Old};
use crate::admission::folder::{self, Own};
use crate::admission::listener::Server;
use crate::admission::policy::Policy;
use crate::admission::restore::Target;
use crate::admission::scram::{self, Login};
use crate::config::{Settings, StoreSettings};
use crate::exec::inherit;
use crate::host::clock;

#[derive(Args)]
pub(super) struct Arguments {
    /// What root admits, in place of /etc/hostler/tasks.yml
    #[arg(long, value_name = "FILE", default_value = PATH)]
    tasks_file: PathBuf,
    #[command(flatten)]
    place: ConnectionArgs,
    #[command(subcommand)]
    act: AdmitCommand,
}

#[derive(Subcommand)]
enum AdmitCommand {
    /// Whether the task `package` may act on this package
    Package { name: String },
    /// Look for old files, or remove them
    Clean {
        #[arg(value_parser = ["look", "remove"])]
        mode: String,
        days: u32,
        kib: u32,
        /// A JSON list of folders
        places: String,
    },
    /// Whether these folders may be read
    Readable { folders: String },
    /// Write an archive of a JSON list of folders to standard output
    Archive { folders: String },
    /// Whether a folder may be made there
    Restorable { target: PathBuf },
    /// Have a command fill a new folder, `{}` in its words, and give it its name if the command ends well
    Restore {
        target: PathBuf,
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Whether the server of this socket and port is PostgreSQL
    Server { socket: PathBuf, port: u16 },
    /// Whether a role logs in to it with the password in a file
    Login { socket: PathBuf, port: u16, role: String, database: String, file: PathBuf },
}

const NO: u8 = 1;
const REFUSED: u8 = 2;

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    super::log("warn");
    act(arguments).or_else(|error| {
        show::error(show::inline(&error.to_string()));
        Ok(REFUSED.into())
    })
}

fn act(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let policy = Policy::read(&arguments.tasks_file)?;
    let own = || own(&arguments.place.host_settings()?);
    match &arguments.act {
        AdmitCommand::Package { name } => policy.packages.admit(name)?,
        AdmitCommand::Clean { mode, days, kib, places } => {
            return clean(&policy, &own()?, old(*days, *kib), mode == "look", &list(places)?);
        }
        AdmitCommand::Readable { folders } => {
            for path in list(folders)? {
                folder::admit(&path, &policy.places.backup, "places.backup", &own()?, false)?;
            }
        }
        AdmitCommand::Archive { folders } => {
            let own = own()?;
            let mut open = Vec::new();
            for path in list(folders)? {
                let folder = folder::admit(&path, &policy.places.backup, "places.backup", &own, false)?;
                inherit::keep_open(&folder.fd)?;
                open.push(folder);
            }
            if open.is_empty() {
                return Err("no folder is named".into());
            }
            return Err(inherit::become_program(&archive::words(&open, &own)).into());
        }
        AdmitCommand::Restorable { target } => drop(Target::make(target, &policy.places.restore, &own()?)?),
        AdmitCommand::Restore { target, command } => {
            let new = Target::make(target, &policy.places.restore, &own()?)?;
            inherit::keep_open(&new.fd)?;
            let name = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&new.fd));
            let words: Vec<String> = command.iter().map(|word| word.replace("{}", &name)).collect();
            let status = inherit::run(&words)?;
            if !status.success() {
                return Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(REFUSED).into());
            }
            new.keep()?;
        }
        AdmitCommand::Server { socket, port } => {
            drop(Server::at(socket, *port, &policy.postgres)?.connect()?)
        }
        AdmitCommand::Login { socket, port, role, database, file } => {
            let server = Server::at(socket, *port, &policy.postgres)?;
            // A hundred bytes and a little more: of a longer one it is known that it is too long.
            let mut password = Zeroizing::new(Vec::with_capacity(1024));
            std::fs::File::open(file)?.take(1024).read_to_end(&mut password)?;
            return match scram::login(&mut server.connect()?, role, database, &password)? {
                Login::In => Ok(ExitCode::SUCCESS),
                Login::Out => Ok(NO.into()),
                Login::CannotTell(why) => Err(why.into()),
            };
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn list(text: &str) -> Result<Vec<PathBuf>, Failure> {
    Ok(serde_json::from_str(text)?)
}

/// Hostler's own folders: those of the configuration and those of the packages.
fn own(settings: &Settings) -> Result<Own, Failure> {
    let mut paths: Vec<PathBuf> = [
        "/etc/hostler",
        "/var/lib/hostler",
        "/run/hostler",
        "/var/log/hostler",
        "/var/lib/hostler-package",
        "/var/lib/hostler-upgrade",
    ]
    .map(PathBuf::from)
    .to_vec();
    paths.extend([settings.state_dir.clone(), settings.runtime_dir.clone()]);
    paths.extend(settings.task_dirs.iter().cloned());
    if let StoreSettings::Dir(dir) = &settings.store {
        paths.push(dir.clone());
    }
    Ok(Own::new(paths)?)
}

fn old(days: u32, kib: u32) -> Old {
    Old {
        before: clock::now().as_second().saturating_sub(i64::from(days).saturating_mul(24 * 3600)),
        bytes: i64::from(kib).saturating_mul(1024),
    }
}

/// `look`: nothing is removed; the exit status says whether anything would be.
fn clean(policy: &Policy, own: &Own, old: Old, look: bool, paths: &[PathBuf]) -> Result<ExitCode, Failure> {
    let mut open = Vec::new();
    // All of them before the first file goes.
    for path in paths {
        open.push(folder::admit(path, &policy.places.clean, "places.clean", own, false)?);
    }
    let (mut files, mut bytes, mut failed) = (0_u64, 0_u64, 0_u64);
    for folder in &open {
        let free = || {
            let stat = nix::sys::statvfs::fstatvfs(&folder.fd);
            stat.map_or(0, |stat| stat.blocks_available().saturating_mul(stat.fragment_size()) / 1024)
        };
        let before = free();
        let done = clean::clean(&folder.fd, folder.stat()?.st_dev, old, own, look);
        failed = failed.saturating_add(done.failed);
        if look {
            if done.files > 0 {
                return Ok(NO.into());
            }
            continue;
        }
        show::line(format!(
            "{}: removed {} files of {} bytes; free before: {before} KiB, after: {} KiB",
            folder.path.display(),
            done.files,
            done.bytes,
            free()
        ))?;
        files = files.saturating_add(done.files);
        bytes = bytes.saturating_add(done.bytes);
    }
    if !look {
        report(&[
            json!({"output": {"files": files.to_string(), "bytes": bytes.to_string()}}),
            json!({"message": format!("removed {files} files of {bytes} bytes")}),
        ])?;
        if failed > 0 {
            show::error(format!("{failed} files or folders could not be removed or examined"));
            return Ok(NO.into());
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Appends lines to the step's report.
fn report(lines: &[serde_json::Value]) -> Result<(), Failure> {
    let Some(path) = super::env("HOSTLER_REPORT") else { return Ok(()) };
    let mut file = std::fs::OpenOptions::new().append(true).open(path)?;
    for line in lines {
        file.write_all(format!("{line}\n").as_bytes())?;
    }
    Ok(())
}
