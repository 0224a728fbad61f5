//! Points in time as people write them: RFC 3339, always with a zone.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, de};

use super::text::head;

/// What people write for "never": later times count as this one, so that whatever is added to a time is a time.
const LATEST: Timestamp = Timestamp::constant(253_000_000_000, 0);

/// Reads a time; an error is one line with the right form. It is between the years 1970 and 9987: an earlier or later one
/// is over, or not yet, for as long as anybody asks.
pub fn read(text: &str) -> Result<Timestamp, String> {
    let text = text.trim();
    // The last days of the calendar are times in some zones only; the year before it with the same days will do.
    let early = text.strip_prefix("9999-").map(|rest| format!("9987-{rest}"));
    early
        .as_deref()
        .unwrap_or(text)
        .parse()
        .map(|at: Timestamp| at.clamp(Timestamp::UNIX_EPOCH, LATEST))
        .map_err(|_| {
            let form = "write date, time and zone, as 2026-11-28T22:00:00Z or 2026-11-28T23:00:00+01:00";
            format!("{:?} is not a time: {form}", head(text, 60))
        })
}

/// A time after another one; at the end of the calendar the last one there is.
pub fn later(at: Timestamp, by: Duration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

/// For a field that may be missing.
pub fn optional<'de, D: Deserializer<'de>>(reader: D) -> Result<Option<Timestamp>, D::Error> {
    let text = Option::<String>::deserialize(reader)?;
    text.map(|text| read(&text).map_err(de::Error::custom)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_zone_and_what_has_none_is_refused_with_the_form() {
        for good in ["2026-11-28T22:00:00Z", "2026-11-28 22:00:00+01:00", " 2026-11-28T22:00Z "] {
            assert!(read(good).is_ok(), "{good}");
        }
        for far in ["9999-12-31T23:59:59Z", "9999-12-30T22:00:00.999999999Z", "9999-01-01T00:00:00-25:00"] {
            let year = crate::domain::span::Span::secs(366 * 86_400).0;
            assert!(read(far).unwrap().checked_add(year * 10).is_ok(), "{far}");
        }
        assert_eq!(read("-009999-01-02T01:59:59Z"), Ok(Timestamp::UNIX_EPOCH));
        for bad in [
            "9999-",
            "9999-12-32T00:00:00Z",
            "9999-12-31",
            "2026-11-28 22:00",
            "2026-11-28T22:00:00",
            "2026-11-28",
            "22:00",
            "3h",
            "tomorrow",
            "",
        ] {
            assert!(read(bad).unwrap_err().contains("2026-11-28T22:00:00Z"), "{bad}");
        }
    }
}
