//! `drill`: proves that the newest backup of a tenant can be restored, in a scratch tenant that is removed again.
//!
//! The scratch tenant has a name that only this program uses and a password that nobody knows. Whatever the drill came to,
//! it is dropped; a drill that died leaves it to the next one.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Serialize;

use crate::call::{Call, Piece};
use crate::error::{Error, quoted};
use crate::neighbours::catalog::{self, DATABASES, Database, ENTRIES, PIECES, Place};
use crate::neighbours::depot;
use crate::neighbours::hdbsql::{self, Key};
use crate::neighbours::recovery::{self, From};
use crate::restore;
use crate::runner::Runner;
use crate::system::{Sid, System};

/// The name of the scratch tenant.
pub const SCRATCH: &str = "HOSTLER_DRILL";

/// What a drill proves.
#[derive(Clone, Debug)]
pub struct Wish {
    /// The key that logs on to SYSTEMDB.
    pub key: Key,
    /// The tenant whose backup is proved.
    pub tenant: Database,
    /// The system whose tenant it is, with the configuration of the depot that has its backups; `None`: this system.
    pub source: Option<(Sid, String)>,
    /// Where its backup is.
    pub from: From,
    /// A key of a user of the tenant, who asks afterwards.
    pub tenant_key: Option<Key>,
    /// The table that is counted.
    pub count: Option<Table>,
    /// What must hold in the restored data.
    pub statements: Vec<Statement>,
    /// How long the recovery may take.
    pub timeout: Duration,
}

/// The name of a table, with its schema or without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table(String);

impl std::str::FromStr for Table {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let letter = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
        let name = |part: &str| {
            !part.is_empty()
                && part.len() <= 127
                && part.bytes().all(letter)
                && !part.starts_with(|first: char| first.is_ascii_digit())
        };
        let parts: Vec<_> = text.split('.').collect();
        if parts.len() > 2 || !parts.into_iter().all(name) {
            return Err(
                "the name of a table is capital letters, digits and underscores, as TABLE or SCHEMA.TABLE"
                    .to_owned(),
            );
        }
        Ok(Self(text.to_owned()))
    }
}

/// A query that must return one value which is neither 0 nor empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement(String);

impl std::str::FromStr for Statement {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let reads = text.get(..7).is_some_and(|word| word.eq_ignore_ascii_case("SELECT "));
        if !reads || text.len() > 2000 || text.contains(|letter: char| letter.is_control() || letter == ';') {
            return Err(
                "a statement is one SELECT of at most 2000 letters in one line, without `;`".to_owned()
            );
        }
        Ok(Self(text.to_owned()))
    }
}

/// Whether the value that a statement returned says that it holds.
pub fn is_true(value: Option<&str>) -> bool {
    !matches!(value.map(str::trim), None | Some("" | "0" | "FALSE"))
}

/// What a drill found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Proof {
    /// The id of the backup.
    pub backup: u64,
    /// How old it was, in seconds.
    pub age: u64,
    /// How long the recovery took, in seconds.
    pub seconds: u64,
    /// How many rows the table had.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// What the statements returned.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<Option<String>>,
}

/// Asks in the scratch tenant.
pub fn ask(system: &System, key: &Key, statement: &Statement) -> Call {
    let source = "SAP HANA SQL and System Views Reference, SELECT";
    let call = hdbsql::statement(system, key, "ask in the scratch tenant", source, statement.0.clone());
    hdbsql::in_database(call, SCRATCH).within(Duration::from_secs(3600))
}

/// Makes the scratch tenant.
pub fn create(system: &System, key: &Key) -> Call {
    let pieces = vec![
        Piece::Text(format!("CREATE DATABASE {SCRATCH} SYSTEM USER PASSWORD ")),
        Piece::Random,
        Piece::Text("\n".to_owned()),
    ];
    let source = "community.sap_install roles/sap_hana_install post_tasks (recreate tenant)";
    let mut call = hdbsql::secret_statement(system, key, "make the scratch tenant", source, pieces);
    call.timeout = Duration::from_secs(1800);
    call
}

/// Counts the rows of a table in the scratch tenant.
pub fn count(system: &System, key: &Key, table: &Table) -> Call {
    let source = "SAP HANA SQL and System Views Reference, SELECT";
    let sql = format!("SELECT COUNT(*) AS ROW_COUNT FROM {}", table.0);
    let call = hdbsql::statement(system, key, "count in the scratch tenant", source, sql);
    hdbsql::in_database(call, SCRATCH).within(Duration::from_secs(600))
}

/// A drill.
pub struct Drill<'a> {
    runner: &'a Runner,
    wish: &'a Wish,
}

impl<'a> Drill<'a> {
    /// The drill of that wish.
    pub fn new(runner: &'a Runner, wish: &'a Wish) -> Self {
        Self { runner, wish }
    }

    fn state(&self, of: &Database) -> Result<Option<bool>, Error> {
        let call = catalog::databases(self.runner.system(), &self.wish.key);
        let known = catalog::read_databases(&self.runner.rows(&call, &DATABASES)?)?;
        Ok(known.into_iter().find(|(database, _)| database == of).map(|(_, active)| active))
    }

    fn stop(&self, scratch: &Database) -> Result<(), Error> {
        hdbsql::check(&self.runner.run(&recovery::stop(self.runner.system(), &self.wish.key, scratch))?)
    }

    /// Removes the scratch tenant, if it is there. It may be repeated.
    pub fn clear(&self) -> Result<(), Error> {
        let scratch: Database = SCRATCH.parse().map_err(Error::Config)?;
        match self.state(&scratch)? {
            None => return Ok(()),
            Some(true) => self.stop(&scratch)?,
            Some(false) => {}
        }
        hdbsql::check(&self.runner.run(&recovery::drop(self.runner.system(), &self.wish.key, &scratch))?)
    }

    /// Restores the newest complete backup, counts, and removes it again.
    pub fn carry_out(&self) -> Result<Proof, Error> {
        self.clear()?;
        let proof = self.prove();
        // What failed is removed as well; both answers count.
        let cleared = self.clear();
        let proof = proof?;
        cleared.map(|()| proof)
    }

    fn prove(&self) -> Result<Proof, Error> {
        let Wish { key, tenant, source, from, tenant_key, count: wanted, statements, timeout } = self.wish;
        let system = self.runner.system();
        let now = Timestamp::now();
        let (backup, begun_at) = match source {
            Some((sid, config)) => self.newest_of(sid, config, now)?,
            None => {
                let complete = catalog::complete(system, key, tenant);
                let complete = catalog::read_entries(&self.runner.rows(&complete, &ENTRIES)?)?;
                let entry = restore::first(&complete, now)
                    .ok_or_else(|| Error::Refused(format!("{} has no complete backup", tenant.as_str())))?;
                (entry.id, entry.begun)
            }
        };
        let scratch: Database = SCRATCH.parse().map_err(Error::Config)?;
        hdbsql::check(&self.runner.run(&create(system, key))?)?;
        self.stop(&scratch)?;
        let begun = Instant::now();
        let call = match from {
            From::Backint => {
                let sid = source.as_ref().map_or(&system.sid, |(sid, _)| sid);
                // An instant that is to come: all that the backups have.
                let newest = now.checked_add(Duration::from_secs(24 * 3600)).unwrap_or(now);
                recovery::copy(system, key, (tenant, sid), &scratch, newest).within(*timeout)
            }
            From::File => recovery::copy_file(system, key, &scratch, &self.prefix(backup)?, *timeout),
        };
        hdbsql::check(&self.runner.run(&call)?)?;
        if self.state(&scratch)? != Some(true) {
            return Err(Error::Unclear(
                "the recovery ended well, and the scratch tenant is not active".to_owned(),
            ));
        }
        let seconds = begun.elapsed().as_secs();
        let (mut rows, mut answers) = (None, Vec::new());
        if let Some(tenant_key) = tenant_key {
            rows = wanted.as_ref().map(|table| self.count(tenant_key, table)).transpose()?;
            for statement in statements {
                let outcome = self.runner.run(&ask(system, tenant_key, statement))?;
                answers.push(hdbsql::value(&outcome)?);
            }
        }
        let age = now.duration_since(begun_at).unsigned_abs().as_secs();
        Ok(Proof { backup, age, seconds, rows, answers })
    }

    /// The newest data backup that the depot has of the tenant of another system: when it began, as an id and an instant.
    fn newest_of(&self, sid: &Sid, config: &str, now: Timestamp) -> Result<(u64, Timestamp), Error> {
        let outcome = self.runner.run(&depot::list(config))?;
        let names = depot::newest(outcome.code()?, &outcome.out, sid.as_str(), now)
            .map_err(|unclear| Error::Unclear(format!("{unclear}: {}", quoted(outcome.err.trim()))))?;
        let tenant = self.wish.tenant.as_str();
        let mine = format!("backint/{tenant}@{sid}/");
        let newest =
            names.iter().filter(|name| name.starts_with(&mine)).filter_map(|name| name.rsplit('/').next());
        let newest = newest.map(depot::begun).collect::<Result<Vec<_>, _>>()?.into_iter().max();
        let newest = newest
            .ok_or_else(|| Error::Refused(format!("the depot has no data backup of {tenant}@{sid}")))?;
        let instant = Timestamp::from_millisecond(newest)
            .map_err(|error| Error::Unclear(format!("the id of a backup in the depot: {error}")))?;
        Ok((u64::try_from(newest).unwrap_or_default(), instant))
    }

    /// The prefix of the files of a backup: what is before `_databackup_0_1`.
    fn prefix(&self, backup: u64) -> Result<String, Error> {
        let call = catalog::pieces(self.runner.system(), &self.wish.key, &self.wish.tenant, backup);
        let pieces = catalog::read_pieces(&self.runner.rows(&call, &PIECES)?)?;
        let files = pieces.iter().filter(|(id, _)| *id == backup).filter_map(|(_, part)| match &part.place {
            Place::File(path) => path.rsplit_once("_databackup_").map(|(prefix, _)| prefix.to_owned()),
            Place::Backint { .. } => None,
        });
        let prefixes: std::collections::BTreeSet<_> = files.collect();
        match prefixes.into_iter().collect::<Vec<_>>().as_slice() {
            [prefix] => Ok(prefix.clone()),
            _ => Err(Error::Refused(format!(
                "the newest complete backup {backup} is not in files with one prefix"
            ))),
        }
    }

    fn count(&self, key: &Key, table: &Table) -> Result<u64, Error> {
        let rows = self.runner.rows(&count(self.runner.system(), key, table), &["ROW_COUNT"])?;
        match rows.as_slice() {
            [row] => match row.as_slice() {
                [Some(count)] => {
                    count.parse().map_err(|_| Error::Unclear(format!("the count is {}", quoted(count))))
                }
                _ => Err(Error::Unclear("the count is no number".to_owned())),
            },
            _ => Err(Error::Unclear("the count has not one row".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_that_must_hold() {
        for good in ["SELECT COUNT(*) FROM SAPHANADB.T000", "select 1 from dummy"] {
            assert!(good.parse::<Statement>().is_ok(), "{good}");
        }
        for bad in
            ["", "SELECT", "DROP TABLE T", "SELECT 1 FROM DUMMY; DROP TABLE T", "SELECT\n1", "SELECTED x"]
        {
            assert!(bad.parse::<Statement>().is_err(), "{bad}");
        }
        for (value, holds) in
            [(Some("1"), true), (Some("x"), true), (Some("0"), false), (Some(" "), false), (None, false)]
        {
            assert_eq!(is_true(value), holds, "{value:?}");
        }
    }

    #[test]
    fn names_of_tables() {
        for good in ["T", "SAPHANADB.T000", "_A.B_1"] {
            assert!(good.parse::<Table>().is_ok(), "{good}");
        }
        for bad in ["", "t", "A.B.C", "A.", ".A", "A B", "A;DROP", "A\"", "1A"] {
            assert!(bad.parse::<Table>().is_err(), "{bad}");
        }
    }
}
