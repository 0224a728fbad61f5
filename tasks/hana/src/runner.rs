//! Starts programs: the only place that does.
//!
//! A program has a process group of its own, an environment of its own, a time-out, and its output is kept up to a
//! bound. A secret reaches it through its standard input alone. At the time-out, or when this program is asked to
//! stop, the whole group ends. A process that the program leaves behind with its pipes open holds nobody up.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{Pid, Uid, User};
use zeroize::Zeroizing;

use crate::call::{As, Call, Input, Piece};
use crate::error::Error;
use crate::neighbours::{hdblcm, hdbsql};
use crate::secret::{Secret, Secrets};
use crate::system::System;

/// Most that is kept of each output; what follows is read and thrown away.
const MAX_OUTPUT: usize = 1024 * 1024;
/// How long a program has between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(10);
/// How often a program that is silent, or has closed its pipes, is looked at.
const LOOK_SILENT: u16 = 200;
const LOOK_CLOSED: u16 = 10;

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With this exit code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// It did not end in time and was ended.
    TimedOut,
}

impl std::fmt::Display for End {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(to, "exit code {code}"),
            Self::Signal(signal) => write!(to, "signal {signal}"),
            Self::TimedOut => write!(to, "no end within the time-out"),
        }
    }
}

/// What became of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// How it ended.
    pub end: End,
    /// Its standard output; what is not UTF-8 is replaced.
    pub out: String,
    /// Its standard error.
    pub err: String,
    /// Whether an output had more than is kept: no parser should trust it then.
    pub cut: bool,
}

impl Outcome {
    /// The exit code, if the program ended with one and its output is whole.
    pub fn code(&self) -> Result<i32, Error> {
        match self.end {
            End::Code(_) if self.cut => Err(Error::Unclear("the output is larger than 1 MiB".to_owned())),
            End::Code(code) => Ok(code),
            End::Signal(_) | End::TimedOut => Err(Error::Unclear(self.end.to_string())),
        }
    }
}

/// The signals that ask this program to stop.
///
/// They are caught and not blocked: a program would inherit a block, and only SIGKILL would end it then.
#[derive(Clone)]
pub struct StopSignals(Arc<AtomicUsize>);

impl StopSignals {
    /// From now on SIGINT, SIGTERM and SIGHUP end the program that runs, then this one.
    pub fn catch() -> Result<Self, Error> {
        let arrived = Arc::new(AtomicUsize::new(0));
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            let number = signal as i32;
            let value = usize::try_from(number).unwrap_or_default();
            signal_hook::flag::register_usize(number, Arc::clone(&arrived), value)
                .map_err(Error::local("signals"))?;
        }
        Ok(Self(arrived))
    }

    fn arrived(&self) -> Option<u8> {
        u8::try_from(self.0.load(Ordering::SeqCst)).ok().filter(|signal| *signal > 0)
    }
}

/// Starts programs for one system.
pub struct Runner {
    system: System,
    secrets: Secrets,
    signals: Option<StopSignals>,
    bounds: Option<Bounds>,
}

/// What a question may take.
#[derive(Clone, Copy)]
struct Bounds {
    until: Option<Instant>,
    each: Duration,
}

impl Runner {
    /// `signals`: `None` where nothing but the time-out ends a program.
    pub fn new(system: System, secrets: Secrets, signals: Option<StopSignals>) -> Self {
        Self { system, secrets, signals, bounds: None }
    }

    /// The same runner for questions: no program takes longer than `each` or outlives `until`; it is killed without a
    /// grace.
    pub fn bounded(self, until: Instant, each: Duration) -> Self {
        Self { bounds: Some(Bounds { until: Some(until), each }), ..self }
    }

    /// Another runner of the same system for questions that go on beside other work.
    pub fn asking(&self, each: Duration) -> Self {
        let (system, secrets) = (self.system.clone(), self.secrets.clone());
        let bounds = Some(Bounds { until: None, each });
        Self { system, secrets, signals: self.signals.clone(), bounds }
    }

    /// The system that programs are started for.
    pub fn system(&self) -> &System {
        &self.system
    }

    /// The rows of a question to the database, with the columns of these names.
    ///
    /// # Errors
    /// Those of [`Runner::run`], and when hdbsql fails, or prints what is not such a table.
    pub fn rows(&self, call: &Call, columns: &[&str]) -> Result<Vec<hdbsql::Row>, Error> {
        hdbsql::rows(&self.run(call)?, columns)
    }

    /// Starts the program and waits for its end.
    ///
    /// # Errors
    /// When it cannot be started, a secret cannot be read, or a signal asks this program to stop. That the program
    /// itself fails is an outcome.
    pub fn run(&self, call: &Call) -> Result<Outcome, Error> {
        self.stopped()?;
        let (timeout, grace) = match self.bounds {
            None => (call.timeout, GRACE),
            Some(bounds) => {
                let left =
                    bounds.until.map_or(bounds.each, |until| until.saturating_duration_since(Instant::now()));
                if left.is_zero() {
                    return Err(Error::Unclear("no time was left to ask".to_owned()));
                }
                (call.timeout.min(bounds.each).min(left), Duration::ZERO)
            }
        };
        let input = self.input(&call.input)?;
        let program = self.system.at(&call.program);
        let mut command = self.command(call.user, &program)?;
        command.args(&call.arguments).current_dir("/").process_group(0);
        command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().map_err(Error::local(program.display()))?;
        Running::new(child, input)
            .and_then(|mut running| running.finish(timeout, grace, self.signals.as_ref()))
            .map_err(|problem| match problem {
                Problem::Io(error) => Error::local(program.display())(error),
                Problem::Stopped(signal) => Error::Stopped(signal),
            })
    }

    /// An error once a signal asked this program to stop: whoever goes on after a failed call asks first.
    pub fn stopped(&self) -> Result<(), Error> {
        match self.signals.as_ref().and_then(StopSignals::arrived) {
            Some(signal) => Err(Error::Stopped(signal)),
            None => Ok(()),
        }
    }

    fn input(&self, input: &Input) -> Result<Option<Zeroizing<String>>, Error> {
        match input {
            Input::Nothing => Ok(None),
            Input::PasswordXml(passwords) => {
                let mut values = Vec::new();
                for password in passwords {
                    values.push((password.element, self.secrets.read(password.secret)?));
                }
                Ok(Some(hdblcm::password_xml(&values)))
            }
            Input::Pieces(pieces) => self.text(pieces).map(Some),
        }
    }

    fn text(&self, pieces: &[Piece]) -> Result<Zeroizing<String>, Error> {
        let mut values = Vec::new();
        for piece in pieces {
            values.push(match piece {
                Piece::Text(_) => None,
                Piece::Secret(name) => Some(self.secrets.read(name)?),
                Piece::Quoted(name) => {
                    let value = self.secrets.read(name)?;
                    if !value.is_quotable() {
                        return Err(Error::Config(format!(
                            "the secret `{name}` holds one of \\ ' \" ` $, which HANA takes in no password"
                        )));
                    }
                    Some(value)
                }
                Piece::Random => Some(Secret::random()?),
            });
        }
        let length = |(piece, value): (&Piece, &Option<Secret>)| match (piece, value) {
            (Piece::Text(text), _) => text.len(),
            (_, value) => value.as_ref().map_or(0, |value| value.expose().len() + 2),
        };
        // Enough room for all of it: a text that grew would leave copies behind.
        let room = pieces.iter().zip(&values).map(length).sum();
        let mut all = Zeroizing::new(String::with_capacity(room));
        for (piece, value) in pieces.iter().zip(&values) {
            let value = value.as_ref().map_or("", Secret::expose);
            match piece {
                Piece::Text(text) => all.push_str(text),
                Piece::Secret(_) => all.push_str(value),
                Piece::Quoted(_) | Piece::Random => {
                    all.push('"');
                    all.push_str(value);
                    all.push('"');
                }
            }
        }
        Ok(all)
    }

    /// The program for that user, with the environment that it needs and nothing else.
    fn command(&self, user: As, program: &Path) -> Result<Command, Error> {
        let system = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        // Before an installation there is no such user, and nothing runs as it.
        let account = if user == As::Adm { self.account()? } else { None };
        let mut command = match &account {
            Some(account) => as_user(account, program)?,
            None => Command::new(program),
        };
        command.env_clear().env("PATH", system).env("LANG", "C.UTF-8");
        if user == As::Adm {
            // What the profile of <sid>adm sets and the tools rely on; HDBSettings.sh adds the rest for scripts.
            let exe = self.system.at(self.system.exe());
            let instance = self.system.at(self.system.instance());
            command.env("PATH", format!("{}:{}:{system}", instance.display(), exe.display()));
            command.env("LD_LIBRARY_PATH", &exe).env("DIR_INSTANCE", &instance);
            command.env("SAPSYSTEMNAME", self.system.sid.as_str());
            command.env("USER", self.system.adm()).env("LOGNAME", self.system.adm());
            // Where the user store lies.
            let home =
                account.map_or_else(|| self.system.at(self.system.home().join("home")), |user| user.dir);
            command.env("HOME", home);
        } else {
            command.env("HOME", "/root");
        }
        Ok(command)
    }

    /// The account of `<sid>adm`. `None` below another root, where everything runs as this program does.
    fn account(&self) -> Result<Option<User>, Error> {
        if self.system.root != Path::new("/") {
            return Ok(None);
        }
        let name = self.system.adm();
        match User::from_name(&name) {
            Ok(Some(user)) => Ok(Some(user)),
            Ok(None) => Err(Error::Config(format!(
                "this host has no user {name}: is {} installed here?",
                self.system.sid
            ))),
            Err(errno) => Err(Error::Local(format!("user {name} cannot be looked up: {errno}"))),
        }
    }
}

/// The program as that user.
fn as_user(account: &User, program: &Path) -> Result<Command, Error> {
    if account.uid == Uid::effective() {
        return Ok(Command::new(program));
    }
    if !Uid::effective().is_root() {
        let name = &account.name;
        return Err(Error::Config(format!(
            "{name} must run this: start the command as root or as that user"
        )));
    }
    // util-linux setpriv(1): all ids and groups of the user, without a shell and without PAM.
    let mut command = Command::new("setpriv");
    command.arg(format!("--reuid={}", account.uid)).arg(format!("--regid={}", account.gid));
    command.args(["--init-groups", "--"]).arg(program);
    Ok(command)
}

enum Problem {
    Io(io::Error),
    Stopped(u8),
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<nix::errno::Errno> for Problem {
    fn from(errno: nix::errno::Errno) -> Self {
        Self::Io(errno.into())
    }
}

/// One output: bytes up to a bound, then a count of nothing.
#[derive(Default)]
struct Kept {
    bytes: Vec<u8>,
    cut: bool,
}

impl Kept {
    fn add(&mut self, bytes: &[u8]) {
        let room = MAX_OUTPUT - self.bytes.len().min(MAX_OUTPUT);
        let fitting = bytes.get(..room).unwrap_or(bytes);
        self.bytes.extend_from_slice(fitting);
        self.cut |= fitting.len() < bytes.len();
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

/// A source of output, `None` once it is closed.
struct Pipe<T>(Option<T>, Kept);

impl<T: Read + AsFd> Pipe<T> {
    fn new(pipe: Option<T>) -> Result<Self, Problem> {
        if let Some(pipe) = &pipe {
            without_waiting(pipe)?;
        }
        Ok(Self(pipe, Kept::default()))
    }

    /// Reads what is there now, at most as much as is kept of an output.
    fn drain(&mut self) -> io::Result<()> {
        let mut bytes = [0; 16 * 1024];
        for _ in 0..MAX_OUTPUT / bytes.len() {
            let Some(pipe) = &mut self.0 else { return Ok(()) };
            match pipe.read(&mut bytes) {
                Ok(0) => self.0 = None,
                Ok(count) => self.1.add(bytes.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

struct Running {
    child: Child,
    out: Pipe<std::process::ChildStdout>,
    err: Pipe<std::process::ChildStderr>,
    input: Option<(std::process::ChildStdin, Zeroizing<String>, usize)>,
    reaped: bool,
}

impl Running {
    fn new(mut child: Child, input: Option<Zeroizing<String>>) -> Result<Self, Problem> {
        let out = Pipe::new(child.stdout.take())?;
        let err = Pipe::new(child.stderr.take())?;
        let mut running = Self { out, err, input: None, reaped: false, child };
        if let (Some(pipe), Some(text)) = (running.child.stdin.take(), input) {
            without_waiting(&pipe)?;
            running.input = Some((pipe, text, 0));
        }
        Ok(running)
    }

    fn finish(
        &mut self,
        timeout: Duration,
        grace: Duration,
        signals: Option<&StopSignals>,
    ) -> Result<Outcome, Problem> {
        let begun = Instant::now();
        let mut end = None;
        while !self.ended()? {
            if let Some(signal) = signals.and_then(StopSignals::arrived) {
                self.stop(grace)?;
                return Err(Problem::Stopped(signal));
            }
            if begun.elapsed() >= timeout {
                self.stop(grace)?;
                end = Some(End::TimedOut);
                break;
            }
            self.wait_a_little(timeout.saturating_sub(begun.elapsed()))?;
            self.exchange()?;
        }
        let status = self.child.wait()?;
        self.reaped = true;
        self.out.drain()?;
        self.err.drain()?;
        let end = end.unwrap_or_else(|| match (status.code(), status.signal()) {
            (Some(code), _) => End::Code(code),
            (None, signal) => End::Signal(signal.unwrap_or_default()),
        });
        let cut = self.out.1.cut || self.err.1.cut;
        Ok(Outcome { end, out: self.out.1.text(), err: self.err.1.text(), cut })
    }

    /// Whether the program has ended; it is not reaped, so that its number stays its own.
    fn ended(&self) -> Result<bool, Problem> {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        Ok(waitid(Id::Pid(self.pid()), flags)? != WaitStatus::StillAlive)
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(i32::MAX))
    }

    fn wait_a_little(&self, left: Duration) -> Result<(), Problem> {
        let mut polled = Vec::with_capacity(3);
        polled.extend(self.out.0.as_ref().map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)));
        polled.extend(self.err.0.as_ref().map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)));
        let look = if polled.is_empty() { LOOK_CLOSED } else { LOOK_SILENT };
        polled.extend(self.input.as_ref().map(|(pipe, ..)| PollFd::new(pipe.as_fd(), PollFlags::POLLOUT)));
        let left = u16::try_from(left.as_millis()).unwrap_or(u16::MAX).saturating_add(1);
        match poll(&mut polled, PollTimeout::from(look.min(left))) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn exchange(&mut self) -> io::Result<()> {
        self.out.drain()?;
        self.err.drain()?;
        let Some((pipe, text, sent)) = &mut self.input else { return Ok(()) };
        match pipe.write(text.as_bytes().get(*sent..).unwrap_or_default()) {
            Ok(count) => *sent += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // It has closed its input; its exit code says what that means.
            Err(_) => *sent = text.len(),
        }
        if *sent >= text.len() {
            self.input = None;
        }
        Ok(())
    }

    /// Ends the whole group: SIGTERM, a grace, SIGKILL. The program is not reaped, so the group is still its own.
    fn stop(&mut self, grace: Duration) -> Result<(), Problem> {
        self.input = None;
        let _ = killpg(self.pid(), Signal::SIGTERM); // It may just have ended.
        let begun = Instant::now();
        while !self.ended()? && begun.elapsed() < grace {
            self.wait_a_little(Duration::from_millis(LOOK_CLOSED.into()))?;
            self.exchange()?;
        }
        let _ = killpg(self.pid(), Signal::SIGKILL);
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.reaped {
            let _ = killpg(self.pid(), Signal::SIGKILL);
            let _ = self.child.wait();
        }
    }
}

fn without_waiting(pipe: &impl AsFd) -> Result<(), Problem> {
    let flags = OFlag::from_bits_retain(fcntl(pipe.as_fd(), FcntlArg::F_GETFL)?);
    fcntl(pipe.as_fd(), FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_run_as_another_user_with_its_groups_only() {
        let nobody = User::from_name("nobody").unwrap().unwrap();
        let command = as_user(&nobody, Path::new("/usr/bin/id"));
        if !Uid::effective().is_root() {
            assert_eq!(command.unwrap_err().code(), 3);
            return;
        }
        let output = command.unwrap().arg("-un").output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "nobody\n");
        let groups = as_user(&nobody, Path::new("/usr/bin/id")).unwrap().arg("-G").output().unwrap();
        assert_eq!(String::from_utf8_lossy(&groups.stdout), format!("{}\n", nobody.gid));
        let me = User::from_uid(Uid::effective()).unwrap().unwrap();
        assert_eq!(as_user(&me, Path::new("/x")).unwrap().get_program(), "/x");
    }

    #[test]
    fn a_host_without_the_systems_user_can_be_asked() {
        let system = System {
            sid: "Q9Z".parse().unwrap(),
            number: "00".parse().unwrap(),
            root: "/".into(),
            sapmnt: "/hana/shared".into(),
        };
        let runner = Runner::new(system, Secrets::new(None), None);
        let call = |user| Call {
            purpose: "test",
            source: "test",
            user,
            program: "/bin/true".into(),
            arguments: Vec::new(),
            input: Input::Nothing,
            timeout: Duration::from_secs(60),
        };
        assert_eq!(runner.run(&call(As::Myself)).unwrap().end, End::Code(0));
        let error = runner.run(&call(As::Adm)).unwrap_err();
        assert_eq!(
            (error.code(), error.to_string().as_str()),
            (3, "this host has no user q9zadm: is Q9Z installed here?")
        );
    }
}
