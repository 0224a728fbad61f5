//! What an operator wants of an order, against where it stands.
//!
//! | act | names | it does |
//! | --- | --- | --- |
//! | cancel | what waits | closes it: cancelled |
//! | cancel | what runs | tells the executor; refused once a final step has started |
//! | release, retry | what is held | a new occasion; released with a schedule, it stands and fires at its times |
//! | retry | what is over | a new occasion, if the order still says the same; settles what only a person can tell |
//! | acknowledge | what only a person can tell | closes it as done or failed |
//! | undo | what only a person can tell | tells the next executor; refused once a final step has started |
//! | rebase | what is held | takes it for what stands, and starts nothing |
//! | any | anything else | nothing: it is answered as stale |
//!
//! A control is taken in once, whatever comes of it, in one record of the ledger with what it leads to.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::collections::BTreeSet;

use super::{Action, Controls, Decision, View};
use crate::domain::control::{Act, Control, ControlId, Names, Settled, is_old};
use crate::domain::ids::RunId;
use crate::domain::memory::{Acted, Asked, Closing, End, Fact, Held, Occasion, Stage};
use crate::domain::name::Name;
use crate::domain::order::Document;
use crate::domain::plan::Cause;
use crate::domain::run::State;
use crate::domain::source::OrderKey;

pub(super) fn decide(
    view: &View<'_>,
    controls: &Controls,
    new_run: &mut dyn FnMut() -> RunId,
    decision: &mut Decision,
) {
    // Taken back in this very decision: such a run has another name when the control is remembered.
    let taken_back = |action: &Action| if let Action::Void { run, .. } = action { Some(*run) } else { None };
    let taken_back: BTreeSet<RunId> = decision.actions.iter().filter_map(taken_back).collect();
    let mut touched = BTreeSet::new();
    for ((order, id), read) in controls {
        // One at a time for each order: the next is asked when this one's effect is remembered.
        if view.memory.has_acted(*id) || is_old(*id, view.now) || !touched.insert(order) {
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
                let case = Case { view, order, id: *id, control, taken_back: &taken_back };
                let (answer, facts) = match case.act(new_run) {
                    Answer::NotYet => continue,
                    Answer::Done(facts) => ("done".to_owned(), facts),
                    Answer::Stale(why) => (format!("stale: {why}"), Vec::new()),
                    Answer::Refused(why) => (format!("refused: {why}"), Vec::new()),
                };
                (acted(Some(control.act), &control.by, &control.reason, answer), facts)
            }
        };
        decision.remember(Fact::Acted { control: *id, acted });
        facts.into_iter().for_each(|fact| decision.remember(fact));
    }
}

enum Answer {
    Done(Vec<Fact>),
    /// It names nothing that is there.
    Stale(String),
    /// It may not be done.
    Refused(String),
    /// What it names is on its way from one state to the next.
    NotYet,
}

struct Case<'a> {
    view: &'a View<'a>,
    order: &'a Name,
    id: ControlId,
    control: &'a Control,
    taken_back: &'a BTreeSet<RunId>,
}

impl<'a> Case<'a> {
    fn act(&self, new_run: &mut dyn FnMut() -> RunId) -> Answer {
        if let Some((key, held)) = self.held() {
            return match self.control.act {
                // Whether it has a schedule is not known while it is out of sight.
                Act::Release if self.view.orders.is_none() => Answer::NotYet,
                Act::Release if self.comes_by_schedule(key) => Answer::Done(vec![self.stands(key, held)]),
                Act::Release | Act::Retry => {
                    Answer::Done(vec![self.occasion(key, held.identity, held.index, new_run())])
                }
                Act::Rebase => self.rebase(key, held, new_run()),
                Act::Cancel | Act::Acknowledge | Act::Undo => {
                    Answer::Stale("it names what is held: release or rebase it".into())
                }
            };
        }
        let Some((key, occasion)) = self.occasion_named() else {
            return Answer::Stale(format!(
                "order {} has no such run here, and holds no such instruction",
                self.order
            ));
        };
        match (self.control.act, &occasion.stage) {
            (Act::Cancel, Stage::Open) if self.view.starting.contains_key(&occasion.run) => Answer::NotYet,
            (Act::Cancel, Stage::Open) => {
                Answer::Done(vec![self.closed(key, occasion, End::Cancelled, "cancelled", None)])
            }
            (Act::Cancel, Stage::Prepared) if self.taken_back.contains(&occasion.run) => Answer::NotYet,
            (Act::Cancel, Stage::Prepared) if occasion.asked.is_some() => {
                Answer::Stale("that was asked before".into())
            }
            (Act::Cancel, Stage::Prepared) => match self.state(occasion) {
                Some(state) if state.final_started => Answer::Refused(PAST_RETURN.into()),
                _ => self.asked(key, occasion, Asked::Cancel { by: self.by(), reason: self.reason() }),
            },
            (Act::Retry, Stage::Closed(closing)) => self.retry(key, occasion, closing, new_run),
            (Act::Acknowledge, Stage::Closed(closing)) if closing.end.keeps_its_place() => {
                let (end, how) = match self.control.settled {
                    Some(Settled::Done) => (End::Succeeded, "acknowledged as done"),
                    Some(Settled::Failed) | None => (End::Failed, "acknowledged as failed"),
                };
                Answer::Done(vec![self.closed(key, occasion, end, how, Some(closing))])
            }
            (Act::Undo, Stage::Closed(closing)) if closing.end.keeps_its_place() => {
                match self.state(occasion) {
                    None => Answer::Refused("its journal cannot be read: acknowledge it".into()),
                    Some(state) if state.final_started => Answer::Refused(PAST_RETURN.into()),
                    Some(state) if state.outcome().is_none_or(|outcome| outcome.unsettled().is_none()) => {
                        Answer::Refused(
                            "processes of it may still live: see that they are gone, then acknowledge it"
                                .into(),
                        )
                    }
                    Some(state) => {
                        let asked = Asked::Undo { by: self.by(), reason: self.reason(), before: state.undos };
                        self.asked(key, occasion, asked)
                    }
                }
            }
            (Act::Release | Act::Rebase, _) => Answer::Stale("nothing is held".into()),
            (_, Stage::Closed(closing)) => Answer::Stale(format!("it is over: {}", closing.end.as_str())),
            (_, Stage::Open | Stage::Prepared) => Answer::Stale("it still waits or runs".into()),
        }
    }

    /// What is held is what stands, and counts as done: so it has a status, and can be retried.
    fn rebase(&self, key: &OrderKey, held: &Held, run: RunId) -> Answer {
        let (identity, index, at) = (held.identity, held.index, self.view.now);
        let placed = Fact::Occasion { key: key.clone(), run, identity, index, cause: Cause::Placed, at };
        let error = Some(format!("accepted by {}: {}", self.control.by, self.control.reason));
        let closing = Closing { end: End::Unchanged, error, at, run: None };
        let closed = Fact::Closed { key: key.clone(), run, closing };
        Answer::Done(vec![self.stands(key, held), placed, closed])
    }

    fn stands(&self, key: &OrderKey, held: &Held) -> Fact {
        Fact::Rebased { key: key.clone(), identity: held.identity, index: held.index }
    }

    /// An order with a schedule fires at its times: to let it go is to let it stand.
    fn comes_by_schedule(&self, key: &OrderKey) -> bool {
        let seen = self.view.orders.and_then(|orders| orders.get(key));
        seen.is_some_and(
            |seen| matches!(&seen.document, Ok(Document::Order(order)) if order.schedule.is_some()),
        )
    }

    /// Once more, if the order still says the same.
    fn retry(
        &self,
        key: &OrderKey,
        occasion: &Occasion,
        closing: &Closing,
        new_run: &mut dyn FnMut() -> RunId,
    ) -> Answer {
        let Some(orders) = self.view.orders.filter(|_| !self.view.unknown.contains(&key.source)) else {
            return Answer::NotYet;
        };
        let seen = orders.get(key).filter(|seen| {
            matches!(&seen.document, Ok(Document::Order(order)) if order.identity == occasion.identity)
        });
        let counts = self.view.memory.effective.get(&key.order) == Some(&key.source);
        let Some(seen) = seen.filter(|_| counts) else {
            return Answer::Refused("the order is gone or says something else now: write it instead".into());
        };
        let newest = self.view.memory.orders.get(key).and_then(|order| order.current.as_ref());
        if newest.is_none_or(|newest| newest.run != occasion.run) {
            return Answer::Stale("a newer run took its place".into());
        }
        let mut facts = Vec::new();
        if closing.end.keeps_its_place() {
            facts.push(self.closed(key, occasion, End::Failed, "retried", Some(closing)));
        }
        facts.push(self.occasion(key, occasion.identity, seen.index, new_run()));
        Answer::Done(facts)
    }

    fn held(&self) -> Option<(&'a OrderKey, &'a Held)> {
        let of_order = self.view.memory.orders.iter().filter(|(key, _)| key.order == *self.order);
        let mut held = of_order.filter_map(|(key, order)| Some((key, order.held.as_deref()?)));
        held.find(|(_, held)| self.control.names == Names::Identity(held.identity))
    }

    fn occasion_named(&self) -> Option<(&'a OrderKey, &'a Occasion)> {
        let of_order = self.view.memory.orders.iter().filter(|(key, _)| key.order == *self.order);
        let mut all = of_order.flat_map(|(key, order)| {
            order.current.iter().chain(order.previous.as_deref()).map(move |occasion| (key, occasion))
        });
        all.find(|(_, occasion)| match self.control.names {
            Names::Run(run) => occasion.run == run,
            Names::Identity(identity) => occasion.identity == identity,
        })
    }

    fn state(&self, occasion: &Occasion) -> Option<&'a State> {
        self.view.runs.get(&occasion.run)?.state.as_ref().ok()
    }

    fn asked(&self, key: &OrderKey, occasion: &Occasion, asked: Asked) -> Answer {
        Answer::Done(vec![Fact::Asked { key: key.clone(), run: occasion.run, asked }])
    }

    fn occasion(
        &self,
        key: &OrderKey,
        identity: crate::domain::ids::Identity,
        index: u64,
        run: RunId,
    ) -> Fact {
        let (key, cause, at) = (key.clone(), Cause::Retry(self.id), self.view.now);
        Fact::Occasion { key, run, identity, index, cause, at }
    }

    fn closed(
        &self,
        key: &OrderKey,
        occasion: &Occasion,
        end: End,
        how: &str,
        before: Option<&Closing>,
    ) -> Fact {
        let error = Some(format!("{how} by {}: {}", self.control.by, self.control.reason));
        let run = before.and_then(|closing| closing.run.clone());
        let closing = Closing { end, error, at: self.view.now, run };
        Fact::Closed { key: key.clone(), run: occasion.run, closing }
    }

    fn by(&self) -> String {
        self.control.by.clone()
    }

    fn reason(&self) -> String {
        self.control.reason.clone()
    }
}

const PAST_RETURN: &str = "a final step has started: nothing is undone any more";
