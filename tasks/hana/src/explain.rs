//! `explain`: the command lines that a task would use here, as a shell would take them, with secrets as names.

use jiff::Timestamp;

use crate::call::Call;
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
}

/// The calls of a task, in their order.
pub fn calls(task: Task, system: &System, key: &Key, hostname: &str, since: Timestamp) -> Vec<Call> {
    let state = [sapcontrol::process_list(system), nsutil::state_call(system)];
    let databases = [catalog::databases(system, key), catalog::entries(system, key, since)];
    match task {
        Task::Fact => {
            state.into_iter().chain([scripts::replication_status(system)]).chain(databases).collect()
        }
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

/// The calls as text.
pub fn text(system: &System, calls: &[Call]) -> String {
    let adm = system.adm();
    let shown: Vec<_> = calls.iter().map(|call| call.to_string().replace("<sid>adm", &adm)).collect();
    shown.join("\n\n")
}
