//! What an order on several hosts leaves to be done: equal reasons in one line with the number of hosts, and the commands
//! that come next.

use std::collections::BTreeSet;

use super::rows::{Question, Row, Rows};
use super::view::explained;
use crate::cli::connection::placed;
use crate::cli::exit::end_of_phase;
use crate::cli::fleet::OrderStatus;
use crate::cli::show;
use crate::domain::name::Name;
use crate::domain::source::Source;
use crate::domain::state::End;

/// So many reasons are listed, and so many hosts named for each.
pub(super) const MAX_REASONS: usize = 8;

/// Hosts of which the same is said.
pub(super) struct Reason<'a> {
    pub(super) text: String,
    pub(super) hosts: Vec<&'a Name>,
}

impl Reason<'_> {
    /// The host, or how many.
    pub(super) fn whose(&self) -> String {
        match &*self.hosts {
            [host] => host.to_string(),
            hosts => format!("{} hosts", hosts.len()),
        }
    }

    /// The first hosts by name; the last word counts the others.
    fn named(&self) -> String {
        let names: Vec<&str> = self.hosts.iter().take(MAX_REASONS).map(|host| host.as_str()).collect();
        let more = self.hosts.len().saturating_sub(MAX_REASONS);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!("{}{more}", names.join(", "))
    }
}

/// The reasons of the rows that stand so, the one with the most hosts first.
pub(super) fn reasons<'a>(rows: &'a Rows, standings: &[OrderStatus]) -> Vec<Reason<'a>> {
    let mut found: Vec<Reason<'a>> = Vec::new();
    let mut places = std::collections::BTreeMap::new();
    for row in rows.rows.iter().filter(|row| standings.contains(&row.standing)) {
        // What differs by nothing but the host's own name is the same.
        let text = explained(row, &rows.fleet, rows.now)
            .replace(&format!("--host {}", row.host), "--host HOST")
            .replace(&format!("hosts/{}/", row.host), "hosts/HOST/");
        let at = *places.entry(text.clone()).or_insert_with(|| {
            found.push(Reason { text, hosts: Vec::new() });
            found.len().saturating_sub(1)
        });
        if let Some(reason) = found.get_mut(at) {
            reason.hosts.push(&row.host);
        }
    }
    found.sort_by_key(|reason| std::cmp::Reverse(reason.hosts.len()));
    for reason in &mut found {
        if let [host] = &*reason.hosts {
            reason.text = reason.text.replace("--host HOST", &format!("--host {host}"));
            reason.text = reason.text.replace("hosts/HOST/", &format!("hosts/{host}/"));
        }
    }
    found
}

/// Below a list of one order on several hosts: reasons that hosts share, and the next commands. Empty where all is done.
pub(in crate::cli) fn of_rows(rows: &Rows, question: &Question) -> String {
    let mut text = String::new();
    for (heading, standings) in [
        ("drifted", &[OrderStatus::Drifted][..]),
        ("failed", &[OrderStatus::Failed][..]),
        ("held", &[OrderStatus::Held][..]),
    ] {
        let shared: Vec<Reason<'_>> =
            reasons(rows, standings).into_iter().filter(|reason| reason.hosts.len() > 1).collect();
        for reason in shared.iter().take(MAX_REASONS) {
            let line = format!("{heading:<12} {}: {}", reason.whose(), reason.text);
            text.push_str(&format!("{}\n{:<12} {}\n", show::indented(&line, 0), "", reason.named()));
        }
    }
    for (i, command) in commands(rows, question).iter().map(|command| placed(command)).enumerate() {
        text.push_str(&format!("{:<12} {command}\n", if i == 0 { "next" } else { "" }));
    }
    text
}

/// The commands that come next.
fn commands(rows: &Rows, question: &Question) -> Vec<String> {
    let Some(order) = &question.order else { return Vec::new() };
    let place = place(rows, question);
    let of = |standing: OrderStatus| {
        rows.rows.iter().filter(move |row| row.standing == standing && row.key.is_some())
    };
    let settled = |row: &&Row| {
        let end = row.report.as_ref().and_then(|report| end_of_phase(&report.phase));
        end.is_some_and(End::keeps_its_place)
    };
    let mut commands = Vec::new();
    if let Some(row) = of(OrderStatus::Failed).find(settled) {
        commands.push(format!("hostler status {order} --host {}", row.host));
    }
    if of(OrderStatus::Failed).any(|row| !settled(&row)) {
        commands.push(format!("hostler logs {order} {place} --failed"));
        commands.push(format!("hostler retry {order} {place} --failed"));
    }
    if of(OrderStatus::Held).next().is_some() {
        commands.push(format!("hostler release {order} {place} --held"));
        commands.push(format!("hostler accept {order} {place} --held"));
    }
    if of(OrderStatus::Running).chain(of(OrderStatus::Waiting)).next().is_some() {
        commands.push(format!("hostler status {order} {place} --watch"));
        commands.push(format!("hostler cancel {order} {place}"));
    }
    if let Some(row) = of(OrderStatus::Stale).chain(of(OrderStatus::NoReport)).next() {
        commands.push(format!("on {}: hostler check, systemctl status hostler", row.host));
    }
    commands
}

/// The hosts of the rows as commands name them.
fn place(rows: &Rows, question: &Question) -> String {
    if let Some(group) = &question.group {
        return format!("--group {group}");
    }
    let sources: BTreeSet<&Source> =
        rows.rows.iter().filter_map(|row| Some(&row.key.as_ref()?.source)).collect();
    let groups: Vec<&Name> = sources
        .iter()
        .filter_map(|source| match source {
            Source::Group(group) => Some(group),
            Source::Host(_) => None,
        })
        .collect();
    // The hosts that follow the order of one group are known by it, but for those with an order of their own.
    if let ([group], true) = (&*groups, question.hosts.is_empty()) {
        return format!("--group {group}");
    }
    let hosts: Vec<&str> = rows.rows.iter().map(|row| row.host.as_str()).collect();
    format!("--host {}", hosts.join(","))
}
