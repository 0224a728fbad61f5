//! What a host does with orders of which it remembers nothing, or less than it once did.
//!
//! | the agent finds | it does |
//! | --- | --- |
//! | an empty ledger, and orders that are there already | each is held: preexisting |
//! | the same, and the order says `on_preexisting: run`, or has a schedule | it is an order like any other |
//! | one that is held so, and its probe says that it holds | closed: unchanged |
//! | the same, and the probe says that it does not hold | carried out |
//! | an order whose report names a run that the ledger lacks, or cannot be read | held: ledger_behind |
//! | the same, and the probe says that it holds | closed: unchanged |
//! | no probe, or no answer of it | it stays held, until an operator releases or accepts it |
//! | an empty ledger, and a place of orders that cannot be read | the other places are judged now, and this one when it is read for the first time, by the same rows |
//!
//! A state folder may be lost, or be put back to an earlier day with the disk that it is on; what was carried out
//! meanwhile must not be carried out again because nobody here remembers it. What the host reported itself is
//! read before the first decision, and before anything is written over it.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::collections::BTreeSet;

use super::context::OrderContext;
use super::decision::{Action, Decision};
use super::view::{SeenOrder, View};
use crate::domain::ids::RunId;
use crate::domain::name::Name;
use crate::domain::order::{Document, OnPreexisting};
use crate::domain::plan::Trigger;
use crate::domain::reconcile::ProbeAnswer;
use crate::domain::source::{OrderKey, Source};
use crate::domain::state::{Closing, End, Hold, LedgerEntry, LedgerState};

use super::record::hold;

/// Everything that counts on an empty ledger, in one record: held, or left to be judged like any other. A place that
/// cannot be read has its turn when it is read for the first time. `false`: nothing was there before this host.
pub(super) fn join<'a>(
    view: &View<'_>,
    effective: impl Iterator<Item = (OrderKey, &'a SeenOrder)>,
    decision: &mut Decision,
) -> bool {
    let read = |source: &Source| view.sources.contains(source) && !view.unknown.contains(source);
    let blank = view.memory.is_blank();
    let late: BTreeSet<&Source> = view.memory.unread_sources.iter().filter(|source| read(source)).collect();
    if !blank && late.is_empty() {
        return false;
    }
    if blank {
        decision.record(LedgerEntry::HostJoined { at: view.now, unread: view.unknown.clone() });
    }
    late.iter().for_each(|source| decision.record(LedgerEntry::FirstRead { source: (*source).clone() }));
    for (key, seen) in effective.filter(|(key, _)| blank || late.contains(&key.source)) {
        if let Ok(Document::Order(order)) = &seen.document
            && order.on_preexisting == OnPreexisting::Hold
            && order.starts_when_placed()
        {
            let why = if is_behind(view, &key.order) { Hold::LedgerBehind } else { Hold::Preexisting };
            decision.record(hold(view, &key, why, order.identity, seen.index));
        }
    }
    true
}

/// Whether the host once reported a run of this order that the ledger knows nothing of, or something that cannot be read.
pub(super) fn is_behind(view: &View<'_>, order: &Name) -> bool {
    view.prior_reports
        .get(order)
        .is_some_and(|reported| reported.is_none_or(|run| lacks(view.memory, order, run)))
}

fn lacks(memory: &LedgerState, order: &Name, reported: RunId) -> bool {
    let of_order = memory.orders.iter().filter(|(key, _)| key.order == *order);
    let known = of_order.flat_map(|(_, order)| order.current.iter().chain(order.previous.as_deref()));
    // Ids sort by the time of their making: an older one was forgotten in order, as newer ones came.
    known.map(|activation| activation.run).max().is_none_or(|newest| newest < reported)
}

/// An order that is held for what is not remembered: its probe may know better.
pub(super) fn recheck_hold(
    case: OrderContext<'_>,
    why: Hold,
    new_run: &mut dyn FnMut() -> RunId,
    decision: &mut Decision,
) {
    let OrderContext { view, key, index, order, .. } = case;
    let checked_orders = view.checked_orders.get(key).filter(|checked_orders| checked_orders.index == index);
    match checked_orders.map(|checked_orders| &checked_orders.finding) {
        None => return decision.actions.push(Action::CheckOrder(key.clone())),
        Some(Ok(needs)) if needs.probe => {}
        Some(_) => return,
    }
    let answer = match view.answers.get(key).and_then(|answers| answers.last()) {
        None => return decision.actions.push(Action::Probe(key.clone())),
        Some((_, answer)) => answer,
    };
    let (run, at) = (new_run(), view.now);
    let (key, identity, trigger) = (key.clone(), order.identity, Trigger::Placed);
    match answer {
        ProbeAnswer::CannotTell(_) => {}
        ProbeAnswer::DoesNotHold if why == Hold::LedgerBehind => {}
        ProbeAnswer::DoesNotHold => {
            decision.record(LedgerEntry::Activation { key, run, identity, index, trigger, at })
        }
        ProbeAnswer::Holds => {
            decision.record(LedgerEntry::Activation { key: key.clone(), run, identity, index, trigger, at });
            let closing = Closing { end: End::Unchanged, error: None, at, run: None };
            decision.record(LedgerEntry::Closed { key, run, closing });
        }
    }
}
