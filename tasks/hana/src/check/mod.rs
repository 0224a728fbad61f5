//! `check`: what is true of host, media and system, and what of it forbids the next change.
//!
//! `gather` asks and changes nothing; `judge` is pure. Each finding has the raw line beside what was understood, so
//! that a host whose tools print something else shows it before it matters.

mod gather;
mod glance;
mod judge;

use serde::Serialize;

use crate::error::Error;
pub use gather::{Wish, disks, extractions_at_work, gather, hdblcm_at_work, recoveries_at_work};
pub use glance::{Glance, glance};
pub use judge::{FULL, Observed, judge};

/// The change that the check comes before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Before {
    /// The system is installed.
    Install,
    /// It is updated in place.
    Update,
    /// It becomes the primary.
    Takeover,
    /// Its data is replaced from a backup.
    Restore,
}

/// How heavy a finding is; the worst is the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Weight {
    /// The change must not begin.
    Forbids,
    /// The change needs to know this, and it cannot be told: it must not begin either.
    Unclear,
    /// It cannot be told, and the change does not need it.
    Unknown,
    /// Worth a look.
    Warns,
    /// As it should be.
    Fine,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How heavy it is.
    pub weight: Weight,
    /// What was looked at.
    pub subject: String,
    /// What was understood.
    pub understood: String,
    /// What was read, shortened to one line.
    pub raw: String,
    /// What to do; empty where nothing is to do.
    pub fix: String,
}

/// A value, or why it cannot be told, with what was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen<T> {
    /// What was read, shortened to one line.
    pub raw: String,
    /// What was understood.
    pub value: Result<T, String>,
}

impl<T> Seen<T> {
    /// From a text and what became of it.
    pub fn new(raw: &str, value: Result<T, Error>) -> Self {
        let value = value.map_err(|error| match error {
            Error::Unclear(why) => why,
            other => other.to_string(),
        });
        Self { raw: line(raw), value }
    }
}

/// A text as one line of at most 300 characters, its lines separated by ` | `.
fn line(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).take(20).collect();
    let mut joined: String = lines.join(" | ").chars().filter(|letter| !letter.is_control()).collect();
    if let Some((at, _)) = joined.char_indices().nth(300) {
        joined.truncate(at);
        joined.push('…');
    }
    joined
}

/// Whether a finding of these forbids the change.
pub fn forbidden(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| matches!(finding.weight, Weight::Forbids | Weight::Unclear))
}

/// The findings for people, worst first.
pub fn table(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let word = match finding.weight {
            Weight::Forbids => "FORBIDS",
            Weight::Unclear => "CANNOT TELL",
            Weight::Unknown => "not known",
            Weight::Warns => "warns",
            Weight::Fine => "fine",
        };
        text.push_str(&format!("{word:<12} {:<22} {}\n", finding.subject, finding.understood));
        for (name, value) in [("raw", &finding.raw), ("fix", &finding.fix)] {
            if !value.is_empty() {
                text.push_str(&format!("{:<12} {name:>22} {value}\n", ""));
            }
        }
    }
    text
}
