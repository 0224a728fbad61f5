//! The ledger's copy of an order, which counts while the store gives no answer.

use super::view::{SeenOrder, View};
use crate::domain::plan::Trigger;
use crate::domain::source::OrderKey;

/// The order of an activation while the store gives no answer: the ledger's copy, if it still counts.
pub(super) fn copy_of<'a>(view: &View<'a>, key: &OrderKey, trigger: &Trigger) -> Option<&'a SeenOrder> {
    let copy = view.memory.orders.get(key)?.recurrence.confirmed.as_ref()?;
    let fires = matches!(trigger, Trigger::Firing(_));
    view.confirmed.get(key).filter(|_| view.unreachable && fires && copy.counts(view.now))
}
