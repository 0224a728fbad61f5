//! What a decision rests on: what the store shows, what the ledger remembers, how the host's runs stand.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use crate::domain::control::{Control, ControlId};
use crate::domain::freeze::Freeze;
use crate::domain::ids::RunId;
use crate::domain::name::Name;
use crate::domain::order::Document;
use crate::domain::plan::{Lock, Plan};
use crate::domain::reconcile::ProbeAnswers;
use crate::domain::run::State;
use crate::domain::secret_watch::SecretVersion;
use crate::domain::source::{OrderKey, Source};
use crate::domain::state::{LedgerState, RunRequest};

/// An order as it stands in the store.
#[derive(Clone, Debug, PartialEq)]
pub struct SeenOrder {
    /// Its `ModifyIndex`.
    pub index: u64,
    /// What it says, or one line on what is wrong with it.
    pub document: Result<Document, String>,
}

/// What an order needs, found out from its task.
#[derive(Clone, Debug, PartialEq)]
pub struct Requirements {
    /// Whether each of its steps may be carried out again at any time.
    pub repeatable: bool,
    /// What it locks.
    pub locks: Vec<Lock>,
    /// What the gates of its task said; `None` if it has none. Few have, and a host may have a thousand orders.
    pub gates: Option<Box<GateAnswer>>,
    /// Whether it may fire while the store is away.
    pub offline: bool,
    /// Whether it has a probe.
    pub probe: bool,
    /// Whether it needs secrets.
    pub secrets: bool,
    /// Whether it may start on a full disk, beside the others.
    pub emergency: bool,
    /// The version of the plan that says it.
    pub plan: u32,
}

/// What the gates of a task said when they were asked last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GateAnswer {
    /// When that was.
    pub asked: Timestamp,
    /// Why one of them is closed; `None` if all are open.
    pub closed: Option<String>,
    /// When all of them will be open; `None` if that is not known.
    pub opens: Option<Timestamp>,
    /// Whether one of them depends on the time, and so on a clock that can be trusted.
    pub timed: bool,
}

/// The version of the program before this one, to which an upgrade can be taken back for a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PreviousFormat {
    /// The newest version of a plan that it can carry out: no newer one is made meanwhile.
    pub plan: u32,
    /// When the day is over; `None`: it has not begun.
    pub until: Option<Timestamp>,
}

/// Why the plan of a run cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreadablePlan {
    /// A newer program wrote it: what the run does and what it locks is not known.
    pub newer: bool,
    /// One line for the operator.
    pub why: String,
}

/// What is known of the host's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// The operator says that it is right.
    Trusted,
    /// The kernel says that something keeps it right.
    Synchronised,
    /// The kernel says that nothing does.
    Unsynchronised,
}

/// An order held against its task: what it needs, or why it is refused.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckedOrder {
    /// Of the order under this index.
    pub index: u64,
    /// The finding.
    pub finding: Result<Requirements, String>,
}

/// An order whose last attempt could not read its secrets: it waits, and is asked everything again before the next one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unready {
    /// What kept it: one line for the operator.
    pub why: String,
    /// No attempt is made before this.
    pub until: Timestamp,
}

/// Whether a run has an executor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecutorState {
    /// Nobody has this epoch, which was or will be launched.
    Unclaimed {
        /// Counted from 1.
        epoch: u32,
    },
    /// It lives.
    Alive,
    /// The one of this epoch is gone.
    Lost {
        /// Counted from 1.
        epoch: u32,
    },
}

/// What was found of a dead executor's processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leftovers {
    /// So many could not be ended.
    Counted(usize),
    /// It cannot be told whether any lives: nothing may start.
    Unknown {
        /// Why not.
        why: String,
        /// As of.
        at: Timestamp,
        /// How many times in a row that was so.
        times: u32,
    },
}

/// A run that an executor may have.
#[derive(Clone, Debug, PartialEq)]
pub struct RunView {
    /// What it does.
    pub plan: Arc<Plan>,
    /// Where it stands, or why its folder cannot be read.
    pub state: Result<State, String>,
    /// Whether it has an executor.
    pub executor: ExecutorState,
    /// When this agent launched it last.
    pub launched: Option<Timestamp>,
    /// The executor of the epoch that nobody has left without a claim, because it could not read the run's secrets.
    pub unready: bool,
    /// How many times this agent has launched the epoch that is `launched`.
    pub launches: u32,
    /// What lives on of a dead executor; `None`: nobody has looked.
    pub leftovers: Option<Leftovers>,
    /// How far the step under way has come, in percent, and what it says.
    pub progress: (Option<u8>, Option<String>),
    /// What its executor was told last of what an operator wants.
    pub delivered: Option<RunRequest>,
    /// The end of what it printed so far; while it executes, as of the last two seconds.
    pub tail: Option<String>,
}

/// The controls that are there, by their order and id; or why one cannot be read.
pub type Controls = BTreeMap<(Name, ControlId), Result<Control, String>>;

/// The freezes of the host and its groups; or why one cannot be read.
pub type Freezes = BTreeMap<Source, Result<Freeze, String>>;

/// Everything that a decision rests on.
#[derive(Debug)]
pub struct View<'a> {
    /// The time.
    pub now: Timestamp,
    /// The boot id.
    pub boot: &'a str,
    /// This host.
    pub host: &'a Name,
    /// The places of orders, the nearest first.
    pub sources: &'a [Source],
    /// All orders in them; `None`: they are not all in sight.
    pub orders: Option<&'a BTreeMap<OrderKey, SeenOrder>>,
    /// Places of which it is not known what they hold, although the others are in sight: only their own orders wait for
    /// that, and orders of the same name farther away.
    pub unknown: &'a BTreeSet<Source>,
    /// All controls for this host.
    pub controls: &'a Controls,
    /// The freezes of the host and its groups.
    pub freezes: &'a Freezes,
    /// The store's index of each place.
    pub indexes: &'a BTreeMap<Source, u64>,
    /// What is remembered.
    pub memory: &'a LedgerState,
    /// What was found out of orders.
    pub checked_orders: &'a BTreeMap<OrderKey, CheckedOrder>,
    /// The runs that an executor may have.
    pub runs: &'a BTreeMap<RunId, RunView>,
    /// The others, whose plan cannot be read.
    pub unread: &'a BTreeMap<RunId, UnreadablePlan>,
    /// The version that this upgrade can be taken back to, as long as it can.
    pub previous_format: Option<PreviousFormat>,
    /// Runs that are being started, with what they lock.
    pub starting: &'a BTreeMap<RunId, Vec<Lock>>,
    /// How many runs may execute at once.
    pub parallel: usize,
    /// The runs that the host's own reports named before this agent wrote any; none where the report cannot be read.
    pub prior_reports: &'a BTreeMap<Name, Option<RunId>>,
    /// Why nothing may start or go on at all on this host: it may not be the one that it seems to be.
    pub start_block: Option<&'a str>,
    /// Why nothing ordinary may start: the disk is full.
    pub full: Option<&'a str>,
    /// Not before this, after an outage or a start.
    pub quiet_until: Option<Timestamp>,
    /// What is known of the clock.
    pub clock: Clock,
    /// No place of orders gets any answer at all, not even a refusal.
    pub unreachable: bool,
    /// The ledger's copies of orders that may fire then.
    pub confirmed: &'a BTreeMap<OrderKey, SeenOrder>,
    /// Why no secrets are to be had, if that is so.
    pub vault: Option<&'a str>,
    /// Orders whose last attempt could not read their secrets.
    pub unready: &'a BTreeMap<OrderKey, Unready>,
    /// What the probes of orders that reconcile have said.
    pub answers: &'a BTreeMap<OrderKey, ProbeAnswers>,
    /// The versions of watched secrets, by their paths, as far as Vault has told.
    pub versions: &'a BTreeMap<String, SecretVersion>,
}
