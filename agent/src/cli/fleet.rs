//! What the store says of hosts and orders, as the commands need it: who is known, which order counts where, and
//! where each stands.
//!
//! Reports are read leniently: one that cannot be read, or is of a newer program, costs its own line alone.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Failure;
use super::connection::{Connection, said};
use super::exit::{Exit, end_of_phase, fault};
use super::show;
use crate::config::ALL;
use crate::domain::freeze::Freeze;
use crate::domain::ids::InstructionHash;
use crate::domain::keys::Kind;
use crate::domain::name::Name;
use crate::domain::odd;
use crate::domain::order::Document;
use crate::domain::source::{OrderKey, Source};
use crate::domain::state::End;
use crate::domain::yaml::{YamlError, nearest};
use crate::report::document::{self, AgentReport, Author, OrderReport, ReportedCondition};
use crate::store::{Entry, MAX_READS, Read, portions};

/// An order as it stands.
pub(super) struct Placed {
    /// Its index.
    pub(super) index: u64,
    /// Its text.
    pub(super) value: Vec<u8>,
    /// What it says.
    pub(super) document: Result<Document, YamlError>,
}

impl Placed {
    /// Its identity, where it has one.
    pub(super) fn identity(&self) -> Option<InstructionHash> {
        match &self.document {
            Ok(Document::Order(order)) => Some(order.identity),
            Ok(Document::Skip) | Err(_) => None,
        }
    }
}

/// The phase of a report that says nothing.
pub(super) const UNREADABLE: &str = "unreadable";

/// Who is known, and what is ordered.
#[derive(Default)]
pub(super) struct Fleet {
    /// What each agent says of itself.
    pub(super) agents: BTreeMap<Name, AgentReport>,
    /// Each order in its place.
    pub(super) orders: BTreeMap<OrderKey, Placed>,
    /// The hosts and groups that are frozen, each with its freeze, or why that cannot be read.
    pub(super) freezes: BTreeMap<Source, Result<Freeze, String>>,
    /// Keys of hosts and groups that have no effect, by their part behind the prefix, each with its reason.
    pub(super) odd: Vec<(String, String)>,
    /// The places that are enrolled; with a host, the groups that whoever enrolled it named.
    markers: BTreeMap<Source, Marker>,
}

/// What stands in the marker of a host's orders: who it will be, until its agent says so itself.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Marker {
    /// The groups, the nearest first. `None`: no `hostler enroll` wrote the marker, and the host's own word counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) groups: Option<Vec<Name>>,
}

impl Fleet {
    /// Three trees; reports of orders are read when it is known which are needed.
    pub(super) async fn read(place: &Connection) -> Result<Self, Failure> {
        let agents_prefix = place.keys.agent_reports();
        let mut fleet = Self::default();
        for prefix in [place.keys.hosts(), place.keys.groups()] {
            let below = |key: &str| key.strip_prefix(place.keys.prefix()).unwrap_or(key).to_owned();
            let unread = portions::read(place.store.as_ref(), &prefix, |entry| {
                let path = below(&entry.key);
                fleet.take(path, entry);
            });
            for (key, why) in unread.await? {
                fleet.odd.push((below(&key), why));
            }
            for (key, why) in place.store.passed_over(&prefix) {
                fleet.odd.push((below(&key), format!("the file is passed over: {why}")));
            }
        }
        let unread = portions::read(place.store.as_ref(), &agents_prefix, |entry| {
            let host = entry.key.strip_prefix(&agents_prefix).and_then(|host| host.parse::<Name>().ok());
            let Some(host) = host else { return };
            fleet.agents.insert(host, agent_of(&entry.value));
        });
        for (key, why) in unread.await? {
            fleet.odd.push((key, why));
        }
        Ok(fleet)
    }

    /// Takes in one key of a host or group, by its part behind the prefix.
    fn take(&mut self, path: String, entry: Entry) {
        let mut parts = path.splitn(3, '/');
        let source = match (parts.next(), parts.next(), parts.next()) {
            (Some(kind), Some(name), Some(rest)) => {
                format!("{kind}/{name}").parse::<Source>().ok().map(|source| (source, rest))
            }
            _ => None,
        };
        let Some((source, rest)) = source else {
            self.odd
                .push((path, "an order is at hosts/HOST/orders/NAME or groups/GROUP/orders/NAME".to_owned()));
            return;
        };
        let why = odd::key(&source, rest).or_else(|| entry.read().err());
        match Kind::of(rest) {
            // A marker that cannot be read, or is of a newer program, is a marker all the same.
            Kind::Marker => {
                self.markers.insert(source, serde_json::from_slice(&entry.value).unwrap_or_default());
            }
            Kind::Freeze => {
                let freeze = Freeze::read(&entry.value).map_err(|error| error.to_string());
                self.freezes.insert(source, freeze);
            }
            Kind::Order(name) => {
                if let Ok(order) = name.parse() {
                    let document = Document::read(&entry.value);
                    let placed = Placed { index: entry.modify_index, value: entry.value, document };
                    self.orders.insert(OrderKey { source, order }, placed);
                }
            }
            Kind::Control(_) | Kind::Unknown => {}
        }
        self.odd.extend(why.map(|why| (path, why)));
    }

    /// Freezes that no agent obeys, since nobody has such a name: each host or group with the reason.
    pub(super) fn freezes_of_nobody(&self) -> Vec<(Source, String)> {
        let (hosts, groups) = (self.hosts(), self.groups());
        let known = |source: &Source| match source {
            Source::Host(host) => hosts.contains(host),
            Source::Group(group) => group.as_str() == ALL || groups.contains(group),
        };
        let why = |source: &Source| match source {
            Source::Host(_) => odd::freeze_of_nobody(source, hosts.iter().map(|name| name.as_str())),
            Source::Group(_) => odd::freeze_of_nobody(source, groups.iter().map(|name| name.as_str())),
        };
        let wrong = self.freezes.keys().filter(|source| !known(source));
        wrong.map(|source| (source.clone(), why(source))).collect()
    }

    /// The freezes that are not over and keep anything from starting on one of these hosts.
    pub(super) fn freezes_of<'a>(
        &'a self,
        hosts: &BTreeSet<&Name>,
        now: Timestamp,
    ) -> Vec<(&'a Source, &'a Result<Freeze, String>)> {
        let concerns = |source: &Source| match source {
            Source::Host(host) => hosts.contains(host),
            Source::Group(group) => {
                group.as_str() == ALL || hosts.iter().any(|host| self.groups_of(host).contains(group))
            }
        };
        let over = |freeze: &Result<Freeze, String>| freeze.as_ref().is_ok_and(|freeze| freeze.is_over(now));
        self.freezes.iter().filter(|(source, freeze)| concerns(source) && !over(freeze)).collect()
    }

    /// The number of hosts and groups that are enrolled.
    pub(super) fn enrolled(&self) -> usize {
        self.markers.len()
    }

    /// All hosts that are enrolled or have reported.
    pub(super) fn hosts(&self) -> BTreeSet<&Name> {
        let enrolled = self.markers.keys().filter_map(|source| match source {
            Source::Host(host) => Some(host),
            Source::Group(_) => None,
        });
        enrolled.chain(self.agents.keys()).collect()
    }

    /// The groups of a host: as its agent says; of one that has never said anything that is understood here, as it was
    /// enrolled.
    pub(super) fn groups_of(&self, host: &Name) -> &[Name] {
        match self.agents.get(host) {
            Some(agent) if agent.version > 0 => &agent.groups,
            _ => self.enrolled_groups(host).unwrap_or_default(),
        }
    }

    /// The groups that a host was enrolled into.
    fn enrolled_groups(&self, host: &Name) -> Option<&[Name]> {
        self.markers.get(&Source::Host(host.clone()))?.groups.as_deref()
    }

    /// The known hosts of a group: those that were enrolled into it, whatever another host reports. In `all` is each.
    pub(super) fn members(&self, group: &Name) -> BTreeSet<&Name> {
        let is_member =
            |host: &Name| self.enrolled_groups(host).unwrap_or(self.groups_of(host)).contains(group);
        self.hosts().into_iter().filter(|host| group.as_str() == ALL || is_member(host)).collect()
    }

    /// The hosts that report a group into which they were not enrolled. They are no members.
    fn claimants(&self, group: &Name) -> Vec<&str> {
        let members = self.members(group);
        let claims = |host: &&Name| self.groups_of(host).contains(group) && !members.contains(host);
        self.hosts().into_iter().filter(claims).map(Name::as_str).collect()
    }

    /// Names hosts that report a group without being enrolled into it.
    pub(super) fn note_claimants(&self, group: &Name) {
        let claimants = self.claimants(group);
        if let [first, ..] = claimants[..] {
            show::note(format!(
                "not counted: {} {} {group} and not enrolled into it; hostler enroll {first} --group {group} does so",
                claimants.join(", "),
                if claimants.len() == 1 { "reports to be in group" } else { "report to be in group" },
            ));
        }
    }

    /// All groups that are enrolled or that a host says it is in.
    pub(super) fn groups(&self) -> BTreeSet<&Name> {
        let enrolled = self.markers.keys().filter_map(|source| match source {
            Source::Group(group) => Some(group),
            Source::Host(_) => None,
        });
        enrolled.chain(self.agents.values().flat_map(|agent| &agent.groups)).collect()
    }

    /// Refuses a place that nobody watches: most probably it is mistyped.
    pub(super) fn check(&self, source: &Source) -> Result<(), Failure> {
        if self.markers.contains_key(source) {
            return Ok(());
        }
        let (kind, name, known) = match source {
            Source::Host(name) => ("host", name, self.hosts()),
            Source::Group(name) => ("group", name, self.groups()),
        };
        let enroll = match source {
            Source::Host(name) => format!("hostler enroll {name}{}", said()),
            Source::Group(name) => format!("hostler enroll HOST --group {name}{}", said()),
        };
        // A word that is there as another kind was hardly mistyped.
        let other = match source {
            Source::Host(name) if self.groups().contains(name) => Some("group"),
            Source::Group(name) if self.hosts().contains(name) => Some("host"),
            _ => None,
        };
        if let Some(other) = other {
            let message = format!("no {kind} {name} is enrolled, but a {other}: write --{other} {name}");
            return Err(fault(Exit::NotFound, message));
        }
        let known = known.into_iter().filter(|other| *other != name).map(Name::as_str);
        let message = match nearest(name.as_str(), known) {
            Some(meant) => format!("no {kind} {name} is enrolled: did you mean {meant}? Otherwise: {enroll}"),
            None => format!("no {kind} {name} is enrolled, or the token may not see it: {enroll}"),
        };
        Err(fault(Exit::NotFound, message))
    }

    /// Refuses a host that is neither enrolled nor has reported.
    pub(super) fn check_host(&self, host: &Name) -> Result<(), Failure> {
        if self.agents.contains_key(host) { Ok(()) } else { self.check(&Source::Host(host.clone())) }
    }

    /// The order that counts on a host under a name: its own, or that of its nearest group.
    pub(super) fn effective(&self, host: &Name, order: &Name) -> Option<(OrderKey, &Placed)> {
        let all = std::iter::once(Name::all());
        let groups = self.groups_of(host);
        let mut sources = vec![Source::Host(host.clone())];
        sources.extend(groups.iter().cloned().chain(all).map(Source::Group));
        sources.into_iter().find_map(|source| {
            let key = OrderKey { source, order: order.clone() };
            self.orders.get(&key).map(|placed| (key, placed))
        })
    }

    /// The hosts on which an order counts where it stands, and those of its place that have a nearer one of this name.
    pub(super) fn followers(&self, key: &OrderKey) -> (Vec<&Name>, Vec<&Name>) {
        let hosts: Vec<&Name> = match &key.source {
            Source::Host(host) => self.hosts().into_iter().filter(|known| *known == host).collect(),
            Source::Group(group) => self.members(group).into_iter().collect(),
        };
        let all = Name::all();
        hosts.into_iter().partition(|host| {
            let own = std::iter::once(Source::Host((*host).clone()));
            let groups = self.groups_of(host).iter().chain([&all]).cloned().map(Source::Group);
            let mut sources = own.chain(groups);
            // Whichever of its places has the order first, this one included.
            let has = |source: &Source| {
                let place = OrderKey { source: source.clone(), order: key.order.clone() };
                *source == key.source || self.orders.contains_key(&place)
            };
            // A host that has not said yet that it is in the group will be.
            sources.find(has).is_none_or(|source| source == key.source)
        })
    }

    /// A word about a task that no order has named so far, although one has a name that is almost the same. Which tasks
    /// a host has only the host knows, so it is no more than a word.
    pub(super) fn doubt_task(&self, task: &Name) -> Option<String> {
        let named = self.orders.values().filter_map(|placed| match &placed.document {
            Ok(Document::Order(order)) => Some(&order.task),
            _ => None,
        });
        if named.clone().any(|named| named == task) {
            return None;
        }
        let meant = nearest(task.as_str(), named.map(Name::as_str))?;
        Some(format!(
            "no order has named a task {task} so far, but {meant}: if it is mistyped, the host will refuse it"
        ))
    }

    /// What there is of an order name, for the message about one that is mistyped.
    pub(super) fn no_order(&self, order: &Name, source: Option<&Source>) -> Failure {
        let in_place = |key: &&OrderKey| source.is_none_or(|source| key.source == *source);
        let known = self.orders.keys().filter(in_place).map(|key| key.order.as_str());
        let place = source.map(|source| format!(" in {source}")).unwrap_or_default();
        let elsewhere = self.orders.keys().find(|key| key.order == *order);
        let message = match (nearest(order.as_str(), known), elsewhere) {
            (_, Some(key)) => format!("there is no order {order}{place}, but there is {key}"),
            _ if self.groups().contains(order) => {
                format!(
                    "there is no order {order}{place}, but a group: hostler status --group {order}{}",
                    said()
                )
            }
            _ if self.hosts().contains(order) => {
                format!(
                    "there is no order {order}{place}, but a host: hostler status --host {order}{}",
                    said()
                )
            }
            (Some(meant), None) => format!("there is no order {order}{place}: did you mean {meant}?"),
            (None, None) => format!("there is no order {order}{place}: see hostler order list{}", said()),
        };
        fault(Exit::NotFound, message)
    }
}

/// The reports of orders on hosts; those that are not there are left out.
pub(super) async fn reports(
    place: &Connection,
    wanted: &[(Name, Name)],
) -> Result<BTreeMap<(Name, Name), OrderReport>, Failure> {
    let mut found = BTreeMap::new();
    for pairs in wanted.chunks(MAX_READS) {
        let read = |(host, order): &(Name, Name)| Read::Key(place.keys.order_report(host, order));
        let reads: Vec<Read> = pairs.iter().map(read).collect();
        for (pair, listing) in pairs.iter().zip(place.store.look(&reads).await?) {
            if let Some(entry) = listing.entries.first() {
                found.insert(pair.clone(), report_of(&entry.value));
            }
        }
    }
    Ok(found)
}

/// A report, also where it cannot be read.
pub(super) fn report_of(value: &[u8]) -> OrderReport {
    let unreadable = |error: document::Unreadable| OrderReport {
        phase: UNREADABLE.into(),
        error: Some(error.to_string()),
        ..OrderReport::default()
    };
    document::read(value).unwrap_or_else(unreadable)
}

/// What an agent says of itself, also where it cannot be read: whether it lives is understood of any version.
pub(super) fn agent_of(value: &[u8]) -> AgentReport {
    document::read(value).unwrap_or_else(|error| {
        let author: Author = serde_json::from_slice(value).unwrap_or_default();
        let conditions = vec![ReportedCondition::of_report(error.to_string())];
        AgentReport { conditions, next_report_by: author.next_report_by, ..AgentReport::default() }
    })
}

/// Where an order stands on a host, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum OrderStatus {
    /// The wanted state holds.
    Done,
    /// The state that it keeps up does not hold.
    Drifted,
    /// Over, and not done.
    Failed,
    /// Waits for an operator's word.
    Held,
    /// Waits.
    Waiting,
    /// Under way.
    Running,
    /// The host has not said anything of this instruction.
    NoReport,
    /// The host should have said something by now.
    Stale,
}

impl OrderStatus {
    /// As people read it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Drifted => "drifted",
            Self::Failed => "failed",
            Self::Held => "held",
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::NoReport => "no report",
            Self::Stale => "stale",
        }
    }
}

/// Whether a promise to say something by then is broken.
pub(super) fn is_late(next_report_by: Option<Timestamp>, now: Timestamp) -> bool {
    next_report_by.is_some_and(|by| by < now)
}

/// Where an order stands on a host. `wanted`: the order that counts there now.
pub(super) fn standing(
    wanted: Option<&Placed>,
    report: Option<&OrderReport>,
    agent: Option<&AgentReport>,
    now: Timestamp,
) -> OrderStatus {
    let not_seen = if agent.is_some_and(|agent| is_late(agent.next_report_by, now)) {
        OrderStatus::Stale
    } else {
        OrderStatus::NoReport
    };
    let Some(report) = report else { return not_seen };
    let end = end_of_phase(&report.phase);
    let skips = wanted.is_some_and(|placed| placed.document == Ok(Document::Skip));
    let told_of_this = match wanted {
        // What is no longer ordered is told as it was.
        None => true,
        Some(_) if skips => end == Some(End::Skipped),
        Some(placed) => end != Some(End::Skipped) && report.identity == placed.identity(),
    };
    if !told_of_this {
        return not_seen;
    }
    // The probe is asked as often as the order says; one that says nothing any more is seen by its agent.
    let silent = is_late(report.next_report_by, now);
    match end {
        Some(end) if end.is_good() && report.drifted && !silent => OrderStatus::Drifted,
        Some(end) if end.is_good() => OrderStatus::Done,
        Some(_) => OrderStatus::Failed,
        None if silent => OrderStatus::Stale,
        // Nothing is carried out: what the probe said is all there is.
        None if report.phase == "waiting" && report.asked.is_some() => {
            if report.drifted {
                OrderStatus::Drifted
            } else {
                OrderStatus::Done
            }
        }
        None => match report.phase.as_str() {
            "held" => OrderStatus::Held,
            "waiting" => OrderStatus::Waiting,
            UNREADABLE => OrderStatus::NoReport,
            _ => OrderStatus::Running,
        },
    }
}

/// The conditions of an agent in one line.
pub(super) fn conditions_line(agent: &AgentReport) -> String {
    let messages: Vec<&str> = agent.conditions.iter().map(|condition| &*condition.message).collect();
    messages.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(text: &str) -> Placed {
        Placed { index: 1, value: text.into(), document: Document::read(text.as_bytes()) }
    }

    fn at(text: &str) -> Option<Timestamp> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn only_a_report_of_the_present_instruction_counts() {
        let now = at("2030-01-01T12:00:00Z").unwrap();
        let (order, other) = (placed("task: a"), placed("task: a\nrevision: '2'"));
        let broken = placed("tsk: a");
        let skip = placed("skip: true");
        let report = |phase: &str, identity: Option<InstructionHash>, next_report_by: &str| OrderReport {
            phase: phase.into(),
            identity,
            next_report_by: at(next_report_by),
            ..OrderReport::default()
        };
        let (later, before) = ("2030-01-01T12:05:00Z", "2030-01-01T11:00:00Z");
        let this = order.identity();
        for (wanted, phase, identity, next_report_by, expected) in [
            (Some(&order), "succeeded", this, before, OrderStatus::Done),
            (Some(&order), "unchanged", this, later, OrderStatus::Done),
            (Some(&order), "failed", this, before, OrderStatus::Failed),
            (Some(&order), "refused", this, later, OrderStatus::Failed),
            (Some(&order), "held", this, later, OrderStatus::Held),
            (Some(&order), "waiting", this, later, OrderStatus::Waiting),
            (Some(&order), "undoing", this, later, OrderStatus::Running),
            (Some(&order), "running", this, before, OrderStatus::Stale),
            (Some(&other), "succeeded", this, later, OrderStatus::NoReport),
            (Some(&order), "succeeded", None, later, OrderStatus::NoReport),
            (Some(&order), "skipped", None, later, OrderStatus::NoReport),
            (Some(&skip), "skipped", None, later, OrderStatus::Done),
            (Some(&skip), "succeeded", this, later, OrderStatus::NoReport),
            (Some(&broken), "refused", None, later, OrderStatus::Failed),
            (Some(&order), "unreadable", None, later, OrderStatus::NoReport),
            (None, "succeeded", this, later, OrderStatus::Done),
        ] {
            let report = report(phase, identity, next_report_by);
            let found = standing(wanted, Some(&report), None, now);
            assert_eq!(found, expected, "{phase} {identity:?} {next_report_by}");
        }
        let drifted = |phase: &str, next_report_by: &str| OrderReport {
            asked: at(before),
            drifted: true,
            ..report(phase, this, next_report_by)
        };
        for (phase, next_report_by, expected) in [
            ("succeeded", later, OrderStatus::Drifted),
            ("succeeded", before, OrderStatus::Done),
            ("waiting", later, OrderStatus::Drifted),
            ("waiting", before, OrderStatus::Stale),
            ("running", later, OrderStatus::Running),
            ("failed", later, OrderStatus::Failed),
        ] {
            let found = standing(Some(&order), Some(&drifted(phase, next_report_by)), None, now);
            assert_eq!(found, expected, "{phase} {next_report_by}");
        }
        let holds = OrderReport { drifted: false, ..drifted("waiting", later) };
        assert_eq!(standing(Some(&order), Some(&holds), None, now), OrderStatus::Done);
        let agent = AgentReport { next_report_by: at(before), ..AgentReport::default() };
        assert_eq!(standing(Some(&order), None, Some(&agent), now), OrderStatus::Stale);
        assert_eq!(standing(Some(&order), None, None, now), OrderStatus::NoReport);
    }
}
