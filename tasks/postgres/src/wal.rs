//! The names of WAL, places in it, and what a segment says of itself.
//!
//! A segment's first page names the cluster, the size and the place that the segment has: what does not agree with the
//! file's name is never taken for it.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use crate::error::Error;

/// A place in the WAL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lsn(pub u64);

impl FromStr for Lsn {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/').filter(|(high, low)| high.len() <= 8 && low.len() <= 8);
        let number = |text: &str| u32::from_str_radix(text, 16).ok().filter(|_| !text.starts_with('+'));
        let place = parts.and_then(|(high, low)| Some((number(high)?, number(low)?)));
        let (high, low) =
            place.ok_or_else(|| format!("`{text}` is no place in the WAL, such as 0/3000028"))?;
        Ok(Self(u64::from(high) << 32 | u64::from(low)))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

/// A segment, by timeline and number; its number times the size of a segment is the place where it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Segment {
    /// Timeline.
    pub timeline: u32,
    /// Number.
    pub number: u64,
}

/// How large a cluster's segments are, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(u32);

impl Size {
    /// The smallest, for tests.
    #[cfg(test)]
    pub(crate) const MIB: Self = Self(1 << 20);

    /// `None` if it is no size that a cluster can have.
    pub fn new(bytes: u64) -> Option<Self> {
        let bytes = u32::try_from(bytes).ok()?;
        let sane = bytes.is_power_of_two() && (1 << 20..=1 << 30).contains(&bytes);
        sane.then_some(Self(bytes))
    }

    /// In bytes.
    pub fn bytes(self) -> u64 {
        u64::from(self.0)
    }

    /// The number of the segment that holds a place.
    pub fn number(self, lsn: Lsn) -> u64 {
        lsn.0 / self.bytes()
    }

    /// The number of the segment that holds the last byte before a place.
    pub fn number_before(self, lsn: Lsn) -> u64 {
        lsn.0.saturating_sub(1) / self.bytes()
    }

    fn per_log(self) -> u64 {
        (1 << 32) / self.bytes()
    }

    /// A segment's name.
    pub fn name(self, segment: Segment) -> String {
        let (log, rest) = (segment.number / self.per_log(), segment.number % self.per_log());
        format!("{:08X}{log:08X}{rest:08X}", segment.timeline)
    }

    /// The segment of this name; `None` if clusters with segments of this size have none of it.
    pub fn segment(self, name: &str) -> Option<Segment> {
        match Name::parse(name)? {
            Name::Segment { timeline, log, rest } if u64::from(rest) < self.per_log() => {
                Some(Segment { timeline, number: u64::from(log) * self.per_log() + u64::from(rest) })
            }
            _ => None,
        }
    }
}

/// What a name in `pg_wal` stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// A segment.
    Segment {
        /// Timeline.
        timeline: u32,
        /// The second eight digits.
        log: u32,
        /// The last eight.
        rest: u32,
    },
    /// The last segment of a timeline that was left.
    Partial {
        /// Timeline.
        timeline: u32,
    },
    /// The label of a base backup.
    Label {
        /// Timeline.
        timeline: u32,
    },
    /// How a timeline came to be.
    History {
        /// Timeline.
        timeline: u32,
    },
}

impl Name {
    /// `None` for what PostgreSQL neither archives nor asks for.
    pub fn parse(name: &str) -> Option<Self> {
        let hex = |from: usize| {
            let text = name.get(from..from + 8)?;
            let digits = text.bytes().all(|c| c.is_ascii_digit() || (b'A'..=b'F').contains(&c));
            if digits { u32::from_str_radix(text, 16).ok() } else { None }
        };
        let timeline = hex(0).filter(|timeline| *timeline > 0)?;
        if name.get(8..) == Some(".history") {
            return Some(Self::History { timeline });
        }
        let (log, rest) = (hex(8)?, hex(16)?);
        match name.get(24..)? {
            "" => Some(Self::Segment { timeline, log, rest }),
            ".partial" => Some(Self::Partial { timeline }),
            // .OFFSET.backup
            _ if name.len() == 40 && hex(25).is_some() && name.get(24..25) == Some(".") => {
                (name.get(33..) == Some(".backup")).then_some(Self::Label { timeline })
            }
            _ => None,
        }
    }

    /// Its timeline.
    pub fn timeline(self) -> u32 {
        match self {
            Self::Segment { timeline, .. }
            | Self::Partial { timeline }
            | Self::Label { timeline }
            | Self::History { timeline } => timeline,
        }
    }
}

/// The bytes of a first page that say what a segment is.
pub const HEADER: usize = 40;
/// The first page of a segment, and nothing else, has this in its flags.
const LONG: u16 = 2;

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// Whether a file is the segment, or the partial one, that its name says, of this cluster; the size of its segments.
///
/// # Errors
/// What does not agree.
pub fn check(name: &str, system: u64, length: u64, header: &[u8]) -> Result<Size, String> {
    let read = || {
        let flags = u16::from_ne_bytes(header.get(2..4)?.try_into().ok()?);
        let (timeline, place) = (u32_at(header, 4)?, u64_at(header, 8)?);
        let (of, bytes) = (u64_at(header, 24)?, u32_at(header, 32)?);
        let size = Size::new(u64::from(bytes)).filter(|_| flags & LONG != 0)?;
        Some((timeline, place, of, size))
    };
    let (timeline, place, of, size) = read().ok_or("it does not begin as a segment does")?;
    if of != system {
        return Err(format!("it belongs to the cluster {of}, and not to {system}"));
    }
    if length != size.bytes() {
        return Err(format!("it has {length} bytes, and segments of this cluster have {}", size.bytes()));
    }
    let plain = name.strip_suffix(".partial").unwrap_or(name);
    let segment = size.segment(plain).ok_or("its name is none of a segment of its size")?;
    if place != segment.number.saturating_mul(size.bytes()) {
        let is = Segment { number: place / size.bytes(), ..segment };
        return Err(format!("it begins at the place of {}", size.name(is)));
    }
    // The first segment of a timeline begins as that which it was copied from.
    if timeline == 0 || timeline > segment.timeline {
        return Err(format!("it is of the later timeline {timeline}"));
    }
    Ok(size)
}

/// Where a timeline was left for the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// The timeline that was left.
    pub timeline: u32,
    /// Where.
    pub at: Lsn,
}

/// Reads the history of a timeline: what it descends from, the oldest first.
///
/// # Errors
/// If it is none.
pub fn history(timeline: u32, text: &str) -> Result<Vec<Left>, String> {
    let mut lefts: Vec<Left> = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let mut words = line.split_ascii_whitespace();
        let read = (words.next().and_then(|word| word.parse().ok()), words.next().map(str::parse));
        let (Some(of), Some(Ok(at))) = read else {
            return Err(format!("its line `{line}` is none of a history"));
        };
        if lefts.last().is_some_and(|last| last.timeline >= of || last.at > at) || of >= timeline {
            return Err(format!("its line `{line}` is out of order"));
        }
        lefts.push(Left { timeline: of, at });
    }
    if lefts.is_empty() { Err("it names no timeline".to_owned()) } else { Ok(lefts) }
}

/// The system identifier of a cluster, from its control file.
///
/// # Errors
/// If that is not there, or is none of this machine's.
pub fn system(data: &Path) -> Result<u64, Error> {
    let path = data.join("global/pg_control");
    let bytes = std::fs::read(&path).map_err(Error::local(path.display()))?;
    let read = || {
        let (system, version) = (u64_at(&bytes, 0)?, u32_at(&bytes, 8)?);
        // 1300 is that of version 13.
        (system != 0 && (1300..10_000).contains(&version)).then_some(system)
    };
    read().ok_or_else(|| {
        Error::Local(format!("{} is no control file of PostgreSQL 13 or newer", path.display()))
    })
}

#[cfg(test)]
mod tests {
    use super::{Lsn, Name, Segment, Size, check, history};

    fn page(system: u64, timeline: u32, place: u64, size: u32) -> Vec<u8> {
        let mut page = vec![0x0d, 0xd1, 2, 0];
        page.extend(timeline.to_ne_bytes());
        page.extend(place.to_ne_bytes());
        page.extend([0; 8]);
        page.extend(system.to_ne_bytes());
        page.extend(size.to_ne_bytes());
        page.extend(8192_u32.to_ne_bytes());
        page
    }

    #[test]
    fn names_are_those_of_postgres() {
        let size = Size::new(16 << 20).unwrap();
        let name = "0000000200000003000000FF";
        let segment = size.segment(name).unwrap();
        assert_eq!(segment, Segment { timeline: 2, number: 3 * 256 + 255 });
        assert_eq!(size.name(segment), name);
        assert_eq!(size.name(Segment { number: segment.number + 1, ..segment }), "000000020000000400000000");
        assert_eq!(size.segment("000000020000000300000100"), None, "of segments of 16 MiB");
        assert!(Size::new(1 << 20).unwrap().segment("000000020000000300000100").is_some());
        assert_eq!(Name::parse("0000000A.history"), Some(Name::History { timeline: 10 }));
        assert_eq!(
            Name::parse("0000000A0000000100000002.00000028.backup"),
            Some(Name::Label { timeline: 10 })
        );
        assert_eq!(Name::parse("0000000A0000000100000002.partial"), Some(Name::Partial { timeline: 10 }));
        for wrong in [
            "",
            "0000000a.history",
            "00000000.history",
            "RECOVERYXLOG",
            "0000000A00000001000000020",
            "\u{e4}0000000",
        ] {
            assert_eq!(Name::parse(wrong), None, "{wrong}");
        }
        let lsn: Lsn = "A/FF000028".parse().unwrap();
        assert_eq!((lsn.0, lsn.to_string().as_str()), (0xA_FF00_0028, "A/FF000028"));
        assert!("A/".parse::<Lsn>().is_err() && "1/+2".parse::<Lsn>().is_err());
        assert_eq!(size.number_before(Lsn(16 << 20)), 0, "a segment ends where the next begins");
    }

    #[test]
    fn a_segment_is_what_its_first_page_says() {
        let name = "000000020000000000000003";
        let size = 1 << 20;
        let good = page(7, 2, 3 << 20, size);
        assert_eq!(check(name, 7, 1 << 20, &good), Ok(Size(size)));
        assert_eq!(check(&format!("{name}.partial"), 7, 1 << 20, &good), Ok(Size(size)));
        assert!(
            check(name, 7, 1 << 20, &page(7, 1, 3 << 20, size)).is_ok(),
            "copied from the timeline before"
        );
        for (header, length, system, why) in [
            (page(7, 3, 3 << 20, size), 1 << 20, 7, "later timeline"),
            (page(7, 2, 4 << 20, size), 1 << 20, 7, "place of 000000020000000000000004"),
            (good.clone(), 1 << 19, 7, "bytes"),
            (good.clone(), 1 << 20, 8, "cluster 7"),
            (vec![0; 40], 1 << 20, 7, "begin"),
            (good.iter().take(20).copied().collect(), 1 << 20, 7, "begin"),
        ] {
            let said = check(name, system, length, &header).unwrap_err();
            assert!(said.contains(why), "{said}");
        }
    }

    #[test]
    fn a_history_is_in_order() {
        let text = "1\t0/3000098\tno recovery target specified\n\n2\t0/5000000\tbefore 2026-01-01\n";
        let lefts = history(3, text).unwrap();
        assert_eq!(
            lefts.iter().map(|left| (left.timeline, left.at.0)).collect::<Vec<_>>(),
            [(1, 0x0300_0098), (2, 0x0500_0000)]
        );
        for wrong in ["", "x", "1 0/1", "3 0/1 x", "2 0/2 x\n1 0/3 x", "1 0/3 x\n2 0/2 x"] {
            let told = history(3, wrong);
            assert!(told.is_err() || wrong == "1 0/1", "{wrong}");
        }
    }
}
