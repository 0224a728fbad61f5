//! What formats keep back: on the day after an upgrade, and beside a run of a newer program.

use super::tests::words::*;
use super::tests::{HOST, Model, text};
use super::*;
use crate::domain::control::{Control, ControlAction, Target};
use crate::domain::state::{End, Stage};

const DAY: Duration = Duration::from_secs(86_400);

type Happens = fn(&mut Model);

impl Model {
    /// A host on the day after an upgrade; every plan needs this version.
    fn upgraded(plan: u32) -> Self {
        let mut model = Self::new();
        model.plan = plan;
        model.previous_format = Some(PreviousFormat { plan: 2, until: Some(model.now + DAY) });
        model
    }

    fn over(&mut self) {
        self.now += DAY;
        self.previous_format = None;
        self.settle();
    }

    fn waits_for(&self, key: &str) -> Option<(Reason, Option<Timestamp>)> {
        self.decision.waits.get(&key.parse().unwrap()).map(|wait| (wait.reason, wait.until))
    }

    fn reason_of(&self, key: &str) -> &str {
        self.decision.waits[&key.parse().unwrap()].detail.as_deref().unwrap()
    }
}

#[test]
fn while_an_upgrade_can_be_taken_back_only_what_the_version_before_can_carry_out_starts() {
    for plan in [1, 2, 3] {
        let mut model = Model::upgraded(plan);
        let end = model.now + DAY;
        model.put(HOST, "r1");
        model.settle();
        model.restart();
        let waits = plan > 2;
        assert_eq!(model.started().is_empty(), waits, "{plan}");
        assert_eq!(model.waits_for(HOST), waits.then_some((Reason::RollbackWindow, Some(end))), "{plan}");
        if waits {
            assert_eq!(model.decision.wake, Some(end));
            assert_eq!(
                model.reason_of(HOST),
                format!(
                    "not started before {end}: its plan needs format 3, the version of hostler before this one \
                     reads 2, and until then the upgrade can be taken back"
                )
            );
        }
        model.over();
        model.restart();
        assert_eq!(model.started().len(), usize::from(waits), "{plan}");
    }
}

#[test]
fn a_day_that_has_not_begun_has_no_end_that_is_known() {
    let mut model = Model::upgraded(3);
    model.previous_format = Some(PreviousFormat { plan: 2, until: None });
    model.put(HOST, "r1");
    model.settle();
    assert_eq!(model.waits_for(HOST), Some((Reason::RollbackWindow, None)));
    assert!(model.reason_of(HOST).starts_with("not started before a day after the agent is ready: "));
}

#[test]
fn what_waits_for_the_day_to_end_is_an_order_like_any_other_that_waits() {
    // Too late by then; replaced; withdrawn: each has its end, and starts nothing.
    let cases: [(Happens, End, usize); 3] = [
        (|model| model.now += DAY / 2, End::Expired, 0),
        (|model| model.put(HOST, "r2"), End::Superseded, 1),
        (|model| model.delete(HOST), End::Withdrawn, 0),
    ];
    for (happens, end, starts) in cases {
        let mut model = Model::upgraded(3);
        let before = model.now + DAY / 3;
        model.put_text(HOST, &text("r1").replace('}', &format!(", not_after: '{before}'}}")));
        model.settle();
        assert_eq!(model.waits_for(HOST).map(|(reason, _)| reason), Some(Reason::RollbackWindow));
        happens(&mut model);
        model.settle();
        let current = model.memory.orders[&HOST.parse().unwrap()].current.as_ref().unwrap();
        if starts == 0 {
            assert!(matches!(&current.stage, Stage::Closed(closing) if closing.end == end), "{current:?}");
        }
        model.over();
        model.restart();
        assert_eq!(model.started().len(), starts, "{end:?}");
    }
}

#[test]
fn its_own_time_is_asked_first_and_whatever_else_keeps_it_is_asked_afterwards() {
    let mut model = Model::upgraded(3);
    let later = model.now + DAY * 3;
    model.put_text(HOST, &text("r1").replace('}', &format!(", not_before: '{later}'}}")));
    model.put("hosts/h/full", "r1");
    model.full = Some("disk full".into());
    model.settle();
    assert_eq!(model.waits_for(HOST), Some((Reason::Schedule, Some(later))));
    assert_eq!(model.waits_for("hosts/h/full").unwrap().0, Reason::RollbackWindow);
    model.over();
    assert_eq!(model.waits_for("hosts/h/full").unwrap().0, Reason::Gate);
    model.full = None;
    model.now = later;
    model.settle();
    assert_eq!(model.started().len(), 2);
}

#[test]
fn whatever_it_is_that_makes_a_plan_waits() {
    // A retry, of an order that could be carried out before its task was changed.
    let mut model = Model::upgraded(2);
    model.ends = Some(End::Failed);
    model.put(HOST, "r1");
    model.settle();
    assert_eq!(model.started(), ["hosts/h/o r1"]);
    model.plan = 3;
    let run = model.memory.orders[&HOST.parse().unwrap()].current.as_ref().unwrap().run;
    let names = Target::Run(run);
    let retry = Control {
        action: ControlAction::Retry,
        target: names,
        settled: None,
        by: "alice".into(),
        reason: "again".into(),
    };
    let id = ControlId::new(u64::try_from(model.now.as_millisecond()).unwrap(), 0);
    model.controls.insert(("o".parse().unwrap(), id), Ok(retry));
    // A firing.
    model.put_text("hosts/h/hourly", "{task: t, by: r1, schedule: '0 * * * *', catch_up: 6h}");
    model.settle();
    assert_eq!(model.waits_for(HOST).unwrap().0, Reason::RollbackWindow);
    model.now += DAY / 8;
    model.settle();
    assert_eq!(model.waits_for("hosts/h/hourly").unwrap().0, Reason::RollbackWindow);
    assert!(model.started().is_empty());
    model.over();
    model.restart();
    let started = model.started();
    assert!(started.len() >= 2 && started.contains(&"hosts/h/o r1".to_owned()), "{started:?}");
    assert!(started.iter().any(|what| what.starts_with("hosts/h/hourly firing ")), "{started:?}");
}

#[test]
fn beside_a_run_of_a_newer_program_nothing_starts() {
    for newer in [true, false] {
        let mut model = Model::new();
        model.ends = None;
        model.put(HOST, "r1");
        model.settle();
        model.started();
        // Its executor may live and lock anything; one whose plan is damaged keeps its own order only.
        let run = model.memory.orders[&HOST.parse().unwrap()].current.as_ref().unwrap().run;
        model.unread.insert(run, UnreadablePlan { newer, why: "its plan has format 9".into() });
        model.put("hosts/h/other", "r1");
        model.settle();
        model.restart();
        assert_eq!(model.started().is_empty(), newer);
        assert_eq!(model.waits_for(HOST), Some((Reason::RollbackWindow, None)));
        assert_eq!(model.reason_of(HOST), "its plan has format 9");
        if newer {
            assert_eq!(model.reason_of("hosts/h/other"), "its plan has format 9");
        }
        // Nothing became of the run that nobody can read.
        let current = model.memory.orders[&HOST.parse().unwrap()].current.as_ref().unwrap();
        assert_eq!((current.run, &current.stage), (run, &Stage::Prepared));
    }
}
