//! What is taken on this host: locks, and places among the runs at once.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use super::view::{RunView, View};
use super::wait::{Reason, Wait};
use crate::domain::plan::Lock;
use crate::domain::run::{Phase, Suspension};
use crate::domain::state::Stage;
use crate::domain::task::LockMode;

/// What is taken on this host: locks, and places among the runs at once.
pub(super) struct Capacity {
    held: Vec<Lock>,
    taken: usize,
    parallel: usize,
    /// Whether a run with a place of its own has it.
    emergency: bool,
    rebooting: bool,
    /// Why it is not known what is taken: a newer program started a run here.
    unknown: Option<String>,
}

impl Capacity {
    pub(super) fn of(view: &View<'_>) -> Self {
        let mut held: Vec<Lock> = view.starting.values().flatten().cloned().collect();
        let mut taken = view.starting.len();
        let (mut rebooting, mut emergency) = (false, false);
        for (_, activation) in view.memory.prepared() {
            let Some(run) =
                view.runs.get(&activation.run).filter(|_| !view.starting.contains_key(&activation.run))
            else {
                continue;
            };
            held.extend(locks_kept(run));
            emergency |= run.plan.emergency && uses_slot(run);
            taken = taken.saturating_add(usize::from(uses_slot(run) && !run.plan.emergency));
            rebooting |= is_rebooting(run);
        }
        // What an operator has to settle keeps its locks, also when its run is closed.
        for order_state in view.memory.orders.values() {
            let kept = order_state.current.iter().chain(order_state.previous.as_deref());
            for activation in kept.filter(|o| o.stage != Stage::Prepared && o.has_run()) {
                held.extend(
                    view.runs.get(&activation.run).into_iter().flat_map(|run| run.plan.resources.clone()),
                );
            }
        }
        let unknown = view.unread.values().find(|unread| unread.newer).map(|unread| unread.why.clone());
        Self { held, taken, parallel: view.parallel, emergency, rebooting, unknown }
    }

    /// Takes what a run needs, or says what is missing; an emergency has a place of its own.
    pub(super) fn take(&mut self, locks: &[Lock], emergency: bool) -> Result<(), Wait> {
        if self.unknown.is_some() {
            return Err(Wait { detail: self.unknown.clone(), ..Wait::new(Reason::RollbackWindow, None) });
        }
        if self.rebooting {
            let detail = Some("the host is about to be rebooted".to_owned());
            return Err(Wait { detail, ..Wait::new(Reason::Resource, None) });
        }
        if let Some(lock) = self.taken(locks) {
            let detail = Some(format!("{} is taken by another run", lock.name));
            return Err(Wait { detail, ..Wait::new(Reason::Resource, None) });
        }
        self.reserve_slot(emergency)?;
        self.held.extend_from_slice(locks);
        Ok(())
    }

    /// A lock of these that another run has.
    pub(super) fn taken<'a>(&self, locks: &'a [Lock]) -> Option<&'a Lock> {
        locks.iter().find(|lock| self.held.iter().any(|held| conflict(lock, held)))
    }

    /// Takes a place among the runs at once, for a run that has kept its locks.
    pub(super) fn reserve_slot(&mut self, emergency: bool) -> Result<(), Wait> {
        if emergency && !self.emergency {
            self.emergency = true;
            return Ok(());
        }
        if self.taken >= self.parallel {
            return Err(Wait::new(Reason::Parallel, None));
        }
        self.taken = self.taken.saturating_add(1);
        Ok(())
    }

    pub(super) fn others_execute(&self) -> bool {
        self.taken > 0
    }
}

fn locks_kept(run: &RunView) -> Vec<Lock> {
    match run.state.as_ref().map(|state| &state.phase) {
        Ok(Phase::Suspended(Suspension::Retry { .. })) => Vec::new(),
        _ => run.plan.resources.clone(),
    }
}

fn uses_slot(run: &RunView) -> bool {
    !matches!(run.state.as_ref().map(|state| &state.phase), Ok(Phase::Suspended(_) | Phase::Ended(_)))
}

fn is_rebooting(run: &RunView) -> bool {
    let phase = run.state.as_ref().map(|state| &state.phase);
    matches!(phase, Ok(Phase::Suspended(Suspension::Rebooting { .. })))
}

/// Whether two locks exclude one another.
pub(super) fn conflict(a: &Lock, b: &Lock) -> bool {
    a.name == b.name && (a.mode == LockMode::Exclusive || b.mode == LockMode::Exclusive)
}
