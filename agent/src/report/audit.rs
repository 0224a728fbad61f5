//! The report of a host's audit: its newest entries, at `reports/audit/<host>`.
//!
//! It lets people ask the store what happened on many hosts; the proof is the record on the host, whose newest line the
//! report names. It is written when the record has grown, at most every ten seconds, and never renewed.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::bounds::{STAMPS, json_bytes};
use super::document::REPORT_VERSION;
use crate::domain::audit::{Head, NumberedEntry};
use crate::domain::name::Name;
use crate::domain::text;

/// The largest report of an audit, in bytes of JSON.
pub const MAX_AUDIT_REPORT: usize = 8 << 10;

/// The newest entries of a host's audit; at most 8 KiB.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct AuditReport {
    /// [`REPORT_VERSION`]
    pub version: u32,
    /// The host.
    pub host: String,
    /// The newest line: its number and its hash.
    pub head: Head,
    /// The newest entries, the newest first.
    pub entries: Vec<NumberedEntry>,
    /// When this report was written; put at the end by the writer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updated: Option<Timestamp>,
    /// Always null. As `updated`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_report_by: Option<Timestamp>,
}

/// The report of an audit: as many of its entries, the newest first, as there is room for.
pub fn compose<'a>(host: &Name, head: &Head, newest: impl Iterator<Item = &'a NumberedEntry>) -> AuditReport {
    let mut report = AuditReport {
        version: REPORT_VERSION,
        host: host.to_string(),
        head: head.clone(),
        ..AuditReport::default()
    };
    let mut room = (MAX_AUDIT_REPORT - STAMPS).saturating_sub(json_bytes(&report));
    for entry in newest {
        let entry = cleaned(entry);
        // And a comma.
        let size = json_bytes(&entry) + 1;
        if size > room {
            break;
        }
        room -= size;
        report.entries.push(entry);
    }
    report
}

/// An entry without control characters, which reports do not have.
fn cleaned(entry: &NumberedEntry) -> NumberedEntry {
    let mut entry = entry.clone();
    let texts = &mut entry.entry;
    for text in [
        &mut texts.order,
        &mut texts.task,
        &mut texts.why,
        &mut texts.params,
        &mut texts.by,
        &mut texts.reason,
        &mut texts.end,
        &mut texts.error,
        &mut texts.step,
    ]
    .into_iter()
    .flatten()
    {
        *text = text::clean(text);
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::audit::Entry;

    #[test]
    fn the_newest_entries_have_room_and_no_control_characters() {
        let entry = |n: u64, reason: &str| NumberedEntry {
            n,
            at: Timestamp::UNIX_EPOCH,
            entry: Entry { what: "held".into(), reason: Some(reason.into()), ..Entry::default() },
        };
        let host: Name = "db1".parse().unwrap();
        let head = Head { n: 100, hash: "f".repeat(64) };
        let many: Vec<NumberedEntry> = (1..=100).rev().map(|n| entry(n, &"\u{1b}[2J".repeat(75))).collect();
        let report = compose(&host, &head, many.iter());
        assert!(json_bytes(&report) <= MAX_AUDIT_REPORT - STAMPS, "{}", json_bytes(&report));
        assert!(report.entries.len() > 10, "{}", report.entries.len());
        assert_eq!(report.entries.first().map(|entry| entry.n), Some(100));
        let reason = report.entries.first().and_then(|entry| entry.entry.reason.clone()).unwrap();
        assert!(!reason.contains('\u{1b}') && reason.contains("[2J"), "{reason}");
        assert_eq!(compose(&host, &head, [].iter()).entries, []);
    }
}
