//! Cron expressions: which local minutes they name. No zone and no instant; those are `schedule`'s.
//!
//! Five fields, as every cron reads them: minute, hour, day of the month, month, day of the week; lists,
//! ranges, steps, names of months and days, and `@daily` with its like. Where both days are restricted, either
//! is enough, and a field that begins with `*` restricts nothing: cron's old rule, which operators know.

use std::fmt;

use jiff::civil::{Date, DateTime, Weekday};

/// So many days are searched for the next or the last one: 29 February on one day of the week comes at least so often.
const MAX_DAYS: usize = 41 * 366;

/// The longest expression: it is kept with the order, and no sensible one is half as long.
const MAX_BYTES: usize = 200;

/// Why a text is no cron expression, with the place in it and the cure.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadCron(String);

/// One expression, read.
#[derive(Clone, PartialEq, Eq)]
pub struct Cron {
    text: String,
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Both kinds of days are restricted: either is enough.
    either_day: bool,
}

struct Field {
    name: &'static str,
    from: u32,
    to: u32,
    names: &'static [&'static str],
}

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

const FIELDS: [Field; 5] = [
    Field { name: "minute", from: 0, to: 59, names: &[] },
    Field { name: "hour", from: 0, to: 23, names: &[] },
    Field { name: "day of the month", from: 1, to: 31, names: &[] },
    Field { name: "month", from: 1, to: 12, names: &MONTHS },
    Field { name: "day of the week", from: 0, to: 7, names: &DAYS },
];

const SHORT: [(&str, &str); 7] = [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
];

impl Cron {
    /// Reads an expression.
    pub fn read(text: &str) -> Result<Self, BadCron> {
        let short: String = text.chars().take(80).collect();
        let bad = |why: String| BadCron(format!("{short:?} is not a cron expression: {why}"));
        let text = text.trim();
        if text.len() > MAX_BYTES {
            return Err(bad(format!("it is longer than {MAX_BYTES} bytes")));
        }
        let expression = match SHORT.iter().find(|(short, _)| *short == text) {
            Some((_, long)) => long,
            None if text.starts_with('@') => {
                let known: Vec<&str> = SHORT.iter().map(|(short, _)| *short).collect();
                return Err(bad(format!("of the short forms there are {}", known.join(", "))));
            }
            None => text,
        };
        let words: Vec<&str> = expression.split_ascii_whitespace().collect();
        if words.len() != FIELDS.len() {
            return Err(bad(format!(
                "it has {} fields, and five are needed: minute, hour, day of the month, month, day of the week",
                words.len()
            )));
        }
        let mut masks = [0_u64; 5];
        for (i, (field, word)) in FIELDS.iter().zip(&words).enumerate() {
            let mask = field.read(word).map_err(|why| {
                let word: String = word.chars().take(40).collect();
                bad(format!("field {} ({}), {word:?}: {why}", i + 1, field.name))
            })?;
            if let Some(slot) = masks.get_mut(i) {
                *slot = mask;
            }
        }
        let [minutes, hours, days, months, weekdays] = masks;
        // Sunday is 0 and 7.
        let weekdays = (weekdays | weekdays >> 7) & 0x7f;
        let restricted = |i: usize| words.get(i).is_some_and(|word| !word.starts_with('*'));
        let either_day = restricted(2) && restricted(4);
        let cron = Self { text: text.to_owned(), minutes, hours, days, months, weekdays, either_day };
        if cron.first_from(DateTime::constant(2000, 1, 1, 0, 0, 0, 0)).is_none() {
            return Err(bad("no month that it names has such a day, so it would never fire".into()));
        }
        Ok(cron)
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The first minute that it names, not before `from`.
    pub fn first_from(&self, from: DateTime) -> Option<DateTime> {
        let mut date = from.date();
        let mut least = (from.hour(), from.minute());
        for _ in 0..MAX_DAYS {
            if self.names_day(date)
                && let Some((hour, minute)) = self.first_time(least)
            {
                return Some(date.at(hour, minute, 0, 0));
            }
            date = date.tomorrow().ok()?;
            least = (0, 0);
        }
        None
    }

    /// The last minute that it names, not after `to`.
    pub fn last_to(&self, to: DateTime) -> Option<DateTime> {
        let mut date = to.date();
        let mut most = (to.hour(), to.minute());
        for _ in 0..MAX_DAYS {
            if self.names_day(date)
                && let Some((hour, minute)) = self.last_time(most)
            {
                return Some(date.at(hour, minute, 0, 0));
            }
            date = date.yesterday().ok()?;
            most = (23, 59);
        }
        None
    }

    fn names_day(&self, date: Date) -> bool {
        let has = |mask: u64, bit: i8| mask >> bit & 1 == 1;
        let day = has(self.days, date.day());
        let weekday = has(self.weekdays, date.weekday().to_sunday_zero_offset());
        has(self.months, date.month()) && if self.either_day { day || weekday } else { day && weekday }
    }

    fn first_time(&self, (hour, minute): (i8, i8)) -> Option<(i8, i8)> {
        if self.hours >> hour & 1 == 1
            && let Some(minute) = lowest(self.minutes & u64::MAX << minute)
        {
            return Some((hour, minute));
        }
        Some((lowest(self.hours & u64::MAX << (hour + 1))?, lowest(self.minutes)?))
    }

    fn last_time(&self, (hour, minute): (i8, i8)) -> Option<(i8, i8)> {
        if self.hours >> hour & 1 == 1
            && let Some(minute) = highest(self.minutes & !(u64::MAX << (minute + 1)))
        {
            return Some((hour, minute));
        }
        Some((highest(self.hours & !(u64::MAX << hour))?, highest(self.minutes)?))
    }
}

impl fmt::Debug for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(f)
    }
}

fn lowest(mask: u64) -> Option<i8> {
    (mask != 0).then(|| i8::try_from(mask.trailing_zeros()).ok()).flatten()
}

fn highest(mask: u64) -> Option<i8> {
    (mask != 0).then(|| i8::try_from(63 - mask.leading_zeros()).ok()).flatten()
}

/// A day of the week by its name, in any case: the first three letters or all of them.
pub(super) fn weekday(name: &str) -> Option<Weekday> {
    const WHOLE: [&str; 7] = ["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"];
    let name = name.to_ascii_lowercase();
    let day = DAYS.iter().position(|day| *day == name).or(WHOLE.iter().position(|day| *day == name))?;
    Weekday::from_sunday_zero_offset(i8::try_from(day).ok()?).ok()
}

impl Field {
    fn read(&self, word: &str) -> Result<u64, String> {
        word.split(',').try_fold(0, |mask, part| Ok(mask | self.part(part)?))
    }

    fn part(&self, part: &str) -> Result<u64, String> {
        let (range, step) = match part.split_once('/') {
            None => (part, None),
            Some((range, step)) => {
                let step = step.parse::<u32>().ok().filter(|step| (1..=self.to).contains(step));
                (range, Some(step.ok_or_else(|| format!("a step is a number from 1 to {}", self.to))?))
            }
        };
        let (from, to) = match range.split_once('-') {
            _ if range == "*" => (self.from, self.to),
            Some((from, to)) => (self.value(from)?, self.value(to)?),
            // `5/15` is from 5 on, every 15.
            None => (self.value(range)?, if step.is_some() { self.to } else { self.value(range)? }),
        };
        // `Fri-Sun`: a week may end with Sunday.
        let to = if self.to == 7 && to == 0 && from > 0 { 7 } else { to };
        if from > to {
            return Err("the first of a range is the smaller one: write two ranges with a comma".into());
        }
        let every = usize::try_from(step.unwrap_or(1)).unwrap_or(1);
        Ok((from..=to).step_by(every).fold(0, |mask, value| mask | 1 << value))
    }

    fn value(&self, text: &str) -> Result<u32, String> {
        let lower = text.to_ascii_lowercase();
        let named = self.names.iter().position(|name| *name == lower);
        let named = named.and_then(|i| u32::try_from(i).ok()).map(|i| i + self.from);
        let digits = text.len() <= 2 && !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse::<u32>().ok().filter(|_| digits);
        named.or(number).filter(|value| (self.from..=self.to).contains(value)).ok_or_else(|| {
            let names = match (self.names.first(), self.names.last()) {
                (Some(first), Some(last)) => format!(" or {first} to {last}"),
                _ => String::new(),
            };
            let text: String = text.chars().take(20).collect();
            format!("{text:?} is not a number from {} to {}{names}", self.from, self.to)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(text: &str, from: &str) -> String {
        Cron::read(text).unwrap().first_from(from.parse().unwrap()).unwrap().to_string()
    }

    #[test]
    fn expressions_name_what_every_cron_says() {
        for (text, from, expected) in [
            ("* * * * *", "2026-01-01T00:00", "2026-01-01T00:00:00"),
            ("30 2 * * *", "2026-01-01T02:31", "2026-01-02T02:30:00"),
            ("*/15 8-10 * * *", "2026-01-01T10:46", "2026-01-02T08:00:00"),
            ("5/20 * * * *", "2026-01-01T10:26", "2026-01-01T10:45:00"),
            ("0 0 1,15 * *", "2026-01-02T00:00", "2026-01-15T00:00:00"),
            ("0 4 * JAN-mar sun", "2026-03-30T00:00", "2027-01-03T04:00:00"),
            ("0 4 * * 7", "2026-01-01T00:00", "2026-01-04T04:00:00"),
            ("0 4 * * Fri-Sun", "2026-01-01T00:00", "2026-01-02T04:00:00"),
            // Either day is enough where both are restricted: Friday, 2 January, comes before the 13th.
            ("0 0 13 * fri", "2026-01-01T00:00", "2026-01-02T00:00:00"),
            // A field that begins with a star restricts nothing, so both must hold.
            ("0 0 */2 * fri", "2026-01-01T00:00", "2026-01-09T00:00:00"),
            ("0 0 29 2 *", "2026-01-01T00:00", "2028-02-29T00:00:00"),
            ("0 0 29 2 *", "2096-03-01T00:00", "2104-02-29T00:00:00"),
            ("@monthly", "2026-01-01T00:01", "2026-02-01T00:00:00"),
            ("@weekly", "2026-01-01T00:00", "2026-01-04T00:00:00"),
        ] {
            assert_eq!(first(text, from), expected, "{text} from {from}");
        }
    }

    #[test]
    fn the_last_one_before_is_the_first_one_after_the_one_before() {
        for text in ["* * * * *", "30 2 * * *", "*/7 3,5 1-7 * 1", "0 0 29 2 *", "59 23 31 12 *"] {
            let cron = Cron::read(text).unwrap();
            let mut at: DateTime = "2020-01-01T00:00".parse().unwrap();
            for _ in 0..50 {
                let next = cron.first_from(at).unwrap();
                assert_eq!(cron.last_to(next).unwrap(), next, "{text}");
                let after = next.checked_add(jiff::Span::new().minutes(1)).unwrap();
                let between = cron.first_from(after).unwrap();
                let before = between.checked_sub(jiff::Span::new().minutes(1)).unwrap();
                assert_eq!(cron.last_to(before).unwrap(), next, "{text}");
                at = after;
            }
        }
    }

    #[test]
    fn every_wrong_expression_gets_one_line_with_place_and_cure() {
        for (text, expected) in [
            ("", "0 fields"),
            ("* * * *", "4 fields"),
            ("0 0 0 * * *", "6 fields"),
            ("60 * * * *", "field 1 (minute), \"60\": \"60\" is not a number from 0 to 59"),
            ("0 24 * * *", "field 2 (hour)"),
            ("0 0 0 * *", "from 1 to 31"),
            ("0 0 * foo *", "or jan to dec"),
            ("0 0 * * 8", "or sun to sat"),
            ("0 22-2 * * *", "write two ranges"),
            ("*/0 * * * *", "a step is a number from 1 to 59"),
            ("1, * * * *", "\"\" is not a number"),
            ("+1 * * * *", "is not a number"),
            ("0 0 30 2 *", "never fire"),
            ("0 0 31 4,6 *", "never fire"),
            ("@reboot", "@daily"),
            ("\n\u{7}* * * * x", "field 1"),
        ] {
            let error = Cron::read(text).unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains('\n'), "{text:?}: {error}");
        }
    }
}
