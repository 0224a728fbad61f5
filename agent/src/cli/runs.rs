//! `hostler runs`: the newest runs, once or watched.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::connection::{Connection, ConnectionArgs};
use super::exit::Exit;
use super::fleet::Fleet;
use super::history::{Known, folders, newest_here, reported};
use super::screen;
use super::table::Table;
use super::watch::{WatchArgs, endless};
use super::{Failure, block, show};
use crate::domain::downtime::Downtime;
use crate::domain::name::Name;
use crate::host::clock;
use crate::report::document::RunReport;

/// From this width on, in characters, there is room for both the task and the trigger.
const WIDE: usize = 100;

/// What is said in place of an empty table.
const NONE: &str = "there are no runs, or the token may not see their reports";

#[derive(Args)]
pub(super) struct Arguments {
    /// Of this host only
    #[arg(long, value_name = "HOST")]
    host: Option<Name>,
    /// Maximum number of runs to list
    #[arg(long, short = 'n', value_name = "N", default_value = "20")]
    count: usize,
    #[command(flatten)]
    watch: WatchArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: ConnectionArgs,
}

/// Where runs are read from.
enum From {
    /// The host's own folders: all that are kept.
    Folders(PathBuf),
    /// What the hosts reported of their newest.
    Reports(Connection),
}

impl From {
    async fn read(&self, arguments: &Arguments) -> Result<Vec<Known>, Failure> {
        let host = arguments.host.as_ref();
        let mut runs = match self {
            Self::Folders(dir) => newest_here(dir, arguments.count)?,
            Self::Reports(place) => {
                let runs = reported(place, host).await?;
                if runs.is_empty()
                    && let Some(host) = host
                {
                    Fleet::read(place).await?.check_host(host)?;
                }
                runs
            }
        };
        runs.truncate(arguments.count);
        Ok(runs)
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    block(async {
        let settings = arguments.place.settings()?;
        let here = folders(&settings, arguments.host.as_ref()).await;
        let from = match here.filter(|_| !arguments.place.is_folder_only()) {
            Some(dir) => From::Folders(dir),
            None => From::Reports(Connection::existing(&settings)?),
        };
        if arguments.watch.watch {
            let look = async || {
                let runs = from.read(arguments).await?;
                Ok(if runs.is_empty() { format!("{NONE}\n") } else { table(runs, !screen::terminal()) })
            };
            return Ok(endless(&arguments.watch, look).await?.into());
        }
        let runs = from.read(arguments).await?;
        if arguments.json {
            let from = match from {
                From::Folders(_) => "folders",
                From::Reports(_) => "reports",
            };
            show::json(&json!({"from": from, "runs": runs}))?;
        } else if runs.is_empty() {
            show::note(NONE);
        } else {
            show::page(&table(runs, false))?;
            if matches!(from, From::Reports(_)) {
                show::note(
                    "from the hosts' reports, the newest 20 of each; on the host itself all that are kept",
                );
            }
        }
        Ok(Exit::Success.into())
    })
}

/// A line for each run; `still`: what is under way has no length yet, so that only news changes the text.
///
/// On a terminal the start is told as how long ago: a time would leave no room for why a run failed.
fn table(runs: Vec<Known>, still: bool) -> String {
    let now = clock::now();
    let started = if screen::terminal() { "AGO" } else { "STARTED" };
    // Where there is no room for both, why it ran says more than the name of the task, of which little would be left.
    let narrow = screen::width().is_some_and(|width| width < WIDE);
    let mut headings = vec!["RUN", "HOST", "ORDER"];
    headings.extend((!narrow).then_some("TASK"));
    headings.extend(["CAUSE", "PHASE", started, "TOOK"]);
    // Most runs cost nobody anything: then there is more room for why one failed.
    let costly = runs.iter().any(|known| !known.report.downtime.is_empty());
    headings.extend(costly.then_some("DOWNTIME"));
    headings.push("ERROR");
    let mut table = Table::new(&headings);
    for known in runs {
        let report = known.report;
        let until = report.ended.or((!still).then_some(now));
        let took = report.started.zip(until).map(|(started, until)| until.duration_since(started));
        let trigger = trigger(&report);
        let mut cells = vec![known.run.to_string(), known.host, report.order];
        cells.extend((!narrow).then_some(report.task));
        cells.extend([
            trigger,
            report.phase,
            match report.started {
                Some(at) if screen::terminal() => show::length(now.duration_since(at)),
                at => show::time(at),
            },
            took.map(show::length).unwrap_or_default(),
        ]);
        cells.extend(costly.then(|| downtime(&report.downtime)));
        cells.push(report.error.unwrap_or_default());
        table.cells(&cells);
    }
    table.shown()
}

/// How long the run kept which service from its users: the one that lost the most, and how many others there are.
fn downtime(all: &[Downtime]) -> String {
    let Some(most) = all.iter().max_by_key(|one| one.seconds) else { return String::new() };
    let others = all.len().saturating_sub(1);
    let more = if others > 0 { format!(" +{others}") } else { String::new() };
    format!("{} {}{more}", most.service, most.seconds)
}

/// Why it ran, and that it was to change nothing.
fn trigger(report: &RunReport) -> String {
    match (&report.trigger, report.dry_run) {
        (None, false) => String::new(),
        (None, true) => "dry run".to_owned(),
        (Some(trigger), false) => trigger.clone(),
        (Some(trigger), true) => format!("dry run, {trigger}"),
    }
}
