//! Controls and freezes, each row against each state of an order.

use super::tests::words::*;
use super::tests::{HOST, Model, text};
use super::*;
use crate::domain::control::{ControlAction, Settled, Target};
use crate::domain::ids::InstructionHash;
use crate::domain::state::{Activation, End, Hold, Stage};

impl Model {
    /// Writes a control for the order; the id tells how many were written before.
    pub(crate) fn control(
        &mut self,
        act: ControlAction,
        names: Target,
        settled: Option<Settled>,
    ) -> ControlId {
        let millis = u64::try_from(self.now.as_millisecond()).unwrap() + self.controls.len() as u64;
        let id = ControlId::new(millis, 0);
        let control =
            Control { action: act, target: names, settled, by: "alice".into(), reason: "CHG1".into() };
        self.controls.insert(("o".parse().unwrap(), id), Ok(control));
        self.settle();
        id
    }

    pub(crate) fn answer(&self, id: ControlId) -> String {
        self.memory.acts[&id].answer.clone()
    }

    fn current(&self) -> &Activation {
        self.memory.orders[&HOST.parse().unwrap()].current.as_ref().unwrap()
    }

    fn end(&self) -> Option<(End, &str)> {
        match &self.current().stage {
            Stage::Closed(closing) => Some((closing.end, closing.error.as_deref().unwrap_or_default())),
            Stage::Open | Stage::Prepared => None,
        }
    }

    fn run(&self) -> Target {
        Target::Run(self.current().run)
    }

    /// An order whose identity comes back: held.
    fn repeated() -> (Self, InstructionHash) {
        let mut model = Self::new();
        for revision in ["r1", "r2", "r1"] {
            model.put(HOST, revision);
            model.settle();
        }
        assert_eq!(model.held(HOST), Some(Hold::Repeated));
        model.started();
        let held = model.memory.orders[&HOST.parse().unwrap()].held.as_ref().unwrap().identity;
        (model, held)
    }
}

#[test]
fn what_is_held_is_released_once() {
    for act in [ControlAction::Release, ControlAction::Retry] {
        let (mut model, held) = Model::repeated();
        let id = model.control(act, Target::Identity(held), None);
        assert_eq!((model.answer(id), model.started()), ("done".to_owned(), vec!["hosts/h/o r1".to_owned()]));
        assert_eq!(model.current().trigger, crate::domain::plan::Trigger::Retry(id));
        model.restart();
        // The document of the control stays there, and comes again under any index.
        model.settle();
        let again = model.control(act, Target::Identity(held), None);
        if act == ControlAction::Release {
            assert!(model.answer(again).starts_with("stale"), "{}", model.answer(again));
            assert!(model.started().is_empty());
        } else {
            assert_eq!(model.started(), ["hosts/h/o r1"], "a second retry is another act");
        }
    }
}

#[test]
fn an_accepted_order_starts_nothing() {
    let (mut model, held) = Model::repeated();
    let id = model.control(ControlAction::Accept, Target::Identity(held), None);
    model.restart();
    assert_eq!((model.answer(id), model.held(HOST)), ("done".to_owned(), None));
    assert!(model.started().is_empty());
    model.put(HOST, "r3");
    model.settle();
    assert_eq!(model.started(), ["hosts/h/o r3"], "the next instruction is carried out as ever");
}

#[test]
fn one_that_waits_is_cancelled_and_stays_so() {
    let mut model = Model::new();
    model.put_at(HOST, "{task: t, by: a, not_before: 2999-01-01T00:00:00Z}", 110);
    model.settle();
    let names = Target::Identity(model.current().identity);
    model.control(ControlAction::Cancel, names, None);
    assert_eq!(model.end(), Some((End::Cancelled, "cancelled by alice: CHG1")));
    model.restart();
    model.now += Duration::from_secs(86_400);
    model.settle();
    assert!(model.started().is_empty());
}

#[test]
fn the_executor_of_a_run_is_told_to_end_it() {
    let mut model = Model::new();
    model.ends = None;
    model.put(HOST, "r1");
    model.settle();
    let (first, run) = (model.control(ControlAction::Cancel, model.run(), None), model.run());
    assert_eq!(model.answer(first), "done");
    let (by, reason) = ("alice".to_owned(), "CHG1".to_owned());
    assert_eq!(model.current().request.as_deref(), Some(&RunRequest::Cancel { by, reason }));
    let second = model.control(ControlAction::Cancel, run, None);
    assert!(model.answer(second).starts_with("stale"));
    for act in [ControlAction::Retry, ControlAction::Undo, ControlAction::Release, ControlAction::Accept] {
        let id = model.control(act, run, None);
        assert!(model.answer(id).starts_with("stale"), "{act:?}: {}", model.answer(id));
    }
}

#[test]
fn only_a_person_settles_what_only_a_person_can_tell() {
    let rows = [
        (Some(Settled::Done), End::Succeeded, "acknowledged as done by alice: CHG1"),
        (Some(Settled::Failed), End::Failed, "acknowledged as failed by alice: CHG1"),
    ];
    for ended in [End::NeedsOperator, End::UndoFailed] {
        for (settled, end, told) in rows {
            let mut model = Model::new();
            model.ends = Some(ended);
            model.put(HOST, "r1");
            model.settle();
            assert!(model.current().has_run(), "a newer order would wait for it");
            let id = model.control(ControlAction::Acknowledge, model.run(), settled);
            assert_eq!((model.answer(id), model.end()), ("done".to_owned(), Some((end, told))));
            assert!(!model.current().has_run());
            let late = model.control(ControlAction::Acknowledge, model.run(), settled);
            assert!(model.answer(late).starts_with("stale: it is over"));
        }
    }
}

#[test]
fn a_retry_carries_out_once_more_what_still_stands() {
    for ended in [End::Failed, End::NeedsOperator, End::Cancelled, End::Succeeded, End::Expired] {
        let mut model = Model::new();
        model.ends = Some(ended);
        model.put(HOST, "r1");
        model.settle();
        model.started();
        let run = model.run();
        model.ends = Some(End::Succeeded);
        let id = model.control(ControlAction::Retry, run, None);
        assert_eq!(
            (model.answer(id), model.started()),
            ("done".to_owned(), vec!["hosts/h/o r1".to_owned()]),
            "{ended:?}"
        );
        model.restart();
        assert!(model.started().is_empty());
        let late = model.control(ControlAction::Retry, run, None);
        assert!(model.answer(late).starts_with("stale"), "it named the run before: {}", model.answer(late));
    }
}

#[test]
fn a_retry_of_what_is_gone_or_was_changed_is_refused() {
    for change in ["gone", "changed"] {
        let mut model = Model::new();
        model.ends = Some(End::Failed);
        model.put(HOST, "r1");
        model.settle();
        model.started();
        let run = model.run();
        if change == "gone" {
            model.delete(HOST)
        } else {
            model.put_at(HOST, &text("r2"), 50)
        }
        model.settle();
        let id = model.control(ControlAction::Retry, run, None);
        assert!(model.answer(id).starts_with("refused"), "{change}: {}", model.answer(id));
        assert!(model.started().is_empty());
    }
}

#[test]
fn what_names_nothing_is_stale_and_what_is_old_or_broken_does_nothing() {
    let mut model = Model::new();
    model.ends = Some(End::NeedsOperator);
    model.put(HOST, "r1");
    model.settle();
    model.started();
    let names = [Target::Run(RunId::new(9, 9)), Target::Identity(InstructionHash::new([9; 32]))];
    for act in ControlAction::ALL {
        for names in names {
            let id = model.control(act, names, Some(Settled::Done));
            assert!(model.answer(id).starts_with("stale"), "{act:?}: {}", model.answer(id));
        }
    }
    let broken = ControlId::new(u64::try_from(model.now.as_millisecond()).unwrap() + 500, 1);
    model.controls.insert(("o".parse().unwrap(), broken), Err("action: what?".into()));
    let old = ControlId::new(1, 1);
    let (by, reason) = ("alice".into(), "late".into());
    let retry = Control { action: ControlAction::Retry, target: model.run(), settled: None, by, reason };
    model.controls.insert(("o".parse().unwrap(), old), Ok(retry));
    model.settle();
    assert_eq!(model.answer(broken), "refused: action: what?");
    assert!(!model.memory.acts.contains_key(&old), "older than a week: not even answered");
    assert!(model.started().is_empty());
}

#[test]
fn a_freeze_stops_starts_until_it_is_over_or_allows_the_task() {
    let freeze = |text: &str| Freeze::read(text.as_bytes()).map_err(|error| error.to_string());
    let later = "until: 2999-01-01T00:00:00Z\nby: bob\nreason: audit";
    for (source, text, starts) in [
        ("groups/all", later, false),
        ("groups/a", later, false),
        ("groups/other", later, true),
        ("hosts/h", later, false),
        ("hosts/other", later, true),
        ("groups/all", "{by: bob}", false),
        ("groups/all", "until: 2001-01-01T00:00:00Z", true),
        ("groups/all", "{allow: [t]}", true),
        ("groups/all", "{allow: [u]}", false),
        ("groups/all", "nonsense: yes", false),
    ] {
        for freeze_first in [true, false] {
            let mut model = Model::new();
            if freeze_first {
                model.freezes.insert(source.parse().unwrap(), freeze(text));
            }
            model.put_at(HOST, "{task: t, by: r1, not_before: 2023-11-15T00:00:00Z}", 110);
            model.settle();
            assert!(model.started().is_empty(), "before its time");
            model.freezes.insert(source.parse().unwrap(), freeze(text));
            model.now = "2023-11-15T00:00:01Z".parse().unwrap();
            model.settle();
            assert_eq!(!model.started().is_empty(), starts, "{source}: {text}");
            if !starts {
                let wait = &model.decision.waits[&HOST.parse().unwrap()];
                assert_eq!(wait.reason, Reason::Freeze);
                model.freezes.clear();
                model.settle();
                assert_eq!(model.started(), ["hosts/h/o r1"], "thawed");
            }
        }
    }
}

#[test]
fn a_schedule_that_is_released_fires_at_its_times() {
    let mut model = Model::new();
    for by in ["r1", "r2", "r1"] {
        let text = format!("{{task: t, revision: {by}, schedule: '0 * * * *', by: {by}}}");
        model.put_text(HOST, &text);
        model.settle();
    }
    assert_eq!(model.held(HOST), Some(Hold::Repeated));
    let held = model.memory.orders[&HOST.parse().unwrap()].held.as_ref().unwrap().identity;
    let id = model.control(ControlAction::Release, Target::Identity(held), None);
    assert_eq!((model.answer(id), model.held(HOST)), ("done".to_owned(), None));
    assert!(model.started().is_empty(), "releasing starts nothing by itself");
    model.now += Duration::from_secs(3600);
    model.settle();
    assert_eq!(model.started().len(), 1);
}

/// However many controls there are that change nothing, they are answered in few decisions, and the oldest first, so that
/// those of one order push out none of another.
#[test]
fn controls_that_change_nothing_are_answered_many_at_a_time() {
    let mut model = Model::new();
    model.put_text(HOST, "{task: t, by: r1, not_before: 2999-01-01T00:00:00Z}");
    model.settle();
    let millis = u64::try_from(model.now.as_millisecond()).unwrap();
    let bad = |n: u64| (("a".parse().unwrap(), ControlId::new(millis + n, 0)), Err("no".to_owned()));
    model.controls.extend((1..=3_000).map(bad));
    let cancel = Control {
        action: ControlAction::Cancel,
        target: model.run(),
        settled: None,
        by: "alice".into(),
        reason: "CHG1".into(),
    };
    model.controls.insert(("o".parse().unwrap(), ControlId::new(millis, 0)), Ok(cancel));
    model.settle();
    model.restart();
    assert_eq!(model.end(), Some((End::Cancelled, "cancelled by alice: CHG1")));
    let newest = ControlId::new(millis + 3_000, 0);
    assert_eq!(model.answer(newest), "refused: no");
}
