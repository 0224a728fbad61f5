//! What is in the archive of one system, and whether a way through it is whole.

use std::collections::{BTreeMap, BTreeSet};

use crate::depot::{Depot, Place};
use crate::error::Error;
use crate::wal::{self, Left, Lsn, Name, Segment, Size};

fn below(place: &Place, system: u64) -> String {
    format!("{}/{system}/", place.wal())
}

/// The first segment of a timeline after this name.
///
/// # Errors
/// If the archive cannot be listed.
pub async fn first_after(
    depot: &Depot,
    system: u64,
    timeline: u32,
    name: &str,
) -> Result<Option<String>, Error> {
    let names = depot.names(&format!("{}{timeline:08X}/", below(&depot.place, system))).await?;
    let last_parts = names.iter().filter_map(|key| key.rsplit('/').next());
    let segments = last_parts.filter(|other| matches!(Name::parse(other), Some(Name::Segment { .. })));
    Ok(segments.filter(|other| *other > name).min().map(str::to_owned))
}

/// The timelines of which there is a history or WAL, in order.
///
/// # Errors
/// If the archive cannot be listed.
pub async fn timelines(depot: &Depot, system: u64) -> Result<BTreeSet<u32>, Error> {
    let names = depot.names(&below(&depot.place, system)).await?;
    Ok(names.iter().filter_map(|key| Name::parse(key.rsplit('/').next()?)).map(Name::timeline).collect())
}

/// Everything in the archive of one system.
pub struct Shelf {
    size: Size,
    segments: BTreeMap<u32, BTreeSet<u64>>,
    histories: BTreeSet<u32>,
}

/// A timeline with everything that it descends from, the oldest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// Where each ancestor was left.
    pub left: Vec<Left>,
    /// The timeline itself.
    pub timeline: u32,
}

impl Shelf {
    /// Reads the list.
    ///
    /// # Errors
    /// If the archive cannot be listed.
    pub async fn read(depot: &Depot, system: u64, size: Size) -> Result<Self, Error> {
        let names = depot.names(&below(&depot.place, system)).await?;
        Ok(Self::of(size, names.iter().filter_map(|key| key.rsplit('/').next())))
    }

    fn of<'a>(size: Size, names: impl Iterator<Item = &'a str>) -> Self {
        let mut shelf = Self { size, segments: BTreeMap::new(), histories: BTreeSet::new() };
        for name in names {
            if let Some(Name::History { timeline }) = Name::parse(name) {
                shelf.histories.insert(timeline);
            } else if let Some(Segment { timeline, number }) = size.segment(name) {
                shelf.segments.entry(timeline).or_default().insert(number);
            }
        }
        shelf
    }

    /// The newest timeline of which there is anything.
    pub fn newest_timeline(&self) -> Option<u32> {
        self.segments.keys().chain(&self.histories).max().copied()
    }

    /// The way to a timeline, by its history.
    ///
    /// # Errors
    /// If the history is missing or cannot be read.
    pub async fn way(&self, depot: &Depot, system: u64, timeline: u32) -> Result<Way, Error> {
        if timeline == 1 {
            return Ok(Way { left: Vec::new(), timeline });
        }
        let name = format!("{timeline:08X}.history");
        let key = format!("{}{name}", below(&depot.place, system));
        let text = match depot.text(&key).await {
            Err(Error::Missing(_)) => {
                return Err(Error::Damaged(format!(
                    "{key} is missing: archive it from the pg_wal of a server that has followed that timeline"
                )));
            }
            text => text?,
        };
        let left = wal::history(timeline, &text).map_err(|why| Error::Damaged(format!("{key}: {why}")))?;
        Ok(Way { left, timeline })
    }

    /// The newest segment of a timeline.
    pub fn newest(&self, timeline: u32) -> Option<u64> {
        self.segments.get(&timeline).and_then(|numbers| numbers.last()).copied()
    }

    /// The lowest segments that are missing from a segment on to the newest of the way, or to `to`; at most ten.
    /// Empty if the way is whole.
    pub fn missing(&self, way: &Way, from: u64, to: Option<u64>) -> Vec<String> {
        let newest = self.last(way, from);
        let end = match to {
            Some(to) => to,
            None => newest.map_or(from, |(number, _)| number),
        };
        let missing = (from..=end).filter(|number| self.holder(way, *number).is_none());
        let named = missing.map(|number| {
            let timeline = way.owners(self.size, number).next().unwrap_or(way.timeline);
            self.size.name(Segment { timeline, number })
        });
        named.take(10).collect()
    }

    /// The newest segment of the way, and whose it is; `None` if there is none from `from` on.
    pub fn last(&self, way: &Way, from: u64) -> Option<(u64, u32)> {
        let all = way.left.iter().map(|left| left.timeline).chain([way.timeline]);
        let of = |timeline: u32| {
            // An ancestor counts up to where it was left: what it wrote afterwards is on no way.
            let until = way.end(timeline).map(|at| self.size.number_before(at));
            let until = until.unwrap_or(u64::MAX);
            // It may have been left before `from`, which a range does not take.
            let numbers = self.segments.get(&timeline).filter(|_| from <= until)?;
            let newest = numbers.range(from..=until).next_back().copied()?;
            Some((newest, timeline))
        };
        all.filter_map(of).max()
    }

    /// Whose segment of this number a recovery along the way reads; `None` if it is missing.
    pub fn holder(&self, way: &Way, number: u64) -> Option<u32> {
        for timeline in way.owners(self.size, number) {
            if self.segments.get(&timeline).is_some_and(|all| all.contains(&number)) {
                return Some(timeline);
            }
            // Only a timeline of which nothing was archived is left out: the older one's copy ends where it began.
            let newer = self.segments.range(timeline..).filter(|(one, _)| way.has(**one));
            if newer.into_iter().any(|(_, all)| all.range(number..).next().is_some()) {
                return None;
            }
        }
        None
    }

    /// How many segments there are.
    pub fn len(&self) -> usize {
        self.segments.values().map(BTreeSet::len).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Way {
    /// Where a timeline was left; `None` for the last, which was not.
    pub fn end(&self, timeline: u32) -> Option<Lsn> {
        self.left.iter().find(|left| left.timeline == timeline).map(|left| left.at)
    }

    fn has(&self, timeline: u32) -> bool {
        timeline == self.timeline || self.left.iter().any(|left| left.timeline == timeline)
    }

    /// Whether a place on a timeline is on this way.
    pub fn holds(&self, timeline: u32, at: Lsn) -> bool {
        timeline == self.timeline || self.end(timeline).is_some_and(|end| at <= end)
    }

    /// The timelines whose segment of this number is on the way, the newest first: a new timeline begins with a copy of
    /// the segment in which the old one was left.
    fn owners(&self, size: Size, number: u64) -> impl Iterator<Item = u32> {
        let begin = move |at: usize| {
            at.checked_sub(1).and_then(|at| self.left.get(at)).map(|left| size.number(left.at))
        };
        let all = self.left.iter().map(|left| (left.timeline, Some(size.number_before(left.at))));
        let all: Vec<_> = all.chain([(self.timeline, None)]).enumerate().collect();
        let fits = move |(at, (timeline, end)): (usize, (u32, Option<u64>))| {
            let begun = begin(at).is_none_or(|begin| begin <= number);
            (begun && end.is_none_or(|end| number <= end)).then_some(timeline)
        };
        all.into_iter().rev().filter_map(fits)
    }
}

#[cfg(test)]
mod tests {
    use super::{Shelf, Way};
    use crate::wal::{Left, Lsn, Size};

    const MIB: u64 = 1 << 20;

    fn shelf(names: &[&str]) -> Shelf {
        Shelf::of(Size::new(MIB).unwrap(), names.iter().copied())
    }

    #[test]
    fn a_way_is_whole_or_says_what_is_missing() {
        // Timeline 1 was left in the middle of its segment 3, which was archived as a partial one only.
        let names = [
            "000000010000000000000001",
            "000000010000000000000002",
            "000000010000000000000003.partial",
            "00000002.history",
            "000000020000000000000003",
            "000000020000000000000004",
        ];
        let way = Way { left: vec![Left { timeline: 1, at: Lsn(3 * MIB + 100) }], timeline: 2 };
        let whole = shelf(&names);
        assert_eq!(whole.missing(&way, 1, None), Vec::<String>::new());
        assert_eq!(whole.last(&way, 1), Some((4, 2)));
        assert_eq!(whole.last(&way, 4), Some((4, 2)), "timeline 1 was left before");
        assert_eq!(whole.newest_timeline(), Some(2));
        assert!(way.holds(1, Lsn(3 * MIB)) && !way.holds(1, Lsn(4 * MIB)) && way.holds(2, Lsn(9 * MIB)));
        for (at, name) in [(1, "000000010000000000000002"), (4, "000000020000000000000003")] {
            let mut rest = names.to_vec();
            rest.remove(at);
            assert_eq!(shelf(&rest).missing(&way, 1, None), [name]);
        }
        assert_eq!(whole.missing(&way, 0, Some(1)), ["000000010000000000000000"]);
        // The old primary went on in the segment in which its timeline was left: that is not the new one's.
        let mut other = names.to_vec();
        other.retain(|name| *name != "000000020000000000000003");
        other.push("000000010000000000000003");
        assert_eq!(shelf(&other).missing(&way, 1, None), ["000000020000000000000003"]);
        other.retain(|name| *name != "000000020000000000000004");
        assert_eq!(shelf(&other).missing(&way, 1, None), Vec::<String>::new());
        // What the old primary wrote on its timeline afterwards belongs to no way.
        let mut more = names.to_vec();
        more.push("000000010000000000000007");
        assert_eq!(shelf(&more).last(&way, 1), Some((4, 2)));
    }

    #[test]
    fn a_timeline_left_at_the_end_of_a_segment_is_whole_without_the_next() {
        let way = Way { left: vec![Left { timeline: 1, at: Lsn(2 * MIB) }], timeline: 2 };
        let both = shelf(&["000000010000000000000001", "000000020000000000000002"]);
        assert_eq!(both.missing(&way, 1, None), Vec::<String>::new());
    }
}
