//! Time zones: local times made instants, by one rule for clock changes.
//!
//! The rules of a zone come from the host's time zone database. [`Zone::find`] is the only place that looks there, while
//! a document is read; from then on a zone is a value, and everything that is decided from it is pure.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::fmt;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};

/// How many changes of the clock are looked at for the one that a local time fell into.
const CHANGES: usize = 4;

/// A time zone by its name.
#[derive(Clone, PartialEq)]
pub struct Zone {
    name: String,
    rules: TimeZone,
}

/// A name that the host's database does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no time zone that this host knows: write it as Europe/Berlin, and see that the host has its time zone \
     database (tzdata)"
)]
pub struct UnknownZone(String);

impl Zone {
    /// The zone of this name.
    pub fn find(name: &str) -> Result<Self, UnknownZone> {
        let unknown = || UnknownZone(name.chars().take(60).collect());
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/_+-".contains(&byte);
        if name.is_empty() || name.len() > 60 || !name.bytes().all(plain) {
            return Err(unknown());
        }
        let rules = if name.eq_ignore_ascii_case("utc") { Ok(TimeZone::UTC) } else { TimeZone::get(name) };
        Ok(Self { name: name.to_owned(), rules: rules.map_err(|_| unknown())? })
    }

    /// UTC, which every host knows.
    pub fn utc() -> Self {
        Self { name: "UTC".to_owned(), rules: TimeZone::UTC }
    }

    /// Its name.
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// What a clock on the wall there says.
    pub fn local(&self, at: Timestamp) -> DateTime {
        self.rules.to_datetime(at)
    }

    /// When a clock on the wall there says so: just after the change if the clock skips it, the first time if the
    /// clock says it twice. So later local times never come earlier.
    pub fn instant(&self, local: DateTime) -> Option<Timestamp> {
        let at = |offset: jiff::tz::Offset| offset.to_timestamp(local).ok();
        match self.rules.to_ambiguous_timestamp(local).offset() {
            AmbiguousOffset::Unambiguous { offset } => at(offset),
            AmbiguousOffset::Fold { before, .. } => at(before),
            AmbiguousOffset::Gap { before, after } => {
                let (earlier, later) = (at(after)?, at(before)?);
                let changes = self.rules.following(earlier).take(CHANGES).map(|change| change.timestamp());
                let mut changes = changes.filter(|change| self.rules.to_offset(*change) == after);
                Some(changes.next().unwrap_or(later).min(later))
            }
        }
    }

    /// A local time that is not before any whose instant has come by then: in an hour that the clock says for the second
    /// time, those of the first time are later than what it says now.
    pub fn latest(&self, at: Timestamp) -> DateTime {
        let local = self.local(at);
        match self.rules.to_ambiguous_timestamp(local).offset() {
            AmbiguousOffset::Fold { before, after } if self.rules.to_offset(at) == after => {
                let back = i64::from(before.seconds()).saturating_sub(i64::from(after.seconds()));
                local.saturating_add(jiff::Span::new().seconds(back))
            }
            _ => local,
        }
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skipped_and_doubled_times_have_one_instant() {
        let berlin = Zone::find("Europe/Berlin").unwrap();
        for (local, expected) in [
            ("2026-03-29T01:59", "2026-03-29T00:59:00Z"),
            ("2026-03-29T02:00", "2026-03-29T01:00:00Z"),
            ("2026-03-29T02:30", "2026-03-29T01:00:00Z"),
            ("2026-03-29T03:00", "2026-03-29T01:00:00Z"),
            ("2026-10-25T02:30", "2026-10-25T00:30:00Z"),
            ("2026-10-25T03:00", "2026-10-25T02:00:00Z"),
        ] {
            assert_eq!(berlin.instant(local.parse().unwrap()).unwrap().to_string(), expected, "{local}");
        }
        // A whole day was skipped.
        let apia = Zone::find("Pacific/Apia").unwrap();
        let skipped = apia.instant("2011-12-30T02:30".parse().unwrap()).unwrap();
        assert_eq!(skipped.to_string(), "2011-12-30T10:00:00Z");
    }

    #[test]
    fn an_unknown_zone_is_named_with_the_cure() {
        for name in ["", "Berlin", "../../etc/passwd", "Europe/Berlin\n", &"x".repeat(100)] {
            let error = Zone::find(name).unwrap_err().to_string();
            assert!(error.contains("Europe/Berlin") && !error.contains('\n'), "{name:?}: {error}");
        }
        assert_eq!(Zone::find("UTC").unwrap(), Zone::utc());
    }
}
