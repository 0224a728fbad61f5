//! One command of a run, from its start until nothing of it is left that may not stay.
//!
//! ```text
//! start -> running -> exited --------------------------------> drain -> clear -> ended
//!             \-> deadline, cancel, stop -> TERM -> grace -> KILL -/
//! ```
//!
//! The command is a program with arguments, never a shell; its environment is cleared, it leads a session of its own,
//! and its standard output and error are one pipe, which is read for at most a second after it has ended,
//! whoever still holds the other end.

use std::ffi::CStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::sys::signal::{SigHandler, Signal, kill};
use nix::sys::stat::Mode;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::{Pid, pipe2, setgid, setgroups, setsid, setuid};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe::Receiver;
use tokio::process::ChildStdin;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::feedback::StepReportReader;
use super::output::Output;
use super::processes::{self, ProcessId, ProcessSelector};
use super::program::{self, Exec};
use super::user::User;
use crate::domain::summary::{LEFT_BEHIND, LEFT_BEHIND_EACH};
use crate::domain::text;
use crate::host::{allocator, clock};

/// How long the pipe is read after the command has ended.
const DRAIN: Duration = Duration::from_secs(1);
/// What a command leaves running without leave gets between TERM and KILL.
const LEFT_BEHIND_GRACE: Duration = Duration::from_secs(1);
/// What a command may print before it waits for this process: the most that a kernel gives by default. With the usual
/// sixteenth of it, both are woken for each little piece.
const PIPE: i32 = 1 << 20;
/// What is read of it at once, in bytes.
const READ: usize = 256 << 10;
/// How often a running step's report is read, and its output is caught up with: a report a second is all that the store gets.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Why there is no word on how a command ended.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// It could not be started, and nothing has happened; says why.
    #[error("{0}")]
    NotStarted(String),
    /// It was started, and the system does not say how it ended.
    #[error("it was started, and how it ended cannot be learned: {0}")]
    Lost(io::Error),
}

/// What may end a command before its time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Interrupt {
    /// Nothing.
    #[default]
    None,
    /// The run is cancelled.
    Cancel,
    /// The host is stopping.
    Stop,
}

/// What is to be started.
pub struct CommandSpec<'a> {
    /// The line before what it prints.
    pub heading: &'a str,
    /// Program and arguments.
    pub argv: &'a [String],
    /// The whole environment.
    pub env: &'a [(String, String)],
    /// What it reads on its standard input.
    pub stdin: Option<&'a [u8]>,
    /// The folder that it is started in.
    pub cwd: &'a Path,
    /// Who runs it.
    pub user: &'a User,
    /// How long it may take.
    pub deadline: Option<Duration>,
    /// Between TERM and KILL.
    pub grace: Duration,
    /// Whether a cancel ends it.
    pub ends_on_cancel: bool,
    /// Whether what it leaves running may stay.
    pub keep_processes: bool,
    /// Whether neither it nor what it starts can gain rights by executing a program.
    pub no_new_privileges: bool,
}

/// What happened while a command ran, for whom it may concern at once.
pub enum StepEvent<'a> {
    /// It was started.
    Started(ProcessId),
    /// It said something.
    Reported(&'a StepReportReader),
    /// It is about to be ended.
    Interrupted(Interrupt),
}

/// What is heard of the watchers of guards while a command runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatcherNews {
    /// This process is one of them, and may stay.
    Started(ProcessId),
    /// The guard of this step has fired, or nobody watches over it any more: the command is to be ended.
    Over(usize),
}

/// What is beside a command while it runs.
pub struct Surroundings<'a> {
    /// How its processes are told from others.
    pub mark: &'a mut ProcessSelector,
    /// Takes what it prints.
    pub output: &'a mut Output,
    /// Reads what it reports.
    pub feedback: &'a mut StepReportReader,
    /// What may end it.
    pub interrupts: &'a mut watch::Receiver<Interrupt>,
    /// What is heard of the watchers of guards, where there are any.
    pub watchers: Option<&'a mut mpsc::UnboundedReceiver<WatcherNews>>,
}

/// How a command ended.
#[derive(Debug)]
pub struct CommandResult {
    /// Its status.
    pub status: ExitStatus,
    /// Ended because its time was up.
    pub timed_out: bool,
    /// Ended by this.
    pub interrupt: Interrupt,
    /// Ended because the guard of this step has fired.
    pub guarded: Option<usize>,
    /// How long it took.
    pub spent: Duration,
    /// Processes that it left running without leave, which were ended.
    pub killed_processes: Vec<String>,
    /// Processes that it left running with leave.
    pub left: Vec<ProcessId>,
    /// What could not be ended, or why it cannot be told whether anything of it lives; `None`: nothing does.
    pub survives: Option<String>,
}

/// Runs a command to its end.
///
/// # Errors
/// Where it could not be started, or how it ended cannot be learned: two things that are never one.
pub async fn run(
    job: &CommandSpec<'_>,
    beside: Surroundings<'_>,
    on_event: &mut dyn FnMut(StepEvent<'_>),
) -> Result<CommandResult, StepError> {
    let Surroundings { mark, output, feedback, interrupts, mut watchers } = beside;
    let began = clock::since_boot();
    let started = start(job).map_err(|error| program::explain(&error, job.argv, job.env, job.cwd));
    let (mut child, mut pipe) = started.map_err(StepError::NotStarted)?;
    // A program that does not read it is not waited for: what is left of it goes with the command.
    let mut input = child.stdin.take().zip(job.stdin);
    let mut written = 0;
    let id = match identify(&child) {
        Ok(id) => id,
        Err(error) => {
            // What cannot be found again must not go on.
            signal_group(child.id(), Signal::SIGKILL);
            let _ = child.wait().await;
            return Err(StepError::Lost(error));
        }
    };
    mark.sessions.insert(id);
    on_event(StepEvent::Started(id));
    // Only now: the first byte makes a file, and the command need not wait for it. A full disk costs the output, not the
    // step.
    let _ = output.write(job.heading.as_bytes());
    let deadline = job.deadline.map(|span| Instant::now() + span);
    let mut ending = Termination { deadline, ..Termination::default() };
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut buffer = vec![0; READ];
    let mut open = true;
    let mut rests_at = Some(Instant::now() + allocator::IDLE_BEFORE_TRIM);
    let status = loop {
        // Each arm is cancel-safe: a read that is not chosen has read nothing, a wait can be waited again.
        tokio::select! {
            biased;
            status = child.wait() => break status.map_err(StepError::Lost)?,
            read = pipe.read(&mut buffer), if open => {
                open = keep(read, &buffer, output);
                rests_at = Some(Instant::now() + allocator::IDLE_BEFORE_TRIM);
                allocator::mark_active();
            }
            more = feed(&mut input, &mut written), if input.is_some() => if !more {
                input = None;
            },
            () = until(ending.deadline), if ending.asked.is_none() => {
                ending.timed_out = true;
                ending.ask(id, job.grace);
            }
            () = until(ending.kill_at), if !ending.killed => {
                ending.killed = true;
                // What is left of it is looked for once more when the command has ended.
                let _ = mark.end_all(Duration::ZERO).await;
            }
            news = hear(&mut watchers) => match news {
                WatcherNews::Started(watcher) => {
                    mark.left.insert(watcher);
                }
                WatcherNews::Over(step) => {
                    ending.guarded = ending.guarded.or(Some(step));
                    ending.ask(id, job.grace);
                }
            },
            changed = interrupts.changed(), if ending.listens => {
                ending.listens = changed.is_ok();
                // Nobody is left to interrupt; the last word was heard before.
                if !ending.listens {
                    continue;
                }
                let interrupt = *interrupts.borrow_and_update();
                if interrupt == Interrupt::Stop || interrupt == Interrupt::Cancel {
                    on_event(StepEvent::Interrupted(interrupt));
                }
                if interrupt == Interrupt::Stop || (interrupt == Interrupt::Cancel && job.ends_on_cancel) {
                    ending.interrupt = interrupt;
                    ending.ask(id, job.grace);
                }
            }
            _ = look.tick() => {
                reap_orphans(child.id());
                // A full disk costs the output, not the step.
                let _ = output.look();
                if feedback.read() {
                    on_event(StepEvent::Reported(feedback));
                }
                // A step may take hours, in which this process does nothing but wait.
                if rests_at.is_some_and(|at| at <= Instant::now()) {
                    rests_at = None;
                    allocator::trim();
                }
            }
        }
    };
    allocator::mark_active();
    let spent = clock::since_boot().saturating_sub(began);
    let drained = Instant::now() + DRAIN;
    while open {
        tokio::select! {
            read = pipe.read(&mut buffer) => open = keep(read, &buffer, output),
            () = sleep_until(drained) => break,
        }
    }
    // A full disk costs the output, not the step.
    let _ = output.flush();
    feedback.finish();
    while let Some(WatcherNews::Started(watcher)) =
        watchers.as_mut().and_then(|watchers| watchers.try_recv().ok())
    {
        mark.left.insert(watcher);
    }
    let may_stay = job.keep_processes && status.success();
    let (mut left, mut killed_processes, mut survives) = (Vec::new(), Vec::new(), None);
    let remaining = if has_children() { mark.find().await } else { Ok(Vec::new()) };
    match remaining {
        Err(error) => survives = Some(format!("cannot tell whether any of its processes is alive: {error}")),
        Ok(remaining) if may_stay => left = remaining.iter().map(|process| process.id).collect(),
        Ok(remaining) if remaining.is_empty() => {}
        Ok(remaining) => {
            let names = remaining.iter().map(|process| format!("{} ({})", process.name, process.id.pid));
            killed_processes = text::few(&names.collect::<Vec<_>>(), LEFT_BEHIND, LEFT_BEHIND_EACH);
            survives = match mark.end_all(LEFT_BEHIND_GRACE).await {
                Ok(alive) => {
                    alive.first().map(|process| format!("process {} is still alive", process.id.pid))
                }
                Err(error) => Some(format!("cannot tell whether any of its processes is alive: {error}")),
            };
        }
    }
    reap_orphans(None);
    let Termination { timed_out, interrupt, guarded, .. } = ending;
    Ok(CommandResult { status, timed_out, interrupt, guarded, spent, killed_processes, left, survives })
}

/// Which process a child is.
pub(super) fn identify(child: &tokio::process::Child) -> io::Result<ProcessId> {
    let pid = child.id().ok_or_else(|| io::Error::other("it was waited for already"))?;
    let process = processes::process(pid)?.ok_or_else(|| io::Error::other("/proc does not show it"))?;
    Ok(process.id)
}

/// Sends a signal to the process group of a child that is not yet waited for: its pid cannot be anybody else's.
fn signal_group(pid: Option<u32>, signal: Signal) {
    if let Some(pid) = pid.and_then(|pid| i32::try_from(pid).ok()) {
        let _ = kill(Pid::from_raw(-pid), signal);
    }
}

/// How a command is being ended.
#[derive(Debug)]
struct Termination {
    deadline: Option<Instant>,
    asked: Option<Instant>,
    kill_at: Option<Instant>,
    killed: bool,
    timed_out: bool,
    interrupt: Interrupt,
    guarded: Option<usize>,
    listens: bool,
}

impl Default for Termination {
    fn default() -> Self {
        Self {
            deadline: None,
            asked: None,
            kill_at: None,
            killed: false,
            timed_out: false,
            interrupt: Interrupt::None,
            guarded: None,
            listens: true,
        }
    }
}

impl Termination {
    /// TERM for the command's process group, once; KILL for everything after the grace.
    fn ask(&mut self, id: ProcessId, grace: Duration) {
        if self.asked.is_some() {
            return;
        }
        let now = Instant::now();
        self.asked = Some(now);
        self.kill_at = Some(now + grace);
        signal_group(Some(id.pid), Signal::SIGTERM);
    }
}

async fn hear(watchers: &mut Option<&mut mpsc::UnboundedReceiver<WatcherNews>>) -> WatcherNews {
    if let Some(watchers) = watchers
        && let Some(news) = watchers.recv().await
    {
        return news;
    }
    std::future::pending().await
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

/// Writes a part of the standard input; false when there is nothing more to write, or nobody who reads it.
///
/// A write that is not chosen has written nothing.
async fn feed(input: &mut Option<(ChildStdin, &[u8])>, written: &mut usize) -> bool {
    let Some((pipe, bytes)) = input else { return false };
    let rest = bytes.get(*written..).unwrap_or_default();
    if rest.is_empty() {
        return false;
    }
    match pipe.write(rest).await {
        Ok(0) | Err(_) => false,
        Ok(n) => {
            *written += n;
            true
        }
    }
}

fn keep(read: io::Result<usize>, buffer: &[u8], output: &mut Output) -> bool {
    match read {
        Ok(0) | Err(_) => false,
        Ok(n) => {
            // A full disk costs the output, not the step.
            let _ = output.write(buffer.get(..n).unwrap_or_default());
            true
        }
    }
}

/// Waits for ended processes that became this process's children; the command itself is left to its own wait.
pub(super) fn reap_orphans(child: Option<u32>) {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    while let Ok(status) = waitid(Id::All, flags) {
        let Some(pid) = status.pid().filter(|_| status != WaitStatus::StillAlive) else { return };
        if u32::try_from(pid.as_raw()).ok() == child {
            return;
        }
        let _ = waitpid(pid, Some(WaitPidFlag::WNOHANG));
    }
}

/// Whether anything of the steps is left at all, asked without looking at each process of the host.
///
/// This process is a sub-reaper: whatever descends from a step is its child or descends from one, whichever sessions
/// it opened and whoever started it is gone. What has no child has no descendants.
pub(super) fn has_children() -> bool {
    reap_orphans(None);
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    waitid(Id::All, flags) != Err(nix::errno::Errno::ECHILD)
}

fn start(job: &CommandSpec<'_>) -> io::Result<(tokio::process::Child, Receiver)> {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
    // A smaller one serves as well.
    let _ = nix::fcntl::fcntl(&reader, nix::fcntl::F_SETPIPE_SZ(PIPE));
    let pipe = Receiver::from_owned_fd(nonblocking(reader)?)?;
    let program = job.argv.first().ok_or(io::ErrorKind::InvalidInput)?;
    let exec = Exec::new(job.argv, job.env)?;
    // A relative program is one of the task's copy. It is looked up behind the change of folder, which root makes,
    // so that a step's user needs no way through the folders above the copy.
    let mut command = std::process::Command::new(program);
    command.current_dir(job.cwd);
    command.stdin(if job.stdin.is_some() { Stdio::piped() } else { Stdio::null() });
    command.stdout(writer.try_clone()?).stderr(writer);
    let user = (!job.user.is_me()).then(|| job.user.clone());
    on_start(&mut command, user, job.no_new_privileges, exec);
    let mut command = tokio::process::Command::from(command);
    Ok((command.kill_on_drop(false).spawn()?, pipe))
}

pub(super) fn nonblocking(fd: OwnedFd) -> io::Result<OwnedFd> {
    let flags = OFlag::from_bits_retain(nix::fcntl::fcntl(&fd, nix::fcntl::F_GETFL)?);
    nix::fcntl::fcntl(&fd, nix::fcntl::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(fd)
}

/// What the child does between fork and exec, which is its own: it stands alone, becomes the step's user, and
/// inherits no signal that whoever started the agent ignores.
#[expect(unsafe_code, reason = "the standard library has no other way to open a session before exec")]
pub(super) fn on_start(
    command: &mut std::process::Command,
    user: Option<User>,
    no_new_privileges: bool,
    exec: Exec,
) {
    let prepare = move || {
        stand_alone()?;
        if let Some(user) = &user {
            setgroups(&user.groups)?;
            setgid(user.gid)?;
            setuid(user.uid)?;
        }
        if no_new_privileges {
            nix::sys::prctl::set_no_new_privs()?;
        }
        close_on_exec();
        for signal in Signal::iterator().filter(|signal| !matches!(signal, Signal::SIGKILL | Signal::SIGSTOP))
        {
            // SAFETY: no handler is set, and none of this process's can run behind exec.
            let _ = unsafe { nix::sys::signal::signal(signal, SigHandler::SigDfl) };
        }
        Err(exec.exec())
    };
    // SAFETY: the closure makes system calls only; everything that allocates or takes locks (the look-up of the
    // user and of its groups, the texts of program and environment) was done before the fork.
    unsafe {
        command.pre_exec(prepare);
    }
}

/// Lets no descriptor above the three of every program pass exec, whoever opened it and how: neither those of the shell
/// that an agent was started from, nor this process's own.
#[expect(unsafe_code, reason = "no safe interface has this system call, and std has none")]
pub fn close_on_exec() {
    // SAFETY: a system call on numbers; it changes a flag of this process's own descriptors.
    let done = unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if done != 0 {
        // A kernel before 5.11.
        for fd in 3..4096 {
            // SAFETY: as above; of a number that is not open nothing comes.
            unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
}

/// A session of its own, and an ordinary place in the kernel's list of what to end when memory is short (an executor's
/// unit stands last). Makes system calls only, so that it may be done between fork and exec.
///
/// # Errors
/// Where this process leads a session or a group already.
pub fn stand_alone() -> io::Result<()> {
    const OOM: &CStr = c"/proc/self/oom_score_adj";
    setsid()?;
    if let Ok(file) = nix::fcntl::open(OOM, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty()) {
        let _ = nix::unistd::write(&file, b"0");
    }
    Ok(())
}

/// The last place in the kernel's list of what to end when memory is short, as far as the system lets this process.
pub fn stand_last() {
    let _ = std::fs::write("/proc/self/oom_score_adj", "-900");
}

/// The signal that ended it, or its status.
pub fn exit_of(status: ExitStatus) -> crate::domain::run::ExitKind {
    use crate::domain::run::ExitKind;
    match (status.code(), status.signal()) {
        (Some(code), _) => ExitKind::Code(code),
        (None, signal) => ExitKind::Signal(signal.unwrap_or_default()),
    }
}
