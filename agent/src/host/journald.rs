//! Messages for the journal of systemd, in its own protocol: fields that `journalctl` can be asked for.
//!
//! `journalctl HOSTLER_ORDER=backup` shows what the agent said of an order; `HOSTLER_RUN=` and `HOSTLER_TASK=` go the
//! same way. (What an executor says has the fields from its unit.) One message is one datagram, bounded far below
//! what a socket takes, so none ever needs a memory file.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::domain::text;

/// Where the journal listens.
const SOCKET: &str = "/run/systemd/journal/socket";
/// The longest message, in bytes.
const MAX_LEN: usize = 16 << 10;

/// Speaks to the journal.
#[derive(Debug)]
pub struct Journald {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Journald {
    /// The journal, if standard error leads there anyway: `stream` is what systemd says of it in `JOURNAL_STREAM`.
    ///
    /// On a terminal, in a container without a journal, or with the messages sent to a file, there is none.
    pub fn behind_stderr(stream: Option<&str>) -> Option<Self> {
        let (device, inode) = stream?.split_once(':')?;
        let stderr = nix::sys::stat::fstat(io::stderr().as_fd()).ok()?;
        let same = device.parse() == Ok(stderr.st_dev) && inode.parse() == Ok(stderr.st_ino);
        same.then(|| Self::at(Path::new(SOCKET)).ok()).flatten()
    }

    /// The journal at this socket, which need not be there yet.
    pub fn at(path: &Path) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        // A journal that hangs must not hang the agent.
        socket.set_nonblocking(true)?;
        Ok(Self { socket, path: path.to_owned() })
    }
}

impl<S: Subscriber> Layer<S> for Journald {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut said = Said::default();
        event.record(&mut said);
        let message = text::head(&said.text(), MAX_LEN);
        let mut datagram = Vec::with_capacity(256);
        let priority = match *event.metadata().level() {
            Level::ERROR => "3",
            Level::WARN => "4",
            Level::INFO => "6",
            Level::DEBUG | Level::TRACE => "7",
        };
        put(&mut datagram, "PRIORITY", priority);
        put(&mut datagram, "SYSLOG_IDENTIFIER", "hostler");
        for (name, value) in said.fields() {
            put(&mut datagram, name, value);
        }
        put(&mut datagram, "MESSAGE", &message);
        // Also found again after the journal was restarted: the path is looked up each time.
        if self.socket.send_to(&datagram, &self.path).is_err() {
            let _ = writeln!(io::stderr(), "{message}");
        }
    }
}

/// Adds a field; a value of several lines has its length before it.
fn put(datagram: &mut Vec<u8>, name: &str, value: &str) {
    datagram.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        datagram.push(b'\n');
        datagram.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        datagram.push(b'=');
    }
    datagram.extend_from_slice(value.as_bytes());
    datagram.push(b'\n');
}

/// What a message says.
#[derive(Default)]
struct Said {
    message: String,
    rest: String,
    run: String,
    order: String,
    task: String,
}

impl Said {
    fn take(&mut self, name: &str, value: String) {
        match name {
            "message" => return self.message = value,
            // As an operator and a step name it: without its place.
            "order" => value.rsplit('/').next().unwrap_or_default().clone_into(&mut self.order),
            "task" => self.task.clone_from(&value),
            "run" => self.run.clone_from(&value),
            _ => {}
        }
        // Writing to a string cannot fail.
        let _ = write!(self.rest, " {name}={value}");
    }

    /// The message with all that it names, as it stands in a log of text.
    fn text(&self) -> String {
        format!("{}{}", self.message, self.rest)
    }

    fn fields(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let fields =
            [("HOSTLER_RUN", &self.run), ("HOSTLER_ORDER", &self.order), ("HOSTLER_TASK", &self.task)];
        fields.into_iter().map(|(name, value)| (name, value.as_str())).filter(|(_, value)| !value.is_empty())
    }
}

impl Visit for Said {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.take(field.name(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.take(field.name(), format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::layer::SubscriberExt;

    /// Reads a datagram as the journal's documentation says.
    fn fields(mut datagram: &[u8]) -> Vec<(String, String)> {
        let mut fields = Vec::new();
        while !datagram.is_empty() {
            let end = datagram.iter().position(|byte| matches!(byte, b'=' | b'\n')).unwrap();
            let (name, rest) = datagram.split_at(end);
            let (value, rest) = if rest[0] == b'=' {
                let end = rest.iter().position(|byte| *byte == b'\n').unwrap();
                (&rest[1..end], &rest[end..])
            } else {
                let length = u64::from_le_bytes(rest[1..9].try_into().unwrap()) as usize;
                (&rest[9..9 + length], &rest[9 + length..])
            };
            assert_eq!(rest[0], b'\n');
            datagram = &rest[1..];
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            fields.push((text(name), text(value)));
        }
        fields
    }

    #[test]
    fn a_message_has_its_fields_and_its_priority() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let journal = UnixDatagram::bind(&path).unwrap();
        journal.set_nonblocking(true).unwrap();
        let subscriber = tracing_subscriber::registry().with(Journald::at(&path).unwrap());
        tracing::subscriber::with_default(subscriber, || {
            let (order, task) = ("hosts/db1/backup", "pg@3");
            tracing::info!(order = %order, run = %"01JD", task = %task, "starting");
            tracing::error!(n = 3, "two\nlines");
            tracing::warn!("{}", "ä".repeat(20_000));
        });
        let mut buffer = vec![0; 100_000];
        let mut heard = Vec::new();
        while let Ok(length) = journal.recv(&mut buffer) {
            heard.push(fields(&buffer[..length]));
        }
        let pairs = |wanted: &[(&str, &str)]| {
            wanted.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<Vec<_>>()
        };
        assert_eq!(
            heard[0],
            pairs(&[
                ("PRIORITY", "6"),
                ("SYSLOG_IDENTIFIER", "hostler"),
                ("HOSTLER_RUN", "01JD"),
                ("HOSTLER_ORDER", "backup"),
                ("HOSTLER_TASK", "pg@3"),
                ("MESSAGE", "starting order=hosts/db1/backup run=01JD task=pg@3"),
            ])
        );
        assert_eq!(
            heard[1],
            pairs(&[("PRIORITY", "3"), ("SYSLOG_IDENTIFIER", "hostler"), ("MESSAGE", "two\nlines n=3")])
        );
        assert_eq!(heard[2].last().unwrap().1.len(), MAX_LEN);
        assert_eq!(heard.len(), 3);
    }

    #[test]
    fn the_journal_is_spoken_to_only_where_standard_error_leads_to_it() {
        let stderr = nix::sys::stat::fstat(io::stderr().as_fd()).unwrap();
        let own = format!("{}:{}", stderr.st_dev, stderr.st_ino);
        assert!(Journald::behind_stderr(Some(&own)).is_some());
        for other in [None, Some(""), Some("1:2"), Some("x"), Some(format!("{own}0").as_str())] {
            assert!(Journald::behind_stderr(other).is_none(), "{other:?}");
        }
    }
}
