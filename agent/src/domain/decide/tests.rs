//! The decision as a model test: histories of what is seen, row by row, against what may be carried out.

use super::capacity::conflict;
use super::*;
use crate::domain::order::Document;
use crate::domain::plan::Trigger;
use crate::domain::state::{Closing, End, Hold};
use words::*;

/// A host without disk, store or clock: it carries out at once what is decided, and counts it.
pub(crate) struct Model {
    pub(crate) now: Timestamp,
    pub(crate) host: Name,
    pub(crate) sources: Vec<Source>,
    orders: BTreeMap<OrderKey, SeenOrder>,
    pub(crate) controls: Controls,
    pub(crate) freezes: Freezes,
    texts: BTreeMap<OrderKey, String>,
    pub(crate) visible: bool,
    pub(crate) unknown: BTreeSet<Source>,
    pub(crate) index: u64,
    pub(crate) memory: LedgerState,
    pub(crate) prior_reports: BTreeMap<Name, Option<RunId>>,
    /// The version of every plan, and up to which one plans may be made.
    pub(crate) plan: u32,
    pub(crate) previous_format: Option<PreviousFormat>,
    pub(crate) unready: BTreeMap<OrderKey, Unready>,
    pub(crate) runs: BTreeMap<RunId, RunView>,
    pub(crate) secrets: bool,
    pub(crate) unread: BTreeMap<RunId, UnreadablePlan>,
    pub(crate) probe: bool,
    pub(crate) emergency: bool,
    pub(crate) full: Option<String>,
    pub(crate) start_block: Option<String>,
    pub(crate) repeatable: bool,
    /// How its runs end; none: they go on.
    pub(crate) ends: Option<End>,
    pub(crate) ids: u64,
    pub(crate) started: Vec<String>,
    pub(crate) decision: Decision,
    pub(crate) clock: Clock,
    /// No store at all.
    unreachable: bool,
    /// What the task says, and whether it is a good one.
    offline: bool,
    pub(crate) refused: Option<String>,
    running: Vec<(OrderKey, RunId)>,
    pub(crate) answers: BTreeMap<OrderKey, ProbeAnswers>,
    pub(crate) asked: Vec<OrderKey>,
    /// What Vault tells of watched secrets.
    versions: BTreeMap<String, SecretVersion>,
    /// What each task locks, and what runs that are being started have.
    pub(crate) locks: Vec<Lock>,
    starting: BTreeMap<RunId, Vec<Lock>>,
    /// What the gates of each task said when they were asked last.
    pub(crate) gates: Option<GateAnswer>,
    /// What they say when they are asked: why one is closed, and when it opens.
    pub(crate) gates_say: (Option<String>, Option<Timestamp>),
}

/// The memory of a host that has joined.
fn joined() -> LedgerState {
    let mut memory = LedgerState::default();
    memory.apply(LedgerEntry::HostJoined { at: Timestamp::UNIX_EPOCH, unread: BTreeSet::new() });
    memory
}

#[path = "recurring_tests.rs"]
mod recurring_tests;
#[path = "secret_tests.rs"]
mod secret_tests;

impl Model {
    pub(crate) fn new() -> Self {
        Self {
            now: Timestamp::from_second(1_700_000_000).unwrap(),
            host: "h".parse().unwrap(),
            sources: ["hosts/h", "groups/a", "groups/all"].map(|text| text.parse().unwrap()).into(),
            orders: BTreeMap::new(),
            controls: Controls::new(),
            freezes: Freezes::new(),
            texts: BTreeMap::new(),
            visible: true,
            unknown: BTreeSet::new(),
            index: 100,
            memory: joined(),
            prior_reports: BTreeMap::new(),
            plan: 1,
            previous_format: None,
            unready: BTreeMap::new(),
            runs: BTreeMap::new(),
            secrets: false,
            unread: BTreeMap::new(),
            probe: false,
            emergency: false,
            full: None,
            start_block: None,
            repeatable: false,
            ends: Some(End::Succeeded),
            ids: 0,
            started: Vec::new(),
            decision: Decision::default(),
            clock: Clock::Synchronised,
            unreachable: false,
            offline: false,
            refused: None,
            running: Vec::new(),
            answers: BTreeMap::new(),
            asked: Vec::new(),
            versions: BTreeMap::new(),
            locks: Vec::new(),
            starting: BTreeMap::new(),
            gates: None,
            gates_say: (None, None),
        }
    }

    pub(crate) fn put_at(&mut self, key: &str, text: &str, index: u64) {
        let document = Document::read(text.as_bytes()).map_err(|error| error.to_string());
        self.orders.insert(key.parse().unwrap(), SeenOrder { index, document });
        self.texts.insert(key.parse().unwrap(), text.to_owned());
    }

    /// Writes an order under the next index.
    pub(crate) fn put(&mut self, key: &str, revision: &str) {
        self.index += 10;
        self.put_at(key, &text(revision), self.index);
    }

    /// Writes a text under the next index.
    pub(crate) fn put_text(&mut self, key: &str, text: &str) {
        self.index += 10;
        self.put_at(key, text, self.index);
    }

    pub(crate) fn delete(&mut self, key: &str) {
        self.index += 10;
        self.orders.remove(&key.parse().unwrap());
    }

    /// What the model does with a decision; `hold_back` keeps started runs from being over.
    pub(crate) fn settle(&mut self) {
        for _ in 0..100 {
            let copies = self.memory.orders.iter().filter_map(|(key, order)| {
                let copy = order.recurrence.confirmed.as_ref()?;
                let document = Document::read(copy.document.as_bytes()).map_err(|error| error.to_string());
                Some((key.clone(), SeenOrder { index: copy.index, document }))
            });
            let confirmed: BTreeMap<OrderKey, SeenOrder> = copies.collect();
            let known = if self.visible { &self.orders } else { &confirmed };
            let checked_orders: BTreeMap<OrderKey, CheckedOrder> = known
                .iter()
                .map(|(key, seen)| {
                    let (repeatable, offline) = (self.repeatable, self.offline);
                    let probe = self.probe;
                    let needs = Requirements {
                        repeatable,
                        locks: self.locks.clone(),
                        gates: self.gates.clone().map(Box::new),
                        offline,
                        probe,
                        secrets: self.secrets,
                        emergency: self.emergency,
                        plan: self.plan,
                    };
                    let finding = self.refused.clone().map_or(Ok(needs), Err);
                    (key.clone(), CheckedOrder { index: seen.index, finding })
                })
                .collect();
            let indexes = self.sources.iter().map(|source| (source.clone(), self.index)).collect();
            let view = View {
                vault: None,
                unready: &self.unready,
                now: self.now,
                boot: "b",
                host: &self.host,
                sources: &self.sources,
                orders: self.visible.then_some(&self.orders),
                prior_reports: &self.prior_reports,
                start_block: self.start_block.as_deref(),
                full: self.full.as_deref(),
                unknown: &self.unknown,
                controls: &self.controls,
                freezes: &self.freezes,
                indexes: &indexes,
                memory: &self.memory,
                checked_orders: &checked_orders,
                runs: &self.runs,
                unread: &self.unread,
                previous_format: self.previous_format,
                starting: &self.starting,
                parallel: 4,
                quiet_until: None,
                clock: self.clock,
                unreachable: self.unreachable,
                confirmed: &confirmed,
                answers: &self.answers,
                versions: &self.versions,
            };
            let ids = &mut self.ids;
            let mut new_run = || {
                *ids += 1;
                RunId::new(*ids, 0)
            };
            self.decision = decide(&view, &mut new_run);
            let actions = std::mem::take(&mut self.decision.actions);
            if !actions.iter().any(|action| !matches!(action, Action::Probe(_))) {
                self.asked = actions
                    .into_iter()
                    .filter_map(|action| if let Action::Probe(key) = action { Some(key) } else { None })
                    .collect();
                return;
            }
            for action in actions {
                match action {
                    Action::Record(fact) => {
                        if let LedgerEntry::Activation { key, .. } | LedgerEntry::ScheduleArmed { key, .. } =
                            &fact
                        {
                            self.answers.remove(key);
                        }
                        self.memory.apply(fact);
                    }
                    Action::Probe(_) | Action::SendRequest { .. } => {}
                    Action::CheckOrder(_) => {
                        let (closed, opens) = self.gates_say.clone();
                        self.gates = Some(GateAnswer { asked: self.now, closed, opens, timed: true });
                    }
                    Action::Revoke { key, run, .. } => {
                        self.runs.remove(&run);
                        self.ids += 1;
                        self.memory.apply(LedgerEntry::PreparationRevoked {
                            key,
                            run,
                            next: RunId::new(self.ids, 0),
                        });
                    }
                    Action::Confirm(key) => {
                        let (index, at) = (self.orders[&key].index, self.now);
                        let document = Some(self.texts[&key].clone());
                        self.memory.apply(LedgerEntry::DocumentConfirmed { key, index, document, at });
                    }
                    Action::Start { key, run, .. } => {
                        let trigger = self.memory.orders[&key].current.as_ref().unwrap().trigger.clone();
                        let Ok(Document::Order(order)) = &known[&key].document else { panic!("no order") };
                        let what = match trigger {
                            Trigger::Placed | Trigger::Retry(_) => order.by.clone().unwrap(),
                            trigger => String::from(trigger),
                        };
                        self.started.push(format!("{key} {what}"));
                        self.memory.apply(LedgerEntry::Prepared { key: key.clone(), run });
                        if let Some(end) = self.ends {
                            let closing = Closing { end, error: None, at: self.now, run: None };
                            self.memory.apply(LedgerEntry::Closed { key, run, closing });
                        } else {
                            self.running.push((key, run));
                        }
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        panic!("decisions lead in a circle");
    }

    /// A restart: what is remembered comes from the ledger.
    pub(crate) fn restart(&mut self) {
        let mut memory = LedgerState::default();
        for fact in self.memory.facts() {
            let json = serde_json::to_string(&fact).unwrap();
            memory.apply(serde_json::from_str(&json).unwrap());
        }
        assert_eq!(memory, self.memory);
        self.memory = memory;
        self.settle();
    }

    pub(crate) fn started(&mut self) -> Vec<String> {
        std::mem::take(&mut self.started)
    }

    pub(crate) fn held(&self, key: &str) -> Option<Hold> {
        self.memory.orders.get(&key.parse().unwrap())?.held.as_ref().map(|held| held.why)
    }
}

/// `by` is a term: it tells in the tests which revision was carried out.
pub(crate) fn text(revision: &str) -> String {
    format!("{{task: t, revision: {revision}, by: {revision}, spread: 0s}}")
}

pub(crate) const HOST: &str = "hosts/h/o";
const NEAR: &str = "groups/a/o";
const ALL: &str = "groups/all/o";

#[test]
fn a_new_identity_under_a_higher_index_is_carried_out_once() {
    let mut model = Model::new();
    model.put(HOST, "r1");
    model.settle();
    model.settle();
    model.restart();
    assert_eq!(model.started(), ["hosts/h/o r1"]);
    model.put(HOST, "r2");
    model.settle();
    assert_eq!(model.started(), ["hosts/h/o r2"]);
}

#[test]
fn the_identity_that_the_key_had_last_starts_nothing_whatever_its_index() {
    for index in [1, 50, 110, 500] {
        let mut model = Model::new();
        model.put(HOST, "r1");
        model.settle();
        model.started();
        model.put_at(HOST, &text("r1"), index);
        model.settle();
        model.restart();
        assert!(model.started().is_empty(), "index {index}");
        assert_eq!(model.memory.orders[&HOST.parse().unwrap()].index, index);
    }
}

/// A place that is too large after a restart: what it holds is unknown, and the orders of the others go on.
#[test]
fn what_an_unknown_place_holds_is_neither_gone_nor_started_and_keeps_nobody_else() {
    let mut model = Model::new();
    let waits = "{task: t, revision: w, by: w, not_before: 2999-01-01T00:00:00Z}";
    model.put_text("groups/a/waits", waits);
    model.put(NEAR, "r1");
    model.put(HOST, "r1");
    model.settle();
    assert_eq!(model.started(), ["hosts/h/o r1"]);
    let before = model.memory.clone();
    // Everything of the group vanishes from what is known, also an order that a farther place has, too.
    let of_group: Vec<OrderKey> =
        model.orders.keys().filter(|key| **key != HOST.parse().unwrap()).cloned().collect();
    of_group.iter().for_each(|key| drop(model.orders.remove(key)));
    model.unknown.insert("groups/a".parse().unwrap());
    model.put("groups/all/waits", "other");
    model.restart();
    assert_eq!(model.memory, before, "nothing is withdrawn, superseded or taken in");
    model.put("groups/all/farther", "r1");
    model.put("hosts/h/nearer", "r1");
    model.settle();
    assert_eq!(model.started(), ["groups/all/farther r1", "hosts/h/nearer r1"]);
    // It is read again, and nothing has come of it.
    model.unknown.clear();
    model.put_text("groups/a/waits", waits);
    model.put(NEAR, "r1");
    model.settle();
    assert!(model.started().is_empty());
    assert_eq!(model.held("groups/all/waits"), None);
}

#[test]
fn a_deleted_and_re_created_order_starts_nothing() {
    let mut model = Model::new();
    model.put(HOST, "r1");
    model.settle();
    model.delete(HOST);
    model.settle();
    model.restart();
    model.put(HOST, "r1");
    model.settle();
    assert_eq!(model.started(), ["hosts/h/o r1"]);
}

#[test]
fn an_identity_from_before_is_held_unless_every_step_is_repeatable() {
    for repeatable in [false, true] {
        let mut model = Model::new();
        model.repeatable = repeatable;
        for revision in ["r1", "r2", "r1"] {
            model.put(HOST, revision);
            model.settle();
        }
        model.restart();
        assert_eq!(model.started().len(), if repeatable { 3 } else { 2 });
        assert_eq!(model.held(HOST), (!repeatable).then_some(Hold::Repeated));
        // A new one under a higher index goes on as ever.
        model.put(HOST, "r3");
        model.settle();
        assert_eq!(model.started(), ["hosts/h/o r3"]);
        assert_eq!(model.held(HOST), None);
    }
}

#[test]
fn a_restored_snapshot_is_held() {
    let mut model = Model::new();
    model.put(HOST, "r1");
    model.settle();
    let (old, index) = (text("r1"), model.index);
    model.put(HOST, "r2");
    model.settle();
    model.started();
    model.put_at(HOST, &old, index);
    model.settle();
    assert_eq!(model.held(HOST), Some(Hold::IndexRegressed));
    // An identity that was never seen here, under an index from before the restore: the same.
    model.put_at(HOST, &text("never"), index + 1);
    model.settle();
    model.restart();
    assert_eq!(model.held(HOST), Some(Hold::IndexRegressed));
    assert!(model.started().is_empty());
    // Edited afterwards: Consul counts on from above.
    model.put(HOST, "r3");
    model.settle();
    assert_eq!(model.started(), ["hosts/h/o r3"]);
}

#[test]
fn keys_imported_into_a_new_cluster_at_higher_indexes_start_nothing() {
    let mut model = Model::new();
    for n in 0..5 {
        model.put(&format!("hosts/h/o{n}"), "r1");
    }
    model.settle();
    assert_eq!(model.started().len(), 5);
    for n in 0..5 {
        model.put_at(&format!("hosts/h/o{n}"), &text("r1"), 10_000 + n);
    }
    model.settle();
    assert!(model.started().is_empty());
}

#[test]
fn the_nearest_place_wins_and_what_it_uncovers_is_held_until_it_is_edited() {
    let mut model = Model::new();
    model.put(ALL, "all1");
    model.settle();
    model.put(NEAR, "near1");
    model.settle();
    model.put(HOST, "host1");
    model.settle();
    assert_eq!(model.started(), ["groups/all/o all1", "groups/a/o near1", "hosts/h/o host1"]);
    // While they are covered, they change.
    model.put(NEAR, "near2");
    model.put(ALL, "all2");
    model.settle();
    model.delete(HOST);
    model.settle();
    model.restart();
    assert_eq!(model.held(NEAR), Some(Hold::Fallback));
    model.delete(NEAR);
    model.settle();
    assert_eq!(model.held(ALL), Some(Hold::Fallback));
    assert!(model.started().is_empty());
    model.put(ALL, "all3");
    model.settle();
    assert_eq!(model.started(), ["groups/all/o all3"]);
}

#[test]
fn what_is_uncovered_is_held_also_when_it_is_seen_after_the_nearer_one_went() {
    let mut model = Model::new();
    model.put(HOST, "host1");
    model.settle();
    model.started();
    model.index += 10;
    let written_before = model.index;
    model.delete(HOST);
    model.settle();
    model.restart();
    model.put_at(ALL, &text("all1"), written_before);
    model.settle();
    assert_eq!((model.held(ALL), model.started().len()), (Some(Hold::Fallback), 0));
    // Written after the nearer one had gone: an order as any other.
    let mut model = Model::new();
    model.put(HOST, "host1");
    model.settle();
    model.delete(HOST);
    model.settle();
    model.put(ALL, "all1");
    model.settle();
    assert_eq!(model.started(), ["hosts/h/o host1", "groups/all/o all1"]);
}

#[test]
fn leaving_a_group_uncovers_and_joining_it_again_starts_nothing_twice() {
    let mut model = Model::new();
    model.put(NEAR, "near1");
    model.settle();
    model.put(ALL, "all1");
    model.settle();
    assert_eq!(model.started(), ["groups/a/o near1"]);
    model.sources.remove(1);
    model.restart();
    assert_eq!(model.held(ALL), Some(Hold::Fallback));
    model.sources.insert(1, "groups/a".parse().unwrap());
    model.restart();
    assert!(model.started().is_empty());
}

#[test]
fn p5_out_of_sight_nothing_follows() {
    let mut model = Model::new();
    model.put(HOST, "r1");
    model.settle();
    model.started();
    let before = model.memory.clone();
    let orders = std::mem::take(&mut model.orders);
    model.visible = false;
    model.settle();
    model.restart();
    assert_eq!(model.memory, before);
    model.orders = orders;
    model.visible = true;
    model.settle();
    assert!(model.started().is_empty());
    assert_eq!(model.memory, before);
}

#[test]
fn a_waiting_order_is_withdrawn_superseded_expired_or_skipped() {
    let later = |revision: &str| {
        format!("{{task: t, revision: {revision}, by: {revision}, not_before: 2999-01-01T00:00:00Z}}")
    };
    let end =
        |model: &Model| match &model.memory.orders[&HOST.parse().unwrap()].current.as_ref().unwrap().stage {
            crate::domain::state::Stage::Closed(closing) => Some(closing.end),
            _ => None,
        };
    let waiting = || {
        let mut model = Model::new();
        model.put_at(HOST, &later("r1"), 110);
        model.settle();
        assert_eq!(model.decision.waits[&HOST.parse().unwrap()].reason, Reason::Schedule);
        model
    };
    let mut model = waiting();
    model.delete(HOST);
    model.settle();
    assert_eq!(end(&model), Some(End::Withdrawn));
    let mut model = waiting();
    model.put_at(HOST, "skip: true", 120);
    model.settle();
    assert_eq!(end(&model), Some(End::Skipped));
    let mut model = waiting();
    model.put_at(HOST, "{task: t, revision: r1, not_after: 2000-01-01T00:00:00Z}", 120);
    model.settle();
    assert_eq!(end(&model), Some(End::Expired));
    let mut model = waiting();
    model.put_at(HOST, "task: [", 120);
    model.settle();
    assert_eq!(end(&model), Some(End::Superseded));
    // Changed terms let the same instruction start, once.
    let mut model = waiting();
    model.put_at(HOST, &text("r1"), 120);
    model.settle();
    model.settle();
    assert_eq!(model.started(), ["hosts/h/o r1"]);
}

#[test]
fn a_broken_document_in_between_starts_nothing_twice() {
    let mut model = Model::new();
    model.put(HOST, "r1");
    model.settle();
    model.put_at(HOST, "task: [", model.index + 1);
    model.settle();
    assert!(model.memory.orders[&HOST.parse().unwrap()].unreadable.is_some());
    model.index += 10;
    model.put(HOST, "r1");
    model.settle();
    assert_eq!(model.started(), ["hosts/h/o r1"]);
    assert!(model.memory.orders[&HOST.parse().unwrap()].unreadable.is_none());
}

/// Any history of a few operations: each activation starts once, and nothing starts that is not in sight.
#[test]
fn p2_no_activation_starts_twice_in_any_short_history() {
    const OPERATIONS: [&str; 9] =
        ["put r1", "put r2", "old r1", "delete", "restart", "blind", "group", "ungroup", "same"];
    let histories = OPERATIONS.len().pow(4);
    for n in 0..histories {
        let mut model = Model::new();
        let mut code = n;
        let mut last = None;
        for _ in 0..4 {
            let operation = OPERATIONS[code % OPERATIONS.len()];
            code /= OPERATIONS.len();
            match operation {
                "put r1" => {
                    model.put(HOST, "r1");
                    last = Some("r1");
                }
                "put r2" => {
                    model.put(HOST, "r2");
                    last = Some("r2");
                }
                "old r1" => model.put_at(HOST, &text("r1"), 50),
                "delete" => model.delete(HOST),
                "restart" => model.restart(),
                "blind" => {
                    model.visible = false;
                    model.settle();
                    model.visible = true;
                }
                "group" => model.put(ALL, "g1"),
                "ungroup" => model.delete(ALL),
                _ => {
                    if let Some(revision) = last {
                        model.put(HOST, revision);
                    }
                }
            }
            model.settle();
        }
        let mut started = model.started();
        let all = started.len();
        started.sort();
        started.dedup();
        assert_eq!(started.len(), all, "history {n} starts one twice: {started:?}");
    }
}

#[test]
fn locks_and_places_decide_who_goes_first() {
    let lock = |mode| Lock { name: "db".into(), mode };
    assert!(conflict(&lock(LockMode::Exclusive), &lock(LockMode::Shared)));
    assert!(!conflict(&lock(LockMode::Shared), &lock(LockMode::Shared)));
    let other = Lock { name: "other".into(), mode: LockMode::Exclusive };
    assert!(!conflict(&lock(LockMode::Exclusive), &other));
}

/// What these tests speak of, besides decisions.
pub(super) mod words {
    pub(crate) use std::collections::{BTreeMap, BTreeSet};
    pub(crate) use std::sync::Arc;

    pub(crate) use jiff::Timestamp;

    pub(crate) use crate::domain::control::{Control, ControlId};
    pub(crate) use crate::domain::freeze::Freeze;
    pub(crate) use crate::domain::name::Name;
    pub(crate) use crate::domain::plan::{Lock, Plan};
    pub(crate) use crate::domain::reconcile::ProbeAnswers;
    pub(crate) use crate::domain::run::State;
    pub(crate) use crate::domain::secret_watch::SecretVersion;
    pub(crate) use crate::domain::source::{OrderKey, Source};
    pub(crate) use crate::domain::state::{LedgerState, RunRequest};
    pub(crate) use crate::domain::task::LockMode;
}
