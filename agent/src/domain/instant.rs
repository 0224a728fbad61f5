//! Points in time as people write them: RFC 3339, always with a zone.

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, de};

use super::text::head;

/// Reads a time; an error is one line with the right form.
pub fn read(text: &str) -> Result<Timestamp, String> {
    text.trim().parse().map_err(|_| {
        let form = "write date, time and zone, as 2026-11-28T22:00:00Z or 2026-11-28T23:00:00+01:00";
        format!("{:?} is not a time: {form}", head(text, 60))
    })
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
        for bad in ["2026-11-28 22:00", "2026-11-28T22:00:00", "2026-11-28", "22:00", "3h", "tomorrow", ""] {
            assert!(read(bad).unwrap_err().contains("2026-11-28T22:00:00Z"), "{bad}");
        }
    }
}
