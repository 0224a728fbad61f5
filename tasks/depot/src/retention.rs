//! Which backups are kept: one pure function over names and times.
//!
//! A rule `daily: 7` keeps the newest good backup of each of the newest seven days *that have one*. Days without a
//! backup do not count, so an outage does not use the rule up. A backup that is dated later than now fills no period
//! and is not the newest: it is kept, and the others are judged as if it were not there.
//!
//! Whatever the rules say, these are kept: the newest good backup; all that a kept one builds on; and all that is
//! not good, because what is not understood is not deleted. A backup is good if its bytes are there and all that it
//! builds on is good. Empty backups are judged among themselves: they never push out one that holds something. Hours, days, weeks (from Monday) and months are those of UTC: they know no summer time.

use std::collections::{BTreeSet, HashMap};

use jiff::Timestamp;
use jiff::civil::ISOWeekDate;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::store::clock::MAX_SKEW;

/// The rules for one database. Without any rule all is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Keep {
    /// Hours.
    pub hourly: u32,
    /// Days.
    pub daily: u32,
    /// Weeks.
    pub weekly: u32,
    /// Months.
    pub monthly: u32,
}

impl Keep {
    /// Nothing is said.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What the rules look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Name, unique.
    pub name: String,
    /// When it was begun.
    pub time: Timestamp,
    /// What it builds on.
    pub parent: Option<String>,
    /// Its bytes are there.
    pub whole: bool,
    /// It was made of no byte.
    pub empty: bool,
}

/// A rule's period that a time falls into, as something that sorts by time.
type Period = (i32, i32);

fn periods(time: Timestamp) -> [Period; 4] {
    let at = time.to_zoned(TimeZone::UTC).datetime();
    let week: ISOWeekDate = at.date().iso_week_date();
    let day = i32::from(at.day_of_year());
    [
        (i32::from(at.year()), day * 24 + i32::from(at.hour())),
        (i32::from(at.year()), day),
        (i32::from(week.year()), i32::from(week.week())),
        (i32::from(at.year()), i32::from(at.month())),
    ]
}

/// For each item the good chain below it, by index; `None` where it is broken.
fn chain(at: usize, items: &[Item], index: &HashMap<&str, usize>) -> Option<Vec<usize>> {
    let mut links = Vec::new();
    let mut next = at;
    loop {
        let item = items.get(next)?;
        // A ring of parents can be written by hand; it can never be restored.
        if !item.whole || links.len() > items.len() {
            return None;
        }
        links.push(next);
        match &item.parent {
            None => return Some(links),
            Some(parent) => next = *index.get(parent.as_str())?,
        }
    }
}

/// Whether a time is later than clocks can differ.
pub fn is_future(time: Timestamp, now: Timestamp) -> bool {
    time.duration_since(now) > MAX_SKEW
}

/// The names of those that go, at the time `now`. All others are kept.
pub fn goes(items: &[Item], keep: Keep, now: Timestamp) -> BTreeSet<String> {
    if keep.is_empty() {
        return BTreeSet::new();
    }
    let index: HashMap<&str, usize> =
        items.iter().enumerate().map(|(at, item)| (item.name.as_str(), at)).collect();
    let mut good: Vec<(&Item, Vec<usize>)> =
        items.iter().enumerate().filter_map(|(at, item)| Some((item, chain(at, items, &index)?))).collect();
    // Newest first.
    good.sort_by(|(one, _), (other, _)| (other.time, &other.name).cmp(&(one.time, &one.name)));
    let counts = [keep.hourly, keep.daily, keep.weekly, keep.monthly];
    let mut stays: BTreeSet<usize> = BTreeSet::new();
    for empty in [false, true] {
        let mut seen: [BTreeSet<Period>; 4] = Default::default();
        let mut newest = true;
        for (item, links) in good.iter().filter(|(item, _)| item.empty == empty) {
            if is_future(item.time, now) {
                stays.extend(links);
                continue;
            }
            let mut wanted = std::mem::take(&mut newest);
            for ((period, count), seen) in periods(item.time).into_iter().zip(counts).zip(&mut seen) {
                if seen.len() < count as usize && seen.insert(period) {
                    wanted = true;
                }
            }
            if wanted {
                stays.extend(links);
            }
        }
    }
    // What is not good stays, and with it whatever it says that it builds on.
    let fine: BTreeSet<usize> = good.iter().filter_map(|(_, links)| links.first().copied()).collect();
    for (at, item) in items.iter().enumerate().filter(|(at, _)| !fine.contains(at)) {
        stays.insert(at);
        let mut parent = item.parent.as_deref();
        while let Some(next) = parent.and_then(|name| index.get(name)) {
            if !stays.insert(*next) {
                break;
            }
            parent = items.get(*next).and_then(|item| item.parent.as_deref());
        }
    }
    good.iter()
        .filter_map(|(item, links)| links.first().filter(|at| !stays.contains(at)).map(|_| item.name.clone()))
        .collect()
}

#[cfg(test)]
#[path = "retention_tests.rs"]
mod tests;
