//! A freeze: nothing new starts on a host, or on the hosts of a group, until it is over.
//!
//! It stops first starts, and a retry of a first step; never a step in progress, an undo, a verification or a
//! resume. One that cannot be read freezes too: whoever wrote it wanted things to stand still.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::instant;
use super::name::Name;
use super::source::Source;
use super::yaml::{self, YamlError, single_line};

/// The largest freeze, in bytes.
pub const MAX_FREEZE: usize = 16 << 10;

/// The document at `hosts/<host>/freeze` or `groups/<group>/freeze`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a freeze, a map of fields such as `reason: year end`")]
pub struct Freeze {
    /// Over at this time; never by itself, if it does not say.
    #[serde(default, deserialize_with = "instant::optional", skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who wants it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Tasks that start all the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<Name>,
}

/// What keeps a task from starting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frozen {
    /// Until then, if it is known.
    pub until: Option<Timestamp>,
    /// One line for the operator.
    pub why: String,
}

impl Freeze {
    /// Reads a freeze, YAML or JSON.
    pub fn read(text: &[u8]) -> Result<Self, YamlError> {
        yaml::parse(text, MAX_FREEZE)
    }

    /// Whether its time has passed.
    pub fn is_over(&self, now: Timestamp) -> bool {
        self.until.is_some_and(|until| until <= now)
    }
}

/// The freeze of `source`, if it keeps `task` from starting at `now`.
pub fn stops(
    source: &Source,
    freeze: &Result<Freeze, String>,
    task: &Name,
    now: Timestamp,
) -> Option<Frozen> {
    match freeze {
        Err(error) => {
            let why = format!("the freeze of {source} cannot be read, so it stops every task: {error}");
            Some(Frozen { until: None, why })
        }
        Ok(freeze) if freeze.is_over(now) || freeze.allow.contains(task) => None,
        Ok(freeze) => {
            let by = freeze.by.as_deref().unwrap_or("somebody");
            let reason = freeze.reason.as_deref().unwrap_or("not said why");
            let why = format!("{source} is frozen by {}: {}", single_line(by), single_line(reason));
            Some(Frozen { until: freeze.until, why })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stopped(text: &str, task: &str, second: i64) -> Option<Frozen> {
        let freeze = Freeze::read(text.as_bytes()).map_err(|error| error.to_string());
        let now = Timestamp::from_second(second).unwrap();
        stops(&"groups/prod".parse().unwrap(), &freeze, &task.parse().unwrap(), now)
    }

    #[test]
    fn a_freeze_holds_until_its_time_and_all_but_what_it_allows() {
        let text = "until: 1970-01-01T00:01:00Z\nby: alice\nreason: year end\nallow: [backup]";
        let frozen = stopped(text, "upgrade", 59).unwrap();
        assert_eq!(frozen.until, Timestamp::from_second(60).ok());
        assert!(frozen.why.contains("alice") && frozen.why.contains("year end"));
        assert_eq!(stopped(text, "upgrade", 60), None);
        assert_eq!(stopped(text, "backup", 0), None);
        assert_eq!(stopped("reason: x", "upgrade", 1 << 33).unwrap().until, None);
    }

    #[test]
    fn one_that_cannot_be_read_holds() {
        for text in ["untill: 2026-01-01T00:00:00Z", "until: tomorrow", "until: 2030-01-01", "", "3"] {
            assert!(stopped(text, "upgrade", 0).unwrap().why.contains("cannot be read"), "{text}");
        }
    }
}
