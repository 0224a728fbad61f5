//! What is seen of each key, against what is remembered of it.
//!
//! | the key holds | it is |
//! | --- | --- |
//! | an identity that it never had, under a higher index | a new activation |
//! | the identity that it had last | nothing; the index is remembered, up or down |
//! | another identity under an index that is not higher | held: index_regressed |
//! | an identity that it had before, not last | held: repeated, unless every step of the task is repeatable |
//! | any of these, effective only because a nearer order went away | held: fallback, until it is edited |
//! | nothing any more | gone: a waiting activation is withdrawn; nothing is ever started or undone for an absence |

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::collections::BTreeMap;

use super::context::OrderContext;
use super::decision::{Action, Decision};
use super::first;
use super::record::{RecordedOrder, hold};
use super::view::{SeenOrder, View};
use crate::domain::ids::{InstructionHash, RunId};
use crate::domain::name::Name;
use crate::domain::order::Document;
use crate::domain::plan::Trigger;
use crate::domain::source::{OrderKey, Source};
use crate::domain::state::{End, Hold, LedgerEntry, OrderState};

pub(super) fn decide(
    view: &View<'_>,
    orders: &BTreeMap<OrderKey, SeenOrder>,
    new_run: &mut dyn FnMut() -> RunId,
    decision: &mut Decision,
) {
    let effective = effective(view, orders);
    let counts = effective.iter().filter_map(|(order, source)| {
        let key = OrderKey { source: source.clone(), order: order.clone() };
        orders.get(&key).map(|seen| (key, seen))
    });
    if first::join(view, counts, decision) {
        return;
    }
    for (key, order_state) in &view.memory.orders {
        if order_state.gone.is_none() && !present(view, orders, key) {
            let recorded = RecordedOrder { view, key, order_state };
            recorded.close_waiting(End::Withdrawn, "the order is gone", decision);
            decision.record(LedgerEntry::Gone { key: key.clone(), at: view.now });
        }
    }
    for (name, before) in &view.memory.effective {
        if !effective.contains_key(name) {
            let newest = || view.indexes.values().max();
            let index = view.indexes.get(before).or_else(newest).copied();
            decision.record(LedgerEntry::EffectiveSource { order: name.clone(), source: None, index });
        } else if let Some(now) = effective.get(name)
            && now != before
        {
            let key = OrderKey { source: before.clone(), order: name.clone() };
            if let Some(order_state) = view.memory.orders.get(&key) {
                let why = format!("the order in {now} took its place");
                let recorded = RecordedOrder { view, key: &key, order_state };
                recorded.close_waiting(End::Superseded, &why, decision);
                recorded.disarm(decision);
            }
        }
    }
    for (order, source) in effective {
        let key = OrderKey { source: source.clone(), order: order.clone() };
        let before = view.memory.effective.get(&order);
        if let Some(seen) = orders.get(&key) {
            // Places are watched one by one: the nearer order can be seen to go before the other is seen to come.
            let left = view.memory.left.get(&order).filter(|(_, index)| seen.index <= *index);
            let before = before.or(left.map(|(source, _)| source));
            let effective = EffectiveOrder { key: &key, seen, uncovered: uncovered(view, before, &source) };
            judge(view, effective, new_run, decision);
        }
        if view.memory.effective.get(&order) != Some(&source) {
            decision.record(LedgerEntry::EffectiveSource { order, source: Some(source), index: None });
        }
    }
}

/// For each name the nearest place that has an order of it. A name stays where it was while it is not known what that
/// place holds; whether such a place has a nearer order of another name is asked by the last look.
fn effective(view: &View<'_>, orders: &BTreeMap<OrderKey, SeenOrder>) -> BTreeMap<Name, Source> {
    let mut effective = BTreeMap::new();
    for source in view.sources.iter().rev() {
        // The nearest comes last and wins.
        let here = orders.keys().filter(|key| key.source == *source);
        effective.extend(here.map(|key| (key.order.clone(), source.clone())));
        if view.unknown.contains(source) {
            let before = view.memory.effective.iter().filter(|(_, before)| *before == source);
            effective.extend(before.map(|(name, source)| (name.clone(), source.clone())));
        }
    }
    effective
}

fn present(view: &View<'_>, orders: &BTreeMap<OrderKey, SeenOrder>, key: &OrderKey) -> bool {
    view.sources.contains(&key.source) && (orders.contains_key(key) || view.unknown.contains(&key.source))
}

/// Whether the order in `now` is effective only because the one in `before` went away.
fn uncovered(view: &View<'_>, before: Option<&Source>, now: &Source) -> bool {
    let rank = |source: &Source| view.sources.iter().position(|other| other == source);
    match before {
        None => false,
        // A group that the host has left was nearer for all that is known.
        Some(before) => rank(before).is_none_or(|before| Some(before) < rank(now)),
    }
}

/// The order that counts for its name on this host.
struct EffectiveOrder<'a> {
    key: &'a OrderKey,
    seen: &'a SeenOrder,
    /// It counts only because a nearer one went away.
    uncovered: bool,
}

fn judge(
    view: &View<'_>,
    EffectiveOrder { key, seen, uncovered }: EffectiveOrder<'_>,
    new_run: &mut dyn FnMut() -> RunId,
    decision: &mut Decision,
) {
    let unknown = OrderState::default();
    let order_state = view.memory.orders.get(key).map_or(&unknown, |order_state| order_state);
    let recorded = RecordedOrder { view, key, order_state };
    let order = match &seen.document {
        Err(message) => return recorded.refuse_document(seen.index, message, decision),
        Ok(Document::Skip) => {
            recorded.close_waiting(End::Skipped, "the order says skip", decision);
            recorded.disarm(decision);
            decision.skipped.insert(key.clone());
            return;
        }
        Ok(Document::Order(order)) => order,
    };
    let identity = order.identity;
    let stands = order.standing_terms().is_some();
    let refused = order_state.unreadable.as_ref().is_some_and(|refused| refused.index == seen.index);
    if stands && refused && order_state.gone.is_none() {
        return;
    }
    let case = OrderContext { view, key, index: seen.index, order, order_state };
    let checked_orders =
        view.checked_orders.get(key).filter(|checked_orders| checked_orders.index == seen.index);
    let verdict = match keeps_its_hold(order_state, identity, seen.index, uncovered).filter(|_| stands) {
        Some(verdict) => verdict,
        None => verdict(order_state, identity, seen.index, uncovered),
    };
    let behind = || first::is_behind(view, &key.order);
    let fact = match verdict {
        Verdict::Index if case.was_refused() => activation(case, new_run),
        Verdict::Nothing if let Some(held) = &order_state.held => {
            if matches!(held.why, Hold::Preexisting | Hold::LedgerBehind) {
                first::recheck_hold(case, held.why, new_run, decision);
            }
            return;
        }
        // What comes again by itself would do so from a past that is not remembered.
        Verdict::Nothing | Verdict::Index if stands && behind() => {
            hold(view, key, Hold::LedgerBehind, identity, seen.index)
        }
        Verdict::New if behind() => hold(view, key, Hold::LedgerBehind, identity, seen.index),
        Verdict::Nothing => return case.decide(new_run, decision),
        Verdict::Index => LedgerEntry::Index { key: key.clone(), index: seen.index },
        Verdict::New => activation(case, new_run),
        Verdict::Hold(Hold::Repeated) => match checked_orders.map(|checked_orders| &checked_orders.finding) {
            None => return decision.actions.push(Action::CheckOrder(key.clone())),
            Some(Ok(needs)) if needs.repeatable => activation(case, new_run),
            Some(_) => hold(view, key, Hold::Repeated, identity, seen.index),
        },
        Verdict::Hold(why) => hold(view, key, why, identity, seen.index),
    };
    if !matches!(fact, LedgerEntry::Index { .. }) {
        recorded.close_waiting(End::Superseded, "a newer order took its place", decision);
    }
    if matches!(fact, LedgerEntry::Activation { .. } | LedgerEntry::BaselineTaken { .. }) {
        // By which terms it comes again, if it does, is asked anew: they may go with another task.
        recorded.disarm(decision);
    }
    decision.record(fact);
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// It stands as it is remembered.
    Nothing,
    /// The known identity has another index.
    Index,
    /// A new activation.
    New,
    /// Not before an operator says more.
    Hold(Hold),
}

/// An order that would come again by itself is not let go by an absence or an older index, also when its identity is known.
fn keeps_its_hold(
    order_state: &OrderState,
    identity: InstructionHash,
    index: u64,
    uncovered: bool,
) -> Option<Verdict> {
    match &order_state.held {
        None => uncovered.then_some(Verdict::Hold(Hold::Fallback)),
        Some(held) if (held.identity, held.index) == (identity, index) => Some(Verdict::Nothing),
        Some(held) => {
            let lasts = matches!(held.why, Hold::Fallback | Hold::NotConverging | Hold::LedgerBehind);
            (lasts && index <= held.index).then_some(Verdict::Hold(held.why))
        }
    }
}

/// The table of the module's header.
fn verdict(order_state: &OrderState, identity: InstructionHash, index: u64, uncovered: bool) -> Verdict {
    if order_state.last == Some(identity) {
        let known =
            order_state.index == index && order_state.held.is_none() && order_state.unreadable.is_none();
        return if known && order_state.gone.is_none() { Verdict::Nothing } else { Verdict::Index };
    }
    if let Some(held) = &order_state.held {
        if (held.identity, held.index) == (identity, index) {
            return Verdict::Nothing;
        }
        if held.why == Hold::Fallback && index <= held.index {
            return Verdict::Hold(Hold::Fallback);
        }
    } else if uncovered {
        return Verdict::Hold(Hold::Fallback);
    }
    if order_state.last.is_some() && index <= order_state.index {
        Verdict::Hold(Hold::IndexRegressed)
    } else if order_state.had(identity) {
        Verdict::Hold(Hold::Repeated)
    } else {
        Verdict::New
    }
}

/// A new activation; an order that does not start when it is placed is only taken in.
fn activation(case: OrderContext<'_>, new_run: &mut dyn FnMut() -> RunId) -> LedgerEntry {
    let OrderContext { view, key, index, order, .. } = case;
    let (key, identity, at) = (key.clone(), order.identity, view.now);
    if !order.starts_when_placed() {
        return LedgerEntry::BaselineTaken { key, identity, index, at };
    }
    LedgerEntry::Activation { key, run: new_run(), identity, index, trigger: Trigger::Placed, at }
}
