//! Times as people type them: how long ago or from now, a time of day, a day, or an instant with its zone.
//!
//! What has no zone is meant where the reader is: in the zone of `TZ`, or of the host.

use jiff::Timestamp;
use jiff::civil::{DateTime, Time};
use jiff::tz::TimeZone;

use crate::domain::instant;
use crate::domain::span::Span;
use crate::domain::text::head;
use crate::host::clock;

/// Whether a length of time and a time of day lie before or after now.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Before,
    After,
}

/// A time that has passed: `7d`, `22:00` (the last one), `2026-11-30`, `2026-11-30 06:00`.
pub(super) fn past(text: &str) -> Result<Timestamp, String> {
    read(text, Side::Before, clock::now(), &TimeZone::system())
}

/// A time that comes: `2h`, `22:00` (the next one), `2026-12-01`, `2026-12-01 06:00`.
pub(super) fn coming(text: &str) -> Result<Timestamp, String> {
    read(text, Side::After, clock::now(), &TimeZone::system())
}

fn read(text: &str, side: Side, now: Timestamp, zone: &TimeZone) -> Result<Timestamp, String> {
    let text = text.trim();
    if let Ok(at) = instant::read(text) {
        return Ok(at);
    }
    let at = if let Ok(span) = text.parse::<Span>() {
        // Nobody who types 2h means a fraction of a second.
        let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
        match side {
            Side::Before => now.checked_sub(span.0).ok(),
            Side::After => now.checked_add(span.0).ok(),
        }
    } else if let Some(time) = time_of_day(text) {
        of_day(time, side, now, zone)
    } else {
        let local: Option<DateTime> = text.parse().ok();
        local.and_then(|local| local.to_zoned(zone.clone()).ok()).map(|zoned| zoned.timestamp())
    };
    at.map(|at| at.max(Timestamp::UNIX_EPOCH)).ok_or_else(|| {
        format!(
            "{:?} is not a time: write it as 2h, 22:00, 2026-12-01, \"2026-12-01 06:00\" or 2026-12-01T05:00:00Z",
            head(text, 60)
        )
    })
}

/// `22:00`, and not a day.
fn time_of_day(text: &str) -> Option<Time> {
    let is_time = text.contains(':') && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b':');
    text.parse().ok().filter(|_| is_time)
}

/// The nearest instant on the wanted side at which the clock on the wall says so.
fn of_day(time: Time, side: Side, now: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    let today = zone.to_datetime(now).date();
    let at = |date: jiff::civil::Date| Some(date.to_datetime(time).to_zoned(zone.clone()).ok()?.timestamp());
    match side {
        Side::Before => at(today).filter(|at| *at <= now).or_else(|| at(today.yesterday().ok()?)),
        Side::After => at(today).filter(|at| *at > now).or_else(|| at(today.tomorrow().ok()?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_typed_as_people_think_of_them() {
        let now: Timestamp = "2026-11-30T12:00:00.25Z".parse().unwrap();
        let berlin = TimeZone::get("Europe/Berlin").unwrap();
        for (text, side, expected) in [
            ("2h", Side::After, "2026-11-30T14:00:00Z"),
            ("7d", Side::Before, "2026-11-23T12:00:00Z"),
            ("22:00", Side::After, "2026-11-30T21:00:00Z"),
            ("06:00", Side::After, "2026-12-01T05:00:00Z"),
            ("22:00", Side::Before, "2026-11-29T21:00:00Z"),
            ("06:00:30", Side::Before, "2026-11-30T05:00:30Z"),
            ("2026-12-01", Side::After, "2026-11-30T23:00:00Z"),
            ("2026-12-01 06:00", Side::After, "2026-12-01T05:00:00Z"),
            ("2026-07-01 06:00", Side::Before, "2026-07-01T04:00:00Z"),
            ("2026-12-01T06:00:00Z", Side::After, "2026-12-01T06:00:00Z"),
        ] {
            assert_eq!(read(text, side, now, &berlin).unwrap().to_string(), expected, "{text}");
        }
        for bad in ["", "tomorrow", "25:00", "2026-13-01", "7 d", "22", "-2h"] {
            let error = read(bad, Side::After, now, &berlin).unwrap_err();
            assert!(error.contains("22:00") && !error.contains('\n'), "{bad}: {error}");
        }
    }
}
