//! An order in its place, with what is remembered of it.

use super::record::RecordedOrder;
use super::view::{Requirements, View};
use crate::domain::order::Order;
use crate::domain::source::OrderKey;
use crate::domain::state::OrderState;

/// An order in its place, with what is remembered of it.
#[derive(Clone, Copy)]
pub(super) struct OrderContext<'a> {
    pub(super) view: &'a View<'a>,
    pub(super) key: &'a OrderKey,
    pub(super) index: u64,
    pub(super) order: &'a Order,
    pub(super) order_state: &'a OrderState,
}

impl<'a> OrderContext<'a> {
    pub(super) fn recorded(&self) -> RecordedOrder<'a> {
        RecordedOrder { view: self.view, key: self.key, order_state: self.order_state }
    }

    /// What its task makes of it; `None`: not asked yet.
    pub(super) fn finding(&self) -> Option<&Result<Requirements, String>> {
        let checked_orders = self
            .view
            .checked_orders
            .get(self.key)
            .filter(|checked_orders| checked_orders.index == self.index);
        checked_orders.map(|checked_orders| &checked_orders.finding)
    }
}
