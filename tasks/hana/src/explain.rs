//! `explain`: the command lines that a task would use here, as a shell would take them, with secrets as names.

use std::time::Duration;

use jiff::Timestamp;

use crate::backup::{self, Run, To, What};
use crate::call::Call;
use crate::neighbours::catalog::Database;
use crate::neighbours::hdbsql::Key;
use crate::neighbours::{catalog, hdblcm, host, nsutil, sapcontrol, scripts};
use crate::system::System;

/// What can be explained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Task {
    /// What `hostler-hana check` starts
    Check,
    /// What `hostler-hana fact` starts
    Fact,
    /// What `hostler-hana backup` starts, for SYSTEMDB and a tenant
    Backup,
}

/// The calls of a task, in their order.
pub fn calls(task: Task, system: &System, key: &Key, hostname: &str, since: Timestamp) -> Vec<Call> {
    let state = [sapcontrol::process_list(system), nsutil::state_call(system)];
    let databases = [catalog::databases(system, key), catalog::entries(system, key, since, since)];
    match task {
        Task::Fact => {
            state.into_iter().chain([scripts::replication_status(system)]).chain(databases).collect()
        }
        Task::Backup => backups(system, key, since),
        Task::Check => [
            host::clock_call(),
            host::resolve_call(hostname),
            host::instances_call(),
            hdblcm::list_systems(system),
        ]
        .into_iter()
        .chain(state)
        .chain([scripts::replication_status(system), scripts::landscape(system)])
        .chain(databases)
        .chain([catalog::license(system, key)])
        .collect(),
    }
}

/// All kinds of backups; the run's id and the database of a real one are its own.
fn backups(system: &System, key: &Key, now: Timestamp) -> Vec<Call> {
    let (Ok(run), Ok(tenant)) = ("RUN".parse::<Run>(), system.sid.as_str().parse::<Database>()) else {
        return Vec::new();
    };
    let mut calls = vec![catalog::databases(system, key), catalog::entries(system, key, now, now)];
    for database in [Database::system(), tenant] {
        calls.push(catalog::commented(system, key, &database, &run.comment()));
        for what in [What::Complete, What::Incremental, What::Differential] {
            for to in [To::Backint, To::File] {
                let timeout = Duration::from_secs(20 * 3600);
                calls.push(backup::backup(system, key, (&database, what, to), (&run, now), timeout));
            }
        }
        calls.push(catalog::parts(system, key, &database, 0));
    }
    calls
}

/// The calls as text.
pub fn text(system: &System, calls: &[Call]) -> String {
    let adm = system.adm();
    let shown: Vec<_> = calls.iter().map(|call| call.to_string().replace("<sid>adm", &adm)).collect();
    shown.join("\n\n")
}
