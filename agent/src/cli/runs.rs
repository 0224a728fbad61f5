//! `hostler runs`: the newest runs, once or watched; `hostler runs show`: all that is known of one.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::connection::{Connection, ConnectionArgs, said};
use super::exit::{Exit, end_of_phase};
use super::fleet::Fleet;
use super::history::{
    Known, ReportedRun, RunPart, folder_of, folders, newest_here, newest_of, of_folder, reported_one, short,
};
use super::moment;
use super::screen;
use super::table::Table;
use super::watch::{WatchArgs, endless};
use super::{Failure, block, show};
use crate::domain::downtime::Downtime;
use crate::domain::name::Name;
use crate::domain::source::Source;
use crate::host::clock;
use crate::report::document::RunReport;

/// What is said in place of an empty table.
const NONE: &str = "there are no runs, or the token may not see their reports";

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Arguments {
    #[command(subcommand)]
    act: Option<RunsCommand>,
    #[command(flatten)]
    list: List,
}

#[derive(Subcommand)]
enum RunsCommand {
    /// Show all that is known of a run
    Show(Show),
}

#[derive(Args)]
struct Show {
    /// The run: its id, or at least six characters of its beginning or its end
    run: RunPart,
    /// The host, where it is known: a shorter question to the store
    #[arg(long, value_name = "HOST")]
    host: Option<Name>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: ConnectionArgs,
}

#[derive(Args)]
struct List {
    /// Of these hosts only, separated by commas
    #[arg(long, value_name = "HOST", value_delimiter = ',')]
    host: Vec<Name>,
    /// Of the known hosts of this group only
    #[arg(long, value_name = "GROUP", conflicts_with = "host")]
    group: Option<Name>,
    /// Of this order only
    #[arg(long, value_name = "ORDER")]
    order: Option<Name>,
    /// Of this task only, in whichever version
    #[arg(long, value_name = "TASK")]
    task: Option<Name>,
    /// Begun since then: 7d, 22:00, 2026-11-30 or "2026-11-30 06:00"
    #[arg(long, value_name = "TIME", value_parser = moment::past)]
    since: Option<Timestamp>,
    /// Only those that are over and did not succeed
    #[arg(long)]
    failed: bool,
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

impl List {
    /// Whether a run is asked for, by all but its host.
    fn wants(&self, known: &Known) -> bool {
        let report = &known.report;
        let named = |name: &Option<Name>, of: &str| name.as_ref().is_none_or(|name| name.as_str() == of);
        let begun = || {
            let millis = i64::try_from(known.run.millis()).unwrap_or(i64::MAX);
            // A run that waits to begin was made just now.
            report.started.or_else(|| Timestamp::from_millisecond(millis).ok())
        };
        named(&self.order, &report.order)
            && named(&self.task, report.task.split('@').next().unwrap_or_default())
            && self.since.is_none_or(|since| begun().is_some_and(|begun| begun >= since))
            && (!self.failed || end_of_phase(&report.phase).is_some_and(|end| !end.is_good()))
    }

    /// Whether anything but the newest of all was asked for.
    fn chooses(&self) -> bool {
        self.order.is_some() || self.task.is_some() || self.since.is_some() || self.failed
    }
}

/// Where runs are read from.
enum From {
    /// The host's own folders: all that are kept.
    Folders(PathBuf),
    /// What the hosts reported of their newest.
    Reports(Connection),
}

impl From {
    async fn read(&self, list: &List) -> Result<Vec<Known>, Failure> {
        let mut runs = match self {
            Self::Folders(dir) => newest_here(dir, list.count, |known| list.wants(known))?,
            Self::Reports(place) => of_hosts(place, list).await?,
        };
        runs.truncate(list.count);
        Ok(runs)
    }
}

/// The wanted runs of the hosts that were asked for.
async fn of_hosts(place: &Connection, list: &List) -> Result<Vec<Known>, Failure> {
    if let ([host], None) = (&*list.host, &list.group) {
        let all = ReportedRun::all(place, Some(host)).await?;
        let runs = newest_of(place, &all, list.count, |known| list.wants(known)).await?;
        if runs.is_empty() {
            Fleet::read(place).await?.check_host(host)?;
        }
        return Ok(runs);
    }
    let mut hosts: BTreeSet<Name> = list.host.iter().cloned().collect();
    if !hosts.is_empty() || list.group.is_some() {
        let fleet = Fleet::read(place).await?;
        for host in &hosts {
            fleet.check_host(host)?;
        }
        if let Some(group) = &list.group {
            fleet.check(&Source::Group(group.clone()))?;
            fleet.note_claimants(group);
            hosts.extend(fleet.members(group).into_iter().cloned());
        }
    }
    let everywhere = list.host.is_empty() && list.group.is_none();
    let mut all = ReportedRun::all(place, None).await?;
    all.retain(|one| everywhere || hosts.contains(&one.host));
    newest_of(place, &all, list.count, |known| list.wants(known)).await
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    match &arguments.act {
        Some(RunsCommand::Show(one)) => block(self::one(one)),
        None => block(list(&arguments.list)),
    }
}

async fn list(list: &List) -> Result<ExitCode, Failure> {
    let settings = list.place.settings()?;
    let here = match (&*list.host, &list.group) {
        ([], None) => folders(&settings, None).await,
        ([host], None) => folders(&settings, Some(host)).await,
        _ => None,
    };
    let from = match here.filter(|_| !list.place.is_folder_only()) {
        Some(dir) => From::Folders(dir),
        None => From::Reports(Connection::existing(&settings)?),
    };
    let none = if list.chooses() { "there are no such runs among those that are known" } else { NONE };
    if list.watch.watch {
        let look = async || {
            let runs = from.read(list).await?;
            Ok(if runs.is_empty() { format!("{none}\n") } else { table(runs, !screen::terminal()) })
        };
        return Ok(endless(&list.watch, look).await?.into());
    }
    let runs = from.read(list).await?;
    if list.json {
        let from = match from {
            From::Folders(_) => "folders",
            From::Reports(_) => "reports",
        };
        show::json(&json!({"from": from, "runs": runs}))?;
    } else if runs.is_empty() {
        show::note(none);
    } else {
        show::page(&table(runs, false))?;
        if matches!(from, From::Reports(_)) {
            show::note(
                "from the hosts' reports, the newest 20 of each; on the host itself all that are kept",
            );
        }
    }
    Ok(Exit::Success.into())
}

async fn one(one: &Show) -> Result<ExitCode, Failure> {
    let settings = one.place.settings()?;
    let here = folders(&settings, one.host.as_ref()).await.filter(|_| !one.place.is_folder_only());
    let folder = match here {
        Some(dir) => folder_of(&dir, &one.run)?,
        None => None,
    };
    let (known, from) = match folder {
        Some(folder) => (of_folder(&folder)?, "folder"),
        None => {
            let place = Connection::existing(&settings)?;
            (reported_one(&place, one.host.as_ref(), &one.run).await?, "report")
        }
    };
    if one.json {
        show::json(&json!({"run": known, "from": from}))?;
    } else {
        show::page(&whole(&known))?;
    }
    Ok(Exit::Success.into())
}

/// Where values begin in their lines.
const AT: usize = 13;

/// Everything that is known of a run.
fn whole(known: &Known) -> String {
    let report = &known.report;
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let time = |at: Option<Timestamp>| at.map(|at| show::time(Some(at))).unwrap_or_default();
    let took = match (report.started, report.ended) {
        (Some(started), Some(ended)) => format!(" (took {})", show::length(ended.duration_since(started))),
        _ => String::new(),
    };
    let place = report.source.as_ref().map(|source| format!("{source}/{}", report.order));
    let fields = [
        ("run", known.run.to_string()),
        ("host", known.host.clone()),
        ("order", place.unwrap_or_else(|| report.order.clone())),
        ("task", report.task.clone()),
        ("parameters", text(&report.params)),
        ("by", text(&report.by)),
        ("reason", text(&report.reason)),
        ("trigger", trigger(report)),
        ("phase", report.phase.clone()),
        ("error", text(&report.error)),
        ("started", time(report.started)),
        ("ended", report.ended.map(|_| format!("{}{took}", time(report.ended))).unwrap_or_default()),
        ("exit code", report.exit_code.map(|code| code.to_string()).unwrap_or_default()),
        ("epoch", if report.epoch > 1 { report.epoch.to_string() } else { String::new() }),
        ("killed", report.killed_processes.join(", ")),
    ];
    let mut shown = String::new();
    let mut line = |name: &str, value: &str| {
        shown.push_str(&format!("{name:<12} {}\n", show::indented(value, AT)));
    };
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_empty()) {
        line(name, value);
    }
    for step in &report.steps {
        let exit = step.exit.as_ref().map(|exit| {
            if exit.bytes().all(|byte| byte.is_ascii_digit()) { format!("exit {exit}") } else { exit.clone() }
        });
        let took = SignedDuration::from_millis(i64::try_from(step.took_ms).unwrap_or(i64::MAX));
        let parts = match step.started {
            None => vec![step.name.clone()],
            Some(at) => vec![
                step.name.clone(),
                show::time(Some(at)),
                show::length(took),
                exit.unwrap_or_else(|| "no exit known".to_owned()),
            ],
        };
        line("step", &parts.join("  "));
    }
    for warning in &report.warnings {
        line("warning", warning);
    }
    for (name, value) in &report.outputs {
        line("output", &format!("{name} = {value}"));
    }
    for one in &report.downtime {
        line("downtime", &one.to_string());
    }
    line("next", &format!("hostler logs {}{}", known.run, said()));
    if let Some(tail) = &report.tail {
        shown.push_str("the end of what it printed:\n");
        show::lines(tail.trim_end()).lines().for_each(|line| shown.push_str(&format!("  | {line}\n")));
    }
    shown
}

/// A line for each run; `still`: what is under way has no length yet, so that only news changes the text.
///
/// On a terminal the start is told as how long ago: a time would leave no room for why a run failed.
fn table(runs: Vec<Known>, still: bool) -> String {
    let now = clock::now();
    let started = if screen::terminal() { "AGO" } else { "STARTED" };
    let mut headings = vec!["RUN", "HOST", "ORDER", "TASK", "TRIGGER", "PHASE", started, "TOOK"];
    // Most runs cost nobody anything: then there is more room for why one failed.
    let costly = runs.iter().any(|known| !known.report.downtime.is_empty());
    headings.extend(costly.then_some("DOWNTIME"));
    headings.push("ERROR");
    let mut table = Table::new(&headings).names(3, &["TASK", "TOOK", "AGO", "TRIGGER"]);
    for known in runs {
        let report = known.report;
        let until = report.ended.or((!still).then_some(now));
        let took = report.started.zip(until).map(|(started, until)| until.duration_since(started));
        let trigger = trigger(&report);
        // The short form names it in commands; where nothing is cut, programs may read the whole.
        let run = if screen::terminal() { short(known.run) } else { known.run.to_string() };
        let mut cells = vec![run, known.host, report.order, report.task];
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
