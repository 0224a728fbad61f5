//! Upgrades that can be taken back: for a day after one, the ledger is kept in the format of the version before.
//!
//! ```text
//!  a ledger of the former format ──first time ready──> probation {since} ──a day──> written anew, in our own format
//! ```
//!
//! A host that never had a ledger has nothing to go back to and begins with the newest format. What the former format
//! cannot say (which version of a secret is known) does not happen meanwhile, and a condition says until when. The
//! beginning is on the disk, so that restarts do not lengthen it; another version of the program begins it anew.

use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::Agent;
use crate::host::{clock, disk};

/// How long an agent has been ready before its host's ledger can no longer be read by the version before.
const LONG_ENOUGH: SignedDuration = SignedDuration::from_hours(24);
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
pub(super) struct Probation {
    path: PathBuf,
    since: Option<Timestamp>,
}

impl Probation {
    /// As the disk says; what cannot be read, or is of another version, begins anew.
    pub(super) fn of(state_dir: &Path) -> Self {
        let path = state_dir.join("probation");
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

    fn until(&self) -> Option<Timestamp> {
        self.since.and_then(|since| since.checked_add(LONG_ENOUGH).ok())
    }
}

impl Agent {
    /// Whether the ledger is still kept in the former format.
    pub(super) fn on_probation(&self) -> bool {
        self.ledger.as_ref().is_ok_and(|ledger| !ledger.is_newest())
    }

    /// When there is something to do.
    pub(super) fn probation_ends(&self) -> Option<Timestamp> {
        self.probation.until().filter(|_| self.on_probation())
    }

    /// Begins the day, or ends it.
    pub(super) fn look_at_formats(&mut self) {
        if !self.on_probation() {
            return;
        }
        let now = clock::now();
        match self.probation.until() {
            Some(until) if until <= now => {
                let Ok(ledger) = &mut self.ledger else { return };
                match ledger.upgrade() {
                    Ok(()) => {
                        tracing::info!("the ledger is kept in this version's own format from now on");
                        disk::remove(&self.probation.path)
                            .inspect_err(|error| tracing::warn!("{error}"))
                            .ok();
                        self.probation.since = None;
                    }
                    // It stays as it was, and readable; a full disk has its own condition.
                    Err(error) => {
                        tracing::warn!("the ledger stays in the former format: {error}");
                        self.probation.since = Some(now);
                    }
                }
            }
            Some(_) => {}
            None if self.obstacle().is_none() => {
                if let Err(error) = self.probation.begin(now) {
                    tracing::warn!("the ledger stays in the former format: {error}");
                }
            }
            None => {}
        }
    }

    /// What an operator should know of it.
    pub(super) fn probation_condition(&self) -> Option<String> {
        if !self.on_probation() || !self.watches_secrets() {
            return None;
        }
        let until = self.probation.until();
        let until =
            until.map_or_else(|| "a day after the agent is ready".to_owned(), |until| until.to_string());
        Some(format!(
            "secrets that orders watch are not looked at before {until}: until then this upgrade can be taken back"
        ))
    }
}
