//! Orders whose last attempt to begin could not read their secrets: why, since when, and when the next one is due.
//!
//! An executor makes one attempt, and leaves. Attempts at one order become rarer, down to one a minute; a change of the
//! order, and Vault's return, begin anew. Nothing of this is on the disk: an agent that starts makes an attempt.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::Agent;
use crate::domain::decide::{ExecutorState, Unready};
use crate::domain::ids::RunId;
use crate::domain::source::OrderKey;
use crate::domain::state::LedgerEntry;
use crate::host::clock;
use crate::ledger::NotReady;
use crate::vault::jittered;

/// Between the first attempt and the second; doubled up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Between two attempts at most, whatever Vault says.
const MAX_BACKOFF: Duration = Duration::from_secs(60);
/// What lasts longer is a condition of the host.
const CONDITION_AFTER: Duration = Duration::from_secs(60);

/// How long it has been so.
#[derive(Clone, Copy)]
struct Tried {
    since: Timestamp,
    attempts: u32,
    /// The order's index at the last attempt.
    index: Option<u64>,
}

/// The orders that wait for their secrets.
#[derive(Default)]
pub(super) struct Waiting {
    orders: BTreeMap<OrderKey, Unready>,
    tried: BTreeMap<OrderKey, Tried>,
}

impl Waiting {
    /// By their keys.
    pub(super) fn orders(&self) -> &BTreeMap<OrderKey, Unready> {
        &self.orders
    }

    /// One more attempt has failed.
    fn failed(&mut self, key: OrderKey, index: Option<u64>, why: NotReady, now: Timestamp) {
        let first = Tried { since: now, attempts: 0, index };
        let tried = self.tried.entry(key.clone()).or_insert(first);
        if tried.index != index {
            *tried = first;
        }
        let pause = FIRST_PAUSE.saturating_mul(1_u32.checked_shl(tried.attempts).unwrap_or(u32::MAX));
        tried.attempts = tried.attempts.saturating_add(1);
        let after = why.after.map(Duration::from_secs).unwrap_or_default();
        let until = now + jittered(pause.max(after).min(MAX_BACKOFF));
        self.orders.insert(key, Unready { why: why.why, until });
    }

    fn forget(&mut self, key: &OrderKey) {
        self.orders.remove(key);
        self.tried.remove(key);
    }

    /// Follows what was put into the ledger.
    pub(super) fn follow(&mut self, facts: &[LedgerEntry]) {
        for fact in facts {
            if let LedgerEntry::Closed { key, .. } = fact {
                self.forget(key);
            }
        }
    }

    /// What an operator should know of it.
    pub(super) fn conditions(&self, now: Timestamp) -> impl Iterator<Item = String> {
        let long = move |tried: &Tried| tried.since + CONDITION_AFTER <= now;
        self.orders.iter().filter_map(move |(key, unready)| {
            let tried = self.tried.get(key).filter(|tried| long(tried))?;
            let since = tried.since.strftime("%Y-%m-%dT%H:%M:%SZ");
            Some(format!("vault: order {} waits for its secrets since {since}: {}", key.order, unready.why))
        })
    }
}

impl Agent {
    /// The attempt to begin a run is over without a claim.
    pub(super) fn not_ready(&mut self, run: RunId, why: NotReady) {
        let Ok(ledger) = &self.durable.ledger else { return };
        let Some(key) = ledger.state().prepared().find(|(_, activation)| activation.run == run) else {
            return;
        };
        let key = key.0.clone();
        let index = self.sync.desired.orders.get(&key).map(|seen| seen.index);
        self.orders.unready.failed(key, index, why, clock::now());
        self.run_table.runs.not_ready(run);
        self.vault.give_back.notify_one();
    }

    /// Takes in which executors have left without a claim, and forgets orders that do not wait any more.
    pub(super) fn look_at_unready(&mut self) {
        for (run, why) in self.run_table.runs.left() {
            tracing::warn!(run = %run, "not started yet: {}", why.why);
            self.not_ready(run, why);
        }
        if self.orders.unready.orders.is_empty() {
            return;
        }
        let Ok(ledger) = &self.durable.ledger else { return };
        let begun = |run: &RunId| {
            self.run_table.runs.views().get(run).is_some_and(|view| view.executor == ExecutorState::Alive)
        };
        let mut over: Vec<OrderKey> = ledger
            .state()
            .prepared()
            .filter(|(_, activation)| begun(&activation.run))
            .map(|(key, _)| key.clone())
            .collect();
        let changed = |key: &OrderKey, tried: &Tried| {
            self.sync.desired.orders.get(key).is_some_and(|seen| Some(seen.index) != tried.index)
        };
        over.extend(
            self.orders
                .unready
                .tried
                .iter()
                .filter(|(key, tried)| changed(key, tried))
                .map(|(key, _)| key.clone()),
        );
        over.iter().for_each(|key| self.orders.unready.forget(key));
    }

    /// Vault is back: nobody waits for the next attempt.
    pub(super) fn try_unready_again(&mut self) {
        if self.vault.no_vault().is_none() {
            let now = clock::now();
            self.orders
                .unready
                .orders
                .values_mut()
                .for_each(|unready| unready.until = unready.until.min(now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn not_ready(after: Option<u64>) -> NotReady {
        NotReady { why: "the engine is away".into(), after }
    }

    #[test]
    fn attempts_become_rarer_down_to_one_a_minute_and_last_a_minute_before_they_are_a_condition() {
        let key: OrderKey = "hosts/h1/o".parse().unwrap();
        let mut waiting = Waiting::default();
        let start = Timestamp::UNIX_EPOCH;
        let mut now = start;
        let mut pauses = Vec::new();
        for _ in 0..40 {
            waiting.failed(key.clone(), Some(1), not_ready(None), now);
            let until = waiting.orders()[&key].until;
            pauses.push(until.duration_since(now).as_secs());
            assert_eq!(waiting.conditions(now).count(), usize::from(now >= start + CONDITION_AFTER));
            now = until;
        }
        assert!(pauses[0] <= 1 && pauses[1..4].iter().all(|pause| *pause < 10), "{pauses:?}");
        assert!(pauses[8..].iter().all(|pause| (53..=67).contains(pause)), "{pauses:?}");
        // What Vault wants counts, but for a minute only; another document begins anew.
        waiting.failed(key.clone(), Some(2), not_ready(Some(20)), now);
        let until = waiting.orders()[&key].until;
        assert!((17..=23).contains(&until.duration_since(now).as_secs()));
        assert_eq!(waiting.conditions(now).count(), 0);
        waiting.failed(key.clone(), Some(2), not_ready(Some(86_400)), now);
        assert!(waiting.orders()[&key].until <= now + MAX_BACKOFF * 2);
        let closing = crate::domain::state::Closing {
            end: crate::domain::state::End::Cancelled,
            error: None,
            at: now,
            run: None,
        };
        waiting.follow(&[LedgerEntry::Closed { key, run: clock::new_run(), closing }]);
        assert!(waiting.orders().is_empty());
    }
}
