//! What the agent shows the writer: the reports of its orders, of its newest runs, and of itself.

use super::forget::Leaving;
use super::record::Durable;
use super::telemetry::Listening;
use super::warnings::Warnings;
use crate::domain::state::LedgerEntry;
use crate::host::notify::Notify;
use crate::report::desired::RenderQueue;
use crate::telemetry::counters::RunCounters;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hash;
use std::sync::Arc;
use tokio::sync::watch;

use serde::Serialize;

use super::telemetry::PhaseCounts;
use super::{Agent, forget, watches};
use crate::domain::condition::{Condition, Kind};
use crate::domain::control::ControlId;
use crate::domain::name::Name;
use crate::domain::text;
use crate::host::{clock, machine};
use crate::report;
use crate::report::bounds;
use crate::report::compose::Sources;
use crate::report::desired::{DesiredReports, Report, Reports, TEXTS_AT_ONCE};
use crate::report::document::{AgentReport, REPORT_VERSION, ReportedCondition};

/// What the agent shows: to the store, to systemd, and to who measures.
pub(super) struct Output {
    pub(super) wanted: watch::Sender<Arc<DesiredReports>>,
    pub(super) texts: RenderQueue,
    /// When the store last took what this host has to report.
    pub(super) reported: watch::Sender<Option<Timestamp>>,
    /// The same, of the agent before this one, as far as its own report says it.
    pub(super) told_before: Option<Timestamp>,
    pub(super) leaving: Leaving,
    /// How many names the store has no report of any more.
    pub(super) dropped_count: usize,
    pub(super) counters: RunCounters,
    pub(super) shown: PhaseCounts,
    pub(super) warnings: Warnings,
    pub(super) listening: Listening,
    pub(super) notify: Notify,
}

impl Output {
    /// Counts the runs that are over as the ledger now says.
    pub(super) fn count_ends(&mut self, facts: &[LedgerEntry]) {
        for fact in facts {
            let LedgerEntry::Closed { closing, .. } = fact else { continue };
            let Some(run) = &closing.run else { continue };
            let task = run.task.split('@').next().unwrap_or_default();
            let seconds = run.started.map(|started| closing.at.duration_since(started).as_secs_f64());
            self.counters.count(task, closing.end, seconds);
        }
    }

    /// As of when the store has all that was due, by this agent or by the one before.
    pub(super) fn reported_until(&self) -> Option<Timestamp> {
        self.reported.borrow().or(self.told_before)
    }
}

/// How many orders the agent's own report names at most.
const ORDERS_NAMED: usize = 100;
/// How many controls it answers, the newest first.
const CONTROLS: usize = 8;
/// The longest answer, in bytes.
const ANSWER: usize = 120;

/// How many keys without effect are named in a report.
const MAX_IGNORED: usize = 20;

impl Durable {
    /// What became of the newest controls.
    pub(super) fn answers(&self) -> BTreeMap<ControlId, String> {
        let Ok(ledger) = &self.ledger else { return BTreeMap::new() };
        let newest = ledger.state().acts.iter().rev().take(CONTROLS);
        newest.map(|(id, acted)| (*id, text::head(&acted.answer, ANSWER))).collect()
    }
}

impl Agent {
    /// Shows what the store should hold now; what has not changed stays the same.
    pub(super) fn publish(&mut self) {
        let asked = self.output.texts.take();
        self.publish_all(&asked);
    }

    /// Composes the texts that the writer asks for, and nothing else: of ten thousand reports it takes a few at a time, and
    /// composing all of them each time would take a minute.
    pub(super) fn publish_asked(&mut self) {
        let asked = self.output.texts.take();
        let before = self.output.wanted.borrow().clone();
        let below = self.config.settings.keys.order_reports(&self.identity.host);
        let name = |key: &Arc<str>| key.strip_prefix(below.as_str())?.parse::<Name>().ok();
        let names: BTreeSet<Name> = asked.iter().filter_map(name).collect();
        let mut composed_count = 0;
        if let (Ok(ledger), None) = (&self.durable.ledger, &self.identity.who.differs) {
            let (memory, decision, runs) = (ledger.state(), &self.work.decision, self.run_table.runs.views());
            let sources = Sources { host: &self.identity.host, memory, decision, runs, now: clock::now() };
            sources.each_chosen(
                |order| names.contains(order),
                |order, composed| {
                    let report = bounds::order(composed.report);
                    let known = before
                        .reports
                        .get(self.config.settings.keys.order_report(&self.identity.host, order).as_str());
                    let same = known.filter(|known| known.is_of(&report));
                    composed_count += usize::from(same.is_some_and(|known| known.compose(&report).is_ok()));
                },
            );
        }
        if composed_count < asked.len() {
            // One is no order's, or says something else by now.
            return self.publish_all(&asked);
        }
        self.output.wanted.send_replace(before);
    }

    fn publish_all(&mut self, asked: &BTreeSet<Arc<str>>) {
        let facts = self.facts.report(&self.identity.host, &self.config.settings.labels);
        let before = self.output.wanted.borrow().clone();
        let mut collected = Collected { before: &before, asked, room: TEXTS_AT_ONCE, wanted: Reports::new() };
        let keys = &self.config.settings.keys;
        let (mut phases, mut unnamed) = (BTreeMap::new(), 0);
        let mut shown = PhaseCounts::default();
        // What the ledger holds is told under the name that it was kept for.
        let mut dropped = BTreeSet::new();
        if let (Ok(ledger), None) = (&self.durable.ledger, &self.identity.who.differs) {
            let gone =
                forget::dropped(ledger.state(), self.output.reported_until(), &self.identity.host, keys);
            dropped = gone.reports;
            let (memory, decision, runs) = (ledger.state(), &self.work.decision, self.run_table.runs.views());
            Sources { host: &self.identity.host, memory, decision, runs, now: clock::now() }.each_order(
                |order, composed| {
                    if gone.names.contains(order) {
                        return;
                    }
                    shown.count(&composed);
                    let report = bounds::order(composed.report);
                    if phases.len() < ORDERS_NAMED {
                        phases.insert(order.to_string(), report.phase.clone());
                    } else {
                        unnamed += 1;
                    }
                    let key = keys.order_report(&self.identity.host, order);
                    collected.add(&key, &report, Report::order);
                },
            );
            for (run, report) in self.run_table.runs.reports() {
                let (key, report) = (keys.run_report(&self.identity.host, run), bounds::run(report));
                collected.add(&key, &report, Report::run);
            }
        }
        if let (Some(report), None) = (&facts, &self.identity.who.differs) {
            collected.add(&keys.facts_report(&self.identity.host), &**report, Report::facts);
        }
        if let (Ok(audit), None) = (&self.durable.audit, &self.identity.who.differs) {
            let (key, head) = (keys.audit_report(&self.identity.host), audit.head());
            let report = || report::audit::compose(&self.identity.host, head, audit.newest());
            collected.add_composed(&key, head, report, Report::audit);
        }
        self.output.shown = shown;
        self.output.dropped_count = dropped.len();
        let conditions = self.conditions();
        self.output.warnings.log(&conditions);
        self.tell_consul(&conditions);
        let reported = |condition: Condition| ReportedCondition {
            kind: condition.kind.as_str().to_owned(),
            message: condition.text,
        };
        let conditions = conditions.into_iter().map(reported);
        let agent = AgentReport {
            version: REPORT_VERSION,
            host: self.identity.host.to_string(),
            id: self.identity.who.id.clone(),
            machine: machine::machine_id(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            boot: self.identity.boot.clone(),
            groups: self.config.settings.groups.clone(),
            conditions: conditions.collect(),
            // What was reported stays reported while the record cannot be kept: it is the proof of what it was.
            audit: self
                .durable
                .audit
                .as_ref()
                .map_or_else(|_| self.durable.reported_audit.clone(), |audit| audit.head().clone()),
            observed_index: watches::observed_index(&self.sync.watches),
            controls: self.durable.answers(),
            orders: phases,
            tasks: self.orders.known_tasks.clone(),
            budgets: self.reported_budgets(clock::now()),
            ..AgentReport::default()
        };
        let agent = bounds::agent(agent, unnamed);
        let key = keys.agent_report(&self.identity.host);
        collected.add(&key, &agent, Report::agent);
        let wanted =
            DesiredReports { reports: collected.wanted, dropped, snapshot_count: self.sync.snapshot_count };
        if !asked.is_empty() || *before != wanted {
            self.output.wanted.send_replace(Arc::new(wanted));
        }
    }

    /// All that is wrong, the most important first.
    pub(super) fn conditions(&self) -> Vec<Condition> {
        let about = |kind| move |text: String| Condition::new(kind, text);
        let mut conditions: Vec<Condition> =
            self.start_block(clock::now()).map(about(Kind::Identity)).into_iter().collect();
        conditions.extend(self.sync.watches.iter().filter_map(watches::PrefixWatch::condition));
        conditions.extend(self.sync.desired.condition());
        let unread = self.durable.ledger.as_ref().err().map(|error| format!("safe mode: {error}"));
        conditions.extend(unread.map(about(Kind::SafeMode)));
        conditions.extend(
            self.run_table.runs.newer().map(|why| format!("safe mode: {why}")).map(about(Kind::SafeMode)),
        );
        let unkept = self.durable.audit.as_ref().err().map(|error| {
            format!(
                "audit: {error}: nothing starts; keep the folder as evidence, and follow \"A damaged record\" in Hostler's docs/operations.md"
            )
        });
        conditions.extend(unkept.map(about(Kind::Audit)));
        conditions.extend(
            self.durable
                .disk_guard
                .full
                .iter()
                .chain(&self.durable.disk_guard.without)
                .cloned()
                .map(about(Kind::Disk)),
        );
        conditions.extend(self.sync.refused_reports.borrow().iter().cloned().map(about(Kind::Store)));
        conditions.extend(self.durable.ledger_full.iter().cloned().map(about(Kind::Ledger)));
        conditions.extend(self.durable.downtime.condition().map(about(Kind::Downtime)));
        conditions.extend(self.run_table.runs.failed_guards().map(about(Kind::Guard)));
        conditions.extend(self.config.pending.iter().cloned().map(about(Kind::Settings)));
        conditions.extend(self.vault.vault_condition().map(about(Kind::Vault)));
        conditions.extend(self.watch_conditions().into_iter().map(about(Kind::Vault)));
        conditions.extend(self.orders.unready.conditions(clock::now()).map(about(Kind::Vault)));
        conditions.extend(self.output.listening.trouble().map(about(Kind::Telemetry)));
        // Of these there may be many.
        let ignored = self.sync.watches.iter().flat_map(|sight| sight.ignored());
        conditions.extend(ignored.take(MAX_IGNORED).map(about(Kind::Ignored)));
        let broken = self.orders.catalog.iter().filter_map(|(_, task)| task.err().map(ToString::to_string));
        conditions.extend(broken.map(about(Kind::Task)));
        conditions.extend(self.late_orders(clock::now()).into_iter().map(about(Kind::Order)));
        conditions.extend(self.orders.recurring.conditions().map(about(Kind::Probe)));
        conditions.extend(self.facts.conditions().into_iter().map(about(Kind::Fact)));
        conditions
    }
}

/// The reports that are wanted now, collected one by one.
struct Collected<'a> {
    before: &'a DesiredReports,
    /// Keys whose texts the writer asked for.
    asked: &'a BTreeSet<Arc<str>>,
    /// How many more texts may be composed.
    room: usize,
    wanted: Reports,
}

impl Collected<'_> {
    /// Adds a report; one that has not changed stays the same. A text is composed where it was asked for, and for what
    /// has changed as long as there is room; the writer asks for the others in turn.
    fn add<T: Hash + Serialize>(&mut self, key: &str, value: &T, new: impl FnOnce(&T) -> Report) {
        self.add_composed(key, value, || value, new);
    }

    /// The same of a report that `of` stands for, and that is put together only where its text is needed.
    fn add_composed<I: Hash, T: Serialize>(
        &mut self,
        key: &str,
        of: &I,
        value: impl FnOnce() -> T,
        new: impl FnOnce(&I) -> Report,
    ) {
        let (key, report, texted) = match self.before.reports.get_key_value(key) {
            Some((key, report)) if report.is_of(of) => {
                (Arc::clone(key), Arc::clone(report), self.asked.contains(key))
            }
            _ => (key.into(), Arc::new(new(of)), self.room > 0),
        };
        if texted {
            self.room = self.room.saturating_sub(1);
            if let Err(error) = report.compose(&value()) {
                tracing::error!("cannot serialize the report {key}: {error}");
                return;
            }
        }
        self.wanted.insert(key, report);
    }
}
