//! The pgbouncer in front of a cluster, as an upgrade needs it: a file of databases that can be changed as a whole, and
//! pools whose clients can be held between two transactions. The databases that move are the lines with `port=` and the
//! port of the cluster.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use crate::check::{Finding, Severity};
use crate::durable;
use crate::error::Error;
use crate::exec::Owner;
use crate::layout::Cluster;
use crate::server::Session;

/// Where a pgbouncer is.
#[derive(Clone, Debug, clap::Args)]
pub struct Bouncer {
    /// pgbouncer's file of databases, included by `%include` into pgbouncer.ini
    #[arg(id = "bouncer_file", long = "bouncer-file", value_name = "FILE")]
    file: PathBuf,
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

    fn read(&self) -> Result<String, Error> {
        durable::read(&self.file)?
            .ok_or_else(|| Error::Missing(format!("{} does not exist", self.file.display())))
    }

    /// The databases whose line names this port.
    fn names(&self, port: u16) -> Result<Vec<String>, Error> {
        let entries = self.read()?;
        let entries = entries.lines().filter_map(entry);
        Ok(entries.filter(|entry| entry.port == Some(port)).map(|entry| entry.name).collect())
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
            let example = format!("{}: no line with port={}", self.file.display(), old.port);
            block("pgbouncer's file of databases does not lead to the cluster", example);
        }
        if names.iter().any(|name| name == "*") {
            let example = self.file.display().to_string();
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
}

async fn show(console: &Session, name: &str) -> Result<Option<Shown>, Error> {
    for row in console.named("show databases").await? {
        let is = |key: &str| row.get(key).cloned().flatten();
        if is("name").as_deref() == Some(name) {
            return Ok(Some(Shown {
                port: is("port").and_then(|port| port.parse().ok()),
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

#[cfg(test)]
mod tests {
    use super::{Entry, entry};

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
}
