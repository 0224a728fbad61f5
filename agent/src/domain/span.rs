//! Lengths of time and of storage as an operator writes them: `90s`, `10m`, `4h`, `1m..30m`, `2G`, `16MiB`.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A length of time, written as a number and one of `ms`, `s`, `m`, `h`, `d`, or several of them (`1h30m`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Span(pub Duration);

/// Why a text is not a length of time or of storage.
#[derive(Debug, thiserror::Error)]
pub enum BadSpan {
    /// Not a length of time.
    #[error("{0:?} is not a length of time: write it as 90s, 10m, 4h or 1h30m (at most 366d)")]
    Time(String),
    /// Not a range of two lengths of time.
    #[error("{0:?} is not a range of times: write it as 1m..30m, the smaller first, at least 1s")]
    Range(String),
    /// Not an amount of storage.
    #[error("{0:?} is not an amount of bytes: write it as 512M, 2G or 2GiB")]
    Bytes(String),
}

/// The longest span, which keeps every later addition far from an overflow.
const MAX_SPAN: Duration = Duration::from_secs(366 * 86_400);

impl Span {
    /// So many seconds.
    pub const fn secs(secs: u64) -> Self {
        Self(Duration::from_secs(secs))
    }

    fn read(text: &str) -> Option<Self> {
        let mut rest = text;
        let mut total = Duration::ZERO;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit())?;
            let number: u64 = rest.get(..digits)?.parse().ok()?;
            rest = rest.get(digits..)?;
            let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
            let unit = match rest.get(..end)? {
                "ms" => Duration::from_millis(1),
                "s" => Duration::from_secs(1),
                "m" => Duration::from_secs(60),
                "h" => Duration::from_secs(3600),
                "d" => Duration::from_secs(86_400),
                _ => return None,
            };
            rest = rest.get(end..)?;
            total = total.checked_add(unit.checked_mul(number.try_into().ok()?)?)?;
        }
        (!text.is_empty() && total <= MAX_SPAN).then_some(Self(total))
    }
}

impl TryFrom<String> for Span {
    type Error = BadSpan;

    fn try_from(text: String) -> Result<Self, BadSpan> {
        Self::read(text.trim()).ok_or(BadSpan::Time(text))
    }
}

impl std::str::FromStr for Span {
    type Err = BadSpan;

    fn from_str(text: &str) -> Result<Self, BadSpan> {
        Self::try_from(text.to_owned())
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut millis = self.0.as_millis();
        if millis == 0 {
            return f.write_str("0s");
        }
        for (unit, size) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)] {
            if millis >= size {
                let (count, rest) = (millis.checked_div(size), millis.checked_rem(size));
                write!(f, "{}{unit}", count.unwrap_or_default())?;
                millis = rest.unwrap_or_default();
            }
        }
        Ok(())
    }
}

impl From<Span> for String {
    fn from(span: Span) -> Self {
        span.to_string()
    }
}

/// An amount of storage in bytes; `K`, `M`, `G`, `T`, with or without `iB`, are powers of 1024 as in systemd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Bytes(pub u64);

impl TryFrom<String> for Bytes {
    type Error = BadSpan;

    fn try_from(text: String) -> Result<Self, BadSpan> {
        let read = || {
            let trimmed = text.trim();
            let digits = trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(trimmed.len());
            let number: u64 = trimmed.get(..digits)?.parse().ok()?;
            let shift = match trimmed.get(digits..)?.trim_end_matches("iB") {
                "" | "B" => 0,
                "K" => 10,
                "M" => 20,
                "G" => 30,
                "T" => 40,
                _ => return None,
            };
            number.checked_mul(1 << shift).map(Self)
        };
        read().ok_or_else(|| BadSpan::Bytes(text.clone()))
    }
}

impl From<Bytes> for String {
    fn from(bytes: Bytes) -> Self {
        bytes.to_string()
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, shift) in [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)] {
            if self.0 >= 1 << shift && self.0.trailing_zeros() >= shift {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        write!(f, "{}B", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_and_print() {
        for (text, millis) in
            [("0s", 0), ("90s", 90_000), ("1h30m", 5_400_000), ("250ms", 250), ("1d", 86_400_000)]
        {
            let span: Span = text.parse().unwrap();
            assert_eq!(span.0.as_millis(), millis, "{text}");
            assert_eq!(span.to_string().parse::<Span>().unwrap(), span, "{text}");
        }
        for bad in ["", "5", "m", "-1s", "1x", "367d", "99999999999999999999d", "1 h"] {
            assert!(bad.parse::<Span>().is_err(), "{bad}");
        }
    }

    #[test]
    fn bytes_read_and_print() {
        for (text, bytes) in
            [("2G", 2 << 30), ("2GiB", 2 << 30), ("512M", 512 << 20), ("17", 17), ("4KiB", 4096)]
        {
            assert_eq!(Bytes::try_from(text.to_owned()).unwrap().0, bytes, "{text}");
        }
        assert!(Bytes::try_from("99999999999T".to_owned()).is_err());
        assert_eq!(Bytes(2 << 30).to_string(), "2GiB");
    }
}
