//! An order that comes again: whether its terms are taken in, whether it fires, whether its state has drifted away.
//!
//! | what is seen | what follows |
//! | --- | --- |
//! | terms that are new, changed, or back after a hold or an absence | they count from now on: no instant before fires |
//! | terms that the task does not bear | refused until the order is written again |
//! | an instant that has come, in time, and nothing of the order is under way | a new activation: `firing` |
//! | the same while one waits or runs | skipped, and counted |
//! | an instant that has come too late, or older ones beside the newest | missed, and counted |
//! | two "does not hold" a minute apart | a new activation: `drift` |
//! | the third of them since the state lasted | held: not_converging |
//! | the first version of a watched secret, and one that is no newer | known from now on, and nothing starts |
//! | a newer version, and nothing of the order is under way, or it waits for an older version | a new activation: `secret` |
//! | a clock that cannot be trusted | nothing, until it can |
//! | no store at all | only what `offline` tasks fire, from the ledger's copy |

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::time::Duration;

use jiff::Timestamp;

use super::capacity::Capacity;
use super::clock::clock_untrusted;
use super::context::OrderContext;
use super::decision::{Action, Decision, ObservedState};
use super::record::hold;
use super::spread::spread;
use super::view::View;
use super::wait::{Reason, Wait};
use crate::domain::ids::RunId;
use crate::domain::instant::later;
use crate::domain::order::{Document, Order};
use crate::domain::plan::Trigger;
use crate::domain::reconcile::{Finding, MAX_DRIFTS, ProbeAnswer};
use crate::domain::schedule::Schedule;
use crate::domain::secret_watch::VersionChange;
use crate::domain::span::Span;
use crate::domain::state::{Closing, End, Hold, LedgerEntry, OrderState, Stage, Unreadable};

/// Whether the clock is right is asked again so often.
const CLOCK_RETRY_INTERVAL: Duration = Duration::from_secs(30);
/// A window that opens at no time in sight is asked again so often.
const WINDOW_RETRY_INTERVAL: Duration = Duration::from_secs(86_400);

/// Asks to be woken for what comes without an instant.
pub(super) fn wake(view: &View<'_>, decision: &mut Decision) {
    for (key, seen) in view.orders.into_iter().flatten() {
        let Ok(Document::Order(order)) = &seen.document else { continue };
        let Some(every) = order.expect_every else { continue };
        let state = view.memory.orders.get(key);
        let late = state.and_then(|state| state.recurrence.late_at(every));
        // Its lateness is a condition, which somebody has to see.
        late.filter(|late| *late > view.now).into_iter().for_each(|late| decision.wake_at(late));
    }
    if decision.waits.values().any(|wait| wait.reason == Reason::Clock) {
        decision.wake_at(later(view.now, CLOCK_RETRY_INTERVAL));
    }
    if decision.waits.values().any(|wait| wait.reason == Reason::Window && wait.until.is_none()) {
        decision.wake_at(later(view.now, WINDOW_RETRY_INTERVAL));
    }
}

/// What fires although the store gives no answer at all.
pub(super) fn offline(view: &View<'_>, new_run: &mut dyn FnMut() -> RunId, decision: &mut Decision) {
    for (key, seen) in view.confirmed {
        let Some(order_state) = view.memory.orders.get(key) else { continue };
        let effective = view.memory.effective.get(&key.order) == Some(&key.source);
        let stands =
            order_state.gone.is_none() && order_state.held.is_none() && order_state.unreadable.is_none();
        let counts = order_state.recurrence.confirmed.as_ref().is_some_and(|copy| copy.counts(view.now));
        let Ok(Document::Order(order)) = &seen.document else { continue };
        let known = order_state.last == Some(order.identity);
        let terms = order_state.recurrence.terms.is_some();
        if !(effective && stands && counts && known && terms) || clock_untrusted(view).is_some() {
            continue;
        }
        let case = OrderContext { view, key, index: seen.index, order, order_state };
        match case.finding() {
            None => decision.actions.push(Action::CheckOrder(key.clone())),
            Some(Ok(needs)) if needs.offline => {
                if let Some(schedule) = &order.schedule {
                    case.fire(schedule, new_run, decision);
                }
            }
            Some(_) => {}
        }
    }
}

impl OrderContext<'_> {
    /// What follows for an order that stands as it is remembered.
    pub(super) fn decide(&self, new_run: &mut dyn FnMut() -> RunId, decision: &mut Decision) {
        let standing = &self.order_state.recurrence;
        let Some(terms) = self.order.standing_terms() else {
            if standing.terms.is_some() {
                self.close_by_terms("the order no longer repeats", decision);
                decision.record(LedgerEntry::ScheduleDisarmed { key: self.key.clone() });
            } else if self.order_state.unanswered().is_some() {
                let why = format!(
                    "it lost its schedule before that fired, and nothing is started for that: change `revision`, or \
                     hostler retry {}",
                    self.key.order
                );
                self.answer(End::Withdrawn, why, new_run(), decision);
            }
            return;
        };
        if self.order.schedule.is_some()
            && let Some(wait) = clock_untrusted(self.view)
        {
            if self.order_state.is_under_way() {
                decision.wake_at(later(self.view.now, CLOCK_RETRY_INTERVAL));
            } else {
                decision.wait(self.key, wait);
            }
            return;
        }
        if standing.terms.as_ref() != Some(&terms) {
            return self.begin(terms, new_run, decision);
        }
        if self.secrets(new_run, decision) {
            return;
        }
        if let Some(schedule) = &self.order.schedule {
            self.fire(schedule, new_run, decision);
            self.confirm(decision);
        } else if let Some(every) = self.order.reconcile {
            self.reconcile(every, new_run, decision);
        } else if !self.order_state.is_under_way() {
            decision.wait(self.key, Wait { detail: self.another(), ..Wait::new(Reason::Secret, None) });
        }
    }

    /// Whether it was refused before it was carried out, and is written again since: then it is placed once more. Not
    /// with a schedule, which fires when its time comes.
    pub(super) fn was_refused(&self) -> bool {
        let OrderState { current, unreadable, gone, index, .. } = self.order_state;
        let this = |identity| identity == self.order.identity;
        let as_document = unreadable.as_ref().is_some_and(|refused| {
            refused.identity.is_some_and(this) && refused.index < self.index && *index < self.index
        });
        let as_placed = current.as_ref().is_some_and(|activation| {
            let refused = matches!(&activation.stage, Stage::Closed(closing) if closing.end == End::Refused);
            refused && activation.trigger == Trigger::Placed && this(activation.identity)
        });
        self.order.starts_when_placed() && gone.is_none() && as_document && as_placed
    }

    fn begin(&self, terms: String, new_run: &mut dyn FnMut() -> RunId, decision: &mut Decision) {
        match self.finding() {
            None => decision.actions.push(Action::CheckOrder(self.key.clone())),
            Some(Err(why)) => self.refuse(why, new_run, decision),
            Some(Ok(_)) => {
                self.close_by_terms("the order's schedule was changed", decision);
                decision.record(LedgerEntry::ScheduleArmed {
                    key: self.key.clone(),
                    terms,
                    at: self.view.now,
                });
            }
        }
    }

    /// The host does not bear its terms: it is of no use here until it is written again.
    fn refuse(&self, why: &str, new_run: &mut dyn FnMut() -> RunId, decision: &mut Decision) {
        if self.order_state.unanswered().is_some() {
            self.answer(End::Refused, why.to_owned(), new_run(), decision);
        } else {
            self.recorded().close_waiting(End::Refused, why, decision);
        }
        let identity = Some(self.order.identity);
        let unreadable =
            Unreadable { message: why.to_owned(), identity, index: self.index, at: self.view.now };
        decision.record(LedgerEntry::Unreadable { key: self.key.clone(), unreadable });
    }

    /// Remembers what became of an instruction of which nothing comes, so that it has a status like any other.
    fn answer(&self, end: End, why: String, run: RunId, decision: &mut Decision) {
        self.activation(Trigger::Placed, run, decision);
        let closing = Closing { end, error: Some(why), at: self.view.now, run: None };
        decision.record(LedgerEntry::Closed { key: self.key.clone(), run, closing });
    }

    /// Closes an activation that waits, if it came by what counts no more.
    fn close_by_terms(&self, why: &str, decision: &mut Decision) {
        if self
            .order_state
            .current
            .as_ref()
            .is_some_and(|activation| !comes_by(&activation.trigger, self.order))
        {
            self.recorded().close_waiting(End::Superseded, why, decision);
        }
    }

    fn fire(&self, schedule: &Schedule, new_run: &mut dyn FnMut() -> RunId, decision: &mut Decision) {
        let (now, order) = (self.view.now, self.order);
        let splay = spread(self.view, self.key, order);
        let just_before = |at: Timestamp| at.checked_sub(Duration::from_nanos(1)).unwrap_or(at);
        let Some(handled) = self.order_state.recurrence.handled else { return };
        let handled = order.not_before.map_or(handled, |first| handled.max(just_before(first)));
        let ended = |instant: Timestamp| order.not_after.is_some_and(|end| end < instant);
        let under_way = self.order_state.is_under_way();
        if let Some(due) = schedule.due(handled, now, splay).filter(|due| !ended(due.newest)) {
            let fires = due.fires && !under_way && !ended(now);
            let overlaps = u32::from(due.fires && under_way);
            let missed = due.missed.saturating_add(u32::from(due.fires && !under_way && !fires));
            if missed > 0 || overlaps > 0 {
                let (key, until, at) = (self.key.clone(), due.newest, now);
                decision.record(LedgerEntry::FiringsSkipped { key, until, missed, overlaps, at });
            }
            if fires {
                self.activation(Trigger::Firing(due.newest), new_run(), decision);
            }
            return;
        }
        let since = handled.max(now.checked_sub(splay).unwrap_or(now));
        let next = schedule.next(since).filter(|next| !ended(*next)).map(|next| later(next, splay));
        match next {
            Some(next) if under_way => decision.wake_at(next),
            Some(next) => decision.wait(self.key, Wait::new(Reason::Schedule, Some(next))),
            None if under_way || self.order_state.unanswered().is_none() => {}
            None => {
                let why = match order.not_after {
                    Some(end) => format!("its schedule names no time before `not_after`, {end}"),
                    None => "its schedule names no time to come".to_owned(),
                };
                self.answer(End::Expired, why, new_run(), decision);
            }
        }
    }

    /// Sees to the ledger's copy, for a task that may fire while the store is away.
    fn confirm(&self, decision: &mut Decision) {
        match self.finding() {
            None => decision.actions.push(Action::CheckOrder(self.key.clone())),
            Some(Ok(needs)) if needs.offline => {
                let copy = self.order_state.recurrence.confirmed.as_ref();
                let again =
                    copy.filter(|copy| copy.index == self.index).map(|copy| copy.again_at(self.view.now));
                match again {
                    Some(again) if again > self.view.now => decision.wake_at(again),
                    _ => decision.actions.push(Action::Confirm(self.key.clone())),
                }
            }
            Some(_) => {}
        }
    }

    fn reconcile(&self, every: Span, new_run: &mut dyn FnMut() -> RunId, decision: &mut Decision) {
        let view = self.view;
        let ended = self.order.not_after.is_some_and(|end| end < view.now);
        if self.order_state.is_under_way() || ended {
            return;
        }
        let locks = match self.finding() {
            None => return decision.actions.push(Action::CheckOrder(self.key.clone())),
            Some(Err(why)) => return self.refuse(why, new_run, decision),
            Some(Ok(needs)) => &needs.locks,
        };
        let standing = &self.order_state.recurrence;
        let run_ended = self.order_state.current.as_ref().and_then(|activation| match &activation.stage {
            Stage::Closed(Closing { at, .. }) => Some(*at),
            _ => None,
        });
        let unknown = Default::default();
        let answers = view.answers.get(self.key).unwrap_or(&unknown);
        if standing.unsettled > 0 && answers.lasts() {
            return decision.record(LedgerEntry::DriftCleared { key: self.key.clone() });
        }
        let last = answers.last().filter(|(at, _)| run_ended.is_none_or(|ended| *at >= ended));
        if let Some((asked, answer)) = last {
            let drifted = *answer == ProbeAnswer::DoesNotHold;
            let observed = ObservedState { asked: *asked, drifted, said: answers.said().map(str::to_owned) };
            decision.observed.insert(self.key.clone(), observed);
        }
        let finding = match answers.finding(view.now, every, run_ended) {
            // Nothing follows from it: it is asked again as if it held.
            Finding::Drifted if self.order.only_report => match last.map(|(asked, _)| later(*asked, every.0))
            {
                Some(next) if next > view.now => Finding::AskAt(next),
                _ => Finding::Ask,
            },
            finding => finding,
        };
        let (until, detail) = match finding {
            Finding::Ask | Finding::Drifted if Capacity::of(view).taken(locks).is_some() => {
                // Whoever changes the same thing now may well have it in another state for a while.
                (None, Some("a run that is under way has what this state is about".to_owned()))
            }
            Finding::Drifted if standing.unsettled.saturating_add(1) >= MAX_DRIFTS => {
                let fact = hold(view, self.key, Hold::NotConverging, self.order.identity, self.index);
                return decision.record(fact);
            }
            Finding::Drifted => {
                return self.activation(
                    Trigger::Drift(standing.drifts.saturating_add(1)),
                    new_run(),
                    decision,
                );
            }
            Finding::Ask => {
                decision.actions.push(Action::Probe(self.key.clone()));
                (None, None)
            }
            Finding::AskAt(at) => (Some(at), answers.last().and_then(|(_, answer)| self.said(answer))),
        };
        decision.wait(self.key, Wait { detail, ..Wait::new(Reason::Reconcile, until) });
    }

    /// Looks at the versions of what it watches; whether they are news that something follows from.
    ///
    /// What is known and what it leads to stand in one record, so that no crash comes between.
    fn secrets(&self, new_run: &mut dyn FnMut() -> RunId, decision: &mut Decision) -> bool {
        let (mut known, mut newest) = (Vec::new(), None);
        for path in paths(self.order) {
            let Some(version) = self.view.versions.get(path).copied() else { continue };
            match self.order_state.recurrence.secrets.get(path).map(|seen| seen.judge(version)) {
                Some(VersionChange::Known) => continue,
                Some(VersionChange::Newer) if !self.may_follow() => continue,
                Some(VersionChange::Newer) => {
                    newest.get_or_insert(Trigger::Secret { version: version.number, path: path.to_owned() });
                }
                // The first that is seen, or another that is no newer: nothing follows from it.
                None | Some(VersionChange::Another) => {}
            }
            known.push(LedgerEntry::Version { key: self.key.clone(), path: path.to_owned(), version });
        }
        if newest.is_some() {
            let why = "the secret has a newer version";
            self.recorded().close_waiting(End::Superseded, why, decision);
        }
        let news = !known.is_empty();
        known.into_iter().for_each(|fact| decision.record(fact));
        if let Some(trigger) = newest {
            self.activation(trigger, new_run(), decision);
        }
        news
    }

    /// Whether an activation for a new version has a place: beside nothing, or instead of one for an older version that
    /// still waits. One that executes is waited for, since it may have read the older one.
    fn may_follow(&self) -> bool {
        let ended = self.order.not_after.is_some_and(|end| end < self.view.now);
        let waits = self.order_state.current.as_ref().is_some_and(|activation| {
            activation.stage == Stage::Open
                && matches!(activation.trigger, Trigger::Secret { .. })
                && !self.view.starting.contains_key(&activation.run)
        });
        !ended && (!self.order_state.is_under_way() || (waits && self.order_state.previous.is_none()))
    }

    /// What was taken as known although it is no newer, in words.
    fn another(&self) -> Option<String> {
        let standing = &self.order_state.recurrence;
        let said = paths(self.order).find_map(|path| {
            let seen = standing.secrets.get(path)?;
            Some((path, seen.version.number, seen.instead_of?))
        });
        said.map(|(path, now, before)| {
            format!(
                "{path} has version {now} where it had {before}, and none that is newer: made anew, or a Vault that was \
                 set back; nothing was started for it: hostler retry {} if it should have been",
                self.key.order
            )
        })
    }

    /// What an answer means for an operator.
    fn said(&self, answer: &ProbeAnswer) -> Option<String> {
        match answer {
            ProbeAnswer::Holds => None,
            ProbeAnswer::DoesNotHold if self.order.only_report => {
                Some("the state does not hold; it is only reported".into())
            }
            ProbeAnswer::DoesNotHold => {
                Some("the state does not hold: asked once more before anything starts".into())
            }
            ProbeAnswer::CannotTell(why) => Some(format!("cannot tell whether the state holds: {why}")),
        }
    }

    fn activation(&self, trigger: Trigger, run: RunId, decision: &mut Decision) {
        let (key, identity, index) = (self.key.clone(), self.order.identity, self.index);
        decision.record(LedgerEntry::Activation { key, run, identity, index, trigger, at: self.view.now });
    }
}

/// Whether an order, as it stands now, still has activations of this kind.
pub(super) fn comes_by(trigger: &Trigger, order: &Order) -> bool {
    match trigger {
        Trigger::Placed => order.starts_when_placed(),
        Trigger::Firing(instant) => order.schedule.as_ref().is_some_and(|schedule| schedule.names(*instant)),
        Trigger::Drift(_) => order.reconcile.is_some() && !order.only_report,
        Trigger::Secret { path, .. } => order.on_secret_change.iter().any(|one| one.path() == path),
        Trigger::Retry(_) => true,
    }
}

/// The paths of what an order watches, each once: several fields may be of one.
pub(super) fn paths(order: &Order) -> impl Iterator<Item = &str> {
    let all = &order.on_secret_change;
    let first = |at: usize, path: &str| all.iter().take(at).all(|other| other.path() != path);
    all.iter().enumerate().filter(move |(at, one)| first(*at, one.path())).map(|(_, one)| one.path())
}
