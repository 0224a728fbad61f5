//! `explain`: the command lines that a task would use here, as a shell would take them, with secrets as names.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use crate::backup::{self, Run, To, What};
use crate::call::Call;
use crate::neighbours::catalog::Database;
use crate::neighbours::hdblcm::{Choices, Part};
use crate::neighbours::hdbsql::Key;
use crate::neighbours::media::Media;
use crate::neighbours::{catalog, hdblcm, host, nsutil, sapcontrol, scripts};
use crate::system::{System, Version};

/// What can be explained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Task {
    /// What `hostler-hana check` starts
    Check,
    /// What `hostler-hana fact` starts
    Fact,
    /// The installation that `hostler-hana install` starts, from media in /media/hana
    Install,
    /// All parts of the update that `hostler-hana update` starts, from media in /media/hana
    Update,
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
        Task::Install => installations(system),
        Task::Update => [Part::Prepare, Part::Finish { start: true }, Part::Finish { start: false }]
            .map(|part| hdblcm::update(system, &Media::current(Path::new(MEDIA)), part))
            .to_vec(),
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

const MEDIA: &str = "/media/hana";

/// An installation with nothing chosen, and one with everything chosen from the version on that needs LSS.
fn installations(system: &System) -> Vec<Call> {
    let (Ok(before), Ok(since)) =
        ("2.00.079.00".parse::<Version>(), hdblcm::OPTIMIZED_FROM.parse::<Version>())
    else {
        return Vec::new();
    };
    let choices = Choices {
        components: Some("server,client,afl".to_owned()),
        data: Some(format!("/hana/data/{}", system.sid)),
        log: Some(format!("/hana/log/{}", system.sid)),
        hostname: Some("HOSTNAME".to_owned()),
        usage: Some("production".to_owned()),
        uid: Some(1001),
        gid: Some(79),
    };
    let media = Media::current(Path::new(MEDIA));
    vec![
        hdblcm::install(system, &media, &before, &Choices::default()),
        hdblcm::install(system, &media, &since, &choices),
    ]
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
