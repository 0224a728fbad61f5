//! The transitions of a run: one table, used by the executor and by the replay of a journal.
//!
//! | where | what happens | then |
//! | --- | --- | --- |
//! | new | begun | the probe, or the first step |
//! | at *a* | intended *a* | doing *a* |
//! | at *a* | begun | at *a*: nothing had happened |
//! | doing the probe | exit 0 / 1 / else | unchanged / first step / failed{probe} |
//! | doing step *i* | exit 0 | the next step, or the checks after the last |
//! | doing step *i* | 75 with `retry` | rests: everything again (first step), or paused |
//! | at step *i* with a guard | armed | the same; without it the step is not intended (see `guards.rs`) |
//! | doing step *i* | 194 with `max_reboots` | rests: rebooting |
//! | doing step *i* | anything else | failed: its own undo, then those of the steps before |
//! | doing step *i* | begun, or interrupted and begun | `done` is asked; without one: repeatable again, undoable undone, else needs_operator |
//! | doing done *i* | 0 / 1 / else | next step / again (repeatable, resumable), undone or needs_operator by effect / needs_operator |
//! | a guard is armed, and the run leaves what it guards | | the guard first, then there (see `guards.rs`) |
//! | doing undo *i* | 0 / else / begun | the undo before it, or the end / undo_failed / again |
//! | doing a check | 0 / else | the next check, or succeeded / failed{verify} |
//! | doing anything | ended, but for leftovers | needs_operator: nothing may run beside them |
//! | doing anything | ended, and nobody knows how | needs_operator |
//! | rests: rebooting | cancel asked, then begun | undone from here; no reboot is missed |
//! | at or doing | cancel asked | undone from here; refused once a final step has started |
//! | needs_operator, undo_failed | begun | the same: only what is asked next counts |
//! | anything but new | downtime | the same: it is added up |
//! | needs_operator of a step | step acknowledged | the next step, or the checks after the last |
//! | needs_operator, undo_failed | undo asked | the undo of the newest step that has one; never once a final step has started |
//!
//! A pair that is not in the table is an error, never a guess.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::time::Duration;

use super::event::{Event, ExitKind, Operation, Record, StepResult};
use super::guards;
use super::state::{Failure, FailureKind, Outcome, Phase, Run, State, StepStatus, Suspension};
use crate::domain::instant::later;
use crate::domain::plan::{Command, Plan, Step};
use crate::domain::task::Effect;
use crate::domain::yaml::single_line;

/// "Not now": where the task declares `retry` (`EX_TEMPFAIL` of sysexits).
const NOT_NOW: i32 = 75;
/// "Reboot, then this step again": where the task declares `max_reboots` (as systemd and Ansible collections use it).
const REBOOT: i32 = 194;

/// A record that does not follow from what stands before it: the journal was written by something else.
#[derive(Debug, thiserror::Error)]
#[error("record {} cannot follow {}", single_line(&format!("{event:?}")), single_line(&format!("{phase:?}")))]
pub struct Illegal {
    /// Where the run stood.
    pub phase: Box<Phase>,
    /// What should have happened there.
    pub event: Box<Event>,
}

/// What the executor does now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Intends and starts this command.
    Do(Operation),
    /// Arms the guard of this step, which is intended afterwards.
    Arm(usize),
    /// Records that the run's time is up.
    Expire,
    /// Ends; a later epoch goes on.
    Suspension,
    /// Ends; the run is over.
    End,
}

/// What the executor of this run does now.
pub fn next(plan: &Plan, state: &State) -> Next {
    match &state.phase {
        Phase::Next(act) => {
            let undoing = matches!(act, Operation::Undo(_) | Operation::Guard(_));
            let expired = state.spent >= plan.timeout.0 && !state.final_started;
            match *act {
                _ if expired && !undoing => Next::Expire,
                Operation::Step(i) if !guards::may_start(plan, state, i) => Next::Arm(i),
                act => Next::Do(act),
            }
        }
        Phase::Ended(_) => Next::End,
        Phase::New | Phase::Running(_) | Phase::Suspended(_) => Next::Suspension,
    }
}

/// The state that a journal leads to.
pub fn replay<'a>(plan: &Plan, records: impl IntoIterator<Item = &'a Record>) -> Result<State, Illegal> {
    let mut state = State::new(plan.steps.len());
    for record in records {
        apply(plan, &mut state, record)?;
    }
    Ok(state)
}

/// Takes one record in. On an error the state is as it was.
pub fn apply(plan: &Plan, state: &mut State, record: &Record) -> Result<(), Illegal> {
    let run = Run { plan, at: record.at };
    if let Event::Downtime { downtime } = &record.event {
        if state.epoch == 0 {
            return Err(illegal(state, record));
        }
        // Nothing else follows from it.
        state.take_downtime(downtime, record.at);
        return Ok(());
    }
    match (&state.phase, &record.event) {
        (Phase::Ended(outcome), Event::UndoAsked { by, reason }) if !state.final_started => {
            let Some(failure) = outcome.unsettled().cloned() else { return Err(illegal(state, record)) };
            run.undo(state, failure, by, reason);
        }
        (Phase::Ended(_), Event::StepAcknowledged { .. }) => {
            let Some(step) = state.untold_step() else { return Err(illegal(state, record)) };
            state.undos = state.undos.saturating_add(1);
            run.step_done(state, step);
        }
        (Phase::Ended(outcome), Event::Begun { epoch, boot })
            if *epoch > state.epoch && outcome.unsettled().is_some() =>
        {
            run.begin(state, *epoch, boot);
        }
        (Phase::Ended(_), _) => return Err(illegal(state, record)),
        (_, Event::Begun { epoch, boot }) if *epoch > state.epoch => run.begin(state, *epoch, boot),
        (Phase::Next(at), Event::Armed { step, clock_ms })
            if *at == Operation::Step(*step) && !guards::may_start(plan, state, *step) =>
        {
            run.arm(state, *step, *clock_ms);
        }
        (Phase::Next(Operation::Step(_)), Event::Lapsed { step }) if guards::is_armed(state, *step) => {
            run.lapse(state, *step);
        }
        (Phase::Next(at), Event::Intended { act })
            if at == act && !matches!(at, Operation::Step(i) if !guards::may_start(plan, state, *i)) =>
        {
            run.intend(state, *act);
        }
        (Phase::Running(doing), Event::Finished { act, ending }) if doing == act => {
            run.finish(state, *act, ending);
        }
        (Phase::Running(doing), Event::Interrupted { act, spent_ms }) if doing == act => {
            if counts(*act) {
                state.spent = state.spent.saturating_add(Duration::from_millis(*spent_ms));
            }
            state.phase = Phase::Suspended(Suspension::Stopped { act: *act });
        }
        // It is taken in before the next epoch begins, which then does not miss a reboot that nobody waits for.
        (Phase::Suspended(Suspension::Rebooting { .. }), Event::CancelAsked { by, reason }) => {
            run.cancel(state, by, reason);
        }
        (Phase::Next(_) | Phase::Running(_), Event::Stopping) => state.stopping = true,
        // A guard comes to its end first.
        (Phase::Next(act) | Phase::Running(act), Event::CancelAsked { by, reason })
            if !matches!(act, Operation::Guard(_)) =>
        {
            run.cancel(state, by, reason);
        }
        (Phase::Next(act), Event::Expired) if counts(*act) => {
            let text = format!("the run's time of {} was up", plan.timeout);
            run.fail(state, None, Failure { kind: FailureKind::Timeout, text });
        }
        _ => return Err(illegal(state, record)),
    }
    let begun = matches!(record.event, Event::Begun { .. });
    if !begun {
        state.acted = state.epoch;
    }
    run.fire_what_is_armed(state, begun);
    state.updated = Some(record.at);
    // Of what is under way, or was cut, there is no status yet. While a run is undone, that of the failure is kept.
    let (Phase::Next(act) | Phase::Running(act) | Phase::Suspended(Suspension::Stopped { act })) =
        &state.phase
    else {
        return Ok(());
    };
    if counts(*act) {
        state.exit_code = None;
    }
    Ok(())
}

/// Whether a command belongs to what the run is there for: its time counts, and its status is told. Undos and guards
/// have their own time.
fn counts(act: Operation) -> bool {
    !matches!(act, Operation::Undo(_) | Operation::Guard(_))
}

fn illegal(state: &State, record: &Record) -> Illegal {
    Illegal { phase: Box::new(state.phase.clone()), event: Box::new(record.event.clone()) }
}

impl Run<'_> {
    fn begin(&self, state: &mut State, epoch: u32, boot: &str) {
        if matches!(state.phase, Phase::Running(_)) {
            state.interruptions = state.interruptions.saturating_add(1);
        }
        state.epoch = epoch;
        state.boot = boot.to_owned();
        state.stopping = false;
        state.started = state.started.or(Some(self.at));
        match state.phase.clone() {
            Phase::New | Phase::Suspended(Suspension::Retry { .. }) => state.phase = self.start(),
            Phase::Running(act) | Phase::Suspended(Suspension::Stopped { act }) => {
                self.resolve_interrupted(state, act)
            }
            Phase::Suspended(Suspension::Paused { step, .. }) => self.at_step(state, step),
            Phase::Suspended(Suspension::Rebooting { .. })
                if state.cancel.is_some() && !state.final_started =>
            {
                let failure = state.cancel.clone();
                failure.into_iter().for_each(|failure| self.fail(state, None, failure));
            }
            Phase::Suspended(Suspension::Rebooting { step, boot: from, .. }) if from == boot => {
                let text = format!("step {} wanted a reboot, and none came", self.name(step));
                self.fail(state, Some(step), Failure { kind: FailureKind::NoReboot, text });
            }
            Phase::Suspended(Suspension::Rebooting { step, .. }) => self.at_step(state, step),
            Phase::Next(_) | Phase::Ended(_) => {}
        }
    }

    /// The first thing that a run does.
    fn start(&self) -> Phase {
        match (&self.plan.probe, self.plan.dry_run) {
            (Some(_), _) => Phase::Next(Operation::Probe),
            (None, true) => Phase::Ended(Outcome::Planned),
            (None, false) => self.step(0),
        }
    }

    pub(super) fn step(&self, i: usize) -> Phase {
        if i < self.plan.steps.len() {
            Phase::Next(Operation::Step(i))
        } else if self.plan.probe.is_some() {
            Phase::Next(Operation::Reprobe)
        } else {
            self.verification()
        }
    }

    fn verification(&self) -> Phase {
        match self.plan.verify {
            Some(_) => Phase::Next(Operation::Verify),
            None => Phase::Ended(Outcome::Succeeded),
        }
    }

    fn intend(&self, state: &mut State, act: Operation) {
        if let Operation::Step(i) = act {
            self.mark(state, i, StepStatus::Started);
            if let Some(record) = state.records.get_mut(i) {
                record.started = record.started.or(Some(self.at));
                record.exit = None;
            }
            state.final_started = self.final_started(state);
        }
        state.phase = Phase::Running(act);
    }

    /// An interrupted command: what is known of it, and what may be done.
    fn resolve_interrupted(&self, state: &mut State, act: Operation) {
        match act {
            Operation::Step(i) if self.plan.steps.get(i).is_some_and(|step| step.check.is_some()) => {
                state.phase = Phase::Next(Operation::Done(i));
            }
            Operation::Step(i) if self.effect(i) == Effect::Repeatable => state.phase = Phase::Next(act),
            Operation::Step(i) => {
                let text =
                    format!("step {} was interrupted, and it is unknown whether it is done", self.name(i));
                self.not_done(state, i, text);
            }
            // Reading and undoing may be repeated.
            Operation::Probe
            | Operation::Done(_)
            | Operation::Undo(_)
            | Operation::Guard(_)
            | Operation::Reprobe
            | Operation::Verify => {
                state.phase = Phase::Next(act);
            }
        }
    }

    /// An interrupted step that is not done, or not known to be: never repeated on a guess.
    fn not_done(&self, state: &mut State, i: usize, text: String) {
        let failure = Failure { kind: FailureKind::Step, text };
        if self.effect(i) == Effect::Undoable && !state.final_started {
            self.fail(state, Some(i), failure);
        } else {
            state.phase = Phase::Ended(Outcome::NeedsOperator(failure));
        }
    }

    fn finish(&self, state: &mut State, act: Operation, ending: &StepResult) {
        if counts(act) {
            state.spent = state.spent.saturating_add(Duration::from_millis(ending.spent_ms));
        }
        if let Operation::Step(i) = act
            && let Some(record) = state.records.get_mut(i)
        {
            record.spent = record.spent.saturating_add(Duration::from_millis(ending.spent_ms));
            record.exit = Some(ending.exit.clone());
        }
        state.interruptions = 0;
        state.outputs.extend(ending.outputs.clone());
        // What a question says is the run's message only where it is the answer: `not done` is none.
        if !act.reads_only() || ending.exit == ExitKind::Code(0) {
            state.message = ending.message.clone().or(state.message.take());
        }
        state.killed_processes.extend(ending.killed_processes.iter().cloned());
        state.warnings.extend(ending.warnings.iter().cloned());
        if let (Operation::Step(_) | Operation::Reprobe | Operation::Verify, ExitKind::Code(code)) =
            (act, &ending.exit)
        {
            state.exit_code = Some(*code);
        }
        let code = if let ExitKind::Code(code) = ending.exit { Some(code) } else { None };
        let ending = ending.clone();
        match act {
            Operation::Guard(i) => self.guard_finished(state, i, &ending),
            _ if matches!(ending.exit, ExitKind::Survived(_) | ExitKind::Unknown(_)) => {
                // Nothing may run beside a survivor, not even an undo; nor after what is not known.
                state.phase = Phase::Ended(Outcome::NeedsOperator(self.failed(act, &ending)));
            }
            Operation::Undo(i) => self.undone(state, i, &ending),
            _ if state.cancel.is_some() && !state.final_started => {
                if let (Operation::Step(i), Some(0)) = (act, code) {
                    self.mark(state, i, StepStatus::Done);
                    self.disarm(state, i);
                }
                let failure = state.cancel.clone().unwrap_or_else(|| self.failed(act, &ending));
                self.fail(state, None, failure);
            }
            Operation::Probe => match code {
                Some(0) => state.phase = Phase::Ended(Outcome::Unchanged),
                Some(1) if self.plan.dry_run => state.phase = Phase::Ended(Outcome::Planned),
                Some(1) => state.phase = self.step(0),
                _ => state.phase = Phase::Ended(Outcome::Failed(self.failed(act, &ending))),
            },
            Operation::Step(i) => self.step_finished(state, i, code, &ending),
            Operation::Done(i) => match code {
                Some(0) => self.step_done(state, i),
                Some(1) if self.effect(i) == Effect::Repeatable || self.is_resumable(i) => {
                    self.at_step(state, i);
                }
                Some(1) => {
                    let text = format!("step {} was interrupted and is not done", self.name(i));
                    self.not_done(state, i, text);
                }
                _ => state.phase = Phase::Ended(Outcome::NeedsOperator(self.failed(act, &ending))),
            },
            Operation::Reprobe | Operation::Verify if code == Some(0) => {
                let verification = self.verification();
                state.phase =
                    if act == Operation::Reprobe { verification } else { Phase::Ended(Outcome::Succeeded) };
            }
            Operation::Reprobe | Operation::Verify => self.fail(state, None, self.failed(act, &ending)),
        }
    }

    fn step_finished(&self, state: &mut State, i: usize, code: Option<i32>, ending: &StepResult) {
        match (code, &self.plan.retry) {
            (Some(0), _) => self.step_done(state, i),
            (Some(NOT_NOW), Some(retry)) if state.retries < retry.max => {
                // The step's own word that nothing was done which a repetition would do twice.
                self.mark(state, i, StepStatus::Untouched);
                state.final_started = self.final_started(state);
                state.retries = state.retries.saturating_add(1);
                let until = later(self.at, retry.delay(state.retries));
                let rest =
                    if i == 0 { Suspension::Retry { until } } else { Suspension::Paused { step: i, until } };
                state.phase = Phase::Suspended(rest);
            }
            (Some(REBOOT), _) if state.reboots < self.plan.max_reboots => {
                state.reboots = state.reboots.saturating_add(1);
                let boot = state.boot.clone();
                state.phase = Phase::Suspended(Suspension::Rebooting { step: i, boot, since: self.at });
            }
            _ => {
                if matches!(ending.exit, ExitKind::NotStarted(_)) && state.epoch == 1 {
                    // No epoch before tried it either: the point of no return was not reached.
                    self.mark(state, i, StepStatus::Untouched);
                    state.final_started = self.final_started(state);
                }
                self.fail(state, Some(i), self.failed(Operation::Step(i), ending));
            }
        }
    }

    fn step_done(&self, state: &mut State, i: usize) {
        self.mark(state, i, StepStatus::Done);
        self.disarm(state, i);
        self.at_step(state, i.saturating_add(1));
    }

    fn cancel(&self, state: &mut State, by: &str, reason: &str) {
        if state.final_started || state.failure.is_some() {
            return; // Past the point of no return, or on the way back already.
        }
        let failure = Failure { kind: FailureKind::Cancel, text: format!("cancelled by {by}: {reason}") };
        state.cancel = Some(failure.clone());
        if matches!(state.phase, Phase::Next(_)) {
            self.fail(state, None, failure);
        }
    }

    fn undo(&self, state: &mut State, failure: Failure, by: &str, reason: &str) {
        state.undos = state.undos.saturating_add(1);
        let text = format!("{}; taken back by {by}: {reason}", failure.text);
        self.arm_again(state);
        self.fail(state, None, Failure { kind: failure.kind, text });
    }

    /// Leads back: the undo of the newest step that has one, or the end.
    pub(super) fn fail(&self, state: &mut State, step: Option<usize>, failure: Failure) {
        if state.final_started {
            let at_final = step.is_some_and(|i| self.effect(i) == Effect::Final);
            let outcome = if at_final { Outcome::NeedsOperator(failure) } else { Outcome::Failed(failure) };
            state.phase = Phase::Ended(outcome);
            return;
        }
        state.failure = Some(failure.clone());
        state.phase = match self.to_undo(state) {
            Some(i) => Phase::Next(Operation::Undo(i)),
            None if failure.kind == FailureKind::Cancel => Phase::Ended(Outcome::Cancelled(failure)),
            None => Phase::Ended(Outcome::Failed(failure)),
        };
    }

    fn undone(&self, state: &mut State, i: usize, ending: &StepResult) {
        let failure = state.failure.clone().unwrap_or_else(|| self.failed(Operation::Undo(i), ending));
        if ending.exit != ExitKind::Code(0) {
            let undo = self.failed(Operation::Undo(i), ending).text;
            state.phase = Phase::Ended(Outcome::UndoFailed { failure, undo });
            return;
        }
        self.mark(state, i, StepStatus::Undone);
        state.phase = match self.to_undo(state) {
            Some(earlier) => Phase::Next(Operation::Undo(earlier)),
            None if failure.kind == FailureKind::Cancel => Phase::Ended(Outcome::Cancelled(failure)),
            None => Phase::Ended(Outcome::Undone(failure)),
        };
    }

    fn to_undo(&self, state: &State) -> Option<usize> {
        let touched = |mark: &StepStatus| matches!(mark, StepStatus::Started | StepStatus::Done);
        let marks = state.marks.iter().enumerate().rev();
        marks.filter(|(i, mark)| touched(mark) && self.effect(*i) == Effect::Undoable).map(|(i, _)| i).next()
    }

    fn final_started(&self, state: &State) -> bool {
        let mut marks = state.marks.iter().enumerate();
        marks.any(|(i, mark)| *mark != StepStatus::Untouched && self.effect(i) == Effect::Final)
    }

    fn mark(&self, state: &mut State, i: usize, mark: StepStatus) {
        if let Some(slot) = state.marks.get_mut(i) {
            *slot = mark;
        }
    }

    fn effect(&self, i: usize) -> Effect {
        self.plan.steps.get(i).map(|step: &Step| step.effect).unwrap_or_default()
    }

    fn is_resumable(&self, i: usize) -> bool {
        self.plan.steps.get(i).is_some_and(|step| step.resumable)
    }

    pub(super) fn name(&self, i: usize) -> String {
        self.plan.steps.get(i).map_or_else(|| i.saturating_add(1).to_string(), |step| step.name.clone())
    }

    /// Which limit a command met that took so long: its own, or what was left of the run's time.
    fn limit(&self, act: Operation, spent_ms: u64) -> String {
        let step = |i: usize| self.plan.steps.get(i);
        let timeout = |command: &Option<Command>| command.as_ref().and_then(|command| command.timeout);
        let own = match act {
            Operation::Probe | Operation::Reprobe => timeout(&self.plan.probe),
            Operation::Verify => timeout(&self.plan.verify),
            Operation::Step(i) => step(i).and_then(|step| step.timeout),
            Operation::Done(i) => step(i).and_then(|step| timeout(&step.check)),
            Operation::Undo(i) => step(i).and_then(|step| timeout(&step.undo)),
            Operation::Guard(i) => step(i).and_then(|step| step.guard.as_ref()).map(|guard| guard.timeout),
        };
        match own.filter(|own| u128::from(spent_ms) >= own.0.as_millis()) {
            Some(own) => format!("its `timeout` is {own}"),
            None => format!("the run's `timeout` is {}", self.plan.timeout),
        }
    }

    pub(super) fn failed(&self, act: Operation, ending: &StepResult) -> Failure {
        let what = match act {
            Operation::Probe => "the probe".to_owned(),
            Operation::Step(i) => format!("step {}", self.name(i)),
            Operation::Done(i) => format!("the question whether step {} is done", self.name(i)),
            Operation::Undo(i) => format!("the undo of step {}", self.name(i)),
            Operation::Guard(i) => self.guard_name(i),
            Operation::Reprobe => "the probe after the last step".to_owned(),
            Operation::Verify => "the verification".to_owned(),
        };
        let how = match &ending.exit {
            ExitKind::Code(NOT_NOW) if matches!(act, Operation::Step(_)) && self.plan.retry.is_some() => {
                "said \"not now\" more often than the task allows".to_owned()
            }
            ExitKind::Code(code) => format!("ended with status {code}"),
            ExitKind::Signal(signal) => format!("was ended by signal {signal}"),
            ExitKind::TimedOut => {
                format!("took too long and was ended: {}", self.limit(act, ending.spent_ms))
            }
            ExitKind::Oom => "was ended by the kernel: the run's memory was used up".to_owned(),
            ExitKind::Cancelled => "was cancelled".to_owned(),
            ExitKind::Guarded(i) => format!("did not end in time: {} has fired", self.guard_name(*i)),
            ExitKind::NotStarted(why) => format!("could not be started: {why}"),
            ExitKind::Unknown(why) => format!("ended for an unknown reason: {why}"),
            ExitKind::Survived(what) => format!("could not be ended: {what}"),
        };
        let kind = match (&ending.exit, act) {
            (_, Operation::Probe) => FailureKind::Probe,
            (ExitKind::Guarded(_), _) | (_, Operation::Guard(_)) => FailureKind::Guard,
            (ExitKind::TimedOut, _) => FailureKind::Timeout,
            (ExitKind::Oom, _) => FailureKind::Oom,
            (_, Operation::Reprobe | Operation::Verify) => FailureKind::Verify,
            (_, Operation::Step(_) | Operation::Done(_) | Operation::Undo(_)) => FailureKind::Step,
        };
        // The step's own word says more than its exit.
        let text = match (&ending.message, &ending.exit) {
            (Some(message), ExitKind::Code(code)) if *code != NOT_NOW && !message.trim().is_empty() => {
                format!("{} ({what}, exit {code})", single_line(message.trim()))
            }
            _ => format!("{what} {how}"),
        };
        Failure { kind, text }
    }
}

#[cfg(test)]
#[path = "transition_tests.rs"]
pub(crate) mod tests;
