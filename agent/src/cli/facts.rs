//! `hostler facts`: what hosts say of themselves, as a table over the fleet, and a search in it.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;
use minijinja::value::{Serde, Value as Seen};
use serde::Serialize;
use serde_json::{Value, json};

use super::connection::{Connection, ConnectionArgs};
use super::exit::Exit;
use super::fleet::{Fleet, is_late};
use super::table::Table;
use super::{Failure, block, show};
use crate::domain::facts::{Evaluator, Expression, Object};
use crate::domain::name::Name;
use crate::domain::source::Source;
use crate::host::clock;
use crate::report::document::{self, Author};
use crate::report::facts::FactsReport;
use crate::store::{Entry, Read, portions};

#[derive(Args)]
pub(super) struct Arguments {
    /// Of this host only
    #[arg(long, value_name = "HOST", conflicts_with = "group")]
    host: Option<Name>,
    /// Of the known hosts of this group only
    #[arg(long, value_name = "GROUP")]
    group: Option<Name>,
    /// Only hosts for which this holds, such as "hana.role == 'primary' and labels.site == 'fra'"
    #[arg(long = "where", value_name = "EXPR")]
    filter: Option<Expression>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: ConnectionArgs,
}

/// What one host says.
#[derive(Serialize)]
struct HostFacts {
    host: Name,
    labels: BTreeMap<String, String>,
    facts: BTreeMap<String, Object>,
    stale: Vec<String>,
    left_out: Vec<String>,
    updated: Option<Timestamp>,
    /// Since when the report of its agent is overdue; `None`: it is not.
    host_stale_since: Option<Timestamp>,
}

/// The answer, and what is worth a word beside it.
#[derive(Default)]
struct Found {
    hosts: Vec<HostFacts>,
    /// How many have reported.
    reported: usize,
    /// How many reports cannot be read, and why the first one cannot.
    unreadable: Option<(usize, String)>,
    /// For how many the expression could not be evaluated, and why for the first one.
    failed: Option<(usize, String)>,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    block(async {
        let place = arguments.place.open()?;
        let found = read(&place, arguments).await?;
        for (what, trouble) in
            [("cannot be read", &found.unreadable), ("do not have what the expression names", &found.failed)]
        {
            if let Some((count, why)) = trouble {
                show::note(format!("the facts of {count} {what}; the first: {why}"));
            }
        }
        let exit = if found.hosts.is_empty() { Exit::Negative } else { Exit::Success };
        if arguments.json {
            show::json(&json!({"hosts": found.hosts}))?;
        } else if !found.hosts.is_empty() {
            show::page(&table(&found.hosts))?;
        } else if found.reported == 0 {
            show::note("no host has reported facts, or the token may not read reports/facts/");
        } else {
            show::note(format!("none of {} hosts matches", found.reported));
        }
        Ok(exit.into())
    })
}

async fn read(place: &Connection, arguments: &Arguments) -> Result<Found, Failure> {
    let (facts, agents) = (place.keys.facts_reports(), place.keys.agent_reports());
    let (evaluator, now) = (Evaluator::new(), clock::now());
    let mut found = Found::default();
    // The hosts whose report is overdue, each since when.
    let mut late: BTreeMap<Name, Timestamp> = BTreeMap::new();
    let mut members = None;
    if let Some(group) = &arguments.group {
        let fleet = Fleet::read(place).await?;
        fleet.check(&Source::Group(group.clone()))?;
        fleet.note_claimants(group);
        members = Some(fleet.members(group).into_iter().cloned().collect::<BTreeSet<Name>>());
        let overdue = fleet.agents.iter().filter(|(_, agent)| is_late(agent.next_report_by, now));
        late.extend(overdue.filter_map(|(host, agent)| Some((host.clone(), agent.next_report_by?))));
    }
    let mut take = |entry: &Entry| {
        let host = entry.key.strip_prefix(&facts).and_then(|host| host.parse::<Name>().ok());
        if let Some(host) = host.filter(|host| members.as_ref().is_none_or(|members| members.contains(host)))
        {
            found.take(host, &entry.value, arguments.filter.as_ref(), &evaluator);
        }
    };
    let mut take_agent = |entry: &Entry| {
        let author: Author = serde_json::from_slice(&entry.value).unwrap_or_default();
        let host = entry.key.strip_prefix(&agents).and_then(|host| host.parse::<Name>().ok());
        if let (Some(host), Some(by)) = (host, author.next_report_by.filter(|by| is_late(Some(*by), now))) {
            late.insert(host, by);
        }
    };
    let store = place.store.as_ref();
    if let Some(host) = &arguments.host {
        let reads = [Read::Key(place.keys.facts_report(host)), Read::Key(place.keys.agent_report(host))];
        if let [own, agent] = &store.look(&reads).await?[..] {
            own.entries.iter().for_each(&mut take);
            agent.entries.iter().for_each(&mut take_agent);
        }
        if found.reported == 0 {
            Fleet::read(place).await?.check_host(host)?;
        }
    } else {
        let mut unread = portions::read(store, &facts, |entry| take(&entry)).await?;
        if arguments.group.is_none() {
            unread.extend(portions::read(store, &agents, |entry| take_agent(&entry)).await?);
        }
        unread.iter().for_each(|(key, why)| show::note(format!("{key}: {why}")));
    }
    for host in &mut found.hosts {
        host.host_stale_since = late.get(&host.host).copied();
    }
    found.hosts.sort_by(|a, b| a.host.cmp(&b.host));
    Ok(found)
}

impl Found {
    /// Takes in the report of a host, if it matches.
    fn take(&mut self, host: Name, value: &[u8], filter: Option<&Expression>, evaluator: &Evaluator) {
        self.reported += 1;
        let report = match document::read::<FactsReport>(value) {
            Ok(report) => report,
            Err(why) => return count(&mut self.unreadable, &host, &why.to_string()),
        };
        if let Some(filter) = filter {
            let mut scope = Expression::scope(None, &report.labels);
            for name in filter.facts() {
                if let Some(fact) = report.facts.get(name.as_str()) {
                    scope.insert(name.to_string(), Seen::from(Serde(fact)));
                }
            }
            match evaluator.holds(filter, scope) {
                Ok(true) => {}
                Ok(false) => return,
                Err(why) => {
                    let absent =
                        filter.facts().into_iter().find(|name| !report.facts.contains_key(name.as_str()));
                    let why = absent.map_or(why, |name| format!("it has no fact {name}"));
                    return count(&mut self.failed, &host, &why);
                }
            }
        }
        let FactsReport { labels, facts, stale, left_out, updated, .. } = report;
        self.hosts.push(HostFacts { host, labels, facts, stale, left_out, updated, host_stale_since: None });
    }
}

fn count(trouble: &mut Option<(usize, String)>, host: &Name, why: &str) {
    match trouble {
        Some((count, _)) => *count += 1,
        None => *trouble = Some((1, format!("{host}: {why}"))),
    }
}

/// A line for each fact of each host.
fn table(hosts: &[HostFacts]) -> String {
    let marked = hosts.iter().any(|host| !host.stale.is_empty() || host.host_stale_since.is_some());
    let mut headings = vec!["HOST", "FACT"];
    headings.extend(marked.then_some("STATE"));
    headings.push("VALUE");
    let mut table = Table::new(&headings);
    for host in hosts {
        let mut row = |fact: &str, value: String| {
            let mut cells = vec![host.host.to_string(), fact.to_owned()];
            let stale = host.stale.iter().any(|stale| stale == fact);
            cells.extend(marked.then(|| match (host.host_stale_since, stale) {
                (Some(_), _) => "host stale".to_owned(),
                (None, true) => "stale".to_owned(),
                (None, false) => String::new(),
            }));
            cells.push(value);
            table.cells(&cells);
        };
        if !host.labels.is_empty() {
            let labels: Vec<String> =
                host.labels.iter().map(|(name, text)| format!("{name}={text}")).collect();
            row("labels", labels.join(" "));
        }
        for (name, fact) in &host.facts {
            row(name, members(fact));
        }
        for name in &host.left_out {
            row(name, "no room in the report".to_owned());
        }
    }
    table.shown()
}

/// An object in one line: `role=primary lag=2`.
fn members(fact: &Object) -> String {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let members: Vec<String> = fact.iter().map(|(name, value)| format!("{name}={}", text(value))).collect();
    members.join(" ")
}

/// What the facts of all hosts are called, with their members: for completion.
pub(super) async fn names(place: &Connection) -> Option<Vec<String>> {
    let prefix = place.keys.facts_reports();
    let mut names = Vec::new();
    let read = portions::read(place.store.as_ref(), &prefix, |entry| {
        let Ok(report) = document::read::<FactsReport>(&entry.value) else { return };
        names.extend(report.labels.keys().map(|label| format!("labels.{label}")));
        for (name, fact) in &report.facts {
            names.extend(fact.keys().map(|member| format!("{name}.{member}")));
        }
        names.sort_unstable();
        names.dedup();
    });
    read.await.ok()?;
    Some(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(filter: &str) -> Found {
        let mut found = Found::default();
        let filter = (!filter.is_empty()).then(|| filter.parse().unwrap());
        for (host, role, site) in [("db1", "primary", "fra"), ("db2", "secondary", "fra"), ("db3", "", "ber")]
        {
            let mut report = json!({"version": 1, "host": host, "labels": {"site": site},
                "facts": {"host": {"os": "debian", "cpus": 4}}, "stale": [], "left_out": []});
            if !role.is_empty() {
                report["facts"]["hana"] = json!({"role": role, "sites": ["a"]});
            }
            let text = report.to_string();
            found.take(host.parse().unwrap(), text.as_bytes(), filter.as_ref(), &Evaluator::new());
        }
        found
    }

    #[test]
    fn a_search_finds_hosts_by_facts_and_labels() {
        for (filter, wanted, failed) in [
            ("", "db1 db2 db3", 0),
            ("hana.role == 'primary'", "db1", 1),
            ("labels.site == 'fra' and host.cpus > 2", "db1 db2", 0),
            ("hana is defined", "db1 db2", 0),
            ("host.os == 'sles'", "", 0),
            ("hana.rloe == 'primary'", "", 3),
        ] {
            let found = found(filter);
            let hosts: Vec<&str> = found.hosts.iter().map(|host| host.host.as_str()).collect();
            assert_eq!(hosts.join(" "), wanted, "{filter}");
            assert_eq!((found.reported, found.failed.map_or(0, |(count, _)| count)), (3, failed), "{filter}");
        }
        let mut broken = Found::default();
        broken.take("db1".parse().unwrap(), b"{", None, &Evaluator::new());
        assert!(broken.hosts.is_empty() && broken.unreadable.is_some());
    }

    #[test]
    fn each_fact_has_a_line_and_what_is_old_is_marked() {
        let mut found = found("hana is defined");
        let text = table(&found.hosts);
        assert!(
            text.starts_with(
                "HOST  FACT    VALUE\ndb1   labels  site=fra\ndb1   hana    role=primary sites=[\"a\"]\n"
            ),
            "{text}"
        );
        found.hosts[0].stale.push("hana".into());
        found.hosts[1].host_stale_since = Some(Timestamp::UNIX_EPOCH);
        let text = table(&found.hosts);
        assert!(
            text.contains("db1   hana    stale       role=primary")
                && text.contains("db2   host    host stale"),
            "{text}"
        );
    }
}
