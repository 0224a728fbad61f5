//! A command at the other end of a stream: the only place that starts a process.
//!
//! Its exit status is part of the stream: bytes of a command that failed are no backup, and a command that is fed
//! bytes which turn out wrong is ended before it could take their end for a good one.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use crate::stream::pipe::Endpoint;
use crate::upload::Source;

/// How often a command that closed its stream is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

struct Running {
    child: Child,
    name: String,
    patience: Duration,
    good: Vec<i32>,
    over: bool,
}

impl Running {
    fn start(argv: &[String], patience: Duration, good: &[i32], out: bool) -> io::Result<Self> {
        let (name, arguments) = argv.split_first().ok_or_else(|| io::Error::other("no command"))?;
        let mut command = Command::new(name);
        command.args(arguments);
        if out {
            command.stdin(Stdio::null()).stdout(Stdio::piped());
        } else {
            command.stdin(Stdio::piped());
        }
        let child =
            command.spawn().map_err(|error| io::Error::new(error.kind(), format!("{name}: {error}")))?;
        Ok(Self { child, name: name.clone(), patience, good: good.to_vec(), over: false })
    }

    fn wait(&mut self) -> io::Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < self.patience {
            if let Some(status) = self.child.try_wait()? {
                self.over = true;
                return self.judge(status);
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        Err(io::Error::other(format!("`{}` has closed its stream and does not end", self.name)))
    }

    fn judge(&self, status: ExitStatus) -> io::Result<()> {
        if status.code().is_some_and(|code| code == 0 || self.good.contains(&code)) {
            return Ok(());
        }
        Err(io::Error::other(format!("`{}` ended with {status}", self.name)))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.over {
            // It may have ended meanwhile; the handle is ours, so no other process can be hit.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// A command's output.
pub struct Output {
    // Before `running`: dropped first.
    end: Endpoint,
    running: Running,
}

impl Output {
    /// Starts it. `good` are statuses beside 0 that are a good end.
    pub fn start(
        argv: &[String],
        idle: Duration,
        good: &[i32],
        called_off: Arc<AtomicBool>,
    ) -> io::Result<Self> {
        let mut running = Running::start(argv, idle, good, true)?;
        let out = running.child.stdout.take().ok_or_else(|| io::Error::other("no output"))?;
        let end = Endpoint::new(OwnedFd::from(out), &format!("`{}`", running.name), idle, called_off)?;
        Ok(Self { end, running })
    }
}

impl Read for Output {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.end.read(bytes)
    }
}

impl Source for Output {
    fn ended(&mut self, _size: u64) -> io::Result<()> {
        self.running.wait()
    }
}

/// A command's input.
pub struct Input {
    running: Running,
    end: Option<Endpoint>,
}

impl Input {
    /// Starts it.
    pub fn start(argv: &[String], idle: Duration, called_off: Arc<AtomicBool>) -> io::Result<Self> {
        let mut running = Running::start(argv, idle, &[], false)?;
        let input = running.child.stdin.take().ok_or_else(|| io::Error::other("no input"))?;
        let end = Endpoint::new(OwnedFd::from(input), &format!("`{}`", running.name), idle, called_off)?;
        Ok(Self { running, end: Some(end) })
    }

    /// Tells it that all was right, and waits for it.
    pub fn end(mut self) -> io::Result<()> {
        self.end = None;
        self.running.wait()
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        // Killed while its input is still open: it must not see an end and take it for a good one.
        if !self.running.over && self.end.is_some() {
            let _ = self.running.child.kill();
        }
    }
}

impl Write for Input {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.end {
            Some(end) => end.write(bytes),
            None => Ok(0),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
