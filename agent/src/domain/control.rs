//! A control: one act of an operator on one order of one host.
//!
//! It names what it is about, a run or the identity that is held, so that one that comes late, or twice, or after
//! things have changed, does nothing but be answered "stale". It is done at most once: its id goes to the ledger
//! with its effect.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::ids::{InstructionHash, RunId};
use super::yaml::{self, PathSegment, YamlError};

/// The id of a control: a ULID like a run's, so that controls sort by the time of their making.
pub type ControlId = RunId;

/// The largest control, in bytes.
pub const MAX_CONTROL: usize = 4 << 10;

/// An older one is ignored: what it was about is long forgotten.
pub const MAX_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// How an operator settles what only a person can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Settled {
    /// What the order wants is true on the host.
    Done,
    /// It is not.
    Failed,
    /// The step that was interrupted is done: the run goes on with the next one.
    StepDone,
}

/// What shall be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ControlAction {
    /// End the run, undone first; or do not start it.
    Cancel,
    /// Carry out what is held.
    Release,
    /// Carry the same instruction out once more.
    Retry,
    /// Take an operator's word for how a run ended that only a person can tell.
    Acknowledge,
    /// Take back what can be taken back of such a run.
    Undo,
    /// Accept what is held as what stands, without carrying it out.
    Accept,
}

impl ControlAction {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Cancel, Self::Release, Self::Retry, Self::Acknowledge, Self::Undo, Self::Accept];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cancel => "cancel",
            Self::Release => "release",
            Self::Retry => "retry",
            Self::Acknowledge => "acknowledge",
            Self::Undo => "undo",
            Self::Accept => "accept",
        }
    }
}

/// What a control is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Target {
    /// A run.
    Run(RunId),
    /// An instruction that is held, or that waits.
    Identity(InstructionHash),
}

impl From<Target> for String {
    fn from(target: Target) -> Self {
        target.to_string()
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Run(run) => run.fmt(f),
            Self::Identity(identity) => identity.fmt(f),
        }
    }
}

impl TryFrom<String> for Target {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let run = || text.parse().map(Target::Run).ok();
        let identity = || text.parse().map(Target::Identity).ok();
        run().or_else(identity).ok_or_else(|| {
            format!("{text:?} names neither a run (26 letters and digits) nor an identity (v1:…)")
        })
    }
}

/// A control, read and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// What shall be done.
    pub action: ControlAction,
    /// What it is about.
    pub target: Target,
    /// How it is settled; with `acknowledge` alone.
    pub settled: Option<Settled>,
    /// Who wants it.
    pub by: String,
    /// Why.
    pub reason: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a control, a map of fields such as `action: cancel`")]
struct File {
    action: ControlAction,
    target: Target,
    #[serde(default, rename = "as", skip_serializing_if = "Option::is_none")]
    settled: Option<Settled>,
    by: Option<String>,
    at: Option<Timestamp>,
    reason: Option<String>,
}

impl Control {
    /// Reads a control, YAML or JSON.
    pub fn read(text: &[u8]) -> Result<Self, YamlError> {
        let file: File = yaml::parse(text, MAX_CONTROL)?;
        let fault = |message: &str| {
            let whole = std::str::from_utf8(text).unwrap_or_default();
            yaml::error_at(whole, &[PathSegment::from("as")], message)
        };
        match (file.action, file.settled) {
            (ControlAction::Acknowledge, None) => {
                return Err(fault("`as` is missing: write `as: done`, `as: failed` or `as: step_done`"));
            }
            (ControlAction::Acknowledge, Some(_)) | (_, None) => {}
            (_, Some(_)) => return Err(fault("`as` goes with `acknowledge` alone: leave it out")),
        }
        let said = |text: Option<String>| {
            text.filter(|text| !text.trim().is_empty())
                .map_or_else(|| "not said".to_owned(), |text| yaml::single_line(&text))
        };
        let (by, reason) = (said(file.by), said(file.reason));
        Ok(Self { action: file.action, target: file.target, settled: file.settled, by, reason })
    }

    /// The document of a control.
    pub fn write(&self, at: Timestamp) -> Result<Value, serde_json::Error> {
        serde_json::to_value(File {
            action: self.action,
            target: self.target,
            settled: self.settled,
            by: Some(self.by.clone()),
            at: Some(at),
            reason: Some(self.reason.clone()),
        })
    }
}

/// Whether a control made at `id`'s time is too old to be done.
pub fn is_old(id: ControlId, now: Timestamp) -> bool {
    let made =
        Timestamp::from_millisecond(i64::try_from(id.millis()).unwrap_or(i64::MAX)).unwrap_or(Timestamp::MAX);
    made.checked_add(MAX_AGE).is_ok_and(|end| end < now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_is_read_as_it_is_written() {
        let run = RunId::new(5, 7);
        for action in ControlAction::ALL {
            let settled = (action == ControlAction::Acknowledge).then_some(Settled::Done);
            let target = Target::Run(run);
            let control = Control { action, target, settled, by: "alice".into(), reason: "CHG1".into() };
            let text = control.write(Timestamp::UNIX_EPOCH).unwrap().to_string();
            assert_eq!(Control::read(text.as_bytes()).unwrap(), control, "{text}");
        }
        let identity = InstructionHash::new([3; 32]);
        let text = format!("action: release\ntarget: {identity}");
        let read = Control::read(text.as_bytes()).unwrap();
        assert_eq!((read.target, read.by.as_str()), (Target::Identity(identity), "not said"));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let run = RunId::new(5, 7);
        for (text, told) in [
            (format!("action: kill\ntarget: {run}"), "kill"),
            ("action: cancel\ntarget: db1".to_owned(), "names neither a run"),
            (format!("action: acknowledge\ntarget: {run}"), "as: done"),
            (format!("action: cancel\ntarget: {run}\nas: done"), "alone"),
            (format!("action: cancel\ntarget: {run}\nforce: true"), "force"),
        ] {
            let error = Control::read(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
    }

    #[test]
    fn a_week_makes_a_control_old() {
        let id = RunId::new(1_000_000, 0);
        let at = |seconds: i64| Timestamp::from_second(1000 + seconds).unwrap();
        assert!(!is_old(id, at(0)) && !is_old(id, at(7 * 86_400)) && is_old(id, at(7 * 86_400 + 1)));
    }
}
