//! The agent's side of downtime: what journals hold is counted once, before the ledger says that a run is over.
//!
//! ```text
//!  journal: downtime, finished  -->  record of downtime (on the disk)  -->  ledger: closed
//! ```
//!
//! A crash between any two of them is repaired by the next look at the journal, because the record knows what of each run it
//! has counted. A record that cannot be read keeps nothing from being carried out, but no gate that asks for it opens.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::Agent;
use crate::domain::downtime::budget::{Budget, budgets};
use crate::domain::downtime::totals::RunOf;
use crate::domain::downtime::{DowntimeTotals, Objective, Service};
use crate::domain::ids::RunId;
use crate::ledger::{DowntimeError, DowntimeRecord};
use crate::report::document::ReportedBudget;
use crate::telemetry::metrics::ServiceDowntime;

/// How many services are a label of measurements, the first by name.
const MAX_LABELS: usize = 200;
/// How many error budgets the agent's report names.
const MAX_BUDGETS: usize = 8;

/// The record of downtime, and what is wrong with it.
pub(super) struct DowntimeSide {
    pub(super) record: Result<DowntimeRecord, DowntimeError>,
    /// Why it could not be written last, if that is so.
    unwritten: Option<String>,
}

impl DowntimeSide {
    pub(super) fn open(state_dir: &std::path::Path) -> Self {
        let record = DowntimeRecord::open(state_dir);
        if let Err(error) = &record {
            tracing::error!("downtime is not counted: {error}");
        }
        Self { record, unwritten: None }
    }

    /// What an operator should know of it.
    pub(super) fn condition(&self) -> Option<String> {
        let unread = self.record.as_ref().err().map(|error| {
            format!(
                "downtime is not counted, and no gate that asks for an error budget opens: {error}; follow \"A damaged \
                 record\" in Hostler's docs/operations.md"
            )
        });
        unread.or_else(|| self.unwritten.clone())
    }
}

impl Agent {
    /// Counts what the journals of runs that may still report hold; gates that rest on it are asked again.
    pub(super) fn count_downtime(&mut self) -> Result<(), String> {
        let Ok(record) = &mut self.durable.downtime.record else { return Ok(()) };
        let views = self.run_table.runs.views();
        let mut facts = Vec::new();
        for (run, view) in views {
            let Some(state) = view.state.as_ref().ok().filter(|state| !state.downtime.is_empty()) else {
                continue;
            };
            let of = RunOf { run: *run, task: &view.plan.task, order: &view.plan.order };
            facts.extend(record.totals().uncounted(&of, &state.downtime));
        }
        if facts.is_empty() {
            return Ok(());
        }
        let standing: BTreeSet<RunId> = views.keys().copied().collect();
        record.count(facts, &standing).map_err(|error| error.to_string())?;
        self.durable.downtime.unwritten = None;
        self.look_at_gates_again();
        Ok(())
    }

    /// The same, where nothing follows from it yet; what could not be written is tried again with the next look.
    pub(super) fn follow_downtime(&mut self) {
        let Err(error) = self.count_downtime() else { return };
        let said = format!("downtime cannot be counted: {error}");
        if self.durable.downtime.unwritten.as_ref() != Some(&said) {
            tracing::error!("{said}");
        }
        self.durable.downtime.unwritten = Some(said);
    }

    /// The services with downtime, and those that an objective names, as measurements show them.
    pub(super) fn service_downtimes(&self, now: Timestamp) -> Vec<ServiceDowntime> {
        let Ok(record) = &self.durable.downtime.record else { return Vec::new() };
        let (totals, objectives) = (record.totals(), &self.config.settings.objectives);
        let services = services(totals, objectives);
        let downtime = |service: Service| {
            let ratios = budgets(totals, objectives, &service, now).into_iter().map(|budget| budget.ratio());
            ServiceDowntime {
                seconds: totals.lifetimes.get(&service).map(|cost| cost.seconds.seconds()),
                remaining: ratios.min_by(f64::total_cmp),
                service: service.to_string(),
            }
        };
        services.into_iter().take(MAX_LABELS).map(downtime).collect()
    }

    /// The budgets for the agent's report: of all services with an objective the ones with the smallest share left first.
    pub(super) fn reported_budgets(&self, now: Timestamp) -> Vec<ReportedBudget> {
        let objectives = &self.config.settings.objectives;
        let Ok(record) = &self.durable.downtime.record else { return Vec::new() };
        if objectives.is_empty() {
            return Vec::new();
        }
        let of_service = |service: Service| {
            let budgets = budgets(record.totals(), objectives, &service, now).into_iter();
            budgets.map(|budget| (service.clone(), budget)).collect::<Vec<_>>()
        };
        let mut all: Vec<_> =
            services(record.totals(), objectives).into_iter().flat_map(of_service).collect();
        all.sort_by(|(_, a), (_, b)| a.ratio().total_cmp(&b.ratio()));
        let reported = |(service, budget): (Service, Budget)| ReportedBudget {
            service,
            target: budget.objective.target,
            window: budget.objective.window,
            allowed: budget.allowed,
            spent: budget.spent,
        };
        all.into_iter().take(MAX_BUDGETS).map(reported).collect()
    }
}

/// The services with downtime, and those that an objective names.
fn services(totals: &DowntimeTotals, objectives: &[Objective]) -> BTreeSet<Service> {
    let named = objectives.iter().filter_map(|objective| objective.service.literal());
    totals.lifetimes.keys().cloned().chain(named).collect()
}
