//! First sight, a ledger that lags behind, a host that is in doubt, and a full disk: each row of the rules.

use super::tests::words::*;
use super::tests::{HOST, Model, text};
use super::*;
use crate::domain::control::{Control, ControlAction, Target};
use crate::domain::reconcile::ProbeAnswer;
use crate::domain::state::Hold;

/// A host that remembers nothing, and an order that is there already.
fn blank(order: &str) -> Model {
    let mut model = Model::new();
    model.memory = LedgerState::default();
    model.put_text(HOST, order);
    model
}

fn run(n: u64) -> RunId {
    RunId::new(1_700_000_000_000 + n, 0)
}

impl Model {
    fn told(&mut self, answer: ProbeAnswer) {
        self.answers.entry(HOST.parse().unwrap()).or_default().take(self.now, answer);
        self.settle();
    }
}

#[test]
fn what_stood_before_the_host_remembered_anything_is_held() {
    let mut model = blank(&text("r1"));
    model.settle();
    model.restart();
    assert_eq!(model.held(HOST), Some(Hold::Preexisting));
    assert!(model.started().is_empty() && model.asked.is_empty());
    // What is written afterwards is an order like any other.
    model.put(HOST, "r2");
    model.put("hosts/h/other", "r1");
    model.settle();
    assert_eq!(model.started(), ["hosts/h/o r2", "hosts/h/other r1"]);
}

#[test]
fn an_order_may_say_that_joining_hosts_carry_it_out() {
    let mut model = blank("{task: t, by: r1, on_preexisting: run}");
    model.settle();
    assert_eq!(model.started(), ["hosts/h/o r1"]);
    // A schedule lies ahead: nothing of it was missed by a host that was not there.
    let mut model = blank("{task: t, by: r1, schedule: '30 2 * * *'}");
    model.settle();
    assert_eq!((model.held(HOST), model.started().len()), (None, 0));
}

/// One place that cannot be read when the host joins: the others begin at once, and it begins as they did.
#[test]
fn a_host_that_joins_judges_each_place_when_it_is_first_read() {
    let mut model = blank(&text("r1"));
    let near: Source = "groups/a".parse().unwrap();
    model.unknown.insert(near.clone());
    model.put("groups/all/far", "r1");
    model.put_text("hosts/h/joins", "{task: t, by: r1, on_preexisting: run, spread: 0s}");
    model.settle();
    model.restart();
    assert_eq!([HOST, "groups/all/far"].map(|key| model.held(key)), [Some(Hold::Preexisting); 2]);
    assert_eq!(model.started(), ["hosts/h/joins r1"]);
    // What is written elsewhere goes on, before and after a restart.
    model.put("hosts/h/other", "r1");
    model.settle();
    model.restart();
    assert_eq!(model.started(), ["hosts/h/other r1"]);
    // It can be read: what it holds was there before, as far as this host can tell, also what is nearer than another.
    for order in ["o2", "far"] {
        model.put(&format!("groups/a/{order}"), "r1");
    }
    model.put_text("groups/a/joins-late", "{task: t, by: r1, on_preexisting: run, spread: 0s}");
    model.unknown.clear();
    model.settle();
    model.restart();
    assert_eq!(["groups/a/o2", "groups/a/far"].map(|key| model.held(key)), [Some(Hold::Preexisting); 2]);
    assert_eq!(model.started(), ["groups/a/joins-late r1"]);
    // From then on it is a place like any other, also while it cannot be read again.
    assert!(model.memory.unread_sources.is_empty());
    model.put("groups/a/o2", "r2");
    model.settle();
    assert_eq!(model.started(), ["groups/a/o2 r2"]);
    model.unknown.insert(near);
    model.put("groups/all/o3", "r1");
    model.settle();
    assert_eq!(model.started(), ["groups/all/o3 r1"]);
}

/// A report of a run that the ledger lacks holds an order of such a place, too.
#[test]
fn a_place_that_is_read_late_is_held_against_what_the_host_reported() {
    let mut model = blank(&text("r1"));
    model.unknown.insert("groups/a".parse().unwrap());
    model.settle();
    model.prior_reports.insert("backup".parse().unwrap(), Some(run(1)));
    model.put("groups/a/backup", "r1");
    model.unknown.clear();
    model.probe = true;
    model.settle();
    assert_eq!(model.held("groups/a/backup"), Some(Hold::LedgerBehind));
    assert!(model.started().is_empty());
}

#[test]
fn a_probe_settles_first_sight() {
    for (answer, held, started) in [
        (ProbeAnswer::Holds, None, 0),
        (ProbeAnswer::DoesNotHold, None, 1),
        (ProbeAnswer::CannotTell("no".into()), Some(Hold::Preexisting), 0),
    ] {
        let mut model = blank(&text("r1"));
        model.probe = true;
        model.settle();
        assert_eq!(model.asked, [HOST.parse().unwrap()]);
        model.told(answer.clone());
        model.restart();
        assert_eq!((model.held(HOST), model.started().len()), (held, started), "{answer:?}");
    }
}

#[test]
fn a_report_of_a_run_that_the_ledger_lacks_holds_the_order() {
    // (remembered before, what the probe says, held, started)
    for (remembers, answer, held, started) in [
        (false, None, Some(Hold::LedgerBehind), 0),
        (true, None, Some(Hold::LedgerBehind), 0),
        (true, Some(ProbeAnswer::Holds), None, 0),
        // Not done, and yet reported: somebody has to look.
        (true, Some(ProbeAnswer::DoesNotHold), Some(Hold::LedgerBehind), 0),
    ] {
        let mut model = if remembers { Model::new() } else { blank(&text("r1")) };
        model.ids = 1_700_000_000_000;
        if remembers {
            model.put(HOST, "r1");
            model.settle();
            assert_eq!(model.started().len(), 1);
            model.put(HOST, "r2");
        }
        model.prior_reports.insert("o".parse().unwrap(), Some(run(1_000_000)));
        model.probe = answer.is_some();
        model.settle();
        if let Some(answer) = answer.clone() {
            model.told(answer);
        }
        model.restart();
        let found = (model.held(HOST), model.started().len());
        assert_eq!(found, (held, started), "{remembers} {answer:?}");
    }
}

#[test]
fn a_report_of_a_run_that_is_known_holds_nothing() {
    let mut model = Model::new();
    model.ids = 1_700_000_000_000;
    model.put(HOST, "r1");
    model.settle();
    let known = model.memory.orders[&HOST.parse().unwrap()].current.as_ref().unwrap().run;
    model.prior_reports.insert("o".parse().unwrap(), Some(known));
    model.put(HOST, "r2");
    model.settle();
    assert_eq!(model.started(), ["hosts/h/o r1", "hosts/h/o r2"]);
}

#[test]
fn a_report_that_cannot_be_read_holds_what_is_new_and_what_comes_again() {
    let mut model = Model::new();
    for order in ["once", "known", "free"] {
        model.put(&format!("hosts/h/{order}"), "r1");
    }
    model.put_text("hosts/h/nightly", "{task: t, by: r1, schedule: '30 2 * * *'}");
    model.settle();
    assert_eq!(model.started().len(), 3);
    for order in ["once", "known", "nightly"] {
        model.prior_reports.insert(order.parse().unwrap(), None);
    }
    for order in ["once", "free"] {
        model.put(&format!("hosts/h/{order}"), "r2");
    }
    model.settle();
    model.restart();
    let held = |order: &str| model.held(&format!("hosts/h/{order}"));
    assert_eq!([held("once"), held("nightly")], [Some(Hold::LedgerBehind); 2]);
    assert_eq!([held("known"), held("free")], [None; 2]);
    assert_eq!(model.started(), ["hosts/h/free r2"]);
}

#[test]
fn an_operator_releases_or_accepts_what_is_held() {
    for (act, started) in [(ControlAction::Release, 1), (ControlAction::Accept, 0)] {
        let mut model = blank(&text("r1"));
        model.settle();
        let identity = model.memory.orders[&HOST.parse().unwrap()].held.as_ref().unwrap().identity;
        let names = Target::Identity(identity);
        let control =
            Control { action: act, target: names, settled: None, by: "alice".into(), reason: "seen".into() };
        let id = ControlId::new(u64::try_from(model.now.as_millisecond()).unwrap(), 0);
        model.controls.insert(("o".parse().unwrap(), id), Ok(control));
        model.settle();
        model.restart();
        assert_eq!((model.held(HOST), model.started().len()), (None, started), "{act:?}");
    }
}

#[test]
fn a_host_in_doubt_starts_nothing_and_goes_on_when_it_is_known() {
    let mut model = Model::new();
    model.start_block = Some("host name also used by another".into());
    model.put(HOST, "r1");
    model.settle();
    let wait = &model.decision.waits[&HOST.parse().unwrap()];
    assert_eq!((wait.reason, wait.detail.as_deref()), (Reason::Identity, model.start_block.as_deref()));
    assert!(model.started().is_empty());
    model.start_block = None;
    model.settle();
    assert_eq!(model.started(), ["hosts/h/o r1"]);
}

#[test]
fn a_full_disk_starts_emergencies_only() {
    let mut model = Model::new();
    model.full = Some("disk full".into());
    model.put(HOST, "r1");
    model.settle();
    let wait = &model.decision.waits[&HOST.parse().unwrap()];
    assert_eq!((wait.reason, wait.detail.as_deref()), (Reason::Gate, Some("disk full")));
    assert!(wait.until.is_some_and(|until| until > model.now));
    model.emergency = true;
    model.settle();
    assert_eq!(model.started(), ["hosts/h/o r1"]);
}
