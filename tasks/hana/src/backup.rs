//! `backup`: data backups of SYSTEMDB and tenants, each known in HANA's catalog by the run that made it.
//!
//! The comment of a backup is the run's id, so the catalog itself says what became of a statement whose end nobody
//! saw. Nothing is made twice, and nothing is called done that the catalog does not call successful.

use std::fs;
use std::str::FromStr;
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Serialize;

use crate::call::Call;
use crate::error::{Error, quoted};
use crate::neighbours::catalog::{self, DATABASES, Database, ENTRIES, Entry, Kind, PARTS, Place, State};
use crate::neighbours::hdbsql::{self, Key, literal, statement};
use crate::neighbours::{depot, recovery};
use crate::parts::Parts;
use crate::runner::Runner;
use crate::system::System;

/// How often the catalog is asked for the end of a backup that an earlier attempt began.
const LOOK: Duration = Duration::from_secs(5);

/// The id of a run: what `HOSTLER_RUN` holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run(String);

impl Run {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The comment of the run's backups.
    pub fn comment(&self) -> String {
        format!("hostler run {}", self.0)
    }
}

impl FromStr for Run {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if text.is_empty() || text.len() > 64 || !text.bytes().all(letter) {
            return Err(
                "the id of a run is 1 to 64 letters, digits, dots, hyphens and underscores".to_owned()
            );
        }
        Ok(Self(text.to_owned()))
    }
}

/// What is saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum What {
    /// Everything
    Complete,
    /// What changed since the last data backup
    Incremental,
    /// What changed since the last complete one
    Differential,
}

impl What {
    fn kind(self) -> Kind {
        match self {
            Self::Complete => Kind::Complete,
            Self::Incremental => Kind::Incremental,
            Self::Differential => Kind::Differential,
        }
    }

    /// The word in `BACKUP DATA …`, with the space before it.
    fn word(self) -> &'static str {
        match self {
            Self::Complete => "",
            Self::Incremental => " INCREMENTAL",
            Self::Differential => " DIFFERENTIAL",
        }
    }
}

/// Where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum To {
    /// The Backint agent that the system is configured for
    Backint,
    /// Files in the system's folder for data backups
    File,
}

/// A backup of one database.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Of which database.
    pub database: &'a Database,
    /// What of it.
    pub what: What,
    /// Where it goes.
    pub to: To,
    /// The run that it is for, by which it is found again.
    pub run: &'a Run,
    /// When it is asked for; its files are named by that.
    pub now: Timestamp,
}

/// Makes a backup; it takes longer than a query.
pub fn backup(system: &System, key: &Key, request: Request<'_>) -> Call {
    let Request { database, what, to, run, now } = request;
    // Connected to SYSTEMDB, a statement without FOR is of SYSTEMDB itself.
    let target = if database.is_system() { String::new() } else { format!(" FOR {}", database.as_str()) };
    let to = match to {
        To::Backint => "BACKINT",
        To::File => "FILE",
    };
    // A prefix that was used before would replace the files of that backup.
    let prefix =
        now.strftime(&format!("HOSTLER_%Y_%m_%d_%H%M%S_{:03}", now.subsec_millisecond())).to_string();
    let sql = format!(
        "BACKUP DATA{}{target} USING {to} ({}) COMMENT {}",
        what.word(),
        literal(&prefix),
        literal(&run.comment())
    );
    let source = "SAP HANA SQL and System Views Reference, BACKUP DATA";
    statement(system, key, "back up one database", source, sql)
}

/// What is to do for one database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// This run's backup is there: nothing.
    Done(Entry),
    /// This run's backup is being made: nothing, until it has ended.
    Going(Entry),
    /// Another data backup or a snapshot is open: nothing, until it has ended.
    Blocked(Entry),
    /// The backup.
    Make,
}

/// Decides from this run's entries of the database and from all entries. Pure.
pub fn decide(database: &Database, what: What, mine: &[Entry], all: &[Entry]) -> Step {
    let open =
        |entry: &&Entry| matches!(entry.state, State::Running | State::Prepared | State::CancelPending);
    let mine = || mine.iter().filter(|entry| entry.database == *database && entry.kind == what.kind());
    if let Some(done) = mine().find(|entry| entry.state == State::Successful) {
        return Step::Done(done.clone());
    }
    if let Some(going) = mine().find(open) {
        return Step::Going(going.clone());
    }
    let data = |entry: &&Entry| !matches!(entry.kind, Kind::Log | Kind::LogMissing | Kind::Other);
    match all.iter().filter(|entry| entry.database == *database).filter(data).find(open) {
        Some(entry) => Step::Blocked(entry.clone()),
        None => Step::Make,
    }
}

/// A backup as it is reported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Made {
    /// Whose.
    pub database: Database,
    /// Its id in the catalog.
    pub id: u64,
    /// How many parts it has.
    pub parts: usize,
    /// Bytes of all parts, as the catalog says.
    pub bytes: u64,
    /// How many parts the depot has read a sample of.
    pub sampled: usize,
}

/// What a backup is wanted of.
#[derive(Clone, Debug)]
pub struct Wish {
    /// The key that logs on to SYSTEMDB.
    pub key: Key,
    /// The databases; all active ones when empty.
    pub databases: Vec<Database>,
    /// What is saved.
    pub what: What,
    /// Where it goes.
    pub to: To,
    /// The run that makes it.
    pub run: Run,
    /// How long one database may take.
    pub timeout: Duration,
    /// So many percent of what Backint holds are read back by the depot; `None`: nothing.
    pub sample: Option<u32>,
    /// The depot's configuration, where it is not the parameter file of Backint.
    pub depot: Option<String>,
}

/// Backups of one run.
pub struct Backups<'a> {
    runner: &'a Runner,
    wish: &'a Wish,
}

impl<'a> Backups<'a> {
    /// Backups of that wish.
    pub fn new(runner: &'a Runner, wish: &'a Wish) -> Self {
        Self { runner, wish }
    }

    /// The databases that are meant. One that is named and not active is an error.
    fn databases(&self) -> Result<Vec<Database>, Error> {
        let call = catalog::databases(self.runner.system(), &self.wish.key);
        let known = catalog::read_databases(&self.runner.rows(&call, &DATABASES)?)?;
        let active = known.into_iter().filter(|(_, active)| *active).map(|(database, _)| database);
        let active: Vec<_> = active.collect();
        match self.wish.databases.iter().find(|database| !active.contains(database)) {
            Some(missing) => {
                Err(Error::Config(format!("{} is no active database of this system", missing.as_str())))
            }
            None if self.wish.databases.is_empty() => Ok(active),
            None => Ok(self.wish.databases.clone()),
        }
    }

    fn mine(&self, database: &Database) -> Result<Vec<Entry>, Error> {
        let comment = self.wish.run.comment();
        let call = catalog::commented(self.runner.system(), &self.wish.key, database, &comment);
        Ok(catalog::read_entries(&self.runner.rows(&call, &ENTRIES)?)?)
    }

    /// Whether the catalog has this run's backup of each database.
    ///
    /// # Errors
    /// `No` when one is missing, `Unclear` while one is being made.
    pub fn done(&self) -> Result<Vec<Made>, Error> {
        let mut made = Vec::new();
        for database in self.databases()? {
            match decide(&database, self.wish.what, &self.mine(&database)?, &[]) {
                Step::Done(entry) => made.push(self.verified(&entry)?),
                Step::Going(entry) => return Err(Error::Unclear(going(&entry))),
                Step::Blocked(_) | Step::Make => {
                    return Err(Error::No(format!(
                        "the catalog has no backup of {} by this run",
                        database.as_str()
                    )));
                }
            }
        }
        Ok(made)
    }

    /// Makes what is missing, one database after another, and verifies each against the catalog.
    pub fn make(&self) -> Result<Vec<Made>, Error> {
        let mut made = Vec::new();
        for database in self.databases()? {
            let entry = match self.settled(&database)? {
                Step::Done(entry) => entry,
                Step::Going(entry) => return Err(Error::Unclear(going(&entry))),
                Step::Blocked(entry) => {
                    return Err(Error::Refused(format!(
                        "another backup of {} is {:?}, id {}: wait for its end; a prepared snapshot must be closed",
                        database.as_str(),
                        entry.state,
                        entry.id
                    )));
                }
                Step::Make => self.one(&database)?,
            };
            let verified = self.verified(&entry)?;
            self.check_files(&entry)?;
            made.push(Made { sampled: self.sample(&entry)?, ..verified });
        }
        Ok(made)
    }

    fn parts(&self, entry: &Entry) -> Result<Vec<catalog::Part>, Error> {
        let call = catalog::parts(self.runner.system(), &self.wish.key, &entry.database, entry.id);
        Ok(catalog::read_parts(&self.runner.rows(&call, &PARTS)?)?)
    }

    /// Has the depot read a sample of each part that it holds; how many parts these were.
    fn sample(&self, entry: &Entry) -> Result<usize, Error> {
        let Some(percent) = self.wish.sample else { return Ok(0) };
        let system = self.runner.system();
        let mut names = Vec::new();
        for part in self.parts(entry)? {
            if let Place::Backint { name, id } = &part.place {
                names.push(depot::name(system, &entry.database, name, id)?);
            }
        }
        if names.is_empty() {
            return Ok(0);
        }
        // Of another agent than the depot nothing can be read but by a restore.
        let config = match &self.wish.depot {
            Some(config) => config.clone(),
            None if is_the_depot(system) => match Parts::new(self.runner, &self.wish.key).parameters()? {
                Some(config) => config,
                None => return Ok(0),
            },
            None => return Ok(0),
        };
        for some in names.chunks(100) {
            let outcome =
                self.runner.run(&depot::verify(&config, percent, some).within(self.wish.timeout))?;
            if let Some(bad) = depot::verified(outcome.code()?, &outcome.out, some)
                .map_err(|unclear| Error::Unclear(format!("{unclear}: {}", quoted(outcome.err.trim()))))?
            {
                return Err(Error::Tool(format!(
                    "the depot: {bad}; the catalog calls the backup {} successful: make another one under another run",
                    entry.id
                )));
            }
        }
        Ok(names.len())
    }

    /// Reads each file of a backup with HANA's own tool.
    fn check_files(&self, entry: &Entry) -> Result<(), Error> {
        let system = self.runner.system();
        for part in self.parts(entry)? {
            let Place::File(path) = &part.place else { continue };
            let outcome = self.runner.run(&recovery::check_file(system, path, self.wish.timeout))?;
            if !recovery::is_whole(outcome.code()?)? {
                return Err(Error::Tool(format!(
                    "hdbbackupcheck: {path} of the backup {} is not whole; the catalog calls it successful: make another \
                     one under another run",
                    entry.id
                )));
            }
        }
        Ok(())
    }

    /// What is to do, once a backup that an earlier attempt of this run began has ended, or its time is over.
    fn settled(&self, database: &Database) -> Result<Step, Error> {
        let begun = Instant::now();
        loop {
            let now = Timestamp::now();
            let all = catalog::entries(self.runner.system(), &self.wish.key, now, now);
            let all = catalog::read_entries(&self.runner.rows(&all, &ENTRIES)?)?;
            match decide(database, self.wish.what, &self.mine(database)?, &all) {
                Step::Going(_) if begun.elapsed() < self.wish.timeout => {
                    thread::sleep(LOOK.min(self.wish.timeout));
                }
                step => return Ok(step),
            }
        }
    }

    /// Starts the statement, and believes the catalog of its end.
    fn one(&self, database: &Database) -> Result<Entry, Error> {
        let Wish { key, what, to, run, timeout, .. } = self.wish;
        let request = Request { database, what: *what, to: *to, run, now: Timestamp::now() };
        let call = backup(self.runner.system(), key, request).within(*timeout);
        let stated = hdbsql::check(&self.runner.run(&call)?);
        // A connection that broke says nothing of the backup, which may go on without it.
        match (decide(database, *what, &self.mine(database)?, &[]), stated) {
            (Step::Done(entry), _) => Ok(entry),
            (Step::Going(entry), _) => Err(Error::Unclear(going(&entry))),
            (_, Err(error)) => Err(error),
            (_, Ok(())) => Err(Error::Unclear(format!(
                "the statement succeeded, and the catalog has no backup of {} with the comment `{}`",
                database.as_str(),
                run.comment()
            ))),
        }
    }

    /// Looks for each part of a successful backup: files on this host, all else in Backint.
    fn verified(&self, entry: &Entry) -> Result<Made, Error> {
        let parts = self.parts(entry)?;
        if parts.is_empty() {
            return Err(Error::Unclear(format!("the catalog lists no part of the backup {}", entry.id)));
        }
        let mut wanted = Vec::new();
        for part in &parts {
            match &part.place {
                Place::Backint { name, id } => wanted.push((id.clone(), name.clone())),
                Place::File(path) => {
                    let place = self.runner.system().at(path);
                    let there = fs::metadata(&place).map_err(Error::local(place.display()))?;
                    if !there.is_file() || there.len() == 0 {
                        return Err(Error::Tool(format!(
                            "{}: the file of a backup is empty",
                            place.display()
                        )));
                    }
                }
            }
        }
        let missing = Parts::new(self.runner, &self.wish.key).not_in_backint(&entry.database, &wanted)?;
        if let Some(first) = missing.first() {
            return Err(Error::Tool(format!(
                "Backint does not have {first} of the backup {}, which the catalog calls successful: make another one \
                 under another run",
                entry.id
            )));
        }
        let bytes = parts.iter().map(|part| part.size).fold(0, u64::saturating_add);
        let (id, database) = (entry.id, entry.database.clone());
        Ok(Made { database, id, parts: parts.len(), bytes, sampled: 0 })
    }
}

/// Whether Backint of the system is `hostler-depot`, by its link.
pub fn is_the_depot(system: &System) -> bool {
    let link = system.at(format!("/usr/sap/{}/SYS/global/hdb/opt/hdbbackint", system.sid));
    fs::read_link(link).is_ok_and(|to| to == system.at(depot::PROGRAM))
}

fn going(entry: &Entry) -> String {
    format!(
        "this run's backup of {} is still {:?}, id {}: ask again later",
        entry.database.as_str(),
        entry.state,
        entry.id
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(database: &str, kind: Kind, state: State) -> Entry {
        let begun = Timestamp::UNIX_EPOCH;
        Entry { database: database.parse().unwrap(), id: 1, kind, state, begun, ended: None }
    }

    #[test]
    fn nothing_is_made_twice_and_nothing_beside_another() {
        use Kind::{Complete, Incremental, Log, Other, Snapshot};
        use State::{CancelPending, Canceled, Failed, Prepared, Running, Successful};
        let database: Database = "HDB".parse().unwrap();
        let one = |kind, state| vec![entry("HDB", kind, state)];
        let cases: &[(Vec<Entry>, Vec<Entry>, &str)] = &[
            (vec![], vec![], "make"),
            (one(Complete, Successful), vec![], "done"),
            (one(Complete, Successful), one(Complete, Running), "done"),
            (one(Complete, Running), one(Complete, Running), "going"),
            (one(Complete, CancelPending), vec![], "going"),
            (one(Complete, Failed), vec![], "make"),
            (one(Complete, Canceled), vec![], "make"),
            ([one(Complete, Failed), one(Complete, Successful)].concat(), vec![], "done"),
            ([one(Complete, Failed), one(Complete, Running)].concat(), vec![], "going"),
            // Of another kind, or of another database: not this one.
            (one(Incremental, Successful), vec![], "make"),
            (vec![entry("QA1", Complete, Successful)], vec![], "make"),
            (vec![], one(Complete, Running), "blocked"),
            (vec![], one(Incremental, Running), "blocked"),
            (vec![], one(Snapshot, Prepared), "blocked"),
            (vec![], one(Complete, CancelPending), "blocked"),
            (one(Complete, Failed), one(Snapshot, Prepared), "blocked"),
            (vec![], one(Complete, Successful), "make"),
            (vec![], one(Log, Running), "make"),
            (vec![], one(Other, Running), "make"),
            (vec![], vec![entry("QA1", Complete, Running)], "make"),
        ];
        for (mine, all, wanted) in cases {
            let step = match decide(&database, What::Complete, mine, all) {
                Step::Done(_) => "done",
                Step::Going(_) => "going",
                Step::Blocked(_) => "blocked",
                Step::Make => "make",
            };
            assert_eq!(step, *wanted, "{mine:?} {all:?}");
        }
    }

    #[test]
    fn ids_of_runs() {
        for good in ["01JD5Z", "by-hand.1", "a_b"] {
            assert!(good.parse::<Run>().is_ok());
        }
        for bad in ["", "a b", "a'b", "ä", &"x".repeat(65)] {
            assert!(bad.parse::<Run>().is_err());
        }
    }
}
