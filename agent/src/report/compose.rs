//! From what the host keeps to what the store should say of it. Pure.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;

use super::document::{OrderReport, REPORT_VERSION, RUN_TAIL, RunReport, StepReport};
use crate::domain::decide::{Decision, ExecutorState, Leftovers, Reason, RunView};
use crate::domain::ids::RunId;
use crate::domain::instant::later;
use crate::domain::name::Name;
use crate::domain::plan::{Plan, Trigger};
use crate::domain::recurrence::Recurrence;
use crate::domain::run::{ExitKind, Phase, State, StepRecord, Suspension};
use crate::domain::source::OrderKey;
use crate::domain::state::{Activation, End, Hold, LedgerState, OrderState, Stage, end_of};
use crate::domain::summary::{
    LEFT_BEHIND, LEFT_BEHIND_EACH, Summary, WARNINGS, WARNINGS_EACH, downtime, phase,
};
use crate::domain::text;

/// The longest error in the report of a run, in bytes.
const ERROR: usize = 200;

/// Everything that a host has to say of its orders.
#[derive(Debug)]
pub struct Sources<'a> {
    /// This host.
    pub host: &'a Name,
    /// What is remembered.
    pub memory: &'a LedgerState,
    /// What was decided last.
    pub decision: &'a Decision,
    /// The runs that an executor may have.
    pub runs: &'a BTreeMap<RunId, RunView>,
    /// As of.
    pub now: Timestamp,
}

/// The report of an order, with what monitoring has to know beside it.
#[derive(Debug)]
pub struct Composed {
    /// The report.
    pub report: OrderReport,
    /// The order is gone, and nothing of it is under way: what is told is how it was.
    pub is_history: bool,
    /// How a run of an earlier instruction ended, if only a person can settle it; the report is of the present one.
    pub unsettled: Option<End>,
}

impl Sources<'_> {
    /// Composes the report of each order that this host has or had, one after the other.
    pub fn each_order(&self, take: impl FnMut(&Name, Composed)) {
        self.each_chosen(|_| true, take);
    }

    /// The same for some orders alone.
    pub fn each_chosen(&self, chosen: impl Fn(&Name) -> bool, mut take: impl FnMut(&Name, Composed)) {
        let mut shown: BTreeMap<&Name, (&OrderKey, &OrderState)> = BTreeMap::new();
        for (key, order_state) in self.memory.orders.iter().filter(|(key, _)| chosen(&key.order)) {
            let effective = self.memory.effective.get(&key.order) == Some(&key.source);
            let newer = shown.get(&key.order).is_none_or(|(_, other)| {
                !self.memory.effective.contains_key(&key.order) && order_state.gone > other.gone
            });
            if effective || newer {
                shown.insert(&key.order, (key, order_state));
            }
        }
        for (order, (key, order_state)) in shown {
            if let Some(report) =
                self.order(key, order_state).filter(|_| !self.decision.skipped.contains(key))
            {
                // What is left of a key that is gone and asks for nothing more is history.
                let is_history = order_state.gone.is_some() && !order_state.is_under_way();
                let unsettled = order_state.unsettled().and_then(|activation| match &activation.stage {
                    Stage::Closed(closing) => Some(closing.end),
                    _ => None,
                });
                take(order, Composed { report, is_history, unsettled });
            }
        }
        for key in self.decision.skipped.iter().filter(|key| chosen(&key.order)) {
            let report = OrderReport { phase: "skipped".into(), ..self.blank(key) };
            take(&key.order, Composed { report, is_history: false, unsettled: None });
        }
    }

    fn blank(&self, key: &OrderKey) -> OrderReport {
        OrderReport {
            version: REPORT_VERSION,
            host: self.host.to_string(),
            order: key.order.to_string(),
            source: Some(key.source.clone()),
            ..OrderReport::default()
        }
    }

    fn order(&self, key: &OrderKey, order_state: &OrderState) -> Option<OrderReport> {
        let (message, last_success) = (self.earlier(key, order_state), order_state.recurrence.last_success);
        let observed = self.decision.observed.get(key);
        let blank = OrderReport {
            message,
            last_success,
            asked: observed.map(|observed| observed.asked),
            drifted: observed.is_some_and(|observed| observed.drifted),
            probe: observed.and_then(|observed| observed.said.clone()),
            ..self.blank(key)
        };
        let blank = OrderReport { run: order_state.unsettled().map(|activation| activation.run), ..blank };
        if let Some(unreadable) = &order_state.unreadable {
            return Some(OrderReport {
                phase: "refused".into(),
                identity: unreadable.identity,
                error: Some(unreadable.message.clone()),
                since: Some(unreadable.at),
                ..blank
            });
        }
        if let Some(held) = &order_state.held {
            return Some(OrderReport {
                phase: "held".into(),
                reason: Some(held.why.as_str().into()),
                identity: Some(held.identity),
                error: Some(hold(held.why, key, self.host)),
                since: Some(held.at),
                ..blank
            });
        }
        let answered = order_state.unanswered().is_none();
        let Some(activation) = order_state.current.as_ref().filter(|_| answered) else {
            return self.comes(key, order_state, blank);
        };
        let blank = OrderReport {
            identity: Some(activation.identity),
            trigger: Some(activation.trigger.clone().into()),
            since: Some(activation.at),
            ..blank
        };
        Some(match &activation.stage {
            Stage::Open => self.waiting(key, order_state, blank),
            Stage::Prepared => self.running(key, activation, blank),
            Stage::Closed(closing) => {
                // One whose journal cannot be read has no summary, and is settled by its run all the same.
                let has_run = closing.run.is_some() || closing.end.keeps_its_place();
                let report = OrderReport {
                    phase: closing.end.as_str().into(),
                    run: has_run.then_some(activation.run).or(blank.run),
                    error: closing.error.clone(),
                    since: Some(closing.at),
                    ended: Some(closing.at),
                    ..blank
                };
                let report = match &closing.run {
                    Some(summary) => summarised(report, summary),
                    None => report,
                };
                let report = match order_state.gone {
                    // Since then it waited for what came instead.
                    Some(gone) if closing.end == End::Superseded => withdrawn(gone, report),
                    _ => report,
                };
                let message = way_out(closing.end, key, self.host).or(report.message);
                self.comes_again(key, order_state, closing.end, OrderReport { message, ..report })
            }
        })
    }

    /// What is still to be said of an instruction before the one that the key holds now.
    fn earlier(&self, key: &OrderKey, order_state: &OrderState) -> Option<String> {
        let (order, host) = (&key.order, self.host);
        if let Some(Activation { run, .. }) = order_state.unsettled() {
            return Some(format!(
                "run {run} of an earlier instruction needs an operator: look at the host, then hostler acknowledge \
                 {order} --host {host} --as done (or failed, or step-done), or hostler undo {order} --host {host}"
            ));
        }
        let executes = order_state.earlier().find(|activation| activation.stage == Stage::Prepared)?;
        Some(format!("run {} of an earlier instruction goes on", executes.run))
    }

    /// An instruction of which nothing has come yet, as with a schedule that has not fired; if the key is gone, nothing
    /// will.
    fn comes(&self, key: &OrderKey, order_state: &OrderState, blank: OrderReport) -> Option<OrderReport> {
        if let Some(gone) = order_state.gone {
            return Some(withdrawn(gone, OrderReport { identity: order_state.last, ..blank }));
        }
        let identity = Some(order_state.last?);
        let since = order_state.recurrence.handled;
        let report = self.waiting(key, order_state, OrderReport { identity, since, ..blank });
        let message = report.message.clone().or_else(|| counted(&order_state.recurrence));
        Some(OrderReport { message, ..report })
    }

    /// The report of an order whose newest activation is over, and which may come again.
    fn comes_again(
        &self,
        key: &OrderKey,
        order_state: &OrderState,
        end: End,
        over: OrderReport,
    ) -> OrderReport {
        let Some(wait) = self.decision.waits.get(key) else { return over };
        let said = wait.detail.clone().or_else(|| counted(&order_state.recurrence)).or(over.message.clone());
        let identity = order_state.last.or(over.identity);
        // An end that changed nothing says less than that the order comes again: one that was refused or too late when
        // it was placed has other terms by now.
        let placed =
            order_state.current.as_ref().is_some_and(|activation| activation.trigger == Trigger::Placed);
        let nothing_came = matches!(end, End::Superseded | End::Withdrawn | End::Skipped)
            || (placed && matches!(end, End::Refused | End::Expired));
        // A state that holds, or what went wrong last, is more than that it is waited for the next time.
        let tells = matches!(wait.reason, Reason::Reconcile | Reason::Secret) || !end.is_good();
        if tells && !nothing_came {
            return OrderReport { until: wait.until, message: said, identity, ..over };
        }
        OrderReport {
            phase: "waiting".into(),
            reason: Some(wait.reason.as_str().into()),
            until: wait.until,
            message: Some(match (over.trigger.as_ref().filter(|_| !(nothing_came && placed)), said) {
                (Some(trigger), Some(said)) => format!("last: {trigger}, {}; {said}", end.as_str()),
                (Some(trigger), None) => format!("last: {trigger}, {}", end.as_str()),
                (None, said) => said.unwrap_or_default(),
            }),
            error: None,
            step: None,
            ended: None,
            identity,
            ..over
        }
    }

    fn waiting(&self, key: &OrderKey, order_state: &OrderState, blank: OrderReport) -> OrderReport {
        let wait = self.decision.waits.get(key);
        let older =
            order_state.earlier().find(|activation| activation.has_run()).map(|activation| activation.run);
        let unsaid = if older.is_some() { Reason::PreviousRun } else { Reason::Store };
        OrderReport {
            phase: "waiting".into(),
            reason: Some(wait.map_or(unsaid, |wait| wait.reason).as_str().into()),
            message: wait.and_then(|wait| wait.detail.clone()).or(blank.message),
            until: wait.and_then(|wait| wait.until),
            run: older,
            ..blank
        }
    }

    fn running(&self, key: &OrderKey, activation: &Activation, blank: OrderReport) -> OrderReport {
        let blank = OrderReport { run: Some(activation.run), ..blank };
        let starting =
            OrderReport { phase: "waiting".into(), reason: Some("starting".into()), ..blank.clone() };
        let Some(run) = self.runs.get(&activation.run) else {
            let Some(wait) = self.decision.waits.get(key) else { return starting };
            let reason = Some(wait.reason.as_str().into());
            return OrderReport { reason, message: wait.detail.clone(), until: wait.until, ..starting };
        };
        let Ok(state) = &run.state else { return starting };
        let wait = self.decision.waits.get(key);
        let (phase, reason) = phase(state, run.executor == ExecutorState::Alive);
        let lost = match &run.leftovers {
            Some(Leftovers::Counted(n)) if *n > 0 => Some(format!("lost: {n} processes")),
            _ => None,
        };
        let deadline = deadline(run, state);
        // A final step is not ended by its deadline: that it passed is all that is done about it.
        let overdue = state.final_started && phase == "running" && deadline.is_some_and(|at| at <= self.now);
        let reason = reason.or(overdue.then_some("overdue"));
        let waiting = wait.filter(|_| phase == "waiting").map(|wait| wait.reason.as_str());
        let summary = Summary::of(&run.plan, state);
        let (progress, message) = run.progress.clone();
        let report = OrderReport {
            phase: phase.into(),
            reason: lost.or_else(|| waiting.or(reason).map(Into::into)),
            until: until(state).or_else(|| wait.and_then(|wait| wait.until)),
            since: state.updated.or(blank.since),
            deadline,
            ..blank
        };
        let report = summarised(report, &summary);
        let error = state.failure.as_ref().map(|failure| failure.text.clone());
        // What it waits for says more than what its last command said.
        let detail = wait.and_then(|wait| wait.detail.clone());
        let message = detail.or(message).or(report.message.clone());
        OrderReport { progress, message, error, tail: run.tail.clone(), ..report }
    }
}

/// The order is gone, and it waited then.
fn withdrawn(gone: Timestamp, report: OrderReport) -> OrderReport {
    OrderReport {
        phase: End::Withdrawn.as_str().into(),
        error: Some("the order is gone".to_owned()),
        since: Some(gone),
        ended: Some(gone),
        ..report
    }
}

/// Firings that did not take place, in words.
fn counted(recurrence: &Recurrence) -> Option<String> {
    let words = |n: u32, what: &str| (n > 0).then(|| format!("{n} {what}"));
    let missed = words(recurrence.missed, "missed");
    let overlaps = words(recurrence.overlaps, "skipped: overlap");
    match (missed, overlaps) {
        (Some(missed), Some(overlaps)) => Some(format!("firings {missed}, {overlaps}")),
        (one, other) => one.or(other).map(|words| format!("firings {words}")),
    }
}

fn summarised(report: OrderReport, summary: &Summary) -> OrderReport {
    let summary = summary.clone();
    OrderReport {
        epoch: summary.epoch,
        task: Some(summary.task),
        task_digest: Some(summary.task_digest),
        step: summary.step,
        message: summary.message,
        started: summary.started,
        exit_code: summary.exit_code,
        outputs: summary.outputs,
        tail: summary.tail,
        killed_processes: summary.killed_processes,
        warnings: summary.warnings,
        downtime: summary.downtime,
        ..report
    }
}

fn until(state: &State) -> Option<Timestamp> {
    match &state.phase {
        Phase::Suspended(Suspension::Retry { until } | Suspension::Paused { until, .. }) => Some(*until),
        _ => None,
    }
}

/// A forecast: the time that is left, from the last record on, if the run goes on executing.
fn deadline(run: &RunView, state: &State) -> Option<Timestamp> {
    let executing =
        run.executor == ExecutorState::Alive && matches!(state.phase, Phase::Next(_) | Phase::Running(_));
    let left = run.plan.timeout.0.saturating_sub(state.spent);
    state.updated.filter(|_| executing).map(|at| later(at, left))
}

/// A hold in a line that says what was seen, what was kept from happening, and what resolves it.
fn hold(why: Hold, key: &OrderKey, host: &Name) -> String {
    let OrderKey { order, .. } = key;
    match why {
        Hold::Repeated => format!(
            "{key} holds an instruction that it held before; it was not carried out again: \
                 change `revision`, or hostler retry {order} --host {host}"
        ),
        Hold::IndexRegressed => format!(
            "{key} holds another instruction under an older index, as after a restored snapshot; it was not \
                 carried out: hostler release {order} --host {host} carries it out, \
                 hostler accept {order} --host {host} accepts it as what stands"
        ),
        Hold::NotConverging => format!(
            "{key}: its state drifted away three times and did not last between; nothing was started any more: \
                 see what else changes it, then edit the order, or hostler release {order} --host {host}"
        ),
        Hold::Preexisting => format!(
            "{key} was there before this host remembered anything, and no probe tells whether it is done; it was \
                 not carried out: hostler release {order} --host {host} carries it out, \
                 hostler accept {order} --host {host} accepts it as done"
        ),
        Hold::LedgerBehind => format!(
            "this host reported a run of {order} that it does not remember, as after a restored disk, or what this \
                 version cannot read, as after a downgrade; {key} was not carried out: see what is true on the host, then hostler release {order} --host {host}, or \
                 hostler accept {order} --host {host} to accept it as done"
        ),
        Hold::Fallback => format!(
            "{key} counts only because a nearer order went away; it was not carried out: \
                 edit it, or hostler release {order} --host {host}"
        ),
    }
}

/// What gets an order out of a state that only a person can leave.
fn way_out(end: End, key: &OrderKey, host: &Name) -> Option<String> {
    let OrderKey { order, .. } = key;
    end.keeps_its_place().then(|| {
        format!(
            "look at the host, then: hostler acknowledge {order} --host {host} --as step-done (goes on), done or failed, \
             hostler undo, or hostler retry"
        )
    })
}

/// A step of a run that was begun.
fn step(name: &str, record: &StepRecord) -> Option<StepReport> {
    let started = Some(record.started?);
    let took_ms = u64::try_from(record.spent.as_millis()).unwrap_or(u64::MAX);
    Some(StepReport { name: name.to_owned(), started, took_ms, exit: record.exit.as_ref().map(exit) })
}

/// How a command ended, in a word or two.
fn exit(kind: &ExitKind) -> String {
    match kind {
        ExitKind::Code(code) => code.to_string(),
        ExitKind::Signal(signal) => format!("signal {signal}"),
        ExitKind::TimedOut => "timed out".to_owned(),
        ExitKind::Oom => "out of memory".to_owned(),
        ExitKind::Cancelled => "cancelled".to_owned(),
        ExitKind::Guarded(_) => "ended by a guard".to_owned(),
        ExitKind::NotStarted(_) => "not started".to_owned(),
        ExitKind::Unknown(_) => "unknown".to_owned(),
        ExitKind::Survived(_) => "not ended".to_owned(),
    }
}

/// The report of one run, from what its folder says; by whom and why, only the order in its folder says.
pub fn run(plan: &Plan, state: &State, alive: bool, tail: Option<&str>) -> RunReport {
    let blank = RunReport {
        version: REPORT_VERSION,
        order: plan.order.to_string(),
        source: Some(plan.source.clone()),
        trigger: Some(plan.trigger.clone().into()),
        dry_run: plan.dry_run,
        task: plan.task.clone(),
        phase: phase(state, alive).0.into(),
        epoch: state.epoch,
        started: state.started,
        exit_code: state.exit_code,
        warnings: text::few(&state.warnings, WARNINGS, WARNINGS_EACH),
        downtime: downtime(state),
        params: match &plan.params {
            Value::Null => None,
            Value::Object(params) if params.is_empty() => None,
            params => Some(params.to_string()),
        },
        steps: plan
            .steps
            .iter()
            .zip(&state.records)
            .filter_map(|(planned, record)| step(&planned.name, record))
            .collect(),
        outputs: state.outputs.clone(),
        killed_processes: text::few(&state.killed_processes, LEFT_BEHIND, LEFT_BEHIND_EACH),
        ..RunReport::default()
    };
    match state.outcome() {
        None => blank,
        Some(outcome) => {
            let (end, error) = end_of(outcome);
            RunReport {
                phase: end.as_str().into(),
                ended: state.updated,
                error: error.map(|error| text::head(&error, ERROR)),
                tail: tail.filter(|tail| !tail.is_empty()).map(|tail| text::tail(tail, RUN_TAIL)),
                ..blank
            }
        }
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod status_tests;
