//! One connection to a server, over its local socket, with bounds on the server's side.
//!
//! Statements go by the simple protocol: pgbouncer's console takes no other, a statement is never prepared, and every
//! value comes as text, so that a type without a mapping cannot fail. One statement a call: several in one call would
//! be one transaction, which `CREATE SUBSCRIPTION` and others refuse.

use std::collections::HashMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::StreamExt;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr};
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

use crate::error::Error;
use crate::exec::Owner;
use crate::layout::Cluster;

/// How long a login may take.
const LOGIN: Duration = Duration::from_secs(10);
/// Between two attempts to get into the queue of a socket.
const QUEUE: Duration = Duration::from_millis(5);

/// A row: a text for each column, `None` for null.
pub type Row = Vec<Option<String>>;

/// How long the server lets statements work and wait, each 0 for no bound.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// For a statement, in milliseconds.
    pub statement: u32,
    /// For one lock, in milliseconds.
    pub lock: u32,
}

impl Bounds {
    /// For what only looks.
    pub const LOOK: Self = Self { statement: 30_000, lock: 2_000 };
    /// For work whose time follows the data.
    pub const WORK: Self = Self { statement: 0, lock: 10_000 };
}

/// A connection.
pub struct Session {
    client: Client,
    place: String,
}

/// What our connections are called in `pg_stat_activity`.
pub const APPLICATION: &str = "hostler";

impl Session {
    /// Logs in to a database of a cluster, as its administrator `postgres`.
    ///
    /// # Errors
    /// If the server does not answer within 10 s, or refuses the login.
    pub async fn open(cluster: &Cluster, database: &str, bounds: Bounds) -> Result<Self, Error> {
        let mut config = Config::new();
        config.user("postgres").dbname(database).application_name(APPLICATION).options(format!(
            "-c statement_timeout={} -c lock_timeout={} -c idle_in_transaction_session_timeout=0 \
             -c search_path=pg_catalog -c synchronous_commit=on -c client_min_messages=warning",
            bounds.statement, bounds.lock
        ));
        let path = cluster.socket.join(format!(".s.PGSQL.{}", cluster.port));
        let place = format!("{}, database {database}", cluster.title());
        Self::login(config, path, cluster.owner, place).await
    }

    /// Logs in to a server by its socket, without settings of the session: for pgbouncer's console.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub async fn console(
        socket: PathBuf,
        owner: Owner,
        user: &str,
        database: &str,
        place: String,
    ) -> Result<Self, Error> {
        let mut config = Config::new();
        config.user(user).dbname(database);
        Self::login(config, socket, owner, place).await
    }

    async fn login(config: Config, path: PathBuf, owner: Owner, place: String) -> Result<Self, Error> {
        let refused = |why: String| Error::Server(format!("{place}: no login: {why}"));
        let login = async {
            let stream = loop {
                match owner.act(|| connect(&path))? {
                    // The queue of the socket is full.
                    Err(nix::errno::Errno::EAGAIN) => tokio::time::sleep(QUEUE).await,
                    stream => break stream,
                }
            };
            let stream = stream.map_err(|error| refused(format!("{}: {}", path.display(), error.desc())))?;
            let stream = tokio::net::UnixStream::from_std(std::os::unix::net::UnixStream::from(stream));
            let stream = stream.map_err(|error| refused(error.to_string()))?;
            config.connect_raw(stream, NoTls).await.map_err(|error| refused(said(&error)))
        };
        let login = tokio::time::timeout(LOGIN, login).await;
        let login = login.map_err(|_| refused(format!("no answer within {} s", LOGIN.as_secs())))?;
        let (client, connection) = login?;
        tokio::spawn(async move {
            // How it ends is seen by whoever asks the next question.
            let _ = connection.await;
        });
        Ok(Self { client, place })
    }

    fn error(&self, error: &tokio_postgres::Error) -> Error {
        let text = format!("{}: {}", self.place, said(error));
        // 57P01 to 57P03: the server goes away, though the connection does not say so yet.
        let lost = match error.code() {
            None => true,
            Some(code) => code.code().starts_with("08") || code.code().starts_with("57P"),
        };
        if lost { Error::Lost(text) } else { Error::Server(text) }
    }

    /// Carries out one statement.
    ///
    /// # Errors
    /// If the server refuses it, or the connection ends.
    pub async fn run(&self, statement: &str) -> Result<(), Error> {
        self.client.batch_execute(statement).await.map_err(|error| self.error(&error))
    }

    /// Gives each row of an answer to `take`, as it comes: nothing is collected.
    ///
    /// # Errors
    /// As [`Session::run`], and whatever `take` answers.
    pub async fn each(
        &self,
        statement: &str,
        mut take: impl FnMut(Row) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let answer = self.client.simple_query_raw(statement).await.map_err(|error| self.error(&error))?;
        futures_util::pin_mut!(answer);
        while let Some(message) = answer.next().await {
            if let SimpleQueryMessage::Row(row) = message.map_err(|error| self.error(&error))? {
                take((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect())?;
            }
        }
        Ok(())
    }

    /// All rows of an answer that the statement itself keeps small.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub async fn rows(&self, statement: &str) -> Result<Vec<Row>, Error> {
        let mut rows = Vec::new();
        self.each(statement, |row| {
            rows.push(row);
            Ok(())
        })
        .await?;
        Ok(rows)
    }

    /// All rows of an answer that is small, each value by the name of its column: for consoles whose columns differ
    /// between versions.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub async fn named(&self, statement: &str) -> Result<Vec<HashMap<String, Option<String>>>, Error> {
        let answer = self.client.simple_query(statement).await.map_err(|error| self.error(&error))?;
        let rows = answer.into_iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let columns = |row: tokio_postgres::SimpleQueryRow| {
            let named = row.columns().iter().enumerate();
            named.map(|(at, column)| (column.name().to_owned(), row.get(at).map(str::to_owned))).collect()
        };
        Ok(rows.map(columns).collect())
    }

    /// The first column of the first row; `None` where there is no row, or it is null.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub async fn value(&self, statement: &str) -> Result<Option<String>, Error> {
        let rows = self.rows(statement).await?;
        Ok(rows.into_iter().next().and_then(|row| row.into_iter().next()).flatten())
    }

    /// The first column of the first row, which the statement always has.
    ///
    /// # Errors
    /// As [`Session::run`], and if there is none.
    pub async fn text(&self, statement: &str) -> Result<String, Error> {
        let value = self.value(statement).await?;
        value.ok_or_else(|| Error::Server(format!("{}: no answer to {statement}", self.place)))
    }

    /// Whether the first column of the first row is true; false where there is no row.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub async fn holds(&self, statement: &str) -> Result<bool, Error> {
        Ok(self.value(statement).await?.is_some_and(|value| value == "t"))
    }
}

/// Connects to a socket without waiting: a server that accepts nobody, such as a stopped one, would hold up everything
/// else that this program does.
fn connect(path: &Path) -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket::socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    socket::connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(socket)
}

/// What an error says: the text of the crate alone is `db error`.
fn said(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => format!("{} ({})", db.message(), db.code().code()),
        None => {
            let source = std::error::Error::source(error);
            source.map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
        }
    }
}

/// A text as a constant of SQL.
pub fn literal(text: &str) -> String {
    // An escape string: what it means does not depend on a setting of the server.
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// A name as an identifier of SQL.
pub fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::{identifier, literal};

    #[test]
    fn names_and_texts_stay_one_word() {
        assert_eq!(literal(r"it's a \ 'test'"), r"E'it''s a \\ ''test'''");
        assert_eq!(identifier(r#"a"b; drop"#), r#""a""b; drop""#);
    }
}
