//! What the host does not need any more is removed: old runs, and copies of tasks that none uses.

use std::mem::take;

use crate::catalog::copy;
use crate::host::clock;
use crate::ledger::trim;

use super::{Agent, recurring};

/// After so many runs old ones are removed.
const TRIM_AFTER: usize = 20;

impl Agent {
    /// Builds the large maps anew, without room between their entries: those of a map that has grown in order are half
    /// empty: two hundred bytes for each order.
    pub(super) fn pack(&mut self) {
        self.orders.checked = take(&mut self.orders.checked).into_iter().collect();
        self.sync.desired.orders = take(&mut self.sync.desired.orders).into_iter().collect();
        if let Ok(ledger) = &mut self.durable.ledger {
            ledger.pack();
        }
    }

    /// Removes old runs now and then: orders that come again would fill the disk of an agent that is never restarted.
    pub(super) fn trim_sometimes(&mut self) {
        if self.run_table.closed_since_trim >= TRIM_AFTER && self.run_table.starting.is_empty() {
            self.run_table.closed_since_trim = 0;
            self.trim_runs();
        }
    }

    fn trim_runs(&self) {
        let Ok(ledger) = &self.durable.ledger else { return };
        let mut spared = self.durable.kept_open();
        spared.extend(ledger.state().prepared().map(|(_, activation)| activation.run));
        let runs = self.config.runs_dir();
        match trim::trim(&runs, &spared, &self.config.settings.runs.into(), clock::now()) {
            Ok(trimmed) => {
                if let Some(error) = trimmed.failed.first() {
                    let count = trimmed.failed.len();
                    tracing::warn!("cannot remove or measure {count} old runs; the first: {error}");
                }
            }
            Err(error) => tracing::warn!("cannot remove old runs: {error}"),
        }
    }

    /// Removes what is not needed any more; a failure costs space, nothing else.
    pub(super) fn tidy(&self) {
        if self.durable.ledger.is_err() {
            return;
        }
        self.trim_runs();
        let runs = self.config.runs_dir();
        let tasks = self.config.settings.state_dir.join("tasks");
        match trim::digests(&runs) {
            Ok(mut needed) => {
                match recurring::digests(&self.config.settings.state_dir) {
                    Ok(digests) => needed.extend(digests),
                    Err(error) => return tracing::warn!("cannot remove old copies of tasks: {error}"),
                }
                if let Err(error) = copy::remove_unneeded(&tasks, &needed) {
                    tracing::warn!("cannot remove old copies of tasks: {error}");
                }
            }
            Err(error) => tracing::warn!("cannot remove old copies of tasks: {error}"),
        }
    }
}
