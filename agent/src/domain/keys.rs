//! Where everything stands in the store: the one place that spells a key.

use super::control::ControlId;
use super::ids::RunId;
use super::name::Name;

/// The last part of a marker's key; no order can have this name.
pub const MARKER: &str = "_hostler";

/// The prefix, unless the configuration says otherwise.
pub const DEFAULT_PREFIX: &str = "hostler/";

/// Spells keys below one prefix, such as `hostler/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    prefix: String,
}

impl Keys {
    /// Keys below `prefix`; a missing final slash is added, leading ones are dropped.
    pub fn new(prefix: &str) -> Self {
        let trimmed = prefix.trim_matches('/');
        let prefix = if trimmed.is_empty() { String::new() } else { format!("{trimmed}/") };
        Self { prefix }
    }

    /// The prefix itself.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The orders of one host: a prefix that ends in `/`.
    pub fn host_orders(&self, host: &Name) -> String {
        format!("{}orders/hosts/{host}/", self.prefix)
    }

    /// The orders of one group: a prefix that ends in `/`.
    pub fn group_orders(&self, group: &Name) -> String {
        format!("{}orders/groups/{group}/", self.prefix)
    }

    /// All orders: a prefix.
    pub fn all_orders(&self) -> String {
        format!("{}orders/", self.prefix)
    }

    /// The control documents for one host: a prefix.
    pub fn controls(&self, host: &Name) -> String {
        format!("{}{host}/", self.all_controls())
    }

    /// The control documents for all hosts: a prefix.
    pub fn all_controls(&self) -> String {
        format!("{}control/hosts/", self.prefix)
    }

    /// One control for an order of a host.
    pub fn control(&self, host: &Name, order: &Name, id: ControlId) -> String {
        format!("{}{order}/{id}", self.controls(host))
    }

    /// The freeze of one group.
    pub fn freeze(&self, group: &Name) -> String {
        format!("{}{group}", self.freezes())
    }

    /// The freezes of all groups: a prefix.
    pub fn freezes(&self) -> String {
        format!("{}freeze/", self.prefix)
    }

    /// What the agents say of themselves: a prefix, one key a host.
    pub fn agent_reports(&self) -> String {
        format!("{}reports/agents/", self.prefix)
    }

    /// What one agent says of itself.
    pub fn agent_report(&self, host: &Name) -> String {
        format!("{}reports/agents/{host}", self.prefix)
    }

    /// The order reports of all hosts: a prefix.
    pub fn all_order_reports(&self) -> String {
        format!("{}reports/orders/", self.prefix)
    }

    /// The order reports of one host: a prefix.
    pub fn order_reports(&self, host: &Name) -> String {
        format!("{}reports/orders/{host}/", self.prefix)
    }

    /// The report of one order on one host.
    pub fn order_report(&self, host: &Name, order: &Name) -> String {
        format!("{}reports/orders/{host}/{order}", self.prefix)
    }

    /// The run reports of one host: a prefix.
    pub fn run_reports(&self, host: &Name) -> String {
        format!("{}reports/runs/{host}/", self.prefix)
    }

    /// The run reports of all hosts: a prefix.
    pub fn all_run_reports(&self) -> String {
        format!("{}reports/runs/", self.prefix)
    }

    /// The report of one run.
    pub fn run_report(&self, host: &Name, run: RunId) -> String {
        format!("{}reports/runs/{host}/{run}", self.prefix)
    }

    /// The marker below `prefix` (one of the prefixes above).
    pub fn marker(prefix: &str) -> String {
        format!("{prefix}{MARKER}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_ends_in_one_slash() {
        let host: Name = "db1".parse().unwrap();
        for prefix in ["hostler", "hostler/", "/hostler/"] {
            assert_eq!(Keys::new(prefix).host_orders(&host), "hostler/orders/hosts/db1/");
        }
        assert_eq!(Keys::new("").freezes(), "freeze/");
    }
}
