//! Sums over epochs, restarts and clocks that are set, against a slow model; and the bounds.

use super::*;

/// A generator whose sequence a failure names by its seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

fn service(n: u64) -> Service {
    format!("s{n}").parse().unwrap()
}

fn of(run: RunId, order: &Name) -> RunOf<'_> {
    RunOf { run, task: "upgrade@3", order }
}

/// Journals grow over epochs while a clock is set forward and back; agents look at any moment, die before or after what they
/// wrote, write what they know already, compact and read again. In the end each journaled downtime counts once, on the day
/// that its journal says.
#[test]
fn each_journaled_downtime_counts_once_whoever_dies_and_whatever_the_clock_says() {
    let order: Name = "work".parse().unwrap();
    for seed in 0..300 {
        let mut dice = Dice(seed);
        let mut journals: BTreeMap<RunId, Vec<Journaled>> = BTreeMap::new();
        let mut disk: Vec<DowntimeEntry> = Vec::new();
        let mut totals = DowntimeTotals::default();
        let mut now: i64 = 1_790_000_000;
        let mut epochs: BTreeMap<RunId, u32> = BTreeMap::new();
        for _ in 0..dice.roll(120) {
            now += i64::try_from(dice.roll(50_000)).unwrap() - if dice.roll(5) == 0 { 90_000 } else { 0 };
            let run = RunId::new(1_000 + dice.roll(5), 1);
            let epoch = epochs.entry(run).or_insert(1);
            *epoch += u32::from(dice.roll(6) == 0);
            let journal = journals.entry(run).or_default();
            let number = journal.last().filter(|last| last.epoch == *epoch).map_or(0, |last| last.number) + 1;
            let at = Timestamp::from_second(now).unwrap();
            let downtime = Downtime {
                service: service(dice.roll(3)),
                seconds: Millis(dice.roll(5_000)),
                from: None,
                to: None,
                failed: dice.roll(4),
            };
            journal.push(Journaled { epoch: *epoch, number, at, downtime });
            if dice.roll(2) == 0 {
                // An agent looks at a run.
                let looked = journals.keys().nth(usize::try_from(dice.roll(5)).unwrap());
                let Some(looked) = looked.copied() else { continue };
                let facts = totals.uncounted(&of(looked, &order), &journals[&looked]);
                disk.extend(facts.iter().cloned());
                match dice.roll(6) {
                    // It died behind the write: the next one reads the disk, and repeats the last facts.
                    0 => {
                        totals = DowntimeTotals::default();
                        disk.extend(facts);
                        disk.iter().cloned().for_each(|fact| totals.take(fact));
                    }
                    // The record is written anew.
                    1 => {
                        facts.into_iter().for_each(|fact| totals.take(fact));
                        disk = totals.facts().collect();
                        totals = DowntimeTotals::default();
                        disk.iter().cloned().for_each(|fact| totals.take(fact));
                    }
                    _ => facts.into_iter().for_each(|fact| totals.take(fact)),
                }
            }
        }
        for (run, journal) in &journals {
            let facts = totals.uncounted(&of(*run, &order), journal);
            facts.into_iter().for_each(|fact| totals.take(fact));
        }
        // The slow model: all journals, added up by hand.
        let mut days: BTreeMap<(Day, Service), Cost> = BTreeMap::new();
        let mut lifetimes: BTreeMap<Service, Cost> = BTreeMap::new();
        for one in journals.values().flatten() {
            let date: i64 = one.at.as_second().div_euclid(86_400);
            let day = Day(i32::try_from(date).unwrap());
            for sum in [
                days.entry((day, one.downtime.service.clone())).or_default(),
                lifetimes.entry(one.downtime.service.clone()).or_default(),
            ] {
                sum.seconds.0 += one.downtime.seconds.0;
                sum.failed += one.downtime.failed;
            }
        }
        assert_eq!((&totals.days, &totals.lifetimes), (&days, &lifetimes), "seed {seed}");
        for (run, journal) in &journals {
            let spent: u64 = totals.runs[run].services.values().map(|cost| cost.seconds.0).sum();
            assert_eq!(spent, journal.iter().map(|one| one.downtime.seconds.0).sum::<u64>(), "seed {seed}");
        }
    }
}

fn counted(run: u64, task: &str, day: i32, service: &str) -> DowntimeEntry {
    DowntimeEntry::Counted {
        run: RunId::new(run, 1),
        task: task.parse().unwrap(),
        order: "o".parse().unwrap(),
        epoch: 1,
        number: 1,
        at: Day(day).begins(),
        downtime: Downtime {
            service: service.parse().unwrap(),
            seconds: Millis(1),
            from: None,
            to: None,
            failed: 0,
        },
    }
}

#[test]
fn a_day_begins_at_midnight_in_utc_and_is_written_as_a_date() {
    let at: Timestamp = "2026-11-29T00:00:00Z".parse().unwrap();
    assert_eq!((Day::of(at).begins(), Day::of(at).to_string()), (at, "2026-11-29".to_owned()));
    assert_eq!(Day::of("2026-11-28T23:59:59.999Z".parse().unwrap()), Day::of(at).plus(-1));
    assert_eq!(Day(i32::MAX).begins(), Timestamp::MAX);
}

#[test]
fn the_newest_days_services_and_runs_are_kept_and_those_that_stand() {
    let mut totals = DowntimeTotals::default();
    for day in 0..1_000 {
        totals.take(counted(u64::try_from(day).unwrap(), "often", 20_000 + day, "web"));
    }
    totals.take(counted(5_000, "rare", 20_500, "db"));
    let standing = BTreeSet::from([RunId::new(3, 1)]);
    totals.trim(&standing);
    assert_eq!(totals.days.len(), MAX_DAYS, "{:?}", totals.days.first_key_value());
    assert_eq!(totals.days.first_key_value().unwrap().0.0, Day(20_600));
    assert_eq!(totals.lifetimes[&"web".parse::<Service>().unwrap()].seconds, Millis(1_000));
    assert_eq!(
        totals.samples(&"often".parse().unwrap(), &"web".parse().unwrap()).len(),
        MAX_RUNS_OF_TASK + 1
    );
    assert_eq!(totals.samples(&"rare".parse().unwrap(), &"db".parse().unwrap()).len(), 1);
    assert!(totals.runs.contains_key(&RunId::new(3, 1)), "what may still report is known");
    for n in 0..u64::try_from(MAX_SERVICES).unwrap() + 5 {
        totals.take(counted(10_000 + n, "t", 21_500, &format!("s{n}")));
    }
    totals.trim(&standing);
    assert_eq!(totals.lifetimes.len(), MAX_SERVICES);
    assert!(!totals.lifetimes.contains_key(&"web".parse::<Service>().unwrap()), "the others are newer");
}

#[test]
fn lines_are_read_as_they_stand_in_a_file() {
    let lines = [
        r#"{"fact":"counted","run":"00000003W80000000000000001","task":"t","order":"o","epoch":1,"number":1,"at":"2026-11-29T10:00:00Z","service":"web","seconds":0.42,"failed":3}"#,
        r#"{"fact":"sum","day":20000,"service":"web","seconds":1.5,"failed":0}"#,
        r#"{"fact":"lifetime","service":"web","seconds":9.0,"failed":1}"#,
        r#"{"fact":"run","run":"00000003W80000000000000002","task":"t","order":"o","at":"2026-11-29T10:00:00Z","counted":[2,1],"services":{"web":{"seconds":1.0,"failed":0}}}"#,
    ];
    let mut totals = DowntimeTotals::default();
    for line in lines {
        let fact: DowntimeEntry = serde_json::from_str(line).unwrap();
        assert_eq!(serde_json::to_string(&fact).unwrap(), line);
        totals.take(fact);
    }
    assert_eq!((totals.days.len(), totals.runs.len()), (2, 2));
    assert_eq!(totals.lifetimes.values().next().unwrap().seconds, Millis(9_000));
}
