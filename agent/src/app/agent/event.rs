//! Everything that can happen to the agent, and what each of it changes.
//!
//! An event is applied and nothing more: what follows from it is decided afterwards, from all that is known by then. So
//! ten events that arrive together lead to one decision, and none of them has to know of the others.

use std::time::Duration;

use inotify::WatchDescriptor;
use jiff::Timestamp;
use tokio::time::Instant;

use super::work::Made;
use super::{Agent, past, sights};
use crate::domain::ids::RunId;
use crate::domain::reconcile::Answer;
use crate::domain::source::OrderKey;
use crate::domain::watched::Version;
use crate::host::clock;
use crate::host::crash::{CrashPoint, here};
use crate::ledger::NotReady;
use crate::report::document::Author;

/// What could not be taken in at once is looked at again after this.
const SIGHT_AGAIN: Duration = Duration::from_secs(1);

/// Something that happened.
#[derive(Debug)]
pub enum Event {
    /// A prefix shows something else.
    Sight,
    /// What the host itself reported before.
    Past(past::Past, Author),
    /// A run's folder has changed.
    Folder(WatchDescriptor),
    /// A run's folder is made, and the order is as it was: the run may start.
    Made {
        /// Of this order.
        key: OrderKey,
        /// Which.
        run: RunId,
        /// The run; or why there is none.
        result: Result<Made, NotMade>,
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
    Launched {
        /// Whose.
        run: RunId,
        /// Whether it was.
        launched: bool,
    },
    /// An executor was not launched, because it could not be given what it needs.
    Unlaunched {
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
    Survivors {
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
        told: Result<Version, String>,
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
        answer: Answer,
    },
}

/// Why a run was not made.
#[derive(Debug, thiserror::Error)]
pub enum NotMade {
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

impl Agent {
    pub(super) fn apply(&mut self, event: Event) {
        match event {
            Event::Sight => {
                let sighted = sights::Sighted::of(&self.sights, &self.seeing);
                self.sightings += u64::from(sighted.visible && !self.sighted.visible);
                self.sighted = sighted;
                let changed = sights::take(&self.sights, &mut self.seeing, Instant::now());
                self.sight_again = (self.seeing.postponed > 0).then(|| Instant::now() + SIGHT_AGAIN);
                if changed {
                    here(CrashPoint::OrderSeen);
                    self.examined.retain(|key, seen| {
                        self.seeing.orders.get(key).is_some_and(|order| order.index == seen.index)
                    });
                    self.forget_answers();
                }
            }
            Event::Past(past, author) => self.begin_reports(past, &author),
            Event::Folder(watch) => self.runs.noticed(&watch),
            Event::Made { key, run, result } => self.made(&key, run, result),
            Event::Changed { key, run, epoch } => {
                self.starting.remove(&run);
                self.void(&key, run, epoch);
            }
            Event::Launched { run, .. } => {
                self.starting.remove(&run);
                here(CrashPoint::Launched);
                self.runs.launched(run, clock::now());
            }
            Event::Again(run) => {
                self.starting.remove(&run);
            }
            Event::Unlaunched { run, why } => {
                self.starting.remove(&run);
                self.not_ready(run, why);
            }
            Event::Vault => self.try_unready_again(),
            Event::Version { round, path, told } => self.told(round, path, told),
            Event::Survivors { run, found } => {
                self.ending.remove(&run);
                self.give_back.notify_one();
                self.runs.survivors(run, found);
            }
            Event::NotRebooted => self.rebooting = false,
            Event::Answered { key, index, at, answer } => self.answered(key, index, at, answer),
        }
    }

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
