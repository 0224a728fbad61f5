//! What can happen to a run: the records of its journal.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::domain::downtime::Downtime;

/// One command of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    /// The probe before the first step.
    Probe,
    /// Step `i`, counted from 0.
    Step(usize),
    /// The question whether step `i`, which was interrupted, is done.
    Done(usize),
    /// The undo of step `i`.
    Undo(usize),
    /// The guard of step `i`, which is to end the state that the step began.
    Guard(usize),
    /// The probe after the last step.
    Reprobe,
    /// The verification.
    Verify,
}

impl Operation {
    /// Whether it only reads, so that it may be repeated and ended at any time.
    pub fn reads_only(self) -> bool {
        !matches!(self, Self::Step(_) | Self::Undo(_) | Self::Guard(_))
    }

    /// The step that it belongs to, counted from 0.
    pub fn step(self) -> Option<usize> {
        match self {
            Self::Step(i) | Self::Done(i) | Self::Undo(i) | Self::Guard(i) => Some(i),
            Self::Probe | Self::Reprobe | Self::Verify => None,
        }
    }
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitKind {
    /// By itself, with this status.
    Code(i32),
    /// By a signal that the executor did not send.
    Signal(i32),
    /// Ended by the executor: its time was up.
    TimedOut,
    /// Ended by the kernel: the run's memory was used up.
    Oom,
    /// Ended by the executor: the run was cancelled.
    Cancelled,
    /// Ended by the executor, or ended too late: the guard of this step has fired.
    Guarded(usize),
    /// It could not be started.
    NotStarted(String),
    /// It was started, and how it ended is not known.
    Unknown(String),
    /// It was to be ended, and processes of it could not be: whether it still acts is not known.
    Survived(String),
}

/// What is known of a command that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepResult {
    /// How.
    pub exit: ExitKind,
    /// Executing time in milliseconds.
    pub spent_ms: u64,
    /// What it wants the report to hold.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub outputs: BTreeMap<String, String>,
    /// Its last message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Processes that it left running without leave, which were ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub killed_processes: Vec<String>,
    /// What it said and nobody understood, or was too much: a line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// An executor took the run up.
    Begun {
        /// Counted from 1.
        epoch: u32,
        /// The boot id of the kernel.
        boot: String,
    },
    /// The command is about to be started. On disk before it is.
    Intended {
        /// Which.
        act: Operation,
    },
    /// The command has ended. On disk before anything follows from it.
    Finished {
        /// Which.
        act: Operation,
        /// How.
        #[serde(flatten)]
        ending: StepResult,
    },
    /// The guard of a step is armed. On disk before its watcher runs, and that before the step is intended.
    Armed {
        /// Whose guard.
        step: usize,
        /// When, in milliseconds of the clock that counts from the boot.
        clock_ms: u64,
    },
    /// The `within` of an armed guard was over between two commands, and the guard has fired.
    Lapsed {
        /// Whose guard.
        step: usize,
    },
    /// The host is stopping: a TERM that nobody announced.
    Stopping,
    /// The command was under way when the host stopped; how it ended means nothing.
    Interrupted {
        /// Which.
        act: Operation,
        /// Executing time in milliseconds, up to there.
        #[serde(default)]
        spent_ms: u64,
    },
    /// Somebody wants the run to end.
    CancelAsked {
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// Somebody wants a run taken back that ended so that only a person can tell.
    UndoAsked {
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// Somebody says that the step is done of which only a person can tell: the run goes on with the next one.
    StepAcknowledged {
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// The run's time was up between two commands.
    Expired,
    /// What a command said of downtime, added up for each service: beside its end or interruption, or after `Begun` where
    /// the executor before was lost.
    Downtime {
        /// For each service.
        downtime: Vec<Downtime>,
    },
}

/// One record of the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// When.
    pub at: Timestamp,
    /// What.
    #[serde(flatten)]
    pub event: Event,
}
