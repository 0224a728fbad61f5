//! How decisions become facts: first the audit, then the ledger, each on the disk before anything follows.

use super::disk_guard::DiskGuard;
use super::downtime::DowntimeSide;
use super::formats::RollbackWindow;
use crate::domain::audit::Head;
use crate::domain::decide::PreviousFormat;
use crate::domain::format;
use crate::ledger::Audit;
use crate::ledger::Ledger;
use crate::ledger::orders::LedgerError;
use jiff::Timestamp;
use nix::fcntl::Flock;
use std::collections::{BTreeSet, VecDeque};
use std::fs::File;

use super::Agent;
use super::expected::is_in_force;
use crate::domain::audit::Entry;
use crate::domain::ids::RunId;
use crate::domain::name::Name;
use crate::domain::order::Document;
use crate::domain::source::OrderKey;
use crate::domain::state::{End, LedgerEntry};
use crate::domain::text;
use crate::domain::yaml::single_line;
use crate::host::clock;
use crate::host::crash::{CrashPoint, here};
use crate::ledger::audit::AuditError;

/// What this host keeps on its disk, and the lock that makes this agent its only one.
pub(super) struct Durable {
    pub(super) ledger: Result<Ledger, LedgerError>,
    pub(super) audit: Result<Audit, AuditError>,
    pub(super) downtime: DowntimeSide,
    /// The newest line of the audit that this host reported before.
    pub(super) reported_audit: Head,
    /// Why the ledger takes nothing, if that is so.
    pub(super) ledger_full: Option<String>,
    /// Entries of the audit whose record the ledger could not take.
    pub(super) audited: Audited,
    pub(super) disk_guard: DiskGuard,
    pub(super) rollback_window: RollbackWindow,
    pub(super) _lock: Flock<File>,
}

/// The longest reason in the log, in bytes.
const LOGGED: usize = 200;

/// So many entries are remembered of records that the ledger could not take.
const AUDITED: usize = 256;

/// What the audit has of records that the ledger could not take yet: the end of a run is the same each time it is tried.
#[derive(Debug, Default)]
pub(super) struct Audited(VecDeque<Entry>);

impl Audited {
    /// The entries that the audit does not have.
    fn unsaid(&self, entries: impl Iterator<Item = Entry>) -> Vec<Entry> {
        entries.filter(|entry| !self.0.contains(entry)).collect()
    }

    /// The audit has these.
    fn has(&mut self, entries: Vec<Entry>) {
        self.0.extend(entries);
        self.0.drain(..self.0.len().saturating_sub(AUDITED));
    }
}

/// Says what came of orders, when it is on the disk: loudly what somebody should look at.
fn log(fact: &LedgerEntry) {
    match fact {
        LedgerEntry::Closed { key, run, closing } => {
            let (end, why) = (closing.end.as_str(), closing.error.as_deref());
            let why =
                why.map(|why| format!(": {}", text::head(&single_line(why), LOGGED))).unwrap_or_default();
            match closing.end {
                End::NeedsOperator | End::UndoFailed => {
                    tracing::error!(order = %key, run = %run, "{end}{why}")
                }
                End::Failed | End::Undone | End::Refused => {
                    tracing::warn!(order = %key, run = %run, "{end}{why}");
                }
                _ => tracing::info!(order = %key, run = %run, "{end}"),
            }
        }
        LedgerEntry::Unreadable { key, unreadable } if unreadable.identity.is_none() => {
            let why = text::head(&single_line(&unreadable.message), LOGGED);
            tracing::warn!(order = %key, "refused: {why}");
        }
        LedgerEntry::Held { key, held } => tracing::warn!(order = %key, "held: {}", held.why.as_str()),
        _ => {}
    }
}

impl Durable {
    /// Adds a line to the audit that nothing rests on: where that fails, it is only logged.
    fn append_to_audit(&mut self, entries: Vec<Entry>) {
        if let Ok(audit) = &mut self.audit
            && let Err(error) = audit.append(entries)
        {
            tracing::error!("cannot write the audit: {error}");
        }
    }

    /// Whether the ledger is still kept in the former format.
    pub(super) fn on_probation(&self) -> bool {
        self.ledger.as_ref().is_ok_and(|ledger| !ledger.is_newest())
    }

    /// What has to be left to the version before.
    pub(super) fn previous_format(&self) -> Option<PreviousFormat> {
        self.on_probation()
            .then(|| PreviousFormat { plan: format::newest_plan() - 1, until: self.rollback_window.until() })
    }

    /// When there is something to do.
    pub(super) fn rollback_window_ends(&self) -> Option<Timestamp> {
        self.rollback_window.until().filter(|_| self.on_probation())
    }

    /// Runs that are over and keep their place until a person has spoken.
    pub(super) fn kept_open(&self) -> BTreeSet<RunId> {
        let Ok(ledger) = &self.ledger else { return BTreeSet::new() };
        let orders = ledger.state().orders.values();
        let activations = orders.flat_map(|order| order.current.iter().chain(order.previous.as_deref()));
        activations.filter(|activation| activation.has_run()).map(|activation| activation.run).collect()
    }
}

impl Agent {
    /// Puts facts on the disk; if that fails, nothing may follow from them.
    pub(super) fn record(&mut self, facts: Vec<LedgerEntry>) -> bool {
        let closed: Vec<(OrderKey, RunId)> = facts
            .iter()
            .filter_map(|fact| match fact {
                LedgerEntry::Closed { key, run, .. } => Some((key.clone(), *run)),
                _ => None,
            })
            .collect();
        // What an operator released or took for done is no longer held against what was once reported.
        let judged: Vec<Name> = facts
            .iter()
            .filter_map(|fact| match fact {
                LedgerEntry::Activation { key, .. } | LedgerEntry::Accepted { key, .. } => {
                    Some(key.order.clone())
                }
                _ => None,
            })
            .collect();
        let activations = facts.iter().any(|fact| matches!(fact, LedgerEntry::Activation { .. }));
        if !closed.is_empty() {
            here(CrashPoint::EndSeen);
        }
        let kept = match self.keep(&facts) {
            Err(_) if self.make_room_for(&facts) => self.keep(&facts),
            kept => kept,
        };
        match kept {
            Ok(()) => {
                self.durable.ledger_full = None;
                facts.iter().for_each(log);
                self.orders.recurring.follow(&facts);
                self.orders.unready.follow(&facts);
                self.orders.secrets.follow(&facts, &self.sync.desired.orders);
                if activations {
                    here(CrashPoint::ActivationRecorded);
                }
                if !closed.is_empty() {
                    here(CrashPoint::Closed);
                }
                self.run_table.closed_since_trim += closed.len();
                for order in judged {
                    self.sync.prior_reports.as_mut().and_then(|prior_reports| prior_reports.remove(&order));
                }
                self.output.count_ends(&facts);
                for (key, run) in closed {
                    self.orders.checked.remove(&key);
                    self.run_table.runs.close(run, &self.durable.kept_open());
                    self.vault.give_back.notify_one();
                }
                true
            }
            Err(error) => {
                tracing::error!("the agent starts nothing: {error}");
                self.durable.ledger_full = Some(error);
                false
            }
        }
    }

    fn keep(&mut self, facts: &[LedgerEntry]) -> Result<(), String> {
        // Before the ledger says that a run is over: after that its journal is read no more.
        self.count_downtime().map_err(|error| format!("cannot write the record of downtime: {error}"))?;
        self.audit_facts(facts).map_err(|error| format!("cannot write the audit: {error}"))?;
        let ledger = self.durable.ledger.as_mut().map_err(|error| error.to_string())?;
        ledger.record(facts.to_vec()).map_err(|error| format!("the ledger cannot be written: {error}"))?;
        self.durable.audited = Audited::default();
        Ok(())
    }

    /// Records that an agent works here from now on, and under which identity; that may fail, what follows from it may not.
    pub(super) fn audit_start(&mut self) {
        let id = &self.identity.who.id;
        let started =
            Entry::started(self.identity.host.as_str(), env!("CARGO_PKG_VERSION"), &self.identity.boot, id);
        let adoption = self.durable.audit.as_ref().ok().and_then(|audit| audit.standing().adoption(id));
        self.durable.append_to_audit(adoption.into_iter().chain([started]).collect());
    }

    /// Records freezes of this host and its groups that have come or gone, once all of them are in sight. That may fail:
    /// then the next look tries again.
    pub(super) fn audit_freezes(&mut self) {
        let desired = &mut self.sync.desired;
        let Ok(audit) = &self.durable.audit else { return };
        if !desired.has_read(&self.sync.watches) {
            return;
        }
        let now = clock::now();
        let in_force = desired.freezes.iter().filter(|(_, freeze)| is_in_force(freeze, now));
        let entries = audit.standing().freezes(in_force);
        if !entries.is_empty() && desired.admit_freezes() {
            self.durable.append_to_audit(entries);
        }
    }

    fn audit_facts(&mut self, facts: &[LedgerEntry]) -> Result<(), AuditError> {
        let orders = &self.sync.desired.orders;
        let order = |key: &OrderKey| match &orders.get(key)?.document {
            Ok(Document::Order(order)) => Some(&**order),
            _ => None,
        };
        let entries = self.durable.audited.unsaid(facts.iter().filter_map(|fact| Entry::of(fact, order)));
        match &mut self.durable.audit {
            _ if entries.is_empty() => Ok(()),
            Ok(audit) => {
                audit.append(entries.clone())?;
                self.durable.audited.has(entries);
                Ok(())
            }
            Err(error) => Err(AuditError::NotOpen(error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::state::Closing;
    use jiff::Timestamp;

    #[test]
    fn an_end_that_the_ledger_cannot_take_stands_in_the_audit_once() {
        let ended = |run: u128, second: i64| {
            let at = Timestamp::from_second(second).unwrap();
            let closing = Closing { end: End::Succeeded, error: None, at, run: None };
            let key = "hosts/h/o".parse().unwrap();
            Entry::of(&LedgerEntry::Closed { key, run: RunId::new(1, run), closing }, |_| None)
        };
        let mut audited = Audited::default();
        let first = audited.unsaid(ended(1, 10).into_iter());
        assert_eq!(first.len(), 1);
        audited.has(first);
        // Decided again ten seconds later, beside the end of another run.
        let again = audited.unsaid(ended(1, 20).into_iter().chain(ended(2, 20)));
        assert_eq!(again, Vec::from_iter(ended(2, 20)));
        audited.has(again);
        for run in 3..1000 {
            let more = audited.unsaid(ended(run, 30).into_iter());
            audited.has(more);
        }
        assert_eq!(audited.0.len(), AUDITED);
    }
}
