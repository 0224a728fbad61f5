//! Instants as microseconds since 1970 in UTC, and their forms in the tools' outputs.

use std::time::{SystemTime, UNIX_EPOCH};

/// Now, in microseconds.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// The instant in a form of `strftime`.
pub(crate) fn form(instant: i64, form: &str) -> String {
    let instant = jiff::Timestamp::from_microsecond(instant).unwrap_or_default();
    instant.to_zoned(jiff::tz::TimeZone::UTC).strftime(form).to_string()
}

/// The form of a TIMESTAMP in SQL: `2026-11-21 01:00:00.123456000`.
pub(crate) fn sql(instant: i64) -> String {
    form(instant, "%Y-%m-%d %H:%M:%S.%6f000")
}

/// Reads `2026-11-21 01:00:00`, with or without a fraction; `None` for anything else.
pub(crate) fn parse(text: &str) -> Option<i64> {
    let civil: jiff::civil::DateTime = text.trim().replacen(' ', "T", 1).parse().ok()?;
    Some(civil.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_microsecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_survives_its_form() {
        let instant = 1_795_222_800_123_456;
        assert_eq!(parse(&sql(instant)), Some(instant));
        assert_eq!(parse("2026-11-21 01:00:00"), Some(1_795_222_800_000_000));
        assert_eq!(parse("tomorrow"), None);
    }
}
