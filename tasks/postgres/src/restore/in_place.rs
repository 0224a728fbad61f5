//! A state of the past in the place of a cluster that exists. The files that it had are kept beside, and nothing here
//! ever removes them.
//!
//! ```text
//!  prepare   looks at everything, recovers beside the cluster, which goes on serving: DATA.restored
//!  replace   stops the server; DATA and DATA.restored change their names in one step of the kernel; starts it again;
//!            what it had is DATA.before-STAMP
//! ```
//! | killed in | what is true | what ends it |
//! | --- | --- | --- |
//! | `prepare` | the cluster serves as before | [`undo`] |
//! | `replace`, before the exchange | its files are the old ones; it may be stopped | [`replace`] again, or a start and [`undo`] |
//! | `replace`, after it | its files are the restored ones | [`replace`] again |
//!
//! Which of the two is true is read from the folder of data itself: a mark in the restored files travels with them.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use serde::{Deserialize, Serialize};

use super::choose::{self, Chosen, Wish};
use super::recover::{Evidence, Scratch};
use super::{OTHERS, no_shared_tablespaces, room};
use crate::archive;
use crate::crash::{CrashPoint, here};
use crate::depot::{Depot, Place};
use crate::durable;
use crate::error::Error;
use crate::layout::{self, Cluster};
use crate::made;
use crate::report;
use crate::restart::{Watch, would_start};
use crate::server::{Bounds, Session};
use crate::upgrade::lock;
use crate::upgrade::switch::Hold;
use crate::wal;

/// What is put in the place of a cluster.
#[derive(Clone, Debug, clap::Args)]
pub struct Plan {
    #[command(flatten)]
    named: Named,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    wish: Wish,
}

/// The cluster whose files are exchanged.
#[derive(Clone, Debug, clap::Args)]
pub struct Named {
    /// Name of the cluster
    #[arg(long, value_name = "NAME", value_parser = crate::upgrade::name)]
    cluster: String,
    /// Its major version, where several versions have a cluster of this name
    #[arg(long, value_name = "VERSION")]
    version: Option<u16>,
}

/// A part of the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// The restored files are ready
    Prepare,
    /// They are those of the cluster
    Replace,
}

/// What is on the disk from before the first change until all is done.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Begun {
    /// Format of this file.
    format: u8,
    run: String,
    stamp: String,
    /// Major version.
    version: u16,
    /// The folder of data, without links.
    data: PathBuf,
    id: String,
    depot_config: PathBuf,
    system: u64,
    /// The timeline that the recovery has begun, once it has.
    timeline: Option<u32>,
}

/// Whose files are where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    /// The restored files are not whole.
    Half,
    /// They are whole, beside the cluster.
    Ready,
    /// The cluster has them.
    Exchanged,
}

fn file(name: &str) -> PathBuf {
    durable::state().join(format!("in-place-{name}"))
}

fn beside(data: &Path, what: &str) -> PathBuf {
    let mut name = data.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{what}"));
    data.with_file_name(name)
}

fn mark(data: &Path) -> PathBuf {
    data.join("hostler.in-place")
}

impl Begun {
    fn read(name: &str) -> Result<Option<Self>, Error> {
        durable::kept(&file(name), |begun: &Self| begun.format == 1)
    }

    fn text(&self) -> String {
        format!("{} {}\n", self.stamp, self.run)
    }

    fn restored(&self) -> PathBuf {
        beside(&self.data, "restored")
    }

    fn work(&self) -> PathBuf {
        beside(&self.data, "restore")
    }

    fn aside(&self) -> PathBuf {
        beside(&self.data, &format!("before-{}", self.stamp))
    }

    fn side(&self) -> Result<Side, Error> {
        let marked = |data: &Path| Ok(durable::read(&mark(data))?.is_some_and(|text| text == self.text()));
        if marked(&self.data)? {
            return Ok(Side::Exchanged);
        }
        Ok(if marked(&self.restored())? { Side::Ready } else { Side::Half })
    }

    /// Refuses what belongs to another run.
    fn ours(&self, name: &str) -> Result<(), Error> {
        if made::may_take_back(&self.run) {
            return Ok(());
        }
        Err(Error::Refused(format!(
            "a restore in the place of {name} was begun by run {}: let it end, or `hostler-postgres restore in-place undo \
             --cluster {name}`",
            self.run
        )))
    }
}

async fn cluster(named: &Named) -> Result<Cluster, Error> {
    layout::cluster(&named.cluster, named.version).await
}

/// Recovers the state beside the cluster, which is not touched.
///
/// # Errors
/// If the state cannot be restored, or the cluster is such that its files cannot be exchanged: nothing was changed then;
/// or a part fails: then [`undo`] clears away.
pub async fn prepare(plan: &Plan) -> Result<(), Error> {
    let name = &plan.named.cluster;
    let _lock = lock::take(name)?;
    if let Some(begun) = Begun::read(name)? {
        begun.ours(name)?;
        return Err(Error::Refused(format!(
            "a restore in the place of {name} was begun: `restore in-place replace` ends it, `restore in-place undo` takes \
             it back"
        )));
    }
    let cluster = cluster(&plan.named).await?;
    let data = exchangeable(&cluster)?;
    would_serve(&cluster).await?;
    let depot = Depot::new(&plan.place, layout::administrator()?);
    let chosen = choose::choose(&depot, &plan.wish, Timestamp::now()).await?;
    same_origin(&cluster, &chosen)?;
    no_shared_tablespaces(chosen.backup.system).await?;
    let mut begun = Begun {
        format: 1,
        run: made::run(),
        stamp: Timestamp::now().strftime("%Y-%m-%dT%H%M%SZ").to_string(),
        version: cluster.version,
        data,
        id: plan.place.id.clone(),
        depot_config: plan.place.depot_config.clone(),
        system: chosen.backup.system,
        timeline: None,
    };
    for path in [begun.restored(), begun.work(), begun.aside()] {
        if path.exists() {
            return Err(Error::Refused(format!("{} exists: move it away", path.display())));
        }
    }
    room(&begun.data, &chosen)?;
    for note in &chosen.notes {
        report::message(note);
    }
    durable::keep(&file(name), &begun)?;
    here(CrashPoint::InPlaceIntended);
    let scratch = scratch(&begun, &cluster);
    let evidence = recover(&depot, &chosen, &scratch).await?;
    begun.timeline = evidence.timeline;
    durable::keep(&file(name), &begun)?;
    dress(&begun, &cluster)?;
    durable::replace(&mark(&scratch.data), &begun.text(), cluster.owner)?;
    here(CrashPoint::InPlaceReady);
    let stopped = evidence.stopping.unwrap_or_else(|| "everything that is archived".to_owned());
    let last = evidence.last_commit.unwrap_or_else(|| "in the backup".to_owned());
    report::output("backup", chosen.backup.record.stamp.as_str());
    report::output("stopped", stopped.as_str());
    report::output("last_commit", last.as_str());
    report::output("segments", evidence.segments);
    if let Some(timeline) = evidence.timeline {
        report::output("timeline", timeline);
    }
    report::progress(
        100,
        &format!(
            "ready beside {}: {stopped}; last commit {last}; `restore in-place replace` comes next",
            cluster.title()
        ),
    );
    Ok(())
}

fn scratch(begun: &Begun, cluster: &Cluster) -> Scratch {
    Scratch { data: begun.restored(), work: begun.work(), owner: cluster.owner, version: begun.version }
}

async fn recover(depot: &Depot, chosen: &Chosen, scratch: &Scratch) -> Result<Evidence, Error> {
    report::progress(5, &format!("reading the backup {}", chosen.backup.record.stamp));
    scratch.unpack(depot, &chosen.chain).await?;
    here(CrashPoint::Unpacked);
    report::progress(60, "replaying the WAL");
    // With an archive and no command the server marks what has to be archived, and the cluster archives it later.
    let mut served = scratch.start(depot, chosen, &[("archive_mode", "on")]).await?;
    here(CrashPoint::Recovering);
    let evidence = scratch.recovered(&mut served, chosen).await?;
    scratch.stop(&mut served, "fast").await?;
    here(CrashPoint::Recovered);
    Ok(evidence)
}

/// Gives the restored files what the cluster has now: its mode, and what ALTER SYSTEM has set, which belongs to the host
/// and not to the rows.
fn dress(begun: &Begun, cluster: &Cluster) -> Result<(), Error> {
    let (data, restored) = (&begun.data, begun.restored());
    let mode = fs::metadata(data).map_err(Error::local(data.display()))?.mode() & 0o7777;
    fs::set_permissions(&restored, fs::Permissions::from_mode(mode))
        .map_err(Error::local(restored.display()))?;
    let name = "postgresql.auto.conf";
    if let Some(text) = durable::read(&data.join(name))? {
        durable::replace(&restored.join(name), &layout::without(&text, &OTHERS), cluster.owner)?;
    }
    Ok(())
}

/// The folder of data, if it can be exchanged for another one beside it.
fn exchangeable(cluster: &Cluster) -> Result<PathBuf, Error> {
    let refused =
        |why: String| Err(Error::Refused(format!("{}: {why}: restore it as a new cluster", cluster.title())));
    let data = fs::canonicalize(&cluster.data).map_err(Error::local(cluster.data.display()))?;
    if cluster.conf == cluster.data {
        return refused(
            "its configuration is in its folder of data, and would be exchanged with it".to_owned(),
        );
    }
    let Some(parent) = data.parent() else { return refused("its data has no folder around it".to_owned()) };
    let device = |path: &Path| fs::metadata(path).map(|is| is.dev()).map_err(Error::local(path.display()));
    if device(&data)? != device(parent)? {
        return refused(format!(
            "{} is a file system of its own, and its name cannot be changed",
            data.display()
        ));
    }
    let wal = data.join("pg_wal");
    if fs::symlink_metadata(&wal).map_err(Error::local(wal.display()))?.is_symlink() {
        return refused(format!(
            "{} leads to another place, which the restored files would not use",
            wal.display()
        ));
    }
    if data.join("standby.signal").exists() {
        return refused("it is a standby".to_owned());
    }
    let probe = tempfile::tempdir_in(parent).map_err(Error::local(parent.display()))?;
    let (one, other) = (probe.path().join("one"), probe.path().join("other"));
    for folder in [&one, &other] {
        fs::create_dir(folder).map_err(Error::local(folder.display()))?;
    }
    if exchange(&one, &other).is_err() {
        return refused(format!(
            "the file system of {} cannot exchange two names in one step",
            data.display()
        ));
    }
    Ok(data)
}

/// Gives each of two files the other's name, in one step.
fn exchange(one: &Path, other: &Path) -> Result<(), Error> {
    renameat2(AT_FDCWD, one, AT_FDCWD, other, RenameFlags::RENAME_EXCHANGE)
        .map_err(|error| Error::Local(format!("{}: {error}", one.display())))
}

/// Whether the server would start again, as far as that can be seen.
async fn would_serve(cluster: &Cluster) -> Result<(), Error> {
    let start = durable::read(&cluster.conf.join("start.conf"))?.unwrap_or_default();
    if start.lines().any(|line| line.trim() == "disabled") {
        return Err(Error::Refused(format!("start.conf of {} forbids a start", cluster.title())));
    }
    if !cluster.running {
        return layout::settings_hold(cluster).await;
    }
    let session = Session::open(cluster, "postgres", Bounds::LOOK).await?;
    if session.holds("select pg_is_in_recovery()").await? {
        return Err(Error::Refused(format!("{} is a standby: restore its primary", cluster.title())));
    }
    would_start(cluster, &session, true).await.map(|_| ())
}

/// Whether a backup is one of this cluster.
fn same_origin(cluster: &Cluster, chosen: &Chosen) -> Result<(), Error> {
    let (system, version) = (wal::system(&cluster.data)?, chosen.backup.version());
    if version != cluster.version || system != chosen.backup.system {
        return Err(Error::Refused(format!(
            "the backup {} is of version {version}, system {}, and {} of system {system}: say --id or --system, or restore it \
             as a new cluster",
            chosen.backup.record.stamp,
            chosen.backup.system,
            cluster.title()
        )));
    }
    Ok(())
}

/// Puts what is prepared in the place of the cluster.
///
/// # Errors
/// If nothing is prepared, or the server does not stop or start; said again it goes on.
pub async fn replace(named: &Named) -> Result<(), Error> {
    let name = &named.cluster;
    let _lock = lock::take(name)?;
    let Some(begun) = Begun::read(name)? else {
        return Err(Error::Refused(format!(
            "nothing is prepared for {name}: begin with `restore in-place prepare`"
        )));
    };
    begun.ours(name)?;
    let cluster = layout::cluster(name, Some(begun.version)).await?;
    let (hold, watch) = match begun.side()? {
        Side::Half => {
            return Err(Error::Refused(format!(
                "what was prepared for {} is not whole: `restore in-place undo`, and begin again",
                cluster.title()
            )));
        }
        Side::Ready => {
            would_serve(&cluster).await?;
            timeline_is_free(&begun).await?;
            if cluster.running {
                Session::open(&cluster, "postgres", Bounds::WORK).await?.run("checkpoint").await?;
            }
            let window = (Hold::begin(), cluster.running.then(|| Watch::begin(&cluster)));
            let exchanged = swap(&begun, &cluster).await;
            if exchanged.is_err() && cluster.running && begun.side()? == Side::Ready {
                // Clients go on where they were.
                layout::start(&cluster).await?;
            }
            exchanged?;
            window
        }
        Side::Exchanged => (Hold::begin(), None),
    };
    let started = serve(&begun, &cluster).await;
    let gap: Option<Duration> = match watch {
        Some(watch) => Some(watch.end().await?),
        None => None,
    };
    drop(hold);
    started.map_err(|error| {
        Error::Program(format!("the restored files are in place, and the server does not serve: {error}: see its log, then the same again"))
    })?;
    layout::remove_folder(&begun.work())?;
    durable::remove(&file(name))?;
    let aside = begun.aside().display().to_string();
    report::output("kept", aside.as_str());
    if let Some(gap) = gap {
        report::output("held_seconds", format!("{:.2}", gap.as_secs_f64()));
    }
    report::progress(
        100,
        &format!("{} has the restored state; what it had is in {aside}: make a backup now", cluster.title()),
    );
    Ok(())
}

/// The timeline that the restored files go on with must not have been used meanwhile: the archive would refuse its WAL.
async fn timeline_is_free(begun: &Begun) -> Result<(), Error> {
    let place = Place { id: begun.id.clone(), depot_config: begun.depot_config.clone() };
    let depot = Depot::new(&place, layout::administrator()?);
    let timeline =
        begun.timeline.ok_or_else(|| Error::Unclear("the restored files have no timeline".to_owned()))?;
    let history = archive::key(&place, begun.system, &format!("{timeline:08X}.history"));
    let history = history.ok_or_else(|| Error::Unclear(format!("no history of the timeline {timeline}")))?;
    if depot.names(&history).await?.contains(&history) {
        return Err(Error::Refused(format!(
            "another restore has begun the timeline {timeline} since: `restore in-place undo`, and begin again"
        )));
    }
    Ok(())
}

async fn swap(begun: &Begun, cluster: &Cluster) -> Result<(), Error> {
    layout::stop(cluster).await?;
    here(CrashPoint::InPlaceStopped);
    exchange(&begun.data, &begun.restored())?;
    here(CrashPoint::InPlaceExchanged);
    durable::sync(begun.data.parent().unwrap_or(Path::new("/")))
}

/// Keeps the old files under a name that says what they are, and has the server serve the restored ones.
async fn serve(begun: &Begun, cluster: &Cluster) -> Result<(), Error> {
    let (old, aside) = (begun.restored(), begun.aside());
    if old.exists() {
        fs::rename(&old, &aside).map_err(Error::local(old.display()))?;
        durable::sync(begun.data.parent().unwrap_or(Path::new("/")))?;
    }
    here(CrashPoint::InPlaceKept);
    layout::start(cluster).await?;
    let session = Session::open(cluster, "postgres", Bounds::LOOK).await?;
    if session.holds("select pg_is_in_recovery()").await? {
        return Err(Error::Unclear(format!("{} recovers once more, and should not", cluster.title())));
    }
    here(CrashPoint::InPlaceStarted);
    Ok(())
}

/// Whether a part is done, by the files and the server.
///
/// # Errors
/// [`Error::No`] if it is not; others if that cannot be told.
pub async fn done(named: &Named, part: Part) -> Result<(), Error> {
    let no = |why: &str| Err(Error::No(why.to_owned()));
    let begun = Begun::read(&named.cluster)?.filter(|begun| made::may_take_back(&begun.run));
    match (begun, part) {
        (Some(begun), Part::Prepare) if begun.side()? != Side::Half => Ok(()),
        (Some(_), _) => no("it was begun, and has not come to its end"),
        (None, _) => {
            let cluster = cluster(named).await?;
            let marked = durable::read(&mark(&cluster.data))?.unwrap_or_default();
            let run = marked.trim_end().split_once(' ').map(|(_, run)| run.to_owned());
            if run != Some(made::run()) {
                return no("this run has not put anything in place");
            }
            Session::open(&cluster, "postgres", Bounds::LOOK).await.map(|_| ())
        }
    }
}

/// Removes what [`prepare`] has made or begun; the cluster's own files are never touched.
///
/// # Errors
/// If the restored files are in place already, or something of them cannot be removed.
pub async fn undo(named: &Named) -> Result<(), Error> {
    let name = &named.cluster;
    let Some(begun) = Begun::read(name)?.filter(|begun| made::may_take_back(&begun.run)) else {
        return Ok(());
    };
    let _lock = lock::take(name)?;
    let cluster = layout::cluster(name, Some(begun.version)).await?;
    if begun.side()? == Side::Exchanged || !begun.data.join("PG_VERSION").exists() {
        return Err(Error::Refused(format!(
            "the restored files of {} are in place: `restore in-place replace` ends it, and docs/postgres.md says how to put \
             the old ones back",
            cluster.title()
        )));
    }
    layout::clear_folder(&begun.restored(), begun.version, cluster.owner).await?;
    layout::remove_folder(&begun.work())?;
    durable::remove(&file(name))
}
