//! Orders whose success is late: what `expect_every` says, against when a run of them succeeded last.

use jiff::Timestamp;

use super::Agent;
use crate::domain::freeze::Freeze;
use crate::domain::order::Document;
use crate::domain::source::{OrderKey, Source};
use crate::domain::state::OrderState;

/// So many orders are named as late, and so many are measured.
const MAX_LATE: usize = 10;
const MAX_MEASURED: usize = 100;

impl Agent {
    /// A line for each order whose success is late.
    pub(super) fn late_orders(&self, now: Timestamp) -> Vec<String> {
        let late = self.sync.desired.orders.iter().filter_map(|(key, seen)| {
            let Ok(Document::Order(order)) = &seen.document else { return None };
            let every = order.expect_every?;
            let recurrence = &self.standing(key)?.recurrence;
            let last = recurrence.last_success.map_or_else(
                || "it has never succeeded".to_owned(),
                |at| format!("the last success was at {}", at.strftime("%Y-%m-%dT%H:%M:%SZ")),
            );
            let (order, host) = (&key.order, &self.identity.host);
            (recurrence.late_at(every)? <= now).then(|| {
                format!(
                    "order {order} has not succeeded for {every}, as its `expect_every` wants; {last}: \
                     hostler status {order} --host {host}"
                )
            })
        });
        late.take(MAX_LATE).collect()
    }

    /// When the orders that come again succeeded last, by their names.
    pub(super) fn last_successes(&self) -> Vec<(String, Timestamp)> {
        let Ok(ledger) = &self.durable.ledger else { return Vec::new() };
        let orders = ledger.state().orders.keys();
        let success = |key: &OrderKey| {
            let recurrence = &self.standing(key)?.recurrence;
            recurrence.terms.as_ref()?;
            Some((key.order.to_string(), recurrence.last_success?))
        };
        orders.filter_map(success).take(MAX_MEASURED).collect()
    }

    /// What is remembered of an order that counts on this host.
    fn standing(&self, key: &OrderKey) -> Option<&OrderState> {
        let state = self.durable.ledger.as_ref().ok()?.state();
        let effective = state.effective.get(&key.order) == Some(&key.source);
        state.orders.get(key).map(AsRef::as_ref).filter(|order| effective && order.gone.is_none())
    }

    /// The hosts and groups whose freeze keeps anything from starting here.
    pub(super) fn freezes(&self, now: Timestamp) -> impl Iterator<Item = &Source> {
        let freezes = self.sync.desired.freezes.iter();
        freezes.filter(move |(_, freeze)| is_in_force(freeze, now)).map(|(source, _)| source)
    }
}

/// Whether a freeze keeps anything from starting; one that cannot be read does.
pub(super) fn is_in_force(freeze: &Result<Freeze, String>, now: Timestamp) -> bool {
    !freeze.as_ref().is_ok_and(|freeze| freeze.is_over(now))
}
