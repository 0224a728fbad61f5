//! `explain`: the command lines that a task would use here, as a shell would take them, with secrets as names.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use crate::backup::{self, Run, To, What};
use crate::call::Call;
use crate::configure::{self, Parameter};
use crate::neighbours::catalog::Database;
use crate::neighbours::diagnosis::Matter;
use crate::neighbours::hdblcm::{Choices, Part};
use crate::neighbours::hdbsql::Key;
use crate::neighbours::media::Media;
use crate::neighbours::nsutil::Mode;
use crate::neighbours::recovery::From;
use crate::neighbours::{
    backint, catalog, depot, diagnosis, hdblcm, host, nsutil, recovery, sapcar, sapcontrol, scripts,
    userstore,
};
use crate::system::{System, Version};
use crate::{downtime, drill, replicate, rotate, setup};

/// What can be explained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Task {
    /// What `hostler-hana check` starts
    Check,
    /// What `hostler-hana fact` starts
    Fact,
    /// What `hostler-hana media`, `install`, `key` and `configure` start, from media in /media/hana
    Install,
    /// All parts of the update that `hostler-hana update` starts, from media in /media/hana
    Update,
    /// What `hostler-hana backup` starts, for SYSTEMDB and a tenant
    Backup,
    /// What `hostler-hana backup-setup` starts, and what takes it back
    BackupSetup,
    /// What `hostler-hana restore` starts, for SYSTEMDB and a tenant, from Backint and from files
    Restore,
    /// What `hostler-hana drill` starts, from Backint and from files
    Drill,
    /// What `hostler-hana housekeeping` starts, for SYSTEMDB and a tenant
    Housekeeping,
    /// What `hostler-hana enable`, `takeover` and `register` start, in every form
    Replication,
    /// What `hostler-hana key` and `rotate` start
    Rotate,
}

/// The calls of a task, in their order.
pub fn calls(task: Task, system: &System, key: &Key, hostname: &str, since: Timestamp) -> Vec<Call> {
    let state = [sapcontrol::process_list(system), nsutil::state_call(system)];
    let databases = [catalog::databases(system, key), catalog::entries(system, key, since, since)];
    match task {
        Task::Fact => {
            state.into_iter().chain([scripts::replication_status(system)]).chain(databases).collect()
        }
        Task::Install => installations(system, key),
        Task::Update => std::iter::once(extraction())
            .chain(proofs(system, key))
            .chain(served(system, key))
            .chain(
                [Part::Prepare, Part::Finish { start: true }, Part::Finish { start: false }]
                    .map(|part| hdblcm::update(system, &Media::current(Path::new(MEDIA)), part)),
            )
            .collect(),
        Task::Backup => backups(system, key, since),
        Task::BackupSetup => setups(system, key, since),
        Task::Restore => restores(system, key, since),
        Task::Drill => drills(system, key, since),
        Task::Housekeeping => housekeeping(system, key, since),
        Task::Replication => replication(system, key, hostname),
        Task::Rotate => rotation(system, key),
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
        .chain(proofs(system, key))
        .collect(),
    }
}

const MEDIA: &str = "/media/hana";

/// What proves that a backup can be restored, before an update and a takeover.
fn proofs(system: &System, key: &Key) -> Vec<Call> {
    let mut calls = Vec::new();
    let wanted = [("EBID".to_owned(), format!("/usr/sap/{}/SYS/global/hdb/backint/NAME", system.sid))];
    for database in [Some(Database::system()), tenant(system)].iter().flatten() {
        calls.push(catalog::since(system, key, database, 0));
        calls.push(catalog::pieces(system, key, database, 0));
        calls.push(catalog::parameter(system, key, "backup", "data_backup_parameter_file"));
        calls.push(backint::inquire(system, database, Some("PARAMETER_FILE"), &wanted));
    }
    let file = format!("{}/backup/data/FILE", system.instance().display());
    calls.push(recovery::check_file(system, &file, Duration::from_secs(12 * 3600)));
    calls
}

/// What is asked every 200 ms while an update or a takeover goes on.
fn served(system: &System, key: &Key) -> Vec<Call> {
    let tenant = tenant(system);
    [Some(Database::system()), tenant].iter().flatten().map(|of| downtime::ask(system, key, of)).collect()
}

/// An installation with nothing chosen, and one with everything chosen from the version on that needs LSS.
fn installations(system: &System, key: &Key) -> Vec<Call> {
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
    let mut calls = vec![
        extraction(),
        hdblcm::install(system, &media, &before, &Choices::default()),
        hdblcm::install(system, &media, &since, &choices),
        hdblcm::uninstall(system),
    ];
    calls.extend(configuration(system, key));
    calls
}

/// The extraction of an archive of SAP.
fn extraction() -> Call {
    let into = format!("{MEDIA}.hostler-new");
    sapcar::extract(Path::new(sapcar::PROGRAM), Path::new("/media/ARCHIVE.SAR"), Path::new(&into))
}

/// What follows an installation, before the first backup.
fn configuration(system: &System, key: &Key) -> Vec<Call> {
    let Some(tenant) = tenant(system) else { return Vec::new() };
    let (Ok(parameter), Ok(own)) =
        ("global.ini/persistence/log_mode=normal".parse::<Parameter>(), configure::key_of(&tenant))
    else {
        return Vec::new();
    };
    let Parameter { file, section, name, .. } = &parameter;
    let place = format!("localhost:{}", system.number.systemdb_port());
    vec![
        userstore::set(system, key, &place, "SYSTEM", "system_password"),
        catalog::identity(system, key),
        catalog::parameter_of(system, key, file, section, name),
        configure::set(system, key, &parameter),
        catalog::databases(system, key),
        configure::create(system, key, &tenant),
        configure::start(system, key, &tenant),
        userstore::list(system, &own),
        rotate::log_on(system, &own),
        userstore::set(system, &own, &configure::place_of(system, &tenant), "SYSTEM", "system_password"),
        catalog::identity(system, &own),
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
                let request = backup::Request { database: &database, what, to, run: &run, now };
                calls.push(backup::backup(system, key, request).within(timeout));
            }
        }
        calls.push(catalog::parts(system, key, &database, 0));
        let wanted = [("EBID".to_owned(), format!("/usr/sap/{}/SYS/global/hdb/backint/NAME", system.sid))];
        calls.push(catalog::parameter(system, key, "backup", "data_backup_parameter_file"));
        calls.push(backint::inquire(system, &database, Some("PARAMETER_FILE"), &wanted));
        let names = wanted.iter().filter_map(|(id, name)| depot::name(system, &database, name, id).ok());
        let names: Vec<_> = names.collect();
        calls.push(depot::verify("PARAMETER_FILE", 5, &names));
        let file = format!("{}/backup/data/FILE", system.instance().display());
        calls.push(recovery::check_file(system, &file, Duration::from_secs(20 * 3600)));
    }
    calls
}

/// A set-up with everything chosen, the backup that proves it and its inquiry.
fn setups(system: &System, key: &Key, now: Timestamp) -> Vec<Call> {
    let Ok(run) = "RUN".parse::<Run>() else { return Vec::new() };
    let config = "/etc/hostler/depot.yml".to_owned();
    let mut calls =
        setup::calls(system, &setup::Wish { key: key.clone(), config: config.clone(), channels: Some(2) });
    let database = Database::system();
    let request =
        backup::Request { database: &database, what: What::Complete, to: To::Backint, run: &run, now };
    calls.push(backup::backup(system, key, request).within(Duration::from_secs(2 * 3600)));
    calls.push(catalog::parts(system, key, &database, 0));
    let wanted = [("EBID".to_owned(), format!("/usr/sap/{}/SYS/global/hdb/backint/NAME", system.sid))];
    calls.push(backint::inquire(system, &database, Some(&config), &wanted));
    calls
}

/// A tenant with the name of its system; the databases of a real one are its own.
fn tenant(system: &System) -> Option<Database> {
    system.sid.as_str().parse().ok()
}

/// How long a recovery may take, unless it is said.
const RECOVERY: Duration = Duration::from_secs(48 * 3600);

fn restores(system: &System, key: &Key, to: Timestamp) -> Vec<Call> {
    let Some(tenant) = tenant(system) else { return Vec::new() };
    let mut calls = vec![catalog::databases(system, key)];
    let wanted = [("EBID".to_owned(), format!("/usr/sap/{}/SYS/global/hdb/backint/NAME", system.sid))];
    for database in [&Database::system(), &tenant] {
        calls.push(catalog::complete(system, key, database));
        calls.push(catalog::since(system, key, database, 0));
        calls.push(catalog::pieces(system, key, database, 0));
        calls.push(catalog::parameter(system, key, "backup", "data_backup_parameter_file"));
        calls.push(backint::inquire(system, database, Some("PARAMETER_FILE"), &wanted));
        for (id, name) in &wanted {
            calls.extend(depot::thaw(system, "/etc/hostler/depot.yml", database, name, id).ok());
        }
    }
    calls.extend([sapcontrol::process_list(system), sapcontrol::stop(system)]);
    let forms = [(From::Backint, None), (From::File, None), (From::File, Some("/CATALOG"))];
    for (from, catalog) in forms {
        let sql = recovery::sql(&Database::system(), to, from, catalog);
        calls.push(scripts::recover_system(system, &sql, RECOVERY));
    }
    calls.push(recovery::stop(system, key, &tenant));
    for (from, catalog) in forms {
        calls.push(recovery::tenant(system, key, recovery::sql(&tenant, to, from, catalog), RECOVERY));
    }
    calls.push(depot::list("/etc/hostler/depot.yml"));
    for database in [&Database::system(), &tenant] {
        calls.push(backint::inquire_catalog(system, database, Some("PARAMETER_FILE")));
        calls.push(recovery::diagnose(system, &recovery::folder("/CATALOG", database)));
    }
    calls
}

fn drills(system: &System, key: &Key, to: Timestamp) -> Vec<Call> {
    let (Some(tenant), Ok(scratch), Ok(table), Ok(statement)) = (
        tenant(system),
        drill::SCRATCH.parse::<Database>(),
        "TABLE".parse(),
        "SELECT COUNT(*) FROM TABLE".parse::<drill::Statement>(),
    ) else {
        return Vec::new();
    };
    vec![
        catalog::databases(system, key),
        catalog::complete(system, key, &tenant),
        drill::create(system, key),
        recovery::stop(system, key, &scratch),
        recovery::copy(system, key, (&tenant, &system.sid), &scratch, to).within(RECOVERY),
        catalog::pieces(system, key, &tenant, 0),
        recovery::copy_file(system, key, &scratch, "PREFIX", RECOVERY),
        drill::count(system, key, &table),
        drill::ask(system, key, &statement),
        depot::list("/etc/hostler/depot.yml"),
        recovery::drop(system, key, &scratch),
    ]
}

fn housekeeping(system: &System, key: &Key, until: Timestamp) -> Vec<Call> {
    let Some(tenant) = tenant(system) else { return Vec::new() };
    let mut calls = vec![nsutil::state_call(system), catalog::databases(system, key)];
    for database in [&Database::system(), &tenant] {
        calls.push(catalog::complete(system, key, database));
        calls.push(catalog::before(system, key, database, 0));
        calls.push(catalog::delete_before(system, key, database, 0, Duration::from_secs(6 * 3600)));
        for matter in Matter::ALL {
            calls.push(diagnosis::left(system, key, database, matter, until));
            calls.push(diagnosis::clear(system, key, database, matter, until));
        }
    }
    calls
}

fn replication(system: &System, key: &Key, hostname: &str) -> Vec<Call> {
    let Ok(site) = "SITE".parse::<nsutil::Site>() else { return Vec::new() };
    let mut calls = vec![
        nsutil::state_call(system),
        nsutil::enable(system, &site),
        scripts::replication_status(system),
        catalog::identity(system, key),
        catalog::secondaries(system, key),
        nsutil::takeover(system, true),
        nsutil::takeover(system, false),
        replicate::move_address(system.sid.as_str(), hostname),
        sapcontrol::process_list(system),
        sapcontrol::stop(system),
    ];
    calls.extend(proofs(system, key));
    for mode in [Mode::Sync, Mode::Syncmem, Mode::Async] {
        calls.push(nsutil::register(system, &site, "PRIMARY", mode));
    }
    calls.push(sapcontrol::start(system));
    calls.push(catalog::databases(system, key));
    calls.extend(served(system, key));
    calls
}

fn rotation(system: &System, key: &Key) -> Vec<Call> {
    let (Ok(user), Ok(scratch)) = ("DBUSER".parse::<rotate::DbUser>(), rotate::scratch()) else {
        return Vec::new();
    };
    let place = format!("localhost:{}", system.number.systemdb_port());
    vec![
        userstore::set(system, key, &place, "SYSTEM", "system_password"),
        catalog::identity(system, key),
        userstore::list(system, key),
        userstore::set(system, &scratch, &place, user.as_str(), rotate::SECRET),
        rotate::log_on(system, &scratch),
        userstore::delete(system, &scratch),
        rotate::set_password(system, key, &user),
        userstore::set(system, key, &place, user.as_str(), rotate::SECRET),
        rotate::log_on(system, key),
    ]
}

/// The calls as text.
pub fn text(system: &System, calls: &[Call]) -> String {
    let adm = system.adm();
    let shown: Vec<_> = calls.iter().map(|call| call.to_string().replace("<sid>adm", &adm)).collect();
    shown.join("\n\n")
}
