//! `hostler status`: who is there, and where orders stand.
//!
//! Without arguments an overview. With an order, a host or a group: one line for each host on which an order counts,
//! and an exit status that says whether all are done. What counts is the order as it stands now: a success
//! of an older instruction is no success.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::exit::Exit;
use super::fleet::{Fleet, Standing, is_late, reports, standing};
use super::place::{Place, PlaceArgs};
use super::table::Table;
use super::{Failure, block, show};
use crate::config::ALL;
use crate::domain::name::Name;
use crate::domain::source::{OrderKey, Source};
use crate::host::clock;
use crate::report::document::{AgentReport, OrderReport};

#[derive(Args)]
pub(super) struct Arguments {
    /// The order; ends with 1 unless it is done on each host
    order: Option<Name>,
    /// This host only
    #[arg(long, value_name = "HOST")]
    host: Option<Name>,
    /// The known hosts of this group only
    #[arg(long, value_name = "GROUP")]
    group: Option<Name>,
    /// Print a document for programs
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: PlaceArgs,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    block(async {
        let place = arguments.place.open()?;
        let fleet = Fleet::read(&place).await?;
        if arguments.order.is_none() && arguments.host.is_none() && arguments.group.is_none() {
            overview(&place, &fleet, arguments.json)
        } else {
            detail(arguments, &place, &fleet).await
        }
    })
}

fn overview(place: &Place, fleet: &Fleet, json: bool) -> Result<ExitCode, Failure> {
    let now = clock::now();
    let hosts = fleet.hosts();
    if json {
        let host = |host: &&Name| match fleet.agents.get(*host) {
            None => json!({"host": host, "state": "never reported"}),
            Some(agent) => {
                let state = if is_late(agent.next_by, now) { "silent" } else { "reports" };
                json!({"host": host, "state": state, "agent": agent})
            }
        };
        let hosts: Vec<Value> = hosts.iter().map(host).collect();
        let orders: Vec<&OrderKey> = fleet.orders.keys().collect();
        show::json(&json!({"hosts": hosts, "orders": orders}))?;
        return Ok(Exit::Good.into());
    }
    if hosts.is_empty() {
        show::note(format!(
            "no host is enrolled in {}, or the token may not see it: hostler enroll HOST",
            place.store.place()
        ));
    } else {
        let mut table = Table::new(&["HOST", "AGENT", "VERSION", "GROUPS", "CONDITIONS"]);
        for host in hosts {
            let blank = AgentReport::default();
            let agent = fleet.agents.get(host);
            let AgentReport { hostler, groups, conditions, .. } = agent.unwrap_or(&blank);
            let groups: Vec<&str> = groups.iter().map(Name::as_str).filter(|group| *group != ALL).collect();
            table.row([
                host.to_string(),
                agent_word(agent, now),
                hostler.clone(),
                groups.join(","),
                conditions.join("; "),
            ]);
        }
        table.print()?;
    }
    if !fleet.orders.is_empty() {
        show::line("")?;
        let mut table = Table::new(&["PLACE", "ORDER", "HOSTS", "AS LAST REPORTED"]);
        for key in fleet.orders.keys() {
            let (count, phases) = phases(fleet, key, now);
            table.row([key.source.to_string(), key.order.to_string(), count.to_string(), phases]);
        }
        table.print()?;
    }
    Ok(Exit::Good.into())
}

/// What the agents' own reports say of an order, counted; what each says in detail is a question of its own.
fn phases(fleet: &Fleet, key: &OrderKey, now: Timestamp) -> (usize, String) {
    let members = match &key.source {
        Source::Host(host) => BTreeSet::from([host]),
        Source::Group(group) => fleet.members(group),
    };
    let counts_here =
        |host: &&&Name| fleet.effective(host, &key.order).is_some_and(|(there, _)| there == *key);
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut hosts = 0;
    for host in members.iter().filter(counts_here) {
        hosts += 1;
        let agent = fleet.agents.get(*host);
        let phase = match agent {
            // What it said may be of an older instruction.
            Some(agent) if is_late(agent.next_by, now) => "silent",
            _ => agent
                .and_then(|agent| agent.orders.get(key.order.as_str()))
                .map_or("not seen", String::as_str),
        };
        *counts.entry(phase).or_default() += 1;
    }
    let words: Vec<String> = counts.iter().map(|(phase, count)| format!("{count} {phase}")).collect();
    (hosts, words.join(", "))
}

/// Whether an agent says something.
fn agent_word(agent: Option<&AgentReport>, now: Timestamp) -> String {
    match agent {
        None => "never reported".to_owned(),
        Some(agent) if is_late(agent.next_by, now) => format!("silent since {}", show::time(agent.next_by)),
        Some(agent) => agent.updated.map_or_else(
            || "reports".to_owned(),
            |at| format!("{} ago", show::length(now.duration_since(at))),
        ),
    }
}

struct Row {
    host: Name,
    order: Name,
    /// Where the order stands that counts there.
    key: Option<OrderKey>,
    standing: Standing,
    report: Option<OrderReport>,
}

async fn detail(arguments: &Arguments, place: &Place, fleet: &Fleet) -> Result<ExitCode, Failure> {
    let now = clock::now();
    let pairs = pairs(arguments, fleet)?;
    let mut found = reports(place, &pairs).await?;
    let mut rows = Vec::new();
    for (host, order) in pairs {
        let report = found.remove(&(host.clone(), order.clone()));
        let effective = fleet.effective(&host, &order);
        // Neither ordered nor ever told of: it was asked for by name only.
        if effective.is_none() && report.is_none() {
            continue;
        }
        let placed = effective.as_ref().map(|(_, placed)| *placed);
        let standing = standing(placed, report.as_ref(), fleet.agents.get(&host), now);
        let key = effective.map(|(key, _)| key);
        rows.push(Row { host, order, key, standing, report });
    }
    if rows.is_empty()
        && let Some(order) = &arguments.order
    {
        return Err(fleet.no_order(order, None));
    }
    // What is not ordered any more is shown, but nobody waits for it.
    let good = |row: &Row| row.standing == Standing::Done || row.key.is_none();
    let all_done = rows.iter().all(good);
    if arguments.json {
        let rows: Vec<Value> = rows.iter().map(|row| described(row, fleet, now)).collect();
        show::json(&json!({"all_done": all_done, "hosts": rows}))?;
    } else if let [row] = rows.as_slice()
        && arguments.order.is_some()
    {
        whole(row, fleet, now)?;
    } else {
        table(&rows, fleet, now)?;
    }
    Ok(if all_done { Exit::Good } else { Exit::No }.into())
}

/// The hosts and orders that were asked for.
fn pairs(arguments: &Arguments, fleet: &Fleet) -> Result<Vec<(Name, Name)>, Failure> {
    let mut hosts: BTreeSet<&Name> = match &arguments.group {
        Some(group) => {
            fleet.check(&Source::Group(group.clone()))?;
            fleet.members(group)
        }
        None => fleet.hosts(),
    };
    if let Some(host) = &arguments.host {
        fleet.check_host(host)?;
        hosts.retain(|known| *known == host);
    }
    let of_group = |key: &&OrderKey| match (&key.source, &arguments.group) {
        (Source::Group(group), Some(wanted)) => group == wanted,
        (Source::Host(_), Some(_)) => false,
        (_, None) => true,
    };
    let orders: BTreeSet<&Name> = match &arguments.order {
        Some(order) => BTreeSet::from([order]),
        None => fleet.orders.keys().filter(of_group).map(|key| &key.order).collect(),
    };
    let ordered =
        |host: &Name, order: &Name| arguments.order.is_some() || fleet.effective(host, order).is_some();
    let mut pairs = Vec::new();
    for host in hosts {
        for order in &orders {
            if ordered(host, order) {
                pairs.push((host.clone(), (*order).clone()));
            }
        }
    }
    Ok(pairs)
}

fn described(row: &Row, fleet: &Fleet, now: Timestamp) -> Value {
    let agent = fleet.agents.get(&row.host);
    json!({
        "host": row.host, "order": row.order, "place": row.key.as_ref().map(|key| &key.source),
        "standing": row.standing, "agent_silent": agent.is_none_or(|agent| is_late(agent.next_by, now)),
        "report": row.report,
    })
}

/// What a report says in one line.
pub(super) fn detail_of(report: &OrderReport) -> String {
    let step = report.step.as_ref().map(|step| format!("step {}/{} {}", step.index, step.count, step.name));
    let over = report.ended.is_some();
    let parts = [
        report.reason.clone(),
        report.until.map(|_| format!("until {}", show::time(report.until))),
        step.filter(|_| !over),
        report.progress.filter(|_| !over).map(|percent| format!("{percent} %")),
        report.message.clone().filter(|_| report.error.is_none()),
        report.error.clone(),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// The line for a host: the report's, or why there is none that counts.
fn explained(row: &Row, fleet: &Fleet, now: Timestamp) -> String {
    let agent = fleet.agents.get(&row.host);
    let silent_since = |by: Option<Timestamp>| format!("silent since {}", show::time(by));
    match (row.standing, &row.report) {
        (Standing::Silent, Some(report)) if is_late(report.next_by, now) => {
            format!("{}; it said: {} {}", silent_since(report.next_by), report.phase, detail_of(report))
        }
        (Standing::Silent, _) => silent_since(agent.and_then(|agent| agent.next_by)),
        (Standing::NotSeen, _) if agent.is_none() => "the agent has never reported".to_owned(),
        (Standing::NotSeen, Some(report)) => {
            format!("its report is of another instruction: {}", report.phase)
        }
        (Standing::NotSeen, None) => "no report yet".to_owned(),
        (_, Some(report)) if row.key.is_none() => format!("not ordered any more; {}", detail_of(report)),
        (_, Some(report)) => detail_of(report),
        (_, None) => String::new(),
    }
}

fn table(rows: &[Row], fleet: &Fleet, now: Timestamp) -> Result<(), Failure> {
    let mut table = Table::new(&["HOST", "ORDER", "FROM", "STANDING", "PHASE", "SINCE", "DETAIL"]);
    let mut counts: BTreeMap<Standing, usize> = BTreeMap::new();
    for row in rows {
        *counts.entry(row.standing).or_default() += 1;
        table.row([
            row.host.to_string(),
            row.order.to_string(),
            row.key.as_ref().map_or_else(|| "-".to_owned(), |key| key.source.to_string()),
            row.standing.as_str().to_owned(),
            row.report.as_ref().map(|report| report.phase.clone()).unwrap_or_default(),
            show::time(row.report.as_ref().and_then(|report| report.since)),
            explained(row, fleet, now),
        ]);
    }
    table.print()?;
    let words: Vec<String> =
        counts.iter().map(|(standing, count)| format!("{count} {}", standing.as_str())).collect();
    show::line(format!("\n{}", if words.is_empty() { "no orders".to_owned() } else { words.join(", ") }))?;
    Ok(())
}

/// Everything that one report says.
fn whole(row: &Row, fleet: &Fleet, now: Timestamp) -> Result<(), Failure> {
    let blank = OrderReport::default();
    let report = row.report.as_ref().unwrap_or(&blank);
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let place = row.key.as_ref().map_or_else(|| "not ordered any more".to_owned(), ToString::to_string);
    let took = match (report.started, report.ended) {
        (Some(started), Some(ended)) => format!(" (took {})", show::length(ended.duration_since(started))),
        _ => String::new(),
    };
    let time = |at: Option<Timestamp>| at.map(|at| show::time(Some(at))).unwrap_or_default();
    let unsaid = matches!(row.standing, Standing::NotSeen | Standing::Silent);
    let fields = [
        ("host", row.host.to_string()),
        ("agent", agent_word(fleet.agents.get(&row.host), now)),
        ("order", place),
        ("standing", row.standing.as_str().to_owned()),
        ("", if unsaid { explained(row, fleet, now) } else { String::new() }),
        ("phase", report.phase.clone()),
        ("reason", text(&report.reason)),
        ("task", text(&report.task)),
        ("run", report.run.map(|run| run.to_string()).unwrap_or_default()),
        (
            "step",
            report.step.as_ref().map(|s| format!("{}/{} {}", s.index, s.count, s.name)).unwrap_or_default(),
        ),
        ("progress", report.progress.map(|percent| format!("{percent} %")).unwrap_or_default()),
        ("message", text(&report.message)),
        ("since", time(report.since)),
        ("until", time(report.until)),
        ("started", time(report.started)),
        ("deadline", time(report.deadline)),
        ("ended", report.ended.map(|_| format!("{}{took}", time(report.ended))).unwrap_or_default()),
        ("exit code", report.exit_code.map(|code| code.to_string()).unwrap_or_default()),
        ("error", text(&report.error)),
        ("left behind", report.left_behind.join(", ")),
    ];
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_empty()) {
        show::line(format!("{name:<12} {}", show::inline(value)))?;
    }
    for (name, value) in &report.outputs {
        show::line(format!("{:<12} {} = {}", "output", show::inline(name), show::inline(value)))?;
    }
    if let Some(tail) = &report.tail {
        show::line("the end of what it printed:")?;
        for line in show::lines(tail).lines() {
            show::line(format!("  | {line}"))?;
        }
    }
    Ok(())
}
