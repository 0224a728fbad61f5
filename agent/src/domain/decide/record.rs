//! What is remembered of an order that does not go on as it is.

use super::decision::Decision;
use super::view::View;
use crate::domain::ids::InstructionHash;
use crate::domain::source::OrderKey;
use crate::domain::state::{
    Activation, Closing, End, Held, Hold, LedgerEntry, OrderState, Stage, Unreadable,
};

/// That it is held.
pub(super) fn hold(
    view: &View<'_>,
    key: &OrderKey,
    why: Hold,
    identity: InstructionHash,
    index: u64,
) -> LedgerEntry {
    LedgerEntry::Held { key: key.clone(), held: Held { why, identity, index, at: view.now } }
}

/// What the ledger has of an order, whether its key can be read or not.
#[derive(Clone, Copy)]
pub(super) struct RecordedOrder<'a> {
    pub(super) view: &'a View<'a>,
    pub(super) key: &'a OrderKey,
    pub(super) order_state: &'a OrderState,
}

impl RecordedOrder<'_> {
    /// Closes the activation that waits, if there is one.
    pub(super) fn close_waiting(&self, end: End, why: &str, decision: &mut Decision) {
        let open = |activation: &&Activation| {
            // One that is being started is asked once more by the last look, which sees the change.
            activation.stage == Stage::Open && !self.view.starting.contains_key(&activation.run)
        };
        if let Some(activation) = self.order_state.current.as_ref().filter(open) {
            let closing = Closing { end, error: Some(why.to_owned()), at: self.view.now, run: None };
            decision.record(LedgerEntry::Closed { key: self.key.clone(), run: activation.run, closing });
        }
    }

    /// Records that the document of this index is refused, unless the ledger has that already.
    pub(super) fn refuse_document(&self, index: u64, message: &str, decision: &mut Decision) {
        let refused = self.order_state.unreadable.as_ref();
        if self.order_state.gone.is_none() && refused.is_some_and(|known| known.index == index) {
            return;
        }
        self.close_waiting(End::Superseded, "an order that is refused took its place", decision);
        let unreadable = Unreadable { message: message.to_owned(), identity: None, index, at: self.view.now };
        decision.record(LedgerEntry::Unreadable { key: self.key.clone(), unreadable });
    }

    /// Disarms the schedule of an order that is not the one that counts.
    pub(super) fn disarm(&self, decision: &mut Decision) {
        if self.order_state.recurrence.terms.is_some() {
            decision.record(LedgerEntry::ScheduleDisarmed { key: self.key.clone() });
        }
    }
}
