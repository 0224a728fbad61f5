//! What the agent shows the writer: the reports of its orders, of its newest runs, and of itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Agent;
use crate::report::compose::Sources;
use crate::report::document::{AgentReport, REPORT_VERSION};
use crate::report::writer::{Report, Wanted};

/// How many orders the agent's own report names.
const ORDERS_NAMED: usize = 100;
/// How many conditions it names.
const CONDITIONS: usize = 20;

impl Agent {
    /// Shows what the store should hold now; what has not changed stays the same.
    pub(super) fn publish(&mut self) {
        let before = self.wanted.borrow().clone();
        let mut wanted = BTreeMap::new();
        let mut add = |key: String, report: Report| {
            let same = before.reports.get(&key).filter(|before| ***before == report).cloned();
            wanted.insert(key, same.unwrap_or_else(|| Arc::new(report)));
        };
        let keys = &self.settings.keys;
        let mut phases = BTreeMap::new();
        if let Ok(ledger) = &self.ledger {
            let (memory, decision, runs) = (ledger.memory(), &self.decision, self.runs.views());
            Sources { host: &self.host, memory, decision, runs }.each_order(|order, report| {
                if phases.len() < ORDERS_NAMED {
                    phases.insert(order.to_string(), report.phase.clone());
                }
                add(keys.order_report(&self.host, order), Report::Order(Box::new(report)));
            });
            for (run, report) in self.runs.reports() {
                add(keys.run_report(&self.host, run), Report::Run(Box::new(report)));
            }
        }
        let agent = AgentReport {
            version: REPORT_VERSION,
            host: self.host.to_string(),
            hostler: env!("CARGO_PKG_VERSION").to_owned(),
            boot: self.boot.clone(),
            groups: self.settings.groups.clone(),
            conditions: self.conditions(),
            orders: phases,
            ..AgentReport::default()
        };
        add(keys.agent_report(&self.host), Report::Agent(Box::new(agent)));
        let wanted = Wanted { reports: wanted, sightings: self.sightings };
        if *before != wanted {
            self.wanted.send_replace(Arc::new(wanted));
        }
    }

    fn conditions(&self) -> Vec<String> {
        let mut conditions: Vec<String> = self.sights.iter().filter_map(|sight| sight.condition()).collect();
        conditions.extend(self.ledger.as_ref().err().map(|error| format!("safe mode: {error}")));
        conditions.extend(self.ledger_full.iter().map(|error| format!("ledger: {error}")));
        conditions.extend(self.catalog.iter().filter_map(|(_, task)| task.err().map(ToString::to_string)));
        conditions.extend(self.standings.conditions());
        conditions.truncate(CONDITIONS);
        conditions
    }
}
