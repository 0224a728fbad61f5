//! The archive of a cluster, set up and proved: a file of settings, a restart where there is no other way, and one segment
//! that comes to the depot and back.
//!
//! A cluster that has an archive keeps it: settings of another tool, wherever they stand, are refused and not replaced. What
//! is taken back is taken back whole: a server that archives without a command would keep all WAL until its disk is full.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{FACTS, await_archived, facts, stamp, switch_segment};
use crate::archive;
use crate::check;
use crate::crash::{CrashPoint, here};
use crate::depot::{Depot, Place};
use crate::durable;
use crate::error::Error;
use crate::layout::{self, Cluster};
use crate::report;
use crate::restart;
use crate::restore::recover::quoted;
use crate::server::{Bounds, Session, literal};

/// The first line of the file.
const MARK: &str = "# The archive, by hostler-postgres backup setup.\n";
/// How the last one begins once a segment came back.
const PROVED: &str = "# Proved by a segment at ";

/// Which cluster archives, and where.
#[derive(Clone, Debug, clap::Args)]
pub struct Plan {
    /// Name of the cluster on this host
    #[arg(long, value_name = "NAME")]
    cluster: String,
    /// Its major version, where several versions have a cluster of this name
    #[arg(long, value_name = "VERSION")]
    version: Option<u16>,
    #[command(flatten)]
    place: Place,
    /// Seconds of work that may be lost with the host: after them a segment is archived that is not full
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(10..=86_400))]
    archive_timeout: u32,
    /// Restart the server if archive_mode is off
    #[arg(long)]
    restart: bool,
    /// How long the first segment may take
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    wait: u64,
}

/// What is asked, or taken back.
#[derive(Clone, Debug, clap::Args)]
pub struct Which {
    /// Name of the cluster on this host
    #[arg(long, value_name = "NAME")]
    cluster: String,
    /// Its major version, where several versions have a cluster of this name
    #[arg(long, value_name = "VERSION")]
    version: Option<u16>,
}

fn file(cluster: &Cluster) -> PathBuf {
    cluster.conf.join("conf.d/hostler-archive.conf")
}

/// The settings, each with its value.
fn settings(place: &Place, timeout: u32) -> Result<Vec<(&'static str, String)>, Error> {
    let ours = std::env::current_exe().map_err(Error::local("this program"))?;
    let depot = std::env::var("HOSTLER_DEPOT").ok();
    let depot = depot.map(|program| format!("HOSTLER_DEPOT={} ", quoted(&program))).unwrap_or_default();
    let command = |name: &str| {
        let words: Vec<_> =
            [ours.display().to_string(), name.to_owned()].into_iter().chain(place.words()).collect();
        let words = words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ");
        format!("{depot}{words}")
    };
    Ok(vec![
        ("archive_mode", "on".to_owned()),
        ("archive_command", format!("{} %p", command("archive"))),
        ("archive_timeout", timeout.to_string()),
        ("restore_command", format!("{} %f %p", command("fetch"))),
    ])
}

/// Sets the archive up, and proves that it takes a segment and gives it back.
///
/// # Errors
/// If the cluster has an archive of another kind, the depot does not answer, a restart is needed and not allowed, or no
/// segment comes: then nothing is left of it, and an archive that was proved before stays as it was.
pub async fn run(plan: &Plan) -> Result<(), Error> {
    let cluster = layout::cluster(&plan.cluster, plan.version).await?;
    let depot = Depot::new(&plan.place, Some(cluster.owner));
    let settings = settings(&plan.place, plan.archive_timeout)?;
    let off = may(plan, &cluster, &depot, &settings).await?;
    let lines: String = settings.iter().map(|(name, value)| check::line(name, value)).collect();
    let path = file(&cluster);
    let folder = path.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(folder).map_err(Error::local(folder.display()))?;
    let former = durable::read(&path)?.filter(|text| proved(text));
    durable::replace(&path, &format!("{MARK}{lines}"), cluster.owner)?;
    here(CrashPoint::ArchiveMeant);
    if let Err(error) = begin(plan, &cluster, &depot, off).await {
        let back = match former {
            Some(former) => put_back(&cluster, &former).await,
            None => take_back(&cluster).await,
        };
        return Err(match back {
            Ok(()) => error,
            Err(left) => Error::Unclear(format!("{error}; and {} is not taken back: {left}", path.display())),
        });
    }
    let proved = format!("{MARK}{lines}{PROVED}{}\n", jiff::Timestamp::now());
    durable::replace(&path, &proved, cluster.owner)?;
    let id = &plan.place.id;
    report::progress(100, &format!("{} archives as {id}: make a backup now", cluster.title()));
    Ok(())
}

/// Everything that can be known before anything is changed; whether a restart is needed.
async fn may(
    plan: &Plan,
    cluster: &Cluster,
    depot: &Depot,
    settings: &[(&'static str, String)],
) -> Result<bool, Error> {
    let (title, session) = (cluster.title(), Session::open(cluster, "postgres", Bounds::LOOK).await?);
    if session.holds("select pg_is_in_recovery()").await? {
        return Err(Error::Refused(format!("{title} is a standby: its primary archives")));
    }
    let path = file(cluster).display().to_string();
    let rows = session
        .rows(
            "select distinct on (name, sourcefile) name, setting, sourcefile from pg_file_settings \
             where name in ('archive_mode', 'archive_command', 'archive_library', 'archive_timeout', 'restore_command') \
             order by name, sourcefile, seqno desc",
        )
        .await?;
    for row in rows {
        let [Some(name), value, Some(place)] = row.as_slice() else { continue };
        let value = value.clone().unwrap_or_default();
        let wanted = settings.iter().find(|(wanted, _)| wanted == name).map(|(_, value)| value.as_str());
        if *place != path && value != wanted.unwrap_or_default() {
            return Err(Error::Refused(format!(
                "{title}: {name} is set in {place} ({value}): if nothing else archives or prunes there any more, take the \
                 line away first"
            )));
        }
    }
    restart::would_start(cluster, &session, false).await?;
    let off = session.holds("select current_setting('archive_mode') = 'off'").await?;
    if off && !plan.restart {
        return Err(Error::Refused(format!(
            "{title}: archive_mode is off, and only a restart switches it on: say --restart if that is meant"
        )));
    }
    // As whom the server will ask; an answer without a name is one.
    depot.names(&format!("{}/", plan.place.wal())).await?;
    Ok(off)
}

async fn begin(plan: &Plan, cluster: &Cluster, depot: &Depot, off: bool) -> Result<(), Error> {
    let session = Session::open(cluster, "postgres", Bounds::LOOK).await?;
    let path = file(cluster).display().to_string();
    let read = format!("select count(*) = 4 from pg_file_settings where sourcefile = {}", literal(&path));
    if !session.holds(&read).await? {
        return Err(Error::Refused(format!(
            "{}: the server does not read {path}: say `include_dir = 'conf.d'` in postgresql.conf",
            cluster.title()
        )));
    }
    session.run("select pg_reload_conf()").await?;
    drop(session);
    if off {
        restart::run(&restarting(cluster)).await?;
    }
    report::progress(60, "looking whether the archive takes a segment and gives it back");
    let session = Session::open(cluster, "postgres", Bounds::LOOK).await?;
    let facts = facts(cluster, session.rows(FACTS).await?.first())?;
    let key = switch_segment(depot, &session, &facts, &stamp(jiff::Timestamp::now())).await?;
    await_archived(cluster, depot, &session, &key, Duration::from_secs(plan.wait)).await?;
    archive::comes_back(depot, &facts.system, &key).await
}

fn restarting(cluster: &Cluster) -> restart::Plan {
    restart::Plan {
        cluster: cluster.name.clone(),
        version: Some(cluster.version),
        always: false,
        settings: true,
    }
}

/// Whether the cluster archives by a setup that was proved: settings that a boot brought into effect are none.
///
/// # Errors
/// [`Error::No`] if it does not; others if that cannot be told.
pub async fn done(which: &Which) -> Result<(), Error> {
    let cluster = layout::cluster(&which.cluster, which.version).await?;
    if !durable::read(&file(&cluster))?.is_some_and(|text| proved(&text)) {
        return Err(Error::No("not done".to_owned()));
    }
    let session = Session::open(&cluster, "postgres", Bounds::LOOK).await?;
    let path = literal(&file(&cluster).display().to_string());
    let archives = format!(
        "select current_setting('archive_mode') = 'on' and sourcefile = {path} from pg_settings \
         where name = 'archive_command'"
    );
    if session.holds(&archives).await? { Ok(()) } else { Err(Error::No("not done".to_owned())) }
}

fn proved(text: &str) -> bool {
    text.starts_with(MARK) && text.lines().any(|line| line.starts_with(PROVED))
}

/// Has the cluster archive as before.
async fn put_back(cluster: &Cluster, former: &str) -> Result<(), Error> {
    durable::replace(&file(cluster), former, cluster.owner)?;
    Session::open(cluster, "postgres", Bounds::LOOK).await?.run("select pg_reload_conf()").await
}

fn ours(cluster: &Cluster) -> Result<bool, Error> {
    Ok(durable::read(&file(cluster))?.is_some_and(|text| text.starts_with(MARK)))
}

/// Takes the archive away again, with a restart where that is what switches it off.
///
/// # Errors
/// If the server does not come back.
pub async fn undo(which: &Which) -> Result<(), Error> {
    take_back(&layout::cluster(&which.cluster, which.version).await?).await
}

async fn take_back(cluster: &Cluster) -> Result<(), Error> {
    if !ours(cluster)? {
        return Ok(());
    }
    durable::remove(&file(cluster))?;
    let session = Session::open(cluster, "postgres", Bounds::LOOK).await?;
    session.run("select pg_reload_conf()").await?;
    // What the files say now, and what the server does.
    let surplus = "select current_setting('archive_mode') <> 'off' and not exists \
         (select from pg_file_settings where name = 'archive_mode' and setting <> 'off')";
    if session.holds(surplus).await? {
        drop(session);
        restart::run(&restarting(cluster)).await?;
    }
    report::message(&format!("{} does not archive any more", cluster.title()));
    Ok(())
}
