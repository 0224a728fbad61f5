//! The decision: from what is seen and remembered to what is done next.
//!
//! [`decide`] is pure. It is asked again after everything that happens, and says the same as long as nothing has;
//! what it wants remembered is on the disk before it is asked again, so that nothing rests on a fact
//! that a crash could take back.
//!
//! ```text
//!  view.rs     what a decision rests on; decision.rs and wait.rs: what it says
//!  controls.rs what an operator wants of an order, against where it stands
//!  first.rs    orders of which nothing, or less than once, is remembered
//!  orders.rs   what is seen of a key against what is remembered of it: new, known, held, gone
//!  recurring.rs an order that comes again: fires, has drifted away, is missed or skipped
//!  starts.rs   an activation that waits: may it start now, and if not, why not and until when
//!  runs.rs     a run whose executor is not there: resumed, closed, or its leftovers ended first
//!  unready.rs  a run that has begun nothing: taken back as soon as it may not start any more
//! ```
//!
//! What several of them need stands in leaves that use none of them: capacity.rs, clock.rs, context.rs, copy.rs, record.rs
//! and spread.rs.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

mod capacity;
mod clock;
mod context;
mod controls;
mod copy;
mod decision;
mod first;
mod orders;
mod record;
mod recurring;
mod runs;
mod spread;
mod starts;
mod unready;
mod view;
mod wait;

use std::time::Duration;

pub use decision::{Action, Decision, ObservedState};
pub use starts::frozen;
pub use view::{
    CheckedOrder, Clock, Controls, ExecutorState, Freezes, GateAnswer, Leftovers, PreviousFormat,
    Requirements, RunView, SeenOrder, UnreadablePlan, Unready, View,
};
pub use wait::{Reason, Wait};

use super::ids::RunId;
use super::state::LedgerEntry;

/// With whatever is remembered the ledger is told what time it is, at most so often.
const CLOCK_TOLD: Duration = Duration::from_secs(60);

/// What is to be done now. `new_run` gives the id of a new run.
pub fn decide(view: &View<'_>, new_run: &mut dyn FnMut() -> RunId) -> Decision {
    let mut decision = Decision::default();
    let mut capacity = capacity::Capacity::of(view);
    runs::decide(view, &mut capacity, &mut decision);
    controls::decide(view, view.controls, new_run, &mut decision);
    if let Some(orders) = view.orders {
        orders::decide(view, orders, new_run, &mut decision);
    } else if view.unreachable {
        recurring::offline(view, new_run, &mut decision);
    }
    unready::close_returned(view, &mut decision);
    if decision.actions.iter().any(|action| matches!(action, Action::Record(_))) {
        // What is to be remembered changes what is asked below: the next decision, a moment later, rests on it.
        if view.clock == Clock::Synchronised
            && view.memory.newest.is_none_or(|at| crate::domain::instant::later(at, CLOCK_TOLD) <= view.now)
        {
            decision.record(LedgerEntry::Clock { at: view.now });
        }
        return decision;
    }
    starts::decide(view, &mut capacity, &mut decision);
    recurring::wake(view, &mut decision);
    decision
}

#[cfg(test)]
mod control_tests;
#[cfg(test)]
mod first_tests;
#[cfg(test)]
mod format_tests;
#[cfg(test)]
mod gate_tests;
#[cfg(test)]
mod runs_tests;
#[cfg(test)]
pub(crate) mod tests;
#[cfg(test)]
mod unready_tests;
