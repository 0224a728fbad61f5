//! What is seen of each key, against what is remembered of it.
//!
//! | the key holds | it is |
//! | --- | --- |
//! | an identity that it never had, under a higher index | a new occasion |
//! | the identity that it had last | nothing; the index is remembered, up or down |
//! | another identity under an index that is not higher | held: regressed |
//! | an identity that it had before, not last | held: repeated, unless every step of the task is repeatable |
//! | any of these, effective only because a nearer order went away | held: uncovered, until it is edited |
//! | nothing any more | gone: a waiting occasion is withdrawn; nothing is ever started or undone for an absence |

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::collections::BTreeMap;

use super::first;
use super::standing::Case;
use super::{Action, Decision, SeenOrder, View};
use crate::domain::ids::{Identity, RunId};
use crate::domain::memory::{Closing, End, Fact, Held, Hold, Occasion, Remembered, Stage, Unreadable};
use crate::domain::name::Name;
use crate::domain::order::Document;
use crate::domain::plan::Cause;
use crate::domain::source::{OrderKey, Source};

pub(super) fn decide(
    view: &View<'_>,
    orders: &BTreeMap<OrderKey, SeenOrder>,
    new_run: &mut dyn FnMut() -> RunId,
    decision: &mut Decision,
) {
    let effective = effective(view, orders);
    if view.memory.is_blank() {
        if !view.unknown.is_empty() {
            // What was there before this host cannot be told from what comes later.
            return;
        }
        let counts = effective.into_iter().filter_map(|(order, source)| {
            let key = OrderKey { source, order };
            orders.get(&key).map(|seen| (key, seen))
        });
        return first::join(view, counts, decision);
    }
    for (key, remembered) in &view.memory.orders {
        if remembered.gone.is_none() && !present(view, orders, key) {
            close_waiting(view, key, remembered, End::Withdrawn, "the order is gone", decision);
            decision.remember(Fact::Gone { key: key.clone(), at: view.now });
        }
    }
    for (name, before) in &view.memory.effective {
        if !effective.contains_key(name) {
            let newest = || view.indexes.values().max();
            let index = view.indexes.get(before).or_else(newest).copied();
            decision.remember(Fact::Effective { order: name.clone(), source: None, index });
        } else if let Some(now) = effective.get(name)
            && now != before
        {
            let key = OrderKey { source: before.clone(), order: name.clone() };
            if let Some(remembered) = view.memory.orders.get(&key) {
                let why = format!("the order in {now} took its place");
                close_waiting(view, &key, remembered, End::Superseded, &why, decision);
                rest(&key, remembered, decision);
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
            judge(view, &key, seen, uncovered(view, before, &source), new_run, decision);
        }
        if view.memory.effective.get(&order) != Some(&source) {
            decision.remember(Fact::Effective { order, source: Some(source), index: None });
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

fn judge(
    view: &View<'_>,
    key: &OrderKey,
    seen: &SeenOrder,
    uncovered: bool,
    new_run: &mut dyn FnMut() -> RunId,
    decision: &mut Decision,
) {
    let unknown = Remembered::default();
    let remembered = view.memory.orders.get(key).map_or(&unknown, |remembered| remembered);
    let order = match &seen.document {
        Err(message) => return unreadable(view, key, seen.index, message, remembered, decision),
        Ok(Document::Skip) => {
            close_waiting(view, key, remembered, End::Skipped, "the order says skip", decision);
            rest(key, remembered, decision);
            decision.skipped.insert(key.clone());
            return;
        }
        Ok(Document::Order(order)) => order,
    };
    let identity = order.identity;
    let stands = order.standing_terms().is_some();
    let refused = remembered.unreadable.as_ref().is_some_and(|refused| refused.index == seen.index);
    if stands && refused && remembered.gone.is_none() {
        return;
    }
    let case = Case { view, key, index: seen.index, order, remembered };
    let examined = view.examined.get(key).filter(|examined| examined.index == seen.index);
    let verdict = match keeps_its_hold(remembered, identity, seen.index, uncovered).filter(|_| stands) {
        Some(verdict) => verdict,
        None => verdict(remembered, identity, seen.index, uncovered),
    };
    let behind = || first::is_behind(view, &key.order);
    let fact = match verdict {
        Verdict::Index if case.was_refused() => occasion(case, new_run),
        Verdict::Nothing if let Some(held) = &remembered.held => {
            if matches!(held.why, Hold::FirstSight | Hold::LedgerBehind) {
                first::settle(case, held.why, new_run, decision);
            }
            return;
        }
        // What comes again by itself would do so from a past that is not remembered.
        Verdict::Nothing | Verdict::Index if stands && behind() => {
            hold(view, key, Hold::LedgerBehind, identity, seen.index)
        }
        Verdict::New if behind() => hold(view, key, Hold::LedgerBehind, identity, seen.index),
        Verdict::Nothing => return case.decide(new_run, decision),
        Verdict::Index => Fact::Index { key: key.clone(), index: seen.index },
        Verdict::New => occasion(case, new_run),
        Verdict::Hold(Hold::Repeated) => match examined.map(|examined| &examined.finding) {
            None => return decision.actions.push(Action::Examine(key.clone())),
            Some(Ok(needs)) if needs.repeatable => occasion(case, new_run),
            Some(_) => hold(view, key, Hold::Repeated, identity, seen.index),
        },
        Verdict::Hold(why) => hold(view, key, why, identity, seen.index),
    };
    if !matches!(fact, Fact::Index { .. }) {
        let why = "a newer order took its place";
        close_waiting(view, key, remembered, End::Superseded, why, decision);
    }
    if matches!(fact, Fact::Occasion { .. } | Fact::Taken { .. }) {
        // By which terms it comes again, if it does, is asked anew: they may go with another task.
        rest(key, remembered, decision);
    }
    decision.remember(fact);
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// It stands as it is remembered.
    Nothing,
    /// The known identity has another index.
    Index,
    /// A new occasion.
    New,
    /// Not before an operator says more.
    Hold(Hold),
}

/// An order that would come again by itself is not let go by an absence or an older index, also when its identity is known.
fn keeps_its_hold(
    remembered: &Remembered,
    identity: Identity,
    index: u64,
    uncovered: bool,
) -> Option<Verdict> {
    match &remembered.held {
        None => uncovered.then_some(Verdict::Hold(Hold::Uncovered)),
        Some(held) if (held.identity, held.index) == (identity, index) => Some(Verdict::Nothing),
        Some(held) => {
            let lasts = matches!(held.why, Hold::Uncovered | Hold::NotConverging | Hold::LedgerBehind);
            (lasts && index <= held.index).then_some(Verdict::Hold(held.why))
        }
    }
}

/// The table of the module's header.
fn verdict(remembered: &Remembered, identity: Identity, index: u64, uncovered: bool) -> Verdict {
    if remembered.last == Some(identity) {
        let known = remembered.index == index && remembered.held.is_none() && remembered.unreadable.is_none();
        return if known && remembered.gone.is_none() { Verdict::Nothing } else { Verdict::Index };
    }
    if let Some(held) = &remembered.held {
        if (held.identity, held.index) == (identity, index) {
            return Verdict::Nothing;
        }
        if held.why == Hold::Uncovered && index <= held.index {
            return Verdict::Hold(Hold::Uncovered);
        }
    } else if uncovered {
        return Verdict::Hold(Hold::Uncovered);
    }
    if remembered.last.is_some() && index <= remembered.index {
        Verdict::Hold(Hold::Regressed)
    } else if remembered.had(identity) {
        Verdict::Hold(Hold::Repeated)
    } else {
        Verdict::New
    }
}

/// A new occasion; an order with a schedule is only taken in, and fires when its time comes.
fn occasion(case: Case<'_>, new_run: &mut dyn FnMut() -> RunId) -> Fact {
    let Case { view, key, index, order, .. } = case;
    let (key, identity, at) = (key.clone(), order.identity, view.now);
    if order.schedule.is_some() {
        return Fact::Taken { key, identity, index, at };
    }
    Fact::Occasion { key, run: new_run(), identity, index, cause: Cause::Placed, at }
}

pub(super) fn hold(view: &View<'_>, key: &OrderKey, why: Hold, identity: Identity, index: u64) -> Fact {
    Fact::Held { key: key.clone(), held: Held { why, identity, index, at: view.now } }
}

fn unreadable(
    view: &View<'_>,
    key: &OrderKey,
    index: u64,
    message: &str,
    remembered: &Remembered,
    decision: &mut Decision,
) {
    if remembered.gone.is_none() && remembered.unreadable.as_ref().is_some_and(|known| known.index == index) {
        return;
    }
    let why = "an order that is refused took its place";
    close_waiting(view, key, remembered, End::Superseded, why, decision);
    let unreadable = Unreadable { message: message.to_owned(), identity: None, index, at: view.now };
    decision.remember(Fact::Unreadable { key: key.clone(), unreadable });
}

/// An order that would come again does not while it is not the one that counts.
fn rest(key: &OrderKey, remembered: &Remembered, decision: &mut Decision) {
    if remembered.standing.terms.is_some() {
        decision.remember(Fact::Rests { key: key.clone() });
    }
}

pub(super) fn close_waiting(
    view: &View<'_>,
    key: &OrderKey,
    remembered: &Remembered,
    end: End,
    why: &str,
    decision: &mut Decision,
) {
    let open = |occasion: &&Occasion| {
        // One that is being started is asked once more by the last look, which sees the change.
        occasion.stage == Stage::Open && !view.starting.contains_key(&occasion.run)
    };
    if let Some(occasion) = remembered.current.as_ref().filter(open) {
        let closing = Closing { end, error: Some(why.to_owned()), at: view.now, run: None };
        decision.remember(Fact::Closed { key: key.clone(), run: occasion.run, closing });
    }
}
