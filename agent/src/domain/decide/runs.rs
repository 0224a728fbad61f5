//! A run whose executor is not there: closed, resumed in its next epoch, or its leftovers ended first.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::time::Duration;

use jiff::Timestamp;

use super::capacity::Capacity;
use super::decision::{Action, Decision};
use super::starts::{StartBlock, can_resume, has_secrets, known_host, starting};
use super::unready::is_to_be_taken_back;
use super::view::{ExecutorState, Leftovers, RunView, View};
use super::wait::{Reason, Wait};
use crate::domain::instant::later;
use crate::domain::run::{Phase, State, Suspension};
use crate::domain::source::OrderKey;
use crate::domain::state::{Activation, Closing, End, LedgerEntry, RunRequest, end_of};
use crate::domain::summary::Summary;

/// A launched executor has its claim within this; otherwise the same epoch is launched again, which is safe,
/// because only one can get the claim.
const CLAIMS_WITHIN: Duration = Duration::from_secs(30);
/// A host that is stopping is down by then; otherwise only the run was stopped, and it goes on.
const STOPPED_WITHIN: Duration = Duration::from_secs(60);
/// A reboot that has not come by then does not come.
const REBOOT_WITHIN: Duration = Duration::from_secs(15 * 60);
/// So often in a row an executor may be lost in the middle of a command before the next epoch has to wait.
const LOST_AT_ONCE: u32 = 3;
/// The pause after the first executor that was lost before it did anything; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// So often in a row an executor may be lost, launched in vain or looked for in vain before an operator has to look.
const MAX_LOSSES: u32 = 10;
/// The longest pause between two epochs of a run that loses its executors.
const MAX_BACKOFF: Duration = Duration::from_secs(600);

/// `first` for one time, twice as long for each further one, up to the longest pause.
fn doubled(first: Duration, times: u32) -> Duration {
    first.saturating_mul(1_u32.checked_shl(times.saturating_sub(1)).unwrap_or(u32::MAX)).min(MAX_BACKOFF)
}

pub(super) fn decide(view: &View<'_>, capacity: &mut Capacity, decision: &mut Decision) {
    for (key, activation) in view.memory.prepared() {
        if view.starting.contains_key(&activation.run) {
            decision.wait(key, starting(view, key));
            continue;
        }
        let Some(run) = view.runs.get(&activation.run) else {
            // Nothing follows from a plan that cannot be read; whoever can read it goes on with it.
            if let Some(unread) = view.unread.get(&activation.run) {
                let detail = Some(unread.why.clone());
                decision.wait(key, Wait { detail, ..Wait::new(Reason::RollbackWindow, None) });
            }
            continue;
        };
        Run { view, key, activation, run }.decide(capacity, decision);
    }
}

struct Run<'a> {
    view: &'a View<'a>,
    key: &'a OrderKey,
    activation: &'a Activation,
    run: &'a RunView,
}

impl Run<'_> {
    fn decide(&self, capacity: &mut Capacity, decision: &mut Decision) {
        let state = match &self.run.state {
            Ok(state) => state,
            // Whatever happened in it, nobody can tell.
            Err(why) if self.run.executor != ExecutorState::Alive => {
                return self.close(decision, End::NeedsOperator, Some(why.clone()));
            }
            Err(_) => return,
        };
        if let Some(request) =
            self.activation.request.as_deref().filter(|request| self.run.delivered.as_ref() != Some(request))
        {
            let (run, request) = (self.activation.run, request.clone());
            decision.actions.push(Action::SendRequest { run, request });
        }
        if let Phase::Ended(outcome) = &state.phase
            && !self.is_to_go_on(state)
        {
            let (end, error) = end_of(outcome);
            return self.close(decision, end, error);
        }
        if let Err(StartBlock::Wait(wait)) = known_host(self.view) {
            // What lives here lives; nothing is launched that another host may be doing.
            return if self.run.executor == ExecutorState::Alive {
            } else {
                decision.wait(self.key, wait)
            };
        }
        match self.run.executor {
            ExecutorState::Alive => {}
            ExecutorState::Unclaimed { epoch } => self.unclaimed(state, epoch, decision),
            ExecutorState::Lost { epoch } => self.resume(state, epoch.saturating_add(1), capacity, decision),
        }
    }

    /// Whether it has ended, and an operator wants it taken back or gone on with all the same.
    fn is_to_go_on(&self, state: &State) -> bool {
        self.activation.request.as_deref().and_then(RunRequest::before) == Some(state.undos)
    }

    fn resume(&self, state: &State, epoch: u32, capacity: &mut Capacity, decision: &mut Decision) {
        let cancelled = matches!(self.activation.request.as_deref(), Some(RunRequest::Cancel { .. }));
        if matches!(state.phase, Phase::Suspended(_) | Phase::Ended(_))
            && !self.is_paced(state, epoch, decision)
        {
            return;
        }
        match &state.phase {
            // Whoever wants it to end does not want to wait until it would go on.
            Phase::Suspended(Suspension::Retry { .. } | Suspension::Paused { .. }) if cancelled => {
                self.launch(state, epoch, decision);
            }
            Phase::Suspended(Suspension::Retry { until }) => {
                if *until > self.view.now {
                    return decision.wait(self.key, Wait::new(Reason::Retry, Some(*until)));
                }
                match can_resume(self.view, self.key, self.run, capacity) {
                    Ok(()) => self.launch(state, epoch, decision),
                    Err(StartBlock::Wait(wait)) => decision.wait(self.key, wait),
                    Err(StartBlock::NeedsCheck) => {}
                    Err(StartBlock::Never(end, error)) => self.close(decision, end, Some(error)),
                }
            }
            Phase::Suspended(Suspension::Paused { until, .. }) => {
                if *until > self.view.now {
                    decision.wake_at(*until);
                } else if capacity.reserve_slot(self.run.plan.emergency).is_ok() {
                    self.launch(state, epoch, decision);
                }
            }
            // It can still be cancelled: then no host is rebooted for it.
            Phase::Suspended(Suspension::Rebooting { .. }) if cancelled && !state.cancel_is_known() => {
                self.launch(state, epoch, decision);
            }
            Phase::Suspended(Suspension::Rebooting { boot, since, .. }) => {
                let waited_enough = self.wait_from(*since, REBOOT_WITHIN, decision);
                if boot != self.view.boot || waited_enough {
                    self.launch(state, epoch, decision);
                } else if !capacity.others_execute() {
                    decision.actions.push(Action::Reboot { run: self.activation.run });
                }
            }
            Phase::Suspended(Suspension::Stopped { .. }) => self.after_a_stop(state, epoch, decision),
            Phase::Next(_) if state.stopping => self.after_a_stop(state, epoch, decision),
            Phase::New | Phase::Next(_) | Phase::Running(_) => self.after_a_loss(state, epoch, decision),
            // Only one of which an operator wants more comes here: nothing of it lives, or it would not have ended.
            Phase::Ended(_) => self.launch(state, epoch, decision),
        }
    }

    fn after_a_stop(&self, state: &State, epoch: u32, decision: &mut Decision) {
        let stopped = state.updated.unwrap_or(self.view.now);
        if state.boot != self.view.boot || self.wait_from(stopped, STOPPED_WITHIN, decision) {
            self.after_a_loss(state, epoch, decision);
        }
    }

    /// A lost executor is not a lost step: nothing goes on while a process of it lives, or may live.
    fn after_a_loss(&self, state: &State, epoch: u32, decision: &mut Decision) {
        let run = self.activation.run;
        match &self.run.leftovers {
            None => decision.actions.push(Action::KillLeftovers { run }),
            Some(Leftovers::Counted(0)) => self.again(state, epoch, decision),
            Some(Leftovers::Counted(n)) => {
                let why = format!("{n} processes of a lost executor could not be ended");
                self.close(decision, End::NeedsOperator, Some(why));
            }
            Some(Leftovers::Unknown { why, times, .. }) if *times >= MAX_LOSSES => {
                let why = format!(
                    "cannot tell whether processes of a lost executor are alive, after {times} attempts: {why}"
                );
                self.close(decision, End::NeedsOperator, Some(why));
            }
            Some(Leftovers::Unknown { why, at, times }) => {
                let until = later(*at, doubled(FIRST_PAUSE, *times));
                if self.wait_from(*at, doubled(FIRST_PAUSE, *times), decision) {
                    decision.actions.push(Action::KillLeftovers { run });
                }
                let why = format!("cannot tell whether processes of its lost executor are alive: {why}");
                self.wait_lost(until, why, decision);
            }
        }
    }

    /// Nobody has the epoch. As long as nothing of the run has happened it is taken back when it may not start now.
    fn unclaimed(&self, state: &State, epoch: u32, decision: &mut Decision) {
        let (key, run) = (self.key.clone(), self.activation.run);
        if state.phase == Phase::New
            && is_to_be_taken_back(self.view, self.key, self.activation, self.run, decision)
        {
            return decision.actions.push(Action::Revoke { key, run, epoch });
        }
        if self.view.unready.contains_key(self.key) {
            decision.wait(self.key, starting(self.view, self.key));
        }
        self.launch_unless_just_launched(state, epoch, decision);
    }

    /// The next epoch after a lost one of which nothing lives.
    fn again(&self, state: &State, epoch: u32, decision: &mut Decision) {
        // The newest was never begun, and no executor can begin it any more: it was launched in vain.
        if self.run.launches >= MAX_LOSSES
            && state.epoch.saturating_add(1) < epoch
            && self.run.plan.secrets.is_empty()
        {
            let why = format!("its executor was launched {} times, and never began", self.run.launches);
            return self.close(decision, End::NeedsOperator, Some(why));
        }
        if !self.is_paced(state, epoch, decision) {
            return;
        }
        let again = state.interruptions.saturating_sub(LOST_AT_ONCE);
        let pause = if again == 0 {
            Duration::ZERO
        } else {
            doubled(Duration::from_secs(30), again.saturating_add(1))
        };
        let since = state.updated.unwrap_or(self.view.now);
        if self.wait_from(since, pause, decision) {
            return self.launch(state, epoch, decision);
        }
        let why = format!("its executor was lost {} times in the middle of a command", state.interruptions);
        self.wait_lost(later(since, pause), why, decision);
    }

    /// Whether the next epoch may begin for all that is known of executors that were lost before they did anything:
    /// after growing pauses, and after too many of them not without an operator.
    fn is_paced(&self, state: &State, epoch: u32, decision: &mut Decision) -> bool {
        let idle = epoch.saturating_sub(1).saturating_sub(state.acted);
        if idle == 0 {
            return true;
        }
        let why = format!("its executor ended {idle} times in a row before it did anything");
        if idle >= MAX_LOSSES {
            self.close(decision, End::NeedsOperator, Some(why));
            return false;
        }
        // The journal does not know of one that was lost before its first record: this agent's launch does.
        // Without either an earlier agent launched it, and how long ago that was is not known: long enough.
        let Some(since) = state.updated.max(self.run.launched) else { return true };
        let pause = doubled(FIRST_PAUSE, idle);
        let paced = self.wait_from(since, pause, decision);
        if !paced {
            self.wait_lost(later(since, pause), why, decision);
        }
        paced
    }

    fn wait_lost(&self, until: Timestamp, detail: String, decision: &mut Decision) {
        decision.wait(self.key, Wait { detail: Some(detail), ..Wait::new(Reason::Lost, Some(until)) });
    }

    fn launch_unless_just_launched(&self, state: &State, epoch: u32, decision: &mut Decision) {
        let Some(launched) = self.run.launched else { return self.launch(state, epoch, decision) };
        let pause = doubled(CLAIMS_WITHIN, self.run.launches);
        if !self.wait_from(launched, pause, decision) {
            if self.run.launches > 1 {
                let why = format!("its executor was launched {} times in vain", self.run.launches);
                self.wait_lost(later(launched, pause), why, decision);
            }
            return;
        }
        // Without its secrets an executor leaves the epoch alone, and Vault may be away for a day.
        if self.run.launches >= MAX_LOSSES && self.run.plan.secrets.is_empty() {
            let (key, run) = (self.key.clone(), self.activation.run);
            return decision.actions.push(Action::Fence { key, run, epoch });
        }
        self.launch(state, epoch, decision);
    }

    fn launch(&self, state: &State, epoch: u32, decision: &mut Decision) {
        let starts = matches!(state.phase, Phase::New | Phase::Suspended(Suspension::Retry { .. }));
        let look = starts && self.activation.request.is_none();
        if look && self.view.orders.is_none() {
            // Not in sight is not gone: nothing has happened of it, and it can wait.
            return decision.wait(self.key, Wait::new(Reason::Store, None));
        }
        // Each epoch needs a token of its own.
        if let Err(StartBlock::Wait(wait)) =
            has_secrets(self.view, self.key, !self.run.plan.secrets.is_empty())
        {
            return decision.wait(self.key, wait);
        }
        let (key, run) = (self.key.clone(), self.activation.run);
        decision.actions.push(Action::Launch { key, run, epoch, look });
    }

    /// Whether so much time has passed since; asks to be woken when it will have.
    fn wait_from(&self, since: Timestamp, span: Duration, decision: &mut Decision) -> bool {
        let until = later(since, span);
        // A clock that was set back must not make a wait last longer than the span.
        let due = until <= self.view.now || since > later(self.view.now, span);
        if !due {
            decision.wake_at(until);
        }
        due
    }

    fn close(&self, decision: &mut Decision, end: End, error: Option<String>) {
        let state = self.run.state.as_ref().ok();
        let tail = if end.is_good() { None } else { self.run.tail.clone() };
        let summary = state.map(|state| Summary { tail, ..Summary::of(&self.run.plan, state) });
        let closing = Closing { end, error, at: self.view.now, run: summary.map(Box::new) };
        decision.record(LedgerEntry::Closed { key: self.key.clone(), run: self.activation.run, closing });
    }
}
