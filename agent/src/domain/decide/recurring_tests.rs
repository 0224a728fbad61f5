//! Rows for orders that come again: what a schedule, a window, a state to hold, a clock and an outage lead to.

use jiff::SignedDuration;

use super::*;
use crate::domain::reconcile::ProbeAnswer;
use crate::domain::state::{Closing, Stage};

pub(crate) const NIGHTLY: &str = "30 2 * * *";

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// An order with a schedule; `more` are further terms.
fn scheduled(schedule: &str, more: &str) -> String {
    format!("{{task: t, revision: r1, by: r1, spread: 0s, schedule: '{schedule}'{more}}}")
}

impl Model {
    /// A host at noon of a Saturday, with one order in place.
    pub(crate) fn with(key: &str, order: &str) -> Self {
        let mut model = Self::new();
        model.now = at("2026-11-21T12:00:00Z");
        model.write(key, order);
        model
    }

    pub(crate) fn write(&mut self, key: &str, order: &str) {
        self.index += 10;
        self.put_at(key, order, self.index);
        self.settle();
    }

    pub(crate) fn go_to(&mut self, time: &str) {
        self.now = at(time);
        self.settle();
    }

    /// Lets time go by as the agent would see it: it wakes when it asked to be woken.
    pub(crate) fn live_until(&mut self, time: &str) {
        let end = at(time);
        for _ in 0..100_000 {
            let wake = self.decision.wake.filter(|wake| *wake < end);
            self.now = wake.map_or(end, |wake| wake.max(self.now + SignedDuration::from_millis(1)));
            self.settle();
            if self.now >= end {
                return;
            }
        }
        panic!("it wakes too often: last for {:?}", self.decision.wake);
    }

    pub(crate) fn end_runs(&mut self, end: End) {
        for (key, run) in std::mem::take(&mut self.running) {
            self.memory.apply(LedgerEntry::Closed {
                key,
                run,
                closing: Closing { end, error: None, at: self.now, run: None },
            });
        }
        self.settle();
    }

    /// The probe of the order is asked, and says so.
    fn says(&mut self, answer: ProbeAnswer) {
        let key: OrderKey = HOST.parse().unwrap();
        assert_eq!(self.asked, std::slice::from_ref(&key), "it is asked at {}", self.now);
        self.answers.entry(key).or_default().take(self.now, answer);
        self.settle();
    }

    pub(crate) fn of(&self, key: &str) -> &crate::domain::state::OrderState {
        &self.memory.orders[&key.parse().unwrap()]
    }

    pub(crate) fn wait_of(&self, key: &str) -> (Reason, String) {
        let wait = &self.decision.waits[&key.parse().unwrap()];
        (wait.reason, wait.until.map(|until| until.to_string()).unwrap_or_default())
    }

    fn counts(&self) -> (u32, u32) {
        let standing = &self.of(HOST).recurrence;
        (standing.missed, standing.overlaps)
    }
}

#[test]
fn placing_a_schedule_starts_nothing_and_each_instant_fires_once() {
    let mut model = Model::with(HOST, &scheduled(NIGHTLY, ", timezone: Europe/Berlin"));
    assert!(model.started().is_empty());
    assert_eq!(model.wait_of(HOST), (Reason::Schedule, "2026-11-22T01:30:00Z".into()));
    for (time, fires) in [
        ("2026-11-22T01:29:59Z", false),
        ("2026-11-22T01:30:00Z", true),
        ("2026-11-22T01:30:01Z", false),
        ("2026-11-22T23:00:00Z", false),
        ("2026-11-23T01:30:20Z", true),
    ] {
        model.go_to(time);
        model.restart();
        let started = model.started();
        assert_eq!(started.len(), usize::from(fires), "{time}: {started:?}");
    }
    assert_eq!(model.counts(), (0, 0));
}

#[test]
fn terms_that_change_start_nothing_that_was_due_before_they_did() {
    // Each of these is seen at noon, after an instant of the new schedule that would be worth catching up.
    for change in ["0 11 * * *", "*/5 * * * *", "0 11 * * 6"] {
        let mut model = Model::with(HOST, &scheduled(NIGHTLY, ""));
        model.write(HOST, &scheduled(change, ", catch_up: 6h"));
        model.restart();
        assert!(model.started().is_empty(), "{change}");
        model.live_until("2026-11-28T12:00:00Z");
        assert!(!model.started().is_empty(), "{change}");
    }
    // A finished order that gets a schedule fires when that comes; one that loses it is not carried out for that.
    let mut model = Model::with(HOST, "{task: t, revision: r1, by: r1}");
    assert_eq!(model.started(), ["hosts/h/o r1"]);
    model.write(HOST, &scheduled(NIGHTLY, ""));
    assert!(model.started().is_empty());
    model.live_until("2026-11-22T03:00:00Z");
    assert_eq!(model.started(), ["hosts/h/o firing 2026-11-22T02:30:00Z"]);
    model.write(HOST, "{task: t, revision: r1, by: r1}");
    model.live_until("2026-11-25T03:00:00Z");
    assert!(model.started().is_empty());
    // The same schedule again: from then on.
    model.write(HOST, &scheduled(NIGHTLY, ""));
    assert!(model.started().is_empty());
    model.live_until("2026-11-26T02:30:00Z");
    assert_eq!(model.started().len(), 1);
}

#[test]
fn only_the_newest_of_the_missed_fires_and_only_if_it_is_not_too_late() {
    for (catch_up, back, fires, missed) in [
        ("", "2026-11-24T08:30:00Z", true, 2),
        ("", "2026-11-24T08:31:00Z", false, 3),
        (", catch_up: 0s", "2026-11-24T02:32:00Z", false, 3),
        (", catch_up: 12h", "2026-11-24T14:00:00Z", true, 2),
    ] {
        let mut model = Model::with(HOST, &scheduled(NIGHTLY, catch_up));
        model.now = at(back);
        model.restart();
        assert_eq!(model.started().len(), usize::from(fires), "{catch_up} {back}");
        assert_eq!(model.counts(), (missed, 0), "{catch_up} {back}");
        model.restart();
        assert!(model.started().is_empty());
    }
}

#[test]
fn due_while_one_runs_waits_or_needs_an_operator_is_skipped() {
    let mut model = Model::with(HOST, &scheduled("0 * * * *", ""));
    model.ends = None;
    model.live_until("2026-11-21T15:30:00Z");
    assert_eq!(model.started(), ["hosts/h/o firing 2026-11-21T13:00:00Z"]);
    assert_eq!(model.counts(), (0, 2));
    model.end_runs(End::NeedsOperator);
    model.live_until("2026-11-21T16:30:00Z");
    assert_eq!((model.started().len(), model.counts()), (0, (0, 3)), "a person has to speak first");
    // One that waits for its window.
    let mut model = Model::with(HOST, &scheduled("0 * * * *", ", window: 20:00-21:00"));
    model.live_until("2026-11-21T19:59:00Z");
    assert_eq!(model.wait_of(HOST), (Reason::Window, "2026-11-21T20:00:00Z".into()));
    model.live_until("2026-11-21T20:30:00Z");
    assert_eq!(model.started(), ["hosts/h/o firing 2026-11-21T13:00:00Z"]);
    assert_eq!(model.counts(), (0, 7));
}

#[test]
fn a_firing_that_waits_goes_with_what_it_came_by() {
    let waiting = || {
        let mut model = Model::with(HOST, &scheduled(NIGHTLY, ", window: 04:00-05:00"));
        model.go_to("2026-11-22T02:31:00Z");
        assert_eq!(model.wait_of(HOST).0, Reason::Window);
        model
    };
    let end = |model: &Model| match &model.of(HOST).current.as_ref().unwrap().stage {
        Stage::Closed(closing) => Some(closing.end),
        _ => None,
    };
    let mut model = waiting();
    model.write(HOST, &scheduled("30 22 * * *", ""));
    assert_eq!(end(&model), Some(End::Superseded), "its instant is none any more");
    let mut model = waiting();
    model.write(HOST, &scheduled("30 2,14 * * *", ""));
    assert_eq!(model.started().len(), 1, "its instant still is one, and the window is gone");
    let mut model = waiting();
    model.write(HOST, "{task: t, revision: r1, by: r1}");
    assert_eq!(end(&model), Some(End::Superseded));
    let mut model = waiting();
    model.write(HOST, &scheduled(NIGHTLY, ", not_after: 2026-11-22T02:30:30Z"));
    assert_eq!(end(&model), Some(End::Expired));
    let mut model = waiting();
    model.delete(HOST);
    model.settle();
    assert_eq!(end(&model), Some(End::Withdrawn));
    let mut model = waiting();
    model.write(HOST, "skip: true");
    assert_eq!(end(&model), Some(End::Skipped));
}

#[test]
fn whatever_becomes_of_the_order_no_instant_fires_twice_and_coming_back_starts_nothing() {
    let order = scheduled(NIGHTLY, "");
    type Change = fn(&mut Model, &str);
    let changes: [(&str, Change); 8] = [
        ("restarted", |model, _| model.restart()),
        ("deleted and written again", |model, order| {
            model.delete(HOST);
            model.settle();
            model.write(HOST, order);
        }),
        ("unreadable and written again", |model, order| {
            model.write(HOST, "task: [");
            model.write(HOST, order);
        }),
        ("skipped and written again", |model, order| {
            model.write(HOST, "skip: true");
            model.write(HOST, order);
        }),
        ("touched", |model, order| model.write(HOST, &order.replace("by: r1", "by: r2"))),
        ("of a restored snapshot", |model, order| {
            model.put_at(HOST, order, 5);
            model.settle();
        }),
        ("out of sight for a while", |model, _| {
            model.visible = false;
            model.settle();
            model.visible = true;
            model.settle();
        }),
        ("under another revision", |model, order| {
            model.write(HOST, &order.replace("revision: r1", "revision: r2"))
        }),
    ];
    for (what, change) in changes {
        // The clock stands just after the instant, and what was handled is handled.
        let mut model = Model::with(HOST, &order);
        model.go_to("2026-11-22T02:30:00Z");
        assert_eq!(model.started().len(), 1);
        model.now = at("2026-11-22T02:30:10Z");
        change(&mut model, &order);
        model.restart();
        assert!(model.started().is_empty(), "{what}");
        model.live_until("2026-11-23T02:30:00Z");
        let started = model.started();
        assert_eq!(started, ["hosts/h/o firing 2026-11-23T02:30:00Z"], "{what}");
        // And once more with the clock set back by a day: never twice.
        model.clock = Clock::Trusted;
        model.go_to("2026-11-22T02:00:00Z");
        change(&mut model, &order);
        model.live_until("2026-11-23T12:00:00Z");
        assert!(model.started().is_empty(), "{what}");
    }
}

#[test]
fn an_order_that_is_only_uncovered_does_not_come_again_until_it_is_edited() {
    let mut model = Model::with(ALL, &scheduled(NIGHTLY, ""));
    model.live_until("2026-11-22T03:00:00Z");
    assert_eq!(model.started().len(), 1);
    // A host that is exempt for a night: the group's order does not come back by an absence.
    model.write(HOST, "skip: true");
    model.live_until("2026-11-23T03:00:00Z");
    model.delete(HOST);
    model.settle();
    model.restart();
    model.live_until("2026-11-24T03:00:00Z");
    assert_eq!((model.held(ALL), model.started().len()), (Some(Hold::Fallback), 0));
    model.write(ALL, &scheduled(NIGHTLY, ", reason: again"));
    assert_eq!((model.held(ALL), model.started().len()), (None, 0));
    model.live_until("2026-11-25T03:00:00Z");
    assert_eq!(model.started(), ["groups/all/o firing 2026-11-25T02:30:00Z"]);
    // Leaving the group and joining it again: withdrawn meanwhile, and from then on again.
    model.sources.pop();
    model.live_until("2026-11-26T03:00:00Z");
    model.sources.push("groups/all".parse().unwrap());
    model.settle();
    assert!(model.started().is_empty());
    model.live_until("2026-11-27T03:00:00Z");
    assert_eq!(model.started().len(), 1);
}

#[test]
fn the_hosts_of_a_group_fire_one_after_the_other_each_at_its_own_time() {
    let order = "{task: t, revision: r1, by: r1, spread: 30m, schedule: '30 2 * * *'}";
    let mut offsets = BTreeSet::new();
    for n in 0..20 {
        let mut model = Model::new();
        model.now = at("2026-11-21T12:00:00Z");
        model.host = format!("h{n}").parse().unwrap();
        model.write(ALL, order);
        let (_, until) = model.wait_of(ALL);
        model.live_until("2026-11-22T03:00:00Z");
        assert_eq!(
            model.started(),
            ["groups/all/o firing 2026-11-22T02:30:00Z"],
            "the instant is not the offset's"
        );
        assert!(model.of(ALL).current.as_ref().unwrap().at < at("2026-11-22T03:00:00Z"));
        offsets.insert(until);
    }
    assert!(offsets.len() > 15, "{offsets:?}");
}

#[test]
fn not_before_and_not_after_bound_a_schedule() {
    let bounds = ", not_before: 2026-11-23T02:30:00Z, not_after: 2026-11-24T12:00:00Z";
    let mut model = Model::with(HOST, &scheduled(NIGHTLY, bounds));
    assert_eq!(model.wait_of(HOST).1, "2026-11-23T02:30:00Z");
    model.live_until("2026-11-30T00:00:00Z");
    let fired = ["23", "24"].map(|day| format!("hosts/h/o firing 2026-11-{day}T02:30:00Z"));
    assert_eq!(model.started(), fired);
    assert!(model.decision.waits.is_empty(), "nothing comes any more");
}

#[test]
fn a_schedule_that_its_task_does_not_bear_is_refused_until_it_is_written_again() {
    let mut model = Model::new();
    model.now = at("2026-11-21T12:00:00Z");
    model.refused = Some("no such task".into());
    model.write(HOST, &scheduled(NIGHTLY, ""));
    assert_eq!(model.of(HOST).unreadable.as_ref().unwrap().message, "no such task");
    // Installed in the night: what was given up in the evening does not start.
    model.refused = None;
    model.restart();
    model.live_until("2026-11-23T12:00:00Z");
    assert!(model.started().is_empty());
    model.write(HOST, &scheduled(NIGHTLY, ", reason: again"));
    model.live_until("2026-11-24T12:00:00Z");
    assert_eq!(model.started().len(), 1);
}

#[test]
fn a_window_governs_starts_and_belongs_to_the_day_of_its_opening() {
    let order = |window: &str| format!("{{task: t, revision: r1, by: r1, window: '{window}'}}");
    let mut model = Model::with(HOST, &order("Fri 22:00-06:00"));
    assert_eq!(model.wait_of(HOST), (Reason::Window, "2026-11-27T22:00:00Z".into()));
    model.live_until("2026-11-27T21:59:59Z");
    assert!(model.started().is_empty());
    model.live_until("2026-11-28T00:00:00Z");
    assert_eq!(model.started(), ["hosts/h/o r1"]);
    // Saturday morning still belongs to Friday.
    let mut model = Model::new();
    model.now = at("2026-11-21T05:59:00Z");
    model.write(HOST, &order("Fri 22:00-06:00"));
    assert_eq!(model.started().len(), 1);
}

#[test]
fn a_window_is_asked_again_after_all_waiting() {
    let mut model = Model::with(ALL, "{task: t, revision: r1, by: r1, spread: 300m, window: '11:00-12:30'}");
    // Its place in the spread comes when the window is closed: the next day it is.
    model.live_until("2026-11-21T23:00:00Z");
    assert!(model.started().is_empty());
    assert_eq!(model.wait_of(ALL).0, Reason::Window);
    model.live_until("2026-11-22T12:30:00Z");
    assert_eq!(model.started().len(), 1);
}

#[test]
fn what_depends_on_the_time_waits_for_a_clock_and_nothing_else_does() {
    for (order, waits) in [
        ("{task: t, revision: r1, by: r1}", false),
        ("{task: t, revision: r1, by: r1, window: '00:00-24:00'}", true),
        ("{task: t, revision: r1, by: r1, not_before: 2020-01-01T00:00:00Z}", true),
        // Perhaps it is not late at all: nothing expires by a clock that nobody trusts.
        ("{task: t, revision: r1, by: r1, not_after: 2030-01-01T00:00:00Z}", true),
        ("{task: t, revision: r1, by: r1, reconcile: 15m}", false),
    ] {
        let mut model = Model::new();
        model.now = at("2036-01-01T00:00:00Z");
        model.clock = Clock::Unsynchronised;
        model.write(HOST, order);
        assert_eq!(model.started().is_empty(), waits, "{order}");
        if waits {
            assert_eq!(model.wait_of(HOST).0, Reason::Clock, "{order}");
            let wait = &model.decision.waits[&HOST.parse().unwrap()];
            assert!(wait.detail.as_ref().unwrap().contains("clock: trusted"), "{wait:?}");
            model.now = at("2026-11-21T12:00:00Z");
            model.clock = Clock::Synchronised;
            assert_eq!(model.memory.newest, None, "what a untrusted clock says is no measure");
            model.settle();
            assert_eq!(model.started().len(), 1, "{order}");
        }
    }
}

#[test]
fn a_schedule_under_a_doubtful_clock_loses_nothing_but_time() {
    // Placed while the clock says something from the future.
    let mut model = Model::new();
    model.now = at("2036-01-01T00:00:00Z");
    model.clock = Clock::Unsynchronised;
    model.write(HOST, &scheduled(NIGHTLY, ""));
    assert_eq!(model.wait_of(HOST).0, Reason::Clock);
    assert_eq!(model.of(HOST).recurrence.handled, None, "no instant of a false future is handled");
    model.clock = Clock::Synchronised;
    model.go_to("2026-11-21T12:00:00Z");
    assert_eq!(model.wait_of(HOST).0, Reason::Schedule);
    // A clock behind the ledger waits as well, until it has caught up or somebody says that it is right.
    model.go_to("2026-11-21T11:00:00Z");
    assert_eq!(model.wait_of(HOST).0, Reason::Clock);
    model.clock = Clock::Trusted;
    model.settle();
    assert_eq!(model.wait_of(HOST).0, Reason::Schedule);
    model.live_until("2026-11-22T03:00:00Z");
    assert_eq!(model.started(), ["hosts/h/o firing 2026-11-22T02:30:00Z"]);
    // While it runs on, the synchronisation is lost and found again: the newest missed one fires late.
    model.clock = Clock::Unsynchronised;
    model.go_to("2026-11-24T02:30:00Z");
    assert!(model.started().is_empty());
    model.clock = Clock::Synchronised;
    model.go_to("2026-11-24T04:00:00Z");
    assert_eq!((model.started().len(), model.counts()), (1, (1, 0)));
}

#[test]
fn a_clock_that_is_set_by_hours_fires_nothing_twice_and_loses_nothing_beyond_the_rules() {
    let mut model = Model::with(HOST, &scheduled("0 */2 * * *", ""));
    // Three hours ahead: 14:00 is an hour late, which is half of the interval.
    model.go_to("2026-11-21T15:00:00Z");
    assert_eq!(model.started(), ["hosts/h/o firing 2026-11-21T14:00:00Z"]);
    // Ten hours ahead: four were missed, the newest fires.
    model.go_to("2026-11-22T00:30:00Z");
    assert_eq!((model.started().len(), model.counts()), (1, (4, 0)));
    // Ten hours back: behind the ledger, and nothing of those hours fires again.
    model.go_to("2026-11-21T14:30:00Z");
    assert_eq!(model.wait_of(HOST).0, Reason::Clock);
    model.live_until("2026-11-22T01:59:00Z");
    assert!(model.started().is_empty());
    model.live_until("2026-11-22T02:00:00Z");
    assert_eq!(model.started(), ["hosts/h/o firing 2026-11-22T02:00:00Z"]);
}

#[test]
fn two_does_not_hold_a_minute_apart_start_and_the_third_drift_is_held() {
    let mut model = Model::with(HOST, "{task: t, revision: r1, by: r1, reconcile: 15m}");
    assert_eq!(model.started(), ["hosts/h/o r1"], "placed, it is carried out as any order");
    let drift = |model: &mut Model, from: &str, n: u32| {
        model.go_to(from);
        model.says(ProbeAnswer::DoesNotHold);
        assert!(model.started().is_empty() && model.asked.is_empty(), "once is not enough");
        let second = model.now + SignedDuration::from_secs(60);
        model.go_to(&second.to_string());
        model.says(ProbeAnswer::DoesNotHold);
        assert_eq!(model.started().last().cloned(), (n < 3).then(|| format!("hosts/h/o drift {n}")));
    };
    drift(&mut model, "2026-11-21T12:15:00Z", 1);
    model.restart();
    drift(&mut model, "2026-11-21T12:31:00Z", 2);
    drift(&mut model, "2026-11-21T12:47:00Z", 3);
    assert_eq!(model.held(HOST), Some(Hold::NotConverging));
    model.restart();
    model.go_to("2026-11-22T12:00:00Z");
    assert!(model.asked.is_empty() && model.started().is_empty());
    assert_eq!(model.held(HOST), Some(Hold::NotConverging));
    // Also a restored snapshot lets it not go; an edit does, and starts nothing by itself.
    model.put_at(HOST, "{task: t, revision: r1, by: r1, reconcile: 15m}", 3);
    model.settle();
    assert_eq!(model.held(HOST), Some(Hold::NotConverging));
    model.write(HOST, "{task: t, revision: r1, by: r1, reconcile: 10m}");
    assert_eq!((model.held(HOST), model.started().len()), (None, 0));
    for time in ["2026-11-22T13:00:00Z", "2026-11-22T13:01:00Z"] {
        model.go_to(time);
        model.says(ProbeAnswer::DoesNotHold);
    }
    assert_eq!(model.started(), ["hosts/h/o drift 3"], "numbers are not used twice");
}

#[test]
fn a_state_that_lasts_between_two_drifts_keeps_the_breaker_shut() {
    let mut model = Model::with(HOST, "{task: t, revision: r1, by: r1, reconcile: 15m}");
    model.started();
    for n in 1..=6 {
        for answer in [
            ProbeAnswer::DoesNotHold,
            ProbeAnswer::DoesNotHold,
            ProbeAnswer::Holds,
            ProbeAnswer::Holds,
            ProbeAnswer::Holds,
        ] {
            let wake = model.decision.wake.unwrap_or(model.now);
            model.go_to(&wake.to_string());
            model.says(answer);
        }
        assert_eq!(model.started(), [format!("hosts/h/o drift {n}")]);
        assert_eq!(model.of(HOST).recurrence.unsettled, 0);
    }
}

#[test]
fn cannot_tell_is_never_a_start() {
    let mut model = Model::with(HOST, "{task: t, revision: r1, by: r1, reconcile: 15m}");
    model.started();
    for _ in 0..10 {
        let wake = model.decision.wake.unwrap();
        model.go_to(&wake.to_string());
        model.says(ProbeAnswer::CannotTell("no route to the database".into()));
        let wait = &model.decision.waits[&HOST.parse().unwrap()];
        assert!(wait.detail.as_ref().unwrap().contains("no route"), "{wait:?}");
    }
    assert!(model.started().is_empty());
}

#[test]
fn nothing_is_asked_while_the_order_is_under_way_refused_or_out_of_sight() {
    let order = "{task: t, revision: r1, by: r1, reconcile: 15m}";
    let mut model = Model::new();
    model.ends = None;
    model.write(HOST, order);
    model.go_to("2026-11-21T18:00:00Z");
    assert!(model.asked.is_empty(), "it runs");
    model.end_runs(End::Succeeded);
    model.visible = false;
    model.go_to("2026-11-21T19:00:00Z");
    assert!(model.asked.is_empty(), "nobody knows whether it still stands");
    model.visible = true;
    model.settle();
    assert_eq!(model.asked.len(), 1);
    let mut model = Model::new();
    model.refused = Some("no probe".into());
    model.write(HOST, order);
    model.go_to("2026-11-21T19:00:00Z");
    assert!(model.asked.is_empty());
}

#[test]
fn nothing_is_asked_while_another_run_has_what_the_state_is_about() {
    let mut model = Model::with(HOST, "{task: t, revision: r1, by: r1, reconcile: 15m}");
    model.started();
    model.locks = vec![Lock { name: "db".into(), mode: LockMode::Exclusive }];
    model.starting = BTreeMap::from([(RunId::new(9, 9), model.locks.clone())]);
    model.go_to("2026-11-21T18:00:00Z");
    assert!(model.asked.is_empty());
    model.starting.clear();
    model.settle();
    assert_eq!(model.asked.len(), 1);
}

/// A day without Consul, in virtual time: what may fire offline does, once, from the ledger's copy, also after a restart.
#[test]
fn a_day_without_a_store_fires_only_what_may_once_and_for_seven_days() {
    for offline in [true, false] {
        let mut model = Model::new();
        model.now = at("2026-11-21T12:00:00Z");
        model.offline = offline;
        model.write(HOST, &scheduled(NIGHTLY, ""));
        model.write("hosts/h/other", "{task: t, revision: r1, by: r1, not_before: 2026-11-21T20:00:00Z}");
        model.live_until("2026-11-21T18:00:00Z");
        (model.visible, model.unreachable) = (false, true);
        model.settle();
        model.restart();
        model.live_until("2026-11-22T18:00:00Z");
        let fired = "hosts/h/o firing 2026-11-22T02:30:00Z".to_owned();
        assert_eq!(model.started(), if offline { vec![fired] } else { Vec::new() });
        (model.visible, model.unreachable) = (true, false);
        model.settle();
        // The other one is due now; a nightly one that could not fire is more than six hours late.
        assert_eq!(model.started(), ["hosts/h/other r1"]);
        assert_eq!(model.counts(), (u32::from(!offline), 0));
    }
    // Seven days after it was seen last, the copy counts no more.
    let mut model = Model::new();
    model.now = at("2026-11-21T12:00:00Z");
    model.offline = true;
    model.write(HOST, &scheduled(NIGHTLY, ""));
    (model.visible, model.unreachable) = (false, true);
    model.settle();
    model.live_until("2026-12-24T12:00:00Z");
    assert_eq!(model.started().len(), 7);
}

#[test]
fn lost_rights_are_no_outage() {
    let mut model = Model::new();
    model.now = at("2026-11-21T12:00:00Z");
    model.offline = true;
    model.write(HOST, &scheduled(NIGHTLY, ""));
    model.visible = false;
    model.settle();
    model.live_until("2026-11-24T12:00:00Z");
    assert!(model.started().is_empty());
}

/// Any history of a few operations around the instants of an hourly schedule, with restarts and clocks that are set:
/// each activation starts once, and none that was not due while the order stood.
#[test]
fn p2_no_firing_starts_twice_in_any_short_history() {
    const OPERATIONS: usize = 10;
    // Every third one: each row of three operations is among them.
    for n in (0..OPERATIONS.pow(4)).step_by(3) {
        let mut model = Model::with(HOST, &scheduled("0 * * * *", ""));
        model.offline = true;
        model.clock = Clock::Trusted;
        model.settle();
        let mut code = n;
        for _ in 0..4 {
            match code % OPERATIONS {
                0 => model.restart(),
                1 => model.delete(HOST),
                2 => model.write(HOST, &scheduled("0 * * * *", "")),
                3 => model.write(HOST, &scheduled("*/30 * * * *", "")),
                4 => model.write(HOST, "skip: true"),
                5 => (model.visible, model.unreachable) = (false, true),
                6 => (model.visible, model.unreachable) = (true, false),
                7 => model.now += SignedDuration::from_mins(61),
                8 => model.now -= SignedDuration::from_mins(95),
                _ => model.put_at(HOST, &scheduled("0 * * * *", ""), 3),
            }
            code /= OPERATIONS;
            model.settle();
            model.now += SignedDuration::from_mins(31);
            model.settle();
        }
        let mut started = model.started();
        let all = started.len();
        started.sort();
        started.dedup();
        assert_eq!(started.len(), all, "history {n} fires one twice: {started:?}");
        assert!(started.iter().all(|started| started.contains(" firing ")), "history {n}: {started:?}");
    }
}
