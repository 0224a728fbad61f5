//! What the agent remembers of orders, and the facts that change it.
//!
//! The ledger on disk is the list of [`LedgerEntry`]s, each there before anything follows from it; [`LedgerState`] is their sum.
//!
//! ```text
//!  order_state.rs  what is remembered of one key: its identities, its activations, why it is held
//!  fact.rs         each thing that can be found or decided, as a line of the ledger says it
//!  apply.rs        what each fact changes, and the shortest list that adds up to the same
//! ```

mod apply;
mod entry;
mod order_state;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::control::{ControlAction, ControlId};
use super::name::Name;
use super::source::{OrderKey, Source};

pub use super::end::{End, end_of};
pub use super::hold::Hold;
pub use entry::LedgerEntry;
pub use order_state::{Activation, Closing, Held, OrderState, RunRequest, Stage, Unreadable};

/// How many identities are order_state for each key.
pub const MAX_IDENTITIES: usize = 1000;

/// How many keys that are gone from the store are order_state, newest first: as many as identities of one key.
pub const MAX_GONE: usize = 1000;

/// Of how many of them the store still has a report, newest first.
pub const MAX_GONE_REPORTED: usize = 100;

/// How many controls are order_state, newest first.
pub const MAX_ACTS: usize = 1000;

/// A control that was taken in: done, or why not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acted {
    /// Which order it was about.
    pub order: Name,
    /// What was to be done; none where the control could not be read.
    pub act: Option<ControlAction>,
    /// Who wanted it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// When it was taken in.
    pub at: Timestamp,
    /// `done`, or `stale: …`, or `refused: …`.
    pub answer: String,
}

/// What all facts add up to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LedgerState {
    /// By key; boxed, since a map of a thousand leaves half of its places free.
    pub orders: BTreeMap<OrderKey, Box<OrderState>>,
    /// The place that each order's name is effective from.
    pub effective: BTreeMap<Name, Source>,
    /// The place that a name was effective from last, and the store's index when it was not any more: an order
    /// elsewhere that is not newer was only uncovered.
    pub left: BTreeMap<Name, (Source, u64)>,
    /// When the host joined.
    pub joined: Option<Timestamp>,
    /// The places of orders that could not be read then, and were not read since: what they hold was there before.
    pub unread_sources: BTreeSet<Source>,
    /// The newest controls that were taken in.
    pub acts: BTreeMap<ControlId, Acted>,
    /// The newest instant of a clock that something kept right: a clock that is behind it is wrong.
    pub newest: Option<Timestamp>,
}

impl LedgerState {
    /// Whether nothing at all is order_state of orders, not even that there were none.
    pub fn is_blank(&self) -> bool {
        self.joined.is_none() && self.orders.is_empty()
    }

    /// Whether a control was taken in, or is older than all that are order_state of very many.
    pub fn has_acted(&self, control: ControlId) -> bool {
        let forgotten = |(oldest, _): (&ControlId, _)| self.acts.len() >= MAX_ACTS && control < *oldest;
        self.acts.contains_key(&control) || self.acts.first_key_value().is_some_and(forgotten)
    }

    /// The keys that are gone from the store and have no run any more, those gone last first, each with the time since
    /// when it is gone.
    pub fn gone(&self) -> Vec<(&OrderKey, Timestamp)> {
        let free = |order: &OrderState| order.previous.is_none() && order.prepared().next().is_none();
        let free = self.orders.iter().filter(|(_, order)| free(order));
        let mut gone: Vec<_> = free.filter_map(|(key, order)| Some((key, order.gone?))).collect();
        gone.sort_unstable_by(|a, b| (b.1, b.0).cmp(&(a.1, a.0)));
        gone
    }

    /// The names of which a key is in the store, or has a run.
    pub fn present_names(&self) -> BTreeSet<&Name> {
        let present = |order_state: &OrderState| {
            order_state.gone.is_none()
                || order_state.previous.is_some()
                || order_state.prepared().next().is_some()
        };
        self.orders.iter().filter(|(_, order)| present(order)).map(|(key, _)| &key.order).collect()
    }

    /// All activations whose run an executor may have.
    pub fn prepared(&self) -> impl Iterator<Item = (&OrderKey, &Activation)> {
        self.orders.iter().flat_map(|(key, order)| order.prepared().map(move |activation| (key, activation)))
    }
}

#[cfg(test)]
mod tests;
