//! Names of orders that are gone: how long the store has a report of them, and how long the host remembers them.
//!
//! ```text
//!  gone from the store ─> its last state is reported ─> the report is deleted ─> the name is forgotten
//!                         all that are gone             all but the newest 100   all but the newest 1,000
//! ```
//!
//! So neither the ledger nor the store grows with the names that an operator ever used. A name goes to its next state
//! only after the store has taken what was due in the one before; in an outage none does.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;

use super::Agent;
use crate::domain::keys::Keys;
use crate::domain::name::Name;
use crate::domain::source::OrderKey;
use crate::domain::state::{LedgerEntry, LedgerState, MAX_GONE, MAX_GONE_REPORTED};
use crate::host::clock;
use crate::report::desired::DesiredReports;

/// A report is written at most so long after what it tells has come about, as long as the store takes it.
const REPORTED_WITHIN: Duration = Duration::from_secs(2);
/// How often it is asked whether names can go on.
const RETRY_INTERVAL: Duration = Duration::from_secs(3);

/// What is on its way to be forgotten.
#[derive(Default)]
pub(super) struct Leaving {
    /// The keys whose reports are about to be deleted, since when, before they are forgotten.
    going: Option<(Timestamp, Vec<OrderKey>)>,
    /// When to look again.
    pub(super) again: Option<Instant>,
    /// When the writer was last made to compare for this.
    compared: Option<Instant>,
}

impl Leaving {
    /// Has names looked at again. Until then the writer compares once more: where nothing else changes, it alone can say
    /// that the store still has all that was due.
    fn look_again(&mut self, wanted: &watch::Sender<Arc<DesiredReports>>) {
        let now = Instant::now();
        self.again = Some(now + RETRY_INTERVAL);
        if self.compared.is_none_or(|compared| now.duration_since(compared) >= RETRY_INTERVAL) {
            self.compared = Some(now);
            wanted.send_modify(|_| {});
        }
    }
}

/// The keys of reports that the store need not hold any more, and the names of their orders.
pub(super) fn dropped(memory: &LedgerState, told: Option<Timestamp>, host: &Name, keys: &Keys) -> Dropped {
    let mut dropped = Dropped::default();
    let gone = memory.gone();
    let Some(told) = told.filter(|_| gone.len() > MAX_GONE_REPORTED) else { return dropped };
    let present = memory.present_names();
    for (key, at) in gone.into_iter().skip(MAX_GONE_REPORTED) {
        if at + REPORTED_WITHIN <= told && !present.contains(&key.order) {
            dropped.reports.insert(keys.order_report(host, &key.order).into());
            dropped.names.insert(key.order.clone());
        }
    }
    dropped
}

/// What is not reported any more.
#[derive(Default)]
pub(super) struct Dropped {
    /// The keys of the reports.
    pub(super) reports: BTreeSet<Arc<str>>,
    /// The names of the orders.
    pub(super) names: BTreeSet<Name>,
}

impl Agent {
    /// Forgets the names that have been gone longest, once their reports are deleted.
    pub(super) fn forget_names(&mut self) {
        self.output.leaving.again = None;
        let (Ok(ledger), Some(_)) = (&self.durable.ledger, &self.sync.prior_reports) else { return };
        let gone = ledger.state().gone();
        if gone.len() > MAX_GONE_REPORTED && self.output.dropped_count < gone.len() - MAX_GONE_REPORTED {
            self.output.leaving.look_again(&self.output.wanted);
        }
        if gone.len() <= MAX_GONE {
            self.output.leaving.going = None;
            return;
        }
        self.output.leaving.look_again(&self.output.wanted);
        let Some(told) = self.output.reported_until() else { return };
        let Some((since, keys)) = self.output.leaving.going.take() else {
            let old = gone.into_iter().skip(MAX_GONE).filter(|(_, at)| *at + REPORTED_WITHIN <= told);
            let old: Vec<OrderKey> = old.map(|(key, _)| key.clone()).collect();
            self.output.leaving.going = (!old.is_empty()).then(|| (clock::now(), old));
            return;
        };
        if since + REPORTED_WITHIN > told {
            self.output.leaving.going = Some((since, keys));
            return;
        }
        let still: BTreeSet<&OrderKey> = gone.iter().map(|(key, _)| *key).collect();
        let facts: Vec<LedgerEntry> = keys
            .into_iter()
            .filter(|key| still.contains(key))
            .map(|key| LedgerEntry::Forgotten { key })
            .collect();
        if !facts.is_empty() {
            tracing::info!(
                "removed {} names of orders that were deleted long ago from the ledger",
                facts.len()
            );
            self.record(facts);
        }
    }
}
