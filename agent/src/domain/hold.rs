//! The reasons to hold an order back.

use serde::{Deserialize, Serialize};

/// Why an order is not carried out until an operator says more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hold {
    /// The key had this identity before.
    Repeated,
    /// Another identity under an index that is not higher.
    IndexRegressed,
    /// Effective only because a nearer order went away.
    Fallback,
    /// It was there before the host remembered anything.
    Preexisting,
    /// The host once reported a run of it that the ledger lacks.
    LedgerBehind,
    /// The state drifts away again and again.
    NotConverging,
}

impl Hold {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Repeated,
        Self::IndexRegressed,
        Self::Fallback,
        Self::Preexisting,
        Self::LedgerBehind,
        Self::NotConverging,
    ];

    /// As it is reported.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Repeated => "repeated",
            Self::IndexRegressed => "index_regressed",
            Self::Fallback => "fallback",
            Self::Preexisting => "preexisting",
            Self::LedgerBehind => "ledger_behind",
            Self::NotConverging => "not_converging",
        }
    }
}
