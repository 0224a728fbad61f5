//! What each fact changes, and the shortest list of facts that adds up to the same.
//!
//! The live agent and the reading of the ledger take facts in through the one [`LedgerState::take`], so that an agent that
//! starts knows what the one before knew. It cannot fail and asks nothing: whether a fact may come about was decided
//! before it was written.

use super::{Acted, Activation, Fact, LedgerState, MAX_ACTS, MAX_GONE, OrderState, RunRequest, Stage};
use crate::domain::control::ControlId;
use crate::domain::ids::RunId;
use crate::domain::name::Name;
use crate::domain::plan::Trigger;
use crate::domain::recurrence::Confirmed;
use crate::domain::source::{OrderKey, Source};

impl LedgerState {
    /// Takes a fact in.
    pub fn take(&mut self, fact: Fact) {
        match fact {
            Fact::BaselineTaken { key, identity, index, .. } => self.present(key).stands(identity, index),
            Fact::ScheduleArmed { key, terms, at } => self.present(key).recurrence.begin(terms, at),
            Fact::ScheduleDisarmed { key } => self.orders.entry(key).or_default().recurrence.rest(),
            Fact::FiringsSkipped { key, until, missed, overlaps, .. } => {
                let recurrence = &mut self.orders.entry(key).or_default().recurrence;
                recurrence.pass(until);
                recurrence.missed = recurrence.missed.saturating_add(missed);
                recurrence.overlaps = recurrence.overlaps.saturating_add(overlaps);
            }
            Fact::DocumentConfirmed { key, index, document, at } => {
                let recurrence = &mut self.orders.entry(key).or_default().recurrence;
                let known = recurrence.confirmed.take().map(|confirmed| confirmed.document);
                let document = document.or(known);
                recurrence.confirmed = document.map(|document| Confirmed { index, document, at });
            }
            Fact::DriftCleared { key } => self.orders.entry(key).or_default().recurrence.unsettled = 0,
            Fact::Version { key, path, version } => {
                self.orders.entry(key).or_default().recurrence.know(path, version);
            }
            Fact::Clock { at } => self.newest = self.newest.max(Some(at)),
            Fact::Activation { key, run, identity, index, trigger, at } => {
                let order = self.present(key);
                order.stands(identity, index);
                match &trigger {
                    Trigger::Placed | Trigger::Retry(_) | Trigger::Secret { .. } => {}
                    Trigger::Firing(instant) => order.recurrence.pass(*instant),
                    Trigger::Drift(n) => {
                        order.recurrence.drifts = order.recurrence.drifts.max(*n);
                        order.recurrence.unsettled = order.recurrence.unsettled.saturating_add(1);
                    }
                }
                let newest = Activation { run, identity, trigger, at, stage: Stage::Open, request: None };
                let before = order.current.replace(newest);
                // At most one older activation has a run: newer ones wait for it, and are superseded waiting.
                if let Some(before) = before.filter(|before| before.has_run()) {
                    order.previous = Some(Box::new(before));
                }
            }
            Fact::Index { key, index } => {
                let order = self.present(key);
                order.index = index;
                order.held = None;
                order.unreadable = None;
            }
            Fact::Held { key, held } => {
                let order = self.present(key);
                order.unreadable = None;
                order.held = Some(Box::new(held));
                order.recurrence.rest();
            }
            Fact::Unreadable { key, unreadable } => {
                let order = self.present(key);
                order.held = None;
                order.unreadable = Some(Box::new(unreadable));
                order.recurrence.rest();
            }
            Fact::Prepared { key, run } => self.stage(&key, run, Stage::Prepared),
            Fact::PreparationRevoked { key, run, next } => {
                self.stage(&key, run, Stage::Open);
                if let Some(activation) = self.activation(&key, run) {
                    activation.run = next;
                }
            }
            Fact::Closed { key, run, closing } => {
                let place_kept = closing.end.keeps_its_place();
                self.stage(&key, run, Stage::Closed(closing));
                if let Some(order) = self.orders.get_mut(&key)
                    && order.previous.as_ref().is_some_and(|previous| previous.run == run && !place_kept)
                {
                    order.previous = None;
                }
            }
            Fact::Gone { key, at } => {
                let order = self.orders.entry(key).or_default();
                order.gone = Some(at);
                order.held = None;
                order.unreadable = None;
                order.recurrence.rest();
            }
            Fact::EffectiveSource { order, source: Some(source), .. } => {
                self.left.remove(&order);
                self.effective.insert(order, source);
            }
            Fact::EffectiveSource { order, source: None, index } => {
                if let (Some(before), Some(index)) = (self.effective.remove(&order), index) {
                    self.left.insert(order, (before, index));
                }
                if self.left.len() > MAX_GONE
                    && let Some((oldest, _)) = self.left.iter().min_by_key(|(_, (_, index))| *index)
                {
                    let oldest = oldest.clone();
                    self.left.remove(&oldest);
                }
            }
            Fact::ControlHandled { control, acted } => {
                self.acts.insert(control, acted);
                if self.acts.len() > MAX_ACTS {
                    self.acts.pop_first();
                }
            }
            Fact::RunRequest { key, run, request } => {
                if matches!(request, RunRequest::Undo { .. }) {
                    self.stage(&key, run, Stage::Prepared);
                }
                if let Some(activation) = self.activation(&key, run) {
                    activation.request = Some(Box::new(request));
                }
            }
            Fact::HostJoined { at, unread } => {
                self.joined = Some(at);
                self.unread_sources = unread;
            }
            Fact::FirstRead { source } => {
                self.unread_sources.remove(&source);
            }
            Fact::Accepted { key, identity, index } => self.present(key).stands(identity, index),
            Fact::Forgotten { key } => {
                self.orders.remove(&key);
            }
            Fact::OrderSnapshot { key, order } => {
                self.orders.insert(key, order);
            }
        }
    }

    /// The shortest list of facts that adds up to the same.
    pub fn facts(&self) -> Vec<Fact> {
        let effective = |(order, source): (&Name, &Source)| Fact::EffectiveSource {
            order: order.clone(),
            source: Some(source.clone()),
            index: None,
        };
        let left = |(order, (source, index)): (&Name, &(Source, u64))| {
            let not_any_more =
                Fact::EffectiveSource { order: order.clone(), source: None, index: Some(*index) };
            [effective((order, source)), not_any_more]
        };
        let acted = |(control, acted): (&ControlId, &Acted)| Fact::ControlHandled {
            control: *control,
            acted: acted.clone(),
        };
        let whole = self.orders.iter();
        let whole = whole.map(|(key, order)| Fact::OrderSnapshot { key: key.clone(), order: order.clone() });
        let orders = whole.chain(self.acts.iter().map(acted));
        let places = self.effective.iter().map(effective).chain(self.left.iter().flat_map(left));
        let joined = self.joined.map(|at| Fact::HostJoined { at, unread: self.unread_sources.clone() });
        orders.chain(places).chain(joined).chain(self.newest.map(|at| Fact::Clock { at })).collect()
    }

    fn present(&mut self, key: OrderKey) -> &mut OrderState {
        let order = self.orders.entry(key).or_default();
        order.gone = None;
        order
    }

    fn activation(&mut self, key: &OrderKey, run: RunId) -> Option<&mut Activation> {
        let order = self.orders.get_mut(key)?;
        order.current.iter_mut().chain(order.previous.as_deref_mut()).find(|activation| activation.run == run)
    }

    fn stage(&mut self, key: &OrderKey, run: RunId, stage: Stage) {
        if let Some(activation) = self.activation(key, run) {
            activation.stage = stage;
        }
    }
}
