//! What the agent does on a full disk: it goes on, starts nothing ordinary, and gives its reserve to what frees room.

use super::runs::RunTable;
use std::time::Duration;

use jiff::Timestamp;

use super::Agent;
use crate::domain::order::Document;
use crate::domain::source::OrderKey;
use crate::domain::state::LedgerEntry;
use crate::ledger::reserve::{Free, Reserve};

/// A full disk is looked at again so often.
const LOOK_RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// The room that is left for the state folder.
#[derive(Debug)]
pub(super) struct DiskGuard {
    reserve: Reserve,
    /// Why nothing ordinary may start.
    pub(super) full: Option<String>,
    /// The reserve is given up, or could not be made: one line for the operator.
    pub(super) without: Option<String>,
}

impl DiskGuard {
    pub(super) fn of(state_dir: &std::path::Path) -> Self {
        Self { reserve: Reserve::of(state_dir), full: None, without: None }
    }

    /// When to look again.
    pub(super) fn wake(&self, now: Timestamp) -> Option<Timestamp> {
        (self.full.is_some() || self.without.is_some()).then(|| now + LOOK_RETRY_INTERVAL)
    }

    fn release(&mut self, key: &OrderKey) -> bool {
        let given = self.reserve.release().unwrap_or_else(|error| {
            tracing::error!("cannot release the disk reserve: {error}");
            false
        });
        if given {
            tracing::warn!(order = %key, "the disk is full: releasing the disk reserve");
            self.without = Some(format!(
                "the disk reserve was released for {key}; the agent makes it again when there is space"
            ));
        }
        given
    }
}

impl RunTable {
    /// What an emergency frees is not taken again before it is over.
    pub(super) fn starting_or_running_emergency(&self) -> bool {
        !self.starting.is_empty() || self.runs.views().values().any(|run| run.plan.emergency)
    }
}

impl Agent {
    /// Looks at the room that is left; makes the reserve where it can be made.
    pub(super) fn look_at_space(&mut self) {
        let state_dir = &self.config.settings.state_dir;
        let low = Free::of(state_dir).map(|free| free.low(state_dir));
        // What cannot be told keeps nothing from starting: a start that fails for lack of room is tried again.
        self.durable.disk_guard.full =
            low.inspect_err(|error| tracing::debug!("{error}")).unwrap_or_default();
        if self.durable.disk_guard.reserve.is_there() || self.run_table.starting_or_running_emergency() {
            return;
        }
        self.durable.disk_guard.without = match self.durable.disk_guard.reserve.make() {
            Ok(true) => None,
            Ok(false) => {
                Some("not enough space for the disk reserve: free some, or order disk-cleanup".to_owned())
            }
            Err(error) => Some(format!("the reserve cannot be made: {error}")),
        };
    }

    /// Gives the reserve up if these facts begin something that may use it; whether there is more room now.
    pub(super) fn make_room_for(&mut self, facts: &[LedgerEntry]) -> bool {
        let begun = facts.iter().find_map(|fact| match fact {
            LedgerEntry::Activation { key, .. } | LedgerEntry::Prepared { key, .. } => {
                Some(key).filter(|key| self.is_emergency(key))
            }
            _ => None,
        });
        begun.is_some_and(|key| self.durable.disk_guard.release(key))
    }

    /// The same for a start whose folder is about to be made.
    pub(super) fn make_room_to_start(&mut self, key: &OrderKey) {
        if self.durable.disk_guard.full.is_some() && self.is_emergency(key) {
            self.durable.disk_guard.release(key);
        }
    }

    fn is_emergency(&self, key: &OrderKey) -> bool {
        let Some(Ok(Document::Order(order))) = self.known(key).map(|seen| &seen.document) else {
            return false;
        };
        self.orders.catalog.get(order.task.as_str()).is_ok_and(|loaded| loaded.task.emergency)
    }
}
