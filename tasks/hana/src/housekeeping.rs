//! `housekeeping`: deletes backups that are too old, with their logs, from the catalog and from where they are.
//!
//! What is kept begins with a complete data backup, so nothing that a kept backup needs goes: a delta backup is never
//! older than the complete one that it builds on, and the logs before a data backup serve only older ones.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use crate::error::Error;
use crate::neighbours::catalog::{self, DATABASES, Database, ENTRIES, Entry, Kind, State};
use crate::neighbours::hdbsql::{self, Key};
use crate::neighbours::nsutil::{self, Role};
use crate::runner::Runner;

/// What is kept.
#[derive(Clone, Debug)]
pub struct Rule {
    /// At least so many complete backups of each database.
    pub keep: usize,
    /// All instants of so long a time.
    pub window: Duration,
}

/// What happens to one database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// Whose backups.
    pub database: Database,
    /// The oldest backup that is kept: everything before it goes.
    pub oldest: u64,
    /// How many entries of the catalog go.
    pub entries: usize,
}

/// The complete backup before which everything goes; `None`: everything is kept. Pure.
///
/// An instant within the window needs the newest complete backup before it, so the one that holds the window's
/// beginning stays as well.
pub fn oldest(complete: &[Entry], rule: &Rule, now: Timestamp) -> Option<u64> {
    let good = |entry: &&Entry| entry.kind == Kind::Complete && entry.state == State::Successful;
    let mut ids: Vec<_> = complete.iter().filter(good).map(|entry| (entry.id, entry.ended)).collect();
    ids.sort_unstable_by_key(|(id, _)| std::cmp::Reverse(*id));
    let begins = now.checked_sub(rule.window).unwrap_or(Timestamp::UNIX_EPOCH);
    let of_window = ids.iter().position(|(_, ended)| ended.is_some_and(|ended| ended <= begins))?;
    let of_count = rule.keep.max(1) - 1;
    ids.get(of_window.max(of_count)).map(|(id, _)| *id)
}

/// Housekeeping of one system.
pub struct Housekeeping<'a> {
    runner: &'a Runner,
    key: &'a Key,
    rule: &'a Rule,
}

impl<'a> Housekeeping<'a> {
    /// By that rule.
    pub fn new(runner: &'a Runner, key: &'a Key, rule: &'a Rule) -> Self {
        Self { runner, key, rule }
    }

    /// What would go.
    ///
    /// # Errors
    /// `Refused` on a secondary, which has no catalog of its own.
    pub fn plan(&self) -> Result<Vec<Plan>, Error> {
        let system = self.runner.system();
        let outcome = self.runner.run(&nsutil::state_call(system))?;
        let state = nsutil::state(outcome.code()?, &outcome.out)?;
        if matches!(state.role, Role::Secondary(_)) {
            return Err(Error::Refused("this system is a secondary: keep house on its primary".to_owned()));
        }
        let rows = |call, columns: &[&str]| hdbsql::rows(&self.runner.run(&call)?, columns);
        let known = catalog::read_databases(&rows(catalog::databases(system, self.key), &DATABASES)?)?;
        let mut plans = Vec::new();
        for (database, active) in known {
            if !active {
                continue;
            }
            let complete =
                catalog::read_entries(&rows(catalog::complete(system, self.key, &database), &ENTRIES)?)?;
            let Some(oldest) = oldest(&complete, self.rule, Timestamp::now()) else { continue };
            let counted = catalog::before(system, self.key, &database, oldest);
            let entries = catalog::read_count(&rows(counted, &catalog::COUNT)?)?;
            if entries > 0 {
                plans.push(Plan { database, oldest, entries });
            }
        }
        Ok(plans)
    }

    /// Carries out a plan, one database after another; a repetition goes on.
    pub fn carry_out(&self, plans: &[Plan], timeout: Duration) -> Result<(), Error> {
        for Plan { database, oldest, .. } in plans {
            let call = catalog::delete_before(self.runner.system(), self.key, database, *oldest, timeout);
            hdbsql::check(&self.runner.run(&call)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 24 * 3600;

    fn entry(day: i64, kind: Kind, state: State) -> Entry {
        let begun = Timestamp::from_second(1_800_000_000 + day * DAY).unwrap();
        let ended = Some(Timestamp::from_second(1_800_000_000 + day * DAY + 60).unwrap());
        let id = u64::try_from(day + 1000).unwrap();
        Entry { database: "HDB".parse().unwrap(), id, kind, state, begun, ended }
    }

    #[test]
    fn what_is_kept_begins_with_a_complete_backup() {
        use Kind::{Complete, Incremental};
        use State::{Failed, Successful};
        let daily: Vec<_> = (0..10).map(|day| entry(day, Complete, Successful)).collect();
        let now = Timestamp::from_second(1_800_000_000 + 9 * DAY + 3600).unwrap();
        let of = |all: &[Entry], keep, days: u64| {
            let rule = Rule { keep, window: Duration::from_secs(days * 24 * 3600) };
            oldest(all, &rule, now).map(|id| i64::try_from(id).unwrap() - 1000)
        };
        // The instant three days ago needs the backup before it.
        assert_eq!(of(&daily, 1, 3), Some(6));
        assert_eq!(of(&daily, 1, 0), Some(9));
        assert_eq!(of(&daily, 5, 0), Some(5), "at least five");
        assert_eq!(of(&daily, 10, 0), Some(0));
        assert_eq!(of(&daily, 11, 0), None, "there are not so many");
        assert_eq!(of(&daily, 0, 0), Some(9), "the newest always");
        assert_eq!(of(&daily, 1, 30), None, "all of it is within the window");
        assert_eq!(of(&[], 1, 0), None);
        // What failed, and what is no complete backup, counts for nothing.
        let odd =
            [entry(1, Complete, Successful), entry(2, Complete, Failed), entry(3, Incremental, Successful)];
        assert_eq!(of(&odd, 1, 0), Some(1));
        assert_eq!(of(&odd, 2, 0), None);
    }
}
