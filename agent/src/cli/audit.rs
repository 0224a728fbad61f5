//! `hostler audit`: what this host was asked for, what it decided and did, from its own record.

use std::collections::VecDeque;
use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use super::audit_afar::{self, Filter};
use super::connection::{Connection, ConnectionArgs};
use super::exit::{Exit, fault};
use super::history::this_host_or_node;
use super::moment;
use super::table::Table;
use super::{Failure, block, screen, show};
use crate::config::Settings;
use crate::domain::audit::{Entry, Head, NumberedEntry};
use crate::domain::name::Name;
use crate::host::log::LogError;
use crate::ledger::audit::{self, AuditError};
use crate::report::document::{self, AgentReport};

/// On a narrower screen runs and times would both be cut, and neither is of use then: the runs are left out.
const ROOM_FOR_RUNS: usize = 110;

#[derive(Args)]
pub(super) struct Arguments {
    /// Follow the chain through every line, and compare its end with the report in the store
    #[arg(long)]
    verify: bool,
    /// What the store says of these hosts, separated by commas, in place of this host's record
    #[arg(long, value_name = "HOST", value_delimiter = ',', conflicts_with = "verify")]
    host: Vec<Name>,
    /// The same of the known hosts of this group
    #[arg(long, value_name = "GROUP", conflicts_with_all = ["host", "verify"])]
    group: Option<Name>,
    /// Show only this order
    #[arg(long, value_name = "ORDER", conflicts_with = "verify")]
    order: Option<String>,
    /// Show only this task, in whichever version
    #[arg(long, value_name = "TASK", conflicts_with = "verify")]
    task: Option<Name>,
    /// Show only what this person asked for
    #[arg(long, value_name = "WHO", conflicts_with = "verify")]
    by: Option<String>,
    /// Show only what happened since then: 7d, 22:00, 2026-11-30 or "2026-11-30 06:00"
    #[arg(long, value_name = "TIME", value_parser = moment::past, conflicts_with = "verify")]
    since: Option<Timestamp>,
    /// Show at most N entries, newest first; 0 for all
    #[arg(long, short = 'n', value_name = "N", default_value = "50", conflicts_with = "verify")]
    count: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: ConnectionArgs,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    block(async {
        let settings = arguments.place.settings()?;
        if !arguments.host.is_empty() || arguments.group.is_some() {
            let filter = Filter {
                hosts: &arguments.host,
                group: arguments.group.as_ref(),
                order: arguments.order.as_deref(),
                task: arguments.task.as_ref(),
                by: arguments.by.as_deref(),
                since: arguments.since,
                count: arguments.count,
            };
            return audit_afar::list(&Connection::existing(&settings)?, &filter, arguments.json).await;
        }
        if !settings.state_dir.exists() {
            let message = format!(
                "there is no {}: this host has no record yet, its agent makes one when it first starts",
                settings.state_dir.display()
            );
            return Err(fault(Exit::ConfigError, message));
        }
        if arguments.verify { verify(arguments, &settings).await } else { list(arguments, &settings) }
    })
}

fn list(arguments: &Arguments, settings: &Settings) -> Result<ExitCode, Failure> {
    let most = if arguments.count == 0 { usize::MAX } else { arguments.count };
    let mut newest = VecDeque::new();
    let walked = audit::walk(&settings.state_dir, |line| {
        for entry in line.entries {
            let recent = arguments.since.is_none_or(|since| line.at >= since);
            if recent && arguments.wants(&entry) {
                newest.push_back(NumberedEntry { n: line.n, at: line.at, entry });
                if newest.len() > most {
                    newest.pop_front();
                }
            }
        }
    });
    walked.map_err(faulty)?;
    if arguments.json {
        show::json(&json!({"entries": newest}))?;
        return Ok(Exit::Success.into());
    }
    let narrow = screen::width().is_some_and(|width| width < ROOM_FOR_RUNS);
    let mut headings = vec!["LINE", "AT", "WHAT", "ORDER", "RUN", "BY", "REASON", "SAYS"];
    headings.retain(|heading| !narrow || *heading != "RUN");
    let mut table = Table::new(&headings);
    for NumberedEntry { n, at, entry } in newest {
        let downtime = entry.downtime.iter().map(|one| format!("{} down {}", one.service, one.seconds));
        let downtime = downtime.collect::<Vec<_>>().join(", ");
        let downtime = Some(downtime).filter(|text| !text.is_empty());
        let says = [entry.params, entry.why, entry.end, entry.step, downtime, entry.error];
        let (n, at, order) = (n.to_string(), show::time(Some(at)), entry.order.unwrap_or_default());
        let (run, by) = (entry.run.unwrap_or_default(), entry.by.unwrap_or_default());
        let reason = entry.reason.unwrap_or_default();
        let says = says.into_iter().flatten().collect::<Vec<_>>().join(": ");
        if narrow {
            table.row([n, at, entry.what, order, by, reason, says]);
        } else {
            table.row([n, at, entry.what, order, run, by, reason, says]);
        }
    }
    show::page(&table.shown())?;
    if narrow {
        show::note("the runs of these lines: hostler audit --json, or a wider screen");
    }
    Ok(Exit::Success.into())
}

impl Arguments {
    /// Whether an entry is asked for, by all but its time.
    fn wants(&self, entry: &Entry) -> bool {
        let task = entry.task.as_deref().map(|task| task.split('@').next().unwrap_or(task));
        is_of(entry, self.order.as_deref())
            && (self.by.is_none() || entry.by == self.by)
            && self.task.as_ref().is_none_or(|wanted| task == Some(wanted.as_str()))
    }
}

/// Whether an entry is about the order, whose place (`hosts/db1/backup`) or name may be given.
fn is_of(entry: &Entry, order: Option<&str>) -> bool {
    let Some(wanted) = order else { return true };
    entry.order.as_deref().is_some_and(|place| place == wanted || place.rsplit('/').next() == Some(wanted))
}

async fn verify(arguments: &Arguments, settings: &Settings) -> Result<ExitCode, Failure> {
    // The report first: the agent may add lines while the disk is read.
    let reported = reported(settings).await;
    let head = audit::walk(&settings.state_dir, |_| {}).map_err(faulty)?;
    let oldest = audit::oldest(&settings.state_dir).map_err(faulty)?.unwrap_or(1);
    if let Ok(Some(reported)) = &reported
        && let Some(why) = audit::contradicts(&settings.state_dir, reported).map_err(faulty)?
    {
        return Err(fault(Exit::Negative, format!("the audit is not whole: {why}")));
    }
    let compared = match &reported {
        Ok(Some(reported)) => format!("the last line reported to the store is {}", reported.n),
        Ok(None) => "no line was reported to the store, so the end is not verified".to_owned(),
        Err(error) => format!("the end is not verified: {error}"),
    };
    say(arguments, &head, oldest, &compared)?;
    Ok(Exit::Success.into())
}

fn say(arguments: &Arguments, head: &Head, oldest: u64, compared: &str) -> std::io::Result<()> {
    if arguments.json {
        let document = json!({"from": oldest, "to": head.n, "hash": head.hash, "compared": compared});
        return show::json(&document);
    }
    show::line(format!(
        "lines {oldest} to {} are complete; {compared}; hash of the last: {}",
        head.n, head.hash
    ))
}

/// The newest line that this host's report names.
async fn reported(settings: &Settings) -> Result<Option<Head>, Failure> {
    let place = Connection::existing(settings)?;
    let Some(host) = this_host_or_node(settings, &place).await else {
        return Err(fault(
            Exit::ConfigError,
            "the name of this host is not known, so neither is its report: set `host:`",
        ));
    };
    let key = settings.keys.agent_report(&host);
    let found = place.store.list(&key).await?.entries.into_iter().find(|entry| entry.key == key);
    let report = found.map(|entry| document::read::<AgentReport>(&entry.value)).transpose();
    let report = report.map_err(|error| fault(Exit::ConfigError, error.to_string()))?;
    Ok(report.map(|report| report.audit))
}

fn faulty(error: AuditError) -> Failure {
    match error {
        AuditError::Broken { .. }
        | AuditError::Contradicted(_)
        | AuditError::Log(LogError::Damaged { .. }) => {
            fault(Exit::Negative, format!("the audit is not whole: {error}"))
        }
        AuditError::Log(_) | AuditError::Disk(_) | AuditError::NotOpen(_) => {
            fault(Exit::ConfigError, error.to_string())
        }
    }
}
