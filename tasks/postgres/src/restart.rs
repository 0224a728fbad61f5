//! The restart of a cluster, as short as it can be, and only where the start is known to succeed as far as that can be
//! known: for a minor version whose packages are installed, or for settings that wait for one.
//!
//! A mark is on the disk while the server may be down for it: the next one starts a server that only that has stopped.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::crash::{CrashPoint, here};
use crate::durable;
use crate::error::Error;
use crate::exec::Owner;
use crate::layout::{self, Cluster};
use crate::report;
use crate::server::{Bounds, Session};

/// How often is asked whether the server answers.
const ASK: Duration = Duration::from_millis(20);

/// What is restarted, and why.
#[derive(Clone, Debug, clap::Args)]
pub struct Plan {
    /// Name of the cluster
    #[arg(long, value_name = "NAME")]
    pub(crate) cluster: String,
    /// Its major version, where several versions have a cluster of this name
    #[arg(long, value_name = "VERSION")]
    pub(crate) version: Option<u16>,
    /// Restart although nothing waits for it
    #[arg(long)]
    pub(crate) always: bool,
    /// Let settings that wait for a restart take effect with it
    #[arg(long)]
    pub(crate) settings: bool,
}

/// Restarts, if there is a reason.
///
/// # Errors
/// If the files of settings are wrong, settings wait that were not asked for, or the server does not come back as it
/// should.
pub async fn run(plan: &Plan) -> Result<(), Error> {
    let cluster = layout::cluster(&plan.cluster, plan.version).await?;
    let mark = durable::state().join(format!("restart-{}-{}", cluster.version, cluster.name));
    if !cluster.running && durable::read(&mark)?.is_some() {
        report::message(&format!(
            "{} was stopped by a restart that did not come to its end",
            cluster.title()
        ));
        layout::start(&cluster).await?;
    }
    let session = Session::open(&cluster, "postgres", Bounds::WORK).await?;
    durable::remove(&mark)?;
    let running = session.text("select split_part(current_setting('server_version'), ' ', 1)").await?;
    let installed = layout::minor(cluster.version).await?;
    let waiting = would_start(&cluster, &session, plan.settings).await?;
    if running == installed && !waiting && !plan.always {
        report::message(&format!(
            "{} runs {running}, which is installed, and nothing waits for a restart",
            cluster.title()
        ));
        return Ok(());
    }
    report::progress(10, &format!("{} runs {running}, installed is {installed}", cluster.title()));
    // What is written now is not written while clients wait.
    session.run("checkpoint").await?;
    drop(session);
    let folder = durable::state();
    std::fs::create_dir_all(&folder).map_err(Error::local(folder.display()))?;
    durable::replace(&mark, "\n", Owner { uid: 0, gid: 0 })?;
    here(CrashPoint::RestartIntended);
    let (watch, begun) = (Watch::begin(&cluster), Instant::now());
    let restarted = layout::restart(&cluster).await;
    let gap = watch.end().await?;
    restarted?;
    let session = Session::open(&cluster, "postgres", Bounds::LOOK).await?;
    let now = session.text("select split_part(current_setting('server_version'), ' ', 1)").await?;
    if now != installed {
        return Err(Error::Unclear(format!(
            "{} runs {now} after the restart, and {installed} is installed",
            cluster.title()
        )));
    }
    durable::remove(&mark)?;
    report::output("running", now.as_str());
    report::output("gap_seconds", format!("{:.2}", gap.as_secs_f64()));
    report::progress(
        100,
        &format!(
            "{} runs {now}; it did not answer for {:.2} s of {:.1} s",
            cluster.title(),
            gap.as_secs_f64(),
            begun.elapsed().as_secs_f64()
        ),
    );
    Ok(())
}

/// Whether settings wait for a restart of a cluster, where it would start again.
///
/// # Errors
/// If its files are wrong, or settings wait and `settings` says that they must not take effect.
pub(crate) async fn would_start(cluster: &Cluster, session: &Session, settings: bool) -> Result<bool, Error> {
    let waiting = session
        .value("select string_agg(name, ', ' order by name) from pg_settings where pending_restart")
        .await?;
    check_files(cluster, session).await?;
    if let Some(names) = waiting.as_deref().filter(|_| !settings) {
        return Err(Error::Refused(format!(
            "{}: a restart would also change {names}: say --settings if that is meant, or take the changes back",
            cluster.title()
        )));
    }
    Ok(waiting.is_some())
}

/// Somebody who logs in to a cluster again and again, and so knows for how long nobody was answered.
pub(crate) struct Watch {
    cluster: Cluster,
    stop: Arc<Notify>,
    task: JoinHandle<Gap>,
}

/// The longest time between two answers.
struct Gap {
    from: Timestamp,
    length: Duration,
}

impl Watch {
    /// Begins to ask the server of a cluster, which answers.
    pub(crate) fn begin(cluster: &Cluster) -> Self {
        let stop = Arc::new(Notify::new());
        let (asked, told) = (cluster.clone(), Arc::clone(&stop));
        let task = tokio::spawn(async move { gap(&asked, &told).await });
        Self { cluster: cluster.clone(), stop, task }
    }

    /// Ends it after one more question. Reports the longest time without an answer as downtime, whatever else has become
    /// of the server, and says it.
    ///
    /// # Errors
    /// If the process has no room for the task.
    pub(crate) async fn end(self) -> Result<Duration, Error> {
        self.stop.notify_one();
        let gap = self.task.await.map_err(|error| Error::Local(error.to_string()))?;
        report::downtime(&format!("postgres:{}", self.cluster.name), gap.from, gap.length);
        Ok(gap.length)
    }
}

async fn gap(cluster: &Cluster, stop: &Notify) -> Gap {
    let (mut last, mut since) = (Instant::now(), Timestamp::now());
    let mut longest = Gap { from: since, length: Duration::ZERO };
    let mut stopping = false;
    loop {
        let answers = match Session::open(cluster, "postgres", Bounds::LOOK).await {
            Ok(session) => session.holds("select true").await.unwrap_or(false),
            Err(_) => false,
        };
        if (answers || stopping) && last.elapsed() > longest.length {
            longest = Gap { from: since, length: last.elapsed() };
        }
        if stopping {
            return longest;
        }
        if answers {
            (last, since) = (Instant::now(), Timestamp::now());
        }
        tokio::select! {
            () = sleep(ASK) => {}
            () = stop.notified() => stopping = true,
        }
    }
}

/// Whether the files are such that a server starts with them: a broken one would only be found when the old one is gone.
async fn check_files(cluster: &Cluster, session: &Session) -> Result<(), Error> {
    // A change that waits for a restart is an error of this kind, too, and none that a start would meet; so is a line that
    // was taken away, which has no place in a file.
    let wrong = session
        .value(
            "select string_agg(format('%s:%s %s: %s', sourcefile, sourceline, coalesce(name, '?'), error), '; ') \
             from pg_file_settings where error is not null and error <> 'setting could not be applied' \
             and sourcefile is not null",
        )
        .await?;
    let hba = session
        .value("select string_agg(format('line %s: %s', line_number, error), '; ') from pg_hba_file_rules where error is not null")
        .await?;
    if let Some(why) = wrong.or(hba) {
        return Err(Error::Refused(format!(
            "{} would not start again: {why}: repair it first",
            cluster.title()
        )));
    }
    layout::settings_hold(cluster).await
}
