//! From all that is known to what is done: the view is put together, decided on, and each action goes its way.
//!
//! What is to be remembered goes to the ledger in one record and is on the disk before the next decision is made; a
//! decision that the ledger cannot take is made again later.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Agent;
use crate::domain::decide::{Action, Controls, Decision, View, decide};
use crate::host::clock;

/// What the ledger could not take is decided again after this.
const LEDGER_RETRY_INTERVAL: Duration = Duration::from_secs(10);
/// One decision can lead to the next; after so many in a row the agent turns to its other work before it goes on.
const DECISIONS_IN_A_ROW: usize = 64;
/// More decisions than the store can give reason for between two events: each control that is read leads to one at the
/// most, and the agent reads no more than twenty thousand.
const MAX_DECISIONS: usize = 25_000;
/// How long the agent waits before it goes on after that.
const NO_END_RETRY_INTERVAL: Duration = Duration::from_secs(10);

impl Agent {
    /// Decides and does what was decided, until nothing more is to be remembered.
    pub(super) fn decide_and_dispatch(&mut self) {
        self.look_at_space();
        self.look_at_unready();
        self.follow_downtime();
        for _ in 0..DECISIONS_IN_A_ROW {
            let Ok(ledger) = &self.durable.ledger else { return };
            let now = clock::now();
            let start_block = self.start_block(now);
            let unread = BTreeMap::new();
            let no_vault = self.vault.no_vault();
            // On a host that is not who it was, nothing follows from what is or is not there.
            let (is_itself, no_controls) = (self.identity.who.differs.is_none(), Controls::new());
            let judges = self.sync.prior_reports.is_some() && self.sync.status.all_current && is_itself;
            let view = View {
                now,
                boot: &self.identity.boot,
                host: &self.identity.host,
                sources: &self.sync.sources,
                orders: judges.then_some(&self.sync.desired.orders),
                prior_reports: self.sync.prior_reports.as_ref().unwrap_or(&unread),
                start_block: start_block.as_deref(),
                full: self.durable.disk_guard.full.as_deref(),
                unknown: &self.sync.status.unknown,
                controls: if is_itself { &self.sync.desired.controls } else { &no_controls },
                freezes: &self.sync.desired.freezes,
                indexes: &self.sync.status.indexes,
                memory: ledger.state(),
                checked_orders: &self.orders.checked,
                runs: self.run_table.runs.views(),
                unread: self.run_table.runs.unread(),
                previous_format: self.durable.previous_format(),
                starting: &self.run_table.starting,
                parallel: self.config.settings.runs.parallel,
                quiet_until: self.sync.quiet_until,
                clock: self.config.clock(),
                unreachable: self.sync.status.away,
                vault: no_vault.as_deref(),
                unready: self.orders.unready.orders(),
                confirmed: &self.orders.recurring.copies,
                answers: &self.orders.recurring.answers,
                versions: &self.orders.secrets.versions,
            };
            let mut decision = decide(&view, &mut clock::new_run);
            decision.wake = decision
                .wake
                .into_iter()
                .chain(self.sync.start_blocked_until(now))
                .chain(self.durable.disk_guard.wake(now))
                .min();
            let actions = std::mem::take(&mut decision.actions);
            let again = self.dispatch(actions, &mut decision);
            self.work.decision = decision;
            if !again {
                self.work.decisions_in_a_row = 0;
                return;
            }
        }
        self.work.decisions_in_a_row += DECISIONS_IN_A_ROW;
        let mut pause = Duration::ZERO;
        if self.work.decisions_in_a_row >= MAX_DECISIONS {
            let (made, seconds) = (self.work.decisions_in_a_row, NO_END_RETRY_INTERVAL.as_secs());
            tracing::error!(
                "the agent made {made} decisions in a row and each one led to another, which is a fault in hostler; \
                 it goes on in {seconds} s; please report this with the end of the audit (`hostler audit`)"
            );
            self.work.decisions_in_a_row = 0;
            pause = NO_END_RETRY_INTERVAL;
        }
        self.work.decision.wake = Some(clock::now() + pause);
    }

    /// Does what was decided; true if that changes what is to be decided.
    fn dispatch(&mut self, actions: Vec<Action>, decision: &mut Decision) -> bool {
        let mut facts = Vec::new();
        let mut again = false;
        let mut tasks_read = BTreeSet::new();
        for action in actions {
            match action {
                Action::Record(fact) => facts.push(fact),
                Action::CheckOrder(key) => again |= self.examine(&key, &mut tasks_read),
                Action::Start { key, run, locks } => self.start(&key, run, locks),
                Action::Launch { key, run, epoch, look } => self.launch(&key, run, epoch, look),
                Action::Revoke { key, run, epoch } => again |= self.revoke(&key, run, epoch),
                Action::Fence { key, run, epoch } => again |= self.fence(&key, run, epoch),
                Action::SendRequest { run, request } => again |= self.send_request(run, request),
                Action::KillLeftovers { run } => self.kill_leftovers(run),
                Action::Reboot { run } => self.reboot(run),
                Action::Probe(key) => self.ask(&key),
                Action::Confirm(key) => facts.extend(self.confirmation(&key)),
            }
        }
        if facts.is_empty() {
            return again;
        }
        match self.record(facts) {
            true => true,
            false => {
                let later = clock::now() + LEDGER_RETRY_INTERVAL;
                decision.wake = Some(decision.wake.map_or(later, |wake| wake.min(later)));
                false
            }
        }
    }
}
