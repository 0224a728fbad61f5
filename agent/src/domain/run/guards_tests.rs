//! Rows of the table of guards, each as a line: as in `transition_tests.rs`, with a guard at step 0.

use super::*;
use crate::domain::run::transition::tests::{leads_to, plan, play};
use crate::domain::run::{Next, next};
use crate::domain::span::Span;

/// A plan in short whose step 0 has a guard that stands until step `until` has ended.
fn guarded(short: &str, until: usize) -> Plan {
    let mut plan = plan(short);
    plan.steps[0].guard = Some(Guard {
        argv: vec!["./release-clients".into()],
        user: None,
        timeout: Span::secs(60),
        within: Span::secs(10),
        until,
    });
    plan
}

fn to(plan: &Plan, script: &str) -> String {
    leads_to(&play(plan, script).unwrap_or_else(|error| panic!("{script}: {error}")))
}

#[test]
fn every_row_of_the_table() {
    let rows = [
        // Armed first, and off after a success.
        ("uo", 0, "b arm 0", "at Step(1)"),
        ("uo", 0, "b arm 0 0", "succeeded"),
        ("ro", 0, "b arm", "at Step(0)"),
        // What fails fires first, then it is undone.
        ("uo", 0, "b arm 1", "at Guard(0)"),
        ("uo", 0, "b arm 1 0", "at Undo(0)"),
        ("uo", 0, "b arm 1 0 0", "undone step"),
        ("uo", 0, "b arm late 0 0", "undone timeout"),
        ("uo", 0, "b arm do cancel 143", "at Guard(0)"),
        ("uo", 0, "b arm do cancel 143 0 0", "cancelled"),
        ("oo", 0, "b arm 1 0", "failed step"),
        ("oo", 0, "b arm alive", "at Guard(0)"),
        ("oo", 0, "b arm alive 0", "needs_operator"),
        ("uo", 0, "b arm none 0", "failed step"),
        ("uo", 0, "b arm cancel 0", "cancelled"),
        ("fo", 0, "b arm 1", "at Guard(0)"),
        ("fo", 0, "b arm 1 0", "needs_operator"),
        // Its time was over.
        ("uo", 0, "b arm guarded", "at Guard(0)"),
        ("uo", 0, "b arm guarded 0 0", "undone guard"),
        ("oo", 0, "b arm guarded 0", "failed guard"),
        ("fo", 0, "b arm guarded 0", "needs_operator"),
        // Not now, and a reboot: nothing is left behind meanwhile, and it is armed anew.
        ("oo", 0, "b arm 75", "at Guard(0)"),
        ("oo", 0, "b arm 75 0", "retry"),
        ("oo", 0, "b arm 75 0 b arm 0", "at Step(1)"),
        ("ro", 0, "b arm 194 0", "rebooting 0"),
        ("ro", 0, "b arm 194 0 b! arm 0 0", "succeeded"),
        ("ro", 0, "b arm 194 do b! 0", "rebooting 0"),
        ("ro", 0, "b arm 194 do b! 0 b!", "at Step(0)"),
        ("ro", 0, "b arm 194 do b! 0 b", "at Step(0)"),
        // A lost executor: the guard before anything else, also before `check`.
        ("Ro", 0, "b arm b", "at Guard(0)"),
        ("Ro", 0, "b arm do b", "at Guard(0)"),
        ("Ro", 0, "b arm do b 0", "at Done(0)"),
        ("Ro", 0, "b arm do b 0 0", "at Step(1)"),
        ("Ro", 0, "b arm do b 0 1 arm 0 0", "succeeded"),
        ("ro", 0, "b arm do b do b do b 0", "at Step(0)"),
        ("uo", 0, "b arm do b 0", "at Undo(0)"),
        ("oo", 0, "b arm do b 0", "needs_operator"),
        ("ro", 0, "b arm do stop cut", "stopped Step(0)"),
        ("ro", 0, "b arm do stop cut b!", "at Guard(0)"),
        ("ro", 0, "b arm 1 do stop cut", "stopped Guard(0)"),
        ("ro", 0, "b arm 1 do stop cut b!", "at Guard(0)"),
        ("ro", 0, "b arm 1 do stop cut b! 0", "failed step"),
        // A guard that does not succeed: nothing is undone, and a person has to look.
        ("uo", 0, "b arm 1 1", "needs_operator"),
        ("uo", 0, "b arm do b 1", "needs_operator"),
        ("uo", 0, "b arm 1 alive", "needs_operator"),
        // Until a later step.
        ("rro", 1, "b arm 0", "at Step(1)"),
        ("rro", 1, "b arm 0 0", "at Step(2)"),
        ("rro", 1, "b arm 0 1", "at Guard(0)"),
        ("rro", 1, "b arm 0 1 0", "failed step"),
        ("uro", 1, "b arm 0 1 0 0", "undone step"),
        ("uro", 1, "b arm 0 guarded 0 0", "undone guard"),
        ("uro", 2, "b arm 0 lapse", "at Guard(0)"),
        ("uro", 2, "b arm 0 lapse 0 0", "undone guard"),
        ("rro", 1, "b arm 0 cancel 0", "cancelled"),
        // What later steps count on is gone.
        ("rro", 1, "b arm 0 do b", "at Guard(0)"),
        ("rro", 1, "b arm 0 do b 0", "failed guard"),
        ("rro", 1, "b arm 0 75 0", "failed guard"),
        ("rro", 1, "b arm 0 194 0", "failed guard"),
        ("uro", 1, "b arm 0 b 0", "at Undo(0)"),
        ("uro", 1, "b arm 0 b 0 0", "undone guard"),
        // The step that ends it was done all the same.
        ("rRo", 1, "b arm 0 do b 0 0", "at Step(2)"),
        ("rRo", 1, "b arm 0 do b 0 1", "failed guard"),
        ("rRro", 2, "b arm 0 do b 0 0", "failed guard"),
    ];
    for (short, until, script, expected) in rows {
        assert_eq!(to(&guarded(short, until), script), expected, "{short} until {until}: {script}");
    }
}

#[test]
fn a_guarded_step_is_not_intended_before_it_is_armed() {
    let plan = guarded("oo", 0);
    let state = play(&plan, "b").unwrap();
    assert_eq!(next(&plan, &state), Next::Arm(0));
    assert!(play(&plan, "b do").is_err() && play(&plan, "b arm arm").is_err());
    assert_eq!(next(&plan, &play(&plan, "b arm").unwrap()), Next::Do(Operation::Step(0)));
    // A step without a guard has nothing to arm, and one that is disarmed cannot lapse.
    assert!(play(&plan, "b arm 0 arm").is_err() && play(&plan, "b arm 0 lapse").is_err());
    // The run's time does not keep a guard from firing, and a cancel waits for it.
    assert_eq!(to(&plan, "b arm 1"), "at Guard(0)");
    assert!(play(&plan, "b arm 1 expired").is_err() && play(&plan, "b arm 1 cancel").is_err());
}

#[test]
fn a_guard_that_failed_is_named_with_what_was_before_it() {
    let plan = guarded("uo", 0);
    let state = play(&plan, "b arm 1 1").unwrap();
    let text = &state.outcome().and_then(Outcome::failure).unwrap().text;
    assert_eq!(
        text,
        "guard release-clients of step s0 has not succeeded: guard release-clients of step s0 ended with status 1; \
         before that, step s0 ended with status 1"
    );
    assert!(state.has_failed_guard());
    // Two guards: both fire, whatever becomes of one.
    let mut plan = guarded("rro", 2);
    plan.steps[1].guard = plan.steps[0].guard.clone();
    assert_eq!(to(&plan, "b arm 0 arm 0 1"), "at Guard(1)");
    assert_eq!(to(&plan, "b arm 0 arm 0 1 1"), "at Guard(0)");
    assert_eq!(to(&plan, "b arm 0 arm 0 1 1 0"), "needs_operator");
    assert_eq!(to(&plan, "b arm 0 arm 0 1 0 0"), "failed step");
}

#[test]
fn a_guard_that_failed_is_fired_once_more_before_an_undo() {
    let plan = guarded("uo", 0);
    let mut state = play(&plan, "b arm 1 1 b").unwrap();
    let event = crate::domain::run::Event::UndoAsked { by: "alice".into(), reason: "repaired".into() };
    let record = crate::domain::run::Record { at: jiff::Timestamp::UNIX_EPOCH, event };
    crate::domain::run::apply(&plan, &mut state, &record).unwrap();
    assert_eq!(leads_to(&state), "at Guard(0)");
}

#[test]
fn a_final_step_that_is_resumable_goes_on_and_is_never_undone() {
    let mut plan = plan("uFo");
    plan.steps[1].resumable = true;
    assert_eq!(to(&plan, "b 0 do b"), "at Done(1)");
    assert_eq!(to(&plan, "b 0 do b 0"), "at Step(2)");
    assert_eq!(to(&plan, "b 0 do b 1"), "at Step(1)");
    assert_eq!(to(&plan, "b 0 do b 1 do b 1 0 0"), "succeeded");
    // What the check cannot tell, and what fails, is for a person.
    assert_eq!(to(&plan, "b 0 do b 2"), "needs_operator");
    assert_eq!(to(&plan, "b 0 do b 1 1"), "needs_operator");
    assert_eq!(to(&plan, "b 0 do b 1 do cancel 0"), "at Step(2)");
}
