//! The reports as they stand in the store.
//!
//! Whoever reads one asks for its version first: of a newer one nothing is believed, and what it says of an order is
//! unknown. A field that is added is no new version: it is left out by who does not know it. Who wrote an agent's report
//! ([`Author`]) is told in the same words by every version, because agents of two versions may meet under one name.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::domain::audit::Head;
use crate::domain::control::ControlId;
use crate::domain::downtime::{Downtime, Millis, Service, Target, Window};
use crate::domain::ids::{InstructionHash, RunId};
use crate::domain::name::Name;
use crate::domain::source::Source;
use crate::domain::summary::StepSummary;
use crate::domain::yaml::single_line;

/// The version of all reports that this program writes, and the newest that it reads. It is the first; with the second,
/// the former one is written until the ledger is no longer kept in its own.
pub const REPORT_VERSION: u32 = 1;

/// The longest tail in a report of an order, in bytes.
pub const TAIL: usize = 2 << 10;

/// The longest tail in a report of a run, in bytes: half of the whole report.
pub const RUN_TAIL: usize = 1 << 10;

/// Where an order stands on a host; at most 8 KiB.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct OrderReport {
    /// [`REPORT_VERSION`]
    pub version: u32,
    /// The host.
    pub host: String,
    /// The order.
    pub order: String,
    /// Where the order stands: `hosts/db1`.
    pub source: Option<Source>,
    /// What it says.
    pub identity: Option<InstructionHash>,
    /// Where it stands.
    pub phase: String,
    /// Why it stands there.
    pub reason: Option<String>,
    /// Its run.
    pub run: Option<RunId>,
    /// The run's newest epoch.
    pub epoch: u32,
    /// Why it is carried out.
    pub trigger: Option<String>,
    /// `name@version`
    pub task: Option<String>,
    /// `sha256:…`
    pub task_digest: Option<String>,
    /// The step that the run is at.
    pub step: Option<StepSummary>,
    /// In percent, of the step.
    pub progress: Option<u8>,
    /// What the step says.
    pub message: Option<String>,
    /// In this phase since.
    pub since: Option<Timestamp>,
    /// Until then, where it is known.
    pub until: Option<Timestamp>,
    /// When the run began.
    pub started: Option<Timestamp>,
    /// When it was over.
    pub ended: Option<Timestamp>,
    /// When its time will be up, if it goes on executing.
    pub deadline: Option<Timestamp>,
    /// The status of the newest command but the first probe and undos; none while it executes, and when it did not end by
    /// itself.
    pub exit_code: Option<i32>,
    /// One line for the operator.
    pub error: Option<String>,
    /// What the steps wanted to be known.
    pub outputs: BTreeMap<String, String>,
    /// The end of what the run printed.
    pub tail: Option<String>,
    /// Processes that were left running without leave, and ended.
    pub killed_processes: Vec<String>,
    /// What its commands said and nobody understood, or was too much.
    pub warnings: Vec<String>,
    /// How long services could not be used because of the run, a sum for each service.
    pub downtime: Vec<Downtime>,
    /// For a reconciled order: when its probe was asked last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asked: Option<Timestamp>,
    /// Whether the probe said then that the state does not hold.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub drifted: bool,
    /// What the probe said beside that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probe: Option<String>,
    /// For an order that comes again: when a run of it succeeded last, or found that there was nothing to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_success: Option<Timestamp>,
    /// When this report was written; put at the end by the writer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updated: Option<Timestamp>,
    /// When it must have been renewed: after that the host is silent, whatever the phase says. As `updated`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_report_by: Option<Timestamp>,
}

/// One of the newest runs of a host; at most 2 KiB.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct RunReport {
    /// [`REPORT_VERSION`]
    pub version: u32,
    /// Its order.
    pub order: String,
    /// Where the order stands.
    pub source: Option<Source>,
    /// Why.
    pub trigger: Option<String>,
    /// Whether it was to change nothing.
    pub dry_run: bool,
    /// `name@version`
    pub task: String,
    /// Where it stands.
    pub phase: String,
    /// The newest epoch.
    pub epoch: u32,
    /// When it began.
    pub started: Option<Timestamp>,
    /// When it was over.
    pub ended: Option<Timestamp>,
    /// As in the report of its order.
    pub exit_code: Option<i32>,
    /// One line for the operator.
    pub error: Option<String>,
    /// As in the report of its order.
    pub warnings: Vec<String>,
    /// As in the report of its order.
    pub downtime: Vec<Downtime>,
    /// The end of what it printed, once it is over.
    pub tail: Option<String>,
    /// Who ordered it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Why, as the order says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The parameters as JSON, cut where they are long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub params: Option<String>,
    /// The steps that were begun; a last one without a start may count the others.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<StepReport>,
    /// What the steps wanted to be known.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub outputs: BTreeMap<String, String>,
    /// Processes that were left running without leave, and ended.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub killed_processes: Vec<String>,
}

/// One step of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct StepReport {
    /// Its name.
    pub name: String,
    /// When it began first.
    pub started: Option<Timestamp>,
    /// Executing time of all its attempts, in milliseconds.
    pub took_ms: u64,
    /// How its newest attempt ended: an exit status, or words such as `signal 9`. `None` while it executes, and when that
    /// is not known.
    pub exit: Option<String>,
}

/// What an agent says of itself; at most 4 KiB.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct AgentReport {
    /// [`REPORT_VERSION`]
    pub version: u32,
    /// The host.
    pub host: String,
    /// What tells this host from another of the same name.
    pub id: String,
    /// The machine's id.
    pub machine: String,
    /// The program's version.
    pub agent_version: String,
    /// The kernel's boot id.
    pub boot: String,
    /// Its groups.
    pub groups: Vec<Name>,
    /// Problems that need attention; the last one may count the others.
    pub conditions: Vec<ReportedCondition>,
    /// The index seen of each watched prefix; `…` counts those that have no room.
    pub observed_index: BTreeMap<String, u64>,
    /// The audit's newest line: its number and its hash.
    pub audit: Head,
    /// What became of the newest controls: `done`, `stale: …` or `refused: …`.
    pub controls: BTreeMap<ControlId, String>,
    /// Each order with its phase, as many as there is room for; `…` counts the others.
    pub orders: BTreeMap<String, String>,
    /// The installed tasks, as many as there is room for: each with its version and the beginning of its digest, or
    /// `broken`; `…` counts the others.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tasks: BTreeMap<String, String>,
    /// The error budgets of which the smallest share is left.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub budgets: Vec<ReportedBudget>,
    /// When this report was written; put at the end by the writer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updated: Option<Timestamp>,
    /// When it must have been renewed. As `updated`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_report_by: Option<Timestamp>,
}

/// The error budget of one service on a host, as one of its objectives gives it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ReportedBudget {
    /// The service.
    pub service: Service,
    /// The share of the window in which it can be used, in percent.
    pub target: Target,
    /// The days that count.
    pub window: Window,
    /// How much downtime the window has room for, in seconds.
    pub allowed: Millis,
    /// How much of it is spent, in seconds.
    pub spent: Millis,
}

/// One problem of a host that needs attention.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct ReportedCondition {
    /// What it is about: a [`Kind`](crate::domain::condition::Kind), or [`MORE`].
    #[serde(rename = "type")]
    pub kind: String,
    /// One line for the operator.
    pub message: String,
}

/// The type of the condition that counts those without room in the report.
pub const MORE: &str = "more";

/// The type of a condition about the report itself.
pub const OF_REPORT: &str = "report";

impl ReportedCondition {
    /// A condition about the report itself.
    pub fn of_report(message: String) -> Self {
        Self { kind: OF_REPORT.to_owned(), message }
    }
}

/// Who wrote an agent's report.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Author {
    /// What tells this host from another of the same name.
    pub id: String,
    /// The machine's id.
    pub machine: String,
    /// The kernel's boot id.
    pub boot: String,
    /// When it was written: after all other reports that were due then.
    pub updated: Option<Timestamp>,
    /// By then it says more, or is silent.
    pub next_report_by: Option<Timestamp>,
    /// The newest line of its audit.
    pub audit: Head,
}

/// The largest report that is read, in bytes; what Hostler writes is never larger.
pub const MAX_REPORT: usize = 8 << 10;

/// Why a report says nothing.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// A newer program wrote it.
    #[error("the report has format {0}, and this hostler knows {REPORT_VERSION}: use the newer hostler")]
    Newer(u64),
    /// It is larger than any that Hostler writes.
    #[error("the report has more than {MAX_REPORT} bytes: Hostler did not write it")]
    TooLarge,
    /// It is none.
    #[error("the report cannot be read: {}", single_line(&.0.to_string()))]
    None(#[from] serde_json::Error),
}

#[derive(Deserialize)]
struct Any {
    #[serde(default)]
    version: u64,
}

/// Reads a report of this version or an earlier one.
pub fn read<T: DeserializeOwned>(json: &[u8]) -> Result<T, Unreadable> {
    // A value that was dropped while it was read is empty, and nobody writes an empty report.
    if json.is_empty() || json.len() > MAX_REPORT {
        return Err(Unreadable::TooLarge);
    }
    let Any { version } = serde_json::from_slice(json)?;
    if version > u64::from(REPORT_VERSION) {
        return Err(Unreadable::Newer(version));
    }
    Ok(serde_json::from_slice(json)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_of_a_newer_version_says_nothing_but_who_wrote_it() {
        let newer = br#"{"version": 2, "id": "i1", "boot": "b1", "phase": {"new": "words"}, "groups": 7}"#;
        for error in [read::<OrderReport>(newer).unwrap_err(), read::<AgentReport>(newer).unwrap_err()] {
            assert!(error.to_string().contains("format 2, and this hostler knows 1"), "{error}");
        }
        let author: Author = serde_json::from_slice(newer).unwrap();
        assert_eq!((author.id.as_str(), author.boot.as_str()), ("i1", "b1"));
        // What an earlier program did not say, and what a later one says besides, in the same version.
        let report: OrderReport = read(br#"{"version": 1, "phase": "held", "more": [1]}"#).unwrap();
        assert_eq!((report.phase.as_str(), report.run), ("held", None));
        assert!(matches!(read::<RunReport>(b"no"), Err(Unreadable::None(_))));
        let large = format!("{{\"version\": 1, \"tail\": \"{}\"}}", "x".repeat(MAX_REPORT));
        for large in [large.as_bytes(), b""] {
            assert!(matches!(read::<RunReport>(large), Err(Unreadable::TooLarge)));
        }
        assert!(read::<RunReport>(br#"{"version": 1, "phase": 3}"#).is_err());
    }
}
