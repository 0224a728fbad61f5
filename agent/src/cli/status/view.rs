//! What status shows: who is there, where orders stand, and everything that one report says. Texts, not yet printed.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::rows::{Row, Rows};
use crate::cli::connection::{placed, said};
use crate::cli::exit::end_of_phase;
use crate::cli::fleet::{Fleet, OrderStatus, UNREADABLE, conditions_line, is_late};
use crate::cli::freeze;
use crate::cli::progress::{detail, elapsed};
use crate::cli::screen::{Severity, paint};
use crate::cli::show;
use crate::cli::table::Table;
use crate::config::ALL;
use crate::domain::name::Name;
use crate::domain::source::OrderKey;
use crate::report::document::{AgentReport, OrderReport};

/// What a standing looks like from afar.
pub(in crate::cli) fn tone(standing: OrderStatus) -> Severity {
    match standing {
        OrderStatus::Done => Severity::Good,
        OrderStatus::Failed | OrderStatus::Drifted => Severity::Bad,
        OrderStatus::Held | OrderStatus::Stale => Severity::Wait,
        OrderStatus::Running => Severity::Busy,
        OrderStatus::Waiting | OrderStatus::NoReport => Severity::Dim,
    }
}

/// All hosts and all orders; `only_bad`: without what is as it should be; `still`: times stand as such, so that the text
/// changes only with what was reported.
pub(super) fn overview(rows: &Rows, only_bad: bool, still: bool) -> String {
    let (fleet, now) = (&rows.fleet, rows.now);
    let mut table =
        Table::new(&["HOST", "AGENT", "VERSION", "GROUPS", "CONDITIONS"]).names(1, &["VERSION", "GROUPS"]);
    for host in fleet.hosts() {
        let blank = AgentReport::default();
        let agent = fleet.agents.get(host);
        let agent_report = agent.unwrap_or(&blank);
        let groups: Vec<&str> =
            fleet.groups_of(host).iter().map(Name::as_str).filter(|group| *group != ALL).collect();
        let tone = match agent {
            None => Severity::Dim,
            Some(agent) if is_late(agent.next_report_by, now) => Severity::Bad,
            Some(agent) if !agent.conditions.is_empty() => Severity::Wait,
            Some(_) => Severity::Good,
        };
        if only_bad && tone == Severity::Good {
            continue;
        }
        let row = [
            host.to_string(),
            agent_word(agent, now, still),
            agent_report.agent_version.clone(),
            groups.join(","),
            conditions_line(agent_report),
        ];
        table.toned(1, tone, row);
    }
    let mut text = if table.is_empty() { String::new() } else { table.shown() };
    let mut table = Table::new(&["PLACE", "ORDER", "HOSTS", "STATUS"]).names(2, &[]);
    let standings = standings(rows);
    for key in fleet.orders.keys() {
        let counts = standings.get(key);
        let all_done =
            counts.is_none_or(|counts| counts.keys().all(|standing| *standing == OrderStatus::Done));
        if only_bad && all_done {
            continue;
        }
        let (hosts, words) = counts.map_or_else(Default::default, |counts| {
            let words: Vec<String> =
                counts.iter().map(|(standing, count)| format!("{count} {}", standing.as_str())).collect();
            (counts.values().sum::<usize>(), words.join(", "))
        });
        table.row([key.source.to_string(), key.order.to_string(), hosts.to_string(), words]);
    }
    if !table.is_empty() {
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&table.shown());
    }
    text
}

/// A line for each freeze that keeps anything from starting on the hosts that were asked for.
pub(super) fn freezes(rows: &Rows) -> String {
    let line = |(source, freeze)| {
        let text = show::indented(&freeze::line(source, freeze), 0);
        format!("{}\n", paint(&text, Severity::Wait))
    };
    let mut text: String = rows.freezes().into_iter().take(MAX_FREEZES).map(line).collect();
    let more = rows.freezes().len().saturating_sub(MAX_FREEZES);
    if more > 0 {
        text.push_str(&format!("and {more} more freezes: hostler freeze --list{}\n", said()));
    }
    if !text.is_empty() {
        text.push('\n');
    }
    text
}

/// So many freezes are named above a list.
const MAX_FREEZES: usize = 10;

/// How each order stands, counted over the hosts on which it counts.
fn standings(rows: &Rows) -> BTreeMap<&OrderKey, BTreeMap<OrderStatus, usize>> {
    let mut standings: BTreeMap<&OrderKey, BTreeMap<OrderStatus, usize>> = BTreeMap::new();
    for row in &rows.rows {
        if let Some(key) = &row.key {
            *standings.entry(key).or_default().entry(row.standing).or_default() += 1;
        }
    }
    standings
}

/// Whether an agent says something.
fn agent_word(agent: Option<&AgentReport>, now: Timestamp, still: bool) -> String {
    match agent {
        None => "never reported".to_owned(),
        Some(agent) if is_late(agent.next_report_by, now) => {
            format!("stale since {}", show::time(agent.next_report_by))
        }
        Some(agent) => match agent.updated {
            None => "reports".to_owned(),
            Some(at) if still => show::time(Some(at)),
            Some(at) => format!("{} ago", show::length(now.duration_since(at))),
        },
    }
}

/// The line for a host: the report's, or why there is none that counts.
pub(super) fn explained(row: &Row, fleet: &Fleet, now: Timestamp) -> String {
    let agent = fleet.agents.get(&row.host);
    let silent_since = |by: Option<Timestamp>| format!("stale since {}", show::time(by));
    match (row.standing, &row.report) {
        (_, Some(report)) if report.phase == UNREADABLE => detail(report),
        (OrderStatus::Stale, Some(report)) if is_late(report.next_report_by, now) => {
            format!("{}; it said: {} {}", silent_since(report.next_report_by), report.phase, detail(report))
        }
        (OrderStatus::Stale, _) => silent_since(agent.and_then(|agent| agent.next_report_by)),
        (OrderStatus::NoReport, _) if agent.is_none() => "the agent has never reported".to_owned(),
        (OrderStatus::NoReport, Some(report)) => {
            format!("its report is of another instruction: {}", report.phase)
        }
        (OrderStatus::NoReport, None) => "no report yet".to_owned(),
        (_, Some(report)) if row.key.is_none() => format!("no longer ordered; {}", detail(report)),
        (_, Some(report)) => detail(report),
        (_, None) => String::new(),
    }
}

/// A line for each row; `only_bad`: without those that are done; `still`: times stand as such.
pub(super) fn table(rows: &Rows, only_bad: bool, still: bool) -> String {
    let time = if still { "SINCE" } else { "FOR" };
    let headings = ["HOST", "ORDER", "FROM", "STATUS", "PHASE", time, "DETAIL"];
    let mut table = Table::new(&headings).names(2, &["FROM", "PHASE"]);
    for row in rows.rows.iter().filter(|row| !only_bad || !row.is_good()) {
        // How long ago is shorter than when, and what people ask; documents for programs have the time.
        let since = row.report.as_ref().and_then(|report| report.since);
        let cells = [
            row.host.to_string(),
            row.order.to_string(),
            row.key.as_ref().map_or_else(|| "-".to_owned(), |key| key.source.to_string()),
            row.standing.as_str().to_owned(),
            row.report.as_ref().map(|report| report.phase.clone()).unwrap_or_default(),
            match since {
                None => String::new(),
                Some(at) if still => show::time(Some(at)),
                Some(at) => show::length(rows.now.duration_since(at)),
            },
            explained(row, &rows.fleet, rows.now),
        ];
        table.toned(3, tone(row.standing), cells);
    }
    let shown = if table.is_empty() { String::new() } else { table.shown() };
    if only_bad { shown } else { format!("{shown}\n{}\n", show::indented(&rows.in_words(), 0)) }
}

/// Where values begin in their lines.
const AT: usize = 13;

/// Everything that one report says.
pub(super) fn whole(row: &Row, fleet: &Fleet, now: Timestamp, usual: Option<SignedDuration>) -> String {
    let blank = OrderReport::default();
    let report = row.report.as_ref().unwrap_or(&blank);
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let place = row.key.as_ref().map_or_else(|| "no longer ordered".to_owned(), ToString::to_string);
    let took = match (report.started, report.ended) {
        (Some(started), Some(ended)) => format!(" (took {})", show::length(ended.duration_since(started))),
        _ => String::new(),
    };
    let time = |at: Option<Timestamp>| at.map(|at| show::time(Some(at))).unwrap_or_default();
    let unsaid = matches!(row.standing, OrderStatus::NoReport | OrderStatus::Stale);
    let fields = [
        ("host", row.host.to_string()),
        ("agent", agent_word(fleet.agents.get(&row.host), now, false)),
        ("order", place),
        ("status", row.standing.as_str().to_owned()),
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
        ("elapsed", elapsed(report, usual, now).unwrap_or_default()),
        ("ended", report.ended.map(|_| format!("{}{took}", time(report.ended))).unwrap_or_default()),
        ("asked", time(report.asked)),
        ("probe", text(&report.probe)),
        ("last success", time(report.last_success)),
        ("exit code", report.exit_code.map(|code| code.to_string()).unwrap_or_default()),
        ("error", text(&report.error)),
        ("left behind", report.killed_processes.join(", ")),
    ];
    let mut shown = String::new();
    let mut line = |name: &str, value: &str| {
        shown.push_str(&format!("{name:<12} {value}\n"));
    };
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_empty()) {
        let value = show::indented(value, AT);
        line(name, &if *name == "status" { paint(&value, tone(row.standing)) } else { value });
    }
    for warning in &report.warnings {
        line("warning", &show::indented(warning, AT));
    }
    for (name, value) in &report.outputs {
        line("output", &format!("{} = {}", show::inline(name), show::inline(value)));
    }
    for one in &report.downtime {
        line("downtime", &one.to_string());
    }
    // A line for each, whole: so that it can be taken over with the mouse.
    for (i, command) in next(row, report).iter().map(|command| placed(command)).enumerate() {
        line(if i == 0 { "next" } else { "" }, &command);
    }
    if let Some(tail) = &report.tail {
        shown.push_str("the end of what it printed:\n");
        show::lines(tail).lines().for_each(|line| shown.push_str(&format!("  | {line}\n")));
    }
    shown
}

/// The commands that come next where an order stands so.
fn next(row: &Row, report: &OrderReport) -> Vec<String> {
    let (host, order) = (&row.host, &row.order);
    let end = end_of_phase(&report.phase);
    match (row.standing, end, report.run) {
        (OrderStatus::Running | OrderStatus::Waiting, ..) => {
            vec![
                format!("hostler status {order} --host {host} --watch"),
                format!("hostler cancel {order} --host {host}"),
            ]
        }
        (OrderStatus::Drifted, ..) => vec![format!("hostler status {order} --host {host} --watch")],
        // Why, and what each of them means here, is in the message.
        (OrderStatus::Held, ..) => vec![
            format!("hostler release {order} --host {host}"),
            format!("hostler accept {order} --host {host}"),
        ],
        (OrderStatus::Failed, Some(end), Some(run)) if end.keeps_its_place() => vec![
            format!("hostler logs {run}"),
            format!("hostler acknowledge {order} --host {host} --as step-done"),
            format!("hostler acknowledge {order} --host {host} --as done"),
            format!("hostler acknowledge {order} --host {host} --as failed"),
            format!("hostler undo {order} --host {host}"),
            format!("hostler retry {order} --host {host}"),
        ],
        // What is no longer ordered cannot be retried.
        (OrderStatus::Failed, Some(_), run) if row.key.is_none() => {
            run.map(|run| format!("hostler logs {run}")).into_iter().collect()
        }
        (OrderStatus::Failed, Some(_), Some(run)) => {
            vec![format!("hostler logs {run}"), format!("hostler retry {order} --host {host}")]
        }
        (OrderStatus::Failed, Some(_), None) => {
            vec![format!("on {host}: hostler task list"), format!("hostler retry {order} --host {host}")]
        }
        (OrderStatus::Stale | OrderStatus::NoReport, ..) => {
            vec![format!("on {host}: hostler check, systemctl status hostler")]
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::RunId;

    #[test]
    fn what_is_not_ordered_any_more_is_not_to_be_retried() {
        let key: OrderKey = "hosts/db1/o".parse().unwrap();
        let said = |phase: &str, run: Option<RunId>, key: Option<OrderKey>| {
            let report = OrderReport { phase: phase.into(), run, ..OrderReport::default() };
            let (host, order) = ("db1".parse().unwrap(), "o".parse().unwrap());
            let row = Row { host, order, key, standing: OrderStatus::Failed, report: Some(report.clone()) };
            next(&row, &report).join("; ")
        };
        let run = Some(RunId::new(1, 1));
        assert!(said("failed", run, Some(key.clone())).contains("hostler retry o"));
        assert!(said("refused", None, Some(key)).contains("hostler retry o"));
        assert!(said("failed", run, None).starts_with("hostler logs"));
        assert!(!said("failed", run, None).contains("retry"));
        assert_eq!(said("refused", None, None), "");
        // What only a person can settle is settled all the same.
        assert!(said("needs_operator", run, None).contains("hostler acknowledge o"));
    }
}
