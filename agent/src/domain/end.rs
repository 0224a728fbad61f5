//! How activations and their runs end, as the ledger and the reports have it.

use serde::{Deserialize, Serialize};

use super::run::Outcome;

/// How an activation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// The task or the parameters are wrong here.
    Refused,
    /// Not started in time.
    Expired,
    /// A newer order took its place.
    Superseded,
    /// The order went away, or the schedule that it waited for.
    Withdrawn,
    /// The order says `skip`.
    Skipped,
    /// The wanted state already held.
    Unchanged,
    /// Done.
    Succeeded,
    /// Not done, nothing to undo.
    Failed,
    /// Not done, and undone.
    Undone,
    /// Not done, and not undone.
    UndoFailed,
    /// Ended by an operator.
    Cancelled,
    /// Only a person can tell.
    NeedsOperator,
}

impl End {
    /// As it stands in a report.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Expired => "expired",
            Self::Superseded => "superseded",
            Self::Withdrawn => "withdrawn",
            Self::Skipped => "skipped",
            Self::Unchanged => "unchanged",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Undone => "undone",
            Self::UndoFailed => "undo_failed",
            Self::Cancelled => "cancelled",
            Self::NeedsOperator => "needs_operator",
        }
    }

    /// Whether the wanted state holds.
    pub fn is_good(self) -> bool {
        matches!(self, Self::Unchanged | Self::Succeeded | Self::Skipped)
    }

    /// Whether a person has to say what is true before anything else happens to the order.
    pub fn keeps_its_place(self) -> bool {
        matches!(self, Self::NeedsOperator | Self::UndoFailed)
    }
}

/// How the outcome of a run stands in the ledger and in reports, with one line for the operator.
pub fn end_of(outcome: &Outcome) -> (End, Option<String>) {
    match outcome {
        Outcome::Unchanged => (End::Unchanged, None),
        Outcome::Planned | Outcome::Succeeded => (End::Succeeded, None),
        Outcome::Failed(failure) => (End::Failed, Some(failure.text.clone())),
        Outcome::Undone(failure) => (End::Undone, Some(failure.text.clone())),
        Outcome::UndoFailed { failure, undo } => {
            (End::UndoFailed, Some(format!("{}; then {undo}", failure.text)))
        }
        Outcome::Cancelled(failure) => (End::Cancelled, Some(failure.text.clone())),
        Outcome::NeedsOperator(failure) => (End::NeedsOperator, Some(failure.text.clone())),
    }
}
