//! The server that serves a folder of data: which processes it has, and how it ends. The same in each layout.

use std::path::Path;
use std::time::{Duration, Instant};

use super::{Cluster, SLOW, program, remove_folder};
use crate::durable;
use crate::error::Error;
use crate::exec::{self, Owner};

/// How long a server may take to end in order.
const ORDER: Duration = Duration::from_secs(2);
/// And how long at all.
const END: Duration = Duration::from_secs(10);
/// Between two looks whether it has.
const LOOK: Duration = Duration::from_millis(5);
/// Between two attempts to remove the data of a server that is about to end.
const AGAIN: Duration = Duration::from_millis(100);

/// Ends what serves a folder of data and removes it. Only for what the caller knows to be its own work.
///
/// # Errors
/// If a server still runs in it, or it cannot be removed.
pub async fn clear_folder(data: &Path, version: u16, owner: Owner) -> Result<(), Error> {
    // A server that a dead run had just started has no pid file for a moment, and makes files that are in the way.
    let begun = Instant::now();
    loop {
        let halted = halt(data, version, owner).await;
        match halted.and_then(|()| remove_folder(data)) {
            Err(_) if begun.elapsed() < END => tokio::time::sleep(AGAIN).await,
            cleared => return cleared,
        }
    }
}

/// The process that serves a folder of data: the one of its pid file, if it works there. After a power cut that number
/// may be somebody else's.
///
/// # Errors
/// If the pid file cannot be read.
pub fn living(data: &Path) -> Result<Option<u32>, Error> {
    Ok(serving(data)?.map(|serving| serving.pid))
}

/// The process that serves a folder of data, and the port at which it answers, once it has one.
pub(super) struct Serving {
    pid: u32,
    pub(super) port: Option<u16>,
    /// It answers nobody yet: it starts, or recovers.
    starting: bool,
}

/// Whether a server serves this folder of data, and says in its pid file that it is starting.
pub(super) fn starting(data: &Path) -> bool {
    serving(data).is_ok_and(|serving| serving.is_some_and(|serving| serving.starting))
}

pub(super) fn serving(data: &Path) -> Result<Option<Serving>, Error> {
    let text = durable::read(&data.join("postmaster.pid"))?.unwrap_or_default();
    let mut lines = text.lines().map(str::trim);
    let pid = lines.next().and_then(|line| line.parse::<u32>().ok());
    let works = |pid: u32| std::fs::read_link(format!("/proc/{pid}/cwd")).ok();
    let here = std::fs::canonicalize(data).ok();
    let pid = pid.filter(|pid| works(*pid).is_some_and(|folder| Some(folder) == here));
    // Number, folder, time of the start, port, folder of the socket, address, key of the memory, state.
    let port = lines.nth(2).and_then(|line| line.parse().ok());
    let starting = lines.nth(3) == Some("starting");
    Ok(pid.map(|pid| Serving { pid, port, starting }))
}

/// A process of a server that has a client, or may get one: by the rules that the server had when it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doorkeeper {
    /// Its number.
    pub pid: u32,
    /// When it was started, which tells it from a later one with the same number.
    start: u64,
}

impl Doorkeeper {
    /// Ends it in order.
    ///
    /// # Errors
    /// If that is not allowed.
    pub fn end(&self) -> Result<(), Error> {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.pid).unwrap_or_default());
        match nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM) {
            Ok(()) | Err(nix::errno::Errno::ESRCH) => Ok(()),
            Err(error) => Err(Error::Local(format!("process {pid}: {error}"))),
        }
    }
}

/// The processes of a cluster's server that have clients, also those whose clients are still logging in, which the
/// server itself lists nowhere.
///
/// # Errors
/// If the processes of the host cannot be read.
pub fn doorkeepers(cluster: &Cluster) -> Result<Vec<Doorkeeper>, Error> {
    let Some(server) = living(&cluster.data)? else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").map_err(Error::local("/proc"))? {
        let path = entry.map_err(Error::local("/proc"))?.path();
        let number = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
        let Some(pid) = number else { continue };
        // It may end while it is looked at.
        let Ok(stat) = std::fs::read_to_string(path.join("stat")) else { continue };
        let Some(start) = child_of(&stat, server) else { continue };
        let title = std::fs::read(path.join("cmdline")).unwrap_or_default();
        if has_client(&String::from_utf8_lossy(&title)) {
            found.push(Doorkeeper { pid, start });
        }
    }
    Ok(found)
}

/// When a process was started, if it is a living child of this one.
fn child_of(stat: &str, parent: u32) -> Option<u64> {
    // The name, in brackets, may hold anything.
    let fields: Vec<_> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let living = *fields.first()? != "Z" && fields.get(1)?.parse() == Ok(parent);
    living.then(|| fields.get(19)?.parse().ok())?
}

/// Whether a process of a server, by its title, has a client, or is too young to have a title.
fn has_client(title: &str) -> bool {
    let Some(title) = title.strip_prefix("postgres: ") else { return true };
    // `[local]`, or the port in brackets behind the address.
    let port = |word: &str| {
        let (_, port) = word.split_once('(')?;
        port.split_once(')')?.0.parse::<u16>().ok()
    };
    title.contains("[local]") || title.split(' ').any(|word| port(word).is_some())
}

/// Ends the server of a cluster as quickly as it can be ended in order, and if need be without order: of what was
/// committed nothing is lost either way. None is no failure.
///
/// # Errors
/// If it does not end.
pub async fn stop(cluster: &Cluster) -> Result<(), Error> {
    use nix::sys::signal::{Signal, kill};
    let begun = Instant::now();
    let mut sent = None;
    while let Some(pid) = living(&cluster.data)? {
        // Ends sessions, writes a checkpoint. What hinders that, such as an archive that hangs, the second one ends.
        let signal = if begun.elapsed() < ORDER { Signal::SIGINT } else { Signal::SIGQUIT };
        if sent != Some(signal) {
            let number = i32::try_from(pid).unwrap_or_default();
            match kill(nix::unistd::Pid::from_raw(number), signal) {
                Ok(()) | Err(nix::errno::Errno::ESRCH) => sent = Some(signal),
                Err(error) => {
                    return Err(Error::Local(format!("{}: process {pid}: {error}", cluster.title())));
                }
            }
        }
        if begun.elapsed() > END {
            return Err(Error::Program(format!("{} does not stop: process {pid}", cluster.title())));
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// Ends the server of a cluster in order, with everything sent to its standbys; false if it is still there after `within`.
///
/// # Errors
/// If it cannot be told to end.
pub async fn stop_in_order(cluster: &Cluster, within: Duration) -> Result<bool, Error> {
    use nix::sys::signal::{Signal, kill};
    let begun = Instant::now();
    let mut told = false;
    while let Some(pid) = living(&cluster.data)? {
        if !told {
            let number = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap_or_default());
            kill(number, Signal::SIGINT)
                .map_err(|error| Error::Local(format!("{}: process {pid}: {error}", cluster.title())))?;
            told = true;
        }
        if begun.elapsed() > within {
            return Ok(false);
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(true)
}

/// Ends whatever serves a folder of data, at once; none is no failure.
///
/// # Errors
/// If it does not end.
pub async fn halt(data: &Path, version: u16, owner: Owner) -> Result<(), Error> {
    if living(data)?.is_none() {
        return Ok(());
    }
    let words = [format!("--pgdata={}", data.display()), "--mode=immediate".to_owned(), "stop".to_owned()];
    match exec::succeed(Some(owner), &program(version, "pg_ctl"), &words, SLOW).await {
        // It was on its way out, and is gone.
        Err(Error::Program(_)) if living(data)?.is_none() => Ok(()),
        ended => ended.map(|_| ()),
    }
}

#[cfg(test)]
mod tests {
    use super::{child_of, has_client};

    #[test]
    fn who_has_a_client_is_told_by_its_title() {
        for title in [
            "postgres: 13/main: app shop [local] authentication",
            "postgres: app shop 10.0.0.1(5511) startup",
            "postgres: 13/main: logger archiver ::1(40000) idle in transaction",
            "/usr/lib/postgresql/13/bin/postgres\0-D\0/data",
        ] {
            assert!(has_client(title), "{title}");
        }
        for title in ["postgres: 13/main: stats collector ", "postgres: archiver last was 0000000100000001"] {
            assert!(!has_client(title), "{title}");
        }
        let stat = "77 (a ) (b) S 12 77 77 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 9911 100 200";
        assert_eq!((child_of(stat, 12), child_of(stat, 13)), (Some(9911), None));
        assert_eq!(child_of(&stat.replace(") S", ") Z"), 12), None);
    }
}
