//! Each thing that the agent can find or decide, as a line of the ledger says it.
//!
//! What is written here is read by later versions of the program, and by the one before if an upgrade is taken back.
//! So a fact is never changed: it gets fields that may be absent, or there is a new one, and [`LedgerEntry::format`] says
//! from which version of the ledger on.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Acted, Closing, Held, OrderState, RunRequest, Unreadable};
use crate::domain::control::ControlId;
use crate::domain::ids::{InstructionHash, RunId};
use crate::domain::name::Name;
use crate::domain::plan::Trigger;
use crate::domain::secret_watch::SecretVersion;
use crate::domain::source::{OrderKey, Source};

/// One thing that the agent found or decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fact", rename_all = "snake_case")]
pub enum LedgerEntry {
    /// A new activation.
    Activation {
        /// Of this order.
        key: OrderKey,
        /// The id of its run.
        run: RunId,
        /// The order's identity.
        identity: InstructionHash,
        /// The index under which it was seen.
        index: u64,
        /// Why.
        trigger: Trigger,
        /// When.
        at: Timestamp,
    },
    /// An identity that is no activation of its own: the order has a schedule.
    BaselineTaken {
        /// Of this order.
        key: OrderKey,
        /// The order's identity.
        identity: InstructionHash,
        /// The index under which it was seen.
        index: u64,
        /// When.
        at: Timestamp,
    },
    /// From now on the order comes again by these terms.
    ScheduleArmed {
        /// Which.
        key: OrderKey,
        /// Its terms.
        terms: String,
        /// When.
        at: Timestamp,
    },
    /// The order does not come again.
    ScheduleDisarmed {
        /// Which.
        key: OrderKey,
    },
    /// Instants that did not fire, and never will.
    FiringsSkipped {
        /// Of this order.
        key: OrderKey,
        /// The newest of them.
        until: Timestamp,
        /// How many were missed.
        missed: u32,
        /// How many were skipped because one was still under way.
        overlaps: u32,
        /// When that was found.
        at: Timestamp,
    },
    /// The document stands as the store showed it.
    DocumentConfirmed {
        /// Of this order.
        key: OrderKey,
        /// Under which index.
        index: u64,
        /// The document; not said where it is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        document: Option<String>,
        /// When.
        at: Timestamp,
    },
    /// The state has held for long enough after its drifts.
    DriftCleared {
        /// Of this order.
        key: OrderKey,
    },
    /// A version of a secret that the order watches is known. Stands in one record with the activation that it leads to.
    Version {
        /// Of this order.
        key: OrderKey,
        /// Where the secret is.
        path: String,
        /// Which.
        version: SecretVersion,
    },
    /// What the clock said while something kept it right.
    Clock {
        /// That instant.
        at: Timestamp,
    },
    /// The known identity has another index.
    Index {
        /// Of this order.
        key: OrderKey,
        /// The new one.
        index: u64,
    },
    /// The order is held.
    Held {
        /// Which.
        key: OrderKey,
        /// Why, and what.
        held: Held,
    },
    /// The document cannot be read.
    Unreadable {
        /// Of this order.
        key: OrderKey,
        /// Why.
        unreadable: Unreadable,
    },
    /// The run's folder is made, and an executor is about to be launched.
    Prepared {
        /// Of this order.
        key: OrderKey,
        /// Which.
        run: RunId,
    },
    /// The prepared run was taken back before any executor had it.
    PreparationRevoked {
        /// Of this order.
        key: OrderKey,
        /// Which.
        run: RunId,
        /// The id under which it is tried again.
        next: RunId,
    },
    /// An activation is over.
    Closed {
        /// Of this order.
        key: OrderKey,
        /// Which.
        run: RunId,
        /// How.
        closing: Closing,
    },
    /// The key is gone from the store.
    Gone {
        /// Which.
        key: OrderKey,
        /// When.
        at: Timestamp,
    },
    /// Which place an order's name is effective from now.
    EffectiveSource {
        /// The name.
        order: Name,
        /// The place; none any more.
        source: Option<Source>,
        /// The store's index when there was none any more.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        index: Option<u64>,
    },
    /// A control was taken in. Stands in one record with the facts that it leads to.
    ControlHandled {
        /// Its id.
        control: ControlId,
        /// What became of it.
        #[serde(flatten)]
        acted: Acted,
    },
    /// An operator requests something of a run; the agent sends it to the executor next.
    RunRequest {
        /// Of this order.
        key: OrderKey,
        /// Which.
        run: RunId,
        /// What.
        request: RunRequest,
    },
    /// What is held is what stands, and is not carried out.
    Accepted {
        /// Of this order.
        key: OrderKey,
        /// What it says.
        identity: InstructionHash,
        /// Under which index.
        index: u64,
    },
    /// The host has joined: what was there before was judged as such.
    HostJoined {
        /// When.
        at: Timestamp,
        /// The places of orders that could not be read then.
        #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
        unread: BTreeSet<Source>,
    },
    /// A place that could not be read when the host joined was read for the first time, and judged like the others then.
    FirstRead {
        /// Which.
        source: Source,
    },
    /// A key of which nothing needs to be known any more.
    Forgotten {
        /// Which.
        key: OrderKey,
    },
    /// The whole of a key at once: what a compacted ledger holds.
    OrderSnapshot {
        /// Which.
        key: OrderKey,
        /// All that is remembered of it.
        order: Box<OrderState>,
    },
}

impl LedgerEntry {
    /// The first version of the ledger that can say this ([`crate::domain::format`]).
    pub fn format(&self) -> u32 {
        1
    }
}
