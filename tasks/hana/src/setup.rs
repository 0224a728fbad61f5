//! `backup-setup`: Backint through `hostler-depot`, for data, logs and catalogs, proved by a backup of SYSTEMDB.
//!
//! What was set before is noted durably before anything is changed, so that a run can be taken back. A system with another
//! Backint agent keeps it. A value that somebody has changed since is theirs, and is left alone.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::backup::{self, Backups, Run, To, What};
use crate::call::Call;
use crate::error::Error;
use crate::neighbours::catalog::{self, Database, PARAMETER, PARTS, Place};
use crate::neighbours::hdbsql::{self, Key, literal};
use crate::neighbours::{backint, depot};
use crate::notes::Note;
use crate::runner::Runner;
use crate::system::System;

/// The depot, as its package installs it.
const DEPOT: &str = depot::PROGRAM;
const SECTION: &str = "backup";
/// Megabytes of a channel's share of the buffer. Source: SAP's rule of about 512 for each channel.
const BUFFER: u32 = 512;

/// What is set.
#[derive(Clone, Debug)]
pub struct Wish {
    /// The key that logs on to SYSTEMDB.
    pub key: Key,
    /// The depot's configuration, which Backint is called with.
    pub config: String,
    /// How many streams a data backup has; as it is when not said.
    pub channels: Option<u32>,
}

impl Wish {
    /// The parameters of global.ini, section `backup`.
    fn values(&self) -> Vec<(&'static str, String)> {
        let mut values = vec![
            ("data_backup_parameter_file", self.config.clone()),
            ("log_backup_parameter_file", self.config.clone()),
            ("catalog_backup_parameter_file", self.config.clone()),
            ("log_backup_using_backint", "true".to_owned()),
            ("catalog_backup_using_backint", "true".to_owned()),
        ];
        if let Some(channels) = self.channels {
            values.push(("parallel_data_backup_backint_channels", channels.to_string()));
            values.push(("data_backup_buffer_size", channels.saturating_mul(BUFFER).to_string()));
        }
        values
    }
}

/// What was there before a run, and what the run has set.
#[derive(Debug, Serialize, Deserialize)]
struct Former {
    /// By parameter: the former value, `None` where the default held, and the new one.
    values: BTreeMap<String, (Option<String>, String)>,
    /// Whether the run makes the link.
    links: bool,
}

/// Sets parameters of the whole system.
pub fn set(system: &System, key: &Key, values: &[(&str, String)]) -> Call {
    let one = |(name, value): &(&str, String)| {
        format!("({},{})={}", literal(SECTION), literal(name), literal(value))
    };
    let values: Vec<_> = values.iter().map(one).collect();
    change(system, key, &format!("SET {}", values.join(", ")))
}

/// Lets the defaults hold again.
pub fn unset(system: &System, key: &Key, names: &[&str]) -> Call {
    let names: Vec<_> =
        names.iter().map(|name| format!("({},{})", literal(SECTION), literal(name))).collect();
    change(system, key, &format!("UNSET {}", names.join(", ")))
}

fn change(system: &System, key: &Key, what: &str) -> Call {
    let sql = format!("ALTER SYSTEM ALTER CONFIGURATION ('global.ini','SYSTEM') {what} WITH RECONFIGURE");
    let source = "SAP HANA SQL and System Views Reference, ALTER SYSTEM ALTER CONFIGURATION";
    hdbsql::statement(system, key, "set how backups are made", source, sql)
}

/// The calls of a set-up and of its way back, for `explain`.
pub fn calls(system: &System, wish: &Wish) -> Vec<Call> {
    let values = wish.values();
    let names: Vec<_> = values.iter().map(|(name, _)| *name).collect();
    let read = names.iter().map(|name| catalog::parameter(system, &wish.key, SECTION, name));
    let changes = [set(system, &wish.key, &values), unset(system, &wish.key, &names)];
    read.chain(changes).collect()
}

/// The set-up of a system.
pub struct Setup<'a> {
    runner: &'a Runner,
    wish: &'a Wish,
}

impl<'a> Setup<'a> {
    /// The set-up of that wish.
    pub fn new(runner: &'a Runner, wish: &'a Wish) -> Self {
        Self { runner, wish }
    }

    fn value(&self, name: &str) -> Result<Option<String>, Error> {
        let call = catalog::parameter(self.runner.system(), &self.wish.key, SECTION, name);
        Ok(catalog::read_parameter(&self.runner.rows(&call, &PARAMETER)?)?)
    }

    fn link(&self) -> PathBuf {
        let system = self.runner.system();
        system.at(format!("/usr/sap/{}/SYS/global/hdb/opt/hdbbackint", system.sid))
    }

    /// Whether the link to the depot is there.
    ///
    /// # Errors
    /// When another agent stands in its place.
    fn is_linked(&self) -> Result<bool, Error> {
        let (link, depot) = (self.link(), self.runner.system().at(DEPOT));
        match fs::symlink_metadata(&link) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::local(link.display())(error)),
            Ok(there) if there.is_symlink() && fs::read_link(&link).is_ok_and(|to| to == depot) => Ok(true),
            Ok(_) => Err(Error::Refused(format!(
                "{} is another Backint agent: its backups cannot be restored by this one; take it away yourself",
                link.display()
            ))),
        }
    }

    /// Whether everything is set.
    pub fn holds(&self) -> Result<bool, Error> {
        match self.is_linked() {
            Ok(true) => {}
            Ok(false) | Err(Error::Refused(_)) => return Ok(false),
            Err(error) => return Err(error),
        }
        for (name, value) in self.wish.values() {
            if self.value(name)? != Some(value) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Sets it, and proves it by a backup of SYSTEMDB. A repetition of the same run goes on.
    pub fn carry_out(&self, run: &Run, timeout: Duration) -> Result<u64, Error> {
        let system = self.runner.system();
        for needed in [DEPOT, &self.wish.config] {
            let place = system.at(needed);
            if !place.is_file() {
                return Err(Error::Refused(format!("{} is not there", place.display())));
            }
        }
        let linked = self.is_linked()?;
        let note = Note::of(system, run, "backup-setup");
        let values = self.wish.values();
        if note.read::<Former>()?.is_none() {
            let mut former = Former { values: BTreeMap::new(), links: !linked };
            for (name, value) in &values {
                former.values.insert((*name).to_owned(), (self.value(name)?, value.clone()));
            }
            note.write(&former)?;
        }
        if !linked {
            let (link, depot) = (self.link(), system.at(DEPOT));
            make(&link, &depot).map_err(Error::local(link.display()))?;
        }
        hdbsql::check(&self.runner.run(&set(system, &self.wish.key, &values))?)?;
        self.prove(run, timeout)
    }

    /// A backup of SYSTEMDB, each part of which Backint has; its id.
    fn prove(&self, run: &Run, timeout: Duration) -> Result<u64, Error> {
        let (system, database) = (self.runner.system(), Database::system());
        let wish = backup::Wish {
            key: self.wish.key.clone(),
            databases: vec![database.clone()],
            what: What::Complete,
            to: To::Backint,
            run: run.clone(),
            timeout,
            sample: None,
            depot: None,
        };
        let made = Backups::new(self.runner, &wish).make()?;
        let Some(id) = made.first().map(|made| made.id) else {
            return Err(Error::Unclear("no backup of SYSTEMDB was made".to_owned()));
        };
        let parts = catalog::parts(system, &self.wish.key, &database, id);
        let parts = catalog::read_parts(&self.runner.rows(&parts, &PARTS)?)?;
        let wanted: Vec<_> = parts
            .iter()
            .filter_map(|part| match &part.place {
                Place::Backint { name, id } => Some((id.clone(), name.clone())),
                Place::File(_) => None,
            })
            .collect();
        if wanted.is_empty() || wanted.len() != parts.len() {
            return Err(Error::Unclear(format!("the backup {id} is not in Backint alone")));
        }
        let call = backint::inquire(system, &database, Some(&self.wish.config), &wanted);
        let outcome = self.runner.run(&call)?;
        match backint::missing(outcome.code()?, &outcome.out, &wanted)?.as_slice() {
            [] => Ok(id),
            missing => Err(Error::Tool(format!("Backint does not have {}", missing.join(", ")))),
        }
    }

    /// Takes back what this run has set; its backup stays. It may be repeated.
    pub fn undo(&self, run: &Run) -> Result<(), Error> {
        let system = self.runner.system();
        let note = Note::of(system, run, "backup-setup");
        let Some(former) = note.read::<Former>()? else { return Ok(()) };
        let (mut back, mut defaults) = (Vec::new(), Vec::new());
        for (name, (before, ours)) in &former.values {
            if self.value(name)?.as_ref() != Some(ours) {
                continue;
            }
            match before {
                Some(value) => back.push((name.as_str(), value.clone())),
                None => defaults.push(name.as_str()),
            }
        }
        if !back.is_empty() {
            hdbsql::check(&self.runner.run(&set(system, &self.wish.key, &back))?)?;
        }
        if !defaults.is_empty() {
            hdbsql::check(&self.runner.run(&unset(system, &self.wish.key, &defaults))?)?;
        }
        if former.links && matches!(self.is_linked(), Ok(true)) {
            let link = self.link();
            fs::remove_file(&link).map_err(Error::local(link.display()))?;
        }
        note.remove()
    }
}

/// Makes the link, durably.
fn make(link: &Path, to: &Path) -> io::Result<()> {
    let Some(folder) = link.parent() else { return Ok(()) };
    fs::create_dir_all(folder)?;
    symlink(to, link)?;
    File::open(folder)?.sync_all()
}
