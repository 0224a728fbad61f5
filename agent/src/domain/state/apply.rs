//! What each fact changes, and the shortest list of facts that adds up to the same.
//!
//! The live agent and the reading of the ledger take facts in through the one [`LedgerState::take`], so that an agent that
//! starts knows what the one before knew. It cannot fail and asks nothing: whether a fact may come about was decided
//! before it was written.

use super::{Acted, Activation, End, LedgerEntry, LedgerState, MAX_ACTS, MAX_GONE, OrderState, Stage};
use crate::domain::control::ControlId;
use crate::domain::ids::RunId;
use crate::domain::name::Name;
use crate::domain::plan::Trigger;
use crate::domain::recurrence::Confirmed;
use crate::domain::source::{OrderKey, Source};

impl LedgerState {
    /// Takes a fact in.
    pub fn apply(&mut self, fact: LedgerEntry) {
        match fact {
            LedgerEntry::BaselineTaken { key, identity, index, .. } => {
                self.present(key).stands(identity, index)
            }
            LedgerEntry::ScheduleArmed { key, terms, at } => self.present(key).recurrence.begin(terms, at),
            LedgerEntry::ScheduleDisarmed { key } => self.orders.entry(key).or_default().recurrence.rest(),
            LedgerEntry::FiringsSkipped { key, until, missed, overlaps, .. } => {
                let recurrence = &mut self.orders.entry(key).or_default().recurrence;
                recurrence.pass(until);
                recurrence.missed = recurrence.missed.saturating_add(missed);
                recurrence.overlaps = recurrence.overlaps.saturating_add(overlaps);
            }
            LedgerEntry::DocumentConfirmed { key, index, document, at } => {
                let recurrence = &mut self.orders.entry(key).or_default().recurrence;
                let known = recurrence.confirmed.take().map(|confirmed| confirmed.document);
                let document = document.or(known);
                recurrence.confirmed = document.map(|document| Confirmed { index, document, at });
            }
            LedgerEntry::DriftCleared { key } => self.orders.entry(key).or_default().recurrence.unsettled = 0,
            LedgerEntry::Version { key, path, version } => {
                self.orders.entry(key).or_default().recurrence.know(path, version);
            }
            LedgerEntry::Clock { at } => self.newest = self.newest.max(Some(at)),
            LedgerEntry::Activation { key, run, identity, index, trigger, at } => {
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
            LedgerEntry::Index { key, index } => {
                let order = self.present(key);
                order.index = index;
                order.held = None;
                order.unreadable = None;
            }
            LedgerEntry::Held { key, held } => {
                let order = self.present(key);
                order.unreadable = None;
                order.held = Some(Box::new(held));
                order.recurrence.rest();
            }
            LedgerEntry::Unreadable { key, unreadable } => {
                let order = self.present(key);
                order.held = None;
                order.unreadable = Some(Box::new(unreadable));
                order.recurrence.rest();
            }
            LedgerEntry::Prepared { key, run } => self.stage(&key, run, Stage::Prepared),
            LedgerEntry::PreparationRevoked { key, run, next } => {
                self.stage(&key, run, Stage::Open);
                if let Some(activation) = self.activation(&key, run) {
                    activation.run = next;
                }
            }
            LedgerEntry::Closed { key, run, closing } => {
                let place_kept = closing.end.keeps_its_place();
                if matches!(closing.end, End::Succeeded | End::Unchanged)
                    && let Some(order) = self.orders.get_mut(&key)
                {
                    order.recurrence.succeeded(closing.at);
                }
                self.stage(&key, run, Stage::Closed(closing));
                if let Some(order) = self.orders.get_mut(&key)
                    && order.previous.as_ref().is_some_and(|previous| previous.run == run && !place_kept)
                {
                    order.previous = None;
                }
            }
            LedgerEntry::Gone { key, at } => {
                let order = self.orders.entry(key).or_default();
                order.gone = Some(at);
                order.held = None;
                order.unreadable = None;
                order.recurrence.rest();
            }
            LedgerEntry::EffectiveSource { order, source: Some(source), .. } => {
                self.left.remove(&order);
                self.effective.insert(order, source);
            }
            LedgerEntry::EffectiveSource { order, source: None, index } => {
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
            LedgerEntry::ControlHandled { control, acted } => {
                self.acts.insert(control, acted);
                if self.acts.len() > MAX_ACTS {
                    self.acts.pop_first();
                }
            }
            LedgerEntry::RunRequest { key, run, request } => {
                if request.before().is_some() {
                    self.stage(&key, run, Stage::Prepared);
                }
                if let Some(activation) = self.activation(&key, run) {
                    activation.request = Some(Box::new(request));
                }
            }
            LedgerEntry::HostJoined { at, unread } => {
                self.joined = Some(at);
                self.unread_sources = unread;
            }
            LedgerEntry::FirstRead { source } => {
                self.unread_sources.remove(&source);
            }
            LedgerEntry::Accepted { key, identity, index } => self.present(key).stands(identity, index),
            LedgerEntry::Forgotten { key } => {
                self.orders.remove(&key);
            }
            LedgerEntry::OrderSnapshot { key, order } => {
                self.orders.insert(key, order);
            }
        }
    }

    /// The shortest list of facts that adds up to the same.
    pub fn facts(&self) -> Vec<LedgerEntry> {
        let effective = |(order, source): (&Name, &Source)| LedgerEntry::EffectiveSource {
            order: order.clone(),
            source: Some(source.clone()),
            index: None,
        };
        let left = |(order, (source, index)): (&Name, &(Source, u64))| {
            let not_any_more =
                LedgerEntry::EffectiveSource { order: order.clone(), source: None, index: Some(*index) };
            [effective((order, source)), not_any_more]
        };
        let acted = |(control, acted): (&ControlId, &Acted)| LedgerEntry::ControlHandled {
            control: *control,
            acted: acted.clone(),
        };
        let whole = self.orders.iter();
        let whole =
            whole.map(|(key, order)| LedgerEntry::OrderSnapshot { key: key.clone(), order: order.clone() });
        let orders = whole.chain(self.acts.iter().map(acted));
        let places = self.effective.iter().map(effective).chain(self.left.iter().flat_map(left));
        let joined =
            self.joined.map(|at| LedgerEntry::HostJoined { at, unread: self.unread_sources.clone() });
        orders.chain(places).chain(joined).chain(self.newest.map(|at| LedgerEntry::Clock { at })).collect()
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
