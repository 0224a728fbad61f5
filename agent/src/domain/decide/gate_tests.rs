//! When the gates of a task are asked, and what follows from their answers.

use std::time::Duration;

use super::tests::{HOST, Model};
use super::*;
use crate::domain::instant::later;
use jiff::Timestamp;

fn closed_since(model: &mut Model, opens: Option<Timestamp>) {
    model.gates_say = (Some("no room".into()), opens);
    model.gates = Some(GateAnswer { asked: Timestamp::UNIX_EPOCH, closed: None, opens: None, timed: true });
}

fn wait(model: &Model) -> &Wait {
    &model.decision.waits[&HOST.parse().unwrap()]
}

#[test]
fn a_gate_that_has_opened_is_found_open_within_a_minute() {
    let mut model = Model::new();
    closed_since(&mut model, None);
    model.put(HOST, "r1");
    model.settle();
    assert_eq!((wait(&model).reason, wait(&model).detail.as_deref()), (Reason::Gate, Some("no room")));
    let asked = model.now;
    model.gates_say = (None, None);
    model.now = later(asked, Duration::from_secs(59));
    model.settle();
    assert!(model.started().is_empty(), "it is not asked again before");
    assert_eq!(model.decision.wake, Some(later(asked, Duration::from_secs(60))));
    model.now = later(asked, Duration::from_secs(60));
    model.settle();
    assert_eq!(model.started(), ["hosts/h/o r1"]);
}

#[test]
fn a_gate_that_says_when_it_opens_is_asked_at_that_second_and_the_order_says_it() {
    for seconds in [7, 3_000] {
        let mut model = Model::new();
        let opens = later(model.now, Duration::from_secs(seconds));
        closed_since(&mut model, Some(opens));
        model.put(HOST, "r1");
        model.settle();
        assert_eq!(wait(&model).until, Some(opens));
        model.now = later(model.now, Duration::from_secs(seconds - 1));
        model.settle();
        assert_eq!((model.started().len(), wait(&model).until), (0, Some(opens)), "asked again, and closed");
        model.gates_say = (None, None);
        model.now = opens;
        model.settle();
        assert_eq!(model.started(), ["hosts/h/o r1"]);
    }
}

/// The order came in when its gate was open, and waited for its time; when that has come the gate is closed.
#[test]
fn an_open_gate_is_asked_again_before_the_start() {
    let mut model = Model::new();
    let starts = later(model.now, Duration::from_secs(3_600));
    model.gates = Some(GateAnswer { asked: model.now, closed: None, opens: None, timed: true });
    model.put_text(HOST, &format!("{{task: t, by: r1, spread: 0s, not_before: {starts}}}"));
    model.settle();
    assert_eq!(wait(&model).reason, Reason::Schedule);
    model.gates_say = (Some("spent".into()), None);
    model.now = starts;
    model.settle();
    assert_eq!((model.started().len(), wait(&model).detail.as_deref()), (0, Some("spent")));
}

#[test]
fn an_answer_from_before_the_clock_was_set_back_does_not_count_and_a_wrong_clock_waits() {
    let mut model = Model::new();
    let future = later(model.now, Duration::from_secs(9_000));
    model.gates = Some(GateAnswer { asked: future, closed: Some("old".into()), opens: None, timed: true });
    model.put(HOST, "r1");
    model.clock = Clock::Unsynchronised;
    model.settle();
    assert_eq!(wait(&model).reason, Reason::Clock);
    model.clock = Clock::Synchronised;
    model.settle();
    assert_eq!(model.started(), ["hosts/h/o r1"]);
}
