//! What is remembered of one key: the identities it had, its newest activation, and what keeps it back.
//!
//! A key has at most two activations: the newest, and an older one whose run still has its place. All between them were
//! superseded while they waited, so that a key that is written a thousand times costs no more than one.

use std::collections::VecDeque;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{End, Hold, MAX_IDENTITIES};
use crate::domain::ids::{InstructionHash, RunId};
use crate::domain::plan::Trigger;
use crate::domain::recurrence::{RareRecurrence, Recurrence};
use crate::domain::summary::Summary;

/// An order that is held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Why.
    pub why: Hold,
    /// What is held.
    pub identity: InstructionHash,
    /// Under which index it was seen.
    pub index: u64,
    /// Since when.
    pub at: Timestamp,
}

/// A document that is refused: it cannot be read, or the host does not bear its terms.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unreadable {
    /// What is wrong with it, and where.
    pub message: String,
    /// What it says; none where it cannot be read, and in what an earlier program wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<InstructionHash>,
    /// Under which index it was seen.
    pub index: u64,
    /// Since when.
    pub at: Timestamp,
}

/// How an activation ended, in a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closing {
    /// How.
    pub end: End,
    /// Why, for the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// When.
    pub at: Timestamp,
    /// What its run did, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<Box<Summary>>,
}

/// How far an activation has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// It waits.
    Open,
    /// Its run's folder is made; an executor may have it.
    Prepared,
    /// It is over.
    Closed(Closing),
}

/// What an operator requests of a run; the agent sends it to the run's executor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "lowercase")]
pub enum RunRequest {
    /// To end.
    Cancel {
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// To undo its steps, after it ended as `needs_operator`.
    Undo {
        /// Who.
        by: String,
        /// Why.
        reason: String,
        /// How often an operator requested something of the ended run before.
        before: u32,
    },
    /// To go on behind the step of which only a person can tell, which is done.
    #[serde(rename = "step_done")]
    StepDone {
        /// Who.
        by: String,
        /// Why.
        reason: String,
        /// How often an operator requested something of the ended run before.
        before: u32,
    },
}

impl RunRequest {
    /// For a run that has ended: how often an operator requested something of it before. `None`: it is for one that runs.
    pub fn before(&self) -> Option<u32> {
        match self {
            Self::Cancel { .. } => None,
            Self::Undo { before, .. } | Self::StepDone { before, .. } => Some(*before),
        }
    }
}

impl fmt::Display for RunRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cancel { by, reason } => write!(f, "cancel, by {by}: {reason}"),
            Self::Undo { by, reason, .. } => write!(f, "undo, by {by}: {reason}"),
            Self::StepDone { by, reason, .. } => write!(f, "go on, the step is done, by {by}: {reason}"),
        }
    }
}

/// One activation: it starts at most one run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activation {
    /// The id of its run, given before there is one.
    pub run: RunId,
    /// Of the order.
    pub identity: InstructionHash,
    /// Why.
    pub trigger: Trigger,
    /// When it was seen.
    pub at: Timestamp,
    /// How far it has come.
    pub stage: Stage,
    /// What an operator requests of its run; `None`: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Box<RunRequest>>,
}

/// What is remembered of one key. What few keys have is boxed: a host may have a thousand of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderState {
    /// The identity that it had last.
    pub last: Option<InstructionHash>,
    /// The index that goes with it.
    pub index: u64,
    /// The identities before, oldest first.
    pub older: VecDeque<InstructionHash>,
    /// Not carried out until an operator says more.
    pub held: Option<Box<Held>>,
    /// The present document is refused.
    pub unreadable: Option<Box<Unreadable>>,
    /// The newest activation.
    pub current: Option<Activation>,
    /// An older one that still has a run; the newest waits for it.
    pub previous: Option<Box<Activation>>,
    /// When the key was seen to be gone.
    pub gone: Option<Timestamp>,
    /// Whether and how it comes again.
    #[serde(default, skip_serializing_if = "Recurrence::is_blank")]
    pub recurrence: RareRecurrence,
}

impl Activation {
    /// Whether it has a run that newer activations have to wait for.
    pub fn has_run(&self) -> bool {
        match &self.stage {
            Stage::Open => false,
            Stage::Prepared => true,
            Stage::Closed(closing) => closing.end.keeps_its_place(),
        }
    }
}

impl OrderState {
    /// Whether the key had this identity before, but not last.
    pub fn had(&self, identity: InstructionHash) -> bool {
        self.older.contains(&identity)
    }

    /// The instruction that the key holds, where nothing has come of it yet: neither an activation nor its end.
    pub fn unanswered(&self) -> Option<InstructionHash> {
        let answered = |identity: &InstructionHash| {
            self.current.as_ref().is_some_and(|activation| activation.identity == *identity)
        };
        self.last.filter(|last| !answered(last))
    }

    /// A run of an earlier instruction that only a person can settle, behind what the key holds now.
    pub fn unsettled(&self) -> Option<&Activation> {
        self.earlier().find(|activation| activation.has_run() && activation.stage != Stage::Prepared)
    }

    /// The activations that are not of what the key holds now.
    pub fn earlier(&self) -> impl Iterator<Item = &Activation> {
        let hidden = self.held.is_some() || self.unreadable.is_some() || self.unanswered().is_some();
        self.current.iter().filter(move |_| hidden).chain(self.previous.as_deref())
    }

    /// Whether an activation waits or has a run: another one of the same order has no place beside it.
    pub fn is_under_way(&self) -> bool {
        let waits = |activation: &Activation| activation.stage == Stage::Open || activation.has_run();
        self.previous.is_some() || self.current.as_ref().is_some_and(waits)
    }

    /// The key holds this instruction from now on.
    pub(super) fn stands(&mut self, identity: InstructionHash, index: u64) {
        if let Some(last) = self.last.replace(identity).filter(|last| *last != identity) {
            self.older.retain(|older| *older != identity);
            self.older.push_back(last);
            while self.older.len() > MAX_IDENTITIES {
                self.older.pop_front();
            }
        }
        self.index = index;
        self.held = None;
        self.unreadable = None;
    }

    /// The activations whose run has a folder that an executor may have.
    pub fn prepared(&self) -> impl Iterator<Item = &Activation> {
        let all = self.current.iter().chain(self.previous.as_deref());
        all.filter(|activation| activation.stage == Stage::Prepared)
    }
}
