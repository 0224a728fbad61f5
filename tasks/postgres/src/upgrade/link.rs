//! The upgrade in place: `pg_upgrade --link`, for clusters that logical replication cannot carry. Clients wait for seconds, and
//! there is **no way back** once the new server has been started: both clusters have the same files.
//!
//! ```text
//!  prepare                          run                                                        finish
//!  new cluster, pg_upgrade --check  old one stops → pg_upgrade --link → decision → new one     old one is dropped
//! ```
//! | killed in | what is true | who ends it |
//! | --- | --- | --- |
//! | `prepare` | clients work on the old cluster | [`undo`] |
//! | `run`, before the decision is on the disk | the old cluster is whole: `pg_control` may have to get its name back | [`release`], [`undo`] |
//! | `run`, after it | only the new cluster may ever be started | [`release`], or [`run`] again |
//!
//! The decision is one word in the file of intent, on the disk before the new server is started for the first time. The old
//! cluster, started after that, would show a mixture of both, without any error; so nothing here gives `pg_control` its name
//! back once the word is there.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::intent::Intent as Upgrade;
use super::switch::{self, Hold};
use super::{copy, door, fence, lock, prepare};
use crate::backup::reach::Required;
use crate::check;
use crate::crash::{CrashPoint, here};
use crate::durable;
use crate::error::Error;
use crate::exec;
use crate::layout::{self, Cluster, spaces};
use crate::report;
use crate::server::{Bounds, Session};

/// How long `pg_upgrade` may take: it follows the number of objects, and not their size.
const LONG: Duration = Duration::from_secs(3600);
/// For a server that is started.
const START: Duration = Duration::from_secs(120);
/// How long the old server may take to stop in order.
const STOP: Duration = Duration::from_secs(60);

/// What is upgraded in place.
#[derive(Clone, Debug, clap::Args)]
pub struct Plan {
    /// Name of the cluster
    #[arg(long, value_name = "NAME", value_parser = super::name)]
    cluster: String,
    /// The new major version
    #[arg(long, value_name = "VERSION", value_parser = clap::value_parser!(u16).range(14..100))]
    to: u16,
    #[command(flatten)]
    backup: Required,
}

/// What is on the disk before the new cluster is begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Intent {
    /// Format of this file.
    version: u8,
    run: String,
    begun: Timestamp,
    /// The old cluster's major version.
    from: u16,
    /// Its port, which the new one takes over.
    port: u16,
    /// The decision: from here on only the new cluster may be started.
    decided: bool,
}

fn file(plan: &Plan) -> PathBuf {
    durable::state().join(format!("link-{}-{}", plan.to, plan.cluster))
}

impl Intent {
    fn read(plan: &Plan) -> Result<Option<Self>, Error> {
        durable::kept(&file(plan), |intent: &Self| intent.version == 1)
    }

    fn write(&self, plan: &Plan) -> Result<(), Error> {
        durable::keep(&file(plan), self)
    }
}

/// The file in the new cluster's data that says that it was made whole, or that the old one's files are linked into it.
fn marker(new: &Cluster, name: &str) -> PathBuf {
    new.data.join(format!("hostler.{name}"))
}

async fn old(plan: &Plan) -> Result<Cluster, Error> {
    let mut older = layout::list().await?.named(&plan.cluster)?;
    older.retain(|cluster| cluster.version < plan.to);
    if older.len() > 1 {
        let titles: Vec<_> = older.iter().map(Cluster::title).collect();
        return Err(Error::Refused(format!(
            "there are {}: rename or drop the older ones",
            titles.join(", ")
        )));
    }
    older.pop().ok_or_else(|| {
        Error::Missing(format!(
            "there is no cluster {} of a version from 13 to before {}: see {}",
            plan.cluster,
            plan.to,
            layout::lister()
        ))
    })
}

async fn new(plan: &Plan) -> Result<Cluster, Error> {
    layout::cluster(&plan.cluster, Some(plan.to)).await
}

/// Makes the new cluster, and has `pg_upgrade` look at both while clients work.
///
/// # Errors
/// If something forbids the upgrade, or a part fails: then [`undo`] leaves nothing.
pub async fn prepare(plan: &Plan) -> Result<(), Error> {
    let _lock = lock::take(&plan.cluster)?;
    let old = old(plan).await?;
    if Intent::read(plan)?.is_some() {
        return Err(Error::Refused(format!(
            "{} exists: an upgrade was begun; take it back with `link undo`",
            file(plan).display()
        )));
    }
    let admin = Session::open(&old, "postgres", Bounds::WORK).await?;
    may(plan, &old, &admin).await?;
    let intent = Intent {
        version: 1,
        run: crate::made::run(),
        begun: Timestamp::now(),
        from: old.version,
        port: old.configured,
        decided: false,
    };
    let carried = check::carried(&admin).await?;
    let refused = check::refused_settings(old.owner, plan.to, &carried).await?;
    let taken = carried.iter().filter(|(name, _)| !refused.contains(name));
    let settings: String = taken.map(|(name, value)| check::line(name, value)).collect();
    let port = door::free_port(&layout::list().await?)?;
    intent.write(plan)?;
    here(CrashPoint::LinkIntended);
    report::progress(10, &format!("making {}/{}", plan.to, plan.cluster));
    layout::create(&old, &admin, plan.to, port).await?;
    drop(admin);
    let new = new(plan).await?;
    let settings =
        format!("# From the old cluster, by hostler-postgres.\n{settings}synchronous_standby_names = ''\n");
    prepare::configure(&old, &new, &settings)?;
    // Nobody reaches it before it has the clients' port, so that it needs no fence.
    let rules = durable::read(&old.hba())?.unwrap_or_default();
    durable::replace(&new.hba(), &rules, new.owner)?;
    durable::remove(&fence::kept(&new))?;
    here(CrashPoint::LinkPrepared);
    report::progress(50, "pg_upgrade looks at both clusters");
    pg_upgrade(&old, &new, true).await?;
    durable::replace(&marker(&new, "made"), "\n", new.owner)?;
    report::progress(100, &format!("{} can be upgraded to {}", old.title(), plan.to));
    Ok(())
}

/// What `pg_upgrade` does not look at, or not before the old server is stopped.
async fn may(plan: &Plan, old: &Cluster, admin: &Session) -> Result<(), Error> {
    let title = old.title();
    let refused = |why: String| Err(Error::Refused(why));
    if !Upgrade::unfinished(&plan.cluster)?.is_empty() {
        return refused(format!(
            "{title}: another upgrade of it is not finished: finish it or take it back first"
        ));
    }
    if !layout::installed(plan.to) || !layout::program(plan.to, "pg_upgrade").exists() {
        return refused(format!("version {0} is not installed: install postgresql-{0}", plan.to));
    }
    let (conf, data) = (layout::conf(plan.to, &plan.cluster), layout::data(plan.to, &plan.cluster));
    if let Some(path) = [&conf, &data].into_iter().find(|path| layout::occupied(path)) {
        return refused(format!("{} exists: it is nothing of ours, so remove it first", path.display()));
    }
    for (statement, why) in [
        ("select pg_is_in_recovery()", "is a standby: upgrade its primary"),
        (
            "select exists (select from pg_replication_slots where not temporary)",
            "has replication slots, which would be lost: drop them first",
        ),
        ("select exists (select from pg_prepared_xacts)", "has prepared transactions: end them first"),
    ] {
        if admin.holds(statement).await? {
            return refused(format!("{title} {why}"));
        }
    }
    // Files cannot be linked from one file system into another.
    let device = |path: &Path| std::fs::metadata(path).map(|is| std::os::unix::fs::MetadataExt::dev(&is));
    let mut place = data.as_path();
    while !place.exists() {
        place = place.parent().unwrap_or(Path::new("/"));
    }
    spaces::free(old, plan.to)?;
    let (from, to) = (device(&old.data), device(place));
    if from.as_ref().ok() != to.as_ref().ok() {
        return refused(format!("{} and {} are on two file systems", old.data.display(), place.display()));
    }
    check::verdict(&plan.backup.check(old).await?)
}

/// `pg_upgrade`, in a folder of its own: to look only while the old server runs, or to link its files.
async fn pg_upgrade(old: &Cluster, new: &Cluster, look: bool) -> Result<(), Error> {
    let work = tempfile::tempdir().map_err(Error::local("a temporary folder"))?;
    new.owner.give(work.path())?;
    let folder = |version| layout::program(version, "postgres").parent().unwrap_or(Path::new("/")).to_owned();
    let mut words: Vec<OsString> = ["--link", "--jobs=2", "--username=postgres"].map(OsString::from).into();
    for (option, value) in [
        ("--old-bindir", folder(old.version)),
        ("--new-bindir", folder(new.version)),
        ("--old-datadir", old.conf.clone()),
        ("--new-datadir", new.conf.clone()),
        ("--socketdir", work.path().to_owned()),
    ] {
        words.extend([option.into(), value.into()]);
    }
    if look {
        words.extend(["--check".into(), "--old-port".into(), old.port.to_string().into()]);
    }
    copy::bound(new.owner, work.path(), layout::program(new.version, "pg_upgrade"), words, LONG).await
}

/// The upgrade: clients are held from here until the new server answers at their port.
///
/// # Errors
/// If a part fails before the decision: then the old cluster serves as before.
pub async fn run(plan: &Plan) -> Result<(), Error> {
    let _lock = lock::take(&plan.cluster)?;
    let intent = begun(plan)?;
    let new = new(plan).await?;
    if !intent.decided {
        if durable::read(&marker(&new, "made"))?.is_none() {
            return Err(Error::Refused(format!(
                "{} is half-made: `link undo`, and begin again",
                new.title()
            )));
        }
        let old = layout::cluster(&plan.cluster, Some(intent.from)).await?;
        if durable::read(&marker(&new, "linked"))?.is_some() || control(&old).1.exists() {
            return Err(Error::Refused(
                "an earlier attempt was not ended: `link undo`, and begin again".to_owned(),
            ));
        }
        let session = Session::open(&old, "postgres", Bounds::WORK).await?;
        session.run("checkpoint").await?;
        drop(session);
        let (hold, from) = (Hold::begin(), Timestamp::now());
        if let Err(error) = link(plan, &intent, &old, &new).await {
            let back = put_back(plan, &intent).await;
            report::downtime(&format!("postgres:{}", plan.cluster), from, hold.lasts());
            return Err(match back {
                Ok(()) => error,
                Err(held) => Error::Unclear(format!(
                    "{error}; and the old cluster does not serve: {held}: `link release`"
                )),
            });
        }
        let starting = serve(plan, &intent).await?;
        let held = hold.lasts();
        drop(hold);
        report::downtime(&format!("postgres:{}", plan.cluster), from, held);
        report::output("held_seconds", (held.as_secs_f64() * 1000.0).round() / 1000.0);
        starting.ended().await?;
    } else {
        serve(plan, &intent).await?.ended().await?;
    }
    report::progress(
        100,
        &format!("clients are at {}; the old cluster stays until `link finish`", new.title()),
    );
    Ok(())
}

/// Everything up to the decision, and the decision.
async fn link(plan: &Plan, intent: &Intent, old: &Cluster, new: &Cluster) -> Result<(), Error> {
    layout::start_at_boot(old, false).await?;
    if !layout::stop_in_order(old, STOP).await? {
        return Err(Error::Refused(format!("{} did not stop within {} s", old.title(), STOP.as_secs())));
    }
    here(CrashPoint::LinkStopped);
    // Somebody may have made something there since `prepare`: only what is not there yet can be our own work.
    spaces::free(old, new.version)?;
    durable::replace(&marker(new, "spaces"), "\n", new.owner)?;
    // It is not empty any more from here on.
    durable::remove(&marker(new, "made"))?;
    pg_upgrade(old, new, false).await?;
    here(CrashPoint::Linked);
    durable::replace(&marker(new, "linked"), "\n", new.owner)?;
    layout::set_port(new, intent.port)?;
    Intent { decided: true, ..intent.clone() }.write(plan)?;
    here(CrashPoint::LinkDecided);
    Ok(())
}

/// Starts the new cluster at the clients' port, from now on also when the host boots.
async fn serve(plan: &Plan, intent: &Intent) -> Result<switch::Starting, Error> {
    let new = Cluster { port: intent.port, configured: intent.port, ..new(plan).await? };
    layout::start_at_boot(&new, true).await?;
    if new.running {
        Session::open(&new, "postgres", Bounds::LOOK).await?;
        return Ok(switch::Starting::none());
    }
    Ok(switch::start(&new, START).await?.1)
}

/// Makes statistics, which `pg_upgrade` does not bring along before 18: rough ones for every table first.
///
/// # Errors
/// If clients are not at the new cluster, or the program fails.
pub async fn statistics(plan: &Plan) -> Result<(), Error> {
    done(plan, Step::Run).await?;
    let new = new(plan).await?;
    let mut words = vec![format!("--host={}", new.socket.display()), format!("--port={}", new.configured)];
    words.extend(["--username=postgres", "--all", "--analyze-in-stages", "--no-password"].map(str::to_owned));
    exec::succeed(Some(new.owner), &layout::program(new.version, "vacuumdb"), &words, LONG * 24).await?;
    report::progress(100, &format!("{} has statistics", new.title()));
    Ok(())
}

fn begun(plan: &Plan) -> Result<Intent, Error> {
    let missing = || Error::Refused("no upgrade was begun: `link prepare` comes first".to_owned());
    Intent::read(plan)?.ok_or_else(missing)
}

/// The control file of a cluster, and the name that `pg_upgrade --link` gives it.
fn control(cluster: &Cluster) -> (PathBuf, PathBuf) {
    let global = cluster.data.join("global");
    (global.join("pg_control"), global.join("pg_control.old"))
}

/// Has the old cluster serve as before; only before the decision.
async fn put_back(plan: &Plan, intent: &Intent) -> Result<(), Error> {
    let old = layout::cluster(&plan.cluster, Some(intent.from)).await?;
    // Of the new one nothing was ever started for clients: `pg_upgrade` may have left a server in either.
    layout::halt(&layout::data(plan.to, &plan.cluster), plan.to, old.owner).await?;
    let serves = async |old: &Cluster| Session::open(old, "postgres", Bounds::LOOK).await.is_ok();
    let (now, kept) = control(&old);
    if kept.exists() || !serves(&old).await {
        layout::halt(&old.data, old.version, old.owner).await?;
        if kept.exists() {
            std::fs::rename(&kept, &now).map_err(Error::local(now.display()))?;
            durable::sync(now.parent().unwrap_or(Path::new("/")))?;
        }
        let old = Cluster { running: false, port: intent.port, ..old.clone() };
        switch::start(&old, START).await?.1.ended().await?;
    }
    layout::start_at_boot(&old, true).await
}

/// Has the side serve to which clients belong, whatever died. May be called at any time, and again.
///
/// # Errors
/// If its server does not start.
pub async fn release(plan: &Plan) -> Result<(), Error> {
    let _lock = lock::seize(&plan.cluster).await?;
    let Some(intent) = Intent::read(plan)? else { return Ok(()) };
    let begun = Instant::now();
    if intent.decided {
        serve(plan, &intent).await?.ended().await?;
    } else {
        put_back(plan, &intent).await?;
    }
    report::message(&format!("clients are served, after {:.1} s", begun.elapsed().as_secs_f64()));
    Ok(())
}

/// Takes it back: the old cluster serves, and nothing of the new one is left.
///
/// # Errors
/// [`Error::Refused`] after the decision: there is no way back then.
pub async fn undo(plan: &Plan) -> Result<(), Error> {
    let _lock = lock::seize(&plan.cluster).await?;
    let Some(intent) = Intent::read(plan)? else { return Ok(()) };
    if intent.decided {
        return Err(Error::Refused(format!(
            "{}/{} has been started with the old cluster's files: there is no way back but a restore",
            plan.to, plan.cluster
        )));
    }
    put_back(plan, &intent).await?;
    let old = layout::cluster(&plan.cluster, Some(intent.from)).await?;
    if layout::data(plan.to, &plan.cluster).join("hostler.spaces").exists() {
        spaces::clear(&spaces::of(&old)?, plan.to)?;
    }
    layout::clear_away(plan.to, &plan.cluster, old.owner).await?;
    durable::remove(&file(plan))?;
    report::message(&format!("{}/{} is removed", plan.to, plan.cluster));
    Ok(())
}

/// A part that is asked for.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Step {
    /// The new cluster, which pg_upgrade has looked at
    Prepare,
    /// Clients at the new cluster
    Run,
    /// Only the new cluster is left
    Finish,
}

/// Whether a part is done, by the files and the servers.
///
/// # Errors
/// [`Error::No`] if it is not; others if that cannot be told.
pub async fn done(plan: &Plan, step: Step) -> Result<(), Error> {
    let no = || Err(Error::No("not done".to_owned()));
    let intent = Intent::read(plan)?;
    if intent.is_none() && !matches!(step, Step::Prepare) {
        // Finished: only the new one is left.
        let named = layout::list().await?.named(&plan.cluster)?;
        let versions: Vec<_> = named.iter().map(|cluster| cluster.version).collect();
        return if versions == [plan.to] { Ok(()) } else { no() };
    }
    let Some(intent) = intent else { return no() };
    let new = match new(plan).await {
        Err(Error::Missing(_)) => return no(),
        new => new?,
    };
    match step {
        Step::Prepare if intent.decided || durable::read(&marker(&new, "made"))?.is_some() => Ok(()),
        Step::Run if intent.decided => {
            let new = Cluster { port: intent.port, ..new };
            Session::open(&new, "postgres", Bounds::LOOK).await.map(|_| ())
        }
        _ => no(),
    }
}

/// Drops the old cluster, of which nothing but links is left.
///
/// # Errors
/// If clients are not at the new one.
pub async fn finish(plan: &Plan) -> Result<(), Error> {
    let _lock = lock::take(&plan.cluster)?;
    let Some(intent) = Intent::read(plan)? else {
        return done(plan, Step::Finish).await;
    };
    done(plan, Step::Run)
        .await
        .map_err(|_| Error::Refused("clients are not at the new cluster: it stays".to_owned()))?;
    let new = new(plan).await?;
    // Not by Debian's tool, which a killed call would leave without a way to go on.
    if let Ok(old) = layout::cluster(&plan.cluster, Some(intent.from)).await {
        layout::halt(&old.data, old.version, old.owner).await?;
        // Before its data, which says where they are.
        spaces::clear(&spaces::of(&old)?, old.version)?;
        for folder in [&old.data, &old.conf] {
            layout::remove_folder(folder)?;
        }
    }
    here(CrashPoint::LinkOldDropped);
    for name in ["made", "linked", "spaces"] {
        durable::remove(&marker(&new, name))?;
    }
    durable::remove(&file(plan))?;
    report::progress(100, &format!("the old cluster is dropped; {} has its clients", new.title()));
    Ok(())
}
