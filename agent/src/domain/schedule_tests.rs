//! The schedule against a slow and obvious model: a wall clock that walks minute by minute, ten years in ten zones.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use super::*;

/// Zones with clock changes of every kind: of an hour and of half an hour, north and south, at midnight, given up,
/// moved by a decree, across the date line, and none at all.
const ZONES: [&str; 10] = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Sao_Paulo",
    "Australia/Lord_Howe",
    "Asia/Kolkata",
    "Pacific/Apia",
    "Africa/Casablanca",
    "America/Havana",
    "Asia/Pyongyang",
];

/// What a wall clock shows.
struct Wall {
    minute: i8,
    hour: i8,
    day: i8,
    month: i8,
    weekday: i8,
}

type Names = fn(&Wall) -> bool;

/// Expressions, and the same in plain words.
const EXPRESSIONS: [(&str, Names); 6] = [
    ("30 2 * * *", |w| w.hour == 2 && w.minute == 30),
    ("*/20 0-3 * * *", |w| w.minute % 20 == 0 && w.hour <= 3),
    ("0 0 * * 1-5", |w| w.hour == 0 && w.minute == 0 && (1..=5).contains(&w.weekday)),
    ("15,45 1-3 1,15 * sun", |w| {
        (w.minute == 15 || w.minute == 45)
            && (1..=3).contains(&w.hour)
            && (w.day == 1 || w.day == 15 || w.weekday == 0)
    }),
    ("5 */6 * mar,oct *", |w| w.minute == 5 && w.hour % 6 == 0 && (w.month == 3 || w.month == 10)),
    ("59 23 29 2 *", |w| w.minute == 59 && w.hour == 23 && w.day == 29 && w.month == 2),
];

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

impl Wall {
    /// What it shows at so many local minutes since 1970.
    fn at(minutes: i64) -> Self {
        let days = Calendar::new().days(minutes.div_euclid(1440));
        let date = jiff::civil::date(1970, 1, 1).checked_add(days).unwrap();
        let of_day = minutes.rem_euclid(1440);
        let weekday = date.weekday().to_sunday_zero_offset();
        let (hour, minute) = (i8::try_from(of_day / 60).unwrap(), i8::try_from(of_day % 60).unwrap());
        Self { minute, hour, day: date.day(), month: date.month(), weekday }
    }

    /// A minute later; `minutes` since 1970.
    fn step(&mut self, minutes: i64) {
        self.minute += 1;
        if self.minute == 60 {
            (self.minute, self.hour) = (0, self.hour + 1);
        }
        if self.hour == 24 {
            *self = Self::at(minutes);
        }
    }
}

/// All instants of each expression from `from` to `to`: every minute the clock on the wall is looked at. A minute that
/// it showed before is not looked at again; minutes that it jumped over are looked at when it has jumped.
fn walk(zone: &str, from: Timestamp, to: Timestamp) -> Vec<Vec<Timestamp>> {
    let rules = jiff::tz::TimeZone::get(zone).unwrap();
    let mut changes = rules.following(from).map(|change| change.timestamp().as_second()).peekable();
    let offset = |second: i64| i64::from(rules.to_offset(Timestamp::from_second(second).unwrap()).seconds());
    let (mut second, end) = (from.as_second(), to.as_second());
    let mut ahead = offset(second);
    let mut shown = (second + ahead).div_euclid(60) - 1;
    let mut found = vec![Vec::new(); EXPRESSIONS.len()];
    let mut wall = Wall::at(shown);
    while second <= end {
        if changes.peek().is_some_and(|change| *change <= second) {
            changes.next();
            ahead = offset(second);
        }
        let now = (second + ahead).div_euclid(60);
        while shown < now {
            shown += 1;
            wall.step(shown);
            for ((_, names), found) in EXPRESSIONS.iter().zip(&mut found) {
                let instant = || Timestamp::from_second(second).unwrap();
                if names(&wall) && found.last() != Some(&instant()) {
                    found.push(instant());
                }
            }
        }
        second += 60;
    }
    found
}

/// From before the decrees of 2011, 2015 and 2018, so that there is something to stumble over.
fn decade() -> (Timestamp, Timestamp) {
    (at("2010-01-01T00:00:00Z"), at("2020-01-01T00:00:00Z"))
}

/// Does something for each zone, with the instants that the model says; two zones at once.
fn each_zone(work: impl Fn(usize, &str, &[Vec<Timestamp>]) + Sync) {
    static WALKED: [OnceLock<Vec<Vec<Timestamp>>>; ZONES.len()] = [const { OnceLock::new() }; ZONES.len()];
    let (from, to) = decade();
    let of = |n: usize| work(n, ZONES[n], WALKED[n].get_or_init(|| walk(ZONES[n], from, to)));
    std::thread::scope(|scope| {
        scope.spawn(|| (0..5).for_each(of));
        (5..ZONES.len()).for_each(of);
    });
}

#[test]
fn ten_years_in_ten_zones_are_as_the_clock_on_the_wall_says() {
    let (from, to) = decade();
    each_zone(|_, zone, model| {
        for ((text, _), expected) in EXPRESSIONS.iter().zip(model) {
            let schedule = Schedule::read(text, Zone::find(zone).unwrap(), None).unwrap();
            let mut instant = from - Duration::from_secs(1);
            for (i, expected) in expected.iter().enumerate() {
                let next = schedule.next(instant).unwrap();
                assert_eq!(next, *expected, "{text} in {zone}, after {instant}");
                if i % 7 == 0 {
                    assert!(schedule.names(next), "{text} in {zone}: {next}");
                    let just_before = next - Duration::from_secs(1);
                    assert!(schedule.last(just_before).unwrap() <= instant.max(just_before));
                    if i > 0 {
                        assert_eq!(
                            schedule.last(just_before),
                            Some(instant),
                            "{text} in {zone}: before {next}"
                        );
                    }
                }
                instant = next;
            }
            assert!(schedule.next(instant).unwrap() > to, "{text} in {zone}: too few");
        }
    });
}

/// Numbers that are the same in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// A host that is looked at again and again, and now and then not for hours or days: down, or with a clock that is set.
#[test]
fn with_outages_no_instant_fires_twice_and_none_is_lost_beyond_the_rules() {
    let (from, to) = decade();
    each_zone(|n, zone, model| {
        for ((text, _), instants) in EXPRESSIONS.iter().zip(model) {
            let mut dice = Dice(u64::try_from(n).unwrap());
            let catch_up = [None, Some(Span::secs(0)), Some(Span::secs(4 * 3600))][n % 3];
            let splay = Duration::from_secs(dice.below(900));
            let schedule = Schedule::read(text, Zone::find(zone).unwrap(), catch_up).unwrap();
            let mut handled = from - Duration::from_secs(1);
            // What became of each instant: when it fired, or `None` where it was missed.
            let mut fate: BTreeMap<Timestamp, Option<Timestamp>> = BTreeMap::new();
            let mut now = from;
            while now < to {
                if let Some(due) = schedule.due(handled, now, splay) {
                    let from = instants.partition_point(|instant| *instant <= handled);
                    let to = instants.partition_point(|instant| *instant + splay <= now);
                    let come = &instants[from..to];
                    assert_eq!(come.last(), Some(&due.newest), "{text} in {zone} at {now}");
                    assert_eq!(come.len(), usize::try_from(due.missed).unwrap() + usize::from(due.fires));
                    for instant in come {
                        let fired = (due.fires && *instant == due.newest).then_some(now);
                        assert!(fate.insert(*instant, fired).is_none(), "{instant} was handled twice");
                    }
                    handled = due.newest;
                }
                let next = schedule.next(handled.max(now - splay)).unwrap() + splay;
                now = match dice.below(40) {
                    // An outage, of minutes up to four days.
                    0 => next + Duration::from_secs(60 * dice.below(5760)),
                    // A clock that is set back by hours, and looked at.
                    1 => {
                        let back = now - Duration::from_secs(60 * dice.below(600));
                        assert_eq!(schedule.due(handled, back.min(handled + splay), splay), None);
                        next
                    }
                    // Something else happens between.
                    2 => now + Duration::from_secs(dice.below(3600)),
                    _ => next,
                };
            }
            for instant in instants.iter().filter(|instant| **instant <= handled) {
                let late = match fate.get(instant) {
                    None => panic!("{text} in {zone}: {instant} was lost"),
                    Some(Some(fired)) => fired.duration_since(*instant + splay),
                    Some(None) => continue,
                };
                let interval = Duration::try_from(schedule.next(*instant).unwrap().duration_since(*instant));
                let most = catch_up.map_or((interval.unwrap() / 2).min(MAX_CATCH_UP), |span| span.0);
                let most = i64::try_from(most.max(ON_TIME).as_secs()).unwrap();
                assert!(
                    (0..=most).contains(&late.as_secs()),
                    "{text} in {zone}: {instant} came {late:?} late"
                );
            }
            let fired = fate.values().flatten().count();
            let most_missed = if text.starts_with("*/20") { 10 } else { 2 };
            assert!(fired * most_missed > fate.len(), "{text} in {zone}: {fired} of {}", fate.len());
        }
    });
}

#[test]
fn missed_instants_are_counted_and_only_the_newest_may_fire() {
    let daily = |catch_up: Option<&str>| {
        let catch_up = catch_up.map(|text| text.parse().unwrap());
        Schedule::read("30 2 * * *", Zone::utc(), catch_up).unwrap()
    };
    let handled = at("2026-11-18T02:30:00Z");
    for (catch_up, now, fires, missed) in [
        (None, "2026-11-19T02:30:00Z", true, 0),
        (None, "2026-11-19T08:30:00Z", true, 0),
        (None, "2026-11-19T08:30:01Z", false, 1),
        (Some("0s"), "2026-11-19T02:30:59Z", true, 0),
        (Some("0s"), "2026-11-19T02:31:01Z", false, 1),
        (Some("20h"), "2026-11-21T22:30:00Z", true, 2),
        (Some("20h"), "2026-11-21T22:30:01Z", false, 3),
    ] {
        let due = daily(catch_up).due(handled, at(now), Duration::ZERO).unwrap();
        assert_eq!((due.fires, due.missed), (fires, missed), "{catch_up:?} at {now}");
    }
    assert_eq!(daily(None).due(handled, at("2026-11-19T02:29:59Z"), Duration::ZERO), None);
    let minutely = Schedule::read("* * * * *", Zone::utc(), None).unwrap();
    let due = minutely.due(at("2020-01-01T00:00:00Z"), at("2026-01-01T00:00:00Z"), Duration::ZERO).unwrap();
    assert_eq!(due.missed, MAX_COUNTED, "counting ends");
}
