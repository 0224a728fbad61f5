//! What is remembered of an order that does not go on as it is.

use super::decision::Decision;
use super::view::View;
use crate::domain::ids::InstructionHash;
use crate::domain::source::OrderKey;
use crate::domain::state::{Activation, Closing, End, Fact, Held, Hold, OrderState, Stage};

/// That it is held.
pub(super) fn hold(
    view: &View<'_>,
    key: &OrderKey,
    why: Hold,
    identity: InstructionHash,
    index: u64,
) -> Fact {
    Fact::Held { key: key.clone(), held: Held { why, identity, index, at: view.now } }
}

/// Closes the activation that waits, if there is one.
pub(super) fn close_waiting(
    view: &View<'_>,
    key: &OrderKey,
    order_state: &OrderState,
    end: End,
    why: &str,
    decision: &mut Decision,
) {
    let open = |activation: &&Activation| {
        // One that is being started is asked once more by the last look, which sees the change.
        activation.stage == Stage::Open && !view.starting.contains_key(&activation.run)
    };
    if let Some(activation) = order_state.current.as_ref().filter(open) {
        let closing = Closing { end, error: Some(why.to_owned()), at: view.now, run: None };
        decision.remember(Fact::Closed { key: key.clone(), run: activation.run, closing });
    }
}
