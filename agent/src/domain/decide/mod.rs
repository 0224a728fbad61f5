//! The decision: from what is seen and remembered to what is done next.
//!
//! [`decide`] is pure. It is asked again after everything that happens, and says the same as long as nothing has;
//! what it wants remembered is on the disk before it is asked again, so that nothing rests on a fact
//! that a crash could take back.
//!
//! ```text
//!  controls.rs what an operator wants of an order, against where it stands
//!  first.rs    orders of which nothing, or less than once, is remembered
//!  orders.rs   what is seen of a key against what is remembered of it: new, known, held, gone
//!  recurring.rs an order that comes again: fires, has drifted away, is missed or skipped
//!  starts.rs   an activation that waits: may it start now, and if not, why not and until when
//!  runs.rs     a run whose executor is not there: resumed, closed, or its leftovers ended first
//!  unready.rs  a run that has begun nothing: taken back as soon as it may not start any more
//! ```

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

mod controls;
mod first;
mod orders;
mod recurring;
mod runs;
mod starts;
mod unready;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

pub use starts::frozen;

use jiff::Timestamp;

use super::control::{Control, ControlId};
use super::freeze::Freeze;
use super::ids::RunId;
use super::name::Name;
use super::order::Document;
use super::plan::{Lock, Plan};
use super::reconcile::ProbeAnswers;
use super::run::State;
use super::secret_watch::SecretVersion;
use super::source::{OrderKey, Source};
use super::state::{Fact, LedgerState, RunRequest};
use super::task::LockMode;

/// With whatever is remembered the ledger is told what time it is, at most so often.
const CLOCK_TOLD: Duration = Duration::from_secs(60);

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
    /// Why one of its gates is closed at present.
    pub closed: Option<String>,
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
    /// The end of what it printed, once it is over and did not succeed.
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

/// Something to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Put it into the ledger.
    Remember(Fact),
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
    Void {
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
        asked: RunRequest,
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

/// Why an activation waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// For its time.
    Schedule,
    /// For its place in the spread.
    Spread,
    /// For its window.
    Window,
    /// For a clock that can be trusted.
    Clock,
    /// For the next look whether its state holds.
    Reconcile,
    /// For a new version of a secret.
    Secret,
    /// For a lock.
    Resource,
    /// For the host to be known for who it is.
    Identity,
    /// For the end of a freeze.
    Freeze,
    /// For a gate of its task.
    Gate,
    /// A step said "not now".
    Retry,
    /// For an executor that was lost: its processes, or the next attempt.
    Lost,
    /// For the store.
    Store,
    /// For Vault.
    Vault,
    /// For another version of Hostler: the one before could not carry it out, or only a newer one can.
    RollbackWindow,
    /// For a run of an older identity.
    PreviousRun,
    /// For a place among the runs at once.
    Parallel,
    /// Being examined or started.
    Starting,
}

impl Reason {
    /// All of them, in the order of their declaration.
    pub const ALL: [Self; 18] = [
        Self::Schedule,
        Self::Spread,
        Self::Window,
        Self::Clock,
        Self::Reconcile,
        Self::Secret,
        Self::Resource,
        Self::Identity,
        Self::Freeze,
        Self::Gate,
        Self::Retry,
        Self::Lost,
        Self::Store,
        Self::Vault,
        Self::RollbackWindow,
        Self::PreviousRun,
        Self::Parallel,
        Self::Starting,
    ];

    /// As it stands in a report.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Schedule => "schedule",
            Self::Spread => "spread",
            Self::Window => "window",
            Self::Clock => "clock",
            Self::Reconcile => "reconcile",
            Self::Secret => "secret",
            Self::Resource => "resource",
            Self::Vault => "vault",
            Self::Identity => "identity",
            Self::Freeze => "freeze",
            Self::Gate => "gate",
            Self::Retry => "retry",
            Self::Lost => "lost",
            Self::Store => "store",
            Self::RollbackWindow => "rollback_window",
            Self::PreviousRun => "previous_run",
            Self::Parallel => "parallel",
            Self::Starting => "starting",
        }
    }
}

/// How an order waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Why.
    pub reason: Reason,
    /// Until when, if that is known.
    pub until: Option<Timestamp>,
    /// More, for the operator.
    pub detail: Option<String>,
}

impl Wait {
    fn new(reason: Reason, until: Option<Timestamp>) -> Self {
        Self { reason, until, detail: None }
    }
}

/// What follows.
#[derive(Debug, Default, PartialEq)]
pub struct Decision {
    /// To be done now, in this order.
    pub actions: Vec<Action>,
    /// Orders that wait.
    pub waits: BTreeMap<OrderKey, Wait>,
    /// Orders of which this host is exempt.
    pub skipped: BTreeSet<OrderKey>,
    /// When to ask again even if nothing happens.
    pub wake: Option<Timestamp>,
}

impl Decision {
    fn remember(&mut self, fact: Fact) {
        self.actions.push(Action::Remember(fact));
    }

    fn wake_at(&mut self, at: Timestamp) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }

    fn wait(&mut self, key: &OrderKey, wait: Wait) {
        if let Some(until) = wait.until {
            self.wake_at(until);
        }
        self.waits.insert(key.clone(), wait);
    }
}

/// What is to be done now. `new_run` gives the id of a new run.
pub fn decide(view: &View<'_>, new_run: &mut dyn FnMut() -> RunId) -> Decision {
    let mut decision = Decision::default();
    let mut capacity = starts::Capacity::of(view);
    runs::decide(view, &mut capacity, &mut decision);
    controls::decide(view, view.controls, new_run, &mut decision);
    if let Some(orders) = view.orders {
        orders::decide(view, orders, new_run, &mut decision);
    } else if view.unreachable {
        recurring::offline(view, new_run, &mut decision);
    }
    unready::settle(view, &mut decision);
    if decision.actions.iter().any(|action| matches!(action, Action::Remember(_))) {
        // What is to be remembered changes what is asked below: the next decision, a moment later, rests on it.
        if view.clock == Clock::Synchronised
            && view.memory.newest.is_none_or(|at| crate::domain::instant::later(at, CLOCK_TOLD) <= view.now)
        {
            decision.remember(Fact::Clock { at: view.now });
        }
        return decision;
    }
    starts::decide(view, &mut capacity, &mut decision);
    recurring::wake(view, &mut decision);
    decision
}

/// Whether two locks exclude one another.
fn conflict(a: &Lock, b: &Lock) -> bool {
    a.name == b.name && (a.mode == LockMode::Exclusive || b.mode == LockMode::Exclusive)
}

#[cfg(test)]
mod control_tests;
#[cfg(test)]
mod first_tests;
#[cfg(test)]
mod format_tests;
#[cfg(test)]
mod runs_tests;
#[cfg(test)]
pub(crate) mod tests;
#[cfg(test)]
mod unready_tests;
