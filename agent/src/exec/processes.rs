//! Which processes belong to a run, and how they are ended.
//!
//! Under systemd the run's unit is a cgroup, and what is in it belongs to the run, whatever it forks or calls itself.
//! Without systemd it is what carries the run's `HOSTLER_RUN`, or is in a session that a step of the run opened,
//! or descends from such a process; one that sheds all three while its executor is dead is not found,
//! and `hostler check` says so.
//! A process is its pid and its start time: a pid alone may by now be somebody else's.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::domain::ids::RunId;

/// How long killed processes may take to be gone: more means that the kernel does not let go of them.
const GONE_WITHIN: Duration = Duration::from_secs(10);

/// A process, told from a later one with the same pid by its start time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProcessId {
    /// Its number.
    pub pid: u32,
    /// Its start in clock ticks since the boot.
    pub start: u64,
}

/// What `/proc/<pid>/stat` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Which.
    pub id: ProcessId,
    /// Its name.
    pub name: String,
    /// Its parent's pid.
    pub parent: u32,
    /// The pid of its session's leader.
    pub session: u32,
    /// Ended, and only not yet waited for.
    pub zombie: bool,
}

/// How the processes of a run are told from all others.
#[derive(Clone, Debug)]
pub struct Mark {
    /// Whose.
    pub run: RunId,
    /// Whether the run is a unit of systemd.
    pub systemd: bool,
    /// The sessions that its steps opened.
    pub sessions: BTreeSet<ProcessId>,
    /// Processes that may stay, with all that descends from them.
    pub left: BTreeSet<ProcessId>,
}

impl Mark {
    /// The mark of a run as its folder tells it.
    pub fn of(folder: &Path, run: RunId, systemd: bool) -> Self {
        Self { run, systemd, sessions: listed(&folder.join("sessions")), left: listed(&folder.join("left")) }
    }

    /// The living processes of the run, this one left out.
    pub fn processes(&self) -> Vec<Process> {
        let all = all();
        let me = std::process::id();
        // A session's number is not given to another process while the session lasts, but it is after a reboot.
        let in_session_of = |process: &Process, opener: &ProcessId| {
            let leader = all.get(&process.session).map(|leader| leader.id);
            opener.pid == process.session && leader.is_none_or(|leader| leader == *opener)
        };
        let left = self.descending(&all, |process| {
            self.left.contains(&process.id) || self.left.iter().any(|left| in_session_of(process, left))
        });
        let ours: BTreeSet<u32> = if self.systemd {
            let unit = format!("/{}", unit_name(self.run));
            all.keys().copied().filter(|pid| in_unit(*pid, &unit)).collect()
        } else {
            let variable = format!("HOSTLER_RUN={}", self.run);
            let opened = |process: &Process| self.sessions.iter().any(|id| in_session_of(process, id));
            self.descending(&all, |process| opened(process) || has_variable(process.id.pid, &variable))
        };
        let keep = |process: &Process| {
            let pid = process.id.pid;
            ours.contains(&pid) && pid != me && !process.zombie && !left.contains(&pid)
        };
        all.into_values().filter(keep).collect()
    }

    /// Ends all processes of the run but this one, and returns those that could not be ended.
    pub async fn end_all(&self, grace: Duration) -> Vec<Process> {
        let asked = Instant::now();
        let mut signal = Signal::SIGTERM;
        loop {
            let alive = self.processes();
            if alive.is_empty() || asked.elapsed() > grace + GONE_WITHIN {
                return alive;
            }
            if asked.elapsed() >= grace {
                signal = Signal::SIGKILL;
            }
            alive.iter().for_each(|process| send(process.id, signal));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn descending(&self, all: &BTreeMap<u32, Process>, root: impl Fn(&Process) -> bool) -> BTreeSet<u32> {
        let mut found: BTreeSet<u32> = all.values().filter(|p| root(p)).map(|p| p.id.pid).collect();
        loop {
            let more: Vec<u32> = all
                .values()
                .filter(|p| found.contains(&p.parent) && !found.contains(&p.id.pid))
                .map(|p| p.id.pid)
                .collect();
            if more.is_empty() {
                return found;
            }
            found.extend(more);
        }
    }
}

/// The unit of a run's executor.
pub fn unit_name(run: RunId) -> String {
    format!("hostler-run-{run}.service")
}

/// Adds a process to a list that outlives its writer; not synced, because a power cut ends all processes anyway.
pub fn list(path: &Path, id: ProcessId) -> std::io::Result<()> {
    let mut file = fs::OpenOptions::new().append(true).create(true).open(path)?;
    writeln!(file, "{} {}", id.pid, id.start)
}

fn listed(path: &Path) -> BTreeSet<ProcessId> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let id = |line: &str| {
        let (pid, start) = line.split_once(' ')?;
        Some(ProcessId { pid: pid.parse().ok()?, start: start.parse().ok()? })
    };
    text.lines().filter_map(id).collect()
}

/// Sends a signal, if the pid still is that process.
pub fn send(id: ProcessId, signal: Signal) {
    if process(id.pid).is_some_and(|process| process.id == id)
        && let Ok(pid) = i32::try_from(id.pid)
    {
        let _ = kill(Pid::from_raw(pid), signal); // One that is gone meanwhile is what was wanted.
    }
}

/// What the kernel says of a process now.
pub fn process(pid: u32) -> Option<Process> {
    parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// This process.
pub fn myself() -> ProcessId {
    let pid = std::process::id();
    process(pid).map_or(ProcessId { pid, start: 0 }, |process| process.id)
}

fn parse(stat: &str) -> Option<Process> {
    // The name stands in brackets and may hold anything, brackets and blanks too.
    let (pid, rest) = stat.split_once(" (")?;
    let (name, rest) = rest.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    Some(Process {
        id: ProcessId { pid: pid.parse().ok()?, start: fields.get(19)?.parse().ok()? },
        name: name.to_owned(),
        parent: fields.get(1)?.parse().ok()?,
        session: fields.get(3)?.parse().ok()?,
        zombie: matches!(*fields.first()?, "Z" | "X"),
    })
}

fn all() -> BTreeMap<u32, Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return BTreeMap::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| Some((pid, process(pid)?))).collect()
}

fn in_unit(pid: u32, unit: &str) -> bool {
    let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    cgroups.lines().any(|line| line.ends_with(unit) || line.contains(&format!("{unit}/")))
}

fn has_variable(pid: u32, variable: &str) -> bool {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|entry| entry == variable.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_name_does_not_confuse_the_reader() {
        let stat = "7 (a) S 1 (b) R 5 6 7 0 -1 1 2 3 4 5 6 7 8 9 10 11 12 13 4242 99";
        let process = parse(stat).unwrap();
        assert_eq!((process.name.as_str(), process.parent, process.session), ("a) S 1 (b", 5, 7));
        assert_eq!(process.id, ProcessId { pid: 7, start: 4242 });
        assert!(parse("").is_none() && parse("7 (a) S").is_none());
    }

    #[test]
    fn this_process_is_found() {
        let me = myself();
        assert!(me.start > 0 && process(me.pid).is_some_and(|process| !process.zombie));
    }
}
