//! The one status that is true of an order: each kind of order against everything that can become of it, before and
//! after a restart of the agent.

use super::*;
use crate::domain::control::{ControlAction, Settled, Target};
use crate::domain::decide::Clock;
use crate::domain::decide::tests::{HOST, Model};
use crate::domain::ids::InstructionHash;
use crate::domain::order::Document;

/// The terms of each kind of order, and how it is reported once it was placed on a host that carries out at once.
const KINDS: [(&str, &str, &str); 7] = [
    ("plain", "", "succeeded"),
    ("window", ", window: '20:00-21:00'", "waiting window"),
    ("not before", ", not_before: 2026-11-22T12:00:00Z", "waiting schedule"),
    ("schedule", ", schedule: '30 2 * * *'", "waiting schedule"),
    ("reconcile", ", reconcile: 15m", "succeeded"),
    ("secret", ", on_secret_change: ['kv/data/a#b']", "succeeded"),
    ("schedule in a window", ", schedule: '30 2 * * *', window: '20:00-21:00'", "waiting schedule"),
];

fn order(revision: &str, terms: &str) -> String {
    format!("{{task: t, revision: {revision}, by: {revision}, spread: 0s{terms}}}")
}

fn identity(text: &str) -> Option<InstructionHash> {
    match Document::read(text.as_bytes()) {
        Ok(Document::Order(order)) => Some(order.identity),
        _ => None,
    }
}

/// The day on which all of this happens: noon of a Saturday.
fn model() -> Model {
    let mut model = Model::new();
    model.now = "2026-11-21T12:00:00Z".parse().unwrap();
    model
}

/// The report, whether it is history, and what is unsettled behind it.
fn composed(model: &Model) -> Composed {
    let (mut found, runs) = (Vec::new(), BTreeMap::new());
    let (memory, decision, now) = (&model.memory, &model.decision, model.now);
    Sources { host: &model.host, memory, decision, runs: &runs, now }
        .each_order(|_, composed| found.push(composed));
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

/// The phase, with its reason.
fn words(report: &OrderReport) -> String {
    match &report.reason {
        Some(reason) => format!("{} {reason}", report.phase),
        None => report.phase.clone(),
    }
}

/// Holds the status against what is true of it, twice: the second time after a restart.
#[track_caller]
fn assert_status(model: &mut Model, what: &str, text: &str, expected: &str) {
    for when in ["", ", after a restart"] {
        let Composed { report, is_history, .. } = composed(model);
        assert_eq!(words(&report), expected, "{what}{when}: {report:?}");
        assert_eq!(report.identity, identity(text), "{what}{when}: of this instruction: {report:?}");
        assert!(!is_history, "{what}{when}: it counts");
        model.restart();
    }
}

/// The same for an order that was deleted, whose last instruction was `text`.
#[track_caller]
fn assert_deleted(model: &mut Model, what: &str, text: &str, expected: &str) {
    model.delete(HOST);
    model.settle();
    for when in ["", ", after a restart"] {
        let Composed { report, is_history, .. } = composed(model);
        assert_eq!(words(&report), expected, "{what}{when}: {report:?}");
        assert_eq!(report.identity, identity(text), "{what}{when}: {report:?}");
        assert!(is_history, "{what}{when}: it counts no more");
        assert!(report.until.is_none() && report.ended.is_some(), "{what}{when}: nothing comes: {report:?}");
        model.restart();
    }
}

/// What is told of an order that is gone: what waited is withdrawn, all else stays as it was.
fn gone(status: &str) -> &str {
    if status.starts_with("waiting") || status.starts_with("held") { "withdrawn" } else { status }
}

#[test]
fn placed_and_deleted() {
    for (kind, terms, expected) in KINDS {
        let (mut model, text) = (model(), order("r1", terms));
        model.write(HOST, &text);
        assert_status(&mut model, kind, &text, expected);
        assert_deleted(&mut model, kind, &text, gone(expected));
        // And placed again, as it was: nothing is carried out for that.
        model.started();
        model.write(HOST, &text);
        let again = match expected {
            "waiting window" => "withdrawn",
            "waiting schedule" if !terms.contains(", schedule") => "withdrawn",
            other => other,
        };
        assert_status(&mut model, &format!("{kind}, again"), &text, again);
        assert!(model.started().is_empty(), "{kind}");
    }
}

#[test]
fn replaced_by_another_instruction_of_any_kind() {
    for (first, terms, _) in KINDS {
        for (second, others, expected) in KINDS {
            let what = format!("{first}, then {second}");
            let (mut model, text) = (model(), order("r2", others));
            model.write(HOST, &order("r1", terms));
            model.started();
            model.write(HOST, &text);
            assert_status(&mut model, &what, &text, expected);
            let carried_out = if expected == "succeeded" { vec!["hosts/h/o r2"] } else { Vec::new() };
            assert_eq!(model.started(), carried_out, "{what}");
            assert_deleted(&mut model, &what, &text, gone(expected));
        }
    }
}

#[test]
fn replaced_by_other_terms_alone() {
    for (first, terms, before) in KINDS {
        for (second, others, _) in KINDS {
            let what = format!("{first}, then {second}");
            let (mut model, text) = (model(), order("r1", others));
            model.write(HOST, &order("r1", terms));
            let ran = model.started().len();
            model.write(HOST, &text);
            let scheduled = (terms.contains(", schedule"), others.contains(", schedule"));
            let expected = match scheduled {
                (_, true) => "waiting schedule",
                // It waited for its schedule, and has none now: nothing is started for that.
                (true, false) if others.contains("secret") => "waiting secret",
                (true, false) if others.contains("reconcile") => "waiting reconcile",
                (true, false) => "withdrawn",
                // What has been carried out stays so; what waits goes by its new terms.
                (false, false) if before == "succeeded" => "succeeded",
                (false, false) => KINDS.iter().find(|(kind, ..)| *kind == second).unwrap().2,
            };
            assert_status(&mut model, &what, &text, expected);
            let carried_out = ran + model.started().len();
            let once = before == "succeeded" || expected == "succeeded";
            assert_eq!(carried_out, usize::from(once), "{what}");
            // A schedule that fires no more leaves what was carried out before it as it is.
            let deleted = if before == "succeeded" { before } else { gone(expected) };
            assert_deleted(&mut model, &what, &text, deleted);
        }
    }
}

#[test]
fn held_then_released_accepted_retried_or_deleted() {
    for (kind, terms, placed) in KINDS {
        let held = || {
            let (mut model, text) = (model(), order("r2", terms));
            model.write(HOST, &order("r1", ""));
            model.put_at(HOST, &text, 5);
            model.settle();
            model.started();
            assert_status(&mut model, kind, &text, "held index_regressed");
            (model, text)
        };
        let (mut model, text) = held();
        // The last instruction that the key held is the first one.
        assert_deleted(&mut model, kind, &order("r1", ""), "succeeded");
        drop(text);
        for (act, expected) in [
            (ControlAction::Release, placed),
            (
                ControlAction::Accept,
                if placed == "waiting schedule" && terms.contains(", schedule") {
                    placed
                } else {
                    "unchanged"
                },
            ),
        ] {
            let what = format!("{kind}: {}", act.as_str());
            let (mut model, text) = held();
            let id = model.control(act, Target::Identity(identity(&text).unwrap()), None);
            assert_eq!(model.answer(id), "done", "{what}");
            assert_status(&mut model, &what, &text, expected);
            let carried_out = model.started().len();
            assert_eq!(carried_out, usize::from(expected == "succeeded"), "{what}");
            if act == ControlAction::Accept {
                // What was accepted can be carried out all the same.
                let id =
                    model.control(ControlAction::Retry, Target::Identity(identity(&text).unwrap()), None);
                assert_eq!(model.answer(id), "done", "{what}, then retry");
                let waits = terms.contains("window") || terms.contains("not_before");
                assert_eq!(model.started().len(), usize::from(!waits), "{what}, then retry");
                assert_eq!(composed(&model).report.identity, identity(&text), "{what}, then retry");
            } else {
                assert_deleted(&mut model, &what, &text, gone(expected));
            }
        }
    }
}

#[test]
fn held_at_first_sight_then_accepted_or_deleted() {
    for (kind, terms, _) in KINDS.iter().filter(|(_, terms, _)| !terms.contains(", schedule")) {
        for accept in [true, false] {
            let (mut model, text) = (model(), order("r1", terms));
            model.memory = LedgerState::default();
            model.write(HOST, &text);
            assert_status(&mut model, kind, &text, "held preexisting");
            if accept {
                let id =
                    model.control(ControlAction::Accept, Target::Identity(identity(&text).unwrap()), None);
                assert_eq!(model.answer(id), "done", "{kind}");
                assert_status(&mut model, kind, &text, "unchanged");
                let report = composed(&model).report;
                assert!(report.error.as_ref().unwrap().contains("accepted by alice: CHG1"), "{report:?}");
                assert_deleted(&mut model, kind, &text, "unchanged");
            } else {
                // It was never an instruction of this host.
                assert_deleted(&mut model, kind, "", "withdrawn");
            }
            assert!(model.started().is_empty(), "{kind}");
        }
    }
}

#[test]
fn refused_by_its_task_then_written_again_retried_or_deleted() {
    let refused = |terms: &str, before: Option<&str>| {
        let (mut model, text) = (model(), order("r2", terms));
        if let Some(before) = before {
            model.write(HOST, &order("r1", before));
        }
        model.started();
        model.refused = Some("no such task".into());
        model.write(HOST, &text);
        assert_status(&mut model, terms, &text, "refused");
        assert_eq!(composed(&model).report.error.as_deref(), Some("no such task"), "{terms}");
        assert!(model.started().is_empty(), "{terms}");
        (model, text)
    };
    let befores = [None, Some(""), Some(", schedule: '30 2 * * *'"), Some(", reconcile: 15m")];
    for (kind, terms, placed) in KINDS {
        for before in befores {
            let what = format!("{kind} after {before:?}");
            let (mut model, text) = refused(terms, before);
            assert_deleted(&mut model, &what, &text, "refused");
            // Installed since: nothing starts before somebody says more.
            let (mut model, text) = refused(terms, before);
            model.refused = None;
            model.live_until("2026-11-23T12:00:00Z");
            assert_eq!(model.started().len(), 0, "{what}");
            assert_status(&mut model, &what, &text, "refused");
            let id = model.control(ControlAction::Retry, Target::Identity(identity(&text).unwrap()), None);
            assert_eq!(model.answer(id), "done", "{what}, retried");
            let now = words(&composed(&model).report);
            assert!(now == "succeeded" || now.starts_with("waiting"), "{what}, retried: {now}");
            // Written again with other terms, or another instruction.
            let (mut model, _) = refused(terms, before);
            model.refused = None;
            let again = order("r2", &format!("{terms}, reason: again"));
            model.write(HOST, &again);
            let recurrence =
                terms.contains("schedule") || terms.contains("reconcile") || terms.contains("secret");
            assert_status(&mut model, &what, &again, if recurrence { placed } else { "refused" });
            let another = order("r3", terms);
            model.write(HOST, &another);
            assert_status(&mut model, &what, &another, placed);
        }
    }
}

#[test]
fn refused_when_it_is_to_start_again() {
    for terms in [", reconcile: 15m", ", on_secret_change: ['kv/data/a#b']", ", schedule: '30 2 * * *'"] {
        let (mut model, text) = (model(), order("r1", terms));
        model.write(HOST, &text);
        model.refused = Some("no probe".into());
        let changed = order("r1", &terms.replace("15m", "10m").replace("#b", "#c").replace("30 2", "30 3"));
        model.write(HOST, &changed);
        assert_status(&mut model, terms, &changed, "refused");
        // By its former terms it is what it was, and nothing is carried out a second time.
        model.refused = None;
        model.started();
        model.write(HOST, &text);
        let expected = if terms.contains("schedule") { "waiting schedule" } else { "succeeded" };
        assert_status(&mut model, terms, &text, expected);
        assert!(model.started().is_empty(), "{terms}");
    }
}

#[test]
fn a_document_that_cannot_be_read_and_its_deletion() {
    for (kind, terms, placed) in KINDS {
        let (mut model, text) = (model(), order("r1", terms));
        model.write(HOST, &text);
        model.write(HOST, "task: [");
        assert_status(&mut model, kind, "", "refused");
        assert_deleted(&mut model, kind, &text, gone(placed));
    }
    let mut model = model();
    model.write(HOST, "task: [");
    assert_status(&mut model, "never read", "", "refused");
    assert_deleted(&mut model, "never read", "", "withdrawn");
}

#[test]
fn a_schedule_without_a_time_to_come_is_expired_until_it_gets_one() {
    for late in [", not_after: 2026-11-20T12:00:00Z", ", not_after: 2026-11-21T13:00:00Z"] {
        for before in [None, Some("")] {
            let (mut model, text) = (model(), order("r2", &format!(", schedule: '30 2 * * *'{late}")));
            if let Some(before) = before {
                model.write(HOST, &order("r1", before));
            }
            model.write(HOST, &text);
            assert_status(&mut model, late, &text, "expired");
            let later = order("r2", ", schedule: '30 2 * * *', not_after: 2026-11-25T12:00:00Z");
            model.write(HOST, &later);
            assert_status(&mut model, late, &later, "waiting schedule");
            model.live_until("2026-11-26T12:00:00Z");
            assert_status(&mut model, "its last firing stays", &later, "succeeded");
            assert_deleted(&mut model, late, &later, "succeeded");
        }
    }
}

#[test]
fn a_schedule_that_has_fired_then_lost_replaced_cancelled_or_deleted() {
    let fired = |end| {
        let (mut model, text) = (model(), order("r1", ", schedule: '30 2 * * *'"));
        model.ends = Some(end);
        model.write(HOST, &text);
        model.live_until("2026-11-22T12:00:00Z");
        assert_eq!(model.started().len(), 1);
        (model, text)
    };
    for (end, recurrence, alone) in [
        (End::Succeeded, "waiting schedule", "succeeded"),
        (End::Failed, "failed", "failed"),
        (End::Undone, "undone", "undone"),
    ] {
        let (mut model, text) = fired(end);
        assert_status(&mut model, "fired", &text, recurrence);
        assert_deleted(&mut model, "fired", &text, alone);
        let (mut model, _) = fired(end);
        let without = order("r1", "");
        model.write(HOST, &without);
        assert_status(&mut model, "without its schedule", &without, alone);
        assert_deleted(&mut model, "without its schedule", &without, alone);
        let (mut model, _) = fired(end);
        let other = order("r2", ", schedule: '30 3 * * *'");
        model.write(HOST, &other);
        assert_status(&mut model, "another instruction", &other, "waiting schedule");
        assert_deleted(&mut model, "another instruction", &other, "withdrawn");
    }
    // A firing that waits, and is cancelled.
    let (mut model, text) = (model(), order("r1", ", schedule: '30 2 * * *', window: '20:00-21:00'"));
    model.write(HOST, &text);
    model.live_until("2026-11-22T12:00:00Z");
    assert_status(&mut model, "a firing waits", &text, "waiting window");
    let id = model.control(ControlAction::Cancel, Target::Identity(identity(&text).unwrap()), None);
    assert_eq!(model.answer(id), "done");
    assert_status(&mut model, "a firing is cancelled", &text, "cancelled");
    assert_deleted(&mut model, "a firing is cancelled", &text, "cancelled");
}

#[test]
fn what_only_a_person_can_settle_is_told_behind_whatever_came_after_it() {
    let unsettled = || {
        let mut model = model();
        model.ends = Some(End::NeedsOperator);
        model.write(HOST, &order("r1", ""));
        assert_eq!(words(&composed(&model).report), "needs_operator");
        let run = composed(&model).report.run.expect("what to settle");
        model.ends = Some(End::Succeeded);
        model.started();
        (model, run)
    };
    type Change = fn(&mut Model);
    let changes: [(&str, Change, &str, &str); 6] = [
        ("replaced", |model| model.write(HOST, &order("r2", "")), "waiting previous_run", "succeeded"),
        (
            "replaced with a schedule",
            |model| model.write(HOST, &order("r2", ", schedule: '30 2 * * *'")),
            "waiting previous_run",
            "waiting schedule",
        ),
        ("not to be read", |model| model.write(HOST, "task: ["), "refused", "refused"),
        (
            "held",
            |model| {
                model.put_at(HOST, &order("r2", ""), 5);
                model.settle();
            },
            "held index_regressed",
            "held index_regressed",
        ),
        (
            "accepted",
            |model| {
                let text = order("r2", "");
                model.put_at(HOST, &text, 5);
                model.settle();
                model.control(ControlAction::Accept, Target::Identity(identity(&text).unwrap()), None);
            },
            "unchanged",
            "unchanged",
        ),
        (
            "replaced and cancelled",
            |model| {
                let text = order("r2", "");
                model.write(HOST, &text);
                model.control(ControlAction::Cancel, Target::Identity(identity(&text).unwrap()), None);
            },
            "cancelled",
            "cancelled",
        ),
    ];
    for (what, change, before, after) in changes {
        let (mut model, run) = unsettled();
        change(&mut model);
        for when in ["", ", after a restart"] {
            let Composed { report, is_history, unsettled } = composed(&model);
            assert_eq!(words(&report), before, "{what}{when}: {report:?}");
            assert_eq!((unsettled, is_history), (Some(End::NeedsOperator), false), "{what}{when}");
            // An operator finds the run, and how to settle it.
            assert_eq!((report.run, report.epoch), (Some(run), 0), "{what}{when}: {report:?}");
            assert!(
                report.message.as_ref().unwrap().contains("hostler acknowledge o"),
                "{what}{when}: {report:?}"
            );
            assert!(model.started().is_empty(), "{what}{when}");
            model.restart();
        }
        let id = model.control(ControlAction::Acknowledge, Target::Run(run), Some(Settled::Done));
        assert_eq!(model.answer(id), "done", "{what}");
        let Composed { report, unsettled, .. } = composed(&model);
        assert_eq!((words(&report).as_str(), unsettled), (after, None), "{what}: {report:?}");
        model.restart();
    }
    // Deleted, it still wants somebody, and counts.
    let (mut model, _) = unsettled();
    model.delete(HOST);
    model.settle();
    let Composed { report, is_history, .. } = composed(&model);
    assert_eq!((words(&report).as_str(), is_history), ("needs_operator", false));
}

#[test]
fn a_clock_that_is_not_trusted_is_what_a_schedule_waits_for() {
    for (terms, expected) in
        [(", schedule: '30 2 * * *'", "waiting clock"), (", reconcile: 15m", "succeeded")]
    {
        let (mut model, text) = (model(), order("r1", terms));
        model.clock = Clock::Unsynchronised;
        model.write(HOST, &text);
        assert_status(&mut model, terms, &text, expected);
        assert_deleted(&mut model, terms, &text, gone(expected));
    }
}
