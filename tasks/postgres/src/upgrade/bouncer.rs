//! The pgbouncer in front of a cluster: the door that is held for the moment of a switch, and the file that says where
//! it leads.
//!
//! Clients belong to the cluster whose port stands in that file. The databases that move are the lines with `port=` and
//! the port of the old or the new cluster.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::check::{Finding, Severity};
use crate::durable;
use crate::error::Error;
use crate::exec::Owner;
use crate::layout::Cluster;
use crate::server::{Session, identifier};

/// How long clients may be held before their transactions have ended.
pub const PAUSE: Duration = Duration::from_secs(5);

/// Where a pgbouncer is.
#[derive(Clone, Debug, clap::Args)]
pub struct Bouncer {
    /// File of databases of the pgbouncer through which clients come, included by `%include` into pgbouncer.ini; where
    /// there is none, the new cluster takes over the old one's port
    #[arg(id = "bouncer_file", long = "bouncer-file", value_name = "FILE")]
    file: Option<PathBuf>,
    /// Folder of pgbouncer's socket
    #[arg(
        id = "bouncer_socket",
        long = "bouncer-socket",
        value_name = "FOLDER",
        default_value = "/var/run/postgresql"
    )]
    socket: PathBuf,
    /// Port of pgbouncer
    #[arg(id = "bouncer_port", long = "bouncer-port", value_name = "PORT", default_value_t = 6432)]
    port: u16,
}

/// A line of the file that names a database.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    name: String,
    port: Option<u16>,
}

/// A database as pgbouncer itself shows it.
#[derive(Debug)]
struct Shown {
    port: Option<u16>,
    paused: bool,
    pool_mode: Option<String>,
}

impl Bouncer {
    /// The administrator's console: whoever has the user of the pgbouncer's process needs no password.
    async fn console(&self) -> Result<Session, Error> {
        let path = self.socket.join(format!(".s.PGSQL.{}", self.port));
        let is = std::fs::metadata(&path).map_err(|error| {
            Error::Server(format!("pgbouncer does not listen at {}: {error}", path.display()))
        })?;
        let owner = Owner { uid: is.uid(), gid: is.gid() };
        Session::console(path, owner, "pgbouncer", "pgbouncer", "pgbouncer".to_owned()).await
    }

    /// Whether there is one.
    pub fn is_named(&self) -> bool {
        self.file.is_some()
    }

    fn path(&self) -> &Path {
        self.file.as_deref().unwrap_or(Path::new("databases.ini"))
    }

    fn read(&self) -> Result<String, Error> {
        let path = self.path();
        durable::read(path)?.ok_or_else(|| Error::Missing(format!("{} does not exist", path.display())))
    }

    /// The databases whose line names this port.
    fn names(&self, port: u16) -> Result<Vec<String>, Error> {
        let entries = self.read()?;
        let entries = entries.lines().filter_map(entry);
        Ok(entries.filter(|entry| entry.port == Some(port)).map(|entry| entry.name).collect())
    }

    /// Whether clients belong to the cluster with this port rather than to the one with the other.
    ///
    /// # Errors
    /// [`Error::Unclear`] if the file names neither of the ports, or both.
    pub fn leads_to(&self, port: u16, other: u16) -> Result<bool, Error> {
        match (self.names(port)?.is_empty(), self.names(other)?.is_empty()) {
            (false, true) => Ok(true),
            (true, false) => Ok(false),
            (here, _) => Err(Error::Unclear(format!(
                "{} names {} of the ports {port} and {other}: leave one of them in all lines, the one where clients \
                 have written last",
                self.path().display(),
                if here { "neither" } else { "both" }
            ))),
        }
    }

    /// What an upgrade of this cluster has to know.
    ///
    /// # Errors
    /// If a question cannot be answered; that pgbouncer does not answer is a finding.
    pub async fn check(&self, old: &Cluster) -> Result<Vec<Finding>, Error> {
        let mut found = Vec::new();
        let mut block =
            |what: &str, example: String| found.push(Finding::new(Severity::Block, what, example));
        let names = match self.names(old.port) {
            Ok(names) => names,
            Err(error) => {
                block("pgbouncer's file of databases cannot be read", error.to_string());
                return Ok(found);
            }
        };
        if names.is_empty() {
            let example = format!("{}: no line with port={}", self.path().display(), old.port);
            block("pgbouncer's file of databases does not lead to the cluster", example);
        }
        if names.iter().any(|name| name == "*") {
            let example = self.path().display().to_string();
            block("pgbouncer's database `*` cannot be held: give each database a line of its own", example);
        }
        let console = match self.console().await {
            Ok(console) => console,
            Err(error) => {
                block("pgbouncer's console does not answer", error.to_string());
                return Ok(found);
            }
        };
        let mode = console.named("show config").await?.into_iter().find_map(|row| {
            let is = |key: &str| row.get(key).cloned().flatten();
            (is("key")? == "pool_mode").then(|| is("value")).flatten()
        });
        for name in names.iter().filter(|name| *name != "*") {
            match show(&console, name).await? {
                None => block("database that pgbouncer does not know: RELOAD it", name.clone()),
                Some(shown) if shown.port != Some(old.port) => {
                    block("database that pgbouncer takes elsewhere: RELOAD it", name.clone());
                }
                Some(shown) => {
                    let mode = shown.pool_mode.or_else(|| mode.clone()).unwrap_or_default();
                    if mode != "transaction" && mode != "statement" {
                        let what = "pool_mode of pgbouncer is not transaction: its sessions cannot be held";
                        block(what, format!("{name}: {mode}"));
                    }
                }
            }
        }
        Ok(found)
    }

    /// Holds every client of a port: waits until their transactions have ended, at most 5 s. Where they do not end, the
    /// clients go on.
    ///
    /// # Errors
    /// If they could not be held.
    pub async fn pause(&self, port: u16) -> Result<(), Error> {
        let console = self.console().await?;
        let hold = async {
            for name in self.names(port)? {
                let shown = show(&console, &name).await?;
                if !shown.is_some_and(|shown| shown.paused) {
                    console.run(&format!("pause {}", identifier(&name))).await?;
                }
            }
            Ok(())
        };
        let held = match tokio::time::timeout(PAUSE, hold).await {
            Ok(held) => held,
            Err(_) => Err(Error::Refused(format!(
                "a transaction did not end within {} s, so the clients could not be held: look for long ones",
                PAUSE.as_secs()
            ))),
        };
        if held.is_err() {
            // From a console of its own: a waiting PAUSE and a RESUME must never meet.
            drop(console);
            self.resume(port).await?;
        }
        held
    }

    /// Makes the file lead to another port: this is the moment that decides.
    ///
    /// # Errors
    /// If it cannot be written; it is as it was then.
    pub fn turn(&self, from: u16, to: u16, owner: Owner) -> Result<(), Error> {
        let text = self.read()?;
        durable::replace(self.path(), &turned(&text, from, to), owner)
    }

    /// Has the file read, and lets go whoever is held at this port.
    ///
    /// # Errors
    /// If pgbouncer does not answer.
    pub async fn resume(&self, port: u16) -> Result<(), Error> {
        let console = self.console().await?;
        console.run("reload").await?;
        for name in self.names(port)? {
            if show(&console, &name).await?.is_some_and(|shown| shown.paused) {
                console.run(&format!("resume {}", identifier(&name))).await?;
            }
        }
        Ok(())
    }

    /// Whether pgbouncer itself leads every client to this port, and holds none.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn flows(&self, port: u16) -> Result<bool, Error> {
        let console = self.console().await?;
        for name in self.names(port)? {
            let shown = show(&console, &name).await?;
            if !shown.is_some_and(|shown| shown.port == Some(port) && !shown.paused) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

async fn show(console: &Session, name: &str) -> Result<Option<Shown>, Error> {
    for row in console.named("show databases").await? {
        let is = |key: &str| row.get(key).cloned().flatten();
        if is("name").as_deref() == Some(name) {
            return Ok(Some(Shown {
                port: is("port").and_then(|port| port.parse().ok()),
                paused: is("paused").as_deref() == Some("1"),
                pool_mode: is("pool_mode"),
            }));
        }
    }
    Ok(None)
}

/// The database of a line, if it names one.
fn entry(line: &str) -> Option<Entry> {
    let line = line.trim();
    if line.starts_with([';', '#', '[', '%']) {
        return None;
    }
    let (name, target) = line.split_once('=')?;
    let name = name.trim();
    let name = match name.strip_prefix('"').and_then(|name| name.strip_suffix('"')) {
        Some(quoted) => quoted.replace("\"\"", "\""),
        None => name.to_owned(),
    };
    let port = target.split_whitespace().find_map(port);
    Some(Entry { name, port })
}

/// The port of a word such as `port=5432`.
fn port(word: &str) -> Option<u16> {
    word.strip_prefix("port=")?.trim_matches('\'').parse().ok()
}

/// The text with another port in the lines of databases that have this one; nothing else is changed.
fn turned(text: &str, from: u16, to: u16) -> String {
    let line = |line: &str| {
        if entry(line).and_then(|entry| entry.port) != Some(from) {
            return line.to_owned();
        }
        let word = |word: &str| {
            let kept = word.trim_end();
            if port(kept) == Some(from) { word.replace(kept, &format!("port={to}")) } else { word.to_owned() }
        };
        line.split_inclusive(char::is_whitespace).map(word).collect()
    };
    text.split_inclusive('\n').map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::{Entry, entry, turned};

    #[test]
    fn lines_name_databases() {
        let read = |line| entry(line).map(|Entry { name, port }| (name, port));
        assert_eq!(read("a = host=/run port=5432"), Some(("a".to_owned(), Some(5432))));
        assert_eq!(read(" \"a b\" = port='5433' dbname=x"), Some(("a b".to_owned(), Some(5433))));
        assert_eq!(read("a = host=/run"), Some(("a".to_owned(), None)));
        assert_eq!(read("; a = port=5432"), None);
        assert_eq!(read("[databases]"), None);
        assert_eq!(read("%include /etc/x"), None);
    }

    #[test]
    fn only_the_port_is_turned() {
        let text = "[databases]\n; a = port=5432\na = host=/run  port=5432\tpool_size=5432\nb = port='5432'\nc = port=54321 dbname=5432\n";
        let new = "[databases]\n; a = port=5432\na = host=/run  port=5433\tpool_size=5432\nb = port=5433\nc = port=54321 dbname=5432\n";
        assert_eq!(turned(text, 5432, 5433), new);
        assert_eq!(turned("a = port=5432", 5432, 5433), "a = port=5433");
        assert_eq!(turned(new, 5432, 5433), new);
    }
}
