//! Guards: what ends the state of a step when the step, the executor or the host cannot.
//!
//! A guard is armed before its step is intended, and stands until a step has ended with success: its own, or the later
//! one that `until` names. While it stands, three parties may find that it has to fire: the executor (the run leaves
//! what is guarded), the watcher (the executor is gone, or `within` is over) and the next epoch. Whoever fires holds
//! the lock of this arming, so only one does at a time, and the first success is written under that lock: nobody fires
//! again.
//!
//! | the guard is | what happens | then | who writes it |
//! | --- | --- | --- | --- |
//! | off, fired, disarmed | the run is at its step | armed; a watcher is started, then the step is intended | the executor: `armed`, `intended` |
//! | armed | no watcher can be started | the step is not: it fails as one that could not be started, and the guard fires | the executor: `intended` and `finished` in one record |
//! | armed | step `until` ends with success | disarmed: the watcher leaves | the executor, under the lock: `finished` of the step |
//! | armed | step `until` ends with success, but firing has begun | the step has ended too late: failed{guard} | the executor: `finished` with `guarded` |
//! | armed | a step fails, is cancelled, takes too long, says "not now" or wants a reboot | the guard fires, then the run goes where that leads | the executor: `intended`, `finished` of the guard |
//! | armed | `within` is over while a step runs | it fires; the step is ended as by its deadline: failed{guard} | the watcher: `firing`, `fired`; then the executor: `finished` with `guarded`, and of the guard |
//! | armed | `within` is over between two steps | it fires; failed{guard} | the watcher; then the executor: `lapsed`, and `finished` of the guard |
//! | armed | the executor is gone | it fires | the watcher: `firing`, `fired` |
//! | armed | the watcher is gone | the executor starts another; without one it ends the step, and fires | the executor |
//! | armed | executor and watcher are gone | the agent starts a watcher, whatever the next epoch waits for | that watcher: `firing`, `fired` |
//! | armed | begun | it is carried out before anything else, unless this arming has fired; then `check` is asked | the executor of the next epoch |
//! | armed | its command fails | again with back-off, for an hour; then failed | whoever fires: `attempt`, `given_up` |
//! | failed | | needs_operator, and nothing is undone: the state still lasts, and its locks are kept | the executor |
//! | failed | undo asked | armed, and so fired once more before the undo | |
//!
//! `firing`, `attempt`, `fired` and `given_up` stand in the log of the arming (`ledger::arming`), all others in the
//! journal, which the executor alone writes.
//!
//! A guard that has fired while its run goes on (because an executor was lost) has taken away what the steps up to
//! `until` count on. None of those is started any more: the run fails with failed{guard}. The guarded step itself may be
//! carried out again, as its effect says, and is armed anew.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::time::Duration;

use super::event::{ExitKind, Operation, StepResult};
use super::state::{
    Arming, Failure, FailureKind, GuardStatus, Outcome, Phase, Run, State, StepStatus, Suspension,
};
use crate::domain::plan::{Guard, Plan};

/// Whether a step has no guard, or an armed one.
pub(super) fn may_start(plan: &Plan, state: &State, step: usize) -> bool {
    plan.steps.get(step).is_none_or(|step| step.guard.is_none()) || is_armed(state, step)
}

/// Whether the guard of a step is armed.
pub(super) fn is_armed(state: &State, step: usize) -> bool {
    matches!(state.guards.get(step), Some(GuardStatus::Armed(_)))
}

impl State {
    /// The guards that are armed and not known to have fired, the newest step's first.
    pub fn armed(&self) -> impl Iterator<Item = (usize, Arming)> {
        self.guards.iter().enumerate().rev().filter_map(|(step, guard)| match guard {
            GuardStatus::Armed(arming) => Some((step, *arming)),
            _ => None,
        })
    }

    /// Whether a guard could not be brought to success.
    pub fn has_failed_guard(&self) -> bool {
        self.guards.iter().any(|guard| matches!(guard, GuardStatus::Failed(_)))
    }
}

impl Run<'_> {
    fn guard(&self, step: usize) -> Option<&Guard> {
        self.plan.steps.get(step)?.guard.as_ref()
    }

    /// A guard as reports name it.
    pub(super) fn guard_name(&self, step: usize) -> String {
        let name = self.guard(step).map_or("?", Guard::name);
        format!("guard {name} of step {}", self.name(step))
    }

    fn set(&self, state: &mut State, step: usize, guard: GuardStatus) {
        if let Some(slot) = state.guards.get_mut(step) {
            *slot = guard;
        }
    }

    pub(super) fn arm(&self, state: &mut State, step: usize, clock_ms: u64) {
        let arming = Arming { epoch: state.epoch, since: Duration::from_millis(clock_ms) };
        self.set(state, step, GuardStatus::Armed(arming));
    }

    /// A step has ended with success: the guards that stood until then need not fire.
    pub(super) fn disarm(&self, state: &mut State, ended: usize) {
        let until = |step: usize| self.guard(step).map(|guard| guard.until);
        let over: Vec<usize> =
            state.armed().map(|(step, _)| step).filter(|step| until(*step) == Some(ended)).collect();
        over.into_iter().for_each(|step| self.set(state, step, GuardStatus::Disarmed));
    }

    /// What has failed is tried once more before anything is taken back.
    pub(super) fn arm_again(&self, state: &mut State) {
        for guard in &mut state.guards {
            if let GuardStatus::Failed(arming) = *guard {
                *guard = GuardStatus::Armed(arming);
            }
        }
    }

    /// The `within` of a guard was over between two commands.
    pub(super) fn lapse(&self, state: &mut State, step: usize) {
        let within = self.guard(step).map(|guard| guard.within.to_string()).unwrap_or_default();
        let text = format!("{} has fired: its `within` of {within} was over", self.guard_name(step));
        self.fail(state, None, Failure { kind: FailureKind::Guard, text });
    }

    /// Leads to the armed guards first, where the run leaves what they guard, or takes up what an executor left.
    pub(super) fn fire_what_is_armed(&self, state: &mut State, begun: bool) {
        let newest = state.armed().next();
        let Some((step, _)) = newest else { return };
        let stays = match &state.phase {
            Phase::New | Phase::Running(_) | Phase::Next(Operation::Guard(_)) => true,
            // The watcher fires, and the next epoch sees to it.
            Phase::Suspended(Suspension::Stopped { .. }) => true,
            Phase::Next(Operation::Step(_)) => !begun,
            Phase::Next(_) | Phase::Suspended(_) | Phase::Ended(_) => false,
        };
        if !stays {
            let after = std::mem::replace(&mut state.phase, Phase::Next(Operation::Guard(step)));
            state.after_guards = Some(Box::new(after));
        }
    }

    pub(super) fn guard_finished(&self, state: &mut State, step: usize, ending: &StepResult) {
        let armed = state.armed().find(|(armed, _)| *armed == step).map(|(_, arming)| arming);
        if ending.exit == ExitKind::Code(0) {
            self.set(state, step, GuardStatus::Fired);
        } else {
            if let Some(arming) = armed {
                self.set(state, step, GuardStatus::Failed(arming));
            }
            let how = ending.message.clone();
            let how = how.unwrap_or_else(|| self.failed(Operation::Guard(step), ending).text);
            let text = format!("{} has not succeeded: {how}", self.guard_name(step));
            state.guard_failure =
                state.guard_failure.take().or(Some(Failure { kind: FailureKind::Guard, text }));
        }
        let earlier = state.armed().next();
        if let Some((earlier, _)) = earlier {
            state.phase = Phase::Next(Operation::Guard(earlier));
            return;
        }
        let after = state.after_guards.take().map_or(Phase::New, |after| *after);
        match (state.guard_failure.take(), after) {
            (Some(guard), after) => {
                // Nothing is undone beside a state that nobody could end.
                let first = match &after {
                    Phase::Ended(outcome) => outcome.failure(),
                    _ => state.failure.as_ref(),
                };
                let text = match first {
                    Some(first) => format!("{}; before that, {}", guard.text, first.text),
                    None => guard.text,
                };
                state.phase = Phase::Ended(Outcome::NeedsOperator(Failure { text, ..guard }));
            }
            (None, Phase::Next(Operation::Step(next))) => self.at_step(state, next),
            (
                None,
                Phase::Suspended(
                    Suspension::Paused { step: next, .. } | Suspension::Rebooting { step: next, .. },
                ),
            ) if self.lost_guard(state, next).is_some() => self.at_step(state, next),
            (None, after) => state.phase = after,
        }
    }

    /// Goes to a step, unless a guard has taken away what it counts on.
    pub(super) fn at_step(&self, state: &mut State, step: usize) {
        match self.lost_guard(state, step) {
            None => state.phase = self.step(step),
            Some(lost) => {
                let text = format!(
                    "{} has fired, and step {} counts on the state that it ended",
                    self.guard_name(lost),
                    self.name(step)
                );
                self.fail(state, Some(step), Failure { kind: FailureKind::Guard, text });
            }
        }
    }

    /// A guard of an earlier step that has fired, although the state was to last until this step or longer.
    fn lost_guard(&self, state: &State, step: usize) -> Option<usize> {
        let fired = |earlier: &usize| matches!(state.guards.get(*earlier), Some(GuardStatus::Fired));
        let done = |earlier: &usize| matches!(state.marks.get(*earlier), Some(StepStatus::Done));
        let covers = |earlier: &usize| self.guard(*earlier).is_some_and(|guard| step <= guard.until);
        (0..step).filter(fired).filter(done).find(covers)
    }
}

#[cfg(test)]
#[path = "guards_tests.rs"]
mod tests;
