//! `restore`: databases to an instant, from Backint or files, with a note of how far it is.
//!
//! Before anything is stopped, every part that the recovery needs is looked for. SYSTEMDB comes first, then one tenant
//! after another. A repetition of the same run goes on where it was: a database that is recovered is not recovered
//! again, because its users may have written since.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::backup::Run;
use crate::call::Call;
use crate::change;
use crate::check::{self, Before};
use crate::error::{Error, quoted};
use crate::neighbours::catalog::{self, DATABASES, Database, ENTRIES, Entry, Kind, Part, Place, State};
use crate::neighbours::hdbsql::{self, Key};
use crate::neighbours::recovery::{self, From};
use crate::neighbours::scripts::{self, Reached};
use crate::neighbours::{backint, depot, sapcontrol};
use crate::notes::Note;
use crate::parts::{Files, Needed, Parts};
use crate::report;
use crate::runner::{End, Runner};

/// How often a state is looked at.
const LOOK: Duration = Duration::from_secs(2);
/// How long processes may take to run after a recovery.
const START: Duration = Duration::from_secs(2700);

/// What is to be restored.
#[derive(Clone, Debug)]
pub struct Wish {
    /// The key that logs on to SYSTEMDB.
    pub key: Key,
    /// The databases; SYSTEMDB and all tenants when empty.
    pub databases: Vec<Database>,
    /// The instant; one in the future is the newest state.
    pub to: Timestamp,
    /// Where the backups are.
    pub from: From,
    /// The run.
    pub run: Run,
    /// How long the recovery of one database may take.
    pub timeout: Duration,
    /// Configuration of `hostler-depot`, where cold parts are to be thawed.
    pub depot: Option<String>,
    /// Folder of the catalogs of all databases, where it is not the one that the parameters name.
    pub catalog: Option<String>,
    /// Parameter file of Backint, where the database cannot be asked for it.
    pub parameters: Option<String>,
    /// The operator says that Pacemaker's resources are in maintenance.
    pub maintained: bool,
    /// The operator says that the data is lost: the database is not asked what its backups are.
    pub lost: bool,
}

/// How far a database is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Progress {
    /// It is being stopped; nothing of it was changed.
    Stopping,
    /// It is stopped, and its recovery may have begun.
    Recovering,
    /// Its recovery has ended, and it runs.
    Done,
}

type Databases = BTreeMap<String, Progress>;

/// What a run has noted.
#[derive(Debug, Serialize, Deserialize)]
struct Noted {
    /// The instant that all of its databases are brought to.
    to: String,
    databases: Databases,
}

/// The restore of a run.
pub struct Restore<'a> {
    runner: &'a Runner,
    wish: &'a Wish,
    note: Note,
}

/// The newest complete backup that ended before the instant. Pure.
pub fn first(complete: &[Entry], to: Timestamp) -> Option<&Entry> {
    let good = |entry: &&Entry| entry.kind == Kind::Complete && entry.state == State::Successful;
    let before = |entry: &&Entry| entry.ended.is_some_and(|ended| ended <= to);
    complete.iter().filter(good).filter(before).max_by_key(|entry| entry.id)
}

/// An error while a part cannot be read yet.
fn none_cold(cold: &[String]) -> Result<(), Error> {
    match cold.first() {
        None => Ok(()),
        Some(first) => {
            Err(Error::NotNow(format!("{} parts are being thawed, the first is {first}", cold.len())))
        }
    }
}

/// The next database that is not restored: SYSTEMDB before all tenants.
fn next(note: &Databases) -> Result<Option<Database>, Error> {
    let left = note.iter().filter(|(_, progress)| **progress != Progress::Done).map(|(name, _)| name);
    let first = left.min_by_key(|name| (name.as_str() != Database::system().as_str(), (*name).clone()));
    first.map(|name| name.parse().map_err(Error::Unclear)).transpose()
}

impl<'a> Restore<'a> {
    /// The restore of that wish.
    pub fn new(runner: &'a Runner, wish: &'a Wish) -> Self {
        Self { runner, wish, note: Note::of(runner.system(), &wish.run, "restore") }
    }

    /// All databases, and whether each is active.
    fn known(&self) -> Result<Vec<(Database, bool)>, Error> {
        let call = catalog::databases(self.runner.system(), &self.wish.key);
        Ok(catalog::read_databases(&self.runner.rows(&call, &DATABASES)?)?)
    }

    /// The databases that are meant, SYSTEMDB first.
    fn meant(&self, known: &[(Database, bool)]) -> Result<Vec<Database>, Error> {
        let mut meant: Vec<_> = match self.wish.databases.as_slice() {
            [] => known.iter().map(|(database, _)| database.clone()).collect(),
            named => named.to_vec(),
        };
        let absent = meant.iter().find(|database| !known.iter().any(|(known, _)| known == *database));
        if let Some(absent) = absent {
            return Err(Error::Config(format!("{} is no database of this system", absent.as_str())));
        }
        meant.sort_by_key(|database| (!database.is_system(), database.clone()));
        meant.dedup();
        Ok(meant)
    }

    /// Whether everything is there that the recovery needs. Nothing is changed, but that cold parts are thawed.
    ///
    /// # Errors
    /// `Refused` when a part is missing, `NotNow` while one is being thawed, `Unclear` when SYSTEMDB does not answer.
    pub fn check(&self) -> Result<Vec<Needed>, Error> {
        // A secondary is filled by its primary.
        change::allow(self.runner, &self.wish.key, Before::Restore, self.wish.maintained, &["replication"])?;
        if self.wish.lost {
            self.check_catalogs()?;
            return self.thaw_newest().map(|()| Vec::new());
        }
        let mut all = Vec::new();
        let mut missing = Vec::new();
        let mut cold = Vec::new();
        for database in self.meant(&self.known()?)? {
            let needed = self.needed(&database)?;
            let parts = self.held().of(&needed)?;
            missing.extend(self.held().missing(&database, &parts, Files::Here)?);
            if let Some(config) = &self.wish.depot {
                cold.extend(self.thaw(config, &database, &parts)?);
            }
            all.push(needed);
        }
        if let Some(first) = missing.first() {
            return Err(Error::Refused(format!(
                "{} parts that the recovery needs are missing, the first is {first}: choose an instant before its data, or bring it back",
                missing.len()
            )));
        }
        none_cold(&cold)?;
        Ok(all)
    }

    /// Of a system whose data is lost: has the depot thaw the newest data backup of each database before the instant.
    fn thaw_newest(&self) -> Result<(), Error> {
        let Some(config) = &self.wish.depot else { return Ok(()) };
        let outcome = self.runner.run(&depot::list(config))?;
        let names =
            depot::newest(outcome.code()?, &outcome.out, self.runner.system().sid.as_str(), self.wish.to)
                .map_err(|unclear| Error::Unclear(format!("{unclear}: {}", quoted(outcome.err.trim()))))?;
        let mut cold = Vec::new();
        for name in names {
            if !self.is_readable(&depot::thaw_name(config, &name))? {
                cold.push(name);
            }
        }
        none_cold(&cold)
    }

    /// Whether what the call thaws can be read now.
    fn is_readable(&self, call: &Call) -> Result<bool, Error> {
        let outcome = self.runner.run(call)?;
        depot::thawed(outcome.code()?, &outcome.out)
            .map_err(|unclear| Error::Unclear(format!("{unclear}: {}", quoted(outcome.err.trim()))))
    }

    /// Of a system whose data is lost: whether the catalogs are there, and of files whether all that they name is.
    /// Of what Backint holds, HANA itself looks for the rest before it begins (`CHECK ACCESS`).
    fn check_catalogs(&self) -> Result<(), Error> {
        let system = self.runner.system();
        let system_only = [Database::system()];
        let databases = if self.wish.databases.is_empty() { &system_only[..] } else { &self.wish.databases };
        for database in databases {
            match self.wish.from {
                From::Backint => {
                    let call = backint::inquire_catalog(system, database, self.wish.parameters.as_deref());
                    let outcome = self.runner.run(&call)?;
                    let name = backint::catalog_name(system, database);
                    if !backint::has(outcome.code()?, &outcome.out, &name)? {
                        return Err(Error::Refused(format!("Backint has no backup catalog {name}")));
                    }
                }
                From::File => {
                    let default = system.instance().join("backup/log").display().to_string();
                    let base = self.wish.catalog.as_deref().unwrap_or(&default);
                    let outcome =
                        self.runner.run(&recovery::diagnose(system, &recovery::folder(base, database)))?;
                    match outcome.code()? {
                        0 => {}
                        1 => {
                            let last = outcome.out.lines().chain(outcome.err.lines()).rev();
                            let why = last.map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
                            return Err(Error::Refused(format!(
                                "hdbbackupdiag of {} in {base}: {}",
                                database.as_str(),
                                quoted(why)
                            )));
                        }
                        code => {
                            return Err(Error::Unclear(format!(
                                "hdbbackupdiag ended with {code}, which is not documented"
                            )));
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn needed(&self, database: &Database) -> Result<Needed, Error> {
        let system = self.runner.system();
        let complete = catalog::complete(system, &self.wish.key, database);
        let complete = catalog::read_entries(&self.runner.rows(&complete, &ENTRIES)?)?;
        let data = first(&complete, self.wish.to).ok_or_else(|| {
            Error::Refused(format!(
                "{} has no complete backup that ended before {}: choose a later instant",
                database.as_str(),
                self.wish.to
            ))
        })?;
        self.held().needed(data, self.wish.to)
    }

    fn held(&self) -> Parts<'_> {
        Parts::new(self.runner, &self.wish.key)
    }

    /// Has the depot thaw what is cold; what cannot be read yet.
    fn thaw(&self, config: &str, database: &Database, parts: &[Part]) -> Result<Vec<String>, Error> {
        let system = self.runner.system();
        let mut cold = Vec::new();
        for part in parts {
            let Place::Backint { name, id } = &part.place else { continue };
            if !self.is_readable(&depot::thaw(system, config, database, name, id)?)? {
                cold.push(name.clone());
            }
        }
        Ok(cold)
    }

    /// What this run has noted; nothing at first.
    ///
    /// # Errors
    /// When it was begun with another instant: half of the databases would be of one time, half of another.
    fn noted(&self) -> Result<Noted, Error> {
        let to = self.wish.to.to_string();
        match self.note.read::<Noted>()? {
            None => Ok(Noted { to, databases: Databases::new() }),
            Some(noted) if noted.to == to => Ok(noted),
            Some(noted) => Err(Error::Refused(format!(
                "this run restores to {}: repeat it with that instant, or say another --run",
                noted.to
            ))),
        }
    }

    /// Restores what is not restored yet.
    pub fn restore(&self) -> Result<Option<Reached>, Error> {
        let mut note = self.noted()?;
        if note.databases.is_empty() {
            self.check()?;
            // Of a system that is half restored nothing can be asked: what is meant is noted first.
            let databases = match (self.wish.lost, self.wish.databases.as_slice()) {
                (true, []) => vec![Database::system()],
                (true, named) => named.to_vec(),
                (false, _) => self.meant(&self.known()?)?,
            };
            let stopping =
                databases.into_iter().map(|database| (database.as_str().to_owned(), Progress::Stopping));
            note.databases.extend(stopping);
            self.note.write(&note)?;
        }
        let mut reached = None;
        while let Some(database) = next(&note.databases)? {
            let done = note.databases.values().filter(|progress| **progress == Progress::Done).count();
            report::progress(done * 100 / note.databases.len(), &format!("restoring {}", database.as_str()))?;
            let progress = note.databases.get(database.as_str()).copied().unwrap_or(Progress::Stopping);
            // The client of a run that was killed goes on by itself.
            change::wait_alone(self.runner, "a recovery", check::recoveries_at_work)?;
            if progress == Progress::Stopping || !self.is_up(&database)? {
                self.stop(&database)?;
                note.databases.insert(database.as_str().to_owned(), Progress::Recovering);
                self.note.write(&note)?;
                reached = self.recover(&database)?.or(reached);
            }
            // The tenants of a system whose data was lost are those that its SYSTEMDB knows again.
            if self.wish.lost && self.wish.databases.is_empty() && database.is_system() {
                for (tenant, _) in self.known()? {
                    note.databases.entry(tenant.as_str().to_owned()).or_insert(Progress::Stopping);
                }
            }
            note.databases.insert(database.as_str().to_owned(), Progress::Done);
            self.note.write(&note)?;
        }
        self.verify(&note.databases)?;
        Ok(reached)
    }

    /// Whether a database runs that this restore had stopped: only its recovery starts it again.
    fn is_up(&self, database: &Database) -> Result<bool, Error> {
        if database.is_system() {
            return Ok(matches!(self.state()?, sapcontrol::State::Running(_)));
        }
        let known = self.known()?;
        Ok(known.iter().any(|(known, active)| known == database && *active))
    }

    fn state(&self) -> Result<sapcontrol::State, Error> {
        let outcome = self.runner.run(&sapcontrol::process_list(self.runner.system()))?;
        Ok(sapcontrol::state(outcome.code()?.into(), &outcome.out)?)
    }

    fn stop(&self, database: &Database) -> Result<(), Error> {
        if !database.is_system() {
            if self.is_up(database)? {
                hdbsql::check(&self.runner.run(&recovery::stop(
                    self.runner.system(),
                    &self.wish.key,
                    database,
                ))?)?;
            }
            return Ok(());
        }
        if self.state()? == sapcontrol::State::Stopped {
            return Ok(());
        }
        let outcome = self.runner.run(&sapcontrol::stop(self.runner.system()))?;
        match sapcontrol::waited(outcome.code()?.into(), &outcome.out)? {
            true => Ok(()),
            false => Err(Error::Tool("the system did not stop in time; nothing was restored".to_owned())),
        }
    }

    fn recover(&self, database: &Database) -> Result<Option<Reached>, Error> {
        let Wish { key, to, from, timeout, catalog, .. } = self.wish;
        let system = self.runner.system();
        let sql = recovery::sql(database, *to, *from, catalog.as_deref());
        if database.is_system() {
            let outcome = self.runner.run(&scripts::recover_system(system, &sql, *timeout))?;
            return match outcome.end {
                End::Code(0) => {
                    self.wait_up(database, START)?;
                    Ok(scripts::reached(&outcome.out))
                }
                End::Code(_) => Err(Error::Tool(format!(
                    "SYSTEMDB was not recovered: {}; read backup.log, then repeat",
                    quoted(scripts::recovery_failure(&outcome.out))
                ))),
                end => Err(Error::Unclear(format!("recoverSys.py: {end}; read backup.log"))),
            };
        }
        let outcome = self.runner.run(&recovery::tenant(system, key, sql, *timeout))?;
        match hdbsql::check(&outcome) {
            Ok(()) => self.wait_up(database, START)?,
            // It may go on in the database; a recovery that succeeds starts the tenant.
            Err(why) if matches!(why, Error::Unclear(_)) || hdbsql::is_connection_error(&outcome) => {
                self.wait_up(database, *timeout)
                    .map_err(|error| Error::Unclear(format!("{why}; {error}")))?;
            }
            Err(error) => return Err(error),
        }
        Ok(None)
    }

    fn wait_up(&self, database: &Database, patience: Duration) -> Result<(), Error> {
        let begun = Instant::now();
        loop {
            let up = self.is_up(database);
            self.runner.stopped()?;
            match up {
                Ok(true) => return Ok(()),
                Ok(false) | Err(_) if begun.elapsed() < patience => thread::sleep(LOOK),
                Ok(false) => return Err(Error::Unclear(format!("{} does not run", database.as_str()))),
                Err(error) => return Err(error),
            }
        }
    }

    fn verify(&self, note: &Databases) -> Result<(), Error> {
        let known = self.known()?;
        let down =
            note.keys().find(|name| !known.iter().any(|(known, active)| known.as_str() == **name && *active));
        match down {
            None => Ok(()),
            Some(name) => Err(Error::Tool(format!("{name} was recovered, and is not active"))),
        }
    }

    /// Whether this run has restored everything.
    pub fn done(&self) -> Result<(), Error> {
        let note = self.noted()?.databases;
        if note.is_empty() || note.values().any(|progress| *progress != Progress::Done) {
            return Err(Error::No("this run has not restored everything".to_owned()));
        }
        self.verify(&note)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parts::tests::{at, entry};

    #[test]
    fn a_recovery_begins_with_the_newest_backup_before_the_instant() {
        use Kind::{Complete, Incremental};
        use State::{Failed, Successful};
        let all = [
            entry(0, Complete, Successful),
            entry(10, Complete, Successful),
            entry(11, Complete, Failed),
            entry(12, Incremental, Successful),
            entry(20, Complete, Successful),
        ];
        for (to, wanted) in
            [(-1, None), (0, None), (1, Some(0)), (10, Some(0)), (15, Some(10)), (99, Some(20))]
        {
            assert_eq!(first(&all, at(to)).map(|entry| entry.begun), wanted.map(at), "{to}");
        }
        let open = Entry { ended: None, ..entry(0, Complete, Successful) };
        assert_eq!(first(&[open], at(9)), None);
    }

    #[test]
    fn systemdb_comes_before_its_tenants() {
        let of = |done: &[&str]| {
            let progress =
                |name: &str| if done.contains(&name) { Progress::Done } else { Progress::Recovering };
            let note = ["ABC", "SYSTEMDB", "XYZ"].map(|name| (name.to_owned(), progress(name)));
            next(&note.into()).unwrap().map(|database| database.as_str().to_owned())
        };
        assert_eq!(of(&[]).as_deref(), Some("SYSTEMDB"));
        assert_eq!(of(&["SYSTEMDB"]).as_deref(), Some("ABC"));
        assert_eq!(of(&["SYSTEMDB", "ABC"]).as_deref(), Some("XYZ"));
        assert_eq!(of(&["SYSTEMDB", "ABC", "XYZ"]), None);
        assert!(next(&[("a b".to_owned(), Progress::Stopping)].into()).is_err());
    }
}
