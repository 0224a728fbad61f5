//! Whether the parts of backups are where the catalog says, and whether the log between them has a gap.
//!
//! The catalog knows what was written once, not what is left of it. Files are looked at on this host; Backint is asked
//! by its calling side; a part that nobody can name is "cannot tell".

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use jiff::Timestamp;

use crate::error::{Error, Reading, quoted, unclear};
use crate::neighbours::backint;
use crate::neighbours::catalog::{
    self, Database, ENTRIES, Entry, Kind, PARAMETER, PIECES, Part, Place, State,
};
use crate::neighbours::hdbsql::Key;
use crate::neighbours::recovery;
use crate::runner::Runner;

/// What is needed of one database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needed {
    /// The data backup that the recovery begins with.
    pub data: Entry,
    /// The ids of the backups whose parts must be there: the data backup and the logs after it.
    pub backups: Vec<u64>,
}

/// What a recovery to the instant reads, from all entries since that data backup. Pure.
///
/// # Errors
/// Why it is not possible: the database itself says that a part of its log is missing.
pub fn needed(data: &Entry, since: &[Entry], to: Timestamp) -> Result<Needed, String> {
    let mut logs: Vec<_> =
        since.iter().filter(|entry| entry.database == data.database && entry.id > data.id).collect();
    logs.sort_by_key(|entry| entry.id);
    let mut backups = vec![data.id];
    for entry in logs {
        if entry.kind == Kind::LogMissing && entry.begun <= to {
            return Err(format!("the catalog says that log is missing at {}", entry.begun));
        }
        if entry.kind == Kind::Log && entry.state == State::Successful {
            backups.push(entry.id);
            // The log of the instant itself is in the first backup that began after it.
            if entry.begun > to {
                break;
            }
        }
    }
    Ok(Needed { data: data.clone(), backups })
}

/// Where the log has gaps, from the names of its backups: `log_backup_VOLUME_PARTITION_FIRST_LAST[.TIME]`. Pure.
///
/// Whether a backup begins with the last position of the one before it or behind that is not documented: both are
/// whole. Volume 0 is the catalog.
pub fn gaps<'a>(paths: impl IntoIterator<Item = &'a str>) -> Reading<Vec<String>> {
    let mut chains: BTreeMap<(u64, u64), Vec<(u64, u64)>> = BTreeMap::new();
    for path in paths {
        let name = path.rsplit('/').next().unwrap_or_default();
        let Some(rest) = name.strip_prefix("log_backup_") else { continue };
        let numbers: Option<Vec<u64>> =
            rest.split('.').next().unwrap_or_default().split('_').map(|part| part.parse().ok()).collect();
        match numbers.as_deref() {
            Some([0, ..]) => {}
            Some([volume, partition, first, last]) if first <= last => {
                chains.entry((*volume, *partition)).or_default().push((*first, *last));
            }
            _ => return unclear(format!("{} is no name of a log backup", quoted(name))),
        }
    }
    let mut gaps = Vec::new();
    for ((volume, _), mut chain) in chains {
        chain.sort_unstable();
        let mut reached = chain.first().map_or(0, |(_, last)| *last);
        for (first, last) in chain {
            if first > reached.saturating_add(1) {
                gaps.push(format!("the log of volume {volume} between the positions {reached} and {first}"));
            }
            reached = reached.max(last);
        }
    }
    Ok(gaps)
}

/// Where files of backups are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Files {
    /// On this host: their size is compared with the catalog's.
    Here,
    /// On this host, and the files of data are read by hdbbackupcheck; one may take as long.
    Read(Duration),
    /// On another host: nothing is known of them.
    Elsewhere,
}

/// Looks for parts.
pub struct Parts<'a> {
    runner: &'a Runner,
    /// Logs on to the SYSTEMDB that has the catalog.
    key: &'a Key,
}

impl<'a> Parts<'a> {
    /// Of the system behind the key.
    pub fn new(runner: &'a Runner, key: &'a Key) -> Self {
        Self { runner, key }
    }

    /// What a recovery from that data backup to the instant needs.
    pub fn needed(&self, data: &Entry, to: Timestamp) -> Result<Needed, Error> {
        let since = catalog::since(self.runner.system(), self.key, &data.database, data.id);
        let since = catalog::read_entries(&self.runner.rows(&since, &ENTRIES)?)?;
        needed(data, &since, to).map_err(|why| Error::Refused(format!("{}: {why}", data.database.as_str())))
    }

    /// The parts of those backups.
    pub fn of(&self, needed: &Needed) -> Result<Vec<Part>, Error> {
        let Needed { data, backups } = needed;
        let call = catalog::pieces(self.runner.system(), self.key, &data.database, data.id);
        let pieces = catalog::read_pieces(&self.runner.rows(&call, &PIECES)?)?;
        for id in backups {
            if !pieces.iter().any(|(of, _)| of == id) {
                return Err(Error::Unclear(format!("the catalog lists no part of the backup {id}")));
            }
        }
        Ok(pieces.into_iter().filter(|(id, _)| backups.contains(id)).map(|(_, part)| part).collect())
    }

    /// The parts that are not where the catalog says, by their names.
    pub fn missing(&self, database: &Database, parts: &[Part], files: Files) -> Result<Vec<String>, Error> {
        let system = self.runner.system();
        let mut missing = Vec::new();
        let mut wanted = Vec::new();
        for part in parts {
            match &part.place {
                Place::File(_) if files == Files::Elsewhere => {}
                Place::File(path) => {
                    let there = fs::metadata(system.at(path))
                        .map(|there| there.is_file() && there.len() == part.size);
                    if !there.unwrap_or(false) || !self.is_whole(path, files)? {
                        missing.push(path.clone());
                    }
                }
                Place::Backint { name, id } => wanted.push((id.clone(), name.clone())),
            }
        }
        missing.extend(self.not_in_backint(database, &wanted)?);
        Ok(missing)
    }

    /// Whether hdbbackupcheck takes a file of data; any other file is not read.
    fn is_whole(&self, path: &str, files: Files) -> Result<bool, Error> {
        match files {
            Files::Read(timeout) if path.contains("_databackup_") => {
                let outcome = self.runner.run(&recovery::check_file(self.runner.system(), path, timeout))?;
                Ok(recovery::is_whole(outcome.code()?)?)
            }
            _ => Ok(true),
        }
    }

    /// Which of these Backint does not have: ids and names.
    pub fn not_in_backint(
        &self,
        database: &Database,
        wanted: &[(String, String)],
    ) -> Result<Vec<String>, Error> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let parameters = self.parameters()?;
        let call = backint::inquire(self.runner.system(), database, parameters.as_deref(), wanted);
        let outcome = self.runner.run(&call)?;
        Ok(backint::missing(outcome.code()?, &outcome.out, wanted)?)
    }

    /// The parameter file that Backint is called with for data.
    pub fn parameters(&self) -> Result<Option<String>, Error> {
        let call = catalog::parameter(self.runner.system(), self.key, "backup", "data_backup_parameter_file");
        Ok(catalog::read_parameter(&self.runner.rows(&call, &PARAMETER)?)?)
    }

    /// What a recovery from that data backup to now lacks: parts, and positions of the log.
    pub fn lacks(&self, data: &Entry, now: Timestamp, files: Files) -> Result<Vec<String>, Error> {
        let needed = self.needed(data, now)?;
        let parts = self.of(&needed)?;
        let paths = parts.iter().map(|part| match &part.place {
            Place::File(path) => path.as_str(),
            Place::Backint { name, .. } => name.as_str(),
        });
        let mut lacks = gaps(paths)?;
        lacks.extend(self.missing(&data.database, &parts, files)?);
        Ok(lacks)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    #[test]
    fn a_gap_in_the_log_is_seen_in_the_names_of_its_backups() {
        let log =
            |first: u64, last: u64| format!("/backup/log/DB_HDB/log_backup_2_0_{first}_{last}.1415905765532");
        let other = "/b/log_backup_3_0_900_950".to_owned();
        let data = "/b/FULL_databackup_2_1".to_owned();
        let catalog = "/b/log_backup_0_0_0_0.17".to_owned();
        let of = |names: &[String]| gaps(names.iter().map(String::as_str));
        // Both ways of counting.
        assert_eq!(of(&[log(100, 200), log(200, 300), log(300, 300)]), Ok(vec![]));
        assert_eq!(of(&[log(100, 200), log(201, 300)]), Ok(vec![]));
        assert_eq!(of(&[log(201, 300), data.clone(), other, catalog, log(100, 200)]), Ok(vec![]));
        assert_eq!(of(&[log(100, 400), log(150, 200), log(400, 500)]), Ok(vec![]), "one within another");
        let gap = "the log of volume 2 between the positions 200 and 202".to_owned();
        assert_eq!(of(&[log(202, 300), log(100, 200)]), Ok(vec![gap]));
        assert_eq!(of(&[data]), Ok(vec![]));
        for odd in ["log_backup_2_0_100", "log_backup_2_0_200_100", "log_backup_2_0_1_x", "log_backup_"] {
            assert!(of(&[odd.to_owned()]).is_err(), "{odd}");
        }
    }

    /// An entry of the catalog, of the database HDB, so many hours behind a fixed instant.
    pub(crate) fn entry(hours: i64, kind: Kind, state: State) -> Entry {
        let begun = Timestamp::from_second(1_800_000_000 + hours * 3600).unwrap();
        let ended = Some(Timestamp::from_second(1_800_000_000 + hours * 3600 + 60).unwrap());
        let id = u64::try_from(begun.as_millisecond()).unwrap();
        Entry { database: "HDB".parse().unwrap(), id, kind, state, begun, ended }
    }

    /// The instant so many hours behind that one.
    pub(crate) fn at(hours: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + hours * 3600).unwrap()
    }

    #[test]
    fn it_reads_the_logs_up_to_the_first_behind_the_instant() {
        use Kind::{Complete, Log, LogMissing};
        use State::{Failed, Successful};
        let data = entry(0, Complete, Successful);
        let all = [
            entry(-1, Log, Successful),
            data.clone(),
            entry(1, Log, Successful),
            entry(2, Log, Failed),
            entry(3, Log, Successful),
            entry(4, Log, Successful),
            entry(5, Log, Successful),
        ];
        let ids = |to| needed(&data, &all, at(to)).unwrap().backups.len();
        assert_eq!((ids(0), ids(1), ids(3), ids(99)), (2, 3, 4, 5));
        let mut gap = all.to_vec();
        gap.push(entry(2, LogMissing, Successful));
        assert!(needed(&data, &gap, at(4)).is_err());
        assert!(needed(&data, &gap, at(1)).is_ok(), "it is missing behind the instant");
    }
}
