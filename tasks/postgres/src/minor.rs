//! A newer minor version: packages, and one restart, after a CHECKPOINT and measured.
//!
//! Debian's package restarts every cluster of its version, and starts only those again that are started at boot; the rpm of
//! the PGDG restarts the one of its own unit, if it does. So all that may be restarted are looked at before, none is restarted along the way without being named, and those that ran are started again. A list
//! of them is on the disk while servers may be down: the next one starts what only this has stopped.

use std::time::Duration;

use jiff::Timestamp;

use crate::crash::{CrashPoint, here};
use crate::durable;
use crate::error::Error;
use crate::exec::Owner;
use crate::layout::{self, Cluster};
use crate::packages::{Package, Target};
use crate::report;
use crate::restart::{self, Watch};
use crate::server::{Bounds, Session};

/// What is brought to which minor version.
#[derive(Clone, Debug, clap::Args)]
pub struct Plan {
    /// Name of the cluster
    #[arg(long, value_name = "NAME")]
    cluster: String,
    /// Its major version, where several versions have a cluster of this name
    #[arg(long, value_name = "VERSION")]
    version: Option<u16>,
    /// Version of the server's package, as dpkg spells it; else the newest that the repositories offer
    #[arg(long, value_name = "VERSION")]
    to: Option<String>,
    /// Let the other running clusters of the same major version be restarted, too: the package does that
    #[arg(long)]
    others: bool,
    /// Let settings that wait for a restart take effect with it
    #[arg(long)]
    settings: bool,
}

/// Brings a cluster to the minor version; nothing where it runs it.
///
/// # Errors
/// If a server would not start again, others would be restarted that were not named, packages fail, or a server does not
/// come back as it should.
pub async fn run(plan: &Plan) -> Result<(), Error> {
    let cluster = layout::cluster(&plan.cluster, plan.version).await?;
    let mark = durable::state().join(format!("minor-{}", cluster.version));
    let stopped = durable::read(&mark)?.unwrap_or_default();
    if !stopped.is_empty() {
        report::message("an earlier change of the packages did not come to its end");
        Package::repair().await?;
        come_back(cluster.version, &stopped).await?;
        durable::remove(&mark)?;
    }
    let package = Package::of(cluster.version).await?;
    let target = package.target(plan.to.as_deref()).await?;
    let Target::Other(target) = target else {
        report::message(&format!("{} is installed", package.installed));
        return restart::run(&plan.restart()).await;
    };
    let running = running(cluster.version).await?;
    if !running.iter().any(|other| other.name == cluster.name) {
        return Err(Error::Refused(format!("{} does not run: start it, or find out why", cluster.title())));
    }
    let running: Vec<_> = running
        .into_iter()
        .filter(|other| other.name == cluster.name || package.restarts(&other.name))
        .collect();
    let others: Vec<_> =
        running.iter().filter(|other| other.name != cluster.name).map(Cluster::title).collect();
    if !others.is_empty() && !plan.others {
        return Err(Error::Refused(format!(
            "the package would also restart {}: say --others if that is meant",
            others.join(", ")
        )));
    }
    let mut sessions = Vec::new();
    for cluster in &running {
        let session = Session::open(cluster, "postgres", Bounds::WORK).await?;
        restart::would_start(cluster, &session, plan.settings).await?;
        sessions.push(session);
    }
    report::progress(10, &format!("fetching {target}"));
    package.fetch(&target).await?;
    // What is written now is not written while clients wait.
    for session in &sessions {
        session.run("checkpoint").await?;
    }
    drop(sessions);
    let names: String = running.iter().map(|cluster| format!("{}\n", cluster.name)).collect();
    let folder = durable::state();
    std::fs::create_dir_all(&folder).map_err(Error::local(folder.display()))?;
    durable::replace(&mark, &names, Owner { uid: 0, gid: 0 })?;
    here(CrashPoint::MinorIntended);
    report::progress(50, &format!("installing {target}, which restarts {}", titles(&running)));
    let begun = Timestamp::now();
    let watches: Vec<_> = running.iter().map(Watch::begin).collect();
    let installed = package.install(&target).await;
    // Also after a failure: nobody else starts what the package has stopped.
    let mut back = come_back(cluster.version, &names).await;
    if installed.is_ok() && back.is_ok() && !package.stops() {
        back = renew(&running, begun).await;
    }
    let mut gap = Duration::ZERO;
    for (watch, of) in watches.into_iter().zip(&running) {
        let length = watch.end().await?;
        if of.name == cluster.name {
            gap = length;
        }
    }
    installed?;
    back?;
    durable::remove(&mark)?;
    let expected = layout::minor(cluster.version).await?;
    for cluster in &running {
        let session = Session::open(cluster, "postgres", Bounds::LOOK).await?;
        let now = session.text("select split_part(current_setting('server_version'), ' ', 1)").await?;
        let began = began(&session).await?;
        if now != expected || began < begun.as_second() {
            return Err(Error::Unclear(format!(
                "{} runs {now} since {began}, and {expected} is installed: hostler-postgres restart restarts it",
                cluster.title()
            )));
        }
    }
    report::output("package", target.as_str());
    report::output("running", expected.as_str());
    report::output("gap_seconds", format!("{:.2}", gap.as_secs_f64()));
    report::output("restarted", running.len());
    let said = format!(
        "{} runs {expected}; it did not answer for {:.2} s; restarted: {}",
        cluster.title(),
        gap.as_secs_f64(),
        titles(&running)
    );
    report::progress(100, &said);
    Ok(())
}

impl Plan {
    fn restart(&self) -> restart::Plan {
        restart::Plan {
            cluster: self.cluster.clone(),
            version: self.version,
            always: false,
            settings: self.settings,
        }
    }
}

fn titles(clusters: &[Cluster]) -> String {
    clusters.iter().map(Cluster::title).collect::<Vec<_>>().join(", ")
}

/// The clusters of a major version whose servers run.
async fn running(version: u16) -> Result<Vec<Cluster>, Error> {
    let list = layout::list().await?;
    // Of one that cannot be read nobody knows whether the package would restart it.
    if let Some(unclear) = list.unclear.iter().find(|unclear| unclear.version == version) {
        return Err(Error::Unclear(format!(
            "{} is restarted by the package, too, and cannot be read: {}",
            unclear.title(),
            unclear.why
        )));
    }
    Ok(list.clusters.into_iter().filter(|cluster| cluster.version == version && cluster.running).collect())
}

/// Restarts those of these clusters whose servers were started before this instant: they run the program of before.
async fn renew(clusters: &[Cluster], since: Timestamp) -> Result<(), Error> {
    for cluster in clusters {
        if began(&Session::open(cluster, "postgres", Bounds::LOOK).await?).await? < since.as_second() {
            layout::restart(cluster).await?;
        }
    }
    Ok(())
}

/// When a server was started, in seconds of the epoch.
async fn began(session: &Session) -> Result<i64, Error> {
    let text = session.text("select extract(epoch from pg_postmaster_start_time())::bigint").await?;
    text.parse().map_err(|_| Error::Server(format!("a server was started at {text}")))
}

/// Starts those of these clusters, one name a line, that do not run.
async fn come_back(version: u16, names: &str) -> Result<(), Error> {
    let mut failed = Vec::new();
    for cluster in layout::clusters().await? {
        if cluster.version == version && !cluster.running && names.lines().any(|name| name == cluster.name) {
            // The others are not left down for the sake of one.
            if let Err(error) = layout::start(&cluster).await {
                failed.push(error.to_string());
            }
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(Error::Program(failed.join("; "))) }
}
