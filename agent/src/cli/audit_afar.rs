//! `hostler audit` from afar: what hosts were asked for and did, as far as the store says it.
//!
//! The record itself, with its proof, is on each host. Here are the newest entries of it and the newest runs that each
//! host reported, the orders that were replaced or deleted, and the freezes in force.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::process::ExitCode;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;

use super::connection::Connection;
use super::exit::Exit;
use super::fleet::Fleet;
use super::history::{Known, ReportedRun, newest_of};
use super::order::former;
use super::table::Table;
use super::{Failure, show};
use crate::domain::audit::{self, NumberedEntry};
use crate::domain::name::Name;
use crate::domain::order::Document;
use crate::domain::source::Source;
use crate::host::clock;
use crate::report::audit::AuditReport;
use crate::report::document;
use crate::store::{self, Read, portions};

/// Which entries are asked for.
pub(super) struct Filter<'a> {
    pub(super) hosts: &'a [Name],
    pub(super) group: Option<&'a Name>,
    pub(super) order: Option<&'a str>,
    pub(super) task: Option<&'a Name>,
    pub(super) by: Option<&'a str>,
    pub(super) since: Option<Timestamp>,
    /// The most entries; 0 for all.
    pub(super) count: usize,
}

/// What was asked for or done.
#[derive(Serialize)]
struct Entry {
    /// When; `None`: the store does not say.
    at: Option<Timestamp>,
    /// The host, or the place of an order: `db1`, `groups/hana`.
    place: String,
    what: Cow<'static, str>,
    order: Option<String>,
    task: Option<String>,
    by: Option<String>,
    reason: Option<String>,
    params: Option<String>,
    says: Option<String>,
}

impl Filter<'_> {
    /// Whether a run may be asked for: what this says no to need not be held.
    fn may_want(&self, known: &Known) -> bool {
        let task = known.report.task.split('@').next().unwrap_or_default();
        self.task.is_none_or(|wanted| wanted.as_str() == task)
            && self.order.is_none_or(|wanted| wanted == known.report.order)
            && self.by.is_none_or(|wanted| known.report.by.as_deref() == Some(wanted))
    }

    fn wants(&self, entry: &Entry) -> bool {
        let is = |wanted: Option<&str>, found: &Option<String>| {
            wanted.is_none_or(|wanted| found.as_deref() == Some(wanted))
        };
        // A freeze counts for as long as it is in force.
        let recent = self.since.is_none_or(|since| entry.at.is_none_or(|at| at >= since));
        let task = entry.task.as_deref().map(|task| task.split('@').next().unwrap_or(task).to_owned());
        recent
            && is(self.order, &entry.order)
            && is(self.task.map(Name::as_str), &task)
            && is(self.by, &entry.by)
    }
}

/// Lists what the store says of some hosts, the newest first.
pub(super) async fn list(place: &Connection, filter: &Filter<'_>, json: bool) -> Result<ExitCode, Failure> {
    let fleet = Fleet::read(place).await?;
    let hosts = hosts(&fleet, filter)?;
    let sources: BTreeSet<Source> = hosts
        .iter()
        .flat_map(|host| {
            let groups = fleet.groups_of(host).iter().cloned().map(Source::Group);
            groups.chain([Source::Host((*host).clone()), Source::Group(Name::all())])
        })
        .filter(|source| {
            filter.group.is_none_or(|group| match source {
                Source::Group(of) => of == group,
                Source::Host(_) => true,
            })
        })
        .collect();
    let count = if filter.count > 0 { filter.count } else { usize::MAX };
    let one = if let [host] = filter.hosts { Some(host) } else { None };
    let mut runs = ReportedRun::all(place, one).await?;
    runs.retain(|run| hosts.contains(&&run.host));
    let mut entries = Recorded::read(place, filter, &hosts, &runs).await?;
    let runs = newest_of(place, &runs, count, |known| filter.may_want(known)).await?;
    entries.extend(runs.into_iter().map(of_run));
    entries.extend(former_orders(place, &sources).await?);
    entries.extend(freezes(&fleet, &sources));
    entries.retain(|entry| filter.wants(entry));
    newest_first(&mut entries);
    if filter.count > 0 {
        entries.truncate(filter.count);
    }
    if json {
        show::json(&json!({"from": "reports", "entries": entries}))?;
        return Ok(Exit::Success.into());
    }
    if entries.is_empty() {
        show::note("the store says nothing of that; the record is on each host: hostler audit");
        return Ok(Exit::Success.into());
    }
    show::page(&table(entries))?;
    show::note(
        "from the store: the newest entries and 20 runs of each host, the last ten documents of each order, freezes in \
         force; the record with its proof is on each host: hostler audit --verify",
    );
    Ok(Exit::Success.into())
}

fn table(entries: Vec<Entry>) -> String {
    let headings = ["AT", "PLACE", "WHAT", "ORDER", "TASK", "BY", "REASON", "SAYS"];
    let mut table = Table::new(&headings).names(4, &["TASK", "REASON"]);
    for entry in entries {
        let text = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let says = [entry.params, entry.says].into_iter().flatten().collect::<Vec<_>>().join(" ");
        table.row([
            show::time(entry.at),
            entry.place,
            entry.what.into_owned(),
            text(entry.order),
            text(entry.task),
            text(entry.by),
            text(entry.reason),
            says,
        ]);
    }
    table.shown()
}

fn newest_first(entries: &mut [Entry]) {
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.at.unwrap_or(Timestamp::MAX)));
}

/// The entries of the hosts' records, as far as they reported them.
struct Recorded<'a> {
    filter: &'a Filter<'a>,
    /// The runs that have a report of their own, which says more.
    runs: BTreeSet<String>,
    entries: Vec<Entry>,
}

/// So many entries are held, or a few times as many as are shown: a fleet has more than anybody reads.
const MAX_HELD: usize = 4096;

impl<'a> Recorded<'a> {
    async fn read(
        place: &Connection,
        filter: &'a Filter<'a>,
        hosts: &BTreeSet<&Name>,
        runs: &[ReportedRun],
    ) -> Result<Vec<Entry>, Failure> {
        let runs = runs.iter().map(|run| run.run.to_string()).collect();
        let mut recorded = Self { filter, runs, entries: Vec::new() };
        let prefix = place.keys.audit_reports();
        let mut take = |entry: &store::Entry| {
            let host = entry.key.strip_prefix(&prefix).and_then(|host| host.parse::<Name>().ok());
            let host = host.filter(|host| hosts.contains(host));
            if let (Some(host), Ok(report)) = (host, document::read::<AuditReport>(&entry.value)) {
                recorded.take(&host, report);
            }
        };
        if let [host] = filter.hosts {
            let found = place.store.look(&[Read::Key(place.keys.audit_report(host))]).await?;
            found.iter().flat_map(|listing| &listing.entries).for_each(&mut take);
        } else {
            let unread = portions::read(place.store.as_ref(), &prefix, |entry| take(&entry)).await?;
            for (key, why) in unread {
                show::note(format!("{key}: {why}"));
            }
        }
        Ok(recorded.entries)
    }

    fn take(&mut self, host: &Name, report: AuditReport) {
        let of_known_run = |entry: &audit::Entry| {
            let run = entry.run.as_ref();
            RUN_ENTRIES.contains(&entry.what.as_str()) && run.is_some_and(|run| self.runs.contains(run))
        };
        let unknown = report.entries.into_iter().filter(|numbered| !of_known_run(&numbered.entry));
        let entries: Vec<Entry> = unknown.map(|numbered| of_record(host, numbered)).collect();
        self.entries.extend(entries.into_iter().filter(|entry| self.filter.wants(entry)));
        let most = MAX_HELD.max(4 * self.filter.count);
        if self.filter.count > 0 && self.entries.len() > most {
            newest_first(&mut self.entries);
            self.entries.truncate(self.filter.count);
        }
    }
}

/// What a run's own report says better.
const RUN_ENTRIES: [&str; 3] = ["activation", "prepared", "ended"];

fn of_record(host: &Name, numbered: NumberedEntry) -> Entry {
    let NumberedEntry { at, entry, .. } = numbered;
    // The order of a host or group, an order that a control names, or the place of a freeze.
    let is_place = entry.order.as_deref().is_some_and(|order| order.parse::<Source>().is_ok());
    let (frozen, order) = if is_place { (entry.order, None) } else { (None, entry.order) };
    let says = [frozen, entry.why, entry.end, entry.step, entry.error];
    let says = says.into_iter().flatten().collect::<Vec<_>>().join(": ");
    Entry {
        at: Some(at),
        place: host.to_string(),
        what: entry.what.replace('_', " ").into(),
        order: order.map(|order| order.rsplit('/').next().unwrap_or_default().to_owned()),
        task: entry.task,
        by: entry.by,
        reason: entry.reason,
        params: entry.params,
        says: Some(says).filter(|says| !says.is_empty()),
    }
}

fn hosts<'a>(fleet: &'a Fleet, filter: &Filter<'a>) -> Result<BTreeSet<&'a Name>, Failure> {
    filter.hosts.iter().try_for_each(|host| fleet.check_host(host))?;
    Ok(match filter.group {
        Some(group) => {
            fleet.check(&Source::Group(group.clone()))?;
            fleet.note_claimants(group);
            fleet.members(group)
        }
        None => filter.hosts.iter().collect(),
    })
}

fn of_run(known: Known) -> Entry {
    let report = known.report;
    let millis = i64::try_from(known.run.millis()).unwrap_or(i64::MAX);
    let what = if report.dry_run { "dry run" } else { "run" };
    let trigger = report.trigger.filter(|trigger| trigger != "placed").map(|trigger| format!(" ({trigger})"));
    let error = report.error.map(|error| format!(": {error}")).unwrap_or_default();
    Entry {
        at: report.started.or_else(|| Timestamp::from_millisecond(millis).ok()),
        place: known.host,
        what: what.into(),
        order: Some(report.order),
        task: Some(report.task),
        by: report.by,
        reason: report.reason,
        params: report.params,
        says: Some(format!("{}{}{error}", report.phase, trigger.unwrap_or_default())),
    }
}

/// The orders of these places that were replaced or deleted.
async fn former_orders(place: &Connection, sources: &BTreeSet<Source>) -> Result<Vec<Entry>, Failure> {
    let mut entries = Vec::new();
    for source in sources {
        for (order, former) in former::of_source(place, source).await? {
            let document = Document::read(former.text.as_bytes()).ok();
            let was = match document {
                Some(Document::Order(order)) => Some(*order),
                _ => None,
            };
            entries.push(Entry {
                at: Some(former.at),
                place: source.to_string(),
                what: format!("order {}", former.did.as_str()).into(),
                order: Some(order.to_string()),
                task: was.as_ref().map(|order| order.task.to_string()),
                by: former.by,
                reason: former.reason,
                params: was.map(|order| order.params.to_string()).filter(|params| params != "null"),
                says: None,
            });
        }
    }
    Ok(entries)
}

/// The freezes of these places that are in force.
fn freezes(fleet: &Fleet, sources: &BTreeSet<Source>) -> Vec<Entry> {
    let now = clock::now();
    let of_source = fleet.freezes.iter().filter(|(source, _)| sources.contains(source));
    let in_force =
        of_source.filter(|(_, freeze)| freeze.as_ref().map_or(true, |freeze| !freeze.is_over(now)));
    let entry = |(source, freeze): (&Source, &Result<_, String>)| {
        let freeze: Option<&crate::domain::freeze::Freeze> = freeze.as_ref().ok();
        let until = freeze.and_then(|freeze| freeze.until);
        Entry {
            at: None,
            place: source.to_string(),
            what: "frozen".into(),
            order: None,
            task: None,
            by: freeze.and_then(|freeze| freeze.by.clone()),
            reason: freeze.and_then(|freeze| freeze.reason.clone()),
            params: None,
            says: until.map(|until| format!("until {}", show::time(Some(until)))),
        }
    };
    in_force.map(entry).collect()
}
