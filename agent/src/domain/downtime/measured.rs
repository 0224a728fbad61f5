//! One measured downtime, as a step reports it, and sums of several.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::service::Service;
use crate::domain::instant;
use crate::domain::yaml::single_line;

/// The most services that one command reports: more is no measurement.
pub const MAX_SERVICES_AT_ONCE: usize = 16;

/// The longest downtime of one line, in seconds: the longest span that anything here takes.
const MAX_SECONDS: f64 = 366.0 * 86_400.0;

/// An amount of time in milliseconds; in documents a number of seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub u64);

impl Millis {
    /// Both together; the largest amount if that is too much.
    pub fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// As seconds.
    pub fn seconds(self) -> f64 {
        self.0 as f64 / 1000.0
    }

    /// Seconds to the nearest millisecond; `None` if they are negative, no number, or more than 366 days.
    pub fn of_seconds(seconds: f64) -> Option<Self> {
        // Rounded within the bounds of the number: they were compared just now.
        (0.0..=MAX_SECONDS).contains(&seconds).then(|| Self((seconds * 1000.0).round() as u64))
    }
}

impl fmt::Display for Millis {
    /// For people: `0.420 s`, `12.3 s`, `4m12s`, `3h05m`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.checked_div(1000).unwrap_or_default();
        let part = |size: u64, of: u64| {
            seconds.checked_div(size).unwrap_or_default().checked_rem(of).unwrap_or_default()
        };
        match self.0 {
            0 => f.write_str("0 s"),
            1..10_000 => write!(f, "{:.3} s", self.seconds()),
            10_000..60_000 => write!(f, "{:.1} s", self.seconds()),
            60_000..3_600_000 => write!(f, "{}m{:02}s", part(60, 60), part(1, 60)),
            _ => write!(f, "{}h{:02}m", part(3600, u64::MAX), part(60, 60)),
        }
    }
}

impl Serialize for Millis {
    fn serialize<S: Serializer>(&self, writer: S) -> Result<S::Ok, S::Error> {
        writer.serialize_f64(self.seconds())
    }
}

impl<'de> Deserialize<'de> for Millis {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        let seconds = f64::deserialize(reader)?;
        // Sums may be longer than one line; a number above the largest amount becomes that amount.
        if seconds >= 0.0 {
            Ok(Self((seconds * 1000.0).round() as u64))
        } else {
            Err(de::Error::custom("an amount of seconds is not negative"))
        }
    }
}

/// How long a service could not be used.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Downtime {
    /// Which service.
    pub service: Service,
    /// For how long, all interruptions together.
    pub seconds: Millis,
    /// When the first interruption began. `None` if the step does not say, or its clock was set back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Timestamp>,
    /// When the last one ended. `None` as for `from`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Timestamp>,
    /// How many requests failed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub failed: u64,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// A downtime in the journal of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Journaled {
    /// The epoch that recorded it.
    pub epoch: u32,
    /// Its number within that epoch, counted from 1.
    pub number: u32,
    /// When the journal took it in.
    pub at: Timestamp,
    /// How long which service could not be used.
    pub downtime: Downtime,
}

/// A downtime as a step writes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    service: String,
    seconds: f64,
    #[serde(default, deserialize_with = "instant::optional")]
    from: Option<Timestamp>,
    #[serde(default, deserialize_with = "instant::optional")]
    to: Option<Timestamp>,
    #[serde(default)]
    failed: u64,
}

/// The value of `downtime` in a line of a step's report, or why nothing of it counts: a part of one line for the operator.
pub fn read_line(value: serde_json::Value) -> Result<Downtime, String> {
    let line: Line = serde_json::from_value(value)
        .map_err(|error| format!("downtime: {}", single_line(&error.to_string())))?;
    let service: Service = line.service.parse().map_err(|bad| format!("downtime: {bad}"))?;
    let seconds = Millis::of_seconds(line.seconds)
        .ok_or_else(|| format!("downtime: seconds is a number from 0 to {MAX_SECONDS}"))?;
    let is_backward = line.from.zip(line.to).is_some_and(|(from, to)| to < from);
    let (from, to) = if is_backward { (None, None) } else { (line.from, line.to) };
    Ok(Downtime { service, seconds, from, to, failed: line.failed })
}

impl fmt::Display for Downtime {
    /// For people: `web 0.420 s, 3 requests failed`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.service, self.seconds)?;
        match self.failed {
            0 => Ok(()),
            1 => f.write_str(", 1 request failed"),
            n => write!(f, ", {n} requests failed"),
        }
    }
}

impl Downtime {
    /// Adds another downtime of the same service.
    pub fn add(&mut self, other: &Self) {
        self.seconds = self.seconds.plus(other.seconds);
        self.failed = self.failed.saturating_add(other.failed);
        self.from = self.from.into_iter().chain(other.from).min();
        self.to = self.to.into_iter().chain(other.to).max();
    }
}

/// The sums for each service, by name.
pub fn added_up<'a>(all: impl IntoIterator<Item = &'a Downtime>) -> Vec<Downtime> {
    let mut sums: BTreeMap<&Service, Downtime> = BTreeMap::new();
    for one in all {
        match sums.get_mut(&one.service) {
            Some(sum) => sum.add(one),
            None => drop(sums.insert(&one.service, one.clone())),
        }
    }
    sums.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_line_has_a_service_and_an_amount_and_nothing_unknown() {
        let whole = json!({"service": "postgres:main", "seconds": 0.42, "from": "2026-11-21T22:00:00Z",
            "to": "2026-11-21T22:00:01Z", "failed": 3});
        let read = read_line(whole.clone()).unwrap();
        assert_eq!((read.seconds, read.failed), (Millis(420), 3));
        assert_eq!(read.to_string(), "postgres:main 0.420 s, 3 requests failed");
        assert_eq!(serde_json::to_value(&read).unwrap(), whole);
        assert_eq!(read_line(json!({"service": "a", "seconds": 0})).unwrap().seconds, Millis(0));
        for (bad, why) in [
            (json!({"service": "a"}), "seconds"),
            (json!({"seconds": 1}), "service"),
            (json!({"service": "A", "seconds": 1}), "not the name of a service"),
            (json!({"service": "a", "seconds": -1}), "0 to"),
            (json!({"service": "a", "seconds": 4e7}), "0 to"),
            (json!({"service": "a", "seconds": "1"}), "seconds"),
            (json!({"service": "a", "seconds": 1, "failed": -1}), "`-1`"),
            (json!({"service": "a", "seconds": 1, "failed": 1.5}), "`1.5`"),
            (json!({"service": "a", "seconds": 1, "from": "noon"}), "not a time"),
            (json!({"service": "a", "seconds": 1, "until": 2}), "until"),
            (json!([1]), "downtime"),
            (json!("0.42"), "downtime"),
        ] {
            let said = read_line(bad.clone()).unwrap_err();
            assert!(said.starts_with("downtime: ") && !said.contains('\n'), "{said}");
            assert!(said.contains(why) || why == "seconds", "{bad}: {said}");
        }
    }

    #[test]
    fn a_clock_that_was_set_back_in_between_loses_the_instants_and_not_the_seconds() {
        let line = json!({"service": "a", "seconds": 2, "from": "2026-11-21T22:00:09Z", "to": "2026-11-21T22:00:01Z"});
        let read = read_line(line).unwrap();
        assert_eq!((read.seconds, read.from, read.to), (Millis(2000), None, None));
    }

    #[test]
    fn several_lines_for_one_service_add_up() {
        let line = |service: &str, seconds: f64, from: i64| Downtime {
            service: service.parse().unwrap(),
            seconds: Millis::of_seconds(seconds).unwrap(),
            from: Timestamp::from_second(from).ok(),
            to: Timestamp::from_second(from + 5).ok(),
            failed: 2,
        };
        let sums = added_up(&[line("b", 0.1, 100), line("a", 1.0, 7), line("b", 0.2, 50)]);
        assert_eq!(sums.len(), 2);
        assert_eq!((sums[1].service.as_str(), sums[1].seconds, sums[1].failed), ("b", Millis(300), 4));
        assert_eq!(sums[1].from.unwrap().as_second(), 50);
        assert_eq!(sums[1].to.unwrap().as_second(), 105);
    }

    #[test]
    fn amounts_survive_a_document_and_are_short_for_people() {
        for ms in [0, 1, 420, 999, 1001, 86_400_000, 31_622_400_000, 9_007_199_254_740] {
            let text = serde_json::to_string(&Millis(ms)).unwrap();
            assert_eq!(serde_json::from_str::<Millis>(&text).unwrap(), Millis(ms), "{text}");
        }
        assert!(serde_json::from_str::<Millis>("-0.5").is_err());
        let shown = [0, 420, 12_340, 252_000, 11_100_000].map(|ms| Millis(ms).to_string());
        assert_eq!(shown, ["0 s", "0.420 s", "12.3 s", "4m12s", "3h05m"]);
    }
}
