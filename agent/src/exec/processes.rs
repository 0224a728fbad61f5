//! Which processes belong to a run, and how they are ended.
//!
//! Under systemd the run's unit is a cgroup, and what is in it belongs to the run, whatever it forks or calls itself.
//! Without systemd it is what carries the run's `HOSTLER_RUN`, or is in a session that a step of the run opened,
//! or descends from such a process; one that sheds all three while its executor is dead is not found,
//! and `hostler check` says so. The executor itself, to which its orphans are given, goes by descent alone.
//! A process is its pid and its start time: a pid alone may by now be somebody else's.
//!
//! The search fails closed. Only what the kernel says does not exist (ENOENT, ESRCH: `ProcError::NotFound`) counts as
//! ended; everything else, such as too many open files or a `/proc` that does not show this process either, is an error,
//! and nothing may start on it. All that is read of a process is read through one descriptor of its folder, which is never
//! that of a later process.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use procfs::process::{Process as ProcFolder, Stat, all_processes_with_root};
use procfs::{FromRead, ProcError, ProcResult};

use crate::domain::ids::RunId;

/// How long killed processes may take to end: more means that the kernel does not let go of them.
const GONE_WITHIN: Duration = Duration::from_secs(10);
/// The first pause between two looks at processes that are being ended; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
/// The longest one.
const MAX_BACKOFF: Duration = Duration::from_millis(200);
/// Where the kernel shows processes.
const PROC: &str = "/proc";

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
pub struct ProcessSelector {
    /// Whose.
    pub run: RunId,
    /// Whether the run is a unit of systemd.
    pub systemd: bool,
    /// Whether this process is the run's executor.
    pub executor: bool,
    /// The sessions that the run's executors and steps opened.
    pub sessions: BTreeSet<ProcessId>,
    /// Processes that may stay, with all that descends from them.
    pub left: BTreeSet<ProcessId>,
    /// Where the kernel shows processes.
    pub proc: PathBuf,
}

impl ProcessSelector {
    /// The mark of a run as its folder tells it.
    ///
    /// # Errors
    /// Where the folder's lists cannot be read.
    pub fn of(folder: &Path, run: RunId, systemd: bool) -> io::Result<Self> {
        let (sessions, left) = (listed(&folder.join("sessions"))?, listed(&folder.join("left"))?);
        Ok(Self { run, systemd, executor: false, sessions, left, proc: PROC.into() })
    }

    /// The living processes of the run, this one left out.
    ///
    /// # Errors
    /// Where it cannot be told of each process whether it is one of them.
    pub fn processes(&self) -> io::Result<Vec<Process>> {
        let all = all(&self.proc)?;
        let me = std::process::id();
        // A session's number is not given to another process while the session lasts, but it is after a reboot.
        let in_session_of = |process: &Process, opener: &ProcessId| {
            let leader = all.get(&process.session).map(|leader| leader.id);
            opener.pid == process.session && leader.is_none_or(|leader| leader == *opener)
        };
        let left = descending(&all, |process| {
            self.left.contains(&process.id) || self.left.iter().any(|left| in_session_of(process, left))
        });
        let ours = if self.systemd {
            let unit = format!("/{}", unit_name(self.run));
            let mut ours = BTreeSet::new();
            for pid in all.keys() {
                if in_unit(&self.proc, *pid, &unit)? {
                    ours.insert(*pid);
                }
            }
            ours
        } else if self.executor {
            let opened = |process: &Process| self.sessions.iter().any(|id| in_session_of(process, id));
            descending(&all, |process| process.parent == me || opened(process))
        } else {
            let mut marked = BTreeSet::new();
            let variable = format!("HOSTLER_RUN={}", self.run);
            for process in all.values().filter(|process| !process.zombie) {
                let opened = self.sessions.iter().any(|id| in_session_of(process, id));
                if opened || self.has_variable(&all, process, &variable)? {
                    marked.insert(process.id.pid);
                }
            }
            descending(&all, |process| marked.contains(&process.id.pid))
        };
        let keep = |process: &Process| {
            let pid = process.id.pid;
            ours.contains(&pid) && pid != me && !process.zombie && !left.contains(&pid)
        };
        Ok(all.into_values().filter(keep).collect())
    }

    /// Whether a process was given the run's variable.
    fn has_variable(
        &self,
        all: &BTreeMap<u32, Process>,
        process: &Process,
        variable: &str,
    ) -> io::Result<bool> {
        // Not `environ()`: of two variables of one name it has the last one only.
        match read_file(&self.proc, process.id.pid, "environ") {
            Ok(bytes) => Ok(bytes.split(|byte| *byte == 0).any(|entry| entry == variable.as_bytes())),
            // The environment of another user's process may be closed to this one.
            Err(error)
                if error.kind() == io::ErrorKind::PermissionDenied && !self.may_be_ours(all, process) =>
            {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Whether a process whose environment cannot be read may be one of the run: it started after the run's first
    /// executor, and was not started by a process that is older than the run, since orphans of the run are given to an
    /// ancestor of this process.
    fn may_be_ours(&self, all: &BTreeMap<u32, Process>, process: &Process) -> bool {
        // An executor lists itself before it starts anything: without a line there is nothing that it started.
        let Some(since) = self.sessions.iter().map(|id| id.start).min() else { return false };
        let mut adopters = BTreeSet::from([0, 1]);
        let mut pid = std::process::id();
        while adopters.insert(pid) {
            pid = all.get(&pid).map_or(0, |process| process.parent);
        }
        let mut at = process;
        // A parent is older than its child, so this ends; the bound is for a list that was read while it changed.
        for _ in 0..all.len() {
            if at.id.start < since {
                return false;
            }
            match all.get(&at.parent) {
                Some(parent) if !adopters.contains(&at.parent) => at = parent,
                _ => return true,
            }
        }
        true
    }

    /// The living processes of the run, as soon as that can be told.
    ///
    /// # Errors
    /// Where it could not be told for ten seconds.
    pub async fn find(&self) -> io::Result<Vec<Process>> {
        let until = Instant::now() + GONE_WITHIN;
        loop {
            match self.processes() {
                Err(error) if Instant::now() >= until => return Err(error),
                Err(_) => tokio::time::sleep(MAX_BACKOFF).await,
                found => return found,
            }
        }
    }

    /// Ends all processes of the run but this one, and returns those that could not be ended: each is asked once by
    /// TERM, and killed after the grace.
    ///
    /// # Errors
    /// Where it could not be told which live at the end.
    pub async fn end_all(&self, grace: Duration) -> io::Result<Vec<Process>> {
        let began = Instant::now();
        let mut asked = BTreeSet::new();
        let mut pause = FIRST_PAUSE;
        loop {
            let alive = self.processes();
            let over = began.elapsed() > grace + GONE_WITHIN;
            let killing = began.elapsed() >= grace;
            match alive {
                Ok(alive) if alive.is_empty() || over => return Ok(alive),
                Err(error) if over => return Err(error),
                Ok(alive) => {
                    for Process { id, .. } in alive {
                        if killing {
                            send(id, Signal::SIGKILL);
                        } else if asked.insert(id) {
                            send(id, Signal::SIGTERM);
                        }
                    }
                }
                Err(_) => {}
            }
            // Not later than the moment from which on they are killed.
            let rest = grace.saturating_sub(began.elapsed());
            tokio::time::sleep(if killing { pause } else { pause.min(rest) }).await;
            pause = (pause * 2).min(MAX_BACKOFF);
        }
    }
}

/// The processes of which `root` is true, with all that descends from them.
fn descending(all: &BTreeMap<u32, Process>, root: impl Fn(&Process) -> bool) -> BTreeSet<u32> {
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

/// The unit of a run's executor.
pub fn unit_name(run: RunId) -> String {
    format!("hostler-run-{run}.service")
}

/// The unit of the watcher of a step's guard.
pub fn watcher_unit_name(run: RunId, step: usize) -> String {
    format!("hostler-guard-{run}-{step}.service")
}

/// Adds a process to a list that outlives its writer; not synced, because a power cut ends all processes anyway.
///
/// # Errors
/// Where it cannot be written.
pub fn list(path: &Path, id: ProcessId) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().append(true).create(true).open(path)?;
    // In one piece: whoever dies meanwhile leaves a whole line or none.
    file.write_all(format!("{} {}\n", id.pid, id.start).as_bytes())
}

fn listed(path: &Path) -> io::Result<BTreeSet<ProcessId>> {
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        text => text.map_err(|error| about(path, &error))?,
    };
    let id = |line: &str| {
        let (pid, start) = line.split_once(' ')?;
        Some(ProcessId { pid: pid.parse().ok()?, start: start.parse().ok()? })
    };
    // A line without an end, and zeroes, are what a power cut leaves, and with it everything that they could name.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole).trim_matches('\0');
    let ids =
        whole.lines().map(|line| id(line).ok_or_else(|| about(path, &"it has a line that names no process")));
    ids.collect()
}

fn about(path: &Path, why: &dyn std::fmt::Display) -> io::Error {
    io::Error::other(format!("{}: {why}", path.display()))
}

/// `None` where the kernel says that there is no such process.
fn gone_is_none<T>(read: ProcResult<T>) -> io::Result<Option<T>> {
    match read {
        Ok(read) => Ok(Some(read)),
        // With the path of what does not exist: a listing of all that breaks off has none.
        Err(ProcError::NotFound(Some(_))) => Ok(None),
        Err(error @ ProcError::PermissionDenied(_)) => {
            Err(io::Error::new(io::ErrorKind::PermissionDenied, error.to_string()))
        }
        Err(error) => Err(io::Error::other(error)),
    }
}

/// The bytes of a file, which need not be text.
struct Bytes(Vec<u8>);

impl FromRead for Bytes {
    fn from_read<R: Read>(mut reader: R) -> ProcResult<Self> {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes)?;
        Ok(Self(bytes))
    }
}

/// What a file in the folder of a process holds; nothing where there is no such process.
fn read_file(proc: &Path, pid: u32, file: &str) -> io::Result<Vec<u8>> {
    let folder = ProcFolder::new_with_root(proc.join(pid.to_string()));
    let read = gone_is_none(folder.and_then(|folder| folder.read(file)))?;
    Ok(read.map(|Bytes(bytes)| bytes).unwrap_or_default())
}

/// Sends a signal, if the pid still is that process.
pub fn send(id: ProcessId, signal: Signal) {
    // One that cannot be looked at is looked at again; one that has ended meanwhile is what was wanted.
    if let Ok(Some(process)) = process(id.pid)
        && process.id == id
        && let Ok(pid) = i32::try_from(id.pid)
    {
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

/// What the kernel says of a process now; `None`: that there is none.
///
/// # Errors
/// Where the kernel does not say.
pub fn process(pid: u32) -> io::Result<Option<Process>> {
    process_of(ProcFolder::new_with_root(Path::new(PROC).join(pid.to_string())))
}

fn process_of(folder: ProcResult<ProcFolder>) -> io::Result<Option<Process>> {
    let Some(stat) = gone_is_none(folder.and_then(|folder| folder.stat()))? else { return Ok(None) };
    Process::of(stat).map(Some)
}

impl Process {
    fn of(stat: Stat) -> io::Result<Self> {
        let number = |number: i32| u32::try_from(number).map_err(io::Error::other);
        Ok(Self {
            id: ProcessId { pid: number(stat.pid)?, start: stat.starttime },
            parent: number(stat.ppid)?,
            session: number(stat.session)?,
            zombie: matches!(stat.state, 'Z' | 'X'),
            name: stat.comm,
        })
    }
}

/// This process.
pub fn myself() -> ProcessId {
    let pid = std::process::id();
    process(pid).ok().flatten().map_or(ProcessId { pid, start: 0 }, |process| process.id)
}

/// All processes of the host.
fn all(proc: &Path) -> io::Result<BTreeMap<u32, Process>> {
    let mut all = BTreeMap::new();
    // One that is not there at all shows nobody, which is no word on any process.
    for folder in all_processes_with_root(proc).map_err(|error| about(proc, &error))? {
        all.extend(process_of(folder)?.map(|process| (process.id.pid, process)));
    }
    // Whatever is shown there are not the processes of this host, or not all.
    if !all.contains_key(&std::process::id()) {
        return Err(about(proc, &"it does not show this process"));
    }
    Ok(all)
}

fn in_unit(proc: &Path, pid: u32, unit: &str) -> io::Result<bool> {
    // Not `cgroups()`: the names are bytes, and somebody else's odd one is no reason to start nothing.
    let cgroups = read_file(proc, pid, "cgroup")?;
    let cgroups = String::from_utf8_lossy(&cgroups);
    Ok(cgroups.lines().any(|line| line.ends_with(unit) || line.contains(&format!("{unit}/"))))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_hostile_name_does_not_confuse_the_reader() {
        let parse =
            |stat: &str| Stat::from_read(stat.as_bytes()).map_err(io::Error::other).and_then(Process::of);
        let process = parse(&stat(7, "a) S 1 (b", 5, 7, 4242)).unwrap();
        assert_eq!((process.name.as_str(), process.parent, process.session), ("a) S 1 (b", 5, 7));
        assert_eq!(process.id, ProcessId { pid: 7, start: 4242 });
        assert!(parse("").is_err() && parse("7 (a) S").is_err());
    }

    /// A line as the kernel writes it.
    fn stat(pid: u32, name: &str, parent: u32, session: u32, start: u64) -> String {
        let rest = "9 ".repeat(30);
        format!("{pid} ({name}) S {parent} 1 {session} 0 -1 1 2 3 4 5 6 7 8 9 10 11 12 13 {start} {rest}\n")
    }

    #[test]
    fn one_that_ends_while_it_is_looked_at_has_ended() {
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let folder = ProcFolder::new_with_root(Path::new(PROC).join(child.id().to_string())).unwrap();
        assert_eq!(Process::of(folder.stat().unwrap()).unwrap().id.pid, child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(process_of(Ok(folder)).unwrap().is_none());
    }

    #[test]
    fn this_process_is_found() {
        let me = myself();
        assert!(me.start > 0 && process(me.pid).unwrap().is_some_and(|process| !process.zombie));
        assert!(process(u32::MAX).unwrap().is_none());
    }

    const RUN: &str = "01J9ZXAMPAE0000000000000AA";

    /// A `/proc` of its own: this process, and what a test puts beside it.
    struct Fake(tempfile::TempDir);

    impl Fake {
        fn new() -> Self {
            let fake = Self(tempfile::tempdir().unwrap());
            fake.put([1, 0, 1, 1], "");
            fake.put([std::process::id(), 1, 1, 100], "");
            fake
        }

        fn put(&self, [pid, parent, session, start]: [u32; 4], environ: &str) {
            let dir = self.0.path().join(pid.to_string());
            fs::create_dir(&dir).unwrap();
            fs::write(dir.join("stat"), stat(pid, "x", parent, session, start.into())).unwrap();
            fs::write(dir.join("environ"), environ).unwrap();
            fs::write(dir.join("cgroup"), "0::/user.slice\n").unwrap();
        }

        /// Puts a folder in a file's place: to read it is an error, and not that there is none.
        fn spoil(&self, pid: u32, file: &str) {
            let path = self.0.path().join(pid.to_string()).join(file);
            fs::remove_file(&path).unwrap();
            fs::create_dir(&path).unwrap();
        }

        fn mark(&self, systemd: bool) -> ProcessSelector {
            let (sessions, left) = (BTreeSet::new(), BTreeSet::new());
            let proc = self.0.path().to_owned();
            ProcessSelector { run: RUN.parse().unwrap(), systemd, executor: false, sessions, left, proc }
        }

        fn pids(&self, mark: &ProcessSelector) -> Vec<u32> {
            mark.processes().unwrap().iter().map(|process| process.id.pid).collect()
        }
    }

    #[test]
    fn what_cannot_be_read_is_never_taken_for_ended() {
        for systemd in [false, true] {
            let fake = Fake::new();
            fake.put([7_000_001, 1, 5, 200], "X=1");
            let mark = fake.mark(systemd);
            assert_eq!(fake.pids(&mark), [0_u32; 0]);
            // Between the listing and the reading it may end.
            fs::create_dir(fake.0.path().join("7000002")).unwrap();
            assert_eq!(fake.pids(&mark), [0_u32; 0], "one without files has just ended");
            fake.spoil(7_000_001, if systemd { "cgroup" } else { "environ" });
            let error = mark.processes().unwrap_err().to_string();
            assert!(error.contains("7000001"), "{error}");
            let fake = Fake::new();
            fake.put([7_000_001, 1, 5, 200], "X=1");
            fake.spoil(7_000_001, "stat");
            fake.mark(systemd).processes().unwrap_err();
            let fake = Fake::new();
            fs::write(fake.0.path().join("1/stat"), "1 (half").unwrap();
            fake.mark(systemd).processes().unwrap_err();
            let fake = Fake::new();
            fs::remove_dir_all(fake.0.path().join(std::process::id().to_string())).unwrap();
            let error = fake.mark(systemd).processes().unwrap_err().to_string();
            assert!(error.contains("does not show this process"), "{error}");
            let mut mark = fake.mark(systemd);
            mark.proc = fake.0.path().join("absent");
            mark.processes().unwrap_err();
        }
    }

    #[test]
    fn a_process_belongs_by_variable_session_or_descent() {
        let fake = Fake::new();
        fake.put([7_000_001, 1, 5, 200], &format!("A=1\0HOSTLER_RUN={RUN}\0"));
        fake.put([7_000_002, 7_000_001, 6, 210], "");
        fake.put([7_000_003, 1, 7_000_009, 220], "");
        fake.put([7_000_004, 1, 8, 230], &format!("A=HOSTLER_RUN={RUN}\0HOSTLER_RUN={RUN}X\0"));
        let mut mark = fake.mark(false);
        assert_eq!(fake.pids(&mark), [7_000_001, 7_000_002]);
        mark.sessions.insert(ProcessId { pid: 7_000_009, start: 190 });
        assert_eq!(fake.pids(&mark), [7_000_001, 7_000_002, 7_000_003]);
        // The leader's pid is another process now, so its session is another, too.
        fake.put([7_000_009, 1, 7_000_009, 999], "");
        assert_eq!(fake.pids(&mark), [7_000_001, 7_000_002]);
    }

    #[test]
    fn a_closed_environment_counts_only_where_it_may_be_of_the_run() {
        if nix::unistd::geteuid().is_root() {
            // To root nothing is closed here: the rule itself is asked.
            let fake = Fake::new();
            let me = std::process::id();
            fake.put([7_000_001, 1, 5, 150], "");
            fake.put([7_000_002, 7_000_001, 5, 300], "");
            fake.put([7_000_003, 1, 5, 300], "");
            fake.put([7_000_004, me, 5, 300], "");
            fake.put([7_000_005, 7_000_004, 5, 310], "");
            let all = all(fake.0.path()).unwrap();
            let mut mark = fake.mark(false);
            let may = |mark: &ProcessSelector, pid: u32| mark.may_be_ours(&all, &all[&pid]);
            assert!(!may(&mark, 7_000_003), "no executor has come as far as to start anything");
            mark.sessions.insert(ProcessId { pid: 9, start: 200 });
            assert!(!may(&mark, 7_000_001), "it is older than the run");
            assert!(!may(&mark, 7_000_002), "what started it is older than the run");
            assert!(may(&mark, 7_000_003) && may(&mark, 7_000_004) && may(&mark, 7_000_005));
        } else {
            let fake = Fake::new();
            fake.put([7_000_001, 1, 5, 300], "");
            let environ = fake.0.path().join("7000001/environ");
            fs::set_permissions(environ, fs::Permissions::from_mode(0o0)).unwrap();
            let mut mark = fake.mark(false);
            mark.sessions.insert(ProcessId { pid: 9, start: 200 });
            mark.processes().unwrap_err();
            mark.sessions = BTreeSet::from([ProcessId { pid: 9, start: 400 }]);
            assert_eq!(fake.pids(&mark), [0_u32; 0]);
        }
    }

    #[test]
    fn the_executor_goes_by_descent() {
        let fake = Fake::new();
        fake.put([7_000_001, std::process::id(), 5, 200], "");
        fake.put([7_000_002, 7_000_001, 6, 210], "");
        fake.put([7_000_003, 1, 7, 220], "");
        fake.spoil(7_000_003, "environ");
        let mark = ProcessSelector { executor: true, ..fake.mark(false) };
        assert_eq!(fake.pids(&mark), [7_000_001, 7_000_002]);
    }

    #[test]
    fn a_list_is_read_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sessions");
        assert!(listed(&path).unwrap().is_empty());
        let ids = [ProcessId { pid: 5, start: 7 }, ProcessId { pid: 6, start: 8 }];
        ids.iter().for_each(|id| list(&path, *id).unwrap());
        assert_eq!(listed(&path).unwrap(), BTreeSet::from(ids));
        fs::write(&path, "5 7\n6 ").unwrap();
        assert_eq!(listed(&path).unwrap().len(), 1, "what was never written whole names nothing");
        fs::write(&path, "\0\0\0").unwrap();
        assert!(listed(&path).unwrap().is_empty());
        fs::write(&path, "5 7\nfive\n6 8\n").unwrap();
        listed(&path).unwrap_err();
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        listed(&path).unwrap_err();
    }

    #[tokio::test]
    async fn each_process_is_asked_once_and_then_killed() {
        let dir = tempfile::tempdir().unwrap();
        let (count, ready) = (dir.path().join("count"), dir.path().join("ready"));
        let script = format!(
            "trap 'echo x >> {}' TERM; echo > {}; while :; do read -t 0.05 x <> <(:); done",
            count.display(),
            ready.display()
        );
        let run = clock_run();
        let mut child = tokio::process::Command::new("bash");
        child.args(["-c", &script]).env("HOSTLER_RUN", run.to_string());
        let mut child = child.kill_on_drop(true).spawn().unwrap();
        while !ready.exists() {
            tokio::time::sleep(FIRST_PAUSE).await;
        }
        // The run began with this process: what is older, and closed to this user, is not of it.
        let mut mark = ProcessSelector::of(dir.path(), run, false).unwrap();
        mark.sessions.insert(ProcessId { pid: u32::MAX, start: myself().start });
        let reaped = async { child.wait().await.unwrap() };
        let ended = async { mark.end_all(Duration::from_secs(1)).await.unwrap() };
        let both = async { tokio::join!(ended, reaped) };
        let (left, status) = tokio::time::timeout(Duration::from_secs(60), both).await.unwrap();
        assert!(left.is_empty() && !status.success());
        assert_eq!(fs::read_to_string(&count).unwrap(), "x\n");
    }

    fn clock_run() -> RunId {
        crate::host::clock::new_run()
    }
}
