//! An order is held against its task: what it needs, or why it is refused.

use super::recurring::RecurringOrders;
use super::secrets::Secrets;
use super::secrets::VersionResult;
use super::unready::Waiting;
use crate::catalog::trust::OwnerRule;
use crate::catalog::{Broken, Catalog, Loaded, NoTask, copy};
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::PathBuf;

use super::{Agent, gates, prepare, recurring};
use crate::config;
use crate::domain::decide::{CheckedOrder, Requirements, SeenOrder};
use crate::domain::ids::RunId;
use crate::domain::name::Name;
use crate::domain::order::Document;
use crate::domain::plan::Trigger;
use crate::domain::source::OrderKey;
use crate::domain::text::head;
use crate::host::clock;
use jiff::Timestamp;

/// The tasks, and what the agent knows of orders besides the ledger.
pub(super) struct OrderBook {
    pub(super) catalog: Catalog,
    /// What is reported of the installed tasks: version and beginning of the digest, or `broken`.
    pub(super) known_tasks: BTreeMap<String, String>,
    pub(super) checked: BTreeMap<OrderKey, CheckedOrder>,
    pub(super) recurring: RecurringOrders,
    pub(super) secrets: Secrets,
    pub(super) unready: Waiting,
}

/// So many digits of a digest tell the versions of a task apart.
const DIGITS: usize = 12;

/// What is reported of an installed task.
fn reported(task: Result<&Loaded, &Broken>, rule: OwnerRule) -> String {
    let Ok(loaded) = task else { return "broken".to_owned() };
    let digest = copy::digest_of(&loaded.folder, rule);
    let digest = digest.as_deref().map_or("unreadable", |digest| digest.trim_start_matches("sha256:"));
    format!("{} sha256:{}", loaded.task.version, head(digest, DIGITS))
}

impl OrderBook {
    /// Knows what to report of the installed tasks.
    pub(super) fn know_tasks(&mut self, rule: OwnerRule) {
        let all = self.catalog.iter();
        self.known_tasks = all.map(|(name, task)| (name.to_owned(), reported(task, rule))).collect();
    }

    /// The same for a task that was just read again.
    fn know_task(&mut self, task: &Name, rule: OwnerRule) {
        let name = task.to_string();
        match self.catalog.get(task.as_str()) {
            Ok(loaded) => drop(self.known_tasks.insert(name, reported(Ok(loaded), rule))),
            Err(NoTask::Broken(broken)) => drop(self.known_tasks.insert(name, reported(Err(&broken), rule))),
            Err(NoTask::Unknown { .. }) => drop(self.known_tasks.remove(&name)),
        }
    }

    /// Takes in what Vault said.
    pub(super) fn told(&mut self, round: u64, path: String, told: VersionResult) {
        self.secrets.take(round, path, told);
    }
}

impl Agent {
    /// The order as the store shows it; while the store gives no answer at all, as the ledger has it.
    pub(super) fn known(&self, key: &OrderKey) -> Option<&SeenOrder> {
        let copies = self.sync.status.away.then_some(&self.orders.recurring.copies);
        copies.map_or_else(|| self.sync.desired.orders.get(key), |copies| copies.get(key))
    }

    /// Gates are asked once more with the next decision: what they ask for may have changed.
    pub(super) fn look_at_gates_again(&mut self) {
        for checked in self.orders.checked.values_mut() {
            if let Ok(needs) = &mut checked.finding
                && let Some(answer) = &mut needs.gates
            {
                answer.asked = Timestamp::UNIX_EPOCH;
            }
        }
    }

    /// Holds an order against its task, which is read anew unless it is among `tasks_read`; true if that was possible.
    pub(super) fn examine(&mut self, key: &OrderKey, tasks_read: &mut BTreeSet<Name>) -> bool {
        let Some(seen) = self.known(key).cloned() else { return false };
        let Ok(Document::Order(order)) = &seen.document else { return false };
        let mut read_again = false;
        let finding = if !config::allows(&self.config.settings.allow, &order.task) {
            Err(format!(
                "task {} is not allowed on this host: see `tasks.allow` in its configuration",
                order.task
            ))
        } else {
            let place = self.place(PathBuf::new());
            let work = prepare::RunContext {
                key,
                host: &self.identity.host,
                run: RunId::new(0, 0),
                trigger: Trigger::Placed,
                place,
            };
            // A gate that is asked again asks what it asked before: nothing else of the order is looked at anew, so a
            // task that is being replaced at this moment does no harm.
            let checked = self.orders.checked.get(key).filter(|checked| checked.index == seen.index);
            let again =
                checked.is_some_and(|checked| checked.finding.as_ref().is_ok_and(|n| n.gates.is_some()));
            read_again = !again && tasks_read.insert(order.task.clone());
            let loaded = match read_again {
                true => self.orders.catalog.refresh(&order.task),
                false => self.orders.catalog.get(order.task.as_str()),
            };
            loaded.map_err(|error| error.to_string()).and_then(|loaded| {
                let plan = work.plan(order, &loaded.task, String::new())?;
                let task = &loaded.task;
                if let Some(why) = recurring::unbearable(order, task) {
                    return Err(why);
                }
                let context = gates::GateContext {
                    downtime: &self.durable.downtime.record,
                    objectives: &self.config.settings.objectives,
                    facts: &self.facts,
                    labels: &self.config.settings.labels,
                    now: clock::now(),
                };
                let gates = gates::ask(&context, task, &plan)?.map(Box::new);
                let (repeatable, offline) = (task.is_repeatable(), task.offline);
                let (probe, emergency) = (plan.probe.is_some(), task.emergency);
                let secrets = !plan.secrets.is_empty();
                let (locks, plan) = (plan.resources, plan.version);
                Ok(Requirements { repeatable, locks, gates, offline, probe, secrets, emergency, plan })
            })
        };
        if read_again {
            self.orders.know_task(&order.task, self.identity.rule);
        }
        self.orders.checked.insert(key.clone(), CheckedOrder { index: seen.index, finding });
        true
    }
}
