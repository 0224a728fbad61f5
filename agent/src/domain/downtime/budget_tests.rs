//! Gates open and close at the right second, against a model that looks at every second and adds up everything.

use std::collections::BTreeMap;

use super::*;
use crate::domain::downtime::totals::{Cost, Spender};
use crate::domain::downtime::{Target, Window};
use crate::domain::ids::RunId;

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn web() -> Service {
    "web".parse().unwrap()
}

fn objective(target: f64, days: u16) -> Objective {
    Objective {
        service: "w*".parse().unwrap(),
        target: Target::try_from(target).unwrap(),
        window: Window::days(days).unwrap(),
    }
}

fn totals(days: &[(i32, u64)]) -> DowntimeTotals {
    let mut totals = DowntimeTotals::default();
    for (day, ms) in days {
        let cost = Cost { seconds: Millis(*ms), failed: 0 };
        totals.days.insert((Day(*day), web()), cost);
        // Another service never counts.
        totals.days.insert((Day(*day), "other".parse().unwrap()), cost);
    }
    totals
}

/// Whether the gate is open, as the manual says it: each objective, each day of its window.
fn is_open(days: &[(i32, u64)], objectives: &[Objective], needs: u64, second: i64) -> bool {
    let today = second.div_euclid(86_400);
    objectives.iter().all(|objective| {
        let length = i64::from(objective.window.length());
        let in_window = |day: i32| i64::from(day) > today - length;
        let spent: u64 = days.iter().filter(|(day, _)| in_window(*day)).map(|(_, ms)| *ms).sum();
        spent + needs <= objective.budget().0
    })
}

#[test]
fn a_gate_opens_and_closes_at_the_right_second() {
    let task = name("upgrade");
    let (mut opened, mut never, mut open) = (0, 0, 0);
    for seed in 0..600 {
        let mut dice = Dice(seed);
        let mut days: BTreeMap<i32, u64> = BTreeMap::new();
        for _ in 0..dice.roll(9) {
            *days.entry(20_000 + i32::try_from(dice.roll(14)).unwrap()).or_default() += dice.roll(90_000);
        }
        let days: Vec<(i32, u64)> = days.into_iter().collect();
        let mut objectives = vec![objective(
            [99.9, 99.99, 99.0][usize::try_from(dice.roll(3)).unwrap()],
            1 + u16::try_from(dice.roll(9)).unwrap(),
        )];
        if dice.roll(2) == 0 {
            objectives.push(objective(99.95, 1 + u16::try_from(dice.roll(9)).unwrap()));
        }
        let needs = dice.roll(200_000);
        let totals = totals(&days);
        let asked = Asked {
            totals: &totals,
            objectives: &objectives,
            task: &task,
            service: &web(),
            needs: Some(Millis(needs)),
        };
        // Around each midnight, and at some second of each day.
        let from = 19_998 * 86_400;
        for day in 0..20 {
            let midnight = from + day * 86_400;
            for second in [midnight, midnight + i64::try_from(dice.roll(86_400)).unwrap(), midnight + 86_399]
            {
                let now = Timestamp::from_second(second).unwrap();
                let found = closed(&asked, now);
                let expected = is_open(&days, &objectives, needs, second);
                assert_eq!(found.is_none(), expected, "seed {seed}, {now}: {found:?}");
                let Some(Closed { opens, why }) = found else {
                    open += 1;
                    continue;
                };
                match opens {
                    Some(at) => {
                        opened += 1;
                        // Closed to the very second before, and open from then on.
                        assert!(at > now, "seed {seed}: {why}");
                        assert!(is_open(&days, &objectives, needs, at.as_second()), "seed {seed}: {why}");
                        let midnights = (day + 1..).map(|day| from + day * 86_400);
                        for earlier in midnights.take_while(|midnight| *midnight < at.as_second()) {
                            assert!(!is_open(&days, &objectives, needs, earlier), "seed {seed}: {why}");
                        }
                        assert!(
                            !is_open(&days, &objectives, needs, at.as_second() - 1),
                            "seed {seed}: {why}"
                        );
                        assert!(closed(&asked, at).is_none());
                    }
                    None => {
                        never += 1;
                        let far = second + 400 * 86_400;
                        assert!(!is_open(&days, &objectives, needs, far), "seed {seed}: {why}");
                    }
                }
            }
        }
    }
    assert!(opened > 1_000 && never > 500 && open > 1_000, "{opened} {never} {open}");
}

#[test]
fn without_a_word_of_its_own_a_task_needs_what_it_cost_before() {
    let samples = |n: u64| (1..=n).map(Millis).collect::<Vec<_>>();
    assert_eq!(Needs::of_samples(Vec::new()), Needs::Unknown);
    assert_eq!(Needs::of_samples(samples(1)), Needs::Largest(Millis(1), 1));
    assert_eq!(Needs::of_samples(samples(19)), Needs::Largest(Millis(19), 19));
    assert_eq!(Needs::of_samples(samples(20)), Needs::Percentile(Millis(19), 20));
    assert_eq!(Needs::of_samples(samples(100)), Needs::Percentile(Millis(95), 100));
    // A slow model: the smallest sample that at least 95 % do not exceed.
    for n in 20..=100_u64 {
        let slow = (1..=n).find(|at| (1..=n).filter(|other| other <= at).count() as u64 * 100 >= n * 95);
        assert_eq!(Needs::of_samples(samples(n)).amount(), Millis(slow.unwrap()), "{n}");
    }
}

#[test]
fn samples_are_those_of_the_same_task_and_service() {
    let (task, now) = (name("upgrade"), Day(20_000).begins());
    let mut totals = totals(&[]);
    let run = |task: &str, service: &str, ms: u64| Spender {
        task: name(task),
        order: name("o"),
        at: now,
        counted: (1, 1),
        services: [(service.parse().unwrap(), Cost { seconds: Millis(ms), failed: 0 })].into(),
    };
    let objectives = [objective(99.9, 1)];
    let gate = |totals: &DowntimeTotals, needs| {
        let asked = Asked { totals, objectives: &objectives, task: &task, service: &web(), needs };
        closed(&asked, now)
    };
    assert_eq!(gate(&totals, None), None, "no sample, and a whole budget");
    totals.runs.insert(RunId::new(1, 1), run("other", "web", 999_999));
    totals.runs.insert(RunId::new(2, 1), run("upgrade", "db", 999_999));
    totals.runs.insert(RunId::new(3, 1), run("upgrade", "web", 86_400));
    assert_eq!(gate(&totals, None), None, "exactly the budget of 86.4 s");
    totals.runs.insert(RunId::new(4, 1), run("upgrade", "web", 86_401));
    let why = gate(&totals, None).unwrap();
    assert_eq!(
        why.why,
        "the error budget of web (99.9 % over 1d) has 1m26s left of 1m26s, and the task needs 1m26s, the largest of its 2 \
         downtimes here: more than the whole budget"
    );
    assert_eq!(why.opens, None);
    assert_eq!(gate(&totals, Some(Millis(86_400))), None, "what the gate says counts");
}

#[test]
fn a_budget_is_overspent_unknown_or_any() {
    let (task, service) = (name("t"), web());
    let totals = totals(&[(20_000, 100_000)]);
    let gate = |objectives: &[Objective], needs, day: i32| {
        closed(
            &Asked { totals: &totals, objectives, task: &task, service: &service, needs },
            Day(day).begins(),
        )
    };
    let unknown = gate(&[], None, 20_000).unwrap();
    assert!(unknown.why.contains("no objective of this host covers the service web"), "{}", unknown.why);
    let objectives = [objective(99.9, 1)];
    let over = gate(&objectives, Some(Millis(0)), 20_000).unwrap();
    assert!(over.why.contains("is overspent by 13.6 s of 1m26s, and the task needs 0 s"), "{}", over.why);
    assert_eq!(over.opens, Some(Day(20_001).begins()));
    // Without a sample there has to be something left.
    let any = gate(&objectives, None, 20_000).unwrap();
    assert!(any.why.contains("needs any budget at all"), "{}", any.why);
    assert_eq!(gate(&objectives, None, 20_001), None);
    // The clock was set back: a day to come counts.
    assert!(gate(&objectives, None, 19_999).is_some());
    let left = &budgets(&totals, &objectives, &service, Day(20_000).begins())[0];
    assert_eq!((left.left(), left.ratio() < 0.0), (-13_600, true));
}
