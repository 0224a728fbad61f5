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
//! | doing step *i* | 194 with `reboots` | rests: rebooting |
//! | doing step *i* | anything else | failed: its own undo, then those of the steps before |
//! | doing step *i* | begun, or interrupted and begun | `done` is asked; without one: repeatable again, undoable undone, else needs_operator |
//! | doing done *i* | 0 / 1 / else | next step / again, undone or needs_operator by effect / needs_operator |
//! | doing undo *i* | 0 / else / begun | the undo before it, or the end / undo_failed / again |
//! | doing a check | 0 / else | the next check, or succeeded / failed{verify} |
//! | doing anything | ended, but for survivors | needs_operator: nothing may run beside them |
//! | doing anything | ended, and nobody knows how | needs_operator |
//! | rests: rebooting | cancel asked, then begun | undone from here; no reboot is missed |
//! | at or doing | cancel asked | undone from here; refused once a final step has started |
//! | needs_operator, undo_failed | begun | the same: only what is asked next counts |
//! | needs_operator, undo_failed | undo asked | the undo of the newest step that has one; never once a final step has started |
//!
//! A pair that is not in the table is an error, never a guess.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::time::Duration;

use jiff::Timestamp;

use super::event::{Act, Ending, Event, Exit, Record};
use super::state::{Failure, FailureKind, Mark, Outcome, Phase, Rest, State};
use crate::domain::instant::later;
use crate::domain::plan::{Command, Plan, Step};
use crate::domain::task::Effect;
use crate::domain::yaml::one_line;

/// "Not now": where the task declares `retry` (`EX_TEMPFAIL` of sysexits).
const NOT_NOW: i32 = 75;
/// "Reboot, then this step again": where the task declares `reboots` (as systemd and Ansible collections use it).
const REBOOT: i32 = 194;

/// A record that does not follow from what stands before it: the journal was written by something else.
#[derive(Debug, thiserror::Error)]
#[error("record {} cannot follow {}", one_line(&format!("{event:?}")), one_line(&format!("{phase:?}")))]
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
    Do(Act),
    /// Records that the run's time is up.
    Expire,
    /// Ends; a later epoch goes on.
    Rest,
    /// Ends; the run is over.
    End,
}

/// What the executor of this run does now.
pub fn next(plan: &Plan, state: &State) -> Next {
    match &state.phase {
        Phase::At(act) => {
            let undoing = matches!(act, Act::Undo(_));
            let expired = state.spent >= plan.timeout.0 && !state.final_started;
            if expired && !undoing { Next::Expire } else { Next::Do(*act) }
        }
        Phase::Ended(_) => Next::End,
        Phase::New | Phase::Doing(_) | Phase::Resting(_) => Next::Rest,
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
    match (&state.phase, &record.event) {
        (Phase::Ended(outcome), Event::UndoAsked { by, reason }) if !state.final_started => {
            let Some(failure) = outcome.unsettled().cloned() else { return Err(illegal(state, record)) };
            run.undo(state, failure, by, reason);
        }
        (Phase::Ended(outcome), Event::Begun { epoch, boot })
            if *epoch > state.epoch && outcome.unsettled().is_some() =>
        {
            run.begin(state, *epoch, boot);
        }
        (Phase::Ended(_), _) => return Err(illegal(state, record)),
        (_, Event::Begun { epoch, boot }) if *epoch > state.epoch => run.begin(state, *epoch, boot),
        (Phase::At(at), Event::Intended { act }) if at == act => run.intend(state, *act),
        (Phase::Doing(doing), Event::Finished { act, ending }) if doing == act => {
            run.finish(state, *act, ending);
        }
        (Phase::Doing(doing), Event::Interrupted { act, spent_ms }) if doing == act => {
            if !matches!(act, Act::Undo(_)) {
                state.spent = state.spent.saturating_add(Duration::from_millis(*spent_ms));
            }
            state.phase = Phase::Resting(Rest::Stopped { act: *act });
        }
        // It is taken in before the next epoch begins, which then does not miss a reboot that nobody waits for.
        (Phase::Resting(Rest::Rebooting { .. }), Event::CancelAsked { by, reason }) => {
            run.cancel(state, by, reason);
        }
        (Phase::At(_) | Phase::Doing(_), Event::Stopping) => state.stopping = true,
        (Phase::At(_) | Phase::Doing(_), Event::CancelAsked { by, reason }) => run.cancel(state, by, reason),
        (Phase::At(act), Event::Expired) if !matches!(act, Act::Undo(_)) => {
            let text = format!("the run's time of {} was up", plan.timeout);
            run.fail(state, None, Failure { kind: FailureKind::Timeout, text });
        }
        _ => return Err(illegal(state, record)),
    }
    if !matches!(record.event, Event::Begun { .. }) {
        state.acted = state.epoch;
    }
    state.updated = Some(record.at);
    // Of what is under way, or was cut, there is no status yet. While a run is undone, that of the failure is kept.
    let (Phase::At(act) | Phase::Doing(act) | Phase::Resting(Rest::Stopped { act })) = &state.phase else {
        return Ok(());
    };
    if !matches!(act, Act::Undo(_)) {
        state.exit_code = None;
    }
    Ok(())
}

fn illegal(state: &State, record: &Record) -> Illegal {
    Illegal { phase: Box::new(state.phase.clone()), event: Box::new(record.event.clone()) }
}

/// One record's worth of context.
struct Run<'a> {
    plan: &'a Plan,
    at: Timestamp,
}

impl Run<'_> {
    fn begin(&self, state: &mut State, epoch: u32, boot: &str) {
        if matches!(state.phase, Phase::Doing(_)) {
            state.interruptions = state.interruptions.saturating_add(1);
        }
        let same_boot = state.boot == boot;
        state.epoch = epoch;
        state.boot = boot.to_owned();
        state.stopping = false;
        state.started = state.started.or(Some(self.at));
        match state.phase.clone() {
            Phase::New | Phase::Resting(Rest::Retry { .. }) => state.phase = self.start(),
            Phase::Doing(act) | Phase::Resting(Rest::Stopped { act }) => self.settle(state, act),
            Phase::Resting(Rest::Paused { step, .. }) => state.phase = Phase::At(Act::Step(step)),
            Phase::Resting(Rest::Rebooting { .. }) if state.cancel.is_some() && !state.final_started => {
                let failure = state.cancel.clone();
                failure.into_iter().for_each(|failure| self.fail(state, None, failure));
            }
            Phase::Resting(Rest::Rebooting { step, .. }) if same_boot => {
                let text = format!("step {} wanted a reboot, and none came", self.name(step));
                self.fail(state, Some(step), Failure { kind: FailureKind::NoReboot, text });
            }
            Phase::Resting(Rest::Rebooting { step, .. }) => state.phase = Phase::At(Act::Step(step)),
            Phase::At(_) | Phase::Ended(_) => {}
        }
    }

    /// The first thing that a run does.
    fn start(&self) -> Phase {
        match (&self.plan.probe, self.plan.dry_run) {
            (Some(_), _) => Phase::At(Act::Probe),
            (None, true) => Phase::Ended(Outcome::Planned),
            (None, false) => self.step(0),
        }
    }

    fn step(&self, i: usize) -> Phase {
        if i < self.plan.steps.len() {
            Phase::At(Act::Step(i))
        } else if self.plan.probe.is_some() {
            Phase::At(Act::Reprobe)
        } else {
            self.verification()
        }
    }

    fn verification(&self) -> Phase {
        match self.plan.verify {
            Some(_) => Phase::At(Act::Verify),
            None => Phase::Ended(Outcome::Succeeded),
        }
    }

    fn intend(&self, state: &mut State, act: Act) {
        if let Act::Step(i) = act {
            self.mark(state, i, Mark::Started);
            state.final_started = self.final_started(state);
        }
        state.phase = Phase::Doing(act);
    }

    /// An interrupted command: what is known of it, and what may be done.
    fn settle(&self, state: &mut State, act: Act) {
        match act {
            Act::Step(i) if self.plan.steps.get(i).is_some_and(|step| step.done.is_some()) => {
                state.phase = Phase::At(Act::Done(i));
            }
            Act::Step(i) if self.effect(i) == Effect::Repeatable => state.phase = Phase::At(act),
            Act::Step(i) => {
                let text =
                    format!("step {} was interrupted, and nothing tells whether it is done", self.name(i));
                self.not_done(state, i, text);
            }
            // Reading and undoing may be repeated.
            Act::Probe | Act::Done(_) | Act::Undo(_) | Act::Reprobe | Act::Verify => {
                state.phase = Phase::At(act);
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

    fn finish(&self, state: &mut State, act: Act, ending: &Ending) {
        if !matches!(act, Act::Undo(_)) {
            state.spent = state.spent.saturating_add(Duration::from_millis(ending.spent_ms));
        }
        state.interruptions = 0;
        state.outputs.extend(ending.outputs.clone());
        state.message = ending.message.clone().or(state.message.take());
        state.left_behind.extend(ending.left_behind.iter().cloned());
        state.warnings.extend(ending.warnings.iter().cloned());
        if let (Act::Step(_) | Act::Reprobe | Act::Verify, Exit::Code(code)) = (act, &ending.exit) {
            state.exit_code = Some(*code);
        }
        let code = if let Exit::Code(code) = ending.exit { Some(code) } else { None };
        let ending = ending.clone();
        match act {
            _ if matches!(ending.exit, Exit::Survived(_) | Exit::Unknown(_)) => {
                // Nothing may run beside a survivor, not even an undo; nor after what is not known.
                state.phase = Phase::Ended(Outcome::NeedsOperator(self.failed(act, &ending)));
            }
            Act::Undo(i) => self.undone(state, i, &ending),
            _ if state.cancel.is_some() && !state.final_started => {
                if let (Act::Step(i), Some(0)) = (act, code) {
                    self.mark(state, i, Mark::Done);
                }
                let failure = state.cancel.clone().unwrap_or_else(|| self.failed(act, &ending));
                self.fail(state, None, failure);
            }
            Act::Probe => match code {
                Some(0) => state.phase = Phase::Ended(Outcome::Unchanged),
                Some(1) if self.plan.dry_run => state.phase = Phase::Ended(Outcome::Planned),
                Some(1) => state.phase = self.step(0),
                _ => state.phase = Phase::Ended(Outcome::Failed(self.failed(act, &ending))),
            },
            Act::Step(i) => self.step_finished(state, i, code, &ending),
            Act::Done(i) => match code {
                Some(0) => self.step_done(state, i),
                Some(1) if self.effect(i) == Effect::Repeatable => state.phase = Phase::At(Act::Step(i)),
                Some(1) => {
                    let text = format!("step {} was interrupted and is not done", self.name(i));
                    self.not_done(state, i, text);
                }
                _ => state.phase = Phase::Ended(Outcome::NeedsOperator(self.failed(act, &ending))),
            },
            Act::Reprobe | Act::Verify if code == Some(0) => {
                let verification = self.verification();
                state.phase =
                    if act == Act::Reprobe { verification } else { Phase::Ended(Outcome::Succeeded) };
            }
            Act::Reprobe | Act::Verify => self.fail(state, None, self.failed(act, &ending)),
        }
    }

    fn step_finished(&self, state: &mut State, i: usize, code: Option<i32>, ending: &Ending) {
        match (code, &self.plan.retry) {
            (Some(0), _) => self.step_done(state, i),
            (Some(NOT_NOW), Some(retry)) if state.retries < retry.max => {
                // The step's own word that nothing was done which a repetition would do twice.
                self.mark(state, i, Mark::Untouched);
                state.final_started = self.final_started(state);
                state.retries = state.retries.saturating_add(1);
                let until = later(self.at, retry.every.delay(state.retries));
                let rest = if i == 0 { Rest::Retry { until } } else { Rest::Paused { step: i, until } };
                state.phase = Phase::Resting(rest);
            }
            (Some(REBOOT), _) if state.reboots < self.plan.reboots => {
                state.reboots = state.reboots.saturating_add(1);
                let boot = state.boot.clone();
                state.phase = Phase::Resting(Rest::Rebooting { step: i, boot, since: self.at });
            }
            _ => {
                if matches!(ending.exit, Exit::NotStarted(_)) && state.epoch == 1 {
                    // No epoch before tried it either: the point of no return was not reached.
                    self.mark(state, i, Mark::Untouched);
                    state.final_started = self.final_started(state);
                }
                self.fail(state, Some(i), self.failed(Act::Step(i), ending));
            }
        }
    }

    fn step_done(&self, state: &mut State, i: usize) {
        self.mark(state, i, Mark::Done);
        state.phase = self.step(i.saturating_add(1));
    }

    fn cancel(&self, state: &mut State, by: &str, reason: &str) {
        if state.final_started || state.failure.is_some() {
            return; // Past the point of no return, or on the way back already.
        }
        let failure = Failure { kind: FailureKind::Cancel, text: format!("cancelled by {by}: {reason}") };
        state.cancel = Some(failure.clone());
        if matches!(state.phase, Phase::At(_)) {
            self.fail(state, None, failure);
        }
    }

    fn undo(&self, state: &mut State, failure: Failure, by: &str, reason: &str) {
        state.undos = state.undos.saturating_add(1);
        let text = format!("{}; taken back by {by}: {reason}", failure.text);
        self.fail(state, None, Failure { kind: failure.kind, text });
    }

    /// Leads back: the undo of the newest step that has one, or the end.
    fn fail(&self, state: &mut State, step: Option<usize>, failure: Failure) {
        if state.final_started {
            let at_final = step.is_some_and(|i| self.effect(i) == Effect::Final);
            let outcome = if at_final { Outcome::NeedsOperator(failure) } else { Outcome::Failed(failure) };
            state.phase = Phase::Ended(outcome);
            return;
        }
        state.failure = Some(failure.clone());
        state.phase = match self.to_undo(state) {
            Some(i) => Phase::At(Act::Undo(i)),
            None if failure.kind == FailureKind::Cancel => Phase::Ended(Outcome::Cancelled(failure)),
            None => Phase::Ended(Outcome::Failed(failure)),
        };
    }

    fn undone(&self, state: &mut State, i: usize, ending: &Ending) {
        let failure = state.failure.clone().unwrap_or_else(|| self.failed(Act::Undo(i), ending));
        if ending.exit != Exit::Code(0) {
            let undo = self.failed(Act::Undo(i), ending).text;
            state.phase = Phase::Ended(Outcome::UndoFailed { failure, undo });
            return;
        }
        self.mark(state, i, Mark::Undone);
        state.phase = match self.to_undo(state) {
            Some(earlier) => Phase::At(Act::Undo(earlier)),
            None if failure.kind == FailureKind::Cancel => Phase::Ended(Outcome::Cancelled(failure)),
            None => Phase::Ended(Outcome::Undone(failure)),
        };
    }

    fn to_undo(&self, state: &State) -> Option<usize> {
        let touched = |mark: &Mark| matches!(mark, Mark::Started | Mark::Done);
        let marks = state.marks.iter().enumerate().rev();
        marks.filter(|(i, mark)| touched(mark) && self.effect(*i) == Effect::Undoable).map(|(i, _)| i).next()
    }

    fn final_started(&self, state: &State) -> bool {
        let mut marks = state.marks.iter().enumerate();
        marks.any(|(i, mark)| *mark != Mark::Untouched && self.effect(i) == Effect::Final)
    }

    fn mark(&self, state: &mut State, i: usize, mark: Mark) {
        if let Some(slot) = state.marks.get_mut(i) {
            *slot = mark;
        }
    }

    fn effect(&self, i: usize) -> Effect {
        self.plan.steps.get(i).map(|step: &Step| step.effect).unwrap_or_default()
    }

    fn name(&self, i: usize) -> String {
        self.plan.steps.get(i).map_or_else(|| i.saturating_add(1).to_string(), |step| step.name.clone())
    }

    /// Which limit a command met that took so long: its own, or what was left of the run's time.
    fn limit(&self, act: Act, spent_ms: u64) -> String {
        let step = |i: usize| self.plan.steps.get(i);
        let timeout = |command: &Option<Command>| command.as_ref().and_then(|command| command.timeout);
        let own = match act {
            Act::Probe | Act::Reprobe => timeout(&self.plan.probe),
            Act::Verify => timeout(&self.plan.verify),
            Act::Step(i) => step(i).and_then(|step| step.timeout),
            Act::Done(i) => step(i).and_then(|step| timeout(&step.done)),
            Act::Undo(i) => step(i).and_then(|step| timeout(&step.undo)),
        };
        match own.filter(|own| u128::from(spent_ms) >= own.0.as_millis()) {
            Some(own) => format!("its `timeout` is {own}"),
            None => format!("the run's `timeout` is {}", self.plan.timeout),
        }
    }

    fn failed(&self, act: Act, ending: &Ending) -> Failure {
        let what = match act {
            Act::Probe => "the probe".to_owned(),
            Act::Step(i) => format!("step {}", self.name(i)),
            Act::Done(i) => format!("the question whether step {} is done", self.name(i)),
            Act::Undo(i) => format!("the undo of step {}", self.name(i)),
            Act::Reprobe => "the probe after the last step".to_owned(),
            Act::Verify => "the verification".to_owned(),
        };
        let how = match &ending.exit {
            Exit::Code(NOT_NOW) if matches!(act, Act::Step(_)) && self.plan.retry.is_some() => {
                "said \"not now\" more often than the task allows".to_owned()
            }
            Exit::Code(code) => format!("ended with status {code}"),
            Exit::Signal(signal) => format!("was ended by signal {signal}"),
            Exit::TimedOut => format!("took too long and was ended: {}", self.limit(act, ending.spent_ms)),
            Exit::Oom => "was ended by the kernel: the run's memory was used up".to_owned(),
            Exit::Cancelled => "was cancelled".to_owned(),
            Exit::NotStarted(why) => format!("could not be started: {why}"),
            Exit::Unknown(why) => format!("ended in a way that is not known: {why}"),
            Exit::Survived(what) => format!("could not be ended: {what}"),
        };
        let kind = match (&ending.exit, act) {
            (_, Act::Probe) => FailureKind::Probe,
            (Exit::TimedOut, _) => FailureKind::Timeout,
            (Exit::Oom, _) => FailureKind::Oom,
            (_, Act::Reprobe | Act::Verify) => FailureKind::Verify,
            (_, Act::Step(_) | Act::Done(_) | Act::Undo(_)) => FailureKind::Step,
        };
        Failure { kind, text: format!("{what} {how}") }
    }
}

#[cfg(test)]
#[path = "transition_tests.rs"]
pub(crate) mod tests;
