//! What the store should hold of this host, in the form in which a thousand reports are kept: as text.
//!
//! Almost all reports have ended and never change again. So a report is composed, compared by its fingerprint with the
//! one before, and turned into the text that goes to the store; once the store has the text of one that has ended,
//! it is dropped. Should the store lose it, the writer asks for it through [`Texts`], and it is composed again.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::Serialize;
use smol_str::SmolStr;
use tokio::sync::Notify;

use super::document::{AgentReport, OrderReport, RunReport};

/// One report: its text, and what the writer has to know of it.
#[derive(Debug)]
pub struct Report {
    /// JSON, an object; without the stamps of its writing. None once the store has it and it will not change.
    text: Mutex<Option<Box<str>>>,
    /// Of the value; tells within one process that another one is the same.
    fingerprint: u64,
    phase: SmolStr,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// What it tells of still goes on, so that silence would mean something.
    GoesOn,
    /// It is over.
    Ended,
    /// A run's: not stamped, the order's report is.
    Run,
}

/// Everything that the store should hold of this host.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wanted {
    /// By key; a report that has not changed stays the same one, so that a thousand of them are kept once.
    pub reports: Reports,
    /// How many times the store came back in sight: each time it may hold something else.
    pub sightings: u64,
}

/// Reports by key.
pub type Reports = BTreeMap<Arc<str>, Arc<Report>>;

impl Report {
    /// The report of an order.
    pub fn order(report: &OrderReport) -> Result<Self, serde_json::Error> {
        // One that comes again is over and goes on.
        let goes_on = report.ended.is_none() || report.until.is_some();
        let kind = if goes_on { Kind::GoesOn } else { Kind::Ended };
        Self::new(report, &report.phase, kind)
    }

    /// The report of a run.
    pub fn run(report: &RunReport) -> Result<Self, serde_json::Error> {
        Self::new(report, &report.phase, Kind::Run)
    }

    /// The report of the agent.
    pub fn agent(report: &AgentReport) -> Result<Self, serde_json::Error> {
        Self::new(report, "", Kind::GoesOn)
    }

    fn new(report: &(impl Serialize + Hash), phase: &str, kind: Kind) -> Result<Self, serde_json::Error> {
        let text = Mutex::new(Some(serde_json::to_string(report)?.into()));
        Ok(Self { text, fingerprint: fingerprint(report), phase: phase.into(), kind })
    }

    /// Whether this is the report of `value`.
    pub fn is_of(&self, value: &impl Hash) -> bool {
        self.fingerprint == fingerprint(value)
    }

    /// Whether both say that what they tell of stands in the same phase.
    pub(super) fn same_phase(&self, other: &Self) -> bool {
        self.phase == other.phase
    }

    /// Whether silence would mean something.
    pub(super) fn goes_on(&self) -> bool {
        self.kind == Kind::GoesOn
    }

    /// Whether its text is there to be written.
    pub fn has_text(&self) -> bool {
        self.text().is_some()
    }

    /// The store has it: one that will not change needs no text any more.
    pub(super) fn is_written(&self) {
        if self.kind == Kind::Ended {
            *self.text() = None;
        }
    }

    /// The text for the store, with the stamps of its writing as the last fields.
    pub(super) fn stamped(&self, updated: Timestamp, renewed_by: Option<Timestamp>) -> Option<Vec<u8>> {
        let text = self.text();
        let text = text.as_deref()?;
        let Some(open) = text.strip_suffix('}').filter(|_| self.kind != Kind::Run) else {
            return Some(text.as_bytes().to_vec());
        };
        let stamped = match renewed_by {
            Some(by) => format!(r#"{open},"updated":"{updated}","next_by":"{by}"}}"#),
            None => format!(r#"{open},"updated":"{updated}","next_by":null}}"#),
        };
        Some(stamped.into_bytes())
    }

    fn text(&self) -> MutexGuard<'_, Option<Box<str>>> {
        self.text.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PartialEq for Report {
    /// Of the same value.
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }
}

/// The writer's word to whoever composes reports: texts that were dropped are needed again.
#[derive(Clone, Debug, Default)]
pub struct Texts {
    wanted: Arc<AtomicBool>,
    woken: Arc<Notify>,
}

impl Texts {
    /// Asks for them.
    pub(super) fn want(&self) {
        self.wanted.store(true, Ordering::Relaxed);
        self.woken.notify_one();
    }

    /// Whether they were asked for since the last time.
    pub fn are_wanted(&self) -> bool {
        self.wanted.swap(false, Ordering::Relaxed)
    }

    /// Done when they are asked for. Safe to drop at any point: the wish stands.
    pub async fn asked(&self) {
        self.woken.notified().await;
    }
}

fn fingerprint(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamped_report_reads_as_the_value_with_its_stamps() {
        let (now, by) = (Timestamp::UNIX_EPOCH, Timestamp::from_second(60).unwrap());
        let value =
            OrderReport { phase: "running".into(), tail: Some("a\"}\n".into()), ..OrderReport::default() };
        let report = Report::order(&value).unwrap();
        let read: OrderReport = serde_json::from_slice(&report.stamped(now, Some(by)).unwrap()).unwrap();
        assert_eq!(read, OrderReport { updated: Some(now), next_by: Some(by), ..value.clone() });
        let read: OrderReport = serde_json::from_slice(&report.stamped(now, None).unwrap()).unwrap();
        assert_eq!(read, OrderReport { updated: Some(now), ..value.clone() });
        let run = RunReport { phase: "failed".into(), ..RunReport::default() };
        let read: RunReport =
            serde_json::from_slice(&Report::run(&run).unwrap().stamped(now, None).unwrap()).unwrap();
        assert_eq!(read, run);
        assert!(report.is_of(&value) && !report.is_of(&OrderReport { epoch: 1, ..value }));
    }
}
