//! The journal of a run: what happened, each record on the disk before the next thing happens.

use std::path::Path;

use jiff::Timestamp;

use crate::domain::plan::Plan;
use crate::domain::run::{Event, Illegal, Record, State, apply, replay};
use crate::domain::yaml::single_line;
use crate::host::log::{self, Log, LogError};

/// Why a journal cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A line that is not a record; a newer format, perhaps.
    #[error("the journal holds a record that this version cannot read: {}", single_line(&.0.to_string()))]
    Unreadable(#[from] serde_json::Error),
    /// Records that do not follow from one another.
    #[error("the journal is not one of this run: {0}")]
    Illegal(#[from] Illegal),
}

/// A journal that is open for writing; only the holder of the newest claim has one.
#[derive(Debug)]
pub struct Journal<'a> {
    plan: &'a Plan,
    log: Log,
    state: State,
}

impl<'a> Journal<'a> {
    /// Opens the journal at `path` and replays it.
    pub fn open(path: &Path, plan: &'a Plan) -> Result<Self, JournalError> {
        let (log, lines) = Log::open(path)?;
        Ok(Self { plan, log, state: state_of(plan, &lines)? })
    }

    /// Where the run stands.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Records events that happened together: legal ones only, and on the disk when this returns.
    pub fn record(&mut self, at: Timestamp, events: Vec<Event>) -> Result<(), JournalError> {
        let records: Vec<Record> = events.into_iter().map(|event| Record { at, event }).collect();
        let mut state = self.state.clone();
        for record in &records {
            apply(self.plan, &mut state, record)?;
        }
        self.log.append(&serde_json::to_string(&records)?)?;
        self.state = state;
        Ok(())
    }
}

/// Where a run stands, read from its journal without opening it for writing.
pub fn read(path: &Path, plan: &Plan) -> Result<State, JournalError> {
    state_of(plan, &log::read(path)?)
}

fn state_of(plan: &Plan, lines: &[String]) -> Result<State, JournalError> {
    let mut records: Vec<Record> = Vec::new();
    for line in lines {
        records.append(&mut serde_json::from_str(line)?);
    }
    Ok(replay(plan, &records)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_about_a_hostile_record_is_one_short_line() {
        let name = "x\\n".repeat(9000);
        let text = format!("[{{\"at\":\"2026-01-01T00:00:00Z\",\"event\":\"{name}\"}}]");
        let unknown = serde_json::from_str::<Vec<Record>>(&text).unwrap_err();
        let boot = name.replace('\\', " ");
        let event = Box::new(Event::Begun { epoch: 2, boot });
        let illegal = Illegal { phase: Box::new(State::new(0).phase), event };
        for error in [JournalError::from(unknown), JournalError::from(illegal)] {
            let error = error.to_string();
            assert!(!error.contains('\n') && error.len() < 2000, "{error}");
        }
    }
}
