//! What is worth knowing of a run in a few lines: for reports, and for the ledger when the run is over.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::downtime::{Downtime, added_up};
use super::plan::Plan;
use super::run::{Operation, Outcome, Phase, State, Suspension};
use super::text;

/// The outputs of all steps together, in bytes of names and values.
pub const MAX_OUTPUTS: usize = 2 << 10;
/// How many processes that were left behind are named.
pub const LEFT_BEHIND: usize = 20;
/// The longest name of such a process, in bytes.
pub const LEFT_BEHIND_EACH: usize = 100;
/// How many warnings there are.
pub const WARNINGS: usize = 5;
/// The longest warning, in bytes.
pub const WARNINGS_EACH: usize = 300;

/// How many services with downtime are named.
pub const DOWNTIMES: usize = 16;

/// Which step of how many.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StepSummary {
    /// Counted from 1.
    pub index: usize,
    /// How many there are.
    pub count: usize,
    /// Its name.
    pub name: String,
}

/// A run in a few lines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// The newest epoch.
    pub epoch: u32,
    /// `name@version`
    pub task: String,
    /// `sha256:…`
    pub task_digest: String,
    /// The step that it is at or came to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<StepSummary>,
    /// The last thing that a step said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Timestamp>,
    /// The status of the newest command but the first probe and undos, if it ended by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// What the steps wanted to be known.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub outputs: BTreeMap<String, String>,
    /// The end of what it printed; only for those that did not succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tail: Option<String>,
    /// Processes that were left running without leave, and ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub killed_processes: Vec<String>,
    /// What its commands said and nobody understood, or was too much.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// How long services could not be used, a sum for each; the [`DOWNTIMES`] that lost the most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub downtime: Vec<Downtime>,
}

impl Summary {
    /// The summary of a run that stands where its journal says.
    pub fn of(plan: &Plan, state: &State) -> Self {
        let planned = matches!(state.phase, Phase::Ended(Outcome::Planned)).then(|| {
            let names: Vec<&str> = plan.steps.iter().map(|step| step.name.as_str()).collect();
            format!("dry run: would carry out {}", names.join(", "))
        });
        Self {
            epoch: state.epoch,
            task: plan.task.clone(),
            task_digest: plan.task_digest.clone(),
            step: state.step().and_then(|i| {
                let name = plan.steps.get(i)?.name.clone();
                Some(StepSummary { index: i + 1, count: plan.steps.len(), name })
            }),
            message: planned.or_else(|| state.message.clone()),
            started: state.started,
            exit_code: state.exit_code,
            outputs: text::within(&state.outputs, MAX_OUTPUTS),
            tail: None,
            killed_processes: text::few(&state.killed_processes, LEFT_BEHIND, LEFT_BEHIND_EACH),
            warnings: text::few(&state.warnings, WARNINGS, WARNINGS_EACH),
            downtime: downtime(state),
        }
    }
}

/// The sums of what a run cost each service, by name: of more services than have room those that lost the most.
pub fn downtime(state: &State) -> Vec<Downtime> {
    let mut sums = added_up(state.downtime.iter().map(|journaled| &journaled.downtime));
    if sums.len() > DOWNTIMES {
        sums.sort_by_key(|sum| std::cmp::Reverse(sum.seconds));
        sums.truncate(DOWNTIMES);
        sums.sort_by(|a, b| a.service.cmp(&b.service));
    }
    sums
}

/// The phase of a run that is not over, as it stands in a report, with a reason where there is one.
pub fn phase(state: &State, alive: bool) -> (&'static str, Option<&'static str>) {
    match &state.phase {
        Phase::Suspended(Suspension::Retry { .. }) => ("waiting", Some("retry")),
        Phase::Suspended(Suspension::Paused { .. }) => ("paused", None),
        Phase::Suspended(Suspension::Rebooting { .. }) => ("rebooting", None),
        Phase::Suspended(Suspension::Stopped { .. }) => ("interrupted", Some("stopped")),
        Phase::Next(_) | Phase::Running(_) if !alive && state.stopping => ("interrupted", Some("stopped")),
        Phase::Next(_) | Phase::Running(_) if !alive => ("interrupted", None),
        Phase::Next(act) | Phase::Running(act) => match act {
            Operation::Undo(_) if state.cancel.is_some() => ("cancelling", None),
            Operation::Undo(_) => ("undoing", None),
            Operation::Guard(_) if state.cancel.is_some() => ("cancelling", None),
            Operation::Guard(_) if state.failure.is_some() => ("undoing", None),
            Operation::Reprobe | Operation::Verify => ("verifying", None),
            Operation::Probe | Operation::Step(_) | Operation::Done(_) | Operation::Guard(_) => {
                ("running", None)
            }
        },
        Phase::New => ("waiting", Some("starting")),
        Phase::Ended(_) => ("running", None),
    }
}
