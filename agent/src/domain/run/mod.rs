//! A run: what can happen to it, where it stands, and the one table that leads from one to the other.
//!
//! ```text
//!  journal:  Begun  Intended(probe)  Finished(probe, 1)  Intended(step 0)  …
//!               \________________ apply ________________/
//!                                   |
//!                                 State  --next-->  what the executor does now
//! ```
//!
//! The executor and the replay of a journal use the same [`apply`]; so a journal cannot mean one thing to the
//! process that writes it and another to the one that reads it after a crash.

mod event;
mod guards;
mod state;
mod transition;

pub use event::{Event, ExitKind, Operation, Record, StepResult};
pub use state::{
    Arming, Failure, FailureKind, GuardStatus, Outcome, Phase, State, StepRecord, StepStatus, Suspension,
};
#[cfg(test)]
pub(crate) use transition::tests::plan as plan_of;
pub use transition::{Illegal, Next, apply, next, replay};
