//! Upgrades that can be taken back: for a day after one, the ledger is kept in the format of the version before.
//!
//! ```text
//!  a ledger of the former format ──first time ready──> probation {since} ──a day──> written anew, in our own format
//! ```
//!
//! A host that never had a ledger has nothing to go back to and begins with the newest format. Meanwhile no fact is
//! recorded that the former format cannot say, and an order whose plan needs the newest format waits
//! (`decide/starts.rs`). The beginning is on the disk, so that restarts do not lengthen it; another version of the program
//! begins it anew, and one that is back at a ledger of its own format forgets it.

use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::Agent;
use crate::host::{clock, disk};

/// How long an agent has been ready before its host's ledger can no longer be read by the version before.
const ROLLBACK_WINDOW: SignedDuration = SignedDuration::from_hours(24);
/// The file is two lines of ours.
const MAX_FILE: u64 = 4096;
/// What counts is this very program.
const PROGRAM: &str = env!("CARGO_PKG_VERSION");

#[derive(Serialize, Deserialize)]
struct File {
    program: String,
    since: Timestamp,
}

/// Since when this version has been ready beside a ledger of the former format.
#[derive(Debug, Default)]
pub(super) struct RollbackWindow {
    path: PathBuf,
    since: Option<Timestamp>,
}

impl RollbackWindow {
    /// As the disk says; what cannot be read, or is of another version, begins anew. `over`: there is nothing to go back
    /// to, and what a program of a later upgrade left behind must not shorten the day of the next one.
    pub(super) fn of(state_dir: &Path, over: bool) -> Self {
        let path = state_dir.join("probation");
        if over {
            let mut rollback_window = Self { path, since: None };
            rollback_window.forget();
            return rollback_window;
        }
        let file = disk::read(&path, MAX_FILE).ok().flatten();
        let file = file.and_then(|text| serde_json::from_slice::<File>(&text).ok());
        Self { path, since: file.filter(|file| file.program == PROGRAM).map(|file| file.since) }
    }

    fn begin(&mut self, now: Timestamp) -> Result<(), disk::DiskError> {
        let file = File { program: PROGRAM.to_owned(), since: now };
        let text = serde_json::to_vec(&file).unwrap_or_default();
        disk::replace(&self.path, &text, 0o600)?;
        self.since = Some(now);
        Ok(())
    }

    /// The day is over, or there is nothing to go back to.
    fn forget(&mut self) {
        disk::remove(&self.path).inspect_err(|error| tracing::warn!("{error}")).ok();
        self.since = None;
    }

    pub(super) fn until(&self) -> Option<Timestamp> {
        self.since.and_then(|since| since.checked_add(ROLLBACK_WINDOW).ok())
    }
}

impl Agent {
    /// Begins the day, or ends it; true: what may be written is another than before.
    pub(super) fn look_at_formats(&mut self) -> bool {
        if !self.durable.on_probation() {
            return false;
        }
        let now = clock::now();
        match self.durable.rollback_window.until() {
            Some(until) if until <= now => {
                let Ok(ledger) = &mut self.durable.ledger else { return false };
                match ledger.upgrade() {
                    Ok(()) => {
                        tracing::info!("all files are written in this version's formats from now on");
                        self.durable.rollback_window.forget();
                    }
                    // It stays as it was, and readable; a full disk has its own condition.
                    Err(error) => {
                        tracing::warn!("cannot rewrite the ledger, keeping its previous format: {error}");
                        self.durable.rollback_window.since = Some(now);
                    }
                }
            }
            Some(_) => return false,
            None if self.obstacle().is_none() => {
                if let Err(error) = self.durable.rollback_window.begin(now) {
                    tracing::warn!("cannot rewrite the ledger, keeping its previous format: {error}");
                    return false;
                }
            }
            None => return false,
        }
        true
    }
}
