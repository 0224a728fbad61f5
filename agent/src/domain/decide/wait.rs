//! How an order waits: why, and until when.

use jiff::Timestamp;

/// Why an activation waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// For its time.
    Schedule,
    /// For its place in the spread.
    Spread,
    /// For its window.
    Window,
    /// For a clock that can be trusted.
    Clock,
    /// For the next look whether its state holds.
    Reconcile,
    /// For a new version of a secret.
    Secret,
    /// For a lock.
    Resource,
    /// For the host to be known for who it is.
    Identity,
    /// For the end of a freeze.
    Freeze,
    /// For a gate of its task.
    Gate,
    /// A step said "not now".
    Retry,
    /// For an executor that was lost: its processes, or the next attempt.
    Lost,
    /// For the store.
    Store,
    /// For Vault.
    Vault,
    /// For another version of Hostler: the one before could not carry it out, or only a newer one can.
    RollbackWindow,
    /// For a run of an older identity.
    PreviousRun,
    /// For a place among the runs at once.
    Parallel,
    /// Being examined or started.
    Starting,
}

impl Reason {
    /// All of them, in the order of their declaration.
    pub const ALL: [Self; 18] = [
        Self::Schedule,
        Self::Spread,
        Self::Window,
        Self::Clock,
        Self::Reconcile,
        Self::Secret,
        Self::Resource,
        Self::Identity,
        Self::Freeze,
        Self::Gate,
        Self::Retry,
        Self::Lost,
        Self::Store,
        Self::Vault,
        Self::RollbackWindow,
        Self::PreviousRun,
        Self::Parallel,
        Self::Starting,
    ];

    /// As it stands in a report.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Schedule => "schedule",
            Self::Spread => "spread",
            Self::Window => "window",
            Self::Clock => "clock",
            Self::Reconcile => "reconcile",
            Self::Secret => "secret",
            Self::Resource => "resource",
            Self::Vault => "vault",
            Self::Identity => "identity",
            Self::Freeze => "freeze",
            Self::Gate => "gate",
            Self::Retry => "retry",
            Self::Lost => "lost",
            Self::Store => "store",
            Self::RollbackWindow => "rollback_window",
            Self::PreviousRun => "previous_run",
            Self::Parallel => "parallel",
            Self::Starting => "starting",
        }
    }
}

/// How an order waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Why.
    pub reason: Reason,
    /// Until when, if that is known.
    pub until: Option<Timestamp>,
    /// More, for the operator.
    pub detail: Option<String>,
}

impl Wait {
    pub(super) fn new(reason: Reason, until: Option<Timestamp>) -> Self {
        Self { reason, until, detail: None }
    }
}
