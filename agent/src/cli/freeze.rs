//! `hostler freeze` and `hostler thaw`: nothing new starts on a host or in a group; running tasks continue.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::connection::{Connection, ConnectionArgs, said};
use super::document::user;
use super::exit::{Exit, end_of_phase, fault};
use super::fleet::{Fleet, is_late};
use super::moment;
use super::table::Table;
use super::watch::{Look, watch};
use super::{Failure, block, show};
use crate::domain::freeze::Freeze;
use crate::domain::name::Name;
use crate::domain::source::Source;
use crate::domain::span::Span;
use crate::domain::text::MORE;
use crate::host::clock;
use crate::report::document::AgentReport;
use crate::store::When;

/// The host or group that a freeze is for.
#[derive(Args)]
struct Scope {
    /// The group; all is every host
    group: Option<Name>,
    /// One host in place of a group
    #[arg(long, value_name = "HOST", conflicts_with = "group")]
    host: Option<Name>,
}

impl Scope {
    fn source(&self) -> Result<Source, Failure> {
        match (&self.host, &self.group) {
            (Some(host), _) => Ok(Source::Host(host.clone())),
            (None, Some(group)) => Ok(Source::Group(group.clone())),
            (None, None) => Err(fault(Exit::Usage, "name a group or --host HOST")),
        }
    }
}

/// A host or group for a message.
fn named(source: &Source) -> String {
    match source {
        Source::Host(host) => format!("host {host}"),
        Source::Group(group) => format!("group {group}"),
    }
}

/// What is said of a freeze above lists: of whom, by whom, until when, and why.
pub(super) fn line(source: &Source, freeze: &Result<Freeze, String>) -> String {
    let whose = freeze.as_ref().map_or_else(|_| UNREADABLE.to_owned(), whose);
    format!("{} is frozen {whose}", named(source))
}

/// The words that name a host or group to `hostler freeze` and `hostler thaw`.
fn words(source: &Source) -> String {
    match source {
        Source::Host(host) => format!("--host {host}"),
        Source::Group(group) => group.to_string(),
    }
}

#[derive(Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    scope: Scope,
    /// Over by itself at this time: 2h, 22:00, 2026-12-01, "2026-12-01 06:00" or 2026-12-01T05:00:00Z
    #[arg(long, value_name = "TIME", value_parser = moment::coming)]
    until: Option<jiff::Timestamp>,
    /// A task that starts all the same
    #[arg(long, value_name = "TASK")]
    allow: Vec<Name>,
    /// Who wants it; the user's name when not said
    #[arg(long, value_name = "WHO")]
    by: Option<String>,
    /// Why
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Write over a freeze that is in force
    #[arg(long)]
    replace: bool,
    /// List the freezes, of one host or group or all
    #[arg(long, conflicts_with_all = ["until", "allow", "by", "reason", "replace", "wait"])]
    list: bool,
    /// Wait until each host has seen the freeze and nothing runs there; at most this long, or without end
    #[arg(
        long,
        value_name = "SPAN",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "366d",
        conflicts_with = "json"
    )]
    wait: Option<Span>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: ConnectionArgs,
}

#[derive(Args)]
pub(super) struct Thaw {
    #[command(flatten)]
    scope: Scope,
    /// Who thaws; the user's name when not said
    #[arg(long, value_name = "WHO")]
    by: Option<String>,
    /// Also a freeze that somebody else wants
    #[arg(long, alias = "replace")]
    of_others: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: ConnectionArgs,
}

pub(super) fn freeze(arguments: &Arguments) -> Result<ExitCode, Failure> {
    block(async {
        let place = arguments.place.open()?;
        let fleet = Fleet::read(&place).await?;
        if arguments.list {
            return list(arguments, &fleet);
        }
        let source = arguments.scope.source()?;
        fleet.check(&source)?;
        let now = clock::now();
        if let Some(until) = arguments.until.filter(|until| *until <= now) {
            let until = show::time(Some(until));
            return Err(fault(Exit::Usage, format!("--until {until} has passed: nothing would be frozen")));
        }
        let before = standing(&place, &source).await?;
        if let Some((_, freeze)) = &before
            && !arguments.replace
            && freeze.as_ref().is_none_or(|freeze| !freeze.is_over(now))
        {
            let whose = freeze.as_ref().map_or_else(|| UNREADABLE.to_owned(), whose);
            let message = format!(
                "{} is frozen {whose}; nothing was written: --replace writes over it",
                named(&source)
            );
            return Err(fault(Exit::NotConfirmed, message));
        }
        let freeze = Freeze {
            until: arguments.until,
            reason: arguments.reason.clone(),
            by: arguments.by.clone().or_else(user),
            allow: arguments.allow.clone(),
        };
        let key = place.keys.freeze(&source);
        let seen = When::Unchanged(before.map_or(0, |(index, _)| index));
        if !place.store.put(&key, serde_json::to_vec(&freeze)?, seen).await? {
            let message = format!(
                "{} was frozen or thawed by somebody else just now; nothing was written",
                named(&source)
            );
            return Err(fault(Exit::NotConfirmed, message));
        }
        let hosts = match &source {
            Source::Host(_) => 1,
            Source::Group(group) => {
                fleet.note_claimants(group);
                fleet.members(group).len()
            }
        };
        if arguments.json {
            show::json(&json!({"source": source, "freeze": freeze, "hosts": hosts}))?;
        } else {
            let until = freeze.until.map_or_else(
                || format!("hostler thaw {}{}", words(&source), said()),
                |until| show::time(Some(until)),
            );
            let hosts = if hosts == 1 { "1 known host".to_owned() } else { format!("{hosts} known hosts") };
            show::line(format!(
                "{} is frozen until {until}: nothing new starts on {hosts}, running tasks continue",
                named(&source)
            ))?;
        }
        match arguments.wait {
            Some(most) => Ok(quiet(&place, &source, most.0).await?.into()),
            None => Ok(Exit::Success.into()),
        }
    })
}

/// Lists freezes, also those that are over.
fn list(arguments: &Arguments, fleet: &Fleet) -> Result<ExitCode, Failure> {
    let wanted = match (&arguments.scope.host, &arguments.scope.group) {
        (None, None) => None,
        _ => Some(arguments.scope.source()?),
    };
    let now = clock::now();
    let freezes =
        fleet.freezes.iter().filter(|(source, _)| wanted.as_ref().is_none_or(|wanted| wanted == *source));
    if arguments.json {
        let one = |(source, freeze): (&Source, &Result<Freeze, String>)| {
            let over = freeze.as_ref().is_ok_and(|freeze| freeze.is_over(now));
            json!({"source": source, "freeze": freeze.as_ref().ok(), "over": over, "fault": freeze.as_ref().err()})
        };
        show::json(&freezes.map(one).collect::<Vec<Value>>())?;
        return Ok(Exit::Success.into());
    }
    let mut table = Table::new(&["PLACE", "UNTIL", "BY", "ALLOWS", "REASON"]).names(1, &["ALLOWS"]);
    for (source, freeze) in freezes {
        let cells = match freeze {
            Ok(freeze) => {
                let until = freeze.until.map_or_else(|| "thaw".to_owned(), |until| show::time(Some(until)));
                let until = if freeze.is_over(now) { format!("over since {until}") } else { until };
                let allows: Vec<&str> = freeze.allow.iter().map(Name::as_str).collect();
                let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
                [source.to_string(), until, text(&freeze.by), allows.join(","), text(&freeze.reason)]
            }
            Err(error) => [
                source.to_string(),
                "thaw".into(),
                "-".into(),
                String::new(),
                format!("cannot be read: {error}"),
            ],
        };
        table.row(cells);
    }
    if table.is_empty() {
        show::note("nothing is frozen, or the token may not see it");
    } else {
        show::page(&table.shown())?;
    }
    Ok(Exit::Success.into())
}

/// Waits until each host of the freeze has seen it and nothing runs there any more.
async fn quiet(place: &Connection, source: &Source, most: Duration) -> Result<Exit, Failure> {
    let index = standing(place, source).await?.map_or(0, |(index, _)| index);
    let prefix = place.keys.source(source);
    watch(Some(most), false, Exit::Pending, async || {
        let fleet = Fleet::read(place).await?;
        let hosts: BTreeSet<&Name> = match source {
            Source::Host(host) => [host].into(),
            Source::Group(group) => fleet.members(group),
        };
        let now = clock::now();
        let left: Vec<String> = hosts
            .into_iter()
            .filter_map(|host| {
                let busy = match fleet.agents.get(host) {
                    None => return None,
                    Some(agent) if is_late(agent.next_report_by, now) => "its agent is silent".to_owned(),
                    Some(agent) if agent.observed_index.get(&prefix).is_some_and(|seen| *seen < index) => {
                        "it has not seen the freeze yet".to_owned()
                    }
                    Some(agent) => running(agent)?,
                };
                Some(format!("  {host}: {busy}"))
            })
            .collect();
        let over = left.is_empty().then_some(Exit::Success);
        let shown = left.iter().take(MAX_LEFT).map(|line| format!("{}\n", show::inline(line)));
        let more = left.len().saturating_sub(MAX_LEFT);
        let text = match over {
            Some(_) => format!("nothing runs in {source} any more\n"),
            None => {
                let lines: String = shown.collect();
                let more = if more > 0 { format!("  and {more} more\n") } else { String::new() };
                format!("waiting for {} of {source}:\n{lines}{more}", hosts_in_words(left.len()))
            }
        };
        Ok(Look { text, over })
    })
    .await
}

/// So many hosts that are waited for are named.
const MAX_LEFT: usize = 20;

/// What runs on a host, as its agent says; what waits or is held has not begun.
fn running(agent: &AgentReport) -> Option<String> {
    let under_way = |phase: &str| {
        !matches!(phase, "waiting" | "held" | "refused" | "skipped") && end_of_phase(phase).is_none()
    };
    let running = agent.orders.iter().filter(|(order, phase)| *order != MORE && under_way(phase));
    let words: Vec<String> = running.map(|(order, phase)| format!("{order} is {phase}")).collect();
    (!words.is_empty()).then(|| words.join(", "))
}

fn hosts_in_words(hosts: usize) -> String {
    if hosts == 1 { "1 host".to_owned() } else { format!("{hosts} hosts") }
}

/// What is said of a freeze that cannot be read.
const UNREADABLE: &str = "by a document that cannot be read";

/// The freeze of a host or group with its index; `None` in its place: it cannot be read, and freezes all the same.
async fn standing(place: &Connection, source: &Source) -> Result<Option<(u64, Option<Freeze>)>, Failure> {
    let key = place.keys.freeze(source);
    let listing = place.store.list(&key).await?;
    let entry = listing.entries.into_iter().find(|entry| entry.key == key);
    Ok(entry.map(|entry| (entry.modify_index, Freeze::read(&entry.value).ok())))
}

/// Whose freeze it is, until when, and why.
fn whose(freeze: &Freeze) -> String {
    let by = freeze.by.as_deref().unwrap_or("somebody");
    let until = freeze.until.map(|until| format!(" until {}", show::time(Some(until)))).unwrap_or_default();
    let reason = freeze.reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
    show::inline(&format!("by {by}{until}{reason}"))
}

pub(super) fn thaw(arguments: &Thaw) -> Result<ExitCode, Failure> {
    block(async {
        let place = arguments.place.open()?;
        let source = arguments.scope.source()?;
        let key = place.keys.freeze(&source);
        let Some((_, freeze)) = standing(&place, &source).await? else {
            return Err(fault(Exit::NotFound, format!("{} is not frozen", named(&source))));
        };
        let me = arguments.by.clone().or_else(user);
        let of_other =
            |freeze: &&Freeze| freeze.by.is_some() && freeze.by != me && !freeze.is_over(clock::now());
        if let Some(freeze) = freeze.as_ref().filter(of_other).filter(|_| !arguments.of_others) {
            let message = format!(
                "{} is frozen {}; nothing was written: --of-others thaws it",
                named(&source),
                whose(freeze)
            );
            return Err(fault(Exit::NotConfirmed, message));
        }
        place.store.delete(&key).await?;
        if arguments.json {
            show::json(&json!({"source": source, "did": "thawed"}))?;
        } else {
            show::line(format!("{} is thawed: waiting orders start again", named(&source)))?;
        }
        Ok(Exit::Success.into())
    })
}
