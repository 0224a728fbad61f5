//! What the fleet shows of the clusters of a host: one small JSON object, within 8 s.
//!
//! What cannot be read is null, and `unclear` says why: never a zero, and never the value of another minute. A server or a
//! store that does not answer costs its own values only.

pub mod fit;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use crate::backup::record;
use crate::depot::{self, Depot, Place};
use crate::error::Error;
use crate::layout::{self, Cluster};
use crate::server::{Bounds, Session};

/// When the servers have to have answered.
const SERVERS: Duration = Duration::from_secs(5);
/// When everything has: a fact has 10 s in the agent, and this program promises 8.
const ALL: Duration = Duration::from_millis(7_500);
/// For one statement; the size of a cluster is asked of its file system.
const BOUNDS: Bounds = Bounds { statement: 3_000, lock: 500 };
/// Servers that are asked at the same time.
const AT_ONCE: usize = 8;
/// The longest reason, in characters.
const REASON: usize = 120;

/// The fact.
#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Fact {
    /// By version and name, such as `15/main`; `None` if it is not known which there are.
    pub clusters: Option<BTreeMap<String, Entry>>,
    /// Why that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unclear: Option<String>,
    /// Clusters for which there was no room.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    /// How many more have no room even for their names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_out_more: Option<usize>,
}

/// What is known of one cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Entry {
    /// Each value by its name; null if it cannot be told.
    #[serde(flatten)]
    pub values: BTreeMap<&'static str, Value>,
    /// Why it cannot: by the value, or `server` for all that only a server knows.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub unclear: BTreeMap<&'static str, String>,
}

/// A value that a server knows, and the statement that answers with it as JSON.
struct Question {
    name: &'static str,
    statement: &'static str,
}

const QUESTIONS: [Question; 7] = [
    Question {
        name: "running_version",
        statement: "select to_json(split_part(current_setting('server_version'), ' ', 1))",
    },
    Question {
        name: "role",
        statement: "select to_json(case when pg_is_in_recovery() then 'standby' else 'primary' end)",
    },
    Question {
        // Of a primary, how far the last of its receivers is behind; of a standby, how far itself is.
        name: "replication",
        statement: "select case when pg_is_in_recovery() then (select json_build_object('streaming', streaming, \
            'lag_bytes', pg_wal_lsn_diff(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())::bigint, \
            'lag_seconds', case when streaming and pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() then 0 \
            else extract(epoch from now() - pg_last_xact_replay_timestamp())::bigint end) \
            from (select exists (select from pg_stat_wal_receiver where status = 'streaming') as streaming) as r) \
            else (select json_build_object('receivers', count(*), 'lag_bytes', \
            max(pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn))::bigint) from pg_stat_replication) end",
    },
    Question { name: "size_bytes", statement: "select to_json(sum(pg_database_size(oid))) from pg_database" },
    Question {
        name: "archiving",
        statement: "select to_json(case when current_setting('archive_mode') = 'off' then 'off' \
            when pg_is_in_recovery() and current_setting('archive_mode') <> 'always' then 'off' \
            when last_failed_time > coalesce(last_archived_time, '-infinity') then 'failing' \
            when last_archived_time is null then 'nothing archived' else 'working' end) from pg_stat_archiver",
    },
    Question {
        name: "wraparound_age",
        statement: "select to_json(max(greatest(age(datfrozenxid), mxid_age(datminmxid)))) from pg_database",
    },
    Question {
        name: "pending_restart",
        statement: "select coalesce(json_agg(name), '[]') from (select name from pg_settings where pending_restart \
            order by name limit 5) as s",
    },
];

/// Where a cluster's backups are, and of which system they are, by what its server is told to do with WAL.
const PLACE: &str =
    "select current_setting('archive_command'), (select system_identifier from pg_control_system())";

/// What only a server, or its archive, knows.
fn unread() -> impl Iterator<Item = &'static str> {
    QUESTIONS.iter().map(|question| question.name).chain(["backup"])
}

/// A reason in one line that is not too long.
fn reason(why: &str) -> String {
    let line: String = why.chars().take(REASON).map(|c| if c == '\n' { ' ' } else { c }).collect();
    if line.len() < why.len() { format!("{line}…") } else { line }
}

/// Reads everything that can be read in time.
pub async fn read() -> Fact {
    let begun = Instant::now();
    let (servers, all) = (begun + SERVERS, begun + ALL);
    let layout::List { clusters, unclear } = match timeout_at(servers, layout::list()).await {
        Ok(Ok(list)) => list,
        Ok(Err(error)) => return Fact { unclear: Some(reason(&error.to_string())), ..Fact::default() },
        Err(_) => {
            let why = format!("the list of clusters has not ended within {} s", SERVERS.as_secs());
            return Fact { unclear: Some(why), ..Fact::default() };
        }
    };
    let asked = stream::iter(&clusters).map(|cluster| async move { of_server(cluster, servers).await });
    let mut entries: Vec<_> = asked.buffered(AT_ONCE).collect().await;
    // One after the other: each is a program of its own, and a fact has little memory.
    for (cluster, (entry, source)) in clusters.iter().zip(&mut entries) {
        let Some(source) = source.take() else { continue };
        let found = match source {
            Ok(source) => match timeout_at(all, backups(cluster, &source)).await {
                Ok(found) => found.map_err(|error| error.to_string()),
                Err(_) => Err("the store has not answered in time".to_owned()),
            },
            Err(why) => Err(why),
        };
        entry.note("backup", found);
    }
    let titled = clusters.iter().map(Cluster::title).zip(entries.into_iter().map(|(entry, _)| entry));
    let unread = unclear.iter().map(|cluster| (cluster.title(), Entry::unread(cluster)));
    Fact { clusters: Some(titled.chain(unread).collect()), ..Fact::default() }
}

impl Entry {
    /// Of a cluster of which hardly anything is known.
    fn unread(cluster: &layout::Unclear) -> Self {
        let mut entry = Self::default();
        entry.note("version", Ok(json!(cluster.version)));
        for name in ["port", "running", "installed_version"].into_iter().chain(unread()) {
            entry.values.insert(name, Value::Null);
        }
        entry.values.insert("port", json!(cluster.port));
        entry.unclear.insert("server", reason(&cluster.why));
        entry
    }

    /// Notes a value, or why it cannot be told.
    fn note(&mut self, name: &'static str, found: Result<Value, String>) {
        match found {
            Ok(value) => {
                self.values.insert(name, value);
            }
            Err(why) => {
                self.values.insert(name, Value::Null);
                self.unclear.insert(name, reason(&why));
            }
        }
    }
}

/// The backups of a cluster: where they are, and of which system they are.
struct Source {
    place: Place,
    system: String,
}

/// What a server says, and where its backups are, or why that is not known; `None` if the server was not asked.
async fn of_server(cluster: &Cluster, until: Instant) -> (Entry, Option<Result<Source, String>>) {
    let mut entry = Entry::default();
    entry.note("version", Ok(json!(cluster.version)));
    entry.note("port", Ok(json!(cluster.port)));
    entry.note("running", Ok(json!(cluster.running)));
    let installed = timeout_at(until, layout::minor(cluster.version)).await;
    let late = || Error::Server("it has not answered in time".to_owned());
    let installed = installed.unwrap_or_else(|_| Err(late()));
    entry.note("installed_version", installed.map(Value::from).map_err(|error| error.to_string()));
    for name in unread() {
        entry.values.insert(name, Value::Null);
    }
    let mut source = None;
    let asked = async {
        if !cluster.running {
            return Err(Error::Server("it does not run".to_owned()));
        }
        let session = Session::open(cluster, "postgres", BOUNDS).await?;
        for question in &QUESTIONS {
            let found = match session.text(question.statement).await {
                Err(error @ Error::Lost(_)) => return Err(error),
                Err(error) => Err(error.to_string()),
                Ok(text) => serde_json::from_str(&text).map_err(|error| format!("{text}: {error}")),
            };
            entry.note(question.name, found);
        }
        source = Some(match session.rows(PLACE).await {
            Err(error @ Error::Lost(_)) => return Err(error),
            Err(error) => Err(error.to_string()),
            Ok(rows) => match rows.first().map(Vec::as_slice) {
                Some([Some(command), Some(system)]) => place(command)
                    .map(|place| Source { place, system: system.clone() })
                    .ok_or_else(|| "its archive_command is not that of hostler-postgres".to_owned()),
                _ => Err("the server does not say what it is".to_owned()),
            },
        });
        Ok(())
    };
    if let Err(error) = timeout_at(until, asked).await.unwrap_or_else(|_| Err(late())) {
        entry.unclear.insert("server", reason(&error.to_string()));
    }
    (entry, source)
}

/// The place to which an archive_command of ours leads; `None` if it is another one.
fn place(command: &str) -> Option<Place> {
    let words: Vec<_> = command.split_ascii_whitespace().map(|word| word.trim_matches(['\'', '"'])).collect();
    let ours = words.windows(2).any(|pair| match pair {
        [program, verb] => program.rsplit('/').next() == Some("hostler-postgres") && *verb == "archive",
        _ => false,
    });
    let option = |name: &str| {
        let mut words = words.iter();
        let word = words.find(|word| word.starts_with(name))?;
        match word.strip_prefix(name)? {
            "" => words.next().copied(),
            value => value.strip_prefix('='),
        }
    };
    let id = depot::id(option("--id").filter(|_| ours)?).ok()?;
    let depot_config = PathBuf::from(option("--depot-config").unwrap_or(depot::CONFIG));
    Some(Place { id, depot_config })
}

/// How many good backups a cluster has, and how old the newest is. A backup is good whose files are whole, and whose record
/// proves that its WAL was archived.
async fn backups(cluster: &Cluster, source: &Source) -> Result<Value, Error> {
    let depot = Depot::new(&source.place, Some(cluster.owner));
    let all = record::all(&depot).await?;
    let mut good =
        all.iter().filter(|backup| backup.record.system == source.system && backup.damage.is_none());
    let count = good.clone().count();
    Ok(match good.next_back() {
        Some(newest) => {
            let age = Timestamp::now().duration_since(newest.record.stopped).as_secs().max(0);
            json!({ "good": count, "newest": newest.record.stamp, "age_seconds": age })
        }
        None => json!({ "good": 0 }),
    })
}

#[cfg(test)]
mod tests {
    use super::place;

    #[test]
    fn the_place_of_backups_is_read_from_the_command() {
        let found = |command: &str| {
            place(command).map(|place| (place.id, place.depot_config.to_string_lossy().into_owned()))
        };
        let known = |id: &str, file: &str| Some((id.to_owned(), file.to_owned()));
        let default = crate::depot::CONFIG;
        assert_eq!(found("hostler-postgres archive --id pg-main %p"), known("pg-main", default));
        assert_eq!(
            found("HOSTLER_DEPOT=/x /opt/hostler-postgres archive --depot-config '/a b' --id=pg \"%p\""),
            known("pg", "/a")
        );
        assert_eq!(
            found("/usr/bin/hostler-postgres archive --depot-config=/etc/d.yml --id pg %p"),
            known("pg", "/etc/d.yml")
        );
        for other in [
            "",
            "pgbackrest --id pg archive-push %p",
            "hostler-postgres fetch --id pg %f %p",
            "hostler-postgres archive --id",
            "hostler-postgres archive --id PG! %p",
        ] {
            assert_eq!(found(other), None, "{other}");
        }
    }
}
