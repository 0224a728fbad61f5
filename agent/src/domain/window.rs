//! A window: when runs may start. It governs starts only; what runs goes on when it closes.
//!
//! `Sat,Sun 01:00-05:00`, several with `;` between. A window belongs to the day of its opening, and one whose end is not
//! later than its beginning crosses midnight: `Fri 22:00-06:00` is open on Saturday morning.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use jiff::civil::Time;
use jiff::{Span as Calendar, Timestamp};

use super::cron::weekday;
use super::zone::Zone;

/// The most openings of a week that are written apart.
const MAX_SPELLS: usize = 8;
/// An opening is looked for so many days ahead: one that a clock change swallows comes again a week later.
const DAYS_AHEAD: i32 = 16;

/// Why a text is no window, with the cure.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a window: {why}; write it as \"Sat,Sun 01:00-05:00\" or \"22:00-06:00\"")]
pub struct BadWindow {
    text: String,
    why: String,
}

/// When runs may start.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    spells: Vec<Spell>,
    zone: Zone,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Spell {
    /// Sunday is the lowest bit.
    days: u8,
    from: Time,
    to: Time,
}

/// One opening.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    /// From then on.
    pub from: Timestamp,
    /// Not any more then.
    pub to: Timestamp,
}

impl Window {
    /// Reads a window.
    pub fn read(text: &str, zone: Zone) -> Result<Self, BadWindow> {
        let bad = |why: &str| BadWindow { text: text.chars().take(80).collect(), why: why.to_owned() };
        let spells =
            text.split(';').map(Spell::read).collect::<Result<Vec<_>, _>>().map_err(|why| bad(&why))?;
        if spells.len() > MAX_SPELLS {
            return Err(bad(&format!("it has more than {MAX_SPELLS} parts")));
        }
        Ok(Self { spells, zone })
    }

    /// The opening at this instant, or the next one.
    pub fn opening(&self, now: Timestamp) -> Option<Opening> {
        let today = self.zone.local(now).date();
        // One of yesterday may have crossed midnight, and a clock change moves it by an hour at most.
        let dates = (-2..DAYS_AHEAD).filter_map(|days| today.checked_add(Calendar::new().days(days)).ok());
        let openings = dates.flat_map(|date| {
            let day = date.weekday().to_sunday_zero_offset();
            let spells = self.spells.iter().filter(move |spell| spell.days >> day & 1 == 1);
            spells.filter_map(move |spell| {
                let last = if spell.to <= spell.from { date.tomorrow().ok()? } else { date };
                let from = self.zone.instant(date.to_datetime(spell.from))?;
                let to = self.zone.instant(last.to_datetime(spell.to))?;
                Some(Opening { from, to })
            })
        });
        openings
            .filter(|opening| opening.to > now && opening.from < opening.to)
            .min_by_key(|o| (o.from, o.to))
    }
}

impl Spell {
    fn read(text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let (days, times) = match words.as_slice() {
            [times] => (0x7f, times),
            [days, times] => (self::days(days)?, times),
            _ => return Err("each part has days, which may be left out, and times".into()),
        };
        let (from, to) = times.split_once('-').ok_or("its times have a `-` between")?;
        let (from, to) = (time(from)?, if to == "24:00" { Time::midnight() } else { time(to)? });
        if from == to && !times.ends_with("24:00") {
            return Err("it is as long as nothing: for a whole day write 00:00-24:00".into());
        }
        Ok(Self { days, from, to })
    }
}

fn days(text: &str) -> Result<u8, String> {
    let day = |name: &str| {
        let day = weekday(name).map(|day| day.to_sunday_zero_offset());
        day.ok_or_else(|| format!("{:?} is no day of the week", name.chars().take(20).collect::<String>()))
    };
    text.split(',').try_fold(0, |mask, part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (mut at, last) = (day(first)?, day(last)?);
        let mut mask = mask | 1 << last;
        // Around the week's end: Fri-Mon.
        while at != last {
            mask |= 1 << at;
            at = if at >= 6 { 0 } else { at.saturating_add(1) };
        }
        Ok(mask)
    })
}

fn time(text: &str) -> Result<Time, String> {
    let read = || {
        let (hour, minute) = text.split_once(':')?;
        let digits = |text: &str| text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        (digits(hour) && digits(minute)).then_some(())?;
        Time::new(hour.parse().ok()?, minute.parse().ok()?, 0, 0).ok()
    };
    read().ok_or_else(|| {
        let text: String = text.chars().take(20).collect();
        format!("{text:?} is no time from 00:00 to 23:59")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opening(window: &str, zone: &str, now: &str) -> String {
        let window = Window::read(window, Zone::find(zone).unwrap()).unwrap();
        let opening = window.opening(now.parse().unwrap()).unwrap();
        let short = |at: Timestamp| at.strftime("%dT%H:%M").to_string();
        format!("{} {}", short(opening.from), short(opening.to))
    }

    #[test]
    fn a_window_belongs_to_the_day_of_its_opening() {
        // 21 November 2026 is a Saturday.
        for (window, zone, now, expected) in [
            ("01:00-05:00", "UTC", "2026-11-21T00:59:59Z", "21T01:00 21T05:00"),
            ("01:00-05:00", "UTC", "2026-11-21T04:59:59Z", "21T01:00 21T05:00"),
            ("01:00-05:00", "UTC", "2026-11-21T05:00:00Z", "22T01:00 22T05:00"),
            ("Sat,Sun 01:00-05:00", "UTC", "2026-11-22T06:00:00Z", "28T01:00 28T05:00"),
            ("fri 22:00-06:00", "UTC", "2026-11-21T05:00:00Z", "20T22:00 21T06:00"),
            ("sat 22:00-06:00", "UTC", "2026-11-21T05:00:00Z", "21T22:00 22T06:00"),
            ("Fri-Mon 00:00-24:00", "UTC", "2026-11-24T00:00:00Z", "27T00:00 28T00:00"),
            ("Sun 12:00-13:00; Wednesday 10:00-11:00", "UTC", "2026-11-22T14:00:00Z", "25T10:00 25T11:00"),
            ("Sat 22:00-06:00", "Asia/Tokyo", "2026-11-21T14:00:00Z", "21T13:00 21T21:00"),
            // The night of the clock change is an hour longer or shorter.
            ("Sat 22:00-06:00", "Europe/Berlin", "2026-10-24T21:00:00Z", "24T20:00 25T05:00"),
            ("Sat 22:00-06:00", "Europe/Berlin", "2026-03-28T22:00:00Z", "28T21:00 29T04:00"),
            // What the change skips whole is not open that day.
            ("Sun 02:10-02:50", "Europe/Berlin", "2026-03-28T22:00:00Z", "05T00:10 05T00:50"),
        ] {
            assert_eq!(opening(window, zone, now), expected, "{window} at {now}");
        }
    }

    #[test]
    fn every_wrong_window_gets_one_line_with_the_cure() {
        for (text, expected) in [
            ("", "each part has"),
            ("Sat", "a `-` between"),
            ("Sat,Sun", "a `-` between"),
            ("Someday 01:00-05:00", "\"Someday\" is no day"),
            ("Sat 1:00-5:00", "\"1:00\" is no time"),
            ("Sat 01:00-25:00", "\"25:00\" is no time"),
            ("01:00-01:00", "as long as nothing"),
            ("24:00-01:00", "\"24:00\" is no time"),
            ("a b c", "each part has"),
            ("01:00-02:00;", "each part has"),
            (&"01:00-02:00;".repeat(9), "part"),
        ] {
            let error = Window::read(text, Zone::utc()).unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains('\n'), "{text:?}: {error}");
        }
    }
}
