//! Where orders stand, a row for each order on each host on which it counts.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::cli::Failure;
use crate::cli::connection::Connection;
use crate::cli::exit::Exit;
use crate::cli::fleet::{Fleet, OrderStatus, is_late, reports, standing};
use crate::domain::freeze::Freeze;
use crate::domain::name::Name;
use crate::domain::source::{OrderKey, Source};
use crate::report::document::OrderReport;

/// What is asked for; nothing said is everything.
#[derive(Clone, Default)]
pub(in crate::cli) struct Question {
    /// This order.
    pub(in crate::cli) order: Option<Name>,
    /// On these hosts.
    pub(in crate::cli) hosts: BTreeSet<Name>,
    /// On the known hosts of this group.
    pub(in crate::cli) group: Option<Name>,
}

impl Question {
    /// Whether nothing was said.
    pub(in crate::cli) fn is_all(&self) -> bool {
        self.order.is_none() && self.hosts.is_empty() && self.group.is_none()
    }
}

/// An order on a host.
pub(in crate::cli) struct Row {
    pub(in crate::cli) host: Name,
    pub(in crate::cli) order: Name,
    /// Where the order stands that counts there; none: it is no longer ordered.
    pub(in crate::cli) key: Option<OrderKey>,
    pub(in crate::cli) standing: OrderStatus,
    pub(in crate::cli) report: Option<OrderReport>,
}

impl Row {
    /// What is no longer ordered is shown, but nobody waits for it.
    pub(in crate::cli) fn is_good(&self) -> bool {
        self.standing == OrderStatus::Done || self.key.is_none()
    }
}

/// The answer.
pub(in crate::cli) struct Rows {
    pub(in crate::cli) rows: Vec<Row>,
    /// The hosts that were asked for, also those without an order.
    pub(in crate::cli) hosts: BTreeSet<Name>,
    pub(in crate::cli) fleet: Fleet,
    /// As of.
    pub(in crate::cli) now: Timestamp,
}

impl Rows {
    /// Reads what the store says now.
    pub(in crate::cli) async fn read(
        place: &Connection,
        fleet: Fleet,
        question: &Question,
        now: Timestamp,
    ) -> Result<Self, Failure> {
        let (hosts, pairs) = pairs(question, &fleet)?;
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
        match &question.order {
            Some(order) if rows.is_empty() => Err(fleet.no_order(order, None)),
            _ => Ok(Self { rows, hosts, fleet, now }),
        }
    }

    /// The freezes in force that concern the hosts that were asked for.
    pub(in crate::cli) fn freezes(&self) -> Vec<(&Source, &Result<Freeze, String>)> {
        let shown: BTreeSet<&Name> = self.hosts.iter().collect();
        self.fleet.freezes_of(&shown, self.now)
    }

    /// Whether the wanted state holds on each host.
    pub(in crate::cli) fn all_done(&self) -> bool {
        self.rows.iter().all(Row::is_good)
    }

    /// How the command ends.
    pub(in crate::cli) fn exit(&self) -> Exit {
        if self.all_done() { Exit::Success } else { Exit::Negative }
    }

    /// How many stand how.
    pub(in crate::cli) fn counts(&self) -> BTreeMap<OrderStatus, usize> {
        let mut counts = BTreeMap::new();
        for row in &self.rows {
            *counts.entry(row.standing).or_default() += 1;
        }
        counts
    }

    /// The counts as people read them.
    pub(in crate::cli) fn in_words(&self) -> String {
        let counts = self.counts();
        let words: Vec<String> =
            counts.iter().map(|(standing, count)| format!("{count} {}", standing.as_str())).collect();
        if words.is_empty() { "no orders".to_owned() } else { words.join(", ") }
    }

    /// For programs.
    pub(in crate::cli) fn document(&self) -> Value {
        let row = |row: &Row| {
            let agent = self.fleet.agents.get(&row.host);
            json!({
                "host": row.host, "order": row.order, "place": row.key.as_ref().map(|key| &key.source),
                "status": row.standing,
                "agent_stale": agent.is_none_or(|agent| is_late(agent.next_report_by, self.now)),
                "report": row.report,
            })
        };
        json!({"all_done": self.all_done(), "hosts": self.rows.iter().map(row).collect::<Vec<_>>()})
    }
}

/// Orders, each on a host.
type Pairs = Vec<(Name, Name)>;

/// The hosts that were asked for, and the orders on them.
fn pairs(question: &Question, fleet: &Fleet) -> Result<(BTreeSet<Name>, Pairs), Failure> {
    let mut hosts: BTreeSet<&Name> = match &question.group {
        Some(group) => {
            fleet.check(&Source::Group(group.clone()))?;
            fleet.note_claimants(group);
            fleet.members(group)
        }
        None => fleet.hosts(),
    };
    if !question.hosts.is_empty() {
        question.hosts.iter().try_for_each(|host| fleet.check_host(host))?;
        hosts.retain(|known| question.hosts.contains(*known));
    }
    let orders: BTreeSet<&Name> = match &question.order {
        Some(order) => BTreeSet::from([order]),
        None => fleet.orders.keys().map(|key| &key.order).collect(),
    };
    let ordered =
        |host: &Name, order: &Name| question.order.is_some() || fleet.effective(host, order).is_some();
    let mut pairs = Vec::new();
    for host in &hosts {
        for order in &orders {
            if ordered(host, order) {
                pairs.push(((*host).clone(), (*order).clone()));
            }
        }
    }
    Ok((hosts.into_iter().cloned().collect(), pairs))
}
