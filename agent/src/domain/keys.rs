//! The keys in the store: the one module that spells them.
//!
//! Everything that is meant for a host lies below `hosts/<host>/`, everything that is meant for a group below
//! `groups/<group>/`, so a host watches one prefix for itself and one for each of its groups.

use super::control::ControlId;
use super::ids::RunId;
use super::name::Name;
use super::source::{OrderKey, Source};

/// The last part of a marker's key. No order can have this name.
pub const MARKER: &str = "_hostler";

const ORDERS: &str = "orders/";
const CONTROL: &str = "control/";
const FREEZE: &str = "freeze";

/// What a key is, by its part behind the prefix of a host or group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind<'a> {
    /// The marker.
    Marker,
    /// An order of this name, which may be no name.
    Order(&'a str),
    /// A control, `ORDER/ID`, which may be neither.
    Control(&'a str),
    /// The freeze.
    Freeze,
    /// None of these.
    Unknown,
}

impl<'a> Kind<'a> {
    /// The kind of a key whose part behind [`Keys::source`] is `rest`.
    pub fn of(rest: &'a str) -> Self {
        if let Some(name) = rest.strip_prefix(ORDERS) {
            return Self::Order(name);
        }
        if let Some(name) = rest.strip_prefix(CONTROL) {
            return Self::Control(name);
        }
        match rest {
            MARKER => Self::Marker,
            FREEZE => Self::Freeze,
            _ => Self::Unknown,
        }
    }
}

/// The part of a key before `hosts/` or `groups/`, below whatever prefix; `None`: it is a key of neither.
pub fn above_sources(key: &str) -> Option<&str> {
    let starts = |at: &usize| *at == 0 || key.get(..*at).is_some_and(|before| before.ends_with('/'));
    let first = |part: &str| key.match_indices(part).map(|(at, _)| at).find(starts);
    let source = ["hosts/", "groups/"].into_iter().filter_map(first).min()?;
    let is_report = first("reports/").is_some_and(|report| report < source);
    key.get(..source).filter(|_| !is_report)
}

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

    /// Everything that is meant for the hosts: a prefix.
    pub fn hosts(&self) -> String {
        format!("{}hosts/", self.prefix)
    }

    /// Everything that is meant for the groups: a prefix.
    pub fn groups(&self) -> String {
        format!("{}groups/", self.prefix)
    }

    /// Everything that is meant for one host or group: the prefix that a host watches, which ends in `/`.
    pub fn source(&self, source: &Source) -> String {
        format!("{}{source}/", self.prefix)
    }

    /// The orders of one host or group: a prefix.
    pub fn orders(&self, source: &Source) -> String {
        format!("{}{ORDERS}", self.source(source))
    }

    /// One order.
    pub fn order(&self, key: &OrderKey) -> String {
        format!("{}{}", self.orders(&key.source), key.order)
    }

    /// The control documents for one host: a prefix.
    pub fn controls(&self, host: &Name) -> String {
        format!("{}{host}/{CONTROL}", self.hosts())
    }

    /// The control documents for one order of a host: a prefix.
    pub fn controls_of_order(&self, host: &Name, order: &Name) -> String {
        format!("{}{order}/", self.controls(host))
    }

    /// One control for an order of a host.
    pub fn control(&self, host: &Name, order: &Name, id: ControlId) -> String {
        format!("{}{id}", self.controls_of_order(host, order))
    }

    /// The former documents of the orders of one host or group, for people: a prefix. No host reads it.
    pub fn former_of(&self, source: &Source) -> String {
        format!("{}history/{source}/", self.prefix)
    }

    /// The former documents of one order: a prefix, one key a document.
    pub fn former(&self, key: &OrderKey) -> String {
        format!("{}{}/", self.former_of(&key.source), key.order)
    }

    /// The freeze of one host or group.
    pub fn freeze(&self, source: &Source) -> String {
        format!("{}{FREEZE}", self.source(source))
    }

    /// The marker of one host or group.
    pub fn marker(&self, source: &Source) -> String {
        format!("{}{MARKER}", self.source(source))
    }

    /// What the agents say of themselves: a prefix, one key a host.
    pub fn agent_reports(&self) -> String {
        format!("{}reports/agents/", self.prefix)
    }

    /// What one agent says of itself.
    pub fn agent_report(&self, host: &Name) -> String {
        format!("{}reports/agents/{host}", self.prefix)
    }

    /// What the hosts say of themselves: a prefix, one key a host.
    pub fn facts_reports(&self) -> String {
        format!("{}reports/facts/", self.prefix)
    }

    /// What one host says of itself: its facts.
    pub fn facts_report(&self, host: &Name) -> String {
        format!("{}reports/facts/{host}", self.prefix)
    }

    /// The newest entries of the hosts' audits: a prefix, one key a host.
    pub fn audit_reports(&self) -> String {
        format!("{}reports/audit/", self.prefix)
    }

    /// The newest entries of one host's audit.
    pub fn audit_report(&self, host: &Name) -> String {
        format!("{}reports/audit/{host}", self.prefix)
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_ends_in_one_slash() {
        let host: Source = "hosts/db1".parse().unwrap();
        for prefix in ["hostler", "hostler/", "/hostler/"] {
            assert_eq!(Keys::new(prefix).orders(&host), "hostler/hosts/db1/orders/");
        }
        assert_eq!(Keys::new("").freeze(&"groups/all".parse().unwrap()), "groups/all/freeze");
    }

    #[test]
    fn keys_of_hosts_and_groups_are_told_from_reports_below_any_prefix() {
        for (key, above) in [
            ("hostler/hosts/db1/orders/x", Some("hostler/")),
            ("a/b/groups/all/freeze", Some("a/b/")),
            ("hosts/db1/", Some("")),
            ("hostler/groups/hosts/orders/reports", Some("hostler/")),
            ("hostler/reports/orders/hosts/x", None),
            ("hostler/reports/agents/groups/", None),
            ("my-hosts/reports/agents/x", None),
            ("hostler/", None),
        ] {
            assert_eq!(above_sources(key), above, "{key}");
        }
    }

    #[test]
    fn each_key_below_a_host_or_group_is_of_the_kind_that_it_is_spelled_as() {
        let keys = Keys::new("t/");
        let id = ControlId::new(5, 7);
        for source in ["hosts/db1", "groups/all"] {
            let source: Source = source.parse().unwrap();
            let prefix = keys.source(&source);
            let order = OrderKey { source: source.clone(), order: "backup".parse().unwrap() };
            for (key, kind) in [
                (keys.marker(&source), Kind::Marker),
                (keys.order(&order), Kind::Order("backup")),
                (keys.freeze(&source), Kind::Freeze),
                (format!("{prefix}freeze/x"), Kind::Unknown),
                (format!("{prefix}backup"), Kind::Unknown),
                (prefix.clone(), Kind::Unknown),
            ] {
                assert_eq!(Kind::of(key.strip_prefix(&prefix).unwrap()), kind, "{key}");
            }
        }
        let key = keys.control(&"db1".parse().unwrap(), &"backup".parse().unwrap(), id);
        let control = format!("backup/{id}");
        assert_eq!(Kind::of(key.strip_prefix("t/hosts/db1/").unwrap()), Kind::Control(&control));
    }
}
