//! What a host promises for its services: which share of a window of days they can be used.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::measured::Millis;
use super::service::ServicePattern;
use crate::domain::span::Span;

/// A whole, in millionths.
const WHOLE: u32 = 1_000_000;

/// Milliseconds of a day.
const DAY_MS: u64 = 86_400_000;

/// The longest window in days: the longest span.
const MAX_WINDOW: u16 = 366;

/// One objective of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Objective {
    /// The services that it covers, each with a budget of its own.
    pub service: ServicePattern,
    /// The share of the window in which a service can be used.
    pub target: Target,
    /// How far back downtime counts.
    pub window: Window,
}

/// A share in millionths, less than the whole; in documents in percent, such as 99.99.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Target(u32);

/// A number of whole days: today, in UTC, and the days before it; in documents a span such as `30d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Span", into = "Span")]
pub struct Window(u16);

/// Why an objective is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadObjective {
    /// No share that can be promised.
    #[error(
        "`target` is a percentage above 0 and below 100 with at most four decimals, such as 99.99: with 100 no task could ever start"
    )]
    Target,
    /// No number of days.
    #[error("`window` is a number of whole days from 1d to {MAX_WINDOW}d, such as 30d")]
    Window,
}

impl TryFrom<f64> for Target {
    type Error = BadObjective;

    fn try_from(percent: f64) -> Result<Self, BadObjective> {
        let millionths = percent * f64::from(WHOLE) / 100.0;
        let whole = millionths.round();
        let exact = (millionths - whole).abs() < 0.001;
        let good = exact && whole >= 1.0 && whole < f64::from(WHOLE);
        if good { Ok(Self(whole as u32)) } else { Err(BadObjective::Target) }
    }
}

impl From<Target> for f64 {
    fn from(target: Target) -> Self {
        Self::from(target.0) * 100.0 / Self::from(WHOLE)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} %", f64::from(*self))
    }
}

impl Window {
    /// A window of so many days, from 1 to 366.
    pub fn days(days: u16) -> Result<Self, BadObjective> {
        if (1..=MAX_WINDOW).contains(&days) { Ok(Self(days)) } else { Err(BadObjective::Window) }
    }

    /// How many days.
    pub fn length(self) -> i32 {
        i32::from(self.0)
    }

    /// All of it.
    pub fn millis(self) -> Millis {
        Millis(DAY_MS.saturating_mul(u64::from(self.0)))
    }
}

impl TryFrom<Span> for Window {
    type Error = BadObjective;

    fn try_from(span: Span) -> Result<Self, BadObjective> {
        let millis = span.0.as_millis();
        let days = millis.checked_div(u128::from(DAY_MS)).and_then(|days| u16::try_from(days).ok());
        let days = days.filter(|_| millis.checked_rem(u128::from(DAY_MS)) == Some(0));
        days.ok_or(BadObjective::Window).and_then(Self::days)
    }
}

impl std::str::FromStr for Window {
    type Err = BadObjective;

    fn from_str(text: &str) -> Result<Self, BadObjective> {
        text.parse::<Span>().map_err(|_| BadObjective::Window)?.try_into()
    }
}

impl From<Window> for Span {
    fn from(window: Window) -> Self {
        Self(Duration::from_millis(window.millis().0))
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}d", self.0)
    }
}

impl Objective {
    /// How much downtime the window has room for.
    pub fn budget(&self) -> Millis {
        let share = u64::from(WHOLE.saturating_sub(self.target.0));
        let whole = self.window.millis().0.saturating_mul(share);
        Millis(whole.checked_div(u64::from(WHOLE)).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::yaml;

    fn objective(target: &str, window: &str) -> Result<Objective, String> {
        let text = format!("service: \"postgres:*\"\ntarget: {target}\nwindow: {window}\n");
        yaml::parse(text.as_bytes(), 4096).map_err(|error| error.to_string())
    }

    #[test]
    fn a_budget_is_what_the_target_leaves_of_the_window() {
        assert_eq!(objective("99.99", "30d").unwrap().budget(), Millis(259_200));
        assert_eq!(objective("99.999", "366d").unwrap().budget(), Millis(316_224));
        assert_eq!(objective("99", "1d").unwrap().budget(), Millis(864_000));
        assert_eq!(objective("50", "2d").unwrap().budget(), Millis(86_400_000));
        let read = objective("99.9999", "24h").unwrap();
        assert_eq!((read.target.to_string(), read.window.to_string()), ("99.9999 %".into(), "1d".into()));
    }

    #[test]
    fn a_target_or_window_that_means_nothing_is_refused_in_words() {
        for target in ["100", "0", "-1", "101", "99.99999"] {
            let error = objective(target, "30d").unwrap_err();
            assert!(error.contains("`target`"), "{target}: {error}");
        }
        for window in ["0d", "36h", "12h", "30d1s"] {
            let error = objective("99.9", window).unwrap_err();
            assert!(error.contains("`window`"), "{window}: {error}");
        }
        assert!(objective("99.9", "400d").is_err());
    }
}
