//! How commands end: one table of exit codes, which docs/exit-codes.md shows, and the errors that carry one.
//!
//! Scripts branch on these numbers, so a number never changes its meaning.

use std::fmt;
use std::io;
use std::process::ExitCode;

use super::Failure;
use crate::app::agent::AgentError;
use crate::config::ConfigError;
use crate::domain::state::End;
use crate::store::StoreError;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    /// All is as it was asked for.
    Success,
    /// The answer to the question is no.
    Negative,
    /// The command line is wrong; clap ends with the same number.
    Usage,
    /// Configuration, files, documents.
    ConfigError,
    /// The store gives no answer, or denies one.
    Store,
    /// There is no such thing.
    NotFound,
    /// Nothing was written, for caution's sake.
    NotConfirmed,
    /// A run that failed.
    Failed,
    /// A run that was undone.
    Undone,
    /// A run that was not undone.
    UndoFailed,
    /// A run that needs a person.
    NeedsOperator,
    /// A cancelled run.
    Cancelled,
    /// A refused order.
    Refused,
    /// A held order.
    Held,
    /// An order that was not carried out.
    NotCarriedOut,
    /// It still goes on.
    Pending,
    /// The host says nothing.
    Silent,
    /// Ctrl-C.
    Interrupted,
    /// Nobody reads what is printed.
    BrokenPipe,
}

impl Exit {
    /// All of them, in the order of their numbers.
    #[cfg(test)]
    const ALL: [Self; 19] = [
        Self::Success,
        Self::Negative,
        Self::Usage,
        Self::ConfigError,
        Self::Store,
        Self::NotFound,
        Self::NotConfirmed,
        Self::Failed,
        Self::Undone,
        Self::UndoFailed,
        Self::NeedsOperator,
        Self::Cancelled,
        Self::Refused,
        Self::Held,
        Self::NotCarriedOut,
        Self::Pending,
        Self::Silent,
        Self::Interrupted,
        Self::BrokenPipe,
    ];

    /// The table: the number, and what it means.
    const fn row(self) -> (u8, &'static str) {
        match self {
            Self::Success => (0, "done; a run: it succeeded, or there was nothing to do"),
            Self::Negative => (
                1,
                "negative result: not all hosts are done, no host matches, a check failed, or a task is invalid",
            ),
            Self::Usage => (2, "the command line is wrong"),
            Self::ConfigError => (3, "invalid configuration, file or document"),
            Self::Store => (4, "the store cannot be reached, has no leader, or denies the request"),
            Self::NotFound => (5, "no such host, group, order, run or task"),
            Self::NotConfirmed => (
                6,
                "nothing was written: not confirmed, something else is there, or it has changed since it was read",
            ),
            Self::Failed => (10, "the run failed; there was nothing to undo"),
            Self::Undone => (11, "the run failed and was undone"),
            Self::UndoFailed => (12, "the run failed, and so did its undo"),
            Self::NeedsOperator => (13, "the outcome is unknown; an operator must resolve it"),
            Self::Cancelled => (14, "the run was cancelled"),
            Self::Refused => (15, "the host refused the order: task or parameters are wrong there"),
            Self::Held => (16, "the order is held until an operator decides"),
            Self::NotCarriedOut => (17, "the order was superseded, expired or withdrawn"),
            Self::Pending => (18, "the order is still pending"),
            Self::Silent => (19, "the host did not report in time; the order stays in place"),
            Self::Interrupted => (130, "Ctrl-C; an order that was placed stays in place"),
            Self::BrokenPipe => (141, "output pipe closed (SIGPIPE)"),
        }
    }

    /// The number.
    pub(super) const fn number(self) -> u8 {
        self.row().0
    }

    /// How a command ends whose order ended so.
    pub(super) fn of_end(end: End) -> Self {
        match end {
            End::Succeeded | End::Unchanged | End::Skipped => Self::Success,
            End::Failed => Self::Failed,
            End::Undone => Self::Undone,
            End::UndoFailed => Self::UndoFailed,
            End::NeedsOperator => Self::NeedsOperator,
            End::Cancelled => Self::Cancelled,
            End::Refused => Self::Refused,
            End::Expired | End::Superseded | End::Withdrawn => Self::NotCarriedOut,
        }
    }

    /// How a command ends that failed with this error.
    pub(super) fn of_failure(failure: &Failure) -> Self {
        if let Some(fault) = failure.downcast_ref::<Fault>() {
            fault.exit
        } else if failure.is::<StoreError>() {
            Self::Store
        } else if failure.is::<ConfigError>() || failure.is::<AgentError>() {
            Self::ConfigError
        } else if failure.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe) {
            Self::BrokenPipe
        } else {
            Self::ConfigError
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.number())
    }
}

/// An error that knows how the command ends; its message is one line with what to do next.
#[derive(Debug)]
pub(super) struct Fault {
    exit: Exit,
    message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

/// Ends a command so, with a message.
pub(super) fn fault(exit: Exit, message: impl Into<String>) -> Failure {
    Box::new(Fault { exit, message: message.into() })
}

/// As a phase stands in a report: `None` for one that is not the end.
pub(super) fn end_of_phase(phase: &str) -> Option<End> {
    serde_json::from_value(phase.into()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_table_is_this_one() {
        let page = include_str!("../../../docs/exit-codes.md");
        let documented: Vec<&str> = page.lines().filter(|line| line.starts_with("| ")).skip(2).collect();
        let rows: Vec<String> =
            Exit::ALL.iter().map(|exit| exit.row()).map(|(n, m)| format!("| {n} | {m} |")).collect();
        assert_eq!(documented, rows);
        let mut numbers: Vec<u8> = Exit::ALL.iter().map(|exit| exit.number()).collect();
        assert!(numbers.is_sorted());
        numbers.dedup();
        assert_eq!(numbers.len(), Exit::ALL.len());
    }

    #[test]
    fn an_end_gives_success_only_when_it_is_good() {
        for phase in [
            "refused",
            "expired",
            "superseded",
            "withdrawn",
            "skipped",
            "unchanged",
            "succeeded",
            "failed",
            "undone",
            "undo_failed",
            "cancelled",
            "needs_operator",
        ] {
            let end = end_of_phase(phase).unwrap_or_else(|| panic!("{phase} is an end"));
            assert_eq!(Exit::of_end(end) == Exit::Success, end.is_good(), "{phase}");
        }
        for phase in ["running", "waiting", "held", "", "Succeeded", "paused"] {
            assert_eq!(end_of_phase(phase), None, "{phase}");
        }
    }

    #[test]
    fn errors_find_their_number() {
        let store = StoreError::NoLeader { place: "x".into() };
        assert_eq!(Exit::of_failure(&store.into()), Exit::Store);
        assert_eq!(Exit::of_failure(&fault(Exit::NotFound, "x")), Exit::NotFound);
        assert_eq!(Exit::of_failure(&io::Error::from(io::ErrorKind::BrokenPipe).into()), Exit::BrokenPipe);
        assert_eq!(Exit::of_failure(&"x".into()), Exit::ConfigError);
    }
}
