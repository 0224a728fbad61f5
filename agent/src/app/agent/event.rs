//! Everything that can happen to the agent, and what each of it changes.
//!
//! An event is applied and nothing more: what follows from it is decided afterwards, from all that is known by then. So
//! ten events that arrive together lead to one decision, and none of them has to know of the others.

use super::Work;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::{Agent, prior_reports, watches};
use crate::domain::facts::{FactName, Object};
use crate::domain::ids::RunId;
use crate::domain::plan::Plan;
use crate::domain::secret_watch::SecretVersion;
use crate::domain::source::OrderKey;
use crate::host::clock;
use crate::host::crash::{CrashPoint, here};
use crate::ledger::NotReady;
use crate::report::document::Author;

/// What could not be taken in at once is looked at again after this.
const DESIRED_RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Something that happened.
#[derive(Debug)]
pub enum Event {
    /// A prefix shows something else.
    StoreChanged,
    /// What the host itself reported before.
    PriorReports(prior_reports::PriorReports, Author),
    /// A run's folder has changed.
    Folder(RunId),
    /// A run's folder is made, and the order is as it was: the run may start.
    RunPrepared {
        /// Of this order.
        key: OrderKey,
        /// Which.
        run: RunId,
        /// What is to be done; or why there is no run.
        result: Result<Arc<Plan>, PrepareError>,
    },
    /// The last look at the order of a run without effect found it changed.
    Changed {
        /// Of this order.
        key: OrderKey,
        /// Which.
        run: RunId,
        /// Its epoch that nobody may have any more.
        epoch: u32,
    },
    /// An executor was launched.
    LaunchFinished {
        /// Whose.
        run: RunId,
        /// Whether it was.
        launched: bool,
    },
    /// An executor was not launched, because it could not be given what it needs.
    LaunchDeferred {
        /// Whose.
        run: RunId,
        /// What is missing.
        why: NotReady,
    },
    /// The agent stands with Vault otherwise than before.
    Vault,
    /// What was kept from happening may be tried again.
    Again(RunId),
    /// A dead executor's processes were ended.
    LeftoversKilled {
        /// Whose.
        run: RunId,
        /// How many live on, or why that cannot be told.
        found: Result<usize, String>,
    },
    /// The host was to be rebooted, and was not.
    NotRebooted,
    /// Vault told of a secret that an order watches.
    Version {
        /// In which round it was asked.
        round: u64,
        /// Which secret.
        path: String,
        /// Its version, or why there is none.
        told: Result<SecretVersion, String>,
    },
    /// A probe was asked whether an order's state holds.
    Answered {
        /// Of this order.
        key: OrderKey,
        /// Under this index.
        index: u64,
        /// When it was asked.
        at: Timestamp,
        /// What it said.
        answer: Box<super::recurring::Said>,
    },
    /// A fact was asked for.
    FactAnswered {
        /// Which.
        name: FactName,
        /// When, since the boot.
        asked: Duration,
        /// Its value, or why there is none.
        answer: Result<Object, String>,
    },
}

/// Why a run was not made.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// Its order is refused: one line for the operator.
    #[error("{0}")]
    Refused(String),
    /// Not now: the store, the order or the disk.
    #[error("{0}")]
    NotNow(String),
    /// The order has to be held against its task once more.
    #[error("{0}")]
    Unexamined(String),
}

impl Work {
    /// Does something elsewhere, and takes its end as an event.
    pub(super) fn send(&self, work: impl Future<Output = Event> + Send + 'static) {
        let events = self.events.clone();
        tokio::spawn(async move {
            let event = work.await;
            // A closed queue means that the agent is stopping.
            let _ = events.send(event).await;
        });
    }
}

impl Agent {
    pub(super) fn apply(&mut self, event: Event) {
        match event {
            Event::StoreChanged => {
                let sync = watches::SyncStatus::of(&self.sync.watches, &self.sync.desired);
                self.sync.snapshot_count += u64::from(sync.all_current && !self.sync.status.all_current);
                self.sync.status = sync;
                let changed = watches::take(&self.sync.watches, &mut self.sync.desired, Instant::now());
                self.sync.desired_retry_at =
                    (self.sync.desired.postponed > 0).then(|| Instant::now() + DESIRED_RETRY_INTERVAL);
                if changed {
                    here(CrashPoint::OrderSeen);
                    self.orders.checked.retain(|key, seen| {
                        self.sync.desired.orders.get(key).is_some_and(|order| order.index == seen.index)
                    });
                    self.forget_answers();
                }
            }
            Event::PriorReports(prior_reports, author) => self.start_reporting(prior_reports, &author),
            Event::Folder(run) => self.run_table.runs.noticed(run),
            Event::RunPrepared { key, run, result } => self.made(&key, run, result),
            Event::Changed { key, run, epoch } => {
                self.run_table.starting.remove(&run);
                self.revoke(&key, run, epoch);
            }
            Event::LaunchFinished { run, .. } => {
                self.run_table.starting.remove(&run);
                here(CrashPoint::Launched);
                self.run_table.runs.launched(run, clock::now());
            }
            Event::Again(run) => {
                self.run_table.starting.remove(&run);
            }
            Event::LaunchDeferred { run, why } => {
                self.run_table.starting.remove(&run);
                self.not_ready(run, why);
            }
            Event::Vault => self.try_unready_again(),
            Event::Version { round, path, told } => self.orders.told(round, path, told),
            Event::LeftoversKilled { run, found } => {
                self.run_table.ending.remove(&run);
                self.vault.give_back.notify_one();
                self.run_table.runs.leftovers(run, found);
            }
            Event::NotRebooted => self.run_table.rebooting = false,
            Event::Answered { key, index, at, answer } => self.answered(key, index, at, *answer),
            Event::FactAnswered { name, asked, answer } => self.fact_answered(&name, asked, answer),
        }
    }
}
