//! What the agent shows the writer: the reports of its orders, of its newest runs, and of itself.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hash;
use std::sync::Arc;

use serde::Serialize;

use super::telemetry::PhaseCounts;
use super::{Agent, forget, watches};
use crate::domain::condition::{Condition, Kind};
use crate::domain::control::ControlId;
use crate::domain::name::Name;
use crate::domain::text;
use crate::host::{clock, facts};
use crate::report::bounds;
use crate::report::compose::Sources;
use crate::report::desired::{DesiredReports, Report, Reports, TEXTS_AT_ONCE};
use crate::report::document::{AgentReport, REPORT_VERSION, ReportedCondition};

/// How many orders the agent's own report names at most.
const ORDERS_NAMED: usize = 100;
/// How many controls it answers, the newest first.
const CONTROLS: usize = 8;
/// The longest answer, in bytes.
const ANSWER: usize = 120;

/// How many keys without effect are named in a report.
const MOST_IGNORED: usize = 20;

impl Agent {
    /// Shows what the store should hold now; what has not changed stays the same.
    pub(super) fn publish(&mut self) {
        let asked = self.texts.take();
        self.publish_all(&asked);
    }

    /// Composes the texts that the writer asks for, and nothing else: of ten thousand reports it takes a few at a time, and
    /// composing all of them each time would take a minute.
    pub(super) fn publish_asked(&mut self) {
        let asked = self.texts.take();
        let before = self.wanted.borrow().clone();
        let below = self.settings.keys.order_reports(&self.host);
        let name = |key: &Arc<str>| key.strip_prefix(below.as_str())?.parse::<Name>().ok();
        let names: BTreeSet<Name> = asked.iter().filter_map(name).collect();
        let mut composed_count = 0;
        if let (Ok(ledger), None) = (&self.ledger, &self.who.differs) {
            let (memory, decision, runs) = (ledger.state(), &self.decision, self.runs.views());
            let sources = Sources { host: &self.host, memory, decision, runs, now: clock::now() };
            sources.each_chosen(
                |order| names.contains(order),
                |order, composed| {
                    let report = bounds::order(composed.report);
                    let known =
                        before.reports.get(self.settings.keys.order_report(&self.host, order).as_str());
                    let same = known.filter(|known| known.is_of(&report));
                    composed_count += usize::from(same.is_some_and(|known| known.compose(&report).is_ok()));
                },
            );
        }
        if composed_count < asked.len() {
            // One is no order's, or says something else by now.
            return self.publish_all(&asked);
        }
        self.wanted.send_replace(before);
    }

    fn publish_all(&mut self, asked: &BTreeSet<Arc<str>>) {
        let before = self.wanted.borrow().clone();
        let mut wanted = Reports::new();
        let mut room = TEXTS_AT_ONCE;
        let keys = &self.settings.keys;
        let (mut phases, mut unnamed) = (BTreeMap::new(), 0);
        let mut shown = PhaseCounts::default();
        // What the ledger holds is told under the name that it was kept for.
        let mut dropped = BTreeSet::new();
        if let (Ok(ledger), None) = (&self.ledger, &self.who.differs) {
            let gone = forget::dropped(ledger.state(), self.reported_until(), &self.host, keys);
            dropped = gone.reports;
            let (memory, decision, runs) = (ledger.state(), &self.decision, self.runs.views());
            Sources { host: &self.host, memory, decision, runs, now: clock::now() }.each_order(
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
                    let key = keys.order_report(&self.host, order);
                    add(&before, asked, &mut room, &mut wanted, &key, &report, Report::order);
                },
            );
            for (run, report) in self.runs.reports() {
                let (key, report) = (keys.run_report(&self.host, run), bounds::run(report));
                add(&before, asked, &mut room, &mut wanted, &key, &report, Report::run);
            }
        }
        self.shown = shown;
        self.dropped_count = dropped.len();
        let conditions = self.conditions();
        self.warnings.log(&conditions);
        self.tell_consul(&conditions);
        let reported = |condition: Condition| ReportedCondition {
            kind: condition.kind.as_str().to_owned(),
            message: condition.text,
        };
        let conditions = conditions.into_iter().map(reported);
        let agent = AgentReport {
            version: REPORT_VERSION,
            host: self.host.to_string(),
            id: self.who.id.clone(),
            machine: facts::machine_id(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            boot: self.boot.clone(),
            groups: self.settings.groups.clone(),
            conditions: conditions.collect(),
            // What was reported stays reported while the record cannot be kept: it is the proof of what it was.
            audit: self
                .audit
                .as_ref()
                .map_or_else(|_| self.reported_audit.clone(), |audit| audit.head().clone()),
            observed_index: watches::observed_index(&self.watches),
            controls: self.answers(),
            orders: phases,
            ..AgentReport::default()
        };
        let agent = bounds::agent(agent, unnamed);
        let key = keys.agent_report(&self.host);
        add(&before, asked, &mut room, &mut wanted, &key, &agent, Report::agent);
        let wanted = DesiredReports { reports: wanted, dropped, snapshot_count: self.snapshot_count };
        if !asked.is_empty() || *before != wanted {
            self.wanted.send_replace(Arc::new(wanted));
        }
    }

    /// What became of the newest controls.
    fn answers(&self) -> BTreeMap<ControlId, String> {
        let Ok(ledger) = &self.ledger else { return BTreeMap::new() };
        let newest = ledger.state().acts.iter().rev().take(CONTROLS);
        newest.map(|(id, acted)| (*id, text::head(&acted.answer, ANSWER))).collect()
    }

    /// All that is wrong, the most important first.
    pub(super) fn conditions(&self) -> Vec<Condition> {
        let about = |kind| move |text: String| Condition::new(kind, text);
        let mut conditions: Vec<Condition> =
            self.start_block(clock::now()).map(about(Kind::Identity)).into_iter().collect();
        conditions.extend(self.watches.iter().filter_map(watches::PrefixWatch::condition));
        conditions.extend(self.desired.condition());
        let unread = self.ledger.as_ref().err().map(|error| format!("safe mode: {error}"));
        conditions.extend(unread.map(about(Kind::SafeMode)));
        conditions
            .extend(self.runs.newer().map(|why| format!("safe mode: {why}")).map(about(Kind::SafeMode)));
        let unkept = self.audit.as_ref().err().map(|error| {
            format!(
                "audit: {error}: nothing starts; keep the folder as evidence, and follow \"A damaged record\" in Hostler's docs/operations.md"
            )
        });
        conditions.extend(unkept.map(about(Kind::Audit)));
        conditions.extend(
            self.disk_guard.full.iter().chain(&self.disk_guard.without).cloned().map(about(Kind::Disk)),
        );
        conditions.extend(self.refused_reports.borrow().iter().cloned().map(about(Kind::Store)));
        conditions.extend(self.ledger_full.iter().cloned().map(about(Kind::Ledger)));
        conditions.extend(self.runs.failed_guards().map(about(Kind::Guard)));
        conditions.extend(self.pending_config.iter().cloned().map(about(Kind::Settings)));
        conditions.extend(self.vault_condition().map(about(Kind::Vault)));
        conditions.extend(self.watch_conditions().into_iter().map(about(Kind::Vault)));
        conditions.extend(self.unready.conditions(clock::now()).map(about(Kind::Vault)));
        conditions.extend(self.listening.trouble().map(about(Kind::Telemetry)));
        // Of these there may be many.
        let ignored = self.watches.iter().flat_map(|sight| sight.ignored());
        conditions.extend(ignored.take(MOST_IGNORED).map(about(Kind::Ignored)));
        let broken = self.catalog.iter().filter_map(|(_, task)| task.err().map(ToString::to_string));
        conditions.extend(broken.map(about(Kind::Task)));
        conditions.extend(self.recurring.conditions().map(about(Kind::Probe)));
        conditions
    }
}

/// Adds a report; one that has not changed stays the same. A text is composed where it was asked for, and for what
/// has changed as long as there is room; the writer asks for the others in turn.
fn add<T: Hash + Serialize>(
    before: &DesiredReports,
    asked: &BTreeSet<Arc<str>>,
    room: &mut usize,
    wanted: &mut Reports,
    key: &str,
    value: &T,
    new: impl FnOnce(&T) -> Report,
) {
    let (key, report, texted) = match before.reports.get_key_value(key) {
        Some((key, report)) if report.is_of(value) => {
            (Arc::clone(key), Arc::clone(report), asked.contains(key))
        }
        _ => (key.into(), Arc::new(new(value)), *room > 0),
    };
    if texted {
        *room = room.saturating_sub(1);
        if let Err(error) = report.compose(value) {
            tracing::error!("the report {key} cannot be written as JSON: {error}");
            return;
        }
    }
    wanted.insert(key, report);
}
