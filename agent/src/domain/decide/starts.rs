//! An activation that waits: may it start now, and if not, why not and until when.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::time::Duration;

use jiff::Timestamp;

use super::capacity::Capacity;
use super::clock::clock_untrusted;
use super::copy::copy_of;
use super::decision::{Action, Decision};
use super::spread::{spread, spread_within};
use super::view::{Freezes, PreviousFormat, Requirements, RunView, SeenOrder, View};
use super::wait::{Reason, Wait};
use crate::domain::freeze::{Frozen, stops};
use crate::domain::instant::later;
use crate::domain::name::Name;
use crate::domain::order::{Document, Order};
use crate::domain::plan::{Lock, Trigger};
use crate::domain::source::{OrderKey, Source};
use crate::domain::state::{Activation, Closing, End, LedgerEntry, Stage, Unreadable};

/// A closed gate is asked again so often.
const GATE_RETRY_INTERVAL: Duration = Duration::from_secs(60);
/// Gates that are open count as open for so long; other waits come before and after them.
const OPEN_GATE_LASTS: Duration = Duration::from_secs(2);

pub(super) fn decide(view: &View<'_>, capacity: &mut Capacity, decision: &mut Decision) {
    // The oldest first: ids sort by the time of their making.
    let mut open: Vec<(&OrderKey, &Activation)> = view
        .memory
        .orders
        .iter()
        .filter_map(|(key, order)| Some((key, order.current.as_ref()?)))
        .filter(|(_, activation)| activation.stage == Stage::Open)
        .collect();
    open.sort_unstable_by_key(|(_, activation)| activation.run);
    for (key, activation) in open {
        if view.starting.contains_key(&activation.run) {
            decision.wait(key, starting(view, key));
            continue;
        }
        match can_start(view, key, activation, capacity) {
            Ok(locks) => {
                decision.wait(key, starting(view, key));
                decision.actions.push(Action::Start { key: key.clone(), run: activation.run, locks });
            }
            Err(StartBlock::Wait(wait)) => decision.wait(key, wait),
            Err(StartBlock::NeedsCheck) => {
                decision.wait(key, Wait::new(Reason::Starting, None));
                decision.actions.push(Action::CheckOrder(key.clone()));
            }
            Err(StartBlock::Never(end, error)) => {
                let refused = refused_as_placed(view, key, activation, end, &error);
                let closing = Closing { end, error: Some(error), at: view.now, run: None };
                decision.record(LedgerEntry::Closed { key: key.clone(), run: activation.run, closing });
                refused.into_iter().for_each(|fact| decision.record(fact));
            }
        }
    }
}

/// An order that would come again although it was refused when it was placed: refused until it is written again.
fn refused_as_placed(
    view: &View<'_>,
    key: &OrderKey,
    activation: &Activation,
    end: End,
    why: &str,
) -> Option<LedgerEntry> {
    let seen = view.orders?.get(key)?;
    let Ok(Document::Order(order)) = &seen.document else { return None };
    let comes_again = order.standing_terms().is_some() && order.identity == activation.identity;
    if end != End::Refused || activation.trigger != Trigger::Placed || !comes_again {
        return None;
    }
    let identity = Some(activation.identity);
    let unreadable = Unreadable { message: why.to_owned(), identity, index: seen.index, at: view.now };
    Some(LedgerEntry::Unreadable { key: key.clone(), unreadable })
}

/// Why an activation does not start.
pub(super) enum StartBlock {
    Wait(Wait),
    NeedsCheck,
    Never(End, String),
}

fn can_start(
    view: &View<'_>,
    key: &OrderKey,
    activation: &Activation,
    capacity: &mut Capacity,
) -> Result<Vec<Lock>, StartBlock> {
    let not_yet = |reason, until| Err(StartBlock::Wait(Wait::new(reason, until)));
    let seen = match view.orders {
        Some(orders) => orders.get(key),
        None => copy_of(view, key, &activation.trigger),
    };
    let Some(seen) = seen else { return not_yet(Reason::Store, None) };
    let Ok(Document::Order(order)) = &seen.document else { return not_yet(Reason::Store, None) };
    known_host(view)?;
    let needs = needs(view, key, seen)?;
    if view.orders.is_none() && !needs.offline {
        return not_yet(Reason::Store, None);
    }
    let (locks, emergency) = (needs.locks.clone(), needs.emergency);
    trusted_clock(view, order, &activation.trigger)?;
    in_time(view, order)?;
    if let Some(until) = order.not_before.filter(|until| *until > view.now) {
        return not_yet(Reason::Schedule, Some(until));
    }
    let from = match &activation.trigger {
        Trigger::Firing(instant) => *instant,
        Trigger::Placed | Trigger::Secret { .. } => {
            activation.at.max(order.not_before.unwrap_or(activation.at))
        }
        // One host's state, or an operator's word: nothing that a whole group would do at once by itself.
        Trigger::Drift(_) | Trigger::Retry(_) => Timestamp::UNIX_EPOCH,
    };
    let spread = spread(view, key, order);
    let starts = later(from, spread);
    // A clock that was set back must not make the spread longer than it is; a firing's own instant has to come.
    let set_back = !matches!(activation.trigger, Trigger::Firing(_)) && from > later(view.now, spread);
    if starts > view.now && !set_back {
        return not_yet(Reason::Spread, Some(starts));
    }
    in_window(view, key, order)?;
    if view.memory.orders.get(key).is_some_and(|order| order.previous.is_some()) {
        return not_yet(Reason::PreviousRun, None);
    }
    can_be_taken_back(view, needs)?;
    if let Some(until) = view.quiet_until.filter(|until| *until > view.now) {
        return not_yet(Reason::Store, Some(until));
    }
    not_frozen(view, &order.task)?;
    open_gates(view, key)?;
    has_secrets(view, key, needs.secrets)?;
    capacity.take(&locks, emergency).map_err(StartBlock::Wait)?;
    Ok(locks)
}

/// A host that may not be who it seems to be starts nothing, and lets nothing go on.
pub(super) fn known_host(view: &View<'_>) -> Result<(), StartBlock> {
    match view.start_block {
        None => Ok(()),
        Some(why) => {
            let detail = Some(why.to_owned());
            Err(StartBlock::Wait(Wait { detail, ..Wait::new(Reason::Identity, None) }))
        }
    }
}

/// While an upgrade can be taken back, no plan is made that the version before could not go on with.
fn can_be_taken_back(view: &View<'_>, needs: &Requirements) -> Result<(), StartBlock> {
    let Some(PreviousFormat { plan, until }) =
        view.previous_format.filter(|previous_format| needs.plan > previous_format.plan)
    else {
        return Ok(());
    };
    let when = until.map_or_else(|| "a day after the agent is ready".to_owned(), |until| until.to_string());
    let detail = Some(format!(
        "not started before {when}: its plan needs format {}, the version of hostler before this one reads {plan}, \
         and until then the upgrade can be taken back",
        needs.plan
    ));
    Err(StartBlock::Wait(Wait { detail, ..Wait::new(Reason::RollbackWindow, until) }))
}

/// May a run whose first step said "not now" go on: everything but its spread is asked again.
pub(super) fn can_resume(
    view: &View<'_>,
    key: &OrderKey,
    run: &RunView,
    capacity: &mut Capacity,
) -> Result<(), StartBlock> {
    let not_yet = |reason| Err(StartBlock::Wait(Wait::new(reason, None)));
    let seen = view.orders.and_then(|orders| orders.get(key));
    let Some(Ok(Document::Order(order))) = seen.map(|seen| &seen.document) else {
        return not_yet(Reason::Store);
    };
    can_start_now(view, key, order, &run.plan.trigger)?;
    capacity.take(&run.plan.resources, run.plan.emergency).map_err(StartBlock::Wait)
}

/// Whether an order may begin at this moment, whatever it was a moment ago.
pub(super) fn can_start_now(
    view: &View<'_>,
    key: &OrderKey,
    order: &Order,
    trigger: &Trigger,
) -> Result<(), StartBlock> {
    trusted_clock(view, order, trigger)?;
    in_time(view, order)?;
    in_window(view, key, order)?;
    not_frozen(view, &order.task)
}

/// How an order waits that is being started: an attempt at secrets that were not available is part of that wait.
pub(super) fn starting(view: &View<'_>, key: &OrderKey) -> Wait {
    match view.unready.get(key) {
        None => Wait::new(Reason::Starting, None),
        Some(unready) => Wait { detail: Some(unready.why.clone()), ..Wait::new(Reason::Vault, None) },
    }
}

fn not_frozen(view: &View<'_>, task: &Name) -> Result<(), StartBlock> {
    match frozen(view.sources, view.freezes, task, view.now) {
        None => Ok(()),
        Some(Frozen { until, why }) => {
            Err(StartBlock::Wait(Wait { detail: Some(why), ..Wait::new(Reason::Freeze, until) }))
        }
    }
}

/// The freeze of the host or of one of its groups that keeps a task from starting.
pub fn frozen(sources: &[Source], freezes: &Freezes, task: &Name, now: Timestamp) -> Option<Frozen> {
    sources.iter().filter_map(|source| stops(source, freezes.get(source)?, task, now)).next()
}

fn in_time(view: &View<'_>, order: &Order) -> Result<(), StartBlock> {
    match order.not_after {
        Some(end) if end < view.now => Err(StartBlock::Never(End::Expired, format!("not started by {end}"))),
        _ => Ok(()),
    }
}

/// What depends on the time of day waits for a clock that can be trusted.
fn trusted_clock(view: &View<'_>, order: &Order, trigger: &Trigger) -> Result<(), StartBlock> {
    let timed = order.window.is_some() || order.not_before.is_some() || order.not_after.is_some();
    let timed = timed || matches!(trigger, Trigger::Firing(_));
    clock_untrusted(view).filter(|_| timed).map_or(Ok(()), |wait| Err(StartBlock::Wait(wait)))
}

/// The window is open; the hosts of a group come in one after the other also when it has just opened.
fn in_window(view: &View<'_>, key: &OrderKey, order: &Order) -> Result<(), StartBlock> {
    let Some(window) = &order.window else { return Ok(()) };
    let Some(opening) = window.opening(view.now) else {
        let detail = Some("the window does not open in the next two weeks".to_owned());
        return Err(StartBlock::Wait(Wait { detail, ..Wait::new(Reason::Window, None) }));
    };
    let length = Duration::try_from(opening.to.duration_since(opening.from)).unwrap_or_default();
    let opens =
        later(opening.from, spread_within(view, key, order, length.checked_div(2).unwrap_or_default()));
    if opens > view.now { Err(StartBlock::Wait(Wait::new(Reason::Window, Some(opens)))) } else { Ok(()) }
}

fn needs<'a>(view: &View<'a>, key: &OrderKey, seen: &SeenOrder) -> Result<&'a Requirements, StartBlock> {
    let checked_orders =
        view.checked_orders.get(key).filter(|checked_orders| checked_orders.index == seen.index);
    match checked_orders.map(|checked_orders| &checked_orders.finding) {
        None => Err(StartBlock::NeedsCheck),
        Some(Err(why)) => Err(StartBlock::Never(End::Refused, why.clone())),
        Some(Ok(needs)) => Ok(needs),
    }
}

/// What needs secrets waits for Vault, and after an attempt that could not read them for the next one; it never fails
/// because of either.
pub(super) fn has_secrets(view: &View<'_>, key: &OrderKey, wanted: bool) -> Result<(), StartBlock> {
    if !wanted {
        return Ok(());
    }
    let (why, until) = match (view.vault, view.unready.get(key)) {
        (Some(why), _) => (why.to_owned(), None),
        (None, Some(unready)) if unready.until > view.now => (unready.why.clone(), Some(unready.until)),
        (None, _) => return Ok(()),
    };
    Err(StartBlock::Wait(Wait { detail: Some(why), ..Wait::new(Reason::Vault, until) }))
}

/// A full disk, and the gates of the task. An answer of the gates counts for a while only, then they are asked again: a
/// closed one may have opened, and one that was open when the order came may be closed when its time has come.
fn open_gates(view: &View<'_>, key: &OrderKey) -> Result<(), StartBlock> {
    let needs = view.checked_orders.get(key).and_then(|checked_orders| checked_orders.finding.as_ref().ok());
    let wait = |detail, until| {
        Err(StartBlock::Wait(Wait { detail: Some(detail), ..Wait::new(Reason::Gate, Some(until)) }))
    };
    if let Some(full) = view.full.filter(|_| needs.is_some_and(|needs| !needs.emergency)) {
        return wait(full.to_owned(), later(view.now, GATE_RETRY_INTERVAL));
    }
    let Some(answer) = needs.and_then(|needs| needs.gates.as_deref()) else { return Ok(()) };
    if let Some(wait) = clock_untrusted(view).filter(|_| answer.timed) {
        return Err(StartBlock::Wait(wait));
    }
    let lasts = if answer.closed.is_some() { GATE_RETRY_INTERVAL } else { OPEN_GATE_LASTS };
    let again = later(answer.asked, lasts);
    let again = answer.opens.map_or(again, |opens| opens.min(again));
    // An answer from the future is one from before the clock was set back.
    if again <= view.now || answer.asked > view.now {
        return Err(StartBlock::NeedsCheck);
    }
    match &answer.closed {
        None => Ok(()),
        Some(why) => wait(why.clone(), answer.opens.unwrap_or(again)),
    }
}
