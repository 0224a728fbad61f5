//! One question: a read-only command whose answer is what it prints.
//!
//! It is no run. It has no secrets, no report and no journal; its standard output is read up to a bound, its standard
//! error is kept for the message about a failure, and nothing that it started is left when the answer is given.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::pipe2;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::process::Child;
use tokio::signal::unix::Signal;
use tokio::time::{Instant, sleep_until};

use super::processes::{self, ProcessSelector};
use super::program::{self, Exec};
use super::step::{has_children, identify, nonblocking, on_start, reap_orphans};
use super::user::User;
use crate::domain::facts::MAX_VALUE;
use crate::domain::ids::RunId;
use crate::domain::text;
use crate::domain::yaml::single_line;

/// The memory that a question may use, in bytes.
pub const MEMORY: u64 = 64 << 20;
/// The most processes and threads of a question.
pub const TASKS: u64 = 64;

/// What is read of the standard output: a value, with room for white space around it.
const MAX_PRINTED: usize = 2 * MAX_VALUE;
/// How much of the end of the standard error is kept, in bytes.
const MAX_SAID: usize = 400;
/// How long the pipes are read after the command has ended.
const DRAIN: Duration = Duration::from_millis(200);
/// What is left behind gets this between TERM and KILL.
const GRACE: Duration = Duration::from_millis(500);
/// The file in the folder of a question that says what is asked.
const FILE: &str = "question";

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// The id by which its processes are known; it is no run.
    pub id: RunId,
    /// The name of the fact.
    pub fact: String,
    /// This host.
    pub host: String,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Who runs it; `None`: root.
    pub user: Option<String>,
    /// The folder that it is started in.
    pub folder: PathBuf,
    /// How long it may take.
    pub timeout: Duration,
    /// Whether its executor is a systemd unit, with limits and a cgroup of its own.
    pub systemd: bool,
}

impl Question {
    /// The question in a folder.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn read(folder: &Path) -> io::Result<Self> {
        serde_json::from_slice(&std::fs::read(folder.join(FILE))?).map_err(io::Error::other)
    }

    /// Where a question stands in its folder.
    pub fn path(folder: &Path) -> PathBuf {
        folder.join(FILE)
    }

    /// Asks. `folder` is where the question stands, `term` ends it before its time.
    ///
    /// # Errors
    /// One line: why there is no answer.
    pub async fn ask(
        &self,
        folder: &Path,
        mark: &mut ProcessSelector,
        term: &mut Signal,
    ) -> Result<Vec<u8>, String> {
        let user = User::look_up(self.user.as_deref())?;
        let env = self.environment(&user);
        let started = self.start(&user, &env);
        let (mut child, out, err) =
            started.map_err(|error| program::explain(&error, &self.argv, &env, &self.folder))?;
        match identify(&child) {
            Ok(id) => {
                mark.sessions.insert(id);
                // By it the agent finds what is left of a question whose executor has died.
                if !self.systemd
                    && let Err(error) = processes::list(&folder.join("sessions"), id)
                {
                    tracing::warn!("the session of a question is not listed: {error}");
                }
            }
            Err(error) => {
                // What cannot be found again must not go on.
                let _ = child.kill().await;
                return Err(format!("its process cannot be told: {error}"));
            }
        }
        let mut pipes = Pipes::new(out, err);
        let over = Instant::now() + self.timeout;
        // Each arm is cancel-safe: a wait can be waited again, and a read that is not chosen has read nothing.
        let ended = loop {
            tokio::select! {
                biased;
                status = child.wait() => break Ok(status.map_err(|error| error.to_string())?),
                full = pipes.read() => if full {
                    break Err(format!("it printed more than {MAX_VALUE} bytes, and was ended"));
                },
                () = sleep_until(over) => {
                    break Err(format!("it did not end within {} s, and was ended", self.timeout.as_secs()));
                }
                _ = term.recv() => break Err("it was ended, because the host is stopping".to_owned()),
            }
        };
        let drained = Instant::now() + DRAIN;
        while ended.is_ok() && pipes.are_open() {
            tokio::select! {
                full = pipes.read() => if full { break },
                () = sleep_until(drained) => break,
            }
        }
        let grace = if ended.is_ok() { GRACE } else { Duration::ZERO };
        let left = if has_children() { mark.end_all(grace).await } else { Ok(Vec::new()) };
        let survives = match left {
            Ok(alive) => alive.first().map(|process| format!("its process {} still lives", process.id.pid)),
            Err(error) => Some(format!("whether anything of it lives cannot be told: {error}")),
        };
        let _ = tokio::time::timeout(GRACE, child.wait()).await;
        reap_orphans(None);
        if let Some(survives) = survives {
            return Err(survives);
        }
        let status = ended?;
        if !status.success() {
            return Err(pipes.failure(status));
        }
        if pipes.printed.len() > MAX_PRINTED {
            return Err(format!("it printed more than {MAX_VALUE} bytes"));
        }
        Ok(pipes.printed)
    }

    fn environment(&self, user: &User) -> Vec<(String, String)> {
        [
            ("PATH", program::PATH.to_owned()),
            ("LANG", "C.UTF-8".to_owned()),
            ("HOME", user.home.to_string_lossy().into_owned()),
            ("HOSTLER_HOST", self.host.clone()),
            ("HOSTLER_FACT", self.fact.clone()),
            // The mark of its processes.
            ("HOSTLER_RUN", self.id.to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    #[expect(unsafe_code, reason = "the standard library has no other way to set a limit before exec")]
    fn start(&self, user: &User, env: &[(String, String)]) -> io::Result<(Child, Receiver, Receiver)> {
        let (out, out_writer) = pipe()?;
        let (err, err_writer) = pipe()?;
        let program = self.argv.first().ok_or(io::ErrorKind::InvalidInput)?;
        let exec = Exec::new(&self.argv, env)?;
        let mut command = std::process::Command::new(program);
        command.current_dir(&self.folder);
        command.stdin(Stdio::null()).stdout(out_writer).stderr(err_writer);
        if !self.systemd {
            // A unit has its limit already, for all its processes together; here each has its own.
            let limit = || setrlimit(Resource::RLIMIT_DATA, MEMORY, MEMORY).map_err(io::Error::from);
            // SAFETY: the closure makes one system call.
            unsafe { command.pre_exec(limit) };
        }
        on_start(&mut command, (!user.is_me()).then(|| user.clone()), false, exec);
        let mut command = tokio::process::Command::from(command);
        Ok((command.kill_on_drop(false).spawn()?, out, err))
    }
}

fn pipe() -> io::Result<(Receiver, OwnedFd)> {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
    Ok((Receiver::from_owned_fd(nonblocking(reader)?)?, writer))
}

/// What the command prints, and what it says of a failure.
struct Pipes {
    out: Option<Receiver>,
    err: Option<Receiver>,
    printed: Vec<u8>,
    said: Vec<u8>,
}

impl Pipes {
    fn new(out: Receiver, err: Receiver) -> Self {
        Self { out: Some(out), err: Some(err), printed: Vec::new(), said: Vec::new() }
    }

    fn are_open(&self) -> bool {
        self.out.is_some() || self.err.is_some()
    }

    /// Reads a piece of either; true: more was printed than is ever read. Waits for ever when both are closed.
    async fn read(&mut self) -> bool {
        let (mut printed, mut said) = ([0; 4096], [0; 512]);
        tokio::select! {
            read = piece(&mut self.out, &mut printed) => {
                self.printed.extend_from_slice(printed.get(..read).unwrap_or_default());
            }
            read = piece(&mut self.err, &mut said) => {
                self.said.extend_from_slice(said.get(..read).unwrap_or_default());
                let more = self.said.len().saturating_sub(MAX_SAID);
                self.said.drain(..more);
            }
        }
        self.printed.len() > MAX_PRINTED
    }

    /// Why a command that ended so has no answer: with the last line of what it said.
    fn failure(&self, status: ExitStatus) -> String {
        let how = match (status.code(), status.signal()) {
            (Some(code), _) => format!("it ended with {code}"),
            (None, Some(libc::SIGKILL)) => {
                format!("it was killed by signal 9 (it may use {} MiB of memory)", MEMORY >> 20)
            }
            (None, signal) => format!("it was ended by signal {}", signal.unwrap_or_default()),
        };
        let said = String::from_utf8_lossy(&self.said);
        let last = said.lines().rev().find(|line| !line.trim().is_empty());
        match last {
            Some(last) => format!("{how}: {}", single_line(&text::clean(last.trim()))),
            None => how,
        }
    }
}

/// Reads a piece of a pipe, and closes it at its end.
async fn piece(pipe: &mut Option<Receiver>, buffer: &mut [u8]) -> usize {
    let Some(open) = pipe else { return std::future::pending().await };
    let read = open.read(buffer).await.unwrap_or_default();
    if read == 0 {
        *pipe = None;
    }
    read
}
