//! A run that has begun nothing: it has a folder, and nobody has its claim.
//!
//! Its executor may be reading secrets, may have left without them, or may never have come. Such a run waits, however
//! far its start has come: window, `not_after`, freeze, replacement, cancel and deletion count for it until the claim.
//! When one of them speaks against the start, the agent takes the claim itself. The activation is then open as before,
//! and what became of it is decided as for every activation that waits.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::time::Duration;

use super::copy::copy_of;
use super::decision::Decision;
use super::recurring::comes_by;
use super::starts::can_start_now;
use super::view::{RunView, View};
use crate::domain::ids::RunId;
use crate::domain::instant::later;
use crate::domain::order::Document;
use crate::domain::source::OrderKey;
use crate::domain::state::{Activation, Closing, End, LedgerEntry, OrderState, RunRequest, Stage};

/// An end has passed when so much time is over.
const PAST: Duration = Duration::from_millis(1);

/// Whether a run that has begun nothing is to be taken back; if not, the decision is made again when its time ends.
pub(super) fn is_to_be_taken_back(
    view: &View<'_>,
    key: &OrderKey,
    activation: &Activation,
    run: &RunView,
    decision: &mut Decision,
) -> bool {
    if run.unready || is_cancelled(activation) {
        return true;
    }
    let Some(order_state) = view.memory.orders.get(key) else { return false };
    let is_newest = order_state.current.as_ref().is_some_and(|newest| newest.run == activation.run);
    if !is_newest || no_longer_counts(view, key, order_state, activation).is_some() {
        return true;
    }
    let seen = match view.orders {
        Some(orders) => orders.get(key),
        None => match copy_of(view, key, &run.plan.trigger) {
            Some(copy) => Some(copy),
            // Not in sight is not gone.
            None => return false,
        },
    };
    let Some(Ok(Document::Order(order))) = seen.map(|seen| &seen.document) else { return true };
    if can_start_now(view, key, order, &run.plan.trigger).is_err() {
        return true;
    }
    let closes = order.window.as_ref().and_then(|window| window.opening(view.now)).map(|opening| opening.to);
    for end in order.not_after.into_iter().chain(closes) {
        decision.wake_at(later(end, PAST));
    }
    false
}

fn is_cancelled(activation: &Activation) -> bool {
    matches!(activation.request.as_deref(), Some(RunRequest::Cancel { .. }))
}

/// Closes activations that wait and are not wanted any more: most are closed when the change is seen, but one that was
/// being started then comes back to its place later.
pub(super) fn close_returned(view: &View<'_>, decision: &mut Decision) {
    let waits = |activation: &&Activation| {
        activation.stage == Stage::Open && !view.starting.contains_key(&activation.run)
    };
    let closing = |end: End, why: String| Closing { end, error: Some(why), at: view.now, run: None };
    for (key, order_state) in &view.memory.orders {
        if let Some(activation) = order_state.previous.as_deref().filter(waits) {
            let (end, why) = match cancelled(activation) {
                Some(cancelled) => cancelled,
                None => (End::Superseded, "a newer order took its place".to_owned()),
            };
            close(key, activation.run, closing(end, why), decision);
        }
        if let Some(activation) = order_state.current.as_ref().filter(waits)
            && let Some((end, why)) =
                cancelled(activation).or_else(|| no_longer_counts(view, key, order_state, activation))
        {
            close(key, activation.run, closing(end, why), decision);
        }
    }
}

fn cancelled(activation: &Activation) -> Option<(End, String)> {
    match activation.request.as_deref() {
        Some(RunRequest::Cancel { by, reason }) => {
            Some((End::Cancelled, format!("cancelled by {by}: {reason}")))
        }
        _ => None,
    }
}

/// Why what is remembered of an order is no longer what starts, if that is so.
fn no_longer_counts(
    view: &View<'_>,
    key: &OrderKey,
    order_state: &OrderState,
    activation: &Activation,
) -> Option<(End, String)> {
    let superseded = |why: &str| Some((End::Superseded, why.to_owned()));
    if order_state.gone.is_some() {
        return Some((End::Withdrawn, "the order is gone".to_owned()));
    }
    if let Some(refused) = order_state.unreadable.as_ref().filter(|o| o.identity == Some(activation.identity))
    {
        return Some((End::Refused, refused.message.clone()));
    }
    let replaced = order_state.last.is_some_and(|last| last != activation.identity);
    if replaced || order_state.held.is_some() || order_state.unreadable.is_some() {
        return superseded("a newer order took its place");
    }
    if let Some(now) = view.memory.effective.get(&key.order).filter(|now| **now != key.source) {
        return Some((End::Superseded, format!("the order in {now} took its place")));
    }
    match view.orders.and_then(|orders| orders.get(key)).map(|seen| &seen.document) {
        // The same instruction by other terms: an instant that is none any more, or a schedule that it did not have.
        Some(Ok(Document::Order(order)))
            if order.identity == activation.identity && !comes_by(&activation.trigger, order) =>
        {
            superseded("the order's schedule was changed")
        }
        _ => None,
    }
}

fn close(key: &OrderKey, run: RunId, closing: Closing, decision: &mut Decision) {
    let already = decision.actions.iter().any(
        |action| matches!(action, super::Action::Record(LedgerEntry::Closed { run: closed, .. }) if *closed == run),
    );
    if !already {
        decision.record(LedgerEntry::Closed { key: key.clone(), run, closing });
    }
}
