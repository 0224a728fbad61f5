//! Runs that have begun nothing: whatever speaks against their start before the claim takes them back.

use super::tests::words::*;
use super::tests::{HOST, Model, text};
use super::*;
use crate::domain::run::plan_of;
use crate::domain::state::{End, Stage};

/// A host whose run of `text` is prepared and launched; nobody has its claim.
fn launched(text: &str) -> (Model, OrderKey, RunId) {
    let key: OrderKey = HOST.parse().unwrap();
    let mut model = Model::new();
    model.ends = None;
    model.put_text(HOST, text);
    model.settle();
    assert_eq!(model.started().len(), 1, "it starts at once");
    let run = model.memory.orders[&key].current.as_ref().unwrap().run;
    let plan = Plan { run, ..plan_of("o") };
    let view = RunView {
        state: Ok(State::new(plan.steps.len())),
        plan: Arc::new(plan),
        executor: ExecutorState::Unclaimed { epoch: 1 },
        launched: Some(model.now),
        launches: 0,
        unready: false,
        leftovers: None,
        delivered: None,
        progress: (None, None),
        tail: None,
    };
    model.runs.insert(run, view);
    model.settle();
    assert!(is_prepared(&model, &key), "it waits for its claim");
    (model, key, run)
}

fn is_prepared(model: &Model, key: &OrderKey) -> bool {
    model.memory.orders[key].current.as_ref().unwrap().stage == Stage::Prepared
}

fn end(model: &Model, key: &OrderKey) -> Option<End> {
    match &model.memory.orders[key].current.as_ref()?.stage {
        Stage::Closed(closing) => Some(closing.end),
        _ => None,
    }
}

fn after(model: &Model, seconds: u64) -> Timestamp {
    model.now + Duration::from_secs(seconds)
}

#[test]
fn an_end_that_passes_before_the_claim_ends_it() {
    let probe = Model::new();
    let until = after(&probe, 20);
    let (mut model, key, run) = launched(&format!("{{task: t, revision: r1, by: r1, not_after: {until}}}"));
    assert!(model.decision.wake.is_some_and(|wake| wake <= after(&model, 21)), "{:?}", model.decision);
    model.now = after(&model, 21);
    model.settle();
    assert_eq!(end(&model, &key), Some(End::Expired));
    assert!(!model.runs.contains_key(&run) && model.started().is_empty());
}

#[test]
fn a_freeze_before_the_claim_takes_it_back_until_the_thaw() {
    let (mut model, key, run) = launched(&text("r1"));
    let freeze = Freeze::read(br#"{"until": "2100-01-01T00:00:00Z", "by": "op", "reason": "x"}"#);
    let freeze = freeze.map_err(|error| error.to_string());
    model.freezes.insert("groups/a".parse().unwrap(), freeze);
    model.settle();
    assert!(!is_prepared(&model, &key) && end(&model, &key).is_none());
    assert_eq!(model.decision.waits[&key].reason, Reason::Freeze);
    assert!(model.started().is_empty());
    model.freezes.clear();
    model.settle();
    assert_eq!(model.started().len(), 1);
    assert_ne!(model.memory.orders[&key].current.as_ref().unwrap().run, run);
}

#[test]
fn a_newer_instruction_before_the_claim_is_carried_out_in_its_place() {
    let (mut model, key, _) = launched(&text("r1"));
    model.put(HOST, "r2");
    model.settle();
    assert_eq!(model.started(), ["hosts/h/o r2"], "without waiting for the older run");
    assert!(model.memory.orders[&key].previous.is_none());
}

#[test]
fn a_deletion_before_the_claim_withdraws_it() {
    let (mut model, key, _) = launched(&text("r1"));
    model.delete(HOST);
    model.settle();
    assert_eq!(end(&model, &key), Some(End::Withdrawn));
}

#[test]
fn a_cancel_before_the_claim_withdraws_it() {
    let (mut model, key, run) = launched(&text("r1"));
    let request = RunRequest::Cancel { by: "op".into(), reason: "not today".into() };
    model.memory.apply(LedgerEntry::RunRequest { key: key.clone(), run, request });
    model.settle();
    assert_eq!(end(&model, &key), Some(End::Cancelled));
}

#[test]
fn a_cancel_that_comes_when_an_attempt_has_just_failed_is_not_lost() {
    use crate::domain::control::{Control, ControlAction, Target};
    let (mut model, key, run) = launched(&text("r1"));
    model.secrets = true;
    let until = after(&model, 60);
    model.unready.insert(key.clone(), Unready { why: "500 the database is away".into(), until });
    model.runs.get_mut(&run).unwrap().unready = true;
    let identity = model.memory.orders[&key].current.as_ref().unwrap().identity;
    let id = ControlId::new(u64::try_from(model.now.as_millisecond()).unwrap(), 0);
    let (by, reason) = ("op".into(), "not today".into());
    let control = Control {
        action: ControlAction::Cancel,
        target: Target::Identity(identity),
        settled: None,
        by,
        reason,
    };
    model.controls.insert(("o".parse().unwrap(), id), Ok(control));
    model.settle();
    assert_eq!(end(&model, &key), Some(End::Cancelled));
    model.now = until;
    model.settle();
    assert!(model.started().is_empty());
}

#[test]
fn an_executor_that_left_without_secrets_leaves_an_order_that_waits_and_takes_no_place() {
    let (mut model, key, run) = launched(&text("r1"));
    model.secrets = true;
    model.locks = vec![Lock { name: "db".parse().unwrap(), mode: LockMode::Exclusive }];
    let until = after(&model, 60);
    model.unready.insert(key.clone(), Unready { why: "500 the database is away".into(), until });
    model.runs.get_mut(&run).unwrap().unready = true;
    model.settle();
    let wait = &model.decision.waits[&key];
    assert_eq!((wait.reason, wait.until), (Reason::Vault, Some(until)));
    assert_eq!(wait.detail.as_deref(), Some("500 the database is away"));
    assert!(!is_prepared(&model, &key) && model.started().is_empty());
    // What it would lock is free for others.
    model.put("hosts/h/other", "r1");
    model.settle();
    assert!(model.started().contains(&"hosts/h/other r1".to_owned()));
    model.now = until;
    model.locks.clear();
    model.settle();
    assert_eq!(model.started(), ["hosts/h/o r1"], "the next attempt is a start like any other");
}
