//! The rules held against a model that looks at one backup at a time and is too slow for anything else.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::*;

/// What the model knows of a moment: text, cut to the hour, day, week and month.
fn labels(time: Timestamp) -> [String; 4] {
    let text = time.to_string();
    // Weeks counted in days from a Monday, not by the calendar of the implementation.
    let monday: Timestamp = "1969-12-29T00:00:00Z".parse().unwrap();
    let week = time.duration_since(monday).as_secs().div_euclid(7 * 86_400);
    [text[..13].to_owned(), text[..10].to_owned(), week.to_string(), text[..7].to_owned()]
}

fn find<'a>(items: &'a [Item], name: &str) -> Option<&'a Item> {
    items.iter().find(|item| item.name == name)
}

fn good(items: &[Item], item: &Item, depth: usize) -> bool {
    item.whole
        && depth <= items.len()
        && item
            .parent
            .as_ref()
            .is_none_or(|parent| find(items, parent).is_some_and(|one| good(items, one, depth + 1)))
}

/// Names that stay: those good ones that are the newest of a period among the newest periods, and all below them.
fn model(items: &[Item], keep: Keep, now: Timestamp) -> BTreeSet<String> {
    let late = |item: &Item| item.time > now + SignedDuration::from_mins(5);
    let mut stays: BTreeSet<String> =
        items.iter().filter(|item| late(item) || !good(items, item, 0)).map(|i| i.name.clone()).collect();
    for empty in [true, false] {
        let mut sorted: Vec<&Item> =
            items.iter().filter(|item| good(items, item, 0) && !late(item) && item.empty == empty).collect();
        sorted.sort_by_key(|item| (item.time, item.name.clone()));
        stays.extend(sorted.last().map(|item| item.name.clone()));
        for (rule, count) in [keep.hourly, keep.daily, keep.weekly, keep.monthly].into_iter().enumerate() {
            let mut periods: Vec<String> = Vec::new();
            for item in sorted.iter().rev() {
                let label = labels(item.time)[rule].clone();
                if !periods.contains(&label) {
                    periods.push(label.clone());
                    if periods.len() <= count as usize {
                        stays.insert(item.name.clone());
                    }
                }
            }
        }
    }
    loop {
        let more: Vec<String> = stays
            .iter()
            .filter_map(|name| find(items, name)?.parent.clone())
            .filter(|name| !stays.contains(name))
            .collect();
        if more.is_empty() {
            return stays;
        }
        stays.extend(more);
    }
}

/// Years of backups: gaps from minutes to weeks, a clock that is set back and forth, broken ones, empty ones, chains.
fn history() -> impl Strategy<Value = Vec<Item>> {
    let begin =
        prop::sample::select(vec!["2023-12-30T22:00:00Z", "2024-02-27T23:30:00Z", "2026-12-20T00:00:00Z"]);
    let step = prop_oneof![6 => 10..200i64, 6 => 1000..2000i64, 3 => 5000..40_000i64, 1 => -100_000..-1i64];
    let one = (step, 0..20u8, 0..8usize);
    (begin, prop::collection::vec(one, 1..120)).prop_map(|(begin, steps)| {
        let mut time: Timestamp = begin.parse().unwrap();
        let mut items: Vec<Item> = Vec::new();
        for (at, (minutes, fate, back)) in steps.into_iter().enumerate() {
            time += SignedDuration::from_mins(minutes);
            let parent = (back > 0 && back <= at).then(|| format!("b{}", at - back));
            items.push(Item { name: format!("b{at}"), time, parent, whole: fate > 0, empty: fate > 17 });
        }
        items
    })
}

/// The time of now: after all of them, or somewhere among them, because clocks were ahead.
fn moment(items: &[Item], at: usize) -> Timestamp {
    let last = items.iter().map(|item| item.time).max().unwrap();
    items.get(at).map_or(last + SignedDuration::from_hours(1), |item| item.time)
}

fn rules() -> impl Strategy<Value = Keep> {
    (0..30u32, 0..15u32, 0..10u32, 0..14u32).prop_map(|(hourly, daily, weekly, monthly)| Keep {
        hourly,
        daily,
        weekly,
        monthly,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_rules_are_those_of_the_model(items in history(), keep in rules(), at in 0..240usize) {
        let now = moment(&items, at);
        let gone = goes(&items, keep, now);
        let stays: BTreeSet<String> =
            items.iter().map(|item| item.name.clone()).filter(|name| !gone.contains(name)).collect();
        if keep.is_empty() {
            prop_assert!(gone.is_empty());
        } else {
            prop_assert_eq!(stays, model(&items, keep, now));
        }
    }

    #[test]
    fn what_stays_can_be_restored_and_stays_the_next_time(items in history(), keep in rules(), at in 0..240usize) {
        let now = moment(&items, at);
        let gone = goes(&items, keep, now);
        let left: Vec<Item> = items.iter().filter(|item| !gone.contains(&item.name)).cloned().collect();
        for item in &left {
            if good(&items, item, 0) {
                prop_assert!(good(&left, item, 0), "{} lost what it builds on", item.name);
            }
        }
        let real = |item: &&Item| good(&items, item, 0) && !is_future(item.time, now) && !item.empty;
        if let Some(newest) = items.iter().filter(real).max_by_key(|item| (item.time, &item.name)) {
            prop_assert!(!gone.contains(&newest.name));
        }
        prop_assert!(items.iter().filter(|item| !good(&items, item, 0)).all(|item| !gone.contains(&item.name)));
        prop_assert_eq!(goes(&left, keep, now), BTreeSet::new(), "nothing more goes without something new");
    }

    #[test]
    fn what_a_wrong_clock_has_dated_or_an_empty_stream_has_made_changes_nothing_for_the_others(
        items in history(), keep in rules(), late in prop::collection::vec((0..400_000i64, any::<bool>()), 1..20)
    ) {
        let now = moment(&items, usize::MAX);
        let full: Vec<Item> = items.into_iter().filter(|item| !item.empty).map(|mut item| {
            item.parent = None;
            item
        }).collect();
        let mut with = full.clone();
        for (at, (minutes, future)) in late.iter().enumerate() {
            let away = SignedDuration::from_mins(*minutes);
            let time = if *future { now + SignedDuration::from_mins(6) + away } else { now - away };
            with.push(Item { name: format!("odd{at}"), time, parent: None, whole: true, empty: !future });
        }
        let gone: BTreeSet<String> =
            goes(&with, keep, now).into_iter().filter(|name| !name.starts_with("odd")).collect();
        prop_assert_eq!(gone, goes(&full, keep, now));
        let later = goes(&with, keep, now);
        let lost = late.iter().enumerate().any(|(at, (_, future))| *future && later.contains(&format!("odd{at}")));
        prop_assert!(!lost, "what is dated later than now went");
    }
}

#[test]
fn three_years_of_a_daily_backup_leave_what_was_asked_for() {
    let begin: Timestamp = "2024-01-01T01:00:00Z".parse().unwrap();
    let keep = Keep { hourly: 0, daily: 7, weekly: 4, monthly: 12 };
    let mut items: Vec<Item> = Vec::new();
    for day in 0..3 * 366 {
        let time = begin + SignedDuration::from_hours(24 * day);
        items.push(Item { name: format!("d{day:04}"), time, parent: None, whole: true, empty: false });
        let gone = goes(&items, keep, time);
        items.retain(|item| !gone.contains(&item.name));
        assert!(items.len() <= 7 + 4 + 12, "day {day}");
    }
    let leap = labels("2024-02-29T01:00:00Z".parse().unwrap());
    assert_eq!(leap[3], "2024-02", "the leap day is of February");
    let months: BTreeSet<String> = items.iter().map(|item| labels(item.time)[3].clone()).collect();
    assert_eq!(months.len(), 12);
    // Each month is told by its last day, but for the running one.
    let day_after =
        |item: &Item| labels(item.time + SignedDuration::from_hours(24))[3] != labels(item.time)[3];
    assert!(items.iter().filter(|item| day_after(item)).count() >= 11);
}

#[test]
fn a_ring_of_parents_is_no_hang_and_deletes_nothing() {
    let time: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let item = |name: &str, parent: &str| Item {
        name: name.to_owned(),
        time,
        parent: Some(parent.to_owned()),
        whole: true,
        empty: false,
    };
    let items = [item("a", "b"), item("b", "a"), item("c", "c"), item("d", "gone")];
    assert_eq!(goes(&items, Keep { daily: 1, ..Keep::default() }, time), BTreeSet::new());
}
