//! What a fact needs of a system, and `check` too: version, processes, replication, databases and backups. Read-only.

use jiff::Timestamp;

use super::Seen;
use super::gather::{Query, ask, rows};
use crate::neighbours::catalog::{self, DATABASES, Database, ENTRIES, Entry};
use crate::neighbours::hdbsql::Key;
use crate::neighbours::nsutil::{self, Role};
use crate::neighbours::scripts::Replication;
use crate::neighbours::{media, sapcontrol, scripts};
use crate::runner::Runner;
use crate::system::Version;

/// What was seen at a glance. `None`: it was not asked, because there is no system, or it has no such answer.
#[derive(Clone, Debug)]
pub struct Glance {
    /// The installed version; `None` inside: not installed.
    pub installed: Seen<Option<Version>>,
    /// The processes.
    pub processes: Option<Seen<sapcontrol::State>>,
    /// The part in a replication.
    pub replication: Option<Seen<nsutil::State>>,
    /// How far the secondaries are; asked on a primary only.
    pub secondaries: Option<Seen<Replication>>,
    /// The databases, and whether each is active.
    pub databases: Option<Seen<Vec<(Database, bool)>>>,
    /// The entries of the backup catalog.
    pub backups: Option<Seen<Vec<Entry>>>,
}

/// Whether there is a system to ask: what cannot be read may be there, and is asked.
pub(super) fn is_there(installed: &Seen<Option<Version>>) -> bool {
    !matches!(installed.value, Ok(None))
}

/// Whether it answers SQL: a secondary does not.
pub(super) fn answers(installed: &Seen<Option<Version>>, replication: Option<&Seen<nsutil::State>>) -> bool {
    is_there(installed) && !matches!(role(replication), Some(Role::Secondary(_)))
}

fn role(replication: Option<&Seen<nsutil::State>>) -> Option<&Role> {
    replication.and_then(|seen| seen.value.as_ref().ok()).map(|state| &state.role)
}

/// Asks the system; backups are those that began after `since`.
pub fn glance(runner: &Runner, key: &Key, since: Timestamp, now: Timestamp) -> Glance {
    let system = runner.system();
    let installed =
        Seen::new(&system.manifest().display().to_string(), media::version_at(&system.at(system.manifest())));
    let there = is_there(&installed);
    let replication = there.then(|| {
        ask(runner, &nsutil::state_call(system), |outcome| Ok(nsutil::state(outcome.code()?, &outcome.out)?))
    });
    let primary = role(replication.as_ref()) == Some(&Role::Primary);
    let answers = answers(&installed, replication.as_ref());
    Glance {
        processes: there.then(|| {
            ask(runner, &sapcontrol::process_list(system), |outcome| {
                Ok(sapcontrol::state(outcome.code()?.into(), &outcome.out)?)
            })
        }),
        databases: answers.then(|| {
            let call: Query = (catalog::databases(system, key), &DATABASES);
            rows(runner, &call, |rows| Ok(catalog::read_databases(rows)?))
        }),
        backups: answers.then(|| {
            let call: Query = (catalog::entries(system, key, since, now), &ENTRIES);
            rows(runner, &call, |rows| Ok(catalog::read_entries(rows)?))
        }),
        secondaries: primary.then(|| {
            ask(runner, &scripts::replication_status(system), |outcome| {
                Ok(scripts::replication(outcome.code()?, &outcome.out)?)
            })
        }),
        installed,
        replication,
    }
}
