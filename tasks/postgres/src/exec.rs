//! Processes, and identities: the only place that starts the one and changes the other.
//!
//! Every program ends with a deadline, with a bounded part of its output kept, and with an environment of its own:
//! `PGHOST` or a locale of whoever calls must never decide what happens to a cluster.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use nix::unistd::{Gid, Uid, geteuid, seteuid};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};

use crate::error::Error;

/// What is kept of a program's standard output; more than this is an error.
const OUTPUT: u64 = 4 << 20;
/// The same of a program of Hostler: a list of a million segments.
const LIST: u64 = 64 << 20;
/// What is kept of a program's complaints.
const COMPLAINT: usize = 2000;

/// The user to whom a cluster belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl Owner {
    /// Whoever runs this program.
    pub fn own() -> Self {
        Self { uid: geteuid().as_raw(), gid: nix::unistd::getegid().as_raw() }
    }

    fn differs(self) -> bool {
        geteuid().is_root() && self.uid != 0
    }

    /// Does something quick as this user where the program runs as root: a server knows who connects by the
    /// identity at that moment.
    ///
    /// # Errors
    /// If the identity cannot be changed.
    pub fn act<T>(self, what: impl FnOnce() -> T) -> Result<T, Error> {
        if !self.differs() {
            return Ok(what());
        }
        let change = |uid| seteuid(uid).map_err(|error| Error::Local(format!("user {uid}: {error}")));
        change(Uid::from_raw(self.uid))?;
        let done = what();
        change(Uid::from_raw(0))?;
        Ok(done)
    }

    /// Gives a file to this user.
    ///
    /// # Errors
    /// If that is not possible.
    pub fn give(self, path: &Path) -> Result<(), Error> {
        if self.differs() {
            nix::unistd::chown(path, Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)))
                .map_err(|error| Error::Local(format!("{}: {error}", path.display())))?;
        }
        Ok(())
    }
}

/// How a program ended.
pub struct Ended {
    /// Its exit status; `None` after a signal.
    pub status: Option<i32>,
    /// Its standard output.
    pub output: String,
    /// The end of its standard error, on one line.
    pub complaint: String,
}

/// A program with an environment of its own, as `owner` (or as whoever calls), in the root folder.
fn command(program: &Path, owner: Option<Owner>) -> Command {
    let mut command = Command::new(program);
    command.env_clear();
    command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    // pg_createcluster takes locale and encoding from here where nothing else says so.
    command.env("LC_ALL", "C.UTF-8");
    if let Some(root) = std::env::var_os("PG_CLUSTER_CONF_ROOT") {
        command.env("PG_CLUSTER_CONF_ROOT", root);
    }
    if let Some(owner) = owner.filter(|owner| owner.differs()) {
        command.uid(owner.uid).gid(owner.gid);
    }
    command.current_dir("/").kill_on_drop(true).stdin(Stdio::null());
    command
}

/// The end of what a stream says, on one line.
async fn end_of(mut stream: impl AsyncRead + Unpin) -> String {
    let mut kept: Vec<u8> = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        kept.extend(buffer.iter().take(count));
        let surplus = kept.len().saturating_sub(COMPLAINT);
        kept.drain(..surplus);
    }
    let text = String::from_utf8_lossy(&kept);
    text.split('\n').map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}

/// Runs a program to its end.
///
/// # Errors
/// If it cannot be started, has not ended within `within` (it is killed then), or says more than 4 MiB.
pub async fn run<S: AsRef<OsStr>>(
    owner: Option<Owner>,
    program: &Path,
    words: &[S],
    within: Duration,
) -> Result<Ended, Error> {
    let mut command = command(program, owner);
    command.args(words);
    ended(command, program, OUTPUT, within).await
}

async fn ended(mut command: Command, program: &Path, most: u64, within: Duration) -> Result<Ended, Error> {
    let name = program.display();
    // A server that pg_ctl starts inherits what pg_ctl writes to: a pipe would stay open with it.
    let mut errors = tokio::fs::File::from_std(unnamed()?);
    let to = errors.try_clone().await.map_err(Error::local(&name))?.into_std().await;
    let mut outputs = tokio::fs::File::from_std(unnamed()?);
    let out = outputs.try_clone().await.map_err(Error::local(&name))?.into_std().await;
    let mut child = command.stdout(out).stderr(to).spawn().map_err(Error::local(&name))?;
    let status = match tokio::time::timeout(within, child.wait()).await {
        Ok(status) => status.map_err(Error::local(&name))?,
        Err(_) => {
            let _ = child.kill().await;
            return Err(Error::Program(format!("{name} has not ended within {} s", within.as_secs())));
        }
    };
    let mut output = Vec::new();
    rewind(&mut outputs).await.map_err(Error::local(&name))?;
    (&mut outputs).take(most + 1).read_to_end(&mut output).await.map_err(Error::local(&name))?;
    if output.len() as u64 > most {
        return Err(Error::Program(format!("{name} says more than {most} bytes")));
    }
    rewind(&mut errors).await.map_err(Error::local(&name))?;
    let complaint = end_of(errors).await;
    Ok(Ended { status: status.code(), output: String::from_utf8_lossy(&output).into_owned(), complaint })
}

async fn rewind(file: &mut tokio::fs::File) -> std::io::Result<()> {
    use tokio::io::AsyncSeekExt;
    file.rewind().await.map(|_| ())
}

/// A file without a name.
fn unnamed() -> Result<std::fs::File, Error> {
    tempfile::tempfile().map_err(Error::local("a temporary file"))
}

/// How a program of Hostler is called.
pub struct Call {
    /// Its standard input.
    pub input: Stdio,
    /// Whether it reports as the step does, by `HOSTLER_REPORT`.
    pub reports: bool,
    /// How long it may take.
    pub within: Duration,
}

/// Runs a program of Hostler to its end, with the environment of the caller but for what clients of PostgreSQL read from
/// it.
///
/// # Errors
/// As [`run`].
pub async fn call<S: AsRef<OsStr>>(
    owner: Option<Owner>,
    program: &Path,
    words: &[S],
    Call { input, reports, within }: Call,
) -> Result<Ended, Error> {
    let mut command = command(program, owner);
    inherit(&mut command, reports);
    command.args(words).stdin(input);
    ended(command, program, LIST, within).await
}

/// Gives a program the environment of whoever calls.
fn inherit(command: &mut Command, reports: bool) {
    for (name, value) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let known = ["PATH", "PG_CLUSTER_CONF_ROOT"].contains(&text.as_ref()) || text.starts_with("LC_");
        if (!text.starts_with("PG") || known) && (reports || text != "HOSTLER_REPORT") {
            command.env(name, value);
        }
    }
    command.env("LC_ALL", "C.UTF-8");
}

/// A server that lives as long as this is kept.
pub struct Served {
    child: Child,
}

impl Served {
    /// How it ended; `None` while it lives.
    ///
    /// # Errors
    /// If that cannot be asked.
    pub fn ended(&mut self) -> Result<Option<String>, Error> {
        let status = self.child.try_wait().map_err(Error::local("the server"))?;
        Ok(status.map(|status| status.to_string()))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// If that cannot be asked.
    pub async fn wait(&mut self) -> Result<(), Error> {
        self.child.wait().await.map(|_| ()).map_err(Error::local("the server"))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // Of one that has ended there is no number any more. SIGQUIT ends its processes, too.
        if let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) {
            let _ =
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGQUIT);
        }
    }
}

/// Starts a server in a group of its own, with the environment of whoever calls; it writes to `log`.
///
/// # Errors
/// If it cannot be started.
pub fn serve<S: AsRef<OsStr>>(
    owner: Owner,
    program: &Path,
    words: &[S],
    log: &Path,
) -> Result<Served, Error> {
    let file = std::fs::File::create(log).map_err(Error::local(log.display()))?;
    owner.give(log)?;
    let errors = file.try_clone().map_err(Error::local(log.display()))?;
    let mut command = command(program, Some(owner));
    inherit(&mut command, false);
    command.args(words).stdout(file).stderr(errors).kill_on_drop(false).process_group(0);
    let child = command.spawn().map_err(Error::local(program.display()))?;
    Ok(Served { child })
}

/// Starts a program whose output is read while it works, in the environment of whoever calls: a link of a chain that
/// has been given one already. What it complains of goes where ours goes.
///
/// # Errors
/// If it cannot be started.
pub fn source<S: AsRef<OsStr>>(program: &Path, words: &[S]) -> Result<std::process::Child, Error> {
    let mut command = std::process::Command::new(program);
    command.args(words).stdin(Stdio::null()).stdout(Stdio::piped());
    command.spawn().map_err(Error::local(program.display()))
}

/// As [`run`], where only success will do.
///
/// # Errors
/// As [`run`], and if the program fails.
pub async fn succeed<S: AsRef<OsStr>>(
    owner: Option<Owner>,
    program: &Path,
    words: &[S],
    within: Duration,
) -> Result<String, Error> {
    let ended = run(owner, program, words, within).await?;
    match ended.status {
        Some(0) => Ok(ended.output),
        status => Err(failed(program, status, &ended.complaint)),
    }
}

fn failed(program: &Path, status: Option<i32>, complaint: &str) -> Error {
    let status = status.map_or_else(|| "a signal".to_owned(), |status| format!("status {status}"));
    Error::Program(format!("{} ended with {status}: {complaint}", program.display()))
}

/// The bytes that one program writes and another reads, changed on the way by `filter`; both must succeed.
///
/// # Errors
/// If either fails, the filter does, or `within` is over.
pub async fn pipe<S: AsRef<OsStr>, F>(
    owner: Owner,
    from: (&Path, &[S]),
    to: (&Path, &[S]),
    within: Duration,
    filter: F,
) -> Result<(), Error>
where
    F: AsyncFnOnce(tokio::process::ChildStdout, tokio::process::ChildStdin) -> std::io::Result<()>,
{
    let start = |(program, words): (&Path, &[S]), stdin: Stdio, stdout: Stdio| {
        command(program, Some(owner))
            .args(words)
            .stdin(stdin)
            .stdout(stdout)
            .stderr(Stdio::piped())
            .spawn()
            .map_err(Error::local(program.display()))
    };
    let mut source = start(from, Stdio::null(), Stdio::piped())?;
    let mut sink = start(to, Stdio::piped(), Stdio::null())?;
    let work = async {
        let (Some(out), Some(into)) = (source.stdout.take(), sink.stdin.take()) else {
            return Err(Error::Local("no pipe".to_owned()));
        };
        let complaints = (complaints(&mut source), complaints(&mut sink));
        let (copied, said, answered) = tokio::join!(filter(out, into), complaints.0, complaints.1);
        // Whoever reads fails first where both fail: the writer then only says that its pipe is broken.
        let status = sink.wait().await.map_err(Error::local(to.0.display()))?;
        if !status.success() {
            return Err(failed(to.0, status.code(), &answered));
        }
        let status = source.wait().await.map_err(Error::local(from.0.display()))?;
        if !status.success() {
            return Err(failed(from.0, status.code(), &said));
        }
        copied.map_err(Error::local(from.0.display()))
    };
    tokio::time::timeout(within, work).await.unwrap_or_else(|_| {
        let name = from.0.display();
        Err(Error::Program(format!("{name} has not ended within {} s", within.as_secs())))
    })
}

fn complaints(child: &mut Child) -> impl Future<Output = String> + use<> {
    let stream = child.stderr.take();
    async move {
        match stream {
            Some(stream) => end_of(stream).await,
            None => String::new(),
        }
    }
}
