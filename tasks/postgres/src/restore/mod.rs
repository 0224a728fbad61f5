//! A state of the past as a new cluster of this host.
//!
//! ```text
//!  choose    which backup, which timelines, is everything there: nothing is changed yet
//!  recover   unpacked, verified and recovered where nobody comes near: also what a drill does
//!  adopt     a cluster of the distribution, with the saved configuration
//! ```
//! It is made where nothing is, and never touches a cluster that it has not made: a file of intent is on the disk before
//! the first change, another one in the data when all is done, and [`undo`] removes only what the intent vouches for.
//! What takes the place of a cluster that exists is [`in_place`].

pub mod choose;
pub mod in_place;
pub mod recover;

use std::ffi::OsString;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::backup::record;
use crate::check;
use crate::crash::{CrashPoint, here};
use crate::depot::{Depot, Place};
use crate::durable;
use crate::error::Error;
use crate::exec::Owner;
use crate::layout::{self, Cluster, Site};
use crate::made::{Begun, Intent};
use crate::report;
use crate::server::{Bounds, Session};
use crate::wal;
use choose::{Chosen, Wish};
use recover::Scratch;

/// What is restored, and where to.
#[derive(Clone, Debug, clap::Args)]
pub struct Plan {
    /// Name of the new cluster
    #[arg(long, value_name = "NAME", value_parser = crate::upgrade::name)]
    cluster: String,
    /// Its port
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// Folder of its socket
    #[arg(long, value_name = "FOLDER", default_value = "/var/run/postgresql")]
    socket: PathBuf,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    wish: Wish,
}

/// A cluster that a restore has made or begun.
#[derive(Clone, Debug, clap::Args)]
pub struct Made {
    /// Name of the new cluster
    #[arg(long, value_name = "NAME", value_parser = crate::upgrade::name)]
    cluster: String,
}

/// Settings of the old cluster that a restored one must not have before somebody decides so, and what it has instead.
const QUIET: [(&str, &str); 6] = [
    ("archive_mode", "off"),
    ("max_logical_replication_workers", "0"),
    ("primary_conninfo", ""),
    ("primary_slot_name", ""),
    ("synchronous_standby_names", ""),
    ("restore_command", ""),
];

/// Settings that are the old cluster's business only: its folder of statistics, and recoveries that it has had.
const OTHERS: [&str; 9] = [
    "recovery_target",
    "recovery_target_action",
    "recovery_target_inclusive",
    "recovery_target_lsn",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_timeline",
    "recovery_target_xid",
    "stats_temp_directory",
];

fn intent(name: &str) -> Intent {
    Intent::new("restore", name)
}

fn scratch(version: u16, name: &str, owner: Owner) -> Scratch {
    let data = layout::data(version, name);
    let work = data.with_file_name(format!("{name}.restore"));
    Scratch { data, work, owner, version }
}

/// Makes the cluster.
///
/// # Errors
/// If the state cannot be restored, something is where the cluster would be, or a part fails: then [`undo`] clears away.
pub async fn run(plan: &Plan) -> Result<(), Error> {
    let name = &plan.cluster;
    intent(name).unbegun()?;
    let owner = layout::administrator()?;
    let depot = Depot::new(&plan.place, owner);
    let owner = owner.unwrap_or_else(Owner::own);
    let chosen = choose::choose(&depot, &plan.wish, Timestamp::now()).await?;
    let version = chosen.backup.version();
    let scratch = scratch(version, name, owner);
    free_place(plan, &scratch, &chosen).await?;
    no_shared_tablespaces(chosen.backup.system).await?;
    for note in &chosen.notes {
        report::message(note);
    }
    let begun = intent(name).begin(version)?;
    here(CrashPoint::RestoreIntended);
    if let Some(parent) = scratch.data.parent().filter(|parent| !parent.exists()) {
        fs::create_dir_all(parent).map_err(Error::local(parent.display()))?;
        owner.give(parent)?;
    }
    report::progress(5, &format!("reading the backup {}", chosen.backup.record.stamp));
    scratch.unpack(&depot, &chosen.chain).await?;
    here(CrashPoint::Unpacked);
    report::progress(60, "replaying the WAL");
    let mut served = scratch.start(&depot, &chosen, &[]).await?;
    here(CrashPoint::Recovering);
    let evidence = scratch.recovered(&mut served, &chosen).await?;
    scratch.stop(&mut served, "fast").await?;
    here(CrashPoint::Recovered);
    report::progress(95, "making it a cluster of this host");
    let cluster = adopt(plan, &depot, &chosen, &scratch).await?;
    here(CrashPoint::Adopted);
    layout::start(&cluster).await?;
    let session = Session::open(&cluster, "postgres", Bounds::LOOK).await?;
    if session.holds("select pg_is_in_recovery()").await? {
        return Err(Error::Unclear(format!("{} recovers once more, and should not", cluster.title())));
    }
    layout::start_at_boot(&cluster, true).await?;
    fs::remove_dir_all(&scratch.work).map_err(Error::local(scratch.work.display()))?;
    begun.complete(&cluster.data, owner)?;
    let stopped = evidence.stopping.clone().unwrap_or_else(|| "everything that is archived".to_owned());
    report::output("cluster", cluster.title());
    report::output("backup", chosen.backup.record.stamp.as_str());
    report::output("stopped", stopped.as_str());
    report::output("segments", evidence.segments);
    if let Some(timeline) = evidence.timeline {
        report::output("timeline", timeline);
    }
    if let Some(time) = &evidence.last_commit {
        report::output("last_commit", time.as_str());
    }
    let last = evidence.last_commit.unwrap_or_else(|| "in the backup".to_owned());
    report::progress(
        100,
        &format!(
            "{} answers on port {}: {stopped}; last commit {last}; it archives nothing yet",
            cluster.title(),
            plan.port
        ),
    );
    Ok(())
}

/// Whether there is nothing where the cluster would be, and room for it.
async fn free_place(plan: &Plan, scratch: &Scratch, chosen: &Chosen) -> Result<(), Error> {
    let (name, version) = (&plan.cluster, scratch.version);
    let refused = |why: String| Err(Error::Refused(why));
    if !layout::installed(version) {
        return refused(format!("the backup is of version {version}: install postgresql-{version}"));
    }
    let list = layout::list().await?;
    if let Some(there) =
        list.clusters.iter().find(|cluster| cluster.version == version && cluster.name == *name)
    {
        return refused(format!(
            "there is a cluster {} already, and a restore never touches one: say another name, or drop it with \
             pg_dropcluster if you are sure",
            there.title()
        ));
    }
    for path in [&layout::conf(version, name), &scratch.data, &scratch.work] {
        let empty = match fs::read_dir(path) {
            Ok(mut entries) => entries.next().is_none(),
            Err(error) => error.kind() == std::io::ErrorKind::NotFound,
        };
        if !empty {
            return refused(format!(
                "{} exists and is not empty: it is nothing of ours, so move it away",
                path.display()
            ));
        }
    }
    let taken = list.at_port(plan.port);
    let taken =
        taken.or_else(|| TcpListener::bind(("127.0.0.1", plan.port)).err().map(|error| error.to_string()));
    if let Some(taken) = taken {
        return refused(format!("port {} is taken ({taken}): say another", plan.port));
    }
    room(&scratch.data, chosen)
}

/// Whether there is room for the files and some WAL.
///
/// # Errors
/// If there is not.
pub fn room(place: &Path, chosen: &Chosen) -> Result<(), Error> {
    let bytes: u64 = chosen.chain.iter().map(|backup| backup.record.bytes).sum();
    // A chain is unpacked, and then combined into files of their own.
    let bytes = if chosen.chain.len() > 1 { bytes * 2 } else { bytes };
    let (needed, free) = (bytes / 10 * 12 + (64 << 20), check::free(place)?);
    if free < needed {
        return Err(Error::Refused(format!(
            "{} MiB are free at {}, and {} MiB are needed",
            free >> 20,
            place.display(),
            needed >> 20
        )));
    }
    Ok(())
}

/// Refuses where replayed WAL could reach the tablespaces of a cluster of this host: it names them by their paths, and a
/// recovery empties what it creates anew.
///
/// # Errors
/// If there is one, or that cannot be told.
pub async fn no_shared_tablespaces(system: u64) -> Result<(), Error> {
    for cluster in layout::clusters().await? {
        let spaces = cluster.data.join("pg_tblspc");
        if !spaces.exists() || wal::system(&cluster.data)? != system {
            continue;
        }
        if fs::read_dir(&spaces).map_err(Error::local(spaces.display()))?.next().is_some() {
            return Err(Error::Refused(format!(
                "{} on this host is of the same system and has tablespaces, which the WAL names by their paths: restore on \
                 another host",
                cluster.title()
            )));
        }
    }
    Ok(())
}

/// Makes what has recovered a cluster of the distribution, with the saved configuration.
async fn adopt(plan: &Plan, depot: &Depot, chosen: &Chosen, scratch: &Scratch) -> Result<Cluster, Error> {
    let saved = scratch.work.join("conf");
    fs::create_dir(&saved).map_err(Error::local(saved.display()))?;
    scratch.owner.give(&saved)?;
    let tar: Vec<OsString> =
        vec!["tar".into(), "--extract".into(), "--file=-".into(), "-C".into(), saved.clone().into()];
    depot.feed(&record::name(&depot.place, "conf", &chosen.backup.record.stamp), &tar).await?;
    let (name, version) = (&plan.cluster, scratch.version);
    let path = |path: PathBuf| path.display().to_string();
    let conf = layout::conf(version, name);
    let own = [
        ("data_directory", path(scratch.data.clone())),
        ("hba_file", path(conf.join("pg_hba.conf"))),
        ("ident_file", path(conf.join("pg_ident.conf"))),
        ("external_pid_file", path(plan.socket.join(format!("{version}-{name}.pid")))),
        ("port", plan.port.to_string()),
        ("unix_socket_directories", path(plan.socket.clone())),
        ("cluster_name", format!("{version}/{name}")),
    ];
    let mut block = "\n# Where this cluster is, by hostler-postgres restore.\n".to_owned();
    for (name, value) in &own {
        block.push_str(&check::line(name, value));
    }
    block.push_str("# It is a copy: take these away when it takes the place of the old one.\n");
    for (name, value) in QUIET {
        block.push_str(&check::line(name, value));
    }
    let mut names: Vec<&str> = own.iter().map(|(name, _)| *name).chain(QUIET.map(|(name, _)| name)).collect();
    names.extend(OTHERS);
    let site = Site { version, name, port: plan.port, socket: &plan.socket, owner: scratch.owner };
    layout::adopt(&site, &saved, &names, &block).await?;
    // What ALTER SYSTEM has left wins over the file.
    let auto = scratch.data.join("postgresql.auto.conf");
    let text = durable::read(&auto)?.unwrap_or_default();
    durable::replace(&auto, &layout::without(&text, &names), scratch.owner)?;
    layout::cluster(name, Some(version)).await
}

/// Whether the cluster is made, and answers.
///
/// # Errors
/// [`Error::No`] if it is not; others if that cannot be told.
pub async fn done(made: &Made) -> Result<(), Error> {
    let name = &made.cluster;
    let Some(begun) = intent(name).begun()? else {
        return Err(Error::No("no restore was begun".to_owned()));
    };
    if !begun.whole(&layout::data(begun.version, name))? {
        return Err(Error::No("not done".to_owned()));
    }
    let cluster = layout::cluster(name, Some(begun.version)).await?;
    Session::open(&cluster, "postgres", Bounds::LOOK).await.map(|_| ())
}

/// Removes what a restore of this run has made or begun, or by hand that of any run.
///
/// # Errors
/// If something of it is still there.
pub async fn undo(made: &Made) -> Result<(), Error> {
    let name = &made.cluster;
    let Some(begun) = intent(name).begun()?.filter(Begun::ours) else { return Ok(()) };
    let version = begun.version;
    let owner = layout::administrator()?;
    let owner = owner.unwrap_or_else(Owner::own);
    let scratch = scratch(version, name, owner);
    layout::clear_away(version, name, owner).await?;
    layout::remove_folder(&scratch.work)?;
    // Nothing is said of it: the message of a step that was taken back is why.
    intent(name).forget()
}
