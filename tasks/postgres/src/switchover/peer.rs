//! The other server of a switchover, asked by a physical replication connection: what lets a standby follow lets this ask,
//! and nothing more is needed, neither a database nor a role with other rights.
//!
//! psql of the cluster's version speaks, because the connection may need TLS and any kind of authentication that libpq
//! knows. How to connect goes to it in a file that only the cluster's owner reads, since it may hold a password.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use crate::error::Error;
use crate::exec;
use crate::layout::{self, Cluster};
use crate::wal::Lsn;

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(20);

/// The other server, as the owner of this cluster reaches it.
pub(crate) struct Peer<'a> {
    cluster: &'a Cluster,
    words: Vec<(String, String)>,
}

/// What it says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) system: u64,
    pub(crate) timeline: u32,
    /// What it has of the WAL: of a standby what is on its disk.
    pub(crate) place: Lsn,
    /// It is in recovery, and accepts no write.
    pub(crate) standby: bool,
}

impl<'a> Peer<'a> {
    /// The server to which a connection string leads.
    pub(crate) fn new(cluster: &'a Cluster, conninfo: &str) -> Result<Self, Error> {
        let words = words(conninfo).filter(|words| {
            words.iter().any(|(name, _)| name == "host" || name == "hostaddr" || name == "service")
        });
        let words = words.ok_or_else(|| {
            Error::Refused(format!(
                "{}: primary_conninfo does not name a host in the form `host=… port=…`",
                cluster.title()
            ))
        })?;
        Ok(Self { cluster, words })
    }

    /// Where it is, without what is secret.
    pub(crate) fn place(&self) -> String {
        let shown = self
            .words
            .iter()
            .filter(|(name, _)| ["host", "hostaddr", "service", "port"].contains(&name.as_str()));
        shown.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
    }

    /// Asks commands of the replication protocol; the lines of the answers.
    async fn ask(&self, commands: &[&str]) -> Result<Vec<String>, Error> {
        let owner = self.cluster.owner;
        let mut file = tempfile::NamedTempFile::new().map_err(Error::local("a temporary file"))?;
        let text: String = self.words.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
        file.write_all(format!("[peer]\n{text}").as_bytes()).map_err(Error::local("a temporary file"))?;
        owner.give(file.path())?;
        let mut all = vec![
            format!("PGSERVICEFILE={}", file.path().display()),
            layout::program(self.cluster.version, "psql").display().to_string(),
        ];
        let fixed = [
            "-XAtqw",
            "-F",
            "\t",
            "-v",
            "ON_ERROR_STOP=1",
            "-d",
            "service=peer replication=true connect_timeout=5",
        ];
        all.extend(fixed.map(str::to_owned));
        all.extend(commands.iter().flat_map(|command| ["-c".to_owned(), (*command).to_owned()]));
        let ended = exec::run(Some(owner), Path::new("/usr/bin/env"), &all, ANSWER).await?;
        if ended.status != Some(0) {
            let place = self.place();
            return Err(Error::Server(format!(
                "the other server ({place}) does not answer: {}",
                ended.complaint
            )));
        }
        Ok(ended.output.lines().map(str::to_owned).collect())
    }

    /// What it says of itself now.
    pub(crate) async fn look(&self) -> Result<Seen, Error> {
        let lines = self.ask(&["IDENTIFY_SYSTEM", "SHOW transaction_read_only"]).await?;
        seen(&lines).ok_or_else(|| {
            Error::Server(format!(
                "the other server ({}) answers something unknown: {}",
                self.place(),
                lines.join("; ")
            ))
        })
    }

    /// Its value of a setting.
    pub(crate) async fn setting(&self, name: &str) -> Result<String, Error> {
        Ok(self.ask(&[&format!("SHOW {name}")]).await?.into_iter().next().unwrap_or_default())
    }

    /// Makes a slot there that keeps WAL from now on.
    pub(crate) async fn make_slot(&self, name: &str) -> Result<(), Error> {
        self.ask(&[&format!("CREATE_REPLICATION_SLOT {name} PHYSICAL RESERVE_WAL")]).await.map(|_| ())
    }

    /// Drops a slot there, once nobody uses it.
    pub(crate) async fn drop_slot(&self, name: &str) -> Result<(), Error> {
        self.ask(&[&format!("DROP_REPLICATION_SLOT {name} WAIT")]).await.map(|_| ())
    }
}

fn seen(lines: &[String]) -> Option<Seen> {
    let [system, read_only] = lines else { return None };
    let mut fields = system.split('\t');
    let (id, timeline, place) = (fields.next()?, fields.next()?, fields.next()?);
    let standby = match read_only.as_str() {
        "on" => true,
        "off" => false,
        _ => return None,
    };
    Some(Seen {
        system: id.parse().ok()?,
        timeline: timeline.parse().ok()?,
        place: place.parse().ok()?,
        standby,
    })
}

/// The words of a connection string, by the rules of libpq: `name = value`, where a value may be quoted.
fn words(text: &str) -> Option<Vec<(String, String)>> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=')?;
        let name = name.trim_end();
        if name.is_empty() || name.contains(|c: char| !c.is_ascii_lowercase() && c != '_') {
            return None;
        }
        let after = after.trim_start();
        let (quoted, mut value) = (after.starts_with('\''), String::new());
        let mut chars = after.char_indices().skip(usize::from(quoted));
        let mut end = after.len();
        let mut closed = !quoted;
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => value.push(chars.next()?.1),
                '\'' if quoted => {
                    (end, closed) = (at + 1, true);
                    break;
                }
                c if !quoted && c.is_whitespace() => {
                    end = at;
                    break;
                }
                c => value.push(c),
            }
        }
        // A value goes into a line of a file.
        if !closed || value.chars().any(char::is_control) || value.trim() != value {
            return None;
        }
        words.push((name.to_owned(), value));
        rest = after.get(end..)?.trim_start();
    }
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::{Seen, seen, words};
    use crate::wal::Lsn;

    #[test]
    fn connection_strings_are_read_by_the_rules_of_libpq() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        for (text, expected) in [
            ("", Some(vec![])),
            ("host=db2 port=5432", Some(vec![pair("host", "db2"), pair("port", "5432")])),
            (
                " host = '/var/run/x y'  user='it\\'s' ",
                Some(vec![pair("host", "/var/run/x y"), pair("user", "it's")]),
            ),
            (r"password=a\ b\\c host=''", Some(vec![pair("password", r"a b\c"), pair("host", "")])),
            ("postgresql://db2/", None),
            ("host", None),
            ("host='db2", None),
            ("host=db2\\", None),
            ("password='a\nb'", None),
            ("password=' a'", None),
        ] {
            assert_eq!(words(text), expected, "{text}");
        }
    }

    #[test]
    fn what_a_server_says_of_itself_is_read_whole_or_not_at_all() {
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        let expected = Seen { system: 7_123, timeline: 2, place: Lsn(0x0300_0060), standby: true };
        assert_eq!(seen(&lines("7123\t2\t0/3000060\t\non")), Some(expected));
        for wrong in [
            "",
            "7123\t2\t0/3000060\t",
            "7123\t2\t0/3000060\t\n",
            "7123\t2\tx\t\non",
            "7123\t2\t0/3000060\t\non\n1",
        ] {
            assert_eq!(seen(&lines(wrong)), None, "{wrong}");
        }
    }
}
