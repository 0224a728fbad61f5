//! Where a run stands.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::event::{ExitKind, Operation};
use crate::domain::downtime::{Downtime, Journaled};
use crate::domain::plan::Plan;

/// The most downtimes that count of one run: far more than commands of honest runs report.
const MAX_DOWNTIMES: usize = 1_000;

/// One arming of a guard: since when, and in which epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arming {
    /// The epoch whose executor armed it.
    pub epoch: u32,
    /// On the clock that counts from the boot.
    pub since: Duration,
}

/// What has become of the guard of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GuardStatus {
    /// Never armed, or the step has none.
    #[default]
    Off,
    /// Armed, and not known to have fired.
    Armed(Arming),
    /// Fired with success.
    Fired,
    /// The state was ended by the step that had to.
    Disarmed,
    /// Fired, and could not be brought to success.
    Failed(Arming),
}

/// What has become of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepStatus {
    /// Never intended.
    Untouched,
    /// Intended, and not known to be done.
    Started,
    /// Done.
    Done,
    /// Taken back.
    Undone,
}

/// What is known of the commands of a step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepRecord {
    /// When it was intended first; `None` if never.
    pub started: Option<Timestamp>,
    /// Executing time of all its attempts.
    pub spent: Duration,
    /// How its newest attempt ended; `None` while it executes, and when that is not known.
    pub exit: Option<ExitKind>,
}

/// Why a run rests without an executor, and goes on in its next epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Suspension {
    /// The first step said "not now": everything is asked again.
    Retry {
        /// Not before.
        until: Timestamp,
    },
    /// A later step said "not now": locks are kept.
    Paused {
        /// Which.
        step: usize,
        /// Not before.
        until: Timestamp,
    },
    /// A step wants the host rebooted.
    Rebooting {
        /// Which.
        step: usize,
        /// The boot that has to end.
        boot: String,
        /// Since when.
        since: Timestamp,
    },
    /// The host was stopped in the middle of a command.
    Stopped {
        /// Which.
        act: Operation,
    },
}

/// The kinds of failure, as they stand in a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// A step.
    Step,
    /// The run's or a step's time was up.
    Timeout,
    /// The run's memory was used up.
    Oom,
    /// The verification, or the probe after the last step.
    Verify,
    /// The probe before the first step could not tell.
    Probe,
    /// The host was not rebooted.
    NoReboot,
    /// A guard fired before its step had ended, or could not be brought to success.
    Guard,
    /// Not a failure: somebody wanted the run to end.
    Cancel,
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Step => "step",
            Self::Timeout => "timeout",
            Self::Oom => "oom",
            Self::Verify => "verify",
            Self::Probe => "probe",
            Self::NoReboot => "no reboot",
            Self::Guard => "guard",
            Self::Cancel => "cancel",
        })
    }
}

/// Why a run did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Its kind.
    pub kind: FailureKind,
    /// One line for the operator.
    pub text: String,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The probe says that the wanted state already holds.
    Unchanged,
    /// A dry run: the probe says what would be done.
    Planned,
    /// All steps are done and verified.
    Succeeded,
    /// It failed; there was nothing to undo.
    Failed(Failure),
    /// It failed and was undone.
    Undone(Failure),
    /// It failed, and so did an undo.
    UndoFailed {
        /// The first failure.
        failure: Failure,
        /// What the undo said.
        undo: String,
    },
    /// It was cancelled, and undone before.
    Cancelled(Failure),
    /// Only a person can tell what is true.
    NeedsOperator(Failure),
}

/// Where a run stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// No executor has taken it up yet.
    New,
    /// This command is next.
    Next(Operation),
    /// This command is intended; whether it was started, and how it ended, is not known.
    Running(Operation),
    /// Goes on in the next epoch.
    Suspended(Suspension),
    /// Over.
    Ended(Outcome),
}

/// Everything that a journal says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Where it stands.
    pub phase: Phase,
    /// The newest epoch; 0 before the first.
    pub epoch: u32,
    /// The boot id of that epoch.
    pub boot: String,
    /// The newest epoch whose executor did anything but begin; 0 before the first.
    pub acted: u32,
    /// What has become of each step.
    pub marks: Vec<StepStatus>,
    /// Times and exit of each step.
    pub records: Vec<StepRecord>,
    /// What has become of the guard of each step.
    pub guards: Vec<GuardStatus>,
    /// Where the run goes on when the guards have fired that it has to fire first.
    pub after_guards: Option<Box<Phase>>,
    /// The first guard that could not be brought to success, while others are still to be fired.
    pub guard_failure: Option<Failure>,
    /// Once true, nothing is undone.
    pub final_started: bool,
    /// Why it is being undone.
    pub failure: Option<Failure>,
    /// Somebody wants it to end.
    pub cancel: Option<Failure>,
    /// How many times an operator wanted something of it after it had ended: taken back, or gone on with.
    pub undos: u32,
    /// How many times a step said "not now".
    pub retries: u32,
    /// How many times a step wanted a reboot.
    pub reboots: u32,
    /// Executing time, undos not counted.
    pub spent: Duration,
    /// How many times in a row an executor was lost in the middle of a command.
    pub interruptions: u32,
    /// The host is stopping, or stopped the newest epoch.
    pub stopping: bool,
    /// What the steps want the report to hold.
    pub outputs: BTreeMap<String, String>,
    /// The last message of a step.
    pub message: Option<String>,
    /// The status of the newest command but the probe before the first step and undos; `None` while it executes, and
    /// when it did not end by itself.
    pub exit_code: Option<i32>,
    /// Processes that were left running without leave, and ended.
    pub killed_processes: Vec<String>,
    /// What commands said and nobody understood, or was too much.
    pub warnings: Vec<String>,
    /// What commands said of downtime, in the order of the journal; at most a thousand.
    pub downtime: Vec<Journaled>,
    /// When the first epoch began.
    pub started: Option<Timestamp>,
    /// When the newest record was written.
    pub updated: Option<Timestamp>,
}

impl Outcome {
    /// Why it did not succeed.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Failed(failure)
            | Self::Undone(failure)
            | Self::UndoFailed { failure, .. }
            | Self::Cancelled(failure)
            | Self::NeedsOperator(failure) => Some(failure),
            Self::Unchanged | Self::Planned | Self::Succeeded => None,
        }
    }

    /// The failure of a run that keeps its place until a person has settled it.
    pub fn unsettled(&self) -> Option<&Failure> {
        match self {
            Self::NeedsOperator(failure) | Self::UndoFailed { failure, .. } => Some(failure),
            _ => None,
        }
    }
}

impl State {
    /// A run of so many steps that nobody has taken up.
    pub fn new(steps: usize) -> Self {
        Self {
            phase: Phase::New,
            epoch: 0,
            acted: 0,
            boot: String::new(),
            marks: vec![StepStatus::Untouched; steps],
            records: vec![StepRecord::default(); steps],
            guards: vec![GuardStatus::Off; steps],
            after_guards: None,
            guard_failure: None,
            final_started: false,
            failure: None,
            cancel: None,
            undos: 0,
            retries: 0,
            reboots: 0,
            spent: Duration::ZERO,
            interruptions: 0,
            stopping: false,
            outputs: BTreeMap::new(),
            message: None,
            exit_code: None,
            killed_processes: Vec::new(),
            warnings: Vec::new(),
            downtime: Vec::new(),
            started: None,
            updated: None,
        }
    }

    /// Takes downtimes in that the newest epoch recorded.
    pub(super) fn take_downtime(&mut self, downtimes: &[Downtime], at: Timestamp) {
        for downtime in downtimes {
            if self.downtime.len() >= MAX_DOWNTIMES {
                let said =
                    format!("more than {MAX_DOWNTIMES} downtimes were reported: the others do not count");
                if self.warnings.last() != Some(&said) {
                    self.warnings.push(said);
                }
                return;
            }
            let before =
                self.downtime.last().filter(|last| last.epoch == self.epoch).map_or(0, |last| last.number);
            let number = before.saturating_add(1);
            let downtime = downtime.clone();
            self.downtime.push(Journaled { epoch: self.epoch, number, at, downtime });
        }
    }

    /// The step that the run is at, for a report.
    pub fn step(&self) -> Option<usize> {
        match &self.phase {
            Phase::Next(act) | Phase::Running(act) | Phase::Suspended(Suspension::Stopped { act }) => {
                match act {
                    Operation::Step(i) | Operation::Done(i) | Operation::Undo(i) | Operation::Guard(i) => {
                        Some(*i)
                    }
                    Operation::Probe | Operation::Reprobe | Operation::Verify => None,
                }
            }
            Phase::Suspended(Suspension::Paused { step, .. } | Suspension::Rebooting { step, .. }) => {
                Some(*step)
            }
            Phase::Suspended(Suspension::Retry { .. }) => Some(0),
            Phase::New | Phase::Ended(_) => {
                self.marks.iter().rposition(|mark| *mark != StepStatus::Untouched)
            }
        }
    }

    /// Whether a cancel has been taken in, or comes too late to matter.
    pub fn cancel_is_known(&self) -> bool {
        self.cancel.is_some() || self.final_started || self.failure.is_some()
    }

    /// The step of which only a person can tell whether it is done, if the run goes on behind it once one has. Not where
    /// the run was on its way back, or its checks could not tell.
    pub fn untold_step(&self) -> Option<usize> {
        let untold = matches!(self.phase, Phase::Ended(Outcome::NeedsOperator(_)));
        let on_the_way_back = self.failure.is_some() || self.cancel.is_some();
        let step = self.step().filter(|_| untold && !on_the_way_back)?;
        (self.marks.get(step) == Some(&StepStatus::Started)).then_some(step)
    }

    /// How it ended, if it has.
    pub fn outcome(&self) -> Option<&Outcome> {
        match &self.phase {
            Phase::Ended(outcome) => Some(outcome),
            _ => None,
        }
    }
}

/// What a record is applied beside: the run's plan, and the record's time.
pub(super) struct Run<'a> {
    pub(super) plan: &'a Plan,
    pub(super) at: Timestamp,
}
