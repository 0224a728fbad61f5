//! What is wrong with a host: a line for the operator, and a kind for whoever counts.

/// What a condition is about. The kinds are few and fixed, so that they can be a label of a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The host may not be who it seems to be.
    Identity,
    /// A prefix of the store may not be read, or nobody enrolled the host.
    NotVisible,
    /// The store gives no answer that counts.
    Store,
    /// The ledger, or the plan of a run under way, cannot be read.
    SafeMode,
    /// The audit cannot be kept.
    Audit,
    /// The disk is full, or the reserve is not there.
    Disk,
    /// The ledger cannot be written.
    Ledger,
    /// Downtime is not counted.
    Downtime,
    /// A state that a step left could not be ended by its guard.
    Guard,
    /// An installed task is broken.
    Task,
    /// An order has not succeeded for longer than its `expect_every` says.
    Order,
    /// A probe cannot tell whether an order's state holds.
    Probe,
    /// A fact cannot be had, or has no room in the report.
    Fact,
    /// No secrets are to be had.
    Vault,
    /// The configuration on the disk is not the one in force.
    Settings,
    /// Measurements are asked for, and nobody can ask.
    Telemetry,
    /// Something in the place of an order, control or freeze that is none, and has no effect.
    Ignored,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::Identity,
        Self::NotVisible,
        Self::Store,
        Self::SafeMode,
        Self::Audit,
        Self::Disk,
        Self::Ledger,
        Self::Downtime,
        Self::Guard,
        Self::Task,
        Self::Order,
        Self::Probe,
        Self::Fact,
        Self::Vault,
        Self::Settings,
        Self::Telemetry,
        Self::Ignored,
    ];

    /// As a label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::NotVisible => "not_visible",
            Self::Store => "store",
            Self::SafeMode => "safe_mode",
            Self::Audit => "audit",
            Self::Disk => "disk",
            Self::Ledger => "ledger",
            Self::Downtime => "downtime",
            Self::Guard => "guard",
            Self::Task => "task",
            Self::Order => "order",
            Self::Probe => "probe",
            Self::Fact => "fact",
            Self::Vault => "vault",
            Self::Settings => "settings",
            Self::Telemetry => "telemetry",
            Self::Ignored => "ignored",
        }
    }
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// What it is about.
    pub kind: Kind,
    /// One line for the operator.
    pub text: String,
}

impl Condition {
    /// A condition.
    pub fn new(kind: Kind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }
}
