//! One check: a program, a connection, or a question over HTTP. Each has a time-out.

use std::ffi::OsString;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// How often a program that checks is looked at.
const LOOK: Duration = Duration::from_millis(1);
/// The most of an answer that is read: its first line is shorter.
const ANSWER: usize = 256;

/// What is repeated.
#[derive(Debug)]
pub(crate) enum Check {
    /// A program with its arguments: status 0 is a success.
    Program(Vec<OsString>),
    /// A connection that opens is a success.
    Tcp(SocketAddr),
    /// A status from 200 to 399 is a success.
    Http {
        /// Where.
        address: SocketAddr,
        /// What is written.
        request: String,
    },
}

impl Check {
    /// Reads the words behind the separator; an error is one line.
    pub(crate) fn read(words: &[OsString]) -> Result<Self, String> {
        let texts: Vec<&str> = words.iter().map(|word| word.to_str().unwrap_or_default()).collect();
        match texts.as_slice() {
            ["--tcp", address] => Ok(Self::Tcp(resolved(address)?)),
            ["--http", url] => http(url),
            ["--tcp", ..] => Err("--tcp takes one HOST:PORT".to_owned()),
            ["--http", ..] => Err("--http takes one URL".to_owned()),
            [option, ..] if option.starts_with('-') => {
                Err(format!("CHECK is a program, --tcp HOST:PORT or --http URL, not {option}"))
            }
            _ => Ok(Self::Program(words.to_vec())),
        }
    }

    /// Carries it out once; true if it succeeds in time.
    pub(crate) fn succeeds(&self, timeout: Duration) -> bool {
        match self {
            Self::Program(words) => program(words, timeout),
            Self::Tcp(address) => TcpStream::connect_timeout(address, timeout).is_ok(),
            Self::Http { address, request } => answers(address, request, timeout).unwrap_or(false),
        }
    }
}

fn resolved(address: &str) -> Result<SocketAddr, String> {
    let found = address.to_socket_addrs().map_err(|error| format!("{address} is not HOST:PORT: {error}"))?;
    found.into_iter().next().ok_or_else(|| format!("{address} has no address"))
}

fn http(url: &str) -> Result<Check, String> {
    let rest = url.strip_prefix("http://").ok_or_else(|| {
        format!("{url} does not begin with http://; for anything else use a program such as curl --fail")
    })?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    if url.chars().any(|c| c.is_whitespace() || c.is_control()) || host.is_empty() {
        return Err(format!("{url:?} is no URL"));
    }
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let address = if has_port { resolved(host)? } else { resolved(&format!("{host}:80"))? };
    let request = format!(
        "GET /{path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: hostler-probe\r\nConnection: close\r\n\r\n"
    );
    Ok(Check::Http { address, request })
}

/// Whether the first line of the answer has a status from 200 to 399.
fn answers(address: &SocketAddr, request: &str, timeout: Duration) -> std::io::Result<bool> {
    let until = Instant::now() + timeout;
    let mut stream = TcpStream::connect_timeout(address, timeout)?;
    // A time-out of zero is none at all.
    let left = || until.saturating_duration_since(Instant::now()).max(LOOK);
    stream.set_write_timeout(Some(left()))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let mut chunk = [0; ANSWER];
    while !answer.contains(&b'\n') && answer.len() < ANSWER && Instant::now() < until {
        stream.set_read_timeout(Some(left()))?;
        let count = match stream.read(&mut chunk) {
            Ok(count) => count,
            // A socket with a time-out is not gone on with by the kernel behind a signal, or behind a stop.
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if count == 0 {
            break;
        }
        answer.extend_from_slice(chunk.get(..count).unwrap_or_default());
    }
    let answer = String::from_utf8_lossy(&answer);
    let status =
        answer.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1)?.get(..3)?.parse().ok());
    Ok(status.is_some_and(|status: u16| (200..400).contains(&status)))
}

/// Runs a program in a process group of its own, so that nothing of it outlives its time-out.
fn program(words: &[OsString], timeout: Duration) -> bool {
    let Some((name, arguments)) = words.split_first() else { return false };
    let mut command = Command::new(name);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    // What it says for steps is no report of the step.
    command.env_remove("HOSTLER_REPORT");
    let until = Instant::now() + timeout;
    let Ok(mut child) = command.spawn() else { return false };
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return status.success(),
            Ok(None) if Instant::now() < until => thread::sleep(LOOK),
            _ => break,
        }
    }
    if let Ok(group) = i32::try_from(child.id()) {
        // It may have ended by itself just now; it is not waited for yet, so the number is still its own.
        let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
    }
    let _ = child.wait();
    false
}
