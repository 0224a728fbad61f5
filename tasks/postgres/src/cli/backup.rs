//! `backup`: make one, list them, and let go of those that a rule does not keep.

use std::path::PathBuf;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::table::table;
use super::{print, print_json};
use crate::backup::prune::{self, Rule};
use crate::backup::reach;
use crate::backup::record::{self, Backup as Stored};
use crate::backup::{self, setup, stream};
use crate::depot::{Depot, Place};
use crate::error::Error;
use crate::{exec, layout, report};

/// What there is to do.
#[derive(clap::Subcommand)]
pub(super) enum Backup {
    /// Have a cluster archive its WAL, and prove it with a segment that is stored and fetched
    Setup(setup::Plan),
    /// Say whether a cluster archives by a setup: status 0 yes, 1 no, else it cannot be told
    SetupDone(setup::Which),
    /// Take the archive of a setup away again
    SetupUndo(setup::Which),
    /// Back a cluster up; it is a backup only when the archive has all WAL that it needs
    Run(Run),
    /// List backups, and how far each can be restored; status 7 if one is damaged or cut off
    List(List),
    /// Delete what a rule does not keep, and the WAL that nothing needs any more
    Prune(Prune),
    /// The stream of a base backup on its way to the depot
    #[command(hide = true)]
    Stream(Stream),
}

/// What `run` takes.
#[derive(clap::Args)]
pub(super) struct Run {
    /// Name of the cluster on this host
    #[arg(long, value_name = "NAME")]
    cluster: String,
    /// Its major version, where several versions have a cluster of this name
    #[arg(long, value_name = "VERSION")]
    version: Option<u16>,
    #[command(flatten)]
    place: Place,
    /// How long the archive may take for what the backup needs
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    wait: u64,
    /// Store only what was changed since the newest backup, as long as the full one below it is younger than this: from
    /// version 17 on [0: always a full one]
    #[arg(long, value_name = "DAYS", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=60))]
    incremental: u32,
}

/// What `list` takes.
#[derive(clap::Args)]
pub(super) struct List {
    #[command(flatten)]
    place: Place,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What `prune` takes.
#[derive(clap::Args)]
pub(super) struct Prune {
    #[command(flatten)]
    place: Place,
    /// Keep so many backups at least
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..), required_unless_present = "window")]
    keep: Option<u32>,
    /// Keep what restores every instant of so many days
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=3660))]
    window: Option<u32>,
    /// Say which backups would go, and delete nothing
    #[arg(long)]
    dry_run: bool,
}

/// What `stream` takes.
#[derive(clap::Args)]
pub(super) struct Stream {
    folder: PathBuf,
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

impl Backup {
    pub(super) async fn run(self) -> Result<(), Error> {
        match self {
            Self::Setup(plan) => setup::run(&plan).await,
            Self::SetupDone(which) => setup::done(&which).await,
            Self::SetupUndo(which) => setup::undo(&which).await,
            Self::Run(run) => {
                let cluster = layout::cluster(&run.cluster, run.version).await?;
                let depot = Depot::new(&run.place, Some(cluster.owner));
                let record =
                    backup::run(&cluster, &depot, Duration::from_secs(run.wait), run.incremental).await?;
                print(&record.stamp);
                Ok(())
            }
            Self::List(list) => list.run().await,
            Self::Prune(prune) => prune.run().await,
            Self::Stream(stream) => stream.run(),
        }
    }
}

impl List {
    async fn run(self) -> Result<(), Error> {
        let depot = Depot::new(&self.place, layout::administrator()?);
        let backups = record::all(&depot).await?;
        let mut states = Vec::new();
        for backup in &backups {
            states.push(reach::ask(&depot, backup).await?);
        }
        let bad = states.iter().filter(|state| state.is_err()).count();
        if self.json {
            let entries: Vec<_> = backups
                .iter()
                .zip(&states)
                .map(|(backup, state)| json!({"backup": backup.record, "good": state.is_ok(), "state": text(state)}))
                .collect();
            print_json(&entries)?;
        } else {
            let rows: Vec<_> =
                backups.iter().zip(&states).map(|(backup, state)| row(backup, state)).collect();
            print(&table(["BACKUP", "VERSION", "TIMELINE", "FROM", "MIB", "STATE"], &rows));
        }
        report::output("backups", backups.len());
        report::output("bad", bad);
        match states.iter().zip(&backups).find_map(|(state, backup)| Some((state.as_ref().err()?, backup))) {
            None => Ok(()),
            Some((why, backup)) => Err(Error::Damaged(format!(
                "{bad} of {} backups are not good, the first {}: {why}: make a new backup now",
                backups.len(),
                backup.record.stamp
            ))),
        }
    }
}

fn text(state: &Result<String, String>) -> &str {
    match state {
        Ok(text) | Err(text) => text,
    }
}

fn row(backup: &Stored, state: &Result<String, String>) -> [String; 6] {
    [
        backup.record.stamp.clone(),
        backup.version().to_string(),
        backup.record.timeline.to_string(),
        format!("{:.0}", backup.record.stopped),
        (backup.record.bytes >> 20).to_string(),
        match &backup.record.parent {
            Some(parent) => format!("{}; builds on {parent}", text(state)),
            None => text(state).to_owned(),
        },
    ]
}

impl Prune {
    async fn run(self) -> Result<(), Error> {
        let depot = Depot::new(&self.place, layout::administrator()?);
        let rule = Rule {
            keep: self.keep.and_then(|keep| usize::try_from(keep).ok()),
            window: self.window.map(|days| SignedDuration::from_hours(24 * i64::from(days))),
        };
        if !self.dry_run {
            return prune::run(&depot, &rule, Timestamp::now()).await;
        }
        let plan = prune::plan(&depot, &rule, Timestamp::now()).await?;
        for stamp in plan.backups.iter().chain(&plan.halves) {
            print(stamp);
        }
        Ok(())
    }
}

impl Stream {
    fn run(self) -> Result<(), Error> {
        let (program, words) =
            self.command.split_first().ok_or_else(|| Error::Refused("no command".to_owned()))?;
        let mut child = exec::source(program.as_ref(), words)?;
        let mut out = child.stdout.take().ok_or_else(|| Error::Local("no pipe".to_owned()))?;
        let copied = stream::copy(&mut out, &mut std::io::stdout().lock(), &self.folder);
        drop(out);
        let status = child.wait().map_err(Error::local(program))?;
        if !status.success() {
            return Err(Error::Program(format!("{program} failed: {status}")));
        }
        copied.map_err(|error| Error::Program(format!("{program}: {error}")))
    }
}
