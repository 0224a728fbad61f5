//! The report of a host's facts: what it says of itself, at `reports/facts/<host>`.
//!
//! It is written when something has changed, and never renewed: that the host lives, its agent's own report says.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::bounds::{STAMPS, json_bytes};
use super::document::REPORT_VERSION;
use crate::domain::facts::{FactName, HOST, Known, Object};
use crate::domain::name::Name;

/// The largest report of facts, in bytes of JSON.
pub const MAX_FACTS_REPORT: usize = 8 << 10;

/// What a host says of itself; at most 8 KiB.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct FactsReport {
    /// [`REPORT_VERSION`]
    pub version: u32,
    /// The host.
    pub host: String,
    /// The labels of its configuration.
    pub labels: BTreeMap<String, String>,
    /// Its facts by name.
    pub facts: BTreeMap<String, Object>,
    /// Those of them whose command has failed since.
    pub stale: Vec<String>,
    /// The facts that have no room in this report.
    pub left_out: Vec<String>,
    /// When this report was written; put at the end by the writer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updated: Option<Timestamp>,
    /// Always null. As `updated`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_report_by: Option<Timestamp>,
}

/// The report of facts: the built-in one first, then by name, as many as there is room for.
pub fn compose<'a>(
    host: &Name,
    labels: &BTreeMap<String, String>,
    facts: impl Iterator<Item = (&'a FactName, Known<'a>)>,
) -> FactsReport {
    let mut known: Vec<(&str, &Object, bool)> = facts
        .filter_map(|(name, known)| match known {
            Known::Fresh(value) => Some((name.as_str(), value, false)),
            Known::Stale(value) => Some((name.as_str(), value, true)),
            Known::Absent => None,
        })
        .collect();
    known.sort_by_key(|(name, ..)| (*name != HOST, *name));
    let mut report = FactsReport {
        version: REPORT_VERSION,
        host: host.to_string(),
        labels: labels.clone(),
        ..FactsReport::default()
    };
    // Each name needs room, in one list or in the other.
    let names: usize = known.iter().map(|(name, ..)| name.len() + 3).sum();
    for (name, value, stale) in known {
        report.facts.insert(name.to_owned(), value.clone());
        if stale {
            report.stale.push(name.to_owned());
        }
        if json_bytes(&report) + names + STAMPS > MAX_FACTS_REPORT {
            report.facts.remove(name);
            report.stale.retain(|stale| stale != name);
            report.left_out.push(name.to_owned());
        }
    }
    report
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_does_not_fit_is_left_out_by_name_and_the_built_in_fact_never() {
        let of = |length: usize| json!({"x": "ä".repeat(length / 2)}).as_object().unwrap().clone();
        let (large, small) = (of(4000), of(10));
        let names: Vec<FactName> = ["a", "b", "c", "host", "z"].map(|name| name.parse().unwrap()).into();
        let value = |name: &FactName| match name.as_str() {
            "a" | "b" => Known::Fresh(&large),
            "c" | "host" => Known::Fresh(&small),
            _ => Known::Stale(&small),
        };
        let labels = BTreeMap::from([("site".to_owned(), "fra".to_owned())]);
        let report = compose(&"db1".parse().unwrap(), &labels, names.iter().map(|name| (name, value(name))));
        let facts: Vec<&str> = report.facts.keys().map(String::as_str).collect();
        assert_eq!((facts, &report.left_out), (vec!["a", "c", "host", "z"], &vec!["b".to_owned()]));
        assert_eq!(report.stale, ["z"]);
        assert!(json_bytes(&report) + STAMPS <= MAX_FACTS_REPORT);
        let many: Vec<FactName> =
            (0..64).map(|n| format!("{}{n:02}", "n".repeat(30)).parse().unwrap()).collect();
        let report =
            compose(&"db1".parse().unwrap(), &labels, many.iter().map(|name| (name, Known::Stale(&large))));
        assert!(json_bytes(&report) + STAMPS <= MAX_FACTS_REPORT, "{}", json_bytes(&report));
        assert_eq!(report.facts.len() + report.left_out.len(), 64);
    }
}
