//! What an operator wants of an order, against where it stands.
//!
//! | act | names | it does |
//! | --- | --- | --- |
//! | cancel | what waits | closes it: cancelled |
//! | cancel | what runs | tells the executor; refused once a final step has started |
//! | release, retry | what is held | a new activation; released with a schedule, it stands and fires at its times |
//! | retry | what is over | a new activation, if the order still says the same; settles what only a person can tell |
//! | acknowledge | what only a person can tell | closes it as done or failed; or tells the next executor that the step is done |
//! | undo | what only a person can tell | tells the next executor; refused once a final step has started |
//! | accept | what is held | takes it for what stands, and starts nothing |
//! | any | anything else | nothing: it is answered as stale |
//!
//! A control is taken in once, whatever comes of it, in one record of the ledger with what it leads to. Those that change
//! nothing are answered many at a time.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::collections::BTreeSet;

use super::decision::{Action, Decision};
use super::view::{Controls, View};
use crate::domain::control::{Control, ControlAction, ControlId, Settled, Target, is_old};
use crate::domain::ids::RunId;
use crate::domain::name::Name;
use crate::domain::order::Document;
use crate::domain::plan::Trigger;
use crate::domain::run::State;
use crate::domain::source::OrderKey;
use crate::domain::state::{Acted, Activation, Closing, End, Held, LedgerEntry, RunRequest, Stage};

/// So many controls are answered in one record of the ledger, and the next ones in the next: fewer than are remembered, so
/// that one record pushes out none of its own.
const MAX_AT_ONCE: usize = 256;

pub(super) fn decide(
    view: &View<'_>,
    controls: &Controls,
    new_run: &mut dyn FnMut() -> RunId,
    decision: &mut Decision,
) {
    // Taken back in this very decision: such a run has another name when the control is remembered.
    let taken_back =
        |action: &Action| if let Action::Revoke { run, .. } = action { Some(*run) } else { None };
    let taken_back: BTreeSet<RunId> = decision.actions.iter().filter_map(taken_back).collect();
    let is_new = |id: ControlId| !view.memory.has_acted(id) && !is_old(id, view.now);
    let mut new: Vec<_> = controls.iter().filter(|((_, id), _)| is_new(*id)).collect();
    // The oldest first, whatever order they are for: newer ones must not push an older one out of what is remembered.
    new.sort_unstable_by_key(|((_, id), _)| *id);
    let mut changed = BTreeSet::new();
    let mut answered = 0_usize;
    for ((order, id), read) in new {
        if answered >= MAX_AT_ONCE {
            break;
        }
        // One that changes something comes alone for its order: the next is asked when that is remembered.
        if changed.contains(order) {
            continue;
        }
        let acted = |act, by: &str, reason: &str, answer| Acted {
            order: order.clone(),
            act,
            by: by.to_owned(),
            reason: reason.to_owned(),
            at: view.now,
            answer,
        };
        let (acted, facts) = match read {
            Err(why) => (acted(None, "", "", format!("refused: {why}")), Vec::new()),
            Ok(control) => {
                let case = ControlContext { view, order, id: *id, control, taken_back: &taken_back };
                let (answer, facts) = match case.act(new_run) {
                    ControlOutcome::NotYet => {
                        changed.insert(order);
                        continue;
                    }
                    ControlOutcome::Done(facts) => {
                        changed.insert(order);
                        ("done".to_owned(), facts)
                    }
                    ControlOutcome::Stale(why) => (format!("stale: {why}"), Vec::new()),
                    ControlOutcome::Refused(why) => (format!("refused: {why}"), Vec::new()),
                };
                (acted(Some(control.action), &control.by, &control.reason, answer), facts)
            }
        };
        answered = answered.saturating_add(1);
        decision.record(LedgerEntry::ControlHandled { control: *id, acted });
        facts.into_iter().for_each(|fact| decision.record(fact));
    }
}

enum ControlOutcome {
    Done(Vec<LedgerEntry>),
    /// It names nothing that is there.
    Stale(String),
    /// It may not be done.
    Refused(String),
    /// What it names is on its way from one state to the next.
    NotYet,
}

struct ControlContext<'a> {
    view: &'a View<'a>,
    order: &'a Name,
    id: ControlId,
    control: &'a Control,
    taken_back: &'a BTreeSet<RunId>,
}

impl<'a> ControlContext<'a> {
    fn act(&self, new_run: &mut dyn FnMut() -> RunId) -> ControlOutcome {
        if let Some((key, held)) = self.held() {
            return match self.control.action {
                // Whether it has a schedule is not known while it is out of sight.
                ControlAction::Release if self.view.orders.is_none() => ControlOutcome::NotYet,
                ControlAction::Release if self.comes_by_schedule(key) => {
                    ControlOutcome::Done(vec![self.stands(key, held)])
                }
                ControlAction::Release | ControlAction::Retry => {
                    ControlOutcome::Done(vec![self.activation(key, held.identity, held.index, new_run())])
                }
                ControlAction::Accept => self.accept(key, held, new_run()),
                ControlAction::Cancel | ControlAction::Acknowledge | ControlAction::Undo => {
                    ControlOutcome::Stale("it names what is held: release or accept it".into())
                }
            };
        }
        let Some((key, activation)) = self.activation_named() else {
            return ControlOutcome::Stale(format!(
                "order {} has no such run here, and holds no such instruction",
                self.order
            ));
        };
        match (self.control.action, &activation.stage) {
            (ControlAction::Cancel, Stage::Open) if self.view.starting.contains_key(&activation.run) => {
                ControlOutcome::NotYet
            }
            (ControlAction::Cancel, Stage::Open) => ControlOutcome::Done(vec![closed(
                key,
                activation,
                self.closing(End::Cancelled, "cancelled", None),
            )]),
            (ControlAction::Cancel, Stage::Prepared) if self.taken_back.contains(&activation.run) => {
                ControlOutcome::NotYet
            }
            (ControlAction::Cancel, Stage::Prepared) if activation.request.is_some() => {
                ControlOutcome::Stale("that was asked before".into())
            }
            (ControlAction::Cancel, Stage::Prepared) => match self.state(activation) {
                Some(state) if state.final_started => ControlOutcome::Refused(PAST_RETURN.into()),
                _ => {
                    self.request(key, activation, RunRequest::Cancel { by: self.by(), reason: self.reason() })
                }
            },
            (ControlAction::Retry, Stage::Closed(closing)) => self.retry(key, activation, closing, new_run),
            (ControlAction::Acknowledge, Stage::Closed(closing))
                if closing.end.keeps_its_place() && self.control.settled == Some(Settled::StepDone) =>
            {
                self.go_on(key, activation)
            }
            (ControlAction::Acknowledge, Stage::Closed(closing)) if closing.end.keeps_its_place() => {
                let (end, how) = match self.control.settled {
                    Some(Settled::Done) => (End::Succeeded, "acknowledged as done"),
                    Some(Settled::Failed | Settled::StepDone) | None => {
                        (End::Failed, "acknowledged as failed")
                    }
                };
                ControlOutcome::Done(vec![closed(key, activation, self.closing(end, how, Some(closing)))])
            }
            (ControlAction::Undo, Stage::Closed(closing)) if closing.end.keeps_its_place() => {
                match self.state(activation) {
                    None => ControlOutcome::Refused("its journal cannot be read: acknowledge it".into()),
                    Some(state) if state.final_started => ControlOutcome::Refused(PAST_RETURN.into()),
                    Some(state) if state.outcome().is_none_or(|outcome| outcome.unsettled().is_none()) => {
                        ControlOutcome::Refused(
                            "its processes may still be alive: make sure that they have ended, then acknowledge it"
                                .into(),
                        )
                    }
                    Some(state) => {
                        let request =
                            RunRequest::Undo { by: self.by(), reason: self.reason(), before: state.undos };
                        self.request(key, activation, request)
                    }
                }
            }
            (ControlAction::Release | ControlAction::Accept, _) => {
                ControlOutcome::Stale("nothing is held".into())
            }
            (_, Stage::Closed(closing)) => {
                ControlOutcome::Stale(format!("it is over: {}", closing.end.as_str()))
            }
            (_, Stage::Open | Stage::Prepared) => ControlOutcome::Stale("it still waits or runs".into()),
        }
    }

    /// The step of which only a person can tell is done: the next executor goes on behind it.
    fn go_on(&self, key: &OrderKey, activation: &Activation) -> ControlOutcome {
        match self.state(activation) {
            None => ControlOutcome::Refused("its journal cannot be read: acknowledge it as done or failed".into()),
            Some(state) if state.outcome().is_none_or(|outcome| outcome.unsettled().is_none()) => {
                ControlOutcome::Refused(
                    "its processes may still be alive: make sure that they have ended, then acknowledge it as done or \
                     failed"
                        .into(),
                )
            }
            Some(state) if state.untold_step().is_none() => ControlOutcome::Refused(
                "no step was interrupted that the run could go on from: acknowledge it as done or failed".into(),
            ),
            Some(state) => {
                let (by, reason) = (self.by(), self.reason());
                self.request(key, activation, RunRequest::StepDone { by, reason, before: state.undos })
            }
        }
    }

    /// What is held is what stands, and counts as done: so it has a status, and can be retried.
    fn accept(&self, key: &OrderKey, held: &Held, run: RunId) -> ControlOutcome {
        let (identity, index, at) = (held.identity, held.index, self.view.now);
        let placed =
            LedgerEntry::Activation { key: key.clone(), run, identity, index, trigger: Trigger::Placed, at };
        let error = Some(format!("accepted by {}: {}", self.control.by, self.control.reason));
        let closing = Closing { end: End::Unchanged, error, at, run: None };
        let closed = LedgerEntry::Closed { key: key.clone(), run, closing };
        ControlOutcome::Done(vec![self.stands(key, held), placed, closed])
    }

    fn stands(&self, key: &OrderKey, held: &Held) -> LedgerEntry {
        LedgerEntry::Accepted { key: key.clone(), identity: held.identity, index: held.index }
    }

    /// An order with a schedule fires at its times, and one that is only reported on never: to let it go is to let it stand.
    fn comes_by_schedule(&self, key: &OrderKey) -> bool {
        let seen = self.view.orders.and_then(|orders| orders.get(key));
        seen.is_some_and(
            |seen| matches!(&seen.document, Ok(Document::Order(order)) if !order.starts_when_placed()),
        )
    }

    /// Once more, if the order still says the same.
    fn retry(
        &self,
        key: &OrderKey,
        activation: &Activation,
        closing: &Closing,
        new_run: &mut dyn FnMut() -> RunId,
    ) -> ControlOutcome {
        let Some(orders) = self.view.orders.filter(|_| !self.view.unknown.contains(&key.source)) else {
            return ControlOutcome::NotYet;
        };
        let seen = orders.get(key).filter(|seen| {
            matches!(&seen.document, Ok(Document::Order(order)) if order.identity == activation.identity)
        });
        let counts = self.view.memory.effective.get(&key.order) == Some(&key.source);
        let Some(seen) = seen.filter(|_| counts) else {
            return ControlOutcome::Refused(
                "the order was deleted or changed: write it again instead".into(),
            );
        };
        let newest = self.view.memory.orders.get(key).and_then(|order| order.current.as_ref());
        if newest.is_none_or(|newest| newest.run != activation.run) {
            return ControlOutcome::Stale("a newer run took its place".into());
        }
        let mut facts = Vec::new();
        if closing.end.keeps_its_place() {
            facts.push(closed(key, activation, self.closing(End::Failed, "retried", Some(closing))));
        }
        facts.push(self.activation(key, activation.identity, seen.index, new_run()));
        ControlOutcome::Done(facts)
    }

    fn held(&self) -> Option<(&'a OrderKey, &'a Held)> {
        let of_order = self.view.memory.orders.iter().filter(|(key, _)| key.order == *self.order);
        let mut held = of_order.filter_map(|(key, order)| Some((key, order.held.as_deref()?)));
        held.find(|(_, held)| self.control.target == Target::Identity(held.identity))
    }

    fn activation_named(&self) -> Option<(&'a OrderKey, &'a Activation)> {
        let of_order = self.view.memory.orders.iter().filter(|(key, _)| key.order == *self.order);
        let mut all = of_order.flat_map(|(key, order)| {
            order.current.iter().chain(order.previous.as_deref()).map(move |activation| (key, activation))
        });
        all.find(|(_, activation)| match self.control.target {
            Target::Run(run) => activation.run == run,
            Target::Identity(identity) => activation.identity == identity,
        })
    }

    fn state(&self, activation: &Activation) -> Option<&'a State> {
        self.view.runs.get(&activation.run)?.state.as_ref().ok()
    }

    fn request(&self, key: &OrderKey, activation: &Activation, request: RunRequest) -> ControlOutcome {
        ControlOutcome::Done(vec![LedgerEntry::RunRequest { key: key.clone(), run: activation.run, request }])
    }

    fn activation(
        &self,
        key: &OrderKey,
        identity: crate::domain::ids::InstructionHash,
        index: u64,
        run: RunId,
    ) -> LedgerEntry {
        let (key, trigger, at) = (key.clone(), Trigger::Retry(self.id), self.view.now);
        LedgerEntry::Activation { key, run, identity, index, trigger, at }
    }

    /// An end that a person gives; `before`: the end that it replaces, `None` if there was none.
    fn closing(&self, end: End, how: &str, before: Option<&Closing>) -> Closing {
        let error = Some(format!("{how} by {}: {}", self.control.by, self.control.reason));
        Closing { end, error, at: self.view.now, run: before.and_then(|closing| closing.run.clone()) }
    }

    fn by(&self) -> String {
        self.control.by.clone()
    }

    fn reason(&self) -> String {
        self.control.reason.clone()
    }
}

fn closed(key: &OrderKey, activation: &Activation, closing: Closing) -> LedgerEntry {
    LedgerEntry::Closed { key: key.clone(), run: activation.run, closing }
}

const PAST_RETURN: &str = "a final step has started: nothing can be undone";
