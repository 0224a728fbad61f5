//! The gates of a task: whether each is open now, and why not.
//!
//! Whatever takes time is measured elsewhere and read here. What cannot be measured keeps a gate closed and says why.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::facts::HostFacts;
use crate::domain::decide::GateAnswer;
use crate::domain::downtime::budget::{self, Asked, Closed};
use crate::domain::downtime::{Millis, Objective, Service};
use crate::domain::facts::Expression;
use crate::domain::plan::Plan;
use crate::domain::span::Span;
use crate::domain::task::{Free, Gate, Task};
use crate::domain::template::{self, Context, Template};
use crate::host::machine;
use crate::ledger::{DowntimeError, DowntimeRecord};

/// What gates rest on.
pub(super) struct GateContext<'a> {
    pub(super) downtime: &'a Result<DowntimeRecord, DowntimeError>,
    pub(super) objectives: &'a [Objective],
    pub(super) facts: &'a HostFacts,
    pub(super) labels: &'a BTreeMap<String, String>,
    pub(super) now: Timestamp,
}

/// What the gates of a task say to a plan; `None` if it has none. An error: the parameters fit no gate, one line.
pub(super) fn ask(context: &GateContext<'_>, task: &Task, plan: &Plan) -> Result<Option<GateAnswer>, String> {
    if task.gates.is_empty() {
        return Ok(None);
    }
    let mut all = Vec::new();
    for gate in &task.gates {
        all.extend(closed(context, task, plan, gate)?);
    }
    // All of them have to open: what is known of the first is not, as long as one is not known.
    let opens = all.iter().map(|closed| closed.opens).collect::<Option<Vec<Timestamp>>>();
    let opens = opens.and_then(|all| all.into_iter().max());
    let timed = task.gates.iter().any(|gate| matches!(gate, Gate::ErrorBudget { .. }));
    let closed = all.into_iter().next().map(|closed| closed.why);
    Ok(Some(GateAnswer { asked: context.now, closed, opens, timed }))
}

fn closed(
    context: &GateContext<'_>,
    task: &Task,
    plan: &Plan,
    gate: &Gate,
) -> Result<Option<Closed>, String> {
    match gate {
        Gate::DiskFree { path, free } => Ok(disk(path, free).map(|why| Closed { why, opens: None })),
        Gate::Fact(expression) => {
            let scope = Expression::scope(Some(&plan.params), context.labels);
            let why = expression.closed(|name| context.facts.known(name), scope);
            Ok(why.map(|why| Closed { why, opens: None }))
        }
        Gate::ErrorBudget { service, needs } => error_budget(context, task, plan, (service, *needs)),
    }
}

fn disk(path: &std::path::Path, free: &Free) -> Option<String> {
    let (percent, bytes) = match machine::disk_free(path) {
        Ok(free) => free,
        Err(error) => return Some(format!("the free space of {} is not known: {error}", path.display())),
    };
    let (open, wanted) = match free {
        Free::Percent(wanted) => (percent >= u64::from(*wanted), format!("{wanted} %")),
        Free::Bytes(wanted) => (bytes >= wanted.0, wanted.to_string()),
    };
    (!open).then(|| format!("{} has {percent} % free, the task needs {wanted}", path.display()))
}

fn error_budget(
    context: &GateContext<'_>,
    task: &Task,
    plan: &Plan,
    (service, needs): (&Template, Option<Span>),
) -> Result<Option<Closed>, String> {
    let run = plan.run.to_string();
    let seen =
        Context { params: &plan.params, host: plan.host.as_str(), order: plan.order.as_str(), run: &run };
    let named = template::render(service, &seen).map_err(|error| format!("gate error_budget: {error}"))?;
    let service: Service = named.parse().map_err(|bad| format!("gate error_budget: {bad}"))?;
    let record = match context.downtime {
        Ok(record) => record,
        Err(error) => {
            let why = format!("the error budget of {service} is unknown: {error}");
            return Ok(Some(Closed { why, opens: None }));
        }
    };
    let asked = Asked {
        totals: record.totals(),
        objectives: context.objectives,
        task: &task.name,
        service: &service,
        needs: needs.map(|needs| Millis(u64::try_from(needs.0.as_millis()).unwrap_or(u64::MAX))),
    };
    Ok(budget::closed(&asked, context.now))
}
