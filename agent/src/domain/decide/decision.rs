//! What a decision says: what is to be done now, what waits, and when to ask again.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::wait::Wait;
use crate::domain::ids::RunId;
use crate::domain::plan::Lock;
use crate::domain::source::OrderKey;
use crate::domain::state::{LedgerEntry, RunRequest};

/// Something to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Put it into the ledger.
    Record(LedgerEntry),
    /// Hold the order against its task.
    CheckOrder(OrderKey),
    /// Look once more, make the run's folder, launch its first epoch.
    Start {
        /// The order.
        key: OrderKey,
        /// The run.
        run: RunId,
        /// What it locks.
        locks: Vec<Lock>,
    },
    /// Ask the order's probe whether the state holds.
    Probe(OrderKey),
    /// Put the order's document, as the store shows it, into the ledger.
    Confirm(OrderKey),
    /// Launch an epoch of a run that has a folder.
    Launch {
        /// The order.
        key: OrderKey,
        /// The run.
        run: RunId,
        /// Which epoch.
        epoch: u32,
        /// Whether the order has to be looked at once more: nothing of the run has happened yet.
        look: bool,
    },
    /// Take back a run that has begun nothing: nobody can claim the epoch any more, and its activation waits again.
    Revoke {
        /// The order.
        key: OrderKey,
        /// The run.
        run: RunId,
        /// Which epoch.
        epoch: u32,
    },
    /// Tell the executor of a run what an operator wants of it.
    SendRequest {
        /// Which.
        run: RunId,
        /// What.
        request: RunRequest,
    },
    /// Take an epoch that was launched in vain away from every executor that may still come.
    Fence {
        /// The order.
        key: OrderKey,
        /// The run.
        run: RunId,
        /// Which epoch.
        epoch: u32,
    },
    /// End what a dead executor left running.
    KillLeftovers {
        /// Whose.
        run: RunId,
    },
    /// Reboot the host.
    Reboot {
        /// Who wants it.
        run: RunId,
    },
}

/// What follows.
#[derive(Debug, Default, PartialEq)]
pub struct Decision {
    /// To be done now, in this order.
    pub actions: Vec<Action>,
    /// Orders that wait.
    pub waits: BTreeMap<OrderKey, Wait>,
    /// What the probes of reconciled orders have said of their states.
    pub observed: BTreeMap<OrderKey, ObservedState>,
    /// Orders of which this host is exempt.
    pub skipped: BTreeSet<OrderKey>,
    /// When to ask again even if nothing happens.
    pub wake: Option<Timestamp>,
}

/// What a probe said of the state that an order keeps up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedState {
    /// When it was asked.
    pub asked: Timestamp,
    /// Whether the state does not hold.
    pub drifted: bool,
    /// What it said beside that.
    pub said: Option<String>,
}

impl Decision {
    pub(super) fn record(&mut self, fact: LedgerEntry) {
        self.actions.push(Action::Record(fact));
    }

    pub(super) fn wake_at(&mut self, at: Timestamp) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }

    pub(super) fn wait(&mut self, key: &OrderKey, wait: Wait) {
        if let Some(until) = wait.until {
            self.wake_at(until);
        }
        self.waits.insert(key.clone(), wait);
    }
}
