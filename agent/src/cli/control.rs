//! `hostler cancel`, `release`, `retry`, `acknowledge`, `undo`, `accept`: one action on an order of a host or of each
//! host of a group.
//!
//! Each is a document of its own in the store, which names the very run or instruction that the host reports now:
//! one that comes late does nothing. The command waits for the host's answer and takes the document away again;
//! without an answer it stays, and counts for a week.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::confirm::confirm_number;
use super::connection::{Connection, ConnectionArgs, SourceArgs};
use super::document::user;
use super::exit::{Exit, end_of_phase, fault};
use super::fleet::{Fleet, reports};
use super::{Failure, block, show};
use crate::domain::control::{Control, ControlAction, ControlId, Settled, Target};
use crate::domain::name::Name;
use crate::domain::source::Source;
use crate::domain::span::Span;
use crate::domain::state::End;
use crate::host::clock;
use crate::report::document::{self, AgentReport, OrderReport};
use crate::store::{MAX_READS, Read, When};

/// How often the hosts are asked for their answer.
const ASK_EVERY: Duration = Duration::from_millis(300);

/// What every act needs.
#[derive(Args)]
pub(super) struct Arguments {
    /// The order's name
    order: Name,
    #[command(flatten)]
    source: SourceArgs,
    /// Who wants it; the user's name when not said
    #[arg(long, value_name = "WHO")]
    by: Option<String>,
    /// Why
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// How long to wait for the hosts' answers
    #[arg(long, value_name = "SPAN", default_value = "30s")]
    answer_timeout: Span,
    /// With a group: the number of hosts that it is for, so that no question is asked
    #[arg(long, value_name = "N")]
    confirm_hosts: Option<usize>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: ConnectionArgs,
}

/// `acknowledge` alone says more.
#[derive(Args)]
pub(super) struct Acknowledge {
    /// What is true on the host now
    #[arg(long = "as", value_name = "WHAT")]
    settled: Word,
    #[command(flatten)]
    arguments: Arguments,
}

#[derive(Clone, Copy, ValueEnum)]
enum Word {
    /// What the order wants holds
    Done,
    /// It does not
    Failed,
}

pub(super) fn acknowledge(arguments: &Acknowledge) -> Result<ExitCode, Failure> {
    let settled = match arguments.settled {
        Word::Done => Settled::Done,
        Word::Failed => Settled::Failed,
    };
    run(&arguments.arguments, ControlAction::Acknowledge, Some(settled))
}

pub(super) fn run(
    arguments: &Arguments,
    action: ControlAction,
    settled: Option<Settled>,
) -> Result<ExitCode, Failure> {
    block(async {
        let place = arguments.place.open()?;
        let targets = targets(arguments, &place, action).await?;
        let waiting = write(arguments, &place, action, settled, targets).await?;
        let answers = answers(&place, &waiting, arguments.answer_timeout.0).await.map_err(|error| {
            let written = some(waiting.keys());
            fault(
                Exit::of_failure(&error),
                format!("{} is written for {written}; the answers cannot be read: {error}", action.as_str()),
            )
        })?;
        for (host, (_, key)) in &waiting {
            if answers.contains_key(host)
                && let Err(error) = place.store.delete(key).await
            {
                // The host has answered, and an answered control counts for nothing any more.
                show::note(format!("{key} is left in the store: {error}"));
            }
        }
        conclude(arguments, action, &waiting, &answers)
    })
}

/// Writes one control for each host; gives its id and key by host. An error says which hosts have theirs: a host acts as
/// soon as it sees its own, so what was written is not taken back.
async fn write(
    arguments: &Arguments,
    place: &Connection,
    action: ControlAction,
    settled: Option<Settled>,
    targets: Vec<(Name, Target)>,
) -> Result<BTreeMap<Name, (ControlId, String)>, Failure> {
    let said = |text: &Option<String>| text.clone().unwrap_or_else(|| "not said".to_owned());
    let mut written = BTreeMap::new();
    let mut targets = targets.into_iter();
    while let Some((host, target)) = targets.next() {
        let by = arguments.by.clone().or_else(user).unwrap_or_else(|| "not said".to_owned());
        let control = Control { action, target, settled, by, reason: said(&arguments.reason) };
        let (id, now) = (clock::new_run(), clock::now());
        let key = place.keys.control(&host, &arguments.order, id);
        let text = control.write(now)?.to_string();
        match place.store.put(&key, text.into_bytes(), When::Unchanged(0)).await {
            // The id is new, so a key that is there already is this very control.
            Ok(_) => drop(written.insert(host, (id, key))),
            Err(error) if written.is_empty() => return Err(error.into()),
            Err(error) => {
                let left: Vec<Name> = std::iter::once(host).chain(targets.map(|(host, _)| host)).collect();
                let message = format!(
                    "{} is written for {}, which carry it out, and not for {}: {error}; repeat it for each of the \
                     latter with --host",
                    action.as_str(),
                    some(written.keys()),
                    some(left.iter()),
                );
                return Err(fault(Exit::Store, message));
            }
        }
    }
    Ok(written)
}

/// So many hosts are named in a message.
const MAX_NAMED: usize = 20;

/// Names of hosts for one line; a long list ends with a count.
fn some<'a>(hosts: impl ExactSizeIterator<Item = &'a Name>) -> String {
    let count = hosts.len();
    let named = hosts.take(MAX_NAMED).map(Name::as_str).collect::<Vec<_>>().join(", ");
    match count.saturating_sub(MAX_NAMED) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

/// The hosts, each with what the act is about there.
async fn targets(
    arguments: &Arguments,
    place: &Connection,
    action: ControlAction,
) -> Result<Vec<(Name, Target)>, Failure> {
    let source = arguments.source.source()?;
    let fleet = Fleet::read(place).await?;
    let hosts: Vec<Name> = match &source {
        Source::Host(host) => {
            fleet.check_host(host)?;
            vec![host.clone()]
        }
        Source::Group(group) => {
            fleet.check(&source)?;
            fleet.note_claimants(group);
            fleet.members(group).into_iter().cloned().collect()
        }
    };
    let order = &arguments.order;
    let pairs: Vec<(Name, Name)> = hosts.into_iter().map(|host| (host, order.clone())).collect();
    let reports = reports(place, &pairs).await?;
    if reports.is_empty() {
        let placed = pairs.iter().find_map(|(host, _)| fleet.effective(host, order));
        return Err(match placed {
            Some((key, _)) => fault(
                Exit::Negative,
                format!("order {order} at {key} has no report of {source} yet: see hostler status {order}"),
            ),
            None => fleet.no_order(order, None),
        });
    }
    let names =
        |((host, _), report): (&(Name, Name), &OrderReport)| Some((host.clone(), about(action, report)?));
    let targets: Vec<(Name, Target)> = reports.iter().filter_map(names).collect();
    if targets.is_empty() {
        let (stands, place) = match &source {
            Source::Host(host) => {
                let phase = reports.values().next().map_or("", |report| report.phase.as_str());
                (show::inline(phase), format!("--host {host}"))
            }
            Source::Group(group) => ("otherwise on each of its hosts".to_owned(), format!("--group {group}")),
        };
        let message = format!(
            "nothing to {}: order {order} in {source} is {stands}; see hostler status {order} {place}",
            action.as_str()
        );
        return Err(fault(Exit::Negative, message));
    }
    if matches!(source, Source::Group(_)) {
        let what = format!("{} {order} in {source}", action.as_str());
        confirm_number(&what, &format!("order {order} in {source}"), targets.len(), arguments.confirm_hosts)?;
    }
    Ok(targets)
}

/// The target of the action for an order with this report; `None`: the action does not apply to it.
fn about(action: ControlAction, report: &OrderReport) -> Option<Target> {
    let run = report.run.map(Target::Run);
    let identity = report.identity.map(Target::Identity);
    let end = end_of_phase(&report.phase);
    let held = report.phase == "held";
    match action {
        // What waits has no run of its own yet; a run that it names there is an older one.
        ControlAction::Cancel if report.phase == "waiting" && report.epoch == 0 => identity,
        ControlAction::Cancel => run.filter(|_| end.is_none() && !held),
        ControlAction::Release | ControlAction::Accept => identity.filter(|_| held),
        ControlAction::Retry if held => identity,
        // A run of another instruction has no epoch in this report.
        ControlAction::Retry => run.filter(|_| report.epoch > 0).or(identity).filter(|_| end.is_some()),
        ControlAction::Acknowledge | ControlAction::Undo => {
            run.filter(|_| report.epoch == 0 || end.is_some_and(End::keeps_its_place))
        }
    }
}

/// What the hosts answered, as far as they did in time.
async fn answers(
    place: &Connection,
    waiting: &BTreeMap<Name, (ControlId, String)>,
    span: Duration,
) -> Result<BTreeMap<Name, String>, Failure> {
    let until = Instant::now() + span;
    let mut answers = BTreeMap::new();
    let hosts: Vec<&Name> = waiting.keys().collect();
    loop {
        for hosts in hosts.chunks(MAX_READS) {
            let reads: Vec<Read> =
                hosts.iter().map(|host| Read::Key(place.keys.agent_report(host))).collect();
            for (host, listing) in hosts.iter().zip(place.store.look(&reads).await?) {
                let report = listing
                    .entries
                    .first()
                    .and_then(|entry| document::read::<AgentReport>(&entry.value).ok());
                let id = waiting.get(*host).map(|(id, _)| id);
                let answer = report.as_ref().zip(id).and_then(|(report, id)| report.controls.get(id));
                answers.extend(answer.map(|answer| ((*host).clone(), answer.clone())));
            }
        }
        if answers.len() == waiting.len() || Instant::now() >= until {
            return Ok(answers);
        }
        sleep(ASK_EVERY).await;
    }
}

fn conclude(
    arguments: &Arguments,
    action: ControlAction,
    waiting: &BTreeMap<Name, (ControlId, String)>,
    answers: &BTreeMap<Name, String>,
) -> Result<ExitCode, Failure> {
    let (order, word) = (&arguments.order, action.as_str());
    if arguments.json {
        let hosts: BTreeMap<&Name, Option<&String>> =
            waiting.keys().map(|host| (host, answers.get(host))).collect();
        show::json(&json!({"order": order, "action": word, "answers": hosts}))?;
    } else {
        for host in waiting.keys() {
            let answer = answers.get(host).map_or_else(
                || {
                    format!(
                        "no answer within {}; it stays in place for a week: hostler status {order} --host {host}",
                        arguments.answer_timeout
                    )
                },
                |answer| show::inline(answer),
            );
            show::line(format!("{order} on {host}: {word}: {answer}"))?;
        }
    }
    let exit = if answers.values().any(|answer| answer != "done") {
        Exit::Negative
    } else if answers.len() < waiting.len() {
        Exit::Silent
    } else {
        Exit::Success
    };
    // The host has taken it up: what comes of it is another question.
    if exit == Exit::Success && !arguments.json {
        let place = match arguments.source.source()? {
            Source::Host(host) => format!("--host {host}"),
            Source::Group(group) => format!("--group {group}"),
        };
        show::say(format!("hostler status {order} {place} shows its progress"))?;
    }
    Ok(exit.into())
}
