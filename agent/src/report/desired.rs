//! What the store should hold of this host, in the form in which a thousand reports are kept: as fingerprints.
//!
//! Almost all reports never change again. So a report is composed, compared by its fingerprint with the one before, and
//! turned into the text that goes to the store only where that is needed: a few new ones at a time, and those that
//! the writer asks for through [`RenderQueue`]. Once the store has a text it is dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::Notify;

use super::document::{AgentReport, OrderReport, RunReport};
use super::facts::FactsReport;
use crate::domain::audit::Head;

/// How many texts are composed at a time; a thousand at once would take a megabyte for a moment, and leave holes.
pub const TEXTS_AT_ONCE: usize = 64;

/// The reason of what is about to start: it is over in a moment, as a rule.
const STARTING: &str = "starting";
/// The phase of what has started: many a run is over in a moment, too, and its end is what somebody waits for.
const RUNNING: &str = "running";

/// One report: its text while it is to be written, and what the writer has to know of it.
#[derive(Debug)]
pub struct Report {
    /// JSON, an object; without the stamps of its writing.
    text: Mutex<Option<Box<str>>>,
    /// Of the value; tells within one process that another one is the same.
    fingerprint: u64,
    /// Of what is news; a report of which only the rest has changed can wait a moment.
    phase: u64,
    kind: Kind,
    /// What it tells is over in a moment, as a rule.
    brief: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// What it tells of still goes on, so that silence would mean something.
    GoesOn,
    /// It is over.
    Ended,
    /// It is over, and nobody waits for it.
    Unhurried,
    /// A run's: not stamped, the order's report is.
    Run,
}

/// Everything that the store should hold of this host.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DesiredReports {
    /// By key; a report that has not changed stays the same one, so that a thousand of them are kept once.
    pub reports: Reports,
    /// The reports of orders that are gone for so long that the store need not hold them any more.
    pub dropped: BTreeSet<Arc<str>>,
    /// How many times the store came back in sight: each time it may hold something else.
    pub snapshot_count: u64,
}

/// Reports by key.
pub type Reports = BTreeMap<Arc<str>, Arc<Report>>;

impl Report {
    /// The report of an order.
    pub fn order(report: &OrderReport) -> Self {
        // One that comes again is over and goes on.
        let goes_on = report.ended.is_none() || report.until.is_some();
        let kind = if goes_on { Kind::GoesOn } else { Kind::Ended };
        let brief = report.reason.as_deref() == Some(STARTING) || report.phase == RUNNING;
        // That another run has ended in the same way is news.
        let phase = fingerprint(&(&report.phase, &report.run));
        Self { brief, ..Self::new(report, phase, kind) }
    }

    /// The report of a run.
    pub fn run(report: &RunReport) -> Self {
        Self { brief: report.phase == RUNNING, ..Self::new(report, fingerprint(&report.phase), Kind::Run) }
    }

    /// The report of the agent. What is wrong and what became of controls is told at once, all else is no news by itself.
    pub fn agent(report: &AgentReport) -> Self {
        let news = fingerprint(&(&report.conditions, &report.controls));
        Self::new(report, news, Kind::GoesOn)
    }

    /// The report of the host's facts, which its agent shows seldom enough.
    pub fn facts(report: &FactsReport) -> Self {
        Self::new(report, fingerprint(report), Kind::Ended)
    }

    /// The report of the host's audit, by the newest line: its hash is that of all that the report says.
    pub fn audit(head: &Head) -> Self {
        Self::new(head, 0, Kind::Unhurried)
    }

    fn new(report: &impl Hash, phase: u64, kind: Kind) -> Self {
        Self { text: Mutex::new(None), fingerprint: fingerprint(report), phase, kind, brief: false }
    }

    /// Composes the text; `value` is what the report is of.
    pub fn compose(&self, value: &impl Serialize) -> Result<(), serde_json::Error> {
        *self.text() = Some(serde_json::to_string(value)?.into());
        Ok(())
    }

    /// Whether this is the report of `value`.
    pub fn is_of(&self, value: &impl Hash) -> bool {
        self.fingerprint == fingerprint(value)
    }

    /// Whether both say that what they tell of stands in the same phase.
    pub(super) fn same_phase(&self, other: &Self) -> bool {
        self.phase == other.phase
    }

    /// Whether something else follows in a moment, as a rule, so that this need not be told.
    pub(super) fn is_brief(&self) -> bool {
        self.brief
    }

    /// Whether nobody waits for it.
    pub(super) fn is_unhurried(&self) -> bool {
        self.kind == Kind::Unhurried
    }

    /// Whether silence would mean something.
    pub(super) fn goes_on(&self) -> bool {
        self.kind == Kind::GoesOn
    }

    /// The store has it.
    pub(super) fn is_written(&self) {
        *self.text() = None;
    }

    /// The text for the store, with the stamps of its writing as the last fields.
    pub(super) fn stamped(&self, updated: Timestamp, renewed_by: Option<Timestamp>) -> Option<Vec<u8>> {
        let text = self.text();
        let text = text.as_deref()?;
        let Some(open) = text.strip_suffix('}').filter(|_| self.kind != Kind::Run) else {
            return Some(text.as_bytes().to_vec());
        };
        let stamped = match renewed_by {
            Some(by) => format!(r#"{open},"updated":"{updated}","next_report_by":"{by}"}}"#),
            None => format!(r#"{open},"updated":"{updated}","next_report_by":null}}"#),
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

/// The writer's word to whoever composes reports: the keys whose texts it needs.
#[derive(Clone, Debug, Default)]
pub struct RenderQueue {
    asked: Arc<Mutex<BTreeSet<Arc<str>>>>,
    woken: Arc<Notify>,
}

impl RenderQueue {
    /// Asks for one, unless enough are asked for already.
    pub(super) fn ask(&self, key: &Arc<str>) {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.len() < TEXTS_AT_ONCE {
            asked.insert(Arc::clone(key));
            self.woken.notify_one();
        }
    }

    /// What was asked for since the last time.
    pub fn take(&self) -> BTreeSet<Arc<str>> {
        std::mem::take(&mut self.asked.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Done when something is asked for. Safe to drop at any point: the wish stands.
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
        let report = Report::order(&value);
        assert_eq!(report.stamped(now, None), None);
        report.compose(&value).unwrap();
        let read: OrderReport = serde_json::from_slice(&report.stamped(now, Some(by)).unwrap()).unwrap();
        assert_eq!(read, OrderReport { updated: Some(now), next_report_by: Some(by), ..value.clone() });
        let read: OrderReport = serde_json::from_slice(&report.stamped(now, None).unwrap()).unwrap();
        assert_eq!(read, OrderReport { updated: Some(now), ..value.clone() });
        let run = RunReport { phase: "failed".into(), ..RunReport::default() };
        let composed = Report::run(&run);
        composed.compose(&run).unwrap();
        let read: RunReport = serde_json::from_slice(&composed.stamped(now, None).unwrap()).unwrap();
        assert_eq!(read, run);
        assert!(report.is_of(&value) && !report.is_of(&OrderReport { epoch: 1, ..value }));
    }
    #[test]
    fn the_end_of_another_run_is_news_and_what_is_over_in_a_moment_is_not() {
        let of = |phase: &str, run: u128| {
            let run = Some(crate::domain::ids::RunId::new(1, run));
            Report::order(&OrderReport { phase: phase.into(), run, ..OrderReport::default() })
        };
        assert!(of("succeeded", 1).same_phase(&of("succeeded", 1)));
        assert!(!of("succeeded", 1).same_phase(&of("succeeded", 2)));
        assert!(!of("running", 1).same_phase(&of("succeeded", 1)));
        assert!(of("running", 1).is_brief() && !of("succeeded", 1).is_brief());
    }
}
