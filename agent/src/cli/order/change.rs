//! What a new document changes: the fields that differ, the next firings, and the hosts that follow it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;

use crate::cli::fleet::Fleet;
use crate::domain::name::Name;
use crate::domain::order::{Document, MAX_ORDER, Order};
use crate::domain::schedule::Schedule;
use crate::domain::source::OrderKey;
use crate::domain::text::head;
use crate::domain::yaml;
use crate::domain::zone::Zone;

/// The longest value in a line, in bytes.
const MAX_VALUE: usize = 200;
/// So many hosts are named.
const MAX_NAMED: usize = 8;
/// So many firings are shown where nobody asked for them.
const FIRINGS: usize = 3;

/// The fields of a document, in a line each; none where it cannot be read.
fn fields(text: &[u8]) -> BTreeMap<String, String> {
    let read = yaml::parse::<Value>(text, MAX_ORDER).ok();
    let map = read.as_ref().and_then(Value::as_object).into_iter().flatten();
    let line = |value: &Value| {
        let text = value.to_string();
        if text.len() > MAX_VALUE { format!("{}…", head(&text, MAX_VALUE)) } else { text }
    };
    map.map(|(name, value)| (name.clone(), line(value))).collect()
}

/// The fields that differ: `- name: old`, `+ name: new`.
pub(super) fn differences(old: Option<&[u8]>, new: &[u8]) -> Vec<String> {
    let (old, new) = (old.map(fields).unwrap_or_default(), fields(new));
    let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
    names.sort_unstable();
    names.dedup();
    let mut lines = Vec::new();
    for name in names {
        let (before, after) = (old.get(name), new.get(name));
        if before != after {
            lines.extend(before.map(|value| format!("- {name}: {value}")));
            lines.extend(after.map(|value| format!("+ {name}: {value}")));
        }
    }
    lines
}

/// A local time with its zone: `2026-12-01 02:30 Europe/Berlin`.
pub(super) fn local(at: Timestamp, zone: &Zone) -> String {
    format!("{} {}", zone.local(at).strftime("%a %Y-%m-%d %H:%M"), zone.as_str())
}

/// The next instants at which a schedule fires.
pub(super) fn firings(schedule: &Schedule, now: Timestamp, count: usize) -> Vec<Timestamp> {
    std::iter::successors(schedule.next(now), |at| schedule.next(*at)).take(count).collect()
}

/// What follows from an order where it stands: firings and hosts, a line each.
pub(super) fn consequences(
    fleet: &Fleet,
    key: &OrderKey,
    document: &Document,
    now: Timestamp,
) -> Vec<String> {
    let mut lines = Vec::new();
    if let Document::Order(order) = document
        && let Some(schedule) = &order.schedule
    {
        let next = firings(schedule, now, FIRINGS);
        let next: Vec<String> = next.into_iter().map(|at| local(at, schedule.zone())).collect();
        lines.push(if next.is_empty() {
            "it never fires".to_owned()
        } else {
            format!("next firings: {}", next.join(", "))
        });
    }
    let (follow, nearer) = fleet.followers(key);
    let hosts = |count: usize| if count == 1 { "1 host".to_owned() } else { format!("{count} hosts") };
    let verb = if follow.len() == 1 { "follows" } else { "follow" };
    lines.push(format!("{} {verb} it", hosts(follow.len())));
    if !nearer.is_empty() {
        let verb = if nearer.len() == 1 { "has" } else { "have" };
        lines.push(format!("{} {verb} a nearer order: {}", hosts(nearer.len()), named(&nearer)));
    }
    lines
}

fn named(hosts: &[&Name]) -> String {
    let names: Vec<&str> = hosts.iter().take(MAX_NAMED).map(|host| host.as_str()).collect();
    let more = hosts.len().saturating_sub(MAX_NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", names.join(", "))
}

/// What is not written over unasked: another task, or another time to start.
pub(super) fn takes_over(old: &Order, new: &Document) -> Option<String> {
    let Document::Order(new) = new else { return Some(format!("for task {}, not to be skipped", old.task)) };
    let terms = |order: &Order| order.standing_terms();
    if old.task != new.task {
        Some(format!("for task {}", old.task))
    } else if terms(old) != terms(new) {
        Some(terms(old).map_or_else(|| "to be carried out once".to_owned(), |terms| format!("with {terms}")))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_shown() {
        let old = b"task: backup\nparams: {cluster: main}\nby: alice";
        let new = b"task: backup\nparams: {cluster: other}\nschedule: '@daily'\nby: alice";
        assert_eq!(
            differences(Some(old), new),
            [
                "- params: {\"cluster\":\"main\"}",
                "+ params: {\"cluster\":\"other\"}",
                "+ schedule: \"@daily\""
            ]
        );
        assert_eq!(differences(Some(new), new), Vec::<String>::new());
        assert_eq!(differences(None, b"task: a"), ["+ task: \"a\""]);
        let long = format!("task: a\nreason: {}", "ä".repeat(MAX_ORDER / 4));
        assert!(differences(None, long.as_bytes()).iter().all(|line| line.len() < MAX_VALUE + 30));
    }

    #[test]
    fn a_schedule_says_when_it_fires_on_the_clock_of_its_zone() {
        let now = "2026-11-30T12:00:00Z".parse().unwrap();
        let schedule = Schedule::read("30 2 * * *", Zone::find("Europe/Berlin").unwrap(), None).unwrap();
        let next: Vec<String> =
            firings(&schedule, now, 2).into_iter().map(|at| local(at, schedule.zone())).collect();
        assert_eq!(next, ["Tue 2026-12-01 02:30 Europe/Berlin", "Wed 2026-12-02 02:30 Europe/Berlin"]);
    }
}
