//! What is to be checked of error budgets: the record of downtime, and the objectives that gates of installed tasks ask for.

use super::{Check, fail, ok, warn};
use crate::catalog::Catalog;
use crate::catalog::trust::OwnerRule;
use crate::config::Settings;
use crate::domain::downtime::Service;
use crate::domain::task::Gate;
use crate::ledger::downtime;

/// How many gates without an objective are named.
const NAMED: usize = 5;

/// Nothing on a host that neither promises nor asks for anything.
pub(super) fn checks(settings: &Settings) -> Vec<Check> {
    let catalog = Catalog::load(&settings.task_dirs, OwnerRule::of_process());
    let tasks = catalog.iter().filter_map(|(name, task)| Some((name, &task.ok()?.task)));
    let gates: Vec<(&str, &str)> = tasks
        .flat_map(|(name, task)| task.gates.iter().map(move |gate| (name, gate)))
        .filter_map(|(name, gate)| match gate {
            Gate::ErrorBudget { service, .. } => Some((name, service.source())),
            _ => None,
        })
        .collect();
    let mut checks = Vec::new();
    if let Err(error) = downtime::read(&settings.state_dir) {
        let cure = "follow \"A damaged record\" in docs/operations.md; until then no gate error_budget opens";
        checks.push(fail("downtime", error.to_string(), cure));
    }
    if gates.is_empty() && settings.objectives.is_empty() {
        return checks;
    }
    // A service that a parameter names is known with the order.
    let covered = |service: &str| {
        service.parse::<Service>().map_or(!settings.objectives.is_empty(), |service| {
            settings.objectives.iter().any(|objective| objective.service.matches(&service))
        })
    };
    let without: Vec<String> = gates
        .iter()
        .filter(|(_, service)| !covered(service))
        .map(|(task, service)| format!("{service} of task {task}"))
        .collect();
    checks.push(if without.is_empty() {
        let budgets = settings.objectives.iter();
        let budgets = budgets.map(|one| format!("{} {} over {}", one.service, one.target, one.window));
        ok("objectives", budgets.collect::<Vec<_>>().join(", "))
    } else {
        let more = without.len().saturating_sub(NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let named = without.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
        warn(
            "objectives",
            format!("no objective covers {named}{more}: the gate error_budget stays closed"),
            "add an entry to `objectives` in the configuration",
        )
    });
    checks
}
