//! What a task says: `task.yml`, as it is written.

use serde::{Deserialize, Serialize};

use super::span::{Bytes, SpanRange};

/// What a step does to the host when it is carried out, and so what may be done after it was interrupted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// Never repeated on a guess, nothing to undo.
    #[default]
    Once,
    /// May be carried out again at any time.
    Repeatable,
    /// Never repeated; has an `undo`.
    Undoable,
    /// The point of no return: nothing is undone once it has started.
    Final,
}

/// What a cancel does to a step under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnCancel {
    /// The step goes on to its end, then the run is cancelled.
    Wait,
    /// The step is ended: TERM, grace, KILL.
    #[default]
    Kill,
}

/// What the deadline does to a `final` step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnTimeout {
    /// It is only reported as overdue.
    #[default]
    Report,
    /// It is ended as any other step.
    Kill,
}

/// How a lock on a resource is held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LockMode {
    /// With others that hold it shared.
    Shared,
    /// Alone.
    #[default]
    Exclusive,
}

/// What a run may use of the host; enforced under systemd.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// `MemoryMax=`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Bytes>,
    /// `CPUWeight=`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_weight: Option<u16>,
    /// `IOWeight=`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io_weight: Option<u16>,
    /// `TasksMax=`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tasks: Option<u32>,
}

/// What exit status 75 of a step means: try again later, so often, with growing delays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// How many times at most.
    pub max: u32,
    /// The first and the longest delay.
    pub every: SpanRange,
}
